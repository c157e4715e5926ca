//! What is different where the moment of a cutover is wanted for a checkpoint alone.

use super::{Action, Answer, DiskState, State, Stillness, View, all_are, thawing};

/// Whether a checkpoint is wanted.
pub(super) fn is_checkpoint(view: &View) -> bool {
    view.wanted.is_some_and(|wanted| wanted.is_checkpoint)
}

/// Has the checkpoint stand where the source was frozen all the time, and lets go of it.
pub(super) fn stand(
    millis: u64,
    (since_millis, until_millis): (u64, u64),
    answer: &Answer,
    view: &View,
    out: &mut Vec<Action>,
) -> State {
    let is_wanted = is_checkpoint(view) && all_are(view, DiskState::Reached);
    let why = match answer {
        _ if millis >= until_millis => "it took too long to ask whether the source is frozen yet",
        Answer::Stands(Stillness::Frozen) if is_wanted => {
            let frozen_millis = Some(millis - since_millis);
            out.push(Action::Stand { frozen_millis });
            return thawing(None, false);
        }
        Answer::Stands(Stillness::Frozen) => "a disk had to be read again",
        Answer::Failed { why, .. } => why,
        _ => "somebody let go of the source",
    };
    thawing(view.wanted.map(|_| why.to_owned()), false)
}
