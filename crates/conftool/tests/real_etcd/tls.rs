//! Certificates for the tests, made with `openssl`: a CA, a server's, a client's, and a second CA that nobody trusts.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A certificate and its key.
pub(crate) struct Pair {
    pub(crate) cert: PathBuf,
    pub(crate) key: PathBuf,
}

/// All of them.
pub(crate) struct Certificates {
    pub(crate) ca: PathBuf,
    pub(crate) other_ca: PathBuf,
    pub(crate) server: Pair,
    pub(crate) client: Pair,
}

impl Certificates {
    /// Makes them in `dir`; the server's is good for `addresses`.
    pub(crate) fn make(dir: &Path, addresses: &[String]) -> Self {
        fs::create_dir_all(dir).expect("a directory");
        let ca = authority(dir, "ca");
        let other_ca = authority(dir, "other-ca").cert;
        let names: Vec<String> = addresses.iter().map(|address| format!("IP:{address}")).collect();
        let server = signed(dir, "server", &ca, &format!("subjectAltName={}", names.join(",")));
        let client = signed(dir, "client", &ca, "extendedKeyUsage=clientAuth");
        Self { ca: ca.cert, other_ca, server, client }
    }
}

fn pair(dir: &Path, name: &str) -> Pair {
    Pair { cert: dir.join(format!("{name}.pem")), key: dir.join(format!("{name}.key")) }
}

fn authority(dir: &Path, name: &str) -> Pair {
    let pair = pair(dir, name);
    let mut command = request(&pair, &format!("/CN={name}"));
    command.args(["-x509", "-days", "2", "-addext", "keyUsage=critical,keyCertSign", "-out"]).arg(&pair.cert);
    run(command);
    pair
}

fn signed(dir: &Path, name: &str, ca: &Pair, extensions: &str) -> Pair {
    let pair = pair(dir, name);
    let (csr, ext) = (dir.join(format!("{name}.csr")), dir.join(format!("{name}.ext")));
    fs::write(&ext, extensions).expect("an extension file");
    let mut command = request(&pair, &format!("/CN={name}"));
    command.arg("-out").arg(&csr);
    run(command);
    let mut command = Command::new("openssl");
    command.args(["x509", "-req", "-days", "2", "-CAcreateserial"]).arg("-in").arg(&csr);
    command.arg("-CA").arg(&ca.cert).arg("-CAkey").arg(&ca.key);
    command.arg("-extfile").arg(&ext).arg("-out").arg(&pair.cert);
    run(command);
    pair
}

fn request(pair: &Pair, subject: &str) -> Command {
    let mut command = Command::new("openssl");
    command.args(["req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-subj", subject]);
    command.arg("-keyout").arg(&pair.key);
    command
}

fn run(mut command: Command) {
    let output = command.output().expect("openssl");
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}
