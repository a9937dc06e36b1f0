//! The system's test harness: real servers on loopback ports, in temporary folders, that end with
//! the test.
//!
//! It is for tests alone: whatever it can't do, it panics with what to install or to look at.

pub mod etcd;
pub mod postgres;
mod process;
