//! `/etc/restart-php-fpm.yaml`: what this host's PHP-FPM is part of, and how patiently it is restarted. Every key is in
//! restart-php-fpm.yaml(5). A key that is not known is an error: a misspelt `max_concurrency` must not mean "no limit".

use std::path::PathBuf;

pub use host::settings_file::{Limit, Time};

use host::settings_file;
use restart_core::{Fqdn, PoolName, Tag, UnitName};
use serde::Deserialize;

/// Where it is.
pub const PATH: &str = "/etc/restart-php-fpm.yaml";

/// What can stand in it; whatever does not is `None`, or empty.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct File {
    /// The pools to leave.
    pub pools: Vec<PoolName>,
    /// The units; every enabled `php*-fpm` unit if there is none.
    pub services: Vec<UnitName>,
    pub max_concurrency: Option<Limit>,
    pub slots: Option<Slots>,
    pub slot_timeout: Option<Time>,
    pub poolcounter_config: Option<PathBuf>,
    pub min_pooled: Option<Limit>,
    /// How often, and how far apart at most, load balancers are asked.
    pub retries: Option<u32>,
    pub wait: Option<Time>,
    pub lb_timeout: Option<Time>,
    pub lb_quorum: Option<u16>,
    pub timeout: Option<Time>,
    pub grace_period: Option<Time>,
    pub drain_timeout: Option<Time>,
    pub require_drained: bool,
    pub settle: Option<Time>,
    pub ready_timeout: Option<Time>,
    pub lock_timeout: Option<Time>,
    pub catalog: Option<PathBuf>,
    pub config: Option<PathBuf>,
    pub dc: Option<Tag>,
    pub host: Option<Fqdn>,
    /// Whether PHP-FPM tests its configuration before it is restarted; it does unless this says no.
    pub test: Option<bool>,
}

/// Who counts slots.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Slots {
    Poolcounter,
    Etcd,
}

impl File {
    /// Reads the text of the file. The error names the line where that is known.
    pub fn parse(text: &str) -> Result<Self, String> {
        let file: Self = settings_file::parse(text)?;
        if file.retries.is_some_and(|retries| !(1..=10_000).contains(&retries)) {
            return Err("'retries' is not a number from 1 to 10000".to_owned());
        }
        for (name, time) in [("wait", &file.wait), ("lb_timeout", &file.lb_timeout), ("timeout", &file.timeout)] {
            if time.as_ref().is_some_and(|time| time.0.as_millis() == 0) {
                return Err(format!("'{name}' must be at least a millisecond"));
            }
        }
        let paths =
            [("catalog", &file.catalog), ("config", &file.config), ("poolcounter_config", &file.poolcounter_config)];
        for (name, path) in paths {
            if path.as_ref().is_some_and(|path| !path.is_absolute()) {
                return Err(format!("'{name}' is not an absolute path"));
            }
        }
        if file.lb_quorum == Some(0) {
            return Err("'lb_quorum' must be more than zero".to_owned());
        }
        Ok(file)
    }
}

#[cfg(test)]
pub mod tests {
    use std::time::Duration;

    use restart_core::Share;

    use super::*;

    pub const EVERY_KEY: &str = "
pools: [appservers, api-https]
services: [php8.2-fpm, php7.4-fpm.service]
max_concurrency: 10%
slots: etcd
slot_timeout: 5m
poolcounter_config: /etc/pc.yaml
min_pooled: 3
retries: 7
wait: 0.5
lb_timeout: 30
lb_quorum: 1
timeout: 2
grace_period: 0
drain_timeout: 60s
require_drained: true
settle: 1
ready_timeout: 20
lock_timeout: 1m
catalog: /etc/c.yaml
config: /etc/d.yaml
dc: eqiad
host: mw1.eqiad.test
test: false
";

    #[test]
    fn every_key() {
        let file = File::parse(EVERY_KEY).unwrap();
        assert_eq!(file.pools.len(), 2);
        assert_eq!(file.services[1].as_str(), "php7.4-fpm.service");
        assert_eq!(file.max_concurrency, Some(Limit(Share::Percent(10))));
        assert_eq!((file.min_pooled, file.retries), (Some(Limit(Share::Count(3))), Some(7)));
        assert_eq!(
            (file.wait, file.drain_timeout),
            (Some(Time(Duration::from_millis(500))), Some(Time(Duration::from_secs(60))))
        );
        assert_eq!((file.slots, file.test, file.require_drained), (Some(Slots::Etcd), Some(false), true));
    }

    #[test]
    fn an_empty_file_says_nothing() {
        for text in ["", "# nothing\n", "---\n"] {
            assert_eq!(File::parse(text), Ok(File::default()), "{text:?}");
        }
    }

    #[test]
    fn what_is_wrong_is_named_with_its_line() {
        for (text, why) in [
            ("pools: [a]\nmax-concurrency: 1\n", "line 2"),
            ("max_concurency: 1\n", "max_concurency"),
            ("pools: appservers\n", "line 1: 'pools' has to be a list, such as [one, two]"),
            ("pools: [a/b]\n", "a/b"),
            ("services: [php.socket]\n", "php.socket"),
            ("max_concurrency: many\n", "'many' is not a number of hosts"),
            ("max_concurrency: -1\n", "-1"),
            ("wait: 0\n", "'wait' must be at least a millisecond"),
            ("wait: 0.0004\n", "'wait' must be"),
            ("catalog: c.yaml\n", "'catalog' is not an absolute path"),
            ("wait: [1]\n", "line 1"),
            ("retries: 0\n", "'retries'"),
            ("retries: many\n", "line 1: 'retries' has to be a whole number"),
            ("slots: zookeeper\n", "zookeeper"),
            ("require_drained: perhaps\n", "line 1: 'require_drained' has to be true or false"),
            ("- a\n", "line 1: lines of 'key: value' are expected"),
            ("catalog: [x]\n", "line 1: 'catalog' has to be a text"),
            ("host: 5\n", "line 1: '5' has to stand in quotes, to be a text and no number"),
        ] {
            let error = File::parse(text).unwrap_err();
            assert!(error.contains(why), "{text}: {error}");
        }
    }
}
