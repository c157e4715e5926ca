//! Values in the one wire encoding: what decodes is encoded to the same bytes, so that
//! nothing has two encodings and two hashes.

use crate::sample::{MIGRATION, Sample};
use crate::target::{Target, Verdict};
use codec::Wire;
use keys::proof::{End, Method, RootProof};
use keys::{Epoch, MigrationId, VolumeId};
use roles::{JobId, Ticket};
use std::marker::PhantomData;

struct Decoded<T> {
    name: &'static str,
    seeds: Vec<Vec<u8>>,
    of: PhantomData<T>,
}

impl<T: Wire> Target for Decoded<T> {
    fn name(&self) -> &'static str {
        self.name
    }

    fn seeds(&self) -> Vec<Vec<u8>> {
        self.seeds.clone()
    }

    fn check(&self, input: &[u8]) -> Result<Verdict, String> {
        canonical::<T>(input)
    }
}

/// Decodes, and encodes again.
pub fn canonical<T: Wire>(input: &[u8]) -> Result<Verdict, String> {
    let Ok(value) = codec::decode::<T>(input) else {
        return Ok(Verdict::Refused);
    };
    match codec::encode(&value) {
        Ok(bytes) if bytes == input => Ok(Verdict::Accepted),
        Ok(_) => Err(format!("another encoding of a {} was taken", T::NAME)),
        Err(error) => Err(format!("what decoded does not encode: {error}")),
    }
}

fn decoded<T: Wire + 'static>(name: &'static str, values: &[T]) -> Box<dyn Target> {
    let seeds = values.iter();
    let seeds = seeds.map(|value| codec::encode(value).expect("the sample's values are sound"));
    Box::new(Decoded::<T> {
        name,
        seeds: seeds.collect(),
        of: PhantomData,
    })
}

pub fn all() -> Vec<Box<dyn Target>> {
    let sample = Sample::make();
    let (requests, pages) = sample.talk();
    let job = JobId {
        migration: MIGRATION,
        volume: VolumeId([4; 16]),
    };
    let statements = sample.statements();
    let ticket = Ticket {
        job,
        epoch: Epoch(1),
        grant: statements.last().expect("the grant came last").clone(),
        support: statements[..4].to_vec(),
    };
    let proof = proof(job.migration, job.volume);
    vec![
        decoded("wire-request", &requests),
        decoded("wire-page", &pages),
        decoded("wire-announce", &sample.announcements),
        decoded("wire-enrol", &sample.enrolments),
        decoded("wire-reply", &sample.replies),
        decoded("wire-change", &sample.changes()),
        decoded("wire-token", std::slice::from_ref(&sample.token)),
        decoded("wire-ticket", &[ticket]),
        decoded("wire-proof", &[proof]),
    ]
}

fn proof(migration: MigrationId, volume: VolumeId) -> RootProof {
    RootProof {
        mesh: keys::MeshId([1; 32]),
        migration,
        volume,
        epoch: Epoch(1),
        end: End::Source,
        length: 1 << 30,
        root: [7; 32],
        method: Method::ReadInFull,
        at: crate::sample::NOW,
        left_out: keys::LeftOut::new(vec![(1 << 20, 1 << 29)]).expect("one extent is sorted"),
        checkpoint: keys::CheckpointName::new("before-upgrade").ok(),
    }
}
