//! Neither store nor load balancers: for a forced restart, and for a host that has no pool to leave.

use std::time::Duration;

use crate::load_balancer::{LoadBalancers, Question, Ticket, Verdict};
use crate::pool::{Node, NodeId, PoolPath, Pooled};
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
