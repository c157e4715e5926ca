//! A node's report about itself: a signed, versioned snapshot that replaces the one
//! before as a whole. One writer needs no merge.
//!
//! Not here: collecting reports and choosing the newest (`reports`), and the full
//! event log, which stays at its node.

use crate::cut::Cut;
use crate::inventory::Inventory;
use codec::Wire;
use keys::lease::Renewal;
use keys::{
    CheckpointName, Domain, Epoch, Identity, LeftOut, MigrationId, NodeId, Pulse, Signed, UnixSecs,
    VolumeId,
};
use serde::{Deserialize, Serialize};
use std::fmt;

/// Most addresses in a report.
pub const MAX_LISTEN: usize = 16;
/// Most providers in a report.
pub const MAX_PROVIDERS: usize = 16;
/// Most volumes in a report: more disks than a server has slots for.
pub const MAX_VOLUMES: usize = 256;
/// Most jobs in a report; a busier replicator reports its newest.
pub const MAX_JOBS: usize = 256;
/// Most target volumes in a report.
pub const MAX_TARGETS: usize = 256;
/// Most root proofs in a report.
pub const MAX_PROOFS: usize = 128;
/// Most checkpoints in a report, of those that were reached and those that are kept.
pub const MAX_CHECKPOINTS: usize = 256;
/// So many of each stay, the newest, however large the report is.
const MANY_CHECKPOINTS: usize = 32;
/// Most events in a report; older ones are asked for at the node.
pub const MAX_EVENTS: usize = 64;
/// Most holders whose pulses a report answers.
pub const MAX_RENEWALS: usize = 512;
/// Most pairs that a report renews, of all holders together: 64 KiB.
pub const MAX_RENEWED: usize = 1_024;
/// Most passes in a job's report.
pub const MAX_PASSES: usize = 16;
/// Most deleted migrations that an agent says it has let go.
pub const MAX_LET_GO: usize = 1_024;
/// Longest text of an event, a step's detail or a failure, in bytes.
pub const MAX_TEXT: usize = 512;
/// Longest name of a device, in bytes: `DISK_NAME_LEN` of the kernel.
pub const MAX_DEVICE: usize = 32;
/// Longest name, address, path or word, in bytes.
pub const MAX_FIELD: usize = 256;

/// What a node says about itself. Sealed with `Domain::Report`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// The node; its current key must be the signer.
    pub node: NodeId,
    /// Raised by one with every report; stored before the report is announced.
    pub version: u64,
    /// BLAKE3 of the body of the newest report of this node that the process which made
    /// this one did not make itself. Where a process that still runs made it, two have the
    /// node's key.
    pub follows: Option<[u8; 32]>,
    /// When, by the node's wall clock.
    pub at: UnixSecs,
    /// Name of the host.
    pub hostname: String,
    /// Version of the program.
    pub program_version: String,
    /// Addresses at which it can be reached, as multiaddrs.
    pub listen: Vec<String>,
    /// Clouds that it holds credentials for.
    pub providers: Vec<ProviderInfo>,
    /// The machine.
    pub inventory: Inventory,
    /// Volumes that it offers as sources.
    pub volumes: Vec<VolumeInfo>,
    /// What it is doing.
    pub jobs: Vec<JobReport>,
    /// Deleted migrations of this node's volumes of which it holds nothing: it will never
    /// cut one of them over, so that their copies are nobody's.
    pub let_go: Vec<MigrationId>,
    /// Target volumes that it provisioned.
    pub targets: Vec<TargetVolume>,
    /// Roots that it stands for: sealed `RootProof`s.
    pub proofs: Vec<Signed>,
    /// Checkpoints that it came to as their agent, oldest first.
    pub reached: Vec<ReachedCheckpoint>,
    /// Checkpoints that it keeps as their provisioner, oldest first.
    pub checkpoints: Vec<KeptCheckpoint>,
    /// Its newest events, oldest first.
    pub events: Vec<Event>,
    /// The mark that an operator's node is to answer, so that this node's leases are
    /// renewed.
    pub pulse: Option<Pulse>,
    /// An operator's answers to the pulses of others, newest first.
    pub renewals: Vec<Renewal>,
    /// Whether something was left out to keep the report within its size.
    pub truncated: bool,
}

impl Wire for Report {
    const NAME: &'static str = "report";
    const VERSION: u8 = 8;
    const LIMIT: usize = 256 * 1024;
}

