//! The coordinator: owns every decision and all durable state; runs no SQL and holds no warehouse
//! credential.

pub mod access;
mod apply;
pub mod control;
mod limits;
mod planning;
mod rpc;
pub mod schedule;
mod serve;
pub mod store;
pub mod telemetry;

pub use control::{Clock, ControlConfig, PlanState, Planning};
pub use planning::Refusal;
pub use serve::{ServeError, Server};
