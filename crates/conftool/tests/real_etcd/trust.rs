//! TLS, and users with passwords: what is verified, what is refused, and that no message tells a secret.

use std::fs;
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use restart_core::{Fate, PoolStore, Pooled, Slots, StoreError, WriteError};

use crate::etcd::{Api, Etcd, Kind};
use crate::fixture::{Files, LEASE, Opened, POOLED, id, key, pool};
use crate::leaks::{leaks, watch_for};
use crate::slots::{LONG, get};

pub(crate) const SECRET: &str = "hunter2-%:@/é";

fn with_tls(wants_client_certificates: bool) -> Etcd {
    Etcd::start(Kind { tls: true, wants_client_certificates, ..Kind::default() })
}

fn a_verified_server_is_read_and_written(api: Api) {
    let etcd = with_tls(false);
    etcd.set(api, &key("mw1.example"), POOLED);
    let files =
        Files::new(api, &[&etcd.members[0].url]).with(&format!("ca_cert: {}", etcd.certificates().ca.display()));
    let mut opened = files.open(Some(etcd.dir.path()));
    let found = opened.node("mw1.example");
    let write = opened.store.prepare(&found, Pooled::No).unwrap();
    opened.store.write(&write).unwrap();
}

fn a_server_that_cannot_be_verified_is_not_spoken_to(api: Api) {
    let etcd = with_tls(false);
    etcd.set(api, &key("mw1.example"), POOLED);
    let url = &etcd.members[0].url;
    let by_other_ca = Files::new(api, &[url]).with(&format!("ca_cert: {}", etcd.certificates().other_ca.display()));
    // The certificate is good for the address, not for the name.
    let port = etcd.members[0].address.clone();
    let relay = crate::proxy::Proxy::start(&port);
    let by_other_name = Files::new(api, &[&relay.url.replace("http:", "https:")])
        .with(&format!("ca_cert: {}", etcd.certificates().ca.display()));
    for files in [by_other_ca, by_other_name] {
        let mut opened = files.open(Some(etcd.dir.path()));
        let error = opened.store.read(&id("mw1.example")).unwrap_err();
        println!("{api:?}: {error}");
        assert!(
            matches!(&error, StoreError::Unreachable(text) if text.contains("TLS: invalid peer certificate")),
            "{error:?}"
        );
    }
}

fn a_client_certificate_is_shown_where_it_is_wanted(api: Api) {
    let etcd = with_tls(true);
    etcd.set(api, &key("mw1.example"), POOLED);
    let certificates = etcd.certificates();
    let url = &etcd.members[0].url;
    let ca = format!("ca_cert: {}", certificates.ca.display());
    let (cert, key_file) = (certificates.client.cert.display(), certificates.client.key.display());
    let pair = Files::new(api, &[url]).with(&ca).with(&format!("cert: [{cert}, {key_file}]"));
    pair.open(Some(etcd.dir.path())).node("mw1.example");

    let both = Files::new(api, &[url]).with(&ca);
    let text = [&certificates.client.cert, &certificates.client.key].map(|file| fs::read_to_string(file).unwrap());
    fs::write(both.path("both.pem"), text.concat()).unwrap();
    let line = format!("cert: {}", both.path("both.pem").display());
    both.with(&line).open(Some(etcd.dir.path())).node("mw1.example");

    let mut without = Files::new(api, &[url]).with(&ca).open(Some(etcd.dir.path()));
    let error = without.store.read(&id("mw1.example")).unwrap_err();
    println!("{api:?}: {error}");
    assert!(matches!(error, StoreError::Unreachable(_)), "{error:?}");
}

fn plain_text_to_a_server_with_tls_is_an_error_and_no_hang(api: Api) {
    let etcd = with_tls(false);
    let mut opened = Files::new(api, &[&etcd.members[0].url.replace("https:", "http:")]).open(None);
    let error = opened.store.read(&id("mw1.example")).unwrap_err();
    println!("{api:?}: {error}");
    assert!(matches!(error, StoreError::Unreachable(_)), "{error:?}");
}

/// An etcd with users: `conftool` may do everything below /conftool, `reader` may only read there.
pub(crate) fn with_users(api: Api) -> Etcd {
    with_users_and(api, &[])
}

