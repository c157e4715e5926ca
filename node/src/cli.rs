//! The grammar of the command line: every command, option and default. The contract
//! is the user guide's list of commands.
//!
//! Not here: what a command does (`read`, `act`, `watch`, and the modules that run a
//! node), how results look (`render`), and what words mean as values (`value`).

pub mod act;
pub mod awaited;
pub mod bars;
pub mod doctor;
pub mod figures;
pub mod folder;
pub mod follow;
pub mod manual;
pub mod outcome;
pub mod page;
pub mod plan;
pub mod read;
pub mod reader;
pub mod render;
pub mod screen;
pub mod task;
pub mod value;
pub mod watch;

#[cfg(test)]
pub(crate) mod tests;

use std::ffi::OsString;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use clap::builder::{NonEmptyStringValueParser, TypedValueParser};
use clap::{Args, Parser, Subcommand, ValueEnum};
use crdt::plan::hook::parse_variable;
use crdt::{LeaveOut, OnFailure, Point, Side, Timetable};
use keys::{CheckpointName, Role};

use crate::hours::zone_named;

use value::{InviteText, Since, WireAddress, bytes, duration, duration_or_none};

/// Moves running servers' disks to any cloud, from peer to peer.
#[derive(Debug, Parser)]
#[command(
    name = "dunlin",
    version,
    propagate_version = true,
    infer_subcommands = false
)]
pub struct Cli {
    /// Options that every command takes.
    #[command(flatten)]
    pub globals: Globals,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// Options that every command takes.
#[derive(Debug, Clone, Default, Args)]
pub struct Globals {
    /// Folder of this node [default: /var/lib/dunlin for root, $XDG_DATA_HOME/dunlin for others]
    #[arg(long, global = true, value_name = "DIR", env = "DUNLIN_DATA_DIR")]
    pub data_dir: Option<PathBuf>,
    /// Print one JSON value on stdout (`watch` and `events --follow`: one a line)
    #[arg(long, global = true)]
    pub json: bool,
    /// Print results and errors only, no progress
    #[arg(long, short, global = true)]
    pub quiet: bool,
    /// Log more; twice for still more
    #[arg(long, short, global = true, action = clap::ArgAction::Count)]
    pub verbose: u8,
}

/// Every command.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Make a mesh
    #[command(subcommand)]
    Mesh(MeshCommand),
    /// Let others join the mesh
    #[command(subcommand)]
    Invite(InviteCommand),
    /// Enrol this node with an invite
    Join(JoinArgs),
    /// Run the node in the foreground
    Run(RunArgs),
    /// Run the guard of an agent's node, as root: it follows what is written to source disks,
    /// and freezes them for a cutover
    Guard(GuardArgs),
    /// Show this node and its mesh at a glance
    Status,
    /// Nodes of the mesh
    #[command(subcommand)]
    Node(NodeCommand),
    /// Sources that agents reported, with disks and system
    #[command(subcommand)]
    Server(ServerCommand),
    /// Source disks
    #[command(subcommand)]
    Volume(VolumeCommand),
    /// How fast may be sent, by server and by site
    #[command(subcommand)]
    Limit(LimitCommand),
    /// Plan migrations, run them and look at them
    #[command(subcommand)]
    Migration(MigrationCommand),
    /// The whole plan as one file, edited offline and applied later
    #[command(subcommand)]
    Plan(PlanCommand),
    /// Show the roots of both ends, and the b3sum command that proves each
    Verify(OneId),
    /// Show what happened
    Events(EventsArgs),
    /// Check this machine and its connections, and say what to do; or measure a connection
    Doctor(DoctorArgs),
    /// Run a whole migration on this machine, in a temporary folder
    Demo(DemoArgs),
    /// Print completions for a shell
    Completions {
        /// The shell
        #[arg(value_enum)]
        shell: clap_complete::Shell,
    },
    /// Print the manual page of the program or of one of its commands
    Man {
        /// The command, e.g. `migration create`
        command: Vec<String>,
    },
}

