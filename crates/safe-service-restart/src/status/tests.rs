//! What a status means, and how it is put into words, JSON and figures: tables, no host.

use std::collections::BTreeSet;
use std::path::PathBuf;

use clap::Parser as _;
use host::journal::{Flaw, SetAside};
use restart_core::{Balancer, ExitCode, Failure, Fqdn, Phase, PoolName, Pooled, Tag, UnitName, Verdict};

use super::collect::{elapsed, way_back, way_out, what};
use super::{
    Asked, Daemon, Holder, InService, InStore, Journal, Left, Limit, Lock, Pool, Problem, Slots, Status, Store, Unit,
    What, json, metrics, text,
};
use crate::cli::Cli;

/// 2026-11-23T17:16:15Z.
const NOW: u64 = 1_795_454_175;

const WAY_OUT: &str = "safe-service-restart --depool --pools appservers";

fn node(pooled: Pooled) -> InStore {
    InStore::Node { pooled, pooled_hosts: 3, hosts: 4 }
}

fn pool(name: &str, store: InStore, verdicts: &[Verdict]) -> Pool {
    let asked = |(number, verdict): (usize, &Verdict)| Asked {
        name: Balancer { host: format!("lvs{}.example", number + 1), port: None },
        verdict: verdict.clone(),
    };
    Pool {
        pool: PoolName::new(name).unwrap(),
        node: "eqiad/appserver/php/mw1.example".to_owned(),
        store,
        load_balancers: verdicts.iter().enumerate().map(asked).collect(),
    }
}

fn unknown() -> Verdict {
    Verdict::Unknown("timed out".to_owned())
}

fn left(what: What, phase: Phase) -> Journal {
    Journal::Left(Box::new(Left {
        what,
        host: Fqdn::new("mw1.example").unwrap(),
        run: "4f2a".to_owned(),
        fleet_run: Some("9c01".to_owned()),
        pid: 812,
        process_is_there: what == What::UnderWay,
        since: "2026-11-23T15:13:12Z".to_owned(),
        out_seconds: Some(7383),
        user: "alice".to_owned(),
        reason: Some("T123".to_owned()),
        phase,
        pools: vec![PoolName::new("appservers").unwrap()],
        units: vec![UnitName::new("php8.2-fpm").unwrap()],
    }))
}

/// A host that is in service.
fn well() -> Status {
    Status {
        time: NOW,
        host: Some(Fqdn::new("mw1.example").unwrap()),
        data_centre: Some(Tag::new("eqiad").unwrap()),
        journal: Journal::Empty,
        lock: Lock::Free,
        store: Store::Up,
        pools: vec![pool("appservers", node(Pooled::Yes), &[Verdict::Pooled, Verdict::Pooled])],
        ..Status::default()
    }
}

fn out() -> Vec<Pool> {
    vec![pool("appservers", node(Pooled::No), &[Verdict::NotPooled, Verdict::NotPooled])]
}

fn held() -> Status {
    let unit = Unit {
        unit: UnitName::new("php8.2-fpm").unwrap(),
        active: Some(false),
        state: "failed (failed), result 'exit-code'".to_owned(),
        pid: None,
    };
    Status {
        journal: left(What::Held, Phase::Held),
        pools: out(),
        units: vec![unit],
        way_back: Some("safe-service-restart --pool --pools appservers".to_owned()),
        ..well()
    }
}

/// Held, and sent to all the same: somebody put it back, or its HAProxy was reloaded.
fn in_vain() -> Status {
    Status { pools: well().pools, way_back: None, way_out: Some(WAY_OUT.to_owned()), ..held() }
}

/// The lock in the hands of this process, or of what it started.
fn locked(process_is_there: bool) -> Lock {
    Lock::Held(Some(Holder::new(host::Holder::new("safe-service-restart", None, None), process_is_there)))
}

/// A run that was killed in the midst of a restart; its systemctl has the lock.
fn orphaned(phase: Phase) -> Status {
    let way_back = Some("safe-service-restart --recover".to_owned());
    Status { journal: left(What::Orphaned, phase), lock: locked(false), pools: out(), way_back, ..well() }
}

fn set_aside() -> Vec<SetAside> {
    vec![SetAside { path: PathBuf::from("/v/journal.set-aside-damaged-1.json"), flaw: Flaw::Damaged }]
}

/// The journal of this machine is about a name that it has besides: `--status --host mw2.example`.
fn asked_about_another_name(status: Status) -> Status {
    Status { host: Some(Fqdn::new("mw2.example").unwrap()), ..status }
}

fn problem(part: &'static str, code: ExitCode) -> Problem {
    Problem::new(part, Failure::new(code, "it is away"))
}

