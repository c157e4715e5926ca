//! The replicator's side of the engine: streams that come in, the decision about
//! each, and the sessions that write.

use super::agents::{remove_state, tag};
use super::speed::Asked;
use super::{Engine, Message};
use crate::net::BlockStream;
use crate::speed::{self, Begins, SpeedError};
use crate::transfer::{
    self, Copy, Leave, OpenFrame, Progress, ReceiveError, ReceiveEvent, ReceiveJob, References,
    Scope,
};
use blocks::speed::ToAnswerer;
use blocks::{RefusalCode, Root};
use futures::AsyncReadExt;
use keys::proof::{End, Method};
use keys::{DedupDomain, Denied, Permit, PublicKey, ReceiveBlocks};
use roles::proof::{SealedProof, Subject};
use roles::replicator::{Admitted, Record, Refusal};
use roles::{JobId, Note, Now, Ticket};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio::time::timeout;
use volumes::{FingerprintIndex, VolumeTag};

/// Events that may wait for the engine.
const EVENTS: usize = 64;
/// How long a stream may take to say what it is for.
const BEGINNING: Duration = Duration::from_secs(10);

/// The most that the index of contents takes, in bytes: for a TiB of content. It takes
/// as much as there is content.
const FINGERPRINTS_BYTES: u64 = 256 << 20;

/// A stream whose first frame was read.
pub(crate) struct Incoming {
    from: PublicKey,
    stream: BlockStream,
    open: Result<OpenFrame, ReceiveError>,
}

/// A session that writes to a copy.
pub(super) struct Receiving {
    number: u64,
    agent: PublicKey,
    leave: watch::Sender<Leave>,
    progress: Arc<Progress>,
    on_autonomy: bool,
}

impl Receiving {
    /// Withdraws the permission: nothing is written after the session has seen it.
    pub(super) fn withdraw(&self, code: RefusalCode) {
        self.leave.send_replace(Leave::Withdrawn(code));
    }

    fn permit(&self) -> Option<Permit<ReceiveBlocks>> {
        match &*self.leave.borrow() {
            Leave::Granted(permit) => Some(permit.clone()),
            Leave::Withdrawn(_) => None,
        }
    }

    /// Payload bytes that came in this session.
    pub(super) fn bytes_received(&self) -> u64 {
        self.progress.bytes_sent.load(Relaxed)
    }

    /// Whether it goes on without an operator having renewed its lease.
    pub(super) fn is_on_autonomy(&self, now: Now) -> bool {
        self.permit()
            .is_some_and(|permit| permit.is_on_autonomy(now))
    }
}

