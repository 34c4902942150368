//! How a record stands in its file: in an envelope with the version of the format and the id of the machine, so that both are
//! known before a byte of the record itself is understood. No files here: bytes in, a record or what is wrong out.
//!
//! ```json
//! {"version": 2, "machine": "3d1219c7c4c5404aaa1f6d2a48adfda4", "record": {"run": "...", "phase": "held", ...}}
//! ```
//!
//! Version 2 is `restart_core::Record`. Version 1 had no `user`, `reason`, `since` or `counts_against`, and knew one store, with its
//! files in their usual places. A change that an older program would misread gets the next number here, and the version before goes
//! on being read.

use std::fmt;
use std::time::SystemTime;

use restart_core::{Depooled, Files, Fqdn, Phase, Record, Tag, UnitName};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::clock;
use crate::ids::MachineId;
use crate::printable::{printable, shortened};

/// The version that is written.
const VERSION: u64 = 2;
/// The version before it, which is read.
const BEFORE: u64 = 1;

/// What is wrong with a journal that cannot be acted on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Flaw {
    /// It is no journal, or no longer whole.
    Damaged,
    /// Another machine wrote it: this disk was copied, or the file was.
    ForeignMachine,
    /// A later program wrote it, or none of ours.
    UnknownVersion,
}

impl Flaw {
    /// Every flaw.
    pub(crate) const ALL: [Self; 3] = [Self::Damaged, Self::ForeignMachine, Self::UnknownVersion];

    /// As part of a file's name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Damaged => "damaged",
            Self::ForeignMachine => "foreign-machine",
            Self::UnknownVersion => "unknown-version",
        }
    }
}

/// As the end of a sentence: "the journal '...' is damaged".
impl fmt::Display for Flaw {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Damaged => "damaged",
            Self::ForeignMachine => "of another machine",
            Self::UnknownVersion => "of an unknown version",
        })
    }
}

/// A flaw, and where it shows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Unusable {
    pub(crate) flaw: Flaw,
    pub(crate) why: String,
}

impl Unusable {
    pub(crate) fn damaged(why: impl fmt::Display) -> Self {
        /// A parser's sentence, not a quotation of the file.
        const LONGEST: usize = 300;
        Self { flaw: Flaw::Damaged, why: shortened(&printable(&why.to_string()), LONGEST) }
    }
}

#[derive(Serialize)]
struct Sealed<'a> {
    version: u64,
    machine: &'a MachineId,
    record: &'a Record,
}

/// Only the version is sure to be there: what else a later version has is its own matter.
#[derive(Deserialize)]
struct Opened<'a> {
    version: u64,
    machine: Option<String>,
    #[serde(borrow)]
    record: Option<&'a RawValue>,
}

/// Puts a record in its envelope.
pub(crate) fn seal(record: &Record, machine: &MachineId) -> serde_json::Result<Vec<u8>> {
    let mut bytes = serde_json::to_vec(&Sealed { version: VERSION, machine, record })?;
    bytes.push(b'\n');
    Ok(bytes)
}

/// Takes a record of this machine out of its envelope. `written` is when the file was last written.
pub(crate) fn open(bytes: &[u8], machine: &MachineId, written: SystemTime) -> Result<Record, Unusable> {
    let Opened { version, machine: theirs, record } = serde_json::from_slice(bytes).map_err(Unusable::damaged)?;
    if version != VERSION && version != BEFORE {
        let why = format!("its version is {version}, and {BEFORE} and {VERSION} are known");
        return Err(Unusable { flaw: Flaw::UnknownVersion, why });
    }
    let theirs = MachineId::new(theirs.ok_or_else(|| Unusable::damaged("it names no machine"))?);
    let theirs = theirs.map_err(Unusable::damaged)?;
    if theirs != *machine {
        let why = format!("its machine id is {theirs}, and ours is {machine}");
        return Err(Unusable { flaw: Flaw::ForeignMachine, why });
    }
    let record = record.ok_or_else(|| Unusable::damaged("it has no record"))?.get();
    match version {
        BEFORE => serde_json::from_str(record).map(|record: Record1| record.with_since(clock::utc(written))),
        _ => serde_json::from_str(record),
    }
    .map_err(|error| Unusable::damaged(format!("in its record: {error}")))
}

/// A record of version 1.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Record1 {
    run: String,
    boot: String,
    pid: u32,
    host: Fqdn,
    data_centre: Tag,
    units: Vec<UnitName>,
    nodes: Vec<Depooled>,
    phase: Phase,
}

