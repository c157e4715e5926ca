//! Bad input of every kind: each gets a clear message with what to do and the right
//! exit status, loses nothing, and panics nowhere.
//!
//! Not here: strangers that speak the network's protocols (`net`'s own tests), and
//! nodes that die (`crashes`).

mod commands;
mod folders;
mod invites;
mod sources;
mod strangers;
mod targets;
