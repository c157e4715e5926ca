//! Reading stored state while the node is stopped: the same views, with nothing
//! connected and nothing in motion.

use super::restore;
use crate::api::model::{
    EventQuery, EventView, InviteView, LimitView, MigrationView, NodeView, PlanView, ServerView,
    StatusView, VerifyView, VolumeView,
};
use crate::cli::outcome::CommandError;
use crate::cli::reader::Reader;
use crate::datadir::DataDir;
use crate::doctor::Facts;
use crate::engine::{self, CallError, wall_clock};
use crate::machine;
use crate::store;
use crate::views::{LookupError, State};
use crdt::Event;
use mesh::Replica;
use std::collections::BTreeMap;
use std::path::Path;

/// Events read for a look.
const EVENTS: usize = 20_000;

/// A node's stored state.
pub struct Offline {
    replica: Replica,
    events: Vec<Event>,
    copies: Vec<roles::replicator::Record>,
    binding: Option<machine::Binding>,
}

impl Offline {
    /// Reads the state of `folder`, in which nothing is made; fails while a node runs there.
    pub fn open(folder: &Path) -> anyhow::Result<Self> {
        let dir = DataDir::look(folder)?;
        let (store, header) = store::Reader::open_read_only(&dir.store())?;
        let (_, replica) = restore(&dir, &store, &header)?;
        let events = store.newest_events(EVENTS, None)?;
        let copies = store.copies()?;
        let binding = machine::bound(dir.path());
        Ok(Self {
            replica,
            events,
            copies,
            binding,
        })
    }

    /// What is known for `dunlin doctor`.
    pub fn facts(&self, folder: &Path) -> Result<Facts, CommandError> {
        let mut facts = self.view(|state| engine::facts(state, folder.to_owned()))?;
        facts.copies = self.copies.iter().map(engine::copy).collect();
        Ok(facts)
    }

    fn view<T, E: Into<CallError>>(
        &self,
        make: impl FnOnce(&State<'_>) -> Result<T, E>,
    ) -> Result<T, CommandError> {
        let state = State {
            replica: &self.replica,
            connected: None,
            live: &BTreeMap::new(),
            listening: &[],
            events: &self.events,
            binding: self.binding.as_ref(),
            said_revoked: None,
            now: wall_clock(),
        };
        make(&state).map_err(|error| {
            let error: CallError = error.into();
            CommandError::new(error.kind(), error.to_string())
        })
    }
}

impl Reader for Offline {
    async fn status(&self) -> Result<StatusView, CommandError> {
        self.view(|state| state.status())
    }

    async fn invites(&self) -> Result<Vec<InviteView>, CommandError> {
        self.view(|state| Ok::<_, LookupError>(state.invites()))
    }

    async fn nodes(&self) -> Result<Vec<NodeView>, CommandError> {
        self.view(|state| Ok::<_, LookupError>(state.nodes()))
    }

    async fn node(&self, which: &str) -> Result<NodeView, CommandError> {
        self.view(|state| state.node_by(which))
    }

    async fn servers(&self) -> Result<Vec<ServerView>, CommandError> {
        self.view(|state| Ok::<_, LookupError>(state.servers()))
    }

    async fn server(&self, which: &str) -> Result<ServerView, CommandError> {
        self.view(|state| state.server_by(which))
    }

    async fn volumes(&self) -> Result<Vec<VolumeView>, CommandError> {
        self.view(|state| Ok::<_, LookupError>(state.volumes()))
    }

    async fn migrations(&self) -> Result<Vec<MigrationView>, CommandError> {
        self.view(|state| Ok::<_, LookupError>(state.migrations()))
    }

    async fn migration(&self, which: &str) -> Result<MigrationView, CommandError> {
        self.view(|state| state.migration_by(which))
    }

    async fn verify(&self, which: &str) -> Result<VerifyView, CommandError> {
        self.view(|state| state.verify(which))
    }

    async fn limits(&self) -> Result<Vec<LimitView>, CommandError> {
        self.view(|state| Ok::<_, LookupError>(state.limits()))
    }

    async fn plan(&self) -> Result<PlanView, CommandError> {
        self.view(|state| Ok::<_, LookupError>(state.plan_view()))
    }

    async fn events(&self, query: &EventQuery) -> Result<Vec<EventView>, CommandError> {
        self.view(|state| state.events(query))
    }
}
