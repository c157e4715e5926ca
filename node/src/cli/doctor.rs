//! `dunlin doctor`: what is well on this machine and what is not; and how fast the way to
//! another node is.
//!
//! Not here: the checks (`doctor`), the measuring (`speed`), and how both look (`render`).

use std::time::Duration;

use crate::api::client::Client;
use crate::api::model::{CheckState, DoctorView, SpeedAsk, SpeedView};
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
    let view = match local::answering(&folder).await {
        Ok(Answering::Node(client)) => {
            let client = client.waiting(LOOKING);
            match client.get("/v1/doctor").await {
                Ok(view) => view,
                Err(error) => doctor::examine_without_state(&folder, &error.to_string()),
            }
        }
        Ok(Answering::Stored(offline)) => match offline.facts(&folder) {
            Ok(facts) => doctor::examine(&facts),
            Err(error) => doctor::examine_without_state(&folder, &error.to_string()),
        },
        Err(error) => doctor::examine_without_state(&folder, &error.to_string()),
    };
    screen.result(&view, render::doctor::page)?;
    verdict(&view)
}

/// Warnings are no failure.
fn verdict(view: &DoctorView) -> Result<(), CommandError> {
    let failed = |check: &&crate::api::model::CheckView| check.state == CheckState::Failed;
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
        count => Err(CommandError::failed(format!(
            "{count} of {} checks failed ({}): each says what to do",
            view.checks.len(),
            failed.join(", ")
        ))),
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
