//! `--status` shows how things stand, whatever of it is away, and tells Prometheus of a host that is held.

use std::collections::BTreeMap;
use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::{Value, json};
use testbed::Result;
use testbed::etcd::Driver;
use testbed::host::Output;
use testbed::poolcounterd::Poolcounterd;
use testbed::pybal::Fault;
use testbed::site::{POOL, Site, UNIT};

use crate::{TOOL, expect, put, site, start, tool};

const SOON: Duration = Duration::from_secs(30);
const METRICS: &str = "/var/lib/node-exporter/restart.prom";

fn status(site: &Site, arguments: &[&str]) -> Result<Output> {
    site.host(0).exec(&[&[TOOL, "--status"], arguments].concat())
}

/// The object that `--json` prints, with the exit code that belongs to it.
#[track_caller]
fn object(output: &Output) -> Value {
    let object: Value = serde_json::from_str(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output}"));
    assert_eq!(object["exit_code"].as_i64(), output.code().map(i64::from), "{output}");
    object
}

/// Fails unless one line begins and ends with these words.
#[track_caller]
fn line(output: &Output, begins: &str, ends: &str) {
    let found = output.stdout.lines().any(|line| line.starts_with(begins) && line.ends_with(ends));
    assert!(found, "no line '{begins}...{ends}': {output}");
}

fn boot() -> Result<Site> {
    let site = site().boot()?;
    site.host(0).exec(&["install", "-d", "/var/lib/node-exporter"])?.success()?;
    Ok(site)
}

/// The figures in the file: by name, with their labels as they stand. Fails on whatever Prometheus would refuse.
fn figures(site: &Site) -> Result<BTreeMap<String, f64>> {
    let text = site.host(0).read(METRICS)?;
    assert!(text.ends_with('\n'), "the last line has no end: {text}");
    let mut found = BTreeMap::new();
    let (mut helped, mut typed) = (String::new(), String::new());
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            let (name, help) = rest.split_once(' ').unwrap();
            assert!(!help.is_empty() && name != helped, "{line}");
            name.clone_into(&mut helped);
        } else if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').unwrap();
            assert_eq!((name, kind), (helped.as_str(), "gauge"), "{line}");
            name.clone_into(&mut typed);
        } else {
            let (series, value) = line.rsplit_once(' ').unwrap();
            let (name, labels) = series.split_once('{').unwrap_or((series, "}"));
            assert_eq!(name, typed, "a sample outside of its metric: {line}");
            let word = |text: &str| text.chars().all(|c| c.is_ascii_lowercase() || c == '_') && !text.is_empty();
            assert!(word(name) && name.starts_with("safe_service_restart_"), "{line}");
            let labels = labels.strip_suffix('}').unwrap();
            for label in labels.split("\",").filter(|label| !label.is_empty()) {
                let (label, value) = label.split_once("=\"").unwrap();
                let value = value.trim_end_matches('"');
                assert!(word(label) && !value.is_empty() && !value.contains(['"', '\\']), "{line}");
            }
            let before = found.insert(series["safe_service_restart_".len()..].to_owned(), value.parse().unwrap());
            assert!(before.is_none(), "twice: {line}");
        }
    }
    Ok(found)
}

#[track_caller]
fn is(figures: &BTreeMap<String, f64>, wanted: &[(&str, f64)]) {
    for (name, value) in wanted {
        assert_eq!(figures.get(*name), Some(value), "{name}: {figures:?}");
    }
}

/// Kills a run while the host is out.
fn killed(site: &Site) -> Result<()> {
    let mut run = start(site, &["--grace-period", "20", "--reason", "a test"])?;
    run.wait_for_stderr("for requests in flight", SOON)?;
    run.signal(Signal::SIGKILL)?;
    assert_eq!(run.wait(SOON)?.code(), None);
    Ok(())
}

