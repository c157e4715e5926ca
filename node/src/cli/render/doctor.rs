//! What `dunlin doctor` found.
//!
//! Not here: the checks (`doctor`) and the measuring (`speed`).

use crate::api::model::{CheckState, CheckView, DoctorView, FlowView, PathView, SpeedView};
use crate::cli::figures::{rate, size};
use crate::cli::page::{Look, Page, Paint, Piece};

use super::plural;

/// Every check on a line, what to do on the next, and a sum.
pub fn page(view: &DoctorView, look: &Look) -> String {
    let mut page = Page::new(look);
    let width = view.checks.iter().map(|check| label(check).chars().count());
    let width = width.max().unwrap_or(0);
    for check in &view.checks {
        let (word, paint) = match check.state {
            CheckState::Ok => ("ok", Paint::Good),
            CheckState::Warning => ("warning", Paint::Warn),
            CheckState::Failed => ("failed", Paint::Bad),
        };
        page.pieces([
            Piece::new(format!("{word:<7}  "), paint),
            Piece::new(format!("{:<width$}  ", label(check)), Paint::Dim),
            (&check.text).into(),
        ]);
        if let Some(todo) = &check.todo {
            let indent = " ".repeat(width + 11);
            page.pieces([indent.into(), Piece::new("→ ", paint), todo.into()]);
        }
    }
    let of = |state| view.checks.iter().filter(move |check| check.state == state);
    page.space().line(format!(
        "{}: {} ok, {}, {} failed",
        plural(view.checks.len(), "check", "checks"),
        of(CheckState::Ok).count(),
        plural(of(CheckState::Warning).count(), "warning", "warnings"),
        of(CheckState::Failed).count(),
    ));
    page.finish()
}

fn label(check: &CheckView) -> String {
    match &check.on {
        Some(on) => format!("{} {on}", check.check),
        None => check.check.clone(),
    }
}

/// What was measured.
pub fn speed(view: &SpeedView, look: &Look) -> String {
    let trips = &view.round_trip;
    let round_trip = format!(
        "{} in the middle, {} at worst, of {}",
        millis(trips.median_micros),
        millis(trips.worst_micros),
        trips.count
    );
    let mut page = Page::new(look);
    page.labelled([
        ("node", Some((&view.node).into())),
        ("path", Some(path(&view.path).into())),
        ("round trip", Some(round_trip.into())),
        ("sent", Some(flow(&view.sent).into())),
        ("received", Some(flow(&view.received).into())),
        ("its clock", Some(clock(view.clock_ahead_millis))),
    ]);
    page.finish()
}

fn path(path: &PathView) -> String {
    let mut words = vec![match path.own_connections {
        0 => "the shared connection".to_owned(),
        1 => "a connection of its own".to_owned(),
        several => format!("{several} connections of its own"),
    }];
    words.extend(
        path.transport
            .as_ref()
            .map(|transport| format!("by {transport}")),
    );
    words.push(match path.relayed {
        Some(false) => "direct".to_owned(),
        Some(true) => "through a relay".to_owned(),
        None => "one of several".to_owned(),
    });
    words.extend(path.address.clone());
    words.join(", ")
}

fn flow(flow: &FlowView) -> String {
    format!(
        "{} ({} Mbit/s): {} in {:.1} s, {} in all",
        rate(flow.bytes_per_sec),
        u128::from(flow.bytes_per_sec) * 8 / 1_000_000,
        size(flow.bytes),
        flow.seconds,
        size(flow.bytes_in_all)
    )
}

/// `0.24 ms`, `103 ms`.
fn millis(micros: u64) -> String {
    match micros {
        0..10_000 => format!("{}.{:02} ms", micros / 1000, micros % 1000 / 10),
        _ => format!("{} ms", micros / 1000),
    }
}

/// Two clocks that are further apart than this want setting.
const CLOCKS_APART_MILLIS: u64 = 10_000;

fn clock(ahead_millis: i64) -> Piece {
    let apart = ahead_millis.unsigned_abs();
    let side = if ahead_millis < 0 {
        "behind"
    } else {
        "ahead of"
    };
    let text = format!("{}.{} s {side} this one", apart / 1000, apart % 1000 / 100);
    match apart > CLOCKS_APART_MILLIS {
        true => Piece::new(
            format!("{text}: set both by NTP (`timedatectl`)"),
            Paint::Warn,
        ),
        false => text.into(),
    }
}
