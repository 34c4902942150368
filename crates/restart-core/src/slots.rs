//! The question "may I be one of N". Answered by the crate `poolcounter`, and by leases in etcd (`conftool`).
//!
//! A slot is asked for once and then waited for in slices, so that a signal is noticed; from the moment it is granted until
//! it is released it can be lost, which [`Slots::look`] tells.

use std::time::Duration;

/// One of N slots.
pub trait Slots {
    /// Asks to be one of `limit`, and to be told within `at_most`. Bounds its own time: it connects, or fails.
    fn ask(&mut self, limit: u32, at_most: Duration) -> Result<(), SlotError>;

    /// Waits for the answer for the time `slice`; `false`: not yet. May ask anew where a connection was lost while waiting.
    fn granted(&mut self, slice: Duration) -> Result<bool, SlotError>;

    /// Whether the slot is still ours, as far as can be told without waiting.
    fn look(&mut self) -> Result<(), SlotError>;

    /// Who holds slots now, a clause each, as far as that is known; for messages.
    fn holders(&mut self) -> Vec<String>;

    /// Says that this host is about to leave its pools: until [`PoolStore::no_longer_counts`](crate::PoolStore::no_longer_counts)
    /// it counts as one of N, even when this process has died and its slot is free. Fails if the slot is not ours any more. After
    /// an error it may have been understood all the same: the host then stays in, and that is taken back. Does nothing where a lock
    /// service cannot remember.
    fn taking_out(&mut self) -> Result<(), SlotError> {
        Ok(())
    }

    /// Gives the slot back; nothing to do if there is none.
    fn release(&mut self);
}

/// Why there is no slot, or none any more.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SlotError {
    /// All are taken, and the time is over or the queue is full.
    #[error("{0}")]
    Taken(String),
    /// The lock service cannot be reached, or does not answer.
    #[error("{0}")]
    Unreachable(String),
    /// The lock service answered something that it should not, or refused.
    #[error("{0}")]
    Refused(String),
    /// We had it, and it is gone.
    #[error("{0}")]
    Lost(String),
}
