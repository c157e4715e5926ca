//! One stream of bytes over several connections, for links that one cannot fill: what a
//! connection has under way is bounded by the windows of the kernels at its ends, and on
//! a long link that is little.
//!
//! The bytes are cut into stripes, each with a [`Head`] that says which one it is, in both
//! directions. A stripe goes over whichever connection has given all that it had to the
//! kernel; the other end gives the stripes out in their order, and reads ahead what is early,
//! up to [`AHEAD`]. See `docs/decisions/0024-one-stream-over-several-connections.md`.
//!
//! Not here: which connections are those of a stream (`gathering`), and what a connection
//! holds (`part`).

mod gathering;
mod part;

use std::collections::BTreeMap;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures::{AsyncRead, AsyncWrite};

use super::direct::Io;
pub(super) use gathering::{Gathering, Hello};
use part::{Coming, Head, Part};

/// Connections of one stream.
pub(super) const MAX_CONNECTIONS: u8 = 8;

/// What a stream is to be able to have under way: 1 Gbit/s, in bytes a second.
const LINK: f64 = 125_000_000.0;

/// What one connection is counted on to have under way, in bytes. Kernels let a socket grow
/// to 4 MiB unless told otherwise (`net.ipv4.tcp_wmem`), of which bookkeeping takes its
/// part: 2.9 MB were seen. Somewhat more connections than that asks for fill a link sooner,
/// as each begins with the same few packets; many more fill its queue until it overflows.
const WINDOW: f64 = 1_600_000.0;

/// Bytes of a stripe with its head, at most: four records of TLS.
const STRIPE: usize = 64 * 1024;

/// The same of the first ones: little is under way on each connection then, and the other
/// end waits for the whole stripe before it turns to the next.
const FIRST_STRIPE: usize = 8 * 1024;

/// Stripes that are as short: half of what a link of [`LINK`] and 100 ms has under way.
const FIRST_STRIPES: u64 = 768;

/// Bytes that are read before their turn; what is beyond that waits in the kernel. More than
/// a link of [`LINK`] and 100 ms has under way.
const AHEAD: usize = 16 << 20;

/// How many connections fill a link with this round trip.
pub fn connections_for(round_trip: Duration) -> u8 {
    let needed = (round_trip.as_secs_f64() * LINK / WINDOW).ceil();
    // A cast of a float cannot overflow: it saturates.
    (needed as u8).clamp(1, MAX_CONNECTIONS)
}

/// The stream that these connections make: one is a stream by itself.
///
/// # Panics
/// Without a connection.
pub(super) fn joined(mut parts: Vec<Box<dyn Io>>) -> Box<dyn Io> {
    match (parts.len(), parts.pop()) {
        (1, Some(part)) => part,
        (_, last) => {
            let parts: Vec<Part> = parts.into_iter().chain(last).map(Part::new).collect();
            assert!(!parts.is_empty(), "a stream has a connection");
            Box::new(Striped::new(parts))
        }
    }
}

/// What is found where all connections are read ahead, the most telling last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Ahead {
    /// Nothing more comes.
    Over,
    /// What comes is early, and too much for more of it is here.
    Early,
    /// Something may come.
    Waiting,
    /// The stripe that is read comes next.
    Known,
}

/// The connections of one stream.
struct Striped {
    parts: Vec<Part>,
    /// The stripe that is read.
    reading: u64,
    /// Stripes after it that are all here.
    early: BTreeMap<u64, Coming>,
    /// Bytes that were read ahead and not given out.
    ahead: usize,
    /// Buffers for more of them.
    spare: Vec<Vec<u8>>,
    /// Why nothing more comes on one of the connections.
    failed: Option<io::Error>,
    /// The stripe that is written next, and the connection that had the one before.
    writing: u64,
    wrote_to: usize,
}

impl Striped {
    fn new(parts: Vec<Part>) -> Self {
        let wrote_to = parts.len() - 1;
        Self {
            parts,
            reading: 0,
            early: BTreeMap::new(),
            ahead: 0,
            spare: vec![],
            failed: None,
            writing: 0,
            wrote_to,
        }
    }

    /// Gives out what was read ahead of the stripe that is read.
    fn take_early(&mut self, buf: &mut [u8]) -> Option<usize> {
        let next = self.reading;
        let mut parts = self.parts.iter_mut();
        let coming = match self.early.get_mut(&next) {
            Some(coming) => coming,
            None => parts.find_map(|part| part.coming.as_mut().filter(|c| c.stripe == next))?,
        };
        let early = &coming.early[coming.taken..coming.read];
        if early.is_empty() {
            return None;
        }
        let taken = buf.len().min(early.len());
        buf[..taken].copy_from_slice(&early[..taken]);
        coming.taken += taken;
        self.ahead -= taken;
        if coming.left == 0 && coming.taken == coming.read {
            let done = self.early.remove(&next);
            self.go_on(done);
        }
        Some(taken)
    }