#[test]
fn a_pooled_host_is_in_service_and_nothing_is_changed() -> Result<()> {
    let site = boot()?;
    let before = site.conftool().raw(&site.node(0))?;
    let seen = status(&site, &["--services", UNIT, "--textfile", METRICS])?;
    expect(&seen, 0);
    assert_eq!(seen.stdout.lines().next(), Some("mw1.eqiad.test is IN SERVICE"), "{seen}");
    line(&seen, "pool ", "'yes' in the store; 2 of 2 hosts are pooled");
    line(&seen, "  lb     lvs2.eqiad.test", "says pooled");
    line(&seen, "journal ", "empty: no run left anything to be done");
    line(&seen, "lock ", "free");
    assert_eq!(seen.stderr, "", "{seen}");
    let pool = format!("pooled{{pool=\"{POOL}\"}}");
    let found = figures(&site)?;
    is(&found, &[(&pool, 1.0), ("held", 0.0), ("interrupted", 0.0), ("out_seconds", 0.0), ("journal_problem", 0.0)]);
    is(&found, &[("store_up", 1.0), ("journal_readable", 1.0)]);
    assert!(found["status_timestamp"] > 1.7e9);
    assert_eq!(site.conftool().raw(&site.node(0))?, before);
    assert!(!site.host(0).exec(&["test", "-e", "/var/lib/safe-service-restart"])?.status.success());
    Ok(())
}

#[test]
fn what_an_operator_depooled_is_told_from_what_we_did() -> Result<()> {
    let site = boot()?;
    site.conftool().set(&site.node(0), "pooled=no")?;
    site.wait_pooled(0, false)?;
    let seen = status(&site, &[])?;
    expect(&seen, 0);
    let headline = "mw1.eqiad.test is OUT OF SERVICE: no run of ours waits to put it back (an operator's --depool, or \
                    another tool's)";
    assert_eq!(seen.stdout.lines().next(), Some(headline), "{seen}");
    line(&seen, "pool ", "'no' in the store; 1 of 2 hosts is pooled");
    line(&seen, "put back  safe-service-restart --pool --pools", POOL);
    let seen = object(&status(&site, &["--json", "--textfile", METRICS])?);
    assert_eq!((&seen["in_service"], &seen["state"]), (&json!("no"), &json!(headline)));
    assert_eq!((&seen["held"], &seen["out_seconds"]), (&json!(false), &json!(0)));
    assert_eq!(seen["pools"][0]["store"], json!({"state": "node", "pooled": "no", "pooled_hosts": 1, "hosts": 2}));
    assert_eq!(seen["pools"][0]["load_balancers"][0]["verdict"], "not-pooled");
    is(&figures(&site)?, &[(&format!("pooled{{pool=\"{POOL}\"}}"), 0.0), ("held", 0.0)]);
    Ok(())
}

#[test]
fn a_held_host_raises_an_alarm_and_the_way_back_works() -> Result<()> {
    let site = boot()?;
    killed(&site)?;
    site.host(0).exec(&["systemctl", "stop", UNIT])?.success()?;
    // The timer keeps the figures fresh, from the journal alone.
    expect(&site.host(0).exec(&[TOOL, "--recover", "--textfile", METRICS])?, 3);
    let found = figures(&site)?;
    is(&found, &[("held", 1.0), ("interrupted", 0.0), ("journal_problem", 0.0)]);
    assert!(!found.contains_key("store_up") && !found.keys().any(|name| name.starts_with("pooled")), "{found:?}");
    let seen = status(&site, &["--textfile", METRICS])?;
    expect(&seen, 3);
    assert!(seen.stdout.starts_with("mw1.eqiad.test is OUT OF SERVICE: held by us since 20"), "{seen}");
    line(&seen, "because ", "a test");
    line(&seen, "unit ", "inactive (dead)");
    let found = figures(&site)?;
    is(&found, &[("held", 1.0), ("store_up", 1.0), ("unit_active{unit=\"php8.2-fpm.service\"}", 0.0)]);
    assert!(found["out_seconds"] < 120.0);
    let seen = object(&status(&site, &["--json"])?);
    assert_eq!((&seen["held"], &seen["journal"]["left"]["what"]), (&json!(true), &json!("held")));
    assert_eq!(seen["journal"]["left"]["reason"], "a test");
    // What it says puts the host back does.
    site.host(0).exec(&["systemctl", "start", UNIT])?.success()?;
    let way_back = seen["way_back"].as_str().unwrap();
    expect(&site.host(0).exec(&way_back.split(' ').collect::<Vec<_>>())?, 0);
    let seen = status(&site, &["--textfile", METRICS])?;
    expect(&seen, 0);
    is(&figures(&site)?, &[("held", 0.0), ("out_seconds", 0.0)]);
    Ok(())
}

