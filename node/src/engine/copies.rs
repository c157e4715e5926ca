//! The replicator's side of the engine: streams that come in, the decision about
//! each, and the sessions that write.

use super::agents::{remove_state, tag};
use super::{Engine, Message};
use crate::net::BlockStream;
use crate::transfer::{self, OpenFrame, Progress, ReceiveError, ReceiveEvent, ReceiveJob};
use blocks::{RefusalCode, Root};
use keys::proof::{End, Method};
use keys::{Permit, PublicKey, ReceiveBlocks};
use roles::proof::{SealedProof, Subject};
use roles::replicator::{Admitted, Record, Refusal};
use roles::{JobId, Note, Ticket};
use std::path::PathBuf;
use std::sync::Arc;
use tokio::sync::{mpsc, watch};

/// Events that may wait for the engine.
const EVENTS: usize = 64;

/// A stream whose first frame was read.
pub(crate) struct Incoming {
    from: PublicKey,
    stream: BlockStream,
    open: Result<OpenFrame, ReceiveError>,
}

/// A session that writes to a copy.
pub(super) struct Receiving {
    number: u64,
    permit: Permit<ReceiveBlocks>,
    stop: watch::Sender<Option<RefusalCode>>,
}

impl Receiving {
    /// Withdraws the permission: nothing is written after the session has seen it.
    pub(super) fn stop(&self, code: RefusalCode) {
        self.stop.send_replace(Some(code));
    }
}

impl Engine {
    pub(super) fn stream_opened(&self, from: PublicKey, mut stream: BlockStream) {
        let inbox = self.inbox.clone();
        tokio::spawn(async move {
            let open = transfer::read_open(&mut stream).await;
            let incoming = Incoming { from, stream, open };
            // A closed inbox means the node is stopping; the stream is dropped with it.
            let _ = inbox.send(Message::Incoming(Box::new(incoming))).await;
        });
    }

    pub(super) fn incoming(&mut self, incoming: Incoming) {
        let Incoming { from, stream, open } = incoming;
        let refusal = match open {
            Ok(open) => match self.admit(from, &open) {
                Ok(admitted) => return self.receive(stream, open, admitted),
                Err(refusal) => refusal,
            },
            Err(error) => {
                let text = format!("stream of {} refused: {error}", self.name_of(&from));
                if error.is_malformed() {
                    self.offended(from, text.clone());
                }
                bad_frame(text)
            }
        };
        self.tell_of(&from, None, refusal.note);
        let code = refusal.code;
        tokio::spawn(transfer::refuse(stream, code));
    }

    fn admit(&mut self, from: PublicKey, open: &OpenFrame) -> Result<Admitted, Refusal> {
        let name = self.name_of(&from);
        let ticket: Ticket = codec::decode(&open.ticket).map_err(|error| {
            self.undecodable(from, &error);
            bad_frame(format!("stream of {name} refused: {error}"))
        })?;
        if ticket.support.len() > roles::ticket::MAX_STATEMENTS {
            return Err(bad_frame(format!(
                "stream of {name} refused: too many statements"
            )));
        }
        let mut statements = ticket.support.clone();
        statements.push(ticket.grant.clone());
        self.step_replica(mesh::Input::Shown { from, statements });
        let unready = || Refusal {
            code: RefusalCode::NotReady,
            note: Note::warn("stream-refused", "this node is not enrolled"),
        };
        let situation = self.situation().ok_or_else(unready)?;
        let admitted = self
            .replicator
            .admit(&situation, from, &ticket, open.length)?;
        if let Some(running) = self.receiving.get(&ticket.job) {
            // The agent has lost it, or it would not come again.
            running.stop(RefusalCode::Busy);
            return Err(Refusal {
                code: RefusalCode::Busy,
                note: Note::info(
                    "stream-refused",
                    format!("{}: the session before is being ended first", ticket.job),
                ),
            });
        }
        Ok(admitted)
    }

    fn receive(&mut self, stream: BlockStream, open: OpenFrame, admitted: Admitted) {
        let Admitted {
            permit,
            record,
            fresh,
            note,
        } = admitted;
        let job = record.job;
        let copy = self.dir.copy(&job, record.epoch);
        let had = self.replicator.record(&job).map(|had| had.epoch);
        if let Some(older) = had.filter(|had| *had < record.epoch) {
            remove_state(&self.dir.copy(&job, older));
        }
        if fresh {
            // Before the record says that it was begun: a stored tree of another volume
            // would be believed after a crash. Without one the volume is read.
            remove_state(&copy);
        }
        let stored = self.store.put_copy(&record);
        if self.must(stored).is_none() {
            return;
        }
        self.replicator.stored(record.clone());
        self.tell_of(&permit.agent(), Some(job.migration), note);
        let number = self.number();
        let (stop, stopped) = watch::channel(None);
        let (events, event_receiver) = mpsc::channel(EVENTS);
        let receive_job = ReceiveJob {
            permit: permit.clone(),
            open,
            volume: PathBuf::from(&record.path),
            length: record.length,
            tree: copy.with_extension("tree"),
            intents: copy.with_extension("intents"),
            tag: tag(&job, record.epoch),
            fresh,
            barrier: record.barrier,
            progress: Arc::new(Progress::default()),
            commit: self.committer(record.clone()),
            prove: self.prover(record),
        };
        self.receiving.insert(
            job,
            Receiving {
                number,
                permit,
                stop,
            },
        );
        tokio::spawn(transfer::receive(stream, receive_job, stopped, events));
        self.forward(event_receiver, move |event| {
            Message::Received(job, number, event)
        });
        self.report.soon();
    }