impl Engine {
    pub(super) fn stream_opened(&self, from: PublicKey, mut stream: BlockStream) {
        let inbox = self.inbox.clone();
        tokio::spawn(async move {
            let first = timeout(BEGINNING, first_of(&mut stream)).await;
            let message = match first {
                Ok(First::Check(open)) => {
                    Message::SpeedAsked(Box::new(Asked { from, stream, open }))
                }
                Ok(First::Session(open)) => {
                    Message::Incoming(Box::new(Incoming { from, stream, open }))
                }
                Err(_) => {
                    let open = Err(ReceiveError::TimedOut);
                    Message::Incoming(Box::new(Incoming { from, stream, open }))
                }
            };
            // A closed inbox means the node is stopping; the stream is dropped with it.
            let _ = inbox.send(message).await;
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
        self.measured.traffic.refused_streams += 1;
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
            running.withdraw(RefusalCode::Busy);
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
            self.forget_contents(VolumeTag(tag(&job, older)));
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
        let (agent, domain) = (permit.agent(), permit.dedup_domain());
        self.tell_of(&agent, Some(job.migration), note);
        let number = self.number();
        let progress = self.measured.copy(job);
        let (leave, given) = watch::channel(Leave::Granted(permit));
        let (events, event_receiver) = mpsc::channel(EVENTS);
        let receive_job = ReceiveJob {
            open,
            volume: PathBuf::from(&record.path),
            length: record.length,
            tree: copy.with_extension("tree"),
            intents: copy.with_extension("intents"),
            tag: tag(&job, record.epoch),
            fresh,
            barrier: record.barrier,
            buffers: self.buffers.clone(),
            references: self.references(record.job, domain),
            progress: progress.clone(),
            commit: self.committer(record.clone()),
            prove: self.prover(record),
        };
        self.receiving.insert(
            job,
            Receiving {
                number,
                agent,
                leave,
                progress,
                on_autonomy: false,
            },
        );
        tokio::spawn(transfer::receive(stream, receive_job, given, events));
        self.forward(event_receiver, move |event| {
            Message::Received(job, number, event)
        });
        self.report.soon();
    }

    /// What a session for this job may refer to; none where no index can be had.
    fn references(&mut self, job: JobId, domain: DedupDomain) -> Option<References> {
        let index = self.index_of_contents()?;
        let scope = Scope::default();
        self.scopes.insert(job, (domain, scope.clone()));
        self.refresh_scopes();
        Some(References::new(index, scope, domain))
    }

    /// Opened when it is first needed; what it has of copies that are not here any more is
    /// forgotten then.
    fn index_of_contents(&mut self) -> Option<Arc<FingerprintIndex>> {
        if self.fingerprints.is_none() {
            match FingerprintIndex::open(&self.dir.fingerprints(), FINGERPRINTS_BYTES) {
                Ok(index) => self.fingerprints = Some(Arc::new(index)),
                Err(error) => {
                    tracing::warn!("disks that share content are sent in full: {error}");
                    return None;
                }
            }
            let records = self.replicator.records();
            let here: Vec<VolumeTag> = records.map(|r| VolumeTag(tag(&r.job, r.epoch))).collect();
            let known = self.fingerprints.as_ref().map(|index| index.volumes());
            for volume in known.unwrap_or_default() {
                if !here.contains(&volume) {
                    self.forget_contents(volume);
                }
            }
        }
        self.fingerprints.clone()
    }

    /// Its places lead nowhere from here on.
    fn forget_contents(&self, volume: VolumeTag) {
        let index = self.fingerprints.as_ref();
        if let Some(Err(error)) = index.map(|index| index.forget(volume)) {
            // They make room as others come.
            tracing::debug!("{error}");
        }
    }

    /// Sessions look into the copies of their own domain that are here now, as long as their
    /// own job is in it.
    fn refresh_scopes(&mut self) {
        self.scopes.retain(|_, (_, scope)| scope.is_used());
        if self.scopes.is_empty() {
            return;
        }
        let domains = self
            .situation()
            .map(|now| self.replicator.dedup_domains(&now));
        let domains = domains.unwrap_or_default();
        for (job, (domain, scope)) in &self.scopes {
            let shared = self.replicator.shared(&domains, job, *domain);
            let copies = shared.into_iter().map(|record| {
                let copy = Copy {
                    path: PathBuf::from(&record.path),
                    length: record.length,
                };
                (tag(&record.job, record.epoch), copy)
            });
            scope.set(copies.collect());
        }
    }

    /// Makes a barrier durable: the last step before it is acknowledged.
    fn committer(&self, record: Record) -> transfer::Commit {
        let store = self.store.clone();
        Box::new(move |barrier| {
            let record = Record {
                barrier,
                root: None,
                ..record.clone()
            };
            store.put_copy(&record).map_err(|error| error.to_string())
        })
    }

    /// Signs the copy's root and keeps it, and the proof, before anybody sees them.
    fn prover(&self, record: Record) -> transfer::Prove {
        let (store, identity) = (self.store.clone(), self.identity.clone());
        let mesh = self.replica.ledger().mesh();
        Box::new(move |barrier, root: Root, read_back| {
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
            let stated = Record {
                barrier,
                root: Some(root.0),
                ..record.clone()
            };
            store.put_copy(&stated).map_err(|error| error.to_string())?;
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
            ReceiveEvent::Committed { barrier } => {
                if let Some(record) = self.replicator.record(&job) {
                    let record = Record {
                        barrier,
                        root: None,
                        ..record.clone()
                    };
                    self.replicator.stored(record);
                    self.report.soon();
                }
            }
            ReceiveEvent::PassBegun(_) => {}
            ReceiveEvent::Finished { root, .. } => {
                if let Some(record) = self.replicator.record(&job) {
                    let root = Some(root.0);
                    let record = Record {
                        root,
                        ..record.clone()
                    };
                    self.replicator.stored(record);
                    self.report.soon();
                }
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
                    RefusalCode::NoLease => "no-lease",
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
            Some(ended) => self.tell_of(&ended.agent, Some(job.migration), note),
            None => self.tell(Some(job.migration), note),
        }
    }

    /// Stops what may no longer flow, and lets the rest go on as long as it now may.
    pub(super) fn recheck_permits(&mut self) {
        let now = self.now();
        let authority = self.replica.authority();
        let mut notes = vec![];
        for receiving in self.receiving.values_mut() {
            let Some(permit) = receiving.permit() else {
                continue;
            };
            let note = match authority.recheck(now, &self.leases, &permit) {
                Err(denied) => {
                    receiving.withdraw(roles::replicator::code_for(&denied));
                    Some(no_more(denied))
                }
                Ok(again) => {
                    let note = roles::agent::autonomy_note(receiving.on_autonomy, now, &again);
                    receiving.on_autonomy = again.is_on_autonomy(now);
                    if again != permit {
                        receiving.leave.send_replace(Leave::Granted(again));
                    }
                    note
                }
            };
            notes.extend(note.map(|note| (permit.migration(), note)));
        }
        for slot in self.agents.values_mut() {
            slot.recheck(authority, now, &self.leases);
        }
        self.refresh_scopes();
        for (migration, note) in notes {
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
                receiving.withdraw(RefusalCode::StaleEpoch);
            }
            self.measured.forget(&job);
            let text =
                format!("{job}: this node's copy is over; what was kept beside it is removed");
            self.tell(Some(job.migration), Note::info("copy-forgotten", text));
            self.refresh_scopes();
            let stored = self.store.delete_copy(job);
            self.must(stored);
            if let Some(record) = records.iter().find(|record| record.job == job) {
                remove_state(&self.dir.copy(&job, record.epoch));
                self.forget_contents(VolumeTag(tag(&job, record.epoch)));
            }
            self.report.soon();
        }
    }
}

/// What a stream that came in is for.
enum First {
    Check(Result<ToAnswerer, SpeedError>),
    Session(Result<OpenFrame, ReceiveError>),
}

/// Reads the first frame of a stream, and nothing beyond it.
async fn first_of(stream: &mut BlockStream) -> First {
    First::Session(match speed::begins(stream).await {
        Ok(Begins::Check(open)) => return First::Check(open),
        Ok(Begins::Other(head)) => transfer::read_open(&mut (&head[..]).chain(stream)).await,
        Err(error) => Err(ReceiveError::Ended(error)),
    })
}

/// What people are told when a stream may not go on.
fn no_more(denied: Denied) -> Note {
    let text = format!("nothing more is accepted: {denied}");
    match denied {
        Denied::KeyRotated(_) => Note::info(
            "key-changed",
            "one end changed its key; the stream begins again with the next one",
        ),
        Denied::LeaseOver { .. } => Note::error("no-lease", text),
        _ => Note::error("grant-refused", text),
    }
}

fn bad_frame(text: String) -> Refusal {
    Refusal {
        code: RefusalCode::BadFrame,
        note: Note::warn("stream-refused", text),
    }
}
