//! Puts a file in the place of another in one step: whoever reads it, and whoever looks after a crash, finds the old one or the
//! new one, whole. The content goes to a second file in the same folder, which is then renamed.

use std::ffi::OsStr;
use std::fs::{File, Permissions};
use std::io::{self, Write as _};
use std::os::fd::AsFd;
use std::os::unix::fs::PermissionsExt as _;

use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, openat, renameat};
use nix::sys::stat::{Mode, fstatat};
use nix::unistd::{UnlinkatFlags, unlinkat};

/// What is to stand where.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Replacement<'a> {
    /// The name of the file.
    pub(crate) name: &'a OsStr,
    /// The name it has until it is whole. What is left there of a run that died is removed.
    pub(crate) temporary: &'a OsStr,
    /// Its mode, whatever the umask.
    pub(crate) mode: u32,
    /// Whether the content has to be on disk before it gets its name. The name is for the caller to put there.
    pub(crate) on_disk: bool,
}

/// What failed, at which of the two names.
#[derive(Debug)]
pub(crate) struct Failed<'a> {
    pub(crate) what: &'static str,
    pub(crate) name: &'a OsStr,
    pub(crate) source: io::Error,
}

impl<'a> Replacement<'a> {
    /// Writes the file in an open folder. After an error the one before is as it was, and nothing is left beside it unless
    /// that could not be removed.
    pub(crate) fn write(&self, folder: &impl AsFd, content: &[u8]) -> Result<(), Failed<'a>> {
        let fault = |what, name| move |source: io::Error| Failed { what, name, source };
        remove(folder, self.temporary).map_err(fault("remove", self.temporary))?;
        let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let file = openat(folder, self.temporary, flags, Mode::S_IRUSR | Mode::S_IWUSR)
            .map_err(|error| fault("make", self.temporary)(error.into()))?;
        let done = self.fill(File::from(file), content).map_err(fault("write", self.temporary)).and_then(|()| {
            renameat(folder, self.temporary, folder, self.name)
                .map_err(|error| fault("replace", self.name)(error.into()))
        });
        if done.is_err() {
            // It may hold the last blocks of a full disk. What went wrong before is what counts.
            let _ = remove(folder, self.temporary);
        }
        done
    }

    fn fill(&self, mut file: File, content: &[u8]) -> io::Result<()> {
        file.set_permissions(Permissions::from_mode(self.mode))?;
        file.write_all(content)?;
        if self.on_disk { file.sync_all() } else { Ok(()) }
    }
}

/// Removes a file from an open folder; whether there was one.
pub(crate) fn remove(folder: &impl AsFd, name: &OsStr) -> io::Result<bool> {
    // A read-only file system refuses to remove even what is not there.
    match fstatat(folder, name, AtFlags::AT_SYMLINK_NOFOLLOW) {
        Ok(_) => {}
        Err(Errno::ENOENT) => return Ok(false),
        Err(error) => return Err(error.into()),
    }
    unlinkat(folder, name, UnlinkatFlags::NoRemoveDir)?;
    Ok(true)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    fn replacement(mode: u32) -> Replacement<'static> {
        Replacement { name: OsStr::new("file"), temporary: OsStr::new("file.new"), mode, on_disk: true }
    }

    fn names(folder: &tempfile::TempDir) -> Vec<String> {
        let mut names: Vec<String> =
            fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort_unstable();
        names
    }

    fn write(folder: &tempfile::TempDir, mode: u32, content: &str) -> Result<(), Failed<'static>> {
        replacement(mode).write(&File::open(folder).unwrap(), content.as_bytes())
    }

    #[test]
    fn the_new_content_stands_alone_with_the_mode_asked_for() {
        let folder = tempfile::tempdir().unwrap();
        for mode in [0o600, 0o644, 0o666] {
            write(&folder, mode, "first").unwrap();
            write(&folder, mode, "new").unwrap();
            assert_eq!(fs::read_to_string(folder.path().join("file")).unwrap(), "new");
            assert_eq!(fs::metadata(folder.path().join("file")).unwrap().permissions().mode() & 0o7777, mode);
        }
        assert_eq!(names(&folder), ["file"]);
    }

    #[test]
    fn a_reader_who_has_the_old_one_open_keeps_it() {
        let folder = tempfile::tempdir().unwrap();
        write(&folder, 0o600, "old").unwrap();
        let reader = File::open(folder.path().join("file")).unwrap();
        write(&folder, 0o600, "new").unwrap();
        assert_eq!(io::read_to_string(reader).unwrap(), "old");
    }

    #[test]
    fn what_a_dead_run_left_is_removed_and_never_written_through() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("victim"), "victim").unwrap();
        symlink("victim", folder.path().join("file.new")).unwrap();
        symlink("victim", folder.path().join("file")).unwrap();
        write(&folder, 0o600, "new").unwrap();
        assert_eq!(fs::read_to_string(folder.path().join("victim")).unwrap(), "victim");
        assert_eq!(names(&folder), ["file", "victim"]);
        assert!(fs::symlink_metadata(folder.path().join("file")).unwrap().is_file());
    }

    #[test]
    fn a_folder_in_the_way_is_named_and_the_old_file_stays() {
        let folder = tempfile::tempdir().unwrap();
        write(&folder, 0o600, "old").unwrap();
        fs::create_dir(folder.path().join("file.new")).unwrap();
        let failed = write(&folder, 0o600, "new").unwrap_err();
        assert_eq!((failed.what, failed.name.to_str()), ("remove", Some("file.new")));
        assert_eq!(fs::read_to_string(folder.path().join("file")).unwrap(), "old");

        fs::remove_dir(folder.path().join("file.new")).unwrap();
        fs::remove_file(folder.path().join("file")).unwrap();
        fs::create_dir(folder.path().join("file")).unwrap();
        let failed = write(&folder, 0o600, "new").unwrap_err();
        assert_eq!((failed.what, failed.name.to_str()), ("replace", Some("file")));
        assert_eq!(names(&folder), ["file"], "nothing is left beside it");
    }
}
