//! Requests in flight before the restart, and whether the service serves after it: PHP-FPM with its status and ping pages.

use std::net::TcpStream;
use std::thread;
use std::time::Duration;

use testbed::site::{Builder, POOL, Site, UNIT};
use testbed::{Result, load, wait};

use crate::{PAGES, POOL_FILE, TOOL, expect, field, php, restart, says, site, tool};

/// A site whose PHP-FPM has all its pages, and a second pool beside the one that the web server uses.
fn with_pages() -> Builder {
    let second = PAGES.replace("[www]", "[second]").replace("/run/php/status.sock", "/run/php/second-status.sock");
    let second = format!(
        "{second}user = www-data\ngroup = www-data\nlisten = /run/php/second.sock\npm = static\npm.max_children = 2\n"
    );
    site().each_host(move |host| host.file(POOL_FILE, PAGES).file("/etc/php/8.2/fpm/pool.d/zz-second.conf", &second))
}

/// A request to the first host itself that takes so long, begun before this returns; what came of it.
pub fn slow_request(site: &Site, time: Duration) -> Result<thread::JoinHandle<Result<String>>> {
    let web = site.host(0).web();
    let path = format!("/slow.php?ms={}", time.as_millis());
    let before = in_flight(site)?;
    let request = thread::spawn(move || load::fetch(web, &path, Duration::from_secs(30)));
    wait::until("the request to be in flight", Duration::from_secs(10), || Ok(in_flight(site)? > before))?;
    Ok(request)
}

/// How many requests have a process, as the kernel sees it: each holds a connection from nginx to PHP-FPM's socket.
fn in_flight(site: &Site) -> Result<usize> {
    Ok(sockets(site, "ESTAB")?.len())
}

/// The sockets of this host's PHP-FPM in this state, by ss(8). Hosts share this machine's network, and so see each other's sockets at
/// the same path: not their processes.
fn sockets(site: &Site, state: &str) -> Result<Vec<String>> {
    let path = "/run/php/php8.2-fpm.sock";
    let command = ["ss", "--no-header", "--unix", "--all", "--processes", "src", path];
    let sockets = site.host(0).exec(&command)?.success()?;
    let ours = |line: &&str| line.contains(state) && line.contains("(\"php-fpm");
    Ok(sockets.lines().filter(ours).map(ToOwned::to_owned).collect())
}

#[test]
fn slow_requests_in_flight_are_awaited_and_not_one_is_lost() -> Result<()> {
    let site = with_pages().boot()?;
    let before = php(&site)?;
    let load = site.load().rate(60).slow(6, Duration::from_millis(1500)).start()?;
    // One that would be cut off by a restart within the grace period.
    wait::until("a slow request in flight", Duration::from_secs(20), || Ok(in_flight(&site)? > 0))?;
    let run = tool(&site, &["--services", UNIT, "--json", "--grace-period", "0.3", "--drain-timeout", "20"])?;
    expect(&run, 0);
    site.wait_pooled(0, true)?;
    let report = load.stop()?;
    assert!(report.ok > 20, "the load was too light to show anything: {report:?}\n{run}");
    assert_eq!(report.lost, 0, "{report:?}\n{run}");
    assert_eq!(field(&run, "in_flight"), 0, "{run}");
    assert_ne!(php(&site)?, before);
    Ok(())
}

#[test]
fn a_request_longer_than_the_grace_period_is_counted_and_cut_off_or_keeps_the_host_from_being_restarted() -> Result<()>
{
    let site = with_pages().boot()?;
    let before = php(&site)?;
    let request = slow_request(&site, Duration::from_secs(8))?;
    let refused = restart(&site, &["--json", "--require-drained"])?;
    expect(&refused, 1);
    says(&refused, "is not drained after ");
    says(&refused, ": 1 request is still in flight");
    assert_eq!(site.conftool().pooled(&site.node(0))?, "yes");
    assert_eq!(php(&site)?, before, "restarted all the same: {refused}");

    let run = restart(&site, &["--json"])?;
    expect(&run, 0);
    says(&run, "1 request is still in flight");
    assert_eq!(field(&run, "in_flight"), 1, "{run}");
    assert!(request.join().unwrap().is_err(), "the request outlived the restart");
    assert_ne!(php(&site)?, before);
    Ok(())
}

