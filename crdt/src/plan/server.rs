//! A server that is planned: what people know of it before any agent runs on it.
//!
//! Not here: what an agent reports of its machine (`report`).

use super::{Conflict, MAX_NAME, MAX_WORD};
use keys::{PublicKey, ServerId};

/// Longest note on a server, in bytes.
pub const MAX_NOTE: usize = 256;

/// One server as it is planned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerPlan {
    /// Random, made by who planned it.
    pub id: ServerId,
    /// For people; 1 to [`MAX_NAME`] bytes.
    pub name: String,
    /// Where it stands; 1 to [`MAX_WORD`] bytes.
    pub site: String,
    /// Where it is reached, in people's words; 1 to [`MAX_NOTE`] bytes.
    pub address: Option<String>,
    /// With which others it moves; 1 to [`MAX_WORD`] bytes.
    pub wave: Option<String>,
    /// Whose it is, or whatever else people want to remember; 1 to [`MAX_NOTE`] bytes.
    pub note: Option<String>,
    /// Whose change planned it: read from the change's signature, not from a field.
    pub planned_by: PublicKey,
    /// Fields that operators set apart from each other, not yet settled by a new edit.
    pub conflicts: Vec<Conflict>,
}

impl ServerPlan {
    /// Names the first field that is outside its limits.
    pub fn unsound(&self) -> Option<&'static str> {
        let within = |text: &str, limit: usize| {
            (1..=limit).contains(&text.len()) && !text.chars().any(char::is_control)
        };
        let optional =
            |text: &Option<String>, limit| text.as_deref().is_none_or(|text| within(text, limit));
        if !within(&self.name, MAX_NAME) {
            Some("name")
        } else if !within(&self.site, MAX_WORD) {
            Some("site")
        } else if !optional(&self.address, MAX_NOTE) {
            Some("address")
        } else if !optional(&self.wave, MAX_WORD) {
            Some("wave")
        } else if !optional(&self.note, MAX_NOTE) {
            Some("note")
        } else {
            None
        }
    }
}