#[test]
fn a_run_is_under_way_until_it_is_killed_and_then_interrupted() -> Result<()> {
    let site = boot()?;
    let mut run = start(&site, &["--grace-period", "20", "--reason", "a test"])?;
    run.wait_for_stderr("for requests in flight", SOON)?;
    let seen = status(&site, &["--textfile", METRICS])?;
    expect(&seen, 0);
    assert!(seen.stdout.starts_with("mw1.eqiad.test is OUT OF SERVICE: a run of ours has it since"), "{seen}");
    line(&seen, "lock ", "because: a test");
    is(&figures(&site)?, &[("under_way", 1.0), ("held", 0.0), ("interrupted", 0.0)]);
    run.signal(Signal::SIGKILL)?;
    run.wait(SOON)?;
    let seen = status(&site, &["--textfile", METRICS])?;
    expect(&seen, 5);
    assert!(seen.stdout.starts_with("mw1.eqiad.test is OUT OF SERVICE: taken out since 20"), "{seen}");
    line(&seen, "put back  safe-service-restart --recover", "");
    is(&figures(&site)?, &[("under_way", 0.0), ("held", 0.0), ("interrupted", 1.0)]);
    expect(&site.host(0).exec(&[TOOL, "--recover", "--textfile", METRICS])?, 0);
    is(&figures(&site)?, &[("held", 0.0), ("interrupted", 0.0), ("out_seconds", 0.0)]);
    site.wait_pooled(0, true)
}

/// The lock lives as long as the systemctl that a killed run has started, and nobody brings the host back before.
#[test]
fn a_run_that_is_killed_during_the_restart_is_interrupted_while_its_systemctl_has_the_lock() -> Result<()> {
    let slow = "[Service]\nType=notify\nExecStartPre=/bin/sleep 6\n\
                ExecStart=/bin/bash -c 'systemd-notify --ready; exec sleep infinity'\nNotifyAccess=all\n";
    let site = site().each_host(move |host| host.unit("slow.service", slow)).boot()?;
    site.host(0).exec(&["install", "-d", "/var/lib/node-exporter"])?.success()?;
    let mut run = site.host(0).spawn(&[TOOL, "--pools", POOL, "--services", "slow", "--grace-period", "0"])?;
    let starts = || Ok(site.host(0).property("slow", "ActiveState")? == "activating");
    testbed::wait::until("the restart", SOON, starts)?;
    run.signal(Signal::SIGKILL)?;
    run.wait(SOON)?;
    let seen = status(&site, &["--textfile", METRICS])?;
    expect(&seen, 5);
    let why = "by a run of ours that died; what it started still holds the lock, the recovery goes on after it";
    line(&seen, "mw1.eqiad.test is OUT OF SERVICE: taken out since 20", why);
    line(&seen, "put back  safe-service-restart --recover", "");
    is(&figures(&site)?, &[("interrupted", 1.0), ("under_way", 0.0), ("held", 0.0)]);
    let seen = object(&status(&site, &["--json"])?);
    assert_eq!((&seen["journal"]["left"]["what"], &seen["interrupted"]), (&json!("orphaned"), &json!(true)));
    assert_eq!(seen["lock"]["holder"]["process_is_there"], false);
    testbed::wait::until("its systemctl to end", SOON, || {
        Ok(object(&status(&site, &["--json"])?)["lock"]["state"] == "free")
    })?;
    expect(&site.host(0).exec(&[TOOL, "--recover"])?, 0);
    site.wait_pooled(0, true)
}

