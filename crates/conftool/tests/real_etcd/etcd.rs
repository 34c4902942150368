//! Clusters of real etcd (Debian's 3.4), each on loopback addresses of its own and in a directory of its own, gone when the
//! value is dropped. Keys are set and read with `etcdctl`, so that nothing under test vouches for itself.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::tls::Certificates;

/// Which of etcd's APIs a test speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Api {
    V2,
    V3,
}

impl Api {
    /// The driver's name in config.yaml.
    pub(crate) fn driver(self) -> &'static str {
        match self {
            Self::V2 => "etcd",
            Self::V3 => "etcd3",
        }
    }
}

/// A loopback address that no other test of this process uses, nor, most likely, one of another process.
pub(crate) fn own_address() -> String {
    static NEXT: AtomicU8 = AtomicU8::new(1);
    let pid = std::process::id();
    let last = NEXT.fetch_add(1, Ordering::Relaxed);
    format!("127.{}.{}.{last}", 1 + (pid >> 8) % 250, pid % 256)
}

/// A cluster; its members listen at port 2379, each at an address of its own.
pub(crate) struct Etcd {
    pub(crate) members: Vec<Member>,
    pub(crate) dir: TempDir,
    tls: Option<Certificates>,
}

/// One process of a cluster.
pub(crate) struct Member {
    pub(crate) address: String,
    pub(crate) url: String,
    arguments: Vec<String>,
    log: PathBuf,
    child: Option<Child>,
}

/// What kind of cluster.
#[derive(Clone, Copy, Default)]
pub(crate) struct Kind {
    pub(crate) members: usize,
    pub(crate) tls: bool,
    pub(crate) wants_client_certificates: bool,
    pub without_v2: bool,
    /// More options of each member.
    pub(crate) arguments: &'static [&'static str],
}

impl Etcd {
    /// One member, both APIs, no TLS.
    pub(crate) fn single() -> Self {
        Self::start(Kind::default())
    }

    /// Three members.
    pub(crate) fn three() -> Self {
        Self::start(Kind { members: 3, ..Kind::default() })
    }

