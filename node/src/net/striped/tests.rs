//! Streams over several connections: sockets, and connections that do as a test wants.
#![allow(clippy::unwrap_used)]

use super::*;
use futures::io::{AsyncReadExt, AsyncWriteExt, BufWriter};
use futures::poll;
use libp2p::tcp::tokio::TcpStream;
use std::collections::VecDeque;
use std::pin::pin;
use std::sync::{Arc, Mutex};

use crate::net::tests::sockets::sockets;

async fn in_time<T>(done: impl Future<Output = T>) -> T {
    let deadline = Duration::from_secs(60);
    tokio::time::timeout(deadline, done).await.expect("it ends")
}

async fn ends(count: usize) -> (Box<dyn Io>, Box<dyn Io>) {
    let (mut nears, mut fars) = (Vec::new(), Vec::new());
    for _ in 0..count {
        let (near, far) = sockets().await;
        nears.push(Box::new(near) as Box<dyn Io>);
        fars.push(Box::new(far) as Box<dyn Io>);
    }
    (joined(nears), joined(fars))
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
        // More than all stripes that are short.
        let length = 2 * FIRST_STRIPES as usize * FIRST_STRIPE + 13;
        let there: Vec<u8> = (0..length).map(|at| (at % 251) as u8).collect();
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
async fn what_is_written_goes_out_though_the_connection_buffers_it() {
    let ((one, mut far), (other, _other)) = (sockets().await, sockets().await);
    let buffers = |io| -> Box<dyn Io> { Box::new(Buffers(BufWriter::new(io))) };
    let mut near = joined(vec![buffers(one), buffers(other)]);
    near.write_all(&[7; 100]).await.unwrap();
    let mut got = vec![0; Head::LEN + 100];
    in_time(far.read_exact(&mut got)).await.unwrap();
    assert!(got[Head::LEN..].iter().all(|byte| *byte == 7));
}

/// Buffers what is written, as TLS does.
struct Buffers(BufWriter<TcpStream>);

impl AsyncRead for Buffers {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl AsyncWrite for Buffers {
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

/// A connection as a test wants it.
#[derive(Clone, Default)]
struct Line(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    comes: VecDeque<u8>,
    has_ended: bool,
    went: Vec<u8>,
    is_full: bool,
}

impl Line {
    fn set(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.0.lock().unwrap());
    }

    fn stripe(&self, stripe: u64, bytes: &[u8]) {
        let length = bytes.len() as u32;
        self.set(|state| {
            state.comes.extend(Head { stripe, length }.encode());
            state.comes.extend(bytes);
        });
    }

    fn end(&self) {
        self.set(|state| state.has_ended = true);
    }
}

impl AsyncRead for Line {
    fn poll_read(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buf: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        let mut state = self.0.lock().unwrap();
        let read = buf.len().min(state.comes.len());
        if read == 0 && !state.has_ended {
            return Poll::Pending;
        }
        for (to, from) in buf.iter_mut().zip(state.comes.drain(..read)) {
            *to = from;
        }
        Poll::Ready(Ok(read))
    }
}

impl AsyncWrite for Line {
    fn poll_write(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let mut state = self.0.lock().unwrap();
        if state.is_full {
            return Poll::Pending;
        }
        state.went.extend(buf);
        Poll::Ready(Ok(buf.len()))
    }
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
    fn poll_close(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

fn lines() -> ([Line; 2], Box<dyn Io>) {
    let lines = [Line::default(), Line::default()];
    let parts = lines.iter().map(|line| Box::new(line.clone()) as _);
    let stream = joined(parts.collect());
    (lines, stream)
}

#[tokio::test]
async fn a_connection_that_takes_nothing_holds_one_stripe_and_the_others_go_on() {
    let ([full, other], mut near) = lines();
    full.set(|state| state.is_full = true);
    let bytes: Vec<u8> = (0..100 * FIRST_STRIPE).map(|at| (at % 251) as u8).collect();
    let written = poll!(pin!(near.write_all(&bytes)));
    assert!(matches!(written, Poll::Ready(Ok(()))), "{written:?}");
    assert!(poll!(pin!(near.flush())).is_pending());
    let each = FIRST_STRIPE - Head::LEN;
    let all = bytes.len().div_ceil(each);
    other.set(|state| assert!(state.went.len() == bytes.len() - each + (all - 1) * Head::LEN));
    full.set(|state| {
        assert!(state.went.is_empty());
        state.is_full = false;
    });
    assert!(poll!(pin!(near.flush())).is_ready());
    full.set(|state| assert!(state.went[Head::LEN..] == bytes[..each]));
}

#[tokio::test]
async fn where_all_are_full_nothing_more_is_taken() {
    let (lines, mut near) = lines();
    for line in &lines {
        line.set(|state| state.is_full = true);
    }
    let bytes = vec![1; 2 * FIRST_STRIPE];
    for taken in [FIRST_STRIPE - Head::LEN; 2] {
        let written = poll!(pin!(near.write(&bytes)));
        assert!(matches!(written, Poll::Ready(Ok(length)) if length == taken));
    }
    assert!(poll!(pin!(near.write(&bytes))).is_pending());
}

#[tokio::test]
async fn what_is_early_waits_for_what_is_before_it() {
    let ([one, other], mut near) = lines();
    other.stripe(1, b"later");
    let mut got = [0; 10];
    assert!(poll!(pin!(near.read(&mut got))).is_pending());
    one.stripe(0, b"first");
    in_time(near.read_exact(&mut got)).await.unwrap();
    assert_eq!(&got, b"firstlater");
}

#[tokio::test]
async fn what_is_early_is_read_ahead_up_to_a_limit() {
    let ([one, other], mut near) = lines();
    let each = STRIPE - Head::LEN;
    let all = 2 * AHEAD / each;
    for stripe in 1..=all {
        other.stripe(stripe as u64, &vec![stripe as u8; each]);
    }
    let mut got = vec![9; (all + 1) * each];
    assert!(poll!(pin!(near.read(&mut got))).is_pending());
    let left = |line: &Line| line.0.lock().unwrap().comes.len();
    let read = all * STRIPE - left(&other);
    assert!((AHEAD - STRIPE..=AHEAD + STRIPE).contains(&read), "{read}");
    one.stripe(0, &vec![0; each]);
    in_time(near.read_exact(&mut got)).await.unwrap();
    let mut stripes = got.chunks(each).enumerate();
    assert!(stripes.all(|(stripe, bytes)| bytes.iter().all(|byte| *byte == stripe as u8)));
}

#[tokio::test]
async fn a_stripe_of_which_a_part_came_early_goes_on_where_it_comes() {
    let ([one, other], mut near) = lines();
    other.stripe(1, b"abcdef");
    other.set(|state| state.comes.truncate(Head::LEN + 2));
    let mut got = [0; 9];
    assert!(poll!(pin!(near.read(&mut got))).is_pending());
    one.stripe(0, b"012");
    in_time(near.read_exact(&mut got[..4])).await.unwrap();
    in_time(near.read_exact(&mut got[4..5])).await.unwrap();
    assert!(poll!(pin!(near.read(&mut got[5..]))).is_pending());
    other.set(|state| state.comes.extend(b"cdef"));
    in_time(near.read_exact(&mut got[5..])).await.unwrap();
    assert_eq!(&got, b"012abcdef");
}

#[tokio::test]
async fn a_stripe_that_was_there_or_has_no_length_is_refused() {
    for (stripe, length) in [(0, 3), (1, 0), (1, STRIPE as u32 + 1)] {
        let ([one, other], mut near) = lines();
        one.stripe(0, b"abc");
        let mut got = [0; 3];
        in_time(near.read_exact(&mut got)).await.unwrap();
        other.set(|state| state.comes.extend(Head { stripe, length }.encode()));
        let read = in_time(near.read(&mut got)).await;
        let kind = read.map_err(|error| error.kind());
        assert_eq!(kind, Err(io::ErrorKind::InvalidData), "{stripe} {length}");
    }
}

#[tokio::test]
async fn a_stream_is_over_once_all_connections_are_and_nothing_is_missing() {
    let ([one, other], mut near) = lines();
    let mut got = [0; 8];
    one.stripe(0, b"abc");
    one.end();
    assert_eq!(in_time(near.read(&mut got)).await.unwrap(), 3);
    assert!(poll!(pin!(near.read(&mut got))).is_pending());
    other.end();
    assert_eq!(in_time(near.read(&mut got)).await.unwrap(), 0);

    // Cut in a head, in a stripe, and behind one that never came.
    let cut: [&dyn Fn(&Line); 3] = [
        &|line| line.set(|state| state.comes.extend([0; Head::LEN - 1])),
        &|line| {
            let (stripe, length) = (0, 9);
            line.set(|state| state.comes.extend(Head { stripe, length }.encode()));
        },
        &|line| line.stripe(1, b"abc"),
    ];
    for cut in cut {
        let ([one, other], mut near) = lines();
        cut(&one);
        one.end();
        other.end();
        let read = in_time(near.read(&mut got)).await;
        let kind = read.map_err(|error| error.kind());
        assert_eq!(kind, Err(io::ErrorKind::UnexpectedEof));
    }
}

#[test]
fn a_longer_way_takes_more_connections_up_to_a_limit() {
    let count = |millis| connections_for(Duration::from_millis(millis));
    assert_eq!(
        [0, 1, 12, 13, 100, 300, 60_000].map(count),
        [1, 1, 1, 2, 8, 8, 8]
    );
}
