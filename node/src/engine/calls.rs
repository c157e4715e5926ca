//! What commands ask the node to do: each a method that checks, acts through the
//! replica, and answers with a view or a refusal that says what is allowed.

mod checkpoints;
mod delete;
mod disk_path;
pub(super) mod hooks;
mod lapsing;
mod members;
mod pool;
mod start;

use super::Engine;
use crate::api::model::{
    ActionOptions, ErrorKind, EventQuery, EventView, MigrationCreate, MigrationView, VolumeAdd,
    VolumeView,
};
use crate::store::OfferedVolume;
use crate::views::{LookupError, find_member, find_migration, find_volume};
use crdt::{Desired, EditError, MigrationPlan, SourceEnd, Stage};
use disk_path::{default_name, device_holds, is_inside};
use keys::{
    Denied, Member, MigrationId, Name, NodeId, Revocation, Role, Roles, Standing, Statement,
    StatementId, VolumeId,
};
use mesh::StateError;
use mesh::replica::Output;
use roles::JobId;

/// Disks of one migration: each has a stream, and one is left to take over another.
const MAX_DISKS: usize = crate::net::MAX_STREAMS_PER_PEER - 1;
/// What can be done with a migration that is cut over.
const IS_CUT_OVER: &str =
    "verify it, or delete it, which keeps the copy; to copy the disk again, create a new one";
/// Events of this node that one answer may hold.
const MAX_EVENTS: usize = 20_000;

/// Why a call was not carried out.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// Nothing, or more than one thing, was meant.
    #[error(transparent)]
    Lookup(#[from] LookupError),
    /// Nobody makes volumes there.
    #[error(
        "no node offers the cloud `{0}`: `dunlin node show` shows what a provisioner offers, and only one that runs does"
    )]
    NoCloud(String),
    /// Nobody could receive.
    #[error("{0}")]
    NoReplicator(String),
    /// Not by this node.
    #[error("only an operator may do this, and this node is not one: run it on an operator's node")]
    NotOperator,
    /// Not with what this node holds or may do.
    #[error("{0}")]
    NotAuthorised(String),
    /// Its key is in two places.
    #[error(
        "this node's key is in use in two places, so that nothing it signs now would count: on one of the two machines remove the data folder and join anew, and revoke this enrolment on another operator's node"
    )]
    Cloned,
    /// It may not write yet.
    #[error(
        "this node has not heard from any peer since it started; if this data folder is an old copy, writing now would fork its log: wait until `dunlin status` shows a connection, or, to work offline in a folder that is no copy, stop the node and start it with `dunlin run --alone`"
    )]
    Unheard,
    /// The argument is wrong.
    #[error("{0}")]
    Usage(String),
    /// Not in this state.
    #[error(transparent)]
    Refused(#[from] Refused),
    /// The other node cannot be reached.
    #[error("{0}")]
    Unreachable(String),
    /// It did not work.
    #[error("{0}")]
    Failed(String),
}

/// What the current state does not allow.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("cannot {action} {what}: it is {state}; {allowed}")]
pub struct Refused {
    /// What was asked.
    pub action: &'static str,
    /// On what.
    pub what: String,
    /// The state it is in.
    pub state: String,
    /// What is allowed instead.
    pub allowed: String,
}

impl CallError {
    /// The kind of failure, and with it the exit status.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Lookup(LookupError::Ambiguous { .. }) | Self::Usage(_) => ErrorKind::Usage,
            Self::Lookup(LookupError::NotFound { .. })
            | Self::NoCloud(_)
            | Self::NoReplicator(_) => ErrorKind::NotFound,
            Self::Lookup(LookupError::NotEnrolled) | Self::Failed(_) => ErrorKind::Failed,
            Self::NotOperator | Self::NotAuthorised(_) => ErrorKind::NotAuthorised,
            Self::Lookup(LookupError::OnlyPlanned { .. })
            | Self::Cloned
            | Self::Unheard
            | Self::Refused(_) => ErrorKind::Refused,
            Self::Unreachable(_) => ErrorKind::NotRunning,
        }
    }
}

