//! The local API: HTTP and JSON over a Unix socket in the node's run folder, which
//! only the node's own user can reach.

pub mod client;
pub mod metrics;
pub mod model;
pub mod secret;
pub mod server;
