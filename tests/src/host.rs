//! A host that really boots: systemd, PHP-FPM, nginx, journald, in `systemd-nspawn`, within a second.
//!
//! Hosts share the machine's network and listen on loopback addresses of their own. Each writes to an overlay of its own
//! over the one root file system, so what a host writes survives its reboot and its power cut, and ends with the value.
//! The overlay is mounted in a mount namespace of its own: it is gone with the host's last process, whatever happens to
//! us. Each host also has a control group of its own, or two systemds would count each other's processes.

use std::ffi::OsStr;
use std::fmt;
use std::fs;
use std::io::Read;
use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Child, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use nix::sys::signal::{self, Signal};
use nix::unistd::Pid;
use tempfile::TempDir;

use crate::address::Address;
use crate::conftool::HostFile;
use crate::process::{self, Daemon};
use crate::{prepared, scratch, wait};

/// Hosts that may be up at once in one test process (a test that needs more by itself gets them): more than that and a small machine only measures its own load.
const HOSTS_AT_ONCE: usize = 6;

const BOOT_LIMIT: Duration = Duration::from_secs(60);
/// A power-off stops every service first.
const STOP_LIMIT: Duration = Duration::from_secs(30);
/// What a command may take unless a test says otherwise.
const EXEC_LIMIT: Duration = Duration::from_secs(60);
/// Commands are timed by whoever waits for their end.
const END_PACE: Duration = Duration::from_millis(1);

/// Where control groups live: v2 alone, or the hybrid in which systemd uses two of them.
const CGROUP_ROOTS: [&str; 3] = ["/sys/fs/cgroup", "/sys/fs/cgroup/unified", "/sys/fs/cgroup/systemd"];

/// What runs in the new mount namespace before nspawn takes its place: enter the control group, mount the overlay.
/// Arguments: the group's name, the root file system, the host's folder, then nspawn's arguments.
const PREPARE_AND_EXEC: &str = r#"
group=$1 rootfs=$2 folder=$3
shift 3
for root in /sys/fs/cgroup /sys/fs/cgroup/unified /sys/fs/cgroup/systemd; do
  if [ -e "$root/cgroup.procs" ]; then
    mkdir -p "$root/$group"
    echo $$ >"$root/$group/cgroup.procs"
  fi
done
mount -t overlay overlay -o "lowerdir=$rootfs,upperdir=$folder/upper,workdir=$folder/work" "$folder/root"
exec systemd-nspawn --quiet --directory="$folder/root" "$@"
"#;

/// How to make a host.
#[derive(Clone, Debug)]
pub struct Builder {
    name: String,
    address: Address,
    names: Vec<(String, IpAddr)>,
    files: Vec<HostFile>,
    binds: Vec<String>,
}

impl Builder {
    /// The host's name, with its domain.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The host's address, to be told to others before it boots.
    #[must_use]
    pub fn address(&self) -> &Address {
        &self.address
    }

    /// A line in its /etc/hosts.
    #[must_use]
    pub fn knows(mut self, name: &str, address: IpAddr) -> Self {
        self.names.push((name.to_owned(), address));
        self
    }

    /// A file that everyone may read.
    #[must_use]
    pub fn file(self, path: &str, content: &str) -> Self {
        self.files([HostFile::new(path, content)])
    }

    /// Any files.
    #[must_use]
    pub fn files(mut self, files: impl IntoIterator<Item = HostFile>) -> Self {
        self.files.extend(files);
        self
    }

    /// A unit of systemd's: `unit("crashing.service", "[Service]\n...")`. Not started by itself.
    #[must_use]
    pub fn unit(self, name: &str, text: &str) -> Self {
        self.file(&format!("/etc/systemd/system/{name}"), text)
    }

    /// A drop-in for a unit: `drop_in("php8.2-fpm.service", "slow.conf", "[Service]\n...")`.
    #[must_use]
    pub fn drop_in(self, unit: &str, name: &str, text: &str) -> Self {
        self.file(&format!("/etc/systemd/system/{unit}.d/{name}"), text)
    }

    /// A binary of this machine in the host's /usr/sbin.
    #[must_use]
    pub fn binary(self, path: &Path) -> Self {
        let name = path.file_name().unwrap_or(OsStr::new("")).to_string_lossy().into_owned();
        self.bind_read_only(path, &format!("/usr/sbin/{name}"))
    }

