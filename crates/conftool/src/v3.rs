//! etcd's v3 API over gRPC, with the keys and values of v2. One client for each member: the library's own balancing sends a
//! third of first calls into a member that is dead, ours is in `cluster.rs`. The runtime is this crate's, and turns only while
//! a request is waited for.

mod error;

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use etcd_client::{
    Certificate, Client, Compare, CompareOp, ConnectOptions, Error, EventType, GetOptions, Identity, TlsOptions, Txn,
    TxnOp, WatchOptions,
};
use tokio::runtime::Runtime;
use tokio::time::{Instant, timeout_at};

use crate::endpoint::{Endpoint, Scheme};
use crate::limits::CONNECT;
use crate::member::{Change, Kind, Member, Object, Security, Swap, Trouble};
use crate::secret::Credentials;
use crate::tls::Tls;

/// A member, through the v3 API.
pub(crate) struct V3 {
    runtime: Arc<Runtime>,
    url: String,
    tls: Option<TlsOptions>,
    credentials: Option<Credentials>,
    security: Security,
    /// Made when it is needed, and anew after a request that was not answered.
    client: Option<Client>,
}

/// The library's form of the TLS files; `tls.rs` has checked them.
fn tls_options(tls: &Tls) -> TlsOptions {
    let options = TlsOptions::new().ca_certificate(Certificate::from_pem(&tls.roots));
    match &tls.identity {
        Some(identity) => options.identity(Identity::from_pem(&identity.cert, identity.key.expose())),
        None => options,
    }
}

impl V3 {
    /// A member at `endpoint`; `tls` is used if its scheme is https.
    pub(crate) fn new(
        runtime: Arc<Runtime>,
        endpoint: &Endpoint,
        tls: Option<&Tls>,
        credentials: Option<&Credentials>,
    ) -> Self {
        let tls = tls.filter(|_| endpoint.scheme == Scheme::Https);
        Self {
            runtime,
            url: endpoint.to_string(),
            tls: tls.map(tls_options),
            credentials: credentials.cloned(),
            security: Security::of(tls),
            client: None,
        }
    }

    /// Connects if need be and runs one request, all within `limit`. That the time is up while connecting, or that the
    /// connection is refused, says that etcd was not asked.
    fn call<T, F>(&mut self, limit: Duration, request: impl FnOnce(Client) -> F) -> Result<T, Trouble>
    where
        F: Future<Output = Result<T, Error>>,
    {
        let runtime = Arc::clone(&self.runtime);
        runtime.block_on(async {
            let end = Instant::now() + limit;
            let client = match self.client.take() {
                Some(client) => client,
                None => match timeout_at(end, connect(&self.url, self.tls.as_ref(), self.credentials.as_ref())).await {
                    Ok(Ok(client)) => client,
                    Ok(Err(error)) => return Err(self.explain(error::unsent(&error))),
                    Err(_) => return Err(Trouble::new(Kind::NotAsked, no_answer(limit))),
                },
            };
            match timeout_at(end, request(client.clone())).await {
                Ok(Ok(answer)) => {
                    self.client = Some(client);
                    Ok(answer)
                }
                Ok(Err(error)) => Err(self.explain(error::sent(&error))),
                Err(_) => Err(Trouble::new(Kind::NoAnswer, no_answer(limit))),
            }
        })
    }

    /// Adds what an operator would ask next.
    fn explain(&self, trouble: Trouble) -> Trouble {
        trouble.explained(self.credentials.as_ref(), self.security)
    }
}

fn no_answer(limit: Duration) -> String {
    format!("no answer within {:.1} s", limit.as_secs_f32())
}

