//! What must hold after every step, each with its number, and what the checks have
//! to remember for it.
//!
//! The checks look from outside: they know what every node holds and what was sent,
//! and ask the code under test as little as they can.

mod leases;
mod signed;
mod told;
mod trust;

pub use leases::{moved_within_lease, only_the_good_is_vouched_for};
pub use signed::everything_verifies;
pub use told::{forgets_what_it_told, nothing_told_is_forgotten, told_is_durable};
pub use trust::{goes_on_as_itself, no_copy_moves};

use crate::context::{Context, Flaw};
use crate::disk::{Disk, entry, flat_root};
use crate::duties::volume_key;
use crate::node::{Node, SourceVolume};
use crate::recovery::Lost;
use crate::rotating::Changed;
use crate::store::{Copy, Store};
use blocks::{BlockIndex, Extent, Geometry, Root};
use crdt::EntryId;
use crdt::plan::Conflict;
use keys::lease::Pair;
use keys::ledger::Recorded;
use keys::proof::RootProof;
use keys::statement::{Enrolment, Grant};
use keys::{
    Authority, Domain, Epoch, Ledger, MigrationId, NodeId, PublicKey, Pulse, Statement,
    StatementId, UnixSecs,
};
use roles::JobId;
use std::collections::{BTreeMap, BTreeSet};
use told::Telling;
use trust::{conflicts_are_told, key_in, old_keys_are_out, only_the_honoured_counts, rotations_in};

macro_rules! invariants {
    ($($name:ident = $id:literal, $text:literal;)*) => {
        /// One of the things that must hold.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Invariant { $(#[doc = $text] $name,)* }

        impl Invariant {
            /// Its number.
            pub fn id(self) -> &'static str {
                match self { $(Self::$name => $id,)* }
            }

            /// What it says.
            pub fn text(self) -> &'static str {
                match self { $(Self::$name => $text,)* }
            }
        }
    };
}

invariants! {
    ToldIsDurable = "INV-01", "what a node announces or answers is durable at that node";
    NothingToldIsForgotten = "INV-02", "after a restart a node still holds all that it ever told";
    AcknowledgedIsDurable = "INV-03", "a barrier is acknowledged once everything before it is durable";
    AcknowledgedSurvives = "INV-04", "an acknowledged barrier survives every crash of the target";
    TreesTellTheTruth = "INV-05", "once level, the agent's tree differs from the target's durable bytes only in blocks sent and not yet committed";
    WrittenWithPermission = "INV-06", "a replicator writes only what a grant allows at that moment, as far as it has heard";
    SentWithPermission = "INV-07", "an agent sends only what a grant allows at that moment, as far as it has heard";
    EpochsRise = "INV-08", "the epoch of a copy never goes down, at its agent or at a replicator";
    OneWriter = "INV-09", "a copy has one writer at a time, and an epoch has one for good";
    SameLedgerSameAuthority = "INV-10", "nodes with the same statements compute the same authority";
    SameLogsSamePlan = "INV-11", "nodes with the same statements and logs have the same plan";
    EverythingVerifies = "INV-12", "nothing is stored whose signature does not hold";
    StrangersGetNothing = "INV-13", "who is not enrolled gets no answer and no stream";
    OnlyTheGuiltyAreBlamed = "INV-14", "no honest node is blamed";
    OneRoot = "INV-15", "a volume is cut over with one root, which is that of the copy's durable bytes; a root is signed as read back only if the copy reads so";
    CutOverIsKept = "INV-16", "the volumes of a migration that was cut over are never deleted";
    HealedNodesAgree = "INV-17", "once nothing fails any more all nodes come to hold the same";
    HealedWorkEnds = "INV-18", "once nothing fails any more every migration ends as it was decided, and the copy is the disk";
    EnrolmentEnds = "INV-19", "an invite that is open and unused enrols its joiner, once";
    MovedWithinLease = "INV-23", "no block moves later than lease and autonomy after an operator that had not heard of a revocation vouched for it";
    AnyOperatorRenews = "INV-25", "while an operator is left, what is good is renewed, whoever granted it";
    ConflictsAreTold = "INV-26", "what operators decided apart is told on every node, alike on those that hold the same";
    OnlyTheHonouredCounts = "INV-27", "of an operator that was taken back counts what is honoured, and nothing that is said with its key after that";
    ChangedKeysCount = "INV-28", "a node that changed its key goes on as the same node, and the key it had is let in nowhere once that is heard";
    CopiesAreStopped = "INV-29", "a key that is in two places is known and told to be on every node once nothing fails any more, and no block moves by it at a node that has heard";
    OneMoment = "INV-30", "what counts of a server that was frozen is what all its disks held when it counted, and none of them was written to since it was frozen";
    LetGo = "INV-31", "a server of which nothing came to count is not frozen any more once nothing fails any more";
    ConfirmedIsTrue = "INV-24", "a copy is confirmed by a node other than its replicator once nothing fails any more, and only if it is the disk that was cut over";
}

