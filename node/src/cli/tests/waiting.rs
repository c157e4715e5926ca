//! `--wait` and `watch` against a scripted node.

use std::time::Duration;

use serde_json::Value;

use super::node::{Scripted, not_found, not_running};
use super::*;
use crate::api::model::{CountersView, JobView, MigrationView};
use crate::cli::awaited::{Goal, Verdict, judge};
use crate::cli::outcome::CommandError;
use crate::cli::task::Verb;
use crate::cli::watch::{Pace, wait_at, watch_at};

const CUTOVER: Verb = Verb::Cutover {
    prove_full: false,
    source: None,
};

fn pace() -> Pace {
    Pace {
        every: Duration::from_millis(1),
        failed_for: Duration::from_millis(5),
        away_for: Duration::from_secs(3_600),
    }
}

fn with(desired: &str, stage: &str) -> MigrationView {
    migration(desired, vec![job(stage)])
}

fn because(stage: &str, why: &str) -> JobView {
    JobView {
        detail: Some(why.into()),
        ..job(stage)
    }
}

async fn waited(
    verb: Verb,
    first: MigrationView,
    script: Vec<Result<MigrationView, CommandError>>,
) -> (Result<(), CommandError>, String, String) {
    let (mut screen, out, err) = screen(&Globals::default());
    let node = Scripted::of(script);
    let result = wait_at(pace(), verb, first, &node, &mut screen).await;
    (result, out.text(), err.text())
}

#[test]
fn a_goal_is_reached_only_in_the_stages_that_mean_it() {
    let stages = [
        "enrolled",
        "initial-sync",
        "replicating",
        "ready-for-cutover",
        "cutting-over",
        "cut-over",
        "paused",
        "stalled",
        "rescanning",
        "failed",
    ];
    for (goal, desired, reached) in [
        (
            Goal::FirstPass,
            "started",
            &[
                "replicating",
                "ready-for-cutover",
                "cutting-over",
                "cut-over",
            ][..],
        ),
        (
            Goal::Moving,
            "started",
            &[
                "initial-sync",
                "replicating",
                "ready-for-cutover",
                "cutting-over",
                "cut-over",
                "rescanning",
            ],
        ),
        (Goal::Paused, "paused", &["paused", "cut-over"]),
        (Goal::CutOver, "cutover-prove-full", &["cut-over"]),
    ] {
        for stage in stages {
            let is = judge(goal, &with(desired, stage)) == Verdict::Reached;
            assert_eq!(is, reached.contains(&stage), "{goal:?} in {stage}");
        }
    }
}

#[test]
fn the_slowest_volume_decides_and_none_at_all_is_not_done() {
    let one_behind = migration("started", vec![job("replicating"), job("initial-sync")]);
    assert_eq!(judge(Goal::FirstPass, &one_behind), Verdict::Waiting);
    for (goal, desired) in [
        (Goal::FirstPass, "started"),
        (Goal::Paused, "paused"),
        (Goal::CutOver, "cutover"),
    ] {
        assert_eq!(judge(goal, &migration(desired, vec![])), Verdict::Waiting);
    }
    let deleted = migration("deleted", vec![]);
    assert_eq!(judge(Goal::Deleted, &deleted), Verdict::Reached);
}

#[test]
fn a_deleted_migration_is_gone_once_its_copies_are() {
    let mut view = with("deleted", "enrolled");
    assert_eq!(judge(Goal::Deleted, &view), Verdict::Waiting);
    view.volumes[0].target_path = None;
    assert_eq!(judge(Goal::Deleted, &view), Verdict::Reached);
}

#[tokio::test]
async fn waiting_tells_each_change_once_and_ends_with_the_result() {
    let mut syncing = with("started", "initial-sync");
    syncing.volumes[0].progress = Some(live(2 << 30));
    let script = vec![
        Ok(syncing.clone()),
        Ok(syncing),
        Ok(with("started", "replicating")),
    ];
    let first = with("started", "enrolled");
    let (result, out, err) = waited(Verb::Start, first, script).await;
    result.unwrap();
    assert_eq!(
        out,
        "migration web-1 (3f2a91c0) is replicating, its first pass is complete; stage replicating\n\
         next  dunlin migration watch web-1\n"
    );
    assert_eq!(
        err,
        "web-1/vda: enrolled (copying)\n\
         web-1/vda:  50 % initial-sync (copying), pass 1, 256 MiB/s of the disk, 128 MiB/s on the wire, 8 s left, 2.0 GiB of 4.0 GiB, 1.0 GiB sent\n\
         web-1/vda: replicating (copying)\n"
    );
}

#[tokio::test]
async fn a_reason_to_wait_is_told_once_and_is_no_failure() {
    let stalled = migration(
        "started",
        vec![because("stalled", "the replicator is away")],
    );
    let script = vec![
        Ok(stalled.clone()),
        Ok(stalled.clone()),
        Ok(stalled.clone()),
        Ok(with("started", "replicating")),
    ];
    let (result, _, err) = waited(Verb::Start, stalled, script).await;
    result.unwrap();
    assert_eq!(err.matches("the replicator is away").count(), 1, "{err}");
}

