//! The master document: the logs of all authors, the changes that wait, and the plan
//! that they amount to.
//!
//! The logs are the truth; automerge's document is a cache that is rebuilt from them
//! when authority changes or automerge fails. Nothing of a peer's reaches automerge
//! before `admission` has passed it.

use crate::admission::{self, Causes, Index, Parsed, Placement, Refusal};
use crate::edit::{Edit, EditError, Write};
use crate::log::{Digest, MAX_CHANGE, SignedChange};
use crate::parked::{Parked, Parking};
use crate::plan::{EntryId, Plan};
use crate::schema;
use crate::shards;
use automerge::transaction::CommitOptions;
use automerge::{ActorId, Automerge, Change, ChangeHash, ReadDoc};
use forked::{Honoured, Pair};
use keys::statement::Position;
use keys::{Authority, Identity, MeshId, PublicKey, UnixSecs};
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

mod again;
mod exchange;
mod forked;
mod rebuild;
mod snapshot;

pub use again::MadeAgain;
pub use exchange::Compared;
pub use snapshot::{Saving, Snapshot};

/// What offering a change did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// It counts now, and perhaps others that waited for it: see [`Document::take_admitted`].
    Admitted,
    /// It was there.
    Known,
    /// Its author or something it depends on is not known yet.
    Parked,
    /// It does not count.
    Refused(Refusal),
    /// Its author signed two changes of one number. An alarm.
    Fork(Fork),
}

/// Two changes of one author with one number: a key in two places.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fork {
    /// The author.
    pub author: PublicKey,
    /// The number of both.
    pub seq: u64,
    /// Hash of the change that is here.
    pub ours: [u8; 32],
    /// Hash of the change that was offered.
    pub theirs: [u8; 32],
}

/// What is done to which entries.
pub(crate) type Intent = BTreeMap<EntryId, Write>;

/// A change that no longer counts because one that it depends on does not. Its author
/// is to make the edit again: see [`Document::edit_again`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Orphan {
    /// Its author.
    pub author: PublicKey,
    /// Its number in the author's log.
    pub seq: u64,
    /// What it said.
    pub(crate) intent: Intent,
    /// Of each author the last change that it was made after.
    pub(crate) saw: BTreeMap<PublicKey, u64>,
}

/// A stored change that is no change: the store was altered.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the stored log of {author:?} is corrupt: {refusal}")]
pub struct CorruptLog {
    /// Whose log.
    pub author: PublicKey,
    /// What is wrong.
    pub refusal: Refusal,
}

/// The master document of one mesh.
#[derive(Debug, Clone)]
pub struct Document {
    mesh: MeshId,
    index: Index,
    doc: Automerge,
    plan: Plan,
    parked: Parked,
    /// Verified changes that do not count now and may count again.
    aside: BTreeMap<Digest, SignedChange>,
    /// Changes that passed our checks and that automerge did not take.
    failed: HashSet<ChangeHash>,
    /// The lowest fork that is known of each author.
    forks: BTreeMap<PublicKey, Pair>,
    /// Authors whose fork was not handed out yet.
    fresh_forks: BTreeSet<PublicKey>,
    /// Changes that lost what they depend on, and were not handed out yet.
    orphans: Vec<Orphan>,
    /// The lowest round in which each author may go on, where it is not the first.
    rounds: BTreeMap<PublicKey, u32>,
    /// Authors whose branch is still to be decided by what is honoured of them.
    undecided: BTreeSet<PublicKey>,
    /// What the view was built under.
    built_under: BTreeMap<PublicKey, Honoured>,
    /// See [`Document::unsaved`].
    unsaved: u64,
    /// Admitted and not yet handed out to be stored.
    fresh: Vec<(u64, SignedChange)>,
}

