//! What answers of HAProxy mean. The files in `recorded` are what HAProxy 2.6.12 sent, byte for byte.

use super::*;

const STATE: &[u8] = include_bytes!("recorded/state");
const DRAINED: &[u8] = include_bytes!("recorded/drained");
const DRAINED_WITH_A_SESSION: &[u8] = include_bytes!("recorded/drained-with-a-session");
const DOWN_AND_DRAINED: &[u8] = include_bytes!("recorded/down-and-drained");
/// A server whose health check was answered with `503 a, "b" c`.
const QUOTED: &[u8] = include_bytes!("recorded/quoted");

fn state(server: &str) -> State {
    table::state(STATE, "web", server).unwrap().0.unwrap_or_else(|| panic!("no '{server}'"))
}

/// The verdict of an answer to both commands.
fn judge(answer: &[u8], server: &str) -> Result<Verdict, String> {
    let (state, rest) = table::state(answer, "web", server)?;
    verdict(&state.expect("it is there"), Some(table::sessions(rest, "web", server)?))
}

fn replaced(answer: &[u8], from: &str, to: &str) -> Vec<u8> {
    let text = std::str::from_utf8(answer).unwrap();
    assert!(text.contains(from), "'{from}' is not in the recording");
    text.replacen(from, to, 1).into_bytes()
}

#[test]
fn every_state_that_was_recorded() {
    let table = [
        ("ready", Standing::In),
        ("up", Standing::In),
        ("tracker", Standing::In),
        ("backup", Standing::In),
        ("same.dots.example", Standing::In),
        // `disabled` in the configuration, and made ready over the socket: 0x04 stays.
        ("cfgmaint", Standing::In),
        ("drain", Standing::Out),
        ("maint", Standing::Out),
        // Drained, and DOWN by its health check: the order counts.
        ("downdrain", Standing::Out),
        ("trackeddrain", Standing::Out),
        ("trackdrain", Standing::Out),
        // Drained by its agent.
        ("agentx", Standing::Out),
        ("down", Standing::Down),
        ("weight0", Standing::Down),
        // Its name does not resolve.
        ("bydns", Standing::Down),
    ];
    for (server, expected) in table {
        assert_eq!(standing(&state(server)), Ok(expected), "{server}");
    }
    assert_eq!(state("maint").administrative, 1);
    assert_eq!((state("drain").backend_id, state("drain").server_id), (3, 2));
}

#[test]
fn every_state_that_the_guide_knows() {
    let of = |operational, administrative, weight| {
        standing(&State { backend_id: 1, server_id: 1, operational, administrative, weight })
    };
    // Its configuration said `disabled` (5 is that and forced).
    assert_eq!(of(0, 0x05, 1), Ok(Standing::Out));
    assert_eq!(of(0, 0x02, 1), Ok(Standing::Out));
    assert_eq!(of(0, 0x21, 1), Ok(Standing::Out));
    assert_eq!(of(2, 0x48, 0), Ok(Standing::Out));
    // Warming up.
    assert_eq!(of(1, 0, 1), Ok(Standing::In));
    assert_eq!(of(2, 0x40, 1), Ok(Standing::In));
    // Soft-stopped by its health check.
    assert_eq!(of(3, 0, 1), Ok(Standing::Down));
    assert_eq!(of(2, 0x20, 1), Ok(Standing::Down));
    assert_eq!(of(2, 0x80, 1), Err("its administrative state is none that is known here".to_owned()));
    assert_eq!(of(0, 0x81, 1), Err("its administrative state is none that is known here".to_owned()));
    assert_eq!(of(4, 0, 1), Err("its operational state is none that is known here".to_owned()));
    assert_eq!(of(4, 1, 1), Err("its operational state is none that is known here".to_owned()));
}

#[test]
fn not_pooled_is_an_order_without_a_session() {
    assert_eq!(judge(DRAINED, "ready"), Ok(Verdict::NotPooled));
    assert_eq!(judge(DOWN_AND_DRAINED, "downdrain"), Ok(Verdict::NotPooled));
    assert_eq!(judge(QUOTED, "q"), Ok(Verdict::NotPooled));
    let one = Verdict::Draining("1 session is still open".to_owned());
    assert_eq!(judge(DRAINED_WITH_A_SESSION, "ready"), Ok(one));
    // In the queue: a server with maxconn, where a request with its cookie waits.
    let queued = replaced(DRAINED, "web,ready,0,", "web,ready,3,");
    let waiting = Verdict::Draining("3 requests wait for it in the queue".to_owned());
    assert_eq!(judge(&queued, "ready"), Ok(waiting));
    assert_eq!(left(2, 1), "2 sessions are still open, and 1 request waits for it in the queue");
    let drained = State { operational: 2, administrative: 8, weight: 1, backend_id: 1, server_id: 1 };
    assert_eq!(verdict(&drained, None), Err("it does not say how many sessions are open".to_owned()));
}

#[test]
fn columns_are_found_by_their_names() {
    let text = "1\n# new srv_name srv_uweight be_id srv_id be_name srv_op_state srv_admin_state\n\
                # a comment\n7 mw1 1 3 4 web 2 8\n\n\
                # scur,new,svname,qcur,pxname\n0,9,mw1,0,web\n\n";
    assert_eq!(judge(text.as_bytes(), "mw1"), Ok(Verdict::NotPooled));
}

