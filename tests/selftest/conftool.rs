use testbed::Result;
use testbed::conftool::{CatalogPool, Conftool, Node, host_files};
use testbed::etcd::{Driver, Etcd, Tls};

fn nodes() -> [Node; 2] {
    // The second begins like the first: a careless selector takes both.
    ["mw1.eqiad.test", "mw1.eqiad.test.example"].map(|host| Node::new("eqiad", "appserver", "php", host))
}

#[test]
fn the_real_confctl_makes_and_changes_one_object_at_a_time() -> Result<()> {
    let etcd = Etcd::start()?;
    let conftool = Conftool::new(Driver::V2, &etcd.access())?;
    let nodes = nodes();
    conftool.create(&nodes, "weight=10:pooled=yes")?;
    conftool.set(&nodes[0], "pooled=no")?;
    let raw = |index: usize| etcd.store(Driver::V2)?.get(&nodes[index].key());
    assert_eq!(raw(0)?.map(|entry| entry.value).as_deref(), Some(r#"{"weight": 10, "pooled": "no"}"#));
    assert_eq!(raw(1)?.map(|entry| entry.value).as_deref(), Some(r#"{"weight": 10, "pooled": "yes"}"#));
    let printed = conftool.confctl(&["select", &nodes[0].selector(), "get"])?;
    assert_eq!(
        printed.trim(),
        r#"{"mw1.eqiad.test": {"weight": 10, "pooled": "no"}, "tags": "dc=eqiad,cluster=appserver,service=php"}"#
    );
    Ok(())
}

#[test]
fn a_new_object_is_inactive_with_weight_0() -> Result<()> {
    let etcd = Etcd::start()?;
    for driver in [Driver::V2, Driver::V3] {
        let conftool = Conftool::new(driver, &etcd.access())?;
        conftool.create(&nodes()[..1], "pooled=inactive")?;
        assert_eq!(conftool.raw(&nodes()[0])?.as_deref(), Some(r#"{"weight": 0, "pooled": "inactive"}"#));
    }
    Ok(())
}

#[test]
fn objects_in_v3_have_the_bytes_that_confctl_writes_in_v2() -> Result<()> {
    let etcd = Etcd::start()?;
    let node = &nodes()[0];
    let mut written = Vec::new();
    for driver in [Driver::V2, Driver::V3] {
        let conftool = Conftool::new(driver, &etcd.access())?;
        conftool.create(std::slice::from_ref(node), "weight=7:pooled=yes")?;
        conftool.set(node, "pooled=no")?;
        assert_eq!(conftool.pooled(node)?, "no");
        written.push(conftool.raw(node)?.expect("just written"));
    }
    assert_eq!(written[0], written[1]);
    Ok(())
}

#[test]
fn a_setting_that_did_not_happen_is_an_error() -> Result<()> {
    let etcd = Etcd::start()?;
    let conftool = Conftool::new(Driver::V2, &etcd.access())?;
    let [known, unknown] = nodes();
    conftool.create(&[known], "pooled=yes")?;
    assert!(conftool.set(&unknown, "pooled=no").is_err());
    Ok(())
}

#[test]
fn confctl_gets_through_tls_and_passwords() -> Result<()> {
    let etcd = Etcd::builder().tls(Tls::Mutual).passwords().start()?;
    let conftool = Conftool::new(Driver::V2, &etcd.conftool_access())?;
    conftool.create(&nodes(), "weight=10:pooled=yes")?;
    assert_eq!(conftool.pooled(&nodes()[0])?, "yes");
    Ok(())
}

#[test]
fn a_host_is_told_where_etcd_is_and_which_pools_there_are() -> Result<()> {
    let etcd = Etcd::builder().members(3).tls(Tls::Server).passwords().start()?;
    let pool = CatalogPool {
        name: "appservers".to_owned(),
        cluster: "appserver".to_owned(),
        service: "php".to_owned(),
        port: 80,
        balancers: vec!["lvs1.eqiad.test".to_owned(), "lvs2.eqiad.test".to_owned()],
        lb: None,
    };
    let files = host_files(Driver::V3, &etcd.conftool_access(), "eqiad", &[pool])?;
    let file = |path: &str| files.iter().find(|file| file.path.as_os_str() == path).expect(path);
    assert_eq!(file("/etc/wikimedia-cluster").content, "eqiad\n");
    assert_eq!(
        file("/etc/conftool/local_services.yaml").content,
        "appservers:\n  cluster: appserver\n  service: php\n  port: 80\n  servers: [lvs1.eqiad.test, lvs2.eqiad.test]\n"
    );
    assert!(file("/etc/conftool/config.yaml").content.starts_with("driver: etcd3\n"));
    let etcdrc = file("/etc/conftool/etcdrc");
    assert_eq!(etcdrc.mode, 0o600, "it holds a password");
    let [a, b, c] = etcd.addresses()[..] else { panic!("three members") };
    assert_eq!(
        etcdrc.content,
        format!(
            "host: [[{a}, 2379], [{b}, 2379], [{c}, 2379]]\nprotocol: https\nallow_reconnect: true\n\
             ca_cert: /etc/conftool/ca.pem\nusername: conftool\npassword: conftoolsecret\n"
        )
    );
    assert!(file("/etc/conftool/ca.pem").content.contains("BEGIN CERTIFICATE"));
    Ok(())
}
