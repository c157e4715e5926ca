//! What a command asks for, sorted by what can answer it.
//!
//! Not here: the grammar (`cli`) and the answers (`read`, `act`, `watch`).

use std::path::PathBuf;

use clap_complete::Shell;

use crate::api::model::CheckpointAsk;

use super::value::Since;
use super::{
    CheckpointArgs, Command, DemoArgs, DoctorArgs, End, EventsArgs, GuardArgs, GuardCommand,
    HookAddArgs, HookCommand, InviteCommand, InviteCreateArgs, JoinArgs, LimitCommand, LimitOfArgs,
    LimitSetArgs, MeshCommand, MeshInit, MeshRecover, MigrationCommand, MigrationCreateArgs,
    NodeCommand, NodeRevokeArgs, PlanApply, PlanCommand, RunArgs, ServerCommand, StartArgs, Steer,
    VolumeCommand,
};

/// A command, by what it needs.
#[derive(Debug)]
pub enum Task {
    /// Carried out by this process.
    Here(Here),
    /// Looks at the mesh: a running node answers, or what is stored.
    Read(Read),
    /// Only a running node can do it.
    Act(Act),
}

/// What this process does by itself.
#[derive(Debug)]
pub enum Here {
    /// Make a mesh.
    MeshInit(MeshInit),
    /// Recover a mesh with its root key.
    MeshRecover(MeshRecover),
    /// Enrol this node.
    Join(JoinArgs),
    /// Run the node.
    Run(RunArgs),
    /// Run the guard.
    Guard(GuardArgs),
    /// Let go of what is frozen.
    GuardThaw {
        /// Of which guard.
        socket: PathBuf,
        /// Which migration; the only one otherwise.
        id: Option<String>,
        /// Also what is kept.
        yes: bool,
    },
    /// Look at this machine, its node and its connections.
    Doctor,
    /// Run the demo.
    Demo(DemoArgs),
    /// Print completions.
    Completions(Shell),
    /// Print a manual page.
    Man(Vec<String>),
}

/// A look at the mesh.
#[derive(Debug)]
pub enum Read {
    /// The mesh at a glance.
    Status,
    /// Every invite.
    Invites,
    /// Every node.
    Nodes,
    /// One node.
    Node(String),
    /// Every source.
    Servers,
    /// One source.
    Server(String),
    /// Every source disk.
    Volumes,
    /// Every limit.
    Limits,
    /// Every migration.
    Migrations,
    /// One migration.
    Migration(String),
    /// The hooks of a migration.
    Hooks(String),
    /// The checkpoints of a migration.
    Checkpoints(String),
    /// The roots of a migration.
    Verify(String),
    /// The plan, to a file.
    Plan {
        /// Where to.
        file: PathBuf,
        /// Whether a file that is there is replaced.
        force: bool,
    },
    /// What happened.
    Events(Events),
}

/// Which events are asked for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Events {
    /// Only of this migration.
    pub migration: Option<String>,
    /// Only from then on.
    pub since: Option<Since>,
}

/// What only a running node does.
#[derive(Debug)]
pub enum Act {
    /// Make an invite.
    InviteCreate(InviteCreateArgs),
    /// Close an invite.
    InviteRevoke {
        /// Which.
        id: String,
        /// The root key's file.
        root_key: Option<PathBuf>,
    },
    /// Expel a node.
    NodeRevoke(NodeRevokeArgs),
    /// Measure the connection to a node.
    Measure {
        /// Which.
        to: String,
        /// How long data flows.
        seconds: u32,
    },
    /// Give this node a new key.
    RotateKey,
    /// Offer a source disk no more.
    VolumeRemove(String),
    /// Offer a source disk.
    VolumeAdd {
        /// Where it is.
        path: PathBuf,
        /// Its name.
        name: Option<String>,
    },
    /// Set a limit.
    LimitSet(LimitSetArgs),
    /// Take a limit away.
    LimitRemove(LimitOfArgs),
    /// Plan a migration.
    MigrationCreate(MigrationCreateArgs),
    /// Plan a hook.
    HookAdd(HookAddArgs),
    /// Take away a hook.
    HookRemove {
        /// Of which migration.
        id: String,
        /// Its number.
        number: usize,
    },
    /// Something about checkpoints.
    Checkpoint {
        /// Of which migration.
        id: String,
        /// What.
        ask: CheckpointAsk,
    },
    /// Let the blocks of a migration move.
    Start(StartArgs),
    /// End a migration.
    Delete {
        /// Which, and whether to wait.
        steer: Steer,
        /// The root key's file.
        root_key: Option<PathBuf>,
    },
    /// Change what else is wanted of a migration.
    Steer(Verb, Steer),
    /// Make the plan what a file says.
    PlanApply(PlanApply),
    /// Follow a migration.
    Watch(String),
    /// Follow events.
    Follow(Events),
}

