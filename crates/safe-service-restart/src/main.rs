//! `safe-service-restart`: takes this host out of its load-balancer pools, restarts services, puts it back. The way through
//! this crate: `cli` is what can be typed, `settings` what it means together with the files of the host, `run` does it with
//! the real parts (`locking` and `held_journal` keep it alone on its host, `store` opens who keeps the pools, `probe` asks the
//! services), `host::output` says how it ended; `status` only looks.

mod cli;
mod held_journal;
mod locking;
#[cfg(test)]
mod manual;
mod probe;
mod run;
mod settings;
mod status;
mod store;

fn main() -> std::process::ExitCode {
    run::main()
}
