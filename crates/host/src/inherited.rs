//! What a caller hands down besides the environment: resource limits and the working folder. sudo passes both on as they are, so that
//! a deploy user's `ulimit -f 4` would end a run in the middle, with the host out of its pools.

use std::path::Path;

use nix::sys::resource::{RLIM_INFINITY, Resource, getrlimit, setrlimit};

use crate::environment::is_root;

/// Limits that end a process, or make its calls fail.
const LIMITS: [Resource; 4] =
    [Resource::RLIMIT_CPU, Resource::RLIMIT_FSIZE, Resource::RLIMIT_AS, Resource::RLIMIT_DATA];
/// More open files than any tool of ours needs; systemd's own default for services.
const FILES: u64 = 1024;

/// As root, takes the caller's limits off. What cannot be lifted stays: a service manager may have set it on purpose and taken the
/// right to lift it, as a hardened unit does.
pub fn lift_limits() {
    if !is_root() {
        return;
    }
    for limit in LIMITS {
        lift(limit, RLIM_INFINITY);
    }
    if getrlimit(Resource::RLIMIT_NOFILE).is_ok_and(|(soft, _)| soft < FILES) {
        lift(Resource::RLIMIT_NOFILE, FILES);
    }
}

fn lift(limit: Resource, wanted: u64) {
    let Ok((_, hard)) = getrlimit(limit) else { return };
    if setrlimit(limit, wanted, hard.max(wanted)).is_err() {
        // Nobody is there yet to be told; the soft limit at least can go up to the hard one.
        let _ = setrlimit(limit, hard, hard);
    }
}

/// Leaves the caller's folder for one that nobody else owns. For a tool that takes no path of its caller.
pub fn leave_folder() {
    // It cannot fail on a system that runs; and whoever cannot leave is where it was.
    let _ = std::env::set_current_dir(Path::new("/"));
}
