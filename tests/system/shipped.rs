//! The units of systemd/, as they are shipped, on a host: what holds for every one of them, whatever it does.

use std::fs;

use testbed::host::Host;
use testbed::{Result, prepared};

const FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../systemd");
/// What `systemd-analyze security` may say at most, of 100: 3.0 of 10.
const EXPOSURE: &str = "30";

/// A host with all of them, and their names; of a template, as instances.
fn boot() -> Result<(Host, Vec<String>)> {
    let mut builder = Host::builder("mw1.test")?;
    for tool in ["safe-service-restart", "check-and-restart-php"] {
        builder = builder.binary(&prepared::product_binary(tool)?);
    }
    let mut units = Vec::new();
    for entry in fs::read_dir(FOLDER)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.ends_with(".service") || name.ends_with(".timer") {
            builder = builder.unit(&name, &fs::read_to_string(entry.path())?);
            units.push(name.replace("@.", "@php8.2-fpm."));
        }
    }
    assert!(units.len() >= 4, "{units:?}");
    Ok((builder.boot()?, units))
}

#[test]
fn every_unit_is_one_that_systemd_has_nothing_to_say_against() -> Result<()> {
    let (host, units) = boot()?;
    for unit in units {
        let verified = host.exec(&["systemd-analyze", "verify", "--man=no", &unit])?;
        let complaints = verified.stderr.lines().filter(|line| line.contains("restart"));
        assert_eq!((verified.code(), complaints.count()), (Some(0), 0), "{verified}");
    }
    Ok(())
}

#[test]
fn every_service_is_held_to_little() -> Result<()> {
    let (host, units) = boot()?;
    for unit in units.iter().filter(|unit| unit.ends_with(".service")) {
        let judged = host.exec(&["systemd-analyze", "security", "--no-pager", "--threshold", EXPOSURE, unit])?;
        assert_eq!(judged.code(), Some(0), "{judged}");
    }
    // One that is held to nothing, or the above would prove nothing.
    let judged = host.exec(&["systemd-analyze", "security", "--no-pager", "--threshold", EXPOSURE, "php8.2-fpm"])?;
    assert_ne!(judged.code(), Some(0), "{judged}");
    Ok(())
}
