//! The client against small servers on real Unix sockets.
#![allow(clippy::unwrap_used)]

use std::fs;

use axum::Router;
use axum::extract::{Path as Segment, RawQuery};
use axum::routing::{get, post};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixListener;

use super::*;
use crate::api::model::ErrorKind;

fn listen(run_dir: &Path) -> UnixListener {
    let socket = SocketPath::of(run_dir).unwrap();
    UnixListener::bind(socket.as_path()).unwrap()
}

fn serve(run_dir: &Path, routes: Router) {
    let listener = listen(run_dir);
    tokio::spawn(async move { axum::serve(listener, routes).await });
}

/// Answers every connection with these bytes, after its request was read, and closes.
fn serve_raw(run_dir: &Path, answer: Vec<u8>) {
    let listener = listen(run_dir);
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let answer = answer.clone();
            tokio::spawn(async move {
                let mut request = [0; 4096];
                if stream.read(&mut request).await.unwrap_or(0) > 0 {
                    let _ = stream.write_all(&answer).await;
                }
            });
        }
    });
}

async fn connected(run_dir: &Path) -> Client {
    Client::connect(run_dir).await.unwrap()
}

#[tokio::test]
async fn a_value_is_asked_for_and_one_is_sent() {
    let dir = TempDir::new().unwrap();
    let routes = Router::new()
        .route("/v1/things", get(|| async { axum::Json(json!(["a"])) }))
        .route(
            "/v1/things/{id}",
            post(
                |Segment(id): Segment<String>, body: axum::Json<Value>| async move {
                    axum::Json(json!({ "id": id, "got": body.0 }))
                },
            ),
        )
        .route("/v1/nothing", post(|| async {}));
    serve(dir.path(), routes);
    let client = connected(dir.path()).await;
    let things: Vec<String> = client.get("/v1/things").await.unwrap();
    assert_eq!(things, ["a"]);
    let route = format!("/v1/things/{}", percent_encoded("x/y ?é"));
    let answer: Value = client.post(&route, &json!({ "n": 1 })).await.unwrap();
    assert_eq!(answer, json!({ "id": "x/y ?é", "got": { "n": 1 } }));
    let nothing: Value = client.post("/v1/nothing", &json!({})).await.unwrap();
    assert_eq!(nothing, Value::Null);
}

#[tokio::test]
async fn a_query_arrives_as_it_was_encoded() {
    let dir = TempDir::new().unwrap();
    let echo = |RawQuery(query): RawQuery| async move { axum::Json(query) };
    serve(dir.path(), Router::new().route("/v1/events", get(echo)));
    let client = connected(dir.path()).await;
    let query: Option<String> = client
        .get("/v1/events?migration=a%20b&since=3")
        .await
        .unwrap();
    assert_eq!(query.as_deref(), Some("migration=a%20b&since=3"));
}

#[tokio::test]
async fn a_socket_whose_path_is_too_long_for_the_system_is_reached() {
    let dir = TempDir::new().unwrap();
    let deep = dir.path().join("d".repeat(120)).join("e".repeat(120));
    fs::create_dir_all(&deep).unwrap();
    assert!(UnixListener::bind(deep.join(SOCKET)).is_err());
    serve(
        &deep,
        Router::new().route("/v1/x", get(|| async { axum::Json(7) })),
    );
    assert!(deep.join(SOCKET).exists());
    let client = connected(&deep).await;
    assert_eq!(client.get::<u32>("/v1/x").await.unwrap(), 7);
}

#[tokio::test]
async fn no_folder_no_socket_and_a_dead_socket_all_mean_that_no_node_runs() {
    let dir = TempDir::new().unwrap();
    let dead = dir.path().join("dead");
    fs::create_dir(&dead).unwrap();
    drop(listen(&dead));
    assert!(dead.join(SOCKET).exists());
    let deep_missing = dir.path().join("d".repeat(120));
    for run_dir in [
        dir.path(),
        &dir.path().join("missing"),
        &dead,
        &deep_missing,
    ] {
        let error = Client::connect(run_dir).await.unwrap_err();
        assert!(matches!(error, ClientError::NotRunning { .. }), "{error}");
        assert!(error.to_string().contains("dunlin run"), "{error}");
    }
}

#[tokio::test]
async fn a_refusal_comes_with_the_nodes_own_words_and_kind() {
    let dir = TempDir::new().unwrap();
    let view = json!({ "error": "it is paused", "kind": "refused" });
    let refuse = move || async move { (axum::http::StatusCode::CONFLICT, axum::Json(view)) };
    serve(dir.path(), Router::new().route("/v1/x", get(refuse)));
    let client = connected(dir.path()).await;
    match client.get::<Value>("/v1/x").await {
        Err(ClientError::Refused(view)) => {
            assert_eq!(
                (view.error.as_str(), view.kind),
                ("it is paused", ErrorKind::Refused)
            );
        }
        other => panic!("{other:?}"),
    }
    let unknown = client.get::<Value>("/v1/unknown").await.unwrap_err();
    assert!(
        matches!(
            unknown,
            ClientError::Unexpected {
                status: StatusCode::NOT_FOUND,
                ..
            }
        ),
        "{unknown}"
    );
}

