//! A pool, and the two pages of its own that PHP-FPM can answer for it. Both must be switched on by a directive; what is missing is said
//! with the directive to add.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::address::Address;
use crate::allowed_clients::AllowedClients;
use crate::ask::{self, AskError, AskFault};
use crate::fastcgi::{self, Request};
use crate::printable::printable;
use crate::status::{AnsweredBy, Status};

/// A pool, as its configuration has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pool {
    /// Its name.
    pub name: String,
    /// The file that begins it, where a directive is to be added.
    pub file: PathBuf,
    /// Where it takes requests: `listen`.
    pub listen: Address,
    /// Whom it lets in over TCP, there and at `pm.status_listen`: `listen.allowed_clients`. None means anybody.
    pub allowed_clients: Option<AllowedClients>,
    /// The path of its status page: `pm.status_path`.
    pub status_path: Option<String>,
    /// Where the status page is answered also when every process is busy: `pm.status_listen`, since PHP 8.0.
    pub status_listen: Option<Address>,
    /// The path of its ping page: `ping.path`.
    pub ping_path: Option<String>,
    /// What that page says: `ping.response`, "pong" unless set.
    pub ping_response: String,
    /// What its processes see as `/`: `chroot`.
    pub chroot: Option<PathBuf>,
    /// What its relative paths are relative to, where it has its own: `prefix`.
    pub prefix: Option<PathBuf>,
    /// Whom its processes run as: `user`.
    pub user: Option<String>,
    /// Their group: `group`.
    pub group: Option<String>,
    /// When a request is killed: `request_terminate_timeout`. None means never.
    pub request_terminate_timeout: Option<Duration>,
}

/// A page that cannot be asked, with what would change that.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoPage {
    /// The pool does not have it.
    #[error("pool '{pool}' has no {page}: add '{directive}' to '{}'", file.display())]
    Missing {
        /// The pool.
        pool: String,
        /// What it lacks: "status page" or "ping page".
        page: &'static str,
        /// The line to add.
        directive: &'static str,
        /// The file to add it to.
        file: PathBuf,
    },
    /// The pool has it, and tells others alone.
    #[error("pool '{pool}' does not tell this host its {page}: {}", let_in(*.client, file))]
    TurnedAway {
        /// The pool.
        pool: String,
        /// "status page" or "ping page".
        page: &'static str,
        /// As whom this host would come.
        client: IpAddr,
        /// The file that begins the pool.
        file: PathBuf,
    },
}

/// What would have a pool let this host in.
pub(crate) fn let_in(client: IpAddr, file: &Path) -> String {
    format!("add '{client}' to its 'listen.allowed_clients' in '{}', without a blank", file.display())
}

impl Pool {
    /// Its status page, asked on its own socket where it has one.
    pub fn status_page(&self) -> Result<StatusPage, NoPage> {
        let path =
            self.status_path.clone().ok_or_else(|| self.missing("status page", "pm.status_path = /fpm-status"))?;
        let (address, answered_by) = match &self.status_listen {
            Some(address) => (address.clone(), AnsweredBy::StatusListener),
            None => (self.listen.clone(), AnsweredBy::Pool),
        };
        self.must_be_let_in("status page", &address)?;
        Ok(StatusPage { page: self.page("status", address, path), answered_by, is_unix: self.listen.is_unix() })
    }

    /// Its ping page, asked where requests are taken: the status page's socket would answer it too, and prove nothing.
    pub fn ping(&self) -> Result<Ping, NoPage> {
        let path = self.ping_path.clone().ok_or_else(|| self.missing("ping page", "ping.path = /fpm-ping"))?;
        self.must_be_let_in("ping page", &self.listen)?;
        Ok(Ping { page: self.page("ping", self.listen.clone(), path), expected: self.ping_response.clone() })
    }

    fn missing(&self, page: &'static str, directive: &'static str) -> NoPage {
        NoPage::Missing { pool: self.name.clone(), page, directive, file: self.file.clone() }
    }

    fn must_be_let_in(&self, page: &'static str, address: &Address) -> Result<(), NoPage> {
        match self.allowed_clients.as_ref().and_then(|allowed| allowed.turns_away(address)) {
            Some(client) => Err(NoPage::TurnedAway { pool: self.name.clone(), page, client, file: self.file.clone() }),
            None => Ok(()),
        }
    }

    fn page(&self, kind: &'static str, address: Address, path: String) -> Page {
        Page { kind, pool: self.name.clone(), file: self.file.clone(), address, path }
    }
}

/// One of PHP-FPM's own pages.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Page {
    kind: &'static str,
    pool: String,
    file: PathBuf,
    address: Address,
    path: String,
}

impl Page {
    /// Gets it, and makes every failure name it.
    fn ask<T>(
        &self,
        query: &str,
        deadline: Duration,
        read: impl FnOnce(&[u8]) -> Result<T, AskFault>,
    ) -> Result<T, AskError> {
        let Self { kind, pool, file, address, path } = self;
        let ask = || {
            let response = fastcgi::call(address, &Request::page(path, query), deadline)
                .map_err(|error| AskFault::NoAnswer(error.into_fault()))?;
            if response.status != 200 {
                return Err(ask::refused(&response, advice(response.status, kind, path, file)));
            }
            read(&response.body)
        };
        ask().map_err(|fault| {
            AskError::new(format!("{kind} page '{path}' of pool '{pool}'"), address.to_string(), fault)
        })
    }
}