#[test]
fn poolcounter_says_how_many_have_a_slot_or_is_told_to_be_away() -> Result<()> {
    let site = boot()?;
    let mut daemon = Poolcounterd::start()?;
    put(site.host(0), "/etc/poolcounter-backends.yaml", &daemon.backend("pc1"))?;
    let arguments = ["--max-concurrency", "1", "--grace-period", "20"];
    let mut run = start(&site, &arguments)?;
    run.wait_for_stderr("for requests in flight", SOON)?;
    let seen = object(&status(&site, &["--json"])?);
    let counts = &seen["slots"]["daemons"][0];
    assert_eq!((&counts["label"], &counts["holders"], &counts["waiters"]), (&json!("pc1"), &json!(1), &json!(0)));
    run.signal(Signal::SIGTERM)?;
    run.wait(SOON)?;
    line(
        &status(&site, &[])?,
        "slots ",
        "counts 0 held and 0 waited for, of all its limits together; it knows no names",
    );
    daemon.freeze()?;
    let seen = status(&site, &[])?;
    expect(&seen, 69);
    line(&seen, "slots ", "does not answer <--");
    line(&seen, "PROBLEM ", "no answer within 1s");
    daemon.kill()?;
    let seen = status(&site, &[])?;
    expect(&seen, 69);
    line(&seen, "PROBLEM ", "Connection refused (os error 111)");
    Ok(())
}

#[test]
fn a_store_that_is_away_does_not_hide_the_rest() -> Result<()> {
    for driver in [Driver::V2, Driver::V3] {
        let mut site = site().driver(driver).boot()?;
        site.host(0).exec(&["install", "-d", "/var/lib/node-exporter"])?.success()?;
        site.etcd_mut().kill(0)?;
        let seen = status(&site, &["--services", UNIT, "--textfile", METRICS])?;
        expect(&seen, 69);
        assert_eq!(seen.stdout.lines().next(), Some("mw1.eqiad.test is IN SERVICE, as far as could be seen"), "{seen}");
        line(&seen, "store ", "AWAY: what stands in it is not known");
        line(&seen, "pool ", "not known");
        line(&seen, "  lb ", "says pooled");
        line(&seen, "journal ", "empty: no run left anything to be done");
        let found = figures(&site)?;
        is(&found, &[("store_up", 0.0), ("held", 0.0)]);
        assert!(!found.keys().any(|name| name.starts_with("pooled")), "{found:?}");
        // The same when the pool is named, and a frozen store costs a bounded time.
        site.etcd_mut().start_again(0)?;
        site.etcd_mut().wait_healthy(0)?;
        site.etcd_mut().freeze(0)?;
        expect(&tool(&site, &["--status"])?, 69);
        site.etcd_mut().thaw(0)?;
    }
    Ok(())
}

#[test]
fn a_load_balancer_that_is_away_does_not_hide_the_rest() -> Result<()> {
    let site = boot()?;
    for fault in [Fault::Refuse, Fault::Hang, Fault::Status(500)] {
        site.pybal(1).fault(fault)?;
        let seen = status(&site, &["--timeout", "0.5"])?;
        expect(&seen, 69);
        assert_eq!(seen.stdout.lines().next(), Some("mw1.eqiad.test is IN SERVICE, as far as could be seen"), "{seen}");
        line(&seen, "  lb     lvs1.eqiad.test", "says pooled");
        line(&seen, "  lb     lvs2.eqiad.test", " <--");
        site.pybal(1).heal()?;
    }
    // It answers, and not what the store asks for.
    site.pybal(1).fault(Fault::Status(404))?;
    expect(&status(&site, &[])?, 69);
    Ok(())
}

