//! Where the hosts come from: the objects of a cluster in conftool's store, read and never written, or a list.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use conftool::{Audit, LoadError};
use host::{TrustError, environment, trusted};
use restart_core::{ExitCode, Failure, Fqdn, Listing, StoreError, Tag};

use crate::plan;
use crate::settings::Source;

/// More than a list of hosts takes: fifty thousand names of twenty characters.
const LONGEST: u64 = 1024 * 1024;

/// The hosts in the order in which they are to be restarted. None at all is an error: nothing that was asked for could be done.
pub fn find(source: &Source) -> Result<Vec<Fqdn>, Failure> {
    let (hosts, none) = match source {
        Source::Store { cluster, data_centre, services, config } => {
            let listing = listing(config, data_centre, cluster)?;
            let none = format!("the store has none for cluster '{cluster}' in '{data_centre}' that is not inactive");
            (of_services(&listing, services), none)
        }
        Source::File(path) => {
            let file = File::open(path).map_err(|error| unreadable(&path.display().to_string(), &error))?;
            (list(&path.display().to_string(), file)?, format!("'{}' names none", path.display()))
        }
        Source::Stdin => (list("standard input", io::stdin().lock())?, "standard input names none".to_owned()),
    };
    if hosts.is_empty() {
        return Err(configuration(format!("no host to restart: {none}")));
    }
    Ok(hosts)
}

fn listing(config: &Path, data_centre: &Tag, cluster: &Tag) -> Result<Listing, Failure> {
    let settings = conftool::Settings::load(config, environment::home().as_deref(), &trusted::read);
    let settings = settings.map_err(|error: LoadError<TrustError>| match error {
        LoadError::Read(error) => Failure::new(error.exit_code(), error.to_string()),
        LoadError::Missing(_) | LoadError::Invalid(_) => configuration(error.to_string()),
    })?;
    // Nothing is written, so that there is nothing to audit and no run to be named.
    let audit = Audit { user: None, host: String::new(), sink: Box::new(|_| {}) };
    let mut store = settings.open("rolling-restart", audit).map_err(|error| store_failure(&error))?;
    store.list_cluster(data_centre, cluster).map_err(|error| store_failure(&error))
}

/// A damaged object is said and passed over: the host may have another, and one damaged object must not keep a fleet from being
/// restarted.
fn of_services(listing: &Listing, services: &[Tag]) -> Vec<Fqdn> {
    for broken in &listing.unreadable {
        log::warn!("left out: an object of '{}' cannot be read: {}", host::printable(&broken.host), broken.why);
    }
    let wanted = |service: &Tag| services.is_empty() || services.contains(service);
    let nodes: Vec<_> = listing.nodes.iter().filter(|node| wanted(&node.id.path.service)).cloned().collect();
    plan::from_nodes(&nodes)
}

fn list(name: &str, from: impl Read) -> Result<Vec<Fqdn>, Failure> {
    let mut text = String::new();
    let read = from.take(LONGEST + 1).read_to_string(&mut text).map_err(|error| unreadable(name, &error))?;
    if read as u64 > LONGEST {
        return Err(configuration(format!("cannot use the hosts of {name}: longer than {LONGEST} bytes")));
    }
    plan::from_list(&text).map_err(|why| configuration(format!("cannot use the hosts of {name}: {why}")))
}

fn unreadable(name: &str, error: &io::Error) -> Failure {
    configuration(format!("cannot read the hosts from {name}: {error}"))
}

fn store_failure(error: &StoreError) -> Failure {
    let code = match error {
        StoreError::Unreachable(_) => ExitCode::Unreachable,
        StoreError::Refused(_) | StoreError::Malformed(_) => ExitCode::Configuration,
    };
    Failure::new(code, format!("cannot find the hosts: {error}"))
}

fn configuration(message: String) -> Failure {
    Failure::new(ExitCode::Configuration, message)
}
