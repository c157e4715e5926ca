//! Replicas for the tests: a founder that is operator, nodes that joined it, and two
//! of them talking until nothing is left to say.
#![allow(clippy::unwrap_used)]

use crate::enrol::{EnrolReply, EnrolRequest, JoinStep, Joiner};
use crate::replica::{Founding, Input, Output, Record, Replica};
use crate::sync::Announcement;
use crdt::Report;
use keys::invite::Token;
use keys::statement::{Admission, Enrolment, Entry, Invite};
use keys::{Domain, Identity, Ledger, Name, Role, Roles, Signed, Statement, UnixSecs};
use std::collections::BTreeMap;

pub(crate) const NOW: UnixSecs = UnixSecs(1_000);

pub(crate) fn key(seed: u8) -> Identity {
    Identity::from_seed(&[seed; 32])
}

pub(crate) fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

/// The founder of a mesh, whose keys are those of `seed`, and what it stored.
pub(crate) fn found(seed: u8) -> (Replica, Vec<Record>) {
    let founding = Founding {
        mesh: name("test"),
        node: name("op"),
        roles: [Role::Provisioner].into_iter().collect(),
        site: None,
        nonce: [seed; 16],
    };
    Replica::found(key(seed), key(seed + 100), founding, NOW).unwrap()
}

/// The founder as it is when its root key was taken offline.
pub(crate) fn keyless(op: Replica) -> Replica {
    Replica::restore(key(1), None, op.ledger().clone(), vec![], vec![]).unwrap()
}

/// An invite for one node and the secret that goes with it.
pub(crate) fn invite(
    op: &mut Replica,
    seed: u8,
    uses: u16,
    not_after: u64,
    out: &mut Vec<Output>,
) -> Token {
    let seed = [seed; 32];
    let not_after = UnixSecs(not_after);
    let statement = Statement::Invite(Invite {
        key: Identity::from_seed(&seed).public(),
        roles: [Role::Agent, Role::Replicator].into_iter().collect(),
        name: None,
        site: None,
        not_after,
        uses,
        admitter: op.my_key(),
        scope: keys::Scope::Everywhere,
        member_until: None,
    });
    Token {
        mesh: op.ledger().mesh(),
        invite: op.state(NOW, statement, out).unwrap(),
        admitter: op.my_key(),
        addresses: vec![],
        not_after,
        seed,
    }
}

/// Sends a request to the admitter; its answer and all it did.
pub(crate) fn ask(
    op: &mut Replica,
    wall: UnixSecs,
    from: &Identity,
    request: EnrolRequest,
    nonce: [u8; 32],
) -> (EnrolReply, Vec<Output>) {
    let mut out = vec![];
    let input = Input::Enrol {
        from: from.public(),
        request,
        nonce,
        reply: 7,
    };
    op.step(wall, 0, input, &mut out);
    let answer = out.iter().find_map(|output| match output {
        Output::AnswerEnrol { reply: 7, answer } => Some(answer.clone()),
        _ => None,
    });
    (answer.unwrap(), out)
}

/// The whole conversation; the ledger that the joiner ends with.
pub(crate) fn enrol(op: &mut Replica, identity: &Identity, token: Token) -> Ledger {
    let joiner = Joiner::new(token, identity.clone(), name("node"));
    let mut request = joiner.start();
    loop {
        let (answer, _) = ask(op, NOW, identity, request, [3; 32]);
        match joiner.answered(answer).unwrap() {
            JoinStep::Send(next) => request = next,
            JoinStep::Done(ledger) => return *ledger,
        }
    }
}

/// A node that has joined, and knows no more than joining told it.
pub(crate) fn join(op: &mut Replica, seed: u8) -> Replica {
    let token = invite(op, seed + 50, 1, 5_000, &mut vec![]);
    let identity = key(seed);
    let ledger = enrol(op, &identity, token);
    let mut replica = Replica::restore(identity, None, ledger, vec![], vec![]).unwrap();
    replica.write_unheard();
    replica
}

