//! What was found, for people and for machines: one section for each thing that is done,
//! in it a row for each way to do it, and the limits.

use serde_json::{Value, json};
use std::io::{self, Write};

/// What one run took.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Run {
    pub(super) seconds: f64,
    /// Processor time of the whole machine.
    pub(super) cores: f64,
    /// Bytes sent over the network, where that is known.
    pub(super) sent: Option<u64>,
    /// The most memory that the sending and the receiving end had, in MiB, where that is
    /// known.
    pub(super) most_mib: Option<[f64; 2]>,
    /// When the first of several disks that moved at once was there, in seconds.
    pub(super) first: Option<f64>,
    /// Of several disks of one server the least and the most bytes that one moved while all
    /// of them did.
    pub(super) moved: Option<(f64, f64)>,
}

impl Run {
    /// One of which nothing else is known.
    pub(super) fn took(seconds: f64, cores: f64) -> Self {
        Self {
            seconds,
            cores,
            sent: None,
            most_mib: None,
            first: None,
            moved: None,
        }
    }
}

/// One way to do it.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Row {
    pub(super) who: String,
    /// The median.
    pub(super) run: Run,
}

/// What a figure has to be.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Limit {
    AtLeast(f64),
    AtMost(f64),
}

/// A figure beside its limit.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Verdict {
    /// Of what it is, with its unit.
    pub(super) what: String,
    pub(super) found: f64,
    pub(super) limit: Limit,
}

impl Verdict {
    /// Whether the limit was kept. What is no number keeps none.
    pub(super) fn is_kept(&self) -> bool {
        match self.limit {
            Limit::AtLeast(least) => self.found >= least,
            Limit::AtMost(most) => self.found <= most,
        }
    }
}

/// One thing that was done.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Section {
    /// By which it is asked for.
    pub(super) name: &'static str,
    pub(super) title: String,
    pub(super) rows: Vec<Row>,
    /// Beside the rows.
    pub(super) notes: Vec<String>,
    pub(super) verdicts: Vec<Verdict>,
    /// Why it was not measured, if so.
    pub(super) obstacle: Option<String>,
}

impl Section {
    /// One with nothing in it.
    pub(super) fn new(name: &'static str, title: impl Into<String>) -> Self {
        Self {
            name,
            title: title.into(),
            rows: vec![],
            notes: vec![],
            verdicts: vec![],
            obstacle: None,
        }
    }

    /// Whether it was measured and kept all limits.
    pub(super) fn is_kept(&self) -> bool {
        self.obstacle.is_none() && self.verdicts.iter().all(Verdict::is_kept)
    }

    /// Adds a figure that has a limit.
    pub(super) fn judge(&mut self, what: impl Into<String>, found: f64, limit: Limit) {
        let what = what.into();
        self.verdicts.push(Verdict { what, found, limit });
    }

    /// For people.
    pub(super) fn print(&self, out: &mut impl Write) -> io::Result<()> {
        writeln!(out, "{}: {}", self.name, self.title)?;
        if let Some(obstacle) = &self.obstacle {
            return writeln!(out, "  not measured: {obstacle}");
        }
        let first = self.rows.first().map(|row| row.run.seconds);
        for Row { who, run } in &self.rows {
            let times = first.map_or(1.0, |first| run.seconds / first);
            let (seconds, cores) = (run.seconds, run.cores);
            let sent = run
                .sent
                .map(|bytes| format!("{:.1} MB sent", bytes as f64 / 1e6));
            let most = run
                .most_mib
                .map(|[near, far]| format!("{near:.0} and {far:.0} MiB"));
            writeln!(
                out,
                "  {who:<26} {seconds:>7.2} s {cores:>7.2} core-s {times:>6.2}x  {:<16} {}",
                sent.unwrap_or_default(),
                most.unwrap_or_default(),
            )?;
        }
        for note in &self.notes {
            writeln!(out, "  {note}")?;
        }
        for verdict in &self.verdicts {
            let (what, found) = (&verdict.what, verdict.found);
            let limit = match verdict.limit {
                Limit::AtLeast(least) => format!("at least {least}"),
                Limit::AtMost(most) => format!("at most {most}"),
            };
            let kept = if verdict.is_kept() {
                "kept"
            } else {
                "NOT KEPT"
            };
            writeln!(out, "  {what}: {found:.2}, {limit}: {kept}")?;
        }
        Ok(())
    }

