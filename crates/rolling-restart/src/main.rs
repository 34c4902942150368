//! `rolling-restart CLUSTER DC`: restarts a service on every host of a cluster, some at a time, over ssh. The way through this crate:
//! `cli` is what can be typed and `file` what stands in `/etc/rolling-restart.yaml`; `settings` is what both mean. `hosts` asks the
//! store for the hosts, `plan` puts them in order. `schedule` decides, as a machine without clock or processes, what is started when
//! and when it is over; `fleet` runs the commands that `remote` words, `answer` judges how they ended, `run` carries events and
//! actions between them. `tally` is what came of each host; `say`, `progress` and `report` tell it, on a `screen` and with events through
//! an `outlet`, which wait for nobody. `status` does none of that: it asks the hosts that are not pooled who took them out.

mod answer;
mod caller;
mod cli;
mod events;
mod file;
mod fleet;
mod hosts;
#[cfg(test)]
mod manual;
mod outlet;
mod plan;
mod process;
mod progress;
mod remote;
mod report;
mod resume;
mod run;
mod say;
mod schedule;
mod screen;
mod settings;
mod status;
mod tally;

fn main() -> std::process::ExitCode {
    run::main()
}
