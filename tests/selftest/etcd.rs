use testbed::Result;
use testbed::etcd::{Change, Driver, Etcd, Store, Tls, User, Watched};

const KEY: &str = "/conftool/v1/pools/eqiad/appserver/php/mw1.eqiad.test";
const FOLDER: &str = "/conftool/v1/pools/eqiad/appserver/php";
const DRIVERS: [Driver; 2] = [Driver::V2, Driver::V3];

/// Writes, reads, lists, deletes, each of which must be seen by the next.
fn use_store(store: &Store) -> Result<()> {
    assert_eq!(store.get(KEY)?, None);
    store.put(KEY, r#"{"weight": 10, "pooled": "yes"}"#)?;
    let first = store.get(KEY)?.expect("just written");
    assert_eq!((first.key.as_str(), first.value.as_str()), (KEY, r#"{"weight": 10, "pooled": "yes"}"#));
    store.put(KEY, "é=&+%")?;
    let second = store.get(KEY)?.expect("just written");
    assert_eq!(second.value, "é=&+%");
    assert!(second.revision > first.revision);
    let (listed, revision) = store.list(FOLDER)?;
    assert_eq!(listed, std::slice::from_ref(&second));
    assert!(revision >= second.revision);
    store.delete(KEY)?;
    assert_eq!(store.get(KEY)?, None);
    assert!(store.delete(KEY).is_err(), "deleted twice");
    Ok(())
}

#[test]
fn both_interfaces_store_and_keep_apart() -> Result<()> {
    let etcd = Etcd::start()?;
    for driver in DRIVERS {
        use_store(&etcd.store(driver)?)?;
    }
    etcd.store(Driver::V2)?.put(KEY, "two")?;
    assert_eq!(etcd.store(Driver::V3)?.get(KEY)?, None);
    Ok(())
}

#[test]
fn a_watch_sees_one_change_and_the_next_misses_nothing() -> Result<()> {
    let etcd = Etcd::start()?;
    for driver in DRIVERS {
        let store = etcd.store(driver)?;
        let (_, revision) = store.list(FOLDER)?;
        store.put(KEY, "one")?;
        store.put("/conftool/v1/pools/eqiad/appserver/php-other/mw1", "not ours")?;
        store.put(KEY, "two")?;
        store.delete(KEY)?;
        let mut next = revision + 1;
        for value in [Some("one"), Some("two"), None] {
            let expected = Change { key: KEY.to_owned(), value: value.map(ToOwned::to_owned) };
            match store.watch(FOLDER, next, &|| false)? {
                Watched::Changed { changes, next: after } => {
                    assert_eq!(changes, [expected], "{driver:?}");
                    next = after;
                }
                other => panic!("{driver:?}: {other:?}"),
            }
        }
        assert_eq!(store.watch(FOLDER, next, &|| true)?, Watched::Stopped);
    }
    Ok(())
}

#[test]
fn tls_lets_in_who_trusts_the_authority_and_nobody_else() -> Result<()> {
    let etcd = Etcd::builder().tls(Tls::Server).start()?;
    let stranger = testbed::certificates::Authority::new()?;
    for driver in DRIVERS {
        use_store(&etcd.store(driver)?)?;
        let mut access = etcd.access();
        access.authority = Some(stranger.certificate().to_owned());
        assert!(Store::new(driver, &access)?.get(KEY).is_err(), "{driver:?} trusts a stranger");
    }
    Ok(())
}

#[test]
fn mutual_tls_wants_a_certificate_of_the_client() -> Result<()> {
    let etcd = Etcd::builder().tls(Tls::Mutual).start()?;
    for driver in DRIVERS {
        use_store(&etcd.store(driver)?)?;
        let mut access = etcd.access();
        access.identity = None;
        assert!(Store::new(driver, &access)?.get(KEY).is_err(), "{driver:?} lets in anybody");
    }
    Ok(())
}

#[test]
fn passwords_keep_out_guests_and_keep_conftool_in_its_place() -> Result<()> {
    let etcd = Etcd::builder().passwords().start()?;
    for driver in DRIVERS {
        use_store(&etcd.store(driver)?)?;
        let conftool = Store::new(driver, &etcd.conftool_access())?;
        use_store(&conftool)?;
        assert!(conftool.put("/elsewhere/key", "x").is_err(), "{driver:?}: conftool may write anywhere");

        let guest = Store::new(driver, &etcd.access_as(None))?;
        assert!(guest.get(KEY).is_err(), "{driver:?}: guests may read");
        assert!(guest.put(KEY, "x").is_err(), "{driver:?}: guests may write");
        let wrong = User { name: "conftool".to_owned(), password: "wrong".to_owned() };
        let wrong = Store::new(driver, &etcd.access_as(Some(wrong)))?;
        assert!(wrong.put(KEY, "x").is_err(), "{driver:?}: any password will do");
    }
    Ok(())
}

#[test]
fn three_members_serve_with_one_dead_and_with_one_frozen_and_it_comes_back() -> Result<()> {
    let mut etcd = Etcd::builder().members(3).start()?;
    assert_eq!(etcd.addresses().len(), 3);
    etcd.kill(0)?;
    for driver in DRIVERS {
        use_store(&etcd.store(driver)?)?;
    }
    etcd.start_again(0)?;
    etcd.wait_healthy(0)?;

    etcd.freeze(0)?;
    for driver in DRIVERS {
        let store = etcd.store(driver)?;
        store.put(KEY, "past the frozen one")?;
    }
    etcd.thaw(0)?;
    etcd.wait_healthy(0)?;

    // Without a quorum nobody can write.
    etcd.stop(1)?;
    etcd.kill(2)?;
    assert!(etcd.store(Driver::V3)?.put(KEY, "x").is_err());
    Ok(())
}
