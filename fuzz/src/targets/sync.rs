//! Messages of anti-entropy, all the way into a replica.

use crate::sample::{NOW, Sample};
use crate::target::{Target, Verdict};
use keys::PublicKey;
use mesh::{Input, Output, Page, Replica, Request};

/// Pages that a node takes in.
pub struct Pages {
    sample: Sample,
    seeds: Vec<Vec<u8>>,
}

impl Pages {
    pub fn new() -> Self {
        let sample = Sample::make();
        let (_, pages) = sample.talk();
        let pages = pages.iter();
        let seeds = pages.map(|page| codec::encode(page).expect("the sample's pages fit"));
        Self {
            seeds: seeds.collect(),
            sample,
        }
    }
}

impl Target for Pages {
    fn name(&self) -> &'static str {
        "page"
    }

    fn weight(&self) -> u64 {
        4
    }

    fn seeds(&self) -> Vec<Vec<u8>> {
        self.seeds.clone()
    }

    fn check(&self, input: &[u8]) -> Result<Verdict, String> {
        let Ok(page) = codec::decode::<Page>(input) else {
            return Ok(Verdict::Refused);
        };
        let mut replica = self.sample.behind();
        let from = self.sample.operator.public();
        let mut out = vec![];
        replica.step(NOW, 0, Input::Connected(from), &mut out);
        replica.step(NOW, 1, Input::Answered { from, page }, &mut out);
        stored_restores(&self.sample, &replica, &out)?;
        Ok(Verdict::Accepted)
    }
}

/// Whoever stores what it was told to comes back as the same.
fn stored_restores(sample: &Sample, replica: &Replica, out: &[Output]) -> Result<(), String> {
    let mut ledger = sample.ledger();
    let mut changes = sample.changes();
    changes.pop();
    let (mut reports, mut evidence) = (vec![], vec![]);
    for output in out {
        let Output::Store(records) = output else {
            continue;
        };
        for record in records {
            match record.clone() {
                mesh::Record::Statement(signed) => {
                    let restored = ledger.restore(signed);
                    restored.map_err(|error| format!("a stored statement: {error}"))?;
                }
                mesh::Record::Change(_, change) => changes.push(change),
                mesh::Record::Report(_, signed) => reports.push(signed),
                mesh::Record::Evidence(_, pair) => evidence.push(pair),
            }
        }
    }
    let node = sample.node.clone();
    let mut restored = Replica::restore(node, None, ledger, changes, reports)
        .map_err(|error| format!("what was stored cannot be loaded: {error}"))?;
    restored.restore_evidence(evidence);
    if restored.heads() != replica.heads() {
        return Err("what was stored is not what is held".into());
    }
    if restored.document().content_hash() != replica.document().content_hash() {
        return Err("the document that was stored is another".into());
    }
    Ok(())
}

/// Questions that a node answers.
pub struct Requests {
    sample: Sample,
    seeds: Vec<Vec<u8>>,
}

impl Requests {
    pub fn new() -> Self {
        let sample = Sample::make();
        let (requests, _) = sample.talk();
        let requests = requests.iter();
        let seeds = requests.map(|request| codec::encode(request).expect("requests fit"));
        Self {
            seeds: seeds.collect(),
            sample,
        }
    }
}

impl Target for Requests {
    fn name(&self) -> &'static str {
        "request"
    }

    fn weight(&self) -> u64 {
        2
    }

    fn seeds(&self) -> Vec<Vec<u8>> {
        self.seeds.clone()
    }

    fn check(&self, input: &[u8]) -> Result<Verdict, String> {
        let Ok(request) = codec::decode::<Request>(input) else {
            return Ok(Verdict::Refused);
        };
        let mut replica = self.sample.behind();
        let (from, reply) = (PublicKey([5; 32]), 0);
        let mut out = vec![];
        let asked = Input::Asked {
            from,
            request,
            reply,
        };
        replica.step(NOW, 0, asked, &mut out);
        match &out[..] {
            [Output::Blame { .. }] => Ok(Verdict::Refused),
            [Output::Answer { page, .. }] => {
                let encoded = codec::encode(page);
                encoded.map_err(|error| format!("its answer cannot be sent: {error}"))?;
                Ok(Verdict::Accepted)
            }
            _ => Err("a question has one answer".into()),
        }
    }
}
