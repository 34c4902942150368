//! Figures from an admin site that answers on this host over HTTP, one for each version of PHP, as the original's `php7adm` asks it: the
//! same files, ports and endpoints. The caller opens the files.

use std::io;
use std::time::{Duration, Instant};

use serde_json::Value;
use ureq::{Agent, Error};

use crate::ask::{AskError, AskFault};
use crate::figures::{Apcu, ApcuFigures, Cleared, Figures, Opcache};
use crate::json::{self, JsonFault};
use crate::netrc::{Credentials, NetrcError};
use crate::printable::printable;

/// Which port is which version's: a JSON object, `{"7.4": 9181, "8.2": 9182}`.
pub const VERSIONS_FILE: &str = "/etc/php7adm.versions";
/// Its user and password.
pub const NETRC_FILE: &str = "/etc/php7adm.netrc";
/// The port where no file says another, as in the original.
pub const DEFAULT_PORT: u16 = 9181;

/// The host's name in [`NETRC_FILE`], and in the URL.
const HOST: &str = "localhost";
/// What is kept of an answer, in bytes. `opcache_get_status(false)` takes some 1 KiB.
const LONGEST: u64 = 64 * 1024;
const USER_AGENT: &str = concat!("safe-service-restart/", env!("CARGO_PKG_VERSION"));

/// The admin site of one version of PHP.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AdminSite {
    port: u16,
    credentials: Option<Credentials>,
}

/// Why an admin site cannot be asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AdminSiteError {
    /// The list of versions is no JSON object.
    #[error("cannot use '{VERSIONS_FILE}': it is not a JSON object: it begins with '{0}'")]
    Versions(String),
    /// It does not have this version.
    #[error("'{VERSIONS_FILE}' has no port for PHP '{0}'")]
    NoPort(String),
    /// It has something else for this version.
    #[error("'{VERSIONS_FILE}' has {found} for PHP '{version}', which is not a port")]
    Port {
        /// The version.
        version: String,
        /// What stands there.
        found: String,
    },
    /// The netrc file is wrong; nothing of it is quoted.
    #[error("cannot use '{NETRC_FILE}': {0}")]
    Netrc(NetrcError),
}

impl AdminSite {
    /// The site of a version such as `8.2`, by the text of [`VERSIONS_FILE`] and [`NETRC_FILE`]. Without the first the port is
    /// [`DEFAULT_PORT`], without the second there is no password.
    pub fn new(version: &str, versions: Option<&str>, netrc: Option<&str>) -> Result<Self, AdminSiteError> {
        let port = versions.map_or(Ok(DEFAULT_PORT), |versions| port(version, versions))?;
        let credentials = netrc.map(|netrc| Credentials::of(HOST, netrc)).transpose().map_err(AdminSiteError::Netrc)?;
        Ok(Self { port, credentials: credentials.flatten() })
    }

    /// Asks for both caches, one after the other.
    pub(crate) fn read(&self, deadline: Duration) -> Result<Figures, AskError> {
        let start = Instant::now();
        let opcache = self.get("opcache figures", "/opcache-info", deadline, deadline, Opcache::parse)?;
        let left = deadline.saturating_sub(start.elapsed());
        let apcu = self.get("APCu figures", "/apcu-frag", left, deadline, ApcuFigures::parse_fragmentation)?;
        Ok(Figures { php: None, opcache, apcu: Apcu::On(apcu) })
    }

    /// Has the site clear APCu. What it answers beside the status is not looked at.
    pub(crate) fn clear_apcu(&self, deadline: Duration) -> Result<Cleared, AskError> {
        self.get("clearing APCu", "/apcu-free", deadline, deadline, |_| Ok(Cleared::Done))
    }

    /// Gets an endpoint within what is left of the time that was allowed.
    fn get<T>(
        &self,
        what: &str,
        endpoint: &str,
        left: Duration,
        allowed: Duration,
        read: impl FnOnce(&[u8]) -> Result<T, JsonFault>,
    ) -> Result<T, AskError> {
        let url = format!("http://{HOST}:{}{endpoint}", self.port);
        let ask = || {
            let (status, body) = self.fetch(&url, left).map_err(|error| fault(&error, allowed))?;
            if status != 200 {
                let advice = match (status, &self.credentials) {
                    (401 | 403, None) => Some(format!("add its login and password to '{NETRC_FILE}'")),
                    (401 | 403, Some(_)) => Some(format!("look at the login and password in '{NETRC_FILE}'")),
                    _ => None,
                };
                return Err(AskFault::Refused { status, words: printable(body.trim_ascii()), advice });
            }
            Ok(read(&body)?)
        };
        ask().map_err(|fault| AskError::new(what.to_owned(), url.clone(), fault))
    }

