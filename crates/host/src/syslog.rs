//! Two kinds of lines for the system's log, sent as datagrams to /dev/log: the audit line that conftool leaves of each write
//! to the pools, byte for byte as its Python logging handler sends it; and a notice of who ran a tool, why, and how it
//! ended, which is recorded also when the tool's own messages go to a terminal.
//!
//! No run waits for a log or fails because of one: the socket does not block, and a line that cannot be sent is lost.

use std::io;
use std::os::unix::net::UnixDatagram;
use std::path::Path;

use crate::printable::printable;

/// The socket of syslog(3).
const SOCKET: &str = "/dev/log";
/// Facility local0 (16), severity info (6): what conftool's handler uses.
const AUDIT: u8 = 16 * 8 + 6;
/// Facility daemon (3), severity notice (5).
const NOTICE: u8 = 3 * 8 + 5;

/// Sends an audit line; `text` is conftool's `@cee: {...}`. Returns whether it was sent.
pub fn audit(text: &str) -> bool {
    send(Path::new(SOCKET), &audit_line(text, std::process::id()))
}

/// Sends `text` as a notice of `tool`. Returns whether it was sent.
pub fn notice(tool: &str, text: &str) -> bool {
    send(Path::new(SOCKET), &notice_line(tool, text, std::process::id()))
}

/// conftool's handler: its ident `conftool-audit`, its format ` %(name)s[%(process)d]: ...`, and the NUL that Python's
/// SysLogHandler ends each message with.
fn audit_line(text: &str, pid: u32) -> String {
    format!("<{AUDIT}>conftool-audit ConftoolAudit[{pid}]: {}\0", printable(text))
}

fn notice_line(tool: &str, text: &str, pid: u32) -> String {
    format!("<{NOTICE}>{tool}[{pid}]: {}", printable(text))
}

fn send(socket: &Path, line: &str) -> bool {
    attempt(socket, line).is_ok()
}

fn attempt(socket: &Path, line: &str) -> io::Result<()> {
    let sender = UnixDatagram::unbound()?;
    sender.set_nonblocking(true)?;
    sender.send_to(line.as_bytes(), socket)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_audit_line_is_the_one_of_conftool() {
        let text = r#"@cee: {"event.action": "write", "service.type": "node"}"#;
        assert_eq!(
            audit_line(text, 42),
            "<134>conftool-audit ConftoolAudit[42]: @cee: {\"event.action\": \"write\", \"service.type\": \"node\"}\0"
        );
    }

    #[test]
    fn a_notice_is_one_line_whatever_the_reason_given() {
        assert_eq!(
            notice_line("safe-service-restart", "done\n<0>forged", 42),
            "<29>safe-service-restart[42]: done\\n<0>forged"
        );
    }

    #[test]
    fn lines_arrive_as_datagrams() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        let receiver = UnixDatagram::bind(&path).unwrap();
        assert!(send(&path, "<29>tool[1]: text"));
        let mut buffer = [0; 64];
        let length = receiver.recv(&mut buffer).unwrap();
        assert_eq!(&buffer[..length], b"<29>tool[1]: text");
    }

    #[test]
    fn a_log_that_is_not_there_or_does_not_read_costs_the_line_and_no_time() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        assert!(!send(&path, "x"));
        let _receiver = UnixDatagram::bind(&path).unwrap();
        // The kernel queues a few datagrams (net.unix.max_dgram_qlen); a blocking socket would hang after them.
        assert!((0..100_000).any(|_| !send(&path, "x")), "a queue without an end");
    }
}
