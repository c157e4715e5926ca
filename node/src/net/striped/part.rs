//! One connection of a stream over several: the stripe that comes on it, and the one that
//! goes.
//!
//! Not here: which stripe goes where (`striped`).

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use futures::{AsyncRead, AsyncWrite};

use super::STRIPE;
use crate::net::direct::Io;

/// What a stripe begins with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Head {
    /// Which one it is, from 0.
    pub(super) stripe: u64,
    /// Bytes behind the head.
    pub(super) length: u32,
}

impl Head {
    pub(super) const LEN: usize = 12;

    pub(super) fn encode(self) -> [u8; Self::LEN] {
        let mut bytes = [0; Self::LEN];
        bytes[..8].copy_from_slice(&self.stripe.to_le_bytes());
        bytes[8..].copy_from_slice(&self.length.to_le_bytes());
        bytes
    }

    fn decode(bytes: [u8; Self::LEN]) -> Self {
        let [a, b, c, d, e, f, g, h, length @ ..] = bytes;
        Self {
            stripe: u64::from_le_bytes([a, b, c, d, e, f, g, h]),
            length: u32::from_le_bytes(length),
        }
    }
}

/// One connection.
pub(super) struct Part {
    pub(super) io: Box<dyn Io>,
    /// Of the stripe that comes next on it: as much of the head as there is.
    head: [u8; Head::LEN],
    head_len: usize,
    /// What comes next on it, once that is known.
    pub(super) coming: Option<Coming>,
    /// Nothing comes any more.
    pub(super) is_over: bool,
    /// A stripe with its head, of which `given` bytes went.
    held: Vec<u8>,
    given: usize,
    /// The kernel has all that went.
    is_flushed: bool,
}

/// A stripe whose head has come.
pub(super) struct Coming {
    pub(super) stripe: u64,
    /// Bytes of it that were not read.
    pub(super) left: usize,
    /// Room for all of it, where it is read before its turn: so much was read there, and of
    /// that so much was given out.
    pub(super) early: Vec<u8>,
    pub(super) read: usize,
    pub(super) taken: usize,
}

impl Part {
    pub(super) fn new(io: Box<dyn Io>) -> Self {
        Self {
            io,
            head: [0; Head::LEN],
            head_len: 0,
            coming: None,
            is_over: false,
            held: vec![],
            given: 0,
            is_flushed: true,
        }
    }

    /// Gives all it holds to the kernel.
    pub(super) fn poll_give(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.given < self.held.len() {
            let rest = &self.held[self.given..];
            match ready!(Pin::new(&mut self.io).poll_write(cx, rest))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                given => self.given += given,
            }
        }
        if !self.is_flushed {
            ready!(Pin::new(&mut self.io).poll_flush(cx))?;
            self.is_flushed = true;
        }
        Poll::Ready(Ok(()))
    }

    /// Takes a stripe, when it has given all it held.
    pub(super) fn hold(&mut self, stripe: u64, bytes: &[u8]) {
        let length = bytes.len() as u32;
        self.held.clear();
        self.held.extend(Head { stripe, length }.encode());
        self.held.extend(bytes);
        (self.given, self.is_flushed) = (0, false);
    }

    /// Waits for the head of its next stripe, which is `next` or a later one, or for its end.
    pub(super) fn poll_head(&mut self, cx: &mut Context<'_>, next: u64) -> Poll<io::Result<()>> {
        while self.coming.is_none() && !self.is_over {
            let rest = &mut self.head[self.head_len..];
            let read = ready!(Pin::new(&mut self.io).poll_read(cx, rest))?;
            self.head_len += read;
            match (read, self.head_len) {
                (0, 0) => self.is_over = true,
                (0, _) => return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into())),
                (_, Head::LEN) => {
                    let Head { stripe, length } = Head::decode(self.head);
                    let left = length as usize;
                    if stripe < next || left == 0 || left > STRIPE {
                        return Poll::Ready(Err(io::ErrorKind::InvalidData.into()));
                    }
                    self.head_len = 0;
                    self.coming = Some(Coming {
                        stripe,
                        left,
                        early: vec![],
                        read: 0,
                        taken: 0,
                    });
                }
                _ => {}
            }
        }
        Poll::Ready(Ok(()))
    }
}
