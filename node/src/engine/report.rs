//! This node's report: what it offers, holds and does, made anew when something
//! changed and published at most a few times a second.

use super::Engine;
use crdt::report::MAX_TEXT;
use crdt::{JobReport, JobRole, ProviderInfo, Report, Stage, TargetVolume, VolumeInfo, VolumeKind};
use keys::LeftOut;
use std::os::unix::fs::FileTypeExt;
use std::path::Path;

/// Shortest time between two reports.
const MIN_GAP_MILLIS: u64 = 300;
/// Newest events in a report.
const EVENTS: usize = 32;

/// Whether a new report is due.
#[derive(Debug, Default)]
pub(super) struct Draft {
    wanted: bool,
    /// When the last one is far enough behind.
    rested_millis: u64,
}

impl Draft {
    /// Something changed that others should see.
    pub(super) fn soon(&mut self) {
        self.wanted = true;
    }

    /// Somebody waits for it: do not rest.
    pub(super) fn publish_now(&mut self) {
        self.wanted = true;
        self.rested_millis = 0;
    }
}

impl Engine {
    /// Whether this node's newest report says the same. A mesh in which everybody
    /// answers every change with a report would have nothing else to do.
    fn is_known(&self, report: &Report) -> bool {
        let known = self.replica.reports().get(&report.node);
        known.is_some_and(|known| {
            let as_before = Report {
                version: known.version,
                follows: known.follows,
                at: known.at,
                ..report.clone()
            };
            as_before == *known
        })
    }

    pub(super) fn publish_if_due(&mut self) {
        let now = self.now();
        let rested = now.mono_millis >= self.report.rested_millis;
        let may = self.replica.may_write() && self.replica.me().is_some();
        if !self.report.wanted || !rested || !may {
            return;
        }
        self.report.wanted = false;
        self.report.rested_millis = now.mono_millis + MIN_GAP_MILLIS;
        let Some(me) = self.replica.me() else { return };
        let mut report = Report::new(me, 0, now.wall);
        report.hostname = inventory::hostname(&inventory::Tree::new("/"));
        report.program_version = env!("CARGO_PKG_VERSION").into();
        report.listen = self.reachable();
        report.providers = self.provider_infos();
        report.inventory = self.stocktaking.known.clone();
        report.volumes = self.volume_infos();
        report.jobs = self.job_reports();
        report.let_go = self.let_go();
        report.targets = self.targets();
        report.checkpoints = self.kept_checkpoints();
        report.proofs = self.proofs.clone();
        report.reached = self.reached_checkpoints();
        // Who is connected to whom changes often and concerns nobody else.
        let told = |event: &&crdt::Event| {
            event.kind != "peer-connected" && event.kind != "peer-disconnected"
        };
        let newest = self.events.iter().rev().filter(told).take(EVENTS);
        report.events = newest.cloned().map(shortened).collect();
        report.events.reverse();
        self.report_leases(&mut report);
        if self.is_known(&report) {
            return;
        }
        let mut out = vec![];
        let published = self.replica.publish(now.wall, report, &mut out);
        self.carry(out);
        // Others take in no more than this of one node.
        let made = self.replica.reports().signed(&me);
        let bytes = made.map_or(0, |signed| signed.body.len() as u64);
        let taken_millis = bytes * 1000 / mesh::REPORT_BYTES_PER_SEC;
        self.report.rested_millis = now.mono_millis + taken_millis.max(MIN_GAP_MILLIS);
        if let Err(error) = published {
            tracing::error!("this node's report was not made: {error}");
        }
    }

    /// Announced addresses first, then those listened on, loopback last.
    pub(super) fn reachable(&self) -> Vec<String> {
        let loopback = |address: &&String| {
            address.starts_with("/ip4/127.") || address.starts_with("/ip6/::1/")
        };
        let outer = self.listening.iter().filter(|address| !loopback(address));
        let inner = self.listening.iter().filter(loopback);
        let mut all: Vec<String> = self.config.announce.clone();
        all.extend(outer.chain(inner).cloned());
        all.truncate(crdt::report::MAX_LISTEN);
        all
    }

    fn provider_infos(&self) -> Vec<ProviderInfo> {
        let kinds = self.providers.keys();
        kinds
            .map(|kind| ProviderInfo {
                kind: kind.clone(),
                site: None,
                free_bytes: None,
                problem: None,
            })
            .collect()
    }