impl Document {
    /// An empty document.
    pub fn new(mesh: MeshId) -> Self {
        Self {
            mesh,
            index: Index::default(),
            doc: shards::document(),
            plan: Plan::default(),
            parked: Parked::default(),
            aside: BTreeMap::new(),
            failed: HashSet::new(),
            forks: BTreeMap::new(),
            fresh_forks: BTreeSet::new(),
            orphans: Vec::new(),
            rounds: BTreeMap::new(),
            undecided: BTreeSet::new(),
            built_under: BTreeMap::new(),
            unsaved: 0,
            fresh: Vec::new(),
        }
    }

    /// The document of changes that were verified before they were stored, in any
    /// order. Signatures are not checked again.
    ///
    /// A snapshot spares the work of applying what it covers. It is a cache: the
    /// document is the same without it, and with one that does not fit.
    pub fn load(
        mesh: MeshId,
        stored: impl IntoIterator<Item = SignedChange>,
        snapshot: Option<&Snapshot>,
        authority: &Authority,
    ) -> Result<Self, CorruptLog> {
        let mut document = Self::new(mesh);
        let mut everything = BTreeMap::new();
        for change in stored {
            let author = change.author;
            let digest = change.digest();
            let parsed = admission::parse_stored(change)
                .map_err(|refusal| CorruptLog { author, refusal })?;
            everything.insert(digest, parsed);
        }
        document.build(everything, snapshot, authority);
        document.fresh.clear();
        document.orphans.clear();
        Ok(document)
    }

    /// Offers one change.
    pub fn offer(&mut self, change: SignedChange, authority: &Authority) -> Outcome {
        let mut outcomes = self.offer_all([change], authority);
        outcomes.pop().expect("one outcome for each change")
    }

    /// Offers changes in order; one outcome for each. What is admitted is applied
    /// together, which is many times faster than one by one.
    pub fn offer_all(
        &mut self,
        changes: impl IntoIterator<Item = SignedChange>,
        authority: &Authority,
    ) -> Vec<Outcome> {
        let mut batch = Batch::default();
        let mut outcomes = Vec::new();
        for change in changes {
            let author = change.author;
            let outcome = match self.admit(change, authority, &mut batch) {
                Verdict::Admitted(seq, hash) => {
                    self.retry(authority, &mut batch);
                    outcomes.push((Outcome::Admitted, Some((author, seq, hash))));
                    continue;
                }
                Verdict::Not(outcome) => outcome,
            };
            outcomes.push((outcome, None));
        }
        self.apply(batch, authority);
        let outcomes = outcomes.into_iter().map(|(outcome, admitted)| {
            match admitted.filter(|(_, _, hash)| self.failed.contains(hash)) {
                Some((author, seq, _)) => Outcome::Refused(Refusal::Failed { author, seq }),
                None => outcome,
            }
        });
        outcomes.collect()
    }

