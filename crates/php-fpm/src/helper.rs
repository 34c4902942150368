//! Figures from inside: a pool runs the helper scripts that are installed with this project. They take no input, and the pool's user
//! must be able to read them.

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::address::Address;
use crate::allowed_clients::AllowedClients;
use crate::ask::{self, AskError, AskFault};
use crate::fastcgi::{self, Fault, Request};
use crate::figures::{self, Cleared, Figures};
use crate::json::JsonFault;
use crate::pool::{Pool, let_in};
use crate::printable::printable;

/// Where the scripts are installed; both names are fixed.
pub const HELPER_FOLDER: &str = "/usr/share/safe-service-restart";
const FIGURES: &str = "figures.php";
const APCU_CLEAR: &str = "apcu-clear.php";

/// What is kept of an answer, in bytes. Figures take some 1.5 KiB.
const LONGEST: usize = 64 * 1024;

/// The helper scripts, run by a pool.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Helper {
    address: Address,
    allowed_clients: Option<AllowedClients>,
    pool: String,
    file: PathBuf,
    chroot: Option<PathBuf>,
    user: Option<String>,
    folder: PathBuf,
}

impl Helper {
    /// The scripts in [`HELPER_FOLDER`]. In a pool with a `chroot` that folder is looked for inside it.
    pub fn new(pool: &Pool) -> Self {
        Self {
            address: pool.listen.clone(),
            allowed_clients: pool.allowed_clients.clone(),
            pool: pool.name.clone(),
            file: pool.file.clone(),
            chroot: pool.chroot.clone(),
            user: pool.user.clone(),
            folder: PathBuf::from(HELPER_FOLDER),
        }
    }

    /// Takes the scripts from another folder, an absolute one, as the pool's processes see it.
    #[must_use]
    pub fn with_folder(self, folder: &Path) -> Self {
        Self { folder: folder.to_owned(), ..self }
    }

    /// Runs `figures.php`.
    pub(crate) fn read(&self, deadline: Duration) -> Result<Figures, AskError> {
        self.run("figures", FIGURES, deadline, |body| Ok(Figures::parse(body)?))
    }

    /// Runs `apcu-clear.php`.
    pub(crate) fn clear_apcu(&self, deadline: Duration) -> Result<Cleared, AskError> {
        self.run("clearing APCu", APCU_CLEAR, deadline, |body| {
            figures::parse_cleared(body)?.map_err(AskFault::NotCleared)
        })
    }

    fn run<T>(
        &self,
        what: &str,
        script: &str,
        deadline: Duration,
        read: impl FnOnce(&[u8]) -> Result<T, AskFault>,
    ) -> Result<T, AskError> {
        let script = self.folder.join(script);
        let ask = || {
            let request = Request { longest_answer: LONGEST, ..Request::script(&script.to_string_lossy()) };
            let response = fastcgi::call(&self.address, &request, deadline)
                .map_err(|error| self.unanswered(error.into_fault()))?;
            if response.status != 200 {
                return Err(ask::refused(&response, self.advice(response.status, &response.errors, &script)));
            }
            read(&response.body).map_err(|fault| match fault {
                // PHP's own words say more about rubbish than the rubbish.
                AskFault::Json { fault: fault @ JsonFault::NotJson(_), .. } => {
                    AskFault::Json { fault, words: printable(response.errors.trim().as_bytes()) }
                }
                other => other,
            })
        };
        let question = format!("{what} from '{}' of pool '{}'", script.display(), self.pool);
        ask().map_err(|fault| AskError::new(question, self.address.to_string(), fault))
    }

    /// What a pool that turns this host away does is what a process that dies does, too.
    fn unanswered(&self, fault: Fault) -> AskFault {
        let turned_away = self.allowed_clients.as_ref().and_then(|allowed| allowed.turns_away(&self.address));
        match (fault, turned_away) {
            (Fault::Closed { received: 0, .. }, Some(client)) => AskFault::TurnedAway(let_in(client, &self.file)),
            (fault, _) => AskFault::NoAnswer(fault),
        }
    }

    /// What would help, by PHP-FPM's own words. It says 404 of a script that its processes do not see, whatever keeps them from it.
    fn advice(&self, status: u16, errors: &str, script: &Path) -> Option<String> {
        let Self { pool, file, chroot, user, folder, .. } = self;
        let (file, shown) = (file.display(), script.display());
        let user = user.as_deref().unwrap_or("its user");
        if errors.contains("security.limit_extensions") {
            return Some(format!("add '.php' to 'security.limit_extensions' of pool '{pool}' in '{file}'"));
        }
        if errors.contains("open_basedir") {
            return Some(format!("add '{}' to 'open_basedir' of pool '{pool}' in '{file}'", folder.display()));
        }
        match (status, chroot) {
            (404, Some(chroot)) => {
                let inside = chroot.join(script.strip_prefix("/").unwrap_or(script));
                Some(format!("the pool sees '{}' alone: copy '{shown}' to '{}'", chroot.display(), inside.display()))
            }
            (404, None) => Some(format!("put it there, and let '{user}' read it and every folder above")),
            (403, _) => Some(format!("let '{user}' read it")),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn helper(chroot: Option<&str>) -> Helper {
        Helper {
            address: Address::Unix(PathBuf::from("/no/such.sock")),
            allowed_clients: None,
            pool: "www".to_owned(),
            file: PathBuf::from("/etc/www.conf"),
            chroot: chroot.map(PathBuf::from),
            user: Some("www-data".to_owned()),
            folder: PathBuf::from(HELPER_FOLDER),
        }
    }

    #[test]
    fn advice_says_what_to_do_where() {
        let script = Path::new("/usr/share/safe-service-restart/figures.php");
        let advice = |chroot, status, errors| helper(chroot).advice(status, errors, script);
        assert_eq!(
            advice(Some("/srv/jail"), 404, "Primary script unknown").as_deref(),
            Some(
                "the pool sees '/srv/jail' alone: copy '/usr/share/safe-service-restart/figures.php' to \
                 '/srv/jail/usr/share/safe-service-restart/figures.php'"
            )
        );
        assert_eq!(
            advice(None, 404, "Primary script unknown").as_deref(),
            Some("put it there, and let 'www-data' read it and every folder above")
        );
        assert_eq!(
            advice(None, 403, "Access to the script '/x' has been denied (see security.limit_extensions)").as_deref(),
            Some("add '.php' to 'security.limit_extensions' of pool 'www' in '/etc/www.conf'")
        );
        assert_eq!(
            advice(None, 403, "Unable to open primary script: /x (Permission denied)").as_deref(),
            Some("let 'www-data' read it")
        );
        assert_eq!(
            advice(None, 404, "open_basedir restriction in effect").as_deref(),
            Some("add '/usr/share/safe-service-restart' to 'open_basedir' of pool 'www' in '/etc/www.conf'")
        );
        assert_eq!(advice(None, 500, "PHP Fatal error"), None);
    }

    #[test]
    fn a_failure_says_what_was_asked_and_where() {
        let error = helper(None).read(Duration::from_secs(1)).unwrap_err();
        assert_eq!(
            error.to_string(),
            "figures from '/usr/share/safe-service-restart/figures.php' of pool 'www' at '/no/such.sock': cannot connect: \
             no such file or directory"
        );
        let error = helper(None).clear_apcu(Duration::from_secs(1)).unwrap_err();
        assert!(error.to_string().starts_with("clearing APCu from '/usr/share/safe-service-restart/apcu-clear.php'"));
    }
}
