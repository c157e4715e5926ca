//! The local API as a client sees it: HTTP/1 over the Unix socket in the node's run
//! folder.
//!
//! Not here: what the routes mean (`model`) and who answers (`server`).

#[cfg(test)]
mod tests;

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1;
use hyper::{Method, Request, Response, StatusCode, header};
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::net::UnixStream;
use tokio::time::timeout;

use super::model::ErrorView;

/// Name of the socket in the run folder.
pub const SOCKET: &str = "api.sock";

/// The longest answer taken: a mesh of 1,000 nodes with all its events is far below.
pub const LONGEST_ANSWER_BYTES: usize = 64 << 20;

/// The longest that one request may take, from connecting to the last byte.
pub const LONGEST_WAIT: Duration = Duration::from_secs(60);

/// The longest that it may take to connect, and then to get the first byte of an answer:
/// a node that was stopped or hangs takes connections all the same.
pub const LONGEST_SILENCE: Duration = Duration::from_secs(10);

/// How long until a full queue of connections is tried again.
const TRY_AGAIN: Duration = Duration::from_millis(50);

/// What fits into `sockaddr_un` with its closing zero on every Unix that matters.
const LONGEST_SOCKET_PATH_BYTES: usize = 100;

/// Why a request got no good answer.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody listens.
    #[error(
        "no node is running on {socket} ({why}); start it with `dunlin run`, or name its folder with --data-dir"
    )]
    NotRunning {
        /// The socket.
        socket: PathBuf,
        /// What the system said.
        why: String,
    },
    /// The socket belongs to somebody else.
    #[error(
        "the node on {socket} belongs to another user; run this command as the user that runs the node"
    )]
    Forbidden {
        /// The socket.
        socket: PathBuf,
    },
    /// Listens, but does not answer.
    #[error(
        "the node does not answer: nothing came from {socket} to `{request}` within {waited:?}; it hangs, was stopped (SIGSTOP) or has no time: look at its log and at `ps`, then look whether the request was carried out"
    )]
    Silent {
        /// The socket.
        socket: PathBuf,
        /// Method and path.
        request: String,
        /// For how long it was waited.
        waited: Duration,
    },
    /// What was to be sent is not JSON.
    #[error("`{request}` cannot be sent: {why}")]
    Unsendable {
        /// Method and path.
        request: String,
        /// What cannot be said in JSON.
        why: String,
    },
    /// The connection ended too soon.
    #[error(
        "the connection to the node on {socket} broke during `{request}` ({why}), as it does when the node stops; start it again with `dunlin run` and look whether the request was carried out"
    )]
    Broken {
        /// The socket.
        socket: PathBuf,
        /// Method and path.
        request: String,
        /// What the system said.
        why: String,
    },
    /// The answer is longer than is taken.
    #[error("the answer to `{request}` is longer than {LONGEST_ANSWER_BYTES} bytes; ask for less")]
    TooLarge {
        /// Method and path.
        request: String,
    },
    /// The answer is not what this program knows.
    #[error(
        "the answer to `{request}` cannot be read: {why}; use the `dunlin` of the same version as the node"
    )]
    Unreadable {
        /// Method and path.
        request: String,
        /// Where reading stopped.
        why: String,
    },
    /// A refusal without a reason.
    #[error(
        "the node answered `{request}` with {status} and no reason; use the `dunlin` of the same version as the node"
    )]
    Unexpected {
        /// Method and path.
        request: String,
        /// What it answered.
        status: StatusCode,
    },
    /// The node refused, and says why.
    #[error("{}", .0.error)]
    Refused(ErrorView),
}

/// A node's local API. Every request has a connection of its own, so a client outlives
/// a restart of the node.
#[derive(Debug, Clone)]
pub struct Client {
    run_dir: PathBuf,
    longest_wait: Duration,
    longest_silence: Duration,
}

/// A way to a socket that `connect` and `bind` take, however deep its folder lies.
#[derive(Debug)]
pub struct SocketPath {
    path: PathBuf,
    /// Held open as long as `path` leads through it.
    _dir: Option<File>,
}

impl SocketPath {
    /// The way to the socket in this folder. Errors when the folder cannot be opened.
    pub fn of(run_dir: &Path) -> io::Result<Self> {
        let path = run_dir.join(SOCKET);
        if path.as_os_str().as_bytes().len() < LONGEST_SOCKET_PATH_BYTES {
            return Ok(Self { path, _dir: None });
        }
        let dir = File::open(run_dir)?;
        let path = PathBuf::from(format!("/proc/self/fd/{}/{SOCKET}", dir.as_raw_fd()));
        Ok(Self {
            path,
            _dir: Some(dir),
        })
    }

    /// Valid while this value lives, and in this process only.
    pub fn as_path(&self) -> &Path {
        &self.path
    }
}

impl Client {
    /// A client of the node whose run folder this is. Errors when nobody listens there.
    pub async fn connect(run_dir: &Path) -> Result<Self, ClientError> {
        let client = Self {
            run_dir: run_dir.to_owned(),
            longest_wait: LONGEST_WAIT,
            longest_silence: LONGEST_SILENCE,
        };
        client.open("connect").await?;
        Ok(client)
    }

    /// The same for requests that a node may need long to work on, as it does for a plan
    /// of 100,000 servers.
    pub fn patient(&self) -> Self {
        Self {
            longest_silence: self.longest_wait,
            ..self.clone()
        }
    }

    /// The same for a request that takes so long by itself.
    pub fn waiting(&self, longest: Duration) -> Self {
        Self {
            longest_wait: longest,
            longest_silence: longest,
            ..self.clone()
        }
    }