#[test]
fn who_is_sent_to_is_in_service() {
    use Verdict::{Absent, Down, Held, NotPooled, Pooled as Sends};
    let draining = || Verdict::Draining("1 session is still open".to_owned());
    let (yes, no, inactive) = (|| node(Pooled::Yes), || node(Pooled::No), || node(Pooled::Inactive));
    let table = [
        (yes(), vec![Sends, Sends], InService::Yes),
        (yes(), vec![Sends, unknown()], InService::Yes),
        (yes(), vec![Sends, Down], InService::Partly),
        (yes(), vec![Down, NotPooled], InService::No),
        (yes(), vec![NotPooled, unknown()], InService::Unknown),
        (yes(), vec![unknown(), unknown()], InService::Unknown),
        (yes(), vec![], InService::Yes),
        (no(), vec![], InService::No),
        (no(), vec![NotPooled, NotPooled], InService::No),
        (no(), vec![NotPooled, unknown()], InService::No),
        (no(), vec![unknown(), unknown()], InService::No),
        // The store is not what requests go by.
        (no(), vec![Sends, Sends], InService::Yes),
        (no(), vec![Held, NotPooled], InService::Partly),
        (no(), vec![draining(), NotPooled], InService::No),
        (inactive(), vec![Absent, Absent], InService::No),
        (InStore::Absent, vec![Absent, Absent], InService::No),
        (InStore::Unknown, vec![Sends, Sends], InService::Yes),
        (InStore::Unknown, vec![NotPooled, NotPooled], InService::No),
        (InStore::Unknown, vec![NotPooled, unknown()], InService::Unknown),
        (InStore::Unknown, vec![], InService::Unknown),
    ];
    for (store, verdicts, expected) in table {
        let pool = pool("web", store, &verdicts);
        assert_eq!(pool.in_service(), expected, "{pool:?}");
    }
}

#[test]
fn several_pools_make_one_word() {
    let sends = || pool("a", node(Pooled::Yes), &[Verdict::Pooled]);
    let gone = || pool("b", node(Pooled::No), &[Verdict::NotPooled]);
    let dark = || pool("c", InStore::Unknown, &[unknown()]);
    let table = [
        (vec![], InService::NoPool),
        (vec![sends(), sends()], InService::Yes),
        (vec![gone(), gone()], InService::No),
        (vec![sends(), gone()], InService::Partly),
        (vec![sends(), dark()], InService::Yes),
        (vec![dark()], InService::Unknown),
    ];
    for (pools, expected) in table {
        let status = Status { pools, ..well() };
        assert_eq!(status.in_service(), expected, "{:?}", status.pools);
    }
    // No pool seen is not the same as no pool.
    for dark in [
        Status { pools: vec![], store: Store::Down, ..well() },
        Status { pools: vec![], problems: vec![problem("configuration", ExitCode::Configuration)], ..well() },
    ] {
        assert_eq!(dark.in_service(), InService::Unknown);
    }
}