impl From<StateError> for CallError {
    fn from(error: StateError) -> Self {
        match error {
            StateError::NotOperator => Self::NotOperator,
            StateError::NeedsRoot
            | StateError::AnotherRoot
            | StateError::OutOfScope { .. }
            | StateError::NotAdmitted => Self::NotAuthorised(error.to_string()),
            StateError::Cloned => Self::Cloned,
            StateError::Unheard => Self::Unheard,
            other => Self::Failed(other.to_string()),
        }
    }
}

impl From<EditError> for CallError {
    fn from(error: EditError) -> Self {
        match error {
            EditError::Cloned(_) | EditError::Forked { .. } => Self::Cloned,
            EditError::Unheard => Self::Unheard,
            error => Self::Failed(format!("the plan was not changed: {error}")),
        }
    }
}

pub(super) fn usage(error: impl std::fmt::Display) -> CallError {
    CallError::Usage(error.to_string())
}

pub(super) fn random<const N: usize>() -> Result<[u8; N], CallError> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes)
        .map_err(|error| CallError::Failed(format!("no random bytes from the system: {error}")))?;
    Ok(bytes)
}

impl Engine {
    pub(super) fn require_operator(&self) -> Result<(), CallError> {
        let me = self.replica.my_key();
        let authority = self.replica.authority();
        match authority.standing(self.now().wall, &me, Role::Operator) {
            Ok(_) if self.replica.may_write() => Ok(()),
            Ok(_) => Err(CallError::Unheard),
            Err(Denied::Cloned(_)) => Err(CallError::Cloned),
            Err(_) => Err(CallError::NotOperator),
        }
    }

    /// Taking something back is open to an operator whose key is in two places.
    fn require_revoker(&self) -> Result<(), CallError> {
        match self.require_operator() {
            Err(CallError::Cloned) => Ok(()),
            required => required,
        }
    }

    /// Makes a statement; where it takes something back, `target` is what.
    fn state(
        &mut self,
        statement: Statement,
        target: Option<StatementId>,
    ) -> Result<StatementId, CallError> {
        let mut out: Vec<Output> = vec![];
        let stated = self.replica.state(self.now().wall, statement, &mut out);
        self.carry(out);
        let id = stated.map_err(|error| match target {
            Some(target) => self.not_stated(error, target),
            None => error.into(),
        })?;
        self.stored()?;
        Ok(id)
    }

    /// Nothing counts as done that could not be stored; the node is about to stop.
    fn stored(&self) -> Result<(), CallError> {
        match &self.fatal {
            None => Ok(()),
            Some(why) => Err(CallError::Failed(format!(
                "it could not be stored and is lost: {why:#}; the node stops, see its log"
            ))),
        }
    }

