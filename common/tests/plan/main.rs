//! Plans of small projects, from their files: what changes mean, and which time is computed.

mod audits;
mod changes;
mod choices;
mod differences;
mod forward;
mod lifecycle;
mod properties;
mod questions;
mod reads;
mod restate;
mod selection;
mod standalone;
mod times;
mod world;
