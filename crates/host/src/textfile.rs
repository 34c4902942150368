//! Figures for Prometheus, in a file that node_exporter's textfile collector reads: whole or not at all, and readable by
//! everybody. A figure lost in a power cut is written again by the next run, so nothing waits for the disk.
//!
//! Run as root, only a folder is written that root alone can write. The folders above it do not count, unlike for configuration
//! (see `trusted.rs`): nothing is read from here, and Debian gives `/var/lib/prometheus` to a user of its own.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io;
use std::path::Path;

use nix::errno::Errno;

use crate::environment::is_root;
use crate::own_folder::{FolderError, OwnFolder, above};
use crate::replace::Replacement;

/// What the file is for, in errors.
const PURPOSE: &str = "the figures for Prometheus";

/// node_exporter runs as a user of its own.
const MODE: u32 = 0o644;

/// Puts `content` in the place of the file at `path`.
pub fn write(path: &Path, content: &str) -> Result<(), FolderError> {
    let fault = |what| move |source| FolderError::Io { what, path: path.to_owned(), purpose: PURPOSE, source };
    let distrusted = |why| FolderError::Distrusted { path: path.to_owned(), purpose: PURPOSE, why };
    let name = path.file_name().ok_or_else(|| distrusted("it names no file"))?;
    // A rename would put a file in the place of /dev/stdout.
    match fs::symlink_metadata(path) {
        Ok(found) if !found.is_file() => return Err(distrusted("it is not a regular file")),
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(fault("look at")(error)),
        Ok(_) | Err(_) => {}
    }
    // Hidden, and without the ending that node_exporter looks for. Two runs may write at the same time, each its own.
    let mut temporary = OsString::from(".");
    temporary.push(name);
    temporary.push(format!(".{}", std::process::id()));
    let replacement = Replacement { name, temporary: &temporary, mode: MODE, on_disk: false };
    let result = replacement.write(&open(above(path))?, content.as_bytes());
    result.map_err(|failed| FolderError::Io {
        what: failed.what,
        path: path.with_file_name(failed.name),
        purpose: PURPOSE,
        source: failed.source,
    })
}

/// Opens the folder; as root, one that is root's own.
fn open(folder: &Path) -> Result<File, FolderError> {
    let fault = |source| FolderError::Io { what: "open", path: folder.to_owned(), purpose: PURPOSE, source };
    if is_root() {
        let own = OwnFolder::open(folder, PURPOSE)?.ok_or_else(|| fault(Errno::ENOENT.into()))?;
        return Ok(own.into_handle());
    }
    File::open(folder).map_err(fault)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};

    use restart_core::ExitCode;

    use super::*;

    fn names(folder: &tempfile::TempDir) -> Vec<OsString> {
        fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name()).collect()
    }

    #[test]
    fn the_file_is_whole_alone_and_readable_by_everybody() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("restart.prom");
        for content in ["a 1\n", "b 2\n"] {
            write(&path, content).unwrap();
            assert_eq!(fs::read_to_string(&path).unwrap(), content);
        }
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, 0o644);
        assert_eq!(names(&folder), ["restart.prom"]);
    }

    #[test]
    fn a_folder_that_others_can_write_is_refused_and_one_above_it_is_not_asked_for() {
        let base = tempfile::tempdir().unwrap();
        let folder = base.path().join("node-exporter");
        fs::create_dir(&folder).unwrap();
        fs::set_permissions(base.path(), fs::Permissions::from_mode(0o777)).unwrap();
        let path = folder.join("restart.prom");
        write(&path, "a 1\n").unwrap();
        fs::set_permissions(&folder, fs::Permissions::from_mode(0o775)).unwrap();
        let error = write(&path, "b 2\n").unwrap_err();
        assert_eq!(error.exit_code(), ExitCode::NotPermitted);
        assert!(error.to_string().ends_with("for the figures for Prometheus: others can write to it"), "{error}");
        symlink("node-exporter", base.path().join("link")).unwrap();
        let error = write(&base.path().join("link/restart.prom"), "b 2\n").unwrap_err();
        assert!(error.to_string().ends_with("it is not a folder"), "{error}");
        assert_eq!(fs::read_to_string(path).unwrap(), "a 1\n");
    }

    #[test]
    fn only_a_regular_file_is_replaced() {
        let folder = tempfile::tempdir().unwrap();
        symlink("/dev/null", folder.path().join("link")).unwrap();
        fs::create_dir(folder.path().join("folder")).unwrap();
        for name in ["link", "folder"] {
            let error = write(&folder.path().join(name), "a 1\n").unwrap_err().to_string();
            assert!(error.ends_with("it is not a regular file"), "{error}");
        }
        assert_eq!(names(&folder).len(), 2);
        let error = write(Path::new("/"), "a 1\n").unwrap_err().to_string();
        assert_eq!(error, "cannot use '/' for the figures for Prometheus: it names no file");
    }

    #[test]
    fn a_folder_that_does_not_exist_is_named() {
        let error = write(Path::new("/nonexistent/restart.prom"), "").unwrap_err().to_string();
        assert_eq!(
            error,
            "cannot open '/nonexistent' for the figures for Prometheus: No such file or directory (os error 2)"
        );
    }
}
