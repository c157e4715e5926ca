//! One stream of bytes over several connections, for links that one cannot fill: what a
//! connection has under way is bounded by the windows of the kernels at its ends, and on
//! a long link that is little.
//!
//! The bytes lie in turn on each connection, [`STRIPE`] of them at a time, in both
//! directions; nothing is added to them. Every connection begins with a [`Hello`] that
//! says which stream it is of. See
//! `docs/decisions/0024-one-stream-over-several-connections.md`.

use std::collections::HashMap;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use futures::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::direct::Io;
use super::peer::PeerKey;

/// Bytes that lie on one connection before the next one's turn: large beside a packet
/// and a TLS record, small beside a window.
const STRIPE: usize = 128 * 1024;

/// Connections of one stream.
pub(super) const MAX_CONNECTIONS: u8 = 8;

/// What a stream is to be able to have under way: 1 Gbit/s, in bytes a second.
const LINK: f64 = 125_000_000.0;

/// What one connection can be counted on to have under way, in bytes: half of the least
/// that kernels let a socket grow to unless told otherwise (`net.ipv4.tcp_wmem`, 4 MiB,
/// of which bookkeeping takes its part).
const WINDOW: f64 = 2_000_000.0;

/// Streams of one peer of which some connections are there and others are not.
const MAX_GATHERED: usize = 4;

/// How long the others may take.
const GATHER: Duration = Duration::from_secs(10);

/// How many connections fill a link with this round trip.
pub fn connections_for(round_trip: Duration) -> u8 {
    let needed = (round_trip.as_secs_f64() * LINK / WINDOW).ceil();
    // A cast of a float cannot overflow: it saturates.
    (needed as u8).clamp(1, MAX_CONNECTIONS)
}

/// What a connection begins with: which of how many connections of which stream it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Hello {
    pub(super) stream: [u8; 16],
    pub(super) index: u8,
    pub(super) count: u8,
}

impl Hello {
    const LEN: usize = 18;

    pub(super) async fn write<W: AsyncWrite + Unpin>(self, to: &mut W) -> io::Result<()> {
        let mut bytes = [0; Self::LEN];
        bytes[..16].copy_from_slice(&self.stream);
        bytes[16..].copy_from_slice(&[self.index, self.count]);
        to.write_all(&bytes).await?;
        to.flush().await
    }

    /// # Errors
    /// When the connection fails, or no stream has such a connection.
    pub(super) async fn read<R: AsyncRead + Unpin>(from: &mut R) -> io::Result<Self> {
        let mut bytes = [0; Self::LEN];
        from.read_exact(&mut bytes).await?;
        let (id, [index, count]) = bytes.split_at(16) else {
            return Err(io::ErrorKind::InvalidData.into());
        };
        let mut stream = [0; 16];
        stream.copy_from_slice(id);
        let (index, count) = (*index, *count);
        if index >= count || count > MAX_CONNECTIONS {
            return Err(io::ErrorKind::InvalidData.into());
        }
        Ok(Self {
            stream,
            index,
            count,
        })
    }
}

/// Connections that came before the others of their stream.
pub(super) struct Gathering<T>(HashMap<(PeerKey, [u8; 16]), Waiting<T>>);

struct Waiting<T> {
    parts: Vec<Option<T>>,
    since: Instant,
}

impl<T> Default for Gathering<T> {
    fn default() -> Self {
        Self(HashMap::new())
    }
}

impl<T> Gathering<T> {
    /// When the next stream has waited for long enough.
    pub(super) fn due(&self) -> Option<Instant> {
        let began = self.0.values().map(|waiting| waiting.since);
        began.min().map(|since| since + GATHER)
    }

    /// Lets go of what has waited for long enough.
    pub(super) fn expire(&mut self, now: Instant) {
        self.0
            .retain(|_, waiting| now.duration_since(waiting.since) < GATHER);
    }

    /// Takes a connection; all of its stream in order once it is the last of them. One
    /// that contradicts the others ends with them.
    pub(super) fn take(
        &mut self,
        peer: PeerKey,
        hello: Hello,
        part: T,
        now: Instant,
    ) -> Option<Vec<T>> {
        if hello.count == 1 {
            return Some(vec![part]);
        }
        self.expire(now);
        let key = (peer, hello.stream);
        let of_peer = self.0.keys().filter(|(of, _)| *of == peer).count();
        if !self.0.contains_key(&key) && of_peer >= MAX_GATHERED {
            return None;
        }
        let waiting = self.0.entry(key).or_insert_with(|| Waiting {
            parts: (0..hello.count).map(|_| None).collect(),
            since: now,
        });
        let is_other = waiting.parts.len() != usize::from(hello.count);
        let place = waiting.parts.get_mut(usize::from(hello.index));
        match place {
            Some(place) if !is_other && place.is_none() => *place = Some(part),
            _ => {
                self.0.remove(&key);
                return None;
            }
        }
        if waiting.parts.iter().any(Option::is_none) {
            return None;
        }
        let waiting = self.0.remove(&key)?;
        waiting.parts.into_iter().collect()
    }
}

