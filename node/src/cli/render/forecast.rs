//! Whether and when a copy will be close enough for a cutover, in words, and what was
//! counted beside it.
//!
//! Not here: how it is worked out (`roles::forecast`).

use crate::api::model::{CountersView, ForecastView, JobView, RangeView};
use crate::cli::figures::{rate, size, span};
use crate::cli::page::{Paint, Piece};

/// The forecast as a few words, for beside a bar; none where it says nothing yet.
pub fn short(forecast: &ForecastView) -> Option<String> {
    match (forecast.verdict.as_str(), forecast.converges_in_secs) {
        ("fits", _) => Some("ready for a short freeze".into()),
        ("converges", Some(secs)) => Some(format!("ready for a short freeze in {}", spans(secs))),
        ("uncertain", _) => Some("may not converge".into()),
        ("diverges", _) => Some("will not converge".into()),
        _ => None,
    }
}

/// What is there to know of a volume, each with its label.
pub fn labelled(job: &JobView) -> Vec<(&'static str, Option<Piece>)> {
    let forecast = job.forecast.as_ref();
    let counters = job.counters.as_ref();
    vec![
        ("forecast", forecast.map(sentence)),
        ("behind", behind(forecast, counters).map(Into::into)),
        (
            "changes",
            forecast
                .and_then(|forecast| forecast.change_bytes_per_sec)
                .map(|change| rates(change).into()),
        ),
        (
            "link",
            forecast
                .and_then(|forecast| Some((forecast, forecast.link_bytes_per_sec?)))
                .map(|(forecast, link)| at_least(forecast, rates(link)).into()),
        ),
        ("sent", counters.and_then(sent).map(Into::into)),
        ("barriers", counters.and_then(barriers).map(Into::into)),
    ]
}

fn sentence(forecast: &ForecastView) -> Piece {
    let freeze = span(forecast.freeze_millis / 1_000);
    let (text, paint) = match (forecast.verdict.as_str(), forecast.converges_in_secs) {
        ("fits", _) => (
            format!("what is left fits a freeze of {freeze} now"),
            Paint::Good,
        ),
        ("converges", Some(secs)) => (
            format!(
                "what is left fits a freeze of {freeze} in {}, if passes follow each other",
                spans(secs)
            ),
            Paint::Plain,
        ),
        ("uncertain", Some(secs)) => (
            format!(
                "what is left may fit a freeze of {freeze} in {}, or never: {}",
                span(secs.low),
                why(forecast)
            ),
            Paint::Warn,
        ),
        ("diverges", _) => (format!("will not converge: {}", why(forecast)), Paint::Warn),
        ("cutover", _) => ("none: it is being cut over".to_owned(), Paint::Dim),
        _ => (
            format!("not known yet: {}", missing(forecast.because.as_deref())),
            Paint::Dim,
        ),
    };
    Piece::new(text, paint)
}

fn missing(what: Option<&str>) -> &'static str {
    match what {
        Some("first-pass") => "the first pass is not complete",
        Some("changes") => "a second pass shows how much changes",
        Some("link") => "no pass has sent enough to tell how fast the link is",
        Some("agent-silent") => "its agent says nothing of it now",
        Some("standstill") => "the pass under way does not get on",
        _ => "not enough was measured",
    }
}

fn why(forecast: &ForecastView) -> String {
    let changes = forecast
        .change_bytes_per_sec
        .map_or_else(String::new, rates);
    let link = forecast.link_bytes_per_sec;
    let link = link.map_or_else(String::new, |link| at_least(forecast, rates(link)));
    let looking = forecast.looking_millis.map_or(0, |looking| looking.high);
    let why = match forecast.because.as_deref() {
        Some("looking") => format!(
            "looking at the disk takes {}, and too much changes meanwhile ({changes})",
            span(looking.div_ceil(1_000))
        ),
        _ => format!("changes {changes}, link {link}"),
    };
    let help: Vec<&str> = forecast.help.iter().map(|help| helps(help)).collect();
    match help.as_slice() {
        [] => why,
        [one] => format!("{why}; {one} would help"),
        [some @ .., last] => format!("{why}; {} or {last} would help", some.join(", ")),
    }
}

fn helps(word: &str) -> &str {
    match word {
        "compression" => "compression",
        "bandwidth" => "more bandwidth",
        "quiet-hours" => "hours in which less is written",
        "tracker" => "a tracker of changes",
        other => other,
    }
}

fn behind(forecast: Option<&ForecastView>, counters: Option<&CountersView>) -> Option<String> {
    let lag = counters.and_then(|counters| counters.lag_secs);
    let backlog = counters.map_or(0, |counters| counters.backlog_bytes);
    let behind = forecast.and_then(|forecast| forecast.behind_bytes);
    let mut parts = vec![];
    parts.extend(behind.map(sizes));
    parts.extend(lag.map(|secs| format!("all that is older than {} is in the copy", span(secs))));
    if backlog > 0 {
        parts.push(format!("{} on its way", size(backlog)));
    }
    (!parts.is_empty()).then(|| parts.join("; "))
}

fn sent(counters: &CountersView) -> Option<String> {
    if counters.read_bytes == 0 && counters.disk_bytes == 0 {
        return None;
    }
    let mut text = format!(
        "{} for {} of disk, {} read",
        size(counters.sent_bytes),
        size(counters.disk_bytes),
        size(counters.read_bytes)
    );
    for (saved, by) in [
        (counters.saved_by_compression, "compression"),
        (counters.saved_by_patches, "patches"),
        (counters.saved_by_references, "references"),
    ] {
        if saved > 0 {
            text.push_str(&format!("; {} saved by {by}", size(saved)));
        }
    }
    Some(text)
}

