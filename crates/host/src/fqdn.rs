//! This host's own fully qualified name, found the way Python's `socket.getfqdn()` finds it, since that is the name that
//! conftool's objects and PyBal's servers were made with.

use std::net::{IpAddr, SocketAddr};

use dns_lookup::{AddrInfoHints, LookupError, getaddrinfo, getnameinfo};
use nix::libc::{AI_CANONNAME, NI_NAMEREQD, SOCK_STREAM};
use restart_core::Fqdn;

use crate::printable::printable;

/// Asks the kernel for the host name and the resolver for what that stands for: its canonical name, then the names of its
/// addresses, then the host name as it is. The first with a dot is ours.
///
/// Waits for the resolver, by the limits in resolv.conf(5).
pub fn own() -> Result<Fqdn, FqdnError> {
    let hostname = nix::unistd::gethostname().map_err(|error| FqdnError::NoHostname(error.into()))?;
    let hostname = hostname.to_string_lossy().into_owned();
    let mut names = candidates(&hostname).unwrap_or_else(|error| {
        log::debug!("cannot resolve this host's name '{hostname}': {}", std::io::Error::from(error));
        Vec::new()
    });
    names.push(hostname.clone());
    choose(&hostname, &names)
}

/// The kernel's name for this host, as `gethostname(2)` tells it: for logs. Empty if the kernel will not say.
pub fn hostname() -> String {
    nix::unistd::gethostname().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}

/// Why this host's name is not known. All of them are mended with `--host`.
#[derive(Debug, thiserror::Error)]
pub enum FqdnError {
    /// The kernel would not say.
    #[error("cannot read this host's name: {0}; name it by --host or 'host'")]
    NoHostname(std::io::Error),
    /// No name with a dot was found, or only the loopback's.
    #[error("cannot find the full name of this host: '{hostname}' stands for {found}; name it by --host or 'host'")]
    NotQualified {
        /// The kernel's name for the host.
        hostname: String,
        /// What was found in place of a full name.
        found: String,
    },
}

/// The names that the resolver has for `hostname`, in the order in which they are considered.
fn candidates(hostname: &str) -> Result<Vec<String>, LookupError> {
    let hints = AddrInfoHints { flags: AI_CANONNAME, socktype: SOCK_STREAM, ..AddrInfoHints::default() };
    let mut names = Vec::new();
    let mut addresses: Vec<IpAddr> = Vec::new();
    for found in getaddrinfo(Some(hostname), None, Some(hints))?.filter_map(Result::ok) {
        names.extend(found.canonname);
        if !addresses.contains(&found.sockaddr.ip()) {
            addresses.push(found.sockaddr.ip());
        }
    }
    if names.iter().any(|name| is_full(name)) {
        // The addresses would be asked of a name server, and not be needed.
        return Ok(names);
    }
    let reverse = addresses.iter().filter_map(|address| getnameinfo(&SocketAddr::new(*address, 0), NI_NAMEREQD).ok());
    names.extend(reverse.map(|(name, _service)| name));
    Ok(names)
}

/// The loopback's own name tells hosts apart as little as a name without a domain.
fn is_full(name: &str) -> bool {
    name.contains('.') && !name.starts_with("localhost")
}

fn choose(hostname: &str, names: &[String]) -> Result<Fqdn, FqdnError> {
    let chosen = names.iter().filter(|name| is_full(name)).find_map(|name| Fqdn::new(name.as_str()).ok());
    chosen.ok_or_else(|| {
        let mut found: Vec<String> = names.iter().map(|name| format!("'{}'", printable(name))).collect();
        found.dedup();
        FqdnError::NotQualified { hostname: printable(hostname), found: found.join(", ") }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen(names: &[&str]) -> Result<String, String> {
        let names: Vec<String> = names.iter().map(ToString::to_string).collect();
        choose("mw1", &names).map(|name| name.to_string()).map_err(|error| error.to_string())
    }

    #[test]
    fn the_first_name_with_a_dot_is_ours() {
        assert_eq!(chosen(&["mw1", "mw1.eqiad.wmnet", "mw1.example"]).as_deref(), Ok("mw1.eqiad.wmnet"));
        assert_eq!(chosen(&["localhost", "mw1.test"]).as_deref(), Ok("mw1.test"));
    }

    #[test]
    fn the_loopbacks_name_is_refused() {
        for name in ["localhost", "localhost.localdomain", "localhost6.localdomain6"] {
            assert_eq!(
                chosen(&[name, "mw1"]),
                Err(format!(
                    "cannot find the full name of this host: 'mw1' stands for '{name}', 'mw1'; name it by --host or 'host'"
                ))
            );
        }
    }

    #[test]
    fn what_cannot_be_a_host_name_is_passed_over() {
        assert_eq!(chosen(&["a b.c", "-x.y", "mw1.test"]).as_deref(), Ok("mw1.test"));
        assert!(chosen(&["\u{1b}[2J.x"]).unwrap_err().contains("'\\u{1b}[2J.x'"));
    }

    #[test]
    fn the_resolvers_names_for_an_address_are_found() {
        // Every libc resolves a numeric name by itself, and /etc/hosts has the loopback everywhere.
        let names = candidates("127.0.0.1").unwrap();
        assert!(!names.is_empty());
    }
}
