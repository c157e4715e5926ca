//! The time between the beginnings of two passes: that in which what a pass finds had
//! changed.
//!
//! Not here: what a pass finds, and what it says about the next (`forecast`).

/// When the last complete pass began, and the one under way.
#[derive(Debug, Default)]
pub(super) struct Interval {
    before_millis: Option<u64>,
    now_millis: Option<u64>,
    is_broken: bool,
}

impl Interval {
    /// A pass begins. A first one finds what there is, not what changed.
    pub(super) fn begin(&mut self, mono_millis: u64, is_first: bool) {
        if is_first {
            self.before_millis = None;
        }
        // The one before was not completed: what it sent is missing in the next.
        self.is_broken = self.now_millis.replace(mono_millis).is_some();
    }

    /// The pass is complete: milliseconds from the beginning of the one before to the
    /// beginning of this one, where it found all that changed in between.
    pub(super) fn end(&mut self) -> Option<u64> {
        let began = self.now_millis.take()?;
        let before = self.before_millis.replace(began);
        let is_broken = std::mem::take(&mut self.is_broken);
        before
            .filter(|_| !is_broken)
            .map(|before| began.saturating_sub(before))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_interval_of_a_pass_is_from_the_beginning_of_the_one_before() {
        let mut interval = Interval::default();
        interval.begin(1_000, true);
        assert_eq!(interval.end(), None);
        interval.begin(5_000, false);
        assert_eq!(interval.end(), Some(4_000));
        interval.begin(7_000, false);
        assert_eq!(interval.end(), Some(2_000));
    }

    #[test]
    fn a_pass_that_was_broken_off_leaves_the_next_without_an_interval() {
        let mut interval = Interval::default();
        interval.begin(1_000, true);
        interval.end();
        interval.begin(5_000, false);
        interval.begin(6_000, false);
        assert_eq!(
            interval.end(),
            None,
            "what the first attempt sent is missing"
        );
        interval.begin(9_000, false);
        assert_eq!(interval.end(), Some(3_000));
    }

    #[test]
    fn a_copy_that_begins_anew_has_no_pass_before() {
        let mut interval = Interval::default();
        interval.begin(1_000, true);
        interval.end();
        interval.begin(5_000, true);
        assert_eq!(interval.end(), None);
    }

    #[test]
    fn after_a_restart_the_first_pass_has_no_interval() {
        let mut interval = Interval::default();
        interval.begin(5_000, false);
        assert_eq!(interval.end(), None);
        interval.begin(8_000, false);
        assert_eq!(interval.end(), Some(3_000));
    }
}
