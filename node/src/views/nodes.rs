//! Views of nodes, invites, servers and their disks.

use super::lookup::{LookupError, find_member, find_server};
use super::plan::planned_server;
use super::{State, limits};
use crate::api::model::{FindingView, InviteView, NodeView, RevokedView, ServerView, VolumeView};
use crdt::{JobRole, Report, ServerPlan, VolumeInfo, VolumeKind};
use inventory::readiness;
use keys::{Member, Role, Roles, Scope, Standing, Statement};
use std::collections::{BTreeMap, BTreeSet};

/// The state of a node that counts.
pub(super) const ACTIVE: &str = "active";

impl State<'_> {
    pub(super) fn mesh_name(&self) -> String {
        let genesis = keys::StatementId(self.replica.ledger().mesh().0);
        match self
            .replica
            .ledger()
            .get(&genesis)
            .map(|found| &found.entry.statement)
        {
            Some(Statement::Genesis(genesis)) => genesis.name.to_string(),
            _ => String::new(),
        }
    }

    /// Every node that was ever enrolled, by name.
    pub fn nodes(&self) -> Vec<NodeView> {
        let members = self.replica.authority().members();
        let mut nodes: Vec<NodeView> = members.map(|member| self.node(member)).collect();
        nodes.sort_by(|a, b| (&a.name, &a.id).cmp(&(&b.name, &b.id)));
        nodes
    }

    /// One node, by name or id.
    pub fn node_by(&self, wanted: &str) -> Result<NodeView, LookupError> {
        Ok(self.node(find_member(self.replica.authority(), wanted)?))
    }

    fn node(&self, member: &Member) -> NodeView {
        let report = self.replica.reports().get(&member.id);
        let this_node = self.me() == Some(member.id);
        // While it changes its key, this node answers with the one it had.
        let key = match this_node {
            true => self.replica.my_key(),
            false => member.key,
        };
        NodeView {
            id: member.id.to_string(),
            name: member.name.to_string(),
            roles: role_names(member.roles),
            site: member.site.as_ref().map(ToString::to_string),
            scope: match &member.scope {
                Scope::Everywhere => None,
                sites => Some(sites.to_string()),
            },
            ends_at: member.not_after.map(|end| end.to_string()),
            key: key.to_string(),
            peer_id: crate::net::peer_id_text(&key.0),
            state: self.standing(member).into(),
            revoked: self.revoked(member),
            this_node,
            said_revoked: self
                .said_revoked
                .filter(|_| this_node && member.standing == Standing::Active)
                .map(|key| self.name_of_key(&key)),
            connected: self
                .connected
                .map(|connected| this_node || connected.contains(&member.key)),
            enrolled_at: member.enrolled_at.to_string(),
            reported_at: report.map(|report| report.at.to_string()),
            hostname: report.map(|report| report.hostname.clone()),
            version: report.map(|report| report.program_version.clone()),
            addresses: report
                .map(|report| report.listen.clone())
                .unwrap_or_default(),
            providers: report
                .map(|report| {
                    let kinds = report.providers.iter();
                    kinds.map(|provider| provider.kind.clone()).collect()
                })
                .unwrap_or_default(),
        }
    }

    /// How a node stands now, as a word.
    pub(super) fn standing(&self, member: &Member) -> &'static str {
        let authority = self.replica.authority();
        match member.standing {
            Standing::Active if member.not_after.is_some_and(|end| self.now >= end) => "expired",
            Standing::Active if authority.is_cloned(&member.key) => "cloned",
            Standing::Active => ACTIVE,
            Standing::Contested => "contested",
            Standing::KeyContested => "key-contested",
            Standing::Revoked(_) => "revoked",
            Standing::Lapsed => "lapsed",
        }
    }

    fn revoked(&self, member: &Member) -> Option<RevokedView> {
        let Standing::Revoked(by) = member.standing else {
            return None;
        };
        let found = self.replica.ledger().get(&by)?;
        let Statement::Revocation(revocation) = &found.entry.statement else {
            return None;
        };
        let signer = found.signed.signer;
        Some(RevokedView {
            by: match self.replica.authority().is_root(&signer) {
                true => "the root key".into(),
                false => self.name_of_key(&signer),
            },
            at: found.entry.at.to_string(),
            reason: revocation.reason.clone(),
        })
    }

    /// Every invite, the newest end last.
    pub fn invites(&self) -> Vec<InviteView> {
        let mut invites: Vec<_> = self.replica.authority().invites().collect();
        invites.sort_by_key(|(id, state)| (state.invite.not_after, **id));
        invites
            .into_iter()
            .map(|(id, state)| {
                let shown = if state.revoked {
                    "revoked"
                } else if state.used.len() >= usize::from(state.invite.uses) {
                    "used"
                } else if self.now >= state.invite.not_after {
                    "expired"
                } else if !self.admits(&state.invite.admitter) {
                    "closed"
                } else {
                    "open"
                };
                InviteView {
                    id: id.to_string(),
                    roles: role_names(state.invite.roles),
                    name: state.invite.name.as_ref().map(ToString::to_string),
                    site: state.invite.site.as_ref().map(ToString::to_string),
                    expires_at: state.invite.not_after.to_string(),
                    uses: state.invite.uses,
                    used: state.used.len(),
                    state: shown.into(),
                }
            })
            .collect()
    }

    /// Whether a key that invites name is one that a node still has: who joins looks for
    /// it.
    fn admits(&self, admitter: &keys::PublicKey) -> bool {
        let member = self.replica.authority().by_key(admitter);
        member.is_some_and(|member| member.key == *admitter && member.standing == Standing::Active)
    }

    /// Every agent that has reported, and every server that is planned, by name. A planned
    /// one and an agent of its name are one.
    pub fn servers(&self) -> Vec<ServerView> {
        let agents =
            self.replica.authority().members().filter(|member| {
                member.roles.has(Role::Agent) && member.standing == Standing::Active
            });
        // Of several with one name the one with the lowest id.
        let planned = self.plan().servers.values().rev();
        let planned: BTreeMap<&str, &ServerPlan> =
            planned.map(|plan| (plan.name.as_str(), plan)).collect();
        let mut servers: Vec<ServerView> = agents
            .filter_map(|member| {
                let report = self.replica.reports().get(&member.id)?;
                let plan = planned.get(member.name.as_str()).copied();
                Some(self.server(member, report, plan))
            })
            .collect();
        let named: BTreeSet<String> = servers.iter().map(|server| server.name.clone()).collect();
        let planned = self.plan().servers.values();
        let alone = planned.filter(|plan| !named.contains(&plan.name));
        servers.extend(alone.map(planned_alone));
        servers.sort_by(|a, b| (&a.name, &a.id).cmp(&(&b.name, &b.id)));
        servers
    }

    /// One source, by name or id.
    pub fn server_by(&self, wanted: &str) -> Result<ServerView, LookupError> {
        let member = match find_member(self.replica.authority(), wanted) {
            Ok(member) => Some(member),
            Err(LookupError::NotFound { .. }) => None,
            Err(error) => return Err(error),
        };
        let agent = member.filter(|member| member.roles.has(Role::Agent));
        let reported = agent.and_then(|member| {
            let report = self.replica.reports().get(&member.id)?;
            let mut planned = self.plan().servers.values();
            let plan = planned.find(|plan| plan.name == member.name.as_str());
            let server = self.server(member, report, plan);
            Some(ServerView {
                limits: self.limits_of_server(&member.id),
                limit_warning: limits::warned_of(&report.events),
                inventory: (report.inventory != crdt::Inventory::default())
                    .then(|| report.inventory.clone()),
                findings: findings(report),
                ..server
            })
        });
        match reported {
            Some(server) => Ok(server),
            None => find_server(self.plan(), wanted).map(planned_alone),
        }
    }

    fn server(&self, member: &Member, report: &Report, plan: Option<&ServerPlan>) -> ServerView {
        let this_node = self.me() == Some(member.id);
        let machine = &report.inventory.machine;
        ServerView {
            id: member.id.to_string(),
            name: member.name.to_string(),
            planned: plan.map(planned_server),
            hostname: report.hostname.clone(),
            os: report.inventory.system.name.clone(),
            kernel: report.inventory.system.kernel.clone(),
            cpus: machine.cpus,
            memory_bytes: machine.memory_bytes,
            machine: format!("{} {}", machine.vendor, machine.model)
                .trim()
                .to_owned(),
            connected: self
                .connected
                .map(|connected| this_node || connected.contains(&member.key)),
            reported_at: Some(report.at.to_string()),
            disks: report
                .volumes
                .iter()
                .map(|volume| VolumeView {
                    changes: changes_of(report, volume),
                    ..volume_view(member.name.as_str(), volume)
                })
                .collect(),
            limits: vec![],
            limit_warning: None,
            inventory: None,
            findings: vec![],
        }
    }

    /// What keeps this node's machine from being moved, by its own report.
    pub fn blockers(&self) -> Vec<FindingView> {
        let report = self.me().and_then(|me| self.replica.reports().get(&me));
        let mut found = report.map(findings).unwrap_or_default();
        found.retain(|finding| finding.level == "blocker");
        found
    }

    /// Disks that this node offers.
    pub fn volumes(&self) -> Vec<VolumeView> {
        let Some(me) = self.me() else { return vec![] };
        let name = self.name_of(&me);
        let volumes = self.replica.reports().get(&me);
        volumes
            .map(|report| {
                let volumes = report.volumes.iter();
                volumes.map(|volume| volume_view(&name, volume)).collect()
            })
            .unwrap_or_default()
    }
}