    pub(super) fn volume_infos(&self) -> Vec<VolumeInfo> {
        let offered = self.volumes.iter();
        offered
            .map(|volume| VolumeInfo {
                id: volume.id,
                name: volume.name.clone(),
                path: volume.path.clone(),
                length: self.lengths.get(&volume.id).copied().unwrap_or(0),
                kind: kind_of(Path::new(&volume.path)),
                device: device_of(Path::new(&volume.path)),
                model: None,
            })
            .collect()
    }

    /// Looks at every offered volume; what cannot be opened now, and what is being
    /// migrated, keeps the length that was reported last.
    pub(super) fn measure_volumes(&mut self) {
        let reported = self
            .replica
            .me()
            .and_then(|me| self.replica.reports().get(&me));
        let known: Vec<(keys::VolumeId, u64)> = reported
            .map(|report| {
                let volumes = report.volumes.iter();
                volumes.map(|volume| (volume.id, volume.length)).collect()
            })
            .unwrap_or_default();
        for (volume, length) in known {
            self.lengths.entry(volume).or_insert(length);
        }
        let in_use = self.volumes_in_use();
        for volume in &self.volumes {
            if in_use.contains(&volume.id) && self.lengths.contains_key(&volume.id) {
                continue;
            }
            if let Ok(source) = volumes::SourceVolume::open(Path::new(&volume.path)) {
                self.lengths.insert(volume.id, source.length());
            }
        }
    }

    fn let_go(&self) -> Vec<keys::MigrationId> {
        let holds = |id: &keys::MigrationId| self.agents.keys().any(|job| job.migration == *id);
        let situation = self.situation();
        situation.map_or_else(Vec::new, |situation| situation.let_go(holds))
    }

    fn job_reports(&self) -> Vec<JobReport> {
        let sending = self.agents.iter().map(|(job, slot)| {
            let record = slot.machine.record();
            let (stage, step, detail) = slot.machine.standing();
            JobReport {
                migration: job.migration,
                volume: job.volume,
                role: JobRole::Agent,
                epoch: record.epoch,
                replicator: record.replicator,
                stage,
                step: step.to_owned(),
                detail,
                pass: record.passes.last().map_or(0, |pass| pass.pass),
                barrier: record.barrier,
                passes: record.passes.clone(),
                read_by: slot.read_by(),
                // One that cannot be stated is refused where it would be.
                left_out: record.left_out().unwrap_or_default(),
                root: record.finished.as_ref().map(|finished| finished.root),
            }
        });
        let now = self.now();
        let holding = self.replicator.records().map(|record| {
            let receiving = self.receiving.get(&record.job);
            let on_autonomy = receiving.is_some_and(|receiving| receiving.is_on_autonomy(now));
            JobReport {
                migration: record.job.migration,
                volume: record.job.volume,
                role: JobRole::Replicator,
                epoch: record.epoch,
                replicator: self.replica.me(),
                stage: Stage::Replicating,
                step: match receiving {
                    Some(_) => "receiving",
                    None => "waiting",
                }
                .to_owned(),
                detail: on_autonomy.then(|| roles::agent::ON_AUTONOMY.to_owned()),
                pass: 0,
                barrier: record.barrier,
                passes: vec![],
                read_by: None,
                left_out: LeftOut::default(),
                root: record.root,
            }
        });
        sending.chain(holding).collect()
    }

    fn targets(&self) -> Vec<TargetVolume> {
        self.provisioner.targets()
    }
}

/// What the kernel calls a device.
fn device_of(path: &Path) -> Option<String> {
    let real = std::fs::canonicalize(path).ok()?;
    let name = real.strip_prefix("/dev").ok()?.to_str()?;
    Some(name.to_owned())
}

fn kind_of(path: &Path) -> VolumeKind {
    let device = std::fs::metadata(path).is_ok_and(|meta| meta.file_type().is_block_device());
    if device {
        VolumeKind::Device
    } else {
        VolumeKind::Image
    }
}

/// An event as a report has room for it; the whole of it is in this node's own log.
fn shortened(mut event: crdt::Event) -> crdt::Event {
    const MORE: &str = " …";
    if event.text.len() > MAX_TEXT {
        let end = event.text.floor_char_boundary(MAX_TEXT - MORE.len());
        event.text.truncate(end);
        event.text.push_str(MORE);
    }
    event
}
