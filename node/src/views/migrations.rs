//! Views of migrations: the plan beside what the nodes report, and the proofs.

use super::figures::{in_first_pass, pass_view};
use super::left_out;
use super::lookup::{LookupError, find_migration};
use super::{Live, State};
use crate::api::model::{
    ExposureView, JobView, LeftOutView, MigrationView, PlannedHook, ProofView, StandingGrant,
    VerifyView, VolumeProof,
};
use crate::engine::shown_value;
use crdt::{
    Desired, JobReport, JobRole, MigrationPlan, Stage, TargetState, TargetVolume, VolumeInfo,
    VolumeKind,
};
use keys::authority::GrantState;
use keys::proof::End;
use keys::{Denied, Name, Standing, VolumeId};
use roles::JobId;
use roles::launch::{Evidence, Stated, Unconfirmed};

/// The stage of a volume of which nothing is known any more.
const UNKNOWN: &str = "unknown";

impl State<'_> {
    /// All migrations that are not deleted, oldest first.
    pub fn migrations(&self) -> Vec<MigrationView> {
        let plans = self.plan().migrations.values();
        let mut live: Vec<&MigrationPlan> = plans
            .filter(|plan| plan.desired != Desired::Deleted)
            .collect();
        live.sort_by_key(|plan| (plan.created_at, plan.id));
        live.into_iter().map(|plan| self.migration(plan)).collect()
    }

    /// Migrations that were started and are not deleted, those that are over last,
    /// with at most so many volumes in all; and how many migrations are left out.
    pub fn moving_migrations(&self, volumes: usize) -> (Vec<MigrationView>, usize) {
        let plans = self.plan().migrations.values();
        let mut moving: Vec<&MigrationPlan> = plans
            .filter(|plan| {
                matches!(
                    plan.desired,
                    Desired::Started | Desired::Paused | Desired::Cutover { .. }
                )
            })
            .collect();
        let is_over = |plan: &&MigrationPlan| {
            let mut stages = plan.volumes.iter().map(|volume| self.stage(plan, volume));
            stages.all(|stage| stage == Stage::CutOver)
        };
        moving.sort_by_cached_key(|plan| (is_over(plan), plan.created_at, plan.id));
        let mut room = volumes;
        let fit = moving.iter().take_while(|plan| {
            let left = room.checked_sub(plan.volumes.len());
            room = left.unwrap_or(room);
            left.is_some()
        });
        let shown = fit.count();
        let views = moving[..shown].iter().map(|plan| self.migration(plan));
        (views.collect(), moving.len() - shown)
    }

    /// One migration, by name or id.
    pub fn migration_by(&self, wanted: &str) -> Result<MigrationView, LookupError> {
        let plan = find_migration(self.plan(), wanted)?;
        let limits = self.limits_of_server(&plan.source);
        let migration = self.migration(plan);
        Ok(MigrationView {
            limits,
            ..migration
        })
    }

    /// One migration.
    pub fn migration(&self, plan: &MigrationPlan) -> MigrationView {
        let volumes: Vec<JobView> = plan
            .volumes
            .iter()
            .map(|volume| self.job(plan, volume))
            .collect();
        let stages = plan.volumes.iter().map(|volume| self.stage(plan, volume));
        let stage = stages.min_by_key(advance).unwrap_or(Stage::Enrolled);
        let stage_text = if plan.desired == Desired::Deleted {
            if self.left_at_target(plan) {
                "deleting"
            } else {
                "deleted"
            }
            .to_owned()
        } else if volumes.iter().any(|job| job.stage == UNKNOWN) {
            UNKNOWN.to_owned()
        } else {
            stage.to_string()
        };
        let doubled = match plan.desired {
            Desired::Started | Desired::Cutover { .. } => self.moved_elsewhere(plan),
            Desired::Created | Desired::Paused | Desired::Deleted => vec![],
        };
        let doubled = doubled.into_iter().map(|(disk, other)| {
            format!(
                "disk {disk} is moved by migration {other} as well: pause or delete one of the two"
            )
        });
        MigrationView {
            id: plan.id.to_string(),
            name: plan.name.clone(),
            server: self.name_of(&plan.source),
            to: plan.provider.clone(),
            site: plan.site.clone(),
            provisioner: self.name_of(&plan.provisioner),
            replicators: plan
                .replicators
                .iter()
                .map(|node| self.name_of(node))
                .collect(),
            desired: plan.desired.to_string(),
            stage: stage_text,
            created_at: plan.created_at.to_string(),
            next: next_step(plan, stage, &volumes),
            exposure: self.exposure(plan),
            dedup_group: self.dedup_group(plan),
            leave_out: plan.leave_out.map(|what| what.to_string()),
            standing_grants: self.standing_grants(plan),
            limits: vec![],
            hooks: plan.hooks.iter().map(PlannedHook::from).collect(),
            checkpoints: self.checkpoints(plan),
            keep_checkpoints: plan.checkpoints.keep,
            volumes,
            conflicts: plan
                .conflicts
                .iter()
                .map(|conflict| {
                    let field = &conflict.field;
                    let value = |text: &String| shown_value(text, |node| self.name_of(node));
                    let values: Vec<String> = conflict.values.iter().map(value).collect();
                    let holds = plan.text_of(field).map(|text| {
                        let why = crdt::conflicts::why(field);
                        format!("; {} holds: {why}", value(&text))
                    });
                    format!(
                        "operators set {field} to {} apart from each other{}",
                        values.join(" or "),
                        holds.unwrap_or_default()
                    )
                })
                .chain(doubled)
                .collect(),
        }
    }

    /// Disks of a migration that another one moves now, by the names of both: operators
    /// may have started them apart from each other.
    pub fn moved_elsewhere(&self, plan: &MigrationPlan) -> Vec<(String, String)> {
        let moves = |other: &&MigrationPlan| {
            other.id != plan.id
                && other.source == plan.source
                && matches!(other.desired, Desired::Started | Desired::Cutover { .. })
        };
        let is_over = |of: &MigrationPlan, volume| self.stage(of, volume) == Stage::CutOver;
        let others = self.plan().migrations.values().filter(moves);
        others
            .flat_map(|other| {
                let shared = plan.volumes.iter().filter(|volume| {
                    other.volumes.contains(volume)
                        && !is_over(other, volume)
                        && !is_over(plan, volume)
                });
                shared.map(|volume| (self.disk_name(plan, volume), other.name.clone()))
            })
            .collect()
    }

    pub(super) fn disk_name(&self, plan: &MigrationPlan, volume: &VolumeId) -> String {
        let info = self.volume_info(plan, volume);
        info.map_or_else(|| volume.short(), |info| info.name.clone())
    }

    /// Grants that let its blocks move.
    fn good_grants(&self, plan: &MigrationPlan) -> impl Iterator<Item = &GrantState> {
        let authority = self.replica.authority();
        let grants = plan.grants.iter().filter_map(|id| authority.grant(id));
        grants.filter(|state| !state.revoked && self.now < state.not_after)
    }

    /// The group that its grants agree on; grants of operators of other scopes do not, even
    /// where they name the same one.
    fn dedup_group(&self, plan: &MigrationPlan) -> Option<String> {
        let mut grants = self.good_grants(plan).filter(|state| !state.forked);
        let first = grants.next()?;
        let is_one = grants.all(|state| state.dedup_domain == first.dedup_domain);
        let group = first.grant.dedup_group.as_ref();
        group.filter(|_| is_one).map(Name::to_string)
    }

    /// Of the good grants that which exposes most.
    fn exposure(&self, plan: &MigrationPlan) -> Option<ExposureView> {
        let spans = self.good_grants(plan).map(|state| state.grant.span());
        let widest = spans.max_by_key(|span| span.exposure_secs())?;
        Some(ExposureView {
            lease_secs: widest.lease_secs,
            autonomy_secs: widest.autonomy_secs,
            exposure_secs: widest.exposure_secs(),
        })
    }

    /// Of a deleted migration, grants that nobody has revoked.
    fn standing_grants(&self, plan: &MigrationPlan) -> Vec<StandingGrant> {
        let authority = self.replica.authority();
        let grants = plan.grants.iter();
        let known = grants.filter_map(|id| Some((id, authority.grant(id)?)));
        known
            .filter(|_| plan.desired == Desired::Deleted)
            .filter(|(_, state)| !state.revoked && self.now < state.not_after)
            .map(|(id, state)| StandingGrant {
                id: id.to_string(),
                operator: self.name_of_key(&state.signer),
                ends_at: state.not_after.to_string(),
            })
            .collect()
    }

    fn left_at_target(&self, plan: &MigrationPlan) -> bool {
        let report = self.replica.reports().get(&plan.provisioner);
        report.is_some_and(|report| {
            let mut targets = report.targets.iter();
            targets.any(|target| target.migration == plan.id)
        })
    }

    fn job_report(&self, plan: &MigrationPlan, volume: &VolumeId) -> Option<&JobReport> {
        self.replica
            .reports()
            .get(&plan.source)?
            .jobs
            .iter()
            .find(|job| {
                job.role == JobRole::Agent && job.migration == plan.id && job.volume == *volume
            })
    }

    fn volume_info(&self, plan: &MigrationPlan, volume: &VolumeId) -> Option<&VolumeInfo> {
        let report = self.replica.reports().get(&plan.source)?;
        report.volumes.iter().find(|info| info.id == *volume)
    }

    fn target(&self, plan: &MigrationPlan, volume: &VolumeId) -> Option<&TargetVolume> {
        let report = self.replica.reports().get(&plan.provisioner)?;
        // What was made for an epoch that is over does not count.
        let epoch = self.job_report(plan, volume).map(|job| job.epoch);
        report.targets.iter().find(|target| {
            target.migration == plan.id
                && target.volume == *volume
                && epoch.is_none_or(|epoch| target.epoch == epoch)
        })
    }

    fn stage(&self, plan: &MigrationPlan, volume: &VolumeId) -> Stage {
        let reported = self.job_report(plan, volume).map(|job| job.stage);
        match reported {
            Some(Stage::CutOver) | None => reported.unwrap_or(Stage::Enrolled),
            Some(_) if self.cloned_source(plan).is_some() => Stage::Stalled,
            Some(stage) => stage,
        }
    }

    /// Why nothing moves when the source's key is in two places: neither of the two is
    /// believed what it reports of itself.
    fn cloned_source(&self, plan: &MigrationPlan) -> Option<Denied> {
        let authority = self.replica.authority();
        let key = authority.member(&plan.source)?.key;
        authority.is_cloned(&key).then_some(Denied::Cloned(key))
    }

    /// Why nobody knows any more how far the source is: its node was expelled, and what
    /// it reported went with it.
    fn lost_source(&self, plan: &MigrationPlan) -> Option<String> {
        let member = self.replica.authority().member(&plan.source)?;
        let lost = match member.standing {
            Standing::Revoked(_) => "was revoked",
            Standing::Lapsed => "does not count any more",
            Standing::Active | Standing::Contested | Standing::KeyContested => return None,
        };
        let name = &member.name;
        Some(format!(
            "the source's node {name} {lost}: how far this was is not known any more"
        ))
    }

    fn job(&self, plan: &MigrationPlan, volume: &VolumeId) -> JobView {
        let report = self.job_report(plan, volume);
        let info = self.volume_info(plan, volume);
        let job = JobId {
            migration: plan.id,
            volume: *volume,
        };
        let passes = report.map(|job| job.passes.as_slice()).unwrap_or_default();
        let stage = self.stage(plan, volume);
        let is_over = stage == Stage::CutOver;
        let live = self.live.get(&job);
        let length = info.map(|info| info.length);
        let permission = is_over.then(|| self.evidence(plan).permission(volume));
        let witness = permission.and_then(Result::ok);
        let unconfirmed = permission.and_then(Result::err);
        // Figures of a session that has ended say nothing any more, nor do old ones.
        let copying = report.is_some_and(|job| job.step == "copying");
        let progress = live.filter(|live| copying && !live.is_stale(self.now));
        let lost = self.lost_source(plan).filter(|_| report.is_none());
        let step = match (&lost, report) {
            (Some(_), _) => UNKNOWN.to_owned(),
            (None, Some(job)) => job.step.clone(),
            (None, None) => "planned".to_owned(),
        };
        JobView {
            volume: volume.to_string(),
            name: info.map_or_else(|| volume.short(), |info| info.name.clone()),
            length: length.unwrap_or(0),
            stage: match &lost {
                Some(_) => UNKNOWN.to_owned(),
                None => stage.to_string(),
            },
            step,
            detail: match (lost, self.cloned_source(plan)) {
                (Some(lost), _) => Some(lost),
                (None, Some(denied)) => Some(denied.to_string()),
                (None, None) => report.and_then(|job| job.detail.clone()),
            },
            epoch: report.map_or(0, |job| job.epoch.0),
            replicator: report
                .and_then(|job| job.replicator)
                .map(|node| self.name_of(&node)),
            target_path: self
                .target(plan, volume)
                .map(|target| target.path.clone())
                .filter(|path| !path.is_empty()),
            barrier: report.map_or(0, |job| job.barrier),
            confirmed_by: witness.map(|confirmed| self.name_of(&confirmed.witness())),
            unconfirmed: unconfirmed.map(|why| self.why_unconfirmed(&job, why)),
            left_out: report.map_or_else(Vec::new, |job| LeftOutView::all(&job.left_out)),
            bytes_left_out: report.map_or(0, |job| job.left_out.bytes()),
            passes: passes.iter().map(pass_view).collect(),
            changes: report.and_then(super::figures::changes),
            progress: progress.map(Live::progress),
            first_pass_bytes: match (progress, is_over) {
                (None, false) => in_first_pass(report, live),
                _ => None,
            },
            counters: live.map(|live| live.counters(self.now, is_over)),
            forecast: self.forecast(stage, length, report, live),
        }
    }

    /// Why a copy may not be launched: with what its provisioner says, where that one has
    /// tried to read it back.
    fn why_unconfirmed(&self, job: &JobId, why: Unconfirmed) -> String {
        let Some(plan) = self.plan().migrations.get(&job.migration) else {
            return why.to_string();
        };
        let about = job.to_string();
        let mut told = self.told_by(&plan.provisioner).iter().rev();
        let failed = told.find(|event| {
            event.migration == Some(job.migration)
                && event.kind == roles::provisioner::READ_BACK_FAILED
                && event.text.contains(&about)
        });
        match (why, failed) {
            (Unconfirmed::NotWitnessed(_), Some(failed)) => {
                format!("not confirmed by another node: {}", failed.text)
            }
            (why, _) => why.to_string(),
        }
    }

    /// What is wrong with the volume of a copy, as its provisioner reports it.
    fn volume_problem(&self, plan: &MigrationPlan, volume: &VolumeId) -> Option<String> {
        match &self.target(plan, volume)?.state {
            TargetState::Failed(why) => Some(why.clone()),
            TargetState::Ready => None,
        }
    }

    /// The signed roots of both ends of every volume.
    pub fn verify(&self, wanted: &str) -> Result<VerifyView, LookupError> {
        let plan = find_migration(self.plan(), wanted)?;
        let evidence = self.evidence(plan);
        let volumes: Vec<VolumeProof> = plan
            .volumes
            .iter()
            .map(|volume| {
                let stated = self.stated_now(&evidence, volume);
                let of = |end: End| stated.iter().find(|stated| stated.proof.end == end);
                let (source, target) = (of(End::Source), of(End::Target));
                let equal = match (source, target) {
                    (Some(source), Some(target)) => {
                        let (source, target) = (&source.proof, &target.proof);
                        source.root == target.root
                            && source.length == target.length
                            && source.epoch == target.epoch
                    }
                    _ => false,
                };
                let permission = evidence.permission(volume);
                let info = self.volume_info(plan, volume);
                let source_path = info.map(|info| info.path.clone());
                let is_device = info.is_some_and(|info| info.kind == VolumeKind::Device);
                let target_path = self
                    .target(plan, volume)
                    .map(|target| target.path.clone())
                    .filter(|path| !path.is_empty());
                let job = JobId {
                    migration: plan.id,
                    volume: *volume,
                };
                VolumeProof {
                    volume: volume.to_string(),
                    name: info.map_or_else(|| volume.short(), |info| info.name.clone()),
                    length: source
                        .or(target)
                        .map(|stated| stated.proof.length)
                        .or(info.map(|info| info.length))
                        .unwrap_or(0),
                    source: source.map(|found| self.proof(found, source_path, is_device)),
                    target: target.map(|found| self.proof(found, target_path.clone(), false)),
                    witness: of(End::Witness).map(|found| self.proof(found, target_path, false)),
                    equal,
                    confirmed: permission.is_ok(),
                    unconfirmed: permission.err().map(|why| self.why_unconfirmed(&job, why)),
                    volume_problem: self.volume_problem(plan, volume),
                }
            })
            .collect();
        Ok(VerifyView {
            migration: plan.id.to_string(),
            verified: !volumes.is_empty() && volumes.iter().all(|volume| volume.equal),
            confirmed: !volumes.is_empty() && volumes.iter().all(|volume| volume.confirmed),
            volumes,
            checkpoints: self.checkpoints(plan),
        })
    }

    pub(super) fn evidence<'a>(&'a self, plan: &'a MigrationPlan) -> Evidence<'a> {
        Evidence {
            plan,
            authority: self.replica.authority(),
            reports: self.replica.reports(),
        }
    }

    /// The signed roots that count now: of the epoch that the agent reports, where it is
    /// known. The newest speaks for its end.
    fn stated_now(&self, evidence: &Evidence<'_>, volume: &VolumeId) -> Vec<Stated> {
        let mut stated = evidence.stated(volume);
        if let Some((epoch, _)) = evidence.current(volume) {
            stated.retain(|stated| stated.proof.epoch == epoch);
        }
        stated
    }

    pub(super) fn proof(
        &self,
        Stated { signer, proof, .. }: &Stated,
        path: Option<String>,
        is_device: bool,
    ) -> ProofView {
        let unknown = match proof.end {
            End::Source => "DISK",
            End::Target | End::Witness => "COPY",
        };
        let path = path.unwrap_or_else(|| unknown.into());
        let quoted = format!("'{}'", path.replace('\'', "'\\''"));
        // Of a mounted device the page cache also shows what the file system has
        // changed in memory alone: read the disk itself.
        // What is kept of a checkpoint has zeros in what the source was not read of.
        let read = if !proof.left_out.is_empty() && proof.checkpoint.is_none() {
            left_out::reading(&quoted, proof.length, is_device, &proof.left_out)
        } else if is_device {
            format!(
                "dd if={quoted} bs=1M count={} iflag=direct,count_bytes status=none",
                proof.length
            )
        } else {
            format!("head -c {} {quoted}", proof.length)
        };
        ProofView {
            root: hex::encode(proof.root),
            method: proof.method.to_string(),
            at: proof.at.to_string(),
            signed_by: self.name_of_key(signer),
            epoch: proof.epoch.0,
            left_out: LeftOutView::all(&proof.left_out),
            bytes_left_out: proof.left_out.bytes(),
            command: format!("{read} | b3sum --no-names"),
        }
    }
}

