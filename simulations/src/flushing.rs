//! How a replicator makes durable what it wrote, one step at a time, so that it can
//! die between any two of them: data, leaves, record, and only then the notes.
//!
//! Not here: what is written, and what is said about it (`receiving`).

use crate::context::{Context, Flaw};
use crate::disk::Death;
use crate::network::Event;
use crate::node::{Died, Lived, Node};
use blocks::Extent;
use blocks::target::{Input, Output};
use roles::JobId;

/// A flush under way, or a settling, which has no barrier.
pub struct Flush {
    barrier: Option<u64>,
    extents: Vec<Extent>,
    steps_done: usize,
}

/// What came of carrying something out.
#[derive(PartialEq, Eq)]
pub enum Outcome {
    /// It is done.
    Fine,
    /// What was not yet durable is void.
    StorageFailed {
        /// For want of room.
        full: bool,
    },
}

impl Node {
    pub(crate) fn queue(&mut self, stream: u64, barrier: Option<u64>, extents: Vec<Extent>) {
        self.session(stream).flushes.push_back(Flush {
            barrier,
            extents,
            steps_done: 0,
        });
    }

    pub(crate) fn flush_later(&mut self, ctx: &mut Context, stream: u64) {
        let (node, mut at) = (self.index, ctx.now + self.rng.between(1, 30));
        if let Some((until, step_millis)) = self.slow
            && ctx.now < until
        {
            ctx.seen.slow_flushes += 1;
            at += step_millis;
        }
        ctx.network.schedule(at, Event::Flush { node, stream });
    }

    /// Does one step of the oldest flush.
    pub fn flush(&mut self, ctx: &mut Context, stream: u64) -> Lived {
        let Some(session) = self.up().receiving.get_mut(&stream) else {
            return Ok(());
        };
        let job = session.job;
        let Some(mut flush) = session.flushes.pop_front() else {
            return Ok(());
        };
        match self.flush_step(ctx, job, &mut flush)? {
            None => {
                self.session(stream).flushes.push_front(flush);
                self.flush_later(ctx, stream);
                Ok(())
            }
            Some(Outcome::StorageFailed { full }) => {
                self.storage_failed(ctx, stream, full);
                self.up().receiving.remove(&stream);
                ctx.close_stream(stream, 1);
                Ok(())
            }
            Some(Outcome::Fine) => {
                if !self.session(stream).flushes.is_empty() {
                    self.flush_later(ctx, stream);
                }
                match flush.barrier {
                    None => Ok(()),
                    Some(barrier) => {
                        let mark = self.copy(job).tree.mark();
                        self.target_input(ctx, stream, Input::Flushed { barrier, mark })
                    }
                }
            }
        }
    }

    /// Carries out all flushes; nobody waits for them any more.
    pub(crate) fn flush_all(&mut self, ctx: &mut Context, stream: u64) -> Result<Outcome, Died> {
        let job = self.session(stream).job;
        while let Some(mut flush) = self.session(stream).flushes.pop_front() {
            loop {
                match self.flush_step(ctx, job, &mut flush)? {
                    None => {}
                    Some(Outcome::Fine) => break,
                    Some(failed) => return Ok(failed),
                }
            }
        }
        Ok(Outcome::Fine)
    }

    /// One durable step of a flush; its outcome after the last.
    fn flush_step(
        &mut self,
        ctx: &mut Context,
        job: JobId,
        flush: &mut Flush,
    ) -> Result<Option<Outcome>, Died> {
        self.deed(ctx)?;
        flush.steps_done += 1;
        let stored = flush.extents.len() + 1;
        match flush.steps_done {
            1 => {
                if let Some(full) = self.sync_fails.take() {
                    return Ok(Some(Outcome::StorageFailed { full }));
                }
                let path = self.copy(job).record.path.clone();
                ctx.note(self.index, format_args!("syncs what it wrote for {job}"));
                if ctx.flaw != Some(Flaw::SkipsDataSync) {
                    self.store
                        .disks
                        .get_mut(&path)
                        .expect("a copy has a disk")
                        .sync();
                }
            }
            step if step <= stored => self.copy(job).tree.store(&flush.extents[step - 2]),
            step if step == stored + 1 => self.copy(job).tree.sync(),
            step if step == stored + 2 => {
                let copy = self.copy(job);
                copy.record.barrier = flush.barrier.unwrap_or(copy.record.barrier);
                copy.record.root = None;
                let record = copy.record.clone();
                let what = format_args!("commits barrier {} of {job}", record.barrier);
                ctx.note(self.index, what);
                self.up().replicator.stored(record);
            }
            _ => {
                let barrier = flush.barrier.unwrap_or(u64::MAX);
                self.copy(job).notes.retain(|_, noted| *noted > barrier);
                return Ok(Some(Outcome::Fine));
            }
        }
        Ok(None)
    }

    /// A failed sync voids what was not yet durable, in any mixture.
    pub(crate) fn storage_failed(&mut self, ctx: &mut Context, stream: u64, full: bool) {
        ctx.seen.failed_syncs += 1;
        let session = self.session(stream);
        let job = session.job;
        session.flushes.clear();
        session.inputs.clear();
        session.is_ended = true;
        let mut out = vec![];
        session
            .machine
            .step(Input::StorageFailed { full }, &mut out);
        for output in out {
            if let Output::Send(frame) = output {
                self.send_to_source(ctx, stream, &frame);
            }
        }
        let path = self.copy(job).record.path.clone();
        if let Some(disk) = self.store.disks.get_mut(&path) {
            ctx.seen.torn_blocks += disk.die(Death::Power, &mut self.rng);
        }
    }
}
