//! The node's end of the local API: routes to calls on the engine.
//!
//! The socket lies in a folder of mode 0700, has mode 0600, and every connection's
//! user is checked besides: a permission bit changed by accident opens nothing. Not
//! here: what a call does (`engine`), and how views are made (`views`).

use super::client::{SOCKET, SocketPath};
use super::model::{
    ActionOptions, ErrorKind, ErrorView, EventQuery, InviteCreate, InviteRevoke, LimitOf,
    MigrationCreate, MigrationDelete, NodeRevoke, PlannedLimit, SpeedAsk, VolumeAdd,
};
use crate::engine::{CallError, Engine, Handle, Stopped};
use crate::views::LookupError;
use anyhow::Context;
use axum::extract::{DefaultBodyLimit, Path, Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::serve::Listener;
use axum::{Json, Router};
use serde::Serialize;
use std::os::unix::fs::PermissionsExt;
use std::path::Path as FilePath;
use tokio::net::{UnixListener, UnixStream};

/// Largest request body: a list of disks and names.
const MAX_BODY: usize = 256 * 1024;

/// A socket that serves only this process's user, and root.
struct OwnUser {
    listener: UnixListener,
    me: u32,
}

impl Listener for OwnUser {
    type Io = UnixStream;
    type Addr = tokio::net::unix::SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        loop {
            let accepted = self.listener.accept().await;
            match accepted {
                Ok((stream, address)) => match stream.peer_cred() {
                    Ok(peer) if peer.uid() == self.me || peer.uid() == 0 => {
                        return (stream, address);
                    }
                    Ok(peer) => {
                        tracing::warn!("user {} was refused at the local API", peer.uid());
                    }
                    Err(error) => tracing::warn!("a local connection was refused: {error}"),
                },
                Err(error) => {
                    tracing::warn!("the local API could not accept a connection: {error}");
                    tokio::task::yield_now().await;
                }
            }
        }
    }

    fn local_addr(&self) -> std::io::Result<Self::Addr> {
        self.listener.local_addr()
    }
}

/// Serves the API in `run_dir` until the engine stops. The caller holds the node's
/// lock, so a socket that is there was left by a node that was killed.
pub fn serve(run_dir: &FilePath, handle: Handle) -> anyhow::Result<tokio::task::JoinHandle<()>> {
    let socket = run_dir.join(SOCKET);
    match std::fs::remove_file(&socket) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            return Err(error).with_context(|| format!("cannot replace {}", socket.display()));
        }
        _ => {}
    }
    let place = SocketPath::of(run_dir)
        .with_context(|| format!("cannot open the folder {}", run_dir.display()))?;
    let listener = UnixListener::bind(place.as_path())
        .with_context(|| format!("cannot make the local API at {}", socket.display()))?;
    std::fs::set_permissions(&socket, std::fs::Permissions::from_mode(0o600))
        .with_context(|| format!("cannot protect {}", socket.display()))?;
    let listener = OwnUser {
        listener,
        me: rustix::process::geteuid().as_raw(),
    };
    let routes = routes(handle);
    Ok(tokio::spawn(async move {
        if let Err(error) = axum::serve(listener, routes).await {
            tracing::error!("the local API ended: {error}");
        }
    }))
}

