//! One run, from the command line to the exit code: settings, hosts, and then events from the programs that run and from the user
//! into the schedule, and its actions out of it.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::io;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, SystemTime};

use clap::Parser;
use clap::error::ErrorKind;
use host::logging::{self, Verbosity};
use host::{Monotonic, Signals, clock, environment, ids, output, signals, syslog, trusted, words};
use log::Level;
use restart_core::{Clock as _, ExitCode, Failure, Fqdn, Signal, Stop, Stopped};

use crate::answer::{AT_TERMINAL, Attempt, End, Verdict, last_words};
use crate::caller::Caller;
use crate::cli::Cli;
use crate::events::{self, Event as Told};
use crate::file::{self, File};
use crate::fleet::{self, Fleet, Job};
use crate::process::Finished;
use crate::progress::Progress;
use crate::remote::{PATH, Remote, Work};
use crate::report::Resume;
use crate::schedule::{Action, Ending, Event, Place, Rules, Schedule};
use crate::settings::{MOST_AT_ONCE, Settings};
use crate::tally::Record;
use crate::{hosts, plan, resume, status};

pub(crate) const TOOL: &str = env!("CARGO_PKG_NAME");
/// The longest time without a look for a signal.
const SLICE: Duration = Duration::from_millis(100);
/// The shell of the gate.
const SHELL: &str = "/bin/sh";

/// The program.
pub fn main() -> std::process::ExitCode {
    let caller = Caller::take();
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // A reader that has gone is no reason to fail.
            let _ = error.print();
            let asked_for = matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion);
            return code(if asked_for { ExitCode::Done } else { ExitCode::Usage });
        }
    };
    logging::start(TOOL, Verbosity::new(cli.quiet, cli.verbose), caller.environment.journal_stream);
    let ended = if cli.status { look(&cli, caller) } else { run(&cli, caller) };
    match ended {
        Ok(Ended { signal: Some(signal), .. }) => signals::raise_again(signal),
        Ok(Ended { exit_code, .. }) => code(exit_code),
        Err(failure) => {
            log::error!("{failure}");
            log::error!("ended with {}: no host was touched", failure.code.number());
            if cli.json && cli.status {
                status::print_failure(&failure);
            } else {
                let end = events::End::nothing_begun(&failure);
                let events = Progress::new("", 0, cli.json, false);
                events.event(Told::End(Box::new(end)));
                // Said already, and nothing was begun.
                let _ = events.finish(None);
            }
            code(failure.code)
        }
    }
}

fn code(code: ExitCode) -> std::process::ExitCode {
    std::process::ExitCode::from(code.number())
}

/// How the program ends.
pub(crate) struct Ended {
    pub(crate) exit_code: ExitCode,
    pub(crate) signal: Option<Signal>,
}

/// `--status`.
fn look(cli: &Cli, caller: Caller) -> Result<Ended, Failure> {
    let settings = settings(cli, caller.agent, "")?;
    let stop = Signals::listen_saying("those that have not answered are not waited for");
    status::show(cli, &settings, &stop.map_err(|error| no_signals(&error))?)
}

fn no_signals(error: &io::Error) -> Failure {
    Failure::new(ExitCode::Failed, format!("cannot listen for signals: {error}"))
}

/// Nothing could be waited for.
pub(crate) fn no_fleet(error: &io::Error) -> Failure {
    Failure::new(ExitCode::Failed, format!("cannot wait for programs: {error}"))
}

fn run(cli: &Cli, caller: Caller) -> Result<Ended, Failure> {
    let now = SystemTime::now();
    let began = clock::utc_exact(now);
    if let Some(since) = cli.since {
        words::not_to_come(since, now).map_err(|why| Failure::new(ExitCode::Usage, format!("--since {why}")))?;
    }
    let id = ids::fresh_run().map_err(|error| Failure::new(ExitCode::Failed, error.to_string()))?;
    let settings = settings(cli, caller.agent, &id)?;
    let hosts = hosts::find(&settings.source)?;
    let most = fleet::room(MOST_AT_ONCE);
    let rules = settings.rules(hosts.len(), most);
    if settings.batch(hosts.len()) > most {
        let why = if most < MOST_AT_ONCE { ": the limit of open files (ulimit -n) allows no more" } else { "" };
        log::warn!("at most {most} hosts at once, whatever the batch{why}");
    }
    if cli.dry_run {
        print_plan(&hosts, rules, &Progress::new(&id, hosts.len(), cli.json, false))?;
        return Ok(Ended { exit_code: ExitCode::Done, signal: None });
    }
    let stop = Signals::listen_saying("no other host is started; one more, later, waits for none");
    let stop = stop.map_err(|error| no_signals(&error))?;
    let fleet = Fleet::new().map_err(|error| no_fleet(&error))?;
    let mut run = Run {
        id: &id,
        progress: Progress::new(&id, hosts.len(), cli.json, caller.can_draw && !cli.quiet && !cli.no_progress),
        schedule: Schedule::new(hosts.len(), rules),
        fleet,
        remote: Remote::new(&settings.way, &settings.work.words()),
        input: settings.work.input(),
        records: vec![Record::default(); hosts.len()],
        clock: Monotonic::new(),
        hosts: &hosts,
        settings: &settings,
        heard: None,
        has_halted: false,
    };
    let who = caller.environment.sudo_user.or_else(environment::user_name).unwrap_or_default();
    let what = if cli.force { "forced restart" } else { "restart" };
    let of = if hosts.len() == 1 { "1 host".to_owned() } else { format!("{} hosts", hosts.len()) };
    let begin = format!("run {id}: {what} of {of}, at most {} at once", rules.window);
    syslog::notice(TOOL, &format!("{begin}, for '{who}': {}", cli.reason.as_deref().unwrap_or("no reason given")));
    run.progress.say(Level::Info, &begin);
    if cli.force {
        run.progress.say(Level::Warn, "--force: no pool is left, requests in flight die on every host");
    }
    run.progress.event(Told::Begin {
        version: env!("CARGO_PKG_VERSION"),
        force: cli.force,
        reload: cli.reload,
        reason: cli.reason.as_deref(),
        hosts: hosts.len(),
        at_once: rules.window,
    });
    run.go(&stop);
    let since = cli.since.map_or(began, clock::utc_exact);
    let ended = run.conclude(&goes_on(cli, &since), stop.requested().map(|stopped| stopped.signal));
    // Said already: the hosts are as they are, whoever reads of it.
    let _ = run.progress.finish(Some(&stop));
    Ok(ended)
}

