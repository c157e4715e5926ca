//! `dunlin guard`: the small process beside an agent that needs the rights of root and
//! outlives it. It follows what is written to source disks, so that an agent that was
//! killed goes on with what it owed, and makes these disks still for a cutover, so that what
//! was frozen is thawed whatever becomes of the agent. It sends nothing, and has no key and
//! no store.
//!
//! ```text
//!  agent (no rights) ── one socket, of root or the same user ──▶ guard (root)
//!   pass: what to read?                                           programs in the kernel
//!   taken from the other end: this group                          what each tree owes
//!   prepare, sync, freeze, keep, thaw                             what is frozen, until when
//! ```
//!
//! What it knows of writes is in memory: when it ends, all is to be read again. What it has
//! frozen is in files as well: the next guard thaws it, unless it is kept.
//!
//! Not here: what a pass does with it (`transfer::follow`), and when something is frozen.

mod book;
mod client;
mod freezer;
mod host;
mod left;
mod log;
mod release;
mod stills;
#[cfg(test)]
mod tests;
mod words;

use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread;
use std::time::Duration;

use anyhow::{Context, bail};

use blocks::GroupIndex;
use blocks::tracking::Gap;
use keys::MigrationId;
use volumes::TrackerKind;

use crate::stillness::Freezer;
use book::{Begun, Book, Found};
pub use client::trackers;
pub use freezer::freezer;
use host::Host;
pub use log::Log;
pub use release::let_go;
use stills::Stills;
use words::{Answer, Ask, AskStill, Broken, Line, MAX_RUNS};

/// Where it is spoken to unless one says otherwise.
pub const DEFAULT_SOCKET: &str = "/run/dunlin/guard.sock";

/// Agents' sessions at once: one for each disk.
const MAX_CONNECTIONS: usize = 64;

/// Of a session's thread: all of it is in memory once that is locked.
const STACK_BYTES: usize = 512 * 1024;

/// Between two looks at the kernel's figures while nobody asks: what is missing is noticed
/// that much later at most, and numbers of generations last for three weeks where nobody
/// does.
const BETWEEN_LOOKS: Duration = Duration::from_secs(60);

/// Between two looks at what is frozen or prepared and nobody asks about.
const BETWEEN_STILL_LOOKS: Duration = Duration::from_secs(5);

/// What makes a connection impossible (too many files, no memory) does so for a while.
const AFTER_A_FAILURE: Duration = Duration::from_millis(200);

/// Runs until the process is told to end; `ready` is told once it answers. The machine is
/// powered off for an agent only where that `may_power_off`. Disks are followed by the best
/// kind of tracker that works here, or by one `only`.
///
/// # Errors
/// When the socket cannot be made, or takes no connections any more.
pub async fn run(
    socket: &Path,
    (may_power_off, only): (bool, Option<TrackerKind>),
    ready: impl FnOnce(),
) -> anyhow::Result<()> {
    if !rustix::process::geteuid().is_root() {
        bail!("following what is written takes the rights of root: run `dunlin guard` as root");
    }
    let stop = crate::local::told_to_stop()?;
    let listener = listen(socket)?;
    let made = place_of(socket);
    let stills = stills(socket, Host::real(may_power_off))?;
    let (end, mut serving) = tokio::sync::oneshot::channel();
    let served = stills.clone();
    // A thread that nobody waits for: it ends with the process.
    thread::Builder::new()
        .name("dunlin-guard".into())
        .spawn(move || end.send(serve(&listener, &served, only)))?;
    ready();
    let ended = tokio::select! {
        ended = &mut serving => ended.context("the guard's thread ended")?,
        () = stop => Ok(()),
    };
    tokio::task::spawn_blocking(move || stills.end())
        .await
        .context("what is frozen could not be thawed: start the guard again")?;
    // Not that of another, which took its place.
    if made.is_some() && place_of(socket) == made {
        let _ = fs::remove_file(socket);
    }
    ended
}

/// What is frozen, by this guard and those that were at this socket before it.
fn stills(socket: &Path, host: Host) -> anyhow::Result<Arc<Stills>> {
    let folder = notes_of(socket);
    let shown = folder.display().to_string();
    let stills = Stills::open(folder, host)
        .with_context(|| format!("cannot look in {shown} what was left frozen"))?;
    Ok(Arc::new(stills))
}

/// The folder where the guard of a socket notes what is frozen.
fn notes_of(socket: &Path) -> PathBuf {
    let folder = socket.parent().unwrap_or(Path::new(""));
    folder.join("frozen")
}

