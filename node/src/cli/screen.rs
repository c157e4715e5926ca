//! Where a command writes: results on stdout, notes on stderr. Knows whether people or
//! programs read, and what the terminal can do.
//!
//! Not here: what is written (`render`).

use std::env;
use std::io::{self, IsTerminal, Write};
use std::time::{SystemTime, UNIX_EPOCH};

use serde::Serialize;

use super::Globals;
use super::outcome::CommandError;
use super::page::{Look, clean};

/// Where lines about work under way go, when they are not drawn as bars.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// Bars on the terminal.
    Bars,
    /// Lines.
    Lines,
    /// Views as JSON, one a line.
    Json,
    /// Nothing.
    Silent,
}

/// The two streams of a command.
pub struct Screen {
    json: bool,
    quiet: bool,
    out_is_terminal: bool,
    err_is_terminal: bool,
    look: Look,
    out: Box<dyn Write + Send>,
    err: Box<dyn Write + Send>,
}

impl Screen {
    /// Those of this process.
    pub fn of_process(globals: &Globals) -> Self {
        let out_is_terminal = io::stdout().is_terminal();
        let wanted = env::var_os("NO_COLOR").is_none_or(|set| set.is_empty());
        let able = env::var_os("TERM").is_none_or(|term| term != "dumb");
        let look = Look {
            now_secs: now_secs(),
            colour: out_is_terminal && wanted && able,
            width: terminal_width(),
        };
        Self {
            json: globals.json,
            quiet: globals.quiet,
            out_is_terminal,
            err_is_terminal: io::stderr().is_terminal(),
            look,
            out: Box::new(io::stdout()),
            err: Box::new(io::stderr()),
        }
    }

    /// Any two streams, none of them a terminal.
    #[cfg(test)]
    pub fn with(
        globals: &Globals,
        look: Look,
        out: impl Write + Send + 'static,
        err: impl Write + Send + 'static,
    ) -> Self {
        Self {
            json: globals.json,
            quiet: globals.quiet,
            out_is_terminal: false,
            err_is_terminal: false,
            look,
            out: Box::new(out),
            err: Box::new(err),
        }
    }

    /// Whether results are JSON.
    pub fn json(&self) -> bool {
        self.json
    }

    /// The time this command began, in seconds since the Unix epoch.
    pub fn now_secs(&self) -> u64 {
        self.look.now_secs
    }

    /// How `--wait` shows work under way.
    pub fn progress(&self) -> Progress {
        match (self.quiet, self.err_is_terminal && !self.json) {
            (true, _) => Progress::Silent,
            (false, true) => Progress::Bars,
            (false, false) => Progress::Lines,
        }
    }

    /// How `watch` shows work under way: as lines wherever they are its result.
    pub fn watching(&self) -> Progress {
        let bars = self.err_is_terminal && self.out_is_terminal && !self.quiet;
        match (self.json, bars) {
            (true, _) => Progress::Json,
            (false, true) => Progress::Bars,
            (false, false) => Progress::Lines,
        }
    }

    /// Prints a result: the value itself as JSON, or what `render` makes of it.
    pub fn result<T: Serialize>(
        &mut self,
        value: &T,
        render: impl FnOnce(&T, &Look) -> String,
    ) -> Result<(), CommandError> {
        if self.json {
            self.json_line(value)
        } else {
            let text = render(value, &self.look);
            self.out(&text)
        }
    }

    /// Prints a value as JSON on a line of its own.
    pub fn json_line<T: Serialize>(&mut self, value: &T) -> Result<(), CommandError> {
        let text = self.json_text(value)?;
        self.out(&text)
    }

    /// A value as JSON with its line feed, not printed yet.
    pub fn json_text<T: Serialize>(&self, value: &T) -> Result<String, CommandError> {
        let text = serde_json::to_string(value)
            .map_err(|error| CommandError::failed(format!("the result is not JSON: {error}")))?;
        Ok(text + "\n")
    }

    /// Prints text as it is on stdout.
    pub fn out(&mut self, text: &str) -> Result<(), CommandError> {
        let written = self.out.write_all(text.as_bytes());
        match written.and_then(|()| self.out.flush()) {
            Ok(()) => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Err(CommandError::Closed),
            Err(error) => Err(CommandError::failed(format!(
                "cannot write the result to stdout: {error}"
            ))),
        }
    }

    /// Tells people something beside the result, unless they asked for quiet.
    pub fn note(&mut self, text: impl AsRef<str>) {
        if !self.quiet {
            self.warn(text);
        }
    }

    /// Tells people something they must not miss.
    pub fn warn(&mut self, text: impl AsRef<str>) {
        // Nothing is lost with a note: the result and the exit status remain.
        let _ = writeln!(self.err, "{}", clean(text.as_ref()));
    }
}

/// Seconds since the Unix epoch by this machine's clock.
pub fn now_secs() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| since.as_secs())
}

fn terminal_width() -> Option<usize> {
    let size = rustix::termios::tcgetwinsize(io::stdout()).ok()?;
    (size.ws_col > 0).then(|| usize::from(size.ws_col))
}