/// What the checks remember.
#[derive(Default)]
pub struct Oracle {
    /// Statements, changes and reports that each node has told.
    told: BTreeMap<usize, Telling>,
    /// For each volume, whether the agent's tree was ever level, and the blocks that
    /// were sent since and are not committed.
    level: BTreeMap<JobId, BTreeSet<u64>>,
    epochs: BTreeMap<(usize, JobId), Epoch>,
    agent_epochs: BTreeMap<JobId, Epoch>,
    /// The version of each operator's newest report.
    made: BTreeMap<NodeId, u64>,
    writers: BTreeMap<(JobId, Epoch), usize>,
    acknowledged: BTreeMap<(JobId, Epoch), u64>,
    authorities: BTreeMap<[[u8; 32]; 2], Authority>,
    plans: BTreeMap<([u8; 32], [u8; 32]), [u8; 32]>,
    conflicts: BTreeMap<([u8; 32], [u8; 32]), OpenConflicts>,
    verified: BTreeSet<[u8; 32]>,
    /// The roots of disks that were cut over while they were frozen.
    pub moments: BTreeMap<JobId, Root>,
    /// The epochs and roots of what was cut over.
    cut_over: BTreeMap<JobId, (Epoch, [u8; 32])>,
    /// When an operator first answered a pulse for a pair: the last such moment of each
    /// holder and pair.
    vouched: BTreeMap<(NodeId, Pair), u64>,
    answered: BTreeSet<(NodeId, NodeId, Pulse, Pair)>,
    /// Changes of keys that were begun.
    pub changed_keys: Vec<Changed>,
    /// The root key.
    pub root: Option<PublicKey>,
    /// The operator that was lost and taken back.
    pub lost: Option<Lost>,
    /// Which statements a root key made under each number: two where it went on from a
    /// member that was behind.
    roots: BTreeMap<(PublicKey, u64), BTreeSet<StatementId>>,
    /// Grants and enrolments whose revocation an operator has stored.
    revoked: BTreeSet<StatementId>,
    /// Volumes whose agent's folder runs twice.
    two_agents: BTreeSet<JobId>,
    /// Nodes that died as they were to tell of a key in two places.
    pub cut_short: BTreeSet<usize>,
    /// Streams that were opened without a right to.
    pub forged_streams: BTreeSet<u64>,
    /// Volumes that were cut over in this event.
    pub to_prove: BTreeSet<JobId>,
    /// Keys that forge.
    pub forgers: BTreeSet<PublicKey>,
    /// Volumes whose trees are to be compared after this event.
    pub to_compare: BTreeSet<JobId>,
    /// Nodes whose ledger or plan changed in this event.
    pub changed: BTreeSet<usize>,
}

/// What is open of each migration.
type OpenConflicts = Vec<(EntryId, Conflict)>;