/// `dunlin mesh …`
#[derive(Debug, Subcommand)]
pub enum MeshCommand {
    /// Make a mesh; this node is its first operator
    Init(MeshInit),
    /// Make a new operator with the root key, when the operators are lost
    Recover(MeshRecover),
}

/// `dunlin mesh recover`
#[derive(Debug, Args)]
pub struct MeshRecover {
    /// `root.key` of the founder's folder or a copy of it, or what `--root-key-out` wrote
    #[arg(long, value_name = "FILE")]
    pub root_key: PathBuf,
    /// Any running node of the mesh, e.g. /ip4/192.0.2.7/tcp/7430/p2p/12D3…
    #[arg(long, value_name = "MULTIADDR/p2p/PEERID")]
    pub peer: WireAddress,
    /// Name of this node [default: the host's name]
    #[arg(long, value_parser = NonEmptyStringValueParser::new())]
    pub name: Option<String>,
    /// Roles of this node besides operator
    #[arg(long, value_name = "ROLE", value_delimiter = ',', value_parser = role())]
    pub role: Vec<Role>,
    /// Site of this node
    #[arg(long, value_parser = NonEmptyStringValueParser::new())]
    pub site: Option<String>,
}

/// `dunlin mesh init`
#[derive(Debug, Args)]
pub struct MeshInit {
    /// Name of the mesh [default: the host's name]
    #[arg(long, value_parser = NonEmptyStringValueParser::new())]
    pub name: Option<String>,
    /// Roles of this node besides operator
    #[arg(long, value_name = "ROLE", value_delimiter = ',', value_parser = role())]
    pub role: Vec<Role>,
    /// Site of this node
    #[arg(long, value_parser = NonEmptyStringValueParser::new())]
    pub site: Option<String>,
    /// Name of this node [default: the host's name]
    #[arg(long, value_name = "NAME", value_parser = NonEmptyStringValueParser::new())]
    pub node_name: Option<String>,
    /// Write the root key to this file, to be kept offline, and keep no copy
    #[arg(long, value_name = "FILE")]
    pub root_key_out: Option<PathBuf>,
}

/// `dunlin invite …`
#[derive(Debug, Subcommand)]
pub enum InviteCommand {
    /// Make an invite and print it, one line, on stdout
    Create(InviteCreateArgs),
    /// List invites
    List,
    /// Close an invite; who has joined with it stays
    Revoke {
        /// Id, or its beginning
        #[arg(value_parser = NonEmptyStringValueParser::new())]
        id: String,
        /// The mesh's root key, for an operator's invite
        #[arg(long, value_name = "FILE")]
        root_key: Option<PathBuf>,
    },
}

/// `dunlin invite create`
#[derive(Debug, Args)]
pub struct InviteCreateArgs {
    /// Roles that the joiner gets
    #[arg(long, required = true, value_name = "ROLE", value_delimiter = ',', value_parser = role())]
    pub role: Vec<Role>,
    /// Name that the joiner gets [default: the joiner's choice]
    #[arg(long, value_parser = NonEmptyStringValueParser::new())]
    pub name: Option<String>,
    /// Site that the joiner belongs to
    #[arg(long, value_parser = NonEmptyStringValueParser::new())]
    pub site: Option<String>,
    /// How long it is open, e.g. 30m, 24h, 7d
    #[arg(long, value_name = "DURATION", default_value = "24h", value_parser = duration)]
    pub expires: Duration,
    /// How many may join with it
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..))]
    pub uses: u16,
    /// Sites to which a joining operator is limited [default: none]
    #[arg(long, value_name = "SITE", value_delimiter = ',')]
    pub scope: Vec<String>,
    /// How long from now who joins with it stays a member, e.g. 90d [default: for good]
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    pub valid_for: Option<Duration>,
    /// The mesh's root key, for the role of operator, where the folder does not hold it
    #[arg(long, value_name = "FILE")]
    pub root_key: Option<PathBuf>,
}

