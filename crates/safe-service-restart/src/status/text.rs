//! The status for somebody who was woken up: first whether the host is in service, and if not, why, and what puts it back; then
//! one thing a line, in columns. What came from outside can neither forge a line nor move the cursor.

use host::journal::SetAside;
use host::printable;
use restart_core::{Phase, Pooled, UnitName};

use super::{Daemon, Holder, InService, InStore, Journal, Left, Lock, Pool, ROOT, Slots, Status, Store, What};

/// A line in three columns: what it is about, which one, and how it stands.
type Row = [String; 3];

/// All lines.
pub(super) fn lines(status: &Status) -> Vec<String> {
    let mut lines = vec![headline(status)];
    let mut rows = Vec::new();
    if let Some(left) = status.ours() {
        rows.extend(left_rows(left));
    }
    if let Some(command) = &status.way_back {
        rows.push(row("put back", &format!("{command}{}", before_that(status)), ""));
    }
    if let Some(command) = &status.way_out {
        rows.push(row("take out", command, ""));
    }
    rows.extend(pool_rows(status));
    for unit in &status.units {
        let process = unit.pid.map(|pid| format!(", process {pid}")).unwrap_or_default();
        rows.push(row("unit", unit.unit.as_str(), &format!("{}{process}", unit.state)));
    }
    rows.push(row("lock", "", &lock(&status.lock)));
    rows.extend(slot_rows(&status.slots));
    rows.push(row("journal", "", &journal(status)));
    for SetAside { path, flaw } in &status.set_aside {
        let path = path.display();
        let what_to_do = "put the host back if it should serve, then remove the file";
        rows.push(row("journal", "", &format!("one that is {flaw} was set aside as '{path}': {what_to_do}")));
    }
    for problem in &status.problems {
        rows.push(row("PROBLEM", "", &format!("{}: {}", problem.part, problem.failure)));
    }
    for note in &status.notes {
        rows.push(row("note", "", note));
    }
    lines.extend(aligned(&rows));
    lines.iter().map(|line| printable(line)).collect()
}

/// What the command that puts the host back has to wait for, as a comment of the shell: the line is to be copied as a whole.
fn before_that(status: &Status) -> String {
    if status.ours().is_some_and(|left| left.what == What::Orphaned) {
        return "  # does nothing before the lock is free".to_owned();
    }
    let down = status.units.iter().find(|unit| unit.active == Some(false));
    down.map(|unit| format!("  # first mend '{}', which does not run", unit.unit)).unwrap_or_default()
}

/// Whether the host is in service, and why not.
pub(super) fn headline(status: &Status) -> String {
    let host = status.host.as_ref().map_or("this host", |host| host.as_str());
    let service = status.in_service();
    let words = match service {
        InService::Yes => "IN SERVICE",
        InService::No => "OUT OF SERVICE",
        InService::Partly => "PARTLY IN SERVICE",
        InService::Unknown => "NOT KNOWN to be in service",
        InService::NoPool => "in no pool",
    };
    let certain = if status.is_uncertain() && service != InService::Unknown { ", as far as could be seen" } else { "" };
    format!("{host} is {words}{certain}{}", why(status, service))
}