    /// Makes an edit of `identity` and signs it; none if it says nothing new.
    ///
    /// It counts in memory at once. The caller stores it before it is passed on, and
    /// before the next edit: an edit that is forgotten after a peer saw it forks the
    /// author's log. It is not repeated by [`Document::take_admitted`].
    pub fn edit(
        &mut self,
        identity: &Identity,
        now: UnixSecs,
        authority: &Authority,
        write: impl FnOnce(&mut Edit<'_>) -> Result<(), EditError>,
    ) -> Result<Option<SignedChange>, EditError> {
        let author = identity.public();
        self.may_edit(&author, authority)?;
        let mut edit = Edit::new(&self.plan, author, now);
        write(&mut edit)?;
        let writes = edit.into_writes();
        self.commit(identity, now, authority, &writes)
    }

    fn may_edit(&self, author: &PublicKey, authority: &Authority) -> Result<(), EditError> {
        let author = *author;
        match self.honoured(&author, authority) {
            Some(Honoured::All) => Ok(()),
            Some(Honoured::Before(seq)) => Err(EditError::Forked { author, seq }),
            Some(Honoured::Through(_)) | None => Err(EditError::NotAnOperator(author)),
        }
    }

    fn commit(
        &mut self,
        identity: &Identity,
        now: UnixSecs,
        authority: &Authority,
        writes: &Intent,
    ) -> Result<Option<SignedChange>, EditError> {
        if self.index.is_full() {
            return Err(Refusal::Full.into());
        }
        let author = identity.public();
        let Some(raw) = self.transact(author, now, writes)? else {
            return Ok(None);
        };
        let signed = SignedChange::sign(identity, self.mesh, raw);
        match self.place_own(signed.clone()) {
            Ok((parsed, causes)) => {
                self.unsaved += parsed.cost();
                let touched = self.index.append(&parsed, causes);
                self.note_honoured(author, authority);
                self.refresh(&touched);
                Ok(Some(signed))
            }
            Err(error) => {
                // It is in automerge's document already, which has no way back.
                self.rebuild_view(authority);
                Err(error)
            }
        }
    }

    /// Writes to automerge's document, in place: a copy of a large one would cost more
    /// than the edit. None if nothing is said that was not there.
    fn transact(
        &mut self,
        author: PublicKey,
        now: UnixSecs,
        writes: &Intent,
    ) -> Result<Option<Vec<u8>>, EditError> {
        let time = i64::try_from(now.0).unwrap_or(i64::MAX);
        let mut options = CommitOptions::default().with_time(time);
        let last = self.index.log(&author).last().map_or(0, |last| last.round);
        let round = last.max(self.rounds.get(&author).copied().unwrap_or(0));
        if round > 0 {
            options = options.with_message(round.to_string());
        }
        self.doc.set_actor(ActorId::from(&author.0[..]));
        let mut transaction = self.doc.transaction();
        let written = writes.iter().try_for_each(|(entry, write)| match write {
            Write::Fields(fields) => schema::write(&mut transaction, entry, fields),
            Write::Text(text) => schema::write_text(&mut transaction, entry, text),
            Write::Delete => schema::delete(&mut transaction, entry),
        });
        if let Err(error) = written {
            transaction.rollback();
            return Err(EditError::Unwritable(error.to_string()));
        }
        let (hash, _) = transaction.commit_with(options);
        Ok(hash.map(|_| {
            let change = self.doc.get_last_local_change();
            let change = change.expect("a transaction of this author was just committed");
            change.raw_bytes().to_vec()
        }))
    }

    fn place_own(&self, signed: SignedChange) -> Result<(Parsed, Causes), EditError> {
        let author = signed.author;
        let parsed = admission::parse(signed)?;
        let seq = parsed.seq();
        match self.index.place(&parsed)? {
            Placement::Next(causes) => Ok((parsed, causes)),
            _ => Err(EditError::Forked { author, seq }),
        }
    }

    /// What was admitted since the last call, with its number in its author's log, in
    /// an order in which each comes after all it depends on. To be stored under author
    /// and number, where a later one takes the place of an earlier one, before any of
    /// it is passed on.
    pub fn take_admitted(&mut self) -> Vec<(u64, SignedChange)> {
        std::mem::take(&mut self.fresh)
    }

    /// The mesh whose document it is.
    pub fn mesh(&self) -> MeshId {
        self.mesh
    }

    /// What the admitted changes amount to.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// What the plan was when the logs ended in `heads`; none unless all of them are here.
    /// Takes as long as loading the document from its logs.
    pub fn plan_at(&self, heads: &BTreeMap<PublicKey, Position>) -> Option<Plan> {
        if *heads == self.heads() {
            return Some(self.plan.clone());
        }
        let mut changes = Vec::new();
        for (author, at) in heads {
            let last = self.index.admitted(author, at.seq)?;
            if last.hash.0 != at.hash {
                return None;
            }
            let through = usize::try_from(at.seq).ok()?;
            for entry in &self.index.log(author)[..through] {
                changes.push(admission::parse_stored(entry.signed.clone()).ok()?.change);
            }
        }
        let mut doc = shards::document();
        // Automerge puts them in order; what lacks something it leaves out.
        (apply(&mut doc, &changes) && doc.get_missing_deps(&[]).is_empty())
            .then(|| schema::read_all(&doc))
    }

    /// Hash of all that the document says, conflicts included: equal on all nodes that
    /// have the same heads.
    pub fn content_hash(&self) -> [u8; 32] {
        schema::content_hash(&self.doc)
    }

    /// Changes that lost what they depend on since the last call.
    pub fn take_orphans(&mut self) -> Vec<Orphan> {
        std::mem::take(&mut self.orphans)
    }

    /// How many changes wait, and how many bytes they have.
    pub fn parked(&self) -> (usize, usize) {
        self.parked.size()
    }

    /// How many changes count.
    pub fn len(&self) -> usize {
        self.index.logs().values().map(Vec::len).sum()
    }

    /// Whether nothing counts.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn admit(&mut self, change: SignedChange, authority: &Authority, batch: &mut Batch) -> Verdict {
        let author = change.author;
        let bytes = change.raw.len();
        if bytes > MAX_CHANGE {
            return Verdict::refused(Refusal::TooLarge { author, bytes });
        }
        if !change.verified(self.mesh) {
            return Verdict::refused(Refusal::Signature { author });
        }
        match self.honoured(&author, authority) {
            Some(honoured) => self.admit_verified(change, honoured, authority, batch),
            None => Verdict::parked(self.parked.keep_stranger(change), author),
        }
    }