/// How far a stage is, for "the least advanced".
fn advance(stage: &Stage) -> u8 {
    match stage {
        Stage::Failed => 0,
        Stage::Stalled => 1,
        Stage::Paused => 2,
        Stage::Enrolled => 3,
        Stage::InitialSync => 4,
        Stage::Rescanning => 5,
        Stage::Replicating => 6,
        Stage::ReadyForCutover => 7,
        Stage::CuttingOver => 8,
        Stage::CutOver => 9,
    }
}

fn next_step(plan: &MigrationPlan, stage: Stage, volumes: &[JobView]) -> Option<String> {
    let name = &plan.name;
    if plan.desired == Desired::Deleted {
        return None;
    }
    if let Some(why) = volumes.iter().find_map(|volume| volume.detail.as_ref()) {
        return Some(why.clone());
    }
    match (plan.desired, stage) {
        (Desired::Created, _) => Some(format!("dunlin migration start {name}")),
        (Desired::Paused, _) => Some(format!("dunlin migration resume {name}")),
        (Desired::Started, Stage::ReadyForCutover) => Some(format!(
            "stop what writes to the source, then: dunlin migration cutover {name}"
        )),
        (Desired::Cutover { .. }, Stage::CutOver) => Some(format!("dunlin verify {name}")),
        _ => None,
    }
}
