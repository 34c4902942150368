//! Who keeps the pools: the key `driver` of config.yaml. With etcd the catalog says which pools there are and etcd who is in
//! them; with HAProxy each HAProxy is a store of its own, and the catalog says where each one is.

use std::path::Path;

use crate::catalog::Catalog;
use crate::config::Config;
use crate::load::{LoadError, Read, required};
use crate::settings::Settings;

/// Where pools are kept, checked. Nothing has been contacted yet.
#[derive(Debug)]
pub enum Keeper {
    /// In etcd, through either of its APIs.
    Etcd(Box<Settings>),
    /// In HAProxy: each is asked and told over its runtime API.
    Haproxy(InHaproxy),
}

/// What config.yaml says of pools that HAProxy keeps.
#[derive(Debug)]
pub struct InHaproxy {
    /// The pools, where they stand in config.yaml.
    pools: Option<Catalog>,
    read_only: bool,
}

impl Keeper {
    /// Loads `config` (`/etc/conftool/config.yaml`), and for etcd the files that belong to it, as [`Settings::load`] does.
    pub fn load<E>(config: &Path, home: Option<&Path>, read: Read<'_, E>) -> Result<Self, LoadError<E>> {
        Ok(match Config::parse(config, &required(config, read)?)? {
            Config::Etcd(parsed) => Self::Etcd(Box::new(Settings::of(parsed, config, home, read)?)),
            Config::Haproxy { pools, read_only } => Self::Haproxy(InHaproxy { pools, read_only }),
        })
    }

    /// The pools that there are: those of config.yaml where it has them, else those of the catalog at `path`.
    pub fn catalog<E>(&self, path: &Path, read: Read<'_, E>) -> Result<Catalog, LoadError<E>> {
        match self {
            Self::Etcd(_) => Catalog::load(path, read),
            Self::Haproxy(InHaproxy { pools: Some(pools), .. }) => Ok(pools.clone()),
            Self::Haproxy(InHaproxy { pools: None, .. }) => Catalog::load(path, read).map(Catalog::in_haproxy),
        }
    }

    /// Whether config.yaml says that nothing may be written (`read_only`).
    pub fn read_only(&self) -> bool {
        match self {
            Self::Etcd(settings) => settings.read_only(),
            Self::Haproxy(in_haproxy) => in_haproxy.read_only,
        }
    }

    /// Whether slots can be kept there: only etcd's v3 API has leases.
    pub fn has_leases(&self) -> bool {
        match self {
            Self::Etcd(settings) => settings.has_leases(),
            Self::Haproxy(_) => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use restart_core::PoolName;

    use super::*;

    const CONFIG: &str = "/etc/conftool/config.yaml";
    const CATALOG: &str = "/etc/conftool/local_services.yaml";

    /// The servers of the pool `web`, or what is wrong.
    fn servers(files: &[(&str, &str)]) -> Result<Vec<String>, String> {
        let files: HashMap<&str, &str> = files.iter().copied().collect();
        let read = |path: &Path| -> Result<Option<String>, String> {
            Ok(files.get(path.to_str().unwrap()).map(|text| (*text).to_owned()))
        };
        let keeper = Keeper::load(Path::new(CONFIG), None, &read).map_err(|error| error.to_string())?;
        let catalog = keeper.catalog(Path::new(CATALOG), &read).map_err(|error| error.to_string())?;
        let pools = catalog.pools(&[PoolName::new("web").unwrap()]).map_err(|error| error.to_string())?;
        Ok(pools.iter().flat_map(|pool| &pool.balancers).map(ToString::to_string).collect())
    }

    #[test]
    fn the_pools_of_config_yaml_are_taken_where_it_has_them_and_else_the_catalogs() {
        let own = (CONFIG, "driver: haproxy\npools: {web: {port: 80, servers: ['own:1']}}");
        let none = (CONFIG, "driver: haproxy");
        let catalog = (CATALOG, "web: {port: 80, servers: ['other:1']}");
        assert_eq!(servers(&[own]).unwrap(), ["own:1"]);
        assert_eq!(servers(&[own, catalog]).unwrap(), ["own:1"]);
        assert_eq!(servers(&[none, catalog]).unwrap(), ["other:1"]);
        let missing = |path| format!("'{path}' does not exist; what it has to say is in safe-service-restart-files(5)");
        assert_eq!(servers(&[none]).unwrap_err(), missing(CATALOG));
        assert_eq!(servers(&[catalog]).unwrap_err(), missing(CONFIG));
        // In etcd it would take more than that to be a pool.
        assert!(servers(&[(CONFIG, ""), catalog]).unwrap_err().contains("it has no 'cluster'"));
    }
}
