//! TLS files, checked when they are loaded. Both client libraries take a CA file without a certificate in silence and fail
//! every connection later; one of them panics at a key that does not belong to its certificate. So everything is parsed here
//! first, and a fault names the file.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};

use crate::load::{Invalid, LoadError, Read, required};
use crate::secret::Password;

/// The system's CA bundle, where Debian keeps it. python-etcd verifies nothing when `ca_cert` is not set; we verify always,
/// and this is against what.
pub(crate) const SYSTEM_CA: &str = "/etc/ssl/certs/ca-certificates.crt";

/// Which files: the keys `ca_cert` and `cert` of an etcdrc file.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct TlsFiles {
    /// The certificates to trust; `None` means the system's.
    pub(crate) ca: Option<PathBuf>,
    /// Our own certificate, if the store wants one.
    pub(crate) cert: Option<CertFiles>,
}

/// Our own certificate and its key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct CertFiles {
    /// The certificate, with its chain.
    pub(crate) cert: PathBuf,
    /// The key; the same file when both are in one.
    pub(crate) key: PathBuf,
}

/// The files' content: PEM that is known to parse.
#[derive(Debug, Clone)]
pub(crate) struct Tls {
    /// Certificates to trust.
    pub(crate) roots: String,
    /// Our certificate and key.
    pub(crate) identity: Option<Identity>,
}

/// Our own certificate and the key that belongs to it, as PEM.
#[derive(Debug, Clone)]
pub(crate) struct Identity {
    /// The certificate, with its chain.
    pub(crate) cert: String,
    /// The key, which is as secret as a password.
    pub(crate) key: Password,
}

impl TlsFiles {
    /// Reads the files and checks them.
    pub(crate) fn load<E>(&self, read: Read<'_, E>) -> Result<Tls, LoadError<E>> {
        let ca = self.ca.as_deref().unwrap_or(Path::new(SYSTEM_CA));
        let roots = needed(ca, read)?;
        let store = root_store(ca, &roots, self.ca.is_some())?;
        let identity = match &self.cert {
            None => None,
            Some(files) => {
                let cert = needed(&files.cert, read)?;
                let key = if files.key == files.cert { cert.clone() } else { needed(&files.key, read)? };
                check_identity(files, &cert, &key, store)?;
                let key = Password::new(key);
                Some(Identity { cert, key })
            }
        };
        Ok(Tls { roots, identity })
    }
}

/// Reads a file that another file names, or the system's bundle: that it is missing is a fault of that other file.
fn needed<E>(path: &Path, read: Read<'_, E>) -> Result<String, LoadError<E>> {
    required(path, read).map_err(|error| match error {
        LoadError::Missing(path) => {
            let remedy = match path == Path::new(SYSTEM_CA) {
                true => ": install 'ca-certificates', or name a 'ca_cert' in an etcdrc file",
                false => "",
            };
            LoadError::Invalid(Invalid::new(&path, format!("needed for TLS, and does not exist{remedy}")))
        }
        other => other,
    })
}

/// The certificates of a CA file. In one that was named each must be good; the system's bundle may hold some that are not.
fn root_store(file: &Path, pem: &str, strict: bool) -> Result<RootCertStore, Invalid> {
    let mut store = RootCertStore::empty();
    for found in CertificateDer::pem_slice_iter(pem.as_bytes()) {
        let added = match found {
            Ok(certificate) => store.add(certificate).map_err(|error| error.to_string()),
            Err(error) => Err(error.to_string()),
        };
        if let (Err(why), true) = (added, strict) {
            return Err(Invalid::new(file, format!("not a CA certificate: {why}")));
        }
    }
    if store.is_empty() {
        return Err(Invalid::new(file, "there is no certificate in it"));
    }
    Ok(store)
}

/// Checks that certificate and key parse and belong together.
fn check_identity(files: &CertFiles, cert: &str, key: &str, roots: RootCertStore) -> Result<(), Invalid> {
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(cert.as_bytes()).collect();
    let chain = match chain {
        Ok(chain) if chain.is_empty() => return Err(Invalid::new(&files.cert, "there is no certificate in it")),
        Ok(chain) => chain,
        Err(_) => return Err(Invalid::new(&files.cert, "the certificate in it is damaged")),
    };
    // The library's error might quote the key: it is not shown.
    let key = PrivateKeyDer::from_pem_slice(key.as_bytes())
        .map_err(|_| Invalid::new(&files.key, "there is no private key in it that can be read"))?;
    let config = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| Invalid::new(&files.cert, error))?
        .with_root_certificates(roots)
        .with_client_auth_cert(chain, key);
    match config {
        Ok(_) => Ok(()),
        Err(_) => Err(Invalid::new(
            &files.key,
            format!("not a private key that belongs to the certificate in '{}'", files.cert.display()),
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn that_the_system_has_no_certificates_is_said_with_what_helps() {
        let error = TlsFiles::default().load::<String>(&|_| Ok(None)).unwrap_err().to_string();
        assert!(error.starts_with(&format!("'{SYSTEM_CA}': needed for TLS")), "{error}");
        assert!(error.ends_with(": install 'ca-certificates', or name a 'ca_cert' in an etcdrc file"), "{error}");
    }
}
