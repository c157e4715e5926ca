//! Whether a mesh of a thousand nodes agrees as fast, and as cheaply, as it must.
//!
//! Each trial prints what it measured and the limits, and fails when one is not kept.
//! Not here: the nodes and their network (`crowd`), and how a mesh is made
//! (`founding`).

mod crowd;
mod founding;
#[cfg(test)]
mod tests;

use crate::rng::Rng;
use crowd::{Crowd, DELAY_MILLIS, LOST_PER_MILLE};
use founding::Founded;
use mesh::view::MAX_NEIGHBOURS;
use std::io::Write;
use std::time::Instant;

/// In what time a new grant has reached everybody, and how many bytes any node sent.
const GRANT_MILLIS: u64 = 3_000;
const GRANT_BYTES: u64 = 64 * 1024;
/// In what time two halves have become one.
const HEAL_MILLIS: u64 = 10_000;
/// In what time everybody holds the same again after many came.
const COMERS_MILLIS: u64 = 15_000;
/// Edits on each side of a cut, or while nodes are away.
const EDITS: usize = 1_000;
/// Grants made while nodes are away.
const AWAY_GRANTS: u64 = 200;
/// Operators.
const OPERATORS: usize = 4;
/// How long a cut lasts before anything is measured: halves have closed their ranks,
/// and everybody on the other side has been given up many times.
const APART_MILLIS: u64 = 180_000;

/// What is tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Trial {
    /// A new grant reaches everybody.
    Grant,
    /// Two halves that were edited apart become one.
    Heal,
    /// Fifty nodes join at once.
    Join,
    /// One node in ten was away for weeks, and all of them come back.
    Away,
}

/// What a trial measured.
#[derive(Debug)]
pub struct Measured {
    /// Whether everybody came to hold the same.
    pub is_level: bool,
    /// When each node did, in milliseconds, sorted.
    pub reached_millis: Vec<u64>,
    /// Bytes that each node sent, sorted.
    pub sent: Vec<u64>,
    /// Most connections of any node at any time.
    pub most_links: usize,
    /// Who was blamed or alarmed for nothing.
    pub blamed: Vec<String>,
    /// What else there is to say.
    pub remarks: Vec<String>,
}

/// Makes a trial with so many nodes, prints what it measured, and says whether the
/// limits were kept.
pub fn run(out: &mut impl Write, trial: Trial, nodes: usize, seed: u64) -> bool {
    let began = Instant::now();
    let measured = measure(trial, nodes, seed);
    let (millis, bytes) = limits(trial);
    let _ = writeln!(
        out,
        "{trial:?}: {nodes} nodes, {DELAY_MILLIS} ms one way, {} % of messages lost, seed {seed}",
        LOST_PER_MILLE as f64 / 10.0
    );
    for remark in &measured.remarks {
        let _ = writeln!(out, "  {remark}");
    }
    let reached = &measured.reached_millis;
    let _ = writeln!(
        out,
        "  all hold the same after: median {} ms, 99 % {} ms, last {} ms",
        at(reached, 50),
        at(reached, 99),
        at(reached, 100)
    );
    let mean = measured.sent.iter().sum::<u64>() / measured.sent.len().max(1) as u64;
    let most = at(&measured.sent, 100);
    let _ = writeln!(
        out,
        "  sent by each node: mean {mean} bytes, most {most} bytes"
    );
    let _ = writeln!(out, "  connections of a node: most {}", measured.most_links);
    let _ = writeln!(out, "  took {:.1} s", began.elapsed().as_secs_f64());
    let mut kept = true;
    let mut check = |what: &str, is_kept: bool| {
        let word = if is_kept { "pass" } else { "FAIL" };
        let _ = writeln!(out, "  {word}: {what}");
        kept &= is_kept;
    };
    check("everybody holds the same", measured.is_level);
    check(&format!("in under {millis} ms"), at(reached, 100) < millis);
    if let Some(bytes) = bytes {
        check(&format!("under {bytes} bytes sent by each"), most < bytes);
    }
    let rush = 2 * MAX_NEIGHBOURS;
    check(
        &format!("at most {rush} connections each"),
        measured.most_links <= rush,
    );
    check("nobody blamed", measured.blamed.is_empty());
    for text in measured.blamed.iter().take(5) {
        let _ = writeln!(out, "  {text}");
    }
    kept
}

