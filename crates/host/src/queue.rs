//! How many connections wait at sockets in the file system, made and not yet taken by whoever listens: from `/proc/net/unix` (proc(5)),
//! where each has a line with the listener's path. PHP-FPM does not know of them, and says 0.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

const TABLE: &str = "/proc/net/unix";

/// The state of a connection that is made and that nobody has taken yet: connecting, by its number in the kernel's `net.h`.
const WAITS: &str = "02";

/// How many wait at these sockets.
pub fn waiting(sockets: &[PathBuf]) -> io::Result<u64> {
    if sockets.is_empty() {
        return Ok(0);
    }
    // A path may be any bytes.
    let table = fs::read(TABLE)?;
    let table = String::from_utf8_lossy(&table);
    let waiting = table.lines().filter_map(waits_at).filter(|path| sockets.iter().any(|socket| socket == path));
    Ok(waiting.count().try_into().unwrap_or(u64::MAX))
}

/// The path of a line of the table if it is of a connection that waits: `0000000000000000: 00000003 00000000 00000000 0001 02 0 /run/x.sock`.
fn waits_at(line: &str) -> Option<&Path> {
    let mut rest = line;
    let mut state = "";
    // Number, references, protocol, flags, type, state, inode; the path is all that follows, spaces included.
    for place in 0..7 {
        let (field, after) = rest.trim_start().split_once(' ')?;
        if place == 5 {
            state = field;
        }
        rest = after;
    }
    (state == WAITS).then(|| Path::new(rest))
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::{UnixListener, UnixStream};

    use super::*;

    #[test]
    fn a_connection_waits_until_it_is_taken() {
        let folder = tempfile::tempdir().unwrap();
        let [one, other] = ["with a space.sock", "other.sock"].map(|name| folder.path().join(name));
        let listeners = [&one, &other].map(|path| UnixListener::bind(path).unwrap());
        let both = [one.clone(), other.clone()];
        assert_eq!(waiting(&both).unwrap(), 0);
        let _clients = [&one, &one, &other].map(|path| UnixStream::connect(path).unwrap());
        assert_eq!(waiting(&both).unwrap(), 3);
        assert_eq!(waiting(&both[1..]).unwrap(), 1);
        assert_eq!(waiting(&[folder.path().join("with")]).unwrap(), 0);
        let taken = listeners[0].accept().unwrap();
        assert_eq!(waiting(&both).unwrap(), 2);
        drop(taken);
        assert_eq!(waiting(&both).unwrap(), 2);
    }

    #[test]
    fn lines_without_a_path_and_of_other_states_are_passed_over() {
        for (line, expected) in [
            ("00000000be643025: 00000003 00000000 00000000 0001 02     0 /run/x.sock", Some("/run/x.sock")),
            ("00000000be643025: 00000003 00000000 00000000 0001 02 0 /run/a b", Some("/run/a b")),
            ("000000000fb5f722: 00000002 00000000 00010000 0001 01 883108 /run/x.sock", None),
            ("0000000031e43cbc: 00000003 00000000 00000000 0001 03 883112 /run/x.sock", None),
            ("0000000031e43cbc: 00000003 00000000 00000000 0001 02 883112", None),
            ("Num       RefCount Protocol Flags    Type St Inode Path", None),
            ("", None),
        ] {
            assert_eq!(waits_at(line), expected.map(Path::new), "{line}");
        }
    }
}
