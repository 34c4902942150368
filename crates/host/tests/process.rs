//! What can only be shown on a process of its own: signals, the environment, a lock whose holder is killed, a journal on
//! a full disk, a log that nobody reads. Without arguments this program is the tests; with a role's name it is the process under test.

use std::ffi::CString;
use std::io::{BufRead as _, BufReader, Lines, Read as _, Write as _};
use std::os::fd::AsFd as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, ExitStatus, Stdio};
use std::time::Duration;

use host::journal::Found;
use host::logging::{self, Verbosity};
use host::{
    Attempt, FolderError, Holder, HostLock, JournalFile, Look, MachineId, Signals, child, environment, inherited, lock,
    signals,
};
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, Uid, execve, setuid};
use restart_core::{Record, Stop as _, Stopped};

const TESTS: [(&str, fn()); 15] = [
    ("the_environment_is_emptied_for_us_and_our_children", the_environment_is_emptied_for_us_and_our_children),
    ("the_first_signal_is_the_one_to_die_by", the_first_signal_is_the_one_to_die_by),
    ("a_second_signal_of_the_same_kind_is_noticed", a_second_signal_of_the_same_kind_is_noticed),
    ("under_nohup_a_hangup_is_ignored", under_nohup_a_hangup_is_ignored),
    ("whatever_the_caller_made_of_signals_a_run_goes_on", whatever_the_caller_made_of_signals_a_run_goes_on),
    ("soft_limits_of_the_caller_are_lifted", soft_limits_of_the_caller_are_lifted),
    ("a_killed_holders_systemctl_keeps_the_lock", a_killed_holders_systemctl_keeps_the_lock),
    ("a_full_disk_leaves_the_record_before", a_full_disk_leaves_the_record_before),
    ("a_read_only_file_system_leaves_the_record_before", a_read_only_file_system_leaves_the_record_before),
    ("a_writer_killed_at_any_instant_leaves_a_whole_record", a_writer_killed_at_any_instant_leaves_a_whole_record),
    ("without_roots_rights_the_journal_is_not_permitted", without_roots_rights_the_journal_is_not_permitted),
    ("a_log_that_nobody_reads_ends_nothing", a_log_that_nobody_reads_ends_nothing),
    ("the_journal_gets_severities_and_a_pipe_gets_words", the_journal_gets_severities_and_a_pipe_gets_words),
    ("libraries_log_at_the_highest_verbosity_alone", libraries_log_at_the_highest_verbosity_alone),
    ("a_variable_that_is_no_variable_is_removed_too", a_variable_that_is_no_variable_is_removed_too),
];

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments[..] {
        ["environment"] => play_environment(),
        ["odd-environment"] => play_odd_environment(),
        ["signals"] => play_signals(),
        ["inherited-signals"] => play_inherited_signals(),
        ["limits"] => play_limits(),
        ["hold", folder] => play_holder(Path::new(folder)),
        ["journal", folder] => play_journal(Path::new(folder)),
        ["write-on-and-on", folder] => play_writer(Path::new(folder)),
        ["log", verbose] => play_log(verbose),
        // Whatever cargo passes on is a filter, and there is too little here to filter.
        _ => {
            for (name, test) in TESTS {
                println!("test {name}");
                test();
            }
            println!("{} passed", TESTS.len());
        }
    }
}

// The roles.

fn play_environment() {
    println!("{:?}", environment::take());
    println!("ours: {}", std::env::vars_os().count());
    let child = Command::new("/usr/bin/env").output().expect("env(1)");
    println!("a child's: {}", String::from_utf8_lossy(&child.stdout).lines().count());
}

/// Becomes the role `environment` with entries that no shell would make.
fn play_odd_environment() {
    let program = std::env::current_exe().expect("this program");
    let program = CString::new(program.as_os_str().as_bytes()).expect("a path");
    let Err(error) = execve(&program, &[program.as_c_str(), c"environment"], &[c"nonsense", c"=x=y", c"", c"A=1"]);
    panic!("cannot start again: {error}");
}

/// Looks for signals whenever it reads a line; at the end of its input dies by the one that came first.
fn play_signals() {
    let signals = Signals::listen().expect("handlers");
    println!("ready");
    for _ in std::io::stdin().lines() {
        println!("{:?}", signals.requested());
    }
    if let Some(Stopped { signal, .. }) = signals.requested() {
        signals::raise_again(signal);
    }
}

