//! Which reports are kept, which are refused, and how they are cut to size.
#![allow(clippy::unwrap_used)]

use super::*;
use crate::report::{
    CheckpointState, Event, JobReport, JobRole, KeptCheckpoint, Level, MAX_EVENTS, MAX_RENEWALS,
    MAX_RENEWED, PassRead, PassSummary, ReachedCheckpoint, Stage, VolumeInfo, VolumeKind,
    WritableCopy,
};
use crate::world::{NOW, World, key};
use codec::Wire;
use keys::lease::{Pair, Renewal};
use keys::proof::{End, Method, RootProof};
use keys::{CheckpointName, Epoch, MigrationId, Pulse, Role, VolumeId};

fn world() -> (World, NodeId) {
    let mut world = World::of(&[1]);
    let node = world.enrol(5, Role::Agent);
    (world, node)
}

fn report(node: NodeId, version: u64, hostname: &str) -> Signed {
    let mut report = Report::new(node, version, NOW);
    report.hostname = hostname.into();
    report.seal(&key(5)).unwrap()
}

fn event(seq: u64, text: &str) -> Event {
    Event {
        seq,
        at: NOW,
        level: Level::Info,
        migration: None,
        kind: "pass-ended".into(),
        text: text.into(),
    }
}

#[test]
fn a_newer_report_replaces_the_one_before_and_an_older_one_does_not() {
    let (world, node) = world();
    let authority = world.authority();
    let mut reports = Reports::new();
    let second = report(node, 2, "b");
    let new = ReportOutcome::New(node);
    assert_eq!(reports.offer(second.clone(), &authority, NOW), new);
    assert_eq!(reports.offer(second, &authority, NOW), ReportOutcome::Stale);
    let first = report(node, 1, "a");
    assert_eq!(reports.offer(first, &authority, NOW), ReportOutcome::Stale);
    assert_eq!(reports.get(&node).unwrap().hostname, "b");
    assert_eq!(reports.offer(report(node, 3, "c"), &authority, NOW), new);
    assert_eq!(reports.get(&node).unwrap().hostname, "c");
    assert_eq!(reports.versions()[&node], 3);
}

#[test]
fn two_reports_of_one_version_raise_an_alarm_once_and_beat_all_versions() {
    let (world, node) = world();
    let authority = world.authority();
    let (mut a, mut b) = (Reports::new(), Reports::new());
    let (x, y) = (report(node, 1, "x"), report(node, 1, "y"));
    a.offer(x.clone(), &authority, NOW);
    b.offer(y.clone(), &authority, NOW);
    let forked = |outcome| matches!(outcome, ReportOutcome::Fork(ReportFork { version: 1, .. }));
    assert!(forked(a.offer(y, &authority, NOW)));
    assert!(forked(b.offer(x, &authority, NOW)));
    assert_eq!(a.digest(), b.digest());
    assert_eq!(a.get(&node), b.get(&node));
    assert!(a.forked().eq([node]));
    for later in [report(node, 1, "y"), report(node, 2, "z")] {
        let offered = a.offer(later, &authority, NOW);
        assert_eq!(offered, ReportOutcome::Stale);
    }
    assert!(a.versions().is_empty());
}

#[test]
fn nodes_that_saw_different_halves_of_one_fork_agree() {
    let (world, node) = world();
    let authority = world.authority();
    let seen = |hostnames: [&str; 2]| {
        let mut reports = Reports::new();
        for hostname in hostnames {
            reports.offer(report(node, 1, hostname), &authority, NOW);
        }
        assert!(reports.is_forked(&node));
        reports
    };
    let (a, b) = (seen(["x", "y"]), seen(["z", "w"]));
    assert_eq!(a.digest(), b.digest());
    assert_eq!(a.bucket(node.0[0]).count(), 0);
}

fn pair(reports: &Reports) -> Box<[Signed; 2]> {
    match reports.forks().next().unwrap() {
        (_, Evidence::Reports(pair)) => pair,
        _ => panic!("reports know of reports alone"),
    }
}

