//! Simulated hosts: a stand-in for ssh that plays each of them, what it wrote down, and the tool that is run over them.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::process::ExitStatusExt as _;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use tempfile::TempDir;

/// No wait of these tests is meant to come near it.
const PATIENCE: Duration = Duration::from_secs(120);

pub struct World {
    folder: TempDir,
}

/// How a run ended.
#[derive(Debug)]
pub struct Ran {
    pub code: Option<i32>,
    pub signal: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl World {
    /// So many hosts, `mw0001.test` and so on.
    pub fn new(hosts: usize) -> Self {
        let folder = tempfile::tempdir().unwrap();
        for name in ["before", "behave", "lock", "restarted"] {
            fs::create_dir(folder.path().join(name)).unwrap();
        }
        let names: String = (1..=hosts).map(|number| name(number) + "\n").collect();
        fs::write(folder.path().join("hosts"), names).unwrap();
        Self { folder }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// What a host does, as shell, once it has read the request.
    pub fn behave(&self, number: usize, script: &str) -> &Self {
        fs::write(self.path("behave").join(name(number)), script).unwrap();
        self
    }

    /// What a host does before that.
    pub fn before(&self, number: usize, script: &str) -> &Self {
        fs::write(self.path("before").join(name(number)), script).unwrap();
        self
    }

    pub fn command(&self, arguments: &str) -> Command {
        let stand_in = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/simulated/stand-in.sh");
        let mut command = Command::new(env!("CARGO_BIN_EXE_rolling-restart"));
        command.arg("--hosts").arg(self.path("hosts"));
        command.arg("--rsh").arg(format!("/bin/sh {stand_in} {}", self.folder.path().display()));
        command.args(arguments.split_whitespace()).stdin(Stdio::null());
        command
    }

    pub fn run(&self, arguments: &str) -> Ran {
        Ran::of(self.command(arguments).output().unwrap())
    }

    /// Starts it, to be sent signals.
    pub fn start(&self, arguments: &str) -> Child {
        start(&self.command(arguments))
    }

    /// The same, with what `env` has to do to signals.
    pub fn start_by(&self, signals: &str, arguments: &str) -> Child {
        start_by(signals, &self.command(arguments))
    }

    fn lines(&self, name: &str) -> Vec<String> {
        fs::read_to_string(self.path(name)).unwrap_or_default().lines().map(ToOwned::to_owned).collect()
    }

    /// The hosts in the order in which they were started, as often as they were.
    pub fn started(&self) -> Vec<String> {
        self.lines("log").iter().filter_map(|line| line.strip_prefix("+ ").map(ToOwned::to_owned)).collect()
    }

    /// The most that were at it at once.
    pub fn most_at_once(&self) -> usize {
        let (mut now, mut most) = (0usize, 0);
        for line in self.lines("log") {
            now = if line.starts_with('+') { now + 1 } else { now.saturating_sub(1) };
            most = most.max(now);
        }
        most
    }

    /// How often each host was restarted.
    pub fn restarts(&self) -> BTreeMap<String, usize> {
        let mut restarts = BTreeMap::new();
        for host in self.lines("restarts") {
            *restarts.entry(host).or_default() += 1;
        }
        restarts
    }

    /// The requests that hosts got.
    pub fn requests(&self) -> Vec<Value> {
        let request = |line: &String| serde_json::from_str(line.split_once(' ')?.1).ok();
        self.lines("requests").iter().filter_map(request).collect()
    }

    /// Waits until so many hosts were started.
    pub fn await_starts(&self, count: usize) {
        wait_for(&format!("{count} starts"), || self.started().len() >= count);
    }
}

/// The name of a host.
pub fn name(number: usize) -> String {
    format!("mw{number:04}.test")
}

pub fn wait_for(what: &str, is_so: impl Fn() -> bool) {
    let until = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < until, "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Starts a program, to be sent signals. Whoever runs the tests may ignore some, as a shell does for what it puts in the
/// background, and that would be handed down; `env` takes it off, and becomes the program.
pub fn start(plain: &Command) -> Child {
    start_by("--default-signal", plain)
}

fn start_by(signals: &str, plain: &Command) -> Child {
    let mut command = Command::new("/usr/bin/env");
    command.arg(signals).arg(plain.get_program()).args(plain.get_args());
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

pub fn send(child: &Child, signal: Signal) {
    kill(Pid::from_raw(child.id().cast_signed()), signal).unwrap();
}

impl Ran {
    pub fn of(output: Output) -> Self {
        Self {
            code: output.status.code(),
            signal: output.status.signal(),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }

    /// Panics with everything that was said unless it ended so.
    pub fn ended_with(&self, code: i32) -> &Self {
        assert_eq!(self.code, Some(code), "stdout:\n{}\nstderr:\n{}", self.stdout, self.stderr);
        self
    }

    pub fn says(&self, words: &str) -> &Self {
        assert!(self.stderr.contains(words), "'{words}' is not in:\n{}", self.stderr);
        self
    }

    /// The events of `--json`.
    pub fn events(&self) -> Vec<Value> {
        self.stdout.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|_| panic!("{line}"))).collect()
    }

    /// The last of them.
    pub fn end(&self) -> Value {
        let events = self.events();
        let end = events.last().unwrap_or_else(|| panic!("no event:\n{}", self.stderr)).clone();
        assert_eq!(end["event"], "end");
        end
    }

    /// The hosts in one of the lists of the last event.
    pub fn listed(&self, list: &str) -> Vec<String> {
        let end = self.end();
        let hosts = end[list].as_array().unwrap_or_else(|| panic!("no '{list}' in {end}"));
        let host = |value: &Value| value.as_str().or(value["host"].as_str()).unwrap().to_owned();
        hosts.iter().map(host).collect()
    }
}
