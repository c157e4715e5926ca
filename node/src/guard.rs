//! `dunlin guard`: the small process beside an agent that needs the rights of root and
//! outlives it. It follows what is written to source disks, so that an agent that was
//! killed goes on with what it owed. It sends nothing, and has no key and no store.
//!
//! ```text
//!  agent (no rights) ── one socket, of root or the same user ──▶ guard (root)
//!   pass: what to read?                                           programs in the kernel
//!   taken from the other end: this group                          what each tree owes
//! ```
//!
//! All it knows is in memory: when it ends, all is to be read again.
//!
//! Not here: what a pass does with it (`transfer::follow`).

mod book;
mod client;
#[cfg(test)]
mod tests;
mod words;

use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use anyhow::{Context, bail};

use book::Book;
pub use client::trackers;
use words::{Answer, Ask, Line};

/// Where it is spoken to unless one says otherwise.
pub const DEFAULT_SOCKET: &str = "/run/dunlin/guard.sock";

/// Agents' sessions at once: one for each disk.
const MAX_CONNECTIONS: usize = 64;

/// Between two looks at the kernel's figures while nobody asks: what is missing is noticed
/// that much later at most, and numbers of generations last for three weeks.
const BETWEEN_LOOKS: Duration = Duration::from_secs(60);

/// Runs until the process is told to end; `ready` is told once it answers.
///
/// # Errors
/// When the socket cannot be made, or takes no connections any more.
pub async fn run(socket: &Path, ready: impl FnOnce()) -> anyhow::Result<()> {
    let stop = crate::local::told_to_stop()?;
    let listener = listen(socket)?;
    let mut serving = tokio::task::spawn_blocking(move || serve(&listener));
    ready();
    let ended = tokio::select! {
        ended = &mut serving => ended.context("the guard's thread ended")?,
        () = stop => Ok(()),
    };
    let _ = fs::remove_file(socket);
    ended
}

/// Makes the socket, for its owner alone. One that nobody answers at is taken away.
fn listen(socket: &Path) -> anyhow::Result<UnixListener> {
    let shown = socket.display();
    if let Some(folder) = socket.parent() {
        fs::create_dir_all(folder)
            .with_context(|| format!("cannot make the folder {}", folder.display()))?;
    }
    if let Ok(found) = fs::symlink_metadata(socket) {
        if !found.file_type().is_socket() {
            bail!("{shown} is there and is no socket: name another with --socket");
        }
        if UnixStream::connect(socket).is_ok() {
            bail!("another guard runs at {shown}: stop it first");
        }
        fs::remove_file(socket).with_context(|| format!("cannot remove the old socket {shown}"))?;
    }
    let listener =
        UnixListener::bind(socket).with_context(|| format!("cannot listen at {shown}"))?;
    fs::set_permissions(socket, fs::Permissions::from_mode(0o600))
        .with_context(|| format!("cannot keep others from {shown}"))?;
    Ok(listener)
}

fn serve(listener: &UnixListener) -> anyhow::Result<()> {
    let book = Arc::new(Mutex::new(Book::default()));
    let looking = book.clone();
    thread::Builder::new()
        .name("dunlin-looks".into())
        .spawn(move || {
            loop {
                thread::sleep(BETWEEN_LOOKS);
                held(&looking).look();
            }
        })?;
    let open = Arc::new(AtomicUsize::new(0));
    loop {
        let (stream, _) = listener.accept().context("cannot take connections")?;
        match is_ours(&stream) {
            Ok(true) => {}
            Ok(false) => {
                tracing::warn!(kind = "guard-refused", "another user asked");
                continue;
            }
            Err(error) => {
                tracing::warn!(kind = "guard-refused", "who asked is not known: {error}");
                continue;
            }
        }
        if open.fetch_add(1, Ordering::Relaxed) >= MAX_CONNECTIONS {
            open.fetch_sub(1, Ordering::Relaxed);
            tracing::warn!(
                kind = "guard-refused",
                "{MAX_CONNECTIONS} sessions are open"
            );
            continue;
        }
        let (book, open) = (book.clone(), open.clone());
        let spawned = thread::Builder::new()
            .name("dunlin-session".into())
            .spawn(move || {
                let ended = answer_all(Line::new(stream), &book);
                open.fetch_sub(1, Ordering::Relaxed);
                if let Err(error) = ended {
                    tracing::debug!("a session ended: {error}");
                }
            });
        spawned.context("cannot start a thread")?;
    }
}

/// Root, and who runs this, may ask.
fn is_ours(stream: &UnixStream) -> io::Result<bool> {
    let asks = rustix::net::sockopt::socket_peercred(stream)?.uid;
    Ok(asks.is_root() || asks == rustix::process::geteuid())
}

/// Answers until the other end closes.
fn answer_all(mut line: Line, book: &Mutex<Book>) -> Result<(), words::Broken> {
    while let Some(ask) = line.hear::<Ask>()? {
        let answers = held(book).answer(ask);
        for answer in answers {
            line.say::<Answer>(&answer)?;
        }
    }
    Ok(())
}

/// A thread that panicked has left whole entries: each step ends with a consistent book.
fn held(book: &Mutex<Book>) -> std::sync::MutexGuard<'_, Book> {
    book.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The socket of a node's guard.
pub fn socket_of(configured: Option<&PathBuf>) -> PathBuf {
    configured.map_or_else(|| PathBuf::from(DEFAULT_SOCKET), Clone::clone)
}
