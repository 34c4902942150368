//! Reading configuration as root. A file that somebody else can change says what root does, so it is refused; so is one in a
//! folder, anywhere above it or above what a symbolic link on the way leads to, where somebody else could put another in its
//! place.
//!
//! The way is walked from the root folder down, each folder checked before a name in it is looked up. In a folder that only
//! root can write nobody else can change what was looked up, so the walk cannot be raced; the file itself is checked once it
//! is open.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::fs::{self, File, Metadata, OpenOptions};
use std::io::{self, Read as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Component, Path, PathBuf};

use nix::libc::{O_NOFOLLOW, O_NONBLOCK};
use restart_core::{ExitCode, Failure};

use crate::environment::is_root;

/// No configuration of ours or conftool's comes near it.
const LONGEST: u64 = 1024 * 1024;
/// As many symbolic links as Linux itself follows on one way.
const MOST_LINKS: usize = 40;
/// The bits of a mode that let the group or everybody write.
pub(crate) const WRITABLE_BY_OTHERS: u32 = 0o022;
/// root's number.
const ROOT: u32 = 0;

/// Reads a configuration file; `None` if there is none. As root, only what root alone can write; as anybody else, whatever
/// that user can read.
pub fn read(path: &Path) -> Result<Option<String>, TrustError> {
    bytes(path)?.map(|bytes| text(bytes, path)).transpose()
}

/// The same of a file whose own program does not ask for UTF-8: a comment may be in any encoding. What is none becomes U+FFFD, so that
/// whoever needs the text there can tell.
pub fn read_lossy(path: &Path) -> Result<Option<String>, TrustError> {
    Ok(bytes(path)?.map(|bytes| String::from_utf8_lossy(&bytes).into_owned()))
}

fn bytes(path: &Path) -> Result<Option<Vec<u8>>, TrustError> {
    if is_root() {
        let whole_way = Trust { base: Path::new("/"), owner: ROOT };
        return whole_way.read(path);
    }
    read_plainly(path)
}

fn text(bytes: Vec<u8>, path: &Path) -> Result<String, TrustError> {
    String::from_utf8(bytes).map_err(|_| TrustError::NotText { path: path.to_owned(), why: "it is not UTF-8" })
}

/// Reads without asking whose it is: the kernel knows what the user may read, and no more is done than the user could do.
fn read_plainly(path: &Path) -> Result<Option<Vec<u8>>, TrustError> {
    match File::open(path) {
        Ok(file) => content(file, path).map(Some),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(TrustError::Unreadable { path: path.to_owned(), source }),
    }
}

/// Why a configuration file was not read.
#[derive(Debug, thiserror::Error)]
pub enum TrustError {
    /// Somebody else could have written it.
    #[error("will not read '{path}' as root: {subject}{why}", path = path.display(), subject = subject(path, culprit))]
    NotPermitted {
        /// The file, as it was named.
        path: PathBuf,
        /// What is wrong on the way: the file itself, or a folder.
        culprit: PathBuf,
        /// What is wrong with it.
        why: &'static str,
    },
    /// It is there, but cannot be read.
    #[error("cannot read '{path}': {source}", path = path.display())]
    Unreadable {
        /// The file, as it was named.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// It was read, and cannot be a configuration file.
    #[error("cannot use '{path}': {why}", path = path.display())]
    NotText {
        /// The file, as it was named.
        path: PathBuf,
        /// What is wrong with it.
        why: &'static str,
    },
}

impl TrustError {
    /// The exit code that this asks for: 77 where it is a matter of rights, otherwise 78.
    pub fn exit_code(&self) -> ExitCode {
        match self {
            Self::NotPermitted { .. } => ExitCode::NotPermitted,
            Self::Unreadable { source, .. } if source.kind() == io::ErrorKind::PermissionDenied => {
                ExitCode::NotPermitted
            }
            Self::Unreadable { .. } | Self::NotText { .. } => ExitCode::Configuration,
        }
    }
}

impl From<TrustError> for Failure {
    fn from(error: TrustError) -> Self {
        Self::new(error.exit_code(), error.to_string())
    }
}

/// Names the culprit, unless that is the file that was just named.
fn subject(path: &Path, culprit: &Path) -> String {
    if path == culprit { "it ".to_owned() } else { format!("'{}' ", culprit.display()) }
}

/// Who is trusted, and from where on the way is checked: from `/`, and in tests from a folder of the test's own.
#[derive(Debug, Clone, Copy)]
struct Trust<'a> {
    base: &'a Path,
    owner: u32,
}

