//! Where one member of the store listens: scheme, host and port, checked when they are read, so that nothing else of a URL
//! (a user, a path, a query) reaches the network or a log.

use std::fmt;
use std::net::Ipv6Addr;

/// The scheme of a member's URL: `protocol` in an etcdrc file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scheme {
    /// Plain text.
    Http,
    /// TLS, verified always.
    Https,
}

impl Scheme {
    /// Reads `http` or `https`.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        match text {
            "http" => Some(Self::Http),
            "https" => Some(Self::Https),
            _ => None,
        }
    }

    fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
        }
    }
}

/// One member's address. Its `Display` is the URL.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Endpoint {
    /// Plain text or TLS.
    pub(crate) scheme: Scheme,
    host: String,
    port: u16,
}

/// Why a text is no address of a member. The text itself is not in it: it might hold a password.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum EndpointError {
    /// Neither a host name nor an address.
    #[error("is not a host name or an address")]
    Host,
    /// Not a number from 1 to 65535.
    #[error("has a port that is not a number from 1 to 65535")]
    Port,
    /// A scheme that etcd does not speak.
    #[error("has a protocol other than http and https")]
    Scheme,
    /// A user, a path or a query.
    #[error("has more than a protocol, a host and a port (a user belongs into 'username')")]
    Rest,
}

impl Endpoint {
    /// An address from its parts; `host` is a name, an IPv4 address, or an IPv6 address with or without brackets.
    pub(crate) fn new(scheme: Scheme, host: &str, port: u16) -> Result<Self, EndpointError> {
        let bare = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
        let is_address = bare.unwrap_or(host).parse::<Ipv6Addr>().is_ok();
        let is_name = bare.is_none()
            && !host.is_empty()
            && host.len() <= 253
            && !host.starts_with('-')
            && host.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c));
        if !is_address && !is_name {
            return Err(EndpointError::Host);
        }
        if port == 0 {
            return Err(EndpointError::Port);
        }
        Ok(Self { scheme, host: bare.unwrap_or(host).to_owned(), port })
    }

    /// An address from a URL such as `https://conf1:2379`; what it leaves out is `scheme` and `port`.
    pub(crate) fn parse(url: &str, scheme: Scheme, port: u16) -> Result<Self, EndpointError> {
        let (scheme, rest) = match url.split_once("://") {
            Some((given, rest)) => (Scheme::parse(given).ok_or(EndpointError::Scheme)?, rest),
            None => (scheme, url),
        };
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        if rest.contains(['/', '@', '?', '#']) {
            return Err(EndpointError::Rest);
        }
        let colon = match rest.rfind(']') {
            Some(bracket) => rest[bracket..].find(':').map(|at| bracket + at),
            None if rest.matches(':').count() > 1 => None,
            None => rest.find(':'),
        };
        match colon {
            Some(at) => {
                let given = rest[at + 1..].parse().map_err(|_| EndpointError::Port)?;
                Self::new(scheme, &rest[..at], given)
            }
            None => Self::new(scheme, rest, port),
        }
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = self.scheme.as_str();
        if self.host.contains(':') {
            write!(f, "{scheme}://[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{scheme}://{}:{}", self.host, self.port)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_taken_with_and_without_scheme_and_port() {
        for (given, wanted) in [
            ("http://localhost:2379", "http://localhost:2379"),
            ("https://conf1.example:2379/", "https://conf1.example:2379"),
            ("conf1.example", "https://conf1.example:4001"),
            ("conf1.example:1", "https://conf1.example:1"),
            ("http://[::1]:2379", "http://[::1]:2379"),
            ("[::1]", "https://[::1]:4001"),
            ("::1", "https://[::1]:4001"),
        ] {
            let endpoint = Endpoint::parse(given, Scheme::Https, 4001).map(|endpoint| endpoint.to_string());
            assert_eq!(endpoint.as_deref(), Ok(wanted), "{given}");
        }
    }

    #[test]
    fn what_is_no_address_is_refused_without_quoting_it() {
        for (given, wanted) in [
            ("", EndpointError::Host),
            ("a b", EndpointError::Host),
            ("-x", EndpointError::Host),
            ("[conf1]", EndpointError::Host),
            ("conf1:0", EndpointError::Port),
            ("conf1:65536", EndpointError::Port),
            ("conf1:x", EndpointError::Port),
            ("unix:///run/etcd", EndpointError::Scheme),
            ("http://user:secret@conf1", EndpointError::Rest),
            ("http://conf1/v2", EndpointError::Rest),
            ("http://conf1?x", EndpointError::Rest),
        ] {
            assert_eq!(Endpoint::parse(given, Scheme::Http, 4001), Err(wanted), "{given}");
        }
    }
}
