//! The coordinator: owns every decision and all durable state; runs no SQL and holds no warehouse
//! credential.

pub mod access;
mod apply;
pub mod backup;
pub mod control;
mod limits;
pub mod listen;
mod planning;
mod rpc;
pub mod schedule;
mod serve;
pub mod store;
pub mod telemetry;

pub use control::{Clock, ControlConfig, PlanState, Planning, verify_record};
pub use planning::Refusal;
pub use serve::{ServeError, Server};
