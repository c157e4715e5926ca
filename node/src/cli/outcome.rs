//! How a command ends: its error, what is printed of it, and the exit status.
//!
//! Not here: what the node refuses and why (the local API says so).

use std::io::{self, Write};
use std::process::ExitCode;

use crate::api::client::ClientError;
use crate::api::model::{ErrorKind, ErrorView};

/// Why a command ends before its result is out.
#[derive(Debug, Clone, thiserror::Error)]
pub enum CommandError {
    /// It was not carried out. The text names what failed, on what, why, and what to
    /// do next.
    #[error("{}", .0.error)]
    Failed(ErrorView),
    /// Whoever read stdout has gone, as `head` does: nobody is left to tell.
    #[error("stdout was closed")]
    Closed,
}

impl CommandError {
    /// An error of any kind.
    pub fn new(kind: ErrorKind, text: impl Into<String>) -> Self {
        let error = text.into();
        Self::Failed(ErrorView { error, kind })
    }

    /// Exit status 1.
    pub fn failed(text: impl Into<String>) -> Self {
        Self::new(ErrorKind::Failed, text)
    }

    /// Exit status 2.
    pub fn usage(text: impl Into<String>) -> Self {
        Self::new(ErrorKind::Usage, text)
    }

    /// Exit status 6.
    pub fn refused(text: impl Into<String>) -> Self {
        Self::new(ErrorKind::Refused, text)
    }

    /// The kind of failure; none when nothing failed.
    pub fn kind(&self) -> Option<ErrorKind> {
        match self {
            Self::Failed(view) => Some(view.kind),
            Self::Closed => None,
        }
    }

    /// The exit status.
    pub fn exit_status(&self) -> u8 {
        self.kind().map_or(0, exit_status)
    }
}

/// The exit status of a kind of failure.
pub fn exit_status(kind: ErrorKind) -> u8 {
    match kind {
        ErrorKind::Failed => 1,
        ErrorKind::Usage => 2,
        ErrorKind::NotAuthorised => 3,
        ErrorKind::NotRunning => 4,
        ErrorKind::NotFound => 5,
        ErrorKind::Refused => 6,
    }
}

impl From<ErrorView> for CommandError {
    fn from(view: ErrorView) -> Self {
        Self::Failed(view)
    }
}

impl From<ClientError> for CommandError {
    fn from(error: ClientError) -> Self {
        let kind = match &error {
            ClientError::NotRunning { .. }
            | ClientError::Silent { .. }
            | ClientError::Broken { .. } => ErrorKind::NotRunning,
            ClientError::Forbidden { .. } => ErrorKind::NotAuthorised,
            ClientError::Unsendable { .. } => ErrorKind::Usage,
            ClientError::Refused(view) => view.kind,
            ClientError::TooLarge { .. }
            | ClientError::Unreadable { .. }
            | ClientError::Unexpected { .. } => ErrorKind::Failed,
        };
        Self::new(kind, error.to_string())
    }
}

impl From<anyhow::Error> for CommandError {
    fn from(error: anyhow::Error) -> Self {
        match error.downcast::<Self>() {
            Ok(error) => error,
            Err(error) => Self::failed(whole(&error)),
        }
    }
}

/// An error with its causes, but for those that its own text names already.
fn whole(error: &anyhow::Error) -> String {
    let mut text = String::new();
    for cause in error.chain() {
        let cause = cause.to_string();
        if text.is_empty() {
            text = cause;
        } else if !text.contains(&cause) {
            text = format!("{text}: {cause}");
        }
    }
    text
}

/// Prints how a command ended, where it failed, and gives the exit status.
pub fn report(result: Result<(), CommandError>, json: bool) -> ExitCode {
    let Err(error) = result else {
        return ExitCode::SUCCESS;
    };
    if let CommandError::Failed(view) = &error {
        // stderr may be gone as well; the exit status still tells.
        let _ = io::stderr().write_all(describe(view, json).as_bytes());
    }
    ExitCode::from(error.exit_status())
}

/// What goes to stderr for an error.
pub fn describe(view: &ErrorView, json: bool) -> String {
    if json {
        let text = serde_json::to_string(view).expect("two texts always make JSON");
        return format!("{text}\n");
    }
    format!("error: {}\n", super::page::clean(&view.error))
}

/// Prints what the argument parser has to say (help and version too) and gives the
/// exit status.
pub fn report_usage(error: &clap::Error, json: bool) -> u8 {
    if !error.use_stderr() {
        // Help into a closed pipe is no failure.
        let _ = error.print();
        return 0;
    }
    if json {
        let text = error.render().to_string();
        let text = text.trim().trim_start_matches("error: ").to_owned();
        let view = ErrorView {
            error: text,
            kind: ErrorKind::Usage,
        };
        let _ = io::stderr().write_all(describe(&view, true).as_bytes());
    } else {
        let _ = error.print();
    }
    exit_status(ErrorKind::Usage)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io;

    #[derive(Debug, thiserror::Error)]
    #[error("the state could not be read: {source}; check the disk")]
    struct Unreadable {
        source: io::Error,
    }

    #[test]
    fn a_cause_that_the_error_names_itself_is_not_said_twice() {
        let source = || Unreadable {
            source: io::Error::other("no such block"),
        };
        let named = anyhow::Error::from(source()).context("cannot look");
        assert_eq!(
            CommandError::from(named).to_string(),
            "cannot look: the state could not be read: no such block; check the disk"
        );
        let hidden = anyhow::Error::from(source().source).context("cannot look");
        assert_eq!(
            CommandError::from(hidden).to_string(),
            "cannot look: no such block"
        );
    }
}
