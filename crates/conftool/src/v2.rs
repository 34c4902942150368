//! etcd's v2 HTTP API, the one that conftool speaks: `GET` and `PUT` of `/v2/keys/PATH`, answers and errors in JSON. etcd 3.4
//! has it behind `--enable-v2`, 3.6 has it no more. One connection pool serves all members.

mod answer;

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ureq::http::Response;
use ureq::tls::{Certificate, ClientCert, PrivateKey, RootCerts, TlsConfig};
use ureq::{Agent, Body, Timeout};

use self::answer::{Answer, Fault};
use crate::endpoint::{Endpoint, Scheme};
use crate::limits::{CONNECT, Deadline};
use crate::member::{
    Attempt, Change, Kind, Marks, Member, Object, Security, Swap, Trace, Trouble, io_kind, io_reason, short,
    tls_trouble,
};
use crate::secret::{Credentials, Password};
use crate::tls::Tls;

/// Most bytes of an answer: a pool of five thousand nodes is one megabyte.
const BODY: u64 = 8 << 20;

/// A member, through the v2 API.
pub(crate) struct V2 {
    agent: Agent,
    url: String,
    /// `URL/v2/keys`.
    keys: String,
    /// The value of the Authorization header.
    authorization: Option<Password>,
    credentials: Option<Credentials>,
    security: Security,
}

/// One connection pool for all members. Proxies of the environment are ignored, redirects are not followed (etcd has sent
/// none since 0.5: a member that is not the leader forwards requests itself).
pub(crate) fn agent(tls: Option<&Tls>) -> Result<Agent, String> {
    let mut config = Agent::config_builder()
        .http_status_as_error(false)
        .proxy(None)
        .max_redirects(0)
        .timeout_connect(Some(CONNECT))
        .timeout_resolve(Some(CONNECT))
        .user_agent(concat!("safe-service-restart/", env!("CARGO_PKG_VERSION")));
    if let Some(tls) = tls {
        config = config.tls_config(tls_config(tls).map_err(|error| error.to_string())?);
    }
    Ok(config.build().into())
}

fn tls_config(tls: &Tls) -> Result<TlsConfig, ureq::Error> {
    let certificates = |pem: &str| -> Vec<Certificate<'static>> {
        ureq::tls::parse_pem(pem.as_bytes())
            .filter_map(|item| match item {
                Ok(ureq::tls::PemItem::Certificate(certificate)) => Some(certificate),
                _ => None,
            })
            .collect()
    };
    let client = match &tls.identity {
        None => None,
        Some(identity) => {
            let key = PrivateKey::from_pem(identity.key.expose().as_bytes())?;
            Some(ClientCert::new_with_certs(&certificates(&identity.cert), key))
        }
    };
    Ok(TlsConfig::builder()
        .root_certs(RootCerts::new_with_certs(&certificates(&tls.roots)))
        .client_cert(client)
        .build())
}

impl V2 {
    /// A member at `endpoint`, its API under `prefix` (`/v2`).
    pub(crate) fn new(
        agent: Agent,
        endpoint: &Endpoint,
        prefix: &str,
        tls: Option<&Tls>,
        credentials: Option<&Credentials>,
    ) -> Self {
        let url = endpoint.to_string();
        // Basic authentication by hand: the HTTP library takes it from the URL alone, and does not decode it there.
        let authorization = credentials.map(|Credentials { user, password }| {
            let pair = format!("{user}:{}", password.expose());
            Password::new(format!("Basic {}", STANDARD.encode(pair)))
        });
        Self {
            agent,
            keys: format!("{url}{prefix}/keys"),
            url,
            authorization,
            credentials: credentials.cloned(),
            security: Security::of(tls.filter(|_| endpoint.scheme == Scheme::Https)),
        }
    }

    fn read(&self, key: &str, query: &str, limit: Duration) -> Result<Result<Answer, Fault>, Trouble> {
        let url = format!("{}{}?{query}", self.keys, escape(key));
        let mut request = self.agent.get(url).config().timeout_global(Some(limit)).build();
        if let Some(authorization) = &self.authorization {
            request = request.header("Authorization", authorization.expose());
        }
        self.judge(request.call(), limit)
    }

    /// A directory; `None` if there is none.
    fn below(&self, directory: &str, query: &str, limit: Duration) -> Result<Option<Answer>, Trouble> {
        match self.read(directory, query, limit)? {
            Ok(answer) => Ok(Some(answer)),
            Err(Fault::NotFound) => Ok(None),
            Err(fault) => Err(fault.into_trouble()),
        }
    }

    fn put(&self, key: &str, query: &str, value: &str, limit: Duration) -> Result<Result<Answer, Fault>, Trouble> {
        let url = format!("{}{}?{query}", self.keys, escape(key));
        let mut request = self.agent.put(url).config().timeout_global(Some(limit)).build();
        if let Some(authorization) = &self.authorization {
            request = request.header("Authorization", authorization.expose());
        }
        self.judge(request.send_form([("value", value)]), limit)
    }

    /// Reads the whole answer and sorts it: an answer, a fault of etcd's own that the question decides about, or trouble.
    fn judge(
        &self,
        response: Result<Response<Body>, ureq::Error>,
        limit: Duration,
    ) -> Result<Result<Answer, Fault>, Trouble> {
        let whole = response.and_then(|mut response| {
            let body = response.body_mut().with_config().limit(BODY).read_to_vec()?;
            Ok((response.status().as_u16(), body))
        });
        let judged = match whole {
            Ok((status, body)) => answer::read(status, &body),
            Err(error) => Err(trouble(&error, limit)),
        };
        judged.map_err(|trouble| trouble.explained(self.credentials.as_ref(), self.security))
    }
}

