//! Many hosts at once: ten of them and a limit of three, a third of them killed, and two that leave a pool of three at the
//! same time. What each part is about:
//!
//! - `limit`: never more than N out, whoever counts;
//! - `killed`: the same with runs that die half way;
//! - `capacity`: two that start together where only one can be spared;
//! - `rolling`: `rolling-restart` from a deployment host over ssh: a fifth at a time, a host that does not come back, and a run that is
//!   killed and resumed;
//! - `ways_in`: an emergency over the fleet, what the deploy tool says over ssh, clush, and something else than PHP-FPM;
//! - `out_of_reach`: what is said of hosts that ssh or sudo does not let through.
//!
//! What happened is taken from two witnesses who are no part of the product: etcd's own history of the pool (`history`), in
//! which every revision is counted, and the load balancers' record of whom they sent to. `fleet` starts the runs, `deployment`
//! has them come over ssh.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod capacity;
mod deployment;
mod fleet;
mod history;
mod killed;
mod limit;
mod out_of_reach;
mod rolling;
mod ways_in;

const TOOL: &str = "/usr/sbin/safe-service-restart";
