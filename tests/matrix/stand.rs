//! One host with its load balancers, its etcd and its poolcounterd, shared by many cells: brought to a good state before each
//! of them, and looked at to see that it is one.

use std::net::TcpStream;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use nix::sys::signal::Signal;
use testbed::etcd::{Driver, Etcd};
use testbed::host::{Host, Output, Running};
use testbed::poolcounterd::Poolcounterd;
use testbed::pybal::{Fault as LbFault, Health};
use testbed::site::{POOL, Site, UNIT};
use testbed::{Result, load, wait};

/// The product.
pub const TOOL: &str = "/usr/sbin/safe-service-restart";
/// The one host.
pub const HOST: &str = "mw1.eqiad.test";
/// Its object as it is found: with a field and an escape that nobody but an operator may lose.
pub const OBJECT: &str = r#"{"weight": 10, "pooled": "yes", "rack": "caf\u00e9"}"#;
/// What nothing here should take.
pub const LIMIT: Duration = Duration::from_secs(90);
/// Where etcd has what is ours, beside conftool's objects.
const OURS: &str = "/conftool/v1/safe-service-restart";
/// The journal's folder.
const FOLDER: &str = "/var/lib/safe-service-restart";

/// PHP-FPM with moods: `fail` and `hang` before it starts, `slow` for a start of two seconds, `die` right after it is ready.
/// Without a start limit, since one host is restarted many times a minute.
pub const MOODS: &str = r#"[Unit]
StartLimitIntervalSec=0
[Service]
TimeoutStartSec=5
ExecStartPre=/bin/bash -c 'case "$(cat /run/mood 2>/dev/null)" in fail) exit 1;; hang) sleep 60;; slow) sleep 2;; esac'
ExecStartPost=/bin/bash -c 'if grep -qs die /run/mood; then (sleep 0.15; kill -KILL $MAINPID) & fi'
"#;

/// Puts the host right, as root on it: no mood, no journal, PHP-FPM runs.
pub const MEND: &str = r#"rm -f /run/mood
while mountpoint -q /var/lib/safe-service-restart; do umount -l /var/lib/safe-service-restart; done
rm -rf /var/lib/safe-service-restart
systemctl reset-failed php8.2-fpm; systemctl start php8.2-fpm"#;

/// What one look at the host shows, a line each.
const LOOK: &str = r#"ls -A /var/lib/safe-service-restart 2>/dev/null | tr '\n' ' '; echo
systemctl show --value -p InvocationID -p ActiveState -p ActiveExitTimestampMonotonic php8.2-fpm | grep -v '^$'"#;

/// Which kind of etcd: one member, or three with passwords.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// One member.
    Plain,
    /// Three members, with passwords.
    Cluster,
}

/// What a look at the host showed.
#[derive(Clone, Debug)]
pub struct Seen {
    /// Files in the journal's folder.
    pub files: Vec<String>,
    /// Which start of PHP-FPM this is.
    pub invocation: String,
    /// systemd's word for its state.
    pub active: String,
    /// When it was last stopped, by this machine's uptime; never is zero.
    pub stopped: Duration,
}

impl Seen {
    /// Whether a journal is there.
    pub fn journal(&self) -> bool {
        self.files.iter().any(|name| name == "journal.json")
    }

    /// What a host looks like.
    pub fn of(host: &Host) -> Result<Self> {
        let text = host.exec(&["bash", "-c", LOOK])?.success()?;
        let lines: Vec<&str> = text.lines().collect();
        // systemctl prints properties in an order of its own.
        let stopped = lines.iter().skip(1).find_map(|line| line.parse::<u64>().ok()).unwrap_or_default();
        let invocation = lines.iter().skip(1).find(|line| line.len() == 32).unwrap_or(&"").to_string();
        let active = lines.iter().skip(1).find(|line| line.parse::<u64>().is_err() && line.len() != 32);
        Ok(Self {
            files: lines.first().unwrap_or(&"").split_whitespace().map(str::to_owned).collect(),
            invocation,
            active: active.unwrap_or(&"").to_string(),
            stopped: Duration::from_micros(stopped),
        })
    }
}

/// One host and all around it.
pub struct Stand {
    /// Everything but poolcounter.
    pub site: Site,
    /// Which interface of etcd.
    pub driver: Driver,
    /// Which kind of etcd.
    pub kind: Kind,
    poolcounter: Poolcounterd,
    poolcounter_lost: bool,
    holder: Option<TcpStream>,
    services: bool,
    /// Who grants slots: in etcd v3 its leases, unless the cell is about poolcounter.
    pub slots: &'static str,
}

impl Stand {
    /// Boots it.
    pub fn boot(driver: Driver, kind: Kind) -> Result<Self> {
        let etcd = match kind {
            Kind::Plain => Etcd::builder(),
            Kind::Cluster => Etcd::builder().members(3).passwords(),
        };
        let site = Site::builder()
            .driver(driver)
            .etcd(etcd)
            .hosts(&[HOST])
            .binaries(&["safe-service-restart"])
            .reopen(Duration::from_millis(50))
            .each_host(|host| host.drop_in("php8.2-fpm.service", "moods.conf", MOODS))
            .boot()?;
        let poolcounter = Poolcounterd::start()?;
        site.host(0).write("/etc/poolcounter-backends.yaml", &poolcounter.backend("pc1"))?;
        Ok(Self {
            site,
            driver,
            kind,
            poolcounter,
            poolcounter_lost: false,
            holder: None,
            services: false,
            slots: "poolcounter",
        })
    }

