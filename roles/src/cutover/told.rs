//! What people are told of a cutover, where it takes more than a line.

use super::{View, Wanted};
use crate::note::Note;

pub(super) fn thawed(what: &str, frozen_millis: u64) -> Note {
    let text = match frozen_millis {
        // Whoever froze it was started again meanwhile.
        0 => what.to_owned(),
        millis => format!("{what}: it was frozen for {millis} ms"),
    };
    Note::info("thawed", text)
}

pub(super) fn too_much(budget: u64, rest: Option<u64>) -> String {
    let rest = rest.unwrap_or(0);
    format!(
        "waits until what is left can be sent in {}.{} s: by the last passes it is {}.{} s; write less, move over a faster link, or allow a longer freeze (`freeze_secs` in `[agent]` of the source's settings)",
        budget / 1000,
        budget % 1000 / 100,
        rest / 1000,
        rest % 1000 / 100
    )
}

pub(super) fn late(view: &View, millis: u64) -> String {
    let open = view.disks.iter();
    let goal = view.wanted.map(Wanted::goal);
    let open = open.filter(|disk| Some(disk.state) != goal).count();
    match open {
        0 => format!("hooks at after-freeze were not done after {millis} ms"),
        open => format!(
            "{open} of {} disks were not proven after {millis} ms",
            view.disks.len()
        ),
    }
}