/// `dunlin join`
#[derive(Debug, Args)]
pub struct JoinArgs {
    /// The invite, or `-` to read it from stdin and so keep it out of the list of processes
    pub invite: InviteText,
    /// Name of this node, where the invite gives none [default: the host's name]
    #[arg(long, value_parser = NonEmptyStringValueParser::new())]
    pub name: Option<String>,
}

/// `dunlin run`
#[derive(Debug, Args)]
pub struct RunArgs {
    /// Where to listen, e.g. /ip4/0.0.0.0/tcp/7432; may be repeated
    #[arg(long, value_name = "MULTIADDR")]
    pub listen: Vec<WireAddress>,
    /// Settings (TOML)
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Do not look for nodes on the local network
    #[arg(long)]
    pub no_mdns: bool,
    /// Work without having heard from any peer: for edits offline, in a data folder that
    /// is no old copy
    #[arg(long)]
    pub alone: bool,
    /// Accept this machine for a data folder that was made on another, which is gone for
    /// good
    #[arg(long)]
    pub moved: bool,
}

/// `dunlin guard`
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct GuardArgs {
    /// Where the agent finds it
    #[arg(long, global = true, value_name = "PATH", default_value = crate::guard::DEFAULT_SOCKET)]
    pub socket: PathBuf,
    /// Never power this machine off, though a migration that was cut over wants it
    #[arg(long)]
    pub no_power_off: bool,
    /// How to hear of writes [default: the best that works here]
    #[arg(long, value_enum, value_name = "KIND")]
    pub tracker: Option<TrackerKind>,
    /// Something else than running it.
    #[command(subcommand)]
    pub command: Option<GuardCommand>,
}

/// How a guard hears of what is written.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum TrackerKind {
    /// By a program in the kernel, from Linux 5.5 on
    Bpf,
    /// By perf events, on older kernels too
    Perf,
}

impl From<TrackerKind> for volumes::TrackerKind {
    fn from(kind: TrackerKind) -> Self {
        match kind {
            TrackerKind::Bpf => Self::Bpf,
            TrackerKind::Perf => Self::Perf,
        }
    }
}

/// `dunlin guard …`
#[derive(Debug, Subcommand)]
pub enum GuardCommand {
    /// Let go of source disks that are frozen, as root: those that were left frozen, or that
    /// stay so because their copy may run
    Thaw {
        /// Migration, by id or prefix of it [default: the only one]
        #[arg(value_name = "ID", value_parser = NonEmptyStringValueParser::new())]
        id: Option<String>,
        /// Also where the copy may have been launched: it does not run, and will not be started
        #[arg(long)]
        yes: bool,
    },
}

/// `dunlin node …`
#[derive(Debug, Subcommand)]
pub enum NodeCommand {
    /// List nodes
    List,
    /// Show a node
    Show(OneId),
    /// Expel a node from the mesh, for good
    ///
    /// Who may: the operator whose invite the node joined with, on its own node; for any
    /// other node, and for every operator, who has the mesh's root key (--root-key FILE, or
    /// on the founder's node, where it lies in the folder).
    Revoke(NodeRevokeArgs),
    /// Give this node a new key; the old one is worth nothing from then on
    RotateKey,
}

/// `dunlin node revoke`
#[derive(Debug, Args)]
pub struct NodeRevokeArgs {
    /// Id, prefix of an id, or name
    #[arg(value_parser = NonEmptyStringValueParser::new())]
    pub id: String,
    /// Why, for the record
    #[arg(long)]
    pub reason: Option<String>,
    /// Of an operator: which of its statements still count: `all` that this node holds,
    /// `none`, or through a number [default: all]
    #[arg(long, value_name = "all|none|NUMBER")]
    pub honour_through: Option<String>,
    /// The same for its edits of the plan [default: as for its statements]
    #[arg(long, value_name = "all|none|NUMBER")]
    pub honour_edits: Option<String>,
    /// Show what would no longer count, and change nothing
    #[arg(long)]
    pub dry_run: bool,
    /// The mesh's root key, to expel an operator or a node that another operator enrolled,
    /// where the folder does not hold it
    #[arg(long, value_name = "FILE")]
    pub root_key: Option<PathBuf>,
}