    /// Lifts every fault that there may be, puts everything right, and makes sure of it.
    pub fn reset(&mut self) -> Result<Seen> {
        self.lift()?;
        self.services = false;
        if self.driver == Driver::V3 {
            // Those of runs that were killed would be free only when their leases are over.
            self.forget_slots()?;
        }
        self.site.host(0).exec(&["bash", "-c", MEND])?.success()?;
        if self.raw()?.as_deref() != Some(OBJECT) {
            self.put(OBJECT)?;
        }
        self.site.wait_pooled(0, true)?;
        self.serves()?;
        let seen = self.look()?;
        ensure!(seen.active == "active" && seen.files.is_empty(), "not a good state to begin with: {seen:?}");
        ensure!(self.raw()?.as_deref() == Some(OBJECT), "the object is not as it should be");
        Ok(seen)
    }

    /// Lifts every fault from outside the host; what is on the host is left as it is.
    pub fn lift(&mut self) -> Result<()> {
        self.release();
        if self.site.host(0).exec(&["true"]).is_err() {
            self.site.host_mut(0).boot_again()?;
        }
        let members = self.members();
        for member in 0..members {
            // One that is stopped cannot be thawed, one that runs is not started again.
            let _ = self.site.etcd_mut().thaw(member);
            self.site.etcd_mut().start_again(member)?;
        }
        for member in 0..members {
            self.site.etcd_mut().wait_healthy(member)?;
        }
        if self.kind == Kind::Cluster {
            self.password(true)?;
        }
        for pybal in self.site.pybals() {
            pybal.heal()?;
            pybal.set_health(POOL, HOST, Health::Up).or_else(unknown)?;
            pybal.hold(POOL, HOST, false).or_else(unknown)?;
            pybal.stale(false);
        }
        let _ = self.poolcounter.thaw();
        if std::mem::take(&mut self.poolcounter_lost) {
            // It could not listen on its old port for a minute.
            self.poolcounter = Poolcounterd::start()?;
            self.site.host(0).write("/etc/poolcounter-backends.yaml", &self.poolcounter.backend("pc1"))?;
        }
        let writable = "mountpoint -q $0 && mount -o remount,rw $0; rm -f $0/filler";
        self.site.host(0).exec(&["bash", "-c", writable, FOLDER])?;
        Ok(())
    }

    /// The tool with these arguments, in the background.
    pub fn start(&self, arguments: &[&str]) -> Result<Running> {
        let service = "systemd-run --quiet --collect --wait --pipe --service-type=exec --";
        let service: Vec<&str> = service.split_whitespace().filter(|_| self.services).collect();
        self.site.host(0).spawn(&[service.as_slice(), &[TOOL], arguments].concat())
    }

    /// From now on a run is a service of the host's own systemd, which so takes part in the way down. Otherwise it is a child
    /// of ours, and systemd never hears of its end.
    pub fn runs_are_services(&mut self) {
        self.services = true;
    }

    /// One recovery that gives load balancers so many seconds.
    pub fn recover(&self, seconds: &str) -> Result<Output> {
        self.site.host(0).exec(&[TOOL, "--recover", "--lb-timeout", seconds, "--timeout", "1.5", "--wait", "0.2"])
    }

    /// What the host looks like.
    pub fn look(&self) -> Result<Seen> {
        Seen::of(self.site.host(0))
    }

    /// PHP-FPM answers, through the host's own web server.
    pub fn serves(&self) -> Result<()> {
        let web = self.site.host(0).web();
        wait::until_some("a page of the host", Duration::from_secs(10), || {
            load::fetch(web, "/index.php", Duration::from_secs(2)).map(Some)
        })?;
        Ok(())
    }

    /// The object's bytes.
    pub fn raw(&self) -> Result<Option<String>> {
        self.site.conftool().raw(&self.site.node(0))
    }

    /// Writes the object, as an operator.
    pub fn put(&self, object: &str) -> Result<()> {
        self.site.conftool().store().put(&self.site.node(0).key(), object)
    }

    /// Deletes the object, as an operator.
    pub fn delete(&self) -> Result<()> {
        self.site.conftool().store().delete(&self.site.node(0).key())
    }

    /// Frees every slot that is kept in etcd.
    pub fn forget_slots(&self) -> Result<()> {
        let store = self.site.conftool().store();
        store.list(&format!("{OURS}/slots"))?.0.iter().try_for_each(|entry| store.delete(&entry.key))
    }

    /// The notes in etcd by which a host that is out goes on counting against a limit; there are none in v2.
    pub fn counted_out(&self) -> Result<Vec<String>> {
        if self.driver == Driver::V2 {
            return Ok(Vec::new());
        }
        let (notes, _) = self.site.conftool().store().list(&format!("{OURS}/out"))?;
        Ok(notes.into_iter().map(|note| note.key).collect())
    }

