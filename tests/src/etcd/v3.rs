//! The v3 gRPC API behind a blocking face.

use std::fs;
use std::sync::Mutex;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use etcd_client::{
    Certificate, Client as Connection, ConnectOptions, EventType, GetOptions, Identity, KeyValue, Permission,
    TlsOptions, WatchOptions,
};
use tokio::runtime::{Builder, Runtime};
use tokio::time::timeout;

use super::{Access, Change, Entry, User, Watched};

/// A member that does not answer is passed over after this.
const REQUEST_LIMIT: Duration = Duration::from_secs(5);
/// How often a watch looks whether it is still wanted.
const POLL: Duration = Duration::from_millis(300);

/// A client of the v3 API. Each call connects anew and passes over members that do not answer.
pub struct Client {
    // A runtime of its own for each client; calls from several threads take turns.
    runtime: Mutex<Runtime>,
    endpoints: Vec<String>,
    options: ConnectOptions,
}

impl Client {
    /// A client with this access; connects when first used.
    pub fn new(access: &Access) -> Result<Self> {
        let mut options = ConnectOptions::new().with_connect_timeout(REQUEST_LIMIT);
        if let Some(authority) = &access.authority {
            let pem = fs::read(authority).with_context(|| format!("cannot read '{}'", authority.display()))?;
            let mut tls = TlsOptions::new().ca_certificate(Certificate::from_pem(pem));
            if let Some(identity) = &access.identity {
                tls = tls.identity(Identity::from_pem(fs::read(&identity.certificate)?, fs::read(&identity.key)?));
            }
            options = options.with_tls(tls);
        }
        if let Some(user) = &access.user {
            options = options.with_user(&user.name, &user.password);
        }
        let runtime = Builder::new_current_thread().enable_all().build().context("cannot start tokio")?;
        Ok(Self { runtime: Mutex::new(runtime), endpoints: access.endpoints.clone(), options })
    }

    pub(super) fn get(&self, key: &str) -> Result<Option<Entry>> {
        let answer = self.call("read", key, &async |connection| connection.get(key, None).await)?;
        answer.kvs().first().map(entry).transpose()
    }

    pub(super) fn list(&self, folder: &str) -> Result<(Vec<Entry>, u64)> {
        let prefix = prefix(folder);
        let answer = self.call("list", folder, &async |connection| {
            connection.get(prefix.as_str(), Some(GetOptions::new().with_prefix())).await
        })?;
        let revision = answer.header().context("an answer without a header")?.revision();
        Ok((answer.kvs().iter().map(entry).collect::<Result<_>>()?, revision.cast_unsigned()))
    }

    pub(super) fn put(&self, key: &str, value: &str) -> Result<()> {
        self.call("write", key, &async |connection| connection.put(key, value, None).await)?;
        Ok(())
    }

    pub(super) fn delete(&self, key: &str) -> Result<()> {
        let answer = self.call("delete", key, &async |connection| connection.delete(key, None).await)?;
        ensure!(answer.deleted() == 1, "cannot delete '{key}' in etcd v3: key not found");
        Ok(())
    }

    pub(super) fn watch(&self, folder: &str, from: u64, stop: &dyn Fn() -> bool) -> Result<Watched> {
        let prefix = prefix(folder);
        let from = from.cast_signed();
        let options = || WatchOptions::new().with_prefix().with_start_revision(from);
        let runtime = self.runtime();
        runtime.block_on(async {
            let mut connection = self.connect().await?;
            let opening = connection.watch(prefix.as_str(), Some(options()));
            let mut stream = timeout(REQUEST_LIMIT, opening).await.context("etcd does not open a watch")??;
            while !stop() {
                let Ok(message) = timeout(POLL, stream.message()).await else { continue };
                let message = message?.context("etcd ended the watch")?;
                if message.canceled() {
                    return Ok(Watched::Outdated);
                }
                // One revision at a time: all of one transaction, and nothing of the next.
                let revision = |event: &etcd_client::Event| event.kv().map(KeyValue::mod_revision);
                let Some(first) = message.events().first().and_then(revision) else { continue };
                let events = message.events().iter().filter(|event| revision(event) == Some(first));
                let changes = events.map(change).collect::<Result<_>>()?;
                return Ok(Watched::Changed { changes, next: first.cast_unsigned() + 1 });
            }
            Ok(Watched::Stopped)
        })
    }

    /// Makes the two users and turns passwords on.
    pub(super) fn enable_passwords(&self, root: &User, conftool: &User) -> Result<()> {
        self.call("set up", "auth", &async |connection| {
            let below_conftool = Permission::read_write("/conftool/").with_prefix();
            connection.user_add(&root.name, &root.password, None).await?;
            connection.role_add("root").await?;
            connection.user_grant_role(&root.name, "root").await?;
            connection.user_add(&conftool.name, &conftool.password, None).await?;
            connection.role_add("conftool").await?;
            connection.role_grant_permission("conftool", below_conftool).await?;
            connection.user_grant_role(&conftool.name, "conftool").await?;
            connection.auth_enable().await
        })?;
        Ok(())
    }

    fn runtime(&self) -> std::sync::MutexGuard<'_, Runtime> {
        self.runtime.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Does one thing with the first member that lets us.
    fn call<T>(
        &self,
        verb: &str,
        key: &str,
        work: &impl AsyncFn(&mut Connection) -> Result<T, etcd_client::Error>,
    ) -> Result<T> {
        let runtime = self.runtime();
        let mut failures = Vec::new();
        for endpoint in &self.endpoints {
            let attempt = runtime.block_on(async {
                timeout(REQUEST_LIMIT, async {
                    let mut connection = Connection::connect([endpoint], Some(self.options.clone())).await?;
                    work(&mut connection).await
                })
                .await
            });
            match attempt {
                Ok(Ok(answer)) => return Ok(answer),
                Ok(Err(error)) => failures.push(error.to_string()),
                Err(_) => failures.push(format!("no answer from '{endpoint}' within {REQUEST_LIMIT:?}")),
            }
        }
        bail!("cannot {verb} '{key}' in etcd v3: {}", failures.join("; "))
    }

    /// A connection to the first member that answers.
    async fn connect(&self) -> Result<Connection> {
        for endpoint in &self.endpoints {
            let attempt = timeout(REQUEST_LIMIT, async {
                let mut connection = Connection::connect([endpoint], Some(self.options.clone())).await?;
                // Connecting is lazy: only an answer shows that somebody is there.
                connection.status().await?;
                Ok::<_, etcd_client::Error>(connection)
            });
            if let Ok(Ok(connection)) = attempt.await {
                return Ok(connection);
            }
        }
        bail!("no member of etcd answers")
    }
}

/// A folder's name with the slash that keeps `/a/b` from meaning `/a/bc`.
fn prefix(folder: &str) -> String {
    format!("{}/", folder.trim_end_matches('/'))
}

fn entry(kv: &KeyValue) -> Result<Entry> {
    Ok(Entry {
        key: kv.key_str()?.to_owned(),
        value: kv.value_str()?.to_owned(),
        revision: kv.mod_revision().cast_unsigned(),
    })
}

fn change(event: &etcd_client::Event) -> Result<Change> {
    let kv = event.kv().context("an event without a key")?;
    let value = match event.event_type() {
        EventType::Put => Some(kv.value_str()?.to_owned()),
        EventType::Delete => None,
    };
    Ok(Change { key: kv.key_str()?.to_owned(), value })
}