#[test]
fn the_worst_of_all_is_the_exit_code() {
    let interrupted = |phase| Status { journal: left(What::Interrupted, phase), pools: out(), ..well() };
    let down = || vec![pool("a", node(Pooled::Yes), &[Verdict::Pooled, Verdict::Down])];
    let lost = || vec![pool("a", node(Pooled::Yes), &[Verdict::Pooled, unknown()])];
    let unknown_there = || vec![pool("a", node(Pooled::Yes), &[Verdict::Pooled, Verdict::Absent])];
    let locked = || Lock::Held(None);
    let without_units = |status: Status| {
        let Journal::Left(mut left) = status.journal else { panic!("{status:?}") };
        left.units.clear();
        Status { journal: Journal::Left(left), ..status }
    };
    let table = [
        ("well", well(), 0),
        ("depooled by an operator", Status { pools: out(), ..well() }, 0),
        ("held", held(), 3),
        ("held, and the store away", Status { problems: vec![problem("store", ExitCode::Unreachable)], ..held() }, 3),
        ("interrupted before the restart", interrupted(Phase::TakingOut), 5),
        ("interrupted in the restart", interrupted(Phase::Restarting), 5),
        ("interrupted after it", interrupted(Phase::BringingBack), 4),
        // There was no restart: `--pool` was killed.
        ("interrupted on its way back, with no unit", without_units(interrupted(Phase::BringingBack)), 5),
        ("its systemctl outlives it", orphaned(Phase::Restarting), 5),
        ("what it started after the restart outlives it", orphaned(Phase::BringingBack), 4),
        ("another name's, held", asked_about_another_name(Status { units: vec![], ..held() }), 1),
        (
            "another name's, under way",
            asked_about_another_name(Status { journal: left(What::UnderWay, Phase::Restarting), ..well() }),
            0,
        ),
        ("poolcounter away", Status { problems: vec![problem("slots", ExitCode::Unreachable)], ..well() }, 69),
        (
            "under way",
            Status { journal: left(What::UnderWay, Phase::Restarting), lock: locked(), pools: out(), ..well() },
            0,
        ),
        ("a run that load balancers have not followed yet", Status { lock: locked(), pools: down(), ..well() }, 0),
        ("not what the store asks for", Status { pools: down(), ..well() }, 1),
        ("a load balancer away", Status { pools: lost(), ..well() }, 69),
        ("one that does not know the host", Status { pools: unknown_there(), ..well() }, 69),
        ("not permitted", Status { problems: vec![problem("journal", ExitCode::NotPermitted)], ..well() }, 77),
        (
            "not permitted, and the store away",
            Status {
                problems: vec![problem("journal", ExitCode::NotPermitted), problem("store", ExitCode::Unreachable)],
                ..well()
            },
            69,
        ),
        ("configuration", Status { problems: vec![problem("store", ExitCode::Configuration)], ..well() }, 78),
        ("damaged", Status { journal: Journal::Unusable("damaged".to_owned()), ..well() }, 1),
        ("set aside", Status { set_aside: set_aside(), ..well() }, 1),
        ("a unit that does not run", Status { units: held().units, ..well() }, 1),
        ("somebody else's entry", Status { notes: vec!["broken".to_owned()], ..well() }, 0),
    ];
    for (what, status, expected) in table {
        assert_eq!(status.exit_code().number(), expected, "{what}");
    }
}

#[test]
fn the_first_line_says_whether_it_is_in_service_and_why_not() {
    let since = "since 2026-11-23T15:13:12Z (2h 3m)";
    let not_known = "OUT OF SERVICE; whether because of us is not known";
    let by_an_operator =
        "OUT OF SERVICE: no run of ours waits to put it back (an operator's --depool, or another tool's)".to_owned();
    let with = |what, pools| Status { journal: left(what, Phase::Restarting), pools, ..well() };
    let table = [
        (well(), "IN SERVICE".to_owned()),
        (held(), format!("OUT OF SERVICE: held by us {since}, on purpose")),
        (
            with(What::Interrupted, out()),
            format!("OUT OF SERVICE: taken out {since} by a run of ours that is gone; the recovery goes on with it"),
        ),
        (with(What::UnderWay, out()), format!("OUT OF SERVICE: a run of ours has it {since}")),
        (with(What::UnderWay, well().pools), format!("IN SERVICE; a run of ours is under way {since}")),
        (in_vain(), format!("IN SERVICE, though held by us {since}, on purpose: 'php8.2-fpm.service' does not run")),
        (
            Status { units: vec![], ..in_vain() },
            format!("IN SERVICE, though a run of ours took it out {since} and did not put it back"),
        ),
        (
            orphaned(Phase::Restarting),
            format!(
                "OUT OF SERVICE: taken out {since} by a run of ours that died; \
                 what it started still holds the lock, the recovery goes on after it"
            ),
        ),
        (Status { pools: out(), ..well() }, by_an_operator.clone()),
        (asked_about_another_name(held()), by_an_operator),
        (
            Status { pools: vec![pool("a", node(Pooled::Yes), &[Verdict::Down])], ..well() },
            "OUT OF SERVICE, though the store says 'yes': no run of ours has anything to do with it".to_owned(),
        ),
        (
            Status { pools: vec![pool("a", node(Pooled::Inactive), &[Verdict::Absent])], ..well() },
            "OUT OF SERVICE: no run of ours waits to put it back".to_owned(),
        ),
        (
            Status { pools: out(), set_aside: set_aside(), ..well() },
            format!("{not_known}: a journal was set aside as '/v/journal.set-aside-damaged-1.json'"),
        ),
        (
            Status { pools: out(), set_aside: [set_aside(), set_aside()].concat(), ..well() },
            format!("{not_known}: a journal was set aside as '/v/journal.set-aside-damaged-1.json', and 1 more"),
        ),
        (Status { set_aside: set_aside(), ..well() }, "IN SERVICE".to_owned()),
        (Status { pools: out(), journal: Journal::Unknown, ..well() }, not_known.to_owned()),
        (Status { store: Store::Down, ..well() }, "IN SERVICE, as far as could be seen".to_owned()),
        (Status { store: Store::Down, pools: vec![], ..well() }, "NOT KNOWN to be in service".to_owned()),
        (Status { pools: vec![], ..well() }, "in no pool".to_owned()),
    ];
    for (status, expected) in table {
        let host = status.host.clone().unwrap();
        assert_eq!(text::lines(&status)[0], format!("{host} is {expected}"));
    }
}