/// To PHP-FPM a path that is no page of its own is a script, and one that is not there (404) or has no business being run (403).
fn advice(status: u16, kind: &str, path: &str, file: &Path) -> Option<String> {
    matches!(status, 403 | 404).then(|| {
        format!("the PHP-FPM that runs has no {kind} page '{path}': reload it if '{}' was changed", file.display())
    })
}

/// A pool's ping page, which answers as soon as a process is free.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ping {
    page: Page,
    expected: String,
}

impl Ping {
    /// Asks it. An error is whatever is not the pool's own answer, in time.
    pub fn ask(&self, deadline: Duration) -> Result<(), AskError> {
        self.page.ask("", deadline, |body| {
            if body == self.expected.as_bytes() {
                return Ok(());
            }
            Err(AskFault::Pong { expected: printable(self.expected.as_bytes()), found: printable(body) })
        })
    }
}

/// A pool's status page.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StatusPage {
    page: Page,
    answered_by: AnsweredBy,
    is_unix: bool,
}

impl StatusPage {
    /// Asks for the pool's figures. [`Status::processes`] is `None`.
    pub fn ask(&self, deadline: Duration) -> Result<Status, AskError> {
        self.page.ask("json", deadline, |body| self.read(body))
    }

    /// Asks for every process as well. Older versions of PHP print what clients sent without escaping it, so that a client can make
    /// this page unreadable, and nobody [`Self::ask`]'s.
    pub fn ask_full(&self, deadline: Duration) -> Result<Status, AskError> {
        self.page.ask("json&full", deadline, |body| self.read(body))
    }

    fn read(&self, body: &[u8]) -> Result<Status, AskFault> {
        let status = Status::parse(body, self.answered_by, self.is_unix)?;
        if status.pool != self.page.pool {
            return Err(AskFault::AnotherPool(printable(status.pool.as_bytes())));
        }
        Ok(status)
    }

    /// Whether a socket of its own answers: then it answers also when every process is busy.
    pub fn answered_by(&self) -> AnsweredBy {
        self.answered_by
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pool() -> Pool {
        Pool {
            name: "www".to_owned(),
            file: PathBuf::from("/etc/php/8.2/fpm/pool.d/www.conf"),
            listen: Address::Unix(PathBuf::from("/no/such/www.sock")),
            allowed_clients: None,
            status_path: None,
            status_listen: None,
            ping_path: None,
            ping_response: "pong".to_owned(),
            chroot: None,
            prefix: None,
            user: None,
            group: None,
            request_terminate_timeout: None,
        }
    }

    #[test]
    fn a_page_that_is_not_there_is_said_with_the_directive_to_add() {
        assert_eq!(
            pool().status_page().unwrap_err().to_string(),
            "pool 'www' has no status page: add 'pm.status_path = /fpm-status' to '/etc/php/8.2/fpm/pool.d/www.conf'"
        );
        assert_eq!(
            pool().ping().unwrap_err().to_string(),
            "pool 'www' has no ping page: add 'ping.path = /fpm-ping' to '/etc/php/8.2/fpm/pool.d/www.conf'"
        );
    }

    #[test]
    fn a_page_that_this_host_may_not_ask_is_said_with_whom_to_let_in() {
        let listen = Address::parse("127.0.0.1:9000", Path::new("/")).unwrap();
        let pages = Pool { status_path: Some("/s".to_owned()), ping_path: Some("/p".to_owned()), listen, ..pool() };
        let closed = Pool { allowed_clients: Some(AllowedClients::parse("192.0.2.5")), ..pages.clone() };
        assert_eq!(
            closed.ping().unwrap_err().to_string(),
            "pool 'www' does not tell this host its ping page: add '127.0.0.1' to its 'listen.allowed_clients' in \
             '/etc/php/8.2/fpm/pool.d/www.conf', without a blank"
        );
        assert!(
            closed
                .status_page()
                .unwrap_err()
                .to_string()
                .starts_with("pool 'www' does not tell this host its status page: ")
        );
        // A listener of the file system lets everybody in.
        let status_listen = Some(Address::Unix(PathBuf::from("/no/such/status.sock")));
        assert!(Pool { status_listen, ..closed }.status_page().is_ok());
        let open = Pool { allowed_clients: Some(AllowedClients::parse("192.0.2.5,127.0.0.1")), ..pages };
        assert!(open.ping().is_ok() && open.status_page().is_ok());
    }

    #[test]
    fn the_status_page_is_asked_on_its_own_socket_and_the_ping_page_never() {
        let status_listen = Some(Address::Unix(PathBuf::from("/no/such/status.sock")));
        let plain = Pool { status_path: Some("/s".to_owned()), ping_path: Some("/p".to_owned()), ..pool() };
        let with_listener = Pool { status_listen, ..plain.clone() };
        let status = |pool: &Pool| pool.status_page().unwrap().ask(Duration::from_secs(1)).unwrap_err().to_string();
        let ping = |pool: &Pool| pool.ping().unwrap().ask(Duration::from_secs(1)).unwrap_err().to_string();
        let missing = "cannot connect: no such file or directory";
        assert_eq!(status(&plain), format!("status page '/s' of pool 'www' at '/no/such/www.sock': {missing}"));
        assert_eq!(
            status(&with_listener),
            format!("status page '/s' of pool 'www' at '/no/such/status.sock': {missing}")
        );
        assert_eq!(ping(&with_listener), format!("ping page '/p' of pool 'www' at '/no/such/www.sock': {missing}"));
        assert_eq!(plain.status_page().unwrap().answered_by(), AnsweredBy::Pool);
        assert_eq!(with_listener.status_page().unwrap().answered_by(), AnsweredBy::StatusListener);
    }
}