    fn admit_verified(
        &mut self,
        change: SignedChange,
        honoured: Honoured,
        authority: &Authority,
        batch: &mut Batch,
    ) -> Verdict {
        let author = change.author;
        let parsed = match admission::parse(change) {
            Ok(parsed) => parsed,
            Err(refusal) => return Verdict::refused(refusal),
        };
        let (seq, hash) = (parsed.seq(), parsed.hash());
        if self.failed.contains(&hash) {
            return Verdict::refused(Refusal::Failed { author, seq });
        }
        let placement = match self.index.place(&parsed) {
            Ok(placement) => placement,
            Err(refusal) => return Verdict::refused(refusal),
        };
        if !matches!(placement, Placement::Known) && !honoured.covers(seq, hash) {
            return Verdict::refused(Refusal::NotHonoured { author, seq });
        }
        let revoked = matches!(honoured, Honoured::Through(_));
        match placement {
            Placement::Known => Verdict::Not(Outcome::Known),
            Placement::Next(_) if self.index.is_full() => Verdict::refused(Refusal::Full),
            Placement::Next(causes) => {
                self.built_under.entry(author).or_insert(honoured);
                self.append(parsed, causes, batch);
                Verdict::Admitted(seq, hash)
            }
            Placement::Waits if self.aside.contains_key(&parsed.signed.digest()) => {
                Verdict::Not(Outcome::Known)
            }
            Placement::Waits => Verdict::parked(self.parked.keep(seq, parsed.signed), author),
            Placement::Later | Placement::Earlier { .. } if revoked => {
                self.yield_branch(parsed, honoured, authority, batch);
                Verdict::Not(Outcome::Parked)
            }
            Placement::Later => Verdict::parked(self.parked.keep(seq, parsed.signed), author),
            Placement::Earlier { counts: false } => {
                Verdict::refused(Refusal::MadeAgain { author, seq })
            }
            Placement::Earlier { counts: true } => {
                self.aside.insert(parsed.signed.digest(), parsed.signed);
                self.cut(batch, authority);
                Verdict::Not(Outcome::Admitted)
            }
            Placement::Forks { ours } => {
                let fork = Fork {
                    author,
                    seq,
                    ours: ours.0,
                    theirs: hash.0,
                };
                let here = self.index.admitted(&author, seq);
                let here = here.expect("it was found in the index just before");
                let lower = self.keep_pair(Pair::of(here.signed.clone(), &parsed));
                if revoked {
                    self.yield_branch(parsed, honoured, authority, batch);
                } else if lower {
                    self.cut(batch, authority);
                }
                Verdict::Not(Outcome::Fork(fork))
            }
        }
    }