#[test]
fn a_held_host_as_text() {
    let mut status = held();
    status.pools.push(pool("alone", InStore::Absent, &[]));
    status.pools.push(pool("web", node(Pooled::No), &[Verdict::Pooled, unknown()]));
    status.lock = Lock::Unknown;
    let limit = "ServiceRestarter::eqiad::web".to_owned();
    status.slots = Slots::Etcd { limits: vec![Limit { limit, holders: vec!["'mw2.example' since today".to_owned()] }] };
    status.set_aside = set_aside();
    status.problems = vec![problem("lock", ExitCode::Failed)];
    status.notes = vec!["pool 'broken' has no 'port'".to_owned()];
    let expected = "\
mw1.example is PARTLY IN SERVICE, as far as could be seen: held by us since 2026-11-23T15:13:12Z (2h 3m), on purpose
by        'alice', process 812, run 4f2a of fleet run 9c01
because   T123
put back  safe-service-restart --pool --pools appservers  # first mend 'php8.2-fpm.service', which does not run
pool      appservers                    'no' in the store; 3 of 4 hosts are pooled
  lb      lvs1.example                  says not pooled
  lb      lvs2.example                  says not pooled
pool      alone                         no object eqiad/appserver/php/mw1.example in the store
  lb      none                          the catalog says 'lb: none'
pool      web                           'no' in the store; 3 of 4 hosts are pooled
  lb      lvs1.example                  says pooled <--
  lb      lvs2.example                  gives no answer that can be used: timed out <--
unit      php8.2-fpm.service            failed (failed), result 'exit-code'
lock      not known
slot      ServiceRestarter::eqiad::web  'mw2.example' since today
journal   a run took the host out of 'appservers', for php8.2-fpm.service: it left the host out on purpose
journal   one that is damaged was set aside as '/v/journal.set-aside-damaged-1.json': put the host back if it should serve, \
then remove the file
PROBLEM   lock: it is away
note      pool 'broken' has no 'port'";
    assert_eq!(text::lines(&status).join("\n"), expected);
}

#[test]
fn nothing_from_outside_can_forge_a_line() {
    let mut status = held();
    if let Journal::Left(left) = &mut status.journal {
        left.reason = Some("x\nlock  free\u{1b}[2J".to_owned());
        left.since = "\u{1b}[2J".to_owned();
    }
    status.pools[0].load_balancers[0].verdict = Verdict::Unknown("a\nb".to_owned());
    status.problems = vec![Problem::new("store", Failure::new(ExitCode::Unreachable, "a\nb"))];
    let holder = host::Holder::new("a\nb", Some("c\nd".to_owned()), Some("e\nf".to_owned()));
    status.lock = Lock::Held(Some(Holder::new(holder, true)));
    for line in text::lines(&status) {
        assert!(!line.chars().any(char::is_control), "{line:?}");
    }
}

#[test]
fn a_time_has_two_parts_at_most() {
    let table = [(0, "0s"), (59, "59s"), (60, "1m 0s"), (3599, "59m 59s"), (7383, "2h 3m"), (90_000, "1d 1h")];
    for (seconds, expected) in table {
        assert_eq!(text::for_long(seconds), expected);
    }
}

#[test]
fn a_clock_that_was_set_back_makes_no_time_up() {
    assert_eq!(elapsed("2026-11-23T17:16:15Z", NOW), Some(0));
    assert_eq!(elapsed("2026-11-23T15:13:12Z", NOW), Some(7383));
    assert_eq!(elapsed("2026-11-23T17:16:16Z", NOW), None);
    assert_eq!(elapsed("yesterday", NOW), None);
}

