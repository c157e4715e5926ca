//! A mesh of any size, made without a network: its nodes enrolled by invites, each with
//! a report, and a plan of servers.

use super::{at, keep};
use crdt::{Event, Level, Report, ServerPlan, VolumeInfo, VolumeKind};
use keys::invite::Token;
use keys::statement::Invite;
use keys::{
    Identity, Ledger, Name, NodeId, PublicKey, Role, ServerId, Statement, UnixSecs, VolumeId,
};
use mesh::{EnrolReply, Founding, Input, JoinStep, Joiner, Output, Page, Record, Replica};

pub(super) const NOW: UnixSecs = UnixSecs(1_800_000_000);

/// As many servers of this sample as `dunlin plan apply` puts into one change.
const SERVERS_A_CHANGE: u32 = 330;

pub(super) struct Sample {
    pub(super) operator: Identity,
    pub(super) replica: Replica,
    pub(super) records: Vec<Record>,
    node: Identity,
}

impl Sample {
    pub(super) fn make(nodes: u32, servers: u32, singles: u32) -> Self {
        let operator = identity("operator", 0);
        let founding = Founding {
            mesh: Name::new("bench").unwrap(),
            node: Name::new("operator").unwrap(),
            roles: [Role::Provisioner].into_iter().collect(),
            site: None,
            nonce: [1; 16],
        };
        let root = identity("root", 0);
        let (replica, records) = Replica::found(operator.clone(), root, founding, NOW).unwrap();
        let mut sample = Self {
            node: identity("node", 0),
            operator,
            replica,
            records,
        };
        for number in 0..nodes {
            let id = sample.enrol(number);
            sample.report(number, id);
        }
        sample.plan(servers, singles);
        sample
    }

    /// The replica of an ordinary node that holds the same.
    pub(super) fn replica_of_node(&self) -> Replica {
        let mut statements = vec![];
        let mut changes = vec![];
        let mut reports = vec![];
        for record in &self.records {
            match record {
                Record::Statement(signed) => statements.push(signed.clone()),
                Record::Change(_, change) => changes.push(change.clone()),
                Record::Report(_, signed) => reports.push(signed.clone()),
                Record::Evidence(..) => unreachable!("nobody's log is forked"),
            }
        }
        let mut ledger = Ledger::found(statements.remove(0)).unwrap();
        for signed in statements {
            ledger.restore(signed).unwrap();
        }
        Replica::restore(self.node.clone(), None, ledger, changes, reports).unwrap()
    }

    fn enrol(&mut self, number: u32) -> NodeId {
        let seed = identity("invite", number).seed();
        let not_after = at(86_400);
        let mut out = vec![];
        let invite = Statement::Invite(Invite {
            key: Identity::from_seed(&seed).public(),
            roles: [Role::Agent, Role::Replicator].into_iter().collect(),
            name: None,
            site: Some(Name::new(&format!("site-{}", number % 20)).unwrap()),
            not_after,
            uses: 1,
            admitter: self.operator.public(),
            scope: keys::Scope::Everywhere,
            member_until: None,
        });
        let invite = self.replica.state(NOW, invite, &mut out).unwrap();
        let token = Token {
            mesh: self.replica.ledger().mesh(),
            invite,
            admitter: self.operator.public(),
            addresses: vec![],
            not_after,
            seed: *seed,
        };
        let joining = identity("node", number);
        let name = Name::new(&format!("host-{number:05}")).unwrap();
        let joiner = Joiner::new(token, joining.clone(), name);
        let mut request = joiner.start();
        loop {
            let input = Input::Enrol {
                from: joining.public(),
                request,
                nonce: *blake3::hash(&number.to_le_bytes()).as_bytes(),
                reply: 0,
            };
            self.replica.step(NOW, 0, input, &mut out);
            match joiner.answered(take_answer(&mut out)).unwrap() {
                JoinStep::Send(next) => request = next,
                JoinStep::Done(_) => break,
            }
        }
        keep(out, &mut self.records);
        let member = self.replica.authority().by_key(&joining.public());
        member.unwrap().id
    }