/// `--dry-run`: what would be done.
fn print_plan(hosts: &[Fqdn], rules: Rules, events: &Progress) -> Result<(), Failure> {
    for batch in plan::batches(hosts, rules.canaries, rules.window) {
        if events.is_json() {
            events.event(Told::Batch { canaries: batch.number.is_none(), hosts: batch.hosts });
        } else {
            let printed = output::print(&batch.to_string());
            printed.map_err(|error| no_plan(&error))?;
        }
    }
    events.finish(None).map_err(|error| no_plan(&error))
}

fn no_plan(error: &io::Error) -> Failure {
    Failure::new(ExitCode::Failed, format!("cannot print the plan: {error}"))
}

/// How somebody goes on after this run.
fn goes_on(cli: &Cli, since: &str) -> Resume {
    // No host knows of a command when it ran last, and an emergency does not ask.
    if cli.force || cli.command.is_some() {
        return Resume::Names;
    }
    // A list in a pipe (`<(...)` of a shell) is not there a second time.
    let is_read_once = |path: &Path| path == Path::new("-") || !path.metadata().is_ok_and(|file| file.is_file());
    let same_input = cli.hosts.as_deref().is_some_and(is_read_once);
    let typed: Vec<String> = std::env::args_os().skip(1).map(|word| word.to_string_lossy().into_owned()).collect();
    Resume::Command { command: resume::command(&typed, since, same_input), same_input }
}

/// What was typed, with the file of defaults.
fn settings(cli: &Cli, agent: Option<OsString>, run: &str) -> Result<Settings, Failure> {
    let settings = Settings::new(cli, &load()?, agent, run).map_err(|why| Failure::new(ExitCode::Usage, why))?;
    // ssh passes over a key that is not there, and logs in with whatever the user has besides.
    if let Some(key) = &settings.way.key {
        let failed = |error| format!("cannot log in with the key '{}': {error}", key.display());
        key.metadata().map_err(|error| Failure::new(ExitCode::Configuration, failed(error)))?;
    }
    Ok(settings)
}

/// The file of defaults, which need not be there.
fn load() -> Result<File, Failure> {
    let path = Path::new(file::PATH);
    let text = trusted::read(path)?;
    let parsed = text.map(|text| File::parse(&text)).transpose();
    let parsed = parsed.map_err(|why| Failure::new(ExitCode::Configuration, format!("'{}': {why}", file::PATH)))?;
    Ok(parsed.unwrap_or_default())
}

/// What there is during a run.
pub(crate) struct Run<'a> {
    pub(crate) id: &'a str,
    pub(crate) hosts: &'a [Fqdn],
    settings: &'a Settings,
    pub(crate) schedule: Schedule,
    fleet: Fleet,
    remote: Remote,
    input: Vec<u8>,
    pub(crate) records: Vec<Record>,
    pub(crate) progress: Progress,
    pub(crate) clock: Monotonic,
    /// What was heard of the user.
    heard: Option<Stopped>,
    /// Whether it was said that no other host is started.
    pub(crate) has_halted: bool,
}

/// What happened at the same time, in the order in which it counts: no other host is started in the place of one that ended when the end
/// was asked for, and none that ended is given up.
fn in_order(asked: Option<Event>, mut ended: Vec<Event>) -> Vec<Event> {
    let place = if asked == Some(Event::Signal { again: true }) { ended.len() } else { 0 };
    ended.splice(place..place, asked);
    ended
}

