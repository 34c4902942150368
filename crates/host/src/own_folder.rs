//! A folder that is ours alone, for files of state: the lock, the journal. Whoever else can write to it could say that we hold
//! what we do not hold, or left what we never left, so such a folder is refused; so is a link in its place.
//!
//! The folder is opened once, looked at through that descriptor, and its files are reached through it: between the look and
//! the use nobody can put another in its place.

use std::fs::{DirBuilder, File, FileType};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{OFlag, open, openat};
use nix::sys::stat::Mode;
use nix::unistd::Uid;
use restart_core::{ExitCode, Failure};

use crate::replace::Replacement;
use crate::trusted::WRITABLE_BY_OTHERS;

/// How everything is opened: no link is followed, no program that we start inherits it, no pipe makes us wait.
const ALWAYS: OFlag = OFlag::O_NOFOLLOW.union(OFlag::O_CLOEXEC).union(OFlag::O_NONBLOCK);

/// The mode of a file that only we read and write.
const OURS_ALONE: u32 = 0o600;

/// An open folder that belongs to the user we run as and that nobody else can write.
#[derive(Debug)]
pub(crate) struct OwnFolder {
    handle: File,
    path: PathBuf,
    purpose: &'static str,
}

impl OwnFolder {
    /// Opens the folder; `None` if there is none. `purpose` says in errors what it is for: "the journal".
    pub(crate) fn open(path: &Path, purpose: &'static str) -> Result<Option<Self>, FolderError> {
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | ALWAYS;
        let Some(handle) = found(open(path, flags, Mode::empty()), path, purpose)? else { return Ok(None) };
        check(&handle, FileType::is_dir, "it is not a folder", path, purpose)?;
        Ok(Some(Self { handle, path: path.to_owned(), purpose }))
    }

    /// Opens the folder, which is made for us alone (mode 0700) if it is missing; the one above it must be there.
    pub(crate) fn open_or_make(path: &Path, purpose: &'static str) -> Result<Self, FolderError> {
        let fault = |what| move |source| FolderError::Io { what, path: path.to_owned(), purpose, source };
        match DirBuilder::new().mode(0o700).create(path) {
            // The new name has to outlive a power cut for what is kept in the folder to do so.
            Ok(()) => File::open(above(path)).and_then(|above| above.sync_all()).map_err(fault("put on disk"))?,
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(fault("make")(error)),
        }
        Self::open(path, purpose)?.ok_or_else(|| fault("open")(Errno::ENOENT.into()))
    }

    /// Opens a regular file in the folder, made with mode 0600 if `flags` say so; `None` if there is none.
    pub(crate) fn open_file(&self, name: &str, flags: OFlag) -> Result<Option<File>, FolderError> {
        let path = self.path(name);
        let opened = openat(&self.handle, name, flags | ALWAYS, Mode::S_IRUSR | Mode::S_IWUSR);
        let Some(file) = found(opened, &path, self.purpose)? else { return Ok(None) };
        check(&file, FileType::is_file, NOT_REGULAR, &path, self.purpose)?;
        Ok(Some(file))
    }

    /// The path of a file in the folder, for messages.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// The error of an attempt at one of the files in the folder.
    pub(crate) fn fault(&self, what: &'static str, name: &str, source: io::Error) -> FolderError {
        FolderError::Io { what, path: self.path(name), purpose: self.purpose, source }
    }

    /// Puts `content` in the place of a file, for us alone, on disk when this returns. Until it is whole it is called `temporary`.
    pub(crate) fn replace(&self, name: &str, temporary: &str, content: &[u8]) -> Result<(), FolderError> {
        let replacement =
            Replacement { name: name.as_ref(), temporary: temporary.as_ref(), mode: OURS_ALONE, on_disk: true };
        replacement.write(self, content).map_err(|failed| {
            let name = if failed.name == name { name } else { temporary };
            self.fault(failed.what, name, failed.source)
        })?;
        self.sync()
    }

    /// Another descriptor of the same open folder.
    pub(crate) fn try_clone(&self) -> io::Result<File> {
        self.handle.try_clone()
    }

