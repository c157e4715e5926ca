//! A cloud that is a folder on this machine: each volume a sparse raw file,
//! with a record beside it that carries its holder and its last durable state.
//!
//! Several processes may use one folder. It does not write the volumes: who
//! attached one opens its file, and the lock taken then keeps two writers
//! apart. A checkpoint is a file beside its volume's, a clone of it where the
//! file system can.
#![forbid(unsafe_code)]

mod cloud;
mod copying;
mod folder;
mod sidecar;

pub use cloud::LocalCloud;
pub use folder::OpenCloudError;
