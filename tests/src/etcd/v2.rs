//! The v2 HTTP API, as far as tests and the load balancer's watch need it.

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};
use ureq::tls::{Certificate, ClientCert, PrivateKey, RootCerts, TlsConfig};
use ureq::{Agent, Body, http::Response};

use super::{Access, Change, Entry, User, Watched};

/// A member that does not answer is passed over after this.
const REQUEST_LIMIT: Duration = Duration::from_secs(5);
/// How long one long poll lasts before it looks whether it is still wanted.
const POLL: Duration = Duration::from_millis(300);

/// etcd's `errorCode`s that mean something here.
const KEY_NOT_FOUND: u64 = 100;
const INDEX_OUTDATED: u64 = 401;

/// A client of the v2 API that passes over members that do not answer.
pub struct Client {
    agent: Agent,
    endpoints: Vec<String>,
}

impl Client {
    /// A client with this access; connects when first used.
    pub fn new(access: &Access) -> Result<Self> {
        let mut tls = TlsConfig::builder();
        if let Some(authority) = &access.authority {
            let pem = fs::read(authority).with_context(|| format!("cannot read '{}'", authority.display()))?;
            tls = tls.root_certs(RootCerts::new_with_certs(&[Certificate::from_pem(&pem)?]));
        }
        if let Some(identity) = &access.identity {
            let certificate = Certificate::from_pem(&fs::read(&identity.certificate)?)?;
            let key = PrivateKey::from_pem(&fs::read(&identity.key)?)?;
            tls = tls.client_cert(Some(ClientCert::new_with_certs(&[certificate], key)));
        }
        let agent = Agent::config_builder()
            .http_status_as_error(false)
            .proxy(None)
            .timeout_global(Some(REQUEST_LIMIT))
            .tls_config(tls.build())
            .build()
            .into();
        // The test bed's passwords need no escaping, so they may stand in the URL.
        let endpoints = access.endpoints.iter().map(|endpoint| match &access.user {
            Some(user) => endpoint.replacen("://", &format!("://{}:{}@", user.name, user.password), 1),
            None => endpoint.clone(),
        });
        Ok(Self { agent, endpoints: endpoints.collect() })
    }

    /// Whether the first member says that it is healthy.
    pub(super) fn healthy(&self) -> bool {
        let health = self.agent.get(format!("{}/health", self.endpoints[0])).call();
        health.is_ok_and(|mut answer| answer.body_mut().read_json::<Value>().is_ok_and(|body| body["health"] == "true"))
    }

    pub(super) fn get(&self, key: &str) -> Result<Option<Entry>> {
        let (body, _) =
            self.answer(|endpoint| self.agent.get(format!("{endpoint}/v2/keys{key}?quorum=true")).call())?;
        if code(&body) == Some(KEY_NOT_FOUND) {
            return Ok(None);
        }
        refuse_error(&body, "read", key)?;
        Ok(leaves(&body["node"]).pop())
    }

    pub(super) fn list(&self, folder: &str) -> Result<(Vec<Entry>, u64)> {
        let (body, index) = self.answer(|endpoint| {
            self.agent.get(format!("{endpoint}/v2/keys{folder}?recursive=true&quorum=true")).call()
        })?;
        if code(&body) == Some(KEY_NOT_FOUND) {
            return Ok((Vec::new(), body["index"].as_u64().unwrap_or(index)));
        }
        refuse_error(&body, "list", folder)?;
        Ok((leaves(&body["node"]), index))
    }

    pub(super) fn put(&self, key: &str, value: &str) -> Result<()> {
        let (body, _) =
            self.answer(|endpoint| self.agent.put(format!("{endpoint}/v2/keys{key}")).send_form([("value", value)]))?;
        refuse_error(&body, "write", key)
    }

    pub(super) fn delete(&self, key: &str) -> Result<()> {
        let (body, _) = self.answer(|endpoint| self.agent.delete(format!("{endpoint}/v2/keys{key}")).call())?;
        refuse_error(&body, "delete", key)
    }

    pub(super) fn watch(&self, folder: &str, from: u64, stop: &dyn Fn() -> bool) -> Result<Watched> {
        let mut from = from;
        while !stop() {
            match self.poll(folder, from)? {
                Poll::Quiet { next } => from = from.max(next),
                Poll::Ended(watched) => return Ok(watched),
            }
        }
        Ok(Watched::Stopped)
    }