/// Asks a child of its own what it blocks, and then answers each line.
fn play_inherited_signals() {
    inherited::own_signals();
    let asked = child::run(Command::new("/bin/grep").args(["SigBlk", "/proc/self/status"]), Duration::from_secs(60));
    match asked {
        Ok(finished) => print!("{}", String::from_utf8_lossy(&finished.stdout)),
        Err(error) => println!("{error}"),
    }
    for _ in std::io::stdin().lines() {
        println!("here");
    }
}

fn play_limits() {
    inherited::lift_limits();
    print!("{}", std::fs::read_to_string("/proc/self/limits").expect("proc(5)"));
}

/// Takes the lock, starts what stands for systemctl, and waits to be killed.
fn play_holder(folder: &Path) {
    let Attempt::Acquired(_lock) = HostLock::try_acquire(folder, &Holder::new("holder", None, None)).expect("a lock")
    else {
        panic!("the lock is held");
    };
    let mut systemctl = Command::new("/bin/sleep").arg("600").env_clear().spawn().expect("sleep(1)");
    println!("{}", systemctl.id());
    systemctl.wait().expect("an end");
}

/// The journal of a machine that there is not.
fn journal(folder: &Path) -> JournalFile {
    JournalFile::new(folder, MachineId::new("3d1219c7c4c5404aaa1f6d2a48adfda4").expect("an id"))
}

/// A record with a reason of so many bytes, to be told from others by that.
fn record(reason: usize) -> Record {
    let sample: serde_json::Value = serde_json::from_str(include_str!("data/journal-2.json")).expect("the sample");
    let mut record: Record = serde_json::from_value(sample["record"].clone()).expect("its record");
    record.reason = Some("x".repeat(reason));
    record
}

fn told(found: Result<Found, FolderError>) -> String {
    match found {
        Ok(Found::Record(record)) => format!("reason of {}", record.reason.unwrap_or_default().len()),
        Ok(Found::Nothing) => "nothing".to_owned(),
        Ok(Found::Problem(problem)) => problem.to_string(),
        Err(error) => format!("{}: {error}", error.exit_code() as u8),
    }
}

/// Does with the journal what each line says, and says what came of it.
fn play_journal(folder: &Path) {
    let mut journal = journal(folder);
    for line in std::io::stdin().lines() {
        let line = line.expect("text");
        let done = match line.split(' ').collect::<Vec<_>>()[..] {
            ["keep", reason] => {
                journal.keep(&record(reason.parse().expect("a number"))).map_err(|error| error.to_string())
            }
            ["clear"] => journal.clear().map_err(|error| error.to_string()),
            ["damage"] => std::fs::write(folder.join("journal.json"), "{").map_err(|error| error.to_string()),
            ["remount", how] => mount(&["-o", &format!("remount,{how}")], folder),
            ["become-nobody"] => setuid(Uid::from_raw(65534)).map_err(|error| error.to_string()),
            ["look"] => Err(told(journal.look())),
            ["load"] => Err(told(journal.load())),
            ["names"] => Err(format!("{:?}", names(folder))),
            _ => panic!("what is '{line}'"),
        };
        println!("{}", done.err().unwrap_or_else(|| "done".to_owned()));
    }
}

fn mount(options: &[&str], folder: &Path) -> Result<(), String> {
    let output = Command::new("/bin/mount").args(options).arg(folder).output().expect("mount(8)");
    if output.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&output.stderr).into_owned()) }
}

fn names(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).expect("the folder").map(|entry| entry.expect("an entry").file_name());
    let mut names: Vec<String> = entries.map(|name| name.into_string().expect("text")).collect();
    names.sort_unstable();
    names
}

/// Keeps one record after the other until it is killed.
fn play_writer(folder: &Path) {
    let mut journal = journal(folder);
    for reason in 1.. {
        journal.keep(&record(reason)).expect("kept");
        if reason == 1 {
            println!("began");
        }
    }
}

fn play_log(verbose: &str) {
    let environment = environment::take();
    let verbosity = Verbosity::new(false, verbose.parse().expect("a number"));
    logging::start("tool", verbosity, environment.journal_stream);
    log::info!("one\ntwo");
    log::warn!("careful");
    log::debug!("detail");
    log::error!(target: "rustls::client", "library");
    println!("done");
}

// The tests.

/// This program in a role, which can be talked to.
struct Role {
    child: Child,
    input: Option<ChildStdin>,
    output: Lines<BufReader<ChildStdout>>,
}

fn itself() -> Command {
    // Whoever runs the tests may ignore signals (nohup does, and a shell does so for what it puts in the background).
    let mut command = Command::new("/usr/bin/env");
    command.arg("--default-signal").arg(std::env::current_exe().expect("this program"));
    command
}