fn routes(handle: Handle) -> Router {
    Router::new()
        .route("/v1/status", get(status))
        .route("/v1/doctor", get(doctor))
        .route("/v1/rotate-key", post(rotate_key))
        .route("/v1/nodes", get(nodes))
        .route("/v1/nodes/{which}", get(node))
        .route("/v1/nodes/{which}/revoke", post(node_revoke))
        .route("/v1/nodes/{which}/speed-check", post(speed_check))
        .route("/v1/invites", get(invites).post(invite_create))
        .route("/v1/invites/{which}/revoke", post(invite_revoke))
        .route("/v1/servers", get(servers))
        .route("/v1/servers/{which}", get(server))
        .route("/v1/volumes", get(volumes).post(volume_add))
        .route("/v1/volumes/{which}/remove", post(volume_remove))
        .route("/v1/migrations", get(migrations).post(migration_create))
        .route("/v1/migrations/{which}", get(migration))
        .route("/v1/migrations/{which}/verify", get(verify))
        .route("/v1/migrations/{which}/delete", post(migration_delete))
        .route("/v1/migrations/{which}/hooks", post(hook_add))
        .route("/v1/migrations/{which}/hooks/remove", post(hook_remove))
        .route("/v1/migrations/{which}/checkpoints", post(checkpoint))
        .route("/v1/migrations/{which}/{action}", post(migration_act))
        .route("/v1/limits", get(limits).post(limit_set))
        .route("/v1/limits/remove", post(limit_remove))
        .route("/v1/plan", get(plan))
        .route("/v1/plan/at", post(plan_at))
        .route("/v1/plan/edits", post(plan_edit))
        .route(
            "/v1/plan/check",
            post(plan_check).layer(DefaultBodyLimit::max(crate::planfile::MAX_BYTES)),
        )
        .route("/v1/events", get(events))
        .route("/metrics", get(metrics))
        .layer(DefaultBodyLimit::max(MAX_BODY))
        .with_state(handle)
}

/// A failure as the API gives it.
struct Failure(ErrorView);

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let status = match self.0.kind {
            ErrorKind::Failed => StatusCode::INTERNAL_SERVER_ERROR,
            ErrorKind::Usage => StatusCode::BAD_REQUEST,
            ErrorKind::NotAuthorised => StatusCode::FORBIDDEN,
            ErrorKind::NotRunning => StatusCode::SERVICE_UNAVAILABLE,
            ErrorKind::NotFound => StatusCode::NOT_FOUND,
            ErrorKind::Refused => StatusCode::CONFLICT,
        };
        (status, Json(self.0)).into_response()
    }
}

impl From<CallError> for Failure {
    fn from(error: CallError) -> Self {
        Self(ErrorView {
            kind: error.kind(),
            error: error.to_string(),
        })
    }
}

impl From<LookupError> for Failure {
    fn from(error: LookupError) -> Self {
        CallError::from(error).into()
    }
}

impl From<Stopped> for Failure {
    fn from(stopped: Stopped) -> Self {
        Self(ErrorView {
            error: stopped.to_string(),
            kind: ErrorKind::NotRunning,
        })
    }
}

type Answer<T> = Result<Json<T>, Failure>;

async fn call<T, E>(
    handle: &Handle,
    run: impl FnOnce(&mut Engine) -> Result<T, E> + Send + 'static,
) -> Answer<T>
where
    T: Serialize + Send + 'static,
    E: Into<Failure> + Send + 'static,
{
    match handle.call(run).await? {
        Ok(value) => Ok(Json(value)),
        Err(error) => Err(error.into()),
    }
}

/// As [`call`], for what writes: a node that has just started is given a moment to hear
/// from its peers.
async fn write<T, E>(
    handle: &Handle,
    run: impl FnOnce(&mut Engine) -> Result<T, E> + Send + 'static,
) -> Answer<T>
where
    T: Serialize + Send + 'static,
    E: Into<Failure> + Send + 'static,
{
    handle.heard().await;
    call(handle, run).await
}

/// Nothing to tell but that it was done.
#[derive(Serialize)]
struct Done {}

fn done<E>(result: Result<(), E>) -> Result<Done, E> {
    result.map(|()| Done {})
}

async fn status(State(handle): State<Handle>) -> Answer<super::model::StatusView> {
    call(&handle, |engine| engine.with_state(|state| state.status())).await
}

async fn nodes(State(handle): State<Handle>) -> Answer<Vec<super::model::NodeView>> {
    call(&handle, |engine| {
        engine.with_state(|state| Ok::<_, LookupError>(state.nodes()))
    })
    .await
}

async fn node(
    State(handle): State<Handle>,
    Path(which): Path<String>,
) -> Answer<super::model::NodeView> {
    call(&handle, move |engine| {
        engine.with_state(|state| state.node_by(&which))
    })
    .await
}