/// What a migration is told to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verb {
    /// Let blocks move.
    Start,
    /// Hold.
    Pause,
    /// Go on.
    Resume,
    /// Switch over.
    Cutover {
        /// Read both ends in full first.
        prove_full: bool,
        /// What becomes of the source, if that was said.
        source: Option<End>,
    },
    /// End and clean up.
    Delete,
}

impl Verb {
    /// As in the command and in the route.
    pub fn word(self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::Pause => "pause",
            Self::Resume => "resume",
            Self::Cutover { .. } => "cutover",
            Self::Delete => "delete",
        }
    }
}

impl From<Command> for Task {
    fn from(command: Command) -> Self {
        match command {
            Command::Mesh(MeshCommand::Init(args)) => Self::Here(Here::MeshInit(args)),
            Command::Mesh(MeshCommand::Recover(args)) => Self::Here(Here::MeshRecover(args)),
            Command::Join(args) => Self::Here(Here::Join(args)),
            Command::Run(args) => Self::Here(Here::Run(args)),
            Command::Guard(GuardArgs {
                socket,
                command: Some(GuardCommand::Thaw { id, yes }),
                ..
            }) => Self::Here(Here::GuardThaw { socket, id, yes }),
            Command::Guard(args) => Self::Here(Here::Guard(args)),
            Command::Doctor(DoctorArgs { to: None, .. }) => Self::Here(Here::Doctor),
            Command::Doctor(DoctorArgs {
                to: Some(to),
                seconds,
            }) => Self::Act(Act::Measure { to, seconds }),
            Command::Demo(args) => Self::Here(Here::Demo(args)),
            Command::Completions { shell } => Self::Here(Here::Completions(shell)),
            Command::Man { command } => Self::Here(Here::Man(command)),
            Command::Status => Self::Read(Read::Status),
            Command::Verify(one) => Self::Read(Read::Verify(one.id)),
            Command::Invite(command) => command.into(),
            Command::Node(command) => command.into(),
            Command::Server(ServerCommand::List) => Self::Read(Read::Servers),
            Command::Server(ServerCommand::Show(one)) => Self::Read(Read::Server(one.id)),
            Command::Volume(VolumeCommand::List) => Self::Read(Read::Volumes),
            Command::Volume(VolumeCommand::Remove(one)) => Self::Act(Act::VolumeRemove(one.id)),
            Command::Volume(VolumeCommand::Add { path, name }) => {
                Self::Act(Act::VolumeAdd { path, name })
            }
            Command::Limit(LimitCommand::Set(args)) => Self::Act(Act::LimitSet(args)),
            Command::Limit(LimitCommand::List) => Self::Read(Read::Limits),
            Command::Limit(LimitCommand::Remove(of)) => Self::Act(Act::LimitRemove(of)),
            Command::Migration(command) => command.into(),
            Command::Plan(PlanCommand::Export { file, force }) => {
                Self::Read(Read::Plan { file, force })
            }
            Command::Plan(PlanCommand::Apply(args)) => Self::Act(Act::PlanApply(args)),
            Command::Events(args) => args.into(),
        }
    }
}

