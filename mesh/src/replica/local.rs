//! What this node makes itself: founding a mesh, stating, editing, reporting, and
//! coming back after a restart.
//!
//! Everything here ends in a `Store` followed by an announcement.

use super::{Changed, Output, Record, Replica};
use crate::enrol::Admission as Challenges;
use crate::sync::Announcement;
use crdt::{
    CorruptLog, Document, Edit, EditError, Report, ReportOutcome, Reports, SignedChange, Snapshot,
};
use keys::ledger::Refused;
use keys::statement::{Admission, Enrolment, Entry, Genesis};
use keys::{Domain, Identity, Ledger, Name, Role, Roles, Signed, Statement, StatementId, UnixSecs};
use std::collections::BTreeMap;

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

/// Why a statement could not be made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StateError {
    /// This node is no operator.
    #[error("this node is not an operator of the mesh: run the command on an operator's node")]
    NotOperator,
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
            admission: Admission::Root,
        });
        let root = replica.root.clone().expect("it was just given");
        let (_, signed) = replica.sign(&root, wall, enrolment)?;
        replica.authority = keys::authority::authority(&replica.ledger);
        let records = vec![Record::Statement(genesis), Record::Statement(signed)];
        Ok((replica, records))
    }

    /// Comes back with what was stored. Changes and reports were verified before they
    /// were stored and are not verified again.
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
        // The store keeps the reports of nodes that were revoked since; nobody else does.
        kept.drop_departed(&authority, UnixSecs(0));
        Ok(Self::of(identity, root, ledger, document, kept))
    }

    /// Of parts that were loaded, and belong together.
    pub fn of(
        identity: Identity,
        root: Option<Identity>,
        ledger: Ledger,
        document: Document,
        reports: Reports,
    ) -> Self {
        Self {
            identity,
            root,
            authority: keys::authority::authority(&ledger),
            document,
            reports,
            ledger,
            parked: vec![],
            admission: Challenges::default(),
            peers: BTreeMap::new(),
        }
    }

    /// Makes, stores and announces a statement signed by this operator.
    pub fn state(
        &mut self,
        wall: UnixSecs,
        statement: Statement,
        out: &mut Vec<Output>,
    ) -> Result<StatementId, StateError> {
        let me = self.my_key();
        self.authority
            .standing(wall, &me, Role::Operator)
            .map_err(|_| StateError::NotOperator)?;
        let signer = self.signer_for(&statement);
        let (id, signed) = self.sign(&signer, wall, statement)?;
        let mut records = vec![Record::Statement(signed.clone())];
        let mut alarms = vec![];
        let plan = self.authority_changed(wall, &mut records, &mut alarms);
        out.push(Output::Store(records));
        out.extend(alarms.into_iter().map(Output::Raise));
        self.announce(vec![signed], vec![], vec![], out);
        out.push(Output::Changed(Changed {
            ledger: true,
            plan,
            reports: false,
        }));
        Ok(id)
    }

    /// The operator's own key, or the root key for what only it may take back.
    fn signer_for(&self, statement: &Statement) -> Identity {
        let Statement::Revocation(revocation) = statement else {
            return self.identity.clone();
        };
        let target = self.ledger.get(&revocation.target);
        let mine = target.is_some_and(|target| target.signed.signer == self.my_key());
        match &self.root {
            Some(root) if !mine => root.clone(),
            _ => self.identity.clone(),
        }
    }

    fn sign(
        &mut self,
        signer: &Identity,
        wall: UnixSecs,
        statement: Statement,
    ) -> Result<(StatementId, Signed), StateError> {
        let (seq, previous) = self.ledger.next_position(&signer.public());
        let entry = Entry {
            seq,
            previous,
            mesh: Some(self.ledger.mesh()),
            at: wall,
            statement,
        };
        let signed = Signed::seal(signer, Domain::Statement, &entry)?;
        self.ledger.insert(signed.clone())?;
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
        let made = self
            .document
            .edit(&identity, wall, &self.authority, change)?;
        let Some(made) = made else { return Ok(()) };
        let heads = self.document.heads();
        let seq = heads.get(&identity.public()).map_or(1, |head| head.seq);
        out.push(Output::Store(vec![Record::Change(seq, made.clone())]));
        self.announce(vec![], vec![made], vec![], out);
        out.push(Output::Changed(Changed {
            plan: true,
            ..Changed::default()
        }));
        Ok(())
    }

    /// Stores and announces this node's report under the next version.
    pub fn publish(
        &mut self,
        wall: UnixSecs,
        mut report: Report,
        out: &mut Vec<Output>,
    ) -> Result<(), StateError> {
        let Some(me) = self.me() else { return Ok(()) };
        report.node = me;
        report.at = wall;
        report.version = self.reports.get(&me).map_or(1, |old| old.version + 1);
        let signed = report.seal(&self.identity)?;
        let offered = self.reports.offer(signed.clone(), &self.authority, wall);
        // A node that was revoked or has expired has nothing to say any more.
        if !matches!(offered, ReportOutcome::New(_)) {
            return Ok(());
        }
        out.push(Output::Store(vec![Record::Report(me, signed.clone())]));
        self.announce(vec![], vec![], vec![signed], out);
        out.push(Output::Changed(Changed {
            reports: true,
            ..Changed::default()
        }));
        Ok(())
    }

    /// Announces with the content where it fits, and by heads alone where it does not.
    fn announce(
        &self,
        statements: Vec<Signed>,
        changes: Vec<SignedChange>,
        reports: Vec<Signed>,
        out: &mut Vec<Output>,
    ) {
        let announcement = Announcement {
            heads: self.heads(),
            statements,
            changes,
            reports,
        };
        out.push(Output::Announce(announcement.cut()));
    }
}
