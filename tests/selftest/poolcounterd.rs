use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use testbed::Result;
use testbed::poolcounterd::{PORT, Poolcounterd};

fn connect(daemon: &Poolcounterd) -> Result<TcpStream> {
    let stream = TcpStream::connect(daemon.address().port(PORT))?;
    stream.set_read_timeout(Some(Duration::from_secs(30)))?;
    Ok(stream)
}

fn answer(stream: &mut TcpStream) -> Result<String> {
    let mut buffer = [0; 64];
    let count = stream.read(&mut buffer)?;
    Ok(String::from_utf8_lossy(&buffer[..count]).into_owned())
}

#[test]
fn it_grants_freezes_dies_and_comes_back() -> Result<()> {
    let mut daemon = Poolcounterd::start()?;
    let mut stream = connect(&daemon)?;
    stream.write_all(b"ACQ4ME key 1 10 1\n")?;
    assert_eq!(answer(&mut stream)?, "LOCKED\n");

    daemon.freeze()?;
    stream.write_all(b"RELEASE key\n")?;
    stream.set_read_timeout(Some(Duration::from_millis(300)))?;
    assert!(answer(&mut stream).is_err(), "a frozen daemon answered");
    daemon.thaw()?;
    stream.set_read_timeout(Some(Duration::from_secs(30)))?;
    assert_eq!(answer(&mut stream)?, "RELEASED\n");

    // Closed by us first: nothing keeps its port.
    drop(stream);
    daemon.kill()?;
    assert!(connect(&daemon).is_err(), "a dead daemon accepted");
    daemon.start_again()?;
    connect(&daemon)?;
    Ok(())
}