/// INV-03: all that a barrier covers is durable, and the tree says so.
pub fn acknowledged_is_durable(
    ctx: &mut Context,
    node: usize,
    store: &Store,
    job: JobId,
    barrier: u64,
) {
    if ctx.flaw == Some(Flaw::WritesNothing) {
        return;
    }
    let Some(copy) = store.copies.get(&job) else {
        return ctx.fail(
            Invariant::AcknowledgedIsDurable,
            format!("node {node} acknowledged barrier {barrier} of {job} and holds no copy"),
        );
    };
    let recorded = copy.record.barrier;
    ctx.require(
        recorded >= barrier,
        Invariant::AcknowledgedIsDurable,
        || format!("{job}: barrier {barrier} is acknowledged, barrier {recorded} is stored"),
    );
    let Some(disk) = store.disks.get(&copy.record.path) else {
        return;
    };
    let geometry = copy.tree.geometry();
    let false_entry = (0..geometry.blocks()).find(|block| {
        let at = *block as usize;
        !copy.notes.contains_key(&BlockIndex(*block).group())
            && !disk.is_rotten(*block)
            && copy.tree.durable[at] != entry(geometry, *block, &disk.durable[at])
    });
    if let Some(block) = false_entry {
        let text = format!(
            "{job}: at barrier {barrier} block {block} is stored as what it durably is not"
        );
        ctx.fail(Invariant::AcknowledgedIsDurable, text);
    }
    let key = (job, copy.record.epoch);
    let acknowledged = ctx.oracle.acknowledged.entry(key).or_default();
    *acknowledged = barrier.max(*acknowledged);
}

/// INV-04: a target that opens a session is not behind what it acknowledged.
pub fn acknowledged_survives(ctx: &mut Context, job: JobId, epoch: Epoch, barrier: u64) {
    if ctx.oracle.two_agents.contains(&job) {
        return;
    }
    let acknowledged = ctx.oracle.acknowledged.get(&(job, epoch));
    let acknowledged = acknowledged.copied().unwrap_or(0);
    ctx.require(
        barrier >= acknowledged,
        Invariant::AcknowledgedSurvives,
        || format!("{job}: the target stands at barrier {barrier} and acknowledged {acknowledged}"),
    );
}

impl Oracle {
    /// The agent says that its tree is level with the target's.
    pub fn level(&mut self, job: JobId) {
        if self.two_agents.contains(&job) {
            return;
        }
        self.level.insert(job, BTreeSet::new());
        self.to_compare.insert(job);
    }

    /// Another one with the agent's key sends from another disk, and raises its epochs by
    /// itself, until both are stopped.
    pub fn has_two_agents(&mut self, job: JobId) {
        self.two_agents.insert(job);
        self.forget(&job);
    }

    /// The agent sent an extent.
    pub fn sent(&mut self, job: JobId, extent: &Extent) {
        if let Some(unsettled) = self.level.get_mut(&job) {
            let first = extent.first().0;
            unsettled.extend(first..first + extent.count());
        }
    }

    /// The agent committed an extent.
    pub fn committed(&mut self, job: JobId, extent: &Extent) {
        if let Some(unsettled) = self.level.get_mut(&job) {
            let first = extent.first().0;
            for block in first..first + extent.count() {
                unsettled.remove(&block);
            }
        }
        self.to_compare.insert(job);
    }

    /// A volume was cut over; whether that is new, and not taken up again by an agent
    /// that was put back.
    pub fn cut_over(&mut self, job: JobId, epoch: Epoch, root: [u8; 32]) -> bool {
        let is_new = self.cut_over.insert(job, (epoch, root)) != Some((epoch, root));
        if is_new {
            self.to_prove.insert(job);
        }
        is_new
    }

    /// Whether a root key was used twice for one number: by who recovered a mesh with the
    /// help of a member that was behind. No other key may be.
    pub fn is_forked_root(&self, key: &PublicKey, fork: mesh::Fork) -> bool {
        let mesh::Fork::Statements(seq) = fork else {
            return false;
        };
        let is_root = self.root == Some(*key);
        is_root
            && self
                .roots
                .get(&(*key, seq))
                .is_some_and(|made| made.len() > 1)
    }

    /// Whether any volume of a migration was.
    pub fn is_cut_over(&self, migration: &MigrationId) -> bool {
        self.volumes_cut_over(migration) > 0
    }

    /// Whether a volume was, to the copy of this epoch.
    pub fn is_cut_over_at(&self, job: &JobId, epoch: Epoch) -> bool {
        self.cut_over.get(job).is_some_and(|(at, _)| *at == epoch)
    }