/// A cloud that a node holds credentials for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProviderInfo {
    /// Kind of the cloud, e.g. `local`.
    pub kind: String,
    /// Where in the cloud, if it has several places.
    pub site: Option<String>,
    /// Room left for volumes in bytes, where the cloud says so.
    pub free_bytes: Option<u64>,
    /// Why it cannot be used now.
    pub problem: Option<String>,
}

/// A volume that an agent offers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VolumeInfo {
    /// Made by the agent.
    pub id: VolumeId,
    /// For people.
    pub name: String,
    /// Where it is on the agent's machine.
    pub path: String,
    /// Bytes.
    pub length: u64,
    /// What it is.
    pub kind: VolumeKind,
    /// What the kernel calls the device, e.g. `sda`, by whichever path it is offered.
    pub device: Option<String>,
    /// Make and model of the disk, where known.
    pub model: Option<String>,
}

/// What an offered volume is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum VolumeKind {
    /// A block device.
    Device,
    /// A raw image file.
    Image,
}

/// A target volume as its provisioner knows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TargetVolume {
    /// The migration.
    pub migration: MigrationId,
    /// The source volume that it is the copy of.
    pub volume: VolumeId,
    /// Epoch it was made for.
    pub epoch: Epoch,
    /// The replicator that may write it.
    pub replicator: NodeId,
    /// Where the replicator finds it; empty until it is ready.
    pub path: String,
    /// Bytes.
    pub length: u64,
    /// Whether it can be used.
    pub state: TargetState,
}

/// Whether a target volume can be used.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum TargetState {
    /// It can.
    Ready,
    /// It could not be made, and why.
    Failed(String),
}

/// A checkpoint as the agent of a volume came to it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReachedCheckpoint {
    /// A sealed `RootProof` of the source that has the checkpoint's name.
    pub proof: Signed,
    /// How long the source had been frozen by then, in milliseconds; none where it was not.
    pub frozen_millis: Option<u64>,
    /// Nothing is written to the copy until it is kept.
    pub is_held: bool,
}

/// A checkpoint of a volume as the provisioner keeps it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeptCheckpoint {
    /// The migration.
    pub migration: MigrationId,
    /// The source volume.
    pub volume: VolumeId,
    /// Its name.
    pub name: CheckpointName,
    /// Epoch of the copy of which it was made.
    pub epoch: Epoch,
    /// How far it is.
    pub state: CheckpointState,
    /// Where it is, for people; empty until it is sealed.
    pub path: String,
    /// The copy of it that can be written to, where one is wanted.
    pub copy: Option<WritableCopy>,
}

/// How far a checkpoint is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum CheckpointState {
    /// It is being made, and the volume must not change.
    Sealing,
    /// It is made, and the volume may change.
    Sealed,
    /// It was read back, and is what its agent stated.
    Verified {
        /// Its root.
        root: [u8; 32],
    },
    /// It was not made, or is another than was stated, and why.
    Failed(String),
}

/// A copy of a checkpoint that can be written to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum WritableCopy {
    /// It is being made.
    Making,
    /// It is there.
    Ready {
        /// Where, for people.
        path: String,
    },
    /// It could not be made, and why.
    Failed(String),
}

/// In which part a node works on a migration.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum JobRole {
    /// Reads and sends.
    Agent,
    /// Receives and writes.
    Replicator,
    /// Makes target volumes.
    Provisioner,
}

/// Where a node stands with one volume of one migration.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobReport {
    /// The migration.
    pub migration: MigrationId,
    /// The source volume.
    pub volume: VolumeId,
    /// The node's part.
    pub role: JobRole,
    /// The volume's epoch.
    pub epoch: Epoch,
    /// The replicator of this epoch, once chosen.
    pub replicator: Option<NodeId>,
    /// The stage.
    pub stage: Stage,
    /// The step inside the stage.
    pub step: String,
    /// Why it waits or failed.
    pub detail: Option<String>,
    /// The pass under way, from 1; 0 before the first.
    pub pass: u32,
    /// The last durable barrier, from 1; 0 before the first.
    pub barrier: u64,
    /// The last passes that ended, oldest first.
    pub passes: Vec<PassSummary>,
    /// What of the source is left out of the copy of this epoch.
    pub left_out: LeftOut,
    /// By what the last pass was told what changed; or why it compared the whole source, where
    /// it could have done with less.
    pub read_by: Option<String>,
    /// Root at the last durable barrier, once it is known: one is computed for the
    /// signed statements only.
    pub root: Option<[u8; 32]>,
}

