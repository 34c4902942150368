//! The journal on disk: the one file that outlives a run that dies with the host out of its pools (design, rule 4).
//!
//! `/var/lib/safe-service-restart/journal.json` is there if and only if a run left something to be done. It is replaced as a
//! whole, and on disk before anything is written to the store. One that cannot be understood is neither acted on nor lost: it is
//! renamed to `journal.set-aside-WHY-N.json` beside it, and every later run finds it there until an operator removes it.
//!
//! Whoever changes anything here holds the lock of the host; a look needs only root's rights. Nobody else reads it: it holds what
//! callers wrote as a reason, and objects of the store.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fmt;
use std::fs;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use nix::fcntl::{OFlag, renameat};
use restart_core::{JournalError, Record};

pub use crate::envelope::Flaw;
use crate::envelope::{self, Unusable};
use crate::ids::MachineId;
use crate::own_folder::{FolderError, OwnFolder};
use crate::replace::remove;

/// The folder of the journal, root's own.
pub const FOLDER: &str = "/var/lib/safe-service-restart";

/// What that is, for errors.
const PURPOSE: &str = "the journal";

/// The file in it.
const FILE: &str = "journal.json";

/// Its name until it is whole. One run at a time holds the lock, so one name is enough.
const TEMPORARY: &str = "journal.json.new";

/// What the names of journals set aside begin and end with; between them stand the flaw and a number.
const SET_ASIDE: (&str, &str) = ("journal.set-aside-", ".json");

/// The most that a journal may take, in bytes: a thousand nodes with objects of half a KiB, twice each. A longer one is damaged,
/// and is not written.
const LONGEST: u64 = 1024 * 1024;

/// The journal of this host. Nothing stays open between calls, and the folder is looked at anew each time.
#[derive(Debug, Clone)]
pub struct JournalFile {
    folder: PathBuf,
    machine: MachineId,
}

/// What stands in the journal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    /// Nothing: no run left anything to be done.
    Nothing,
    /// The record of a run.
    Record(Box<Record>),
    /// A journal that must not be acted on.
    Problem(Problem),
}

/// A journal that must not be acted on. As text it is one sentence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// What is wrong with it.
    pub flaw: Flaw,
    /// Where that shows.
    pub why: String,
    /// Where it is: in the journal's place after [`JournalFile::look`], set aside after [`JournalFile::load`].
    pub path: PathBuf,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the journal '{}' is {}, and nothing is done by it: {}", self.path.display(), self.flaw, self.why)
    }
}

/// A journal that was set aside, and that no operator has removed yet. As text it is one sentence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SetAside {
    /// The file.
    pub path: PathBuf,
    /// Why it was set aside.
    pub flaw: Flaw,
}

impl fmt::Display for SetAside {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { path, flaw } = self;
        let path = path.display();
        write!(
            f,
            "a journal that is {flaw} was set aside as '{path}': its run may have left this host out of its pools; look at \
             'safe-service-restart --status', put the host back if it should serve, then remove the file"
        )
    }
}

impl JournalFile {
    /// The journal in `folder` ([`FOLDER`]) of the machine with this id. Touches nothing.
    pub fn new(folder: &Path, machine: MachineId) -> Self {
        Self { folder: folder.to_owned(), machine }
    }

    /// Reads the journal; one that must not be acted on is set aside, and what a run left that died while it wrote is removed.
    /// To be called with the lock of the host.
    pub fn load(&self) -> Result<Found, FolderError> {
        let Some(folder) = self.open()? else { return Ok(Found::Nothing) };
        sweep(&folder);
        match self.read(&folder)? {
            Found::Problem(problem) => {
                Ok(Found::Problem(Problem { path: self.move_aside(&folder, &problem)?, ..problem }))
            }
            found => Ok(found),
        }
    }

    /// Reads the journal and changes nothing, so that it needs no lock. Without root's rights this is an error whose exit code is
    /// [`NotPermitted`](restart_core::ExitCode::NotPermitted).
    pub fn look(&self) -> Result<Found, FolderError> {
        match self.open()? {
            Some(folder) => self.read(&folder),
            None => Ok(Found::Nothing),
        }
    }

