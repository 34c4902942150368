//! Temporary folders, named after the process that made them: `tests/prepare` can then tell the leftovers of a killed
//! test from the folders of one that runs, and remove them.

use anyhow::{Context, Result};
use tempfile::{Builder, TempDir};

/// A folder that goes with the value: `testbed-PID-KIND-...`.
pub(crate) fn folder(kind: &str) -> Result<TempDir> {
    let made = Builder::new().prefix(&prefix(kind)).tempdir();
    made.with_context(|| format!("cannot make a temporary folder for {kind}"))
}

/// The same in memory where there is such a place: for programs that sync every write to the disk.
pub(crate) fn folder_in_memory(kind: &str) -> Result<TempDir> {
    Builder::new().prefix(&prefix(kind)).tempdir_in("/dev/shm").or_else(|_| folder(kind))
}

fn prefix(kind: &str) -> String {
    format!("testbed-{}-{kind}-", std::process::id())
}
