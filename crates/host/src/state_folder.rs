//! Small files of state in a folder of our own, for tools of which several may run at once: whoever changes one has the folder to
//! himself from reading to writing, and a file is replaced as a whole and on disk before it counts.

use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg, OFlag};

use crate::own_folder::{FolderError, OwnFolder};

/// How long another one may have the folder to himself, who reads and writes a small file: whoever needs longer was stopped.
const PATIENCE: Duration = Duration::from_secs(10);
/// The pause between two tries.
const PAUSE: Duration = Duration::from_millis(10);

/// A folder of our own, opened.
#[derive(Debug)]
pub struct StateFolder {
    folder: OwnFolder,
    /// Of one that may be changed.
    _lock: Option<Flock<std::fs::File>>,
}

impl StateFolder {
    /// Opens the folder for a look; `None` if there is none. `purpose` says in errors what it is for.
    pub fn look(path: &Path, purpose: &'static str) -> Result<Option<Self>, FolderError> {
        Ok(OwnFolder::open(path, purpose)?.map(|folder| Self { folder, _lock: None }))
    }

    /// Opens the folder to change something in it, and makes it if it is missing. Others who do the same wait until this value is
    /// gone, for ten seconds at most, so nothing slow belongs in between.
    pub fn lock(path: &Path, purpose: &'static str) -> Result<Self, FolderError> {
        Self::lock_within(path, purpose, PATIENCE)
    }

    fn lock_within(path: &Path, purpose: &'static str, at_most: Duration) -> Result<Self, FolderError> {
        let folder = OwnFolder::open_or_make(path, purpose)?;
        let fault = |source| FolderError::Io { what: "lock", path: path.to_owned(), purpose, source };
        // A descriptor of its own, so that the lock goes with the value. It is the same folder: nobody else could have put
        // another in its place.
        let mut handle = folder.try_clone().map_err(fault)?;
        let until = Instant::now() + at_most;
        loop {
            handle = match Flock::lock(handle, FlockArg::LockExclusiveNonblock) {
                Ok(lock) => return Ok(Self { folder, _lock: Some(lock) }),
                Err((handle, Errno::EWOULDBLOCK | Errno::EINTR)) if Instant::now() < until => handle,
                Err((_, Errno::EWOULDBLOCK)) => {
                    return Err(fault(io::Error::other("another run does not let go of it")));
                }
                Err((_, error)) => return Err(fault(error.into())),
            };
            thread::sleep(PAUSE);
        }
    }

    /// What the file holds; `None` if there is none, an error if it is longer than `longest` bytes.
    pub fn read(&self, name: &str, longest: u64) -> Result<Option<Vec<u8>>, FolderError> {
        let Some(file) = self.folder.open_file(name, OFlag::O_RDONLY)? else { return Ok(None) };
        let mut bytes = Vec::new();
        let fault = |source| self.folder.fault("read", name, source);
        file.take(longest + 1).read_to_end(&mut bytes).map_err(fault)?;
        if bytes.len() as u64 > longest {
            return Err(fault(io::Error::other(format!("it is longer than {longest} bytes"))));
        }
        Ok(Some(bytes))
    }

    /// Puts `content` in the place of the file, on disk when this returns. To be called with the lock.
    pub fn write(&self, name: &str, content: &[u8]) -> Result<(), FolderError> {
        self.folder.replace(name, &format!("{name}.new"), content)
    }

    /// The path of a file in the folder, for messages.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path(name)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};

    use restart_core::ExitCode;

    use super::*;

    fn folder() -> (tempfile::TempDir, PathBuf) {
        let base = tempfile::tempdir().unwrap();
        let path = base.path().join("state");
        (base, path)
    }

    #[test]
    fn what_was_written_is_read_by_whoever_looks() {
        let (_base, path) = folder();
        assert!(StateFolder::look(&path, "the test").unwrap().is_none());
        for content in ["one", "two"] {
            StateFolder::lock(&path, "the test").unwrap().write("file", content.as_bytes()).unwrap();
            let folder = StateFolder::look(&path, "the test").unwrap().unwrap();
            assert_eq!(folder.read("file", 3).unwrap().unwrap(), content.as_bytes());
            assert!(folder.read("file", 2).unwrap_err().to_string().ends_with("it is longer than 2 bytes"));
            assert_eq!(folder.read("other", 3).unwrap(), None);
        }
        let mode = |path: &Path| fs::metadata(path).unwrap().mode() & 0o7777;
        assert_eq!((mode(&path), mode(&path.join("file"))), (0o700, 0o600));
        assert_eq!(fs::read_dir(&path).unwrap().count(), 1);
    }

    #[test]
    fn two_who_count_do_not_lose_a_count() {
        let _turn = crate::alone();
        let (_base, path) = folder();
        let count = || {
            for _ in 0..20 {
                let folder = StateFolder::lock(&path, "the test").unwrap();
                let number = folder.read("count", 9).unwrap().unwrap_or_else(|| b"0".to_vec());
                let number: u32 = String::from_utf8(number).unwrap().parse().unwrap();
                folder.write("count", (number + 1).to_string().as_bytes()).unwrap();
            }
        };
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(count);
            }
        });
        assert_eq!(fs::read(path.join("count")).unwrap(), b"80");
    }

    #[test]
    fn whoever_does_not_let_go_of_it_is_not_waited_for_without_end() {
        let _turn = crate::alone();
        let (_base, path) = folder();
        let lock = StateFolder::lock(&path, "the test").unwrap();
        let error = StateFolder::lock_within(&path, "the test", Duration::from_millis(50)).unwrap_err();
        assert_eq!(error.exit_code(), ExitCode::Failed);
        assert!(error.to_string().ends_with("state' for the test: another run does not let go of it"), "{error}");
        drop(lock);
        StateFolder::lock(&path, "the test").unwrap();
    }

    #[test]
    fn a_folder_that_others_can_write_is_refused() {
        let (_base, path) = folder();
        fs::create_dir(&path).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o777)).unwrap();
        let error = StateFolder::lock(&path, "the test").unwrap_err();
        assert_eq!(error.exit_code(), ExitCode::NotPermitted);
        assert!(StateFolder::look(&path, "the test").is_err());
    }
}
