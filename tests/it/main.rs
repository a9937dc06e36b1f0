//! The system end to end: real processes, real servers.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking, also in its helpers")]

mod access;
mod again;
mod appends;
mod asked;
mod backup;
mod cleared;
mod coordinators;
mod crowd;
mod embedded;
mod encrypted;
mod failures;
mod fleet;
mod forward_only;
mod gateways;
mod lifecycle;
mod mistakes;
mod projects;
mod races;
mod restate;
mod secrets;
mod signals;
mod takeover;
mod unit_tests;
mod workers;
