//! Stateless hands: takes leases, renders and runs their SQL, reports what came of it. The only
//! crate that links warehouse drivers, and the only process that holds warehouse credentials.

pub mod agent;
pub mod config;
pub mod engine;
pub mod execute;
