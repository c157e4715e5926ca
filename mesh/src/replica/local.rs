//! What this node makes itself: founding a mesh and recovering one, stating, changing
//! its key, editing, reporting, and coming back after a restart.
//!
//! Everything here ends in a `Store` followed by an announcement.

use super::absorb::News;
use super::own::Own;
use super::pace::Pace;
use super::{Changed, Output, Record, Replica};
use crate::enrol::Admission as Challenges;
use crate::sync::Announcement;
use crdt::{
    CorruptLog, Document, Edit, EditError, Report, ReportOutcome, Reports, SignedChange, Snapshot,
};
use keys::ledger::Refused;
use keys::rotation::Change;
use keys::statement::{Admission, Enrolment, Entry, Genesis, Position, Rotation};
use keys::{
    Denied, Domain, Identity, Ledger, Name, NodeId, PublicKey, Role, Roles, Scope, Signed,
    Statement, StatementId, UnixSecs,
};
use std::collections::{BTreeMap, BTreeSet};

/// What a new mesh is founded with.
#[derive(Debug, Clone)]
pub struct Founding {
    /// The mesh's name.
    pub mesh: Name,
    /// The first node's name.
    pub node: Name,
    /// Roles of the first node beside operator.
    pub roles: Roles,
    /// Where it is.
    pub site: Option<Name>,
    /// Random.
    pub nonce: [u8; 16],
}

/// What an operator that is made with the root key is to be.
#[derive(Debug, Clone)]
pub struct Recovering {
    /// Its name.
    pub node: Name,
    /// Its roles beside operator.
    pub roles: Roles,
    /// Where it is.
    pub site: Option<Name>,
}