fn why(status: &Status, service: InService) -> String {
    if let Some(left) = status.ours() {
        let long = left.out_seconds.map(|out| format!(" ({})", for_long(out))).unwrap_or_default();
        let since = format!("since {}{long}", left.since);
        return match (left.what, service) {
            (What::UnderWay, InService::Yes) => format!("; a run of ours is under way {since}"),
            (What::UnderWay, _) => format!(": a run of ours has it {since}"),
            (What::Orphaned, service) => {
                let though = if service == InService::Yes { ", though" } else { ":" };
                let after = "what it started still holds the lock, the recovery goes on after it";
                format!("{though} taken out {since} by a run of ours that died; {after}")
            }
            // Somebody else pooled it; the journal stays until a run, or --pool, closes it.
            (What::Held, InService::Yes) if let Some(unit) = status.held_in_vain() => {
                format!(", though held by us {since}, on purpose: '{}' does not run", unit.unit)
            }
            (_, InService::Yes) => format!(", though a run of ours took it out {since} and did not put it back"),
            (What::Held, _) => format!(": held by us {since}, on purpose"),
            // It died, or could not put the host back and said so.
            (What::Interrupted, _) => {
                format!(": taken out {since} by a run of ours that is gone; the recovery goes on with it")
            }
        };
    }
    if matches!(service, InService::Yes | InService::NoPool | InService::Unknown) {
        return String::new();
    }
    match (&status.journal, status.set_aside.as_slice()) {
        (Journal::Unknown | Journal::Unusable(_), _) => "; whether because of us is not known".to_owned(),
        (Journal::Empty | Journal::Left(_), []) => without_us(status).to_owned(),
        (Journal::Empty | Journal::Left(_), [first, others @ ..]) => {
            let others = if others.is_empty() { String::new() } else { format!(", and {} more", others.len()) };
            let path = first.path.display();
            format!("; whether because of us is not known: a journal was set aside as '{path}'{others}")
        }
    }
}

/// Why a host is not in service that no run of ours wants back.
fn without_us(status: &Status) -> &'static str {
    let pooled = |wanted| {
        let is = |pool: &Pool| matches!(pool.store, InStore::Node { pooled, .. } if pooled == wanted);
        status.pools.iter().filter(|pool| is(pool)).count()
    };
    if pooled(Pooled::No) > 0 {
        ": no run of ours waits to put it back (an operator's --depool, or another tool's)"
    } else if pooled(Pooled::Yes) == status.pools.len() {
        ", though the store says 'yes': no run of ours has anything to do with it"
    } else {
        ": no run of ours waits to put it back"
    }
}

/// Who did it and why.
fn left_rows(left: &Left) -> Vec<Row> {
    let there = if left.process_is_there || left.what == What::Held { "" } else { " (gone)" };
    let fleet = left.fleet_run.as_deref().map(|run| format!(" of fleet run {run}")).unwrap_or_default();
    let by = format!("'{}', process {}{there}, run {}{fleet}", left.user, left.pid, left.run);
    let mut rows = vec![row("by", &by, "")];
    if let Some(reason) = left.reason.as_deref().filter(|reason| !reason.is_empty()) {
        rows.push(row("because", reason, ""));
    }
    rows
}

fn pool_rows(status: &Status) -> Vec<Row> {
    let mut rows = Vec::new();
    for pool in &status.pools {
        let state = match &pool.store {
            InStore::Unknown => "not known".to_owned(),
            InStore::Absent => format!("no object {} in the store", pool.node),
            InStore::Node { pooled, pooled_hosts, hosts } => {
                let stays = if *pooled == Pooled::Inactive { ", which --pool leaves so" } else { "" };
                format!("'{pooled}' in the store{stays}; {}", of_hosts(*pooled_hosts, *hosts))
            }
        };
        rows.push(row("pool", pool.pool.as_str(), &state));
        for asked in &pool.load_balancers {
            let stray = pool.strays().any(|(stray, _)| std::ptr::eq(stray, asked));
            let mark = if stray { " <--" } else { "" };
            rows.push(row("  lb", &asked.name.to_string(), &format!("{}{mark}", asked.verdict)));
        }
        if pool.load_balancers.is_empty() {
            rows.push(row("  lb", "none", "the catalog says 'lb: none'"));
        }
    }
    if status.store == Store::Down {
        rows.push(row("store", "", "AWAY: what stands in it is not known"));
    }
    rows
}

fn lock(lock: &Lock) -> String {
    match lock {
        Lock::Unknown => "not known".to_owned(),
        Lock::Free => "free".to_owned(),
        Lock::Held(None) => "held; by whom, it has not said".to_owned(),
        Lock::Held(Some(Holder { note, process_is_there })) => {
            let host::Holder { pid, tool, since, user, reason } = note;
            let user = user.as_deref().unwrap_or(ROOT);
            let gone = if *process_is_there { "" } else { " (gone; what it started has the lock)" };
            let reason = reason.as_deref().map(|text| format!(", because: {text}")).unwrap_or_default();
            format!("held by '{user}', process {pid} of {tool}{gone}, since {since}{reason}")
        }
    }
}

