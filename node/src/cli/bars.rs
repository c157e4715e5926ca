//! Progress bars on a terminal, one for each volume of a migration.
//!
//! Not here: what a bar says (`render::progress`).

use std::collections::BTreeMap;

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::api::model::MigrationView;

use super::awaited::News;
use super::page::clean;
use super::render::progress;

/// Redraws a second: as often as there are new figures, with some slack.
const REDRAWS_HZ: u8 = 4;

/// Bars on stderr.
pub struct Bars {
    all: MultiProgress,
    of: BTreeMap<String, ProgressBar>,
    news: News,
    style: ProgressStyle,
}

impl Bars {
    /// None yet.
    pub fn new() -> Self {
        let style =
            ProgressStyle::with_template("{prefix:<12!} [{bar:16}] {percent:>3} % {wide_msg}")
                .expect("the template is constant and was tested");
        Self {
            all: MultiProgress::with_draw_target(ProgressDrawTarget::stderr_with_hz(REDRAWS_HZ)),
            of: BTreeMap::new(),
            news: News::default(),
            style: style.progress_chars("##."),
        }
    }

    /// Shows a migration as it is now.
    pub fn show(&mut self, view: &MigrationView) {
        for reason in self.news.reasons(view) {
            // A terminal that has gone away is noticed when the result is printed.
            let _ = self.all.println(clean(&reason));
        }
        for job in &view.volumes {
            let bar = self.of.entry(job.volume.clone()).or_insert_with(|| {
                let bar = ProgressBar::new(100).with_style(self.style.clone());
                let bar = self.all.add(bar);
                bar.set_prefix(clean(&job.name).replace('\n', " "));
                bar
            });
            bar.set_position(u64::from(progress::pass_percent(job)));
            bar.set_message(clean(&progress::beside_bar(job)).replace('\n', " "));
        }
    }

    /// Tells something above the bars.
    pub fn tell(&self, text: &str) {
        let _ = self.all.println(clean(text));
    }

    /// Leaves the bars as they are.
    pub fn end(&self) {
        for bar in self.of.values() {
            bar.abandon();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::tests::{job, migration};

    #[test]
    fn every_volume_has_one_bar_however_often_it_is_shown() {
        let mut bars = Bars::new();
        bars.show(&migration("started", vec![job("initial-sync")]));
        bars.show(&migration("started", vec![job("replicating")]));
        let positions: Vec<u64> = bars.of.values().map(ProgressBar::position).collect();
        assert_eq!(positions, [100]);
        bars.end();
        assert!(bars.of.values().all(ProgressBar::is_finished));
    }
}
