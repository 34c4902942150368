//! Where `tests/prepare` puts what it makes. Asked for before anything is started, so that a machine that was never
//! prepared is told so in one sentence instead of in the words of whichever program is missing.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

const CACHE: &str = "/var/cache/safe-service-restart";

/// The definition that the root file system must have been built from.
const ROOTFS_DEFINITION: &str = include_str!("../rootfs.bash");

/// The root file system that test hosts boot, never written to.
pub fn rootfs() -> Result<PathBuf> {
    let link = Path::new(CACHE).join("rootfs");
    let rootfs = fs::canonicalize(&link)
        .with_context(|| format!("no root file system for test hosts at '{}': run tests/prepare", link.display()))?;
    let definition = fs::read_to_string(rootfs.join("etc/testbed-rootfs")).unwrap_or_default();
    ensure!(
        definition == ROOTFS_DEFINITION,
        "the root file system '{}' was not built from this tests/rootfs.bash: run tests/prepare",
        rootfs.display()
    );
    Ok(rootfs)
}

/// A program of the real conftool: `confctl` or `conftool-sync`.
pub fn conftool(program: &str) -> Result<PathBuf> {
    let path = Path::new(CACHE).join("confctl/bin").join(program);
    ensure!(path.exists(), "no '{}': run tests/prepare", path.display());
    Ok(path)
}

/// The folder with the programs of sudo-rs: `sudo` and `visudo`.
pub fn sudo_rs() -> Result<PathBuf> {
    let folder = Path::new(CACHE).join("sudo-rs/bin");
    ensure!(folder.is_dir(), "no '{}': run tests/prepare", folder.display());
    Ok(folder)
}

/// A binary of this workspace, built in the same profile as the running test or demo: `target/PROFILE/NAME`.
pub fn product_binary(name: &str) -> Result<PathBuf> {
    let own = std::env::current_exe().context("cannot find the running executable")?;
    let folder = own.ancestors().skip(1).find(|folder| !folder.ends_with("deps") && !folder.ends_with("examples"));
    let path = folder.context("the running executable is in no folder")?.join(name);
    ensure!(path.exists(), "no '{}': build it first (cargo build -p {name})", path.display());
    Ok(path)
}
