//! `check-and-restart-php`: restarts a PHP-FPM whose opcache runs full, and clears an APCu that is in pieces. The way through this
//! crate: `cli` is what can be typed; `run` does it, one unit after the other; `source` gets the figures, `verdict` judges them and is
//! the only place that does; `last_restart` keeps a restart that does not cure from becoming a loop, `cure` says which one that is,
//! `restart` starts it; `history` keeps readings, from which `outlook` says when the cache will be full; `report` is what is known of
//! a unit in the end, and `text`, `nagios`, `json` and `metrics` only put it into words.

mod cli;
mod cure;
mod history;
mod json;
mod last_restart;
mod limits;
#[cfg(test)]
mod manual;
mod metrics;
mod nagios;
mod outlook;
mod report;
mod restart;
mod run;
mod source;
mod text;
mod verdict;

fn main() -> std::process::ExitCode {
    run::main()
}