    /// The open folder itself.
    pub(crate) fn into_handle(self) -> File {
        self.handle
    }

    /// Returns when the names in the folder are on disk as they are now.
    pub(crate) fn sync(&self) -> Result<(), FolderError> {
        let fault =
            |source| FolderError::Io { what: "put on disk", path: self.path.clone(), purpose: self.purpose, source };
        self.handle.sync_all().map_err(fault)
    }
}

impl AsFd for OwnFolder {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.handle.as_fd()
    }
}

/// Why a folder of ours, or a file in it, could not be used.
#[derive(Debug, thiserror::Error)]
pub enum FolderError {
    /// It could be somebody else's doing.
    #[error("cannot use '{path}' for {purpose}: {why}", path = path.display())]
    Distrusted {
        /// The folder or the file.
        path: PathBuf,
        /// What it is for.
        purpose: &'static str,
        /// What is wrong with it.
        why: &'static str,
    },
    /// The system refused.
    #[error("cannot {what} '{path}' for {purpose}: {source}", path = path.display())]
    Io {
        /// What was attempted.
        what: &'static str,
        /// The folder or the file.
        path: PathBuf,
        /// What it is for.
        purpose: &'static str,
        /// The system's reason.
        source: io::Error,
    },
}

impl FolderError {
    /// The exit code that this asks for: 77 where it is a matter of rights, otherwise 1.
    pub fn exit_code(&self) -> ExitCode {
        match self {
            Self::Distrusted { .. } => ExitCode::NotPermitted,
            Self::Io { source, .. } if source.kind() == io::ErrorKind::PermissionDenied => ExitCode::NotPermitted,
            Self::Io { .. } => ExitCode::Failed,
        }
    }
}

impl From<FolderError> for Failure {
    fn from(error: FolderError) -> Self {
        Self::new(error.exit_code(), error.to_string())
    }
}

const NOT_REGULAR: &str = "it is not a regular file";

