//! Whom a pool talks to over TCP: `listen.allowed_clients`. Anybody else's connection is closed without a word. A pool that lets in a web
//! server elsewhere, and nobody from its own host, would look like one that does not serve; so it is told before it is asked.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};

use crate::address::Address;

/// The addresses that are let in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AllowedClients(Vec<IpAddr>);

impl AllowedClients {
    /// Reads the directive as PHP-FPM does: addresses, with commas between them and no blank. What is none, such as a network, a name
    /// or `any`, lets in nobody.
    pub fn parse(value: &str) -> Self {
        Self(value.split(',').filter_map(|address| address.parse().ok()).collect())
    }

    /// As whom this host would come to `address`, if that is whom the pool turns away. A name is not looked up for that, and what the
    /// kernel does not tell counts as let in: the pool's answer shows it.
    pub fn turns_away(&self, address: &Address) -> Option<IpAddr> {
        let Address::Tcp { host, port } = address else { return None };
        let client = source(SocketAddr::new(host.parse().ok()?, *port)).ok()?;
        (!self.0.contains(&client)).then_some(client)
    }
}

/// The kernel's choice, which for an address of this host may be another of its addresses. Nothing is sent.
fn source(to: SocketAddr) -> io::Result<IpAddr> {
    let any: IpAddr = if to.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind((any, 0))?;
    socket.connect(to)?;
    Ok(socket.local_addr()?.ip())
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn who_is_let_in_is_read_as_php_fpm_does() {
        let table = [
            ("127.0.0.1", true),
            ("192.0.2.5,127.0.0.1", true),
            ("192.0.2.5,,127.0.0.1,", true),
            ("192.0.2.5, 127.0.0.1", false),
            ("127.0.0.1 ,192.0.2.5", false),
            ("192.0.2.5", false),
            ("127.0.0.0/8", false),
            ("::ffff:127.0.0.1", false),
            ("localhost", false),
            ("any", false),
            ("", false),
        ];
        for (value, is_let_in) in table {
            let turned_away = (!is_let_in).then_some(IpAddr::V4(Ipv4Addr::LOCALHOST));
            let address = Address::parse("127.0.0.1:9000", Path::new("/")).unwrap();
            assert_eq!(AllowedClients::parse(value).turns_away(&address), turned_away, "'{value}'");
        }
    }

    #[test]
    fn a_socket_of_the_file_system_and_a_name_turn_nobody_away() {
        for listen in ["/run/php.sock", "php.example:9000"] {
            let address = Address::parse(listen, Path::new("/")).unwrap();
            assert_eq!(AllowedClients::parse("192.0.2.5").turns_away(&address), None, "{listen}");
        }
    }
}
