//! What stands behind a valid signature: the input is the body, which the target signs
//! with the right key, so that what a faulty member signs is reached.

use super::wire::canonical;
use crate::sample::{NOW, Sample, identity};
use crate::target::{Target, Verdict};
use crdt::{Report, ReportOutcome, Reports};
use keys::authority::authority;
use keys::statement::Entry;
use keys::{Authority, Domain, Identity, Ledger, Signed};

fn seal(signer: &Identity, domain: Domain, body: &[u8]) -> Signed {
    Signed {
        body: body.to_vec(),
        signer: signer.public(),
        signature: signer.sign(domain, body),
    }
}

/// Statements of the operator and of the root key.
pub struct Statements {
    ledger: Ledger,
    seeds: Vec<Vec<u8>>,
}

impl Statements {
    pub fn new() -> Self {
        let sample = Sample::make();
        let bodies = sample.statements().into_iter().map(|signed| signed.body);
        Self {
            ledger: sample.ledger(),
            seeds: bodies.collect(),
        }
    }
}

impl Target for Statements {
    fn name(&self) -> &'static str {
        "statement"
    }

    fn weight(&self) -> u64 {
        3
    }

    fn seeds(&self) -> Vec<Vec<u8>> {
        self.seeds.clone()
    }

    fn check(&self, input: &[u8]) -> Result<Verdict, String> {
        let mut taken = false;
        for signer in [identity(1), identity(9)] {
            let signed = seal(&signer, Domain::Statement, input);
            // As a genesis too.
            let _ = Ledger::found(signed.clone());
            let mut ledger = self.ledger.clone();
            if ledger.insert(signed.clone()).is_err() {
                continue;
            }
            taken = true;
            canonical::<Entry>(input)?;
            // Whatever it says, authority is computed, and the same after a restart.
            let before = authority(&ledger);
            let mut again = self.ledger.clone();
            again
                .restore(signed)
                .map_err(|error| format!("what was inserted is not restored: {error}"))?;
            if again.digest() != ledger.digest() || authority(&again) != before {
                return Err("the restored ledger is another".into());
            }
        }
        Ok(if taken {
            Verdict::Accepted
        } else {
            Verdict::Refused
        })
    }
}

/// Reports of the node.
pub struct ReportBodies {
    authority: Authority,
    seeds: Vec<Vec<u8>>,
}

impl ReportBodies {
    pub fn new() -> Self {
        let sample = Sample::make();
        let bodies = sample.reports().into_iter().map(|signed| signed.body);
        Self {
            authority: authority(&sample.ledger()),
            seeds: bodies.collect(),
        }
    }
}

impl Target for ReportBodies {
    fn name(&self) -> &'static str {
        "report"
    }

    fn weight(&self) -> u64 {
        2
    }

    fn seeds(&self) -> Vec<Vec<u8>> {
        self.seeds.clone()
    }

    fn check(&self, input: &[u8]) -> Result<Verdict, String> {
        let signed = seal(&identity(2), Domain::Report, input);
        let mut reports = Reports::new();
        match reports.offer(signed.clone(), &self.authority, NOW) {
            ReportOutcome::New(_) => {}
            _ => return Ok(Verdict::Refused),
        }
        canonical::<Report>(input)?;
        match reports.offer(signed, &self.authority, NOW) {
            ReportOutcome::Stale => Ok(Verdict::Accepted),
            other => Err(format!("the same report again was {other:?}")),
        }
    }
}
