//! What a status means, and how it is put into words, JSON and figures: tables, no host.

use restart_core::{Balancer, ExitCode, Failure, Fqdn, Phase, PoolName, Pooled, Tag, UnitName, Verdict};

use super::collect::elapsed;
use super::{
    Asked, InService, InStore, Journal, Left, Limit, Lock, Pool, Problem, Slots, Status, Store, Unit, What, json,
    metrics, text,
};

/// 2026-11-23T17:16:15Z.
const NOW: u64 = 1_795_454_175;

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
        run: "4f2a".to_owned(),
        pid: 812,
        process_is_there: what == What::UnderWay,
        since: "2026-11-23T15:13:12Z".to_owned(),
        out_seconds: Some(7383),
        user: Some("alice".to_owned()),
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

fn problem(part: &'static str, code: ExitCode) -> Problem {
    Problem::new(part, Failure::new(code, "it is away"))
}

#[test]
fn who_is_sent_to_is_in_service() {
    use Verdict::{Absent, Down, Held, NotPooled, Pooled as Sends};
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
    let table = [
        ("well", well(), 0),
        ("depooled by an operator", Status { pools: out(), ..well() }, 0),
        ("held", held(), 3),
        ("held, and the store away", Status { problems: vec![problem("store", ExitCode::Unreachable)], ..held() }, 3),
        ("interrupted before the restart", interrupted(Phase::TakingOut), 5),
        ("interrupted in the restart", interrupted(Phase::Restarting), 5),
        ("interrupted after it", interrupted(Phase::BringingBack), 4),
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
        ("set aside", Status { set_aside: vec!["one".to_owned()], ..well() }, 1),
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
    let with = |what, pools| Status { journal: left(what, Phase::Restarting), pools, ..well() };
    let table = [
        (well(), "IN SERVICE".to_owned()),
        (held(), format!("OUT OF SERVICE: held by us {since}, on purpose")),
        (with(What::Interrupted, out()), format!("OUT OF SERVICE: taken out {since} by a run of ours that died")),
        (with(What::UnderWay, out()), format!("OUT OF SERVICE: a run of ours has it {since}")),
        (with(What::UnderWay, well().pools), format!("IN SERVICE; a run of ours is under way {since}")),
        (
            Status { pools: well().pools, ..held() },
            format!("IN SERVICE, though a run of ours took it out {since} and did not put it back"),
        ),
        (Status { pools: out(), ..well() }, "OUT OF SERVICE, and not because of us".to_owned()),
        (
            Status { pools: out(), journal: Journal::Unknown, ..well() },
            "OUT OF SERVICE; whether because of us is not known".to_owned(),
        ),
        (Status { store: Store::Down, ..well() }, "IN SERVICE, as far as could be seen".to_owned()),
        (Status { store: Store::Down, pools: vec![], ..well() }, "NOT KNOWN to be in service".to_owned()),
        (Status { pools: vec![], ..well() }, "in no pool".to_owned()),
    ];
    for (status, expected) in table {
        assert_eq!(text::lines(&status)[0], format!("mw1.example is {expected}"));
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
    status.set_aside = vec!["a journal that is damaged was set aside as 'x'".to_owned()];
    status.problems = vec![problem("lock", ExitCode::Failed)];
    status.notes = vec!["pool 'broken' has no 'port'".to_owned()];
    let expected = "\
mw1.example is PARTLY IN SERVICE, as far as could be seen: held by us since 2026-11-23T15:13:12Z (2h 3m), on purpose
by        'alice', process 812, run 4f2a
because   T123
put back  safe-service-restart --pool --pools appservers
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
journal   a journal that is damaged was set aside as 'x'
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
    status.lock = Lock::Held(Some(holder));
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
        "tool": "safe-service-restart", "version": env!("CARGO_PKG_VERSION"), "exit_code": 3, "time": NOW,
        "host": "mw1.example", "data_centre": "eqiad", "in_service": "no", "uncertain": false,
        "held": true, "interrupted": false, "out_seconds": 7383,
        "way_back": "safe-service-restart --pool --pools appservers",
        "journal": {"state": "left", "left": {
            "what": "held", "run": "4f2a", "pid": 812, "process_is_there": false, "since": "2026-11-23T15:13:12Z",
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
