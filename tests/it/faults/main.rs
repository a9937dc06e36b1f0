//! The system under faults: real processes, three members of etcd, PostgreSQL. Whatever is broken
//! meanwhile, a plan must leave what an undisturbed run leaves.
//!
//! Those that take long are ignored; `make faults` runs all of them and adds up what was injected.

mod chaos;
mod crowd;
mod disk;
mod etcd;
mod hang;
mod network;
mod poison;
mod processes;
mod run;
mod sqlmesh;
mod warehouse;
