//! PyBal 1.15's instrumentation: `GET /pools/POOL_PORT/FQDN` on port 9090 gives the state of one server in one pool. What
//! each answer means is decided in [`verdict`], a pure function; anything that PyBal is not known to say is unknown.

use std::net::Ipv6Addr;
use std::time::Duration;

use restart_core::{Balancer, Question, Verdict};
use serde_json::{Map, Value};

use crate::Technology;
use crate::http;

/// Where PyBal's instrumentation listens unless the catalog says otherwise.
const PORT: u16 = 9090;

/// PyBal, asked over HTTP.
#[derive(Debug, Clone, Copy, Default)]
pub struct PyBal;

impl Technology for PyBal {
    fn ask(&self, question: &Question, at_most: Duration) -> Verdict {
        let url = match url(question) {
            Ok(url) => url,
            Err(why) => return Verdict::Unknown(why),
        };
        let verdict =
            http::get(&url, at_most).map_or_else(Verdict::Unknown, |answer| verdict(answer.status, &answer.body));
        match verdict {
            // With all that it takes to ask again by hand.
            Verdict::Unknown(why) => Verdict::Unknown(format!("{url}: {why}")),
            known => known,
        }
    }
}

/// The address of a server's state. Pool and host are names that need no escaping; the load balancer is the catalog's text.
fn url(question: &Question) -> Result<String, String> {
    let Question { balancer: Balancer { host: balancer, port }, pool, port: pool_port, host, .. } = question;
    let is_name = !balancer.is_empty() && balancer.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c));
    let authority = match balancer.parse::<Ipv6Addr>() {
        Ok(address) => format!("[{address}]"),
        Err(_) if is_name => balancer.clone(),
        Err(_) => return Err("its name is neither a host name nor an address".to_owned()),
    };
    Ok(format!("http://{authority}:{}/pools/{pool}_{pool_port}/{host}", port.unwrap_or(PORT)))
}

/// What an answer of PyBal says of the server. Whether its last health check was good (`up`) does not matter: a server that is
/// enabled and pooled is sent traffic also when it is down, and one that is disabled and not pooled is sent none.
fn verdict(status: u16, body: &[u8]) -> Verdict {
    match status {
        200 => state(body).unwrap_or_else(|why| Verdict::Unknown(why.to_owned())),
        404 => Verdict::Absent,
        other => Verdict::Unknown(format!("it answers with HTTP status {other}")),
    }
}

fn state(body: &[u8]) -> Result<Verdict, &'static str> {
    let state: Map<String, Value> = match serde_json::from_slice(body) {
        Ok(Value::Object(state)) => state,
        Ok(_) => return Err("its JSON is not the state of a server"),
        Err(_) => return Err("its answer is not JSON"),
    };
    let enabled = match state.get("enabled") {
        Some(Value::Bool(enabled)) => *enabled,
        Some(_) => return Err("its 'enabled' is neither true nor false"),
        None => return Err("it does not say whether the server is enabled"),
    };
    let pooled = match state.get("pooled") {
        Some(Value::Bool(pooled)) => Some(*pooled),
        Some(Value::Null) => None,
        Some(_) => return Err("its 'pooled' is none of true, false and null"),
        None => return Err("it does not say whether the server is pooled"),
    };
    match (enabled, pooled) {
        (true, Some(true)) => Ok(Verdict::Pooled),
        (true, Some(false) | None) => Ok(Verdict::Down),
        (false, Some(true)) => Ok(Verdict::Held),
        (false, Some(false)) => Ok(Verdict::NotPooled),
        (false, None) => Err("it has disabled the server, but does not say whether it is still pooled"),
    }
}

#[cfg(test)]
mod tests {
    use restart_core::{Fqdn, PoolName, Protocol};

    use super::*;

    fn unknown(why: &str) -> Verdict {
        Verdict::Unknown(why.to_owned())
    }

    fn question(host: &str, port: Option<u16>) -> Question {
        Question {
            balancer: Balancer { host: host.to_owned(), port },
            pool: PoolName::new("appservers-https").unwrap(),
            port: 443,
            host: Fqdn::new("mw1001.eqiad.wmnet").unwrap(),
            protocol: Protocol::PyBal,
        }
    }

