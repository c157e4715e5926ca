//! What is under way, in words, for whoever reads a trace.
//!
//! Nothing here is called unless a line is shown.

use crate::network::Packet;
use crate::sending::header;
use blocks::{ToSource, ToTarget};
use codec::Wire;
use crdt::Report;
use keys::statement::Entry;
use keys::{Signed, Statement};
use mesh::{Announcement, EnrolReply, EnrolRequest, Page, Record};
use std::fmt;

/// Things of one message that are named.
const MAX_NAMED: usize = 6;

/// A message's kind.
pub fn kind(packet: &Packet) -> &'static str {
    match packet {
        Packet::Gossip(_) => "gossip",
        Packet::Ask(..) => "question",
        Packet::Answer(..) => "answer",
        Packet::Enrol(..) => "enrolment request",
        Packet::Enrolled(..) => "enrolment reply",
    }
}

/// A message's size and what is in it.
pub fn packet(packet: &Packet) -> String {
    let (bytes, content) = match packet {
        Packet::Gossip(bytes) => (
            bytes,
            decoded(bytes).map(|said: Announcement| {
                contents(&said.statements, said.changes.len(), &said.reports)
            }),
        ),
        Packet::Ask(_, bytes) => (bytes, None),
        Packet::Answer(_, bytes) => (
            bytes,
            decoded(bytes)
                .map(|page: Page| contents(&page.statements, page.changes.len(), &page.reports)),
        ),
        Packet::Enrol(_, bytes) => (bytes, decoded(bytes).map(request)),
        Packet::Enrolled(_, bytes) => (bytes, decoded(bytes).map(reply)),
    };
    let content = content.map_or_else(String::new, |content| format!(": {content}"));
    format!(", {}{content}", Size(bytes.len()))
}

fn decoded<T: Wire>(bytes: &[u8]) -> Option<T> {
    codec::decode(bytes).ok()
}

fn request(request: EnrolRequest) -> String {
    match request {
        EnrolRequest::Hello { .. } => "asks for a challenge".into(),
        EnrolRequest::Prove { name, .. } => format!("{name} proves both keys"),
        EnrolRequest::Recover { .. } => "asks for a challenge to a root key".into(),
        EnrolRequest::ProveRoot { .. } => "proves a root key".into(),
        EnrolRequest::Introduce { chain } => {
            format!("introduces itself with {} statements", chain.len())
        }
    }
}

fn reply(reply: EnrolReply) -> String {
    match reply {
        EnrolReply::Challenge { .. } => "the challenge".into(),
        EnrolReply::Enrolled { chain, .. } => {
            format!("the enrolment and {} statements above it", chain.len())
        }
        EnrolReply::Known { chain } => format!("where to go on, in {} statements", chain.len()),
        EnrolReply::Introduced => "known now".into(),
        EnrolReply::Denied { code } => format!("denied: {code}"),
    }
}

/// What is stored, by name.
pub fn records(records: &[Record]) -> String {
    let mut statements = vec![];
    let mut reports = vec![];
    let mut changes = 0;
    let mut pairs = 0;
    for record in records {
        match record {
            Record::Statement(signed) => statements.push(signed.clone()),
            Record::Report(_, signed) => reports.push(signed.clone()),
            Record::Change(..) => changes += 1,
            Record::Evidence(..) => pairs += 1,
        }
    }
    let pairs = match pairs {
        0 => String::new(),
        _ => format!("; {pairs} proofs of forks"),
    };
    format!(": {}{pairs}", contents(&statements, changes, &reports))
}

fn contents(statements: &[Signed], changes: usize, reports: &[Signed]) -> String {
    let mut parts: Vec<String> = statements.iter().map(statement).collect();
    match changes {
        0 => {}
        1 => parts.push("1 change of the plan".into()),
        _ => parts.push(format!("{changes} changes of the plan")),
    }
    parts.extend(reports.iter().map(report));
    let more = parts.len().saturating_sub(MAX_NAMED);
    if more > 0 {
        parts.truncate(MAX_NAMED);
        parts.push(format!("and {more} more"));
    }
    match parts.is_empty() {
        true => "nothing but heads".into(),
        false => parts.join(", "),
    }
}

