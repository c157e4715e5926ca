//! `dunlin doctor`: what is well on this machine and what is not; and how fast the way to
//! another node is.
//!
//! Not here: the checks (`doctor`), the measuring (`speed`), and how both look (`render`).

use std::path::Path;
use std::time::Duration;

use crate::api::client::{Client, ClientError};
use crate::api::model::{CheckState, CheckView, DoctorView, ErrorKind, SpeedAsk, SpeedView};
use crate::doctor;
use crate::local::{self, Answering};

use super::Globals;
use super::outcome::CommandError;
use super::reader::one;
use super::render;
use super::screen::Screen;

/// How long a node may need for its checks.
const LOOKING: Duration = Duration::from_secs(60);

/// What a speed check may take beside the time in which data flows.
const BESIDE: Duration = Duration::from_secs(60);

/// Looks at everything and prints it; fails where a check does.
pub async fn examine(globals: &Globals, screen: &mut Screen) -> Result<(), CommandError> {
    let folder = globals.folder()?;
    let (view, kind) = match look(&folder).await {
        Ok(view) => (view, ErrorKind::Failed),
        Err(unread) => (unread.view(&folder), unread.kind()),
    };
    screen.result(&view, render::doctor::page)?;
    verdict(&view, kind)
}

/// Why the state of a node could not be had.
#[derive(Debug)]
struct Unread {
    error: CommandError,
    is_running: bool,
}

impl Unread {
    /// Somebody has the folder where its node is asked in vain, or is not ours to ask.
    fn of_folder(error: CommandError) -> Self {
        let is_running = matches!(
            error.kind(),
            Some(ErrorKind::NotRunning | ErrorKind::NotAuthorised)
        );
        Self { error, is_running }
    }

    /// A node that was connected to runs, unless it went in between.
    fn of_node(error: ClientError) -> Self {
        let is_running = !matches!(error, ClientError::NotRunning { .. });
        let error = error.into();
        Self { error, is_running }
    }

    fn of_state(error: CommandError) -> Self {
        let is_running = false;
        Self { error, is_running }
    }

    fn view(&self, folder: &Path) -> DoctorView {
        doctor::examine_without_state(folder, &self.error.to_string(), self.is_running)
    }

    fn kind(&self) -> ErrorKind {
        self.error.kind().unwrap_or(ErrorKind::Failed)
    }
}

async fn look(folder: &Path) -> Result<DoctorView, Unread> {
    match local::answering(folder).await.map_err(Unread::of_folder)? {
        Answering::Node(client) => {
            let client = client.waiting(LOOKING);
            client.get("/v1/doctor").await.map_err(Unread::of_node)
        }
        Answering::Stored(offline) => {
            let facts = offline.facts(folder).map_err(Unread::of_state)?;
            Ok(doctor::examine(&facts))
        }
    }
}

/// Warnings are no failure. `kind` is what a failure ends with.
fn verdict(view: &DoctorView, kind: ErrorKind) -> Result<(), CommandError> {
    let failed = |check: &&CheckView| check.state == CheckState::Failed;
    let failed: Vec<String> = view
        .checks
        .iter()
        .filter(failed)
        .map(|check| match &check.on {
            Some(on) => format!("{} {on}", check.check),
            None => check.check.clone(),
        })
        .collect();
    match failed.len() {
        0 => Ok(()),
        count => Err(CommandError::new(
            kind,
            format!(
                "{count} of {} checks failed ({}): each says what to do",
                view.checks.len(),
                failed.join(", ")
            ),
        )),
    }
}

/// Has the running node measure the way to another, and prints what it found.
pub async fn measure(
    to: &str,
    seconds: u32,
    client: &Client,
    screen: &mut Screen,
) -> Result<(), CommandError> {
    screen.note(format!("measuring the way to {to} for {seconds} s"));
    let client = client.waiting(Duration::from_secs(seconds.into()) + BESIDE);
    let route = format!("{}/speed-check", one("nodes", to));
    let view: SpeedView = client.post(&route, &SpeedAsk { seconds }).await?;
    screen.result(&view, render::doctor::speed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_that_runs_and_does_not_answer_is_said_to_run_and_keeps_the_status_of_its_error() {
        let silent = Unread::of_node(ClientError::Silent {
            socket: "/d/run/s".into(),
            request: "GET /v1/doctor".into(),
            waited: LOOKING,
        });
        let gone = Unread::of_node(ClientError::NotRunning {
            socket: "/d/run/s".into(),
            why: "connection refused".into(),
        });
        let forbidden = Unread::of_folder(CommandError::new(ErrorKind::NotAuthorised, "not ours"));
        let starts = Unread::of_folder(CommandError::new(ErrorKind::NotRunning, "it is starting"));
        let damaged = Unread::of_folder(CommandError::failed("damaged"));
        for (unread, is_running, status) in [
            (silent, true, 4),
            (gone, false, 4),
            (forbidden, true, 3),
            (starts, true, 4),
            (damaged, false, 1),
        ] {
            let view = unread.view(Path::new("/nowhere"));
            assert_eq!(view.running, is_running, "{unread:?}");
            let ended = verdict(&view, unread.kind()).map_err(|error| error.exit_status());
            assert_eq!(ended, Err(status), "{unread:?}");
        }
    }
}
