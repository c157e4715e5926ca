//! Which replicators a migration gets.
//!
//! Not here: which of them its agent chooses (`roles::agent`).

use super::{CallError, Engine, active_in, usage};
use crate::api::model::MigrationCreate;
use crate::views::find_member;
use keys::{Member, Name, NodeId, Role};

/// The cloud whose volumes are files on its provisioner's machine.
const LOCAL: &str = "local";

impl Engine {
    /// The pool that is named, or else every replicator that can reach the volumes which
    /// `provisioner` makes, by name.
    pub(in crate::engine) fn choose_replicators(
        &self,
        asked: &MigrationCreate,
        server: &Member,
        provisioner: NodeId,
    ) -> Result<Vec<NodeId>, CallError> {
        let authority = self.replica.authority();
        if !asked.replicators.is_empty() {
            let mut pool = vec![];
            for wanted in &asked.replicators {
                let member = find_member(authority, wanted)?;
                active_in(member, Role::Replicator)?;
                if member.key == server.key {
                    return Err(usage(format!(
                        "{} is the source: a node cannot send to itself, name another replicator",
                        member.name
                    )));
                }
                if !pool.contains(&member.id) {
                    pool.push(member.id);
                }
            }
            return Ok(pool);
        }
        let at_site = |member: &&Member| {
            let site = member.site.as_ref().map(Name::as_str);
            asked.site.is_none() || site == asked.site.as_deref()
        };
        let mut pool: Vec<&Member> = authority
            .members()
            .filter(|member| active_in(member, Role::Replicator).is_ok())
            .filter(|member| member.key != server.key)
            .filter(at_site)
            .collect();
        if pool.is_empty() {
            let place = asked.site.as_ref().map(|site| format!(" at site {site}"));
            return Err(CallError::NoReplicator(format!(
                "the mesh has no replicator{} beside the source: invite one with `dunlin invite create --role replicator`, or name one with --replicator",
                place.unwrap_or_default()
            )));
        }
        if asked.to == LOCAL {
            self.keep_those_beside(provisioner, &mut pool)?;
        }
        pool.sort_by_key(|member| (&member.name, member.id));
        pool.truncate(keys::statement::MAX_POOL);
        Ok(pool.into_iter().map(|member| member.id).collect())
    }

    /// Leaves those that are on the provisioner's machine: itself alone where it is one,
    /// else such as report its host name.
    fn keep_those_beside(
        &self,
        provisioner: NodeId,
        pool: &mut Vec<&Member>,
    ) -> Result<(), CallError> {
        let host = |node: &NodeId| Some(self.replica.reports().get(node)?.hostname.as_str());
        let candidates: Vec<NodeId> = pool.iter().map(|member| member.id).collect();
        let near = beside(provisioner, &candidates, host);
        pool.retain(|member| near.contains(&member.id));
        if !pool.is_empty() {
            return Ok(());
        }
        let member = self.replica.authority().member(&provisioner);
        let name = member.map_or_else(|| provisioner.short(), |member| member.name.to_string());
        Err(CallError::NoReplicator(format!(
            "no replicator is known to be on the machine of provisioner {name}, and the volumes of the local cloud are only there: invite one for that machine with `dunlin invite create --role replicator`, or name one that runs there with --replicator"
        )))
    }
}

/// Those of `candidates` that are on the machine of `provisioner`.
fn beside<'a>(
    provisioner: NodeId,
    candidates: &[NodeId],
    host: impl Fn(&NodeId) -> Option<&'a str>,
) -> Vec<NodeId> {
    if candidates.contains(&provisioner) {
        return vec![provisioner];
    }
    let Some(here) = host(&provisioner) else {
        return vec![];
    };
    let near = candidates.iter().filter(|node| host(node) == Some(here));
    near.copied().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn volumes_of_the_local_cloud_are_reached_from_their_own_machine_only() {
        let [cloud, near, far, silent] = [1, 2, 3, 4].map(|id| NodeId([id; 32]));
        let host = |node: &NodeId| match node.0[0] {
            1 | 2 => Some("b"),
            3 => Some("c"),
            _ => None,
        };
        assert_eq!(beside(cloud, &[far, near, silent], host), [near]);
        assert_eq!(beside(cloud, &[far, near, cloud], host), [cloud]);
        assert_eq!(beside(cloud, &[far, silent], host), []);
        // Two that have not reported are not known to be in one place.
        assert_eq!(beside(silent, &[NodeId([5; 32])], host), []);
    }
}
