//! Views of figures: what runs, what was counted, and the forecast made from both.

use super::{Live, State};
use crate::api::model::{CountersView, ForecastView, PassView, ProgressView, RangeView};
use crdt::{JobReport, PassSummary, Stage};
use keys::UnixSecs;
use roles::forecast::{
    Cause, FREEZE_MILLIS, Forecast, Help, Lacking, Measured, Range, Running, Verdict, forecast,
};

pub(super) fn pass_view(pass: &PassSummary) -> PassView {
    PassView {
        pass: pass.pass,
        blocks: pass.blocks,
        bytes_sent: pass.bytes_sent,
        millis: pass.millis,
        since_millis: pass.since_millis,
    }
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
            sent_bytes_per_sec: figures.sent_bytes_per_sec,
            millis: figures.pass_millis,
        }
    }

    /// What was counted. Spans have grown since they were heard.
    pub(super) fn counters(&self, now: UnixSecs) -> CountersView {
        let figures = &self.figures;
        let secs = |millis: u64| millis.saturating_add(self.age_millis(now)) / 1_000;
        CountersView {
            read_bytes: figures.read_bytes,
            sent_bytes: figures.sent_bytes,
            disk_bytes: figures.disk_bytes,
            saved_by_compression: figures.saved_by_compression,
            saved_by_patches: figures.saved_by_patches,
            saved_by_references: figures.saved_by_references,
            barriers: figures.barriers,
            barrier_age_secs: figures.barrier_age_millis.map(secs),
            lag_secs: figures.lag_millis.map(secs),
            backlog_bytes: figures.unsettled_bytes,
        }
    }

    fn age_millis(&self, now: UnixSecs) -> u64 {
        now.0.saturating_sub(self.at.0).saturating_mul(1_000)
    }
}

impl State<'_> {
    /// The forecast for a volume, while blocks move and this node runs.
    pub(super) fn forecast(
        &self,
        stage: Stage,
        length: u64,
        report: Option<&JobReport>,
        live: Option<&Live>,
    ) -> Option<ForecastView> {
        let moves = matches!(
            stage,
            Stage::InitialSync | Stage::Replicating | Stage::ReadyForCutover | Stage::CuttingOver
        );
        let report = report.filter(|_| moves && self.connected.is_some())?;
        let figures = live.map(|live| &live.figures);
        // What is reported and what is gossiped do not come at the same time.
        let running = figures.filter(|figures| {
            let last = report.passes.last().map_or(0, |pass| pass.pass);
            report.step == "copying" && figures.pass > last
        });
        let lag = figures.and_then(|figures| figures.lag_millis);
        let age = live.map_or(0, |live| live.age_millis(self.now));
        let measured = Measured {
            length,
            passes: &report.passes,
            running: running.map(|figures| Running {
                elapsed_millis: figures.pass_millis,
                done_bytes: figures.done_bytes,
                found_bytes: figures.found_bytes,
                bytes_per_sec: figures.bytes_per_sec,
            }),
            lag_millis: lag.map(|lag| lag.saturating_add(age)),
            unsettled_bytes: figures.map_or(0, |figures| figures.unsettled_bytes),
            is_uncompressed: figures.is_some_and(|figures| figures.is_uncompressed),
        };
        Some(view(forecast(&measured, FREEZE_MILLIS)))
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
