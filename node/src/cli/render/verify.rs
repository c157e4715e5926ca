//! The roots of both ends, and the commands that prove them.
//!
//! Not here: the exit status (`read`).

use crate::api::model::{ProofView, VerifyView, VolumeProof};
use crate::cli::figures::{short_id, size};
use crate::cli::page::{Look, Page, Paint, Piece};

/// Every volume's roots.
pub fn page(view: &VerifyView, look: &Look) -> String {
    let mut page = Page::new(look);
    if view.volumes.is_empty() {
        page.line("no volumes yet; nothing is proven");
    }
    for volume in &view.volumes {
        put(volume, &mut page);
    }
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
    let proofs = [volume.source.as_ref(), volume.target.as_ref()];
    for proof in proofs.into_iter().flatten() {
        page.line(format!(
            "to prove it, on {}:",
            proof.signed_by.replace('\n', " ")
        ));
        page.pieces([(&proof.command).into()]);
    }
}

fn end(which: &str, proof: Option<&ProofView>, page: &mut Page) {
    let Some(proof) = proof else {
        page.pieces([
            Piece::new(format!("{which:<6}  "), Paint::Dim),
            Piece::new("no signed root yet", Paint::Warn),
        ]);
        return;
    };
    page.pieces([
        Piece::new(format!("{which:<6}  "), Paint::Dim),
        (&proof.root).into(),
    ]);
    page.line(format!(
        "        {}, signed by {}, {}",
        proof.method, proof.signed_by, proof.at
    ));
}
