//! etcd away, frozen, with TLS and passwords; and what operators write while the host is out.

use std::time::Duration;

use testbed::Result;
use testbed::etcd::{Driver, Etcd, Tls};
use testbed::site::Site;

use crate::{expect, php, restart, says, site, start};

const DRIVERS: [Driver; 2] = [Driver::V2, Driver::V3];

fn with(driver: Driver) -> Result<Site> {
    site().driver(driver).boot()
}

#[test]
fn a_store_that_is_dead_or_frozen_is_exit_69_and_nothing_is_changed() -> Result<()> {
    for driver in DRIVERS {
        let mut site = with(driver)?;
        let before = php(&site)?;
        site.etcd_mut().freeze(0)?;
        let run = restart(&site, &[])?;
        expect(&run, 69);
        says(&run, "not restarted, pools as found");
        site.etcd_mut().thaw(0)?;
        site.etcd_mut().kill(0)?;
        expect(&restart(&site, &[])?, 69);
        assert_eq!(php(&site)?, before);
        site.etcd_mut().start_again(0)?;
        site.etcd_mut().wait_healthy(0)?;
        assert_eq!(site.conftool().pooled(&site.node(0))?, "yes");
    }
    Ok(())
}

/// The load balancers follow the first member, as they do in life whichever is theirs; this host is told of the last one
/// first.
#[test]
fn members_that_are_dead_or_frozen_are_passed_over() -> Result<()> {
    for driver in DRIVERS {
        let mut site = site().driver(driver).etcd(Etcd::builder().members(3)).boot()?;
        let rc = site.host(0).read("/etc/conftool/etcdrc")?;
        let hosts: Vec<_> =
            site.etcd().addresses().iter().rev().map(|address| format!("[{}, 2379]", address.ip())).collect();
        let others: Vec<_> = rc.lines().filter(|line| !line.starts_with("host:")).collect();
        let rc = format!("host: [{}]\n{}\n", hosts.join(", "), others.join("\n"));
        crate::put(site.host(0), "/etc/conftool/etcdrc", &rc)?;
        site.etcd_mut().freeze(2)?;
        expect(&restart(&site, &[])?, 0);
        site.etcd_mut().thaw(2)?;
        site.etcd_mut().kill(2)?;
        expect(&restart(&site, &[])?, 0);
    }
    Ok(())
}

#[test]
fn a_store_that_dies_while_the_host_is_out_and_comes_back_is_awaited() -> Result<()> {
    for driver in DRIVERS {
        let mut site = with(driver)?;
        let mut run = start(&site, &["--grace-period", "0", "--settle", "4", "--lb-timeout", "30"])?;
        run.wait_for_stderr("depooled '", Duration::from_secs(20))?;
        // The last look reads the store; after it there are four seconds in which nobody needs it.
        let host = site.host(0);
        let before = php(&site)?;
        testbed::wait::until("the restart", Duration::from_secs(20), || {
            Ok(host.property("php8.2-fpm", "MainPID")? != before)
        })?;
        site.etcd_mut().kill(0)?;
        run.wait_for_stderr("cannot reach the store to repool", Duration::from_secs(40))?;
        site.etcd_mut().start_again(0)?;
        let run = run.wait(Duration::from_secs(60))?;
        expect(&run, 0);
        site.wait_pooled(0, true)?;
    }
    Ok(())
}

#[test]
fn tls_and_passwords_work_and_no_password_is_ever_printed() -> Result<()> {
    for driver in DRIVERS {
        let etcd = Etcd::builder().tls(Tls::Server).passwords();
        let site = site().driver(driver).etcd(etcd).boot()?;
        let user = site.etcd().conftool_access().user.unwrap();
        let password = user.password;
        // As it is, and as HTTP carries it: `user:password` in base64.
        let encode = "printf %s \"$0\" | base64 -w0";
        let basic = site.host(0).exec(&["bash", "-c", encode, &format!("{}:{password}", user.name)])?.success()?;
        let run = restart(&site, &["-vv", "--json"])?;
        expect(&run, 0);
        for secret in [&password, &basic] {
            assert!(!run.stdout.contains(secret) && !run.stderr.contains(secret), "the password is in the output");
        }
        // A wrong password is refused, by name, and is not in the output either.
        let rc = site.host(0).read("/etc/conftool/etcdrc")?;
        let wrong = format!("{password}-wrong");
        crate::put(site.host(0), "/etc/conftool/etcdrc", &rc.replace(&password, &wrong))?;
        let run = restart(&site, &["-vv"])?;
        expect(&run, 78);
        assert!(!run.stderr.contains(&password), "{run}");
        // Another authority than the one that signed: TLS is verified.
        crate::put(site.host(0), "/etc/conftool/etcdrc", &rc)?;
        let other = testbed::certificates::Authority::new()?;
        crate::put(site.host(0), "/etc/conftool/ca.pem", &std::fs::read_to_string(other.certificate())?)?;
        let run = restart(&site, &[])?;
        assert!(matches!(run.code(), Some(69 | 78)), "{run}");
        says(&run, "certificate");
    }
    Ok(())
}

#[test]
fn client_certificates_are_shown() -> Result<()> {
    for driver in DRIVERS {
        let site = site().driver(driver).etcd(Etcd::builder().tls(Tls::Mutual)).boot()?;
        expect(&restart(&site, &[])?, 0);
    }
    Ok(())
}

/// While the host is out, an operator writes; each row: what he sets, and what stands there in the end.
#[test]
fn what_an_operator_writes_meanwhile_is_respected() -> Result<()> {
    for driver in DRIVERS {
        let site = with(driver)?;
        let table = [("pooled=inactive", "inactive", 10), ("weight=7", "yes", 7)];
        for (set, pooled, weight) in table {
            let mut run = start(&site, &["--grace-period", "2"])?;
            run.wait_for_stderr("for requests in flight", Duration::from_secs(20))?;
            site.conftool().set(&site.node(0), set)?;
            let run = run.wait(Duration::from_secs(30))?;
            expect(&run, 0);
            let object: serde_json::Value = serde_json::from_str(&site.conftool().raw(&site.node(0))?.unwrap())?;
            assert_eq!((&object["pooled"], &object["weight"]), (&pooled.into(), &weight.into()), "{set}: {run}");
            site.conftool().set(&site.node(0), "pooled=yes:weight=10")?;
            site.wait_pooled(0, true)?;
        }
        // A host that is pooled before the restart is not restarted.
        let before = php(&site)?;
        let mut run = start(&site, &["--grace-period", "2"])?;
        run.wait_for_stderr("for requests in flight", Duration::from_secs(20))?;
        site.conftool().set(&site.node(0), "pooled=yes")?;
        let run = run.wait(Duration::from_secs(30))?;
        expect(&run, 1);
        says(&run, "somebody pooled");
        assert_eq!(php(&site)?, before);
        assert_eq!(site.conftool().pooled(&site.node(0))?, "yes");
    }
    Ok(())
}
