//! A node that answers from a script.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;

use super::*;
use crate::api::model::*;
use crate::cli::outcome::CommandError;
use crate::cli::reader::Reader;

/// Answers a look at a migration from a script, its last line for ever; everything
/// else from the views of the small mesh.
#[derive(Default)]
pub struct Scripted {
    pub empty: bool,
    pub verify: Option<VerifyView>,
    pub migrations: RefCell<VecDeque<Result<MigrationView, CommandError>>>,
    pub looks: Cell<usize>,
}

impl Scripted {
    pub fn of(script: impl IntoIterator<Item = Result<MigrationView, CommandError>>) -> Self {
        Self {
            migrations: RefCell::new(script.into_iter().collect()),
            ..Self::default()
        }
    }

    fn all<T>(&self, one: T) -> Vec<T> {
        if self.empty { Vec::new() } else { vec![one] }
    }
}

impl Reader for Scripted {
    async fn status(&self) -> Result<StatusView, CommandError> {
        Ok(super::status())
    }

    async fn invites(&self) -> Result<Vec<InviteView>, CommandError> {
        Ok(self.all(invite()))
    }

    async fn nodes(&self) -> Result<Vec<NodeView>, CommandError> {
        Ok(self.all(super::node()))
    }

    async fn node(&self, _: &str) -> Result<NodeView, CommandError> {
        Ok(super::node())
    }

    async fn servers(&self) -> Result<Vec<ServerView>, CommandError> {
        Ok(self.all(super::server()))
    }

    async fn server(&self, _: &str) -> Result<ServerView, CommandError> {
        Ok(super::server())
    }

    async fn volumes(&self) -> Result<Vec<VolumeView>, CommandError> {
        Ok(self.all(disk()))
    }

    async fn migrations(&self) -> Result<Vec<MigrationView>, CommandError> {
        Ok(self.all(super::migration("created", vec![])))
    }

    async fn migration(&self, which: &str) -> Result<MigrationView, CommandError> {
        self.looks.set(self.looks.get() + 1);
        let mut script = self.migrations.borrow_mut();
        let next = if script.len() > 1 {
            script.pop_front()
        } else {
            script.front().cloned()
        };
        next.unwrap_or_else(|| Err(not_found(which)))
    }

    async fn verify(&self, which: &str) -> Result<VerifyView, CommandError> {
        self.verify.clone().ok_or_else(|| not_found(which))
    }

    async fn limits(&self) -> Result<Vec<LimitView>, CommandError> {
        Ok(self.all(super::limit()))
    }

    async fn plan(&self) -> Result<PlanView, CommandError> {
        Ok(PlanView::default())
    }

    async fn events(&self, _: &EventQuery) -> Result<Vec<EventView>, CommandError> {
        Ok(self.all(event("web", 1, "2026-01-31T07:00:00Z")))
    }
}

pub fn not_found(which: &str) -> CommandError {
    CommandError::new(ErrorKind::NotFound, format!("no migration `{which}`"))
}

pub fn not_running() -> CommandError {
    CommandError::new(ErrorKind::NotRunning, "no node is running")
}
