//! What an answer means, and how it is told.

use std::time::Duration;

use restart_core::{PoolPath, Tag};
use serde_json::{Value, json};

use super::*;
use crate::answer::End;
use crate::process::Finished;

const ALLOWED: Duration = Duration::from_secs(60);

fn left(what: &str) -> Value {
    json!({
        "what": what, "host": "mw1.test", "run": "4f2a", "fleet_run": "9c01", "pid": 7, "process_is_there": false, "since": "2026-11-23T10:00:00Z",
        "out_seconds": 9, "user": "alice", "reason": "T123", "phase": "restarting", "pools": ["app"], "units": ["php"]
    })
}

fn status(exit_code: u8, journal: &Value, lock: &Value) -> Value {
    json!({
        "tool": "safe-service-restart", "exit_code": exit_code, "state": "mw1.test is OUT OF SERVICE", "host": "mw1.test",
        "journal": journal, "lock": lock,
        "pools": [
            {"pool": "app", "node": "dc/c/php/mw1.test", "store": {"state": "node", "pooled": "no", "hosts": 2}},
            {"pool": "app-tls", "node": "dc/c/php/mw1.test", "store": {"state": "node", "pooled": "no", "hosts": 2}},
            {"pool": "gone", "node": "dc/c/old/mw1.test", "store": {"state": "absent"}},
        ],
    })
}

fn finished(code: u8, stdout: &str, stderr: &str) -> Finished {
    Finished { end: End::Code(code), stdout: stdout.into(), stderr: stderr.into() }
}

fn account(status: &Value) -> Account {
    Account::read(&finished(0, &format!("Welcome!\n{status}\n"), "noise"), ALLOWED).unwrap()
}

fn journal(what: &str) -> Value {
    json!({"state": "left", "left": left(what), "set_aside": []})
}

fn empty() -> Value {
    json!({"state": "empty", "left": null, "set_aside": []})
}

fn free() -> Value {
    json!({"state": "free"})
}

fn subject(host: &str, entries: &[(&str, Pooled)], answer: Answer) -> Subject {
    let entry = |(service, pooled): &(&str, Pooled)| Entry { service: Tag::new(*service).unwrap(), pooled: *pooled };
    Subject { answer, ..Subject::new(Fqdn::new(host).unwrap(), entries.iter().map(entry).collect()) }
}

fn told(status: &Value) -> Answer {
    Answer::Account(Box::new(account(status)))
}

fn findings(subjects: Vec<Subject>) -> Findings {
    Findings { hosts: 9, subjects, ..Findings::default() }
}

#[test]
fn each_word_of_a_journal_is_a_state_with_who_why_and_since_when() {
    for (what, state) in [
        ("held", State::Held),
        ("under-way", State::UnderWay),
        ("interrupted", State::Interrupted),
        ("orphaned", State::Orphaned),
    ] {
        let account = account(&status(3, &journal(what), &free()));
        assert_eq!((account.state, account.exit_code), (state, ExitCode::LeftDepooled));
        let run = account.run;
        assert_eq!((run.user.as_deref(), run.reason.as_deref()), (Some("alice"), Some("T123")), "{what}");
        assert_eq!((run.since.as_deref(), run.run.as_deref()), (Some("2026-11-23T10:00:00Z"), Some("4f2a")));
        assert_eq!(run.fleet_run.as_deref(), Some("9c01"));
    }
    assert_eq!(account(&status(0, &journal("a later word"), &free())).state, State::Unclear);
}

#[test]
fn a_lock_without_a_journal_is_a_run_that_has_not_taken_the_host_out_yet() {
    let holder = json!({"pid": 7, "since": "2026-11-23T10:00:00Z", "tool": "safe-service-restart", "user": "bob"});
    let account = account(&status(0, &empty(), &json!({"state": "held", "holder": holder})));
    assert_eq!((account.state, account.run.user.as_deref()), (State::UnderWay, Some("bob")));
}

#[test]
fn what_a_host_does_not_know_is_not_taken_for_nothing() {
    assert_eq!(account(&status(0, &empty(), &free())).state, State::NotOurs);
    let aside = json!([{"path": "/x", "flaw": "damaged"}]);
    for journal in [
        json!({"state": "unknown", "left": null, "set_aside": []}),
        json!({"state": "unusable", "why": "x", "left": null, "set_aside": []}),
        json!({"state": "empty", "left": null, "set_aside": aside}),
    ] {
        assert_eq!(account(&status(1, &journal, &free())).state, State::Unclear, "{journal}");
    }
    let mut other = status(1, &journal("held"), &free());
    other["host"] = json!("mw2.test");
    let account = account(&other);
    assert_eq!(
        (account.state, account.headline.as_str()),
        (State::Unclear, "what a run left there is about 'mw1.test'")
    );
}

#[test]
fn what_is_no_status_is_no_answer_and_says_why() {
    let refusal = r#"{"exit_code":2,"tool":"restart-php-fpm","state":"nothing was changed","failures":["unknown field `status`"]}"#;
    let whole = status(0, &empty(), &free()).to_string();
    for (code, stdout, stderr, why) in [
        (2, refusal, "", "unknown field `status`"),
        (255, "", "ssh: connect to host mw1: No route to host\r\n", "ssh: connect to host mw1: No route to host"),
        (255, "", "@@@@\nHost key verification failed.\n", "Host key verification failed."),
        (1, "", "sudo: a password is required\n", "ended with 1 and no status: sudo: a password is required"),
        (0, &whole[..90], "", "ended with 0 and no status: it said nothing"),
        (0, "{}", "", "ended with 0 and no status: it said nothing"),
        (127, "", "sudo: \u{1b}[2J", "ended with 127 and no status: sudo: \\u{1b}[2J"),
    ] {
        assert_eq!(Account::read(&finished(code, stdout, stderr), ALLOWED).unwrap_err(), why);
    }
    let end = |end| Account::read(&Finished { end, ..finished(0, &whole, "") }, ALLOWED).unwrap_err();
    assert_eq!(end(End::TimeOver), "no answer within 60s");
    assert_eq!(end(End::Signal(9)), "the program that reaches it was ended by signal 9");
}