#[test]
fn a_pair_shows_the_fork_to_who_holds_a_newer_report_and_a_false_one_shows_nothing() {
    let (mut world, node) = world();
    let other = world.enrol(6, Role::Agent);
    let authority = world.authority();
    let (mut a, mut b) = (Reports::new(), Reports::new());
    let (x, y) = (report(node, 1, "x"), report(node, 1, "y"));
    a.offer(x.clone(), &authority, NOW);
    a.offer(y.clone(), &authority, NOW);
    b.offer(report(node, 9, "newer"), &authority, NOW);
    let theirs = Report::new(other, 1, NOW).seal(&key(6)).unwrap();
    let mut forged = y.clone();
    forged.body[40] ^= 1;
    for (second, outcome) in [
        (x.clone(), PairOutcome::Refused),
        (report(node, 2, "y"), PairOutcome::Refused),
        (theirs, PairOutcome::Refused),
        (forged, PairOutcome::Refused),
        (report(NodeId([9; 32]), 1, "y"), PairOutcome::Unknown),
    ] {
        let false_pair = Box::new([x.clone(), second]);
        assert_eq!(b.offer_fork(false_pair, &authority, NOW), outcome);
        assert_eq!(b.forked().count(), 0);
    }
    let offered = b.offer_fork(pair(&a), &authority, NOW);
    assert_eq!(offered, PairOutcome::New);
    let again = b.offer_fork(pair(&a), &authority, NOW);
    assert_eq!(again, PairOutcome::Known);
    assert_eq!(a.digest(), b.digest());
    assert_eq!(a.get(&node), b.get(&node));
    let mut back = Reports::new();
    back.restore(report(node, 9, "newer")).unwrap();
    back.restore_fork(pair(&b)).unwrap();
    assert_eq!(back.digest(), b.digest());
    let mut from_damage = Reports::new();
    let no_fork = Box::new([x, report(node, 2, "y")]);
    from_damage.restore_fork(no_fork).unwrap();
    assert_eq!(from_damage.forked().count(), 0);
    // A node that is expelled is forgotten with its fork.
    world.revoke(5, None);
    assert_eq!(b.drop_departed(&world.authority(), NOW), [node]);
    assert_eq!(b.forked().count(), 0);
}

#[test]
fn reports_of_others_than_the_node_itself_are_refused() {
    let (mut world, node) = world();
    world.enrol(6, Role::Agent);
    let authority = world.authority();
    let mut reports = Reports::new();
    let forged = Report::new(node, 1, NOW).seal(&key(6)).unwrap();
    let signer = key(6).public();
    let another = ReportRefusal::AnotherSigner { node, signer };
    let refused = ReportOutcome::Refused(another);
    assert_eq!(reports.offer(forged, &authority, NOW), refused);
    let unknown = NodeId([9; 32]);
    let early = report(unknown, 1, "x");
    let outcome = reports.offer(early, &authority, NOW);
    assert_eq!(outcome, ReportOutcome::UnknownNode(unknown));
    let mut flipped = report(node, 1, "x");
    flipped.body[40] ^= 1;
    let outcome = reports.offer(flipped, &authority, NOW);
    assert!(matches!(outcome, ReportOutcome::Refused(refusal) if refusal.blames_sender()));
    assert!(reports.versions().is_empty());
}

#[test]
fn a_report_whose_signature_does_not_hold_is_refused_and_blames_who_sent_it() {
    let (world, node) = world();
    let mut forged = report(node, 1, "a");
    forged.signature.0[3] ^= 1;
    let mut reports = Reports::new();
    let offered = reports.offer(forged, &world.authority(), NOW);
    assert!(matches!(offered, ReportOutcome::Refused(refusal) if refusal.blames_sender()));
    assert!(reports.is_empty());
    // Nor does the true one, once it is here, speak for a forged copy of it.
    let mut forged = report(node, 1, "a");
    reports.offer(forged.clone(), &world.authority(), NOW);
    forged.signature.0[3] ^= 1;
    let offered = reports.offer(forged, &world.authority(), NOW);
    assert!(matches!(offered, ReportOutcome::Refused(refusal) if refusal.blames_sender()));
}

#[test]
fn a_report_that_is_stored_twice_is_no_fork() {
    let (_, node) = world();
    let mut reports = Reports::new();
    for _ in 0..2 {
        reports.restore(report(node, 1, "a")).unwrap();
    }
    assert_eq!((reports.len(), reports.forked().count()), (1, 0));
}

