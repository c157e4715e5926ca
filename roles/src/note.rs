//! Something that happened, for people: the roles' part of an event.
//!
//! The shell adds time and number and keeps it; `crdt::report::Event` is what others see.

use crdt::report::Level;

/// An event in the making.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Note {
    /// How serious.
    pub level: Level,
    /// A stable kebab-case word that scripts may rely on.
    pub kind: &'static str,
    /// One sentence: what happened, on what, why, and what to do where something is to be done.
    pub text: String,
}

impl Note {
    /// Something worth knowing.
    pub fn info(kind: &'static str, text: impl Into<String>) -> Self {
        Self {
            level: Level::Info,
            kind,
            text: text.into(),
        }
    }

    /// Something that delays the work.
    pub fn warn(kind: &'static str, text: impl Into<String>) -> Self {
        Self {
            level: Level::Warn,
            kind,
            text: text.into(),
        }
    }

    /// Something that stops the work until somebody acts.
    pub fn error(kind: &'static str, text: impl Into<String>) -> Self {
        Self {
            level: Level::Error,
            kind,
            text: text.into(),
        }
    }
}
