//! The shapes of the local API: what commands send to the node and what they get,
//! as JSON. `--json` prints these values as they are.
//!
//! Not here: how they are made (`views`), carried (`server`, `client`) or shown to a
//! person (`cli`). Ids are lower-case hexadecimal; times are RFC 3339 in UTC; sizes
//! are bytes.

mod checkpoints;
mod checks;
mod figures;
mod hooks;
mod left_out;
mod limits;

pub use checkpoints::{CheckpointAsk, CheckpointView, CheckpointVolume};
pub use checks::{
    CheckState, CheckView, DoctorView, FlowView, PathView, RoundTripView, SpeedAsk, SpeedView,
};
pub use figures::{CountersView, ForecastView, PassView, ProgressView, RangeView};
pub use hooks::{HookRemove, PlannedHook};
pub use left_out::LeftOutView;
pub use limits::{LimitOf, LimitView, PlannedLimit};

use super::secret::Secret;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// The plan in the form in which people edit it, see `planfile`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PlanView {
    /// Where each operator's log ended: author, number and hash.
    #[serde(default)]
    pub base: Vec<String>,
    /// Planned servers.
    #[serde(default, rename = "server")]
    pub servers: Vec<PlannedServer>,
    /// Limits of how fast is sent.
    #[serde(default, rename = "limit")]
    pub limits: Vec<PlannedLimit>,
    /// Migrations that are not deleted.
    #[serde(default, rename = "migration")]
    pub migrations: Vec<PlannedMigration>,
}

/// A planned server.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PlannedServer {
    /// Its id; none for one that is new.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// Its name.
    pub name: String,
    /// Where it stands.
    pub site: String,
    /// Where it is reached.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
    /// With which others it moves.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub wave: Option<String>,
    /// Whatever else is to be remembered.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
}

/// A planned migration: what was asked for when it was created.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PlannedMigration {
    /// Its id; none for one that is new.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// Its name.
    pub name: String,
    /// The source, by name or id.
    pub server: String,
    /// Kind of the target cloud.
    pub to: String,
    /// Where in that cloud.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub site: Option<String>,
    /// Node that makes the volumes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub provisioner: Option<String>,
    /// Replicators, in order of preference.
    #[serde(default)]
    pub replicators: Vec<String>,
    /// Disks, by name or id.
    #[serde(default)]
    pub disks: Vec<String>,
    /// What of it is not copied: `swap`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub leave_out: Option<String>,
    /// Hooks, in the order in which they are run. Without any nothing is said of them.
    #[serde(default, rename = "hook", skip_serializing_if = "Option::is_none")]
    pub hooks: Option<Vec<PlannedHook>>,
}

/// One edit of the plan.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PlanEdit {
    /// Plan a server.
    CreateServer(PlannedServer),
    /// Say something else of a server.
    ChangeServer(PlannedServer),
    /// Plan a server no more.
    DeleteServer(PlannedServer),
    /// Set a limit, in the place of what was set before.
    SetLimit(PlannedLimit),
    /// Take a limit away.
    RemoveLimit(LimitOf),
    /// Plan a migration; nothing moves until it is started.
    CreateMigration(PlannedMigration),
    /// Rename a migration, choose other replicators for it, where any are named, or plan
    /// other hooks, where anything is said of them. The rest only says which migration it is.
    ChangeMigration(PlannedMigration),
}

/// Asks for an invite.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct InviteCreate {
    /// Roles offered, by name.
    pub roles: Vec<String>,
    /// Name the joiner gets.
    pub name: Option<String>,
    /// Site the joiner belongs to.
    pub site: Option<String>,
    /// How long it is open.
    pub expires_secs: u64,
    /// How many may enrol with it.
    pub uses: u16,
    /// Sites to which an operator that joins with it is limited; none for everywhere.
    #[serde(default)]
    pub scope: Vec<String>,
    /// How long from now the enrolments made with it last; for ever without.
    #[serde(default)]
    pub valid_for_secs: Option<u64>,
    /// The text of a root key file, for an operator's invite.
    #[serde(default)]
    pub root_key: Option<Secret>,
}

/// Asks to close an invite.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct InviteRevoke {
    /// The text of a root key file, where only that may do it.
    #[serde(default)]
    pub root_key: Option<Secret>,
}

