//! How files reach this crate, and what can be wrong with them. The caller reads them: it knows who may own a file that a
//! root process trusts, and which exit code an untrusted one deserves. This crate only says which files it wants.

use std::fmt;
use std::path::{Path, PathBuf};

/// Reads one file whole as UTF-8; `None` when there is no such file. Its error is the caller's own, and comes back
/// untouched in [`LoadError::Read`].
pub type Read<'a, E> = &'a dyn Fn(&Path) -> Result<Option<String>, E>;

/// Why a configuration could not be loaded.
#[derive(Debug, thiserror::Error)]
pub enum LoadError<E> {
    /// The caller's reader failed or refused.
    #[error("{0}")]
    Read(E),
    /// There is no such file. For the caller to decide: it may not have needed one.
    #[error("'{}' does not exist; what it has to say is in safe-service-restart-files(5)", .0.display())]
    Missing(PathBuf),
    /// What was read is wrong.
    #[error(transparent)]
    Invalid(#[from] Invalid),
}

/// What is wrong with a configuration, as a sentence that names the file. It never holds a secret.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Invalid(String);

impl Invalid {
    /// A fault in the file as a whole, or in a key that the sentence names.
    pub(crate) fn new(file: &Path, what: impl fmt::Display) -> Self {
        Self(format!("'{}': {what}", file.display()))
    }

    /// A fault at a place in the file; lines and columns count from one.
    pub(crate) fn at(file: &Path, line: u64, column: u64, what: impl fmt::Display) -> Self {
        Self(format!("'{}' line {line}, column {column}: {what}", file.display()))
    }
}

/// Reads a file that has to be there.
pub(crate) fn required<E>(path: &Path, read: Read<'_, E>) -> Result<String, LoadError<E>> {
    match read(path) {
        Ok(Some(text)) => Ok(text),
        Ok(None) => Err(LoadError::Missing(path.to_owned())),
        Err(error) => Err(LoadError::Read(error)),
    }
}
