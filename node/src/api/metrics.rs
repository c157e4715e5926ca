//! `/metrics`: on the node's socket for whoever may read the API, and for Prometheus, which
//! cannot read sockets, on a loopback address, under a token.
//!
//! On that address there is nothing else, and not even that without the token: every user
//! of the machine can connect to it. Not here: what is shown (`metrics`).

use crate::datadir::DataDirError;
use crate::datadir::{DataDir, read_private, write_private};
use crate::engine::Handle;
use crate::metrics::{MEDIA_TYPE, text};
use anyhow::{Context, anyhow, bail, ensure};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, header};
use hyper_util::rt::TokioIo;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};
use zeroize::Zeroizing;

/// Connections at once: one for each Prometheus, with room for a few.
const MAX_CONNECTIONS: usize = 8;
/// The longest that one may take: scrapes are asked for every few seconds.
const LONGEST: Duration = Duration::from_secs(10);
/// Pause after a connection that could not be taken in, as where files have run out.
const PAUSE: Duration = Duration::from_millis(100);

/// The answer, for a request that may be answered.
pub async fn page(handle: &Handle) -> Response {
    match handle.call(|engine| engine.measured()).await {
        Ok(snapshot) => ([(header::CONTENT_TYPE, MEDIA_TYPE)], text(&snapshot)).into_response(),
        Err(stopped) => (StatusCode::SERVICE_UNAVAILABLE, stopped.to_string()).into_response(),
    }
}

/// Where the token of a node is.
pub fn token_path(dir: &DataDir) -> PathBuf {
    dir.path().join("metrics.token")
}

/// A token as Prometheus sends it; compared by its hash, in constant time.
struct Token(blake3::Hash);

impl Token {
    /// The token that is in the file, or a new one, which is then in it.
    fn of(path: &Path) -> anyhow::Result<Self> {
        let text = match read_private(path) {
            Err(DataDirError::KeyMissing { .. }) => {
                let mut bytes = Zeroizing::new([0; 32]);
                getrandom::fill(&mut *bytes)
                    .map_err(|error| anyhow!("no random bytes from the system: {error}"))?;
                let text = Zeroizing::new(hex::encode(*bytes).into_bytes());
                write_private(path, &text)
                    .with_context(|| format!("cannot write {}", path.display()))?;
                text
            }
            // Unlike a key it is nobody's identity, and a new one costs nothing.
            Err(DataDirError::Exposed { path, mode }) => bail!(
                "{} can be read or changed by other users (mode {mode:03o}): remove it, and the node makes a new one",
                path.display()
            ),
            read => read?,
        };
        let token = text.trim_ascii();
        ensure!(
            token.len() >= 32,
            "{} holds no token of 32 letters or more: remove it, and the node makes a new one",
            path.display()
        );
        Ok(Self(blake3::hash(token)))
    }

    fn is_shown(&self, request: &Request<Incoming>) -> bool {
        let shown = request.headers().get(header::AUTHORIZATION);
        let shown = shown.and_then(|value| value.as_bytes().strip_prefix(b"Bearer "));
        shown.is_some_and(|token| blake3::hash(token) == self.0)
    }
}

/// Serves `/metrics` on a loopback address until it is aborted; the address that it has.
pub async fn serve(
    address: SocketAddr,
    dir: &DataDir,
    handle: Handle,
) -> anyhow::Result<(SocketAddr, tokio::task::JoinHandle<()>)> {
    let token = Arc::new(Token::of(&token_path(dir))?);
    let listener = TcpListener::bind(address)
        .await
        .with_context(|| format!("cannot serve metrics at {address}: choose another address for `listen` in `[metrics]`, or stop the program that is there"))?;
    let address = listener.local_addr()?;
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let task = tokio::spawn(async move {
        loop {
            let stream = match listener.accept().await {
                Ok((stream, _)) => stream,
                Err(error) => {
                    tracing::warn!("a connection for metrics was not taken in: {error}");
                    sleep(PAUSE).await;
                    continue;
                }
            };
            // Beyond the places it is closed at once.
            let Ok(place) = places.clone().try_acquire_owned() else {
                continue;
            };
            let (token, handle) = (token.clone(), handle.clone());
            tokio::spawn(async move {
                // Who is too slow, or breaks off, asks again.
                let _ = timeout(LONGEST, answer(stream, token, handle)).await;
                drop(place);
            });
        }
    });
    Ok((address, task))
}

async fn answer(stream: TcpStream, token: Arc<Token>, handle: Handle) {
    let service = service_fn(move |request: Request<Incoming>| {
        let (token, handle) = (token.clone(), handle.clone());
        async move {
            let response = match (request.method(), request.uri().path()) {
                _ if !token.is_shown(&request) => unauthorised(),
                (&Method::GET, "/metrics") => page(&handle).await,
                _ => StatusCode::NOT_FOUND.into_response(),
            };
            Ok::<_, Infallible>(response)
        }
    });
    // What a client does to its connection is its own affair.
    let _ = http1::Builder::new()
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), service)
        .await;
}

fn unauthorised() -> Response {
    let challenge = [(header::WWW_AUTHENTICATE, "Bearer")];
    (StatusCode::UNAUTHORIZED, challenge).into_response()
}

/// An address of a setting, if it is one that other machines cannot reach.
pub fn loopback(text: &str) -> anyhow::Result<SocketAddr> {
    let address: SocketAddr = text.parse().with_context(|| {
        format!("`{text}` is not an address to serve metrics at: use e.g. 127.0.0.1:7432")
    })?;
    ensure!(
        address.ip().is_loopback(),
        "`{text}` is no loopback address, and the token would go over the network in the clear: use e.g. 127.0.0.1:{}, and a proxy with TLS in front of it",
        address.port()
    );
    Ok(address)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn only_loopback_addresses_may_serve_metrics() {
        assert!(loopback("127.0.0.1:7432").is_ok());
        assert!(loopback("[::1]:7432").is_ok());
        for refused in ["0.0.0.0:7432", "10.0.0.1:7432", "[::]:7432"] {
            let error = loopback(refused).unwrap_err().to_string();
            assert!(error.contains("loopback"), "{error}");
        }
        let error = loopback("localhost").unwrap_err().to_string();
        assert!(error.contains("localhost"), "{error}");
    }

    #[test]
    fn a_token_is_made_once_for_its_owner_alone_and_kept() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("metrics.token");
        let first = Token::of(&path).unwrap();
        let mode = path.metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let text = std::fs::read(&path).unwrap();
        assert_eq!(blake3::hash(&text), first.0);
        assert_eq!(Token::of(&path).unwrap().0, first.0);
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
        let error = Token::of(&path).err().unwrap().to_string();
        assert!(error.contains("(mode 644): remove it"), "{error}");
    }

    #[test]
    fn a_file_without_a_token_lets_nobody_in() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("metrics.token");
        write_private(&path, b"\n").unwrap();
        let error = Token::of(&path).err().unwrap().to_string();
        assert!(error.contains("holds no token"), "{error}");
    }
}
