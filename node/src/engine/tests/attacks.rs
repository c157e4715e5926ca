//! Hostile peers against engines that run on loopback sockets: whatever one sends, the
//! honest nodes keep what they hold, say what they refused, and go on with each other.
//!
//! Each test fails when the guard it names is taken out. Not here: each rule of what is
//! refused, which the pure crates prove, and bytes below the protocols (`net`'s tests).

mod blocks;
mod chunk;
mod document;
mod enrolment;
mod floods;
mod speed;
mod statements;