impl Trust<'_> {
    fn read(self, path: &Path) -> Result<Option<Vec<u8>>, TrustError> {
        let unreadable = |source| TrustError::Unreadable { path: path.to_owned(), source };
        let Some(place) = self.walk(path)? else { return Ok(None) };
        // The walk ended at something that is no link; O_NONBLOCK keeps a pipe from stopping us before we see that it is one.
        let file = OpenOptions::new().read(true).custom_flags(O_NOFOLLOW | O_NONBLOCK).open(&place);
        let file = match file {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(unreadable(source)),
        };
        let found = file.metadata().map_err(unreadable)?;
        if !found.is_file() {
            return Err(TrustError::NotText { path: path.to_owned(), why: "it is not a regular file" });
        }
        self.check(&found, path, &place)?;
        content(file, path).map(Some)
    }

    /// Follows `path` to its end, symbolic links included; `None` if it leads nowhere.
    fn walk(self, path: &Path) -> Result<Option<PathBuf>, TrustError> {
        let unreadable = |source| TrustError::Unreadable { path: path.to_owned(), source };
        let mut ahead = names(&std::path::absolute(path).map_err(unreadable)?);
        let mut here = PathBuf::from("/");
        let mut links = 0;
        loop {
            // `here` is a folder with nothing untrusted above it.
            let found = fs::symlink_metadata(&here).map_err(unreadable)?;
            if !(self.base.starts_with(&here) && self.base != here) {
                self.check(&found, path, &here)?;
            }
            let Some(name) = ahead.pop_front() else { return Ok(Some(here)) };
            if name == ".." {
                here.pop();
                continue;
            }
            let next = here.join(&name);
            let found = match fs::symlink_metadata(&next) {
                Ok(found) => found,
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
                Err(source) => return Err(unreadable(source)),
            };
            if found.is_symlink() {
                links += 1;
                if links > MOST_LINKS {
                    return Err(unreadable(io::Error::other("too many symbolic links")));
                }
                let target = fs::read_link(&next).map_err(unreadable)?;
                if target.is_absolute() {
                    here = PathBuf::from("/");
                }
                for name in names(&target).into_iter().rev() {
                    ahead.push_front(name);
                }
            } else if found.is_dir() {
                here = next;
            } else if ahead.is_empty() {
                return Ok(Some(next));
            } else {
                return Err(unreadable(io::ErrorKind::NotADirectory.into()));
            }
        }
    }

    fn check(self, found: &Metadata, path: &Path, culprit: &Path) -> Result<(), TrustError> {
        let why = if found.uid() != self.owner {
            "does not belong to root"
        } else if found.mode() & WRITABLE_BY_OTHERS != 0 {
            "can be written by others than root"
        } else {
            return Ok(());
        };
        Err(TrustError::NotPermitted { path: path.to_owned(), culprit: culprit.to_owned(), why })
    }
}

/// The names on a path, `..` among them.
fn names(path: &Path) -> VecDeque<OsString> {
    let name = |component: Component<'_>| match component {
        Component::Normal(name) => Some(name.to_owned()),
        Component::ParentDir => Some(OsString::from("..")),
        Component::RootDir | Component::CurDir | Component::Prefix(_) => None,
    };
    path.components().filter_map(name).collect()
}