#[test]
fn the_object_has_what_a_program_asks_for() {
    let read = |status: &Status| -> serde_json::Value { serde_json::from_str(&json::line(status).unwrap()).unwrap() };
    let object = read(&held());
    let expected = serde_json::json!({
        "tool": "safe-service-restart", "version": env!("CARGO_PKG_VERSION"), "exit_code": 3,
        "state": "mw1.example is OUT OF SERVICE: held by us since 2026-11-23T15:13:12Z (2h 3m), on purpose", "time": NOW,
        "host": "mw1.example", "data_centre": "eqiad", "in_service": "no", "uncertain": false,
        "held": true, "interrupted": false, "out_seconds": 7383,
        "way_back": "safe-service-restart --pool --pools appservers", "way_out": null,
        "journal": {"state": "left", "left": {
            "what": "held", "host": "mw1.example", "run": "4f2a", "fleet_run": "9c01", "pid": 812, "process_is_there": false, "since": "2026-11-23T15:13:12Z",
            "out_seconds": 7383, "user": "alice", "reason": "T123", "phase": "held", "pools": ["appservers"],
            "units": ["php8.2-fpm.service"]}, "set_aside": []},
        "lock": {"state": "free"}, "store": "up",
        "pools": [{"pool": "appservers", "node": "eqiad/appserver/php/mw1.example",
            "store": {"state": "node", "pooled": "no", "pooled_hosts": 3, "hosts": 4},
            "load_balancers": [{"name": "lvs1.example", "verdict": "not-pooled"},
                               {"name": "lvs2.example", "verdict": "not-pooled"}]}],
        "units": [{"unit": "php8.2-fpm.service", "active": false, "state": "failed (failed), result 'exit-code'",
            "pid": null}],
        "slots": {"service": "unknown"}, "problems": [], "notes": [],
    });
    assert_eq!(object, expected);
    let object = read(&Status { problems: vec![problem("store", ExitCode::Unreachable)], ..Status::default() });
    assert_eq!((&object["held"], &object["out_seconds"]), (&serde_json::Value::Null, &serde_json::Value::Null));
    assert_eq!(object["journal"], serde_json::json!({"state": "unknown", "left": null, "set_aside": []}));
    assert_eq!(object["problems"], serde_json::json!([{"part": "store", "exit_code": 69, "message": "it is away"}]));
}

/// Monitoring is written by the manual: each field, and each word that one of ours can be, stands there.
#[test]
fn every_field_and_word_of_the_object_is_in_the_manual() {
    const MANUAL: &str = include_str!("../../../../man/safe-service-restart.8");
    let text = testbed::manual::section(MANUAL, "STATUS AS JSON").join("\n");
    let told: BTreeSet<&str> = text.split_whitespace().collect();
    let daemon = Daemon { label: "pc1".to_owned(), host: "pc1.example".to_owned(), holders: None, waiters: None };
    let reason = Some("T123".to_owned());
    let holder = Holder::new(host::Holder::new("safe-service-restart", reason, None), true);
    let every = [
        Status {
            lock: Lock::Held(Some(holder)),
            set_aside: set_aside(),
            slots: Slots::Poolcounter { file: "f".to_owned(), daemons: vec![daemon] },
            problems: vec![problem("store", ExitCode::Unreachable)],
            ..held()
        },
        Status {
            journal: Journal::Unusable("damaged".to_owned()),
            pools: vec![pool("a", InStore::Absent, &[unknown()])],
            slots: Slots::Etcd { limits: vec![Limit { limit: "l".to_owned(), holders: vec![] }] },
            ..well()
        },
    ];
    let mut fields = BTreeSet::new();
    every.iter().for_each(|status| fields_of(&object(status), &mut fields));
    let words = [
        serde_json::to_value([What::UnderWay, What::Interrupted, What::Orphaned, What::Held]).unwrap(),
        serde_json::to_value([InService::Yes, InService::No, InService::Partly, InService::Unknown]).unwrap(),
        serde_json::to_value([InService::NoPool]).unwrap(),
        serde_json::to_value([Store::Up, Store::Down, Store::NotAsked]).unwrap(),
        serde_json::to_value([Phase::TakingOut, Phase::Restarting, Phase::BringingBack, Phase::Held]).unwrap(),
        serde_json::to_value([Flaw::Damaged, Flaw::ForeignMachine, Flaw::UnknownVersion]).unwrap(),
    ];
    let words = words.iter().flat_map(|words| words.as_array().unwrap()).map(|word| word.as_str().unwrap().to_owned());
    for word in fields.into_iter().chain(words) {
        assert!(told.contains(word.as_str()), "'{word}' is not in the manual");
    }
}

fn fields_of(value: &serde_json::Value, found: &mut BTreeSet<String>) {
    match value {
        serde_json::Value::Object(fields) => fields.iter().for_each(|(name, value)| {
            found.insert(name.clone());
            fields_of(value, found);
        }),
        serde_json::Value::Array(values) => values.iter().for_each(|value| fields_of(value, found)),
        _ => {}
    }
}

fn object(status: &Status) -> serde_json::Value {
    serde_json::from_str(&json::line(status).unwrap()).unwrap()
}

