//! Views of figures: what runs, what was counted, and the forecast made from both.

use super::{Live, State};
use crate::api::model::{CountersView, ForecastView, PassView, ProgressView, RangeView};
use crdt::{JobReport, PassRead, PassSummary, Stage};
use keys::UnixSecs;
use roles::forecast::{
    Cause, FREEZE_MILLIS, Forecast, Help, Lacking, Measured, Range, Running, Verdict, forecast,
};

/// Figures that are so much older than the next should be say nothing of now: their agent
/// is gone, or nobody hears it.
const STALE_MILLIS: u64 = 30_000;

pub(super) fn pass_view(pass: &PassSummary) -> PassView {
    PassView {
        pass: pass.pass,
        blocks: pass.blocks,
        bytes_sent: pass.bytes_sent,
        millis: pass.millis,
        since_millis: pass.since_millis,
        tracked: pass.read == PassRead::Tracked,
    }
}

/// How the last pass of a job found what changed, in words.
pub(super) fn changes(job: &JobReport) -> Option<String> {
    let last = job.passes.last()?;
    Some(match (last.read, &job.read_by) {
        (PassRead::Tracked, None) => "followed as they are written".to_owned(),
        (PassRead::Tracked, Some(how)) => format!("followed as they are written, {how}"),
        (PassRead::Whole, None) => "the whole disk is compared".to_owned(),
        (PassRead::Whole, Some(why)) => format!("the whole disk is compared: {why}"),
    })
}

impl Live {
    /// Of the pass that runs.
    pub(super) fn progress(&self) -> ProgressView {
        let figures = &self.figures;
        ProgressView {
            pass: figures.pass,
            total_bytes: figures.total_bytes,
            done_bytes: figures.done_bytes,
            sent_bytes: figures.sent_bytes,
            bytes_per_sec: figures.bytes_per_sec.unwrap_or(figures.pass_bytes_per_sec),
            pass_bytes_per_sec: figures.pass_bytes_per_sec,
            // Both are of the same time, and known together.
            sent_bytes_per_sec: figures.bytes_per_sec.map(|_| figures.sent_bytes_per_sec),
            millis: figures.pass_millis,
            limit_bytes_per_sec: figures.limit_bytes_per_sec,
            reads_held_bytes_per_sec: figures.reads_held_at,
        }
    }

    /// What was counted. Spans have grown since they were heard; of a volume that is cut
    /// over there are none, for nothing of it is to follow.
    pub(super) fn counters(&self, now: UnixSecs, is_over: bool) -> CountersView {
        let figures = &self.figures;
        let secs = |millis: Option<u64>| {
            let millis = millis.filter(|_| !is_over)?;
            Some(millis.saturating_add(self.age_millis(now)) / 1_000)
        };
        CountersView {
            read_bytes: figures.read_bytes,
            sent_bytes: figures.sent_bytes,
            disk_bytes: figures.disk_bytes,
            saved_by_compression: figures.saved_by_compression,
            saved_by_patches: figures.saved_by_patches,
            saved_by_references: figures.saved_by_references,
            barriers: figures.barriers,
            barrier_age_secs: secs(figures.barrier_age_millis),
            lag_secs: secs(figures.lag_millis),
            backlog_bytes: match is_over {
                true => 0,
                false => figures.unsettled_bytes,
            },
        }
    }

    /// Whether they are too old to say what happens now.
    pub(super) fn is_stale(&self, now: UnixSecs) -> bool {
        self.age_millis(now) > STALE_MILLIS.saturating_add(self.pace_millis)
    }

    fn age_millis(&self, now: UnixSecs) -> u64 {
        now.0.saturating_sub(self.at.0).saturating_mul(1_000)
    }
}

impl State<'_> {
    /// The forecast for a volume of a known length, while blocks move and this node runs.
    pub(super) fn forecast(
        &self,
        stage: Stage,
        length: Option<u64>,
        report: Option<&JobReport>,
        live: Option<&Live>,
    ) -> Option<ForecastView> {
        let moves = matches!(
            stage,
            Stage::InitialSync | Stage::Replicating | Stage::ReadyForCutover | Stage::CuttingOver
        );
        let report = report.filter(|_| moves && self.connected.is_some())?;
        let measured = measured(length?, report, live, self.now);
        Some(in_stage(stage, view(forecast(&measured, FREEZE_MILLIS))))
    }
}

/// What passes found before a cutover says nothing of a source that is to be quiet since:
/// whether it is, the agent finds out, and says so.
fn in_stage(stage: Stage, forecast: ForecastView) -> ForecastView {
    if stage != Stage::CuttingOver {
        return forecast;
    }
    ForecastView {
        verdict: "cutover".into(),
        because: None,
        help: vec![],
        converges_in_secs: None,
        ..forecast
    }
}