/// One pass that ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct PassSummary {
    /// Its number, from 1.
    pub pass: u32,
    /// Blocks that differed.
    pub blocks: u64,
    /// Bytes that went over the network.
    pub bytes_sent: u64,
    /// How long it took, in milliseconds.
    pub millis: u64,
    /// From the beginning of the pass before to the beginning of this one, in
    /// milliseconds: the time in which that which it found had changed. None for a first
    /// pass, and where a pass was broken off in between.
    pub since_millis: Option<u64>,
    /// How it found what differed.
    pub read: PassRead,
}

/// How a pass found what differed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum PassRead {
    /// The whole source was compared.
    Whole,
    /// What was written, as the kernel told it, was compared.
    Tracked,
}

/// The stage of a volume's migration.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Stage {
    /// Planned; nothing has moved.
    Enrolled,
    /// The first full pass.
    InitialSync,
    /// Passes over what changed.
    Replicating,
    /// The last pass was small enough for a short cutover.
    ReadyForCutover,
    /// The last pass and the proofs.
    CuttingOver,
    /// The copy is the disk, and both ends have signed so.
    CutOver,
    /// Held by an operator.
    Paused,
    /// Held by something that must be put right: see the detail.
    Stalled,
    /// The whole source is read again, because what changed is not known.
    Rescanning,
    /// Given up: see the detail.
    Failed,
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Enrolled => "enrolled",
            Self::InitialSync => "initial-sync",
            Self::Replicating => "replicating",
            Self::ReadyForCutover => "ready-for-cutover",
            Self::CuttingOver => "cutting-over",
            Self::CutOver => "cut-over",
            Self::Paused => "paused",
            Self::Stalled => "stalled",
            Self::Rescanning => "rescanning",
            Self::Failed => "failed",
        })
    }
}

/// Something that happened at a node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// Number in the node's own log, from 1.
    pub seq: u64,
    /// When, by the node's wall clock.
    pub at: UnixSecs,
    /// How much it matters.
    pub level: Level,
    /// The migration it belongs to, if any.
    pub migration: Option<MigrationId>,
    /// A stable word in kebab case, e.g. `grant-refused`.
    pub kind: String,
    /// For people.
    pub text: String,
}

/// How much an event matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Level {
    /// Good to know.
    Info,
    /// Look at it when there is time.
    Warn,
    /// Something does not work.
    Error,
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Info => "info",
            Self::Warn => "warn",
            Self::Error => "error",
        })
    }
}

impl fmt::Display for JobRole {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Agent => "agent",
            Self::Replicator => "replicator",
            Self::Provisioner => "provisioner",
        })
    }
}

impl Report {
    /// An empty report, to be filled in.
    pub fn new(node: NodeId, version: u64, at: UnixSecs) -> Self {
        Self {
            node,
            version,
            follows: None,
            at,
            hostname: String::new(),
            program_version: String::new(),
            listen: Vec::new(),
            providers: Vec::new(),
            inventory: Inventory::default(),
            volumes: Vec::new(),
            jobs: Vec::new(),
            let_go: Vec::new(),
            targets: Vec::new(),
            proofs: Vec::new(),
            reached: Vec::new(),
            checkpoints: Vec::new(),
            events: Vec::new(),
            pulse: None,
            renewals: Vec::new(),
            truncated: false,
        }
    }

    /// Cuts the report to its limits and signs it.
    ///
    /// Texts and lists are cut first; then, while the whole is too large, the oldest
    /// events go, then the jobs' older passes, then the details, then the oldest
    /// checkpoints, then the last entries of volumes, targets and jobs in turn. Proofs, addresses, the pulse,
    /// renewals and what was let go stay.
    pub fn seal(mut self, identity: &Identity) -> Result<Signed, codec::EncodeError> {
        self.cut();
        loop {
            match Signed::seal(identity, Domain::Report, &self) {
                Err(codec::EncodeError::TooLarge { .. }) if self.shed() => {}
                sealed => return sealed,
            }
        }
    }

    /// Whether every list and text is within its limits.
    pub(crate) fn sound(&self) -> bool {
        let mut cut = self.clone();
        cut.cut();
        cut == *self
    }

