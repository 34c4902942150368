//! The status for programs: one JSON object. Fields are added, never renamed; a word that is not known is a new one.

use host::journal::{Flaw, SetAside};
use host::printable;
use restart_core::{Fqdn, Tag};
use serde::Serialize;

use super::{InService, Journal, Left, Lock, Pool, Problem, Slots, Status, Store, Unit, What, text};

#[derive(Serialize)]
struct Object<'a> {
    tool: &'static str,
    version: &'static str,
    exit_code: u8,
    /// The first line of the text.
    state: String,
    time: u64,
    host: Option<&'a Fqdn>,
    data_centre: Option<&'a Tag>,
    in_service: InService,
    /// Something that decides `in_service` could not be seen.
    uncertain: bool,
    held: Option<bool>,
    interrupted: Option<bool>,
    /// How long the host has been out because of us.
    out_seconds: Option<u64>,
    way_back: Option<&'a str>,
    way_out: Option<&'a str>,
    journal: JournalObject<'a>,
    lock: &'a Lock,
    store: &'a Store,
    pools: &'a [Pool],
    units: &'a [Unit],
    slots: &'a Slots,
    problems: Vec<ProblemObject<'a>>,
    notes: &'a [String],
}

#[derive(Serialize)]
struct JournalObject<'a> {
    state: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    why: Option<&'a str>,
    left: Option<&'a Left>,
    set_aside: Vec<SetAsideObject>,
}

#[derive(Serialize)]
struct SetAsideObject {
    path: String,
    flaw: Flaw,
}

#[derive(Serialize)]
struct ProblemObject<'a> {
    part: &'static str,
    exit_code: u8,
    message: &'a str,
}

/// One line.
pub(super) fn line(status: &Status) -> Result<String, serde_json::Error> {
    let (state, why) = match &status.journal {
        Journal::Unknown => ("unknown", None),
        Journal::Empty => ("empty", None),
        Journal::Left(_) => ("left", None),
        Journal::Unusable(why) => ("unusable", Some(why.as_str())),
    };
    let problems = status.problems.iter().map(|Problem { part, failure }| ProblemObject {
        part,
        exit_code: failure.code.number(),
        message: &failure.message,
    });
    let aside = |SetAside { path, flaw }: &SetAside| SetAsideObject { path: path.display().to_string(), flaw: *flaw };
    let set_aside = status.set_aside.iter().map(aside).collect();
    let ours = status.ours();
    serde_json::to_string(&Object {
        tool: env!("CARGO_PKG_NAME"),
        version: env!("CARGO_PKG_VERSION"),
        exit_code: status.exit_code().number(),
        state: printable(&text::headline(status)),
        time: status.time,
        host: status.host.as_ref(),
        data_centre: status.data_centre.as_ref(),
        in_service: status.in_service(),
        uncertain: status.is_uncertain(),
        held: status.journal_says(ours, &[What::Held]),
        interrupted: status.journal_says(ours, &[What::Interrupted, What::Orphaned]),
        out_seconds: status.out_seconds(ours),
        way_back: status.way_back.as_deref(),
        way_out: status.way_out.as_deref(),
        journal: JournalObject { state, why, left: status.left(), set_aside },
        lock: &status.lock,
        store: &status.store,
        pools: &status.pools,
        units: &status.units,
        slots: &status.slots,
        problems: problems.collect(),
        notes: &status.notes,
    })
}
