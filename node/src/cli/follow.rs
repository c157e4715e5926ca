//! `events --follow`: prints what happened and goes on printing what happens.
//!
//! Not here: how an event looks (`render::events`).

use std::collections::BTreeSet;
use std::time::Duration;

use tokio::time::{Instant, MissedTickBehavior, interval};

use crate::api::model::{ErrorKind, EventQuery, EventView};

use super::figures::parse_rfc3339;
use super::outcome::CommandError;
use super::read::query;
use super::reader::Reader;
use super::render;
use super::screen::{Screen, now_secs};
use super::task::Events;

const LOOK_EVERY: Duration = Duration::from_millis(500);

/// A node may be away so long, as it is while it restarts.
const AWAY_FOR: Duration = Duration::from_secs(60);

/// Most looks ask for what is not older than the newest event by more than this.
const RECENT_SECS: u64 = 900;

/// Every so many looks ask for everything: an event of a node that was away, or whose
/// clock is slow, comes late with an old time.
const LOOKS_PER_WHOLE: u32 = 60;

/// Which events were printed, and what to ask for next.
#[derive(Debug)]
pub struct Seen {
    whole: EventQuery,
    keys: BTreeSet<(String, u64)>,
    newest_secs: u64,
    looks: u32,
}

impl Seen {
    /// Nothing was printed yet.
    pub fn new(whole: EventQuery) -> Self {
        Self {
            whole,
            keys: BTreeSet::new(),
            newest_secs: 0,
            looks: 0,
        }
    }

    fn is_whole(&self) -> bool {
        self.looks.is_multiple_of(LOOKS_PER_WHOLE)
    }

    /// What to ask for now. A node whose clock is ahead does not hide others' events.
    pub fn query(&self, now_secs: u64) -> EventQuery {
        let mut query = self.whole.clone();
        if !self.is_whole() {
            let recent = self.newest_secs.min(now_secs).saturating_sub(RECENT_SECS);
            query.since = Some(query.since.unwrap_or(0).max(recent));
        }
        query
    }

    /// Those of the answer that were not printed yet, in the answer's order.
    pub fn fresh(&mut self, answer: Vec<EventView>) -> Vec<EventView> {
        let keys: BTreeSet<_> = answer.iter().map(key).collect();
        let times = answer.iter().filter_map(|event| parse_rfc3339(&event.at));
        self.newest_secs = times.fold(self.newest_secs, u64::max);
        let mut fresh = answer;
        fresh.retain(|event| !self.keys.contains(&key(event)));
        if self.is_whole() {
            // What the node no longer has cannot come again; so this stays bounded.
            self.keys = keys;
        } else {
            self.keys.extend(keys);
        }
        self.looks = self.looks.wrapping_add(1);
        fresh
    }
}

fn key(event: &EventView) -> (String, u64) {
    (event.node.clone(), event.seq)
}

/// Prints events until the process is stopped.
pub async fn follow(
    events: &Events,
    reader: &impl Reader,
    screen: &mut Screen,
) -> Result<(), CommandError> {
    let mut seen = Seen::new(query(events, screen.now_secs()));
    let mut ticks = interval(LOOK_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut away_since: Option<Instant> = None;
    loop {
        ticks.tick().await;
        let error = match reader.events(&seen.query(now_secs())).await {
            Ok(answer) => {
                away_since = None;
                for event in seen.fresh(answer) {
                    screen.result(&event, render::events::one)?;
                }
                continue;
            }
            Err(error) => error,
        };
        if error.kind() != Some(ErrorKind::NotRunning) {
            return Err(error);
        }
        if away_since.is_none() {
            screen.note("the node does not answer; still trying");
        }
        if away_since.get_or_insert_with(Instant::now).elapsed() >= AWAY_FOR {
            return Err(error);
        }
    }
}