/// Asks to expel a node.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct NodeRevoke {
    /// Why, for the record.
    pub reason: Option<String>,
    /// Of an operator: through which of its statements its word still counts: `all` that
    /// this node holds, `none`, or a number.
    #[serde(default)]
    pub honour_through: Option<String>,
    /// The same for its edits of the plan.
    #[serde(default)]
    pub honour_edits: Option<String>,
    /// Say what would come of it, and do nothing.
    #[serde(default)]
    pub dry_run: bool,
    /// The text of a root key file, where only that may do it.
    #[serde(default)]
    pub root_key: Option<Secret>,
}

/// What expelling a node came to.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct NodeRevoked {
    /// Its id.
    pub id: String,
    /// Its name.
    pub name: String,
    /// Whether nothing was done: the rest is what would be.
    pub dry_run: bool,
    /// Of an operator: the last of its statements that counts.
    pub honoured_statements: Option<u64>,
    /// Of an operator: the last of its edits that counts.
    pub honoured_edits: Option<u64>,
    /// What does not count any more beside the node itself.
    pub lapsed: Lapsed,
}

/// What does not count any more.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lapsed {
    /// Nodes, by name.
    pub nodes: Vec<String>,
    /// Invites that were open, by id.
    pub invites: Vec<String>,
    /// Grants, by id.
    pub grants: Vec<String>,
    /// Names of the migrations that these grants let blocks move for.
    pub granted: Vec<String>,
    /// How many edits of the plan.
    pub edits: u64,
    /// Names of migrations that are planned otherwise without these edits, or not at all.
    pub migrations: Vec<String>,
    /// The same of servers.
    pub servers: Vec<String>,
    /// The same of limits, by whom they are of.
    #[serde(default)]
    pub limits: Vec<String>,
}

/// This node's next key.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct KeyRotated {
    /// The key.
    pub key: String,
    /// Its libp2p peer id.
    pub peer_id: String,
    /// Open invites that named the key before, and admit nobody any more.
    pub closed_invites: Vec<String>,
}

/// A new invite. The only place where its secret line is ever shown.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct InviteCreated {
    /// The line to hand to the joiner.
    pub invite: String,
    /// Id of its statement.
    pub id: String,
    /// Roles offered.
    pub roles: Vec<String>,
    /// Its end.
    pub expires_at: String,
    /// Addresses in it; empty when the node has none that others could reach.
    pub addresses: Vec<String>,
}

/// An invite as the ledger has it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct InviteView {
    /// Id of its statement.
    pub id: String,
    /// Roles offered.
    pub roles: Vec<String>,
    /// Name the joiner gets.
    pub name: Option<String>,
    /// Site the joiner belongs to.
    pub site: Option<String>,
    /// Its end.
    pub expires_at: String,
    /// How many may enrol.
    pub uses: u16,
    /// How many have.
    pub used: usize,
    /// `open`, `used`, `expired`, `revoked`, or `closed`: the node that made it has another
    /// key now, or is no member any more.
    pub state: String,
}

/// This node and its mesh at a glance.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct StatusView {
    /// Version of the program that answers.
    pub version: String,
    /// Whether the node is running; false when the answer comes from stored state.
    pub running: bool,
    /// What binds the data folder to its machine, or why nothing does.
    pub machine: String,
    /// Whether the node may change anything: it runs, and has heard from a peer since it
    /// started (or is alone in its mesh, or was told to do without).
    pub may_write: bool,
    /// The mesh's id.
    pub mesh: String,
    /// The mesh's name.
    pub mesh_name: String,
    /// This node.
    pub node: NodeView,
    /// Nodes of the mesh that count.
    pub nodes: usize,
    /// How many of the others are connected.
    pub connected: usize,
    /// Where this node listens.
    pub listening: Vec<String>,
    /// Digests of what this node holds: equal at two nodes that hold the same.
    pub heads: HeadsView,
    /// All migrations that are not deleted.
    pub migrations: Vec<MigrationView>,
    /// Newest warnings and errors of all nodes, newest last.
    pub warnings: Vec<EventView>,
}

/// Digests of ledger, plan and reports, in hex.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeadsView {
    /// Of all statements.
    pub ledger: String,
    /// Of the logs that the plan is made of.
    pub logs: String,
    /// Of the newest report of every node.
    pub reports: String,
}

