//! What a tool of ours hands down to another that it starts: the little that it kept of its own environment, and nothing else.

use crate::environment::Environment;

impl Environment {
    /// The variables for a tool of ours, which takes the same as we did; every other is for it to do without.
    pub fn handed_down(&self) -> Vec<(&'static str, String)> {
        let user = self.sudo_user.as_ref().map(|user| ("SUDO_USER", user.clone()));
        let stream =
            self.journal_stream.map(|stream| ("JOURNAL_STREAM", format!("{}:{}", stream.device, stream.inode)));
        user.into_iter().chain(stream).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::environment::JournalStream;

    #[test]
    fn what_was_kept_is_handed_down_and_no_more() {
        assert_eq!(Environment::default().handed_down(), []);
        let journal_stream = Some(JournalStream { device: 8, inode: 1_234_567 });
        let environment = Environment { sudo_user: Some("alice".to_owned()), journal_stream };
        let expected = [("SUDO_USER", "alice".to_owned()), ("JOURNAL_STREAM", "8:1234567".to_owned())];
        assert_eq!(environment.handed_down(), expected);
    }
}