/// Why a statement could not be made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StateError {
    /// This node is no operator.
    #[error("this node is not an operator of the mesh: run the command on an operator's node")]
    NotOperator,
    /// Only a root key may state it, and none is here.
    #[error(
        "only the mesh's root key may do this, and it is not in this node's folder: give the file with --root-key FILE"
    )]
    NeedsRoot,
    /// The key given is no root key of this mesh.
    #[error("the key given is not the root key of this mesh")]
    AnotherRoot,
    /// It would count for nothing.
    #[error(
        "this node is an operator for {scope} only, and what it says about other sites counts for nothing: run the command on another operator's node"
    )]
    OutOfScope {
        /// Where its word counts.
        scope: Scope,
    },
    /// This node's key is not one that it could change.
    #[error("this node's key cannot be changed: it is not one that the mesh admits")]
    NotAdmitted,
    /// Its key is known to be in two places.
    #[error(
        "this node's key is in use in two places, and nothing that it signs now can be trusted: revoke its enrolment, and join again on the machine that is to stay"
    )]
    Cloned,
    /// It has not heard yet how far its own log goes.
    #[error(
        "this node has not heard from any peer since it started, and a statement might fork its log"
    )]
    Unheard,
    /// It does not encode, e.g. a text is too long.
    #[error(transparent)]
    Encode(#[from] codec::EncodeError),
    /// The ledger's own rules refuse it.
    #[error(transparent)]
    Refused(#[from] Refused),
}

impl Replica {
    /// Founds a mesh; the records are to be stored before anything else happens.
    pub fn found(
        identity: Identity,
        root: Identity,
        founding: Founding,
        wall: UnixSecs,
    ) -> Result<(Self, Vec<Record>), StateError> {
        let genesis = Entry {
            seq: 1,
            previous: None,
            mesh: None,
            at: wall,
            statement: Statement::Genesis(Genesis {
                name: founding.mesh,
                roots: vec![root.public()],
                nonce: founding.nonce,
            }),
        };
        let genesis = Signed::seal(&root, Domain::Statement, &genesis)?;
        let ledger = Ledger::found(genesis.clone())?;
        let mut replica = Self::restore(identity, Some(root), ledger, vec![], vec![])
            .expect("an empty log is not corrupt");
        let roles: Roles = founding.roles.iter().chain([Role::Operator]).collect();
        let enrolment = Statement::Enrolment(Enrolment {
            subject: replica.my_key(),
            name: founding.node,
            roles,
            site: founding.site,
            not_after: None,
            scope: Scope::Everywhere,
            admission: Admission::Root,
        });
        let root = replica.root.clone().expect("it was just given");
        let (_, signed) = replica.sign(&root, wall, enrolment)?;
        replica.authority = keys::authority::authority(&replica.ledger);
        replica.write_unheard();
        let records = vec![Record::Statement(genesis), Record::Statement(signed)];
        Ok((replica, records))
    }

    /// Makes `identity` an operator with the root key, going on from what a member told
    /// (see [`crate::Recoverer`]). The records are to be stored before anything else
    /// happens; then the node introduces itself. The root key is not kept.
    pub fn recover(
        identity: Identity,
        root: &Identity,
        ledger: Ledger,
        recovering: Recovering,
        wall: UnixSecs,
    ) -> Result<(Self, Vec<Record>), StateError> {
        if !ledger.roots().contains(&root.public()) {
            return Err(StateError::AnotherRoot);
        }
        let mut replica = Self::restore(identity, None, ledger, vec![], vec![])
            .expect("an empty log is not corrupt");
        let roles = recovering.roles.iter().chain([Role::Operator]);
        let enrolment = Statement::Enrolment(Enrolment {
            subject: replica.my_key(),
            name: recovering.node,
            roles: roles.collect(),
            site: recovering.site,
            not_after: None,
            scope: Scope::Everywhere,
            admission: Admission::Root,
        });
        replica.sign(root, wall, enrolment)?;
        replica.authority = keys::authority::authority(&replica.ledger);
        let genesis = StatementId(replica.ledger.mesh().0);
        let mut records: Vec<_> = replica.ledger.iter().collect();
        records.sort_by_key(|(id, _)| **id != genesis);
        let records = records.into_iter();
        let records = records.map(|(_, recorded)| Record::Statement(recorded.signed.clone()));
        let records = records.collect();
        Ok((replica, records))
    }

    /// Comes back with what was stored. Changes and reports were verified before they
    /// were stored and are not verified again.
    ///
    /// It writes nothing of its own before it has heard how far its own logs go: see
    /// [`Replica::may_write`].
    pub fn restore(
        identity: Identity,
        root: Option<Identity>,
        ledger: Ledger,
        changes: Vec<SignedChange>,
        reports: Vec<Signed>,
    ) -> Result<Self, CorruptLog> {
        Self::restore_from(identity, root, ledger, changes, None, reports)
    }

    /// As [`Replica::restore`], with the document's snapshot where one was stored.
    pub fn restore_from(
        identity: Identity,
        root: Option<Identity>,
        ledger: Ledger,
        changes: Vec<SignedChange>,
        snapshot: Option<&Snapshot>,
        reports: Vec<Signed>,
    ) -> Result<Self, CorruptLog> {
        let authority = keys::authority::authority(&ledger);
        let document = Document::load(ledger.mesh(), changes, snapshot, &authority)?;
        let mut kept = Reports::new();
        for signed in reports {
            // A report that does not decode is an older format: its node sends a new one.
            let _ = kept.restore(signed);
        }
        let me = authority.by_key(&identity.public());
        let published = me.and_then(|me| kept.get(&me.id));
        let published = published.map_or(0, |report| report.version);
        // The store keeps the reports of nodes that were revoked since; nobody else does.
        kept.drop_departed(&authority, UnixSecs(0));
        let mut replica = Self::of(identity, root, ledger, document, kept);
        replica.published = published;
        Ok(replica)
    }

    /// Of parts that were loaded, and belong together.
    pub fn of(
        identity: Identity,
        root: Option<Identity>,
        ledger: Ledger,
        document: Document,
        reports: Reports,
    ) -> Self {
        let mut replica = Self {
            identity,
            root,
            authority: keys::authority::authority(&ledger),
            document,
            reports,
            ledger,
            parked: vec![],
            parked_at: 0,
            admission: Challenges::default(),
            peers: BTreeMap::new(),
            published: 0,
            own: Own::default(),
            pace: Pace::default(),
            next_expiry: UnixSecs(0),
            alarmed: BTreeSet::new(),
        };
        replica.raise_forks(&mut vec![]);
        replica.hear(0);
        replica
    }

    /// Makes, stores and announces a statement signed by this operator, or by the root
    /// key where only that may state it and it is here.
    pub fn state(
        &mut self,
        wall: UnixSecs,
        statement: Statement,
        out: &mut Vec<Output>,
    ) -> Result<StatementId, StateError> {
        if !self.own.heard {
            return Err(StateError::Unheard);
        }
        let signer = self.signer_of(wall, &statement)?;
        self.make(&signer, wall, statement, out)
    }

    /// With which key this operator makes a statement, if it may.
    pub(super) fn signer_of(
        &self,
        wall: UnixSecs,
        statement: &Statement,
    ) -> Result<Identity, StateError> {
        let root_alone = self.root_alone_states(statement);
        if root_alone && let Some(root) = self.root.clone() {
            return Ok(root);
        }
        let me = self.my_key();
        let takes_back = matches!(statement, Statement::Revocation(_));
        match self.authority.standing(wall, &me, Role::Operator) {
            Ok(_) => {}
            // What stops something cannot do harm, whoever holds the key as well.
            Err(Denied::Cloned(_)) if takes_back => {}
            Err(Denied::Cloned(_)) => return Err(StateError::Cloned),
            Err(_) => return Err(StateError::NotOperator),
        }
        if root_alone {
            return Err(StateError::NeedsRoot);
        }
        self.within_scope(statement)?;
        Ok(self.identity.clone())
    }

    /// Makes, stores and announces a statement signed by a root key that is lent for it.
    pub fn state_as_root(
        &mut self,
        root: &Identity,
        wall: UnixSecs,
        statement: Statement,
        out: &mut Vec<Output>,
    ) -> Result<StatementId, StateError> {
        if !self.authority.is_root(&root.public()) {
            return Err(StateError::AnotherRoot);
        }
        self.make(root, wall, statement, out)
    }

    /// Gives this node its next key. From then on it has nothing more to say with the
    /// one it had: it comes back with `next` from what was stored.
    pub fn rotate(
        &mut self,
        next: &Identity,
        wall: UnixSecs,
        out: &mut Vec<Output>,
    ) -> Result<StatementId, StateError> {
        let from = self.my_key();
        if self.authority.is_cloned(&from) {
            return Err(StateError::Cloned);
        }
        let node = self.me().filter(|_| self.authority.admits(wall, &from));
        let node = node.ok_or(StateError::NotAdmitted)?;
        let change = Change {
            mesh: self.ledger.mesh(),
            node,
            from,
            to: next.public(),
        };
        let last = self.document.heads().get(&from).copied();
        let rotation = Statement::Rotation(Rotation {
            node,
            key: next.public(),
            proof: change.prove(next),
            honour_changes: last.unwrap_or(Position::NONE),
        });
        let identity = self.identity.clone();
        self.make(&identity, wall, rotation, out)
    }

    fn make(
        &mut self,
        signer: &Identity,
        wall: UnixSecs,
        statement: Statement,
        out: &mut Vec<Output>,
    ) -> Result<StatementId, StateError> {
        if !self.own.heard {
            return Err(StateError::Unheard);
        }
        let (id, signed) = self.sign(signer, wall, statement)?;
        let mut records = vec![Record::Statement(signed.clone())];
        let mut alarms = vec![];
        let plan = self.authority_changed(wall, &mut records, &mut alarms);
        out.push(Output::Store(records));
        out.extend(alarms.into_iter().map(Output::Raise));
        self.announce(News::statements(vec![signed]), out);
        out.push(Output::Changed(Changed {
            ledger: true,
            plan,
            reports: false,
        }));
        self.make_again(wall, out);
        Ok(id)
    }

    /// Whether a statement counts only when a root key signs it: what makes operators,
    /// and what takes back an operator or something that is not this node's.
    pub fn root_alone_states(&self, statement: &Statement) -> bool {
        match statement {
            Statement::Invite(invite) => {
                invite.roles.has(Role::Operator) || invite.admitter != self.my_key()
            }
            Statement::Revocation(revocation) => {
                let Some(target) = self.ledger.get(&revocation.target) else {
                    return true;
                };
                let operator = matches!(&target.entry.statement,
                    Statement::Enrolment(enrolment) if enrolment.roles.has(Role::Operator));
                operator || !self.is_mine(&target.signed.signer)
            }
            _ => false,
        }
    }

    /// Whether this key is or was this node's.
    fn is_mine(&self, key: &PublicKey) -> bool {
        *key == self.my_key() || self.me().is_some_and(|me| self.authority.is_node(me, *key))
    }

    /// Whether a statement of this operator would count for something.
    pub fn within_scope(&self, statement: &Statement) -> Result<(), StateError> {
        let me = self.authority.by_key(&self.my_key());
        match me.map(|member| &member.scope) {
            Some(scope) if !self.inside(scope, statement) => Err(StateError::OutOfScope {
                scope: scope.clone(),
            }),
            _ => Ok(()),
        }
    }

    /// Whether what a statement is about lies within `scope`; see the authority's strata.
    fn inside(&self, scope: &Scope, statement: &Statement) -> bool {
        match statement {
            Statement::Invite(invite) => scope.has(invite.site.as_ref()),
            Statement::Enrolment(enrolment) => {
                enrolment.roles.has(Role::Operator) || scope.has(enrolment.site.as_ref())
            }
            Statement::Grant(grant) => {
                let there = |node: &NodeId| {
                    let member = self.authority.member(node);
                    scope.has(member.and_then(|member| member.site.as_ref()))
                };
                there(&grant.agent) && grant.replicators.iter().all(there)
            }
            _ => true,
        }
    }

    fn sign(
        &mut self,
        signer: &Identity,
        wall: UnixSecs,
        statement: Statement,
    ) -> Result<(StatementId, Signed), StateError> {
        let signed = append(&mut self.ledger, signer, wall, statement)?;
        Ok((signed.statement_id(), signed))
    }

    /// Makes, stores and announces one change of the plan.
    pub fn edit(
        &mut self,
        wall: UnixSecs,
        change: impl FnOnce(&mut Edit<'_>) -> Result<(), EditError>,
        out: &mut Vec<Output>,
    ) -> Result<(), EditError> {
        let identity = self.identity.clone();
        if !self.own.heard {
            return Err(EditError::Unheard);
        }
        if self.authority.is_cloned(&identity.public()) {
            return Err(EditError::Cloned(identity.public()));
        }
        let made = self
            .document
            .edit(&identity, wall, &self.authority, change)?;
        let Some(made) = made else { return Ok(()) };
        let heads = self.document.heads();
        let seq = heads.get(&identity.public()).map_or(1, |head| head.seq);
        out.push(Output::Store(vec![Record::Change(seq, made.clone())]));
        self.announce(News::changes(vec![made]), out);
        out.push(Output::Changed(Changed {
            plan: true,
            ..Changed::default()
        }));
        Ok(())
    }

    /// Stores and announces this node's report under the next version. While
    /// [`Replica::may_write`] says no, nothing is done.
    pub fn publish(
        &mut self,
        wall: UnixSecs,
        mut report: Report,
        out: &mut Vec<Output>,
    ) -> Result<(), StateError> {
        let Some(me) = self.me().filter(|_| self.own.heard) else {
            return Ok(());
        };
        report.node = me;
        report.at = wall;
        let shown = self.reports.get(&me).map_or(0, |old| old.version);
        report.version = self.published.max(shown) + 1;
        report.follows = self.own.follows(self.reports.hash(&me));
        let signed = report.seal(&self.identity)?;
        let offered = self.reports.offer(signed.clone(), &self.authority, wall);
        // A node that was revoked or has expired has nothing to say any more.
        if !matches!(offered, ReportOutcome::New(_)) {
            return Ok(());
        }
        self.published = self.reports.get(&me).map_or(0, |new| new.version);
        self.own.last = signed.open_stored().ok();
        self.own.made(self.reports.hash(&me));
        out.push(Output::Store(vec![Record::Report(me, signed.clone())]));
        self.announce(News::reports(vec![signed]), out);
        out.push(Output::Changed(Changed {
            reports: true,
            ..Changed::default()
        }));
        Ok(())
    }

    /// Announces with the content where it fits, and by heads alone where it does not.
    pub(super) fn announce(&self, news: News, out: &mut Vec<Output>) {
        let News {
            statements,
            changes,
            reports,
            evidence,
        } = news;
        let announcement = Announcement {
            heads: self.heads(),
            statements,
            changes,
            reports,
            evidence,
        };
        out.push(Output::Announce(announcement.cut()));
    }
}

/// Adds a statement to the end of its signer's log.
pub(super) fn append(
    ledger: &mut Ledger,
    signer: &Identity,
    wall: UnixSecs,
    statement: Statement,
) -> Result<Signed, StateError> {
    let (seq, previous) = ledger.next_position(&signer.public());
    let entry = Entry {
        seq,
        previous,
        mesh: Some(ledger.mesh()),
        at: wall,
        statement,
    };
    let signed = Signed::seal(signer, Domain::Statement, &entry)?;
    ledger.insert(signed.clone())?;
    Ok(signed)
}
