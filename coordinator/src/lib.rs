//! The coordinator: owns every decision and all durable state; runs no SQL.

pub mod schedule;
