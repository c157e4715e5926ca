//! Changes of the master document, the most dangerous input there is: automerge trusts
//! what it applies. The input is a change chunk, which the target signs as the operator.
//!
//! Format: <https://automerge.org/automerge-binary-format-spec/>, change chunks.

use crate::chance::Chance;
use crate::mutate::{self, leb128};
use crate::sample::Sample;
use crate::target::{Target, Verdict};
use crdt::{Document, Evidence, Outcome, Refusal, SignedChange};
use keys::{Authority, Domain, Identity, MeshId};
use sha2::{Digest, Sha256};

const HEADER: usize = 8;

/// See the module's page.
pub struct Admission {
    mesh: MeshId,
    operator: Identity,
    authority: Authority,
    /// Documents that end before each change of the history.
    documents: Vec<Document>,
    changes: Vec<SignedChange>,
}

impl Admission {
    pub fn new() -> Self {
        let sample = Sample::make();
        let mesh = sample.ledger().mesh();
        let authority = sample.replica.authority().clone();
        let changes = sample.changes();
        let mut documents = vec![Document::new(mesh)];
        for change in &changes {
            let mut next = documents[documents.len() - 1].clone();
            next.offer(change.clone(), &authority);
            documents.push(next);
        }
        Self {
            mesh,
            operator: sample.operator,
            authority,
            documents,
            changes,
        }
    }

    fn sign(&self, raw: &[u8]) -> SignedChange {
        let mut message = self.mesh.0.to_vec();
        message.extend_from_slice(blake3::hash(raw).as_bytes());
        SignedChange {
            raw: raw.to_vec(),
            author: self.operator.public(),
            signature: self.operator.sign(Domain::Change, &message),
        }
    }

    fn offer(&self, number: usize, signed: SignedChange) -> Result<bool, String> {
        let before = &self.documents[number];
        let mut document = before.clone();
        match document.offer(signed.clone(), &self.authority) {
            Outcome::Admitted => {}
            Outcome::Refused(Refusal::Failed { .. }) => {
                return Err("automerge failed on a change that was admitted".into());
            }
            Outcome::Fork(_) => {
                self.cut_the_same(number, &mut document)?;
                return Ok(false);
            }
            _ => {
                let same = document.digest() == before.digest()
                    && document.content_hash() == before.content_hash();
                return if same {
                    Ok(false)
                } else {
                    Err("a change that was not admitted altered the document".into())
                };
            }
        }
        if document.offer(signed.clone(), &self.authority) != Outcome::Known {
            return Err("an admitted change is not known".into());
        }
        let mut stored = self.changes[..number].to_vec();
        stored.push(signed);
        self.loads_the_same(&mut document, stored)?;
        Ok(true)
    }

    /// A second change of one number cuts the log: whoever stored the pair beside the
    /// log comes back with the same.
    fn cut_the_same(&self, number: usize, document: &mut Document) -> Result<(), String> {
        let stored = self.changes[..number].to_vec();
        let mut loaded = Document::load(self.mesh, stored, None, &self.authority)
            .map_err(|error| format!("a forked log cannot be loaded: {error}"))?;
        for (_, evidence) in document.take_forks() {
            if let Evidence::Changes(pair) = evidence {
                loaded.restore_fork(pair, &self.authority);
            }
        }
        if loaded.digest() != document.digest()
            || loaded.content_hash() != document.content_hash()
            || loaded.plan() != document.plan()
        {
            return Err("a forked document that was loaded is another".into());
        }
        Ok(())
    }

    /// From the logs, and from a snapshot.
    fn loads_the_same(
        &self,
        document: &mut Document,
        stored: Vec<SignedChange>,
    ) -> Result<(), String> {
        let snapshot = document.save().finish();
        for snapshot in [None, Some(&snapshot)] {
            let loaded = Document::load(self.mesh, stored.clone(), snapshot, &self.authority)
                .map_err(|error| format!("an admitted change cannot be loaded: {error}"))?;
            if loaded.digest() != document.digest()
                || loaded.content_hash() != document.content_hash()
                || loaded.plan() != document.plan()
            {
                return Err("the loaded document is another".into());
            }
            if snapshot.is_some() && loaded.unsaved() > 0 {
                return Err("automerge does not load what it saved".into());
            }
        }
        Ok(())
    }
}

impl Target for Admission {
    fn name(&self) -> &'static str {
        "change"
    }

    fn weight(&self) -> u64 {
        16
    }

    fn seeds(&self) -> Vec<Vec<u8>> {
        let changes = self.changes.iter();
        changes.map(|change| change.raw.clone()).collect()
    }

    fn mutate(&self, input: &mut Vec<u8>, chance: &mut Chance) -> bool {
        let Some(mut chunk) = Chunk::read(input) else {
            return false;
        };
        let other = &chance.pick(&self.changes).raw;
        let other = Chunk::read(other);
        for _ in 0..1 + chance.below(3) {
            chunk.mutate(other.as_ref(), chance);
        }
        *input = chunk.write();
        true
    }

    fn check(&self, input: &[u8]) -> Result<Verdict, String> {
        let signed = self.sign(input);
        let mut taken = false;
        for number in 0..self.documents.len() {
            taken |= self.offer(number, signed.clone())?;
        }
        Ok(if taken {
            Verdict::Accepted
        } else {
            Verdict::Refused
        })
    }
}