/// `dunlin server …`
#[derive(Debug, Subcommand)]
pub enum ServerCommand {
    /// List sources
    List,
    /// Show a source with its disks
    Show(OneId),
}

/// `dunlin volume …`
#[derive(Debug, Subcommand)]
pub enum VolumeCommand {
    /// On an agent: offer a device or an image file as a source disk
    Add {
        /// The device or image file
        path: PathBuf,
        /// Name of the disk [default: the file's name]
        #[arg(long, value_parser = NonEmptyStringValueParser::new())]
        name: Option<String>,
    },
    /// List source disks
    List,
    /// On an agent: offer a disk no more; the disk itself is not touched
    Remove(OneId),
}

/// `dunlin limit …`
#[derive(Debug, Subcommand)]
pub enum LimitCommand {
    /// Limit what a server sends, or what all servers of a site send together
    ///
    /// It takes effect at once. Where both are set, both hold. What counts is what is put on
    /// block streams.
    Set(LimitSetArgs),
    /// List limits, with what holds now and until when
    List,
    /// Take a limit away
    Remove(LimitOfArgs),
}

/// Whom a limit is of.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub struct LimitOfArgs {
    /// The source, by name or id: all its disks together
    #[arg(long, value_name = "SERVER", value_parser = NonEmptyStringValueParser::new())]
    pub server: Option<String>,
    /// The site: all its sources together
    #[arg(long, value_name = "SITE", value_parser = NonEmptyStringValueParser::new())]
    pub site: Option<String>,
}

/// `dunlin limit set`
#[derive(Debug, Args)]
pub struct LimitSetArgs {
    /// Whom it is of
    #[command(flatten)]
    pub of: LimitOfArgs,
    /// A rate, e.g. 20MiB/s, 100Mbit/s or `off`, at least 64KiB/s; or rates with hours, in
    /// one word: "08:00,20MiB/s 18:00,off" or "Mon-08:00,20MiB/s Fri-18:00,off"
    #[arg(allow_hyphen_values = true)]
    pub timetable: Timetable,
    /// Time zone of the hours, e.g. Europe/Berlin [default: this machine's, else UTC]
    #[arg(long, value_name = "ZONE", value_parser = zone_named)]
    pub zone: Option<String>,
    /// Of a server: give way when its own reads and writes slow
    #[arg(long, conflicts_with = "site")]
    pub polite: bool,
}

/// `dunlin plan …`
#[derive(Debug, Subcommand)]
pub enum PlanCommand {
    /// Write planned servers, limits and migrations as TOML
    Export {
        /// The file, or `-` for stdout
        file: PathBuf,
        /// Replace a file that is there
        #[arg(long)]
        force: bool,
    },
    /// Make the plan what an edited file says, with no more edits than that takes
    Apply(PlanApply),
}

/// `dunlin plan apply`
#[derive(Debug, Args)]
pub struct PlanApply {
    /// The file, or `-` for stdin
    pub file: PathBuf,
    /// Show what would change, and change nothing
    #[arg(long)]
    pub dry_run: bool,
    /// Delete servers, and remove limits, that were exported and are not in the file any
    /// more; migrations are deleted by `migration delete` only
    #[arg(long)]
    pub delete: bool,
}

