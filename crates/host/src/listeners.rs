//! Who listens at a socket in the file system, and how many wait there: the kernel's own list (sock_diag(7)), which knows each listener
//! by the file that it made. `/proc/net/unix` knows paths alone, and the same path in two containers that share a network is one to it.

use std::io;
use std::os::fd::AsRawFd as _;

use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, send, setsockopt, socket, sockopt::ReceiveTimeout,
};
use nix::sys::time::{TimeVal, TimeValLike as _};

/// The kernel answers at once.
const PATIENCE: i64 = 1;
/// More than the kernel puts into one answer.
const LONGEST: usize = 64 * 1024;

/// Numbers of `linux/netlink.h`, `linux/sock_diag.h` and `linux/unix_diag.h`.
const SOCK_DIAG_BY_FAMILY: u16 = 20;
const REQUEST_DUMP: u16 = 0x1 | 0x300;
const ERROR: u16 = 2;
const DONE: u16 = 3;
const AF_UNIX: u8 = 1;
const LISTENING: u32 = 1 << 10;
const SHOW_FILE_AND_QUEUE: u32 = 0x2 | 0x10;
const FILE: u16 = 1;
const QUEUE: u16 = 4;
/// The sizes of a message's header, and of what comes before its attributes.
const HEADER: usize = 16;
const SOCKET: usize = 16;

/// A listener, known by its file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Listener {
    /// The lower half of the file's number.
    pub inode: u32,
    /// Its file system, as the kernel writes it.
    pub device: u32,
    /// How many connections wait.
    pub waiting: u32,
}

/// All that listen at a file, in this network namespace.
pub fn all() -> io::Result<Vec<Listener>> {
    let flags = SockFlag::SOCK_CLOEXEC;
    let kernel = socket(AddressFamily::Netlink, SockType::Datagram, flags, SockProtocol::NetlinkSockDiag)?;
    setsockopt(&kernel, ReceiveTimeout, &TimeVal::seconds(PATIENCE))?;
    send(kernel.as_raw_fd(), &request(), MsgFlags::empty())?;
    let mut found = Vec::new();
    let mut buffer = vec![0; LONGEST];
    loop {
        let length = recv(kernel.as_raw_fd(), &mut buffer, MsgFlags::empty())?;
        if read(&buffer[..length], &mut found)? {
            return Ok(found);
        }
    }
}

fn request() -> Vec<u8> {
    let mut request = Vec::with_capacity(40);
    request.extend(40_u32.to_ne_bytes());
    request.extend(SOCK_DIAG_BY_FAMILY.to_ne_bytes());
    request.extend(REQUEST_DUMP.to_ne_bytes());
    // The number of the message, and nobody's address: the kernel's.
    request.extend([0; 8]);
    request.extend([AF_UNIX, 0, 0, 0]);
    request.extend(LISTENING.to_ne_bytes());
    request.extend(0_u32.to_ne_bytes());
    request.extend(SHOW_FILE_AND_QUEUE.to_ne_bytes());
    // Any socket, whatever its cookie.
    request.extend([0; 8]);
    request
}

/// Reads the messages of one answer; whether that was the last.
fn read(mut answer: &[u8], found: &mut Vec<Listener>) -> io::Result<bool> {
    let odd = || io::Error::new(io::ErrorKind::InvalidData, "the kernel's list of sockets cannot be read");
    while !answer.is_empty() {
        let length = number(answer, 0).ok_or_else(odd)? as usize;
        let message = answer.get(..length).filter(|message| message.len() >= HEADER).ok_or_else(odd)?;
        match u16::from_ne_bytes([message[4], message[5]]) {
            DONE => return Ok(true),
            ERROR => {
                let code = number(message, HEADER).ok_or_else(odd)?.cast_signed();
                return Err(io::Error::from_raw_os_error(-code));
            }
            SOCK_DIAG_BY_FAMILY => found.extend(listener(message.get(HEADER + SOCKET..).ok_or_else(odd)?)),
            _ => {}
        }
        answer = answer.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    Ok(false)
}

/// A socket's attributes; none of a socket that has no file.
fn listener(mut attributes: &[u8]) -> Option<Listener> {
    let (mut file, mut waiting) = (None, None);
    while let [a, b, c, d, ..] = *attributes {
        let (length, kind) = (usize::from(u16::from_ne_bytes([a, b])), u16::from_ne_bytes([c, d]));
        let value = attributes.get(4..length)?;
        match kind {
            FILE => file = Some((number(value, 0)?, number(value, 4)?)),
            QUEUE => waiting = number(value, 0),
            _ => {}
        }
        attributes = attributes.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    let (inode, device) = file?;
    Some(Listener { inode, device, waiting: waiting? })
}

fn number(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_cut_short_or_refused_is_an_error() {
        let mut none = Vec::new();
        assert!(read(&[1, 2], &mut none).is_err());
        assert!(read(&request()[..20], &mut none).is_err());
        let mut refused = request()[..20].to_vec();
        refused[0] = 20;
        refused[4..6].copy_from_slice(&ERROR.to_ne_bytes());
        refused[16..20].copy_from_slice(&(-2_i32).to_ne_bytes());
        assert_eq!(read(&refused, &mut none).unwrap_err().kind(), io::ErrorKind::NotFound);
        assert_eq!(none, []);
    }
}