impl Run<'_> {
    /// Until all is over: events in, actions out.
    fn go(&mut self, stop: &dyn Stop) {
        let mut events = VecDeque::from([Event::Tick]);
        loop {
            while let Some(event) = events.pop_front() {
                let actions = self.schedule.take(event, self.clock.now());
                self.say_what_happened(event);
                events.extend(actions.into_iter().filter_map(|action| self.perform(action)));
            }
            if self.schedule.is_over() {
                return;
            }
            let finished = self.fleet.wait(self.patience());
            let ended = finished.iter().map(|(job, finished)| self.ended(*job, finished)).collect();
            events.extend(in_order(self.heed(stop), ended));
            events.push_back(Event::Tick);
            self.draw();
            self.progress.flush();
        }
    }

    /// How long nothing need be done, as far as is known.
    fn patience(&self) -> Duration {
        let until = self.schedule.wakes_at().map_or(SLICE, |until| until.saturating_sub(self.clock.now()));
        // What is due and cannot be started yet is no reason to turn round at full speed.
        if until.is_zero() { SLICE } else { until.min(SLICE) }
    }

    /// What the user says, when it is news.
    fn heed(&mut self, stop: &dyn Stop) -> Option<Event> {
        let stopped = stop.requested();
        if stopped == self.heard {
            return None;
        }
        self.heard = stopped;
        stopped.map(|stopped| Event::Signal { again: stopped.at_once })
    }

    /// Does it. What fails at once is an event of its own.
    fn perform(&mut self, action: Action) -> Option<Event> {
        match action {
            Action::Start(place) => self.start(place),
            Action::RunGate => self.run_gate(),
            Action::EndGate => {
                self.fleet.kill(Job::Gate);
                None
            }
            Action::Abandon => {
                self.fleet.kill_all();
                None
            }
        }
    }

    fn start(&mut self, place: Place) -> Option<Event> {
        let (host, record) = (self.hosts.get(place)?, self.records.get_mut(place)?);
        let mut command = self.remote.command(host);
        log::debug!("{host}: {command:?}");
        record.attempts += 1;
        record.started = self.clock.now();
        self.progress.event(Told::HostStarted { host, attempt: record.attempts });
        let started = self.fleet.start(Job::Host(place), &mut command, &self.input, self.settings.way.host_timeout);
        let error = started.err()?;
        let program = command.get_program().display().to_string();
        record.verdict = Some(Verdict::new(Ending::Failed, None, format!("cannot run '{program}': {error}")));
        Some(Event::HostEnded(place, Ending::Failed))
    }

    fn run_gate(&mut self) -> Option<Event> {
        let gate = self.settings.gate.as_ref()?;
        self.progress.say(Level::Info, "asking the gate whether to go on");
        let mut command = Command::new(SHELL);
        command.args(["-c", &gate.command]).env_clear().env("PATH", PATH);
        let error = self.fleet.start(Job::Gate, &mut command, b"", gate.timeout).err()?;
        self.say_gate(false, &format!("cannot run '{SHELL}': {error}"));
        Some(Event::GateEnded { passed: false })
    }

    /// Judges what ended.
    fn ended(&mut self, job: Job, finished: &Finished) -> Event {
        let place = match job {
            Job::Gate => return self.gate_ended(finished),
            Job::Host(place) => place,
        };
        let request = match &self.settings.work {
            Work::Request(request) => Some(request),
            Work::Command(_) => None,
        };
        let attempt = Attempt {
            end: finished.end,
            stdout: &finished.stdout,
            stderr: &finished.stderr,
            reports: request.is_some(),
            forced: request.is_some_and(|request| request.force),
            allowed: self.settings.way.host_timeout,
        };
        let verdict = attempt.judge();
        let ending = verdict.ending;
        if let Some(record) = self.records.get_mut(place) {
            record.took = self.clock.now().saturating_sub(record.started);
            record.verdict = Some(verdict);
        }
        Event::HostEnded(place, ending)
    }

    fn gate_ended(&self, finished: &Finished) -> Event {
        let said = last_words(&finished.stdout, "it said nothing");
        let words = last_words(&finished.stderr, &said);
        let (passed, words) = match finished.end {
            End::Code(0) => (true, words),
            End::Code(code) => (false, format!("ended with {code}: {words}")),
            End::Signal(signal) => (false, format!("ended by signal {signal}: {words}")),
            End::TimeOver => (false, "no answer in time".to_owned()),
            End::AtTerminal => (false, AT_TERMINAL.to_owned()),
        };
        self.say_gate(passed, &words);
        Event::GateEnded { passed }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_to_end_comes_before_what_ended_with_it_and_a_second_one_after_it() {
        let ended = Event::HostEnded(0, Ending::Done);
        for (asked, wanted) in [
            (None, vec![ended]),
            (Some(Event::Signal { again: false }), vec![Event::Signal { again: false }, ended]),
            (Some(Event::Signal { again: true }), vec![ended, Event::Signal { again: true }]),
        ] {
            assert_eq!(in_order(asked, vec![ended]), wanted);
        }
    }
}