/// Of a first pass that is not complete, what is known to be in the copy: what it had
/// dealt with, without what was on its way.
pub(super) fn in_first_pass(report: Option<&JobReport>, live: Option<&Live>) -> Option<u64> {
    let report = report.filter(|report| report.passes.is_empty())?;
    if report.barrier == 0 {
        return Some(0);
    }
    let figures = live.map(|live| live.figures);
    let figures = figures.filter(|figures| figures.pass == 1)?;
    Some(figures.done_bytes.saturating_sub(figures.unsettled_bytes))
}

/// What is known of a volume now. Of old figures a pass that was under way stands still
/// since; where it had looked at all, or none was, their agent is silent.
fn measured<'a>(
    length: u64,
    report: &'a JobReport,
    live: Option<&Live>,
    now: UnixSecs,
) -> Measured<'a> {
    let figures = live.map(|live| &live.figures);
    let age = live.map_or(0, |live| live.age_millis(now));
    let is_stale = live.is_some_and(|live| live.is_stale(now));
    // What is reported and what is gossiped do not come at the same time.
    let running = figures.filter(|figures| {
        let last = report.passes.last().map_or(0, |pass| pass.pass);
        let is_under_way = report.step == "copying" && figures.pass > last;
        is_under_way && (!is_stale || figures.done_bytes < length)
    });
    let lag = figures.and_then(|figures| figures.lag_millis);
    let lag = lag.filter(|_| !is_stale || running.is_some());
    Measured {
        length,
        passes: &report.passes,
        running: running.map(|figures| Running {
            elapsed_millis: figures.pass_millis.saturating_add(age),
            done_bytes: figures.done_bytes,
            found_bytes: figures.found_bytes,
            bytes_per_sec: match is_stale {
                true => Some(0),
                false => figures.bytes_per_sec,
            },
        }),
        lag_millis: lag.map(|lag| lag.saturating_add(age)),
        unsettled_bytes: figures.map_or(0, |figures| figures.unsettled_bytes),
        is_uncompressed: figures.is_some_and(|figures| figures.is_uncompressed),
    }
}

fn range(range: Range) -> RangeView {
    RangeView {
        low: range.low,
        high: range.high,
    }
}

fn view(forecast: Forecast) -> ForecastView {
    let (verdict, because, help, secs) = match forecast.verdict {
        Verdict::Unknown(lacking) => ("unknown", Some(missing(lacking)), vec![], None),
        Verdict::Fits => ("fits", None, vec![], None),
        Verdict::Converges { secs } => ("converges", None, vec![], Some(secs)),
        Verdict::Uncertain {
            soonest_secs,
            cause,
            help,
        } => {
            let soonest = Some(Range::exactly(soonest_secs));
            ("uncertain", Some(reason(cause)), help, soonest)
        }
        Verdict::Diverges { cause, help } => ("diverges", Some(reason(cause)), help, None),
    };
    ForecastView {
        verdict: verdict.into(),
        because: because.map(Into::into),
        help: help.into_iter().map(|help| word(help).into()).collect(),
        converges_in_secs: secs.map(range),
        behind_bytes: forecast.behind_bytes.map(range),
        change_bytes_per_sec: forecast.change_bytes_per_sec.map(range),
        link_bytes_per_sec: forecast.link.map(|link| range(link.bytes_per_sec)),
        link_is_at_least: forecast.link.is_some_and(|link| link.is_at_least),
        looking_millis: forecast.looking_millis.map(range),
        pass_left_secs: forecast.pass_left_secs.map(range),
        freeze_millis: FREEZE_MILLIS,
    }
}

fn missing(lacking: Lacking) -> &'static str {
    match lacking {
        Lacking::Silent => "agent-silent",
        Lacking::FirstPass => "first-pass",
        Lacking::Changes => "changes",
        Lacking::Link => "link",
        Lacking::Standstill => "standstill",
    }
}

fn reason(cause: Cause) -> &'static str {
    match cause {
        Cause::Link => "link",
        Cause::Looking => "looking",
    }
}

