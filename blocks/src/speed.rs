//! What the two ends of a speed check say to each other, and how a flow is measured. The
//! check runs over a stream of the kind that carries blocks, and no disk is touched.
//!
//! ```text
//! asker                                   answerer
//! SPEED_HELLO, Open ─────────────────────▶
//!                  ◀───────────────────── Opened, or Refused here or later
//! Ping ──────────────────────────────────▶   one at a time, up to MAX_PINGS
//!                  ◀───────────────────── Pong
//! Data, Data, …, EndData ────────────────▶
//!                  ◀───────────────────── Received: what it measured
//! AskData ───────────────────────────────▶
//!                  ◀───────────────────── Data, Data, …, EndData
//! ```
//!
//! Frames lie on the wire as those of a session do, behind [`SPEED_HELLO`], which begins no
//! frame of a session: so the first bytes tell the two kinds of streams apart.
//!
//! Not here: the stream and the clock, and who may check when.

use codec::Wire;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::frame::{FrameError, FramePrefix, PREFIX_LEN, framed, no_payload};

/// The first bytes of a speed check. As the length of a session's first header they would
/// be far too many.
pub const SPEED_HELLO: [u8; PREFIX_LEN] = *b"dlnspeed";

/// The longest payload of one frame, in bytes: short enough that a slow link is not filled
/// for long after the time is over.
pub const MAX_SPEED_PAYLOAD: usize = 64 * 1024;

/// The longest that data may flow, both ways together, in milliseconds.
pub const MAX_SPEED_MILLIS: u32 = 60_000;

/// Bytes that may flow each way: some seconds of 10 Gbit/s.
pub const MAX_SPEED_BYTES: u64 = 4 << 30;

/// Round trips that may be asked for.
pub const MAX_PINGS: u32 = 64;

/// The longest header, in bytes; all of them are a few numbers.
const MAX_SPEED_HEADER: usize = 64;

/// What the asker says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum ToAnswerer {
    /// Asks for a check.
    Open {
        /// How long data is to flow, both ways together; 1 to [`MAX_SPEED_MILLIS`].
        millis: u32,
    },
    /// Asks for a [`ToAsker::Pong`] at once.
    Ping {
        /// Comes back.
        number: u32,
    },
    /// Bytes that mean nothing: the payload.
    Data,
    /// There is no more; asks what came.
    EndData,
    /// Asks for data.
    AskData,
}

/// What the answerer says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum ToAsker {
    /// It takes part.
    Opened {
        /// Its wall clock, in milliseconds since the Unix epoch.
        at_millis: u64,
    },
    /// It does not, or no more.
    Refused {
        /// Why.
        code: SpeedRefusal,
    },
    /// Answers a ping.
    Pong {
        /// The ping's.
        number: u32,
    },
    /// What came, as it was measured here.
    Received(Flow),
    /// Bytes that mean nothing: the payload.
    Data,
    /// There is no more.
    EndData,
}

/// Why a check is not answered. A peer gets a code, never our text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, Error)]
pub enum SpeedRefusal {
    /// As many checks run there as may.
    #[error("other speed checks are running there")]
    Busy,
    /// Blocks are moving there, and a check would take from them.
    #[error("blocks are moving there")]
    MovingBlocks,
    /// The asker is no member there.
    #[error("it does not know this node as a member")]
    NotMember,
    /// A frame was malformed, out of turn or beyond a limit.
    #[error("it could not make sense of what it was sent")]
    BadFrame,
}

impl Wire for ToAnswerer {
    const NAME: &'static str = "speed check frame to the answerer";
    const VERSION: u8 = 1;
    const LIMIT: usize = MAX_SPEED_HEADER;
}

impl Wire for ToAsker {
    const NAME: &'static str = "speed check frame to the asker";
    const VERSION: u8 = 1;
    const LIMIT: usize = MAX_SPEED_HEADER;
}

/// A frame of either direction.
pub trait SpeedFrame: Wire {
    /// What it is called in errors.
    fn name(&self) -> &'static str;

    /// Whether it has a payload.
    fn is_data(&self) -> bool;

    /// The prefix and the header, to be followed on the wire by `payload` bytes.
    ///
    /// # Errors
    /// When the payload is none that this frame may have.
    fn encode(&self, payload: usize) -> Result<Vec<u8>, FrameError> {
        self.check(payload)?;
        framed(codec::encode(self)?, payload)
    }

    /// Reads a header whose frame has `payload` bytes of payload.
    ///
    /// # Errors
    /// When it does not decode, or the payload is none that it may have.
    fn decode(header: &[u8], payload: usize) -> Result<Self, FrameError> {
        let frame: Self = codec::decode(header)?;
        frame.check(payload)?;
        Ok(frame)
    }

