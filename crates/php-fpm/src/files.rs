//! How configuration is opened. Root must not believe a file that others can write, and whose files can be trusted is the caller's
//! knowledge: so nothing here opens a file by itself.

use std::ffi::OsString;
use std::path::Path;
use std::{fs, io};

/// Opens what a configuration consists of.
pub trait Files {
    /// Why something was not opened.
    type Error: std::error::Error + Send + Sync + 'static;

    /// The text of a file, of a bounded length; `None` if there is no such file. PHP-FPM takes any bytes: what is no UTF-8 is U+FFFD here.
    fn read(&mut self, path: &Path) -> Result<Option<String>, Self::Error>;

    /// What is in a folder, in any order. An error if there is no such folder, as it is one to PHP-FPM.
    fn list(&mut self, folder: &Path) -> Result<Vec<Listed>, Self::Error>;
}

/// A name in a folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// The name alone.
    pub name: OsString,
    /// Whether it is a folder, or a link to one.
    pub is_folder: bool,
}

/// What is in a folder, for a [`Files`] that has nothing of its own to say about listing. A name alone tells nobody what to do; what is
/// then read is to be checked.
pub fn list(folder: &Path) -> io::Result<Vec<Listed>> {
    fs::read_dir(folder)?
        .map(|entry| {
            let entry = entry?;
            // A link that leads nowhere is no folder.
            let is_folder = fs::metadata(entry.path()).is_ok_and(|found| found.is_dir());
            Ok(Listed { name: entry.file_name(), is_folder })
        })
        .collect()
}

#[cfg(test)]
pub(crate) mod tests {
    use std::collections::{BTreeMap, BTreeSet};
    use std::path::PathBuf;

    use super::*;

    /// Files in memory.
    #[derive(Debug)]
    pub(crate) struct Tree {
        files: BTreeMap<PathBuf, String>,
        /// What was read, in order.
        pub(crate) read: Vec<PathBuf>,
    }

    impl Tree {
        pub(crate) fn new(files: &[(&str, &str)]) -> Self {
            let files = files.iter().map(|(path, text)| (PathBuf::from(path), (*text).to_owned())).collect();
            Self { files, read: Vec::new() }
        }

        pub(crate) fn put(&mut self, path: &str, text: &str) {
            self.files.insert(PathBuf::from(path), text.to_owned());
        }
    }

    impl Files for Tree {
        type Error = io::Error;

        fn read(&mut self, path: &Path) -> Result<Option<String>, io::Error> {
            self.read.push(path.to_owned());
            Ok(self.files.get(path).cloned())
        }

        fn list(&mut self, folder: &Path) -> Result<Vec<Listed>, io::Error> {
            let mut found = BTreeSet::new();
            for path in self.files.keys() {
                let Ok(inside) = path.strip_prefix(folder) else { continue };
                let mut parts = inside.components();
                if let Some(first) = parts.next() {
                    found.insert((first.as_os_str().to_owned(), parts.next().is_some()));
                }
            }
            if found.is_empty() {
                return Err(io::ErrorKind::NotFound.into());
            }
            Ok(found.into_iter().map(|(name, is_folder)| Listed { name, is_folder }).collect())
        }
    }

    #[test]
    fn a_folder_is_listed_with_what_is_a_folder_in_it() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("sub")).unwrap();
        fs::write(folder.path().join("file"), "").unwrap();
        std::os::unix::fs::symlink("sub", folder.path().join("link")).unwrap();
        std::os::unix::fs::symlink("nowhere", folder.path().join("dangling")).unwrap();
        let mut listed = list(folder.path()).unwrap();
        listed.sort_by(|one, other| one.name.cmp(&other.name));
        let found: Vec<_> = listed.iter().map(|entry| (entry.name.to_str().unwrap(), entry.is_folder)).collect();
        assert_eq!(found, [("dangling", false), ("file", false), ("link", true), ("sub", true)]);
        assert_eq!(list(&folder.path().join("none")).unwrap_err().kind(), io::ErrorKind::NotFound);
    }
}