/// Nodes enrolled by the root key of `seed`, each with a report, all known to `op`.
pub(crate) fn crowd(op: &mut Replica, seed: u8, count: u16, roles: Roles) -> Vec<Identity> {
    let identity = |number: u16| {
        let digest = blake3::hash(&number.to_le_bytes());
        Identity::from_seed(digest.as_bytes())
    };
    let identities: Vec<Identity> = (0..count).map(identity).collect();
    let from = key(99).public();
    let root = key(seed + 100);
    let (mut seq, mut previous) = op.ledger().next_position(&root.public());
    let enrolments = identities.iter().map(|identity| {
        let statement = Statement::Enrolment(Enrolment {
            subject: identity.public(),
            name: name("node"),
            roles,
            site: None,
            scope: keys::Scope::Everywhere,
            not_after: None,
            admission: Admission::Root,
        });
        let entry = Entry {
            seq,
            previous,
            mesh: Some(op.ledger().mesh()),
            at: NOW,
            statement,
        };
        let signed = Signed::seal(&root, Domain::Statement, &entry).unwrap();
        (seq, previous) = (seq + 1, Some(signed.statement_id()));
        signed
    });
    let statements = enrolments.collect();
    op.step(NOW, 0, Input::Shown { from, statements }, &mut vec![]);
    let reports = identities.iter().map(|identity| {
        let id = op.authority().by_key(&identity.public()).unwrap().id;
        Report::new(id, 1, NOW).seal(identity).unwrap()
    });
    let announcement = Announcement {
        reports: reports.collect(),
        ..Announcement::default()
    };
    let via = from;
    op.step(NOW, 0, Input::Announced { via, announcement }, &mut vec![]);
    identities
}

/// A node of `identity` that holds all that `other` holds.
pub(crate) fn twin(identity: Identity, other: &Replica) -> Replica {
    let authors = other.document().heads();
    let changes = authors
        .keys()
        .flat_map(|author| other.document().entries_after(author, 0, usize::MAX));
    let reports = other.reports().iter();
    let reports = reports.filter_map(|(node, _)| other.reports().signed(node).cloned());
    let ledger = other.ledger().clone();
    Replica::restore(identity, None, ledger, changes.collect(), reports.collect()).unwrap()
}

/// Two connected nodes that talk until both fall silent or `rounds` are over. Returns
/// what each stored and how many pages went over.
pub(crate) fn talk(a: &mut Replica, b: &mut Replica, rounds: usize) -> ([Vec<Record>; 2], usize) {
    let keys = [a.my_key(), b.my_key()];
    let mut stored = [vec![], vec![]];
    let mut pages = 0;
    let mut inputs = std::collections::VecDeque::from([
        (0, Input::Connected(keys[1])),
        (1, Input::Connected(keys[0])),
    ]);
    for _ in 0..rounds {
        let Some((to, input)) = inputs.pop_front() else {
            break;
        };
        let replica = if to == 0 { &mut *a } else { &mut *b };
        let from = keys[to];
        let mut out = vec![];
        replica.step(NOW, 0, input, &mut out);
        for output in out {
            match output {
                Output::Store(records) => stored[to].extend(records),
                Output::Ask { request, .. } => {
                    let reply = 0;
                    inputs.push_back((
                        1 - to,
                        Input::Asked {
                            from,
                            request,
                            reply,
                        },
                    ));
                }
                Output::Answer { page, .. } => {
                    pages += 1;
                    inputs.push_back((1 - to, Input::Answered { from, page }));
                }
                Output::Blame { fault, .. } => panic!("blamed: {fault}"),
                _ => {}
            }
        }
    }
    (stored, pages)
}

/// The replica that a store of these records amounts to.
pub(crate) fn restored(identity: Identity, records: &[Record]) -> Replica {
    let mut statements: Vec<Signed> = vec![];
    let mut changes = BTreeMap::new();
    let mut reports = BTreeMap::new();
    let mut evidence = vec![];
    for record in records {
        match record {
            Record::Statement(signed) => statements.push(signed.clone()),
            Record::Change(seq, change) => {
                changes.insert((change.author, *seq), change.clone());
            }
            Record::Report(node, signed) => {
                reports.insert(*node, signed.clone());
            }
            Record::Evidence(_, pair) => evidence.push(pair.clone()),
        }
    }
    let mut ledger = Ledger::found(statements.remove(0)).unwrap();
    ledger.insert_all(statements).unwrap();
    let changes = changes.into_values().collect();
    let reports = reports.into_values().collect();
    let mut replica = Replica::restore(identity, None, ledger, changes, reports).unwrap();
    replica.restore_evidence(evidence);
    replica
}
