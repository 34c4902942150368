//! How many TCP connections are open to ports of this host: from `/proc/net/tcp` and `tcp6` (proc(5)), which the kernel writes anew
//! for each reader. For services that do not say themselves what is in flight.

use std::fs::File;
use std::io::{self, BufRead as _, BufReader};

/// The tables; the second is missing on a kernel without IPv6.
const TABLES: [&str; 2] = ["/proc/net/tcp", "/proc/net/tcp6"];

/// The states in which an answer may still be under way, by their numbers in the kernel's `tcp_states.h`: established, and closed by
/// the client but not yet by the service.
const UNDER_WAY: [&str; 2] = ["01", "08"];

/// Counts the connections that were made to these ports and are not over, those that only stand idle included.
pub fn count(ports: &[u16]) -> io::Result<u64> {
    let mut count = 0;
    for table in TABLES {
        let lines = match File::open(table) {
            Ok(file) => BufReader::new(file).lines(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(error),
        };
        // The first line is the heading.
        for line in lines.skip(1) {
            count += u64::from(is_under_way(&line?, ports));
        }
    }
    Ok(count)
}

/// Whether a line of the table is a connection to one of these ports: `0: 0100007F:0050 0100007F:D2F0 01 ...`.
fn is_under_way(line: &str, ports: &[u16]) -> bool {
    let mut fields = line.split_ascii_whitespace().skip(1);
    let (Some(local), _, Some(state)) = (fields.next(), fields.next(), fields.next()) else { return false };
    let port = local.rsplit_once(':').and_then(|(_, port)| u16::from_str_radix(port, 16).ok());
    UNDER_WAY.contains(&state) && port.is_some_and(|port| ports.contains(&port))
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
    fn lines_of_both_tables_are_read() {
        let four =
            "  12: 0B00007F:0050 0100007F:D2F0 01 00000000:00000000 00:00000000 00000000    33        0 27211 1 0";
        let six =
            "   1: 00000000000000000000000001000000:0050 00000000000000000000000001000000:D2F0 01 00000000:00000000";
        let listening =
            "   0: 00000000:0050 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 25433 1 0";
        for (line, expected) in [(four, true), (six, true), (listening, false), ("", false), ("rubbish", false)] {
            assert_eq!(is_under_way(line, &[80]), expected, "{line}");
        }
        assert!(!is_under_way(four, &[443]));
    }
}