/// `dunlin migration …`
#[derive(Debug, Subcommand)]
pub enum MigrationCommand {
    /// Plan a migration; nothing moves until it is started
    Create(MigrationCreateArgs),
    /// List migrations
    List,
    /// Show a migration and its volumes
    Show(OneId),
    /// Follow a migration until it is cut over or deleted
    Watch(OneId),
    /// Show what happened in a migration
    Log(OneId),
    /// Scripts of its hosts that are run at points of it
    #[command(subcommand)]
    Hook(HookCommand),
    /// Let blocks move
    Start(StartArgs),
    /// Hold it; what is durable stays
    Pause(Steer),
    /// Go on after a pause
    Resume(Steer),
    /// Freeze the source, make the last passes, prove both ends, and leave the source frozen
    ///
    /// Where a guard runs beside the agent (`dunlin guard`), all file systems on the disks are
    /// frozen for the same moment, once what is left is little. They are thawed if that moment
    /// cannot be proven within 30 s, and stay frozen if it can. Where none runs, each disk is
    /// cut over once a whole pass finds nothing new: stop what writes to the source.
    Cutover {
        /// Which migration, and whether to wait
        #[command(flatten)]
        steer: Steer,
        /// How the copy is proven: `full` reads it back from end to end before it counts
        #[arg(long, value_name = "HOW", value_enum)]
        prove: Option<Prove>,
        /// What becomes of the source once it is cut over; given, nothing is cut over without
        /// a guard that can freeze it
        #[arg(long, value_name = "END", value_enum)]
        source: Option<End>,
    },
    /// Keep a point of all disks at the target, while the source goes on
    ///
    /// The source is frozen for it as for a cutover, for seconds, and thawed at once; where no
    /// guard runs, a point is one at which a whole pass finds nothing new. What is kept is
    /// read back and compared with the root that the agent signed.
    Checkpoint(CheckpointArgs),
    /// Pause it, and have a copy made of a checkpoint that can be written to
    ///
    /// The live copy stays as it is: `migration resume` goes on from there, and removes nothing.
    Rollback {
        /// Which migration: id, prefix of an id, or name
        #[arg(value_parser = NonEmptyStringValueParser::new())]
        id: String,
        /// The checkpoint, which has to be verified
        #[arg(long, value_name = "NAME")]
        to: CheckpointName,
    },
    /// Have a copy made of a checkpoint to boot it, while the source and all else go on
    Test {
        /// Which migration: id, prefix of an id, or name
        #[arg(value_parser = NonEmptyStringValueParser::new())]
        id: String,
        /// Of which checkpoint [default: of one that is taken now, named `test-` and the time]
        #[arg(long, value_name = "NAME")]
        checkpoint: Option<CheckpointName>,
        /// Delete the copy instead: that of this checkpoint, or of all taken for a test
        #[arg(long)]
        end: bool,
    },
    /// End it and remove what was made for it; a copy that was cut over is kept
    Delete {
        /// Which migration, and whether to wait
        #[command(flatten)]
        steer: Steer,
        /// The mesh's root key, to revoke grants of other operators too
        #[arg(long, value_name = "FILE")]
        root_key: Option<PathBuf>,
    },
}

/// `dunlin migration checkpoint`
#[derive(Debug, Args)]
pub struct CheckpointArgs {
    /// Which migration: id, prefix of an id, or name
    #[arg(value_parser = NonEmptyStringValueParser::new())]
    pub id: String,
    /// Name of the new one [default: the time in UTC, e.g. 20261127-041500]
    #[arg(long, value_name = "NAME")]
    pub name: Option<CheckpointName>,
    /// List them, and take none
    #[arg(long, group = "instead", conflicts_with = "name")]
    pub list: bool,
    /// Delete one, and the copy of it that can be written to; take none
    #[arg(long, value_name = "NAME", group = "instead", conflicts_with = "name")]
    pub delete: Option<CheckpointName>,
    /// Keep only so many of the newest that are verified, up to 32; take none
    #[arg(long, value_name = "N", group = "instead", conflicts_with = "name", value_parser = clap::value_parser!(u32).range(1..=32))]
    pub keep: Option<u32>,
}

/// `dunlin migration hook …`
#[derive(Debug, Subcommand)]
pub enum HookCommand {
    /// Plan a hook, behind those that are planned
    Add(HookAddArgs),
    /// List the hooks of a migration, in the order in which they are run
    List(OneId),
    /// Take away a hook
    Remove {
        /// Which migration: id, prefix of an id, or name
        #[arg(value_parser = NonEmptyStringValueParser::new())]
        id: String,
        /// Its number in the list
        number: usize,
    },
}

