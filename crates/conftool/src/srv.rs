//! The members of the store from DNS: the SRV records `_etcd._tcp.DOMAIN`, the one name that python-etcd asks for. `libc`
//! cannot look these up, so a resolver of our own does, with the system's servers.

use std::net::SocketAddr;

use hickory_resolver::TokioResolver;
use hickory_resolver::config::{NameServerConfig, ResolverConfig};
use hickory_resolver::name_server::TokioConnectionProvider;
use hickory_resolver::proto::rr::rdata::SRV;
use hickory_resolver::proto::xfer::Protocol;
use tokio::runtime::Runtime;
use tokio::time::timeout;

use crate::limits::{LOOKUP, LOOKUP_PACKET};

/// A host and its port.
pub(crate) type Target = (String, u16);

/// The members of `domain`: by priority, within it the heavier first. Asked are `servers`, or the system's if there are none.
pub(crate) fn lookup(runtime: &Runtime, domain: &str, servers: &[SocketAddr]) -> Result<Vec<Target>, String> {
    let name = format!("_etcd._tcp.{}.", domain.trim_end_matches('.'));
    let failed = |why: &str| format!("cannot look up the SRV records '{name}': {why}");
    let answer = runtime.block_on(async {
        let resolver = resolver(servers)?;
        match timeout(LOOKUP, resolver.srv_lookup(name.as_str())).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(error)) if error.is_no_records_found() => Err("there are none".to_owned()),
            Ok(Err(_)) => Err("no answer from the name servers that can be used".to_owned()),
            Err(_) => Err(format!("no answer within {} s", LOOKUP.as_secs())),
        }
    });
    let answer = answer.map_err(|why| failed(&why))?;
    let targets = in_order(answer.iter());
    if targets.is_empty() { Err(failed("there are none")) } else { Ok(targets) }
}

fn resolver(servers: &[SocketAddr]) -> Result<TokioResolver, String> {
    let mut builder = if servers.is_empty() {
        TokioResolver::builder_tokio().map_err(|_| "'/etc/resolv.conf' cannot be used".to_owned())?
    } else {
        let mut config = ResolverConfig::new();
        for server in servers {
            config.add_name_server(NameServerConfig::new(*server, Protocol::Udp));
        }
        TokioResolver::builder_with_config(config, TokioConnectionProvider::default())
    };
    let options = builder.options_mut();
    options.timeout = LOOKUP_PACKET;
    options.attempts = 2;
    Ok(builder.build())
}

/// Records in the order in which their hosts are tried. RFC 2782 would draw lots by weight; a fixed order is easier to
/// reason about when one member is ill. A target of "." says that there is no such service.
fn in_order<'a>(records: impl Iterator<Item = &'a SRV>) -> Vec<Target> {
    let mut records: Vec<&SRV> = records.filter(|record| !record.target().is_root() && record.port() > 0).collect();
    records.sort_by_key(|record| (record.priority(), std::cmp::Reverse(record.weight()), record.target().to_string()));
    let target = |record: &&SRV| (record.target().to_string().trim_end_matches('.').to_owned(), record.port());
    records.iter().map(target).collect()
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;

    use hickory_resolver::proto::op::{Message, MessageType, ResponseCode};
    use hickory_resolver::proto::rr::{Name, RData, Record};

    use super::*;

    fn record(priority: u16, weight: u16, port: u16, target: &str) -> SRV {
        SRV::new(priority, weight, port, Name::from_ascii(target).unwrap())
    }

    fn runtime() -> Runtime {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
    }

    /// A name server that answers one question with `records`, or says that the name does not exist.
    fn name_server(records: Vec<SRV>) -> (SocketAddr, std::thread::JoinHandle<String>) {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.set_read_timeout(Some(std::time::Duration::from_secs(10))).unwrap();
        let address = socket.local_addr().unwrap();
        let server = std::thread::spawn(move || {
            let mut packet = [0; 1500];
            let (length, from) = socket.recv_from(&mut packet).unwrap();
            let mut message = Message::from_vec(&packet[..length]).unwrap();
            let name = message.queries()[0].name().clone();
            message.set_message_type(MessageType::Response);
            if records.is_empty() {
                message.set_response_code(ResponseCode::NXDomain);
            }
            for found in records {
                message.add_answer(Record::from_rdata(name.clone(), 60, RData::SRV(found)));
            }
            socket.send_to(&message.to_vec().unwrap(), from).unwrap();
            name.to_string()
        });
        (address, server)
    }

    #[test]
    fn hosts_come_by_priority_and_weight() {
        let records = [
            record(20, 9, 2379, "conf3.example."),
            record(10, 1, 2379, "conf2.example."),
            record(10, 5, 2380, "conf1.example."),
            record(0, 0, 0, "."),
        ];
        let wanted = [("conf1.example", 2380), ("conf2.example", 2379), ("conf3.example", 2379)];
        assert_eq!(in_order(records.iter()), wanted.map(|(host, port)| (host.to_owned(), port)));
    }

    #[test]
    fn the_name_asked_for_is_python_etcds() {
        let (address, server) = name_server(vec![record(0, 1, 2379, "conf1.example.")]);
        let found = lookup(&runtime(), "eqiad.example", &[address]);
        assert_eq!(server.join().unwrap(), "_etcd._tcp.eqiad.example.");
        assert_eq!(found, Ok(vec![("conf1.example".to_owned(), 2379)]));
    }

    #[test]
    fn a_domain_without_records_is_an_error_that_names_it() {
        let (address, server) = name_server(Vec::new());
        let error = lookup(&runtime(), "none.example", &[address]).unwrap_err();
        server.join().unwrap();
        assert_eq!(error, "cannot look up the SRV records '_etcd._tcp.none.example.': there are none");
    }

    #[test]
    fn a_silent_name_server_ends_in_an_error() {
        let silent = UdpSocket::bind("127.0.0.1:0").unwrap();
        let error = lookup(&runtime(), "eqiad.example", &[silent.local_addr().unwrap()]).unwrap_err();
        assert!(error.contains("no answer"), "{error}");
    }
}
