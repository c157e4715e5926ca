//! That nothing is stored which nobody signed, by the signatures alone.
//!
//! Not here: whether what was signed counts (`trust`).

use super::Invariant;
use crate::context::Context;
use crdt::SignedChange;
use keys::statement::Entry;
use keys::{Domain, MeshId, Signed};
use mesh::Record;

/// INV-12: the signatures of what is about to be stored.
pub fn everything_verifies(ctx: &mut Context, node: usize, mesh: MeshId, records: &[Record]) {
    for record in records {
        let (bytes, holds): (Vec<u8>, Box<dyn FnOnce() -> bool + '_>) = match record {
            Record::Statement(signed) => (
                evidence(signed),
                Box::new(|| signed.open::<Entry>(Domain::Statement).is_ok()),
            ),
            Record::Report(_, signed) => (
                evidence(signed),
                Box::new(|| signed.open::<crdt::Report>(Domain::Report).is_ok()),
            ),
            Record::Evidence(_, pair) => (
                codec::encode(pair).expect("what is stored is within its limits"),
                Box::new(|| pair_verifies(mesh, pair)),
            ),
            Record::Change(_, change) => {
                let mut bytes = change.raw.clone();
                bytes.extend_from_slice(&change.signature.0);
                (bytes, Box::new(|| change_verifies(mesh, change)))
            }
        };
        let id = *blake3::hash(&bytes).as_bytes();
        if ctx.oracle.verified.contains(&id) {
            continue;
        }
        let holds = holds();
        if let Record::Statement(signed) = record
            && let Ok(entry) = signed.open_stored::<Entry>()
        {
            let place = (signed.signer, entry.seq);
            let of_place = ctx.oracle.roots.entry(place).or_default();
            of_place.insert(signed.statement_id());
        }
        ctx.require(holds, Invariant::EverythingVerifies, || {
            format!("node {node} stores what nobody signed")
        });
        ctx.oracle.verified.insert(id);
    }
}

fn pair_verifies(mesh: MeshId, pair: &crdt::Evidence) -> bool {
    match pair {
        crdt::Evidence::Reports(pair) => {
            let holds = |signed: &Signed| signed.open::<crdt::Report>(Domain::Report).is_ok();
            pair.iter().all(holds)
        }
        crdt::Evidence::Changes(pair) => pair.iter().all(|one| change_verifies(mesh, one)),
    }
}

fn evidence(signed: &Signed) -> Vec<u8> {
    let mut bytes = signed.body.clone();
    bytes.extend_from_slice(&signed.signer.0);
    bytes.extend_from_slice(&signed.signature.0);
    bytes
}

/// The format of a change's signature, written down a second time.
fn change_verifies(mesh: MeshId, change: &SignedChange) -> bool {
    let mut message = mesh.0.to_vec();
    message.extend_from_slice(blake3::hash(&change.raw).as_bytes());
    change
        .author
        .verify(Domain::Change, &message, &change.signature)
}
