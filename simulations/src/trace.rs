//! What happened, line by line: hashed always, so that two runs can be compared, and
//! shown as far as somebody asked for it.
//!
//! Nothing here decides anything: a world without its trace runs the same.

use std::collections::VecDeque;
use std::fmt::{Arguments, Write as _};
use std::io::Write as _;

/// Text that is hashed in one go.
const HASHED_BYTES: usize = 32 * 1024;

/// Which lines are shown.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct View {
    /// Only those that a node has to do with.
    pub node: Option<usize>,
    /// Only from this time on, in milliseconds.
    pub from_millis: u64,
    /// Only until this time, in milliseconds.
    pub to_millis: Option<u64>,
    /// Not what the mesh says to keep itself level, nor what is stored of it.
    pub is_brief: bool,
    /// Only those that contain this.
    pub grep: Option<String>,
    /// Only that many, the last before the end.
    pub last: Option<usize>,
    /// Keep them for [`Trace::kept`] instead of printing them.
    pub is_kept: bool,
}

/// The lines of one run.
pub struct Trace {
    hasher: blake3::Hasher,
    unhashed: String,
    lines: u64,
    names: Vec<String>,
    view: Option<View>,
    kept: VecDeque<String>,
}

impl Trace {
    /// No lines yet. `names` are those of the participants.
    pub fn new(names: Vec<String>, view: Option<View>) -> Self {
        Self {
            hasher: blake3::Hasher::new(),
            unhashed: String::new(),
            lines: 0,
            names,
            view,
            kept: VecDeque::new(),
        }
    }

    /// Adds a line about a participant, or about the world.
    pub fn line(&mut self, now: u64, who: Option<usize>, what: Arguments<'_>) {
        self.line_from(now, [who, None], what, String::new);
    }

    /// Adds a line about a participant and perhaps its peer. The detail is only made
    /// when the line is shown, and is no part of the hash.
    pub fn line_from(
        &mut self,
        now: u64,
        [who, peer]: [Option<usize>; 2],
        what: Arguments<'_>,
        detail: impl FnOnce() -> String,
    ) {
        self.lines += 1;
        let start = self.unhashed.len();
        let at = who.map_or(-1, |who| i64::try_from(who).unwrap_or(i64::MAX));
        // Writing to a string never fails.
        let _ = writeln!(self.unhashed, "{now} {at} {what}");
        if self.view.is_some() {
            let text = self.unhashed[start..].trim_end();
            let text = text.splitn(3, ' ').last().unwrap_or_default().to_owned();
            self.show(now, [who, peer], text + &detail());
        }
        if self.unhashed.len() > HASHED_BYTES {
            self.hasher.update(self.unhashed.as_bytes());
            self.unhashed.clear();
        }
    }

    fn show(&mut self, now: u64, [who, peer]: [Option<usize>; 2], text: String) {
        let Some(view) = &self.view else { return };
        let concerns = |node| [who, peer].contains(&Some(node)) || who.is_none();
        let is_chatter = text.starts_with("stores ")
            || text.starts_with("from n") && !text.contains(" on stream ");
        let name = who.map_or("", |who| &self.names[who]);
        let line = format!("{:>4}.{:03}  {name:<14}  {text}", now / 1000, now % 1000);
        let wanted = view.node.is_none_or(concerns)
            && now >= view.from_millis
            && view.to_millis.is_none_or(|to| now <= to)
            && !(view.is_brief && is_chatter)
            && view.grep.as_ref().is_none_or(|grep| line.contains(grep));
        if !wanted {
            return;
        }
        if view.last.is_some_and(|last| self.kept.len() >= last) {
            self.kept.pop_front();
        }
        if view.last.is_some() || view.is_kept {
            self.kept.push_back(line);
        } else {
            print(&line);
        }
    }

    /// How many lines there are.
    pub fn lines(&self) -> u64 {
        self.lines
    }

    /// The lines that were kept; those that were to be printed at the end are.
    pub fn kept(&mut self) -> Vec<String> {
        let kept = Vec::from(std::mem::take(&mut self.kept));
        if self.view.as_ref().is_some_and(|view| !view.is_kept) {
            kept.iter().for_each(|line| print(line));
        }
        kept
    }

    /// Equal for two runs in which the same happened.
    pub fn hash(&self) -> String {
        let mut hasher = self.hasher.clone();
        hasher.update(self.unhashed.as_bytes());
        hasher.finalize().to_hex()[..16].to_owned()
    }
}

fn print(line: &str) {
    // Whoever reads the trace may stop early.
    let _ = writeln!(std::io::stdout(), "{line}");
}