async fn node_revoke(
    State(handle): State<Handle>,
    Path(which): Path<String>,
    Json(asked): Json<NodeRevoke>,
) -> Answer<super::model::NodeRevoked> {
    write(&handle, move |engine| engine.node_revoke(&which, &asked)).await
}

/// Files and links are looked at outside of the engine, which they would hold up.
async fn doctor(State(handle): State<Handle>) -> Answer<super::model::DoctorView> {
    let asked = handle.call(Engine::doctor).await??;
    let facts = asked.facts().await;
    let examined = tokio::task::spawn_blocking(move || crate::doctor::examine(&facts));
    let examined = examined.await.map_err(|error| {
        CallError::Failed(format!("the checks did not end as they should: {error}"))
    })?;
    Ok(Json(examined))
}

/// Made outside of the engine, which it would hold up; it ends when the caller goes away.
async fn speed_check(
    State(handle): State<Handle>,
    Path(which): Path<String>,
    Json(asked): Json<SpeedAsk>,
) -> Answer<super::model::SpeedView> {
    let prepared = handle.call(move |engine| engine.speed_check(&which, asked.seconds));
    Ok(Json(prepared.await??.run().await?))
}

async fn rotate_key(State(handle): State<Handle>) -> Answer<super::model::KeyRotated> {
    write(&handle, |engine| engine.rotate_key()).await
}

async fn invites(State(handle): State<Handle>) -> Answer<Vec<super::model::InviteView>> {
    call(&handle, |engine| {
        engine.with_state(|state| Ok::<_, LookupError>(state.invites()))
    })
    .await
}

async fn invite_create(
    State(handle): State<Handle>,
    Json(asked): Json<InviteCreate>,
) -> Answer<super::model::InviteCreated> {
    write(&handle, move |engine| engine.invite_create(&asked)).await
}

async fn invite_revoke(
    State(handle): State<Handle>,
    Path(which): Path<String>,
    Json(asked): Json<InviteRevoke>,
) -> Answer<Done> {
    write(&handle, move |engine| {
        done(engine.invite_revoke(&which, &asked))
    })
    .await
}

async fn servers(State(handle): State<Handle>) -> Answer<Vec<super::model::ServerView>> {
    call(&handle, |engine| {
        engine.with_state(|state| Ok::<_, LookupError>(state.servers()))
    })
    .await
}

async fn server(
    State(handle): State<Handle>,
    Path(which): Path<String>,
) -> Answer<super::model::ServerView> {
    call(&handle, move |engine| {
        engine.with_state(|state| state.server_by(&which))
    })
    .await
}

async fn volumes(State(handle): State<Handle>) -> Answer<Vec<super::model::VolumeView>> {
    call(&handle, |engine| {
        engine.with_state(|state| Ok::<_, LookupError>(state.volumes()))
    })
    .await
}

async fn volume_add(
    State(handle): State<Handle>,
    Json(asked): Json<VolumeAdd>,
) -> Answer<super::model::VolumeView> {
    call(&handle, move |engine| engine.volume_add(&asked)).await
}

async fn volume_remove(
    State(handle): State<Handle>,
    Path(which): Path<String>,
) -> Answer<super::model::VolumeView> {
    call(&handle, move |engine| engine.volume_remove(&which)).await
}

async fn migrations(State(handle): State<Handle>) -> Answer<Vec<super::model::MigrationView>> {
    call(&handle, |engine| {
        engine.with_state(|state| Ok::<_, LookupError>(state.migrations()))
    })
    .await
}

async fn migration(
    State(handle): State<Handle>,
    Path(which): Path<String>,
) -> Answer<super::model::MigrationView> {
    call(&handle, move |engine| {
        engine.with_state(|state| state.migration_by(&which))
    })
    .await
}

async fn migration_create(
    State(handle): State<Handle>,
    Json(asked): Json<MigrationCreate>,
) -> Answer<super::model::MigrationView> {
    write(&handle, move |engine| engine.migration_create(&asked)).await
}