fn limits(trial: Trial) -> (u64, Option<u64>) {
    match trial {
        Trial::Grant => (GRANT_MILLIS, Some(GRANT_BYTES)),
        Trial::Heal => (HEAL_MILLIS, None),
        Trial::Join | Trial::Away => (COMERS_MILLIS, None),
    }
}

/// The value that so many of a hundred do not exceed.
fn at(sorted: &[u64], percent: usize) -> u64 {
    let last = sorted.len().saturating_sub(1);
    sorted
        .get(last * percent / 100)
        .copied()
        .unwrap_or(u64::MAX)
}

/// Makes a trial.
pub fn measure(trial: Trial, nodes: usize, seed: u64) -> Measured {
    let mut rng = Rng::new(seed);
    let founded = Founded::new(&mut rng, nodes, OPERATORS);
    let crowd = founding::settled(&founded, rng.number());
    match trial {
        Trial::Grant => grant(crowd),
        Trial::Heal => heal(crowd, &founded),
        Trial::Join => join(crowd, &mut rng),
        Trial::Away => away(crowd, &founded),
    }
}

fn grant(mut crowd: Crowd) -> Measured {
    let remarks = vec![links(&crowd)];
    let mut out = vec![];
    founding::grant(&mut crowd.members[0].replica, 1, &mut out);
    forget(&mut crowd);
    crowd.carry(0, out);
    finish(crowd, GRANT_MILLIS, remarks)
}

fn heal(mut crowd: Crowd, founded: &Founded) -> Measured {
    let side = |at: usize| u8::from(at % 2 == 1);
    crowd.divide(side);
    let apart = crowd.now + APART_MILLIS;
    crowd.run(apart, |_| false);
    let mut remarks = vec![format!("apart: {}", links(&crowd))];
    for half in 0..2 {
        let operators = (0..founded.operators).filter(|at| side(*at) == half);
        let mut operators: Vec<_> = operators
            .map(|at| founded.twin(at, &crowd.members[at].replica))
            .collect();
        let before = founding::log_bytes(&operators[0]);
        founding::edit_apart(&mut operators, EDITS, &format!("side{half}"));
        let bytes = founding::log_bytes(&operators[0]) - before;
        remarks.push(format!(
            "side {half}: {EDITS} edits by {} operators, {bytes} bytes",
            operators.len()
        ));
        for at in (0..crowd.members.len()).filter(|at| side(*at) == half) {
            let replica = founded.twin(at, &operators[0]);
            crowd.replace(at, replica);
        }
    }
    let calm = crowd.now + 1_000;
    crowd.run(calm, |_| false);
    forget(&mut crowd);
    crowd.divide(|_| 0);
    finish(crowd, HEAL_MILLIS, remarks)
}

fn join(mut crowd: Crowd, rng: &mut Rng) -> Measured {
    const COMERS: usize = 50;
    let mut out = vec![];
    let op = &mut crowd.members[0].replica;
    let uses = u16::try_from(COMERS).expect("a small number");
    let token = founding::invite(op, rng, uses, &mut out);
    crowd.carry(0, out);
    let calm = crowd.now + 5_000;
    crowd.run(calm, |_| false);
    forget(&mut crowd);
    for _ in 0..COMERS {
        let identity = keys::Identity::from_seed(&rng.bytes());
        let op = &mut crowd.members[0].replica;
        let (replica, out) = founding::enrol(op, &identity, &token, rng);
        crowd.carry(0, out);
        let at = crowd.add(replica);
        let mut out = vec![];
        let wall = crowd.wall();
        let replica = &mut crowd.members[at].replica;
        let report = founding::report_of(replica, &identity, 1);
        let published = replica.publish(wall, report, &mut out);
        published.expect("a small report");
        crowd.carry(at, out);
    }
    let remarks = vec![format!("{COMERS} nodes join by one invite at once")];
    finish(crowd, COMERS_MILLIS, remarks)
}