    /// Asks for a value. The path begins with `/v1/` and is percent-encoded.
    pub async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, ClientError> {
        self.ask(Method::GET, path, None).await
    }

    /// Sends a value and takes the answer; an empty answer reads as `null`.
    pub async fn post<B: Serialize, T: DeserializeOwned>(
        &self,
        path: &str,
        body: &B,
    ) -> Result<T, ClientError> {
        let body = serde_json::to_vec(body).map_err(|error| ClientError::Unsendable {
            request: format!("POST {path}"),
            why: error.to_string(),
        })?;
        self.ask(Method::POST, path, Some(body)).await
    }

    async fn ask<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Option<Vec<u8>>,
    ) -> Result<T, ClientError> {
        let request = format!("{method} {path}");
        let exchange = self.exchange(&request, method, path, body);
        let answered = timeout(self.longest_wait, exchange).await;
        let (status, bytes) = answered.map_err(|_| self.silent(&request, self.longest_wait))??;
        if !status.is_success() {
            return Err(match serde_json::from_slice(&bytes) {
                Ok(view) => ClientError::Refused(view),
                Err(_) => ClientError::Unexpected { request, status },
            });
        }
        let text: &[u8] = if bytes.is_empty() { b"null" } else { &bytes };
        serde_json::from_slice(text).map_err(|error| ClientError::Unreadable {
            request,
            why: error.to_string(),
        })
    }

    async fn exchange(
        &self,
        request: &str,
        method: Method,
        path: &str,
        body: Option<Vec<u8>>,
    ) -> Result<(StatusCode, Bytes), ClientError> {
        let stream = self.open(request).await?;
        let broken = |error: hyper::Error| ClientError::Broken {
            socket: self.socket(),
            request: request.to_owned(),
            why: error.to_string(),
        };
        let mut message = Request::builder().method(method).uri(path);
        message = message.header(header::HOST, "localhost");
        if body.is_some() {
            message = message.header(header::CONTENT_TYPE, "application/json");
        }
        let message = message.body(Full::new(Bytes::from(body.unwrap_or_default())));
        let message = message.map_err(|error| ClientError::Unsendable {
            request: request.to_owned(),
            why: error.to_string(),
        })?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream))
            .await
            .map_err(broken)?;
        let answer = async {
            let begun = timeout(self.longest_silence, sender.send_request(message)).await;
            let begun = begun.map_err(|_| self.silent(request, self.longest_silence))?;
            self.read(request, begun.map_err(broken)?).await
        };
        tokio::pin!(connection);
        tokio::pin!(answer);
        // The connection is driven here and not in a task: it ends with the request.
        tokio::select! {
            biased;
            done = &mut answer => done,
            ended = &mut connection => match ended {
                Ok(()) => answer.await,
                Err(error) => Err(broken(error)),
            },
        }
    }

    async fn open(&self, request: &str) -> Result<UnixStream, ClientError> {
        let socket = SocketPath::of(&self.run_dir);
        let connected = match &socket {
            Ok(socket) => {
                let connecting = connect_when_taken(socket.as_path());
                let connected = timeout(self.longest_silence, connecting).await;
                connected.map_err(|_| self.silent(request, self.longest_silence))?
            }
            Err(error) => Err(io::Error::new(error.kind(), error.to_string())),
        };
        connected.map_err(|error| match error.kind() {
            io::ErrorKind::PermissionDenied => ClientError::Forbidden {
                socket: self.socket(),
            },
            io::ErrorKind::NotFound => self.not_running("there is no such socket"),
            io::ErrorKind::ConnectionRefused => self.not_running("nobody listens there"),
            _ => self.not_running(&error.to_string()),
        })
    }

    async fn read(
        &self,
        request: &str,
        response: Response<Incoming>,
    ) -> Result<(StatusCode, Bytes), ClientError> {
        let status = response.status();
        let body = Limited::new(response.into_body(), LONGEST_ANSWER_BYTES);
        match body.collect().await {
            Ok(body) => Ok((status, body.to_bytes())),
            Err(error) if error.is::<LengthLimitError>() => Err(ClientError::TooLarge {
                request: request.to_owned(),
            }),
            Err(error) => Err(ClientError::Broken {
                socket: self.socket(),
                request: request.to_owned(),
                why: error.to_string(),
            }),
        }
    }

    fn silent(&self, request: &str, waited: Duration) -> ClientError {
        ClientError::Silent {
            socket: self.socket(),
            request: request.to_owned(),
            waited,
        }
    }

    fn not_running(&self, why: &str) -> ClientError {
        ClientError::NotRunning {
            socket: self.socket(),
            why: why.to_owned(),
        }
    }

    fn socket(&self) -> PathBuf {
        self.run_dir.join(SOCKET)
    }
}

/// Connects. While as many wait to be taken in as the socket holds, it is tried again.
async fn connect_when_taken(socket: &Path) -> io::Result<UnixStream> {
    loop {
        match UnixStream::connect(socket).await {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                // Nothing tells when the other end has taken one in.
                tokio::time::sleep(TRY_AGAIN).await;
            }
            connected => return connected,
        }
    }
}

/// A word as one segment of a path or one value of a query: all but the unreserved
/// characters of RFC 3986 percent-encoded.
pub fn percent_encoded(word: &str) -> String {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    let mut encoded = String::with_capacity(word.len());
    for byte in word.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~') {
            encoded.push(char::from(byte));
        } else {
            encoded.push('%');
            encoded.push(char::from(DIGITS[usize::from(byte >> 4)]));
            encoded.push(char::from(DIGITS[usize::from(byte & 15)]));
        }
    }
    encoded
}