    /// A file or folder of this machine, which the host cannot change.
    #[must_use]
    pub fn bind_read_only(mut self, from: &Path, to: &str) -> Self {
        self.binds.push(format!("--bind-ro={}:{to}", from.display()));
        self
    }

    /// A file or folder of this machine, which the host can change.
    #[must_use]
    pub fn bind(mut self, from: &Path, to: &str) -> Self {
        self.binds.push(format!("--bind={}:{to}", from.display()));
        self
    }

    /// Boots it, and waits until all its services run. A test that needs several hosts uses [`boot_all`].
    pub fn boot(self) -> Result<Host> {
        boot_all(vec![self])?.pop().context("no host was booted")
    }

    fn boot_with(self, permit: Permit) -> Result<Host> {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let rootfs = prepared::rootfs()?;
        let folder = scratch::folder("host")?;
        // Not private: processes of the host that are not root must get through to their own files.
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755))?;
        for name in ["upper", "work", "root"] {
            fs::create_dir(folder.path().join(name))?;
        }
        let unique = format!("testbed-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let Self { name, address, names, files, binds } = self;
        let mut host = Host { name, address, binds, rootfs, unique, running: None, folder, _permit: permit };
        for file in host.own_files(&names) {
            host.put(&file)?;
        }
        for file in &files {
            host.put(file)?;
        }
        host.boot_again()?;
        Ok(host)
    }
}

/// Boots several hosts at the same time, once as many may be up. They are returned in the order given.
pub fn boot_all(builders: Vec<Builder>) -> Result<Vec<Host>> {
    let permits = Permit::take(builders.len());
    thread::scope(|scope| {
        let boots: Vec<_> = builders
            .into_iter()
            .zip(permits)
            .map(|(builder, permit)| scope.spawn(move || builder.boot_with(permit)))
            .collect();
        // Every one is waited for, also after a failure, so that those that did boot are turned off.
        let hosts: Vec<Result<Host>> = boots
            .into_iter()
            .map(|boot| boot.join().unwrap_or_else(|_| Err(anyhow::anyhow!("a boot panicked"))))
            .collect();
        hosts.into_iter().collect()
    })
}

/// A host; its power is cut when this is dropped.
pub struct Host {
    name: String,
    address: Address,
    binds: Vec<String>,
    rootfs: PathBuf,
    /// The name of its control group, and of its machine for nspawn.
    unique: String,
    /// None while it is off.
    running: Option<Power>,
    // After `running`: its processes end before its files go.
    folder: TempDir,
    _permit: Permit,
}

struct Power {
    nspawn: Daemon,
    /// The host's process 1, by our numbers.
    init: Pid,
}

impl Host {
    /// A host with this name (`mw1.eqiad.test`) and an address of its own.
    pub fn builder(name: &str) -> Result<Builder> {
        Ok(Builder {
            name: name.to_owned(),
            address: Address::reserve()?,
            names: Vec::new(),
            files: Vec::new(),
            binds: Vec::new(),
        })
    }

    /// The name with its domain.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its address.
    #[must_use]
    pub fn address(&self) -> &Address {
        &self.address
    }

    /// Where its web server listens.
    #[must_use]
    pub fn web(&self) -> SocketAddr {
        self.address.port(80)
    }

    /// Runs a command as root, with the clean environment that a login gives, and waits for its end, for a minute at most.
    pub fn exec(&self, command: &[&str]) -> Result<Output> {
        self.exec_within(command, EXEC_LIMIT)
    }

    /// Runs a command and waits for its end; kills it after `limit`, which is an error.
    pub fn exec_within(&self, command: &[&str], limit: Duration) -> Result<Output> {
        self.spawn(command)?.wait(limit)
    }

    /// Starts a command as root and lets it run.
    pub fn spawn(&self, command: &[&str]) -> Result<Running> {
        let init = self.init()?;
        // Whoever runs the tests may ignore signals (nohup does, and a shell does so for what it puts in the background);
        // nsenter and the command would inherit that.
        let mut nsenter = process::mortal("env", Signal::SIGKILL);
        nsenter
            .args(["--default-signal", "nsenter", "--target", &init.to_string(), "--all", "--"])
            .args(["/usr/bin/env", "--ignore-environment"])
            .args(["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root", "USER=root"])
            .args(["LOGNAME=root", "SHELL=/bin/bash", "LANG=C.UTF-8"])
            .args(command)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let what = format!("{}# {}", self.name, command.join(" "));
        let child = process::spawn(nsenter).with_context(|| format!("cannot start '{what}'"))?;
        Ok(Running::new(what, child))
    }