fn statement(signed: &Signed) -> String {
    let Ok(entry) = signed.open_stored::<Entry>() else {
        return "a statement that does not decode".into();
    };
    let id = signed.statement_id();
    let id = id.short();
    match entry.statement {
        Statement::Genesis(genesis) => format!("genesis of {}", genesis.name),
        Statement::Invite(_) => format!("invite {id}"),
        Statement::Enrolment(enrolment) => format!("enrolment of {}", enrolment.name),
        Statement::Rotation(rotation) => format!("next key of {}", rotation.node.short()),
        Statement::Grant(grant) => {
            format!("grant {id} for migration {}", grant.migration.short())
        }
        Statement::Revocation(revocation) => {
            format!("revocation of {}", revocation.target.short())
        }
    }
}

fn report(signed: &Signed) -> String {
    let Ok(report) = signed.open_stored::<Report>() else {
        return "a report that does not decode".into();
    };
    let jobs = report.jobs.iter().map(|job| {
        let (stage, step) = (job.stage, &job.step);
        format!(", {} {stage} ({step})", job.volume.short())
    });
    let jobs: String = jobs.collect();
    format!("report {} of {}{jobs}", report.version, report.hostname)
}

/// A frame, towards the end that opened the stream (0) or the other.
pub fn frame(end: usize, frame: &[u8], payload: usize) -> String {
    let name = header(frame, payload).and_then(|header| match end {
        0 => ToSource::decode(header, payload).ok().map(to_source),
        _ => ToTarget::decode(header, payload).ok().map(to_target),
    });
    format!(", {}", name.unwrap_or_else(|| "garbled".into()))
}

fn to_source(frame: ToSource) -> String {
    match frame {
        ToSource::Opened { barrier, .. } => format!("opened, at barrier {barrier}"),
        ToSource::Refused { code } => format!("refused: {code}"),
        ToSource::Groups { first, marks } => format!("{} groups from {first}", marks.len()),
        ToSource::Leaves { group, .. } => format!("leaves of {group}"),
        ToSource::Answer { first, held } => {
            let count = held.len() as u64;
            extent("answers for blocks", first.0, count)
        }
        ToSource::Durable { barrier, .. } => format!("durable up to barrier {barrier}"),
        ToSource::Finished { read_back, .. } => match read_back {
            true => "finished, read back".into(),
            false => "finished, as it arrived".into(),
        },
    }
}

fn to_target(frame: ToTarget) -> String {
    match frame {
        ToTarget::Open {
            ticket, barrier, ..
        } => {
            let ticket = Size(ticket.len());
            format!("open, at barrier {barrier}, a ticket of {ticket}")
        }
        ToTarget::AskGroups { first, count } => format!("asks for {count} groups from {first}"),
        ToTarget::AskLeaves { group } => format!("asks for the leaves of {group}"),
        ToTarget::BeginPass { pass } => format!("pass {pass} begins"),
        ToTarget::Extent { first, leaves, .. } => extent("blocks", first.0, leaves.len() as u64),
        ToTarget::Zero { first, count } => extent("zeros", first.0, u64::from(count)),
        ToTarget::Offer { first, leaves, .. } => {
            extent("offers of blocks", first.0, leaves.len() as u64)
        }
        ToTarget::Patch { first, leaves, .. } => extent("patches", first.0, leaves.len() as u64),
        ToTarget::Barrier { barrier } => format!("barrier {barrier}"),
        ToTarget::Finish { read_back, .. } => match read_back {
            true => "finish, and read back".into(),
            false => "finish".into(),
        },
        ToTarget::Close => "close".into(),
    }
}

fn extent(what: &str, first: u64, count: u64) -> String {
    match count {
        1 => format!("{} {first}", what.trim_end_matches('s')),
        _ => format!("{what} {first} to {}", first + count - 1),
    }
}

/// Bytes for people.
pub struct Size(pub usize);

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            0..1024 => write!(f, "{} B", self.0),
            _ => write!(f, "{:.1} KiB", self.0 as f64 / 1024.0),
        }
    }
}
