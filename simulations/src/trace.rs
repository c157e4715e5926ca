//! What happened, line by line: hashed always, so that two runs can be compared,
//! and printed when asked for.
//!
//! Nothing here decides anything: a world without its trace runs the same.

use std::fmt::Arguments;
use std::io::Write;

/// The lines of one run.
pub struct Trace {
    hasher: blake3::Hasher,
    lines: u64,
    printed: bool,
}

impl Trace {
    /// No lines yet; `printed` ones go to standard output.
    pub fn new(printed: bool) -> Self {
        Self {
            hasher: blake3::Hasher::new(),
            lines: 0,
            printed,
        }
    }

    /// Adds a line.
    pub fn line(&mut self, now: u64, what: Arguments<'_>) {
        let text = format!("{now:>7} {what}\n");
        self.hasher.update(text.as_bytes());
        self.lines += 1;
        if self.printed {
            // Whoever reads the trace may stop early.
            let _ = std::io::stdout().write_all(text.as_bytes());
        }
    }

    /// How many lines there are.
    pub fn lines(&self) -> u64 {
        self.lines
    }

    /// Equal for two runs in which the same happened.
    pub fn hash(&self) -> String {
        self.hasher.finalize().to_hex()[..16].to_owned()
    }
}