#[test]
fn a_journal_set_aside_is_an_object_and_leaves_unknown_what_it_may_have_told() {
    let object = object(&Status { pools: out(), set_aside: set_aside(), ..well() });
    let path = "/v/journal.set-aside-damaged-1.json";
    let journal = serde_json::json!({"state": "empty", "left": null, "set_aside": [{"path": path, "flaw": "damaged"}]});
    assert_eq!(object["journal"], journal);
    for field in ["held", "interrupted", "out_seconds"] {
        assert!(object[field].is_null(), "{field}: {object}");
    }
}

#[test]
fn who_called_without_sudo_is_root_in_the_text_and_in_the_object() {
    let status = Status { lock: locked(true), ..well() };
    assert_eq!(object(&status)["lock"]["holder"]["user"], "root");
    assert!(
        text::lines(&status).iter().any(|line| line.starts_with("lock     held by 'root', process ")),
        "{status:?}"
    );
}

#[test]
fn a_run_whose_systemctl_outlives_it_has_a_word_of_its_own() {
    let status = orphaned(Phase::Restarting);
    let object = object(&status);
    assert_eq!((&object["journal"]["left"]["what"], &object["exit_code"]), (&"orphaned".into(), &5.into()));
    assert_eq!((&object["held"], &object["interrupted"]), (&false.into(), &true.into()));
    assert_eq!(object["lock"]["holder"]["process_is_there"], false);
    assert_eq!(object["way_back"], "safe-service-restart --recover");
    let lines = text::lines(&status);
    assert_eq!(lines[1], "by        'alice', process 812 (gone), run 4f2a of fleet run 9c01");
    assert_eq!(lines[3], "put back  safe-service-restart --recover  # does nothing before the lock is free");
    let pid = std::process::id();
    let lock = format!(
        "lock      held by 'root', process {pid} of safe-service-restart (gone; what it started has the lock), "
    );
    assert!(lines.iter().any(|line| line.starts_with(&lock)), "{lines:?}");
}

#[test]
fn a_record_is_its_hosts_and_no_others() {
    let status = asked_about_another_name(held());
    let object = object(&status);
    assert_eq!((&object["held"], &object["out_seconds"]), (&false.into(), &0.into()));
    assert_eq!(object["journal"]["left"]["host"], "mw1.example");
    let lines = text::lines(&status);
    assert!(!lines.iter().any(|line| line.starts_with("by ") || line.starts_with("because ")), "{lines:?}");
    let journal = "journal   a run took another host, 'mw1.example', out of 'appservers', for php8.2-fpm.service: \
                   it left the host out on purpose; see 'safe-service-restart --status --host mw1.example'";
    assert!(lines.iter().any(|line| line == journal), "{lines:?}");
    // The alarm is this machine's, by whatever name it is asked.
    assert!(samples(&status).contains(&"held 1".to_owned()));
}

#[test]
fn a_dead_run_with_the_lock_held_is_under_way_only_if_the_holder_is_alive() {
    use Phase::{BringingBack, Held, Restarting, TakingOut};
    let table = [
        (Restarting, true, locked(true), What::UnderWay),
        (Restarting, false, Lock::Free, What::Interrupted),
        (Restarting, false, Lock::Unknown, What::Interrupted),
        // Its own systemctl, or one of a recovery that was killed as well.
        (Restarting, false, locked(false), What::Orphaned),
        (BringingBack, false, locked(false), What::Orphaned),
        // Nobody alive has said that it is at work.
        (TakingOut, false, Lock::Held(None), What::Orphaned),
        // A recovery, or the next run, works on the record of the dead one.
        (Restarting, false, locked(true), What::UnderWay),
        // Somebody removed the lock; the run goes on.
        (TakingOut, true, Lock::Free, What::UnderWay),
        (TakingOut, true, Lock::Unknown, What::UnderWay),
        (Held, false, Lock::Free, What::Held),
        (Held, false, locked(true), What::Held),
        (Held, false, locked(false), What::Held),
    ];
    for (phase, is_alive, lock, expected) in table {
        assert_eq!(what(phase, is_alive, &lock), expected, "{phase:?}, {is_alive}, {lock:?}");
    }
}