#[test]
fn the_report_of_a_node_whose_enrolment_is_over_is_refused_and_dropped() {
    let mut world = World::of(&[1]);
    let end = UnixSecs(NOW.0 + 10);
    let node = world.enrol_until(5, Role::Agent, Some(end));
    let authority = world.authority();
    let mut reports = Reports::new();
    let late = reports.offer(report(node, 1, "a"), &authority, end);
    let over = ReportRefusal::NotAdmitted(node);
    assert_eq!(late, ReportOutcome::Refused(over));
    let in_time = reports.offer(report(node, 1, "a"), &authority, UnixSecs(end.0 - 1));
    assert_eq!(in_time, ReportOutcome::New(node));
    assert_eq!(reports.drop_departed(&authority, UnixSecs(end.0 - 1)), []);
    assert_eq!(reports.drop_departed(&authority, end), [node]);
}

#[test]
fn the_report_of_a_revoked_node_is_refused_and_dropped() {
    let (mut world, node) = world();
    let mut reports = Reports::new();
    reports.offer(report(node, 1, "x"), &world.authority(), NOW);
    world.revoke(5, None);
    let authority = world.authority();
    let refused = ReportOutcome::Refused(ReportRefusal::NotAdmitted(node));
    assert_eq!(
        reports.offer(report(node, 2, "y"), &authority, NOW),
        refused
    );
    assert_eq!(reports.drop_departed(&authority, NOW), [node]);
    assert!(reports.get(&node).is_none());
}

/// As where a node hears of a change of keys before it hears all that the old key said.
#[test]
fn the_report_of_a_node_that_stands_again_is_back_and_no_older_one_takes_its_place() {
    let (mut world, node) = world();
    let stands = world.authority();
    let mut reports = Reports::new();
    let newest = report(node, 2, "newest");
    reports.offer(newest.clone(), &stands, NOW);
    let digest = reports.digest();
    world.revoke(5, None);
    let gone = world.authority();
    assert_eq!(reports.drop_departed(&gone, NOW), [node]);
    assert_eq!(reports.digest(), Reports::new().digest());
    assert!(reports.drop_departed(&gone, NOW).is_empty());
    assert!(reports.get(&node).is_none());
    assert!(reports.drop_departed(&stands, NOW).is_empty());
    assert_eq!(reports.digest(), digest);
    let older = reports.offer(report(node, 1, "older"), &stands, NOW);
    assert_eq!(older, ReportOutcome::Stale);
    assert_eq!(reports.signed(&node), Some(&newest));
}

#[test]
fn the_fork_of_a_node_that_stands_again_is_back_as_one() {
    let (mut world, node) = world();
    let stands = world.authority();
    let mut reports = Reports::new();
    for hostname in ["x", "y"] {
        reports.offer(report(node, 1, hostname), &stands, NOW);
    }
    assert!(reports.is_forked(&node));
    let shown = reports.signed(&node).cloned();
    world.revoke(5, None);
    assert_eq!(reports.drop_departed(&world.authority(), NOW), [node]);
    assert!(!reports.is_forked(&node) && reports.get(&node).is_none());
    reports.drop_departed(&stands, NOW);
    assert!(reports.is_forked(&node));
    assert_eq!(reports.signed(&node).cloned(), shown);
    let later = reports.offer(report(node, 2, "z"), &stands, NOW);
    assert_eq!(later, ReportOutcome::Stale);
}

#[test]
fn a_report_signed_with_a_key_that_was_given_up_is_refused_and_dropped() {
    let (mut world, node) = world();
    let mut reports = Reports::new();
    reports.offer(report(node, 1, "x"), &world.authority(), NOW);
    world.rotate(5, 6, keys::statement::Position::NONE);
    let authority = world.authority();
    let old = reports.offer(report(node, 2, "y"), &authority, NOW);
    let signer = key(5).public();
    let refused = ReportRefusal::AnotherSigner { node, signer };
    assert_eq!(old, ReportOutcome::Refused(refused));
    assert_eq!(reports.drop_departed(&authority, NOW), [node]);
    let new = Report::new(node, 2, NOW).seal(&key(6)).unwrap();
    assert_eq!(
        reports.offer(new, &authority, NOW),
        ReportOutcome::New(node)
    );
    assert!(reports.drop_departed(&authority, NOW).is_empty());
}

