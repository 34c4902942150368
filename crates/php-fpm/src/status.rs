//! A pool's status page, and how many requests are in flight by it.
//!
//! The page is answered by a process of the pool, which then counts as active itself, unless it came over `pm.status_listen`. PHP-FPM
//! does not know the queue of a Unix socket and says 0 there; of a TCP port it looks once a second, so that the figure is up to a
//! second old. That matters less than it seems: a page that the pool itself answered has stood in that queue, so whatever stood
//! before it is no longer queued.

use std::time::Duration;

use crate::json::{self, Fields, JsonFault};

/// Who answered a status page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AnsweredBy {
    /// A process of the pool, which counts itself.
    Pool,
    /// A process that serves `pm.status_listen` and counts nowhere.
    StatusListener,
}

/// What a status page says of a pool. Counts of events are since PHP-FPM was started or reloaded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Status {
    /// Who answered.
    pub answered_by: AnsweredBy,
    /// The pool's name.
    pub pool: String,
    /// `static`, `dynamic` or `ondemand`.
    pub process_manager: String,
    /// When it was started or reloaded, in seconds since 1970.
    pub start_time: u64,
    /// How long ago that was, in whole seconds.
    pub start_since: Duration,
    /// How many connections were accepted.
    pub accepted: u64,
    /// How many connections waited to be accepted, within the last second; `None` if PHP-FPM does not know.
    pub listen_queue: Option<u64>,
    /// The most that ever waited so; `None` if PHP-FPM does not know.
    pub max_listen_queue: Option<u64>,
    /// How many processes have no request.
    pub idle: u64,
    /// How many processes have one; the one that answered is among them if it is of the pool.
    pub active: u64,
    /// How many processes there are.
    pub total: u64,
    /// The most that ever had one.
    pub max_active: u64,
    /// How often more processes would have been started than may be.
    pub max_children_reached: u64,
    /// How many requests took longer than `request_slowlog_timeout`.
    pub slow_requests: u64,
    /// Each process, where the full page was asked for.
    pub processes: Option<Vec<Process>>,
}

/// One process of a pool. What it says of a request is of the present one, or of the last one if it is idle; it was sent by a client, and
/// is to be escaped before it is shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Process {
    /// Its number.
    pub pid: u64,
    /// What it is doing: `Idle`, `Running`, `Finishing`, `Reading headers`, `Getting request informations`, `Ending`.
    pub state: String,
    /// How many requests it was given.
    pub requests: u64,
    /// How long the request has taken.
    pub duration: Duration,
    /// The request's method.
    pub method: String,
    /// The request's path and query.
    pub uri: String,
    /// The script that it runs; `-` if it is a page of PHP-FPM's own.
    pub script: String,
}

impl Status {
    /// Reads the page, `?json` or `?json&full`. `is_unix` says that the pool listens on a Unix socket, whose queue PHP-FPM does not
    /// know.
    pub fn parse(body: &[u8], answered_by: AnsweredBy, is_unix: bool) -> Result<Self, JsonFault> {
        let page = json::object(body)?;
        let page = Fields::new(&page);
        let queue = |key| page.integer(key).map(|queued| (!is_unix).then_some(queued));
        Ok(Self {
            answered_by,
            pool: page.text("pool")?.to_owned(),
            process_manager: page.text("process manager")?.to_owned(),
            start_time: page.integer("start time")?,
            start_since: Duration::from_secs(page.integer("start since")?),
            accepted: page.integer("accepted conn")?,
            listen_queue: queue("listen queue")?,
            max_listen_queue: queue("max listen queue")?,
            idle: page.integer("idle processes")?,
            active: page.integer("active processes")?,
            total: page.integer("total processes")?,
            max_active: page.integer("max active processes")?,
            max_children_reached: page.integer("max children reached")?,
            slow_requests: page.integer("slow requests")?,
            processes: match page.get("processes") {
                Some(_) => Some(page.objects("processes")?.iter().map(Process::read).collect::<Result<_, _>>()?),
                None => None,
            },
        })
    }

    /// How many requests have a process, our own not counted.
    pub fn in_flight(&self) -> u64 {
        in_flight(self.active, self.answered_by)
    }

    /// How many wait for one, as far as PHP-FPM knows; `None` if it does not.
    pub fn queued(&self) -> Option<u64> {
        self.listen_queue
    }

    /// Whether nothing is in flight, and nothing known to wait. Where the queue is not known, a request may just be on its way from it
    /// to an idle process: look twice.
    pub fn is_drained(&self) -> bool {
        self.in_flight() == 0 && self.queued().unwrap_or(0) == 0
    }
}