fn start(command: &mut Command) -> Role {
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("this program again");
    let input = child.stdin.take();
    let output = BufReader::new(child.stdout.take().expect("a pipe")).lines();
    Role { child, input, output }
}

impl Role {
    fn line(&mut self) -> String {
        self.output.next().expect("it ended").expect("text")
    }

    fn send(&self, signal: Signal) {
        kill(Pid::from_raw(self.child.id().cast_signed()), signal).expect("it runs");
        // Time for it to be delivered and taken.
        std::thread::sleep(Duration::from_millis(50));
    }

    fn ask(&mut self, question: &str) -> String {
        writeln!(self.input.as_mut().expect("not ended yet"), "{question}").expect("it reads");
        self.line()
    }

    fn look(&mut self) -> String {
        self.ask("look")
    }

    fn end(mut self) -> ExitStatus {
        self.input = None;
        self.child.wait().expect("an end")
    }
}

fn the_environment_is_emptied_for_us_and_our_children() {
    let mut role = start(itself().arg("environment").env_clear().envs([
        ("SUDO_USER", "alice"),
        ("JOURNAL_STREAM", "8:42"),
        ("RES_OPTIONS", "debug"),
        ("PATH", "/tmp"),
    ]));
    let kept =
        "Environment { sudo_user: Some(\"alice\"), journal_stream: Some(JournalStream { device: 8, inode: 42 }) }";
    assert_eq!(role.line(), kept);
    assert_eq!(role.line(), "ours: 0");
    assert_eq!(role.line(), "a child's: 0");
    assert!(role.end().success());
}

/// An entry without `=` cannot be removed by name.
fn a_variable_that_is_no_variable_is_removed_too() {
    let mut role = start(itself().arg("odd-environment"));
    assert_eq!(role.line(), "Environment { sudo_user: None, journal_stream: None }");
    assert_eq!(role.line(), "ours: 0");
    assert_eq!(role.line(), "a child's: 0");
    assert!(role.end().success());
}

fn the_first_signal_is_the_one_to_die_by() {
    let mut role = start(itself().arg("signals"));
    assert_eq!(role.line(), "ready");
    assert_eq!(role.look(), "None");
    role.send(Signal::SIGTERM);
    assert_eq!(role.look(), "Some(Stopped { signal: Terminate, at_once: false })");
    assert_eq!(role.look(), "Some(Stopped { signal: Terminate, at_once: false })");
    // Right behind the first it is its echo; later it is a second request.
    role.send(Signal::SIGINT);
    assert_eq!(role.look(), "Some(Stopped { signal: Terminate, at_once: false })");
    std::thread::sleep(Duration::from_millis(1100));
    role.send(Signal::SIGINT);
    assert_eq!(role.look(), "Some(Stopped { signal: Terminate, at_once: true })");
    assert_eq!(role.end().signal(), Some(Signal::SIGTERM as i32));
}

fn a_second_signal_of_the_same_kind_is_noticed() {
    for (signal, name) in [(Signal::SIGINT, "Interrupt"), (Signal::SIGHUP, "HangUp")] {
        let mut role = start(itself().arg("signals"));
        assert_eq!(role.line(), "ready");
        role.send(signal);
        std::thread::sleep(Duration::from_millis(1100));
        role.send(signal);
        assert_eq!(role.look(), format!("Some(Stopped {{ signal: {name}, at_once: true }})"));
        assert_eq!(role.end().signal(), Some(signal as i32));
    }
}

fn under_nohup_a_hangup_is_ignored() {
    let program = std::env::current_exe().expect("this program");
    let mut role = start(Command::new("/bin/sh").args(["-c", "trap '' HUP; exec \"$0\" signals"]).arg(program));
    assert_eq!(role.line(), "ready");
    role.send(Signal::SIGHUP);
    assert_eq!(role.look(), "None");
    role.send(Signal::SIGTERM);
    assert_eq!(role.look(), "Some(Stopped { signal: Terminate, at_once: false })");
    assert_eq!(role.end().signal(), Some(Signal::SIGTERM as i32));
}