#[test]
fn somebody_who_is_not_root_sees_what_the_files_permit() -> Result<()> {
    let site = boot()?;
    killed(&site)?;
    let as_nobody = || site.host(0).exec(&["setpriv", "--reuid=nobody", "--clear-groups", TOOL, "--status"]);
    // The load balancers answer everybody; the way to the store is root's own.
    let seen = as_nobody()?;
    expect(&seen, 77);
    let headline = "mw1.eqiad.test is OUT OF SERVICE, as far as could be seen; whether because of us is not known\n";
    assert!(seen.stdout.starts_with(headline), "{seen}");
    line(&seen, "PROBLEM ", "for the journal: Permission denied (os error 13)");
    line(&seen, "PROBLEM ", "store: cannot read '/etc/conftool/etcdrc': Permission denied (os error 13)");
    assert_eq!(seen.stdout.matches("not permitted to look").count(), 2, "{seen}");
    line(&seen, "  lb     lvs1.eqiad.test", "says not pooled");
    site.host(0).exec(&["chmod", "0644", "/etc/conftool/etcdrc"])?.success()?;
    let seen = as_nobody()?;
    expect(&seen, 77);
    line(&seen, "pool ", "'no' in the store; 1 of 2 hosts is pooled");
    Ok(())
}

#[test]
fn another_teams_broken_entry_is_reported_and_a_pool_that_is_not_there_is_an_error() -> Result<()> {
    let mut site = boot()?;
    let catalog = "/etc/conftool/local_services.yaml";
    let text = site.host(0).read(catalog)?;
    let elsewhere = "elsewhere: {cluster: other, service: php, port: 80, servers: [lvs1.eqiad.test]}";
    put(site.host(0), catalog, &format!("{text}\nbroken: {{cluster: 5}}\n{elsewhere}\n"))?;
    let seen = status(&site, &[])?;
    expect(&seen, 0);
    line(&seen, "note ", "pool 'broken': it has no 'port'");
    assert!(!seen.stdout.contains("elsewhere"), "{seen}");
    let seen = status(&site, &["--pools", "elsewhere"])?;
    expect(&seen, 78);
    line(&seen, "pool ", "no object eqiad/other/php/mw1.eqiad.test in the store");
    line(&seen, "PROBLEM ", "'mw1.eqiad.test' is in none of the pools named");
    site.etcd_mut().kill(0)?;
    let seen = status(&site, &[])?;
    expect(&seen, 69);
    assert!(seen.stdout.starts_with("mw1.eqiad.test is IN SERVICE, as far as could be seen\n"), "{seen}");
    line(&seen, "note ", "not known whether this host is in 'elsewhere'");
    site.etcd_mut().start_again(0)?;
    site.etcd_mut().wait_healthy(0)?;
    let seen = status(&site, &["--pools", "nowhere"])?;
    expect(&seen, 78);
    assert!(seen.stdout.contains("there is no pool 'nowhere'"), "{seen}");
    Ok(())
}

#[test]
fn a_host_with_none_of_the_files_is_in_no_pool() -> Result<()> {
    let site = boot()?;
    site.host(0).exec(&["rm", "-r", "/etc/conftool", "/etc/wikimedia-cluster"])?.success()?;
    let seen = status(&site, &["--services", UNIT])?;
    expect(&seen, 0);
    assert!(seen.stdout.starts_with("mw1.eqiad.test is in no pool\n"), "{seen}");
    line(&seen, "unit ", "");
    // A store without a catalog is something else.
    put(site.host(1), "/etc/conftool/local_services.yaml", "")?;
    expect(&site.host(1).exec(&[TOOL, "--status"])?, 78);
    Ok(())
}

