//! The worker: stateless hands of the fleet, and the only crate that links warehouse drivers.

pub mod engine;
