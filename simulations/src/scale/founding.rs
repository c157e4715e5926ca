//! How a mesh of many nodes is made: its operators, its nodes, their reports, and what
//! operators did while others were away.
//!
//! The nodes share what they hold in common, so that a thousand fit in memory. Not
//! here: how they talk (`crowd`).

use super::crowd::Crowd;
use crate::node::BEGINNING;
use crate::rng::Rng;
use crdt::{Desired, MigrationPlan, Report};
use keys::invite::Token;
use keys::statement::{Admission, Enrolment, Entry, Grant, Invite};
use keys::{
    Domain, Identity, MigrationId, Name, NodeId, Role, Scope, Signed, Statement, StatementId,
};
use keys::{PublicKey, UnixSecs, VolumeId};
use mesh::{Announcement, Founding, Input, JoinStep, Joiner, Output, Replica};
use std::collections::BTreeSet;

/// Servers that are planned before anything else happens; what people edit.
pub const PLANS: usize = 50;
/// When everything is made.
const AT: UnixSecs = UnixSecs(BEGINNING);

/// A mesh at its beginning.
pub struct Founded {
    /// The first operator, who knows all.
    pub founder: Replica,
    root: Identity,
    /// The keys of all nodes, operators first; the first is the founder's.
    pub identities: Vec<Identity>,
    /// Of which so many are operators.
    pub operators: usize,
}

impl Founded {
    /// A mesh of some nodes, with a report of each and some plans.
    pub fn new(rng: &mut Rng, nodes: usize, operators: usize) -> Self {
        let identities: Vec<Identity> = (0..nodes)
            .map(|_| Identity::from_seed(&rng.bytes()))
            .collect();
        let root = Identity::from_seed(&rng.bytes());
        let founding = Founding {
            mesh: name("sim"),
            node: name("n0"),
            roles: [Role::Provisioner].into_iter().collect(),
            site: None,
            nonce: rng.bytes(),
        };
        let founded = Replica::found(identities[0].clone(), root.clone(), founding, AT);
        let (founder, _) = founded.expect("the founding statements are within their limits");
        let mut founded = Self {
            founder,
            root,
            identities,
            operators,
        };
        for at in 1..operators {
            founded.enrol_operator(at);
        }
        let uses = u16::try_from(nodes).expect("fewer nodes than uses");
        let token = invite(&mut founded.founder, rng, uses, &mut vec![]);
        for at in operators..nodes {
            let identity = founded.identities[at].clone();
            enrol(&mut founded.founder, &identity, &token, rng);
        }
        let reports = founded.identities.iter().map(|identity| {
            let report = report_of(&founded.founder, identity, 1);
            report.seal(identity).expect("a small report")
        });
        let reports = reports.collect();
        founded.take(Announcement {
            reports,
            ..Announcement::default()
        });
        for id in 0..PLANS {
            founded.plan(id);
        }
        founded
    }

    fn enrol_operator(&mut self, at: usize) {
        let statement = Statement::Enrolment(Enrolment {
            subject: self.identities[at].public(),
            name: name(&format!("n{at}")),
            roles: [Role::Operator].into_iter().collect(),
            site: None,
            scope: Scope::Everywhere,
            not_after: None,
            admission: Admission::Root,
        });
        let (seq, previous) = self.founder.ledger().next_position(&self.root.public());
        let entry = Entry {
            seq,
            previous,
            mesh: Some(self.founder.ledger().mesh()),
            at: AT,
            statement,
        };
        let signed = Signed::seal(&self.root, Domain::Statement, &entry);
        let statements = vec![signed.expect("a small statement")];
        self.take(Announcement {
            statements,
            ..Announcement::default()
        });
    }

    fn take(&mut self, announcement: Announcement) {
        let via = self.identities[0].public();
        let input = Input::Announced { via, announcement };
        self.founder.step(AT, 0, input, &mut vec![]);
    }

    fn plan(&mut self, id: usize) {
        let me = self.founder.me().expect("the founder is enrolled");
        let plan = MigrationPlan {
            id: migration(id),
            name: format!("server-{id}"),
            source: me,
            volumes: vec![VolumeId([1; 16])],
            provider: "local".into(),
            provisioner: me,
            replicators: vec![me],
            site: None,
            desired: Desired::Created,
            grants: vec![],
            hooks: vec![],
            leave_out: None,
            checkpoints: crdt::Checkpoints::default(),
            created_at: AT,
            created_by: self.founder.my_key(),
            conflicts: vec![],
        };
        let edited = self
            .founder
            .edit(AT, |edit| edit.create_migration(&plan), &mut vec![]);
        edited.expect("the founder is an operator");
    }

    /// A node that holds what another one holds.
    pub fn twin(&self, at: usize, other: &Replica) -> Replica {
        let identity = self.identities[at].clone();
        let root = (at == 0).then(|| self.root.clone());
        let (ledger, document) = (other.ledger().clone(), other.document().clone());
        let mut twin = Replica::of(identity, root, ledger, document, other.reports().clone());
        // Its key is new: there is nothing to hear of what it wrote before.
        twin.write_unheard();
        twin
    }
}