/// A server of which there is nothing but its plan.
fn planned_alone(plan: &ServerPlan) -> ServerView {
    ServerView {
        id: plan.id.to_string(),
        name: plan.name.clone(),
        planned: Some(planned_server(plan)),
        hostname: String::new(),
        os: String::new(),
        kernel: String::new(),
        cpus: 0,
        memory_bytes: 0,
        machine: String::new(),
        connected: None,
        reported_at: None,
        disks: vec![],
        limits: vec![],
        limit_warning: None,
        inventory: None,
        findings: vec![],
    }
}

/// What stands in the way of moving a machine with the disks that it offers.
fn findings(report: &Report) -> Vec<FindingView> {
    let devices = report.volumes.iter();
    let devices = devices.filter(|volume| volume.kind == VolumeKind::Device);
    // By whichever path it is offered.
    let devices = devices.map(|volume| match &volume.device {
        Some(device) => format!("/dev/{device}"),
        None => volume.path.clone(),
    });
    let devices: Vec<String> = devices.collect();
    let devices: Vec<&str> = devices.iter().map(String::as_str).collect();
    let found = readiness::findings(&report.inventory, &devices);
    let view = |finding: readiness::Finding| FindingView {
        level: match finding.level {
            readiness::Level::Blocker => "blocker",
            readiness::Level::Warning => "warning",
            readiness::Level::Note => "note",
        }
        .into(),
        subject: finding.subject,
        what: finding.what,
        todo: finding.todo,
    };
    found.into_iter().map(view).collect()
}

/// A disk as the API shows it.
pub fn volume_view(server: &str, volume: &VolumeInfo) -> VolumeView {
    VolumeView {
        id: volume.id.to_string(),
        name: volume.name.clone(),
        path: volume.path.clone(),
        length: volume.length,
        kind: match volume.kind {
            VolumeKind::Device => "device",
            VolumeKind::Image => "image",
        }
        .into(),
        model: volume.model.clone(),
        server: server.to_owned(),
        changes: None,
    }
}

/// How the newest pass over a disk found what changed.
fn changes_of(report: &Report, volume: &VolumeInfo) -> Option<String> {
    let jobs = report.jobs.iter();
    let jobs = jobs.filter(|job| job.role == JobRole::Agent && job.volume == volume.id);
    jobs.filter_map(super::figures::changes).next_back()
}

fn role_names(roles: Roles) -> Vec<String> {
    roles.iter().map(|role| role.to_string()).collect()
}