    pub(super) fn edit(
        &mut self,
        change: impl FnOnce(&mut crdt::Edit<'_>) -> Result<(), EditError>,
    ) -> Result<(), CallError> {
        let mut out: Vec<Output> = vec![];
        let edited = self.replica.edit(self.now().wall, change, &mut out);
        self.carry(out);
        edited?;
        self.stored()
    }

    fn revoke(&mut self, target: StatementId, reason: &str) -> Result<(), CallError> {
        let revocation = Statement::Revocation(Revocation {
            target,
            honours: None,
            reason: members::short_reason(reason),
        });
        self.state(revocation, Some(target))?;
        Ok(())
    }

    /// Offers a device or an image file of this machine as a source disk.
    pub fn volume_add(&mut self, asked: &VolumeAdd) -> Result<VolumeView, CallError> {
        let me = self.replica.my_key();
        let authority = self.replica.authority();
        let member = authority
            .standing(self.now().wall, &me, Role::Agent)
            .map_err(|denied| match denied {
                Denied::Cloned(_) => CallError::Cloned,
                _ => CallError::Refused(Refused {
                    action: "offer",
                    what: asked.path.display().to_string(),
                    state: "on a node that is not an agent".into(),
                    allowed: "join this machine with an invite for the role `agent`".into(),
                }),
            })?;
        let server = member.name.to_string();
        let path = std::path::absolute(&asked.path).map_err(usage)?;
        // As it was given: a name by id finds the same disk after a reboot.
        let real = std::fs::canonicalize(&path)
            .map_err(|error| usage(format!("{} cannot be opened: {error}", path.display())))?;
        if path.to_str().is_none() {
            return Err(usage(format!("{} is not text in UTF-8", path.display())));
        }
        if is_inside(&real, self.dir.path()) {
            return Err(CallError::Refused(Refused {
                action: "offer",
                what: path.display().to_string(),
                state: format!("in this node's own data folder {}", self.dir.path().display()),
                allowed: "keys and stored state never leave the machine as a disk: offer a device or an image outside that folder (a copy in it can be moved out)".into(),
            }));
        }
        let source = volumes::SourceVolume::open(&path).map_err(usage)?;
        if device_holds(&real, self.dir.path()) {
            return Err(CallError::Refused(Refused {
                action: "offer",
                what: path.display().to_string(),
                state: format!("the disk that holds this node's data folder {}", self.dir.path().display()),
                allowed: "what the agent writes there would never let a pass come back empty: move the data folder to another disk or to memory (e.g. below /run), and start the node with --data-dir".into(),
            }));
        }
        let name = match &asked.name {
            Some(name) => name.clone(),
            None => default_name(&path),
        };
        Name::new(&name).map_err(usage)?;
        if let Some(known) = self
            .volumes
            .iter()
            .find(|volume| std::fs::canonicalize(&volume.path).is_ok_and(|known| known == real))
        {
            if asked.name.is_some() && known.name != name {
                return Err(CallError::Refused(Refused {
                    action: "offer",
                    what: path.display().to_string(),
                    state: format!("offered as `{}` already", known.name),
                    allowed: "use that name".into(),
                }));
            }
        } else {
            if self.volumes.iter().any(|volume| volume.name == name) {
                return Err(usage(format!(
                    "there is a disk named `{name}` already: choose another with --name"
                )));
            }
            let volume = OfferedVolume {
                id: VolumeId(random()?),
                name: name.clone(),
                path: path.display().to_string(),
                added_at: self.now().wall,
            };
            let stored = self.store.put_volume(&volume);
            if self.must(stored).is_none() {
                return Err(CallError::Failed("the disk could not be stored".into()));
            }
            self.lengths.insert(volume.id, source.length());
            self.volumes.push(volume);
        }
        self.measure_volumes();
        self.report.publish_now();
        self.publish_if_due();
        let info = self.volume_infos().into_iter();
        let found = info
            .into_iter()
            .find(|info| std::fs::canonicalize(&info.path).is_ok_and(|known| known == real));
        let info = found.ok_or_else(|| CallError::Failed("the disk is gone".into()))?;
        Ok(crate::views::volume_view(&server, &info))
    }

    /// Offers a disk no more. A disk that is being migrated stays.
    pub fn volume_remove(&mut self, wanted: &str) -> Result<VolumeView, CallError> {
        let views = self.with_state(|state| state.volumes());
        let me = self.replica.me().ok_or(LookupError::NotEnrolled)?;
        let id = find_volume(self.replica.reports(), &me, wanted)?.id;
        let plan = self.replica.document().plan();
        let user = plan.migrations.values().find(|plan| {
            let finished = |job: &JobId| {
                let slot = self.agents.get(job);
                slot.is_some_and(|slot| slot.machine.record().finished.is_some())
            };
            let job = JobId {
                migration: plan.id,
                volume: id,
            };
            plan.source == me
                && plan.desired != Desired::Deleted
                && plan.volumes.contains(&id)
                && !finished(&job)
        });
        if let Some(user) = user {
            return Err(CallError::Refused(Refused {
                action: "remove",
                what: format!("disk {wanted}"),
                state: format!("part of migration {}", user.name),
                allowed: "delete the migration first".into(),
            }));
        }
        let view = views.into_iter().find(|view| view.id == id.to_string());
        let view = view.ok_or_else(|| CallError::Failed("the disk is gone".into()))?;
        let stored = self.store.remove_volume(id);
        self.must(stored);
        self.stored()?;
        self.volumes.retain(|volume| volume.id != id);
        self.report.publish_now();
        self.publish_if_due();
        Ok(view)
    }

    /// Events: this node's own from its log, of the others what they report.
    pub fn events(&mut self, query: &EventQuery) -> Result<Vec<EventView>, CallError> {
        let own = match query.after {
            Some(seq) => self.store.events(seq, MAX_EVENTS, None),
            None => self.store.newest_events(MAX_EVENTS, None),
        };
        let own = own.map_err(|error| CallError::Failed(error.to_string()))?;
        Ok(self.state_with(&own).events(query)?)
    }

    /// Plans a migration.
    pub fn migration_create(
        &mut self,
        asked: &MigrationCreate,
    ) -> Result<MigrationView, CallError> {
        self.require_operator()?;
        let server = find_member(self.replica.authority(), &asked.server)?;
        let name = self.migration_label(asked, server.name.as_str())?;
        let plan = self.draft(asked, name)?;
        self.require_scope(&plan)?;
        let id = plan.id;
        self.edit(move |edit| edit.create_migration(&plan))?;
        self.view(&id)
    }

    /// A plan of what is asked for. That no other has its name is the caller's to know.
    pub(super) fn draft(
        &self,
        asked: &MigrationCreate,
        name: String,
    ) -> Result<MigrationPlan, CallError> {
        let authority = self.replica.authority();
        let reports = self.replica.reports();
        let server = find_member(authority, &asked.server)?;
        active_in(server, Role::Agent)?;
        let report = reports.get(&server.id).ok_or_else(|| {
            CallError::Failed(format!(
                "{} has not reported its disks yet: is it running? `dunlin node list` shows it",
                server.name
            ))
        })?;
        let mut volumes: Vec<VolumeId> = if asked.disks.is_empty() {
            report.volumes.iter().map(|volume| volume.id).collect()
        } else {
            let found = asked
                .disks
                .iter()
                .map(|disk| find_volume(reports, &server.id, disk));
            found
                .map(|found| found.map(|volume| volume.id))
                .collect::<Result<_, _>>()?
        };
        volumes.sort_unstable();
        volumes.dedup();
        if volumes.is_empty() {
            return Err(CallError::Failed(format!(
                "{0} offers no disk: run `dunlin volume add PATH` on {0} first",
                server.name
            )));
        }
        if volumes.len() > MAX_DISKS {
            return Err(usage(format!(
                "{} disks in one migration are more than the {MAX_DISKS} that one replicator takes from one agent: choose with --disk",
                volumes.len()
            )));
        }
        let provisioner = self.choose_provisioner(asked)?;
        Ok(MigrationPlan {
            id: MigrationId(random()?),
            name,
            source: server.id,
            volumes,
            provider: asked.to.clone(),
            provisioner,
            replicators: self.choose_replicators(asked, server, provisioner)?,
            site: asked.site.clone(),
            desired: Desired::Created,
            grants: vec![],
            hooks: vec![],
            leave_out: asked
                .leave_out
                .as_deref()
                .map(str::parse)
                .transpose()
                .map_err(usage)?,
            checkpoints: crdt::Checkpoints::default(),
            created_at: self.now().wall,
            created_by: self.replica.my_key(),
            conflicts: vec![],
        })
    }

    fn migration_label(&self, asked: &MigrationCreate, server: &str) -> Result<String, CallError> {
        let plan = self.replica.document().plan();
        let taken = |name: &str| {
            let mut plans = plan.migrations.values();
            plans.any(|plan| plan.desired != Desired::Deleted && plan.name == name)
        };
        match &asked.name {
            Some(name) => {
                Name::new(name).map_err(usage)?;
                if taken(name) {
                    return Err(name_taken(name));
                }
                Ok(name.clone())
            }
            None => {
                let base = format!("{server}-to-{}", asked.to);
                let mut candidates = (2..).map(|number| format!("{base}-{number}"));
                Ok(if taken(&base) {
                    candidates
                        .find(|name| !taken(name))
                        .expect("the numbers do not end")
                } else {
                    base
                })
            }
        }
    }

    fn choose_provisioner(&self, asked: &MigrationCreate) -> Result<NodeId, CallError> {
        let authority = self.replica.authority();
        let reports = self.replica.reports();
        let offers = |member: &Member| {
            let report = reports.get(&member.id)?;
            Some(report.providers.iter().any(|cloud| cloud.kind == asked.to))
        };
        if let Some(wanted) = &asked.provisioner {
            let member = find_member(authority, wanted)?;
            active_in(member, Role::Provisioner)?;
            // One that has not reported yet may well.
            return match offers(member) {
                Some(false) => Err(no_cloud(&asked.to)),
                Some(true) | None => Ok(member.id),
            };
        }
        let offering: Vec<&Member> = authority
            .members()
            .filter(|member| active_in(member, Role::Provisioner).is_ok())
            .filter(|member| offers(member) == Some(true))
            .collect();
        match offering.as_slice() {
            [] => Err(no_cloud(&asked.to)),
            [member] => Ok(member.id),
            several => Err(usage(format!(
                "several nodes offer the cloud `{}`: choose one with --provisioner from {}",
                asked.to,
                names(several.iter().copied())
            ))),
        }
    }

    fn view(&mut self, id: &MigrationId) -> Result<MigrationView, CallError> {
        let id = id.to_string();
        Ok(self.with_state(|state| state.migration_by(&id))?)
    }

    /// Stops blocks from moving.
    pub fn migration_pause(&mut self, wanted: &str) -> Result<MigrationView, CallError> {
        self.require_operator()?;
        let plan = find_migration(self.replica.document().plan(), wanted)?.clone();
        let view = self.view(&plan.id)?;
        match plan.desired {
            Desired::Deleted => {
                return Err(refused(
                    "pause",
                    &plan,
                    "deleted",
                    "nothing is left to pause",
                ));
            }
            Desired::Created => {
                return Err(refused("pause", &plan, "not started", "start it first"));
            }
            Desired::Cutover { .. } if view.stage == Stage::CutOver.to_string() => {
                return Err(refused("pause", &plan, "cut over", IS_CUT_OVER));
            }
            Desired::Cutover { .. } => refuse_if_final("pause", &plan, &view)?,
            _ => {}
        }
        let id = plan.id;
        self.edit(move |edit| edit.set_desired(id, Desired::Paused))?;
        self.view(&plan.id)
    }

    /// Asks for the switch to the copy.
    pub fn migration_cutover(
        &mut self,
        wanted: &str,
        options: ActionOptions,
    ) -> Result<MigrationView, CallError> {
        self.require_operator()?;
        let plan = find_migration(self.replica.document().plan(), wanted)?.clone();
        let view = self.view(&plan.id)?;
        match plan.desired {
            Desired::Cutover { prove_full, .. } => {
                if view.stage == Stage::CutOver.to_string() {
                    if options.prove_full && !prove_full {
                        return Err(refused(
                            "cut over",
                            &plan,
                            "cut over without reading the copy back",
                            "the command that `dunlin verify` prints reads it back",
                        ));
                    }
                    if let Some(end) = &options.source
                        && cutover_of(&plan, &options)? != plan.desired
                    {
                        let shown: String = end.chars().take(40).collect();
                        return Err(refused(
                            "cut over",
                            &plan,
                            "cut over already",
                            &format!("see to it by hand that the source comes to `{shown}`"),
                        ));
                    }
                    return Ok(view);
                }
            }
            Desired::Started => {}
            Desired::Created => {
                return Err(refused("cut over", &plan, "not started", "start it first"));
            }
            Desired::Paused => return Err(refused("cut over", &plan, "paused", "resume it first")),
            Desired::Deleted => {
                return Err(refused("cut over", &plan, "deleted", "create a new one"));
            }
        }
        let copied = view.volumes.iter().all(|volume| !volume.passes.is_empty());
        if !copied {
            return Err(refused(
                "cut over",
                &plan,
                "still in its first pass",
                "wait until every disk was copied once: `dunlin migration watch` shows it",
            ));
        }
        let wanted = cutover_of(&plan, &options)?;
        if wanted != plan.desired {
            let id = plan.id;
            self.edit(move |edit| edit.set_desired(id, wanted))?;
        }
        self.view(&plan.id)
    }
}

/// The cutover that is asked for, with what was asked for before.
fn cutover_of(plan: &MigrationPlan, options: &ActionOptions) -> Result<Desired, CallError> {
    let (planned_full, planned) = match plan.desired {
        Desired::Cutover { prove_full, source } => (prove_full, source),
        _ => (false, SourceEnd::Unsaid),
    };
    let source = match &options.source {
        Some(text) => {
            let ends = SourceEnd::ALL.into_iter();
            let mut ends = ends.filter(|end| *end != SourceEnd::Unsaid);
            let found = ends.find(|end| end.to_string() == *text);
            found.ok_or_else(|| {
                let shown: String = text.chars().take(40).collect();
                usage(format!(
                    "`{shown}` is nothing that a source can come to: choose stay-frozen, power-off or thaw"
                ))
            })?
        }
        None => planned,
    };
    let stops = |hook: &crdt::Hook| {
        hook.point == crdt::Point::BeforeFreeze && hook.on_failure == crdt::OnFailure::Stop
    };
    if source == SourceEnd::Thaw && !plan.hooks.iter().any(stops) {
        return Err(refused(
            "cut over with --source thaw",
            plan,
            "planned without a hook that stops what the source serves, so that source and copy would both serve",
            "add one first (`dunlin migration hook add MIGRATION before-freeze SCRIPT`), or choose stay-frozen or power-off",
        ));
    }
    Ok(Desired::Cutover {
        prove_full: planned_full || options.prove_full,
        source,
    })
}

/// A disk that is cut over is final: taking the cutover back would leave its copy behind
/// while its roots go on saying that it is the source.
fn refuse_if_final(
    action: &'static str,
    plan: &MigrationPlan,
    view: &MigrationView,
) -> Result<(), CallError> {
    let cut_over = Stage::CutOver.to_string();
    let done = view.volumes.iter().find(|job| job.stage == cut_over);
    done.map_or(Ok(()), |job| {
        let state = format!(
            "cutting over, and disk {} is cut over already, and that is final",
            job.name
        );
        let allowed = "let the others follow (stop what writes to them), or delete the migration";
        Err(refused(action, plan, &state, allowed))
    })
}

fn refused(action: &'static str, plan: &MigrationPlan, state: &str, allowed: &str) -> CallError {
    CallError::Refused(Refused {
        action,
        what: format!("migration {}", plan.name),
        state: state.into(),
        allowed: allowed.into(),
    })
}

/// Another migration has the name.
pub(super) fn name_taken(name: &str) -> CallError {
    CallError::Refused(Refused {
        action: "name",
        what: format!(
            "a migration `{}`",
            name.chars().take(80).collect::<String>()
        ),
        state: "the name of another one already".into(),
        allowed: "choose another, or delete that one".into(),
    })
}

fn no_cloud(wanted: &str) -> CallError {
    CallError::NoCloud(wanted.chars().take(80).collect())
}

pub(super) fn active_in(member: &Member, role: Role) -> Result<(), CallError> {
    if member.standing != Standing::Active {
        return Err(usage(format!(
            "node {} is not active in the mesh",
            member.name
        )));
    }
    if !member.roles.has(role) {
        return Err(usage(format!(
            "node {} is not enrolled as {role}; it is {}",
            member.name, member.roles
        )));
    }
    Ok(())
}

fn names<'a>(members: impl Iterator<Item = &'a Member>) -> String {
    let names: Vec<&str> = members.map(|member| member.name.as_str()).collect();
    names.join(", ")
}

/// Reads a list of roles.
pub fn parse_roles(names: &[String]) -> Result<Roles, CallError> {
    let roles: Result<Roles, _> = names.iter().map(|name| name.parse::<Role>()).collect();
    let roles = roles.map_err(usage)?;
    if roles.is_empty() {
        return Err(usage("name at least one role"));
    }
    Ok(roles)
}