    /// Writes a file on the running host.
    pub fn write(&self, path: &str, content: &str) -> Result<()> {
        let folder = Path::new(path).parent().unwrap_or(Path::new("/")).display().to_string();
        // Handed over as a file: a command line is limited, and standard input is nobody's.
        let name = format!("handed-over-{}", self.unique);
        fs::write(self.proc_root()?.join("run").join(&name), content)?;
        let from = format!("/run/{name}");
        let script = r#"mkdir -p "$1" && cat "$2" >"$3" && rm "$2""#;
        self.exec(&["sh", "-c", script, "sh", &folder, &from, path])?.success()?;
        Ok(())
    }

    /// Reads a file of the running host.
    pub fn read(&self, path: &str) -> Result<String> {
        self.exec(&["cat", path])?.success()
    }

    /// What `systemctl show` says of one property of a unit: `property("php8.2-fpm", "MainPID")`.
    pub fn property(&self, unit: &str, property: &str) -> Result<String> {
        let answer = self.exec(&["systemctl", "show", "--value", "--property", property, unit])?.success()?;
        Ok(answer.trim_end().to_owned())
    }

    /// The journal's lines with this tag, oldest first, the messages alone.
    pub fn journal(&self, tag: &str) -> Result<Vec<String>> {
        let text = self.exec(&["journalctl", "--sync", "--quiet"]).and_then(|_| {
            self.exec(&["journalctl", "--quiet", "--no-pager", "--output=cat", "--identifier", tag])?.success()
        })?;
        Ok(text.lines().map(ToOwned::to_owned).collect())
    }

    /// Turns it off properly: every service is stopped first.
    pub fn stop(&mut self) -> Result<()> {
        let Some(power) = &mut self.running else { return Ok(()) };
        power.nspawn.signal(Signal::SIGTERM)?;
        let stopped = power.nspawn.wait(STOP_LIMIT);
        // Whatever is left of it goes now.
        self.power_cut()?;
        stopped.map(|_| ()).with_context(|| format!("'{}' did not turn off", self.name))
    }

    /// Cuts its power: every process is gone at once.
    pub fn power_cut(&mut self) -> Result<()> {
        let Some(mut power) = self.running.take() else { return Ok(()) };
        // nspawn ends by itself when init has; killed alone, it would leave the host running. While it runs, its child's
        // number is nobody else's.
        let init = match power.nspawn.ended()? {
            None => children(power.nspawn.pid())?.into_iter().find(|child| is_init(*child)),
            Some(_) => None,
        };
        if let Some(init) = init {
            signal::kill(init, Signal::SIGKILL).context("cannot kill the host's init")?;
            // It collects its init; killed before that, it would leave its control group behind.
            let _ = power.nspawn.wait(Duration::from_secs(2));
        }
        power.nspawn.kill()?;
        self.remove_cgroups()
    }

    /// Boots it again, with the files it had when it went off.
    pub fn boot_again(&mut self) -> Result<()> {
        ensure!(self.running.is_none(), "'{}' is running", self.name);
        let nspawn = self.start_nspawn()?;
        // From here on a failure finds the host in `running` and cleans up.
        self.running = Some(Power { nspawn, init: Pid::from_raw(0) });
        let booted = self.wait_for_init().and_then(|()| self.wait_until_up());
        if booted.is_err() {
            self.power_cut()?;
        }
        booted
    }

    fn init(&self) -> Result<Pid> {
        Ok(self.running.as_ref().with_context(|| format!("'{}' is off", self.name))?.init)
    }

    fn proc_root(&self) -> Result<PathBuf> {
        Ok(PathBuf::from(format!("/proc/{}/root", self.init()?)))
    }

    fn start_nspawn(&self) -> Result<Daemon> {
        let short = self.name.split('.').next().unwrap_or(&self.name);
        let script_arguments: [&OsStr; 3] = [self.unique.as_ref(), self.rootfs.as_ref(), self.folder.path().as_ref()];
        // At our death nspawn is asked to turn the host off; killed, it would leave the host running.
        let mut command = process::mortal("setsid", Signal::SIGTERM);
        command
            .args(["unshare", "--mount", "--propagation", "private", "sh", "-ec", PREPARE_AND_EXEC, "sh"])
            .args(script_arguments)
            .args(["--register=no", "--keep-unit", "--link-journal=no", "--resolv-conf=off", "--timezone=off"])
            .args(["--console=pipe", &format!("--machine={}", self.unique), &format!("--hostname={short}")])
            .args(&self.binds)
            .arg("--boot");
        Daemon::adopt(&self.name, command, &self.folder.path().join("console"))
    }