    /// Makes a barrier durable: the last step before it is acknowledged.
    fn committer(&self, record: Record) -> transfer::Commit {
        let store = self.store.clone();
        Box::new(move |barrier, root: Root| {
            let record = Record {
                barrier,
                root: root.0,
                ..record.clone()
            };
            store.put_copy(&record).map_err(|error| error.to_string())
        })
    }

    /// Signs the copy's root and keeps the proof before anybody sees it.
    fn prover(&self, record: Record) -> transfer::Prove {
        let (store, identity) = (self.store.clone(), self.identity.clone());
        let mesh = self.replica.ledger().mesh();
        Box::new(move |root: Root, read_back| {
            let subject = Subject {
                mesh,
                job: record.job,
                epoch: record.epoch,
                length: record.length,
                root: root.0,
            };
            let method = if read_back {
                Method::ReadBack
            } else {
                Method::OnArrival
            };
            let at = super::wall_clock();
            let proof = roles::proof::sign(&identity, &subject, End::Target, method, at);
            store.put_proof(&proof).map_err(|error| error.to_string())?;
            codec::encode(&SealedProof(proof)).map_err(|error| error.to_string())
        })
    }

    pub(super) fn received(&mut self, job: JobId, number: u64, event: ReceiveEvent) {
        let current = self.receiving.get(&job);
        if current.is_none_or(|receiving| receiving.number != number) {
            return;
        }
        let migration = Some(job.migration);
        match event {
            ReceiveEvent::Opened {
                barrier,
                recovered_groups,
            } => {
                if recovered_groups > 0 {
                    let text = format!(
                        "{job}: after an interruption {recovered_groups} regions of 16 MiB were read and hashed again; it goes on from durable barrier {barrier}"
                    );
                    self.tell(migration, Note::info("copy-recovered", text));
                }
            }
            ReceiveEvent::Committed { barrier, root } => {
                if let Some(record) = self.replicator.record(&job) {
                    let record = Record {
                        barrier,
                        root: root.0,
                        ..record.clone()
                    };
                    self.replicator.stored(record);
                    self.report.soon();
                }
            }
            ReceiveEvent::PassBegun(_) => {}
            ReceiveEvent::Finished { .. } => {
                let stored = self.store.proofs();
                if let Some(proofs) = self.must(stored) {
                    self.proofs = proofs;
                }
                let text = format!("{job}: the copy's root was signed");
                self.tell(migration, Note::info("root-signed", text));
            }
            ReceiveEvent::Ended(why) => {
                let text = format!("{job}: the stream ended: {why}");
                self.end_receiving(job, Note::info("stream-ended", text));
            }
            ReceiveEvent::Refused(code, why) => {
                let text = format!("{job}: the stream was refused ({code}): {why}");
                let kind = match code {
                    RefusalCode::Revoked | RefusalCode::Expired | RefusalCode::NotAuthorised => {
                        "grant-refused"
                    }
                    _ => "stream-refused",
                };
                self.end_receiving(job, Note::warn(kind, text));
            }
            ReceiveEvent::StorageFailed(why) => {
                let text = format!("{job}: {why}");
                self.end_receiving(job, Note::error("storage-failed", text));
            }
        }
    }

    fn end_receiving(&mut self, job: JobId, note: Note) {
        let ended = self.receiving.remove(&job);
        match ended {
            Some(ended) => self.tell_of(&ended.permit.agent(), Some(job.migration), note),
            None => self.tell(Some(job.migration), note),
        }
    }

    /// Stops what may no longer flow. The agent's end learns it from its facts.
    pub(super) fn recheck_permits(&mut self) {
        let wall = self.now().wall;
        let mut stopped = vec![];
        for receiving in self.receiving.values() {
            let checked = self.replica.authority().recheck(wall, &receiving.permit);
            if let Err(denied) = checked
                && receiving.stop.borrow().is_none()
            {
                let code = roles::replicator::code_for(&denied);
                receiving.stop(code);
                stopped.push((receiving.permit.migration(), denied));
            }
        }
        for (migration, denied) in stopped {
            let note = match denied {
                keys::Denied::KeyRotated(_) => Note::info(
                    "key-changed",
                    "one end changed its key; the stream begins again with the next one",
                ),
                denied => Note::error(
                    "grant-refused",
                    format!("nothing more is accepted: {denied}"),
                ),
            };
            self.tell(Some(migration), note);
        }
    }

    pub(super) fn forget_copies_that_are_over(&mut self) {
        let mut replicator = std::mem::take(&mut self.replicator);
        let records: Vec<Record> = replicator.records().cloned().collect();
        let gone = match self.situation() {
            Some(situation) => replicator.forget_over(&situation),
            None => vec![],
        };
        self.replicator = replicator;
        for job in gone {
            if let Some(receiving) = self.receiving.get(&job) {
                receiving.stop(RefusalCode::StaleEpoch);
            }
            let text =
                format!("{job}: this node's copy is over; what was kept beside it is removed");
            self.tell(Some(job.migration), Note::info("copy-forgotten", text));
            let stored = self.store.delete_copy(job);
            self.must(stored);
            if let Some(record) = records.iter().find(|record| record.job == job) {
                remove_state(&self.dir.copy(&job, record.epoch));
            }
            self.report.soon();
        }
    }
}

fn bad_frame(text: String) -> Refusal {
    Refusal {
        code: RefusalCode::BadFrame,
        note: Note::warn("stream-refused", text),
    }
}