#[test]
fn a_report_past_its_limits_is_refused_however_well_it_is_signed() {
    let (world, node) = world();
    let mut report = Report::new(node, 1, NOW);
    report.events = (0..=MAX_EVENTS as u64).map(|seq| event(seq, "x")).collect();
    let signed = Signed::seal(&key(5), Domain::Report, &report).unwrap();
    let outcome = Reports::new().offer(signed, &world.authority(), NOW);
    let unsound = ReportOutcome::Refused(ReportRefusal::Unsound(node));
    assert_eq!(outcome, unsound);
}

#[test]
fn renewals_are_bounded_and_stay_when_all_else_is_shed() {
    let (world, node) = world();
    let renewal = |pairs: usize| Renewal {
        holder: node,
        pulse: Pulse([1; 16]),
        pairs: vec![
            Pair {
                grant: keys::StatementId([2; 32]),
                replicator: node,
            };
            pairs
        ],
    };
    let mut report = Report::new(node, 1, NOW);
    report.renewals = vec![renewal(MAX_RENEWED), renewal(1)];
    let signed = Signed::seal(&key(5), Domain::Report, &report).unwrap();
    let outcome = Reports::new().offer(signed, &world.authority(), NOW);
    let unsound = ReportOutcome::Refused(ReportRefusal::Unsound(node));
    assert_eq!(outcome, unsound, "too many pairs");
    report.renewals = vec![renewal(1); MAX_RENEWALS + 1];
    let signed = Signed::seal(&key(5), Domain::Report, &report).unwrap();
    let outcome = Reports::new().offer(signed, &world.authority(), NOW);
    assert_eq!(outcome, unsound, "too many holders");

    report.renewals = vec![renewal(2); MAX_RENEWALS];
    report.jobs = (0..300).map(|_| job(&"x".repeat(2000))).collect();
    let kept: Report = report
        .clone()
        .seal(&key(5))
        .unwrap()
        .open(Domain::Report)
        .unwrap();
    assert_eq!(kept.renewals, report.renewals);
}

#[test]
fn a_stored_report_is_there_again() {
    let (world, node) = world();
    let mut reports = Reports::new();
    reports.offer(report(node, 7, "x"), &world.authority(), NOW);
    let mut restored = Reports::new();
    restored
        .restore(reports.signed(&node).unwrap().clone())
        .unwrap();
    assert_eq!(restored.digest(), reports.digest());
}

#[test]
fn a_full_report_sheds_its_oldest_events_first_and_always_fits() {
    let (world, node) = world();
    let mut report = Report::new(node, 1, NOW);
    let long = "ä".repeat(2000);
    report.volumes = (0..300)
        .map(|at| VolumeInfo {
            id: VolumeId([at as u8; 16]),
            name: long.clone(),
            path: long.clone(),
            length: u64::MAX,
            kind: VolumeKind::Device,
            device: Some(long.clone()),
            model: Some(long.clone()),
        })
        .collect();
    let mut small = report.clone();
    small.volumes.truncate(290);
    report.jobs = (0..300).map(|_| job(&long)).collect();
    report.events = (0..100).map(|seq| event(seq, &long)).collect();
    let signed = report.seal(&key(5)).unwrap();
    assert!(signed.body.len() <= Report::LIMIT && signed.body.len() > Report::LIMIT / 2);
    let kept: Report = signed.open(Domain::Report).unwrap();
    assert!(kept.truncated && kept.sound());
    assert!(!kept.jobs.is_empty() && !kept.volumes.is_empty());
    let outcome = Reports::new().offer(signed, &world.authority(), NOW);
    assert_eq!(outcome, ReportOutcome::New(node));

    small.events = (0..100).map(|seq| event(seq, &long)).collect();
    let kept: Report = small.seal(&key(5)).unwrap().open(Domain::Report).unwrap();
    assert_eq!(kept.volumes.len(), crate::report::MAX_VOLUMES);
    let newest = kept.events.last().map(|event| event.seq);
    assert!(newest.is_none_or(|newest| newest == 99));
}

