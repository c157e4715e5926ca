//! Which folder is this node's: the option, or the default of this user.
//!
//! Not here: the defaults and what is in it (`datadir`).

use super::Globals;
use super::outcome::CommandError;
use crate::datadir::DataDir;
use std::path::PathBuf;

impl Globals {
    /// The folder of this node, absolute.
    pub fn folder(&self) -> Result<PathBuf, CommandError> {
        DataDir::resolve(self.data_dir.clone())
            .map_err(|error| CommandError::usage(error.to_string()))
    }
}
