//! A site as it is deployed to: one host more, from which the deploy user comes over ssh, and on the others `restart-php-fpm` with its
//! file and the shipped rule of sudo.

use std::path::{Path, PathBuf};

use anyhow::Result;

use crate::conftool::HostFile;
use crate::site::{Builder, DC, PAGES, POOL_FILE, Site};
use crate::{prepared, ssh};

/// The rule.
const RULE: &str = include_str!("../../sudoers.d/restart-php-fpm");

/// clush, and the Python that runs it, which a host does not have: this machine's, which is the same Debian.
const CLUSH: [&str; 5] =
    ["/usr/bin/clush", "/usr/bin/python3", "/usr/lib/python3", "/usr/lib/python3.11", "/etc/clustershell"];

/// What it takes.
#[derive(Clone, Debug)]
pub struct Deployment {
    settings: String,
    rolling_restart: PathBuf,
}

impl Deployment {
    /// With this as `/etc/restart-php-fpm.yaml`.
    pub fn new(settings: &str) -> Result<Self> {
        Ok(Self { settings: settings.to_owned(), rolling_restart: prepared::product_binary("rolling-restart")? })
    }

    /// Adds it to a site. Once that has booted, [`open`] lets the deploy user in.
    #[must_use]
    pub fn in_front_of(self, site: Builder) -> Builder {
        let Self { settings, rolling_restart } = self;
        site.binaries(&["safe-service-restart", "restart-php-fpm"])
            .each_host(move |host| {
                ssh::listening(host)
                    .file(POOL_FILE, PAGES)
                    .file("/etc/restart-php-fpm.yaml", &settings)
                    .files([HostFile::new("/etc/sudoers.d/restart-php-fpm", RULE).mode(0o440)])
            })
            .beside(&format!("deploy1.{DC}.test"), move |host| {
                let host = host.binary(&rolling_restart);
                CLUSH.iter().fold(host, |host, path| host.bind_read_only(Path::new(path), path))
            })
    }
}

/// Makes the deploy user on all hosts, who may then come from the one to the others, and read there where the store is.
pub fn open(site: &Site) -> Result<()> {
    ssh::open(site.beside()?, site.hosts())?;
    // There is no password in it here, and whoever deploys is not root.
    site.beside()?.exec(&["chmod", "0644", "/etc/conftool/etcdrc"])?.success()?;
    Ok(())
}