    /// The journals that were set aside and are still there, in the order of their names.
    pub fn set_aside(&self) -> Result<Vec<SetAside>, FolderError> {
        let Some(folder) = self.open()? else { return Ok(Vec::new()) };
        let names = self.names(&folder)?;
        Ok(names.iter().filter_map(|name| Some(SetAside { path: folder.path(name), flaw: flaw(name)? })).collect())
    }

    fn open(&self) -> Result<Option<OwnFolder>, FolderError> {
        OwnFolder::open(&self.folder, PURPOSE)
    }

    /// Judges the file by what it is, then by what it says.
    fn read(&self, folder: &OwnFolder) -> Result<Found, FolderError> {
        let judged = match folder.open_file(FILE, OFlag::O_RDONLY) {
            Ok(None) => return Ok(Found::Nothing),
            Ok(Some(file)) => {
                let (bytes, written) = content(&file).map_err(|source| folder.fault("read", FILE, source))?;
                if bytes.len() as u64 > LONGEST {
                    Err(Unusable::damaged("it is longer than 1 MiB"))
                } else {
                    envelope::open(&bytes, &self.machine, written)
                }
            }
            // In a folder of our own that is no attack, but nothing that we wrote either.
            Err(FolderError::Distrusted { why, .. }) => Err(Unusable::damaged(why)),
            Err(error) => return Err(error),
        };
        Ok(match judged {
            Ok(record) => Found::Record(Box::new(record)),
            Err(Unusable { flaw, why }) => Found::Problem(Problem { flaw, why, path: folder.path(FILE) }),
        })
    }

    /// Renames the journal to the first name that is free. With the lock held nobody takes that in between.
    fn move_aside(&self, folder: &OwnFolder, problem: &Problem) -> Result<PathBuf, FolderError> {
        let taken = self.names(folder)?;
        let name = |number: usize| format!("{}{}-{number}{}", SET_ASIDE.0, problem.flaw.as_str(), SET_ASIDE.1);
        let mut number = 1;
        while taken.contains(&name(number)) {
            number += 1;
        }
        let name = name(number);
        renameat(folder, FILE, folder, name.as_str()).map_err(|error| {
            let (error, Problem { flaw, why, .. }) = (io::Error::from(error), problem);
            let both = format!("{error}; and it is {flaw}: {why}");
            folder.fault("set aside", FILE, io::Error::new(error.kind(), both))
        })?;
        folder.sync()?;
        Ok(folder.path(&name))
    }

    /// The names in the folder. One that is no text is none of ours.
    fn names(&self, folder: &OwnFolder) -> Result<BTreeSet<String>, FolderError> {
        let entries = fs::read_dir(&self.folder).and_then(Iterator::collect::<io::Result<Vec<_>>>);
        let entries = entries.map_err(|source| folder.fault("list the names beside", FILE, source))?;
        Ok(entries.into_iter().filter_map(|entry| entry.file_name().into_string().ok()).collect())
    }

    fn keep_file(&self, record: &Record) -> Result<(), FolderError> {
        let folder = OwnFolder::open_or_make(&self.folder, PURPOSE)?;
        let bytes = envelope::seal(record, &self.machine).map_err(|error| folder.fault("write", FILE, error.into()))?;
        if bytes.len() as u64 > LONGEST {
            return Err(folder.fault("write", FILE, io::Error::other("it would be longer than 1 MiB")));
        }
        folder.replace(FILE, TEMPORARY, &bytes)
    }

    fn clear_file(&self) -> Result<(), FolderError> {
        let Some(folder) = self.open()? else { return Ok(()) };
        remove(&folder, OsStr::new(FILE)).map_err(|source| folder.fault("remove", FILE, source))?;
        sweep(&folder);
        folder.sync()
    }

    /// Puts the record in the place of the one before, on disk, before it returns. To be called with the lock of the host.
    ///
    /// After an error the record that was kept before is still there, whole, unless only the last step failed, to put the
    /// folder on disk: then it is this one.
    pub fn keep(&mut self, record: &Record) -> Result<(), JournalError> {
        self.keep_file(record).map_err(|error| JournalError(error.to_string()))
    }

    /// Removes the record; none is no error. To be called with the lock of the host.
    pub fn clear(&mut self) -> Result<(), JournalError> {
        self.clear_file().map_err(|error| JournalError(error.to_string()))
    }
}

