//! End to end: the real program, real processes, real sockets and real files. Each test
//! has its own mesh in a temporary folder.
//!
//! Not here: the rules of the mesh and of the copy, which their own crates prove.

#![allow(clippy::unwrap_used, missing_docs)]

mod authority;
mod bad_input;
mod checkpoints;
mod clones;
mod crashes;
mod dedup;
mod device;
mod doctor;
mod final_disks;
mod freezing;
mod guard;
mod harness;
mod hooks;
mod leases;
mod leaving_out;
mod limits;
mod live_load;
mod losses;
mod metrics;
mod plan_file;
mod revocations;
mod writing;