    /// While it is open which branch of a revoked author's log is honoured, the one
    /// that is here makes way for the one that is offered: the honoured one ends in a
    /// known hash and stays once it is complete; no other can.
    fn yield_branch(
        &mut self,
        offered: Parsed,
        honoured: Honoured,
        authority: &Authority,
        batch: &mut Batch,
    ) {
        let author = offered.author();
        let Honoured::Through(end) = honoured else {
            return;
        };
        let last = self.index.admitted(&author, end.seq);
        if last.is_some_and(|last| last.hash.0 == end.hash) {
            return;
        }
        self.undecided.insert(author);
        *batch = Batch::default();
        self.rebuild_view(authority);
        match self.index.place(&offered) {
            Ok(Placement::Next(causes)) => self.append(offered, causes, batch),
            // Without room it is offered again, like everything that finds none.
            _ => drop(self.parked.keep(offered.seq(), offered.signed)),
        }
    }

    fn append(&mut self, parsed: Parsed, causes: Causes, batch: &mut Batch) {
        self.aside.remove(&parsed.signed.digest());
        self.fresh.push((parsed.seq(), parsed.signed.clone()));
        batch.changes.push(parsed.change.clone());
        self.unsaved += parsed.cost();
        let touched = self.index.append(&parsed, causes);
        batch.touched.extend(touched);
    }

    /// Offers again what waited and may have what it needs now.
    fn retry(&mut self, authority: &Authority, batch: &mut Batch) {
        let known = |author: &PublicKey| authority.authorship(author).is_some();
        for change in self.parked.take_strangers(known) {
            self.offer_waiting(change, authority, batch);
        }
        let mut progress = true;
        while progress {
            progress = false;
            for author in self.parked.due(|author| self.index.last_seq(author) + 1) {
                let next = self.index.last_seq(&author) + 1;
                for change in self.parked.take_through(&author, next) {
                    progress |= self.offer_waiting(change, authority, batch);
                }
            }
        }
    }

    fn offer_waiting(
        &mut self,
        change: SignedChange,
        authority: &Authority,
        batch: &mut Batch,
    ) -> bool {
        let Some(honoured) = self.honoured(&change.author, authority) else {
            return false;
        };
        let verdict = self.admit_verified(change, honoured, authority, batch);
        matches!(verdict, Verdict::Admitted(..))
    }

    fn apply(&mut self, batch: Batch, authority: &Authority) {
        if batch.changes.is_empty() {
            return;
        }
        if apply(&mut self.doc, &batch.changes) {
            self.refresh(&batch.touched);
        } else {
            self.rebuild_view(authority);
        }
    }

    fn refresh(&mut self, touched: &BTreeSet<Arc<str>>) {
        for key in touched {
            self.plan.set(key, schema::read(&self.doc, key));
        }
    }
}

/// Changes admitted to the logs and not yet applied to automerge's document.
#[derive(Debug, Default)]
struct Batch {
    changes: Vec<Change>,
    touched: BTreeSet<Arc<str>>,
}

enum Verdict {
    Admitted(u64, ChangeHash),
    Not(Outcome),
}

impl Verdict {
    fn refused(refusal: Refusal) -> Self {
        Self::Not(Outcome::Refused(refusal))
    }

    fn parked(parking: Parking, author: PublicKey) -> Self {
        match parking {
            Parking::Kept => Self::Not(Outcome::Parked),
            Parking::Full => Self::refused(Refusal::NoRoom { author }),
        }
    }
}

/// Applies changes that were admitted; false if automerge did not take them, after
/// which `doc` is not to be used. It should take all of them: this is the last line.
fn apply<'a>(
    doc: &mut Automerge,
    changes: impl IntoIterator<Item = &'a Change, IntoIter: Clone>,
) -> bool {
    let changes = changes.into_iter();
    #[cfg(test)]
    if changes.clone().any(tests::automerge_fails_on) {
        return false;
    }
    let applied = catch_unwind(AssertUnwindSafe(|| doc.apply_changes(changes.cloned())));
    matches!(applied, Ok(Ok(())))
}

#[cfg(test)]
mod tests;