/// The same, its members with more options.
fn with_users_and(api: Api, arguments: &'static [&'static str]) -> Etcd {
    let etcd = Etcd::start(Kind { arguments, ..Kind::default() });
    etcd.set(api, &key("mw1.example"), POOLED);
    match api {
        Api::V2 => {
            etcd.ctl(api, &["user", "add", "root:root-password"]);
            etcd.ctl(api, &["auth", "enable"]);
            let root = |arguments: &[&str]| etcd.ctl(api, &[&["--username", "root:root-password"], arguments].concat());
            root(&["role", "revoke", "guest", "--path", "/*", "--readwrite"]);
            for (role, access, user) in [("writes", "--readwrite", "conftool"), ("reads", "--read", "reader")] {
                root(&["role", "add", role]);
                root(&["role", "grant", role, "--path", "/conftool/*", access]);
                root(&["user", "add", &format!("{user}:{SECRET}")]);
                root(&["user", "grant", user, "--roles", role]);
            }
        }
        Api::V3 => {
            etcd.ctl(api, &["user", "add", "root:root-password"]);
            etcd.ctl(api, &["user", "grant-role", "root", "root"]);
            for (role, access, user) in [("writes", "readwrite", "conftool"), ("reads", "read", "reader")] {
                etcd.ctl(api, &["role", "add", role]);
                etcd.ctl(api, &["role", "grant-permission", role, "--prefix=true", access, "/conftool/"]);
                etcd.ctl(api, &["user", "add", &format!("{user}:{SECRET}")]);
                etcd.ctl(api, &["user", "grant-role", user, role]);
            }
            etcd.ctl(api, &["auth", "enable"]);
        }
    }
    etcd
}

pub(crate) fn files_for(api: Api, etcd: &Etcd, user: &str, password: &str) -> Files {
    Files::new(api, &[&etcd.members[0].url]).with(&format!("username: {user}")).with(&format!("password: '{password}'"))
}

fn a_user_with_the_right_password_is_let_in(api: Api) {
    watch_for(&["hunter2", &STANDARD.encode(format!("conftool:{SECRET}"))[..16]]);
    let etcd = with_users(api);
    let mut opened = files_for(api, &etcd, "conftool", SECRET).open(None);
    let found = opened.node("mw1.example");
    let write = opened.store.prepare(&found, Pooled::No).unwrap();
    opened.store.write(&write).unwrap();
    assert_eq!(leaks(), Vec::<String>::new(), "a log line holds the password");
    assert_eq!(opened.store.list(&pool()).unwrap().nodes.len(), 1);
}

fn a_wrong_password_is_refused_and_not_told(api: Api) {
    let etcd = with_users(api);
    for (user, password) in [("conftool", "wrong-secret"), ("nobody", "wrong-secret")] {
        let error = files_for(api, &etcd, user, password).open(None).store.read(&id("mw1.example")).unwrap_err();
        println!("{api:?}: {error}");
        assert!(matches!(error, StoreError::Refused(_)), "{error:?}");
        let text = format!("{error} {error:?}");
        assert!(text.contains(&format!("refuses user '{user}'")) && !text.contains("wrong-secret"), "{text}");
    }
    let error = Files::new(api, &[&etcd.members[0].url]).open(None).store.read(&id("mw1.example")).unwrap_err();
    println!("{api:?}: {error}");
    assert!(matches!(error, StoreError::Refused(_)), "{error:?}");
}

fn a_user_who_may_only_read_cannot_write(api: Api) {
    let etcd = with_users(api);
    let mut opened = files_for(api, &etcd, "reader", SECRET).open(None);
    let found = opened.node("mw1.example");
    let write = opened.store.prepare(&found, Pooled::No).unwrap();
    let refused = opened.store.write(&write);
    println!("{api:?}: {refused:?}");
    assert!(matches!(refused, Err(WriteError::NotMade(StoreError::Refused(_)))), "{refused:?}");
    assert!(!format!("{refused:?}").contains(SECRET));
    assert_eq!(opened.node("mw1.example"), found);
    assert_eq!(opened.outcomes(), ["failure"]);
}

/// Depools and repools, first thing after a pause as long as `pause` makes it, and asks each kind of question after another.
fn goes_on_after(opened: &mut Opened, mut pause: impl FnMut()) {
    let found = opened.node("mw1.example");
    let write = opened.store.prepare(&found, Pooled::No).unwrap();
    pause();
    let depooled = opened.store.write(&write).unwrap();
    pause();
    assert_eq!(opened.node("mw1.example"), depooled);
    pause();
    match opened.store.fate(&write).unwrap() {
        Fate::Made(node) => assert_eq!(node, depooled),
        // A v2 member keeps its history in memory alone.
        Fate::Unclear(why) => assert!(why.contains("history"), "{why}"),
        other => panic!("{other:?}"),
    }
    let write = opened.store.prepare(&depooled, Pooled::Yes).unwrap();
    opened.store.write(&write).unwrap();
    pause();
    assert_eq!(opened.store.list(&pool()).unwrap().nodes.len(), 1);
    assert_eq!(opened.outcomes(), ["success", "success"]);
}

/// What v3 gives for a password is kept in the memory of the member that gave it, and gone with it. In v2 every request has the
/// password with it.
fn a_user_goes_on_after_etcd_was_restarted(api: Api) {
    let mut etcd = with_users(api);
    let files = files_for(api, &etcd, "conftool", SECRET);
    let mut opened = files.open(None);
    goes_on_after(&mut opened, || {
        etcd.members[0].kill();
        etcd.members[0].start();
        let end = Instant::now() + Duration::from_secs(60);
        while let Err(error) = files.open(None).store.read(&id("mw1.example")) {
            assert!(Instant::now() < end, "{error}");
        }
    });
}