/// Removes what a run left that died while it wrote. What cannot be removed is in the way of the next journal, which will say so,
/// and of nothing else.
fn sweep(folder: &OwnFolder) {
    if let Err(error) = remove(folder, OsStr::new(TEMPORARY)) {
        log::debug!("cannot remove '{}': {error}", folder.path(TEMPORARY).display());
    }
}

/// What the file holds, up to one byte more than it may, and when it was last written.
fn content(file: &fs::File) -> io::Result<(Vec<u8>, SystemTime)> {
    let mut bytes = Vec::new();
    file.take(LONGEST + 1).read_to_end(&mut bytes)?;
    Ok((bytes, file.metadata()?.modified()?))
}

/// Why the file with this name was set aside; `None` if it was not. A name that an operator bettered still counts.
fn flaw(name: &str) -> Option<Flaw> {
    let rest = name.strip_prefix(SET_ASIDE.0)?;
    Some(Flaw::ALL.into_iter().find(|flaw| rest.starts_with(flaw.as_str())).unwrap_or(Flaw::Damaged))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown, symlink};
    use std::os::unix::net::UnixListener;

    use nix::sys::stat::Mode;
    use restart_core::{ExitCode, Phase};

    use super::*;
    use crate::envelope::tests::{SAMPLE_1, SAMPLE_2, machine, sample};

    struct Place {
        _base: tempfile::TempDir,
        folder: PathBuf,
    }

    fn place() -> Place {
        let base = tempfile::tempdir().unwrap();
        let folder = base.path().join("state");
        Place { _base: base, folder }
    }

    impl Place {
        fn journal(&self) -> JournalFile {
            JournalFile::new(&self.folder, machine())
        }

        fn path(&self, name: &str) -> PathBuf {
            self.folder.join(name)
        }

        /// A journal of this content, as if a run had left it.
        fn with(content: impl AsRef<[u8]>) -> Self {
            let place = place();
            fs::create_dir(&place.folder).unwrap();
            fs::write(place.path(FILE), content).unwrap();
            place
        }

        fn names(&self) -> Vec<String> {
            let mut names: Vec<String> = fs::read_dir(&self.folder)
                .unwrap()
                .map(|entry| entry.unwrap().file_name().into_string().unwrap())
                .collect();
            names.sort_unstable();
            names
        }
    }

    fn record(found: Found) -> Record {
        match found {
            Found::Record(record) => *record,
            other => panic!("{other:?}"),
        }
    }

    fn problem(found: Found) -> Problem {
        match found {
            Found::Problem(problem) => problem,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn nothing_is_found_and_nothing_made_where_nothing_was_kept() {
        let place = place();
        let mut journal = place.journal();
        assert_eq!(journal.load().unwrap(), Found::Nothing);
        assert_eq!(journal.look().unwrap(), Found::Nothing);
        assert_eq!(journal.set_aside().unwrap(), []);
        journal.clear().unwrap();
        assert!(!place.folder.exists());
    }

    #[test]
    fn the_last_record_kept_is_found_until_it_is_cleared() {
        let place = place();
        let mut journal = place.journal();
        for phase in [Phase::TakingOut, Phase::Restarting, Phase::BringingBack, Phase::Held] {
            let kept = Record { phase, ..sample() };
            journal.keep(&kept).unwrap();
            assert_eq!(record(journal.load().unwrap()), kept);
            assert_eq!(record(journal.look().unwrap()), kept);
        }
        assert_eq!(place.names(), [FILE]);
        let mode = |path: &Path| fs::metadata(path).unwrap().mode() & 0o7777;
        assert_eq!((mode(&place.folder), mode(&place.path(FILE))), (0o700, 0o600));
        journal.clear().unwrap();
        assert_eq!(journal.load().unwrap(), Found::Nothing);
        assert_eq!(place.names(), [""; 0]);
        journal.clear().unwrap();
    }

    #[test]
    fn the_format_before_is_read_and_dated_by_its_file() {
        let place = Place::with(SAMPLE_1);
        let written = SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(1_795_454_175);
        fs::File::open(place.path(FILE)).unwrap().set_modified(written).unwrap();
        let found = record(place.journal().load().unwrap());
        assert_eq!(found.since, "2026-11-23T17:16:15Z");
        assert_eq!((found.run, found.user), (sample().run, None));
    }

    #[test]
    fn what_cannot_be_acted_on_is_set_aside_and_told_of_until_it_is_removed() {
        let foreign = SAMPLE_2.replacen("3d1219c7", "00000000", 1);
        let later = SAMPLE_2.replacen("\"version\":2", "\"version\":3", 1);
        for (content, flaw, name) in [
            ("{", Flaw::Damaged, "journal.set-aside-damaged-1.json"),
            (foreign.as_str(), Flaw::ForeignMachine, "journal.set-aside-foreign-machine-1.json"),
            (later.as_str(), Flaw::UnknownVersion, "journal.set-aside-unknown-version-1.json"),
        ] {
            let place = Place::with(content);
            let journal = place.journal();
            let seen = problem(journal.look().unwrap());
            assert_eq!((seen.flaw, &seen.path), (flaw, &place.path(FILE)), "a look moves nothing");
            let found = problem(journal.load().unwrap());
            assert_eq!((found.flaw, &found.path, &found.why), (flaw, &place.path(name), &seen.why));
            assert_eq!(fs::read_to_string(place.path(name)).unwrap(), content);
            for _ in 0..2 {
                assert_eq!(journal.load().unwrap(), Found::Nothing);
                assert_eq!(journal.set_aside().unwrap(), [SetAside { path: place.path(name), flaw }]);
            }
            fs::remove_file(place.path(name)).unwrap();
            assert_eq!(journal.set_aside().unwrap(), []);
        }
    }

    #[test]
    fn setting_aside_overwrites_nothing() {
        let place = place();
        let mut journal = place.journal();
        journal.keep(&sample()).unwrap();
        for content in ["first", "second", "third"] {
            fs::write(place.path(FILE), content).unwrap();
            problem(journal.load().unwrap());
            // Life goes on beside it.
            journal.keep(&sample()).unwrap();
            journal.clear().unwrap();
        }
        let content = |aside: &SetAside| fs::read_to_string(&aside.path).unwrap();
        let aside = journal.set_aside().unwrap();
        assert_eq!(aside.iter().map(content).collect::<Vec<_>>(), ["first", "second", "third"]);
        // The second was cleared by hand, and a name that an operator made counts too.
        fs::remove_file(&aside[1].path).unwrap();
        fs::rename(&aside[2].path, place.path("journal.set-aside-for-alice")).unwrap();
        fs::write(place.path(FILE), "fourth").unwrap();
        assert_eq!(problem(journal.load().unwrap()).path, aside[1].path);
        assert_eq!(journal.set_aside().unwrap().iter().map(content).collect::<Vec<_>>(), ["first", "fourth", "third"]);
    }

    #[test]
    fn what_is_no_regular_file_of_ours_is_set_aside_as_it_is() {
        type Make = fn(&Path);
        let makes: [(&str, Make); 6] = [
            ("a link", |path| symlink("/dev/null", path).unwrap()),
            ("a folder", |path| fs::create_dir(path).unwrap()),
            ("a pipe", |path| nix::unistd::mkfifo(path, Mode::S_IRUSR).unwrap()),
            ("a socket", |path| drop(UnixListener::bind(path).unwrap())),
            ("a file that others can write", |path| {
                fs::write(path, SAMPLE_2).unwrap();
                fs::set_permissions(path, fs::Permissions::from_mode(0o620)).unwrap();
            }),
            ("another user's file", |path| {
                fs::write(path, SAMPLE_2).unwrap();
                chown(path, Some(1), None).unwrap();
            }),
        ];
        for (what, make) in makes {
            let place = place();
            fs::create_dir(&place.folder).unwrap();
            make(&place.path(FILE));
            let found = problem(place.journal().load().unwrap());
            assert_eq!(found.flaw, Flaw::Damaged, "{what}");
            assert_eq!(place.names(), ["journal.set-aside-damaged-1.json"], "{what}");
            assert_eq!(place.journal().load().unwrap(), Found::Nothing, "{what}");
        }
    }

    #[test]
    fn one_that_is_too_long_is_not_read_and_not_written() {
        let place = place();
        let mut journal = place.journal();
        journal.keep(&sample()).unwrap();
        let long = Record { reason: Some("x".repeat(LONGEST as usize)), ..sample() };
        let error = journal.keep(&long).unwrap_err().to_string();
        assert!(error.ends_with("journal.json' for the journal: it would be longer than 1 MiB"), "{error}");
        assert_eq!(record(journal.look().unwrap()), sample());
        let padded = |length: u64| format!("{SAMPLE_2}{}", " ".repeat(length as usize - SAMPLE_2.len()));
        fs::write(place.path(FILE), padded(LONGEST)).unwrap();
        assert_eq!(record(journal.look().unwrap()), sample());
        fs::write(place.path(FILE), padded(LONGEST + 1)).unwrap();
        assert_eq!(problem(journal.look().unwrap()).why, "it is longer than 1 MiB");
    }

    #[test]
    fn what_a_run_left_that_died_while_it_wrote_is_ignored_and_removed() {
        let place = place();
        let mut journal = place.journal();
        journal.keep(&sample()).unwrap();
        let leave = || fs::write(place.path(TEMPORARY), &SAMPLE_2[..100]).unwrap();
        leave();
        assert_eq!(record(journal.look().unwrap()), sample());
        assert_eq!(place.names(), [FILE, TEMPORARY], "a look removes nothing");
        assert_eq!(record(journal.load().unwrap()), sample());
        assert_eq!(place.names(), [FILE]);
        leave();
        journal.keep(&sample()).unwrap();
        assert_eq!(place.names(), [FILE]);
        leave();
        journal.clear().unwrap();
        assert_eq!(place.names(), [""; 0]);
    }

    #[test]
    fn a_folder_in_the_way_is_named_and_the_old_record_stays() {
        let place = place();
        let mut journal = place.journal();
        journal.keep(&sample()).unwrap();
        fs::create_dir(place.path(TEMPORARY)).unwrap();
        let error = journal.keep(&Record { phase: Phase::Restarting, ..sample() }).unwrap_err().to_string();
        assert!(error.starts_with("cannot remove '"), "{error}");
        assert!(error.ends_with("journal.json.new' for the journal: Is a directory (os error 21)"), "{error}");
        assert_eq!(record(journal.load().unwrap()), sample());
        journal.clear().unwrap();
        assert_eq!(journal.load().unwrap(), Found::Nothing, "it is in the way of nothing else");
    }

    #[test]
    fn a_folder_that_others_can_write_is_neither_read_nor_written() {
        let place = place();
        let mut journal = place.journal();
        journal.keep(&sample()).unwrap();
        fs::set_permissions(&place.folder, fs::Permissions::from_mode(0o770)).unwrap();
        let errors = [journal.load().unwrap_err(), journal.look().unwrap_err(), journal.set_aside().unwrap_err()];
        for error in errors {
            assert_eq!(error.exit_code(), ExitCode::NotPermitted);
            assert!(error.to_string().ends_with("state' for the journal: others can write to it"), "{error}");
        }
        assert!(journal.keep(&sample()).unwrap_err().0.ends_with("others can write to it"));
        assert!(journal.clear().unwrap_err().0.ends_with("others can write to it"));
    }

    #[test]
    fn a_place_that_does_not_exist_is_named() {
        let place = place();
        let mut journal = JournalFile::new(&place.path("deeper"), machine());
        let error = journal.keep(&sample()).unwrap_err().to_string();
        assert!(error.starts_with("cannot make '"), "{error}");
        assert!(error.ends_with("state/deeper' for the journal: No such file or directory (os error 2)"), "{error}");
    }

    #[test]
    fn problems_are_sentences() {
        let place = Place::with("{");
        let folder = place.folder.display().to_string();
        let found = problem(place.journal().load().unwrap());
        assert_eq!(
            found.to_string().replace(&folder, "F"),
            "the journal 'F/journal.set-aside-damaged-1.json' is damaged, and nothing is done by it: \
             EOF while parsing an object at line 1 column 1"
        );
        let aside = &place.journal().set_aside().unwrap()[0];
        assert_eq!(
            aside.to_string().replace(&folder, "F"),
            "a journal that is damaged was set aside as 'F/journal.set-aside-damaged-1.json': \
             its run may have left this host \
             out of its pools; look at 'safe-service-restart --status', put the host back if it should serve, then remove \
             the file"
        );
    }
}
