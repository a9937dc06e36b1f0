//! Carrying a plan out: admit it, follow it to the end, move the environment's pointer.
//!
//! Invariant: a pointer moves in one transaction, only when nothing of its plan is left to do, the
//! environment is as the plan found it, and this leader still leads.

mod admit;
mod aside;
mod audit;
mod columns;
mod keep;
mod signals;

pub(crate) use admit::{StalePlan, check_base, is_run, still_left, todos, work};
pub(crate) use aside::{
    Asides, check_restated, clears, goes_aside, held, moves_the_pointer, restate_the_same, whole_tables,
};
pub(crate) use audit::audit_work;
pub(crate) use columns::columns_work;
pub(crate) use keep::{Group, LeaseRecord, LeasedWork, Setback, groups, token_of};
pub(crate) use signals::{checks, narrowed};
