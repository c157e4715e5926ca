//! What people must look at: keys in two places, edits that were lost or made again, and
//! decisions that operators made apart from each other.

use super::Engine;
use crdt::{Apart, EntryId, Limited};
use keys::{MigrationId, NodeId, PublicKey, ServerId};
use mesh::{Alarm, Fork};
use roles::Note;

impl Engine {
    pub(super) fn raise(&mut self, alarm: &Alarm) {
        let note = match alarm {
            Alarm::Cloned { key, fork } => Note::error("cloned-key", self.cloned(key, *fork)),
            Alarm::BrokenChange(refusal) => return self.broken_change(refusal),
            Alarm::ContestedKey { node } => Note::error(
                "contested-key",
                format!(
                    "node {} gave itself two different next keys: one of them is a thief's; neither is let in until `dunlin node revoke` has taken the node back and it has joined again",
                    self.node_name(node)
                ),
            ),
            Alarm::Orphaned { changes, lost } => {
                Note::warn("edits-orphaned", orphaned(*changes, *lost))
            }
            Alarm::MadeAgain { made, lost } => {
                Note::warn("edits-made-again", self.made_again(made, lost))
            }
        };
        self.tell(None, note);
    }

    fn broken_change(&mut self, refusal: &crdt::Refusal) {
        let Some(author) = refusal.author() else {
            return;
        };
        let text = format!(
            "an edit of the plan signed by {} was refused: {refusal}; find out why, and revoke it with `dunlin node revoke` if it is not yours any more",
            self.name_of(&author)
        );
        self.tell_of(&author, None, Note::error("edit-refused", text));
    }

    fn cloned(&self, key: &PublicKey, fork: Fork) -> String {
        let name = self.name_of(key);
        let signed = match fork {
            Fork::Reports => "two different reports of one version".to_owned(),
            Fork::Statements(seq) => format!("two different statements numbered {seq}"),
            Fork::Changes(seq) => format!("two different edits numbered {seq}"),
        };
        let places = self.places(key);
        let short = key.short();
        // A node that joined again has the same name.
        let member = self.replica.authority().by_key(key);
        let node = member.map_or_else(|| name.clone(), |member| member.id.short());
        format!(
            "the key {short} of node {name} is in use in two places{places}: it signed {signed}. Neither may send, receive or decide any more. Revoke it with `dunlin node revoke {node}`, and join again on the machine that is to stay"
        )
    }

    /// The hosts of both reports, or of the one that is known.
    fn places(&self, key: &PublicKey) -> String {
        let reports = self.replica.reports();
        let Some(member) = self.replica.authority().by_key(key) else {
            return String::new();
        };
        let host = |report: &crdt::Report| {
            let address = report.listen.first().map(|at| format!(" at {at}"));
            format!("{}{}", report.hostname, address.unwrap_or_default())
        };
        match (reports.fork_of(&member.id), reports.get(&member.id)) {
            (Some([one, other]), _) => format!(", {} and {}", host(&one), host(&other)),
            (None, Some(report)) => format!(", one of them {}", host(report)),
            (None, None) => String::new(),
        }
    }

    fn made_again(&self, made: &[EntryId], lost: &[EntryId]) -> String {
        let names = |ids: &[EntryId]| {
            let names = ids.iter().map(|id| match id {
                EntryId::Migration(id) => self.migration_name(id),
                EntryId::Server(id) => self.server_name(id),
                EntryId::Limit(of) => format!("the limit of {}", self.limited_name(of)),
            });
            names.collect::<Vec<_>>().join(", ")
        };
        let mut text = "edits of this node rested on edits that do not count any more".to_owned();
        if !made.is_empty() {
            text += &format!("; made again: those of {}", names(made));
        }
        if !lost.is_empty() {
            text += &format!(
                "; lost: those of {}, which is deleted or was never planned by who may: plan it anew where it is still wanted",
                names(lost)
            );
        }
        text
    }

    fn server_name(&self, id: &ServerId) -> String {
        let plan = self.replica.document().plan().servers.get(id);
        plan.map_or_else(|| id.to_string(), |server| server.name.clone())
    }

    fn limited_name(&self, of: &Limited) -> String {
        match of {
            Limited::Server(id) => format!("server {}", self.node_name(id)),
            Limited::Site(_) => of.to_string(),
        }
    }

    fn migration_name(&self, id: &MigrationId) -> String {
        let plan = self.replica.document().plan().migrations.get(id);
        plan.map_or_else(|| id.to_string(), |plan| plan.name.clone())
    }

    /// Tells of each conflict once, and once that it is settled.
    pub(super) fn tell_conflicts(&mut self) {
        for apart in self.conflicts.look(self.replica.document().plan()) {
            let note = self.conflict_note(&apart);
            let migration = match apart.entry {
                EntryId::Migration(id) => Some(id),
                EntryId::Server(_) | EntryId::Limit(_) => None,
            };
            self.tell(migration, note);
        }
    }

    fn conflict_note(&self, apart: &Apart) -> Note {
        let value = |text: &String| shown_value(text, |node| self.node_name(node));
        let holds = value(&apart.holds);
        let field = match &apart.entry {
            EntryId::Limit(of) => format!("the limit of {}", self.limited_name(of)),
            EntryId::Migration(_) | EntryId::Server(_) => apart.field.clone(),
        };
        if apart.values.is_empty() {
            let text = format!("{field} is settled: {holds}");
            return Note::info("conflict-settled", text);
        }
        let values: Vec<String> = apart.values.iter().map(value).collect();
        let text = format!(
            "operators set {field} apart from each other, to {}; {holds} holds everywhere: {}. A new edit settles it",
            values.join(" and to "),
            apart.why()
        );
        Note::warn("conflict", text)
    }

    fn node_name(&self, node: &NodeId) -> String {
        let member = self.replica.authority().member(node);
        member.map_or_else(|| node.short(), |member| member.name.to_string())
    }
}

/// Who is no operator any more makes nothing again.
fn orphaned(changes: usize, lost: usize) -> String {
    let what = format!(
        "{changes} edits of the plan no longer count, because they rest on edits of an operator that was revoked or cloned"
    );
    let again = "the authors' nodes make them again where they still apply";
    let anew = "the authors are no operators any more: plan anew what is still wanted";
    match changes.saturating_sub(lost) {
        left if left == changes => format!("{what}; {again}"),
        0 => format!("{what}; {anew}"),
        left => format!("{what}; of {lost} of them {anew}; of the other {left}, {again}"),
    }
}

/// A value of a field for people: ids of nodes as their names.
pub fn shown_value(text: &str, name: impl Fn(&NodeId) -> String) -> String {
    let words = text.split(',').map(|word| match word.parse::<NodeId>() {
        Ok(node) => name(&node),
        Err(_) => word.to_owned(),
    });
    words.collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::orphaned;

    #[test]
    fn edits_are_made_again_only_where_somebody_is_left_who_may() {
        let (again, anew) = ("make them again", "plan anew");
        for (lost, has_again, has_anew) in [(0, true, false), (3, false, true), (1, true, true)] {
            let text = orphaned(3, lost);
            let found = (text.contains(again), text.contains(anew));
            assert_eq!(found, (has_again, has_anew), "{text}");
        }
        assert!(orphaned(3, 1).contains("of 1 of them"));
    }
}
