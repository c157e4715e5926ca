//! Swap that a session does not read: found when its copy is new, and looked at again before
//! each pass and before the root is stated, since what is not read says nothing of itself.
//!
//! Not here: where swap is (`volumes`), and remembering it (`roles::agent`).

use std::fmt::Write;

use blocks::SwapArea;
use volumes::{FoundSwap, ReadError, SourceVolume};

use super::follow::Following;

/// What is left out of a source from here on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeftOut {
    /// The areas.
    pub areas: Vec<SwapArea>,
    /// For people: what that is, or why it is less than before.
    pub told: String,
    /// Whether some was left out that may not be any more.
    pub is_less: bool,
}

/// The swap that is left out, and what to tell of it where it was found just now.
pub(super) type Begun = (Vec<SwapArea>, Option<LeftOut>);

/// The source without what is left out of it: of swap that is known, or else is looked for
/// and told.
pub(super) fn begin(
    volume: SourceVolume,
    known: Option<&Vec<SwapArea>>,
) -> Result<(SourceVolume, Vec<SwapArea>, Option<LeftOut>), ReadError> {
    let fresh = match known {
        Some(_) => None,
        None => Some(fresh(volume.swap()?)),
    };
    let found = fresh.as_ref().map(|fresh| &fresh.areas);
    let areas = known.or(found).cloned().unwrap_or_default();
    let contents = areas.iter().map(SwapArea::content);
    let volume = volume.leaving_out(contents.collect());
    Ok((volume, areas, fresh))
}

fn fresh(found: FoundSwap) -> LeftOut {
    let FoundSwap {
        areas,
        names,
        copied,
    } = found;
    let mut told = String::new();
    for (area, name) in areas.iter().zip(names) {
        let content = area.content();
        let lead = if told.is_empty() {
            "the content of swap is left out, and the copy has zeros there: "
        } else {
            ", "
        };
        let bytes = content.end - content.start;
        let _ = write!(told, "{lead}{name}, {bytes} bytes at {}", content.start);
    }
    if told.is_empty() {
        told.push_str("no swap is left out: none was found that could be");
    }
    for why in copied {
        let _ = write!(told, "; copied all the same is {why}");
    }
    LeftOut {
        areas,
        told,
        is_less: false,
    }
}

/// What may still be left out, where that is less than before. The next pass then reads all,
/// which is durable before anybody hears of it.
pub(super) fn lost(
    volume: &SourceVolume,
    areas: &[SwapArea],
    following: &mut Following,
) -> Result<Option<LeftOut>, String> {
    if areas.is_empty() {
        return Ok(None);
    }
    let found = volume.swap_areas().map_err(|error| error.to_string())?;
    let (same, others): (Vec<SwapArea>, Vec<SwapArea>) =
        areas.iter().copied().partition(|area| found.contains(area));
    if others.is_empty() {
        return Ok(None);
    }
    let places: Vec<String> = others
        .iter()
        .map(|area| format!("{} bytes at {}", area.length, area.offset))
        .collect();
    let told = format!(
        "what was left out of {} is not the same swap any more ({}): it is read and copied from here on, in a pass over the whole disk",
        volume.path().display(),
        places.join(", ")
    );
    let forgotten = following.forget_tree();
    forgotten.map_err(|error| format!("{told}; {error}"))?;
    Ok(Some(LeftOut {
        areas: same,
        told,
        is_less: true,
    }))
}
