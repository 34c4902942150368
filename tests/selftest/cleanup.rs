use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use testbed::Result;
use testbed::site::{Site, UNIT};
use testbed::wait;

const LIMIT: Duration = Duration::from_secs(60);

/// What belongs to one test process: every process that was started by it or lives in one of its hosts, its control
/// groups, its folders. Found by what they are, not by what we remember of them.
fn processes_of(site: &Site) -> Result<BTreeSet<u32>> {
    let mut found = BTreeSet::new();
    let mut addresses: Vec<String> = site.etcd().addresses().iter().map(ToString::to_string).collect();
    addresses.extend(site.load().targets.iter().map(|target| target.ip().to_string()));
    addresses.extend((0..2).map(|index| site.host(index).address().to_string()));
    for entry in fs::read_dir("/proc")?.flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else { continue };
        let command = fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let command = String::from_utf8_lossy(&command).replace('\0', " ");
        let groups = fs::read_to_string(entry.path().join("cgroup")).unwrap_or_default();
        let by_address = addresses.iter().any(|address| command.contains(address.as_str()));
        let by_group = groups.contains(&format!("/testbed-{}-", std::process::id()));
        if by_address || by_group {
            found.insert(pid);
        }
    }
    Ok(found)
}

fn running(pids: &BTreeSet<u32>) -> Vec<u32> {
    let alive = |pid: &&u32| {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        // A zombie has ended; it waits for whoever collects orphans here.
        !stat.is_empty() && !stat.rsplit(')').next().is_some_and(|rest| rest.trim_start().starts_with('Z'))
    };
    pids.iter().filter(alive).copied().collect()
}

fn control_groups(owner: u32) -> Vec<PathBuf> {
    let roots = ["/sys/fs/cgroup", "/sys/fs/cgroup/unified", "/sys/fs/cgroup/systemd"];
    let entries = roots.iter().filter_map(|root| fs::read_dir(root).ok()).flatten().flatten();
    let own = |name: &str| name.starts_with(&format!("testbed-{owner}-"));
    entries.filter(|entry| own(&entry.file_name().to_string_lossy())).map(|entry| entry.path()).collect()
}

#[test]
fn a_dropped_site_leaves_nothing_running() -> Result<()> {
    let site = Site::builder().boot()?;
    let load = site.load().start()?;
    let forgotten = site.host(0).spawn(&["sleep", "86400"])?;
    let pids = processes_of(&site)?;
    // etcd and two inits, php-fpms, nginxes and so on at least: the search does find what there is.
    assert!(running(&pids).len() > 40, "{pids:?}");
    drop((load, forgotten, site));
    assert_eq!(running(&pids), Vec::<u32>::new());
    Ok(())
}

/// Tells the test below that it is its own victim, in a process of its own.
const VICTIM: &str = "TESTBED_VICTIM";

fn play_victim() -> Result<()> {
    let site = Site::builder().boot()?;
    let _load = site.load().start()?;
    let pids: Vec<String> = processes_of(&site)?.iter().map(ToString::to_string).collect();
    println!("\nvictim: {}", pids.join(" "));
    std::thread::sleep(LIMIT);
    anyhow::bail!("nobody killed the victim")
}

#[test]
fn a_killed_test_leaves_nothing_running() -> Result<()> {
    if std::env::var_os(VICTIM).is_some() {
        return play_victim();
    }
    let mut victim = Command::new(std::env::current_exe()?)
        .args(["--exact", "cleanup::a_killed_test_leaves_nothing_running", "--nocapture"])
        .env(VICTIM, "1")
        .stdout(Stdio::piped())
        .spawn()?;
    let lines = BufReader::new(victim.stdout.take().expect("piped")).lines();
    let said = lines.map_while(Result::ok).find_map(|line| Some(line.strip_prefix("victim: ")?.to_owned()));
    victim.kill()?;
    victim.wait()?;
    let pids: BTreeSet<u32> =
        said.expect("the victim says who it started").split(' ').map(str::parse).collect::<Result<_, _>>()?;
    assert!(pids.len() > 40, "{pids:?}");
    wait::until("everything to end", LIMIT, || Ok(running(&pids).is_empty()))?;
    remove_leftovers(victim.id())
}

/// Files and control groups outlive a killed test; its own next `tests/prepare` would remove them.
fn remove_leftovers(owner: u32) -> Result<()> {
    let prefix = format!("testbed-{owner}-");
    let mut count = 0;
    for folder in [std::env::temp_dir(), "/dev/shm".into()] {
        for entry in fs::read_dir(folder)?.flatten() {
            if entry.file_name().to_string_lossy().starts_with(&prefix) {
                fs::remove_dir_all(entry.path())?;
                count += 1;
            }
        }
    }
    // Two hosts, two HAProxys, etcd, conftool.
    assert_eq!(count, 6);
    for group in control_groups(owner) {
        remove_folders(&group)?;
    }
    assert_eq!(control_groups(owner), Vec::<PathBuf>::new());
    Ok(())
}

/// The files of a control group are not removed; they go with their folder.
fn remove_folders(folder: &Path) -> Result<()> {
    for entry in fs::read_dir(folder)?.flatten() {
        if entry.file_type()?.is_dir() {
            remove_folders(&entry.path())?;
        }
    }
    Ok(fs::remove_dir(folder)?)
}

#[test]
fn control_groups_go_with_their_host() -> Result<()> {
    let host = testbed::host::Host::builder("mw1.eqiad.test")?.boot()?;
    let groups = host.exec(&["cat", "/proc/1/cgroup"])?.success()?;
    assert!(groups.contains("/init.scope"), "{groups}");
    // A restart leaves services in new groups; they go as well.
    host.exec(&["systemctl", "restart", UNIT])?.success()?;
    let is_there = |group: &PathBuf| control_groups(std::process::id()).contains(group);
    let before = control_groups(std::process::id());
    assert!(!before.is_empty());
    drop(host);
    // Other tests have hosts as well, so one of the names must be gone, not all.
    assert!(before.iter().any(|group| !is_there(group)), "{before:?}");
    Ok(())
}
