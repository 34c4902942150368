//! Runs a program to its end, or to the end of the time it is given, and keeps the end of what it printed.
//!
//! Nothing here polls: a thread waits for the exit and closes a pipe, and the caller sleeps in poll(2) on that and on the
//! output. So the wait ends the moment the program does, also if a child of its own still holds the output open.

use std::io::{self, Read as _};
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout};
use nix::sys::signal::{Signal, killpg};
use nix::sys::wait::{Id, WaitPidFlag, waitid};
use nix::unistd::Pid;

/// What is kept of each stream. The programs run here print a few lines; one that prints on and on fills no memory.
const KEPT: usize = 64 * 1024;

/// One read takes at most this much.
const READ: usize = 8 * 1024;
/// Reads that empty a full pipe (64 KiB on Linux), whatever the sizes of the writes were.
const LAST_READS: usize = 4 * (64 * 1024 / READ);

/// How a program ended.
#[derive(Debug)]
pub struct Finished {
    /// Exit code or signal.
    pub status: ExitStatus,
    /// The end of its standard output.
    pub stdout: Vec<u8>,
    /// The end of its standard error.
    pub stderr: Vec<u8>,
}

/// Why there is no end to report.
#[derive(Debug, thiserror::Error)]
pub enum ChildError {
    /// It could not be started.
    #[error("cannot run it: {0}")]
    Start(io::Error),
    /// It did not end in time, and was killed with all of its process group.
    #[error("no end within the time allowed")]
    TimeOver,
    /// The system would not let us wait for it.
    #[error("cannot wait for it: {0}")]
    Wait(io::Error),
}

/// Runs `command` in a process group of its own, without input, for `at_most` that long.
pub fn run(command: &mut Command, at_most: Duration) -> Result<Finished, ChildError> {
    let deadline = Instant::now().checked_add(at_most);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
    let mut child = command.spawn().map_err(ChildError::Start)?;
    let group = Pid::from_raw(child.id().cast_signed());
    let watched = watch(&mut child, group, deadline);
    if watched.is_err() {
        // The process is not reaped yet, so its number cannot be anybody else's. Gone already is as good.
        let _ = killpg(group, Signal::SIGKILL);
    }
    let status = child.wait().map_err(ChildError::Wait)?;
    let (stdout, stderr) = watched?;
    Ok(Finished { status, stdout, stderr })
}

/// Collects the output until the program ends.
fn watch(child: &mut Child, pid: Pid, deadline: Option<Instant>) -> Result<(Vec<u8>, Vec<u8>), ChildError> {
    let ended = notice_of_end(pid).map_err(ChildError::Wait)?;
    let mut streams =
        [Stream::new(child.stdout.take().map(OwnedFd::from)), Stream::new(child.stderr.take().map(OwnedFd::from))];
    loop {
        match ready(Some(&ended), &mut streams, deadline).map_err(ChildError::Wait)? {
            Ready::Ended => break,
            // One that prints on and on always has some output.
            Ready::Output if deadline.is_none_or(|deadline| Instant::now() < deadline) => {}
            Ready::Output | Ready::TimeOver => return Err(ChildError::TimeOver),
        }
    }
    // What it wrote before it ended is in the pipes by now. Not more than that is read: a child that it left behind may
    // hold them open, and write on and on.
    let now = Some(Instant::now());
    for _ in 0..LAST_READS {
        if !matches!(ready(None, &mut streams, now).map_err(ChildError::Wait)?, Ready::Output) {
            break;
        }
    }
    let [stdout, stderr] = streams;
    Ok((stdout.kept, stderr.kept))
}

/// A pipe that is closed when the process `pid` ends. It is waited for, but not reaped, so that its number cannot be anybody else's
/// while it may be sent a signal.
pub fn notice_of_end(pid: Pid) -> io::Result<OwnedFd> {
    let (reader, writer) = io::pipe()?;
    std::thread::Builder::new().name("wait".to_owned()).spawn(move || {
        while waitid(Id::Pid(pid), WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT) == Err(Errno::EINTR) {}
        drop(writer);
    })?;
    Ok(reader.into())
}

enum Ready {
    /// Some output was read.
    Output,
    /// The program ended.
    Ended,
    /// The deadline passed, or nobody is left to wait for.
    TimeOver,
}

/// Waits for output, which it reads, for the end, or for the deadline.
fn ready(ended: Option<&OwnedFd>, streams: &mut [Stream; 2], deadline: Option<Instant>) -> io::Result<Ready> {
    let mut polled: Vec<PollFd<'_>> = Vec::with_capacity(3);
    let mut places = Vec::with_capacity(2);
    for (place, stream) in streams.iter().enumerate() {
        if let Some(pipe) = &stream.pipe {
            polled.push(PollFd::new(pipe.as_fd(), PollFlags::POLLIN));
            places.push(place);
        }
    }
    if let Some(ended) = ended {
        polled.push(PollFd::new(ended.as_fd(), PollFlags::POLLIN));
    }
    if polled.is_empty() {
        return Ok(Ready::TimeOver);
    }
    match nix::poll::poll(&mut polled, time_left(deadline)) {
        Ok(0) if deadline.is_some_and(|deadline| Instant::now() >= deadline) => return Ok(Ready::TimeOver),
        Ok(_) => {}
        Err(Errno::EINTR) => return Ok(Ready::Output),
        Err(error) => return Err(error.into()),
    }
    let fired: Vec<bool> = polled.iter().map(|fd| fd.any().unwrap_or(true)).collect();
    for (place, _) in places.iter().zip(&fired).filter(|(_, fired)| **fired) {
        streams[*place].read()?;
    }
    let over = ended.is_some() && fired.last() == Some(&true);
    Ok(if over { Ready::Ended } else { Ready::Output })
}

