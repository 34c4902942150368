//! The safe restart itself: its order, its decisions, and what is promised when something goes wrong.
//!
//! A newcomer starts at [`sequence`]: the story is told there in one function. Everything it asks of the world goes through
//! a trait named for the question ([`PoolStore`], [`LoadBalancers`], [`ServiceManager`], [`Probe`], [`Journal`], [`Slots`],
//! [`Clock`], [`Stop`]); this crate opens no socket, starts no process, and reads neither clock nor environment, so that every
//! branch runs against fakes.

mod ask_once;
mod backoff;
mod bring_back;
mod capacity;
mod clock;
mod drain;
mod journal;
mod keeping;
mod load_balancer;
mod names;
mod outcome;
mod pool;
mod probe;
mod ready;
mod recover;
mod repool;
mod report;
mod restart;
mod run;
pub mod sequence;
mod service;
mod slot;
mod slots;
mod span;
mod state;
mod store;
mod take_out;
mod watch;
mod without;

pub use ask_once::ask_once;
pub use backoff::Backoff;
pub use capacity::{Census, Share, TooFew, enough};
pub use clock::{Clock, Signal, Stop, Stopped};
pub use journal::{Depooled, Files, Journal, JournalError, Origin, Phase, Record};
pub use load_balancer::{Balancer, LoadBalancers, Protocol, Question, Ticket, Verdict};
pub use names::{BackendName, Fqdn, NameError, PoolName, ServerPattern, Tag, UnitName};
pub use outcome::{ExitCode, Failure};
pub use pool::{Node, NodeId, Pool, PoolPath, Pooled};
pub use probe::{Cause, InFlight, NoCount, Probe};
pub use repool::{Decision, decide};
pub use report::{BalancerReport, PhaseReport, PlannedStep, PoolReport, Report, ServicesState, UnitReport};
pub use sequence::{Action, Job, Parts, Place, Purpose};
pub use service::{ActiveState, LoadState, ServiceError, ServiceManager, UnitStatus, Verb};
pub use slots::{SlotError, Slots};
pub use span::span;
pub use store::{Fate, Listing, PoolStore, StoreError, Unreadable, Write, WriteError};
pub use without::Without;