async fn migration_act(
    State(handle): State<Handle>,
    Path((which, action)): Path<(String, String)>,
    options: Option<Json<ActionOptions>>,
) -> Answer<super::model::MigrationView> {
    let options = options.map(|Json(options)| options).unwrap_or_default();
    write(&handle, move |engine| match action.as_str() {
        "start" => engine.migration_start(&which, false, options),
        "resume" => engine.migration_start(&which, true, options),
        "pause" => engine.migration_pause(&which),
        "cutover" => engine.migration_cutover(&which, options),
        other => Err(CallError::Usage(format!(
            "`{other}` is nothing that a migration can do"
        ))),
    })
    .await
}

async fn hook_add(
    State(handle): State<Handle>,
    Path(which): Path<String>,
    Json(asked): Json<super::model::PlannedHook>,
) -> Answer<super::model::MigrationView> {
    write(&handle, move |engine| {
        engine.migration_hook_add(&which, &asked)
    })
    .await
}

async fn hook_remove(
    State(handle): State<Handle>,
    Path(which): Path<String>,
    Json(asked): Json<super::model::HookRemove>,
) -> Answer<super::model::MigrationView> {
    write(&handle, move |engine| {
        engine.migration_hook_remove(&which, asked.number)
    })
    .await
}

async fn checkpoint(
    State(handle): State<Handle>,
    Path(which): Path<String>,
    Json(asked): Json<super::model::CheckpointAsk>,
) -> Answer<super::model::MigrationView> {
    write(&handle, move |engine| {
        engine.migration_checkpoint(&which, asked)
    })
    .await
}

async fn migration_delete(
    State(handle): State<Handle>,
    Path(which): Path<String>,
    asked: Option<Json<MigrationDelete>>,
) -> Answer<super::model::MigrationView> {
    let asked = asked.map(|Json(asked)| asked).unwrap_or_default();
    call(&handle, move |engine| {
        engine.migration_delete(&which, &asked)
    })
    .await
}

async fn verify(
    State(handle): State<Handle>,
    Path(which): Path<String>,
) -> Answer<super::model::VerifyView> {
    call(&handle, move |engine| {
        engine.with_state(|state| state.verify(&which))
    })
    .await
}

async fn limits(State(handle): State<Handle>) -> Answer<Vec<super::model::LimitView>> {
    call(&handle, |engine| {
        engine.with_state(|state| Ok::<_, LookupError>(state.limits()))
    })
    .await
}

async fn limit_set(
    State(handle): State<Handle>,
    Json(asked): Json<PlannedLimit>,
) -> Answer<super::model::LimitView> {
    write(&handle, move |engine| engine.limit_set(&asked)).await
}

async fn limit_remove(
    State(handle): State<Handle>,
    Json(asked): Json<LimitOf>,
) -> Answer<super::model::LimitView> {
    write(&handle, move |engine| engine.limit_remove(&asked)).await
}

async fn plan(State(handle): State<Handle>) -> Answer<super::model::PlanView> {
    call(&handle, |engine| {
        engine.with_state(|state| Ok::<_, LookupError>(state.plan_view()))
    })
    .await
}

async fn plan_at(
    State(handle): State<Handle>,
    Json(base): Json<Vec<String>>,
) -> Answer<super::model::PlanView> {
    call(&handle, move |engine| {
        engine.with_state(|state| {
            let plan = state.plan_view_at(&base);
            plan.ok_or_else(|| CallError::Usage(crate::planfile::UNKNOWN_BASE.into()))
        })
    })
    .await
}

async fn plan_check(
    State(handle): State<Handle>,
    Json(edits): Json<Vec<super::model::PlanEdit>>,
) -> Answer<Done> {
    call(&handle, move |engine| done(engine.plan_check(&edits))).await
}

async fn plan_edit(
    State(handle): State<Handle>,
    Json(edits): Json<Vec<super::model::PlanEdit>>,
) -> Answer<Done> {
    write(&handle, move |engine| done(engine.plan_edit(&edits))).await
}

async fn events(
    State(handle): State<Handle>,
    Query(query): Query<EventQuery>,
) -> Answer<Vec<super::model::EventView>> {
    call(&handle, move |engine| engine.events(&query)).await
}

async fn metrics(State(handle): State<Handle>) -> Response {
    super::metrics::page(&handle).await
}