fn word(help: Help) -> &'static str {
    match help {
        Help::Compression => "compression",
        Help::Bandwidth => "bandwidth",
        Help::QuietHours => "quiet-hours",
        Help::Tracker => "tracker",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::Figures;
    use crdt::JobRole;
    use keys::{Epoch, MigrationId, VolumeId};

    const GIB: u64 = 1 << 30;

    fn summary(pass: u32, blocks: u64, millis: u64, since_millis: Option<u64>) -> PassSummary {
        PassSummary {
            pass,
            blocks,
            bytes_sent: 0,
            millis,
            since_millis,
            read: PassRead::Whole,
        }
    }

    /// Of a volume of 10 GiB, after two passes, in the third.
    fn report() -> JobReport {
        JobReport {
            migration: MigrationId([1; 16]),
            volume: VolumeId([2; 16]),
            role: JobRole::Agent,
            epoch: Epoch(1),
            replicator: None,
            stage: Stage::Replicating,
            step: "copying".into(),
            detail: None,
            pass: 3,
            barrier: 2,
            passes: vec![
                summary(1, 163_840, 100_000, None),
                summary(2, 1_000, 20_000, Some(200_000)),
            ],
            read_by: None,
            left_out: keys::LeftOut::default(),
            root: None,
        }
    }

    fn live(pass: u32) -> Live {
        Live {
            figures: Figures {
                pass,
                total_bytes: 10 * GIB,
                done_bytes: 5 * GIB,
                pass_millis: 10_000,
                bytes_per_sec: Some(GIB / 2),
                lag_millis: Some(40_000),
                ..Figures::default()
            },
            at: UnixSecs(1_000),
            pace_millis: 0,
        }
    }

    fn verdict(live: Option<&Live>, secs: u64) -> (String, Option<String>) {
        let report = report();
        let measured = measured(10 * GIB, &report, live, UnixSecs(1_000 + secs));
        let view = view(forecast(&measured, FREEZE_MILLIS));
        (view.verdict, view.because)
    }

    fn unknown(because: &str) -> (String, Option<String>) {
        ("unknown".into(), Some(because.into()))
    }

    #[test]
    fn figures_of_a_pass_that_are_not_renewed_stand_still_after_half_a_minute() {
        let live = live(3);
        let report = report();
        let later = measured(10 * GIB, &report, Some(&live), UnixSecs(1_020));
        let running = later.running.map(|running| running.elapsed_millis);
        assert_eq!((running, later.lag_millis), (Some(30_000), Some(60_000)));
        assert_ne!(verdict(Some(&live), 30).0, "unknown");
        assert!(!live.is_stale(UnixSecs(1_030)));
        assert_eq!(verdict(Some(&live), 31), unknown("standstill"));
        assert!(live.is_stale(UnixSecs(1_031)));
        // In a large mesh they come less often.
        let rare = Live {
            pace_millis: 60_000,
            ..live
        };
        assert!(!rare.is_stale(UnixSecs(1_090)));
        assert!(rare.is_stale(UnixSecs(1_091)));
    }

    #[test]
    fn of_a_volume_that_is_cut_over_nothing_lags_however_long_ago_that_was() {
        let mut live = live(3);
        live.figures.barrier_age_millis = Some(2_000);
        live.figures.unsettled_bytes = 5;
        let spans = |counters: &CountersView| (counters.lag_secs, counters.barrier_age_secs);
        let moving = live.counters(UnixSecs(1_005), false);
        assert_eq!(spans(&moving), (Some(45), Some(7)));
        assert_eq!(moving.backlog_bytes, 5);
        let over = live.counters(UnixSecs(9_000), true);
        assert_eq!(spans(&over), (None, None));
        assert_eq!(over.backlog_bytes, 0);
    }

    #[test]
    fn in_a_cutover_what_was_found_before_it_warns_of_nothing() {
        let report = report();
        let live = live(3);
        let measured = measured(10 * GIB, &report, Some(&live), UnixSecs(1_000));
        let shown = |stage| in_stage(stage, view(forecast(&measured, FREEZE_MILLIS)));
        let before = shown(Stage::ReadyForCutover);
        assert_ne!(before.verdict, "cutover");
        let cutover = shown(Stage::CuttingOver);
        assert_eq!(
            (cutover.verdict.as_str(), cutover.because),
            ("cutover", None)
        );
        assert_eq!(cutover.converges_in_secs, None);
        assert_eq!(cutover.pass_left_secs, before.pass_left_secs);
    }

    #[test]
    fn of_a_first_pass_that_is_held_what_is_durable_is_known_while_the_agent_runs() {
        let held = |passes: usize, barrier| JobReport {
            passes: report().passes[..passes].to_vec(),
            barrier,
            ..report()
        };
        let mut first = live(1);
        first.figures.unsettled_bytes = GIB;
        assert_eq!(
            in_first_pass(Some(&held(0, 2)), Some(&first)),
            Some(4 * GIB)
        );
        // A copy that was begun anew, figures of another pass, and none.
        assert_eq!(in_first_pass(Some(&held(0, 0)), Some(&first)), Some(0));
        assert_eq!(in_first_pass(Some(&held(0, 2)), Some(&live(2))), None);
        assert_eq!(in_first_pass(Some(&held(0, 2)), None), None);
        assert_eq!(in_first_pass(None, None), None);
        assert_eq!(in_first_pass(Some(&held(1, 2)), Some(&first)), None);
    }

    #[test]
    fn an_agent_that_says_nothing_any_more_is_silent() {
        assert_eq!(verdict(None, 0), unknown("agent-silent"));
        // Between two passes, and in one that has looked at all of the disk.
        let resting = live(2);
        assert_ne!(verdict(Some(&resting), 30).0, "unknown");
        assert_eq!(verdict(Some(&resting), 31), unknown("agent-silent"));
        let mut looked = live(3);
        looked.figures.done_bytes = 10 * GIB;
        assert_eq!(verdict(Some(&looked), 31), unknown("agent-silent"));
    }
}
