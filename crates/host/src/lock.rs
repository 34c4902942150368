//! The lock against a second run on this host: flock(2) on a file in a folder of root's own.
//!
//! Only flock counts. What stands in the file says who holds the lock, for the sake of whoever waits. The descriptor is
//! inherited by the systemctl that the holder starts, so that the lock outlives a holder that is killed for as long as a
//! restart it began is under way. Waiting is the caller's: there is something to say and a signal to look for meanwhile.

use std::fs::{File, TryLockError};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, FdFlag, OFlag, fcntl};

use crate::clock;
use crate::own_folder::{FolderError, OwnFolder};

/// The folder of the lock, and of nothing that others may write.
pub const FOLDER: &str = "/run/safe-service-restart";

/// What that is, for errors.
const PURPOSE: &str = "the lock of this host";

/// The file in it.
const FILE: &str = "lock";

/// More than any note about the holder takes; what stands after it is not read.
const LONGEST_NOTE: u64 = 4096;

/// Who holds the lock: information for people, written into the file by the holder.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Holder {
    /// Its process.
    pub pid: u32,
    /// Since when, RFC 3339 in UTC.
    pub since: String,
    /// The name of the tool.
    pub tool: String,
    /// What it was given with `--reason`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Who called it, as far as is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
}

impl Holder {
    /// This process, from now on.
    pub fn new(tool: &str, reason: Option<String>, user: Option<String>) -> Self {
        Self { pid: std::process::id(), since: clock::now_utc(), tool: tool.to_owned(), reason, user }
    }
}

/// What came of one attempt.
#[derive(Debug)]
pub enum Attempt {
    /// The lock is ours.
    Acquired(HostLock),
    /// Somebody else has it; who, if the file says so.
    Held(Option<Holder>),
}

/// What a look showed.
#[derive(Debug, PartialEq, Eq)]
pub enum Look {
    /// Nobody has the lock.
    Free,
    /// Somebody has it; who, if the file says so.
    Held(Option<Holder>),
}

/// The lock. It is given back when this value and every systemctl that inherited it are gone.
#[derive(Debug)]
pub struct HostLock {
    file: File,
}

impl HostLock {
    /// Tries once to take the lock of `folder` ([`FOLDER`]), which is made if it is missing, and notes `holder` in it.
    pub fn try_acquire(folder: &Path, holder: &Holder) -> Result<Attempt, FolderError> {
        let folder = OwnFolder::open_or_make(folder, PURPOSE)?;
        let fault = |what, source| folder.fault(what, FILE, source);
        let Some(mut file) = folder.open_file(FILE, OFlag::O_RDWR | OFlag::O_CREAT)? else {
            return Err(fault("open", Errno::ENOENT.into()));
        };
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Ok(Attempt::Held(read_note(&mut file))),
            Err(TryLockError::Error(source)) => return Err(fault("lock", source)),
        }
        fcntl(&file, FcntlArg::F_SETFD(FdFlag::empty())).map_err(|error| fault("hand on", error.into()))?;
        let mut lock = Self { file };
        if let Err(error) = lock.write_note(holder) {
            // A full file system: the lock holds all the same, only nobody is told whose it is.
            log::debug!("cannot note the holder in '{}': {error}", folder.path(FILE).display());
        }
        Ok(Attempt::Acquired(lock))
    }

    fn write_note(&mut self, holder: &Holder) -> io::Result<()> {
        let mut note = serde_json::to_vec(holder)?;
        note.push(b'\n');
        self.file.set_len(0)?;
        self.file.seek(SeekFrom::Start(0))?;
        self.file.write_all(&note)
    }
}

impl Drop for HostLock {
    /// Takes our note away, so that the next holder is not taken for us before it has written its own. The lock itself goes
    /// with the descriptor.
    fn drop(&mut self) {
        let _ = self.file.set_len(0);
    }
}

/// Looks who has the lock of `folder`, without making anything.
///
/// To see this it takes a shared lock for an instant; a run that tries to begin in that instant tries again.
pub fn peek(folder: &Path) -> Result<Look, FolderError> {
    let Some(folder) = OwnFolder::open(folder, PURPOSE)? else { return Ok(Look::Free) };
    let Some(mut file) = folder.open_file(FILE, OFlag::O_RDONLY)? else { return Ok(Look::Free) };
    match file.try_lock_shared() {
        Ok(()) => Ok(Look::Free),
        Err(TryLockError::WouldBlock) => Ok(Look::Held(read_note(&mut file))),
        Err(TryLockError::Error(source)) => Err(folder.fault("look at", FILE, source)),
    }
}

