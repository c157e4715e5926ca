//! Scenarios as TOML files: strictly read, and written so that they read back the
//! same.
//!
//! Everything in a file is checked against the limits here, so that a world never
//! meets a node that is not there or a time that never comes.

use super::{At, Loss, Migration, Scenario, Twice, Wish};
use crate::context::Seen;
use crate::faults::Fault;
use keys::statement::{MAX_AUTONOMY_SECS, MAX_LEASE_SECS, MIN_LEASE_SECS};
use std::fmt;
use std::path::Path;

/// Most nodes of a world.
pub const MAX_NODES: usize = 32;
/// Fewest: one who decides, one who sends and one who receives.
pub const MIN_NODES: usize = 3;
/// Latest time of anything, an hour: a world is run to its end.
const MAX_MILLIS: u64 = 3_600_000;
/// How far a wall clock may be off.
pub const MAX_SKEW_SECS: i64 = 86_400;
/// Longest volume: its blocks are looked at again and again.
const MAX_VOLUME_BYTES: u64 = 64 << 20;
/// What a disk's length is a multiple of.
const SECTOR_BYTES: u64 = 512;
/// When nodes are invited where a file does not say.
const INVITED_AT_MILLIS: u64 = 100;
/// Most of anything in a list.
const MAX_LISTED: usize = 1_000;

/// Why a file is no scenario.
#[derive(Debug)]
pub enum Error {
    /// It cannot be read.
    Io(std::io::Error),
    /// It is no TOML, or has keys that are unknown or missing; says where.
    Syntax(String),
    /// What it says cannot be; says what and what could.
    Limits(String),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io(error) => write!(f, "cannot be read: {error}"),
            Self::Syntax(why) => write!(f, "is no scenario: {why}"),
            Self::Limits(why) => write!(f, "cannot happen: {why}"),
        }
    }
}

impl Scenario {
    /// Reads a file.
    pub fn read(path: &Path) -> Result<Self, Error> {
        let text = std::fs::read_to_string(path).map_err(Error::Io)?;
        Self::parse(&text)
    }

    /// Reads the text of a file.
    pub fn parse(text: &str) -> Result<Self, Error> {
        let parsed = toml::from_str::<Self>(text);
        let mut scenario =
            parsed.map_err(|error| Error::Syntax(error.to_string().trim_end().to_owned()))?;
        scenario.fill_in();
        scenario.check().map_err(Error::Limits)?;
        scenario.name_all();
        Ok(scenario)
    }

    /// As the text of a file.
    pub fn text(&self) -> String {
        toml::to_string(self).expect("numbers, words and lists of tables can be written")
    }

    /// What a file may leave out: everybody is invited early, and every clock is right.
    fn fill_in(&mut self) {
        let nodes = self.nodes.min(MAX_NODES);
        if self.invited_at_millis.is_empty() {
            self.invited_at_millis = vec![INVITED_AT_MILLIS; nodes];
        }
        if self.clock_secs.is_empty() {
            self.clock_secs = vec![0; nodes];
        }
    }

    fn check(&self) -> Result<(), String> {
        let nodes = self.nodes;
        within("nodes", nodes as u64, MIN_NODES as u64, MAX_NODES as u64)?;
        for (key, count) in [
            ("invited_at_millis", self.invited_at_millis.len()),
            ("clock_secs", self.clock_secs.len()),
        ] {
            if count != nodes {
                return Err(format!(
                    "{key} has {count} entries; give one for each of the {nodes} nodes"
                ));
            }
        }
        for secs in &self.clock_secs {
            skewed("clock_secs", *secs)?;
        }
        let most = MAX_SKEW_SECS.unsigned_abs();
        within("boot_clock_secs", self.boot_clock_secs, 0, most)?;
        within("seed", self.seed, 0, i64::MAX as u64)?;
        within("heal_at_millis", self.heal_at_millis, 1, MAX_MILLIS)?;
        within(
            "quiet_at_millis",
            self.quiet_at_millis,
            0,
            self.heal_at_millis,
        )?;
        for (name, rate) in self.chance.clone().each() {
            within(&format!("chance.{name}"), *rate, 0, 1000)?;
        }
        let counts = Seen::default().table();
        for name in &self.reaches {
            if !counts.iter().any(|(count, _)| count == name) {
                let why = "nothing is counted under that name; `run` prints what is";
                return Err(format!("reaches {name:?}: {why}"));
            }
        }
        for invited in &self.invited_at_millis {
            within("invited_at_millis", *invited, 0, self.heal_at_millis)?;
        }
        within("lost_millis", self.lost_millis, 1, MAX_MILLIS)?;
        if let Some(second) = self.second_operator {
            within("second_operator", second as u64, 1, nodes as u64 - 1)?;
        }
        if let Some(Loss::Replicator { at_millis, .. } | Loss::Operator { at_millis, .. }) =
            self.loss
        {
            within("loss.at_millis", at_millis, 0, MAX_MILLIS)?;
        }
        if let Some(Loss::Operator {
            recovered_by,
            thief_after_millis,
            ..
        }) = self.loss
        {
            self.check_heir(recovered_by)?;
            let after = thief_after_millis.unwrap_or(1);
            within("loss.thief_after_millis", after, 1, MAX_MILLIS)?;
            if thief_after_millis.is_some() && recovered_by.is_none() {
                return Err("a thief speaks for an operator that nobody took back: say who recovers with recovered_by".into());
            }
        }
        if let Some(
            Loss::Replicator { away_millis, .. } | Loss::ReplicatorProving { away_millis },
        ) = self.loss
        {
            let away = away_millis.unwrap_or(1);
            within("loss.away_millis", away, 1, MAX_MILLIS)?;
        }
        if let Some(twice) = self.twice {
            self.check_twice(twice)?;
        }
        if self.migrations.is_empty() || self.migrations.len() > nodes {
            return Err("give at least one [[migration]], and no more than nodes".into());
        }
        for (at, migration) in self.migrations.iter().enumerate() {
            let place = |why| format!("migration {}: {why}", at + 1);
            self.check_migration(migration).map_err(place)?;
        }
        within("faults", self.faults.len() as u64, 0, MAX_LISTED as u64)?;
        for (at, fault) in self.faults.iter().enumerate() {
            let place = |why| format!("fault {}: {why}", at + 1);
            self.check_fault(fault).map_err(place)?;
        }
        Ok(())
    }