    /// Whether this frame may have so many bytes of payload.
    ///
    /// # Errors
    /// When not.
    fn check(&self, payload: usize) -> Result<(), FrameError> {
        let frame = self.name();
        match self.is_data() {
            false => no_payload(frame, payload),
            true if (1..=MAX_SPEED_PAYLOAD).contains(&payload) => Ok(()),
            true => Err(FrameError::Payload {
                frame,
                bytes: payload,
            }),
        }
    }
}

impl SpeedFrame for ToAnswerer {
    fn name(&self) -> &'static str {
        match self {
            Self::Open { .. } => "open-check",
            Self::Ping { .. } => "ping",
            Self::Data => "data",
            Self::EndData => "end-data",
            Self::AskData => "ask-data",
        }
    }

    fn is_data(&self) -> bool {
        *self == Self::Data
    }
}

impl SpeedFrame for ToAsker {
    fn name(&self) -> &'static str {
        match self {
            Self::Opened { .. } => "opened",
            Self::Refused { .. } => "refused",
            Self::Pong { .. } => "pong",
            Self::Received(_) => "received",
            Self::Data => "data",
            Self::EndData => "end-data",
        }
    }

    fn is_data(&self) -> bool {
        *self == Self::Data
    }
}

/// The lengths at the start of a frame of a speed check, before anything is allocated.
///
/// # Errors
/// When one is out of bounds.
pub fn speed_prefix(bytes: [u8; PREFIX_LEN]) -> Result<FramePrefix, FrameError> {
    let prefix = FramePrefix::decode(bytes)?;
    if prefix.header > MAX_SPEED_HEADER {
        let bytes = prefix.header as u64;
        return Err(FrameError::HeaderLength { bytes });
    }
    if prefix.payload > MAX_SPEED_PAYLOAD {
        let bytes = prefix.payload as u64;
        return Err(FrameError::PayloadLength { bytes });
    }
    Ok(prefix)
}

/// What flowed one way.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Flow {
    /// Bytes that came in the time that counts.
    pub bytes: u64,
    /// That time, in microseconds.
    pub micros: u64,
    /// Bytes that came in all.
    pub bytes_in_all: u64,
}

impl Flow {
    /// Bytes a second in the time that counts; 0 where nothing came.
    pub fn bytes_per_sec(&self) -> u64 {
        let per_sec = u128::from(self.bytes) * 1_000_000;
        let per_sec = per_sec.checked_div(u128::from(self.micros));
        u64::try_from(per_sec.unwrap_or(0)).unwrap_or(u64::MAX)
    }
}

/// Measures what comes. A connection takes a while to find its speed (at 100 ms a second
/// for 1 Gbit/s), so the first two fifths of the time do not count; what comes when the time is
/// over, out of buffers on the way, does not either.
#[derive(Debug, Clone)]
pub struct Meter {
    warm_micros: u64,
    end_micros: u64,
    first: Option<u64>,
    counts_from: Option<u64>,
    counts_to: u64,
    counted: u64,
    in_all: u64,
}

impl Meter {
    /// For a flow that lasts so long.
    pub fn new(millis: u32) -> Self {
        let end_micros = u64::from(millis) * 1000;
        Self {
            warm_micros: end_micros * 2 / 5,
            end_micros,
            first: None,
            counts_from: None,
            counts_to: 0,
            counted: 0,
            in_all: 0,
        }
    }

    /// So many bytes came at this moment, by any clock that does not go back.
    pub fn note(&mut self, now_micros: u64, bytes: u64) {
        self.in_all = self.in_all.saturating_add(bytes);
        let first = *self.first.get_or_insert(now_micros);
        let since = now_micros.saturating_sub(first);
        if since < self.warm_micros {
            return;
        }
        if self.counts_from.is_none() {
            // What came now was on its way before, and only starts the clock.
            self.counts_from = Some(now_micros);
            self.counts_to = now_micros;
        } else if since <= self.end_micros {
            self.counted = self.counted.saturating_add(bytes);
            self.counts_to = now_micros;
        }
    }

    /// Bytes that came so far.
    pub fn bytes_in_all(&self) -> u64 {
        self.in_all
    }

    /// What was measured. Where the flow ended before it could count, or came in one
    /// piece, all of it counts, over the time until `now_micros`.
    pub fn flow(&self, now_micros: u64) -> Flow {
        let bytes_in_all = self.in_all;
        match (self.counts_from, self.first) {
            (Some(from), _) if self.counts_to > from => Flow {
                bytes: self.counted,
                micros: self.counts_to - from,
                bytes_in_all,
            },
            (_, Some(first)) => Flow {
                bytes: bytes_in_all,
                micros: now_micros.saturating_sub(first).max(1),
                bytes_in_all,
            },
            (_, None) => Flow::default(),
        }
    }
}

#[cfg(test)]
mod tests;
