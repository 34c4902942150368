//! Neither store nor load balancers: for a forced restart, and for a host that has no pool to leave. And no probe, where
//! systemd's word has to do.

use std::time::Duration;

use crate::load_balancer::{LoadBalancers, Question, Ticket, Verdict};
use crate::names::UnitName;
use crate::pool::{Node, NodeId, PoolPath, Pooled};
use crate::probe::{Cause, InFlight, NoCount, Probe};
use crate::service::UnitStatus;
use crate::store::{Fate, Listing, PoolStore, StoreError, Write, WriteError};

/// Refuses everything. A job without a place never asks.
#[derive(Debug, Clone, Copy)]
pub struct Without;

fn refused() -> StoreError {
    StoreError::Refused("this run has no store".to_owned())
}

impl PoolStore for Without {
    fn list(&mut self, _: &PoolPath) -> Result<Listing, StoreError> {
        Err(refused())
    }

    fn read(&mut self, _: &NodeId) -> Result<Option<Node>, StoreError> {
        Err(refused())
    }

    fn kind(&self) -> &str {
        "none"
    }

    fn prepare(&self, _: &Node, _: Pooled) -> Result<Write, StoreError> {
        Err(refused())
    }

    fn write(&mut self, _: &Write) -> Result<Node, WriteError> {
        Err(WriteError::NotMade(refused()))
    }

    fn fate(&mut self, _: &Write) -> Result<Fate, StoreError> {
        Err(refused())
    }
}

impl LoadBalancers for Without {
    fn ask(&mut self, _: Ticket, _: &Question) {}

    fn answers(&mut self, _: Duration) -> Vec<(Ticket, Verdict)> {
        Vec::new()
    }
}

impl Probe for Without {
    fn learn(&mut self, _: &UnitName, _: &UnitStatus) -> Result<(), String> {
        Err("nobody is asked".to_owned())
    }

    fn in_flight(&mut self, _: &[u16], _: Duration) -> Result<InFlight, NoCount> {
        Err(NoCount { why: "nobody is asked".to_owned(), cause: Cause::NoAnswer })
    }

    fn ready(&mut self, _: &UnitName) -> Result<(), String> {
        Ok(())
    }

    fn answers(&mut self, _: &str) -> Result<(), String> {
        Ok(())
    }
}