/// `dunlin migration hook add`
#[derive(Debug, Args)]
pub struct HookAddArgs {
    /// Which migration: id, prefix of an id, or name
    #[arg(value_parser = NonEmptyStringValueParser::new())]
    pub id: String,
    /// When: before-replication, after-cutover or before-cleanup
    #[arg(value_parser = Point::from_str)]
    pub point: Point,
    /// Name of a script that the owner of that host put into its folder of hooks
    #[arg(value_name = "NAME")]
    pub script: String,
    /// Where it is run: source or provisioner
    #[arg(long, value_name = "SIDE", default_value = "source", value_parser = Side::from_str)]
    pub on: Side,
    /// After this long it is ended, and has failed; up to 1h
    #[arg(long, value_name = "DURATION", default_value = "60s", value_parser = duration)]
    pub timeout: Duration,
    /// What a failure means: stop or continue [default: stop where something is to follow, else continue]
    #[arg(long, value_name = "WHAT", value_parser = OnFailure::from_str)]
    pub on_failure: Option<OnFailure>,
    /// Variable for the script, HOOK_NAME=VALUE; may be repeated. It is in the plan, on every node: no place for secrets
    #[arg(long, value_name = "HOOK_NAME=VALUE", value_parser = parse_variable)]
    pub env: Vec<(String, String)>,
}

/// `dunlin migration create`
#[derive(Debug, Args)]
pub struct MigrationCreateArgs {
    /// The source, by name or id
    #[arg(long, value_parser = NonEmptyStringValueParser::new())]
    pub server: String,
    /// Kind of cloud, e.g. local
    #[arg(long, value_name = "PROVIDER", value_parser = NonEmptyStringValueParser::new())]
    pub to: String,
    /// Where in that cloud
    #[arg(long, value_parser = NonEmptyStringValueParser::new())]
    pub site: Option<String>,
    /// Name of the migration [default: made from the server's]
    #[arg(long, value_parser = NonEmptyStringValueParser::new())]
    pub name: Option<String>,
    /// Node that makes the volumes [default: the only one that can]
    #[arg(long, value_name = "NODE", value_parser = NonEmptyStringValueParser::new())]
    pub provisioner: Option<String>,
    /// Replicator, by name or id; repeat for more, in order of preference [default: every one
    /// of the site; for `local` the provisioner itself, or those on its machine]
    #[arg(long, value_name = "NODE", value_parser = NonEmptyStringValueParser::new())]
    pub replicator: Vec<String>,
    /// Disk, by name or id; may be repeated [default: every disk the server offers]
    #[arg(long, value_parser = NonEmptyStringValueParser::new())]
    pub disk: Vec<String>,
    /// What not to copy: swap, whose areas stay usable and hold nothing [default: copy all]
    #[arg(long, value_name = "WHAT")]
    pub leave_out: Option<LeaveOut>,
}

/// Which migration to steer, and whether to wait for the effect.
#[derive(Debug, Args)]
pub struct Steer {
    /// Id, prefix of an id, or name
    #[arg(value_parser = NonEmptyStringValueParser::new())]
    pub id: String,
    /// Wait until it is so
    #[arg(long)]
    pub wait: bool,
}

/// `dunlin migration start`
#[derive(Debug, Args)]
pub struct StartArgs {
    /// Which migration, and whether to wait
    #[command(flatten)]
    pub steer: Steer,
    /// How long each end goes on without hearing from an operator's node [default: as the present grant, else 1h]
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    pub lease: Option<Duration>,
    /// How much longer it goes on after that, with a warning; 0 for not at all [default: as the present grant, else 7d]
    #[arg(long, value_name = "DURATION", value_parser = duration_or_none)]
    pub autonomy: Option<Duration>,
    /// Do not send blocks again that disks of other migrations of this group brought to the same replicator [default: as the present grant, else none]
    #[arg(long, value_name = "NAME", value_parser = NonEmptyStringValueParser::new())]
    pub dedup_group: Option<String>,
    /// Send all blocks that its own disks have not brought
    #[arg(long, conflicts_with = "dedup_group")]
    pub no_dedup_group: bool,
}

