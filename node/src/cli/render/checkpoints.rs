//! Checkpoints of a migration.

use crate::api::model::{CheckpointView, CheckpointVolume};
use crate::cli::page::{Look, Page, Paint, Piece, Table};

use super::or_unknown;
use super::verify::left_out;

/// All of them, the newest first.
pub fn list(checkpoints: &[CheckpointView], look: &Look) -> String {
    let mut page = Page::new(look);
    if checkpoints.is_empty() {
        page.line("no checkpoints; `dunlin migration checkpoint ID` takes one");
    }
    put(checkpoints, &mut page);
    page.finish()
}

/// The same as part of a page.
pub fn put(checkpoints: &[CheckpointView], page: &mut Page) {
    if checkpoints.is_empty() {
        return;
    }
    let mut table = Table::new(["NAME", "ASKED FOR", "STATE", ">FROZEN"]);
    for checkpoint in checkpoints {
        let frozen = match checkpoint.frozen_millis {
            Some(millis) => Some(format!("{millis} ms")),
            None => is_apart(checkpoint).then(|| "each disk for itself".to_owned()),
        };
        table.row([
            (&checkpoint.name).into(),
            (&checkpoint.asked_at).into(),
            Piece::new(&checkpoint.state, paint(&checkpoint.state)),
            or_unknown(frozen.as_deref()),
        ]);
    }
    page.table(table);
    for checkpoint in checkpoints {
        for volume in &checkpoint.volumes {
            about(&checkpoint.name, volume, page);
        }
    }
}

/// Whether its disks came to it one after the other, so that they are of several moments.
fn is_apart(checkpoint: &CheckpointView) -> bool {
    checkpoint.volumes.len() > 1 && !matches!(&*checkpoint.state, "asked" | "failed")
}

fn paint(state: &str) -> Paint {
    match state {
        "verified" => Paint::Good,
        "failed" => Paint::Bad,
        _ => Paint::Warn,
    }
}

fn about(checkpoint: &str, volume: &CheckpointVolume, page: &mut Page) {
    let root = volume.proof.as_ref().map(|proof| &proof.root);
    if root.is_none() && volume.path.is_none() && volume.detail.is_none() {
        return;
    }
    page.heading(format!("checkpoint {checkpoint}, volume {}", volume.name));
    let warn = |text: &String| Piece::new(text, Paint::Warn);
    page.labelled([
        ("root", root.map(Into::into)),
        ("kept at", volume.path.as_ref().map(Into::into)),
        ("because", volume.detail.as_ref().map(warn)),
        ("to boot", volume.copy.as_ref().map(Into::into)),
        ("no copy", volume.copy_detail.as_ref().map(warn)),
    ]);
}

/// The commands that prove what is kept.
pub fn proofs(checkpoints: &[CheckpointView], page: &mut Page) {
    for checkpoint in checkpoints {
        for volume in &checkpoint.volumes {
            let Some(proof) = &volume.proof else { continue };
            page.heading(format!(
                "checkpoint {}, volume {}",
                checkpoint.name, volume.name
            ));
            page.pieces([(&proof.root).into()]);
            page.line(format!(
                "{}, signed by {} for epoch {}, {}; {}",
                proof.method, proof.signed_by, proof.epoch, proof.at, volume.state
            ));
            left_out(proof, page);
            if volume.path.is_some() {
                page.line("to prove it, on the provisioner:");
                page.pieces([(&proof.command).into()]);
            }
        }
    }
}