#[tokio::test]
async fn an_answer_of_another_shape_is_named_as_such() {
    let dir = TempDir::new().unwrap();
    serve(
        dir.path(),
        Router::new().route("/v1/x", get(|| async { "not json" })),
    );
    let error = connected(dir.path()).await.get::<Vec<u8>>("/v1/x").await;
    let error = error.unwrap_err();
    assert!(matches!(error, ClientError::Unreadable { .. }), "{error}");
    assert!(error.to_string().contains("GET /v1/x"), "{error}");
}

#[tokio::test]
async fn garbage_and_a_cut_answer_are_a_broken_connection() {
    let cut = b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n[1,".to_vec();
    for answer in [b"\0\xff garbage\r\n\r\n".to_vec(), cut, Vec::new()] {
        let dir = TempDir::new().unwrap();
        serve_raw(dir.path(), answer);
        let error = connected(dir.path()).await.get::<Value>("/v1/x").await;
        let error = error.unwrap_err();
        assert!(matches!(error, ClientError::Broken { .. }), "{error}");
    }
}

#[tokio::test]
async fn an_answer_without_end_is_cut_off() {
    let dir = TempDir::new().unwrap();
    let mut answer = b"HTTP/1.1 200 OK\r\ncontent-length: 99999999999\r\n\r\n".to_vec();
    answer.resize(answer.len() + LONGEST_ANSWER_BYTES + 1, b' ');
    serve_raw(dir.path(), answer);
    let error = connected(dir.path()).await.get::<Value>("/v1/x").await;
    assert!(
        matches!(error, Err(ClientError::TooLarge { .. })),
        "{error:?}"
    );
}

#[tokio::test]
async fn a_node_that_does_not_answer_is_given_up() {
    let dir = TempDir::new().unwrap();
    let _listening = listen(dir.path());
    let mut client = connected(dir.path()).await;
    client.longest_silence = Duration::from_millis(20);
    let error = client.get::<Value>("/v1/status").await.unwrap_err();
    assert!(matches!(error, ClientError::Silent { .. }), "{error}");
    assert!(error.to_string().contains("within 20ms"), "{error}");
    assert!(
        error.to_string().contains("the node does not answer"),
        "{error}"
    );
}

#[tokio::test]
async fn an_answer_that_began_in_time_may_take_longer_and_is_bounded_too() {
    let dir = TempDir::new().unwrap();
    let listener = listen(dir.path());
    tokio::spawn(async move {
        let mut held = vec![];
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut request = [0; 4096];
            let _ = stream.read(&mut request).await;
            let head = b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n[";
            let _ = stream.write_all(head).await;
            held.push(stream);
        }
    });
    let mut client = connected(dir.path()).await;
    client.longest_wait = Duration::from_millis(50);
    client.longest_silence = Duration::from_secs(600);
    let error = client.get::<Value>("/v1/status").await.unwrap_err();
    assert!(matches!(error, ClientError::Silent { .. }), "{error}");
    client.longest_silence = Duration::from_millis(20);
    let patient = client.patient();
    assert_eq!(patient.longest_silence, client.longest_wait);
}

#[tokio::test]
async fn a_node_that_takes_no_connection_any_more_does_not_answer() {
    let dir = TempDir::new().unwrap();
    // One that nobody takes in, and room for no other.
    let socket = std::os::unix::net::UnixListener::bind(dir.path().join(SOCKET)).unwrap();
    rustix::net::listen(&socket, 0).unwrap();
    let mut client = connected(dir.path()).await;
    client.longest_silence = Duration::from_millis(200);
    let mut waiting = vec![];
    let error = loop {
        match client.open("GET /v1/x").await {
            Ok(stream) => waiting.push(stream),
            Err(error) => break error,
        }
        assert!(waiting.len() < 100, "the queue has no end");
    };
    assert!(matches!(error, ClientError::Silent { .. }), "{error}");
}

#[tokio::test]
async fn a_client_outlives_a_restart_of_the_node() {
    let dir = TempDir::new().unwrap();
    let routes = || Router::new().route("/v1/x", get(|| async { axum::Json(1) }));
    let listener = listen(dir.path());
    let first = tokio::spawn(async move { axum::serve(listener, routes()).await });
    let client = connected(dir.path()).await;
    assert_eq!(client.get::<u32>("/v1/x").await.unwrap(), 1);
    first.abort();
    assert!(first.await.unwrap_err().is_cancelled());
    let error = client.get::<u32>("/v1/x").await.unwrap_err();
    assert!(matches!(error, ClientError::NotRunning { .. }), "{error}");
    fs::remove_file(dir.path().join(SOCKET)).unwrap();
    serve(dir.path(), routes());
    assert_eq!(client.get::<u32>("/v1/x").await.unwrap(), 1);
}
