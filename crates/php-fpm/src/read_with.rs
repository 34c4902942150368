//! A [`Files`] made of nothing but a way to read a file, which is where callers differ: a tool run as root has one that asks whose the
//! file is.

use std::error::Error;
use std::io;
use std::path::{Path, PathBuf};

use crate::files::{Files, Listed, list};

/// Reads by the function given, and lists folders as they are.
#[derive(Debug, Clone, Copy)]
pub struct ReadWith<F>(pub F);

/// Why something was not opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError<E: Error + 'static> {
    /// By the function that reads.
    #[error(transparent)]
    File(E),
    /// A folder that cannot be listed.
    #[error("cannot list '{}': {source}", folder.display())]
    Folder {
        /// The folder.
        folder: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
}

impl<F, E> Files for ReadWith<F>
where
    F: FnMut(&Path) -> Result<Option<String>, E>,
    E: Error + Send + Sync + 'static,
{
    type Error = OpenError<E>;

    fn read(&mut self, path: &Path) -> Result<Option<String>, Self::Error> {
        (self.0)(path).map_err(OpenError::File)
    }

    fn list(&mut self, folder: &Path) -> Result<Vec<Listed>, Self::Error> {
        list(folder).map_err(|source| OpenError::Folder { folder: folder.to_owned(), source })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_read_by_the_function_and_folders_are_listed() {
        let mut files = ReadWith(|path: &Path| match path.to_str() {
            Some("/there") => Ok(Some("text".to_owned())),
            Some("/bad") => Err(io::Error::other("bad")),
            _ => Ok(None),
        });
        assert_eq!(files.read(Path::new("/there")).unwrap().as_deref(), Some("text"));
        assert_eq!(files.read(Path::new("/none")).unwrap(), None);
        assert_eq!(files.read(Path::new("/bad")).unwrap_err().to_string(), "bad");
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(files.list(folder.path()).unwrap(), []);
        let error = files.list(Path::new("/no/such")).unwrap_err().to_string();
        assert_eq!(error, "cannot list '/no/such': No such file or directory (os error 2)");
    }
}
