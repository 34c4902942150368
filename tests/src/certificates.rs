//! A certificate authority for one test, and the certificates it signs, as the PEM files that daemons read.
//!
//! The `openssl` command makes them: it is what an administrator would use, and what is made with it is what rustls, Go
//! and Python must accept.

use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use tempfile::TempDir;

use crate::scratch;

/// A certificate and its key.
#[derive(Clone, Debug)]
pub struct Identity {
    /// The certificate, PEM.
    pub certificate: PathBuf,
    /// The private key, PEM, readable by its owner alone.
    pub key: PathBuf,
}

/// A certificate authority whose files are gone when it is dropped.
#[derive(Debug)]
pub struct Authority {
    folder: TempDir,
    identity: Identity,
}

impl Authority {
    /// A new authority, trusted by nobody yet. Two of them never trust each other's certificates.
    pub fn new() -> Result<Self> {
        let folder = scratch::folder("certificates")?;
        let identity = Identity::in_folder(folder.path(), "ca");
        let extensions = "basicConstraints=critical,CA:TRUE\nkeyUsage=critical,keyCertSign,cRLSign\n";
        issue(folder.path(), "ca", extensions, None)?;
        Ok(Self { folder, identity })
    }

    /// The authority's own certificate: what a client is told to trust.
    #[must_use]
    pub fn certificate(&self) -> &Path {
        &self.identity.certificate
    }

    /// A certificate for a server that is reached by these addresses and names.
    pub fn server(&self, name: &str, addresses: &[IpAddr], names: &[&str]) -> Result<Identity> {
        let addresses = addresses.iter().map(|ip| format!("IP:{ip}"));
        let names = names.iter().map(|name| format!("DNS:{name}"));
        let subject: Vec<String> = addresses.chain(names).collect();
        // etcd's members are clients of each other with the same certificate.
        let extensions = format!(
            "basicConstraints=CA:FALSE\nextendedKeyUsage=serverAuth,clientAuth\nsubjectAltName={}\n",
            subject.join(",")
        );
        issue(self.folder.path(), name, &extensions, Some(&self.identity))
    }

    /// A certificate for a client. etcd takes the name for a user name when no password is given.
    pub fn client(&self, name: &str) -> Result<Identity> {
        let extensions = format!("basicConstraints=CA:FALSE\nextendedKeyUsage=clientAuth\nsubjectAltName=DNS:{name}\n");
        issue(self.folder.path(), name, &extensions, Some(&self.identity))
    }
}

impl Identity {
    fn in_folder(folder: &Path, name: &str) -> Self {
        Self { certificate: folder.join(format!("{name}.pem")), key: folder.join(format!("{name}.key")) }
    }
}

/// Makes a key and a certificate, signed by `issuer` or by itself.
fn issue(folder: &Path, name: &str, extensions: &str, issuer: Option<&Identity>) -> Result<Identity> {
    let identity = Identity::in_folder(folder, name);
    let config = folder.join(format!("{name}.cnf"));
    let text =
        format!("[req]\ndistinguished_name=subject\nx509_extensions=extensions\n[subject]\n[extensions]\n{extensions}");
    fs::write(&config, text).with_context(|| format!("cannot write '{}'", config.display()))?;

    let mut command = Command::new("openssl");
    command
        .args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"])
        .args(["-subj", &format!("/CN={name}")])
        .arg("-config")
        .arg(&config)
        .arg("-keyout")
        .arg(&identity.key)
        .arg("-out")
        .arg(&identity.certificate);
    if let Some(issuer) = issuer {
        command.arg("-CA").arg(&issuer.certificate).arg("-CAkey").arg(&issuer.key);
    }
    let output = command.output().context("cannot run 'openssl'")?;
    ensure!(
        output.status.success(),
        "cannot make a certificate for '{name}': {}",
        String::from_utf8_lossy(&output.stderr).trim()
    );
    Ok(identity)
}