/// How many of the active processes have a request that is not ours.
pub fn in_flight(active: u64, answered_by: AnsweredBy) -> u64 {
    match answered_by {
        AnsweredBy::Pool => active.saturating_sub(1),
        AnsweredBy::StatusListener => active,
    }
}

impl Process {
    fn read(fields: &Fields<'_>) -> Result<Self, JsonFault> {
        Ok(Self {
            pid: fields.integer("pid")?,
            state: fields.text("state")?.to_owned(),
            requests: fields.integer("requests")?,
            duration: Duration::from_micros(fields.integer("request duration")?),
            method: fields.text("request method")?.to_owned(),
            uri: fields.text("request uri")?.to_owned(),
            script: fields.text("script")?.to_owned(),
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    /// php-fpm 8.2.32: two processes, one of them answering.
    const PAGE: &[u8] = include_bytes!("../tests/fixtures/status.json");
    const FULL: &[u8] = include_bytes!("../tests/fixtures/status-full.json");
    /// A pool on a TCP port: one process, busy with the page, and one request in the queue.
    const TCP: &[u8] = include_bytes!("../tests/fixtures/status-tcp.json");

    #[test]
    fn a_real_page_is_read() {
        let status = Status::parse(PAGE, AnsweredBy::Pool, true).unwrap();
        assert_eq!((status.pool.as_str(), status.process_manager.as_str()), ("www", "static"));
        assert_eq!((status.start_time, status.start_since), (1_795_461_237, Duration::from_secs(2)));
        assert_eq!((status.accepted, status.idle, status.active, status.total), (2, 1, 1, 2));
        assert_eq!((status.in_flight(), status.queued(), status.is_drained()), (0, None, true));
        assert_eq!(status.processes, None);
    }

    #[test]
    fn a_real_full_page_is_read_with_what_clients_sent() {
        let processes = Status::parse(FULL, AnsweredBy::Pool, true).unwrap().processes.unwrap();
        let [idle, running] = &processes[..] else { panic!("{processes:?}") };
        assert_eq!((idle.pid, idle.state.as_str(), idle.requests), (6, "Idle", 6));
        assert_eq!((idle.method.as_str(), idle.uri.as_str()), ("GET", "/a\"b\\c.php?x=\"y\""));
        assert_eq!((idle.script.as_str(), idle.duration), ("/srv/slow.php", Duration::from_micros(300)));
        assert_eq!((running.state.as_str(), running.uri.as_str()), ("Running", "/status?json&full"));
    }

    #[test]
    fn the_queue_of_a_port_is_known_and_that_of_a_unix_socket_is_not() {
        let status = Status::parse(TCP, AnsweredBy::Pool, false).unwrap();
        assert_eq!((status.in_flight(), status.queued(), status.is_drained()), (0, Some(1), false));
        assert_eq!(Status::parse(TCP, AnsweredBy::Pool, true).unwrap().queued(), None);
    }

    #[test]
    fn whoever_answers_for_the_pool_is_not_in_flight() {
        for (active, pool, listener) in [(0, 0, 0), (1, 0, 1), (2, 1, 2), (20, 19, 20)] {
            assert_eq!(in_flight(active, AnsweredBy::Pool), pool);
            assert_eq!(in_flight(active, AnsweredBy::StatusListener), listener);
        }
        let status = Status::parse(PAGE, AnsweredBy::StatusListener, true).unwrap();
        assert_eq!((status.in_flight(), status.is_drained()), (1, false));
    }

    #[test]
    fn every_key_that_is_missing_or_odd_is_named() {
        let page: serde_json::Map<String, Value> = serde_json::from_slice(PAGE).unwrap();
        let parse = |page: &serde_json::Map<String, Value>| {
            Status::parse(&serde_json::to_vec(page).unwrap(), AnsweredBy::Pool, false)
                .map_err(|fault| fault.to_string())
        };
        for key in page.keys().filter(|key| *key != "listen queue len") {
            let mut without = page.clone();
            without.remove(key);
            assert_eq!(parse(&without).unwrap_err(), format!("its answer has no '{key}'"));
            let mut odd = page.clone();
            odd.insert(key.clone(), Value::from(-1));
            assert!(
                parse(&odd).unwrap_err().starts_with(&format!("its answer has '{key}' = -1, which is not ")),
                "{key}"
            );
        }
        let mut more = page.clone();
        more.insert("memory peak".to_owned(), Value::from(1));
        assert!(parse(&more).is_ok());
    }
}