/// A node of the mesh.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct NodeView {
    /// Its id.
    pub id: String,
    /// Its name.
    pub name: String,
    /// Its roles.
    pub roles: Vec<String>,
    /// Where it is.
    pub site: Option<String>,
    /// Sites to which it is limited as an operator.
    pub scope: Option<String>,
    /// End of its enrolment, if it has one.
    pub ends_at: Option<String>,
    /// Its public key.
    pub key: String,
    /// Its libp2p peer id.
    pub peer_id: String,
    /// `active`, `cloned`, `contested`, `key-contested`, `revoked`, `lapsed` or `expired`.
    pub state: String,
    /// Who took it back, when and why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revoked: Option<RevokedView>,
    /// Whether it is this node.
    pub this_node: bool,
    /// Of this node: name of a member that says that it was revoked, where nothing is
    /// known of it here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub said_revoked: Option<String>,
    /// Whether it is connected now; none when the node that answers is not running.
    pub connected: Option<bool>,
    /// When it was enrolled.
    pub enrolled_at: String,
    /// When its newest report was made.
    pub reported_at: Option<String>,
    /// Its host name.
    pub hostname: Option<String>,
    /// Version of its program.
    pub version: Option<String>,
    /// Where it listens.
    pub addresses: Vec<String>,
    /// Clouds it can make volumes in.
    pub providers: Vec<String>,
}

/// How a node was expelled.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RevokedView {
    /// Name of the operator, or `the root key`.
    pub by: String,
    /// When, by the clock of who did.
    pub at: String,
    /// The reason that was given.
    pub reason: String,
}

/// A source: an agent that reported, or a server that is only planned.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ServerView {
    /// Id of its node, or of its plan where it has none.
    pub id: String,
    /// Name of its node, or that it is planned under.
    pub name: String,
    /// What the plan says of a server of this name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub planned: Option<PlannedServer>,
    /// Its host name; this and what follows is empty where no agent reported.
    pub hostname: String,
    /// Operating system.
    pub os: String,
    /// Kernel version.
    pub kernel: String,
    /// Logical processors.
    pub cpus: u32,
    /// Memory.
    pub memory_bytes: u64,
    /// Vendor and model of the machine.
    pub machine: String,
    /// Whether it is connected now.
    pub connected: Option<bool>,
    /// When its newest report was made; none where no agent reported.
    pub reported_at: Option<String>,
    /// Disks it offers.
    pub disks: Vec<VolumeView>,
    /// Limits that are set of it and of its site, where one source is asked for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub limits: Vec<LimitView>,
    /// What its agent warned of when it spoke of limits last, such as a time zone that is
    /// not known there; none where it had nothing to warn of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit_warning: Option<String>,
    /// All that is known of its machine, where one source is asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub inventory: Option<crdt::Inventory>,
    /// What stands in the way of moving it, where one source is asked for; worst first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub findings: Vec<FindingView>,
}

/// Something that stands in the way of moving a source, or wants a look before.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FindingView {
    /// `blocker`, `warning` or `note`.
    pub level: String,
    /// What it is about, e.g. `sda2`.
    pub subject: String,
    /// What is so, and what follows.
    pub what: String,
    /// What to do about it.
    pub todo: String,
}

/// A source disk.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct VolumeView {
    /// Its id.
    pub id: String,
    /// Its name.
    pub name: String,
    /// Device or image file at the agent.
    pub path: String,
    /// Its length in bytes.
    pub length: u64,
    /// `device` or `image`.
    pub kind: String,
    /// Model, for a device.
    pub model: Option<String>,
    /// Name of the agent's node.
    pub server: String,
    /// How the last pass over it found what changed, and why so where it compared the whole
    /// disk; none where no pass was made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub changes: Option<String>,
}

/// Offers a device or image file as a source disk.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct VolumeAdd {
    /// Absolute path.
    pub path: PathBuf,
    /// Name; the file's name otherwise.
    pub name: Option<String>,
}