fn job(detail: &str) -> JobReport {
    JobReport {
        migration: MigrationId([1; 16]),
        volume: VolumeId([2; 16]),
        role: JobRole::Agent,
        epoch: Epoch(1),
        replicator: Some(NodeId([3; 32])),
        stage: Stage::Replicating,
        step: "pass".into(),
        detail: Some(detail.into()),
        pass: 3,
        barrier: 2,
        passes: (0..40)
            .map(|pass| PassSummary {
                pass,
                blocks: u64::MAX,
                bytes_sent: u64::MAX,
                millis: u64::MAX,
                since_millis: Some(u64::MAX),
                read: PassRead::Whole,
            })
            .collect(),
        read_by: None,
        left_out: keys::LeftOut::default(),
        root: Some([4; 32]),
    }
}

#[test]
fn the_bytes_of_a_report_do_not_change() {
    let mut report = Report::new(NodeId([5; 32]), 300, UnixSecs(7));
    report.hostname = "h".into();
    report.events.push(event(1, "t"));
    report.jobs.push(JobReport {
        passes: vec![PassSummary {
            pass: 1,
            blocks: 2,
            bytes_sent: 3,
            millis: 4,
            since_millis: Some(5),
            read: PassRead::Whole,
        }],
        detail: None,
        left_out: keys::LeftOut::new(vec![(9, 4)]).unwrap(),
        ..job("")
    });
    let bytes = codec::encode(&report).unwrap();
    let mut head = vec![8];
    head.extend([5; 32]);
    head.extend([251, 44, 1, 0, 7, 1, b'h', 0]);
    assert_eq!(&bytes[..head.len()], head);
    // listen, providers, inventory (three texts, two numbers), volumes
    let lists = [0, 0, 0, 0, 0, 0, 0, 0];
    assert_eq!(&bytes[head.len()..head.len() + 8], lists);
    let hash = blake3::hash(&bytes).to_hex();
    assert_eq!(&hash[..16], "5f9de13649c813dd");
}

fn kept(number: usize, text: &str) -> KeptCheckpoint {
    KeptCheckpoint {
        migration: MigrationId([1; 16]),
        volume: VolumeId([2; 16]),
        name: CheckpointName::new(&number.to_string()).unwrap(),
        epoch: Epoch(3),
        state: CheckpointState::Failed(text.into()),
        path: text.into(),
        copy: Some(WritableCopy::Ready { path: text.into() }),
    }
}

#[test]
fn the_bytes_of_checkpoints_do_not_change() {
    let mut report = Report::new(NodeId([5; 32]), 1, UnixSecs(7));
    let proof = RootProof {
        mesh: keys::MeshId([1; 32]),
        migration: MigrationId([1; 16]),
        volume: VolumeId([2; 16]),
        epoch: Epoch(3),
        end: End::Source,
        length: 4,
        root: [5; 32],
        method: Method::Tracked,
        at: UnixSecs(6),
        left_out: keys::LeftOut::default(),
        checkpoint: CheckpointName::new("a").ok(),
    };
    let mut bytes = vec![4];
    bytes.extend([[1; 32].as_slice(), &[1; 16], &[2; 16], &[3, 0, 4]].concat());
    bytes.extend([[5; 32].as_slice(), &[3, 6, 0, 1, 1, b'a']].concat());
    assert_eq!(codec::encode(&proof).unwrap(), bytes);
    report.reached.push(ReachedCheckpoint {
        proof: Signed::seal(&key(5), Domain::RootProof, &proof).unwrap(),
        frozen_millis: Some(8),
        is_held: true,
    });
    report.checkpoints.push(kept(1, "x"));
    let hash = blake3::hash(&codec::encode(&report).unwrap()).to_hex();
    assert_eq!(&hash[..16], "1195195ba3a7e717");
}

#[test]
fn of_many_checkpoints_the_newest_stay_in_the_report() {
    let (_, node) = world();
    let mut report = Report::new(node, 1, NOW);
    let long = "x".repeat(500);
    report.checkpoints = (0..400).map(|number| kept(number, &long)).collect();
    let kept: Report = report.seal(&key(5)).unwrap().open(Domain::Report).unwrap();
    assert!(kept.truncated && kept.sound());
    let newest = kept.checkpoints.last().map(|kept| kept.name.as_str());
    assert_eq!(newest, Some("399"));
    assert!(kept.checkpoints.len() > 100);
}
