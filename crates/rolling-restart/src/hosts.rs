//! Where the hosts come from: the objects of a cluster in conftool's store, read and never written, or a list.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, Read};

use conftool::{Audit, LoadError};
use host::{TrustError, environment, trusted};
use restart_core::{ExitCode, Failure, Fqdn, Listing, Node, StoreError, Tag, Unreadable};

use crate::plan;
use crate::settings::{List, Place, Source};

/// More than a list of hosts takes: fifty thousand names of twenty characters.
const LONGEST: u64 = 1024 * 1024;

/// The hosts in the order in which they are to be restarted. None at all is an error: nothing that was asked for could be done.
pub fn find(source: &Source) -> Result<Vec<Fqdn>, Failure> {
    let place = match source {
        Source::Store(place) => place,
        Source::List(list) => return listed(list),
    };
    let (nodes, unreadable) = nodes(place)?;
    for broken in &unreadable {
        // The host may have another, and one damaged object must not keep a fleet from being restarted.
        log::warn!("left out: an object of '{}' cannot be read: {}", host::printable(&broken.host), broken.why);
    }
    let hosts = plan::from_nodes(&nodes);
    if hosts.is_empty() {
        return Err(configuration(format!("no host to restart: every one of {place} is inactive, or cannot be read")));
    }
    Ok(hosts)
}

/// The hosts of a list.
pub fn listed(list: &List) -> Result<Vec<Fqdn>, Failure> {
    let (name, hosts) = match list {
        List::File(path) => {
            let name = format!("'{}'", path.display());
            let file = File::open(path).map_err(|error| unreadable(&name, &error))?;
            let hosts = read(&name, file)?;
            (name, hosts)
        }
        List::Stdin => ("standard input".to_owned(), read("standard input", io::stdin().lock())?),
    };
    if hosts.is_empty() {
        return Err(configuration(format!("no host: {name} names none")));
    }
    Ok(hosts)
}

/// The nodes of a cluster, and what cannot be read of it. None at all is an error: a name that is misspelt must not look like a
/// cluster in good order.
pub fn nodes(place: &Place) -> Result<(Vec<Node>, Vec<Unreadable>), Failure> {
    let Listing { nodes, unreadable } = listing(place)?;
    if nodes.is_empty() && unreadable.is_empty() {
        let what = "the 'cluster' of a pool's entry in the catalog, not the pool's name";
        return Err(configuration(format!("no host: the store has no {place} ({what})")));
    }
    let wanted = |service: &Tag| place.services.is_empty() || place.services.contains(service);
    if let Some(unknown) = place.services.iter().find(|name| nodes.iter().all(|node| node.id.path.service != **name)) {
        let known: BTreeSet<_> = nodes.iter().map(|node| format!("'{}'", node.id.path.service)).collect();
        let known = Vec::from_iter(known).join(", ");
        return Err(configuration(format!("no host: {place} has no object of service '{unknown}', but of {known}")));
    }
    Ok((nodes.into_iter().filter(|node| wanted(&node.id.path.service)).collect(), unreadable))
}

fn listing(place: &Place) -> Result<Listing, Failure> {
    let settings = conftool::Settings::load(&place.config, environment::home().as_deref(), &trusted::read);
    let settings = settings.map_err(|error: LoadError<TrustError>| match error {
        LoadError::Read(error) => error.into(),
        LoadError::Missing(_) | LoadError::Invalid(_) => configuration(error.to_string()),
    })?;
    let failed = |error: StoreError| error.failure("find the hosts");
    // Nothing is written, so that there is no run to be named.
    let mut store = settings.open("rolling-restart", Audit::of_nothing()).map_err(failed)?;
    store.list_cluster(&place.data_centre, &place.cluster).map_err(failed)
}

fn read(name: &str, from: impl Read) -> Result<Vec<Fqdn>, Failure> {
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

fn configuration(message: String) -> Failure {
    Failure::new(ExitCode::Configuration, message)
}
