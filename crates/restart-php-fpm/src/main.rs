//! `restart-php-fpm`: restarts this host's PHP-FPM, knowing its pools, units and limits, so that a deploy tool has nothing to say but
//! its name. The way through this crate: `cli` is what can be typed, `request` the same as one JSON object on standard input,
//! `file` what stands in `/etc/restart-php-fpm.yaml`, `command` what all of it means as a command line of `safe-service-restart`,
//! `check` what is looked at before, and `run` does it and becomes that program.

mod check;
mod cli;
mod command;
mod file;
#[cfg(test)]
mod manual;
mod request;
mod run;

fn main() -> std::process::ExitCode {
    run::main()
}
