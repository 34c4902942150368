//! What must be an error that names it, before anything is changed.

use testbed::Result;
use testbed::etcd::Driver;
use testbed::host::{Host, Output};
use testbed::site::{POOL, UNIT};

use crate::{TOOL, expect, php, put, says, site};

fn run(host: &Host, arguments: &[&str]) -> Result<Output> {
    host.exec(&[&[TOOL, "--grace-period", "0"], arguments].concat())
}

const CATALOG: &str = "/etc/conftool/local_services.yaml";
const CONFIG: &str = "/etc/conftool/config.yaml";

#[test]
fn a_command_line_that_cannot_be_meant_is_refused() -> Result<()> {
    let site = site().boot()?;
    let (host, before) = (site.host(0), php(&site)?);
    // Of an address that no host on this machine has, and that is not loopback (RFC 5737).
    host.exec(&["bash", "-c", "echo 192.0.2.1 other.eqiad.test >>/etc/hosts"])?.success()?;
    let table: [(&[&str], i32, &str); 11] = [
        (&["--pools", "typo", "--services", UNIT], 78, "'typo'"),
        (&["--pools", POOL, "typo", "--services", UNIT], 78, "'typo'"),
        (&["--pools", POOL, "--services", "typo"], 78, "'typo.service'"),
        (&["--pools", POOL, "--services", UNIT, "--dc", "nowhere"], 78, "nowhere/appserver/php/mw1.eqiad.test"),
        (&["--pools", POOL, "--services", UNIT, "--host", "other.eqiad.test"], 78, "192.0.2.1"),
        (&["--pools", POOL, "--services", UNIT, "--host", "nobody.eqiad.test"], 78, "nobody.eqiad.test"),
        (&["--pools", POOL, "--services", UNIT, "--lb-quorum", "3"], 78, "3"),
        (&["--pools", POOL, "--services", UNIT, "--catalog", "/etc/none.yaml"], 78, "'/etc/none.yaml'"),
        (&["--pools", POOL, "--services", UNIT, "--config", "/etc/none.yaml"], 78, "'/etc/none.yaml'"),
        (&["--services", UNIT], 2, "--pools"),
        (&["--pools", POOL, "--services", UNIT, "--object-type", "service"], 2, "service"),
    ];
    for (arguments, code, words) in table {
        let output = run(host, arguments)?;
        expect(&output, code);
        says(&output, words);
    }
    assert_eq!(php(&site)?, before);
    assert_eq!(site.conftool().pooled(&site.node(0))?, "yes");
    Ok(())
}

#[test]
fn files_that_are_missing_wrong_or_not_to_be_trusted_are_refused() -> Result<()> {
    let site = site().boot()?;
    let (host, before) = (site.host(0), php(&site)?);
    let arguments = ["--pools", POOL, "--services", UNIT];
    let config = host.read(CONFIG)?;
    let table: [(&str, &str, i32, &str); 8] = [
        (CATALOG, "", 78, "local_services.yaml"),
        (CATALOG, "appservers: [", 78, "local_services.yaml"),
        (CATALOG, "other: {cluster: a, service: b, port: 1, servers: [x]}\n", 78, "other"),
        (CONFIG, "driver: zookeeper\n", 78, "zookeeper"),
        (CONFIG, "no_such_key: 1\n", 78, "no_such_key"),
        (CONFIG, "pools_path: /absolute\n", 78, "pools_path"),
        ("/etc/wikimedia-cluster", "", 78, "wikimedia-cluster"),
        ("/etc/conftool/etcdrc", "ca_cert: /etc/hosts\nprotocol: https\n", 78, "certificate"),
    ];
    for (path, content, code, words) in table {
        let good = host.read(path)?;
        put(host, path, content)?;
        let output = run(host, &arguments)?;
        expect(&output, code);
        says(&output, words);
        put(host, path, &good)?;
    }
    put(host, CONFIG, &format!("{config}read_only: true\n"))?;
    for what in [&["--services", UNIT][..], &["--depool"], &["--pool"]] {
        let output = run(host, &[&["--pools", POOL], what].concat())?;
        expect(&output, 78);
        says(&output, "read_only");
    }
    put(host, CONFIG, &config)?;
    let untrusted = [("chmod", "0666", CATALOG), ("chown", "www-data", CONFIG), ("chmod", "0777", "/etc/conftool")];
    for (command, how, path) in untrusted {
        host.exec(&[command, how, path])?.success()?;
        let output = run(host, &arguments)?;
        expect(&output, 77);
        says(&output, path);
        host.exec(&["chown", "root", path])?.success()?;
        host.exec(&["chmod", if path == "/etc/conftool" { "0755" } else { "0644" }, path])?.success()?;
    }
    host.exec(&["rm", "/etc/wikimedia-cluster"])?.success()?;
    let output = run(host, &arguments)?;
    expect(&output, 78);
    says(&output, "--dc");
    // Said on the command line, it is known.
    expect(&run(host, &[&arguments[..], &["--dc", "eqiad", "--dry-run"]].concat())?, 0);
    assert_eq!(php(&site)?, before);
    assert_eq!(site.conftool().pooled(&site.node(0))?, "yes");
    Ok(())
}

