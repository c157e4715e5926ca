//! Hooks of a migration.

use crate::api::model::PlannedHook;
use crate::cli::page::{Look, Page, Piece};

/// Hooks in the order in which they are run, with the numbers that `hook remove` takes.
/// What one is told beside its name is in the line below it.
pub fn list(hooks: &Vec<PlannedHook>, look: &Look) -> String {
    let mut page = Page::new(look);
    if hooks.is_empty() {
        page.line("no hooks; `dunlin migration hook add ID POINT NAME` plans one");
    }
    for (number, hook) in (1..).zip(hooks) {
        let on_failure = hook.on_failure.as_deref().unwrap_or_default();
        page.line(format!(
            "{number:>2}  {}  {} on the {}, up to {} s; a failure means {on_failure}",
            hook.point, hook.name, hook.on, hook.timeout_secs
        ));
        for (name, value) in &hook.env {
            page.line(format!("      {name}={value}"));
        }
    }
    page.finish()
}

/// Their points and names in one line; none where there are none.
pub fn line(hooks: &[PlannedHook]) -> Option<Piece> {
    let names = hooks
        .iter()
        .map(|hook| format!("{} at {}", hook.name, hook.point));
    let names: Vec<String> = names.collect();
    (!names.is_empty()).then(|| names.join(", ").into())
}
