//! Commands that look, with their exit statuses.

use std::sync::Arc;

use serde_json::Value;

use super::node::Scripted;
use super::*;
use crate::api::client::ClientError;
use crate::api::model::*;
use crate::cli::follow::Seen;
use crate::cli::outcome::{CommandError, describe, exit_status};
use crate::cli::task::{Events, Read};
use crate::cli::{manual, read};

fn every_look() -> Vec<Read> {
    vec![
        Read::Status,
        Read::Invites,
        Read::Nodes,
        Read::Node("n".into()),
        Read::Servers,
        Read::Server("s".into()),
        Read::Volumes,
        Read::Limits,
        Read::Migrations,
        Read::Migration("m".into()),
        Read::Events(Events::default()),
    ]
}

fn node() -> Scripted {
    Scripted::of([Ok(migration("started", vec![job("replicating")]))])
}

#[tokio::test]
async fn every_look_prints_one_json_value_that_is_the_answer() {
    for look in every_look() {
        let name = format!("{look:?}");
        let (mut screen, out, err) = screen(&json());
        read::run(look, &node(), &mut screen).await.unwrap();
        let text = out.text();
        assert_eq!(text.lines().count(), 1, "{name}");
        serde_json::from_str::<Value>(&text).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(err.text(), "", "{name}");
    }
    let (mut screen, out, _) = screen(&json());
    read::run(Read::Nodes, &node(), &mut screen).await.unwrap();
    let expected = serde_json::to_string(&[super::node()]).unwrap() + "\n";
    assert_eq!(out.text(), expected);
}

#[tokio::test]
async fn an_empty_list_says_what_to_do_next() {
    let node = Scripted {
        empty: true,
        ..node()
    };
    for look in [
        Read::Invites,
        Read::Nodes,
        Read::Servers,
        Read::Volumes,
        Read::Limits,
        Read::Migrations,
    ] {
        let name = format!("{look:?}");
        let (mut screen, out, _) = screen(&Globals::default());
        read::run(look, &node, &mut screen).await.unwrap();
        assert!(out.text().contains("`dunlin "), "{name}: {}", out.text());
    }
}

async fn verified(view: VerifyView, desired: &str) -> (Result<(), CommandError>, String) {
    let node = Scripted {
        verify: Some(view),
        ..Scripted::of([Ok(migration(desired, vec![job("replicating")]))])
    };
    let (mut screen, out, _) = screen(&Globals::default());
    let result = read::run(Read::Verify("web-1".into()), &node, &mut screen).await;
    (result, out.text())
}

#[tokio::test]
async fn equal_roots_verify() {
    let (result, out) = verified(proven(Some("aa"), Some("aa")), "cutover").await;
    result.unwrap();
    assert!(out.lines().any(|line| line == "equal"), "{out}");
}

#[tokio::test]
async fn equal_roots_of_a_copy_that_is_gone_are_shown_and_refused() {
    let mut view = proven(Some("aa"), Some("aa"));
    view.volumes[0].volume_problem = Some("/cloud/x.raw is missing".into());
    let (result, out) = verified(view, "cutover").await;
    assert!(out.lines().any(|line| line == "equal"), "{out}");
    let error = result.unwrap_err();
    assert_eq!(error.exit_status(), 6);
    assert!(
        error.to_string().contains("/cloud/x.raw is missing"),
        "{error}"
    );
}

#[tokio::test]
async fn roots_that_differ_fail_and_are_shown_all_the_same() {
    let (result, out) = verified(proven(Some("aa"), Some("bb")), "cutover").await;
    let error = result.unwrap_err();
    assert_eq!(error.exit_status(), 1);
    assert!(error.to_string().contains("volume vda"), "{error}");
    assert!(out.lines().any(|line| line == "NOT EQUAL"), "{out}");
}

#[tokio::test]
async fn roots_that_are_not_there_yet_are_refused_with_the_stage_and_the_way_on() {
    let (result, _) = verified(proven(Some("aa"), None), "started").await;
    let error = result.unwrap_err();
    assert_eq!(error.exit_status(), 6);
    assert!(error.to_string().contains("`replicating`"), "{error}");
    assert!(
        error.to_string().contains("migration cutover web-1"),
        "{error}"
    );
    let (result, _) = verified(proven(None, None), "cutover").await;
    let error = result.unwrap_err();
    assert!(
        error.to_string().contains("migration watch web-1"),
        "{error}"
    );
}

#[tokio::test]
async fn one_volume_that_differs_weighs_more_than_one_that_is_missing() {
    let mut view = proven(Some("aa"), Some("bb"));
    view.volumes.extend(proven(Some("aa"), None).volumes);
    let (result, _) = verified(view, "cutover").await;
    assert_eq!(result.unwrap_err().exit_status(), 1);
}

