//! A small mesh whose messages are the seeds: an operator, a node that joined it, a
//! plan with some history, reports, and all that went over the wire for it.

use crdt::{
    CheckpointState, Desired, Document, Edit, EditError, Hook, KeptCheckpoint, Limit, Limited,
    MigrationPlan, Point, Report, ServerPlan, Side, SignedChange, Wish, WritableCopy,
};
use keys::invite::Token;
use keys::statement::Invite;
use keys::{
    CheckpointName, Epoch, Grant, Identity, Ledger, MigrationId, Name, NodeId, PublicKey, Role,
    Scope, ServerId, Signed, Statement, StatementId, UnixSecs, VolumeId,
};
use mesh::{
    Announcement, EnrolReply, EnrolRequest, Founding, Input, JoinStep, Joiner, Output, Page,
    Record, Replica, Request,
};

pub const NOW: UnixSecs = UnixSecs(1_000);
pub const MIGRATION: MigrationId = MigrationId([1; 16]);

pub fn identity(seed: u8) -> Identity {
    Identity::from_seed(&[seed; 32])
}

fn name(text: &str) -> Name {
    Name::new(text).expect("names here are sound")
}

fn checkpoint() -> CheckpointName {
    CheckpointName::new("before-upgrade").expect("names here are sound")
}

/// One edit of the plan.
type Write<'a> = dyn Fn(&mut Edit<'_>) -> Result<(), EditError> + 'a;

/// See the module's page.
pub struct Sample {
    pub operator: Identity,
    pub node: Identity,
    pub replica: Replica,
    pub records: Vec<Record>,
    pub token: Token,
    pub enrolments: Vec<EnrolRequest>,
    pub replies: Vec<EnrolReply>,
    pub announcements: Vec<Announcement>,
}

impl Sample {
    pub fn make() -> Self {
        let operator = identity(1);
        let founding = Founding {
            mesh: name("fuzz"),
            node: name("operator"),
            roles: [Role::Provisioner].into_iter().collect(),
            site: None,
            nonce: [1; 16],
        };
        let (mut replica, records) = Replica::found(operator.clone(), identity(9), founding, NOW)
            .expect("a founding of sound names");
        let mut out = vec![];
        let token = invite(&mut replica, &mut out);
        let mut sample = Self {
            operator,
            node: identity(2),
            replica,
            records,
            token,
            enrolments: vec![],
            replies: vec![],
            announcements: vec![],
        };
        sample.keep(out);
        let node = sample.enrol();
        sample.plan(node);
        sample.grant(node);
        sample.report(node);
        sample
    }

    pub fn statements(&self) -> Vec<Signed> {
        let records = self.records.iter();
        let statements = records.filter_map(|record| match record {
            Record::Statement(signed) => Some(signed.clone()),
            _ => None,
        });
        statements.collect()
    }

    pub fn changes(&self) -> Vec<SignedChange> {
        let records = self.records.iter();
        let changes = records.filter_map(|record| match record {
            Record::Change(_, change) => Some(change.clone()),
            _ => None,
        });
        changes.collect()
    }

    pub fn reports(&self) -> Vec<Signed> {
        let records = self.records.iter();
        let reports = records.filter_map(|record| match record {
            Record::Report(_, signed) => Some(signed.clone()),
            _ => None,
        });
        reports.collect()
    }

    pub fn ledger(&self) -> Ledger {
        let mut statements = self.statements().into_iter();
        let genesis = statements.next().expect("a mesh begins with its genesis");
        let mut ledger = Ledger::found(genesis).expect("it founded the mesh before");
        for signed in statements {
            ledger.restore(signed).expect("it was inserted before");
        }
        ledger
    }

    /// The replica of the node that joined, with all but the last change.
    pub fn behind(&self) -> Replica {
        let mut changes = self.changes();
        changes.pop();
        Replica::restore(self.node.clone(), None, self.ledger(), changes, vec![])
            .expect("these changes were admitted before")
    }

    pub fn document(&self) -> &Document {
        self.replica.document()
    }

    /// Every request and page of a node that catches up.
    pub fn talk(&self) -> (Vec<Request>, Vec<Page>) {
        let (mut requests, mut pages) = (vec![], vec![]);
        let mut behind = self.behind();
        let mut ahead = Replica::restore(
            self.operator.clone(),
            None,
            self.ledger(),
            self.changes(),
            self.reports(),
        )
        .expect("these changes were admitted before");
        let from = ahead.my_key();
        let mut out = vec![];
        behind.step(NOW, 0, Input::Connected(from), &mut out);
        while let Some(output) = out.pop() {
            let Output::Ask { request, .. } = output else {
                continue;
            };
            requests.push(request.clone());
            let mut answer = vec![];
            let (from, reply) = (behind.my_key(), 0);
            let asked = Input::Asked {
                from,
                request,
                reply,
            };
            ahead.step(NOW, 0, asked, &mut answer);
            for output in answer {
                if let Output::Answer { page, .. } = output {
                    pages.push(page.clone());
                    let from = ahead.my_key();
                    behind.step(NOW, 0, Input::Answered { from, page }, &mut out);
                }
            }
        }
        (requests, pages)
    }

    fn keep(&mut self, out: Vec<Output>) {
        for output in out {
            match output {
                Output::Store(records) => self.records.extend(records),
                Output::Announce(announcement) => self.announcements.push(announcement),
                Output::AnswerEnrol { answer, .. } => self.replies.push(answer),
                _ => {}
            }
        }
    }

