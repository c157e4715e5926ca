//! Whether the scripts are there that the plan names for this host.

use super::{Facts, broken, ok, on};
use crate::api::model::CheckView;

/// One for each script; none where nothing is planned.
pub(super) fn checks(facts: &Facts) -> Vec<CheckView> {
    let check = "hook";
    let live = facts.live.as_ref();
    let Some((folder, planned)) = live.and_then(|live| live.hooks.as_ref()) else {
        return vec![];
    };
    let looked = planned.iter().map(|(migration, hook)| {
        let seen = match folder.find(&hook.name) {
            Ok(script) => ok(
                check,
                format!("{} can be run at {}", script.path().display(), hook.point),
            ),
            Err(missing) => broken(
                check,
                format!("{} at {} cannot be run: {missing}", hook.name, hook.point),
                format!(
                    "have the owner of this host put the script into {}, or take the hook out of the plan: `dunlin migration hook list {migration}`",
                    folder.path().display()
                ),
            ),
        };
        on(migration, seen)
    });
    looked.collect()
}
