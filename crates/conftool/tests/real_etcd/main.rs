//! Both drivers against real etcd. One file a subject; a missing etcd, etcdctl or openssl is a failure, never a skip.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod basics;
mod etcd;
mod fixture;
mod full;
mod leaks;
mod leases;
mod lost;
mod marks;
mod members;
mod proxy;
mod slots;
mod slots_faults;
mod tls;
mod trust;

/// Makes a test for each of etcd's APIs out of a function that takes one.
#[macro_export]
macro_rules! both_apis {
    ($($test:ident),+ $(,)?) => {
        mod v2 {
            $(#[test] fn $test() { super::$test($crate::etcd::Api::V2); })+
        }
        mod v3 {
            $(#[test] fn $test() { super::$test($crate::etcd::Api::V3); })+
        }
    };
}