    pub(crate) fn start(kind: Kind) -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let addresses: Vec<String> = (0..kind.members.max(1)).map(|_| own_address()).collect();
        let tls = kind.tls.then(|| Certificates::make(&dir.path().join("tls"), &addresses));
        let scheme = if kind.tls { "https" } else { "http" };
        let peers: Vec<String> =
            addresses.iter().enumerate().map(|(i, address)| format!("m{i}=http://{address}:2380")).collect();
        let members = addresses.iter().enumerate().map(|(i, address)| {
            let url = format!("{scheme}://{address}:2379");
            let peer = format!("http://{address}:2380");
            let mut arguments: Vec<String> = [
                ("name", format!("m{i}")),
                ("data-dir", dir.path().join(format!("m{i}")).display().to_string()),
                ("listen-client-urls", url.clone()),
                ("advertise-client-urls", url.clone()),
                ("listen-peer-urls", peer.clone()),
                ("initial-advertise-peer-urls", peer),
                ("initial-cluster", peers.join(",")),
                ("enable-v2", (!kind.without_v2).to_string()),
            ]
            .iter()
            .map(|(name, value)| format!("--{name}={value}"))
            .collect();
            if let Some(tls) = &tls {
                arguments.push(format!("--cert-file={}", tls.server.cert.display()));
                arguments.push(format!("--key-file={}", tls.server.key.display()));
                if kind.wants_client_certificates {
                    arguments.push("--client-cert-auth".to_owned());
                    arguments.push(format!("--trusted-ca-file={}", tls.ca.display()));
                }
            }
            arguments.extend(kind.arguments.iter().map(ToString::to_string));
            Member { address: address.clone(), url, arguments, log: dir.path().join(format!("m{i}.log")), child: None }
        });
        let members = members.collect();
        let mut etcd = Self { members, dir, tls };
        etcd.members.iter_mut().for_each(Member::start);
        etcd.wait_until_healthy();
        etcd
    }

    pub(crate) fn certificates(&self) -> &Certificates {
        self.tls.as_ref().expect("a cluster with TLS")
    }

    /// Waits until a quorum answers a linearised read.
    pub(crate) fn wait_until_healthy(&self) {
        let end = Instant::now() + Duration::from_secs(60);
        loop {
            match self.try_ctl(Api::V3, &["get", "health-of-the-test"]) {
                Ok(_) => return,
                Err(error) if Instant::now() > end => {
                    let logs: Vec<String> = self.members.iter().map(Member::log).collect();
                    panic!("etcd does not become healthy: {error}\n{}", logs.join("\n"));
                }
                Err(_) => std::thread::sleep(Duration::from_millis(50)),
            }
        }
    }

    /// Runs `etcdctl` against the members that run.
    pub(crate) fn try_ctl(&self, api: Api, arguments: &[&str]) -> Result<String, String> {
        let running: Vec<&str> =
            self.members.iter().filter(|member| member.child.is_some()).map(|member| member.url.as_str()).collect();
        let mut command = Command::new("etcdctl");
        command.arg("--endpoints").arg(running.join(","));
        command.env("ETCDCTL_API", if api == Api::V2 { "2" } else { "3" });
        if let Some(tls) = &self.tls {
            let v2 = api == Api::V2;
            command.arg(if v2 { "--ca-file" } else { "--cacert" }).arg(&tls.ca);
            command.arg(if v2 { "--cert-file" } else { "--cert" }).arg(&tls.client.cert);
            command.arg(if v2 { "--key-file" } else { "--key" }).arg(&tls.client.key);
        }
        let output = command.args(arguments).stdin(Stdio::null()).output().expect("etcdctl (package etcd-client)");
        if output.status.success() {
            Ok(String::from_utf8_lossy(&output.stdout).into_owned())
        } else {
            Err(format!("etcdctl {arguments:?}: {}", String::from_utf8_lossy(&output.stderr)))
        }
    }

    pub(crate) fn ctl(&self, api: Api, arguments: &[&str]) -> String {
        self.try_ctl(api, arguments).unwrap_or_else(|error| panic!("{error}"))
    }

    /// Sets a key whatever it holds.
    pub(crate) fn set(&self, api: Api, key: &str, value: &str) {
        self.ctl(api, &[if api == Api::V2 { "set" } else { "put" }, key, value]);
    }

    /// Deletes a key.
    pub(crate) fn delete(&self, api: Api, key: &str) {
        self.ctl(api, &[if api == Api::V2 { "rm" } else { "del" }, key]);
    }

    /// What a key holds, byte for byte.
    pub(crate) fn value(&self, api: Api, key: &str) -> String {
        let printed = match api {
            Api::V2 => self.ctl(api, &["get", "--quorum", key]),
            Api::V3 => self.ctl(api, &["get", "--print-value-only", key]),
        };
        printed.strip_suffix('\n').unwrap_or(&printed).to_owned()
    }
}

impl Member {
    pub(crate) fn start(&mut self) {
        let log = File::options().create(true).append(true).open(&self.log).expect("a log file");
        let child = Command::new("etcd")
            .args(&self.arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("etcd (package etcd-server)");
        self.child = Some(child);
    }

    /// SIGKILL.
    pub(crate) fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// SIGSTOP: connections are accepted by the kernel, and nothing answers.
    pub(crate) fn freeze(&self) {
        self.signal("-STOP");
    }

    /// SIGCONT.
    pub(crate) fn thaw(&self) {
        self.signal("-CONT");
    }

    fn signal(&self, signal: &str) {
        let pid = self.child.as_ref().expect("a running member").id().to_string();
        let status = Command::new("kill").args([signal, &pid]).status().expect("kill");
        assert!(status.success(), "kill {signal} {pid}");
    }

    fn log(&self) -> String {
        let text = std::fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(5)..].join("\n")
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Files of a configuration, as the caller's reader finds them.
pub(crate) fn reader(dir: &Path) -> impl Fn(&Path) -> Result<Option<String>, String> + use<> {
    let dir = dir.to_owned();
    move |path| {
        // Only what the test wrote exists: the machine's own /etc must not matter.
        if !path.starts_with(&dir) {
            return Ok(None);
        }
        match std::fs::read_to_string(path) {
            Ok(text) => Ok(Some(text)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error.to_string()),
        }
    }
}