/// Sets the checksum of a chunk of automerge, so that what was altered is not refused
/// for that alone.
pub fn fix_checksum(chunk: &mut [u8]) {
    if chunk.len() > HEADER {
        let hash = Sha256::digest(&chunk[HEADER..]);
        chunk[4..HEADER].copy_from_slice(&hash[..4]);
    }
}

/// A change chunk, taken apart.
struct Chunk {
    deps: Vec<Vec<u8>>,
    actor: Vec<u8>,
    seq: u64,
    start_op: u64,
    time: Vec<u8>,
    message: Vec<u8>,
    others: Vec<Vec<u8>>,
    columns: Vec<(u64, Vec<u8>)>,
    rest: Vec<u8>,
}

impl Chunk {
    fn read(bytes: &[u8]) -> Option<Self> {
        let mut at = bytes.get(HEADER + 1..)?;
        number(&mut at)?;
        let deps = number(&mut at)?;
        let deps = (0..deps)
            .map(|_| take(&mut at, 32))
            .collect::<Option<_>>()?;
        let actor = prefixed(&mut at)?;
        let (seq, start_op) = (number(&mut at)?, number(&mut at)?);
        let time = signed_bytes(&mut at)?;
        let message = prefixed(&mut at)?;
        let others = number(&mut at)?;
        let others = (0..others)
            .map(|_| prefixed(&mut at))
            .collect::<Option<_>>()?;
        let count = number(&mut at)?;
        let mut metas = vec![];
        for _ in 0..count {
            metas.push((number(&mut at)?, number(&mut at)?));
        }
        let mut columns = vec![];
        for (spec, length) in metas {
            columns.push((spec, take(&mut at, usize::try_from(length).ok()?)?));
        }
        Some(Self {
            deps,
            actor,
            seq,
            start_op,
            time,
            message,
            others,
            columns,
            rest: at.to_vec(),
        })
    }

    fn write(&self) -> Vec<u8> {
        let mut body = leb128(self.deps.len() as u64);
        body.extend(self.deps.concat());
        put(&mut body, &self.actor);
        body.extend(leb128(self.seq));
        body.extend(leb128(self.start_op));
        body.extend(&self.time);
        put(&mut body, &self.message);
        body.extend(leb128(self.others.len() as u64));
        for other in &self.others {
            put(&mut body, other);
        }
        body.extend(leb128(self.columns.len() as u64));
        for (spec, data) in &self.columns {
            body.extend(leb128(*spec));
            body.extend(leb128(data.len() as u64));
        }
        for (_, data) in &self.columns {
            body.extend(data);
        }
        body.extend(&self.rest);
        let mut chunk = vec![0x85, 0x6f, 0x4a, 0x83, 0, 0, 0, 0, 1];
        chunk.extend(leb128(body.len() as u64));
        chunk.extend(body);
        fix_checksum(&mut chunk);
        chunk
    }

    fn mutate(&mut self, other: Option<&Self>, chance: &mut Chance) {
        let near = |number: u64, chance: &mut Chance| match chance.below(4) {
            0 => number.wrapping_add(1),
            1 => number.wrapping_sub(1),
            2 => number.wrapping_mul(2),
            _ => chance.next() >> chance.below(64),
        };
        match chance.below(16) {
            0 => self.seq = near(self.seq, chance),
            1 => self.start_op = near(self.start_op, chance),
            2 => self.deps = other.map_or(vec![], |other| other.deps.clone()),
            3 => mutate::mutate(&mut self.actor, &[], chance),
            4 => self.others.push(self.actor.clone()),
            5 => mutate::mutate(&mut self.time, &[], chance),
            6 => {
                let at = chance.below(self.columns.len() + 1);
                let spec = u64::from(chance.next() as u8);
                self.columns.insert(at, (spec, vec![1, 1]));
            }
            7 if !self.columns.is_empty() => {
                let at = chance.below(self.columns.len());
                self.columns.remove(at);
            }
            8 => {
                // A whole column of another change.
                if let Some(other) = other.filter(|other| !other.columns.is_empty()) {
                    let (spec, data) = chance.pick(&other.columns);
                    let mine = self.columns.iter_mut();
                    for (_, held) in mine.filter(|(held, _)| held == spec) {
                        held.clone_from(data);
                    }
                }
            }
            _ if !self.columns.is_empty() => {
                let at = chance.below(self.columns.len());
                let spec = self.columns[at].0;
                let theirs = other.and_then(|other| {
                    let found = other.columns.iter().find(|(theirs, _)| *theirs == spec);
                    found.map(|(_, data)| data.as_slice())
                });
                mutate::mutate(&mut self.columns[at].1, theirs.unwrap_or_default(), chance);
            }
            _ => {}
        }
    }
}

fn put(body: &mut Vec<u8>, bytes: &[u8]) {
    body.extend(leb128(bytes.len() as u64));
    body.extend(bytes);
}

fn take(at: &mut &[u8], length: usize) -> Option<Vec<u8>> {
    let (taken, rest) = at.split_at_checked(length)?;
    *at = rest;
    Some(taken.to_vec())
}

fn prefixed(at: &mut &[u8]) -> Option<Vec<u8>> {
    let length = usize::try_from(number(at)?).ok()?;
    take(at, length)
}

fn number(at: &mut &[u8]) -> Option<u64> {
    let mut number = 0;
    for shift in (0..64).step_by(7) {
        let (byte, rest) = at.split_first()?;
        *at = rest;
        number |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(number);
        }
    }
    None
}

fn signed_bytes(at: &mut &[u8]) -> Option<Vec<u8>> {
    let end = at.iter().position(|byte| byte & 0x80 == 0)?;
    take(at, end + 1)
}