    fn wait_for_init(&mut self) -> Result<()> {
        let power = self.running.as_mut().context("the host is off")?;
        let nspawn = power.nspawn.pid();
        let mut init = None;
        power.nspawn.wait_ready(BOOT_LIMIT, || {
            init = children(nspawn)?.into_iter().find(|child| is_init(*child));
            Ok(init.is_some())
        })?;
        power.init = init.context("a host without an init")?;
        Ok(())
    }

    fn wait_until_up(&self) -> Result<()> {
        let up = wait::until(&format!("'{}' to boot", self.name), BOOT_LIMIT, || {
            // Before init is ready this fails in various ways, none of which matters.
            let state = self.exec(&["systemctl", "is-system-running"])?.stdout;
            match state.trim() {
                "running" | "degraded" => Ok(true),
                _ => Ok(false),
            }
        });
        up.with_context(|| self.console())?;
        let failed = self.exec(&["systemctl", "--failed", "--plain", "--no-legend", "list-units"])?.success()?;
        if failed.trim().is_empty() {
            return Ok(());
        }
        let journal = self.exec(&["journalctl", "--no-pager", "--priority=warning", "--lines=30"])?.stdout;
        bail!("'{}' booted with failed units:\n{failed}{journal}", self.name)
    }

    fn console(&self) -> String {
        let words = self.running.as_ref().map(|power| power.nspawn.last_words()).unwrap_or_default();
        format!("the console's last lines are:\n{words}")
    }

    /// The files that make this host this host.
    fn own_files(&self, names: &[(String, IpAddr)]) -> Vec<HostFile> {
        let mut hosts = String::from("127.0.0.1 localhost\n");
        let own = (self.name.clone(), self.address.ip());
        for (name, ip) in [&own].into_iter().chain(names) {
            let short = name.split('.').next().unwrap_or(name);
            // The full name first: it is the canonical one.
            hosts.push_str(&if short == name { format!("{ip} {name}\n") } else { format!("{ip} {name} {short}\n") });
        }
        let site = format!(
            "server {{\n  listen {};\n  root /var/www/html;\n  index index.php;\n\
             \x20 location ~ \\.php$ {{\n    try_files $uri =404;\n    include fastcgi_params;\n\
             \x20   fastcgi_param SCRIPT_FILENAME $document_root$fastcgi_script_name;\n\
             \x20   fastcgi_pass unix:/run/php/php8.2-fpm.sock;\n  }}\n}}\n",
            self.web()
        );
        vec![HostFile::new("/etc/hosts", hosts), HostFile::new("/etc/nginx/sites-enabled/testbed", site)]
    }

    /// Puts a file into the overlay of a host that is off. Folders that the root file system has keep their owner and
    /// permissions: the overlay's copy of a folder replaces these.
    fn put(&self, file: &HostFile) -> Result<()> {
        let relative =
            file.path.strip_prefix("/").with_context(|| format!("'{}' is not absolute", file.path.display()))?;
        let upper = self.folder.path().join("upper");
        let mut folder = PathBuf::new();
        for part in relative.parent().into_iter().flat_map(Path::components) {
            folder.push(part);
            let made = upper.join(&folder);
            if made.exists() {
                continue;
            }
            fs::create_dir(&made).with_context(|| format!("cannot make '{}'", made.display()))?;
            let (mode, uid, gid) = match fs::symlink_metadata(self.rootfs.join(&folder)) {
                Ok(original) => {
                    ensure!(original.is_dir(), "'/{}' is not a folder in the root file system", folder.display());
                    (original.mode(), original.uid(), original.gid())
                }
                Err(_) => (0o755, 0, 0),
            };
            fs::set_permissions(&made, fs::Permissions::from_mode(mode))?;
            chown(&made, Some(uid), Some(gid))?;
        }
        let path = upper.join(relative);
        fs::write(&path, &file.content).with_context(|| format!("cannot write '{}'", path.display()))?;
        fs::set_permissions(&path, fs::Permissions::from_mode(file.mode))?;
        Ok(())
    }

