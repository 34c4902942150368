//! How many connections wait at sockets in the file system, made and not yet taken by whoever listens. PHP-FPM does not know of them,
//! and says 0. The kernel tells of each listener; one that is not found by its file (the file is gone, or a file system that has
//! numbers of its own for it) is looked for in `/proc/net/unix` (proc(5)), where each that waits has a line with the listener's path.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use nix::sys::stat::{major, minor};

use crate::listeners::{self, Listener};

const TABLE: &str = "/proc/net/unix";

/// The state of a connection that is made and that nobody has taken yet: connecting, by its number in the kernel's `net.h`.
const WAITS: &str = "02";

/// How many wait at these sockets.
pub fn waiting(sockets: &[PathBuf]) -> io::Result<u64> {
    if sockets.is_empty() {
        return Ok(0);
    }
    // A kernel without the list has the table.
    let listeners = listeners::all().unwrap_or_default();
    let mut waiting = 0_u64;
    let mut by_path = Vec::new();
    for socket in sockets {
        match listener(socket, &listeners) {
            Some(listener) => waiting = waiting.saturating_add(listener.waiting.into()),
            None => by_path.push(socket.as_path()),
        }
    }
    Ok(waiting.saturating_add(in_table(&by_path)?))
}

/// Who listens at this file.
fn listener(socket: &Path, listeners: &[Listener]) -> Option<Listener> {
    let file = fs::metadata(socket).ok()?;
    // The kernel tells the lower half of an inode, and writes a device in its own way.
    let inode = file.ino() as u32;
    let device = (major(file.dev()) << 20 | minor(file.dev())) as u32;
    listeners.iter().copied().find(|listener| (listener.inode, listener.device) == (inode, device))
}

fn in_table(sockets: &[&Path]) -> io::Result<u64> {
    if sockets.is_empty() {
        return Ok(0);
    }
    // A path may be any bytes.
    let table = fs::read(TABLE)?;
    let table = String::from_utf8_lossy(&table);
    let waiting = table.lines().filter_map(waits_at).filter(|path| sockets.contains(path));
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
        assert_eq!(in_table(&both.each_ref().map(PathBuf::as_path)).unwrap(), 2);
        // With its file gone it is known by its path.
        fs::remove_file(&one).unwrap();
        assert_eq!(waiting(&both).unwrap(), 2);
    }

    /// As in two containers that share a network: the same path, and another file.
    #[test]
    fn a_neighbour_at_the_same_path_is_not_counted() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("php.sock");
        let _neighbour = UnixListener::bind(&path).unwrap();
        let _waits = UnixStream::connect(&path).unwrap();
        fs::rename(&path, folder.path().join("elsewhere")).unwrap();
        let _ours = UnixListener::bind(&path).unwrap();
        assert_eq!(in_table(&[&path]).unwrap(), 1);
        assert_eq!(waiting(std::slice::from_ref(&path)).unwrap(), 0);
        let _client = UnixStream::connect(&path).unwrap();
        assert_eq!(waiting(&[path]).unwrap(), 1);
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
