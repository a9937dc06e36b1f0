//! The pure core: values and functions. No async, no I/O, no clock, no wire types.
//!
//! Data flows one way: [`project`] files become models, [`snapshot`]s fingerprint them,
//! [`plan`] compares them with what an environment holds, and [`task`] names what both ends
//! of a lease must agree on. [`unit_test`] judges queries by given rows. [`interval`] and [`sql`] are the two bodies of knowledge below.

pub mod diagnostic;
pub mod id;
pub mod interval;
pub mod plan;
pub mod project;
pub mod secret;
pub mod snapshot;
pub mod sql;
pub mod task;
pub mod unit_test;