#[test]
fn a_host_of_a_list_says_itself_how_the_store_has_it() {
    let entries = account(&status(3, &journal("held"), &free())).entries();
    assert_eq!(entries, [Entry { service: Tag::new("php").unwrap(), pooled: Pooled::No }]);
}

#[test]
fn the_exit_code_is_that_of_the_worst_host() {
    let no = [("php", Pooled::No)];
    let host = |code, journal: &Value| subject("mw1.test", &no, told(&status(code, journal, &free())));
    let silent = || subject("mw1.test", &no, Answer::None("why".to_owned()));
    for (subjects, code) in [
        (vec![], ExitCode::Done),
        (vec![host(0, &empty()), host(0, &journal("under-way"))], ExitCode::Done),
        (vec![host(0, &empty()), host(1, &empty())], ExitCode::Failed),
        (vec![host(2, &empty())], ExitCode::Failed),
        (vec![host(1, &empty()), silent()], ExitCode::Unreachable),
        (vec![silent(), host(5, &journal("interrupted"))], ExitCode::PutBackUnconfirmed),
        (vec![host(4, &journal("interrupted")), host(5, &journal("interrupted"))], ExitCode::RepoolUnconfirmed),
        (vec![host(5, &journal("interrupted")), host(3, &journal("held")), silent()], ExitCode::LeftDepooled),
    ] {
        assert_eq!(findings(subjects).exit_code(), code);
    }
    let unreadable = vec![Unreadable { host: "mw1.test".to_owned(), why: "x".to_owned() }];
    assert_eq!(Findings { unreadable, ..findings(vec![]) }.exit_code(), ExitCode::Failed);
}

#[test]
fn of_a_host_that_was_put_away_nobody_expects_an_answer_but_what_a_run_left_counts() {
    let inactive = [("php", Pooled::Inactive), ("tls", Pooled::Inactive)];
    let of = |entries: &[_], answer| findings(vec![subject("mw1.test", entries, answer)]).exit_code();
    assert_eq!(of(&inactive, Answer::None("no route".to_owned())), ExitCode::Done);
    assert_eq!(of(&inactive, told(&status(69, &empty(), &free()))), ExitCode::Done);
    assert_eq!(of(&inactive, told(&status(3, &journal("held"), &free()))), ExitCode::LeftDepooled);
    let partly = [("php", Pooled::Inactive), ("tls", Pooled::No)];
    assert_eq!(of(&partly, Answer::None("no route".to_owned())), ExitCode::Unreachable);
}

#[test]
fn services_of_one_host_are_one_line_and_one_that_is_pooled_everywhere_is_none() {
    let node = |service: &str, host: &str, pooled| {
        let tag = |text: &str| Tag::new(text).unwrap();
        let path = PoolPath { data_centre: tag("dc"), cluster: tag("c"), service: tag(service) };
        Node { id: path.node(&Fqdn::new(host).unwrap()), pooled, value: String::new(), revision: 1 }
    };
    let subjects = by_host(&[
        node("nginx", "mw2.test", Pooled::Yes),
        node("nginx", "mw1.test", Pooled::Yes),
        node("php", "mw2.test", Pooled::No),
    ]);
    let seen: Vec<_> = subjects.iter().map(|one| (one.host.as_str(), one.entries.len(), one.is_out())).collect();
    assert_eq!(seen, [("mw1.test", 1, false), ("mw2.test", 2, true)]);
}

#[test]
fn a_line_tells_who_why_and_since_when_and_nothing_of_a_host_can_forge_one() {
    let no = [("nginx", Pooled::Yes), ("php", Pooled::No)];
    let held = say::row(&subject("mw1.test", &no, told(&status(3, &journal("held"), &free()))));
    assert_eq!(held.join("|"), "mw1.test|nginx=yes,php=no|held|2026-11-23T10:00:00Z|alice|9c01|T123");
    let at_it = say::row(&subject("mw1.test", &no, told(&status(0, &journal("under-way"), &free()))));
    assert_eq!(at_it[2], "under-way/restarting");
    let other = say::row(&subject("mw1.test", &no, told(&status(0, &empty(), &free()))));
    assert_eq!(other[2..].join("|"), "not-ours|-|-|-|-");
    let silent = say::row(&subject("mw1.test", &no, Answer::None("no route".to_owned())));
    assert_eq!(silent[2..].join("|"), "no-answer|-|-|-|no route");
    let mut evil = status(3, &journal("held"), &free());
    evil["journal"]["left"]["reason"] = json!("x\nmw9.test  held \u{1b}[2J");
    let row = say::row(&subject("mw1.test", &no, told(&evil)));
    assert_eq!(row[6], "x\\nmw9.test  held \\u{1b}[2J");
}

#[test]
fn the_last_line_is_the_sums() {
    let no = [("php", Pooled::No)];
    let held = subject("mw1.test", &no, told(&status(3, &journal("held"), &free())));
    let silent = subject("mw2.test", &no, Answer::None("why".to_owned()));
    assert_eq!(say::sums(&findings(vec![held, silent])), "2 of 9 hosts are listed: 1 held, 1 no-answer");
    assert_eq!(say::sums(&findings(vec![])), "every one of 9 hosts is pooled");
}