    /// Somebody takes the place of a lost operator.
    fn check_heir(&self, recovered_by: Option<usize>) -> Result<(), String> {
        let Some(heir) = recovered_by else {
            let why = "the operator is lost and nobody takes its place: name a second_operator, or who recovers";
            return self.second_operator.map(drop).ok_or(why.to_owned());
        };
        within("recovered_by", heir as u64, 1, self.nodes as u64 - 1)?;
        let works = |migration: &Migration| {
            let ends = [migration.agent, migration.provisioner];
            ends.contains(&heir) || migration.replicators.contains(&heir)
        };
        let is_taken = self.migrations.iter().any(works) || self.second_operator == Some(heir);
        match is_taken {
            true => Err(format!(
                "node {heir} is not invited, as it recovers the mesh, and has other work to do"
            )),
            false => Ok(()),
        }
    }

    /// Nobody else has to take the place of a node whose folder runs twice.
    fn check_twice(&self, twice: Twice) -> Result<(), String> {
        let Twice {
            node,
            copied_at_millis,
            at_millis,
        } = twice;
        within("twice.node", node as u64, 1, self.nodes as u64 - 1)?;
        within("twice.copied_at_millis", copied_at_millis, 0, at_millis)?;
        within("twice.at_millis", at_millis, 0, MAX_MILLIS)?;
        match self.role_of(node) {
            "operator" | "provisioner" => Err(format!(
                "node {node} is needed to the end, and stopped once its folder runs twice"
            )),
            _ => Ok(()),
        }
    }

    fn check_migration(&self, migration: &Migration) -> Result<(), String> {
        let last = self.nodes as u64 - 1;
        within("agent", migration.agent as u64, 1, last)?;
        within("provisioner", migration.provisioner as u64, 0, last)?;
        if migration.replicators.is_empty() {
            return Err("give at least one of replicators".into());
        }
        for (at, replicator) in migration.replicators.iter().enumerate() {
            within("replicators", *replicator as u64, 1, last)?;
            if *replicator == migration.agent || migration.replicators[..at].contains(replicator) {
                return Err(format!(
                    "node {replicator} is named twice among agent and replicators"
                ));
            }
        }
        within("volumes", migration.volume_bytes.len() as u64, 1, 8)?;
        for bytes in &migration.volume_bytes {
            within("volume_bytes", *bytes, SECTOR_BYTES, MAX_VOLUME_BYTES)?;
            if bytes % SECTOR_BYTES != 0 {
                return Err(format!("volume_bytes {bytes} is no multiple of 512"));
            }
        }
        within(
            "wishes",
            migration.wishes.len() as u64,
            0,
            MAX_LISTED as u64,
        )?;
        let seconds = migration.second_wishes.len() as u64;
        within("second_wishes", seconds, 0, MAX_LISTED as u64)?;
        if self.second_operator.is_none() && seconds > 0 {
            return Err("there are second_wishes: name a second_operator".into());
        }
        for wish in migration.wishes.iter().chain(&migration.second_wishes) {
            within("at_millis", wish.at_millis, 0, MAX_MILLIS)?;
            if let Wish::NameReplicator { place, .. } = wish.what {
                within(
                    "place",
                    place as u64,
                    0,
                    migration.replicators.len() as u64 - 1,
                )?;
            }
        }
        within("grant_secs", migration.grant_secs, 1, 366 * 86_400)?;
        let lease = [MIN_LEASE_SECS, MAX_LEASE_SECS];
        within("lease_secs", migration.lease_secs, lease[0], lease[1])?;
        let autonomy = migration.autonomy_secs;
        within("autonomy_secs", autonomy, 0, MAX_AUTONOMY_SECS)
    }

    fn check_fault(&self, fault: &At<Fault>) -> Result<(), String> {
        within("at_millis", fault.at_millis, 0, self.heal_at_millis)?;
        for node in fault.what.nodes() {
            within("node", node as u64, 0, self.nodes as u64 - 1)?;
        }
        for (key, millis) in fault.what.durations() {
            within(key, millis, 1, MAX_MILLIS)?;
        }
        match fault.what {
            Fault::ClockJumps { to_secs, .. } => skewed("to_secs", to_secs),
            _ => Ok(()),
        }
    }
}

fn within(key: &str, value: u64, low: u64, high: u64) -> Result<(), String> {
    if (low..=high).contains(&value) {
        return Ok(());
    }
    Err(format!("{key} is {value}; it may be {low} to {high}"))
}

fn skewed(key: &str, secs: i64) -> Result<(), String> {
    if (-MAX_SKEW_SECS..=MAX_SKEW_SECS).contains(&secs) {
        return Ok(());
    }
    let most = MAX_SKEW_SECS;
    Err(format!(
        "{key} is {secs}; it may be -{most} to {most}, a day"
    ))
}