/// The folder that `path` stands in.
pub(crate) fn above(path: &Path) -> &Path {
    path.parent().filter(|above| !above.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Gives the answers of open(2) their meaning.
fn found(opened: nix::Result<OwnedFd>, path: &Path, purpose: &'static str) -> Result<Option<File>, FolderError> {
    let distrusted = |why| Err(FolderError::Distrusted { path: path.to_owned(), purpose, why });
    match opened {
        Ok(fd) => Ok(Some(File::from(fd))),
        Err(Errno::ENOENT) => Ok(None),
        Err(Errno::ELOOP) => distrusted("it is a symbolic link"),
        // What O_NOFOLLOW and O_DIRECTORY together say of a symbolic link, too.
        Err(Errno::ENOTDIR) => distrusted("it is not a folder"),
        // A socket, or a device that has no driver.
        Err(Errno::ENXIO) => distrusted(NOT_REGULAR),
        Err(error) => Err(FolderError::Io { what: "open", path: path.to_owned(), purpose, source: error.into() }),
    }
}

/// Refuses what is of another kind, somebody else's, or open to others' writes.
fn check(
    file: &File,
    is_right_kind: fn(&FileType) -> bool,
    wrong_kind: &'static str,
    path: &Path,
    purpose: &'static str,
) -> Result<(), FolderError> {
    let fault = |source| FolderError::Io { what: "look at", path: path.to_owned(), purpose, source };
    let found = file.metadata().map_err(fault)?;
    let why = if !is_right_kind(&found.file_type()) {
        wrong_kind
    } else if found.uid() != Uid::effective().as_raw() {
        "it belongs to another user"
    } else if found.mode() & WRITABLE_BY_OTHERS != 0 {
        "others can write to it"
    } else {
        return Ok(());
    };
    Err(FolderError::Distrusted { path: path.to_owned(), purpose, why })
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{PermissionsExt as _, chown, symlink};
    use std::os::unix::net::UnixListener;

    use super::*;

    struct Place {
        _base: tempfile::TempDir,
        folder: PathBuf,
    }

    fn place() -> Place {
        let base = tempfile::tempdir().unwrap();
        let folder = base.path().join("state");
        Place { _base: base, folder }
    }

    fn set_mode(path: &Path, mode: u32) {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }

    fn opened(folder: &Path) -> OwnFolder {
        OwnFolder::open_or_make(folder, "the test").unwrap()
    }

    fn refusal(folder: &Path) -> String {
        let error = OwnFolder::open_or_make(folder, "the test").unwrap_err();
        assert_eq!(error.exit_code(), ExitCode::NotPermitted, "{error}");
        error.to_string()
    }

    #[test]
    fn it_is_made_for_us_alone_and_opened_again() {
        let place = place();
        assert!(OwnFolder::open(&place.folder, "the test").unwrap().is_none());
        assert!(!place.folder.exists(), "a look makes nothing");
        opened(&place.folder);
        assert_eq!(fs::metadata(&place.folder).unwrap().mode() & 0o7777, 0o700);
        opened(&place.folder);
        assert!(OwnFolder::open(&place.folder, "the test").unwrap().is_some());
    }

    #[test]
    fn a_link_in_its_place_is_refused() {
        let place = place();
        fs::create_dir(place.folder.with_file_name("elsewhere")).unwrap();
        symlink("elsewhere", &place.folder).unwrap();
        assert!(refusal(&place.folder).ends_with("state' for the test: it is not a folder"));
    }

    #[test]
    fn a_file_in_its_place_is_refused() {
        let place = place();
        fs::write(&place.folder, "").unwrap();
        assert!(refusal(&place.folder).ends_with("it is not a folder"));
    }

    #[test]
    fn a_folder_that_others_can_write_is_refused() {
        for mode in [0o770, 0o702, 0o1777] {
            let place = place();
            fs::create_dir(&place.folder).unwrap();
            set_mode(&place.folder, mode);
            assert!(refusal(&place.folder).ends_with("others can write to it"), "{mode:o}");
        }
    }

    #[test]
    fn what_belongs_to_another_user_is_refused() {
        let place = place();
        let folder = opened(&place.folder);
        fs::write(folder.path("file"), "").unwrap();
        chown(folder.path("file"), Some(1), None).unwrap();
        let error = folder.open_file("file", OFlag::O_RDONLY).unwrap_err();
        assert!(error.to_string().ends_with("state/file' for the test: it belongs to another user"), "{error}");
        chown(&place.folder, Some(1), None).unwrap();
        assert!(refusal(&place.folder).ends_with("it belongs to another user"));
    }

    #[test]
    fn a_file_in_it_is_a_regular_file_that_others_cannot_write() {
        let place = place();
        let folder = opened(&place.folder);
        assert!(folder.open_file("missing", OFlag::O_RDONLY).unwrap().is_none());
        fs::create_dir(folder.path("folder")).unwrap();
        symlink("/dev/null", folder.path("link")).unwrap();
        nix::unistd::mkfifo(&folder.path("pipe"), Mode::S_IRUSR | Mode::S_IWUSR).unwrap();
        let _listener = UnixListener::bind(folder.path("socket")).unwrap();
        fs::write(folder.path("open"), "").unwrap();
        set_mode(&folder.path("open"), 0o622);
        let table = [
            ("folder", NOT_REGULAR),
            ("link", "it is a symbolic link"),
            ("pipe", NOT_REGULAR),
            ("socket", NOT_REGULAR),
            ("open", "others can write to it"),
        ];
        for (name, why) in table {
            let error = folder.open_file(name, OFlag::O_RDONLY).unwrap_err();
            assert!(matches!(&error, FolderError::Distrusted { why: given, .. } if *given == why), "{name}: {error}");
        }
    }

    #[test]
    fn a_place_that_does_not_exist_is_named() {
        let place = place();
        let error = OwnFolder::open_or_make(&place.folder.join("deeper"), "the test").unwrap_err();
        assert!(error.to_string().starts_with("cannot make '"), "{error}");
        assert!(error.to_string().ends_with("deeper' for the test: No such file or directory (os error 2)"), "{error}");
        assert_eq!(error.exit_code(), ExitCode::Failed);
    }
}
