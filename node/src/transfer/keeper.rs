//! The replicator's keeper thread: makes barriers durable while the desk goes
//! on checking and writing, reads the volume back, and has statements made.
//!
//! Not here: what is written, and when a barrier is due.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self as std_mpsc, RecvTimeoutError};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use blocks::{Extent, Mark, Root};
use tokio::sync::mpsc;
use volumes::{ROOT_BATCH, RootReader, TargetVolume, TreeFile};

use super::desk::ToDesk;
use super::disk::store;
use super::notes::Notes;
use super::receive::{Commit, Prove, ReceiveEvent};
use super::replica::Trouble;
use super::{Progress, WARM_GROUPS, add};

/// Nothing was written for this long: the source is between two passes, and what
/// a cutover will ask for is computed meanwhile.
const QUIET: Duration = Duration::from_secs(1);

/// Between two batches of that, so that the desk gets at the tree.
const PAUSE: Duration = Duration::from_millis(5);

/// What the keeper is asked for. As many wait as barriers may be outstanding,
/// and one more.
pub(super) enum Job {
    Flush {
        barrier: u64,
        extents: Vec<Extent>,
    },
    /// As a flush, but the barrier's number stays; the sender waits.
    Settle {
        extents: Vec<Extent>,
        done: std_mpsc::Sender<Result<(), Trouble>>,
    },
    Root,
    ReadBack,
    Prove {
        root: Root,
        read_back: bool,
    },
}

/// What the keeper works with.
pub(super) struct Keeper {
    pub(super) volume: Arc<TargetVolume>,
    pub(super) tree: Arc<Mutex<TreeFile>>,
    pub(super) notes: Arc<Notes>,
    pub(super) commit: Commit,
    pub(super) prove: Prove,
    /// The last durable barrier.
    pub(super) barrier: u64,
    pub(super) progress: Arc<Progress>,
    pub(super) events: mpsc::Sender<ReceiveEvent>,
    pub(super) desk: std_mpsc::Sender<ToDesk>,
}

/// The desk's end of the keeper.
pub(super) struct KeeperHandle {
    jobs: Option<std_mpsc::Sender<Job>>,
    is_over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl KeeperHandle {
    pub(super) fn start(keeper: Keeper) -> io::Result<Self> {
        let (jobs, requests) = std_mpsc::channel();
        let is_over = Arc::new(AtomicBool::new(false));
        let over = is_over.clone();
        let thread = thread::Builder::new()
            .name("dunlin-keeper".into())
            .spawn(move || keeper.run(&requests, &over))?;
        Ok(Self {
            jobs: Some(jobs),
            is_over,
            thread: Some(thread),
        })
    }

    pub(super) fn ask(&self, job: Job) -> Result<(), Trouble> {
        let jobs = self.jobs.as_ref();
        let asked = jobs.and_then(|jobs| jobs.send(job).ok());
        asked.ok_or_else(|| Trouble::failed("the thread that makes barriers durable ended: resume"))
    }
}

/// Waits until all that was asked for is done, a read-back and a root excepted.
impl Drop for KeeperHandle {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Relaxed);
        self.jobs = None;
        if let Some(thread) = self.thread.take() {
            // If it panicked its notes are still there, and are recovered.
            let _ = thread.join();
        }
    }
}

impl Keeper {
    fn run(mut self, requests: &std_mpsc::Receiver<Job>, is_over: &AtomicBool) {
        let mut failed: Option<Trouble> = None;
        while let Some(job) = self.next_job(requests, failed.is_none()) {
            // After a failure nothing that follows can be made durable.
            if let Some(trouble) = &failed {
                if let Job::Settle { done, .. } = job {
                    let _ = done.send(Err(trouble.clone()));
                }
                continue;
            }
            let answer = match job {
                Job::Flush { barrier, extents } => self.flush(barrier, &extents),
                Job::Settle { extents, done } => {
                    let settled = self.settle(&extents);
                    failed = settled.as_ref().err().cloned();
                    // The desk waits, or has died of a panic.
                    let _ = done.send(settled);
                    continue;
                }
                Job::Root => match self.root(is_over) {
                    Ok(None) => continue,
                    Ok(Some(root)) => Ok(ToDesk::RootComputed { root }),
                    Err(trouble) => Err(trouble),
                },
                Job::ReadBack => match self.read_back(is_over) {
                    Ok(None) => continue,
                    Ok(Some(root)) => Ok(ToDesk::ReadBack { root }),
                    Err(trouble) => Err(trouble),
                },
                Job::Prove { root, read_back } => self.state(root, read_back),
            };
            let answer = answer.unwrap_or_else(|trouble| {
                failed = Some(trouble.clone());
                ToDesk::StorageFailed(trouble)
            });
            // A desk that is over needs no answer.
            let _ = self.desk.send(answer);
        }
    }

