//! A mesh for the tests: a root key, operators enrolled by it, and revocations.
#![allow(clippy::unwrap_used)]

use keys::authority::authority;
use keys::ledger::Inserted;
use keys::rotation::Change;
use keys::statement::{Admission, Enrolment, Entry, Genesis, Honoured, Position, Rotation};
use keys::{
    Authority, Domain, Identity, Ledger, MeshId, Name, NodeId, Revocation, Role, Scope, Signed,
    Statement, StatementId, UnixSecs,
};

pub(crate) const NOW: UnixSecs = UnixSecs(1_000);

pub(crate) struct World {
    pub(crate) ledger: Ledger,
    root: Identity,
}

pub(crate) fn key(seed: u8) -> Identity {
    Identity::from_seed(&[seed; 32])
}

fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

impl World {
    /// A mesh whose operators have keys of these seeds.
    pub(crate) fn of(operators: &[u8]) -> Self {
        let root = key(200);
        let entry = Entry {
            seq: 1,
            previous: None,
            mesh: None,
            at: NOW,
            statement: Statement::Genesis(Genesis {
                name: name("test"),
                roots: vec![root.public()],
                nonce: [1; 16],
            }),
        };
        let genesis = Signed::seal(&root, Domain::Statement, &entry).unwrap();
        let mut world = Self {
            ledger: Ledger::found(genesis).unwrap(),
            root,
        };
        for seed in operators {
            world.enrol(*seed, Role::Operator);
        }
        world
    }

    pub(crate) fn mesh(&self) -> MeshId {
        self.ledger.mesh()
    }

    pub(crate) fn authority(&self) -> Authority {
        authority(&self.ledger)
    }

    pub(crate) fn enrol(&mut self, seed: u8, role: Role) -> NodeId {
        self.enrol_until(seed, role, None)
    }

    pub(crate) fn enrol_until(
        &mut self,
        seed: u8,
        role: Role,
        not_after: Option<UnixSecs>,
    ) -> NodeId {
        let enrolment = Enrolment {
            subject: key(seed).public(),
            name: name("node"),
            roles: [role].into_iter().collect(),
            site: None,
            not_after,
            scope: Scope::Everywhere,
            admission: Admission::Root,
        };
        self.state(Statement::Enrolment(enrolment)).into()
    }

    pub(crate) fn revoke(&mut self, seed: u8, honour_changes: Option<Position>) {
        let authority = self.authority();
        let target = authority.by_key(&key(seed).public()).unwrap().id.into();
        let revocation = Revocation {
            target,
            honours: honour_changes.map(|changes| Honoured {
                key: key(seed).public(),
                statements: Position::NONE,
                changes,
            }),
            reason: String::new(),
        };
        self.state(Statement::Revocation(revocation));
    }

    /// Gives the node whose key is that of `from` the key of `to`.
    pub(crate) fn rotate(&mut self, from: u8, to: u8, honour_changes: Position) {
        let node = self.authority().by_key(&key(from).public()).unwrap().id;
        let change = Change {
            mesh: self.mesh(),
            node,
            from: key(from).public(),
            to: key(to).public(),
        };
        let rotation = Rotation {
            node,
            key: key(to).public(),
            proof: change.prove(&key(to)),
            honour_changes,
        };
        self.sign(&key(from), Statement::Rotation(rotation));
    }

    fn state(&mut self, statement: Statement) -> StatementId {
        self.sign(&self.root.clone(), statement)
    }

    fn sign(&mut self, signer: &Identity, statement: Statement) -> StatementId {
        let (seq, previous) = self.ledger.next_position(&signer.public());
        let entry = Entry {
            seq,
            previous,
            mesh: Some(self.ledger.mesh()),
            at: NOW,
            statement,
        };
        let signed = Signed::seal(signer, Domain::Statement, &entry).unwrap();
        match self.ledger.insert(signed).unwrap() {
            Inserted::New(id) => id,
            Inserted::Known => panic!("stated twice"),
        }
    }
}