#[test]
fn the_way_back_is_told_whenever_the_store_says_no_and_nothing_of_ours_is_under_way() {
    let cli = Cli::try_parse_from(["safe-service-restart", "--status", "--dc", "eqiad"]).unwrap();
    let pool = Some("safe-service-restart --pool --pools appservers --dc eqiad");
    let recover = Some("safe-service-restart --recover");
    let inactive = vec![self::pool("a", node(Pooled::Inactive), &[Verdict::Absent])];
    let table = [
        ("well", well(), None),
        ("depooled by an operator", Status { pools: out(), ..well() }, pool),
        ("out of a pool that two HAProxies keep", Status { pools: [out(), out()].concat(), ..well() }, pool),
        ("set aside", Status { pools: out(), set_aside: set_aside(), ..well() }, pool),
        ("damaged", Status { pools: out(), journal: Journal::Unusable("damaged".to_owned()), ..well() }, pool),
        ("a run has the lock", Status { pools: out(), lock: locked(true), ..well() }, None),
        ("not permitted to look", Status { pools: out(), lock: Lock::Unknown, ..well() }, None),
        ("inactive, which --pool leaves so", Status { pools: inactive, ..well() }, None),
        ("held", held(), pool),
        ("held, and in service all the same", in_vain(), None),
        (
            "interrupted",
            Status { journal: left(What::Interrupted, Phase::Restarting), pools: out(), ..well() },
            recover,
        ),
        ("orphaned", orphaned(Phase::Restarting), recover),
        ("under way", Status { journal: left(What::UnderWay, Phase::Restarting), pools: out(), ..well() }, None),
        // It might be taken for the journal's host.
        ("another name's", asked_about_another_name(held()), None),
    ];
    for (name, status, expected) in table {
        assert_eq!(way_back(&cli, &status, None).as_deref(), expected, "{name}");
    }
}

#[test]
fn a_held_host_that_is_in_service_is_told_to_be_taken_out_and_not_to_be_put_back() {
    let cli = Cli::try_parse_from(["safe-service-restart", "--status"]).unwrap();
    assert_eq!(way_out(&cli, &in_vain(), None).as_deref(), Some(WAY_OUT));
    assert_eq!(object(&in_vain())["way_out"], WAY_OUT);
    let lines = text::lines(&in_vain());
    assert!(lines.contains(&format!("take out  {WAY_OUT}")), "{lines:#?}");
    assert!(!lines.iter().any(|line| line.starts_with("put back")), "{lines:#?}");

    let runs = |active| in_vain().units.into_iter().map(|unit| Unit { active, ..unit }).collect();
    let others = [
        ("out", held()),
        ("its unit runs: the recovery closes the journal", Status { units: runs(Some(true)), ..in_vain() }),
        ("systemd could not be asked", Status { units: runs(None), ..in_vain() }),
        ("well", well()),
        ("another name's", asked_about_another_name(in_vain())),
    ];
    for (name, status) in others {
        assert_eq!(way_out(&cli, &status, None), None, "{name}");
    }
}

#[test]
fn words_agree_with_their_numbers() {
    let table = [
        (13, 14, "13 of 14 hosts are pooled"),
        (1, 2, "1 of 2 hosts is pooled"),
        (0, 2, "0 of 2 hosts are pooled"),
        (1, 1, "1 of 1 host is pooled"),
        (0, 1, "0 of 1 host is pooled"),
    ];
    for (pooled_hosts, hosts, expected) in table {
        let store = InStore::Node { pooled: Pooled::No, pooled_hosts, hosts };
        let line = text::lines(&Status { pools: vec![pool("a", store, &[])], ..well() })[1].clone();
        assert_eq!(line, format!("pool     a     'no' in the store; {expected}"));
    }
    let store = InStore::Node { pooled: Pooled::Inactive, pooled_hosts: 3, hosts: 4 };
    let line = text::lines(&Status { pools: vec![pool("a", store, &[])], ..well() })[1].clone();
    assert_eq!(line, "pool     a     'inactive' in the store, which --pool leaves so; 3 of 4 hosts are pooled");
}

#[test]
fn poolcounter_says_how_many_hold_a_slot_and_how_many_wait() {
    let daemon = Daemon { label: "pc1".to_owned(), host: "127.0.0.1".to_owned(), holders: Some(3), waiters: Some(12) };
    let silent = Daemon { label: "pc2".to_owned(), holders: None, waiters: None, ..daemon.clone() };
    let slots = Slots::Poolcounter { file: "/etc/pc.yaml".to_owned(), daemons: vec![daemon, silent] };
    let status = Status { slots, ..well() };
    let lines = text::lines(&status);
    let counts = "slots    poolcounter 'pc1' (127.0.0.1) counts 3 held and 12 waited for, of all its limits together; \
                  it knows no names";
    assert!(lines.iter().any(|line| line == counts), "{lines:?}");
    assert!(lines.iter().any(|line| line == "slots    poolcounter 'pc2' (127.0.0.1) does not answer <--"), "{lines:?}");
    let expected = serde_json::json!({"service": "poolcounter", "file": "/etc/pc.yaml", "daemons": [
        {"label": "pc1", "host": "127.0.0.1", "holders": 3, "waiters": 12},
        {"label": "pc2", "host": "127.0.0.1", "holders": null, "waiters": null},
    ]});
    assert_eq!(object(&status)["slots"], expected);
}

