//! What happened.
//!
//! Not here: following it (`follow`).

use crate::api::model::EventView;
use crate::cli::figures::short_id;
use crate::cli::page::{Look, Page, Paint, Piece};

/// Events, as they come.
pub fn list(events: &[EventView], look: &Look) -> String {
    let mut page = Page::new(look);
    if events.is_empty() {
        page.line("no events; ask for more with an earlier --since, or without --migration");
    }
    for event in events {
        put(event, &mut page);
    }
    page.finish()
}

/// One event.
pub fn one(event: &EventView, look: &Look) -> String {
    let mut page = Page::new(look);
    put(event, &mut page);
    page.finish()
}

fn put(event: &EventView, page: &mut Page) {
    let paint = match event.level.as_str() {
        "error" => Paint::Bad,
        "warn" => Paint::Warn,
        _ => Paint::Plain,
    };
    let migration = event.migration.as_deref().map(short_id);
    let migration = migration.map_or_else(String::new, |id| format!("  {id}"));
    page.pieces([
        Piece::new(&event.at, Paint::Dim),
        format!("  {}", event.node).into(),
        Piece::new(format!("  {:<5}", event.level), paint),
        Piece::new(format!("{migration}  {}", event.kind), Paint::Dim),
        format!("  {}", event.text.replace('\n', "\n    ")).into(),
    ]);
}