    /// The next job, or none when the desk is gone. Nodes are computed, a few at a
    /// time, once nothing has been written for a while; not after a failure, since a
    /// tree that changed in part is to be left as it is.
    fn next_job(&self, requests: &std_mpsc::Receiver<Job>, is_sound: bool) -> Option<Job> {
        let written = || self.progress.blocks_sent.load(Ordering::Relaxed);
        let (mut seen, mut wait, mut is_cold) = (written(), QUIET, is_sound);
        while is_cold {
            match requests.recv_timeout(wait) {
                Ok(job) => return Some(job),
                Err(RecvTimeoutError::Disconnected) => return None,
                Err(RecvTimeoutError::Timeout) => {}
            }
            let now = written();
            if now == seen {
                // What fails here fails again, and is told, where it is needed.
                is_cold = self.tree().warm(WARM_GROUPS).unwrap_or(false);
                wait = PAUSE;
            } else {
                (seen, wait) = (now, QUIET);
            }
        }
        requests.recv().ok()
    }

    fn tree(&self) -> MutexGuard<'_, TreeFile> {
        self.tree.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn state(&self, root: Root, read_back: bool) -> Result<ToDesk, Trouble> {
        self.volume.check_in_place()?;
        let proof = (self.prove)(self.barrier, root, read_back).map_err(Trouble::failed)?;
        Ok(ToDesk::Proved { proof })
    }

    fn flush(&mut self, barrier: u64, extents: &[Extent]) -> Result<ToDesk, Trouble> {
        let mark = self.make_durable(barrier, extents)?;
        self.notes.forget(barrier)?;
        self.tell_committed();
        Ok(ToDesk::Flushed { barrier, mark })
    }

    fn settle(&mut self, extents: &[Extent]) -> Result<(), Trouble> {
        self.make_durable(self.barrier, extents)?;
        self.notes.forget_all()?;
        self.tell_committed();
        Ok(())
    }

    /// Data first, then the tree, then the barrier's number.
    fn make_durable(&mut self, barrier: u64, extents: &[Extent]) -> Result<Mark, Trouble> {
        self.volume.sync()?;
        let mark = {
            let mut tree = self.tree();
            store(&mut tree, extents)?;
            tree.sync()?;
            tree.mark()?
        };
        // A file that was deleted takes every write, and is a copy for nobody.
        self.volume.check_in_place()?;
        (self.commit)(barrier).map_err(Trouble::failed)?;
        add(&self.progress.barriers, 1);
        self.barrier = barrier;
        Ok(mark)
    }

    fn tell_committed(&self) {
        let barrier = self.barrier;
        let event = ReceiveEvent::Committed { barrier };
        // A caller that stopped listening knows by its own commit.
        let _ = self.events.blocking_send(event);
    }

    /// The root of the stored tree, or none when the session was over before it
    /// was computed.
    fn root(&self, is_over: &AtomicBool) -> Result<Option<Root>, Trouble> {
        while !is_over.load(Ordering::Relaxed) {
            if !self.tree().warm(ROOT_BATCH)? {
                return Ok(Some(self.tree().root()?));
            }
        }
        Ok(None)
    }

    /// The root of what the disk holds, or none when the session was over
    /// before all was read.
    fn read_back(&self, is_over: &AtomicBool) -> Result<Option<Root>, Trouble> {
        self.volume.check_in_place()?;
        self.volume.drop_cache();
        let mut reader = RootReader::new(&*self.volume);
        let mut done = 0;
        while !is_over.load(Ordering::Relaxed) {
            let root = reader.step(&*self.volume)?;
            add(&self.progress.bytes_reread, reader.done() - done);
            done = reader.done();
            if root.is_some() {
                return Ok(root);
            }
        }
        Ok(None)
    }
}