    /// Reads of the stripe that is read where it comes; none where that is not known.
    fn poll_coming(
        &mut self,
        cx: &mut Context<'_>,
        buf: &mut [u8],
    ) -> Option<Poll<io::Result<usize>>> {
        let next = self.reading;
        let mut parts = self.parts.iter_mut();
        let is_it = |part: &&mut Part| part.coming.as_ref().is_some_and(|c| c.stripe == next);
        let part = parts.find(is_it)?;
        let coming = part.coming.as_mut()?;
        let most = buf.len().min(coming.left);
        let read = match Pin::new(&mut part.io).poll_read(cx, &mut buf[..most]) {
            Poll::Ready(Ok(0)) => Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into())),
            read => read,
        };
        if let Poll::Ready(Ok(read)) = &read {
            coming.left -= read;
            if coming.left == 0 {
                let done = part.coming.take();
                self.go_on(done);
            }
        }
        Some(read)
    }

    /// All of a stripe was given out.
    fn go_on(&mut self, done: Option<Coming>) {
        let early = done.map(|done| done.early);
        // Most are read in their turn, without a buffer.
        self.spare
            .extend(early.filter(|early| early.capacity() > 0));
        self.reading += 1;
    }

    /// Reads what comes on the connections, but for the stripe that is read. The windows of
    /// the kernels grow only where what is there is taken, and close where it is not.
    fn read_ahead(&mut self, cx: &mut Context<'_>) -> Ahead {
        let mut found = Ahead::Over;
        for at in 0..self.parts.len() {
            found = found.max(match self.read_part_ahead(at, cx) {
                Ok(found) => found,
                Err(error) => {
                    self.parts[at].is_over = true;
                    self.failed = Some(error);
                    Ahead::Over
                }
            });
        }
        found
    }

    fn read_part_ahead(&mut self, at: usize, cx: &mut Context<'_>) -> io::Result<Ahead> {
        let part = &mut self.parts[at];
        loop {
            if part.poll_head(cx, self.reading)?.is_pending() {
                return Ok(Ahead::Waiting);
            }
            let Some(coming) = &mut part.coming else {
                return Ok(Ahead::Over);
            };
            if coming.stripe == self.reading {
                return Ok(Ahead::Known);
            }
            if self.ahead + coming.left > AHEAD {
                return Ok(Ahead::Early);
            }
            if coming.early.is_empty() {
                coming.early = self.spare.pop().unwrap_or_default();
                coming.early.resize(coming.left, 0);
            }
            let room = &mut coming.early[coming.read..];
            let read = Pin::new(&mut part.io).poll_read(cx, room);
            match read? {
                Poll::Pending => return Ok(Ahead::Waiting),
                Poll::Ready(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Poll::Ready(read) => {
                    coming.left -= read;
                    coming.read += read;
                    self.ahead += read;
                }
            }
            if coming.left == 0
                && let Some(whole) = part.coming.take()
                && self.early.insert(whole.stripe, whole).is_some()
            {
                return Err(io::ErrorKind::InvalidData.into());
            }
        }
    }

    /// Gives what is held to the kernel; a connection that holds nothing more, if there is
    /// one, beginning behind the one that had the last stripe.
    fn poll_free(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let (count, mut free) = (self.parts.len(), None);
        for step in 1..=count {
            let at = (self.wrote_to + step) % count;
            if self.parts[at].poll_give(cx)?.is_ready() {
                free.get_or_insert(at);
            }
        }
        free.map_or(Poll::Pending, |free| Poll::Ready(Ok(free)))
    }

    fn poll_all(
        &mut self,
        cx: &mut Context<'_>,
        poll: impl Fn(&mut Part, &mut Context<'_>) -> Poll<io::Result<()>>,
    ) -> Poll<io::Result<()>> {
        let mut are_done = true;
        for part in &mut self.parts {
            are_done &= poll(part, cx)?.is_ready();
        }
        match are_done {
            true => Poll::Ready(Ok(())),
            false => Poll::Pending,
        }
    }
}

impl AsyncRead for Striped {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        if buf.is_empty() {
            return Poll::Ready(Ok(0));
        }
        loop {
            if let Some(taken) = this.take_early(buf) {
                return Poll::Ready(Ok(taken));
            }
            match this.poll_coming(cx, buf) {
                Some(Poll::Pending) => {
                    // Whether another connection failed is asked once it is its turn.
                    this.read_ahead(cx);
                    return Poll::Pending;
                }
                Some(read) => return read,
                None => {}
            }
            let found = this.read_ahead(cx);
            if found == Ahead::Known || this.early.contains_key(&this.reading) {
                continue;
            }
            if let Some(error) = this.failed.take() {
                return Poll::Ready(Err(error));
            }
            return match found {
                Ahead::Known | Ahead::Waiting => Poll::Pending,
                Ahead::Over if this.early.is_empty() => Poll::Ready(Ok(0)),
                // What has come is behind a stripe that never comes.
                Ahead::Early | Ahead::Over => Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into())),
            };
        }
    }
}

impl AsyncWrite for Striped {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        if buf.is_empty() {
            return Poll::Ready(Ok(0));
        }
        let free = ready!(this.poll_free(cx))?;
        let most = match this.writing < FIRST_STRIPES {
            true => FIRST_STRIPE,
            false => STRIPE,
        };
        let written = buf.len().min(most - Head::LEN);
        let part = &mut this.parts[free];
        part.hold(this.writing, &buf[..written]);
        this.writing += 1;
        this.wrote_to = free;
        // Whether all of it goes at once is looked at when the next one is written.
        let _ = part.poll_give(cx)?;
        Poll::Ready(Ok(written))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_all(cx, Part::poll_give)
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_all(cx, |part, cx| {
            ready!(part.poll_give(cx))?;
            Pin::new(&mut part.io).poll_close(cx)
        })
    }
}

#[cfg(test)]
mod tests;