/// Plans a migration.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct MigrationCreate {
    /// Name for people; made from the server's otherwise.
    pub name: Option<String>,
    /// The source, by name or id.
    pub server: String,
    /// Kind of cloud, e.g. `local`.
    pub to: String,
    /// Where in that cloud.
    pub site: Option<String>,
    /// Node that holds the cloud's credentials; the only one that reports `to` otherwise.
    pub provisioner: Option<String>,
    /// Replicators in order of preference; every one of the site otherwise.
    pub replicators: Vec<String>,
    /// Disks by name or id; all that the server offers otherwise.
    pub disks: Vec<String>,
    /// What of it is not copied: `swap`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub leave_out: Option<String>,
}

/// What `migration cutover` and `migration start` add.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct ActionOptions {
    /// Have the copy read back in full before it counts.
    #[serde(default)]
    pub prove_full: bool,
    /// What becomes of the source: `stay-frozen`, `power-off` or `thaw`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// How long an end may use the grant without hearing from an operator's node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lease_secs: Option<u64>,
    /// How much longer work goes on after that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub autonomy_secs: Option<u64>,
    /// The group of migrations with which it shares content at a replicator; none where
    /// it is empty.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dedup_group: Option<String>,
}

/// What `migration delete` adds.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct MigrationDelete {
    /// The text of a root key file, to revoke grants of other operators too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub root_key: Option<Secret>,
}

/// A grant of a deleted migration that nobody has revoked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StandingGrant {
    /// Its id.
    pub id: String,
    /// Name of the operator's node that signed it.
    pub operator: String,
    /// Its end.
    pub ends_at: String,
}

/// For how long a revocation may go unheard by an end that is cut off.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExposureView {
    /// How long an end may use the grant without hearing from an operator's node.
    pub lease_secs: u64,
    /// How much longer work goes on after that, with a warning.
    pub autonomy_secs: u64,
    /// Both together.
    pub exposure_secs: u64,
}

/// A migration, from the plan and from what the nodes report.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct MigrationView {
    /// Its id.
    pub id: String,
    /// Its name.
    pub name: String,
    /// Name of the source's node.
    pub server: String,
    /// Kind of cloud.
    pub to: String,
    /// Where in that cloud.
    pub site: Option<String>,
    /// Name of the node that makes the volumes.
    pub provisioner: String,
    /// Names of the replicators, in order.
    pub replicators: Vec<String>,
    /// What people want: `created`, `started`, `paused`, `cutover`, `cutover-prove-full`, `deleted`.
    pub desired: String,
    /// Where it stands: the least advanced stage of its volumes.
    pub stage: String,
    /// When it was planned.
    pub created_at: String,
    /// Its volumes.
    pub volumes: Vec<JobView>,
    /// What its grant exposes; none while no grant is good.
    pub exposure: Option<ExposureView>,
    /// The group of migrations with which it shares content at a replicator.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dedup_group: Option<String>,
    /// What of it is not copied: `swap`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub leave_out: Option<String>,
    /// Of a deleted migration: grants that stand, and move nothing.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub standing_grants: Vec<StandingGrant>,
    /// Limits that are set of its source and of the source's site, where one migration is
    /// asked for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub limits: Vec<LimitView>,
    /// Hooks that are planned, in the order in which they are run.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub hooks: Vec<PlannedHook>,
    /// Checkpoints that are wanted, the newest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub checkpoints: Vec<CheckpointView>,
    /// How many of the newest are kept, where anybody said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keep_checkpoints: Option<u32>,
    /// Edits that contradict each other, and what is shown.
    pub conflicts: Vec<String>,
    /// What to do next, as a command or a sentence.
    pub next: Option<String>,
}

