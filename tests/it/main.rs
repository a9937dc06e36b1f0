//! The system end to end: real processes, real servers.

mod access;
mod again;
mod appends;
mod asked;
mod backup;
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