#[test]
fn each_state_raises_its_own_figures() {
    let with = |what, phase| Status { journal: left(what, phase), pools: out(), ..well() };
    let table = [
        ("well", well(), "held 0, interrupted 0, under_way 0, out_seconds 0, journal_problem 0, journal_readable 1"),
        (
            "depooled by an operator",
            Status { pools: out(), ..well() },
            "held 0, interrupted 0, under_way 0, out_seconds 0, journal_problem 0, journal_readable 1",
        ),
        ("held", held(), "held 1, interrupted 0, under_way 0, out_seconds 7383, journal_problem 0, journal_readable 1"),
        (
            "under way",
            with(What::UnderWay, Phase::Restarting),
            "held 0, interrupted 0, under_way 1, out_seconds 7383, journal_problem 0, journal_readable 1",
        ),
        (
            "interrupted",
            with(What::Interrupted, Phase::Restarting),
            "held 0, interrupted 1, under_way 0, out_seconds 7383, journal_problem 0, journal_readable 1",
        ),
        (
            "orphaned",
            orphaned(Phase::Restarting),
            "held 0, interrupted 1, under_way 0, out_seconds 7383, journal_problem 0, journal_readable 1",
        ),
        (
            "another name's, interrupted",
            asked_about_another_name(with(What::Interrupted, Phase::Restarting)),
            "held 0, interrupted 1, under_way 0, out_seconds 7383, journal_problem 0, journal_readable 1",
        ),
        (
            "set aside: what it may have told is not known",
            Status { pools: out(), set_aside: set_aside(), ..well() },
            "under_way 0, journal_problem 1, journal_readable 1",
        ),
        (
            "set aside, and a later run is held",
            Status { set_aside: set_aside(), ..held() },
            "held 1, interrupted 0, under_way 0, out_seconds 7383, journal_problem 1, journal_readable 1",
        ),
        (
            "damaged",
            Status { journal: Journal::Unusable("damaged".to_owned()), ..well() },
            "journal_problem 1, journal_readable 1",
        ),
        ("not permitted", Status { journal: Journal::Unknown, ..well() }, "journal_readable 0"),
    ];
    for (name, status, expected) in table {
        let of_the_journal = |line: &&String| {
            ["held", "interrupted", "under_way", "out_", "journal_"].iter().any(|begin| line.starts_with(begin))
        };
        let samples = samples(&status);
        let found: Vec<&str> = samples.iter().filter(of_the_journal).map(String::as_str).collect();
        assert_eq!(found.join(", "), expected, "{name}");
    }
}

/// The samples, without the lines about them.
fn samples(status: &Status) -> Vec<String> {
    let text = metrics::figures(status);
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    lines.map(|line| line.strip_prefix("safe_service_restart_").unwrap().to_owned()).collect()
}

#[test]
fn a_held_host_as_figures() {
    let expected = [
        "held 1",
        "interrupted 0",
        "under_way 0",
        "out_seconds 7383",
        "journal_problem 0",
        "journal_readable 1",
        "pooled{pool=\"appservers\"} 0",
        "load_balancer_pooled{pool=\"appservers\",load_balancer=\"lvs1.example\"} 0",
        "load_balancer_pooled{pool=\"appservers\",load_balancer=\"lvs2.example\"} 0",
        "unit_active{unit=\"php8.2-fpm.service\"} 0",
        "store_up 1",
        "status_timestamp 1795454175",
    ];
    assert_eq!(samples(&held()), expected);
    let begin = "# HELP safe_service_restart_held Whether the host is held out of its pools because a unit does not run.\n\
                 # TYPE safe_service_restart_held gauge\nsafe_service_restart_held 1\n";
    assert!(metrics::figures(&held()).starts_with(begin));
}

#[test]
fn what_is_not_known_has_no_sample() {
    let dark = Status {
        time: NOW,
        store: Store::Down,
        pools: vec![pool("web", InStore::Unknown, &[unknown()])],
        ..Status::default()
    };
    assert_eq!(samples(&dark), ["journal_readable 0", "store_up 0", "status_timestamp 1795454175"]);
    let damaged = Status { journal: Journal::Unusable("damaged".to_owned()), ..Status::default() };
    assert_eq!(samples(&damaged), ["journal_problem 1", "journal_readable 1", "status_timestamp 0"]);
}

#[test]
fn a_label_cannot_end_its_quotes() {
    assert_eq!(metrics::escaped("a\"b\\c\nd"), "a\\\"b\\\\c\\nd");
}
