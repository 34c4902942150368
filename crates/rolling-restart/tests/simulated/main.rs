//! The tool over hosts that a stand-in for ssh plays. No time is asserted: how long the schedule takes is the bench's to measure.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod awkward;
mod budgets;
mod environment;
mod large;
mod signals;
mod status;
mod steps;
mod world;