    fn cut(&mut self) {
        let mut cut = Cut::default();
        cut.field(&mut self.hostname);
        cut.field(&mut self.program_version);
        cut.list(&mut self.listen, MAX_LISTEN);
        cut.list(&mut self.providers, MAX_PROVIDERS);
        cut.list(&mut self.volumes, MAX_VOLUMES);
        cut.list(&mut self.targets, MAX_TARGETS);
        cut.list(&mut self.let_go, MAX_LET_GO);
        cut.oldest(&mut self.jobs, MAX_JOBS);
        cut.oldest(&mut self.proofs, MAX_PROOFS);
        cut.oldest(&mut self.reached, MAX_CHECKPOINTS);
        cut.oldest(&mut self.checkpoints, MAX_CHECKPOINTS);
        cut.oldest(&mut self.events, MAX_EVENTS);
        cut.renewals(&mut self.renewals);
        self.listen.iter_mut().for_each(|text| cut.field(text));
        for provider in &mut self.providers {
            cut.field(&mut provider.kind);
            provider.site.iter_mut().for_each(|text| cut.field(text));
            provider.problem.iter_mut().for_each(|text| cut.text(text));
        }
        for volume in &mut self.volumes {
            cut.field(&mut volume.name);
            cut.field(&mut volume.path);
            volume.model.iter_mut().for_each(|text| cut.field(text));
            let device = volume.device.iter_mut();
            device.for_each(|name| cut.shorten(name, MAX_DEVICE));
        }
        for target in &mut self.targets {
            cut.field(&mut target.path);
            if let TargetState::Failed(why) = &mut target.state {
                cut.text(why);
            }
        }
        for kept in &mut self.checkpoints {
            cut.field(&mut kept.path);
            if let CheckpointState::Failed(why) = &mut kept.state {
                cut.text(why);
            }
            match &mut kept.copy {
                Some(WritableCopy::Ready { path }) => cut.field(path),
                Some(WritableCopy::Failed(why)) => cut.text(why),
                Some(WritableCopy::Making) | None => {}
            }
        }
        for job in &mut self.jobs {
            cut.field(&mut job.step);
            let texts = job.detail.iter_mut().chain(&mut job.read_by);
            texts.for_each(|text| cut.text(text));
            cut.oldest(&mut job.passes, MAX_PASSES);
        }
        for event in &mut self.events {
            cut.field(&mut event.kind);
            cut.text(&mut event.text);
        }
        self.inventory.cut();
        self.truncated |= cut.any;
    }

    /// Leaves out the least missed part; false when there is nothing left to leave out.
    fn shed(&mut self) -> bool {
        self.truncated = true;
        if !self.events.is_empty() {
            let half = self.events.len().div_ceil(2);
            self.events.drain(..half);
            return true;
        }
        if !self.inventory.services.is_empty() {
            self.inventory.services.clear();
            self.inventory.truncated = true;
            return true;
        }
        if self.jobs.iter().any(|job| job.passes.len() > 1) {
            for job in &mut self.jobs {
                let older = job.passes.len().saturating_sub(1);
                job.passes.drain(..older);
            }
            return true;
        }
        let has_text = |job: &JobReport| job.detail.is_some() || job.read_by.is_some();
        if self.jobs.iter().any(has_text) {
            for job in &mut self.jobs {
                (job.detail, job.read_by) = (None, None);
            }
            return true;
        }
        // The newest are waited for.
        let most = self.reached.len().max(self.checkpoints.len());
        if most > MANY_CHECKPOINTS {
            let keep = most - most.div_ceil(4);
            let mut cut = Cut::default();
            cut.oldest(&mut self.reached, keep);
            cut.oldest(&mut self.checkpoints, keep);
            return true;
        }
        let lengths = [self.volumes.len(), self.targets.len(), self.jobs.len()];
        let longest = lengths.into_iter().max().unwrap_or_default();
        if longest == 0 {
            return false;
        }
        let keep = longest - longest.div_ceil(8);
        self.volumes.truncate(keep);
        self.targets.truncate(keep);
        self.jobs.truncate(keep);
        true
    }
}

impl Cut {
    /// As many whole renewals as have room.
    fn renewals(&mut self, renewals: &mut Vec<Renewal>) {
        let mut pairs = 0;
        let fit = renewals.iter().take(MAX_RENEWALS).take_while(|renewal| {
            pairs += renewal.pairs.len();
            pairs <= MAX_RENEWED
        });
        let fit = fit.count();
        self.list(renewals, fit);
    }

    fn field(&mut self, text: &mut String) {
        self.shorten(text, MAX_FIELD);
    }

    fn text(&mut self, text: &mut String) {
        self.shorten(text, MAX_TEXT);
    }
}
