//! How nodes come to hold the same ledger, document and reports: enrolment,
//! announcements, anti-entropy, and whom to be connected to, as state machines.
//!
//! Pure: no sockets, no clock, no disk. The shell gives inputs with the time and
//! carries out outputs in order; [`Output::Store`] must be durable before any
//! output after it.
#![forbid(unsafe_code)]

pub mod enrol;
pub mod replica;
pub mod sync;
pub mod view;
#[cfg(test)]
mod world;

pub use enrol::{
    Admission, DeniedCode, EnrolReply, EnrolRequest, JoinError, JoinStep, Joiner, Recoverer,
};
pub use replica::{
    Alarm, Changed, Fork, Founding, Input, Output, REPORT_BYTES_PER_SEC, Record, Recovering,
    Replica, StateError, Supposed,
};
pub use sync::{Announcement, Heads, Page, Request, Summary, Yours};
pub use view::View;