    #[test]
    fn every_answer_that_pybal_gives() {
        // PyBal 1.15.3, as measured.
        let table = [
            (200, r#"{"pooled": true, "enabled": true, "up": true, "weight": 10}"#, Verdict::Pooled),
            (200, r#"{"pooled": false, "enabled": false, "up": true, "weight": 10}"#, Verdict::NotPooled),
            (200, r#"{"pooled": false, "enabled": true, "up": false, "weight": 10}"#, Verdict::Down),
            (200, r#"{"pooled": true, "enabled": true, "up": false, "weight": 10}"#, Verdict::Pooled),
            (200, r#"{"pooled": null, "enabled": true, "up": null, "weight": 0}"#, Verdict::Down),
            (404, r#"{"error": "The desired url was not found"}"#, Verdict::Absent),
            (404, "The desired url was not found", Verdict::Absent),
            // Disabled, down, and kept by the depool threshold.
            (200, r#"{"pooled": true, "enabled": false, "up": false, "weight": 10}"#, Verdict::Held),
            (200, r#"{"pooled": false, "enabled": false, "up": false, "weight": 10}"#, Verdict::NotPooled),
            (200, r#"{"pooled": false, "enabled": false, "up": null, "weight": 0}"#, Verdict::NotPooled),
        ];
        for (status, body, expected) in table {
            assert_eq!(verdict(status, body.as_bytes()), expected, "{status} {body}");
        }
    }

    #[test]
    fn whatever_else_is_answered_is_unknown() {
        let not_json = "its answer is not JSON";
        let no_state = "its JSON is not the state of a server";
        let table = [
            (200, "disabled/up/not pooled", not_json),
            (200, "enabled/up/pooled", not_json),
            (200, "", not_json),
            (200, "<html>", not_json),
            (200, r#"{"pooled": false, "enabled": fal"#, not_json),
            (200, r#"{"pooled": false, "enabled": false} trailing"#, not_json),
            (200, "[false, false]", no_state),
            (200, "null", no_state),
            (200, "false", no_state),
            (200, "{}", "it does not say whether the server is enabled"),
            (200, r#"{"error": "x"}"#, "it does not say whether the server is enabled"),
            (200, r#"{"pooled": false}"#, "it does not say whether the server is enabled"),
            (200, r#"{"enabled": false}"#, "it does not say whether the server is pooled"),
            (200, r#"{"pooled": false, "enabled": null}"#, "its 'enabled' is neither true nor false"),
            (200, r#"{"pooled": false, "enabled": "false"}"#, "its 'enabled' is neither true nor false"),
            (200, r#"{"pooled": "no", "enabled": false}"#, "its 'pooled' is none of true, false and null"),
            (200, r#"{"pooled": 0, "enabled": false}"#, "its 'pooled' is none of true, false and null"),
            (
                200,
                r#"{"pooled": null, "enabled": false, "up": null, "weight": 0}"#,
                "it has disabled the server, but does not say whether it is still pooled",
            ),
            (204, "", "it answers with HTTP status 204"),
            (302, "", "it answers with HTTP status 302"),
            (403, "", "it answers with HTTP status 403"),
            (500, r#"{"pooled": false, "enabled": false}"#, "it answers with HTTP status 500"),
            (503, "", "it answers with HTTP status 503"),
        ];
        for (status, body, why) in table {
            assert_eq!(verdict(status, body.as_bytes()), unknown(why), "{status} {body}");
        }
        assert_eq!(verdict(200, b"\xff\xfe\0"), unknown(not_json));
        assert_eq!(verdict(200, "[".repeat(60_000).as_bytes()), unknown(not_json));
    }

    #[test]
    fn the_address_has_the_pool_its_port_and_the_host() {
        let path = "/pools/appservers-https_443/mw1001.eqiad.wmnet";
        let table = [
            ("lvs1013", None, "http://lvs1013:9090"),
            ("lvs1013.eqiad.wmnet", Some(9191), "http://lvs1013.eqiad.wmnet:9191"),
            ("10.64.1.13", None, "http://10.64.1.13:9090"),
            ("::1", Some(1), "http://[::1]:1"),
            ("2620:0:861:101::13", None, "http://[2620:0:861:101::13]:9090"),
        ];
        for (balancer, port, expected) in table {
            assert_eq!(url(&question(balancer, port)), Ok(format!("{expected}{path}")));
        }
    }

    #[test]
    fn a_balancer_that_is_no_host_is_not_asked() {
        for balancer in ["", "a b", "x/y", "user@lvs", "[::1]", "fe80::1%eth0", "lvs:9090", "lvs#", "lvs?"] {
            let expected = unknown("its name is neither a host name nor an address");
            assert_eq!(PyBal.ask(&question(balancer, None), Duration::from_secs(1)), expected, "'{balancer}'");
        }
    }
}