/// The connections of one stream, in the order both ends have agreed on.
pub(super) struct Striped {
    parts: Vec<Box<dyn Io>>,
    reading: Turn,
    writing: Turn,
    /// The connection whose turn it was has yet to take what is buffered for it.
    is_flushing: bool,
}

/// Whose turn it is, and for how many bytes.
struct Turn {
    part: usize,
    left: usize,
}

impl Turn {
    fn first() -> Self {
        let (part, left) = (0, STRIPE);
        Self { part, left }
    }

    /// Bytes went; whether it is the next one's turn.
    fn went(&mut self, bytes: usize, parts: usize) -> bool {
        self.left -= bytes;
        if self.left > 0 {
            return false;
        }
        self.part = (self.part + 1) % parts;
        self.left = STRIPE;
        true
    }
}

impl Striped {
    /// # Panics
    /// Without a connection.
    pub(super) fn new(parts: Vec<Box<dyn Io>>) -> Self {
        assert!(!parts.is_empty(), "a stream has a connection");
        Self {
            parts,
            reading: Turn::first(),
            writing: Turn::first(),
            is_flushing: false,
        }
    }

    #[cfg(test)]
    pub(super) fn connections(&self) -> usize {
        self.parts.len()
    }

    /// The connection whose turn is over gives what it holds to the kernel: the other
    /// end waits for it before it reads on.
    fn poll_turn(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.is_flushing {
            let count = self.parts.len();
            let before = (self.writing.part + count - 1) % count;
            ready!(Pin::new(&mut self.parts[before]).poll_flush(cx))?;
            self.is_flushing = false;
        }
        Poll::Ready(Ok(()))
    }

    fn poll_all(
        &mut self,
        cx: &mut Context<'_>,
        poll: impl Fn(Pin<&mut Box<dyn Io>>, &mut Context<'_>) -> Poll<io::Result<()>>,
    ) -> Poll<io::Result<()>> {
        let mut are_done = true;
        for part in &mut self.parts {
            match poll(Pin::new(part), cx) {
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => are_done = false,
            }
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
        let most = buf.len().min(this.reading.left);
        let part = Pin::new(&mut this.parts[this.reading.part]);
        let read = ready!(part.poll_read(cx, &mut buf[..most]))?;
        this.reading.went(read, this.parts.len());
        Poll::Ready(Ok(read))
    }
}

impl AsyncWrite for Striped {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        ready!(this.poll_turn(cx))?;
        let most = buf.len().min(this.writing.left);
        let part = Pin::new(&mut this.parts[this.writing.part]);
        let written = ready!(part.poll_write(cx, &buf[..most]))?;
        this.is_flushing = this.writing.went(written, this.parts.len());
        Poll::Ready(Ok(written))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_all(cx, |part, cx| part.poll_flush(cx))
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_all(cx, |part, cx| part.poll_close(cx))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use futures::io::{BufWriter, Cursor};
    use libp2p::tcp::tokio::TcpStream;
    use tokio::net;

    const PEER: PeerKey = [1; 32];

    fn hello(stream: u8, index: u8, count: u8) -> Hello {
        let stream = [stream; 16];
        Hello {
            stream,
            index,
            count,
        }
    }

    async fn in_time<T>(done: impl Future<Output = T>) -> T {
        let deadline = Duration::from_secs(60);
        tokio::time::timeout(deadline, done).await.expect("it ends")
    }

    async fn sockets() -> (TcpStream, TcpStream) {
        let listener = net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let near = net::TcpStream::connect(listener.local_addr().unwrap());
        let (near, far) = tokio::join!(near, listener.accept());
        (TcpStream(near.unwrap()), TcpStream(far.unwrap().0))
    }

    async fn ends(count: usize) -> (Striped, Striped) {
        let (mut nears, mut fars) = (Vec::new(), Vec::new());
        for _ in 0..count {
            let (near, far) = sockets().await;
            nears.push(Box::new(near) as Box<dyn Io>);
            fars.push(Box::new(far) as Box<dyn Io>);
        }
        (Striped::new(nears), Striped::new(fars))
    }

    /// Cut anyhow: what is written at once says nothing of the stripes.
    async fn send(bytes: &[u8], mut out: impl AsyncWrite + Unpin) {
        for piece in bytes.chunks(50_001) {
            out.write_all(piece).await.unwrap();
        }
        out.close().await.unwrap();
    }

    #[tokio::test]
    async fn bytes_come_in_the_order_they_were_written_in_both_directions() {
        for count in [1, 2, 5] {
            let (near, far) = ends(count).await;
            let there: Vec<u8> = (0..70 * STRIPE + 13).map(|at| (at % 251) as u8).collect();
            let back: Vec<u8> = there.iter().rev().copied().collect();
            let ((mut near_in, near_out), (mut far_in, far_out)) = (near.split(), far.split());
            let (mut got, mut got_back) = (Vec::new(), Vec::new());
            let ends = async {
                tokio::join!(
                    send(&there, near_out),
                    send(&back, far_out),
                    far_in.read_to_end(&mut got),
                    near_in.read_to_end(&mut got_back),
                )
            };
            let ((), (), read, read_back) = in_time(ends).await;
            assert!(read.is_ok() && read_back.is_ok());
            assert!(got == there && got_back == back, "{count} connections");
        }
    }

    #[tokio::test]
    async fn what_a_connection_holds_goes_out_before_the_next_ones_turn() {
        let ((one, mut far), (other, _other)) = (sockets().await, sockets().await);
        let holds =
            |io| -> Box<dyn Io> { Box::new(Holds(BufWriter::with_capacity(STRIPE * 2, io))) };
        let mut near = Striped::new(vec![holds(one), holds(other)]);
        near.write_all(&[7; STRIPE]).await.unwrap();
        near.write_all(&[8]).await.unwrap();
        let mut got = vec![0; STRIPE];
        in_time(far.read_exact(&mut got)).await.unwrap();
        assert!(got.iter().all(|byte| *byte == 7));
    }

    /// Buffers what is written, as TLS does.
    struct Holds(BufWriter<TcpStream>);

    impl AsyncRead for Holds {
        fn poll_read(
            mut self: Pin<&mut Self>,
            cx: &mut Context<'_>,
            buf: &mut [u8],
        ) -> Poll<io::Result<usize>> {
            Pin::new(&mut self.0).poll_read(cx, buf)
        }
    }

    impl AsyncWrite for Holds {
        fn poll_write(
            mut self: Pin<&mut Self>,
            cx: &mut Context<'_>,
            buf: &[u8],
        ) -> Poll<io::Result<usize>> {
            Pin::new(&mut self.0).poll_write(cx, buf)
        }
        fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
            Pin::new(&mut self.0).poll_flush(cx)
        }
        fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
            Pin::new(&mut self.0).poll_close(cx)
        }
    }

