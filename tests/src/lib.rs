//! The system's test harness: real servers and our own binaries on loopback ports, in temporary
//! folders, that end with the test.
//!
//! It is for tests alone: whatever it can't do, it panics with what to install or to look at.

pub mod aftermath;
pub mod binaries;
pub mod certificates;
pub mod cli;
pub mod etcd;
pub mod faults;
pub mod fleet;
pub mod guarded;
pub mod namespace;
pub mod oracle;
pub mod postgres;
mod process;
pub mod project;
pub mod proxy;
pub mod service;
pub mod small_disk;