    /// How many volumes of a migration were.
    pub fn volumes_cut_over(&self, migration: &MigrationId) -> usize {
        let all = self.cut_over.keys();
        all.filter(|job| job.migration == *migration).count()
    }

    /// The agent forgot its tree, or the target is another.
    pub fn forget(&mut self, job: &JobId) {
        self.level.remove(job);
    }

    /// Whether a node's own report is newer than all that it made before.
    fn is_made(&mut self, node: NodeId, version: u64) -> bool {
        let newest = self.made.entry(node).or_default();
        let is_made = version > *newest;
        *newest = version.max(*newest);
        is_made
    }

    /// The highest epoch that an agent has shown anybody.
    pub fn agent_epoch(&self, job: &JobId) -> Option<Epoch> {
        self.agent_epochs.get(job).copied()
    }

    /// The migration was deleted, and its agent let go of it.
    pub fn forget_epoch(&mut self, job: &JobId) {
        self.agent_epochs.remove(job);
    }

    /// A frame was garbled, which no encrypted stream lets through: it may name another
    /// block, and what both ends believe is true again from the next comparison on.
    pub fn nothing_is_level(&mut self) {
        self.level.clear();
    }

    /// A target crashed: everything it holds is to be compared.
    pub fn compare_all(&mut self) {
        self.to_compare.extend(self.level.keys());
    }
}

/// The epoch that the agent of a job is at.
fn epoch_of(nodes: &[Node], job: JobId) -> Option<Epoch> {
    let mut records = nodes.iter().filter_map(|node| node.store.agents.get(&job));
    records.next().map(|record| record.epoch)
}

/// The copy of the agent's epoch, of which there is one; those of older epochs do not
/// count any more.
fn copy_that_counts(nodes: &[Node], job: JobId) -> Option<(&Copy, &Disk)> {
    let epoch = epoch_of(nodes, job)?;
    nodes.iter().find_map(|node| {
        let copy = node.store.copies.get(&job)?;
        let disk = node.store.disks.get(&copy.record.path)?;
        (copy.record.epoch == epoch).then_some((copy, disk))
    })
}

/// INV-05: outside of what was sent and not committed, the agent's tree, in the cache
/// and on the disk, is that of the target's durable bytes.
pub fn trees_tell_the_truth(ctx: &mut Context, nodes: &[Node], job: JobId) {
    let Some(unsettled) = ctx.oracle.level.get(&job) else {
        return;
    };
    if ctx.flaw == Some(Flaw::WritesNothing) {
        return;
    }
    let Some(epoch) = epoch_of(nodes, job) else {
        return;
    };
    let tree = nodes
        .iter()
        .find_map(|node| node.store.trees.get(&(job, epoch)));
    let (Some(tree), Some((_, disk))) = (tree, copy_that_counts(nodes, job)) else {
        return;
    };
    let geometry = tree.geometry();
    let wrong = (0..geometry.blocks()).find(|block| {
        let at = *block as usize;
        let excused =
            unsettled.contains(block) || disk.is_rotten(*block) || tree.is_damaged(*block);
        if excused {
            return false;
        }
        let truth = entry(geometry, *block, &disk.durable[at]);
        tree.cached[at] != truth || tree.durable[at] != truth
    });
    if let Some(block) = wrong {
        let text =
            format!("{job}: the agent believes of block {block} what the target does not hold");
        ctx.fail(Invariant::TreesTellTheTruth, text);
    }
}

