//! Answers of the node as text for people, a module for each kind of thing.
//!
//! Not here: layout (`page`) and figures (`figures`).

pub mod checkpoints;
pub mod doctor;
pub mod events;
pub mod forecast;
pub mod hooks;
mod inventory;
pub mod invites;
pub mod limits;
pub mod migrations;
pub mod nodes;
pub mod progress;
pub mod servers;
pub mod status;
pub mod verify;

#[cfg(test)]
mod tests;

use super::page::{Paint, Piece};

/// For what a node did not report.
const UNKNOWN: &str = "-";

fn or_unknown(value: Option<&str>) -> Piece {
    match value {
        Some(value) if !value.is_empty() => value.into(),
        _ => Piece::new(UNKNOWN, Paint::Dim),
    }
}

fn connection(connected: Option<bool>, this_node: bool) -> Piece {
    match (this_node, connected) {
        (true, _) => "this node".into(),
        (false, Some(true)) => Piece::new("connected", Paint::Good),
        (false, Some(false)) => Piece::new("away", Paint::Warn),
        (false, None) => Piece::new(UNKNOWN, Paint::Dim),
    }
}

fn stage(stage: &str) -> Piece {
    let paint = match stage {
        "failed" => Paint::Bad,
        "stalled" | "paused" | "rescanning" | "unknown" => Paint::Warn,
        "cut-over" | "ready-for-cutover" => Paint::Good,
        _ => Paint::Plain,
    };
    Piece::new(stage, paint)
}

fn listed(words: &[String]) -> Option<Piece> {
    (!words.is_empty()).then(|| words.join(", ").into())
}

fn plural(count: usize, one: &str, many: &str) -> String {
    format!("{count} {}", if count == 1 { one } else { many })
}