    fn report(&mut self, number: u32, id: NodeId) {
        let node = identity("node", number);
        let signed = report(number, id).seal(&node).unwrap();
        let page = Page {
            heads: self.replica.heads(),
            statements: vec![],
            changes: vec![],
            reports: vec![signed],
            evidence: vec![],
            yours: mesh::Yours::default(),
            ledger_groups: vec![],
            report_groups: vec![],
            more: false,
        };
        let from = node.public();
        let mut out = vec![];
        let input = Input::Answered { from, page };
        self.replica.step(NOW, 0, input, &mut out);
        keep(out, &mut self.records);
    }

    fn plan(&mut self, servers: u32, singles: u32) {
        let mut next = 0;
        while next < servers {
            let many = if next < servers - singles {
                SERVERS_A_CHANGE.min(servers - singles - next)
            } else {
                1
            };
            let mut out = vec![];
            let made = self.replica.edit(
                NOW,
                |edit| (next..next + many).try_for_each(|at| edit.create_server(&server(at))),
                &mut out,
            );
            made.unwrap();
            keep(out, &mut self.records);
            next += many;
        }
    }
}

fn take_answer(out: &mut Vec<Output>) -> EnrolReply {
    let found = out
        .iter()
        .position(|output| matches!(output, Output::AnswerEnrol { .. }));
    match out.remove(found.unwrap()) {
        Output::AnswerEnrol { answer, .. } => answer,
        _ => unreachable!("its place was found just before"),
    }
}

fn identity(what: &str, number: u32) -> Identity {
    let seed = blake3::hash(format!("{what} {number}").as_bytes());
    Identity::from_seed(seed.as_bytes())
}

/// A server as engineers would plan one.
pub(super) fn server(number: u32) -> ServerPlan {
    let id = blake3::hash(&number.to_le_bytes());
    ServerPlan {
        id: ServerId(*id.as_bytes().first_chunk().unwrap()),
        name: format!("web-{number:05}.shop"),
        site: format!("site-{}", number % 20),
        address: Some(format!(
            "10.{}.{}.{}",
            number >> 16,
            number >> 8 & 255,
            number & 255
        )),
        wave: Some(format!("wave-{}", number / 500)),
        note: Some(format!("owner team-{}", number % 97)),
        planned_by: PublicKey([0; 32]),
        conflicts: vec![],
    }
}

/// A report of an agent with two disks and some events.
fn report(number: u32, id: NodeId) -> Report {
    let mut report = Report::new(id, 1, NOW);
    let host = number & 255;
    report.hostname = format!("host-{number:05}");
    report.program_version = "0.1.0".into();
    report.listen = vec![
        format!("/ip4/10.1.{}.{host}/tcp/7432", number >> 8),
        format!("/ip4/10.1.{}.{host}/udp/7432/quic-v1", number >> 8),
    ];
    report.inventory.system.name = "Debian GNU/Linux 12 (bookworm)".into();
    report.inventory.system.kernel = "6.1.0-18-amd64".into();
    report.inventory.machine.cpus = 8;
    report.inventory.machine.memory_bytes = 16 << 30;
    report.inventory.machine.model = "PowerEdge R640".into();
    let volume = |disk: u8| VolumeInfo {
        id: VolumeId([disk; 16]),
        name: format!("disk-{disk}"),
        path: format!("/dev/disk/by-id/wwn-0x5000c500a1b2c3{disk:02x}"),
        length: 480 << 30,
        kind: VolumeKind::Device,
        device: None,
        model: Some("SSDSC2KG480G8".into()),
    };
    report.volumes = vec![volume(1), volume(2)];
    let event = |seq: u64| Event {
        seq,
        at: at(seq),
        level: Level::Info,
        migration: None,
        kind: "started".into(),
        text: "the node started and listens on two addresses".into(),
    };
    report.events = (1..=5).map(event).collect();
    report
}