/// A caller that ignores the end of its children and blocks SIGTERM, and a terminal on which somebody types Ctrl-Z.
fn whatever_the_caller_made_of_signals_a_run_goes_on() {
    let mut command = Command::new("/usr/bin/env");
    let program = std::env::current_exe().expect("this program");
    command.args(["--default-signal", "--ignore-signal=CHLD", "--block-signal=TERM"]).arg(program);
    // A group of its own in a session that has others, as a shell makes it: one without is not stopped.
    let mut role = start(command.arg("inherited-signals").process_group(0));
    // A child, as systemctl is one, is not stopped either: 20 to 22 are the signals of job control.
    assert_eq!(role.line(), format!("SigBlk:\t{:016x}", 0b111 << 19));
    for signal in [Signal::SIGTSTP, Signal::SIGTTIN, Signal::SIGTTOU] {
        role.send(signal);
        let status = std::fs::read_to_string(format!("/proc/{}/status", role.child.id())).expect("it runs");
        assert!(!status.contains("State:\tT"), "{signal} stopped it: {status}");
    }
    assert_eq!(role.ask("are you"), "here");
    role.send(Signal::SIGTERM);
    assert_eq!(role.end().signal(), Some(Signal::SIGTERM as i32));
}

/// A run that outgrows its stack or its files ends in the middle, with the host out of its pools.
fn soft_limits_of_the_caller_are_lifted() {
    let limits =
        "ulimit -S -s 100; ulimit -S -n 20; ulimit -S -f 4; ulimit -S -t 1; ulimit -S -v 100000; ulimit -S -d 100000";
    let program = std::env::current_exe().expect("this program");
    let script = format!("{limits}; exec \"$0\" limits");
    let output = Command::new("/bin/sh").args(["-c", &script]).arg(program).output().expect("sh(1)");
    let shown = String::from_utf8_lossy(&output.stdout);
    for limit in ["cpu time", "file size", "address space", "data size", "stack size", "open files"] {
        let line = shown.lines().find(|line| line.starts_with(&format!("Max {limit} "))).expect("the limit");
        let soft = line.trim_start_matches(&format!("Max {limit}")).split_whitespace().next().expect("a limit");
        let enough = match limit {
            "stack size" => "8388608",
            "open files" => "1024",
            _ => "unlimited",
        };
        assert_eq!(soft, enough, "{line}");
    }
}

fn a_killed_holders_systemctl_keeps_the_lock() {
    let base = tempfile::tempdir().expect("a folder");
    let folder = base.path().join("run");
    let mut role = start(itself().arg("hold").arg(&folder));
    let systemctl = Pid::from_raw(role.line().parse().expect("a process number"));
    let holder_id = role.child.id();
    role.send(Signal::SIGKILL);
    assert_eq!(role.end().signal(), Some(Signal::SIGKILL as i32));
    let Look::Held(Some(holder)) = lock::peek(&folder).expect("a look") else {
        panic!("the lock went with its holder")
    };
    assert_eq!((holder.pid, holder.tool.as_str()), (holder_id, "holder"));
    kill(systemctl, Signal::SIGKILL).expect("it runs");
    // It is nobody's child of ours, so its end cannot be waited for.
    let gone = (0..200).any(|_| {
        std::thread::sleep(Duration::from_millis(10));
        lock::peek(&folder).expect("a look") == Look::Free
    });
    assert!(gone, "the lock outlived systemctl");
}

/// The role `journal` on a tiny file system of its own, which nobody else sees and which ends with it.
fn start_on_a_small_disk(folder: &Path) -> Role {
    std::fs::create_dir(folder).expect("a folder");
    let script = "mount -t tmpfs -o size=16k,mode=0700 tmpfs \"$1\" && exec \"$0\" journal \"$1\"";
    let program = std::env::current_exe().expect("this program");
    start(Command::new("/usr/bin/unshare").args(["--mount", "/bin/sh", "-c", script]).arg(program).arg(folder))
}

