//! A connection to one member through the v3 API: made when it is needed, made anew after a request that was not answered,
//! and every request on it bounded. The library's own time-outs are set and not relied upon: none of them bounds a member
//! that is frozen.

use std::future::Future;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use etcd_client::{Certificate, Client, ConnectOptions, Error, Identity, TlsOptions};
use tokio::time::{Instant, timeout_at};

use super::error;
use crate::endpoint::{Endpoint, Scheme};
use crate::limits::CONNECT;
use crate::member::{Kind, Security, Trouble};
use crate::secret::Credentials;
use crate::tls::Tls;

/// One member. Several tasks of a runtime may ask at once, over one TCP connection.
pub(crate) struct Connection {
    url: String,
    tls: Option<TlsOptions>,
    credentials: Option<Credentials>,
    security: Security,
    client: Mutex<Option<Client>>,
}

impl Connection {
    /// A member at `endpoint`; `tls` is used if its scheme is https. Nothing is sent yet.
    pub(crate) fn new(endpoint: &Endpoint, tls: Option<&Tls>, credentials: Option<&Credentials>) -> Self {
        let tls = tls.filter(|_| endpoint.scheme == Scheme::Https);
        Self {
            url: endpoint.to_string(),
            tls: tls.map(tls_options),
            credentials: credentials.cloned(),
            security: Security::of(tls),
            client: Mutex::new(None),
        }
    }

    /// The member's URL, for messages.
    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    /// Connects if need be and runs one request, all within `limit`. That the time is up while connecting, or that the
    /// connection is refused, says that etcd was not asked. A request that etcd refused for its token alone is made again with a
    /// new one.
    pub(crate) async fn request<T, F>(
        &self,
        limit: Duration,
        mut request: impl FnMut(Client) -> F,
    ) -> Result<T, Trouble>
    where
        F: Future<Output = Result<T, Error>>,
    {
        let end = Instant::now() + limit;
        let known = self.client.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let client = match known {
            Some(client) => client,
            None => match timeout_at(end, connect(&self.url, self.tls.as_ref(), self.credentials.as_ref())).await {
                Ok(Ok(client)) => client,
                Ok(Err(error)) => return Err(self.explain(error::unsent(&error))),
                Err(_) => return Err(Trouble::new(Kind::NotAsked, no_answer(limit))),
            },
        };
        // The library renews a token that has expired, and does not know that one can be outdated.
        let attempts = async {
            match request(client.clone()).await {
                Err(error) if error::is_token_outdated(&error) => {
                    client.refresh_token().await?;
                    request(client.clone()).await
                }
                answer => answer,
            }
        };
        let answer = match timeout_at(end, attempts).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(error)) => Err(self.explain(error::sent(&error))),
            Err(_) => Err(Trouble::new(Kind::NoAnswer, no_answer(limit))),
        };
        *self.client.lock().unwrap_or_else(PoisonError::into_inner) = answer.is_ok().then_some(client);
        answer
    }

    /// Adds what an operator would ask next.
    fn explain(&self, trouble: Trouble) -> Trouble {
        trouble.explained(self.credentials.as_ref(), self.security)
    }
}

/// The library's form of the TLS files; `tls.rs` has checked them.
fn tls_options(tls: &Tls) -> TlsOptions {
    let options = TlsOptions::new().ca_certificate(Certificate::from_pem(&tls.roots));
    match &tls.identity {
        Some(identity) => options.identity(Identity::from_pem(&identity.cert, identity.key.expose())),
        None => options,
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