/// Why blocks may not move by what stands in a ledger, read from the statements alone.
fn forbidden(
    (ledger, lost): (&Ledger, Option<&Lost>),
    wall: UnixSecs,
    grant: StatementId,
    job: JobId,
    ends: [&PublicKey; 2],
) -> Option<String> {
    let revoked = revoked_in(ledger, lost);
    let revoked = |target: &StatementId| revoked.contains(target);
    let Some(recorded) = ledger.get(&grant) else {
        return Some("the grant is not in the ledger".into());
    };
    let Statement::Grant(terms) = &recorded.entry.statement else {
        return Some("it is no grant".into());
    };
    let Grant {
        migration,
        agent,
        replicators,
        volumes,
        not_after,
        ..
    } = terms;
    if revoked(&grant) {
        return Some("the grant was revoked".into());
    }
    if wall >= *not_after {
        return Some("the grant is over".into());
    }
    if *migration != job.migration || !volumes.contains(&job.volume) {
        return Some("the grant does not cover the volume".into());
    }
    let is_key_of = |node: &NodeId, key: &PublicKey| {
        !revoked(&StatementId::from(*node)) && key_in(ledger, *node).as_ref() == Some(key)
    };
    if !is_key_of(agent, ends[0]) {
        return Some("the agent is another or was revoked".into());
    }
    if !replicators.iter().any(|node| is_key_of(node, ends[1])) {
        return Some("the replicator is another or was revoked".into());
    }
    None
}

/// INV-06 and INV-07: a grant allows it now, as far as this node has heard.
pub fn moved_with_permission(
    ctx: &mut Context,
    invariant: Invariant,
    (node, ledger, wall): (usize, &Ledger, UnixSecs),
    grant: StatementId,
    job: JobId,
    ends: [&PublicKey; 2],
) {
    let lost = ctx.oracle.lost.as_ref();
    if let Some(why) = forbidden((ledger, lost), wall, grant, job, ends) {
        ctx.fail(
            invariant,
            format!("node {node} moved a block of {job}: {why}"),
        );
    }
}

/// What is taken back, but for what an operator took back past what is honoured of it.
fn revoked_in(ledger: &Ledger, lost: Option<&Lost>) -> BTreeSet<StatementId> {
    let targets = |recorded: &Recorded| match &recorded.entry.statement {
        Statement::Revocation(revocation) => Some(revocation.target),
        _ => None,
    };
    let statements = ledger.iter().map(|(_, recorded)| recorded);
    let all: BTreeSet<_> = statements.filter_map(targets).collect();
    let is_out = |lost: &&Lost| {
        let mut nodes = ledger.nodes_of(&lost.key).into_iter();
        nodes.any(|node| all.contains(&node.into()))
    };
    let Some(lost) = lost.filter(is_out) else {
        return all;
    };
    let statements = ledger.iter().map(|(_, recorded)| recorded);
    let counting = statements.filter(|recorded| {
        recorded.signed.signer != lost.key || recorded.entry.seq <= lost.honoured.statements.seq
    });
    counting.filter_map(targets).collect()
}

fn grant_in<'a>(ledger: &'a Ledger, id: &StatementId) -> Option<&'a Grant> {
    match &ledger.get(id)?.entry.statement {
        Statement::Grant(grant) => Some(grant),
        _ => None,
    }
}

/// INV-08: the epoch of a copy.
pub fn epochs_rise(ctx: &mut Context, node: usize, job: JobId, epoch: Epoch) {
    let highest = ctx.oracle.epochs.entry((node, job)).or_insert(epoch);
    let before = *highest;
    *highest = epoch.max(before);
    ctx.require(epoch >= before, Invariant::EpochsRise, || {
        format!("node {node} went from epoch {before} of {job} to {epoch}")
    });
}

/// INV-08: the epoch that an agent reports, or opens a stream under.
pub fn agent_epochs_rise(ctx: &mut Context, job: JobId, epoch: Epoch) {
    if ctx.oracle.two_agents.contains(&job) {
        return;
    }
    let highest = ctx.oracle.agent_epochs.entry(job).or_insert(epoch);
    let before = *highest;
    *highest = epoch.max(before);
    ctx.require(epoch >= before, Invariant::EpochsRise, || {
        format!("the agent of {job} went from epoch {before} to {epoch}")
    });
}

/// INV-09: whoever wrote first under an epoch is its only writer.
pub fn one_writer(ctx: &mut Context, node: usize, job: JobId, epoch: Epoch) {
    if ctx.oracle.two_agents.contains(&job) {
        return;
    }
    let writer = *ctx.oracle.writers.entry((job, epoch)).or_insert(node);
    ctx.require(writer == node, Invariant::OneWriter, || {
        format!("nodes {writer} and {node} both write {job} under epoch {epoch}")
    });
}