#[tokio::test]
async fn a_failure_that_stands_ends_the_waiting_with_why_and_what_to_do() {
    let failed = migration(
        "started",
        vec![because("failed", "the source disk has gone")],
    );
    let (result, out, _) = waited(Verb::Start, failed.clone(), vec![Ok(failed)]).await;
    let error = result.unwrap_err();
    assert_eq!(error.exit_status(), 1);
    for part in ["vda", "web-1", "the source disk has gone", "migration log"] {
        assert!(error.to_string().contains(part), "{error}");
    }
    assert_eq!(out, "");
}

#[tokio::test]
async fn a_failure_of_before_that_passes_does_not_end_the_waiting() {
    let failed = migration("started", vec![because("failed", "an old reason")]);
    let script = vec![
        Ok(with("started", "initial-sync")),
        Ok(with("started", "replicating")),
    ];
    let (result, _, _) = waited(Verb::Start, failed, script).await;
    result.unwrap();
}

#[tokio::test]
async fn another_operator_who_wants_something_else_ends_the_waiting() {
    let script = vec![Ok(with("paused", "paused"))];
    let (result, _, _) = waited(CUTOVER, with("cutover", "cutting-over"), script).await;
    let error = result.unwrap_err();
    assert_eq!(error.exit_status(), 6);
    assert!(error.to_string().contains("`paused`"), "{error}");
}

#[tokio::test]
async fn a_node_that_restarts_meanwhile_is_waited_for() {
    let script = vec![
        Err(not_running()),
        Err(not_running()),
        Ok(with("cutover", "cut-over")),
    ];
    let (result, out, err) = waited(CUTOVER, with("cutover", "cutting-over"), script).await;
    result.unwrap();
    assert!(out.contains("is cut over"), "{out}");
    assert_eq!(err.matches("does not answer").count(), 1, "{err}");
}

#[tokio::test]
async fn a_node_that_stays_away_ends_the_waiting() {
    let pace = Pace {
        away_for: Duration::ZERO,
        ..pace()
    };
    let node = Scripted::of([Err(not_running())]);
    let (mut screen, _, _) = screen(&Globals::default());
    let first = with("cutover", "cutting-over");
    let result = wait_at(pace, CUTOVER, first, &node, &mut screen).await;
    assert_eq!(result.unwrap_err().exit_status(), 4);
}

#[tokio::test]
async fn a_migration_that_vanishes_is_what_delete_waits_for_and_nothing_else() {
    let gone = || vec![Err(not_found("web-1"))];
    let (result, out, _) = waited(Verb::Delete, with("deleted", "replicating"), gone()).await;
    result.unwrap();
    assert_eq!(out, "migration web-1 (3f2a91c0) is deleted\n");
    let (result, _, _) = waited(Verb::Start, with("started", "enrolled"), gone()).await;
    assert_eq!(result.unwrap_err().exit_status(), 5);
}

#[tokio::test]
async fn waiting_with_json_prints_the_last_view_only() {
    let (mut screen, out, _) = screen(&json());
    let node = Scripted::of([Ok(with("paused", "paused"))]);
    let first = with("paused", "replicating");
    wait_at(pace(), Verb::Pause, first, &node, &mut screen)
        .await
        .unwrap();
    let view: Value = serde_json::from_str(&out.text()).unwrap();
    assert_eq!(view["stage"], "paused");
}

#[tokio::test]
async fn watching_with_json_prints_each_view_that_differs_one_a_line() {
    let (mut screen, out, err) = screen(&json());
    // That time passes is nothing new.
    let lagging = |lag_secs| {
        let mut view = with("cutover", "replicating");
        view.volumes[0].counters = Some(CountersView {
            lag_secs: Some(lag_secs),
            barrier_age_secs: Some(lag_secs),
            ..CountersView::default()
        });
        view
    };
    let node = Scripted::of([
        Ok(lagging(1)),
        Ok(lagging(2)),
        Ok(with("cutover", "cutting-over")),
        Ok(with("cutover", "cut-over")),
    ]);
    watch_at(pace(), "web-1", &node, &mut screen).await.unwrap();
    let stage = |line: &str| serde_json::from_str::<Value>(line).unwrap()["stage"].clone();
    let stages: Vec<Value> = out.text().lines().map(stage).collect();
    assert_eq!(stages, ["replicating", "cutting-over", "cut-over"]);
    assert_eq!(err.text(), "");
}

#[tokio::test]
async fn watching_without_a_terminal_prints_lines_on_stdout() {
    let (mut screen, out, err) = screen(&Globals::default());
    let node = Scripted::of([
        Ok(with("started", "replicating")),
        Ok(with("cutover", "cut-over")),
    ]);
    watch_at(pace(), "web-1", &node, &mut screen).await.unwrap();
    assert_eq!(
        out.text(),
        "web-1/vda: replicating (copying)\n\
         web-1/vda: cut-over (copying)\n\
         migration web-1 (3f2a91c0) is cut over; stage cut-over\n\
         next  dunlin migration watch web-1\n"
    );
    assert_eq!(err.text(), "");
}

#[tokio::test]
async fn watching_what_is_not_there_is_not_found() {
    let (mut screen, _, _) = screen(&Globals::default());
    let result = watch_at(pace(), "nothing", &Scripted::default(), &mut screen).await;
    assert_eq!(result.unwrap_err().exit_status(), 5);
}