fn place_of(socket: &Path) -> Option<(u64, u64)> {
    let found = fs::symlink_metadata(socket).ok()?;
    Some((found.dev(), found.ino()))
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
        // One that is too busy to answer runs, too.
        let refused = client::connect(socket).err().map(|error| error.kind());
        if refused != Some(io::ErrorKind::ConnectionRefused) {
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

fn serve(
    listener: &UnixListener,
    stills: &Arc<Stills>,
    only: Option<TrackerKind>,
) -> anyhow::Result<()> {
    let book = Arc::new(Mutex::new(Book::new(only)));
    let looking = book.clone();
    thread::Builder::new()
        .name("dunlin-looks".into())
        .spawn(move || {
            loop {
                thread::sleep(BETWEEN_LOOKS);
                held(&looking).look();
            }
        })?;
    let letting_go = stills.clone();
    thread::Builder::new()
        .name("dunlin-thaws".into())
        .spawn(move || {
            loop {
                thread::sleep(BETWEEN_STILL_LOOKS);
                letting_go.look();
            }
        })?;
    let places = Arc::new(());
    loop {
        let stream = match listener.accept() {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(kind = "guard-refused", "cannot take a connection: {error}");
                thread::sleep(AFTER_A_FAILURE);
                continue;
            }
        };
        let (book, stills, place) = (book.clone(), stills.clone(), places.clone());
        let spawned = thread::Builder::new()
            .name("dunlin-session".into())
            .stack_size(STACK_BYTES)
            .spawn(move || {
                let ended = answer_all(Line::new(stream), (&book, &*stills), &place);
                if let Err(error) = ended {
                    tracing::warn!(kind = "guard-refused", "{error}");
                }
            });
        if let Err(error) = spawned {
            tracing::warn!(kind = "guard-refused", "cannot start a thread: {error}");
        }
    }
}

/// Answers until the other end closes. Each session has a copy of `place`.
fn answer_all(
    mut line: Line,
    (book, freezer): (&Mutex<Book>, &dyn Freezer),
    place: &Arc<()>,
) -> Result<(), Broken> {
    if !line.is_with_us()? {
        return line.say(&Answer::Not(
            "the guard answers root and the user that it runs as alone".to_owned(),
        ));
    }
    // One more is the listener's own.
    if Arc::strong_count(place) > MAX_CONNECTIONS + 1 {
        let text =
            format!("{MAX_CONNECTIONS} sessions are open at the guard, which is all it does");
        return line.say(&Answer::Not(text));
    }
    while let Some(ask) = line.hear::<Ask>()? {
        let done = match ask {
            Ask::Follow {
                tree,
                path,
                device,
                length,
            } => Found::find(&path, (device, length))
                .and_then(|found| held(book).follow(tree, found)),
            Ask::Collect { tree } => {
                let begun = held(book).collect(&tree);
                match begun {
                    Ok(begun) => {
                        say_begun(&mut line, begun)?;
                        continue;
                    }
                    Err(why) => Err(why),
                }
            }
            Ask::Settled { tree, pass } => held(book).settled(&tree, pass),
            Ask::Owe { tree, group } => held(book).owe(&tree, GroupIndex(group)),
            Ask::Still { migration, ask } => {
                line.say(&answer_still(freezer, migration, ask))?;
                continue;
            }
        };
        let answer = match done {
            Ok(()) => Answer::Done,
            Err(why) => Answer::Not(why),
        };
        line.say(&answer)?;
    }
    Ok(())
}

fn answer_still(freezer: &dyn Freezer, migration: MigrationId, ask: AskStill) -> Answer {
    let answered = match ask {
        AskStill::Prepare { disks } => freezer.prepare(migration, &disks).map(Answer::Prepared),
        AskStill::Sync => freezer.sync(migration).map(Answer::Synced),
        AskStill::Freeze { deadline } => freezer.freeze(migration, deadline).map(Answer::Frozen),
        AskStill::Thaw => freezer.thaw(migration).map(Answer::Thawed),
        AskStill::Keep => freezer.keep(migration).map(|()| Answer::Done),
        AskStill::Stillness => freezer.stillness(migration).map(Answer::Stillness),
        AskStill::PowerOff => freezer.power_off(migration).map(|()| Answer::Done),
        AskStill::Release => freezer.release(migration).map(Answer::Thawed),
    };
    answered.unwrap_or_else(|why| Answer::Not(why.to_string()))
}

/// Says what a pass has to read, a page at a time.
fn say_begun(line: &mut Line, begun: Begun) -> Result<(), Broken> {
    let Begun {
        pass,
        mut dirty,
        whole_because,
        is_final,
        how,
    } = begun;
    if whole_because.is_none() {
        loop {
            let run = || dirty.take_next_run(u32::MAX);
            let runs = std::iter::from_fn(run).take(MAX_RUNS);
            let runs: Vec<(u64, u32)> = runs.map(|(first, count)| (first.0, count)).collect();
            if runs.is_empty() {
                break;
            }
            line.say(&Answer::Runs(runs))?;
        }
    }
    // What was given up, or is not counted, is no better the next time.
    let is_followed = !matches!(whole_because, Some(Gap::Unread | Gap::NotCounted));
    line.say(&Answer::Collected {
        pass,
        whole_because: whole_because.map(|gap| gap.to_string()),
        is_final,
        is_followed,
        how,
    })
}

/// What a thread was doing that panicked may be half done: all is to be read again then.
fn held(book: &Mutex<Book>) -> MutexGuard<'_, Book> {
    book.lock().unwrap_or_else(|poisoned| {
        let mut book = poisoned.into_inner();
        *book = Book::new(book.only());
        book
    })
}

/// The socket of a node's guard.
pub fn socket_of(configured: Option<&PathBuf>) -> PathBuf {
    configured.map_or_else(|| PathBuf::from(DEFAULT_SOCKET), Clone::clone)
}