/// All children busy: the status page on a socket of its own still answers, one in the pool does not. That is no reason not to begin:
/// it will, once no load balancer sends any more and what is in flight has ended.
#[test]
fn when_every_child_is_busy_the_pool_is_not_taken_for_drained() -> Result<()> {
    let without_socket = PAGES.replace("pm.status_listen", ";pm.status_listen");
    let few = |pages: &str| format!("{pages}pm.max_children = 2\n");
    for (pages, counted) in [(few(PAGES), true), (few(&without_socket), false)] {
        let site = site().each_host(move |host| host.file(POOL_FILE, &pages)).boot()?;
        let before = php(&site)?;
        let mut requests =
            vec![slow_request(&site, Duration::from_secs(9))?, slow_request(&site, Duration::from_secs(9))?];
        if counted {
            // One that PHP-FPM itself does not know of: it waits at the socket.
            let web = site.host(0).web();
            requests.push(thread::spawn(move || load::fetch(web, "/index.php", Duration::from_secs(30))));
            wait::until("the request to wait for a child", Duration::from_secs(10), || {
                let listens = sockets(&site, "LISTEN")?.concat();
                Ok(listens.split_whitespace().nth(2) == Some("1"))
            })?;
        }
        let refused = restart(&site, &["--json", "--require-drained"])?;
        expect(&refused, 1);
        says(&refused, if counted { "3 requests are still in flight" } else { "timed out after 2" });
        assert_eq!(php(&site)?, before);
        let run = restart(&site, &["--json", "--drain-timeout", "30"])?;
        expect(&run, 0);
        assert_eq!(field(&run, "in_flight"), 0, "{run}");
        for request in requests {
            assert!(request.join().unwrap().is_ok(), "a request was lost: {run}");
        }
    }
    Ok(())
}

#[test]
fn without_pages_time_alone_decides_and_the_lines_to_add_are_said() -> Result<()> {
    let site = site().boot()?;
    let run = restart(&site, &["--json"])?;
    expect(&run, 0);
    says(
        &run,
        "pool 'www' has no status page: add 'pm.status_path = /fpm-status' to '/etc/php/8.2/fpm/pool.d/www.conf'",
    );
    says(
        &run,
        "'php8.2-fpm.service' counts as serving as soon as it runs: pool 'www' has no ping page: add 'ping.path = /fpm-ping' \
         to '/etc/php/8.2/fpm/pool.d/www.conf'",
    );
    assert!(field(&run, "in_flight").is_null(), "{run}");
    let refused = restart(&site, &["--require-drained"])?;
    expect(&refused, 78);
    says(&refused, "add 'pm.status_path = /fpm-status'");
    assert_eq!(site.conftool().pooled(&site.node(0))?, "yes");
    Ok(())
}

/// A page that PHP-FPM has not read since it was configured: nobody answers, and nothing is done before that is seen.
#[test]
fn a_drained_host_cannot_be_required_of_a_php_that_has_not_read_its_pages() -> Result<()> {
    let site = site().boot()?;
    let (before, object) = (php(&site)?, site.conftool().raw(&site.node(0))?);
    for (pages, words) in [
        (PAGES.to_owned(), "at '/run/php/status.sock': cannot connect: no such file or directory"),
        (
            PAGES.replace("pm.status_listen", ";pm.status_listen"),
            "the PHP-FPM that runs has no status page '/fpm-status'",
        ),
    ] {
        site.host(0).write(POOL_FILE, &pages)?;
        for arguments in [&["--require-drained"][..], &["--require-drained", "--dry-run"]] {
            let refused = restart(&site, arguments)?;
            expect(&refused, 78);
            says(&refused, words);
            says(&refused, "restart it once without requiring that");
        }
        assert_eq!(site.conftool().raw(&site.node(0))?, object, "written to meanwhile");
        assert_eq!(php(&site)?, before);
    }
    // Who may not ask PHP-FPM is told that, and not to restart it.
    site.host(0).write(POOL_FILE, &PAGES.replace("pm.status_listen", ";pm.status_listen"))?;
    site.host(0).exec(&["chmod", "0644", "/etc/conftool/etcdrc"])?.success()?;
    let arguments = ["--pools", POOL, "--services", UNIT, "--require-drained", "--dry-run"];
    let look = site.host(0).exec(&[&["runuser", "-u", "nobody", "--", TOOL], &arguments[..]].concat())?;
    expect(&look, 77);
    says(&look, "at '/run/php/php8.2-fpm.sock': cannot connect: permission denied");
    // What it says to do.
    expect(&restart(&site, &[])?, 0);
    let run = restart(&site, &["--require-drained", "--json"])?;
    expect(&run, 0);
    assert_eq!(field(&run, "in_flight"), 0, "{run}");
    Ok(())
}

/// Somebody removed the sockets: nobody can be asked, nobody is served, and a restart is what mends it.
#[test]
fn with_its_sockets_missing_time_alone_decides_and_the_restart_brings_them_back() -> Result<()> {
    let site = with_pages().boot()?;
    let before = php(&site)?;
    site.host(0).exec(&["sh", "-c", "rm /run/php/*.sock"])?.success()?;
    let refused = restart(&site, &["--require-drained"])?;
    expect(&refused, 78);
    says(&refused, "at '/run/php/status.sock': cannot connect: no such file or directory");
    assert_eq!(php(&site)?, before);
    let run = restart(&site, &["--json"])?;
    expect(&run, 0);
    assert!(field(&run, "in_flight").is_null(), "{run}");
    says(&run, "at '/run/php/status.sock': cannot connect: no such file or directory");
    load::fetch(site.host(0).web(), "/index.php", Duration::from_secs(5))?;
    site.wait_pooled(0, true)
}