fn away(mut crowd: Crowd, founded: &Founded) -> Measured {
    let nodes = crowd.members.len();
    let is_away = |at: usize| at >= founded.operators && at % 10 == 9;
    for at in (0..nodes).filter(|at| is_away(*at)) {
        crowd.stop(at);
    }
    let apart = crowd.now + APART_MILLIS;
    crowd.run(apart, |_| false);
    let operator = |at| founded.twin(at, &crowd.members[at].replica);
    let mut operators: Vec<_> = (0..2).map(operator).collect();
    founding::edit_apart(&mut operators, EDITS, "weeks");
    for number in 0..AWAY_GRANTS {
        founding::grant(&mut operators[0], 10 + number, &mut vec![]);
    }
    for at in (0..nodes).filter(|at| !is_away(*at)) {
        crowd.replace(at, founded.twin(at, &operators[0]));
    }
    let calm = crowd.now + 1_000;
    crowd.run(calm, |_| false);
    forget(&mut crowd);
    for at in (0..nodes).filter(|at| is_away(*at)) {
        crowd.start(at);
    }
    let away = (0..nodes).filter(|at| is_away(*at)).count();
    let remarks = vec![format!(
        "{away} nodes come back that missed {EDITS} edits and {AWAY_GRANTS} grants"
    )];
    finish(crowd, COMERS_MILLIS, remarks)
}

/// What was sent so far does not count, nor how many connections there were.
fn forget(crowd: &mut Crowd) {
    for member in &mut crowd.members {
        member.sent = 0;
    }
}

fn links(crowd: &Crowd) -> String {
    let up = crowd.members.iter().filter(|member| member.is_up);
    let counts: Vec<usize> = up.map(|member| member.links.len()).collect();
    let sum: usize = counts.iter().sum();
    format!(
        "connections now: mean {:.1}, most {}",
        sum as f64 / counts.len() as f64,
        counts.iter().max().unwrap_or(&0)
    )
}

/// Runs until everybody holds the same for good, or twice the limit is over; notes when
/// each node came to hold it.
fn finish(mut crowd: Crowd, limit_millis: u64, mut remarks: Vec<String>) -> Measured {
    let began = crowd.now;
    // Which heads are the last ones shows only at the end.
    let mut since: Vec<(mesh::Heads, u64)> = crowd
        .members
        .iter()
        .map(|member| (member.replica.heads(), began))
        .collect();
    let note = |crowd: &Crowd, since: &mut Vec<(mesh::Heads, u64)>| {
        for (member, since) in crowd.members.iter().zip(since.iter_mut()) {
            let heads = member.replica.heads();
            if heads != since.0 {
                *since = (heads, crowd.now);
            }
        }
    };
    let until = began + limit_millis;
    crowd.run(until, |crowd| {
        note(crowd, &mut since);
        false
    });
    if !crowd.is_level() {
        crowd.run(until + limit_millis, |crowd| {
            note(crowd, &mut since);
            crowd.is_level()
        });
    }
    let mut reached: Vec<u64> = since.iter().map(|(_, at)| at - began).collect();
    reached.sort_unstable();
    let mut sent: Vec<u64> = crowd.members.iter().map(|member| member.sent).collect();
    sent.sort_unstable();
    remarks.extend(behind(&crowd));
    let first = crowd.members[0].replica.document().content_hash();
    let same = |member: &crowd::Member| member.replica.document().content_hash() == first;
    Measured {
        is_level: crowd.is_level() && crowd.members.iter().all(same),
        reached_millis: reached,
        sent,
        most_links: crowd.most_links,
        blamed: crowd.blamed,
        remarks,
    }
}

/// Says of a node that does not hold what the first one holds how it stands.
fn behind(crowd: &Crowd) -> Option<String> {
    let ours = &crowd.members[0].replica;
    let others = crowd.members.iter().enumerate();
    let mut behind = others.filter(|(_, member)| member.replica.heads() != ours.heads());
    let (at, member) = behind.next()?;
    let count = 1 + behind.count();
    let sizes = |replica: &mesh::Replica| {
        let changes = replica.document().len();
        let (statements, reports) = (replica.ledger().len(), replica.reports().len());
        format!("{statements} statements, {changes} changes, {reports} reports")
    };
    Some(format!(
        "{count} nodes differ from the first, which has {}; node {at} has {} connections and {}",
        sizes(ours),
        member.links.len(),
        sizes(&member.replica)
    ))
}