/// How a copy is proven at cutover.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Prove {
    /// Source and copy are read from end to end.
    Full,
}

/// What becomes of a source that is cut over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum End {
    /// Its file systems stay frozen: it runs, and writes nothing.
    StayFrozen,
    /// It is switched off.
    PowerOff,
    /// It runs on: a hook at before-freeze has stopped what it serves.
    Thaw,
}

impl From<End> for crdt::SourceEnd {
    fn from(end: End) -> Self {
        match end {
            End::StayFrozen => Self::StayFrozen,
            End::PowerOff => Self::PowerOff,
            End::Thaw => Self::Thaw,
        }
    }
}

/// One thing, by id or name.
#[derive(Debug, Args)]
pub struct OneId {
    /// Id, prefix of an id, or name
    #[arg(value_parser = NonEmptyStringValueParser::new())]
    pub id: String,
}

/// `dunlin events`
#[derive(Debug, Args)]
pub struct EventsArgs {
    /// Only of this migration, by id or name
    #[arg(long, value_name = "ID", value_parser = NonEmptyStringValueParser::new())]
    pub migration: Option<String>,
    /// Only from this time on: RFC 3339, or how long ago, e.g. 2h
    #[arg(long, value_name = "T")]
    pub since: Option<Since>,
    /// Go on printing what happens
    #[arg(long)]
    pub follow: bool,
}

/// `dunlin doctor`
#[derive(Debug, Args)]
pub struct DoctorArgs {
    /// Measure the connection to this node instead: round trip, throughput both ways and
    /// path, over a stream as blocks take it; no disk is touched
    #[arg(long, value_name = "NODE", value_parser = NonEmptyStringValueParser::new())]
    pub to: Option<String>,
    /// How long data flows with --to, half of it each way
    #[arg(long, value_name = "N", default_value_t = 5, requires = "to", value_parser = clap::value_parser!(u32).range(1..=60))]
    pub seconds: u32,
}

/// `dunlin demo`
#[derive(Debug, Args)]
pub struct DemoArgs {
    /// Leave the folder of the demo
    #[arg(long)]
    pub keep: bool,
    /// Length of the source disk, e.g. 256MiB
    #[arg(long, value_name = "BYTES", default_value = "256MiB", value_parser = bytes)]
    pub size: u64,
    /// How many small files the source disk holds
    #[arg(long, value_name = "N", default_value_t = 3000)]
    pub files: u32,
    /// Decides every byte of the source disk
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub seed: u64,
}

fn role() -> impl TypedValueParser<Value = Role> {
    clap::builder::PossibleValuesParser::new(["operator", "agent", "replicator", "provisioner"])
        .try_map(|name| name.parse::<Role>())
}

impl Globals {
    /// The command `dunlin WORDS` on the data folder that was given for this one, as a
    /// shell takes it.
    pub fn again(&self, words: &str) -> String {
        let Some(folder) = &self.data_dir else {
            return format!("dunlin {words}");
        };
        let folder = folder.display().to_string();
        let plain = |c: char| c.is_ascii_alphanumeric() || "/._-+:@%,=".contains(c);
        let folder = match !folder.is_empty() && folder.chars().all(plain) {
            true => folder,
            false => format!("'{}'", folder.replace('\'', "'\\''")),
        };
        format!("dunlin --data-dir {folder} {words}")
    }
}

impl Cli {
    /// Reads the arguments of this process, its name first. Help and the version are
    /// printed here, and so is wrong usage, as JSON where `--json` is among the
    /// arguments; the error is then the exit status.
    pub fn read<I>(args: I) -> Result<Self, u8>
    where
        I: IntoIterator<Item = OsString>,
    {
        let args: Vec<OsString> = args.into_iter().collect();
        Self::try_parse_from(&args).map_err(|error| {
            let json = args.iter().any(|arg| arg == "--json");
            outcome::report_usage(&error, json)
        })
    }
}