/// A client of one member. With credentials this asks the member for a token; without, nothing is sent yet.
async fn connect(url: &str, tls: Option<&TlsOptions>, credentials: Option<&Credentials>) -> Result<Client, Error> {
    // A member that lost its quorum answers at once when it is told that a leader is required; else after seven seconds.
    let mut options =
        ConnectOptions::new().with_connect_timeout(CONNECT).with_require_leader(true).with_auto_token_refresh(true);
    if let Some(tls) = tls {
        options = options.with_tls(tls.clone());
    }
    let Some(Credentials { user, password }) = credentials else {
        return Client::connect([url], Some(options)).await;
    };
    let with_user = options.clone().with_user(user, password.expose());
    match Client::connect([url], Some(with_user)).await {
        // The v2 API takes no notice of credentials while authentication is off, and a configuration that works there
        // shall work here.
        Err(error) if error::is_authentication_off(&error) => {
            log::debug!("etcd '{url}' does not use authentication: going on without the user");
            Client::connect([url], Some(options)).await
        }
        connected => connected,
    }
}

impl Member for V3 {
    fn url(&self) -> &str {
        &self.url
    }

    fn list(&mut self, directory: &str, limit: Duration) -> Result<Vec<Object>, Trouble> {
        let prefix = format!("{directory}/");
        let range = prefix.clone();
        let answer = self
            .call(limit, |mut client| async move { client.get(range, Some(GetOptions::new().with_prefix())).await })?;
        let children = answer.kvs().iter().filter_map(|kv| {
            let key = std::str::from_utf8(kv.key()).ok()?;
            let name = key.strip_prefix(&prefix)?;
            (!name.is_empty() && !name.contains('/')).then(|| object(kv, key))
        });
        Ok(children.collect())
    }

    fn get(&mut self, key: &str, limit: Duration) -> Result<Option<Object>, Trouble> {
        let answer = self.call(limit, |mut client| async move { client.get(key, None).await })?;
        Ok(answer.kvs().first().map(|kv| object(kv, key)))
    }

    fn swap(&mut self, key: &str, revision: u64, value: &str, limit: Duration) -> Result<Swap, Trouble> {
        let Ok(revision) = i64::try_from(revision) else {
            return Ok(Swap::Changed);
        };
        let txn = Txn::new()
            .when([Compare::mod_revision(key, CompareOp::Equal, revision)])
            .and_then([TxnOp::put(key, value, None)]);
        let answer = self.call(limit, |mut client| async move { client.txn(txn).await })?;
        match (answer.succeeded(), answer.header()) {
            (true, Some(header)) => Ok(Swap::Made(unsigned(header.revision()))),
            (true, None) => Err(Trouble::new(Kind::NoAnswer, "its answer to the write has no revision")),
            (false, _) => Ok(Swap::Changed),
        }
    }

    fn first_change(&mut self, key: &str, revision: u64, limit: Duration) -> Result<Change, Trouble> {
        let Ok(next) = i64::try_from(revision.saturating_add(1)) else {
            return Ok(Change::Forgotten);
        };
        self.call(limit, |mut client| async move {
            let mut stream = client.watch(key, Some(WatchOptions::new().with_start_revision(next))).await?;
            while let Some(answer) = stream.message().await? {
                if let Some(event) = answer.events().first() {
                    return Ok(match (event.event_type(), event.kv()) {
                        (EventType::Put, Some(kv)) => {
                            Change::Written { value: kv.value().to_vec(), revision: unsigned(kv.mod_revision()) }
                        }
                        _ => Change::Deleted,
                    });
                }
                if answer.compact_revision() > 0 {
                    return Ok(Change::Forgotten);
                }
                if answer.canceled() {
                    return Err(Error::WatchError(answer.cancel_reason().to_owned()));
                }
            }
            Err(Error::WatchError("the watch ended".to_owned()))
        })
    }
}

fn object(kv: &etcd_client::KeyValue, key: &str) -> Object {
    Object { key: key.to_owned(), value: kv.value().to_vec(), revision: unsigned(kv.mod_revision()) }
}

/// etcd's revisions are signed on the wire, and never negative.
fn unsigned(revision: i64) -> u64 {
    u64::try_from(revision).unwrap_or_default()
}
