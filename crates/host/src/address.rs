//! Is this name ours? `--host` may name this host by any of its names, and must never name another: the pools of one host
//! and the service of another would be touched.

use std::fmt;
use std::io;
use std::net::{IpAddr, ToSocketAddrs as _};

use nix::ifaddrs::getifaddrs;
use nix::net::if_::InterfaceFlags;
use nix::sys::socket::SockaddrStorage;
use restart_core::Fqdn;

use crate::printable::printable;

/// Makes sure that `host` resolves to an address of this machine. On a loopback interface every address of its network is
/// ours, as it is for the kernel: 127.0.0.11 needs no configuration.
///
/// Waits for the resolver, by the limits in resolv.conf(5).
pub fn must_be_ours(host: &Fqdn) -> Result<(), AddressError> {
    let resolved: Vec<IpAddr> = (host.as_str(), 0)
        .to_socket_addrs()
        .map_err(|error| AddressError::Unresolved { host: host.clone(), why: resolvers_words(&error) })?
        .map(|address| address.ip().to_canonical())
        .collect();
    let interfaces = interfaces().map_err(AddressError::Interfaces)?;
    if resolved.iter().any(|address| interfaces.iter().any(|interface| interface.has(*address))) {
        return Ok(());
    }
    Err(AddressError::Foreign { host: host.clone(), resolved })
}

/// The resolver's own reason, without the words that std puts before it.
fn resolvers_words(error: &io::Error) -> String {
    let text = error.to_string();
    printable(text.strip_prefix("failed to lookup address information: ").unwrap_or(&text))
}

/// Why a name is not known to be ours.
#[derive(Debug, thiserror::Error)]
pub enum AddressError {
    /// The resolver does not know it, or does not answer.
    #[error("cannot resolve '{host}': {why}")]
    Unresolved {
        /// The name.
        host: Fqdn,
        /// The resolver's reason.
        why: String,
    },
    /// It is the name of another machine.
    #[error("'{host}' resolves to {}, which is no address of this host", Joined(resolved))]
    Foreign {
        /// The name.
        host: Fqdn,
        /// What it resolves to; each address once or more often, never empty.
        resolved: Vec<IpAddr>,
    },
    /// The kernel did not say which addresses are ours.
    #[error("cannot list the addresses of this host: {0}")]
    Interfaces(io::Error),
}

struct Joined<'a>(&'a [IpAddr]);

impl fmt::Display for Joined<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let words: Vec<String> = self.0.iter().map(ToString::to_string).collect();
        f.write_str(&words.join(" and "))
    }
}

/// One address of one interface.
#[derive(Debug, Clone, Copy)]
struct Interface {
    address: IpAddr,
    /// The netmask, on loopback interfaces alone.
    loopback: Option<IpAddr>,
}

impl Interface {
    fn has(&self, wanted: IpAddr) -> bool {
        match (self.address, self.loopback, wanted) {
            (IpAddr::V4(own), Some(IpAddr::V4(mask)), IpAddr::V4(wanted)) => {
                own.to_bits() & mask.to_bits() == wanted.to_bits() & mask.to_bits()
            }
            (IpAddr::V6(own), Some(IpAddr::V6(mask)), IpAddr::V6(wanted)) => {
                own.to_bits() & mask.to_bits() == wanted.to_bits() & mask.to_bits()
            }
            (own, _, wanted) => own == wanted,
        }
    }
}

fn interfaces() -> io::Result<Vec<Interface>> {
    let listed = getifaddrs()?.filter_map(|interface| {
        let is_loopback = interface.flags.contains(InterfaceFlags::IFF_LOOPBACK);
        Some(Interface {
            address: ip(interface.address.as_ref()?)?,
            loopback: interface.netmask.as_ref().filter(|_| is_loopback).and_then(ip),
        })
    });
    Ok(listed.collect())
}

/// `None` for what is no IP address: an interface has link addresses too.
fn ip(address: &SockaddrStorage) -> Option<IpAddr> {
    let v4 = address.as_sockaddr_in().map(|v4| IpAddr::V4(v4.ip()));
    v4.or_else(|| address.as_sockaddr_in6().map(|v6| IpAddr::V6(v6.ip())))
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};

    use super::*;

    fn interface(address: &str, loopback: Option<&str>) -> Interface {
        Interface { address: address.parse().unwrap(), loopback: loopback.map(|mask| mask.parse().unwrap()) }
    }

    #[test]
    fn an_address_is_ours_exactly_or_by_the_loopback_network() {
        let table = [
            (interface("127.0.0.1", Some("255.0.0.0")), "127.0.0.11", true),
            (interface("127.0.0.1", Some("255.0.0.0")), "128.0.0.1", false),
            (interface("127.0.0.1", None), "127.0.0.11", false),
            (interface("10.0.0.1", None), "10.0.0.1", true),
            (interface("10.0.0.1", None), "10.0.0.2", false),
            // A service address on lo, as hosts behind LVS have it: a network of one.
            (interface("10.2.1.1", Some("255.255.255.255")), "10.2.1.1", true),
            (interface("10.2.1.1", Some("255.255.255.255")), "10.2.1.2", false),
            (interface("::1", Some("ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff")), "::1", true),
            (interface("::1", Some("ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff")), "::2", false),
            (interface("2001:db8::1", None), "2001:db8::1", true),
            (interface("127.0.0.1", Some("255.0.0.0")), "::1", false),
        ];
        for (interface, address, ours) in table {
            assert_eq!(interface.has(address.parse().unwrap()), ours, "{address} on {interface:?}");
        }
    }

    #[test]
    fn every_host_has_a_loopback_network() {
        let loopback = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 11));
        assert!(interfaces().unwrap().iter().any(|interface| interface.has(loopback)));
        // 192.0.2.0/24 is for documentation: nobody has it.
        let foreign = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));
        assert!(!interfaces().unwrap().iter().any(|interface| interface.has(foreign)));
    }

    #[test]
    fn the_error_names_the_host_and_what_it_resolves_to() {
        let error = AddressError::Foreign {
            host: Fqdn::new("mw2.test").unwrap(),
            resolved: vec![IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)), IpAddr::V6(Ipv6Addr::LOCALHOST)],
        };
        assert_eq!(error.to_string(), "'mw2.test' resolves to 192.0.2.1 and ::1, which is no address of this host");
    }

    #[test]
    fn a_name_that_does_not_exist_is_named_with_the_resolvers_reason() {
        let why = io::Error::other("failed to lookup address information: Name or service not known");
        let error = AddressError::Unresolved { host: Fqdn::new("mw1.invalid").unwrap(), why: resolvers_words(&why) };
        assert_eq!(error.to_string(), "cannot resolve 'mw1.invalid': Name or service not known");
    }

    #[test]
    fn a_numeric_name_needs_no_resolver() {
        must_be_ours(&Fqdn::new("127.0.0.11").unwrap()).unwrap();
        let error = must_be_ours(&Fqdn::new("192.0.2.1").unwrap()).unwrap_err();
        assert_eq!(error.to_string(), "'192.0.2.1' resolves to 192.0.2.1, which is no address of this host");
    }
}