#[tokio::test]
async fn a_node_that_says_unverified_is_believed_over_equal_roots() {
    let mut view = proven(Some("aa"), Some("aa"));
    view.verified = false;
    let (result, _) = verified(view, "cutover").await;
    assert_eq!(result.unwrap_err().exit_status(), 1);
}

#[tokio::test]
async fn a_closed_stdout_ends_quietly_with_status_0() {
    let mut screen = crate::cli::screen::Screen::with(&json(), look(), Gone, Written::default());
    let result = read::run(Read::Status, &node(), &mut screen).await;
    let error = result.unwrap_err();
    assert!(matches!(error, CommandError::Closed));
    assert_eq!(error.exit_status(), 0);
}

#[test]
fn every_kind_of_failure_has_its_exit_status() {
    for (kind, status) in [
        (ErrorKind::Failed, 1),
        (ErrorKind::Usage, 2),
        (ErrorKind::NotAuthorised, 3),
        (ErrorKind::NotRunning, 4),
        (ErrorKind::NotFound, 5),
        (ErrorKind::Refused, 6),
    ] {
        assert_eq!(exit_status(kind), status);
        let refused = ClientError::Refused(ErrorView {
            error: "why".into(),
            kind,
        });
        assert_eq!(CommandError::from(refused).exit_status(), status);
    }
}

#[test]
fn errors_of_other_layers_keep_their_kind_and_say_their_causes() {
    let inner = anyhow::Error::from(CommandError::refused("paused")).context("start");
    assert_eq!(CommandError::from(inner).exit_status(), 6);
    let other = anyhow::anyhow!("disk is full").context("cannot store");
    let other = CommandError::from(other);
    assert_eq!(other.exit_status(), 1);
    assert_eq!(other.to_string(), "cannot store: disk is full");
}

#[test]
fn an_error_is_text_for_people_and_json_for_programs() {
    let view = ErrorView {
        error: "no \u{1b}[2Jnode".into(),
        kind: ErrorKind::NotFound,
    };
    assert_eq!(describe(&view, false), "error: no \u{fffd}[2Jnode\n");
    assert_eq!(
        describe(&view, true),
        "{\"error\":\"no \\u001b[2Jnode\",\"kind\":\"not-found\"}\n"
    );
}

#[test]
fn every_event_is_followed_once_even_when_it_comes_late() {
    const T0: &str = "2026-01-31T07:00:00Z";
    const T1: &str = "2026-01-31T08:00:00Z";
    let numbers = |events: Vec<EventView>| -> Vec<u64> { events.iter().map(|e| e.seq).collect() };
    let mut seen = Seen::new(EventQuery::default());
    assert_eq!(seen.query(NOW_SECS).since, None);
    let first = vec![event("web", 1, T0), event("web", 2, T1)];
    assert_eq!(numbers(seen.fresh(first.clone())), [1, 2]);
    assert_eq!(seen.query(NOW_SECS).since, Some(NOW_SECS - 900));
    assert_eq!(
        numbers(seen.fresh(vec![event("web", 2, T1)])),
        [] as [u64; 0]
    );
    while seen.query(NOW_SECS).since.is_some() {
        assert!(seen.fresh(vec![event("web", 2, T1)]).is_empty());
    }
    let late = event("store", 1, T0);
    let whole = [first, vec![late]].concat();
    let fresh = seen.fresh(whole);
    assert_eq!((fresh.len(), fresh[0].node.as_str()), (1, "store"));
}

#[test]
fn a_node_whose_clock_is_ahead_does_not_hide_the_events_of_others() {
    let mut seen = Seen::new(EventQuery::default());
    seen.fresh(vec![event("web", 1, "2999-01-01T00:00:00Z")]);
    assert_eq!(seen.query(NOW_SECS).since, Some(NOW_SECS - 900));
}

#[test]
fn manual_pages_and_completions_cover_the_commands() {
    let (mut screen, out, _) = screen(&Globals::default());
    let words = ["migration".to_owned(), "create".to_owned()];
    manual::man(&words, &mut screen).unwrap();
    assert!(
        out.text().contains("dunlin\\-migration\\-create"),
        "{}",
        out.text()
    );
    assert!(out.text().contains("\\-\\-server"), "{}", out.text());
    let unknown = manual::man(&["plant".to_owned()], &mut screen).unwrap_err();
    assert_eq!(unknown.exit_status(), 2);
    manual::completions(clap_complete::Shell::Bash, &mut screen).unwrap();
    assert!(out.text().contains("cutover"));
}

#[test]
fn a_screen_that_is_quiet_still_warns() {
    let globals = Globals {
        quiet: true,
        ..Globals::default()
    };
    let (mut screen, out, err) = screen(&globals);
    screen.note("a note");
    screen.warn("a warning");
    assert_eq!(
        (out.text().as_str(), err.text().as_str()),
        ("", "a warning\n")
    );
    assert_eq!(Arc::strong_count(&out.0), 2);
}