/// What an open file holds.
fn content(file: File, path: &Path) -> Result<Vec<u8>, TrustError> {
    let mut bytes = Vec::new();
    file.take(LONGEST + 1)
        .read_to_end(&mut bytes)
        .map_err(|source| TrustError::Unreadable { path: path.to_owned(), source })?;
    if bytes.len() as u64 > LONGEST {
        return Err(TrustError::NotText { path: path.to_owned(), why: "it is longer than 1 MiB" });
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    use nix::sys::stat::Mode;
    use nix::unistd::Uid;

    use super::*;

    /// A folder that only the user who runs the tests can write, whatever stands above it.
    struct Place {
        base: tempfile::TempDir,
    }

    impl Place {
        fn new() -> Self {
            Self { base: tempfile::tempdir().unwrap() }
        }

        fn path(&self, name: &str) -> PathBuf {
            self.base.path().join(name)
        }

        fn folder(&self, name: &str, mode: u32) {
            fs::create_dir(self.path(name)).unwrap();
            set_mode(&self.path(name), mode);
        }

        fn file(&self, name: &str, mode: u32) {
            fs::write(self.path(name), "text").unwrap();
            set_mode(&self.path(name), mode);
        }

        fn read(&self, name: &str) -> Result<Option<String>, TrustError> {
            let owner = Uid::effective().as_raw();
            let path = self.path(name);
            Trust { base: self.base.path(), owner }.read(&path)?.map(|bytes| text(bytes, &path)).transpose()
        }

        /// The error as text without the temporary folder's name, with its exit code.
        fn refusal(&self, name: &str) -> (String, ExitCode) {
            let error = self.read(name).expect_err("it was read");
            (error.to_string().replace(&format!("{}/", self.base.path().display()), ""), error.exit_code())
        }
    }

    fn set_mode(path: &Path, mode: u32) {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }

    fn not_permitted(text: &str) -> (String, ExitCode) {
        (text.to_owned(), ExitCode::NotPermitted)
    }

    #[test]
    fn a_file_that_only_we_can_write_is_read() {
        let place = Place::new();
        place.folder("etc", 0o755);
        place.file("etc/x.yaml", 0o644);
        assert_eq!(place.read("etc/x.yaml").unwrap().as_deref(), Some("text"));
        assert_eq!(place.read("etc/../etc/./x.yaml").unwrap().as_deref(), Some("text"));
    }

    #[test]
    fn no_file_is_no_error() {
        let place = Place::new();
        symlink("nowhere", place.path("dangling")).unwrap();
        for name in ["x.yaml", "no/such/folder/x.yaml", "dangling"] {
            assert!(place.read(name).unwrap().is_none(), "{name}");
        }
    }

    #[test]
    fn a_file_that_others_can_write_is_refused() {
        let place = Place::new();
        for mode in [0o664, 0o646, 0o666] {
            place.file("x.yaml", mode);
            let expected = not_permitted("will not read 'x.yaml' as root: it can be written by others than root");
            assert_eq!(place.refusal("x.yaml"), expected);
        }
    }

    #[test]
    fn a_folder_above_that_others_can_write_is_refused_even_if_sticky_and_even_if_the_file_is_missing() {
        for mode in [0o775, 0o777, 0o1777] {
            let place = Place::new();
            place.folder("open", mode);
            place.folder("open/etc", 0o755);
            place.file("open/etc/x.yaml", 0o644);
            let expected = |name| {
                not_permitted(&format!("will not read '{name}' as root: 'open' can be written by others than root"))
            };
            assert_eq!(place.refusal("open/etc/x.yaml"), expected("open/etc/x.yaml"));
            assert_eq!(place.refusal("open/missing.yaml"), expected("open/missing.yaml"));
        }
    }

    #[test]
    fn a_link_is_checked_on_both_sides() {
        let place = Place::new();
        place.folder("safe", 0o755);
        place.file("safe/x.yaml", 0o644);
        place.folder("open", 0o777);
        place.file("open/x.yaml", 0o644);
        // A safe link to a safe file, relative and absolute.
        symlink("x.yaml", place.path("safe/relative.yaml")).unwrap();
        symlink(place.path("safe/x.yaml"), place.path("safe/absolute.yaml")).unwrap();
        assert!(place.read("safe/relative.yaml").unwrap().is_some());
        assert!(place.read("safe/absolute.yaml").unwrap().is_some());
        // A link in an open folder could be turned elsewhere.
        symlink("../safe/x.yaml", place.path("open/link.yaml")).unwrap();
        assert_eq!(place.refusal("open/link.yaml").1, ExitCode::NotPermitted);
        // A link to an open folder, and through one.
        symlink("../open/x.yaml", place.path("safe/out.yaml")).unwrap();
        assert_eq!(place.refusal("safe/out.yaml").1, ExitCode::NotPermitted);
        symlink("../open", place.path("safe/folder")).unwrap();
        assert_eq!(place.refusal("safe/folder/x.yaml").1, ExitCode::NotPermitted);
        symlink("../open/../safe/x.yaml", place.path("safe/through.yaml")).unwrap();
        assert_eq!(place.refusal("safe/through.yaml").1, ExitCode::NotPermitted);
    }

    #[test]
    fn links_in_a_circle_end() {
        let place = Place::new();
        symlink("b", place.path("a")).unwrap();
        symlink("a", place.path("b")).unwrap();
        assert_eq!(
            place.refusal("a"),
            ("cannot read 'a': too many symbolic links".to_owned(), ExitCode::Configuration)
        );
    }

    #[test]
    fn what_belongs_to_another_user_is_refused() {
        let place = Place::new();
        place.file("x.yaml", 0o644);
        // To somebody with another number everything here is another user's, the base first.
        let somebody = Uid::effective().as_raw() + 1;
        let error = Trust { base: place.base.path(), owner: somebody }.read(&place.path("x.yaml")).unwrap_err();
        assert!(error.to_string().ends_with("' does not belong to root"), "{error}");
        assert_eq!(error.exit_code(), ExitCode::NotPermitted);
    }

    #[test]
    fn what_is_no_regular_file_is_refused_without_waiting_for_it() {
        let place = Place::new();
        nix::unistd::mkfifo(&place.path("pipe"), Mode::S_IRUSR | Mode::S_IWUSR).unwrap();
        place.folder("folder", 0o755);
        for name in ["pipe", "folder"] {
            let expected = (format!("cannot use '{name}': it is not a regular file"), ExitCode::Configuration);
            assert_eq!(place.refusal(name), expected);
        }
    }

    #[test]
    fn what_is_too_long_or_no_text_is_refused() {
        let place = Place::new();
        fs::write(place.path("long"), vec![b'x'; LONGEST as usize]).unwrap();
        assert!(place.read("long").unwrap().is_some());
        fs::write(place.path("long"), vec![b'x'; LONGEST as usize + 1]).unwrap();
        assert_eq!(place.refusal("long").0, "cannot use 'long': it is longer than 1 MiB");
        fs::write(place.path("latin1"), b"caf\xe9").unwrap();
        assert_eq!(
            place.refusal("latin1"),
            ("cannot use 'latin1': it is not UTF-8".to_owned(), ExitCode::Configuration)
        );
        place.file("x", 0o644);
        assert_eq!(place.refusal("x/y").1, ExitCode::Configuration);
    }

    #[test]
    fn without_roots_rights_anything_readable_is_read() {
        let place = Place::new();
        place.folder("open", 0o777);
        place.file("open/x.yaml", 0o666);
        assert_eq!(read_plainly(&place.path("open/x.yaml")).unwrap().as_deref(), Some(&b"text"[..]));
        assert!(read_plainly(&place.path("open/y.yaml")).unwrap().is_none());
        let error = read_plainly(&place.path("open")).unwrap_err();
        assert_eq!(error.exit_code(), ExitCode::Configuration, "{error}");
    }

    #[test]
    fn the_exit_code_tells_rights_from_mistakes() {
        let unreadable = |kind: io::ErrorKind| TrustError::Unreadable { path: PathBuf::from("x"), source: kind.into() };
        assert_eq!(unreadable(io::ErrorKind::PermissionDenied).exit_code(), ExitCode::NotPermitted);
        assert_eq!(unreadable(io::ErrorKind::NotADirectory).exit_code(), ExitCode::Configuration);
    }

    #[test]
    fn the_systems_own_files_are_trusted_and_tmp_is_not() {
        assert!(read(Path::new("/etc/passwd")).unwrap().is_some());
        let whole_way = Trust { base: Path::new("/"), owner: ROOT };
        assert!(whole_way.read(Path::new("/etc/passwd")).unwrap().is_some());
        let error = whole_way.read(Path::new("/tmp/safe-service-restart.yaml")).unwrap_err();
        assert_eq!(
            error.to_string(),
            "will not read '/tmp/safe-service-restart.yaml' as root: '/tmp' can be written by others than root"
        );
    }
}