/// What the file says of its holder. It may be damaged, or not written yet.
fn read_note(file: &mut File) -> Option<Holder> {
    let mut note = String::new();
    file.take(LONGEST_NOTE).read_to_string(&mut note).ok()?;
    serde_json::from_str(note.lines().next()?).ok()
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _, symlink};
    use std::path::PathBuf;
    use std::process::{Command, Stdio};
    use std::sync::MutexGuard;

    use nix::sys::stat::Mode;
    use restart_core::ExitCode;

    use super::*;

    struct Place {
        _turn: MutexGuard<'static, ()>,
        _base: tempfile::TempDir,
        folder: PathBuf,
    }

    fn place() -> Place {
        let base = tempfile::tempdir().unwrap();
        let folder = base.path().join("run");
        Place { _turn: crate::alone(), _base: base, folder }
    }

    fn me() -> Holder {
        Holder::new("safe-service-restart", Some("deploy of wmf.5".to_owned()), Some("alice".to_owned()))
    }

    fn acquire(folder: &Path) -> HostLock {
        match HostLock::try_acquire(folder, &me()).unwrap() {
            Attempt::Acquired(lock) => lock,
            Attempt::Held(holder) => panic!("held by {holder:?}"),
        }
    }

    fn holder(folder: &Path) -> Option<Holder> {
        match HostLock::try_acquire(folder, &me()).unwrap() {
            Attempt::Acquired(_) => panic!("the lock was free"),
            Attempt::Held(holder) => holder,
        }
    }

    #[test]
    fn a_second_run_is_told_who_holds_the_lock() {
        let place = place();
        let lock = acquire(&place.folder);
        assert_eq!(holder(&place.folder), Some(me()));
        drop(lock);
        acquire(&place.folder);
    }

    #[test]
    fn the_folder_is_made_for_us_alone() {
        let place = place();
        let _lock = acquire(&place.folder);
        assert_eq!(fs::metadata(&place.folder).unwrap().permissions().mode() & 0o777, 0o700);
        assert_eq!(fs::metadata(place.folder.join(FILE)).unwrap().permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn a_child_keeps_the_lock_when_its_starter_is_gone() {
        let place = place();
        let lock = acquire(&place.folder);
        // In place of systemctl; a killed starter closes its descriptor without giving back the lock, as `drop` does.
        let mut child = Command::new("/bin/cat").stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
        drop(lock);
        assert!(matches!(peek(&place.folder).unwrap(), Look::Held(_)), "the child did not inherit the lock");
        drop(child.stdin.take());
        child.wait().unwrap();
        acquire(&place.folder);
    }

    #[test]
    fn damage_in_the_file_hides_the_holder_and_not_the_lock() {
        let place = place();
        let _lock = acquire(&place.folder);
        for damage in [&b""[..], b"\n", b"{\"pid\":1}", b"{", b"\xff\xfe\n", &[b'x'; 100_000]] {
            fs::write(place.folder.join(FILE), damage).unwrap();
            assert_eq!(holder(&place.folder), None, "{damage:?}");
        }
    }

    #[test]
    fn an_old_note_does_not_survive_a_shorter_one() {
        let place = place();
        acquire(&place.folder);
        fs::write(place.folder.join(FILE), "x".repeat(9999)).unwrap();
        let _lock = acquire(&place.folder);
        let text = fs::read_to_string(place.folder.join(FILE)).unwrap();
        assert_eq!(text.lines().count(), 1, "{text}");
        assert_eq!(serde_json::from_str::<Holder>(&text).unwrap(), me());
    }

    #[test]
    fn peek_makes_nothing_and_sees_the_holder() {
        let place = place();
        assert_eq!(peek(&place.folder).unwrap(), Look::Free);
        assert!(!place.folder.exists());
        let lock = acquire(&place.folder);
        assert_eq!(peek(&place.folder).unwrap(), Look::Held(Some(me())));
        drop(lock);
        assert_eq!(peek(&place.folder).unwrap(), Look::Free);
        acquire(&place.folder);
    }

    fn refusal(folder: &Path) -> String {
        let error = HostLock::try_acquire(folder, &me()).unwrap_err();
        assert_eq!(error.exit_code(), ExitCode::NotPermitted, "{error}");
        error.to_string()
    }

    #[test]
    fn a_folder_that_others_can_write_is_refused() {
        let place = place();
        fs::create_dir(&place.folder).unwrap();
        fs::set_permissions(&place.folder, fs::Permissions::from_mode(0o770)).unwrap();
        assert!(refusal(&place.folder).ends_with("for the lock of this host: others can write to it"));
    }

    #[test]
    fn a_link_or_a_pipe_in_the_files_place_is_refused() {
        let place = place();
        fs::DirBuilder::new().mode(0o700).create(&place.folder).unwrap();
        symlink("/dev/null", place.folder.join(FILE)).unwrap();
        assert!(refusal(&place.folder).ends_with("it is a symbolic link"));
        fs::remove_file(place.folder.join(FILE)).unwrap();
        nix::unistd::mkfifo(&place.folder.join(FILE), Mode::S_IRUSR | Mode::S_IWUSR).unwrap();
        assert!(refusal(&place.folder).ends_with("it is not a regular file"));
    }
}