    /// Control groups are removed from the leaves up, once the kernel has noticed that they are empty.
    fn remove_cgroups(&self) -> Result<()> {
        wait::until(&format!("the control groups of '{}' to be empty", self.name), STOP_LIMIT, || {
            let left = CGROUP_ROOTS.iter().map(|root| Path::new(root).join(&self.unique)).filter(|path| path.exists());
            let mut gone = true;
            for group in left {
                gone &= remove_empty_folders(&group);
            }
            Ok(gone)
        })
    }
}

impl fmt::Debug for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Host").field("name", &self.name).field("address", &self.address.ip()).finish_non_exhaustive()
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        if let Err(error) = self.power_cut() {
            log::warn!("{error:#}");
        }
    }
}

fn remove_empty_folders(folder: &Path) -> bool {
    let Ok(entries) = fs::read_dir(folder) else { return !folder.exists() };
    let folders = entries.flatten().filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
    let inner_gone = folders.map(|entry| remove_empty_folders(&entry.path())).filter(|gone| !gone).count() == 0;
    inner_gone && fs::remove_dir(folder).is_ok()
}

/// The children of a process's first thread.
fn children(parent: Pid) -> Result<Vec<Pid>> {
    let path = format!("/proc/{parent}/task/{parent}/children");
    let text = fs::read_to_string(&path).with_context(|| format!("cannot read '{path}'"))?;
    Ok(text.split_whitespace().filter_map(|word| word.parse().ok()).map(Pid::from_raw).collect())
}

/// Whether a process is number 1 in a process namespace of its own.
fn is_init(pid: Pid) -> bool {
    let numbers = process::status(pid, "NSpid");
    let numbers: Vec<&str> = numbers.split_whitespace().collect();
    numbers.len() > 1 && numbers.last() == Some(&"1")
}

/// How a command on a host ended, and what it printed.
#[derive(Clone, Debug)]
pub struct Output {
    /// Where and what: `mw1.eqiad.test# systemctl ...`.
    pub command: String,
    /// How it ended.
    pub status: ExitStatus,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

impl Output {
    /// The exit code; none when a signal ended it.
    #[must_use]
    pub fn code(&self) -> Option<i32> {
        // nsenter ends by the signal that ended its child.
        self.status.code()
    }

    /// Standard output, if the command succeeded; otherwise an error with all there is to know.
    pub fn success(self) -> Result<String> {
        ensure!(self.status.success(), "{self}");
        Ok(self.stdout)
    }
}

impl fmt::Display for Output {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { command, status, stdout, stderr } = self;
        write!(f, "{command}\n{status}\nstdout:\n{stdout}\nstderr:\n{stderr}")
    }
}

/// What a stream has brought so far, and the thread that reads it.
struct Collected {
    bytes: Arc<Mutex<Vec<u8>>>,
    reader: JoinHandle<()>,
}

impl Collected {
    fn from(mut source: impl Read + Send + 'static) -> Self {
        let bytes = Arc::new(Mutex::new(Vec::new()));
        let sink = Arc::clone(&bytes);
        let reader = thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(count @ 1..) = source.read(&mut buffer) {
                sink.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(&buffer[..count]);
            }
        });
        Self { bytes, reader }
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.bytes.lock().unwrap_or_else(PoisonError::into_inner)).into_owned()
    }
}

/// A command that runs on a host; killed when dropped.
pub struct Running {
    command: String,
    nsenter: Child,
    stopped: bool,
    stdout: Option<Collected>,
    stderr: Option<Collected>,
}

impl Running {
    fn new(command: String, mut nsenter: Child) -> Self {
        let stdout = nsenter.stdout.take().map(Collected::from);
        let stderr = nsenter.stderr.take().map(Collected::from);
        Self { command, nsenter, stopped: false, stdout, stderr }
    }

    /// Sends a signal to the command itself.
    pub fn signal(&mut self, signal: Signal) -> Result<()> {
        let pid = self.pid()?;
        signal::kill(pid, signal).with_context(|| format!("cannot send {signal} to '{}'", self.command))?;
        match signal {
            Signal::SIGSTOP => self.stopped = true,
            // It ends a process that stands still, too, but nsenter does not see that yet.
            Signal::SIGKILL if self.stopped => self.let_go()?,
            _ => {}
        }
        Ok(())
    }