/// The time until `deadline` in poll's whole milliseconds, rounded up so that it never wakes to find some of it left.
fn time_left(deadline: Option<Instant>) -> PollTimeout {
    let Some(deadline) = deadline else { return PollTimeout::NONE };
    let left = deadline.saturating_duration_since(Instant::now());
    let millis = left.as_nanos().div_ceil(1_000_000);
    // More than poll can take is waited for in parts: the caller looks at the deadline again.
    PollTimeout::try_from(millis).unwrap_or(PollTimeout::MAX)
}

/// One of the program's two outputs.
struct Stream {
    /// `None` once it is closed.
    pipe: Option<std::fs::File>,
    kept: Vec<u8>,
}

impl Stream {
    fn new(pipe: Option<OwnedFd>) -> Self {
        Self { pipe: pipe.map(std::fs::File::from), kept: Vec::new() }
    }

    /// Takes what there is; to be called only when poll says that this does not block.
    fn read(&mut self) -> io::Result<()> {
        let Some(pipe) = &mut self.pipe else { return Ok(()) };
        let mut buffer = [0; READ];
        match pipe.read(&mut buffer) {
            Ok(0) => self.pipe = None,
            Ok(count) => {
                self.kept.extend_from_slice(&buffer[..count]);
                let surplus = self.kept.len().saturating_sub(KEPT);
                self.kept.drain(..surplus);
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_secs(60);

    fn sh(script: &str) -> Command {
        let mut command = Command::new("/bin/sh");
        command.args(["-c", script]).env_clear();
        command
    }

    #[test]
    fn output_and_exit_code_come_back() {
        let _turn = crate::alone();
        let finished = run(&mut sh("echo out; echo err >&2; exit 3"), LONG).unwrap();
        assert_eq!(finished.status.code(), Some(3));
        assert_eq!(finished.stdout, b"out\n");
        assert_eq!(finished.stderr, b"err\n");
    }

    #[test]
    fn a_program_that_prints_on_and_on_is_drained_and_its_end_is_kept() {
        let _turn = crate::alone();
        let finished = run(&mut sh("yes | head -c 1000000; echo the end"), LONG).unwrap();
        assert_eq!(finished.stdout.len(), KEPT);
        assert!(finished.stdout.ends_with(b"y\nthe end\n"));
    }

    #[test]
    fn the_end_is_seen_though_a_grandchild_keeps_the_output_open() {
        let _turn = crate::alone();
        let began = Instant::now();
        let finished = run(&mut sh("sleep 20 & echo $!"), LONG).unwrap();
        assert!(began.elapsed() < Duration::from_secs(10), "waited for the grandchild");
        let grandchild: i32 = String::from_utf8(finished.stdout).unwrap().trim().parse().unwrap();
        nix::sys::signal::kill(Pid::from_raw(grandchild), Signal::SIGKILL).unwrap();
    }

    #[test]
    fn the_end_is_seen_though_the_program_closed_its_output_long_before() {
        let _turn = crate::alone();
        let finished = run(&mut sh("exec >&- 2>&-; sleep 0.2; exit 7"), LONG).unwrap();
        assert_eq!(finished.status.code(), Some(7));
    }

    #[test]
    fn past_the_bound_the_whole_group_is_killed() {
        let _turn = crate::alone();
        let folder = tempfile::tempdir().unwrap();
        let mark = folder.path().join("still-alive");
        let script = format!("(sleep 1; touch {}) & wait", mark.display());
        let error = run(&mut sh(&script), Duration::from_millis(100)).unwrap_err();
        assert!(matches!(error, ChildError::TimeOver), "{error:?}");
        std::thread::sleep(Duration::from_millis(1500));
        assert!(!mark.exists(), "a child of the killed program lived on");
    }

    #[test]
    fn output_without_end_does_not_put_off_the_bound() {
        let _turn = crate::alone();
        let mut child = sh("exec sleep 5").stdout(Stdio::null()).process_group(0).spawn().unwrap();
        // Of a pipe that is filled as fast as it is read; this one is never empty.
        child.stdout = Some(OwnedFd::from(std::fs::File::open("/dev/zero").unwrap()).into());
        let pid = Pid::from_raw(child.id().cast_signed());
        let error = watch(&mut child, pid, Some(Instant::now() + Duration::from_millis(100))).unwrap_err();
        assert!(matches!(error, ChildError::TimeOver), "{error:?}");
        child.kill().unwrap();
        child.wait().unwrap();
    }

    #[test]
    fn a_program_that_is_not_there_is_an_error() {
        let _turn = crate::alone();
        let error = run(&mut Command::new("/nonexistent/program"), LONG).unwrap_err();
        assert!(matches!(error, ChildError::Start(_)), "{error:?}");
    }

    #[test]
    fn no_bound_that_can_be_written_overflows() {
        let _turn = crate::alone();
        let finished = run(&mut sh("exit 0"), Duration::MAX).unwrap();
        assert!(finished.status.success());
    }
}
