//! A password that cannot be printed: it has no `Display`, and its `Debug` shows that there is one and nothing more.

use std::fmt;

/// A password from an etcdrc file.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Password(String);

impl Password {
    /// Keeps `secret`.
    pub(crate) fn new(secret: String) -> Self {
        Self(secret)
    }

    /// The secret itself, for the one place that sends it.
    pub(crate) fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("<redacted>")
    }
}

/// The user that both drivers authenticate as. As in python-etcd there is none unless both halves are given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Credentials {
    /// The user's name in etcd.
    pub(crate) user: String,
    /// The password that belongs to it.
    pub(crate) password: Password,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_output_never_holds_the_password() {
        let credentials = Credentials { user: "conftool".into(), password: Password::new("hunter2".into()) };
        let shown = format!("{credentials:?} {credentials:#?}");
        assert!(shown.contains("conftool") && !shown.contains("hunter2"), "{shown}");
    }
}
