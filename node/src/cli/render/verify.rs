//! The roots of both ends, and the commands that prove them.
//!
//! Not here: the exit status (`read`).

use crate::api::model::{ProofView, VerifyView, VolumeProof};
use crate::cli::figures::{short_id, size};
use crate::cli::page::{Look, Page, Paint, Piece};

use super::checkpoints;

/// Every volume's roots.
pub fn page(view: &VerifyView, look: &Look) -> String {
    let mut page = Page::new(look);
    if view.volumes.is_empty() {
        page.line("no volumes yet; nothing is proven");
    }
    for volume in &view.volumes {
        put(volume, &mut page);
    }
    checkpoints::proofs(&view.checkpoints, &mut page);
    page.finish()
}

fn put(volume: &VolumeProof, page: &mut Page) {
    page.heading(format!(
        "volume {} ({}), {} = {} bytes",
        volume.name,
        short_id(&volume.volume),
        size(volume.length),
        volume.length
    ));
    end("source", volume.source.as_ref(), page);
    end("copy", volume.target.as_ref(), page);
    if volume.witness.is_some() {
        end("witness", volume.witness.as_ref(), page);
    }
    let (text, paint) = match (&volume.source, &volume.target) {
        _ if volume.equal => ("equal", Paint::Good),
        (Some(source), Some(target)) if source.root == target.root => (
            "NOT EQUAL: the roots are the same, but are not signed for the same length and epoch",
            Paint::Bad,
        ),
        (Some(_), Some(_)) => ("NOT EQUAL", Paint::Bad),
        _ => ("not yet proven", Paint::Warn),
    };
    page.pieces([Piece::new(text, paint)]);
    if volume.equal {
        page.pieces([confirmation(volume)]);
    }
    if let Some(problem) = &volume.volume_problem {
        let text = format!("the copy's volume is not in order now: {problem}");
        page.pieces([Piece::new(text, Paint::Bad)]);
    }
    let proofs = [volume.source.as_ref(), volume.target.as_ref()];
    for proof in proofs.into_iter().flatten() {
        page.line(format!(
            "to prove it, on {}:",
            proof.signed_by.replace('\n', " ")
        ));
        page.pieces([(&proof.command).into()]);
    }
}

/// Whether a node other than the replicator has looked.
fn confirmation(volume: &VolumeProof) -> Piece {
    match (&volume.witness, &volume.unconfirmed) {
        (Some(witness), None) => {
            let text = format!(
                "confirmed by {}, which read the copy back",
                witness.signed_by
            );
            Piece::new(text, Paint::Good)
        }
        (_, Some(why)) => Piece::new(why, Paint::Warn),
        (None, None) => Piece::new("not confirmed by another node", Paint::Warn),
    }
}

fn end(which: &str, proof: Option<&ProofView>, page: &mut Page) {
    let Some(proof) = proof else {
        page.pieces([
            Piece::new(format!("{which:<7} "), Paint::Dim),
            Piece::new("no signed root yet", Paint::Warn),
        ]);
        return;
    };
    page.pieces([
        Piece::new(format!("{which:<7} "), Paint::Dim),
        (&proof.root).into(),
    ]);
    page.line(format!(
        "        {}, signed by {} for epoch {}, {}",
        proof.method, proof.signed_by, proof.epoch, proof.at
    ));
    left_out(proof, page);
}

/// What was not read of the source, where anything was not.
pub(super) fn left_out(proof: &ProofView, page: &mut Page) {
    for left_out in &proof.left_out {
        page.pieces([Piece::new(
            format!(
                "        left out and zeros in the copy: {} = {} bytes from byte {} on",
                size(left_out.length),
                left_out.length,
                left_out.offset
            ),
            Paint::Warn,
        )]);
    }
}
