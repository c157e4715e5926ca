//! Commands that have the node do something, over a real socket.

use axum::Router;
use axum::extract::Path;
use axum::routing::{get, post};
use clap::Parser;
use serde_json::{Value, json as value};
use tempfile::TempDir;
use tokio::net::UnixListener;

use super::*;
use crate::api::client::{Client, SocketPath};
use crate::cli::outcome::CommandError;
use crate::cli::task::Task;
use crate::cli::{Cli, act};

/// What the node was asked for: route and body.
type Asked = Arc<Mutex<Vec<(String, Value)>>>;

fn routes(asked: &Asked, invite_addresses: &[&str]) -> Router {
    let note = |route: &'static str, answer: Value| {
        let asked = asked.clone();
        post(move |body: axum::Json<Value>| async move {
            asked.lock().unwrap().push((route.to_owned(), body.0));
            axum::Json(answer)
        })
    };
    let steered = asked.clone();
    let steer = post(
        move |Path((which, verb)): Path<(String, String)>, body: axum::Json<Value>| {
            let steered = steered.clone();
            async move {
                steered
                    .lock()
                    .unwrap()
                    .push((format!("{which} {verb}"), body.0));
                axum::Json(migration("cutover", vec![job("cutting-over")]))
            }
        },
    );
    let invite = value!({
        "invite": "dunlin1secret", "id": "0102030405060708", "roles": ["agent"],
        "expires_at": "2026-02-01T08:00:00Z", "addresses": invite_addresses,
    });
    let created = serde_json::to_value(migration("created", vec![])).unwrap();
    let volume = serde_json::to_value(disk()).unwrap();
    Router::new()
        .route("/v1/invites", note("invites", invite))
        .route(
            "/v1/nodes/{which}/revoke",
            note(
                "revoke",
                value!({
                    "id": "01", "name": "web",
                    "dry_run": false, "honoured_statements": 7, "honoured_edits": 2,
                    "lapsed": {"nodes": ["a", "b"], "invites": [], "grants": ["05"], "granted": ["m1"], "edits": 3, "migrations": ["m1", "m2"], "servers": []},
                }),
            ),
        )
        .route("/v1/volumes", note("volumes", volume))
        .route("/v1/migrations", note("migrations", created))
        .route("/v1/migrations/{which}/{verb}", steer)
        .route(
            "/v1/migrations/{which}",
            get(|| async { axum::Json(migration("cutover", vec![job("cut-over")])) }),
        )
}

struct Ran {
    result: Result<(), CommandError>,
    out: String,
    err: String,
    asked: Vec<(String, Value)>,
}

async fn run(line: &str, addresses: &[&str]) -> Ran {
    let dir = TempDir::new().unwrap();
    let asked = Asked::default();
    let socket = SocketPath::of(dir.path()).unwrap();
    let listener = UnixListener::bind(socket.as_path()).unwrap();
    let served = axum::serve(listener, routes(&asked, addresses));
    let served = tokio::spawn(async move { served.await });
    let words = std::iter::once("dunlin").chain(line.split_whitespace());
    let cli = Cli::try_parse_from(words).unwrap();
    let (mut screen, out, err) = screen(&cli.globals);
    let Task::Act(act) = cli.command.into() else {
        panic!("`{line}` needs no running node");
    };
    let client = Client::connect(dir.path()).await.unwrap();
    let result = act::run(act, &client, &mut screen).await;
    served.abort();
    let asked = asked.lock().unwrap().clone();
    Ran {
        result,
        out: out.text(),
        err: err.text(),
        asked,
    }
}

#[tokio::test]
async fn a_new_invite_is_the_only_line_on_stdout() {
    let line = "invite create --role agent,replicator --name web --expires 2h";
    let ran = run(line, &["/ip4/10.0.0.1/tcp/7430"]).await;
    ran.result.unwrap();
    assert_eq!(ran.out, "dunlin1secret\n");
    assert!(ran.err.contains("dunlin join -"), "{}", ran.err);
    assert!(!ran.err.contains("warning"), "{}", ran.err);
    assert!(!ran.err.contains("dunlin1secret"), "{}", ran.err);
    let expected = value!({
        "roles": ["agent", "replicator"], "name": "web", "site": null,
        "expires_secs": 7_200, "uses": 1,
        "scope": [], "valid_for_secs": null, "root_key": null,
    });
    assert_eq!(ran.asked, [("invites".to_owned(), expected)]);
}

