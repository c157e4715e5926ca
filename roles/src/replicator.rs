//! The replicator's decision about each stream: admit or refuse, and with it the
//! fencing epoch.
//!
//! Not here: checking and writing blocks (`blocks::target`, `volumes`), and the
//! stored tree of a copy.

use crate::JobId;
use crate::note::Note;
use crate::situation::Situation;
use crate::ticket::Ticket;
use blocks::RefusalCode;
use codec::Wire;
use crdt::plan::Desired;
use crdt::report::TargetState;
use keys::{DedupDomain, Denied, Epoch, Grant, Permit, PublicKey, ReceiveBlocks};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// What must survive a crash of the replicator.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// The unit of work.
    pub job: JobId,
    /// Highest epoch admitted; a lower one is refused for good.
    pub epoch: Epoch,
    /// Where the volume is attached.
    pub path: String,
    /// Bytes of the volume that are the copy.
    pub length: u64,
    /// Last durable barrier.
    pub barrier: u64,
    /// Root of what is durable at that barrier, once it was stated: no barrier
    /// needs one.
    pub root: Option<[u8; 32]>,
}

impl Wire for Record {
    const NAME: &'static str = "replicator's record of a volume";
    const VERSION: u8 = 2;
    const LIMIT: usize = 16 * 1024;
}

/// A stream that may go on.
#[derive(Debug)]
pub struct Admitted {
    /// Allows blocks to be written.
    pub permit: Permit<ReceiveBlocks>,
    /// The record to make durable before anything is answered.
    pub record: Record,
    /// The epoch is new: what the volume holds counts as zeros to be checked.
    pub fresh: bool,
    /// To tell people.
    pub note: Note,
}

/// A stream that may not: the code for the peer, the note for people here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// What the peer is told.
    pub code: RefusalCode,
    /// What people here are told.
    pub note: Note,
}

/// All copies that this node holds.
#[derive(Debug, Default)]
pub struct Replicator {
    records: BTreeMap<JobId, Record>,
}

impl Replicator {
    /// Starts from what was stored before a restart.
    pub fn new(stored: impl IntoIterator<Item = Record>) -> Self {
        Self {
            records: stored
                .into_iter()
                .map(|record| (record.job, record))
                .collect(),
        }
    }

    /// The copies.
    pub fn records(&self) -> impl Iterator<Item = &Record> {
        self.records.values()
    }

    /// One copy.
    pub fn record(&self, job: &JobId) -> Option<&Record> {
        self.records.get(job)
    }

    /// Notes what the data plane has made durable.
    pub fn stored(&mut self, record: Record) {
        self.records.insert(record.job, record);
    }

    /// Copies that are over: their migration was deleted, or its agent has gone on with
    /// a higher epoch, from which it never comes back. Their state here may go.
    pub fn forget_over(&mut self, situation: &Situation<'_>) -> Vec<JobId> {
        let over = |record: &Record| {
            let plan = situation.migration(&record.job);
            let said = situation.agent_job(&record.job);
            plan.is_some_and(|plan| plan.desired == Desired::Deleted)
                || said.is_some_and(|said| said.epoch > record.epoch)
        };
        let records = self.records.values();
        let jobs: Vec<JobId> = records
            .filter(|record| over(record))
            .map(|record| record.job)
            .collect();
        for job in &jobs {
            self.records.remove(job);
        }
        jobs
    }

    /// Whose content each copy shares, by the grants of it that are good now. A copy of
    /// which none is, or several that do not agree, shares with no other and is left out.
    pub fn dedup_domains(&self, situation: &Situation<'_>) -> BTreeMap<JobId, DedupDomain> {
        let mut found: BTreeMap<JobId, Option<DedupDomain>> = BTreeMap::new();
        for (_, state) in situation.authority.grants() {
            let domain = (!state.forked).then_some(state.dedup_domain);
            for job in self.copies_of(&state.grant) {
                // Of a migration that is over too: what it brought is as good to refer to.
                if situation.is_for_source(&job, state)
                    && situation
                        .authority
                        .is_live(situation.now.wall, state, &situation.me)
                {
                    let had = found.entry(job).or_insert(domain);
                    *had = had.filter(|had| Some(*had) == domain);
                }
            }
        }
        let agreed = found.into_iter();
        agreed
            .filter_map(|(job, domain)| Some((job, domain?)))
            .collect()
    }

    /// What a session for this job, under a permit of this domain, may be made of; nothing
    /// but its own copy where the job is not in that domain (any more).
    pub fn shared(
        &self,
        domains: &BTreeMap<JobId, DedupDomain>,
        job: &JobId,
        domain: DedupDomain,
    ) -> Vec<&Record> {
        if domains.get(job) != Some(&domain) {
            return vec![];
        }
        let of_it = domains.iter().filter(|(_, of)| **of == domain);
        of_it.filter_map(|(job, _)| self.records.get(job)).collect()
    }

    /// The copies here that a grant is about.
    fn copies_of<'a>(&'a self, grant: &'a Grant) -> impl Iterator<Item = JobId> + 'a {
        let jobs = grant.volumes.iter().map(|volume| JobId {
            migration: grant.migration,
            volume: *volume,
        });
        jobs.filter(|job| self.records.contains_key(job))
    }

