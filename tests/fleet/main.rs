//! Many hosts at once: ten of them and a limit of three, a third of them killed, and two that leave a pool of three at the
//! same time. What each part is about:
//!
//! - `limit`: never more than N out, whoever counts;
//! - `killed`: the same with runs that die half way;
//! - `capacity`: two that start together where only one can be spared.
//!
//! What happened is taken from two witnesses who are no part of the product: etcd's own history of the pool (`history`), in
//! which every revision is counted, and the load balancers' record of whom they sent to. `fleet` starts the runs.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod capacity;
mod fleet;
mod history;
mod killed;
mod limit;

const TOOL: &str = "/usr/sbin/safe-service-restart";