impl Member for V2 {
    fn url(&self) -> &str {
        &self.url
    }

    fn list(&mut self, directory: &str, limit: Duration) -> Result<Vec<Object>, Trouble> {
        self.below(directory, "quorum=true", limit).map(|found| found.map_or_else(Vec::new, Answer::into_children))
    }

    fn list_all(&mut self, directory: &str, limit: Duration) -> Result<Vec<Object>, Trouble> {
        let found = self.below(directory, "recursive=true&quorum=true", limit)?;
        Ok(found.map_or_else(Vec::new, Answer::into_descendants))
    }

    fn get(&mut self, key: &str, limit: Duration) -> Result<Option<Object>, Trouble> {
        match self.read(key, "quorum=true", limit)? {
            Ok(answer) => Ok(answer.into_object()),
            Err(Fault::NotFound) => Ok(None),
            Err(fault) => Err(fault.into_trouble()),
        }
    }

    fn trace(&mut self, key: &str, _mark: &str, limit: Duration) -> Result<Trace, Trouble> {
        let revision = self.get(key, limit)?.map(|object| object.revision);
        Ok(Trace { revision, mark: Marks::Unused })
    }

    fn swap(&mut self, attempt: &Attempt<'_>, limit: Duration) -> Result<Swap, Trouble> {
        // Without transactions there is no mark that could be trusted.
        let Attempt { key, revision, value, mark: _ } = attempt;
        let time = Deadline::within(limit, limit);
        // A write takes an object's time to live away, unless it says it again. conftool gives its objects none; whoever did wants
        // it kept. What is said is that of the revision expected: if it is changed before the write comes, so is the revision.
        let found = match self.read(key, "quorum=true", limit)? {
            Ok(found) if found.revision() == *revision => found,
            Ok(_) | Err(Fault::NotFound) => return Ok(Swap::Changed),
            Err(fault) => return Err(fault.into_trouble()),
        };
        let time_to_live = found.time_to_live().map(|seconds| format!("&ttl={seconds}")).unwrap_or_default();
        let query = format!("prevExist=true&prevIndex={revision}{time_to_live}");
        let Some(left) = time.next_request() else {
            return Err(Trouble::new(Kind::NotAsked, "no time left for the write"));
        };
        match self.put(key, &query, value, left)? {
            Ok(answer) => match answer.into_object() {
                Some(object) => Ok(Swap::Made(object.revision)),
                None => Err(Trouble::new(Kind::NoAnswer, "its answer to the write has no node")),
            },
            Err(Fault::NotFound | Fault::CompareFailed | Fault::NotFile) => Ok(Swap::Changed),
            Err(fault) => Err(fault.into_trouble()),
        }
    }

    fn first_change(
        &mut self,
        key: &str,
        _mark: Option<&str>,
        revision: u64,
        limit: Duration,
    ) -> Result<Change, Trouble> {
        // A watch for an index that has passed is answered at once, with the first event of the key from there on.
        let query = format!("wait=true&waitIndex={}", revision.saturating_add(1));
        match self.read(key, &query, limit)? {
            Ok(answer) => Ok(answer.into_change()),
            Err(Fault::HistoryGone) => Ok(Change::Forgotten),
            Err(fault) => Err(fault.into_trouble()),
        }
    }

    fn remove(&mut self, _key: &str, _limit: Duration) -> Result<(), Trouble> {
        Ok(())
    }
}

/// A key as part of a URL.
fn escape(key: &str) -> String {
    let mut escaped = String::with_capacity(key.len());
    for byte in key.bytes() {
        if byte.is_ascii_alphanumeric() || b"/-._~".contains(&byte) {
            escaped.push(char::from(byte));
        } else {
            escaped.push_str(&format!("%{byte:02X}"));
        }
    }
    escaped
}

/// What follows from an error of the HTTP library. What is not known to come before the request counts as after it.
fn trouble(error: &ureq::Error, limit: Duration) -> Trouble {
    use ureq::Error;

    match error {
        Error::HostNotFound => Trouble::new(Kind::NotAsked, "no such host"),
        Error::Timeout(Timeout::Resolve) => Trouble::new(Kind::NotAsked, "looking up its name timed out"),
        Error::Timeout(Timeout::Connect) => {
            Trouble::new(Kind::NotAsked, format!("no connection within {} s", CONNECT.as_secs_f32()))
        }
        Error::Timeout(_) => Trouble::new(Kind::NoAnswer, format!("no answer within {:.1} s", limit.as_secs_f32())),
        Error::ConnectionFailed => Trouble::new(Kind::NotAsked, "no connection"),
        Error::Rustls(error) => tls_trouble(error),
        Error::Tls(why) => Trouble::new(Kind::NotAsked, format!("TLS: {why}")),
        Error::BodyExceedsLimit(_) => {
            Trouble::new(Kind::NoAnswer, format!("its answer is longer than {} MiB", BODY >> 20))
        }
        Error::Io(error) => match error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
            Some(tls) => tls_trouble(tls),
            None => Trouble::new(io_kind(error), io_reason(error)),
        },
        Error::Protocol(_) => Trouble::new(Kind::NoAnswer, "it does not answer in HTTP"),
        other => Trouble::new(Kind::NoAnswer, short(&other.to_string())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_escaped_for_urls() {
        assert_eq!(escape("/conftool/v1/pools/a:b+c/mw1.x_y"), "/conftool/v1/pools/a%3Ab%2Bc/mw1.x_y");
        assert_eq!(escape("/a b/é%?#"), "/a%20b/%C3%A9%25%3F%23");
    }
}
