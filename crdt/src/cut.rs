//! Cuts texts and lists of a report to their limits, and notes whether anything was lost.
//!
//! Not here: what the limits are (`report`, `inventory`).

/// What was cut so far.
#[derive(Debug, Default)]
pub(crate) struct Cut {
    pub(crate) any: bool,
}

impl Cut {
    /// Keeps the first of a list.
    pub(crate) fn list<T>(&mut self, list: &mut Vec<T>, limit: usize) {
        self.any |= list.len() > limit;
        list.truncate(limit);
    }

    /// Keeps the last of a list.
    pub(crate) fn oldest<T>(&mut self, list: &mut Vec<T>, limit: usize) {
        let excess = list.len().saturating_sub(limit);
        self.any |= excess > 0;
        list.drain(..excess);
    }

    /// Keeps the first bytes of a text, whole characters of them.
    pub(crate) fn shorten(&mut self, text: &mut String, limit: usize) {
        if text.len() > limit {
            self.any = true;
            let end = (0..=limit)
                .rev()
                .find(|at| text.is_char_boundary(*at))
                .expect("0 is a boundary of every text");
            text.truncate(end);
        }
    }
}