impl Record1 {
    /// The record as it is today. When the host was taken out was not kept: the nearest that is known is when the file was last
    /// written, some time later.
    fn with_since(self, since: String) -> Record {
        let Self { run, boot, pid, host, data_centre, units, nodes, phase } = self;
        Record {
            run,
            fleet_run: None,
            boot,
            pid,
            since,
            user: None,
            reason: None,
            host,
            data_centre,
            units,
            counts_against: Vec::new(),
            store: "etcd".to_owned(),
            files: Files {
                catalog: "/etc/conftool/local_services.yaml".to_owned(),
                config: "/etc/conftool/config.yaml".to_owned(),
            },
            nodes,
            phase,
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::time::Duration;

    use restart_core::Pooled;

    use super::*;

    /// Files as they were written by the two versions; once released, not to be changed with the code.
    pub(crate) const SAMPLE_1: &str = include_str!("../tests/data/journal-1.json");
    pub(crate) const SAMPLE_2: &str = include_str!("../tests/data/journal-2.json");

    /// The machine of the samples.
    pub(crate) fn machine() -> MachineId {
        MachineId::new("3d1219c7c4c5404aaa1f6d2a48adfda4").unwrap()
    }

    /// When the samples were written, to this test.
    fn written() -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(1_795_454_175)
    }

    pub(crate) fn sample() -> Record {
        open(SAMPLE_2.as_bytes(), &machine(), written()).unwrap()
    }

    fn flaw(text: &str) -> (Flaw, String) {
        let Unusable { flaw, why } = open(text.as_bytes(), &machine(), written()).unwrap_err();
        (flaw, why)
    }

    #[test]
    fn the_format_of_today_is_read_and_written_as_it_was() {
        let record = sample();
        assert_eq!((record.pid, record.phase), (4711, Phase::Held));
        assert_eq!(record.since, "2026-11-23T16:59:01Z");
        assert_eq!((record.user.as_deref(), record.reason.as_deref()), (Some("alice"), Some("T123: \"naïve\"\n")));
        let node = &record.nodes[0];
        assert_eq!((node.write.found.pooled, node.write.pooled, node.revision), (Pooled::Yes, Pooled::No, Some(43)));
        assert_eq!(node.write.value, r#"{"pooled": "no", "weight": 10}"#);
        let written = String::from_utf8(seal(&record, &machine()).unwrap()).unwrap();
        assert_eq!(written, SAMPLE_2, "the record changed: that is a new version, unless this one was never released");
    }

    #[test]
    fn the_format_before_is_read() {
        let record = open(SAMPLE_1.as_bytes(), &machine(), written()).unwrap();
        let since = "2026-11-23T17:16:15Z".to_owned();
        let today = Record { user: None, reason: None, since, counts_against: Vec::new(), ..sample() };
        assert_eq!(record, today);
    }

    #[test]
    fn another_machine_is_told_by_its_id() {
        let other = MachineId::new("ffffffffffffffffffffffffffffffff").unwrap();
        let found = open(SAMPLE_2.as_bytes(), &other, written()).unwrap_err();
        assert_eq!(found.flaw, Flaw::ForeignMachine);
        assert_eq!(found.why, format!("its machine id is {}, and ours is {other}", machine()));
    }

    #[test]
    fn nothing_is_asked_of_an_unknown_version_but_its_number() {
        let expected = |version| (Flaw::UnknownVersion, format!("its version is {version}, and 1 and 2 are known"));
        assert_eq!(flaw(r#"{"version": 3}"#), expected(3));
        assert_eq!(flaw(r#"{"version": 0, "machine": "x", "record": []}"#), expected(0));
        assert_eq!(flaw(r#"{"later": {"a": [1]}, "version": 9, "record": 1}"#), expected(9));
    }

    #[test]
    fn what_is_not_whole_is_damaged() {
        for end in 0..SAMPLE_2.trim_end().len() {
            if SAMPLE_2.is_char_boundary(end) {
                assert_eq!(flaw(&SAMPLE_2[..end]).0, Flaw::Damaged, "the first {end} bytes");
            }
        }
        let with = |from: &str, to: &str| {
            assert!(SAMPLE_2.contains(from), "{from}");
            flaw(&SAMPLE_2.replacen(from, to, 1))
        };
        for (from, to) in [
            ("\"version\":2", "\"version\":\"2\""),
            ("\"version\":2", "\"version\":2.5"),
            ("\"version\":2", "\"version\":-2"),
            ("\"version\":2,", ""),
            ("\"version\":2", "\"version\":2,\"version\":2"),
            ("3d1219c7", "3D1219C7"),
            ("\"machine\"", "\"engine\""),
            ("\"record\"", "\"recording\""),
            ("\"held\"", "\"helb\""),
            ("\"pid\":4711", "\"pid\":-1"),
            ("\"pid\":4711", "\"pid\":4711,\"unknown\":1"),
            ("mw1001.eqiad.wmnet", "-H"),
            ("\"found\":{", "\"found\":{\"id\":1,"),
        ] {
            assert_eq!(with(from, to).0, Flaw::Damaged, "{from} as {to}");
        }
        assert_eq!(flaw(&format!("{SAMPLE_2}x")).0, Flaw::Damaged);
        for junk in ["", "null", "[]", "{}", "\0\0\0\0", "version: 2", &"[".repeat(100_000)] {
            assert_eq!(flaw(junk).0, Flaw::Damaged);
        }
        assert_eq!(open(b"\xff\xfe", &machine(), written()).unwrap_err().flaw, Flaw::Damaged);
        // Version 1 had none of the three.
        let both = SAMPLE_2.replacen("\"version\":2", "\"version\":1", 1);
        assert!(flaw(&both).1.starts_with("in its record: unknown field `since`"), "{}", flaw(&both).1);
    }
}