/// The units as they are shipped, with the drop-in that the service's comment tells of.
#[test]
fn the_shipped_timer_writes_figures_where_a_drop_in_says_so() -> Result<()> {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../systemd");
    let service = std::fs::read_to_string(format!("{folder}/safe-service-restart-recover.service"))?;
    let drop_in: Vec<&str> = service
        .lines()
        .skip_while(|line| *line != "#   [Service]")
        .map_while(|line| line.strip_prefix("#   "))
        .collect();
    let drop_in = drop_in.join("\n").replace("/var/lib/prometheus/node-exporter/", "/var/lib/node-exporter/");
    assert_eq!(drop_in.matches("/var/lib/node-exporter/").count(), 2, "{drop_in}");
    let name = "safe-service-restart-recover.service";
    let site =
        site().each_host(move |host| host.unit(name, &service).drop_in(name, "textfile.conf", &drop_in)).boot()?;
    site.host(0).exec(&["install", "-d", "/var/lib/node-exporter"])?.success()?;
    site.host(0).exec(&["systemctl", "start", name])?.success()?;
    let written = "/var/lib/node-exporter/safe-service-restart.prom";
    site.host(0).exec(&["mv", written, METRICS])?.success()?;
    is(&figures(&site)?, &[("held", 0.0), ("interrupted", 0.0), ("out_seconds", 0.0)]);
    Ok(())
}

#[test]
fn a_journal_set_aside_is_an_alarm_until_it_is_removed() -> Result<()> {
    let site = boot()?;
    let host = site.host(0);
    host.exec(&["install", "-d", "-m", "0700", "/var/lib/safe-service-restart"])?.success()?;
    put(host, "/var/lib/safe-service-restart/journal.json", "{damaged")?;
    host.exec(&["chmod", "0600", "/var/lib/safe-service-restart/journal.json"])?.success()?;
    expect(&status(&site, &["--textfile", METRICS])?, 1);
    is(&figures(&site)?, &[("journal_problem", 1.0)]);
    expect(&host.exec(&[TOOL, "--recover", "--textfile", METRICS])?, 1);
    let found = figures(&site)?;
    is(&found, &[("journal_problem", 1.0), ("under_way", 0.0)]);
    assert!(!found.contains_key("held") && !found.contains_key("out_seconds"), "nobody knows: {found:?}");
    expect(&status(&site, &[])?, 1);
    // It may have been the record of a run that has the host out.
    site.conftool().set(&site.node(0), "pooled=no")?;
    site.wait_pooled(0, false)?;
    let seen = status(&site, &[])?;
    expect(&seen, 1);
    let aside = "/var/lib/safe-service-restart/journal.set-aside-damaged-1.json";
    let why = format!("whether because of us is not known: a journal was set aside as '{aside}'");
    line(&seen, "mw1.eqiad.test is OUT OF SERVICE; ", &why);
    line(&seen, "put back  safe-service-restart --pool --pools", POOL);
    let seen = object(&status(&site, &["--json"])?);
    assert_eq!(seen["journal"]["set_aside"], json!([{"path": aside, "flaw": "damaged"}]));
    let way_back = seen["way_back"].as_str().unwrap();
    expect(&host.exec(&way_back.split(' ').collect::<Vec<_>>())?, 0);
    host.exec(&["bash", "-c", "rm /var/lib/safe-service-restart/journal.set-aside-*"])?.success()?;
    expect(&status(&site, &["--textfile", METRICS])?, 0);
    is(&figures(&site)?, &[("journal_problem", 0.0)]);
    Ok(())
}

#[test]
fn who_has_a_slot_is_named_where_etcd_counts_them() -> Result<()> {
    let site = site().driver(Driver::V3).boot()?;
    let arguments = ["--pools", POOL, "--services", UNIT, "--max-concurrency", "1", "--grace-period", "20"];
    let mut other = site.host(1).spawn(&[&[TOOL][..], &arguments].concat())?;
    other.wait_for_stderr("for requests in flight", SOON)?;
    let seen = status(&site, &[])?;
    expect(&seen, 0);
    assert!(seen.stdout.contains(&format!("ServiceRestarter::eqiad::{POOL}  'mw2.eqiad.test' since ")), "{seen}");
    other.signal(Signal::SIGTERM)?;
    other.wait(SOON)?;
    line(&status(&site, &[])?, "slots ", "all free");
    Ok(())
}