/// A mesh in which everybody holds the same, and has found its neighbours.
pub fn settled(founded: &Founded, seed: u64) -> Crowd {
    let mut crowd = Crowd::new(seed);
    for at in 0..founded.identities.len() {
        crowd.add(founded.twin(at, &founded.founder));
    }
    crowd.run(30_000, |_| false);
    crowd
}

/// The report of a node.
pub fn report_of(replica: &Replica, identity: &Identity, version: u64) -> Report {
    let member = replica.authority().by_key(&identity.public());
    let id = member.map_or(NodeId([0; 32]), |member| member.id);
    let mut report = Report::new(id, version, AT);
    report.hostname = "host".into();
    report.listen = vec!["/ip4/10.0.0.1/tcp/4001".into()];
    report
}

/// An operator's invite for some nodes.
pub fn invite(op: &mut Replica, rng: &mut Rng, uses: u16, out: &mut Vec<Output>) -> Token {
    let seed = rng.bytes();
    let not_after = UnixSecs(BEGINNING + 1_000_000);
    let statement = Statement::Invite(Invite {
        key: Identity::from_seed(&seed).public(),
        roles: [Role::Agent, Role::Replicator].into_iter().collect(),
        name: None,
        site: None,
        not_after,
        uses,
        admitter: op.my_key(),
        scope: Scope::Everywhere,
        member_until: None,
    });
    let stated = op.state(AT, statement, out);
    Token {
        mesh: op.ledger().mesh(),
        invite: stated.expect("an operator's statement"),
        admitter: op.my_key(),
        addresses: vec![],
        not_after,
        seed,
    }
}

/// A stranger enrols at `op`; what it starts with, and what `op` does.
pub fn enrol(
    op: &mut Replica,
    identity: &Identity,
    token: &Token,
    rng: &mut Rng,
) -> (Replica, Vec<Output>) {
    let joiner = Joiner::new(token.clone(), identity.clone(), name("node"));
    let mut request = joiner.start();
    let mut all = vec![];
    loop {
        let input = Input::Enrol {
            from: identity.public(),
            request,
            nonce: rng.bytes(),
            reply: 0,
        };
        op.step(AT, 0, input, &mut all);
        let Some(Output::AnswerEnrol { answer, .. }) = all.pop() else {
            panic!("an enrolment is answered last");
        };
        match joiner.answered(answer) {
            Ok(JoinStep::Send(next)) => request = next,
            Ok(JoinStep::Done(ledger)) => {
                let replica = Replica::restore(identity.clone(), None, *ledger, vec![], vec![]);
                let mut replica = replica.expect("nothing to be corrupt");
                replica.write_unheard();
                return (replica, all);
            }
            Err(error) => panic!("an open invite enrols: {error}"),
        }
    }
}

/// States a grant.
pub fn grant(op: &mut Replica, number: u64, out: &mut Vec<Output>) -> StatementId {
    let me = op.me().expect("an operator is enrolled");
    let grant = Statement::Grant(Grant {
        migration: migration(0),
        agent: me,
        replicators: vec![me],
        volumes: vec![VolumeId([1; 16])],
        not_after: UnixSecs(BEGINNING + 1_000_000 + number),
        lease_secs: 3_600,
        autonomy_secs: 0,
        dedup_group: None,
    });
    op.state(AT, grant, out).expect("an operator's statement")
}

/// Edits by several operators who hear of each other now and then.
pub fn edit_apart(operators: &mut [Replica], edits: usize, word: &str) {
    for number in 0..edits {
        let at = number / 10 % operators.len();
        let id = migration(number * 7 % PLANS);
        let text = format!("{word}-{number}");
        let mut out = vec![];
        let edited = operators[at].edit(AT, |edit| edit.rename(id, &text), &mut out);
        edited.expect("an operator edits");
        for output in out {
            let Output::Announce(announcement) = output else {
                continue;
            };
            let via = operators[at].my_key();
            for other in (0..operators.len()).filter(|other| *other != at) {
                let announcement = announcement.clone();
                let input = Input::Announced { via, announcement };
                operators[other].step(AT, 0, input, &mut vec![]);
            }
        }
    }
}

/// How many bytes the change log of a document has.
pub fn log_bytes(replica: &Replica) -> usize {
    let authors: BTreeSet<PublicKey> = replica.document().heads().into_keys().collect();
    let changes = authors
        .iter()
        .flat_map(|author| replica.document().entries_after(author, 0, usize::MAX));
    changes.map(|change| change.raw.len()).sum()
}

fn migration(number: usize) -> MigrationId {
    let mut id = [0; 16];
    id[..8].copy_from_slice(&(number as u64).to_le_bytes());
    MigrationId(id)
}

fn name(text: &str) -> Name {
    Name::new(text).expect("letters and digits")
}