    fn json(&self) -> Value {
        let row = |Row { who, run }: &Row| {
            json!({
                "who": who,
                "seconds": run.seconds,
                "core_seconds": run.cores,
                "bytes_sent": run.sent,
                "most_mib": run.most_mib,
                "first_seconds": run.first,
                "moved_while_all": run.moved,
            })
        };
        let verdict = |verdict: &Verdict| {
            let (bound, limit) = match verdict.limit {
                Limit::AtLeast(least) => ("at_least", least),
                Limit::AtMost(most) => ("at_most", most),
            };
            json!({
                "what": verdict.what,
                "found": verdict.found,
                bound: limit,
                "kept": verdict.is_kept(),
            })
        };
        json!({
            "name": self.name,
            "title": self.title,
            "rows": self.rows.iter().map(row).collect::<Vec<_>>(),
            "notes": self.notes,
            "limits": self.verdicts.iter().map(verdict).collect::<Vec<_>>(),
            "not_measured": self.obstacle,
            "kept": self.is_kept(),
        })
    }
}

/// All of it as one object; `settings` say how it was measured.
pub(super) fn json(settings: &Value, sections: &[Section]) -> Value {
    let sections: Vec<Value> = sections.iter().map(Section::json).collect();
    json!({ "settings": settings, "sections": sections })
}

/// The run that took the middle time; of at least one.
pub(super) fn median(runs: Vec<Run>) -> Run {
    median_by(runs, |run| run.seconds)
}

/// The run that is in the middle by another figure; of at least one.
pub(super) fn median_by(mut runs: Vec<Run>, figure: fn(&Run) -> f64) -> Run {
    runs.sort_by(|a, b| figure(a).total_cmp(&figure(b)));
    runs[runs.len() / 2]
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn run(seconds: f64) -> Run {
        Run::took(seconds, 2.0 * seconds)
    }

    fn row(who: &str, seconds: f64) -> Row {
        let (who, run) = (who.to_owned(), run(seconds));
        Row { who, run }
    }

    fn section() -> Section {
        let mut section = Section::new("dense", "64 MiB");
        section.rows = vec![row("dunlin", 2.0), row("nbdcopy over TLS", 3.0)];
        section.rows[0].run.sent = Some(5_000_000);
        section.rows[0].run.most_mib = Some([80.0, 90.4]);
        section.judge("times as fast", 1.5, Limit::AtLeast(2.0));
        section
    }

    fn text(section: &Section) -> String {
        let mut out = vec![];
        section.print(&mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn the_median_is_the_middle_one_by_time() {
        let found = median(vec![run(3.0), run(1.0), run(9.0), run(2.0), run(8.0)]);
        assert_eq!(found.seconds, 3.0);
        let mut runs = vec![run(1.0), run(2.0), run(3.0)];
        runs[0].cores = 5.0;
        assert_eq!(median_by(runs, |run| run.cores).seconds, 1.0);
    }

    #[test]
    fn a_limit_is_kept_up_to_itself_and_never_by_what_is_no_number() {
        let kept = |found, limit| {
            let what = String::new();
            Verdict { what, found, limit }.is_kept()
        };
        assert!(kept(2.0, Limit::AtLeast(2.0)) && kept(2.0, Limit::AtMost(2.0)));
        assert!(!kept(1.9, Limit::AtLeast(2.0)) && !kept(2.1, Limit::AtMost(2.0)));
        assert!(!kept(f64::NAN, Limit::AtLeast(0.0)) && !kept(f64::NAN, Limit::AtMost(9.0)));
    }

    #[test]
    fn people_read_each_row_beside_the_first_one_and_whether_limits_were_kept() {
        let lines = text(&section());
        let lines: Vec<&str> = lines.lines().map(str::trim_end).collect();
        assert_eq!(
            lines,
            [
                "dense: 64 MiB",
                "  dunlin                        2.00 s    4.00 core-s   1.00x  5.0 MB sent      80 and 90 MiB",
                "  nbdcopy over TLS              3.00 s    6.00 core-s   1.50x",
                "  times as fast: 1.50, at least 2: NOT KEPT",
            ]
        );
    }

    #[test]
    fn machines_read_the_same() {
        let found = json(&json!({ "rounds": 5 }), &[section()]);
        assert_eq!(found["settings"]["rounds"], 5);
        let section = &found["sections"][0];
        assert_eq!(section["kept"], false);
        assert_eq!(section["rows"][0]["bytes_sent"], 5_000_000);
        assert_eq!(section["rows"][1]["most_mib"], Value::Null);
        assert_eq!(section["limits"][0]["at_least"], 2.0);
        assert_eq!(section["limits"][0]["kept"], false);
    }

    #[test]
    fn what_was_not_measured_keeps_no_limit_and_says_why() {
        let mut section = Section::new("link", "1 GiB");
        assert!(section.is_kept());
        section.obstacle = Some("run it as root".into());
        assert!(!section.is_kept());
        assert_eq!(
            text(&section),
            "link: 1 GiB\n  not measured: run it as root\n"
        );
    }
}