#[test]
fn a_server_is_found_by_its_whole_name_in_its_own_backend() {
    for server in ["read", "ready ", "", "READY", "same.dots", "web"] {
        assert_eq!(table::state(STATE, "web", server).unwrap().0, None, "'{server}'");
    }
    assert_eq!(table::state(STATE, "we", "ready").unwrap().0, None);
}

#[test]
fn what_is_no_table_of_servers_is_an_error_in_a_few_words() {
    let not_whole = "a row of its table is not as long as the header";
    let nothing = "its answer is not one of HAProxy's runtime API";
    let twice = "it has the server 'ready' twice in the backend 'web'";
    let text = std::str::from_utf8(STATE).unwrap();
    let row = text.lines().find(|line| line.contains(" ready ")).unwrap();
    let table: Vec<(Vec<u8>, &str)> = vec![
        (
            b"Can't find backend.\n\n".to_vec(),
            "it has no backend 'web' (the pool's key 'backend', by default its name)",
        ),
        (b"Permission denied\n\n".to_vec(), "it does not permit to be asked"),
        (b"Unknown command: 'show servers'\n".to_vec(), "it does not know 'show servers state'"),
        (b"2\n# be_id\n\n".to_vec(), "its table of servers is of format 2, and known is 1"),
        (b"\n".to_vec(), nothing),
        (b"\x1b[2J\n\n".to_vec(), nothing),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec(), nothing),
        (b"\xff\xfe\n\n".to_vec(), "its answer is not text"),
        (b"1\n\n".to_vec(), "its table of servers has no header"),
        (b"1\n3 web 1 ready\n\n".to_vec(), "its table of servers has no header"),
        (b"1\n# be_id be_name\n3 web\n\n".to_vec(), "its table has no column 'srv_name'"),
        (STATE[..STATE.len() - 1].to_vec(), "its answer is cut short"),
        (STATE[..STATE.len() / 2].to_vec(), "its answer is cut short"),
        (
            replaced(STATE, "web 1 ready 127.0.0.1 2 0", "web 1 ready 127.0.0.1 2 -1"),
            "its 'srv_admin_state' is not a number",
        ),
        (
            replaced(STATE, "web 1 ready 127.0.0.1 2 0", "web 1 ready 127.0.0.1 UP 0"),
            "its 'srv_op_state' is not a number",
        ),
        (replaced(STATE, "web 1 ready 127.0.0.1 2 0", "web 1 ready 127.0.0.1 2"), not_whole),
        (replaced(STATE, "srv_admin_state", "srv_admin"), "its table has no column 'srv_admin_state'"),
        (replaced(STATE, row, &format!("{row}\n{row}")), twice),
    ];
    for (answer, why) in table {
        let error = table::state(&answer, "web", "ready").unwrap_err();
        assert_eq!(error, why, "{}", String::from_utf8_lossy(&answer));
    }
}

#[test]
fn what_are_no_statistics_of_this_server_is_an_error_in_a_few_words() {
    let (_, rest) = table::state(DRAINED, "web", "ready").unwrap();
    let row = rest.lines().nth(1).unwrap();
    let header = rest.lines().next().unwrap();
    let table = [
        (String::new(), "its statistics have no header"),
        ("No such proxy.\n\n".to_owned(), "its statistics have no header"),
        (format!("{header}\n\n"), "its statistics do not have the server"),
        (rest.replace("web,ready", "web,other"), "its statistics are of another server"),
        (rest.replace("web,ready", "other,ready"), "its statistics are of another server"),
        (rest.replace(row, &format!("{row}\n{row}")), "its statistics have the server twice"),
        (rest.replace("web,ready,0,0,0", "web,ready,0,0,"), "its 'scur' is not a number"),
        (rest.replace("web,ready,0,0,0", "web,ready,,0,0"), "its 'qcur' is not a number"),
        (rest.replace("web,ready,0,0,0", "web,ready,0,0,-1"), "its 'scur' is not a number"),
        (rest.replace("web,ready,0,0,0", "web,ready,0,0"), "a row of its table is not as long as the header"),
        (rest.replace("web,ready,0", "web,\"ready,0"), "its answer is cut short"),
        (rest.replace("scur", "now"), "its table has no column 'scur'"),
        (rest.trim_end().to_owned(), "its answer is cut short"),
        (format!("{}\n", rest.trim_end()), "its answer is cut short"),
        (format!("{rest}more\n"), "something follows its statistics"),
    ];
    for (answer, why) in table {
        assert_eq!(table::sessions(&answer, "web", "ready").unwrap_err(), why, "{answer}");
    }
}

#[test]
fn a_health_check_cannot_write_rows_of_its_own() {
    let forged = "# pxname,svname,qcur,scur,last_chk\nweb,mw1,0,2,\"x\"\"\n\nweb,mw1,0,0,\"\n\n";
    assert_eq!(table::sessions(forged, "web", "mw1").map(|sessions| sessions.open), Ok(2));
}