    /// One long poll. etcd sends the head at once and the body when something happens.
    fn poll(&self, folder: &str, from: u64) -> Result<Poll> {
        let mut answer = self.first_answer(|endpoint| {
            self.agent
                .get(format!("{endpoint}/v2/keys{folder}?wait=true&recursive=true&waitIndex={from}"))
                .config()
                .timeout_recv_body(Some(POLL))
                .build()
                .call()
        })?;
        // Nothing at or after `from` had happened at this index, or the body would have come with the head.
        let next = store_index(&answer) + 1;
        // As text first: read as JSON, a time-out would come back as an error of the JSON.
        let body = match answer.body_mut().read_to_string() {
            Ok(body) => body,
            Err(ureq::Error::Timeout(_)) => return Ok(Poll::Quiet { next }),
            Err(error) => return Err(error).context("the watch broke off"),
        };
        let body: Value = serde_json::from_str(&body).context("the watch's answer is not JSON")?;
        if code(&body) == Some(INDEX_OUTDATED) {
            return Ok(Poll::Ended(Watched::Outdated));
        }
        refuse_error(&body, "watch", folder)?;
        let node = &body["node"];
        let change = Change {
            key: node["key"].as_str().unwrap_or_default().to_owned(),
            value: node["value"].as_str().map(ToOwned::to_owned),
        };
        let next = node["modifiedIndex"].as_u64().context("an event without 'modifiedIndex'")? + 1;
        Ok(Poll::Ended(Watched::Changed { changes: vec![change], next }))
    }

    /// Makes the two users, takes every right from guests, and turns passwords on.
    pub(super) fn enable_passwords(&self, root: &User, conftool: &User) -> Result<()> {
        let put = |path: &str, body: Value| -> Result<()> {
            let (answer, _) = self
                .answer(|endpoint| self.agent.put(format!("{endpoint}/v2/auth/{path}")).send_json(&body))
                .with_context(|| format!("cannot set up '{path}' of etcd v2"))?;
            ensure!(answer.get("message").is_none(), "cannot set up '{path}' of etcd v2: {answer}");
            Ok(())
        };
        let everything_of_conftool = json!({"kv": {"read": ["/conftool/*"], "write": ["/conftool/*"]}});
        put("users/root", json!({"user": root.name, "password": root.password}))?;
        put("roles/conftool", json!({"role": "conftool", "permissions": everything_of_conftool}))?;
        put(
            &format!("users/{}", conftool.name),
            json!({"user": conftool.name, "password": conftool.password, "roles": ["conftool"]}),
        )?;
        put("enable", json!({}))?;
        // The guest role exists only now.
        let as_root = Self {
            agent: self.agent.clone(),
            endpoints: self
                .endpoints
                .iter()
                .map(|endpoint| endpoint.replacen("://", &format!("://{}:{}@", root.name, root.password), 1))
                .collect(),
        };
        let revoke = json!({"role": "guest", "revoke": {"kv": {"read": ["/*"], "write": ["/*"]}}});
        let (answer, _) = as_root
            .answer(|endpoint| as_root.agent.put(format!("{endpoint}/v2/auth/roles/guest")).send_json(&revoke))?;
        ensure!(answer.get("message").is_none(), "cannot take etcd's v2 rights from guests: {answer}");
        Ok(())
    }

    /// The answer of the first member that gives one, as JSON, with the index of the store.
    fn answer(&self, ask: impl Fn(&str) -> Result<Response<Body>, ureq::Error>) -> Result<(Value, u64)> {
        let mut answer = self.first_answer(ask)?;
        let index = store_index(&answer);
        let text = answer.body_mut().read_to_string().context("etcd's answer broke off")?;
        if text.is_empty() {
            return Ok((Value::Null, index));
        }
        let body = serde_json::from_str(&text).with_context(|| format!("etcd's answer is not JSON: {text}"))?;
        Ok((body, index))
    }

    fn first_answer(&self, ask: impl Fn(&str) -> Result<Response<Body>, ureq::Error>) -> Result<Response<Body>> {
        let mut failures = Vec::new();
        for endpoint in &self.endpoints {
            match ask(endpoint) {
                Ok(answer) => return Ok(answer),
                Err(error) => failures.push(error.to_string()),
            }
        }
        bail!("no member of etcd answers: {}", failures.join("; "))
    }
}

enum Poll {
    Quiet { next: u64 },
    Ended(Watched),
}

fn store_index(answer: &Response<Body>) -> u64 {
    let header = answer.headers().get("X-Etcd-Index");
    header.and_then(|value| value.to_str().ok()).and_then(|text| text.parse().ok()).unwrap_or(0)
}

fn code(body: &Value) -> Option<u64> {
    body["errorCode"].as_u64()
}

fn refuse_error(body: &Value, verb: &str, key: &str) -> Result<()> {
    ensure!(body.get("message").is_none(), "cannot {verb} '{key}' in etcd v2: {}", body["message"]);
    Ok(())
}

/// The keys below a node, or the node itself when it is a key.
fn leaves(node: &Value) -> Vec<Entry> {
    if node["dir"] == true {
        return node["nodes"].as_array().into_iter().flatten().flat_map(leaves).collect();
    }
    let entry = (|| {
        Some(Entry {
            key: node["key"].as_str()?.to_owned(),
            value: node["value"].as_str()?.to_owned(),
            revision: node["modifiedIndex"].as_u64()?,
        })
    })();
    entry.into_iter().collect()
}