#[tokio::test]
async fn an_invite_that_leads_nowhere_warns_even_when_quiet() {
    let ran = run("invite create --role agent --quiet", &[]).await;
    ran.result.unwrap();
    assert_eq!(ran.out, "dunlin1secret\n");
    assert!(
        ran.err.starts_with("warning: the invite names no address"),
        "{}",
        ran.err
    );
}

#[tokio::test]
async fn a_migration_is_asked_for_with_every_option() {
    let ran = run(
        "migration create --server web --to local --site s --name n --provisioner p --replicator a --replicator b --disk c --json",
        &[],
    )
    .await;
    ran.result.unwrap();
    let expected = value!({
        "name": "n", "server": "web", "to": "local", "site": "s", "provisioner": "p",
        "replicators": ["a", "b"], "disks": ["c"],
    });
    assert_eq!(ran.asked, [("migrations".to_owned(), expected)]);
    let printed: Value = serde_json::from_str(&ran.out).unwrap();
    assert_eq!(printed["id"], MIGRATION_ID);
}

#[tokio::test]
async fn a_disk_is_offered_by_its_absolute_path() {
    let ran = run("volume add some/disk.img", &[]).await;
    ran.result.unwrap();
    let path = std::env::current_dir().unwrap().join("some/disk.img");
    let expected = value!({ "path": path, "name": null });
    assert_eq!(ran.asked, [("volumes".to_owned(), expected)]);
    assert!(
        ran.err.contains("migration create --server web"),
        "{}",
        ran.err
    );
}

#[tokio::test]
async fn a_node_is_revoked_with_the_reason() {
    let ran = run("node revoke web --reason lost", &[]).await;
    ran.result.unwrap();
    assert_eq!(
        ran.asked,
        [(
            "revoke".to_owned(),
            value!({
                "reason": "lost", "honour_through": null, "honour_edits": null,
                "dry_run": false, "root_key": null,
            })
        )]
    );
    assert_eq!(
        ran.out,
        "node web revoked\nits word counts through statement 7 and edit 2\nno longer counts:\n  nodes: a, b\n  1 grant, of migrations: m1\n  3 of its edits of the plan\n  edits of migrations, which are as they were before or gone: m1, m2\n"
    );
}

#[tokio::test]
async fn a_cutover_carries_how_it_is_proven_and_waits_when_told_to() {
    let ran = run("migration cutover web-1 --prove full", &[]).await;
    ran.result.unwrap();
    let expected = ("web-1 cutover".to_owned(), value!({ "prove_full": true }));
    assert_eq!(ran.asked, [expected]);
    assert!(
        ran.out.contains("is to be cut over; stage cutting-over"),
        "{}",
        ran.out
    );
    let ran = run("migration cutover web-1 --wait", &[]).await;
    ran.result.unwrap();
    let expected = ("web-1 cutover".to_owned(), value!({ "prove_full": false }));
    assert_eq!(ran.asked, [expected]);
    assert!(
        ran.out.contains("is cut over; stage cut-over"),
        "{}",
        ran.out
    );
}

#[tokio::test]
async fn a_start_carries_what_its_grant_is_to_have_where_that_is_given() {
    let ran = run("migration start web-1 --lease 10m --autonomy 0", &[]).await;
    ran.result.unwrap();
    let expected = value!({ "prove_full": false, "lease_secs": 600, "autonomy_secs": 0 });
    assert_eq!(ran.asked, [("web-1 start".to_owned(), expected)]);
    for (line, expected) in [
        ("migration start web-1", value!({ "prove_full": false })),
        (
            "migration start web-1 --dedup-group web",
            value!({ "prove_full": false, "dedup_group": "web" }),
        ),
        (
            "migration start web-1 --no-dedup-group",
            value!({ "prove_full": false, "dedup_group": "" }),
        ),
    ] {
        let ran = run(line, &[]).await;
        ran.result.unwrap();
        assert_eq!(ran.asked, [("web-1 start".to_owned(), expected)]);
    }
}

#[tokio::test]
async fn what_the_node_does_not_know_is_an_error_with_its_kind() {
    let ran = run("invite revoke 0102", &[]).await;
    let error = ran.result.unwrap_err();
    assert_eq!(error.exit_status(), 1);
    assert!(
        error.to_string().contains("POST /v1/invites/0102/revoke"),
        "{error}"
    );
}