    /// Gives PHP-FPM a mood.
    pub fn mood(&self, mood: &str) -> Result<()> {
        self.site.host(0).write("/run/mood", mood)
    }

    /// Every load balancer answers after this time.
    pub fn slow(&self, time: Duration) -> Result<()> {
        self.site.pybals().try_for_each(|pybal| pybal.fault(LbFault::Slow(time)))
    }

    /// How many members etcd has.
    pub fn members(&self) -> usize {
        self.site.etcd().addresses().len()
    }

    /// Takes the one slot, as another host would.
    pub fn take_slot(&mut self) -> Result<()> {
        self.holder = Some(self.poolcounter.take("ServiceRestarter::eqiad::appservers")?);
        Ok(())
    }

    /// Gives it back.
    pub fn release(&mut self) {
        self.holder = None;
    }

    /// poolcounterd dies.
    pub fn kill_poolcounter(&mut self) -> Result<()> {
        self.poolcounter_lost = true;
        self.poolcounter.kill()
    }

    /// poolcounterd stands still.
    pub fn freeze_poolcounter(&mut self) -> Result<()> {
        self.poolcounter.freeze()
    }

    /// The disk under the journal becomes one that can be made read-only or full. Before the run.
    pub fn own_disk(&self) -> Result<()> {
        let mount = "install -d -m 0700 $0 && mount -t tmpfs -o size=64k,mode=0700 none $0";
        self.site.host(0).exec(&["bash", "-c", mount, FOLDER])?.success()?;
        Ok(())
    }

    /// It takes nothing more.
    pub fn spoil_disk(&self, full: bool) -> Result<()> {
        let script =
            if full { "cat /dev/zero >$0/filler 2>/dev/null; test -s $0/filler" } else { "mount -o remount,ro $0" };
        self.site.host(0).exec(&["bash", "-c", script, FOLDER])?.success()?;
        Ok(())
    }

    /// Kills the main process of PHP-FPM.
    pub fn kill_php(&self) -> Result<()> {
        self.site.host(0).exec(&["systemctl", "kill", "--kill-whom=main", "--signal=KILL", UNIT])?.success()?;
        Ok(())
    }

    /// Makes the password that everybody has the right one, or a wrong one. What was granted by the old one is void.
    pub fn password(&self, right: bool) -> Result<()> {
        let user = self.site.etcd().conftool_access().user.context("an etcd without passwords")?;
        let password = if right { user.password } else { "another".to_owned() };
        let root = self.site.etcd().access();
        let (root, endpoints) = (root.user.context("an etcd without passwords")?, root.endpoints);
        let credentials = format!("{}:{}", root.name, root.password);
        let mut command = match self.driver {
            Driver::V2 => {
                let mut curl = Command::new("curl");
                let body = format!(r#"{{"user": "{}", "password": "{password}"}}"#, user.name);
                curl.args(["-sfS", "--max-time", "10", "-u", &credentials, "-X", "PUT", "-d", &body])
                    .args(["-H", "Content-Type: application/json"])
                    .arg(format!("{}/v2/auth/users/{}", endpoints[0], user.name));
                curl
            }
            Driver::V3 => {
                let mut shell = Command::new("sh");
                shell
                    .env("ETCDCTL_API", "3")
                    .args([
                        "-c",
                        r#"echo "$4" | etcdctl --endpoints "$1" --user "$2" user passwd "$3" --interactive=false"#,
                    ])
                    .args(["sh", &endpoints.join(","), &credentials, &user.name, &password]);
                shell
            }
        };
        let output = command.output().context("cannot change the password")?;
        ensure!(output.status.success(), "cannot change the password: {}", String::from_utf8_lossy(&output.stderr));
        Ok(())
    }

    /// What load balancers sent to the host at this time, by this machine's uptime: `lvs1 sent to it`.
    pub fn sent_at(&self, at: Duration) -> Result<Vec<String>> {
        let uptime = std::fs::read_to_string("/proc/uptime")?;
        let uptime: f64 = uptime.split(' ').next().context("an uptime")?.parse()?;
        let (now, uptime) = (Instant::now(), Duration::from_secs_f64(uptime));
        let moment = now.checked_sub(uptime.saturating_sub(at)).context("a time before the machine's start")?;
        let mut senders = Vec::new();
        for (place, pybal) in self.site.pybals().enumerate() {
            let changes = pybal.changes();
            let last = changes.iter().rfind(|change| change.server == HOST && change.at <= moment);
            if last.is_some_and(|change| change.pooled) {
                senders.push(format!("'{}' sent to it", self.site.balancer_name(place)));
            }
        }
        Ok(senders)
    }
}

/// A load balancer may not know the host, which is what a cell was about.
fn unknown(_: anyhow::Error) -> Result<()> {
    Ok(())
}

/// The signal that ended a command, if one did.
pub fn signal_of(output: &Output) -> Option<Signal> {
    use std::os::unix::process::ExitStatusExt as _;
    output.status.signal().and_then(|number| Signal::try_from(number).ok())
}