fn a_full_disk_leaves_the_record_before() {
    let base = tempfile::tempdir().expect("a folder");
    let folder = base.path().join("state");
    let mut role = start_on_a_small_disk(&folder);
    assert_eq!(role.ask("keep 10"), "done");
    let file = folder.join("journal.json.new");
    let full = format!("cannot write '{}' for the journal: No space left on device (os error 28)", file.display());
    for _ in 0..3 {
        assert_eq!(role.ask("keep 20000"), full);
        assert_eq!(role.ask("load"), "reason of 10");
        assert_eq!(role.ask("names"), r#"["journal.json"]"#, "what was written in vain takes no room");
    }
    assert_eq!(role.ask("keep 11"), "done");
    assert_eq!(role.ask("load"), "reason of 11");
    assert_eq!(role.ask("clear"), "done");
    assert!(role.end().success());
    assert_eq!(names(&folder), [""; 0], "the file system was the role's own");
}

fn a_read_only_file_system_leaves_the_record_before() {
    let base = tempfile::tempdir().expect("a folder");
    let folder = base.path().join("state");
    let mut role = start_on_a_small_disk(&folder);
    assert_eq!(role.ask("keep 10"), "done");
    assert_eq!(role.ask("remount ro"), "done");
    let refused = |what: &str, name: &str| {
        let file = folder.join(name);
        format!("cannot {what} '{}' for the journal: Read-only file system (os error 30)", file.display())
    };
    assert_eq!(role.ask("keep 11"), refused("make", "journal.json.new"));
    assert_eq!(role.ask("clear"), refused("remove", "journal.json"));
    assert_eq!(role.ask("load"), "reason of 10");
    // Where nothing is kept there is nothing to remove.
    assert_eq!(role.ask("remount rw"), "done");
    assert_eq!(role.ask("clear"), "done");
    assert_eq!(role.ask("remount ro"), "done");
    assert_eq!(role.ask("clear"), "done");
    assert_eq!(role.ask("load"), "nothing");
    // One that cannot be set aside is not acted on either.
    assert_eq!(role.ask("remount rw"), "done");
    assert_eq!(role.ask("damage"), "done");
    assert_eq!(role.ask("remount ro"), "done");
    let both = format!("1: {}; and it is damaged: ", refused("set aside", "journal.json"));
    let said = role.ask("load");
    assert!(said.starts_with(&both), "{said}");
    assert!(role.ask("look").contains("is damaged, and nothing is done by it"));
    assert!(role.end().success());
}

fn a_writer_killed_at_any_instant_leaves_a_whole_record() {
    let base = tempfile::tempdir().expect("a folder");
    let folder = base.path().join("state");
    for after in 0..30 {
        let mut role = start(itself().arg("write-on-and-on").arg(&folder));
        assert_eq!(role.line(), "began");
        std::thread::sleep(Duration::from_micros(after * 137));
        role.child.kill().expect("it runs");
        assert_eq!(role.end().signal(), Some(Signal::SIGKILL as i32));
        let found = told(journal(&folder).load());
        assert!(found.starts_with("reason of "), "{found}");
        assert_eq!(names(&folder), ["journal.json"]);
    }
}

fn without_roots_rights_the_journal_is_not_permitted() {
    let base = tempfile::tempdir().expect("a folder");
    let folder = base.path().join("state");
    let open = std::fs::Permissions::from_mode(0o755);
    std::fs::set_permissions(base.path(), open).expect("a mode");
    let mut role = start(itself().arg("journal").arg(&folder));
    assert_eq!(role.ask("keep 10"), "done");
    assert_eq!(role.ask("become-nobody"), "done");
    let refused = format!("cannot open '{}' for the journal: Permission denied (os error 13)", folder.display());
    assert_eq!(role.ask("look"), format!("77: {refused}"));
    assert_eq!(role.ask("clear"), refused);
    assert!(role.end().success());
}

/// The output of the role `log`, started with `JOURNAL_STREAM` naming its stderr or another.
fn logged(verbose: u8, under_the_journal: bool) -> String {
    let (mut reader, writer) = std::io::pipe().expect("a pipe");
    let pipe = nix::sys::stat::fstat(writer.as_fd()).expect("its numbers");
    let inode = if under_the_journal { pipe.st_ino } else { pipe.st_ino + 1 };
    let mut command = itself();
    command.args(["log", &verbose.to_string()]).env("JOURNAL_STREAM", format!("{}:{inode}", pipe.st_dev));
    let mut role = start(command.stderr(writer));
    assert_eq!(role.line(), "done");
    assert!(role.end().success());
    // Our end of the pipe, which would keep it open.
    drop(command);
    let mut text = String::new();
    reader.read_to_string(&mut text).expect("text");
    text
}

fn the_journal_gets_severities_and_a_pipe_gets_words() {
    assert_eq!(logged(1, true), "<6>one\n<6>two\n<4>careful\n<7>detail\n");
    assert_eq!(logged(0, false), "tool: one\ntool: two\ntool: warning: careful\n");
}

fn libraries_log_at_the_highest_verbosity_alone() {
    assert!(!logged(1, false).contains("library"));
    assert!(logged(2, false).contains("tool: error: rustls::client: library\n"));
}

fn a_log_that_nobody_reads_ends_nothing() {
    let (reader, writer) = std::io::pipe().expect("a pipe");
    drop(reader);
    let mut role = start(itself().args(["log", "0"]).stderr(writer));
    assert_eq!(role.line(), "done");
    assert!(role.end().success());

    let program = std::env::current_exe().expect("this program");
    let mut role = start(Command::new("/bin/sh").args(["-c", "exec \"$0\" log 0 2>/dev/full"]).arg(program));
    assert_eq!(role.line(), "done");
    assert!(role.end().success());
}