/// INV-10 and INV-11, for one node that changed.
pub fn views_agree(ctx: &mut Context, node: &Node) {
    let Some(replica) = node.replica() else {
        return;
    };
    let ledger = replica.ledger().digest();
    let forks = replica.heads().forks;
    let known = ctx.oracle.authorities.entry([ledger, forks]);
    let authority = known.or_insert_with(|| replica.authority().clone());
    let same = authority == replica.authority();
    ctx.require(same, Invariant::SameLedgerSameAuthority, || {
        format!(
            "node {} computes another authority from the same ledger",
            node.index
        )
    });
    let logs = replica.document().digest();
    let content = replica.document().content_hash();
    let known = *ctx.oracle.plans.entry((ledger, logs)).or_insert(content);
    ctx.require(known == content, Invariant::SameLogsSamePlan, || {
        format!("node {} makes another plan of the same logs", node.index)
    });
    conflicts_are_told(ctx, node, (ledger, logs));
    only_the_honoured_counts(ctx, node);
    old_keys_are_out(ctx, node, replica);
}

/// Whether a ledger enrols a key and has not revoked it, read from the statements.
pub fn enrolled(ledger: &Ledger, lost: Option<&Lost>, key: &PublicKey) -> bool {
    let rotations = rotations_in(ledger);
    let mut first = *key;
    while let Some((old, _)) = rotations.iter().find(|(_, new)| **new == first) {
        first = *old;
    }
    let mut ids = ledger.iter().filter_map(|(id, recorded)| {
        matches!(&recorded.entry.statement,
            Statement::Enrolment(Enrolment { subject, .. }) if *subject == first)
        .then_some(*id)
    });
    let revoked = revoked_in(ledger, lost);
    ids.any(|id| !revoked.contains(&id))
}

/// INV-30: what a disk holds in the moment in which it counts.
pub fn one_moment(ctx: &mut Context, source: &SourceVolume, job: JobId, stated: Option<[u8; 32]>) {
    let root = flat_root(source.geometry, &source.contents);
    ctx.oracle.moments.insert(job, root);
    ctx.require(stated == Some(root.0), Invariant::OneMoment, || {
        format!("{job} counts with a root that is not that of its frozen disk")
    });
}

/// INV-15: both ends state one root, and the copy's durable bytes have it.
pub fn one_root(ctx: &mut Context, nodes: &[Node], job: JobId) {
    let record = nodes.iter().find_map(|node| node.store.agents.get(&job));
    let Some(finished) = record.and_then(|record| record.finished.as_ref()) else {
        return;
    };
    if ctx.flaw == Some(Flaw::WritesNothing) {
        return;
    }
    // The volume itself: a replicator that has just heard of a deletion forgets its notes.
    let path = volume_key(&job, record.map_or(Epoch(0), |record| record.epoch)).to_string();
    let disk = nodes.iter().find_map(|node| node.store.disks.get(&path));
    let stated = finished.source_proof.open_stored::<RootProof>();
    let geometry = stated
        .ok()
        .and_then(|proof| Geometry::new(proof.length).ok());
    let root = disk.zip(geometry);
    let root = root.map(|(disk, geometry)| flat_root(geometry, &disk.sound()));
    let Some(root) = root else {
        return ctx.fail(
            Invariant::OneRoot,
            format!("{job} is cut over and has no copy"),
        );
    };
    ctx.require(root.0 == finished.root, Invariant::OneRoot, || {
        format!("{job} is cut over with another root than its copy's")
    });
    for signed in [&finished.source_proof, &finished.target_proof] {
        let stated = signed.open::<keys::proof::RootProof>(Domain::RootProof);
        let epoch = record.map(|record| record.epoch);
        let same =
            stated.is_ok_and(|proof| proof.root == finished.root && Some(proof.epoch) == epoch);
        ctx.require(same, Invariant::OneRoot, || {
            format!("{job} is cut over and an end states another root or epoch")
        });
    }
}