    #[test]
    fn a_longer_way_takes_more_connections_up_to_a_limit() {
        let count = |millis| connections_for(Duration::from_millis(millis));
        assert_eq!(
            [0, 1, 16, 17, 100, 300, 60_000].map(count),
            [1, 1, 1, 2, 7, 8, 8]
        );
    }

    #[tokio::test]
    async fn a_hello_reads_back_and_one_of_no_stream_is_refused() {
        let mut bytes = Vec::new();
        let written = hello(3, 6, 7);
        written.write(&mut bytes).await.unwrap();
        assert_eq!(
            Hello::read(&mut Cursor::new(&bytes)).await.unwrap(),
            written
        );
        for (index, count) in [(0, 0), (2, 2), (0, MAX_CONNECTIONS + 1)] {
            let mut bytes = Vec::new();
            hello(3, index, count).write(&mut bytes).await.unwrap();
            assert!(Hello::read(&mut Cursor::new(&bytes)).await.is_err());
        }
        assert!(Hello::read(&mut Cursor::new(&bytes[1..])).await.is_err());
    }

    #[test]
    fn the_connections_of_a_stream_come_in_any_order_and_make_it_once_all_are_there() {
        let (mut all, now) = (Gathering::default(), Instant::now());
        assert_eq!(all.take(PEER, hello(1, 0, 1), 'x', now), Some(vec!['x']));
        assert_eq!(all.take(PEER, hello(2, 2, 3), 'c', now), None);
        assert_eq!(all.take(PEER, hello(2, 0, 3), 'a', now), None);
        // Another peer's stream of the same name is another stream.
        assert_eq!(all.take([2; 32], hello(2, 1, 3), 'z', now), None);
        let made = all.take(PEER, hello(2, 1, 3), 'b', now);
        assert_eq!(made, Some(vec!['a', 'b', 'c']));
        assert_eq!(all.0.len(), 1);
    }

    #[test]
    fn a_connection_that_contradicts_the_others_ends_with_them() {
        for odd in [hello(1, 0, 3), hello(1, 1, 2)] {
            let (mut all, now) = (Gathering::default(), Instant::now());
            assert_eq!(all.take(PEER, hello(1, 0, 3), 'a', now), None);
            assert_eq!(all.take(PEER, odd, 'b', now), None);
            assert!(all.0.is_empty());
        }
    }

    #[test]
    fn what_never_becomes_whole_is_forgotten_and_a_peer_has_few_of_it() {
        let (mut all, now) = (Gathering::default(), Instant::now());
        for stream in 0..MAX_GATHERED as u8 {
            assert_eq!(all.take(PEER, hello(stream, 0, 2), 'a', now), None);
        }
        assert_eq!(all.take(PEER, hello(99, 0, 2), 'a', now), None);
        assert_eq!(all.take(PEER, hello(99, 1, 2), 'b', now), None);
        assert_eq!(
            all.take(PEER, hello(0, 1, 2), 'b', now),
            Some(vec!['a', 'b'])
        );
        assert_eq!(all.due(), Some(now + GATHER));
        all.expire(now + GATHER);
        assert!(all.0.is_empty() && all.due().is_none());
        let later = now + GATHER;
        assert_eq!(all.take(PEER, hello(1, 1, 2), 'b', now), None);
        assert_eq!(all.take(PEER, hello(1, 0, 2), 'a', later), None);
    }
}
