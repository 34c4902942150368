//! A logger that looks for secrets in every line, of our own and of all libraries below, at the level of `--debug`. Below
//! that, at trace, the HTTP library prints its raw bytes: no tool of this project may turn that on.

use std::sync::Mutex;

use log::{LevelFilter, Log, Metadata, Record};

static NEEDLES: Mutex<Vec<String>> = Mutex::new(Vec::new());
static LEAKS: Mutex<Vec<String>> = Mutex::new(Vec::new());

struct Watcher;

impl Log for Watcher {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &Record<'_>) {
        let line = format!("{}: {}", record.target(), record.args());
        if NEEDLES.lock().unwrap().iter().any(|needle| line.contains(needle)) {
            LEAKS.lock().unwrap().push(line);
        }
    }

    fn flush(&self) {}
}

/// Looks for these from now on.
pub(crate) fn watch_for(needles: &[&str]) {
    NEEDLES.lock().unwrap().extend(needles.iter().map(|needle| (*needle).to_owned()));
    if log::set_logger(&Watcher).is_ok() {
        log::set_max_level(LevelFilter::Debug);
    }
}

/// The lines that held one.
pub(crate) fn leaks() -> Vec<String> {
    LEAKS.lock().unwrap().clone()
}