/// One volume of a migration.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct JobView {
    /// The source volume.
    pub volume: String,
    /// Its name.
    pub name: String,
    /// Its length in bytes.
    pub length: u64,
    /// Stage of this volume.
    pub stage: String,
    /// Named step inside the stage.
    pub step: String,
    /// Why it waits or failed.
    pub detail: Option<String>,
    /// Fencing epoch.
    pub epoch: u64,
    /// Name of the replicator that the agent chose.
    pub replicator: Option<String>,
    /// Where the replicator has the target volume.
    pub target_path: Option<String>,
    /// Last durable barrier.
    pub barrier: u64,
    /// Name of the node other than the replicator that read the copy back after it was
    /// cut over, and found what both ends state: the copy may be launched.
    pub confirmed_by: Option<String>,
    /// Why a copy that was cut over may not be launched, when it may not.
    pub unconfirmed: Option<String>,
    /// What is left out of the copy: it has zeros there.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub left_out: Vec<LeftOutView>,
    /// Bytes of that together, which are not sent.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub bytes_left_out: u64,
    /// Passes completed, oldest first; the newest few.
    pub passes: Vec<PassView>,
    /// How its last pass found what changed, and why so where it compared the whole disk;
    /// none before one ended, and where that is not known here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub changes: Option<String>,
    /// Live figures of the pass that runs, when they are known here.
    pub progress: Option<ProgressView>,
    /// Of a first pass that is not complete and of which there are no live figures, since it
    /// is held: about how many bytes of the volume are dealt with and durable; what was read
    /// and not sent yet is in it. None where that is not known here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first_pass_bytes: Option<u64>,
    /// What the agent counted since it started, when it is known here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub counters: Option<CountersView>,
    /// Whether and when what is left will fit a short freeze; none before blocks move, after
    /// the cutover, and when the node that answers is not running.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub forecast: Option<ForecastView>,
}

/// The roots of both ends, and how anyone can check them.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct VerifyView {
    /// The migration's id.
    pub migration: String,
    /// Whether every volume has two valid, equal roots.
    pub verified: bool,
    /// Whether every copy was read back by a node other than its replicator, which found
    /// the same.
    pub confirmed: bool,
    /// Each volume.
    pub volumes: Vec<VolumeProof>,
    /// Checkpoints that are kept, the newest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub checkpoints: Vec<CheckpointView>,
}

/// The roots of one volume.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct VolumeProof {
    /// The source volume.
    pub volume: String,
    /// Its name.
    pub name: String,
    /// Bytes covered.
    pub length: u64,
    /// What the agent signed.
    pub source: Option<ProofView>,
    /// What the replicator signed.
    pub target: Option<ProofView>,
    /// What a node other than the replicator signed after it had read the copy back.
    pub witness: Option<ProofView>,
    /// Both are there, both signatures hold, and the roots are equal.
    pub equal: bool,
    /// All three are there and say the same: the copy may be launched.
    pub confirmed: bool,
    /// Why it may not be launched, when it may not.
    pub unconfirmed: Option<String>,
    /// What is wrong with the copy's volume now, as its provisioner says: `verify` then ends
    /// with status 6, whatever was signed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub volume_problem: Option<String>,
}

/// One end's signed root.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProofView {
    /// BLAKE3 of the volume.
    pub root: String,
    /// How it was made.
    pub method: String,
    /// When.
    pub at: String,
    /// Name of the node that signed.
    pub signed_by: String,
    /// Fencing epoch of the copy.
    pub epoch: u64,
    /// What is left out of the copy: it has zeros there.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub left_out: Vec<LeftOutView>,
    /// Bytes of that together, which are not sent.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub bytes_left_out: u64,
    /// Command that prints the same root, to be run on that node's machine.
    pub command: String,
}

/// Something that happened.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct EventView {
    /// Name of the node where it happened.
    pub node: String,
    /// Number at that node.
    pub seq: u64,
    /// When, by that node's clock.
    pub at: String,
    /// `info`, `warn` or `error`.
    pub level: String,
    /// The migration it belongs to.
    pub migration: Option<String>,
    /// Stable word for scripts.
    pub kind: String,
    /// One sentence.
    pub text: String,
}

/// What may narrow a list of events.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct EventQuery {
    /// Only of this migration, by id or name.
    pub migration: Option<String>,
    /// Only from this time on, in seconds since the Unix epoch.
    pub since: Option<u64>,
    /// Only this node's, after this number.
    pub after: Option<u64>,
}

/// Why a request was not carried out.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ErrorView {
    /// What failed, on what, why, and what to do next.
    pub error: String,
    /// What kind of failure, and with it the exit status.
    pub kind: ErrorKind,
}

/// Kinds of failure, each with its exit status (see the user guide).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ErrorKind {
    /// Exit status 1.
    Failed,
    /// Exit status 2.
    Usage,
    /// Exit status 3.
    NotAuthorised,
    /// Exit status 4.
    NotRunning,
    /// Exit status 5.
    NotFound,
    /// Exit status 6.
    Refused,
}

fn is_zero(bytes: &u64) -> bool {
    *bytes == 0
}