    fn fetch(&self, url: &str, at_most: Duration) -> Result<(u16, Vec<u8>), Error> {
        let agent: Agent = Agent::config_builder()
            .timeout_global(Some(at_most.max(Duration::from_millis(1))))
            .max_redirects(0)
            .proxy(None)
            .http_status_as_error(false)
            .max_idle_connections(0)
            .user_agent(USER_AGENT)
            .accept("application/json")
            .build()
            .into();
        let mut request = agent.get(url).header("connection", "close");
        if let Some(credentials) = &self.credentials {
            request = request.header("authorization", credentials.basic());
        }
        let mut response = request.call()?;
        let body = response.body_mut().with_config().limit(LONGEST).read_to_vec()?;
        Ok((response.status().as_u16(), body))
    }
}

fn port(version: &str, versions: &str) -> Result<u16, AdminSiteError> {
    let versions = json::object(versions.as_bytes())
        .map_err(|_| AdminSiteError::Versions(printable(versions.trim().as_bytes())))?;
    let found = versions.get(version).ok_or_else(|| AdminSiteError::NoPort(printable(version.as_bytes())))?;
    let port = match found {
        Value::Number(number) => number.as_u64().and_then(|number| u16::try_from(number).ok()),
        Value::String(text) => text.parse().ok(),
        _ => None,
    };
    let wrong = || AdminSiteError::Port {
        version: printable(version.as_bytes()),
        found: printable(found.to_string().as_bytes()),
    };
    port.filter(|port| *port != 0).ok_or_else(wrong)
}

