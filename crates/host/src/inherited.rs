//! What a caller hands down besides the environment: resource limits, signals and the working folder. sudo passes them on as they are, so
//! that a deploy user's `ulimit -f 4` would end a run in the middle, with the host out of its pools, and Ctrl-Z would stop it there.

use std::path::Path;

use nix::sys::resource::{RLIM_INFINITY, Resource, getrlimit, setrlimit};
use nix::sys::signal::{SigHandler, SigSet, Signal, signal};

use crate::environment::is_root;

/// Limits that end a process, or make its calls fail.
const LIMITS: [Resource; 4] =
    [Resource::RLIMIT_CPU, Resource::RLIMIT_FSIZE, Resource::RLIMIT_AS, Resource::RLIMIT_DATA];
/// By these a terminal's job control stops whoever it is told to, and whoever reads from it or writes to it in the background. A run that
/// is stopped has the host, and its lock, and nobody finishes it.
const JOB_CONTROL: [Signal; 3] = [Signal::SIGTSTP, Signal::SIGTTIN, Signal::SIGTTOU];
/// Limits that need not be without end, and what is enough: more open files than any tool of ours needs, systemd's own default for
/// services; and the stack that Linux gives to whoever says nothing.
const ENOUGH: [(Resource, u64); 2] = [(Resource::RLIMIT_NOFILE, 1024), (Resource::RLIMIT_STACK, 8 * 1024 * 1024)];

/// As root, takes the caller's limits off. What cannot be lifted stays: a service manager may have set it on purpose and taken the
/// right to lift it, as a hardened unit does.
pub fn lift_limits() {
    if !is_root() {
        return;
    }
    for limit in LIMITS {
        lift(limit, RLIM_INFINITY);
    }
    for (limit, enough) in ENOUGH {
        if getrlimit(limit).is_ok_and(|(soft, _)| soft < enough) {
            lift(limit, enough);
        }
    }
}

fn lift(limit: Resource, wanted: u64) {
    let Ok((_, hard)) = getrlimit(limit) else { return };
    if setrlimit(limit, wanted, hard.max(wanted)).is_err() {
        // Nobody is there yet to be told; the soft limit at least can go up to the hard one.
        let _ = setrlimit(limit, hard, hard);
    }
}

/// Takes signals as a run needs them. To be called before any thread is started: a thread blocks what its maker does, and so does a child,
/// which is not to be stopped either.
#[allow(unsafe_code)]
pub fn own_signals() {
    // Nobody is there yet to be told, and neither call fails for signals that there are.
    let _ = JOB_CONTROL.into_iter().collect::<SigSet>().thread_set_mask();
    // SAFETY: no code of ours is made a handler, and the handler that was there is not used.
    // Whoever ignores the end of its children has none that it can wait for, and cannot even ask systemctl.
    let _ = unsafe { signal(Signal::SIGCHLD, SigHandler::SigDfl) };
}

/// Takes every signal, also those that the caller blocks. For a tool that has no host and may be stopped at a terminal. To be called before
/// any thread is started.
pub fn every_signal() {
    // As above.
    let _ = SigSet::empty().thread_set_mask();
}

/// Leaves the caller's folder for one that nobody else owns. For a tool that takes no path of its caller.
pub fn leave_folder() {
    // It cannot fail on a system that runs; and whoever cannot leave is where it was.
    let _ = std::env::set_current_dir(Path::new("/"));
}
