//! The crate against the real php-fpm 8.2 of the test bed's root file system. One file a subject; needs what `tests/prepare` installs,
//! and root. What is missing is a failure, never a skip.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod booted;
mod caches;
mod dialect;
mod fpm;
mod pages;
mod scripts;
