//! The connections of one stream on their way: what each begins with, and those that came
//! before the others of their stream.
//!
//! Not here: the stream that they make (`striped`).

use std::collections::HashMap;
use std::io;
use std::time::{Duration, Instant};

use futures::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::MAX_CONNECTIONS;
use crate::net::peer::PeerKey;

/// Streams of one peer of which some connections are there and others are not.
const MAX_GATHERED: usize = 4;

/// How long the others may take.
const GATHER: Duration = Duration::from_secs(10);

/// What a connection begins with: which of how many connections of which stream it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::net) struct Hello {
    pub(in crate::net) stream: [u8; 16],
    pub(in crate::net) index: u8,
    pub(in crate::net) count: u8,
}

impl Hello {
    const LEN: usize = 18;

    pub(in crate::net) async fn write<W: AsyncWrite + Unpin>(self, to: &mut W) -> io::Result<()> {
        let mut bytes = [0; Self::LEN];
        bytes[..16].copy_from_slice(&self.stream);
        bytes[16..].copy_from_slice(&[self.index, self.count]);
        to.write_all(&bytes).await?;
        to.flush().await
    }

    /// # Errors
    /// When the connection fails, or no stream has such a connection.
    pub(in crate::net) async fn read<R: AsyncRead + Unpin>(from: &mut R) -> io::Result<Self> {
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
pub(in crate::net) struct Gathering<T>(HashMap<(PeerKey, [u8; 16]), Waiting<T>>);

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
    pub(in crate::net) fn due(&self) -> Option<Instant> {
        let began = self.0.values().map(|waiting| waiting.since);
        began.min().map(|since| since + GATHER)
    }

    /// Lets go of what has waited for long enough.
    pub(in crate::net) fn expire(&mut self, now: Instant) {
        self.0
            .retain(|_, waiting| now.duration_since(waiting.since) < GATHER);
    }

    /// Takes a connection; all of its stream in order once it is the last of them. One
    /// that contradicts the others ends with them.
    pub(in crate::net) fn take(
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use futures::io::Cursor;

    const PEER: PeerKey = [1; 32];

    fn hello(stream: u8, index: u8, count: u8) -> Hello {
        let stream = [stream; 16];
        Hello {
            stream,
            index,
            count,
        }
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