#[test]
fn a_service_that_runs_and_does_not_serve_leaves_the_host_depooled() -> Result<()> {
    let site = with_pages().boot()?;
    let catalog = "/etc/conftool/local_services.yaml";
    let host = site.host(0);
    let text = host.read(catalog)?;
    let with = |url: &str| text.replacen("appservers:\n", &format!("appservers:\n  ready_url: {url}\n"), 1);
    assert_ne!(with("x"), text, "the catalog is not as this test knows it: {text}");
    host.write(catalog, &with(&format!("http://{}/nothing.php", host.web())))?;
    let run = restart(&site, &["--json", "--ready-timeout", "1"])?;
    expect(&run, 3);
    says(&run, "does not answer: it answers with status 404");
    assert_eq!(site.conftool().pooled(&site.node(0))?, "no");
    host.write(catalog, &with(&format!("http://{}/index.php", host.web())))?;
    expect(&restart(&site, &[])?, 0);
    assert_eq!(site.conftool().pooled(&site.node(0))?, "yes");

    // PHP-FPM is up, and its pool's processes cannot be had: ping does not answer.
    let stopped = "for p in $(pgrep -f 'pool www'); do kill -STOP $p; done";
    host.write("/run/stop", stopped)?;
    let post = "mkdir -p /run/systemd/system/php8.2-fpm.service.d && printf '[Service]\\nExecStartPost=/bin/sh /run/stop\\n' \
                >/run/systemd/system/php8.2-fpm.service.d/stop.conf && systemctl daemon-reload";
    host.exec(&["sh", "-c", post])?.success()?;
    let run = restart(&site, &["--ready-timeout", "1"])?;
    expect(&run, 3);
    says(&run, "it runs, and is not ready: ping page '/fpm-ping' of pool 'www'");
    assert_eq!(site.conftool().pooled(&site.node(0))?, "no");
    Ok(())
}

/// The drop-in that is shipped, and the setting that it says goes with it: neither does anything without the other.
#[test]
fn the_graceful_stop_lets_requests_end_with_the_setting_that_it_names() -> Result<()> {
    const DROP_IN: &str = include_str!("../../systemd/php-fpm-graceful-stop.conf");
    const SETTING: &str = "process_control_timeout = 5s";
    assert!(DROP_IN.contains(&format!("#   {SETTING}\n")), "the drop-in names another setting");
    let site = site().boot()?;
    let host = site.host(0);
    for (drop_in, setting, survives) in
        [(DROP_IN, SETTING, true), (DROP_IN, "", false), ("", SETTING, false), ("", "", false)]
    {
        host.write("/etc/systemd/system/php8.2-fpm.service.d/graceful-stop.conf", drop_in)?;
        host.write(POOL_FILE, &format!("[global]\n{setting}\n"))?;
        host.exec(&["sh", "-c", "systemctl daemon-reload && systemctl restart php8.2-fpm"])?.success()?;
        let before = php(&site)?;
        let request = slow_request(&site, Duration::from_secs(3))?;
        host.exec(&["systemctl", "restart", UNIT])?.success()?;
        let answer = request.join().unwrap();
        assert_eq!(answer.is_ok(), survives, "'{setting}' with the drop-in '{drop_in}': {answer:?}");
        assert_ne!(php(&site)?, before);
    }
    Ok(())
}

/// Counted on a port of its own: hosts share this machine's network, and others are busy on theirs.
#[test]
fn a_service_that_is_no_php_is_restarted_when_its_connections_have_ended() -> Result<()> {
    const PORT: u16 = 8117;
    let site = site().pool("api", "api", PORT).each_host(|host| {
        let server = format!("server {{ listen {}; }}\n", host.address().port(PORT));
        host.file("/etc/nginx/sites-enabled/api", &server)
    });
    let site = site.boot()?;
    let host = site.host(0);
    let run = |arguments: &[&str]| {
        host.exec(&[&[crate::TOOL, "--pools", "api", "--services", "nginx", "--json"], arguments].concat())
    };
    let before = host.property("nginx", "MainPID")?;
    // Somebody who came past the load balancers and stays.
    let open = TcpStream::connect(host.address().port(PORT))?;
    let refused = run(&["--grace-period", "0.3", "--require-drained"])?;
    expect(&refused, 1);
    says(&refused, "1 connection is still in flight");
    assert_eq!(host.property("nginx", "MainPID")?, before, "{refused}");
    drop(open);
    let drained = run(&["--drain-timeout", "30", "--require-drained"])?;
    expect(&drained, 0);
    assert_eq!(field(&drained, "in_flight"), 0, "{drained}");
    assert_ne!(host.property("nginx", "MainPID")?, before);
    Ok(())
}