fn barriers(counters: &CountersView) -> Option<String> {
    if counters.barriers == 0 {
        return None;
    }
    let last = counters.barrier_age_secs;
    let last = last.map(|age| format!(", the last {} ago", span(age)));
    Some(format!(
        "{} durable{}",
        counters.barriers,
        last.unwrap_or_default()
    ))
}

fn at_least(forecast: &ForecastView, link: String) -> String {
    match forecast.link_is_at_least {
        true => format!("at least {link}"),
        false => link,
    }
}

/// Both ends, or one where people would not tell them apart.
fn ends(range: RangeView, show: impl Fn(u64) -> String) -> String {
    let (low, high) = (show(range.low), show(range.high));
    match low == high {
        true => low,
        false => format!("{low} to {high}"),
    }
}

fn sizes(range: RangeView) -> String {
    ends(range, size)
}

fn rates(range: RangeView) -> String {
    ends(range, rate)
}

fn spans(range: RangeView) -> String {
    ends(range, span)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::page::{Look, Page};
    use crate::cli::tests::job;

    const MIB: u64 = 1 << 20;

    fn range(low: u64, high: u64) -> Option<RangeView> {
        Some(RangeView { low, high })
    }

    fn forecast(verdict: &str) -> ForecastView {
        ForecastView {
            verdict: verdict.into(),
            because: None,
            help: vec![],
            converges_in_secs: None,
            behind_bytes: range(30 * MIB, 60 * MIB),
            change_bytes_per_sec: range(MIB, MIB),
            link_bytes_per_sec: range(90 * MIB, 110 * MIB),
            link_is_at_least: false,
            looking_millis: range(10_000, 10_000),
            pass_left_secs: None,
            freeze_millis: 2_000,
        }
    }

    fn shown(job: &JobView) -> String {
        let mut page = Page::new(&Look::default());
        page.labelled(labelled(job));
        page.finish()
    }

    #[test]
    fn a_volume_that_converges_says_when_and_how_far_behind_it_is() {
        let mut job = job("replicating");
        job.forecast = Some(ForecastView {
            converges_in_secs: range(40, 190),
            ..forecast("converges")
        });
        job.counters = Some(CountersView {
            read_bytes: 900 * MIB,
            sent_bytes: 200 * MIB,
            disk_bytes: 300 * MIB,
            saved_by_compression: 100 * MIB,
            barriers: 12,
            barrier_age_secs: Some(4),
            lag_secs: Some(30),
            backlog_bytes: 5 * MIB,
            ..CountersView::default()
        });
        let expected = "\
forecast  what is left fits a freeze of 2 s in 40 s to 3 min, if passes follow each other
behind    30.0 MiB to 60.0 MiB; all that is older than 30 s is in the copy; 5.0 MiB on its way
changes   1.0 MiB/s
link      90.0 MiB/s to 110 MiB/s
sent      200 MiB for 300 MiB of disk, 900 MiB read; 100 MiB saved by compression
barriers  12 durable, the last 4 s ago
";
        assert_eq!(shown(&job), expected);
        let short = short(&forecast("fits"));
        assert_eq!(short.as_deref(), Some("ready for a short freeze"));
    }

    #[test]
    fn what_will_not_converge_says_why_and_what_would_help() {
        let mut job = job("replicating");
        job.forecast = Some(ForecastView {
            because: Some("link".into()),
            help: vec![
                "compression".into(),
                "bandwidth".into(),
                "quiet-hours".into(),
            ],
            change_bytes_per_sec: range(150 * MIB, 150 * MIB),
            link_is_at_least: true,
            ..forecast("diverges")
        });
        let text = shown(&job);
        assert!(text.contains("will not converge: changes 150 MiB/s, link at least 90.0 MiB/s to 110 MiB/s; compression, more bandwidth or hours in which less is written would help"), "{text}");
        job.forecast = Some(ForecastView {
            because: Some("looking".into()),
            help: vec!["tracker".into()],
            converges_in_secs: range(12, 12),
            ..forecast("uncertain")
        });
        let text = shown(&job);
        assert!(text.contains("may fit a freeze of 2 s in 12 s, or never: looking at the disk takes 10 s, and too much changes meanwhile (1.0 MiB/s); a tracker of changes would help"), "{text}");
    }

    #[test]
    fn what_is_not_known_yet_says_what_is_missing() {
        for (missing, said) in [
            ("first-pass", "the first pass is not complete"),
            ("changes", "a second pass shows how much changes"),
            ("link", "how fast the link is"),
            ("standstill", "does not get on"),
            ("agent-silent", "its agent says nothing of it now"),
        ] {
            let mut job = job("initial-sync");
            job.forecast = Some(ForecastView {
                because: Some(missing.into()),
                ..forecast("unknown")
            });
            let text = shown(&job);
            assert!(text.contains("not known yet: "), "{text}");
            assert!(text.contains(said), "{text}");
        }
        assert_eq!(short(&forecast("unknown")), None);
    }

    #[test]
    fn in_a_cutover_nothing_is_foreseen_and_nobody_is_warned() {
        let mut job = job("cutting-over");
        job.forecast = Some(forecast("cutover"));
        let text = shown(&job);
        assert!(
            text.contains("forecast  none: it is being cut over"),
            "{text}"
        );
        assert_eq!(short(&forecast("cutover")), None);
    }
}