    /// Decides about a stream that `from` opened with `ticket`, for a volume of
    /// `length` bytes. Nothing changes before the shell has stored the record and
    /// given it back by [`Replicator::stored`].
    pub fn admit(
        &self,
        situation: &Situation<'_>,
        from: PublicKey,
        ticket: &Ticket,
        length: u64,
    ) -> Result<Admitted, Refusal> {
        let job = ticket.job;
        let grant = ticket.grant.statement_id();
        let permit = situation
            .receive_permit(&job, grant, from)
            .map_err(|denied| refuse_denied(job, from, denied))?;
        let refuse = |code, text: String| {
            Err(Refusal {
                code,
                note: Note::warn("stream-refused", text),
            })
        };
        match situation.migration(&job).map(|plan| plan.desired) {
            None | Some(Desired::Created) => {
                let text = format!("{job}: the plan has not started this migration here yet");
                return refuse(RefusalCode::NotReady, text);
            }
            Some(Desired::Paused) => {
                return refuse(RefusalCode::Paused, format!("{job}: the plan is paused"));
            }
            Some(Desired::Deleted) => {
                let text = format!("{job}: the migration was deleted");
                return refuse(RefusalCode::NotAuthorised, text);
            }
            Some(Desired::Started | Desired::Cutover { .. }) => {}
        }
        let had = self.records.get(&job);
        if let Some(record) = had
            && ticket.epoch < record.epoch
        {
            let text = format!(
                "{job}: epoch {} is over, epoch {} has begun",
                ticket.epoch, record.epoch
            );
            return refuse(RefusalCode::StaleEpoch, text);
        }
        if let Some(said) = situation.agent_job(&job)
            && (ticket.epoch < said.epoch
                || (ticket.epoch == said.epoch && said.replicator != Some(situation.me)))
        {
            let text = format!(
                "{job}: epoch {} is over or was given to another: its agent is at epoch {}",
                ticket.epoch, said.epoch
            );
            return refuse(RefusalCode::StaleEpoch, text);
        }
        let path = match self.attached(situation, &job, ticket.epoch, length) {
            Ok(path) => path,
            Err((code, text)) => return refuse(code, text),
        };
        let mut others = self.records.values();
        if let Some(other) = others.find(|other| other.job != job && other.path == path) {
            let text = format!("{job}: the volume at {path} is the copy of {}", other.job);
            return refuse(RefusalCode::NotReady, text);
        }
        if situation.source_stated(&job).is_some() {
            let text = format!("{job}: the volume was cut over; nothing more is written to it");
            return refuse(RefusalCode::NotAuthorised, text);
        }
        let same = had.filter(|record| {
            record.epoch == ticket.epoch && record.path == path && record.length == length
        });
        let fresh = same.is_none();
        let record = same.cloned().unwrap_or(Record {
            job,
            epoch: ticket.epoch,
            path,
            length,
            barrier: 0,
            root: None,
        });
        let text = format!(
            "{job}: agent {} sends under epoch {}, from durable barrier {}",
            from.short(),
            record.epoch,
            record.barrier
        );
        Ok(Admitted {
            permit,
            fresh,
            note: Note::info("stream-accepted", text),
            record,
        })
    }

    /// Where the provisioner has attached the volume of this epoch.
    fn attached(
        &self,
        situation: &Situation<'_>,
        job: &JobId,
        epoch: Epoch,
        length: u64,
    ) -> Result<String, (RefusalCode, String)> {
        let not_ready = (
            RefusalCode::NotReady,
            format!("{job}: no volume of epoch {epoch} is attached here yet"),
        );
        let target = situation
            .migration(job)
            .and_then(|plan| situation.reports.get(&plan.provisioner))
            .and_then(|report| {
                report.targets.iter().find(|target| {
                    target.migration == job.migration
                        && target.volume == job.volume
                        && target.epoch == epoch
                        && target.replicator == situation.me
                        && target.state == TargetState::Ready
                })
            })
            .ok_or(not_ready)?;
        if target.length < length {
            let text = format!(
                "{job}: the source has {length} bytes, the volume at {} only {}; create the migration again",
                target.path, target.length
            );
            return Err((RefusalCode::SizeMismatch, text));
        }
        Ok(target.path.clone())
    }
}

/// What a peer is told when authority denies its stream.
pub fn code_for(denied: &Denied) -> RefusalCode {
    match denied {
        Denied::NodeRevoked(_) | Denied::GrantRevoked(_) => RefusalCode::Revoked,
        Denied::NodeExpired(_) | Denied::GrantExpired { .. } => RefusalCode::Expired,
        Denied::NotVouched { .. } | Denied::LeaseOver { .. } => RefusalCode::NoLease,
        Denied::NotCovered { .. } => RefusalCode::WrongVolume,
        _ => RefusalCode::NotAuthorised,
    }
}

fn refuse_denied(job: JobId, from: PublicKey, denied: Denied) -> Refusal {
    let code = code_for(&denied);
    let text = format!("{job}: stream of {} refused: {denied}", from.short());
    let note = match denied {
        // An operator's answer is usually under way.
        Denied::NotVouched { .. } => Note::info("stream-refused", text),
        _ => Note::error("grant-refused", text),
    };
    Refusal { code, note }
}

#[cfg(test)]
mod tests;