/// What went wrong, without anything that was sent or received.
fn fault(error: &Error, allowed: Duration) -> AskFault {
    use io::ErrorKind::{ConnectionRefused, ConnectionReset, TimedOut, UnexpectedEof, WouldBlock};
    let reason = match error {
        Error::Timeout(_) => return AskFault::HttpTimedOut(allowed),
        Error::Io(error) => match error.kind() {
            TimedOut | WouldBlock => return AskFault::HttpTimedOut(allowed),
            ConnectionRefused => "cannot connect: connection refused",
            ConnectionReset | UnexpectedEof => "the connection was closed before its answer was whole",
            _ => "the connection broke",
        },
        Error::ConnectionFailed | Error::HostNotFound => "cannot connect",
        Error::BodyExceedsLimit(_) => return AskFault::Http(format!("its answer is longer than {LONGEST} bytes")),
        Error::LargeResponseHeader(..) => "the header of its answer is too long",
        Error::Protocol(_) | Error::Http(_) => "its answer is not HTTP",
        _ => "the request failed",
    };
    AskFault::Http(reason.to_owned())
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::net::TcpListener;
    use std::thread::{self, JoinHandle};

    use super::*;

    const LONG: Duration = Duration::from_secs(60);
    const OPCACHE: &str = include_str!("../tests/fixtures/opcache-info.json");
    const NETRC: &str = "machine localhost login admin password hunter2";

    /// A site that answers in this order, one connection each, and tells what it was asked.
    fn site(answers: Vec<(u16, String)>) -> (u16, JoinHandle<Vec<String>>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let serve = move || {
            let mut asked = Vec::new();
            for (status, body) in answers {
                let (mut stream, _) = listener.accept().unwrap();
                let mut request = Vec::new();
                let mut byte = [0];
                while !request.ends_with(b"\r\n\r\n") && stream.read(&mut byte).unwrap() == 1 {
                    request.extend(byte);
                }
                asked.push(String::from_utf8(request).unwrap());
                let length = body.len();
                let head = format!("HTTP/1.1 {status} X\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n");
                // Whoever has read enough hangs up.
                let _ = stream.write_all(format!("{head}{body}").as_bytes());
            }
            asked
        };
        (port, thread::spawn(serve))
    }

    fn admin(port: u16, netrc: Option<&str>) -> AdminSite {
        AdminSite::new("8.2", Some(&format!(r#"{{"7.4": 1, "8.2": {port}}}"#)), netrc).unwrap()
    }

    #[test]
    fn the_port_is_the_versions_and_9181_without_a_file() {
        let port = |versions: &str| AdminSite::new("8.2", Some(versions), None).map(|site| site.port);
        let message = |versions: &str| port(versions).unwrap_err().to_string();
        assert_eq!(AdminSite::new("8.2", None, None).unwrap().port, 9181);
        assert_eq!(port(r#"{"7.4": 9181, "8.2": 9182}"#), Ok(9182));
        assert_eq!(port(r#"{"8.2": "9182"}"#), Ok(9182));
        assert_eq!(message(r#"{"7.4": 9181}"#), "'/etc/php7adm.versions' has no port for PHP '8.2'");
        assert_eq!(message(r#"{"8.2": 0}"#), "'/etc/php7adm.versions' has 0 for PHP '8.2', which is not a port");
        assert_eq!(message(r#"{"8.2": [1]}"#), "'/etc/php7adm.versions' has [1] for PHP '8.2', which is not a port");
        assert_eq!(
            message("8.2=1"),
            "cannot use '/etc/php7adm.versions': it is not a JSON object: it begins with '8.2=1'"
        );
        let error = AdminSite::new("8.2", None, Some("password hunter2")).unwrap_err();
        assert_eq!(
            error.to_string(),
            "cannot use '/etc/php7adm.netrc': line 1: a login or password before the first machine"
        );
    }

    #[test]
    fn both_caches_are_asked_for_with_the_password() {
        let (port, served) = site(vec![(200, OPCACHE.to_owned()), (200, r#"{"fragmentation": 12.5}"#.to_owned())]);
        let figures = admin(port, Some(NETRC)).read(LONG).unwrap();
        assert_eq!(figures.apcu, Apcu::On(ApcuFigures { fragmentation: 12.5, usage: None }));
        let Opcache::On(opcache) = figures.opcache else { panic!("{:?}", figures.opcache) };
        assert_eq!(opcache.max_cached_keys, 16_229);
        let asked = served.join().unwrap();
        assert!(asked[0].starts_with("GET /opcache-info HTTP/1.1\r\n"), "{asked:?}");
        assert!(asked[1].starts_with("GET /apcu-frag HTTP/1.1\r\n"), "{asked:?}");
        for request in asked {
            assert!(request.to_lowercase().contains("authorization: basic ywrtaw46ahvudgvymg=="), "{request}");
        }
    }

    #[test]
    fn apcu_is_cleared_by_its_endpoint_without_a_password_where_there_is_none() {
        let (port, served) = site(vec![(200, "anything".to_owned())]);
        assert_eq!(admin(port, None).clear_apcu(LONG).unwrap(), Cleared::Done);
        let asked = served.join().unwrap();
        assert!(asked[0].starts_with("GET /apcu-free HTTP/1.1\r\n"), "{asked:?}");
        assert!(!asked[0].to_lowercase().contains("authorization"), "{asked:?}");
    }

    #[test]
    fn a_failure_says_what_was_asked_where_and_what_came_and_never_the_password() {
        let ask = |answer: (u16, String), netrc: Option<&str>| {
            let (port, served) = site(vec![answer]);
            let error = admin(port, netrc).read(LONG).unwrap_err();
            served.join().unwrap();
            let shown = format!("{error} {error:?}");
            assert!(!shown.contains("hunter2") && !shown.contains("YWRt"), "{shown}");
            let place = format!("opcache figures at 'http://localhost:{port}/opcache-info': ");
            error.to_string().strip_prefix(&place).unwrap().to_owned()
        };
        assert_eq!(
            ask((401, "Unauthorized\n".to_owned()), Some(NETRC)),
            "it answers 401, 'Unauthorized': look at the login and password in '/etc/php7adm.netrc'"
        );
        assert_eq!(
            ask((403, String::new()), None),
            "it answers 403: add its login and password to '/etc/php7adm.netrc'"
        );
        assert_eq!(ask((302, "x".to_owned()), None), "it answers 302, 'x'");
        assert_eq!(ask((200, "<html>".to_owned()), None), "its answer is not JSON: it begins with '<html>'");
        assert_eq!(ask((200, "{}".to_owned()), None), "its answer has no 'opcache_enabled'");
        assert_eq!(ask((200, "x".repeat(70_000)), None), "its answer is longer than 65536 bytes");
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let error = admin(port, Some(NETRC)).clear_apcu(LONG).unwrap_err();
        assert_eq!(
            error.to_string(),
            format!("clearing APCu at 'http://localhost:{port}/apcu-free': cannot connect: connection refused")
        );
    }

    #[test]
    fn a_site_that_says_nothing_times_out_by_that_name() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let error = admin(port, None).read(Duration::from_millis(50)).unwrap_err();
        assert_eq!(
            error.to_string(),
            format!("opcache figures at 'http://localhost:{port}/opcache-info': timed out after 50ms")
        );
        assert!(error.is_time_out());
    }
}