fn slot_rows(slots: &Slots) -> Vec<Row> {
    match slots {
        Slots::Unknown => Vec::new(),
        Slots::Poolcounter { file, daemons } if daemons.is_empty() => {
            let why = format!("counted by poolcounter ('{file}'), by which daemon is not known without a pool");
            vec![row("slots", "", &why)]
        }
        Slots::Poolcounter { daemons, .. } => daemons.iter().map(daemon).collect(),
        Slots::Etcd { limits } if limits.is_empty() => vec![row("slots", "", "all free")],
        Slots::Etcd { limits } => limits
            .iter()
            .flat_map(|limit| limit.holders.iter().map(|holder| row("slot", &limit.limit, holder)))
            .collect(),
    }
}

fn daemon(daemon: &Daemon) -> Row {
    let Daemon { label, host, holders, waiters } = daemon;
    let counts = match (holders, waiters) {
        (Some(holders), Some(waiters)) => {
            format!("counts {holders} held and {waiters} waited for, of all its limits together; it knows no names")
        }
        _ => "does not answer <--".to_owned(),
    };
    row("slots", "", &format!("poolcounter '{label}' ({host}) {counts}"))
}

/// `3 of 4 hosts are pooled`.
fn of_hosts(pooled: usize, all: usize) -> String {
    let hosts = if all == 1 { "host" } else { "hosts" };
    let are = if pooled == 1 || all == 1 { "is" } else { "are" };
    format!("{pooled} of {all} {hosts} {are} pooled")
}

fn journal(status: &Status) -> String {
    match &status.journal {
        Journal::Unknown => "not known".to_owned(),
        Journal::Empty => "empty: no run left anything to be done".to_owned(),
        Journal::Unusable(sentence) => sentence.clone(),
        Journal::Left(left) => {
            let pools: Vec<String> = left.pools.iter().map(|pool| format!("'{pool}'")).collect();
            let units: Vec<&str> = left.units.iter().map(UnitName::as_str).collect();
            let phase = match left.phase {
                Phase::TakingOut => "it was taking the host out",
                Phase::Restarting => "it was restarting the units",
                Phase::BringingBack => "it was bringing the host back",
                Phase::Closing => "the host is as it should be, but goes on counting against a limit",
                Phase::Held => "it left the host out on purpose",
            };
            let units = if units.is_empty() { String::new() } else { format!(", for {}", units.join(", ")) };
            let (of, about) = if status.is_of_another_host(left) {
                let host = &left.host;
                let see = format!("; see 'safe-service-restart --status --host {host}'");
                (format!("another host, '{host}',"), see)
            } else {
                ("the host".to_owned(), String::new())
            };
            format!("a run took {of} out of {}{units}: {phase}{about}", pools.join(", "))
        }
    }
}

/// The two largest parts of a time: `2h 3m`.
pub(super) fn for_long(seconds: u64) -> String {
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3600 % 24, seconds / 60 % 60);
    let parts = [(days, 'd'), (hours, 'h'), (minutes, 'm'), (seconds % 60, 's')];
    let first = parts.iter().position(|(count, _)| *count > 0).unwrap_or(3);
    let words: Vec<String> = parts[first..].iter().take(2).map(|(count, unit)| format!("{count}{unit}")).collect();
    words.join(" ")
}

fn row(what: &str, which: &str, how: &str) -> Row {
    [what.to_owned(), which.to_owned(), how.to_owned()]
}

/// Pads the first two columns. A row with two columns only has no part in the width of the second.
fn aligned(rows: &[Row]) -> Vec<String> {
    let width = |column: usize| {
        let rows = rows.iter().filter(|row| column == 0 || !row[2].is_empty());
        rows.map(|row| row[column].chars().count()).max().unwrap_or(0)
    };
    let (first, second) = (width(0), width(1));
    let line = |[what, which, how]: &Row| {
        if which.is_empty() {
            format!("{what:first$}  {how}")
        } else {
            format!("{what:first$}  {which:second$}  {how}")
        }
    };
    rows.iter().map(|row| line(row).trim_end().to_owned()).collect()
}
