//! Limits of how fast is sent.
//!
//! Not here: the speeds that were measured (`progress`).

use crate::api::model::LimitView;
use crate::cli::figures::{parse_rfc3339, short_id};
use crate::cli::page::{Look, Page, Paint, Piece, Table};
use crate::hours;
use keys::UnixSecs;

use super::{UNKNOWN, or_unknown, plural};

/// All limits.
pub fn list(limits: &[LimitView], look: &Look) -> String {
    let mut page = Page::new(look);
    if limits.is_empty() {
        page.line(
            "no limits: agents send as fast as they can; `dunlin limit set --server SERVER 20MiB/s` limits one, `--site SITE` all of a site together",
        );
        return page.finish();
    }
    let mut table = Table::new([
        "OF",
        "NOW",
        "UNTIL",
        "~TIMETABLE",
        "ZONE",
        "POLITE",
        "SHARED BY",
        "~SET BY",
    ]);
    for limit in limits {
        let shared_by = limit
            .shared_by
            .map(|agents| plural(agents, "agent", "agents"));
        table.row([
            of(limit).into(),
            (&limit.now).into(),
            or_unknown(until(limit).as_deref()),
            (&limit.timetable).into(),
            (&limit.zone).into(),
            if limit.polite { "yes" } else { UNKNOWN }.into(),
            or_unknown(shared_by.as_deref()),
            (&limit.set_by).into(),
        ]);
    }
    page.table(table);
    for limit in limits {
        if let (Some(state), Some(id)) = (&limit.server_state, &limit.server_id) {
            let text = format!(
                "the node of {} is {state}, and its limit holds for nobody: `dunlin limit remove --server {}` takes it away",
                of(limit),
                short_id(id)
            );
            page.pieces([Piece::new(text, Paint::Warn)]);
        }
        if !limit.is_readable {
            let text = format!(
                "the limit of {} cannot be read by this program, and {} holds instead: use a newer program, set it again or remove it",
                of(limit),
                limit.timetable
            );
            page.pieces([Piece::new(text, Paint::Warn)]);
        }
        if !limit.zone_is_known {
            let text = format!(
                "time zone {} is not known here: the slowest rate of the limit of {} holds all the time",
                limit.zone,
                of(limit)
            );
            page.pieces([Piece::new(text, Paint::Warn)]);
        }
        for conflict in &limit.conflicts {
            page.pieces([Piece::new(conflict, Paint::Warn)]);
        }
    }
    page.finish()
}

/// Whom a limit is of.
pub fn of(limit: &LimitView) -> String {
    match (&limit.server, &limit.site) {
        (Some(server), _) => format!("server {server}"),
        (None, site) => format!("site {}", site.as_deref().unwrap_or(UNKNOWN)),
    }
}

/// What a limit that was set took the place of, in all that it said: nothing of it stays.
pub fn replaced(before: &[LimitView], set: &LimitView) -> Option<String> {
    let same = |limit: &&LimitView| of(limit) == of(set);
    let old = before.iter().find(same)?;
    let says = |limit: &LimitView| (limit.timetable.clone(), limit.zone.clone(), limit.polite);
    let polite = if old.polite { ", polite" } else { "" };
    let what = format!("{}, zone {}{polite}", old.timetable, old.zone);
    (says(old) != says(set)).then(|| format!("it took the place of: {what}"))
}

/// What limits a server now, in one line; none where nothing is set.
pub fn line(limits: &[LimitView]) -> Option<Piece> {
    let parts: Vec<String> = limits.iter().map(in_words).collect();
    (!parts.is_empty()).then(|| parts.join("; ").into())
}

/// What the agent of a server warned of.
pub fn warning(warned_of: Option<&str>) -> Option<Piece> {
    warned_of.map(|text| Piece::new(text, Paint::Warn))
}

/// `20MiB/s for site berlin until Fri 2026-11-27 18:00 (Europe/Berlin)`.
fn in_words(limit: &LimitView) -> String {
    let until = until(limit).map(|until| format!(" until {until} ({})", limit.zone));
    let polite = if limit.polite { ", polite" } else { "" };
    let unknown = match limit.zone_is_known {
        true => String::new(),
        false => format!(
            ", the slowest for time zone {} is not known here",
            limit.zone
        ),
    };
    format!(
        "{} for {}{}{polite}{unknown}",
        limit.now,
        of(limit),
        until.unwrap_or_default()
    )
}

/// As the clocks of its zone show it.
fn until(limit: &LimitView) -> Option<String> {
    let secs = parse_rfc3339(limit.until.as_ref()?)?;
    Some(hours::shown(UnixSecs(secs), &limit.zone))
}
