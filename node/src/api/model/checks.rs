//! The shapes of `dunlin doctor`: what was looked at, and what was measured.

use serde::{Deserialize, Serialize};

/// How something that was looked at is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CheckState {
    /// As it should be.
    Ok,
    /// It works, and could be better, or will not work for long.
    Warning,
    /// It does not work.
    Failed,
}

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckView {
    /// Stable word for scripts.
    pub check: String,
    /// Which of several: a node, a disk, a copy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on: Option<String>,
    /// How it is.
    pub state: CheckState,
    /// One sentence.
    pub text: String,
    /// What to do, unless it is as it should be.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub todo: Option<String>,
}

/// Checks of a machine, its node and its connections.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DoctorView {
    /// The data folder.
    pub folder: String,
    /// Name of the node; none where its state cannot be read.
    pub node: Option<String>,
    /// Whether it runs.
    pub running: bool,
    /// The worst of the checks.
    pub state: CheckState,
    /// All of them.
    pub checks: Vec<CheckView>,
}

/// Asks for a speed check.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct SpeedAsk {
    /// How long data flows, half of it each way: 1 to 60.
    pub seconds: u32,
}

/// What a speed check measured.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SpeedView {
    /// Id of the node at the other end.
    pub id: String,
    /// Its name.
    pub node: String,
    /// The way there.
    pub path: PathView,
    /// Round trips of a small frame.
    pub round_trip: RoundTripView,
    /// What went to that node, measured there.
    pub sent: FlowView,
    /// What came from it.
    pub received: FlowView,
    /// How far its wall clock is ahead of this machine's, in milliseconds; as exact as half
    /// a round trip.
    pub clock_ahead_millis: i64,
}

/// The way that the stream of a speed check took, as one of blocks does.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PathView {
    /// How many TCP connections of its own it had: the longer the way, the more; none where
    /// it shared the one that carries everything else.
    pub own_connections: usize,
    /// `tcp`, `quic`, or `other`; none where there are several connections, and it is not
    /// known which it was.
    pub transport: Option<String>,
    /// Whether it went through another node; none where that is not known.
    pub relayed: Option<bool>,
    /// The other end; none where it is not known which of several.
    pub address: Option<String>,
}

/// Round trips.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RoundTripView {
    /// How many were measured.
    pub count: usize,
    /// The middle one, in microseconds.
    pub median_micros: u64,
    /// The longest.
    pub worst_micros: u64,
}

/// What flowed one way.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FlowView {
    /// Bytes a second, of the time that counts: that in which the connection finds its speed
    /// does not.
    pub bytes_per_sec: u64,
    /// Bytes that came in that time.
    pub bytes: u64,
    /// That time, in seconds.
    pub seconds: f64,
    /// Bytes that came in all.
    pub bytes_in_all: u64,
}
