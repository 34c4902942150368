//! The lock against a second run on this host: an open file description lock, see fcntl(2), on a file in a folder of root's
//! own.
//!
//! Only that lock counts. What stands in the file says who holds it, for the sake of whoever waits. It belongs to the open
//! file and not to the process, as one of flock(2) would: the descriptor is inherited by the systemctl that the holder
//! starts, so that the lock outlives a holder that is killed for as long as a restart it began is under way. Unlike one of
//! flock(2) it can be asked about without being taken, so that a look is in nobody's way. Waiting is the caller's: there is
//! something to say and a signal to look for meanwhile.
//!
//! A file can be removed, and its folder with it: then a second run locks another file of the same name. Whoever takes the
//! lock makes sure that it is that of the file which stands there, and the holder can ask whether it still is
//! ([`HostLock::still_ours`]). What is removed after the holder's last question goes unnoticed, and so does what is removed
//! when only its systemctl is left.

use std::fs::{self, File};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, FdFlag, OFlag, fcntl};
use nix::libc;

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

/// How often a file is opened anew that was removed before it was locked. Once is bad luck; this often, something is at work.
const TRIES: usize = 10;

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
    folder: PathBuf,
}

impl HostLock {
    /// Tries once to take the lock of `folder` ([`FOLDER`]), which is made if it is missing, and notes `holder` in it.
    pub fn try_acquire(folder: &Path, holder: &Holder) -> Result<Attempt, FolderError> {
        Self::try_acquire_from(|| open_to_lock(folder), folder, holder)
    }

    /// Locks the file that `open` gives, and asks for another if that is not the one in `folder` any more. `open` gives none
    /// where the folder was removed before a file could be made in it.
    fn try_acquire_from(
        mut open: impl FnMut() -> Result<Option<File>, FolderError>,
        folder: &Path,
        holder: &Holder,
    ) -> Result<Attempt, FolderError> {
        let path = folder.join(FILE);
        let fault = |what, source| FolderError::Io { what, path: path.clone(), purpose: PURPOSE, source };
        for _ in 0..TRIES {
            let Some(mut file) = open()? else { continue };
            if !take(&file).map_err(|error| fault("lock", error.into()))? {
                return Ok(Attempt::Held(read_note(&mut file)));
            }
            // Between opening and locking it somebody may have removed it, and another run may have locked a new one.
            if !stands_in(&file, folder).map_err(|error| fault("look at", error))? {
                continue;
            }
            fcntl(&file, FcntlArg::F_SETFD(FdFlag::empty())).map_err(|error| fault("hand on", error.into()))?;
            let mut lock = Self { file, folder: folder.to_owned() };
            if let Err(error) = lock.write_note(holder) {
                // A full file system: the lock holds all the same, only nobody is told whose it is.
                log::debug!("cannot note the holder in '{}': {error}", path.display());
            }
            return Ok(Attempt::Acquired(lock));
        }
        Err(fault("lock", io::Error::other("somebody removes it again and again")))
    }