impl From<InviteCommand> for Task {
    fn from(command: InviteCommand) -> Self {
        match command {
            InviteCommand::Create(args) => Self::Act(Act::InviteCreate(args)),
            InviteCommand::List => Self::Read(Read::Invites),
            InviteCommand::Revoke { id, root_key } => Self::Act(Act::InviteRevoke { id, root_key }),
        }
    }
}

impl From<NodeCommand> for Task {
    fn from(command: NodeCommand) -> Self {
        match command {
            NodeCommand::List => Self::Read(Read::Nodes),
            NodeCommand::Show(one) => Self::Read(Read::Node(one.id)),
            NodeCommand::Revoke(args) => Self::Act(Act::NodeRevoke(args)),
            NodeCommand::RotateKey => Self::Act(Act::RotateKey),
        }
    }
}

impl From<MigrationCommand> for Task {
    fn from(command: MigrationCommand) -> Self {
        let steer = |verb, steer| Self::Act(Act::Steer(verb, steer));
        match command {
            MigrationCommand::Create(args) => Self::Act(Act::MigrationCreate(args)),
            MigrationCommand::List => Self::Read(Read::Migrations),
            MigrationCommand::Show(one) => Self::Read(Read::Migration(one.id)),
            MigrationCommand::Watch(one) => Self::Act(Act::Watch(one.id)),
            MigrationCommand::Log(one) => Self::Read(Read::Events(Events {
                migration: Some(one.id),
                since: None,
            })),
            MigrationCommand::Hook(HookCommand::Add(args)) => Self::Act(Act::HookAdd(args)),
            MigrationCommand::Hook(HookCommand::List(one)) => Self::Read(Read::Hooks(one.id)),
            MigrationCommand::Hook(HookCommand::Remove { id, number }) => {
                Self::Act(Act::HookRemove { id, number })
            }
            MigrationCommand::Checkpoint(args) => checkpoint(args),
            MigrationCommand::Rollback { id, to } => {
                let name = to.to_string();
                let ask = CheckpointAsk::Rollback { name };
                Self::Act(Act::Checkpoint { id, ask })
            }
            MigrationCommand::Test {
                id,
                checkpoint,
                end,
            } => {
                let name = checkpoint.map(String::from);
                let ask = match end {
                    true => CheckpointAsk::EndTest { name },
                    false => CheckpointAsk::Test { name },
                };
                Self::Act(Act::Checkpoint { id, ask })
            }
            MigrationCommand::Start(args) => Self::Act(Act::Start(args)),
            MigrationCommand::Pause(args) => steer(Verb::Pause, args),
            MigrationCommand::Resume(args) => steer(Verb::Resume, args),
            MigrationCommand::Cutover {
                steer: args,
                prove,
                source,
            } => {
                let prove_full = prove.is_some();
                steer(Verb::Cutover { prove_full, source }, args)
            }
            MigrationCommand::Delete { steer, root_key } => {
                Self::Act(Act::Delete { steer, root_key })
            }
        }
    }
}

fn checkpoint(args: CheckpointArgs) -> Task {
    let CheckpointArgs {
        id,
        name,
        list,
        delete,
        keep,
    } = args;
    let ask = match (list, delete, keep) {
        (true, ..) => return Task::Read(Read::Checkpoints(id)),
        (_, Some(name), _) => CheckpointAsk::Delete { name: name.into() },
        (.., Some(number)) => CheckpointAsk::Keep { number },
        _ => CheckpointAsk::Take {
            name: name.map(String::from),
        },
    };
    Task::Act(Act::Checkpoint { id, ask })
}

impl From<EventsArgs> for Task {
    fn from(args: EventsArgs) -> Self {
        let EventsArgs {
            migration,
            since,
            follow,
        } = args;
        let events = Events { migration, since };
        if follow {
            Self::Act(Act::Follow(events))
        } else {
            Self::Read(Read::Events(events))
        }
    }
}
