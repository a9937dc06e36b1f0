//! The system end to end: real processes, real servers.

mod embedded;
mod fleet;
mod workers;