    fn enrol(&mut self) -> NodeId {
        let joiner = Joiner::new(self.token.clone(), self.node.clone(), name("web"));
        let mut request = joiner.start();
        loop {
            self.enrolments.push(request.clone());
            let from = self.node.public();
            let (nonce, reply) = ([3; 32], 0);
            let mut out = vec![];
            let enrol = Input::Enrol {
                from,
                request,
                nonce,
                reply,
            };
            self.replica.step(NOW, 0, enrol, &mut out);
            self.keep(out);
            let answer = self.replies.last().expect("every request is answered");
            match joiner.answered(answer.clone()) {
                Ok(JoinStep::Send(next)) => request = next,
                Ok(JoinStep::Done(_)) => break,
                Err(error) => panic!("the sample's invite is sound: {error}"),
            }
        }
        let member = self.replica.authority().by_key(&self.node.public());
        member.expect("it was enrolled just before").id
    }

    fn plan(&mut self, node: NodeId) {
        let migration = MigrationPlan {
            id: MIGRATION,
            name: "shop".into(),
            source: node,
            volumes: vec![VolumeId([4; 16]), VolumeId([5; 16])],
            provider: "local".into(),
            provisioner: node,
            replicators: vec![node],
            site: Some("berlin".into()),
            desired: Desired::Created,
            grants: vec![StatementId([9; 32])],
            hooks: vec![],
            leave_out: None,
            checkpoints: crdt::Checkpoints::default(),
            created_at: NOW,
            created_by: self.operator.public(),
            conflicts: vec![],
        };
        let mut out = vec![];
        let limit = "Mon-08:00,20MiB/s Fri-18:00,off zone=Europe/Berlin polite";
        let limit: Limit = limit.parse().expect("it is a limit");
        let hooks = [Hook {
            env: vec![("HOOK_PORT".into(), "5432".into())],
            ..Hook::new(Point::BeforeFreeze, Side::Source, "stop-postgresql")
        }];
        let edits: [&Write<'_>; 9] = [
            &|edit| edit.create_migration(&migration),
            &|edit| (0..5).try_for_each(|number| edit.create_server(&server(number))),
            &|edit| edit.set_desired(MIGRATION, Desired::Started),
            &|edit| edit.delete_server(server(2).id),
            &|edit| edit.set_limit(&Limited::Server(node), &limit),
            &|edit| edit.rename(MIGRATION, "store"),
            &|edit| edit.set_hooks(MIGRATION, &hooks),
            &|edit| edit.ask_checkpoint(MIGRATION, &checkpoint(), Wish::Kept),
            &|edit| edit.keep_checkpoints(MIGRATION, Some(5)),
        ];
        for edit in edits {
            let made = self.replica.edit(NOW, edit, &mut out);
            made.expect("the operator may make these edits");
        }
        self.keep(out);
    }

    fn grant(&mut self, node: NodeId) {
        let grant = Statement::Grant(Grant {
            migration: MIGRATION,
            agent: node,
            replicators: vec![node],
            volumes: vec![VolumeId([4; 16])],
            not_after: UnixSecs(9_000),
            lease_secs: 3_600,
            autonomy_secs: 0,
            dedup_group: Some(name("web")),
        });
        let mut out = vec![];
        self.replica
            .state(NOW, grant, &mut out)
            .expect("the operator may grant");
        self.keep(out);
    }

    fn report(&mut self, node: NodeId) {
        let mut report = Report::new(node, 1, NOW);
        report.hostname = "web".into();
        report.listen = vec!["/ip4/10.0.0.1/tcp/7432".into()];
        report.checkpoints = vec![KeptCheckpoint {
            migration: MIGRATION,
            volume: VolumeId([4; 16]),
            name: checkpoint(),
            epoch: Epoch(1),
            state: CheckpointState::Verified { root: [7; 32] },
            path: "/volumes/1@before-upgrade".into(),
            copy: Some(WritableCopy::Making),
        }];
        let signed = report.seal(&self.node).expect("a small report");
        self.records.push(Record::Report(node, signed));
    }
}

fn invite(replica: &mut Replica, out: &mut Vec<Output>) -> Token {
    let seed = [7; 32];
    let not_after = UnixSecs(5_000);
    let statement = Statement::Invite(Invite {
        key: Identity::from_seed(&seed).public(),
        roles: [Role::Agent, Role::Replicator].into_iter().collect(),
        name: None,
        site: None,
        not_after,
        uses: 3,
        admitter: replica.my_key(),
        scope: Scope::Everywhere,
        member_until: None,
    });
    Token {
        mesh: replica.ledger().mesh(),
        invite: replica
            .state(NOW, statement, out)
            .expect("the operator may invite"),
        admitter: replica.my_key(),
        addresses: vec!["/ip4/10.0.0.1/tcp/7432".into()],
        not_after,
        seed,
    }
}

fn server(number: u8) -> ServerPlan {
    ServerPlan {
        id: ServerId([number; 16]),
        name: format!("web-{number}"),
        site: "berlin".into(),
        address: Some("10.0.0.7".into()),
        wave: None,
        note: None,
        planned_by: PublicKey([0; 32]),
        conflicts: vec![],
    }
}
