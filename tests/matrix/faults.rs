//! The faults, and how each is brought about. All of them last until the run has ended; [`Stand::lift`] ends them.

use std::thread;
use std::time::Duration;

use nix::sys::signal::Signal;
use testbed::Result;
use testbed::host::Running;
use testbed::pybal::{Fault as LbFault, Health};
use testbed::site::{POOL, UNIT};

use crate::phases::Phase;
use crate::stand::{HOST, Kind, OBJECT, Stand, TOOL};

/// What goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Nothing: that the cell would pass without a fault.
    None,
    /// A signal to the run.
    Signal(Signal),
    /// Stopped for a while, then killed.
    StopThenKill,
    /// etcd is dead: connections are refused.
    EtcdRefused,
    /// etcd stands still.
    EtcdFrozen,
    /// etcd dies and is back at once.
    EtcdRestarted,
    /// Two of three members are dead.
    QuorumLost,
    /// The password is no longer right, and what was granted by it is void.
    Password,
    /// An operator writes a new weight.
    Weight,
    /// An operator pools the host.
    OperatorYes,
    /// An operator writes `no`, the very bytes that we wrote.
    OperatorNo,
    /// An operator sets the host inactive.
    Inactive,
    /// An operator deletes the object.
    Deleted,
    /// A load balancer misbehaves.
    Lb(LbFault),
    /// A load balancer's watcher is dead.
    LbStale,
    /// A load balancer keeps the host pooled.
    LbHolds,
    /// A load balancer's health check fails.
    LbDown,
    /// poolcounterd is dead.
    PoolcounterKilled,
    /// poolcounterd stands still.
    PoolcounterFrozen,
    /// The unit fails to start.
    UnitFails,
    /// The unit never gets ready.
    UnitHangs,
    /// The unit dies right after it was ready.
    UnitDies,
    /// Somebody restarts by force in between.
    Forced,
    /// The disk under the journal is read-only.
    DiskReadOnly,
    /// The disk under the journal is full.
    DiskFull,
    /// The host is rebooted.
    Reboot,
    /// The host's power is cut.
    PowerCut,
}

impl Fault {
    /// Whether it takes another etcd than one plain member.
    pub fn needs(self) -> Kind {
        match self {
            Self::QuorumLost | Self::Password => Kind::Cluster,
            _ => Kind::Plain,
        }
    }

    /// What has to be there before the run, so that the fault can come.
    pub fn prepare(self, stand: &mut Stand) -> Result<()> {
        match self {
            Self::DiskReadOnly | Self::DiskFull => stand.own_disk()?,
            Self::Reboot => stand.runs_are_services(),
            _ => {}
        }
        Ok(())
    }

    /// Brings it about. There is no run yet in the phase [`Phase::Start`].
    pub fn strike(self, phase: Phase, stand: &mut Stand, run: Option<&mut Running>) -> Result<()> {
        let last = stand.members() - 1;
        match self {
            Self::None => {}
            Self::Signal(signal) => run.map_or(Ok(()), |run| run.signal(signal))?,
            Self::StopThenKill => {
                if let Some(run) = run {
                    run.signal(Signal::SIGSTOP)?;
                    thread::sleep(Duration::from_millis(500));
                    run.signal(Signal::SIGKILL)?;
                }
            }
            Self::EtcdRefused => (0..=last).try_for_each(|member| stand.site.etcd_mut().kill(member))?,
            Self::EtcdFrozen => (0..=last).try_for_each(|member| stand.site.etcd_mut().freeze(member))?,
            Self::EtcdRestarted => {
                (0..=last).try_for_each(|member| stand.site.etcd_mut().kill(member))?;
                (0..=last).try_for_each(|member| stand.site.etcd_mut().start_again(member))?;
                (0..=last).try_for_each(|member| stand.site.etcd_mut().wait_healthy(member))?;
            }
            Self::QuorumLost => (0..last).try_for_each(|member| stand.site.etcd_mut().kill(member))?,
            Self::Password => stand.password(false)?,
            Self::Weight => {
                let now = stand.raw()?.unwrap_or_default();
                stand.put(&now.replace(r#""weight": 10"#, r#""weight": 7"#))?;
            }
            Self::OperatorYes => stand.put(OBJECT)?,
            Self::OperatorNo => stand.put(&OBJECT.replace("yes", "no"))?,
            Self::Inactive => stand.put(&OBJECT.replace("yes", "inactive"))?,
            Self::Deleted => stand.delete()?,
            Self::Lb(fault) => stand.site.pybal(1).fault(fault)?,
            Self::LbStale => stand.site.pybal(1).stale(true),
            Self::LbHolds => stand.site.pybal(1).hold(POOL, HOST, true)?,
            Self::LbDown => stand.site.pybal(1).set_health(POOL, HOST, Health::Down)?,
            Self::PoolcounterKilled => stand.kill_poolcounter()?,
            Self::PoolcounterFrozen => stand.freeze_poolcounter()?,
            Self::UnitFails => stand.mood("fail")?,
            Self::UnitHangs => stand.mood("hang")?,
            Self::UnitDies if phase == Phase::Settle => stand.kill_php()?,
            Self::UnitDies => stand.mood("die")?,
            Self::Forced => {
                stand.site.host(0).exec(&[TOOL, "--force", "--services", UNIT])?.success()?;
            }
            Self::DiskReadOnly => stand.spoil_disk(false)?,
            Self::DiskFull => stand.spoil_disk(true)?,
            Self::Reboot => {
                stand.site.host_mut(0).stop()?;
                stand.site.host_mut(0).boot_again()?;
            }
            Self::PowerCut => stand.site.host_mut(0).power_cut()?,
        }
        Ok(())
    }

    /// Whether nothing can be written to etcd any more.
    pub fn takes_etcd_away(self) -> bool {
        matches!(self, Self::EtcdRefused | Self::EtcdFrozen | Self::QuorumLost | Self::Password)
    }

    /// Whether it goes on when the run has ended, and keeps a recovery from coming to an end.
    pub fn lasts(self) -> bool {
        let of_others = matches!(self, Self::Lb(_) | Self::LbStale | Self::LbHolds | Self::LbDown);
        self.takes_etcd_away() || of_others || matches!(self, Self::UnitFails | Self::UnitHangs)
    }

    /// Whether load balancers may have sent at the moment when the unit was stopped: it was not our run that stopped it, or the
    /// fault is that the host was given traffic, between the last look and systemd's stop.
    pub fn excuses_traffic(self, phase: Phase) -> bool {
        match self {
            Self::Forced | Self::Reboot | Self::PowerCut | Self::OperatorYes => true,
            Self::LbHolds => phase == Phase::Restart,
            _ => false,
        }
    }
}
