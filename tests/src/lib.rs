//! The test bed: real parts for tests of a tool whose mistakes only show on real parts.
//!
//! A restart that drops requests, a host that stays depooled, a load balancer believed too early: none of these can be
//! seen with fakes. So each module here owns one real thing as a value that cleans up after itself: an etcd member, the
//! real `confctl`, HAProxy, a host that really boots with systemd and PHP-FPM, a load generator that counts lost
//! requests. The one thing that cannot be installed is PyBal; [`pybal`] is a stand-in that speaks and paces as it does
//! and can be told to misbehave. [`site`] puts them together.
//!
//! Everything listens on addresses of its own in 127.0.0.0/8 ([`address`]), so tests run side by side. Everything ends
//! with the value that owns it, and also when the test process is killed. `tests/prepare` installs what this needs.

pub mod address;
pub mod certificates;
pub mod conftool;
pub mod deployment;
pub mod etcd;
pub mod haproxy;
pub mod host;
pub mod load;
pub mod manual;
pub mod poolcounterd;
pub mod prepared;
pub mod process;
pub mod pybal;
pub mod relay;
mod scratch;
pub mod shop;
pub mod site;
pub mod ssh;
pub mod wait;

pub use anyhow::Result;
