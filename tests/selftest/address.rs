use std::collections::HashSet;
use std::net::TcpListener;

use testbed::Result;
use testbed::address::Address;

#[test]
fn addresses_are_loopback_and_handed_out_once() -> Result<()> {
    let addresses = (0..50).map(|_| Address::reserve()).collect::<Result<Vec<_>>>()?;
    let different: HashSet<_> = addresses.iter().map(Address::ip).collect();
    assert_eq!(different.len(), addresses.len());
    assert!(addresses.iter().all(|address| address.ip().is_loopback()));
    Ok(())
}

#[test]
fn a_reservation_lasts_as_long_as_its_last_clone() -> Result<()> {
    let address = Address::reserve()?;
    let clone = address.clone();
    drop(address);
    let port = clone.port(1);
    assert!(TcpListener::bind(port).is_err(), "'{clone}' can be reserved twice");
    drop(clone);
    assert!(TcpListener::bind(port).is_ok(), "'{port}' is still reserved");
    Ok(())
}

#[test]
fn every_port_but_the_reservation_is_free() -> Result<()> {
    let address = Address::reserve()?;
    for port in [80, 2379, 9090] {
        TcpListener::bind(address.port(port))?;
    }
    Ok(())
}
