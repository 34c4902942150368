//! Where a pool listens, as its configuration says it, and where that can be reached from this host.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};

/// Where a pool can be reached.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Address {
    /// A socket in the file system.
    Unix(PathBuf),
    /// A TCP port of an address or a host name.
    Tcp {
        /// An address, without brackets, or a name.
        host: String,
        /// From 1.
        port: u16,
    },
}

/// A `listen` that PHP-FPM itself would not take.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' is neither the path of a socket nor a port")]
pub struct AddressError(String);

impl Address {
    /// Reads a `listen` or `pm.status_listen` as PHP-FPM does: with a colon in it, or all digits, it is TCP, anything else a path,
    /// relative to `prefix`. Every address of the host (a bare port, `*`, `0.0.0.0`, `[::]`) is reached by loopback.
    pub fn parse(listen: &str, prefix: &Path) -> Result<Self, AddressError> {
        let wrong = || AddressError(listen.to_owned());
        let (host, port) = match listen.rsplit_once(':') {
            Some((host, port)) => (host, port),
            None if !listen.is_empty() && listen.bytes().all(|byte| byte.is_ascii_digit()) => ("", listen),
            None if listen.is_empty() || listen.contains('\0') => return Err(wrong()),
            None => return Ok(Self::Unix(prefix.join(listen))),
        };
        let port = port.parse().ok().filter(|port| *port != 0).ok_or_else(wrong)?;
        let host = host.strip_prefix('[').map_or(Some(host), |inner| inner.strip_suffix(']')).ok_or_else(wrong)?;
        let host = match host.parse::<IpAddr>() {
            Ok(IpAddr::V4(Ipv4Addr::UNSPECIFIED)) => Ipv4Addr::LOCALHOST.to_string(),
            Ok(IpAddr::V6(Ipv6Addr::UNSPECIFIED)) => Ipv6Addr::LOCALHOST.to_string(),
            Ok(address) => address.to_string(),
            Err(_) if host.is_empty() || host == "*" => Ipv4Addr::LOCALHOST.to_string(),
            Err(_) if host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._".contains(&byte)) => {
                host.to_owned()
            }
            Err(_) => return Err(wrong()),
        };
        Ok(Self::Tcp { host, port })
    }

    /// Whether it is a socket in the file system. PHP-FPM does not know how many wait in the queue of such a one.
    pub fn is_unix(&self) -> bool {
        matches!(self, Self::Unix(_))
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "{}", path.display()),
            Self::Tcp { host, port } if host.contains(':') => write!(f, "[{host}]:{port}"),
            Self::Tcp { host, port } => write!(f, "{host}:{port}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(listen: &str) -> Option<String> {
        Address::parse(listen, Path::new("/usr")).ok().map(|address| address.to_string())
    }

    #[test]
    fn everything_that_php_fpm_can_listen_on_is_read() {
        let table = [
            ("/run/php/php8.2-fpm.sock", "/run/php/php8.2-fpm.sock"),
            ("var/run/x.sock", "/usr/var/run/x.sock"),
            ("127.0.0.1:9000", "127.0.0.1:9000"),
            ("9000", "127.0.0.1:9000"),
            ("*:9000", "127.0.0.1:9000"),
            ("0.0.0.0:9000", "127.0.0.1:9000"),
            ("[::]:9000", "[::1]:9000"),
            ("[::1]:9000", "[::1]:9000"),
            ("[2001:db8::1]:65535", "[2001:db8::1]:65535"),
            ("localhost:9000", "localhost:9000"),
            ("php.example:1", "php.example:1"),
        ];
        for (listen, expected) in table {
            assert_eq!(parse(listen).as_deref(), Some(expected), "{listen}");
        }
    }

    #[test]
    fn what_php_fpm_cannot_listen_on_is_an_error() {
        for listen in ["", "0", "65536", "host:", "host:0", "host:x", "[::1:9000", "/run/a:b", "a b:1", "a/b:1"] {
            assert_eq!(parse(listen), None, "{listen:?}");
        }
        let error = Address::parse("65536", Path::new("/usr")).unwrap_err();
        assert_eq!(error.to_string(), "'65536' is neither the path of a socket nor a port");
    }
}