fn a_user_where_none_is_wanted_does_no_harm(api: Api) {
    let etcd = Etcd::single();
    etcd.set(api, &key("mw1.example"), POOLED);
    files_for(api, &etcd, "conftool", SECRET).open(None).node("mw1.example");
}

crate::both_apis!(
    a_verified_server_is_read_and_written,
    a_server_that_cannot_be_verified_is_not_spoken_to,
    a_client_certificate_is_shown_where_it_is_wanted,
    plain_text_to_a_server_with_tls_is_an_error_and_no_hang,
    a_user_with_the_right_password_is_let_in,
    a_wrong_password_is_refused_and_not_told,
    a_user_who_may_only_read_cannot_write,
    a_user_goes_on_after_etcd_was_restarted,
    a_user_where_none_is_wanted_does_no_harm,
);

/// What v3 gives for a password expires when it is not used for a while, by default for five minutes.
#[test]
fn a_user_goes_on_after_a_pause_that_outlasts_the_token() {
    let etcd = with_users_and(Api::V3, &["--auth-token-ttl=2"]);
    let files = files_for(Api::V3, &etcd, "conftool", SECRET);
    goes_on_after(&mut files.open(None), || std::thread::sleep(Duration::from_secs(4)));
}

/// A signed token (JWT) says what users and roles there were, and is of no more use once an administrator changes one of them.
#[test]
fn a_user_goes_on_after_others_were_given_rights() {
    // Any file serves as the secret that etcd signs with.
    let etcd = with_users_and(Api::V3, &["--auth-token=jwt,sign-method=HS256,priv-key=/etc/os-release,ttl=10m"]);
    let files = files_for(Api::V3, &etcd, "conftool", SECRET);
    let mut roles = 0..;
    let mut administrate = || {
        let role = format!("role-{}", roles.next().unwrap());
        etcd.ctl(Api::V3, &["--user", "root:root-password", "role", "add", &role]);
    };
    goes_on_after(&mut files.open(None), &mut administrate);

    let mut slots = files.slots("mw1.example");
    slots.ask(1, LONG).unwrap();
    get(&mut slots);
    administrate();
    slots.taking_out().unwrap();
    std::thread::sleep(LEASE * 2);
    assert_eq!(slots.look(), Ok(()));
}

#[test]
fn tls_files_that_cannot_serve_are_named_at_load() {
    let dir = tempfile::tempdir().unwrap();
    let made = crate::tls::Certificates::make(&dir.path().join("tls"), &["127.0.0.1".to_owned()]);
    let empty = dir.path().join("empty.pem");
    fs::write(&empty, "# nothing\n").unwrap();
    let damaged = dir.path().join("damaged.pem");
    fs::write(&damaged, "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n").unwrap();
    let damaged_key = dir.path().join("damaged.key");
    fs::write(&damaged_key, "-----BEGIN PRIVATE KEY-----\nMIGHsecret\n-----END PRIVATE KEY-----\n").unwrap();
    let missing = dir.path().join("missing.pem");
    let ca = format!("ca_cert: {}", made.ca.display());
    let cert = |cert: &std::path::Path, key: &std::path::Path| format!("cert: [{}, {}]", cert.display(), key.display());
    for (lines, named, wanted) in [
        (vec![format!("ca_cert: {}", missing.display())], &missing, "does not exist"),
        (vec![format!("ca_cert: {}", empty.display())], &empty, "there is no certificate in it"),
        (vec![format!("ca_cert: {}", damaged.display())], &damaged, "not a CA certificate"),
        (vec![ca.clone(), cert(&empty, &made.client.key)], &empty, "there is no certificate in it"),
        (vec![ca.clone(), cert(&made.client.cert, &empty)], &empty, "no private key"),
        (vec![ca.clone(), cert(&made.client.cert, &missing)], &missing, "does not exist"),
        (vec![ca.clone(), cert(&made.client.cert, &damaged_key)], &damaged_key, "private key"),
        (
            vec![ca.clone(), cert(&made.client.cert, &made.server.key)],
            &made.server.key,
            "not a private key that belongs to",
        ),
        (vec![ca.clone(), format!("cert: {}", made.client.cert.display())], &made.client.cert, "no private key"),
    ] {
        let mut files = Files::new(Api::V2, &["https://127.0.0.1:2379"]);
        for line in &lines {
            files = files.with(line);
        }
        let error = files.load(Some(dir.path())).unwrap_err().to_string();
        assert!(error.contains(&format!("'{}'", named.display())) && error.contains(wanted), "{lines:?}: {error}");
        assert!(!error.contains("secret"), "{error}");
    }
    // Without TLS the files are not needed, and not looked at.
    let plain = Files::new(Api::V2, &["http://127.0.0.1:2379"]).with(&format!("ca_cert: {}", missing.display()));
    assert!(plain.load(Some(dir.path())).is_ok());
}