    /// Whether the file that we locked is still the one that another run would try to lock. If not, somebody removed it
    /// (`rm -r`, systemd-tmpfiles), another run may be at work, and this one must not begin what it has not begun.
    ///
    /// To be asked right before the first write to the store, and in the last look before the restart. Where the question
    /// has no answer it is `false`: a run that stops in vain harms nobody.
    pub fn still_ours(&self) -> bool {
        stands_in(&self.file, &self.folder).unwrap_or_else(|error| {
            log::debug!("cannot tell whether '{}' is still ours: {error}", self.folder.join(FILE).display());
            false
        })
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

/// Looks who has the lock of `folder`, without making or taking anything: no run ever loses to a look.
pub fn peek(folder: &Path) -> Result<Look, FolderError> {
    let Some(folder) = OwnFolder::open(folder, PURPOSE)? else { return Ok(Look::Free) };
    let Some(mut file) = folder.open_file(FILE, OFlag::O_RDONLY)? else { return Ok(Look::Free) };
    match is_taken(&file) {
        Ok(false) => Ok(Look::Free),
        Ok(true) => Ok(Look::Held(read_note(&mut file))),
        Err(error) => Err(folder.fault("look at", FILE, error.into())),
    }
}

/// Opens the file to be locked, which is made if it is missing.
fn open_to_lock(folder: &Path) -> Result<Option<File>, FolderError> {
    OwnFolder::open_or_make(folder, PURPOSE)?.open_file(FILE, OFlag::O_RDWR | OFlag::O_CREAT)
}

/// A lock against everybody else, on all of a file, however long it gets.
fn whole_file() -> libc::flock {
    libc::flock {
        l_type: libc::F_WRLCK as libc::c_short,
        l_whence: libc::SEEK_SET as libc::c_short,
        l_start: 0,
        l_len: 0,
        // Of a lock of this kind the kernel wants 0: it is no process's.
        l_pid: 0,
    }
}

/// Locks the file, which must be open for writing; `false` if it is locked already.
fn take(file: &File) -> nix::Result<bool> {
    match fcntl(file, FcntlArg::F_OFD_SETLK(&whole_file())) {
        Ok(_) => Ok(true),
        Err(Errno::EAGAIN | Errno::EACCES) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Whether the file is locked through another descriptor than this, which may be open for reading only.
fn is_taken(file: &File) -> nix::Result<bool> {
    let mut lock = whole_file();
    fcntl(file, FcntlArg::F_OFD_GETLK(&mut lock))?;
    // The kernel has put there what is in the way, or that nothing is.
    Ok(i32::from(lock.l_type) != libc::F_UNLCK)
}

/// Whether this open file is the lock's file in `folder` as it is now. As long as it is open, no other file gets its number.
fn stands_in(file: &File, folder: &Path) -> io::Result<bool> {
    let ours = file.metadata()?;
    let there = match fs::symlink_metadata(folder.join(FILE)) {
        Ok(there) => there,
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            return Ok(false);
        }
        Err(error) => return Err(error),
    };
    Ok(ours.nlink() > 0 && (ours.dev(), ours.ino()) == (there.dev(), there.ino()))
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
    use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};

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

    /// What an operator, or a cleaner of old files, can do to a run that holds the lock.
    #[test]
    fn a_holder_can_tell_that_its_lock_was_removed_and_another_run_took_a_new_one() {
        let place = place();
        let first = acquire(&place.folder);
        assert!(first.still_ours());
        fs::remove_dir_all(&place.folder).unwrap();
        assert!(!first.still_ours());
        let second = acquire(&place.folder);
        assert!(second.still_ours() && !first.still_ours());
        drop(first);
        assert!(second.still_ours());
        let Attempt::Held(Some(holder)) = HostLock::try_acquire(&place.folder, &me()).unwrap() else {
            panic!("two runs have the lock")
        };
        assert_eq!(holder.pid, std::process::id());
    }

    #[test]
    fn a_file_that_was_replaced_after_it_was_opened_is_not_the_lock() {
        let place = place();
        drop(acquire(&place.folder));
        let (file, aside) = (place.folder.join(FILE), place.folder.join("aside"));
        let opened = File::open(&file).unwrap();
        let is_the_lock = || stands_in(&opened, &place.folder).unwrap();
        assert!(is_the_lock());
        fs::rename(&file, &aside).unwrap();
        assert!(!is_the_lock(), "it is elsewhere");
        fs::write(&file, "").unwrap();
        assert!(!is_the_lock(), "another is in its place");
        fs::remove_file(&file).unwrap();
        symlink("aside", &file).unwrap();
        assert!(!is_the_lock(), "a link to it, which no run would follow");
        fs::rename(&aside, &file).unwrap();
        assert!(is_the_lock(), "it is back");
        fs::remove_dir_all(&place.folder).unwrap();
        assert!(!is_the_lock(), "there is no folder");
        fs::write(&place.folder, "").unwrap();
        assert!(!is_the_lock(), "a file is in the folder's place");
    }

    #[test]
    fn a_file_removed_between_open_and_lock_is_opened_again() {
        let place = place();
        let file = place.folder.join(FILE);
        let mut opened = 0;
        let open = || {
            opened += 1;
            let given = open_to_lock(&place.folder)?;
            match opened {
                1 => fs::remove_dir_all(&place.folder).unwrap(),
                2 => {
                    fs::write(place.folder.join("new"), "").unwrap();
                    fs::rename(place.folder.join("new"), &file).unwrap();
                }
                // As if the folder had gone between its opening and the file's.
                3 => return Ok(None),
                _ => {}
            }
            Ok(given)
        };
        let attempt = HostLock::try_acquire_from(open, &place.folder, &me()).unwrap();
        let Attempt::Acquired(lock) = attempt else { panic!("{attempt:?}") };
        assert_eq!(opened, 4);
        assert!(lock.still_ours());
        assert_eq!(holder(&place.folder), Some(me()));
    }

    #[test]
    fn another_runs_new_lock_is_seen_after_ours_was_removed() {
        let place = place();
        let mut theirs = None;
        let open = || {
            let given = open_to_lock(&place.folder)?;
            if theirs.is_none() {
                fs::remove_dir_all(&place.folder).unwrap();
                theirs = Some(acquire(&place.folder));
            }
            Ok(given)
        };
        let attempt = HostLock::try_acquire_from(open, &place.folder, &me()).unwrap();
        assert!(matches!(&attempt, Attempt::Held(Some(_))), "two runs have the lock: {attempt:?}");
        assert!(theirs.unwrap().still_ours());
    }

    #[test]
    fn a_file_that_is_removed_again_and_again_is_given_up() {
        let place = place();
        let mut opened = 0;
        let open = || {
            opened += 1;
            let given = open_to_lock(&place.folder)?;
            fs::remove_dir_all(&place.folder).unwrap();
            Ok(given)
        };
        let error = HostLock::try_acquire_from(open, &place.folder, &me()).unwrap_err();
        assert_eq!(opened, TRIES);
        assert_eq!(error.exit_code(), ExitCode::Failed);
        let error = error.to_string();
        assert!(error.starts_with("cannot lock '"), "{error}");
        assert!(error.ends_with("lock' for the lock of this host: somebody removes it again and again"), "{error}");
    }

    #[test]
    fn to_ask_about_the_lock_a_file_need_not_be_writable() {
        let place = place();
        let lock = acquire(&place.folder);
        let readable = File::open(place.folder.join(FILE)).unwrap();
        assert_eq!(is_taken(&readable), Ok(true));
        assert_eq!(is_taken(&lock.file), Ok(false), "nobody else has it");
        drop(lock);
        assert_eq!(is_taken(&readable), Ok(false));
        assert_eq!(take(&readable), Err(Errno::EBADF), "to take it, it must be");
    }

    #[test]
    fn a_look_never_keeps_a_run_from_beginning() {
        let place = place();
        drop(acquire(&place.folder));
        let (done, looks) = (AtomicBool::new(false), AtomicUsize::new(0));
        let lost = std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    while !done.load(Relaxed) {
                        peek(&place.folder).unwrap();
                        looks.fetch_add(1, Relaxed);
                    }
                });
            }
            // Not before both have met often enough, and never without an end.
            let enough = |run: &usize| *run < 1000 || (looks.load(Relaxed) < 1000 && *run < 1_000_000);
            let lost = (0..)
                .take_while(enough)
                .find(|_| matches!(HostLock::try_acquire(&place.folder, &me()), Ok(Attempt::Held(_)) | Err(_)));
            // A panic in here would leave the lookers at work, and us waiting for them.
            done.store(true, Relaxed);
            lost
        });
        assert_eq!(lost, None, "this run lost to a look");
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
