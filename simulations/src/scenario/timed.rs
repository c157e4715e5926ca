//! Something and the time from which on it is due, written as one table.
//!
//! What it is decides which keys it has (`scenario`, `faults`); an unknown one is
//! refused.

use serde::de::{DeserializeOwned, Error as _};
use serde::{Deserialize, Deserializer, Serialize};

/// Something, and when.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct At<T> {
    /// In milliseconds of virtual time.
    pub at_millis: u64,
    /// What.
    #[serde(flatten)]
    pub what: T,
}

impl<'de, T: DeserializeOwned> Deserialize<'de> for At<T> {
    /// By hand: serde does not refuse unknown keys of what is flattened.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut table = toml::Table::deserialize(deserializer)?;
        let at = table.remove("at_millis");
        let at = at.ok_or_else(|| D::Error::missing_field("at_millis"))?;
        Ok(Self {
            at_millis: at.try_into().map_err(D::Error::custom)?,
            what: toml::Value::Table(table)
                .try_into()
                .map_err(D::Error::custom)?,
        })
    }
}

/// Something as a scenario file has it, in one line: its kind and its keys.
pub fn line(what: &impl Serialize) -> String {
    let table = toml::to_string(what).expect("words and numbers can be written");
    let text = table.trim_end().replace('\n', ", ").replace('"', "");
    match text.split_once(" = ") {
        Some((_, rest)) => rest.to_owned(),
        None => text,
    }
}
