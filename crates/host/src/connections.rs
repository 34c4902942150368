//! How many TCP connections are open to ports of this host: from `/proc/net/tcp` and `tcp6` (proc(5)), which the kernel writes anew
//! for each reader. For services that do not say themselves what is in flight.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, BufRead as _, BufReader};

/// The tables; the second is missing on a kernel without IPv6.
const TABLES: [&str; 2] = ["/proc/net/tcp", IPV6];
const IPV6: &str = "/proc/net/tcp6";

/// The states in which an answer may still be under way, by their numbers in the kernel's `tcp_states.h`: established, and closed by
/// the client but not yet by the service.
const UNDER_WAY: [&str; 2] = ["01", "08"];

/// Something that listens, likewise.
const LISTENS: &str = "0A";

/// Counts the connections that were made to these ports and are not over, those that only stand idle included. That nothing listens on
/// one of them is an error: then the service is elsewhere, and so are its connections.
pub fn count(ports: &[u16]) -> io::Result<u64> {
    let mut count = 0;
    let mut silent: BTreeSet<u16> = ports.iter().copied().collect();
    for table in TABLES {
        let lines = match File::open(table) {
            Ok(file) => BufReader::new(file).lines(),
            Err(error) if error.kind() == io::ErrorKind::NotFound && table == IPV6 => continue,
            Err(error) => return Err(error),
        };
        // The first line is the heading.
        for line in lines.skip(1) {
            let line = line?;
            let (port, state) =
                socket(&line).ok_or_else(|| io::Error::other(format!("'{table}' has a line '{line}'")))?;
            if state == LISTENS {
                silent.remove(&port);
            }
            count += u64::from(UNDER_WAY.contains(&state) && ports.contains(&port));
        }
    }
    match silent.first() {
        Some(port) => Err(io::Error::other(format!("nothing listens on port {port} of this host"))),
        None => Ok(count),
    }
}

/// The local port and the state of a line of the table: `0: 0100007F:0050 0100007F:D2F0 01 ...`.
fn socket(line: &str) -> Option<(u16, &str)> {
    let mut fields = line.split_ascii_whitespace().skip(1);
    let (local, _, state) = (fields.next()?, fields.next()?, fields.next()?);
    let (_, port) = local.rsplit_once(':')?;
    Some((u16::from_str_radix(port, 16).ok()?, state))
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use super::*;

    #[test]
    fn a_connection_counts_at_the_port_it_was_made_to_until_it_is_over() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        assert_eq!(count(&[port]).unwrap(), 0);
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (server, _) = listener.accept().unwrap();
        assert_eq!(count(&[port]).unwrap(), 1);
        assert_eq!(count(&[]).unwrap(), 0);
        // The client has said all it has to say, and waits for the answer.
        client.shutdown(std::net::Shutdown::Write).unwrap();
        let mut nothing = [0; 1];
        assert_eq!(io::Read::read(&mut &server, &mut nothing).unwrap(), 0);
        assert_eq!(count(&[port]).unwrap(), 1);
        drop(server);
        assert_eq!(count(&[port]).unwrap(), 0);
    }

    #[test]
    fn a_port_on_which_nothing_listens_has_no_count() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        drop(listener);
        let error = count(&[port]).unwrap_err().to_string();
        assert_eq!(error, format!("nothing listens on port {port} of this host"));
    }

    #[test]
    fn lines_of_both_tables_are_read() {
        let four =
            "  12: 0B00007F:0050 0100007F:D2F0 01 00000000:00000000 00:00000000 00000000    33        0 27211 1 0";
        let six =
            "   1: 00000000000000000000000001000000:01BB 00000000000000000000000001000000:D2F0 08 00000000:00000000";
        let listening =
            "   0: 00000000:0050 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 25433 1 0";
        for (line, expected) in [
            (four, Some((80, "01"))),
            (six, Some((443, "08"))),
            (listening, Some((80, "0A"))),
            ("", None),
            ("rubbish", None),
            ("0: 0B00007F:XY 0100007F:D2F0 01", None),
        ] {
            assert_eq!(socket(line), expected, "{line}");
        }
    }
}