/// Names match exactly: neither a longer name nor one that a pattern would match is this host.
#[test]
fn a_host_that_is_in_none_of_the_pools_is_refused_whatever_its_neighbours_are_called() -> Result<()> {
    for driver in [Driver::V2, Driver::V3] {
        let site = site().driver(driver).boot()?;
        let before = php(&site)?;
        let node = site.node(0);
        let raw = site.conftool().raw(&node)?.unwrap();
        let store = site.conftool().store();
        let neighbours = ["mw1.eqiad.test.example", "mw1xeqiad.test", "mw10.eqiad.test"];
        for neighbour in neighbours {
            store.put(&format!("{}/{neighbour}", node.folder()), &raw)?;
        }
        // A damaged object of another host is none of our business.
        store.put(&format!("{}/broken.eqiad.test", node.folder()), "{not json")?;
        expect(&run(site.host(0), &["--pools", POOL, "--services", UNIT])?, 0);
        assert_ne!(php(&site)?, before);
        let before = php(&site)?;
        store.delete(&node.key())?;
        let output = run(site.host(0), &["--pools", POOL, "--services", UNIT])?;
        expect(&output, 78);
        says(&output, "in none of the pools");
        assert_eq!(php(&site)?, before);
        for neighbour in neighbours {
            let now = store.get(&format!("{}/{neighbour}", node.folder()))?.unwrap();
            assert_eq!(now.value, raw, "'{neighbour}' was written to");
        }
        // Our own damaged object is an error, never a reason to restart.
        store.put(&node.key(), "{not json")?;
        expect(&run(site.host(0), &["--pools", POOL, "--services", UNIT])?, 1);
        assert_eq!(php(&site)?, before);
    }
    Ok(())
}

#[test]
fn a_host_without_any_of_the_files_has_no_pool_to_leave() -> Result<()> {
    let site = site().boot()?;
    let host = site.host(0);
    host.exec(&["rm", "-rf", "/etc/conftool", "/etc/wikimedia-cluster"])?.success()?;
    let before = php(&site)?;
    // A limit has nothing to be counted in, and is not forgotten for that.
    for limit in ["3", "10%"] {
        for more in [&["--dry-run"][..], &[]] {
            let refused = run(host, &[&["--services", UNIT, "--max-concurrency", limit], more].concat())?;
            expect(&refused, 78);
            says(&refused, "name the pools, or leave the limit out");
        }
    }
    assert_eq!(php(&site)?, before);
    let output = run(host, &["--services", UNIT])?;
    expect(&output, 0);
    says(&output, "no pool to leave");
    assert_ne!(php(&site)?, before);
    Ok(())
}

/// Nothing in the caller's environment changes what happens.
#[test]
fn the_environment_changes_nothing() -> Result<()> {
    let site = site().boot()?;
    let environment = [
        "env",
        "RUST_LOG=trace",
        "http_proxy=http://127.0.0.1:9",
        "HTTP_PROXY=http://127.0.0.1:9",
        "HOME=/nonexistent",
        "PATH=/nonexistent",
        "SYSTEMD_LOG_LEVEL=debug",
        "RES_OPTIONS=attempts:9",
        "SUDO_USER=alice",
    ];
    let arguments = [TOOL, "--pools", POOL, "--services", UNIT, "--grace-period", "0"];
    let output = site.host(0).exec(&[&environment[..], &arguments].concat())?;
    expect(&output, 0);
    assert!(!output.stderr.contains("TRACE") && !output.stderr.contains("trace:"), "{output}");
    let audit = site.host(0).exec(&["journalctl", "--quiet", "--output=cat", "--grep=conftool.audit"])?.success()?;
    assert!(audit.contains(r#""user.name": "alice""#), "{audit}");
    Ok(())
}