    /// Lets a command go on, or be seen to end, that stopped. nsenter, which is between us and it, stops when it does, and lets
    /// it go on when it goes on itself.
    pub fn let_go(&mut self) -> Result<()> {
        let nsenter = Pid::from_raw(self.nsenter.id().cast_signed());
        let what = format!("nsenter to stop, like '{}'", self.command);
        wait::until(&what, Duration::from_secs(5), || Ok(process::status(nsenter, "State").starts_with('T')))?;
        self.stopped = false;
        signal::kill(nsenter, Signal::SIGCONT).context("cannot let nsenter go on")
    }

    /// The command's process id, by our numbers.
    pub fn pid(&mut self) -> Result<Pid> {
        let nsenter = Pid::from_raw(self.nsenter.id().cast_signed());
        let what = format!("the process of '{}'", self.command);
        wait::until_some(&what, Duration::from_secs(5), || {
            if let Some(status) = self.nsenter.try_wait()? {
                return Ok(Some(Err(anyhow::anyhow!("'{}' has ended, {status}", self.command))));
            }
            // nsenter execs into nothing itself: its one child is the command, once `env` has made room for it.
            let child = children(nsenter)?.first().copied();
            Ok(child.filter(|child| !is_one_of(*child, &["nsenter", "env"])).map(Ok))
        })?
    }

    /// Whether it has ended.
    pub fn ended(&mut self) -> Result<bool> {
        Ok(self.nsenter.try_wait()?.is_some())
    }

    /// What it has written to standard output so far.
    #[must_use]
    pub fn stdout(&self) -> String {
        self.stdout.as_ref().map(Collected::text).unwrap_or_default()
    }

    /// What it has written to standard error so far.
    #[must_use]
    pub fn stderr(&self) -> String {
        self.stderr.as_ref().map(Collected::text).unwrap_or_default()
    }

    /// Waits until it has written something to standard error.
    pub fn wait_for_stderr(&mut self, text: &str, limit: Duration) -> Result<()> {
        let what = format!("'{}' to say '{text}'", self.command);
        let said = wait::until(&what, limit, || Ok(self.stderr().contains(text)));
        said.with_context(|| format!("it has said:\n{}", self.stderr()))
    }

    /// Waits for its end; kills it after `limit`, which is an error.
    pub fn wait(mut self, limit: Duration) -> Result<Output> {
        let what = format!("'{}' to end", self.command);
        let status = wait::until_some_every(END_PACE, &what, limit, || Ok(self.nsenter.try_wait()?));
        let status = match status {
            Ok(status) => status,
            Err(error) => {
                self.kill();
                let (stdout, stderr) = (self.stdout(), self.stderr());
                return Err(error).with_context(|| format!("stdout:\n{stdout}\nstderr:\n{stderr}"));
            }
        };
        // The streams end with the command, unless it left somebody behind who holds them.
        let read = || [&self.stdout, &self.stderr].into_iter().flatten().all(|stream| stream.reader.is_finished());
        let _ = wait::until("the last output", Duration::from_secs(1), || Ok(read()));
        let (stdout, stderr) = (self.stdout(), self.stderr());
        Ok(Output { command: self.command.clone(), status, stdout, stderr })
    }

    /// Ends it at once.
    fn kill(&mut self) {
        if matches!(self.nsenter.try_wait(), Ok(None)) {
            let nsenter = Pid::from_raw(self.nsenter.id().cast_signed());
            for child in children(nsenter).unwrap_or_default() {
                // It may just have ended.
                let _ = signal::kill(child, Signal::SIGKILL);
            }
            let _ = self.nsenter.kill();
            let _ = self.nsenter.wait();
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.kill();
    }
}

fn is_one_of(pid: Pid, names: &[&str]) -> bool {
    let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    names.contains(&name.trim_end())
}

/// The right to have one host up.
#[derive(Debug)]
struct Permit;

static HOSTS_UP: Mutex<usize> = Mutex::new(0);
static HOST_GONE: Condvar = Condvar::new();

impl Permit {
    /// Waits until so many more hosts may be up. All at once: two tests that each hold one and wait for another would
    /// wait for ever.
    fn take(count: usize) -> Vec<Self> {
        let full = |up: &mut usize| *up > 0 && *up + count > HOSTS_AT_ONCE;
        let up = HOSTS_UP.lock().unwrap_or_else(PoisonError::into_inner);
        let mut up = HOST_GONE.wait_while(up, full).unwrap_or_else(PoisonError::into_inner);
        *up += count;
        (0..count).map(|_| Self).collect()
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        *HOSTS_UP.lock().unwrap_or_else(PoisonError::into_inner) -= 1;
        HOST_GONE.notify_all();
    }
}
