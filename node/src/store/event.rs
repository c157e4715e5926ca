//! This node's own event log: numbered from 1, never renumbered, the newest kept.
//!
//! The newest few also go into the node's report; the rest is asked for here.

use super::Engine;
use super::error::StoreError;
use super::table::{self, Table};
use super::{Store, Stored};
use codec::Wire;
use crdt::report::{Event, Level, MAX_FIELD};
use keys::{MigrationId, UnixSecs};
use serde::{Deserialize, Serialize};

pub(super) const EVENTS: Table = Table::new("events");

/// Events that are kept: some weeks of a busy node, a few megabytes.
pub const EVENTS_KEPT: u64 = 20_000;

/// Longest text of an event in this log, in bytes: what a hook printed is longer than what
/// a report has room for.
pub const MAX_EVENT_TEXT: usize = 20 * 1024;

/// An event that has no number yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewEvent {
    /// When, by this node's wall clock.
    pub at: UnixSecs,
    /// How much it matters.
    pub level: Level,
    /// The migration it belongs to, if any.
    pub migration: Option<MigrationId>,
    /// A stable word in kebab case.
    pub kind: String,
    /// For people; cut to [`MAX_EVENT_TEXT`].
    pub text: String,
}

#[derive(Serialize, Deserialize)]
struct StoredEvent(Event);

impl Wire for StoredEvent {
    const NAME: &'static str = "event";
    const VERSION: u8 = 1;
    const LIMIT: usize = MAX_EVENT_TEXT + MAX_FIELD + 128;
}

impl Store {
    /// Adds an event to the log and returns its number. The oldest goes once there
    /// are [`EVENTS_KEPT`].
    pub fn append_event(&self, event: &NewEvent) -> Result<u64, StoreError> {
        let last = self.append_events(std::slice::from_ref(event))?;
        Ok(last.expect("one event was given"))
    }

    /// Adds events in one go and returns the number of the last.
    pub fn append_events(&self, events: &[NewEvent]) -> Result<Option<u64>, StoreError> {
        if events.is_empty() {
            return Ok(None);
        }
        self.write(|txn| {
            let mut last = None;
            for event in events {
                last = Some(table::append(txn, EVENTS, |seq| {
                    StoredEvent(event.numbered(seq))
                })?);
            }
            table::keep_last(txn, EVENTS, EVENTS_KEPT)?;
            Ok(last)
        })
    }
}

impl<D: Engine> Stored<D> {
    /// Events after number `after_seq`, oldest first, up to `limit`; those of one
    /// migration if it is given.
    pub fn events(
        &self,
        after_seq: u64,
        limit: usize,
        migration: Option<MigrationId>,
    ) -> Result<Vec<Event>, StoreError> {
        self.read(|txn| {
            let found = table::walk(txn, EVENTS, after_seq, false, limit, of(migration))?;
            Ok(found.into_iter().map(|StoredEvent(event)| event).collect())
        })
    }

    /// The newest events, oldest first, up to `limit`; those of one migration if it
    /// is given.
    pub fn newest_events(
        &self,
        limit: usize,
        migration: Option<MigrationId>,
    ) -> Result<Vec<Event>, StoreError> {
        self.read(|txn| {
            let found = table::walk(txn, EVENTS, 0, true, limit, of(migration))?;
            let found = found.into_iter().rev();
            Ok(found.map(|StoredEvent(event)| event).collect())
        })
    }
}

impl NewEvent {
    /// The event under its number, its texts cut to what the log may hold.
    pub fn numbered(&self, seq: u64) -> Event {
        Event {
            seq,
            at: self.at,
            level: self.level,
            migration: self.migration,
            kind: cut(&self.kind, MAX_FIELD),
            text: cut(&self.text, MAX_EVENT_TEXT),
        }
    }
}

fn of(migration: Option<MigrationId>) -> impl Fn(&StoredEvent) -> bool {
    move |StoredEvent(event)| migration.is_none() || event.migration == migration
}

fn cut(text: &str, max_bytes: usize) -> String {
    text[..text.floor_char_boundary(max_bytes)].to_owned()
}
