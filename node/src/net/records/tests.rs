//! Records against rustls' own, and against an other end that does not keep to the rules.

#![allow(clippy::unwrap_used)]

use std::time::Duration;

use futures::channel::mpsc as pipe;
use futures::io::{ReadHalf, WriteHalf};
use futures::{AsyncReadExt, AsyncWriteExt, FutureExt, StreamExt};
use futures_rustls::TlsStream;
use libp2p::core::UpgradeInfo;
use libp2p::core::upgrade::{InboundConnectionUpgrade, OutboundConnectionUpgrade};
use libp2p::tcp::tokio::TcpStream;
use tokio::time::timeout;

use super::*;
use crate::net::tests::sockets::{keypair, sockets};
use crate::net::tls::Tls;

const MIB: usize = 1 << 20;

/// Ours at both ends.
async fn ours() -> (Records<TcpStream>, Records<TcpStream>) {
    let (near, far) = sockets().await;
    let tls = |seed| Tls::new(&keypair(seed)).unwrap();
    let name = tls(1).protocol_info().next().unwrap();
    let (near, far) = tokio::join!(
        tls(1).upgrade_outbound(near, name),
        tls(2).upgrade_inbound(far, name)
    );
    (near.unwrap().1, far.unwrap().1)
}

/// Ours, and rustls with its own records at the other end.
async fn ours_and_theirs() -> (Records<TcpStream>, TlsStream<TcpStream>) {
    let (near, far) = sockets().await;
    let (ours, theirs) = (
        Tls::new(&keypair(1)).unwrap(),
        libp2p::tls::Config::new(&keypair(2)).unwrap(),
    );
    let name = ours.protocol_info().next().unwrap();
    let (near, far) = tokio::join!(
        ours.upgrade_outbound(near, name),
        theirs.upgrade_inbound(far, name)
    );
    (near.unwrap().1, far.unwrap().1)
}

async fn in_time<T>(done: impl Future<Output = T>) -> T {
    let deadline = Duration::from_secs(60);
    timeout(deadline, done).await.expect("it ends")
}

fn bytes(len: usize) -> Vec<u8> {
    (0..len).map(|at| (at % 251) as u8).collect()
}

async fn send(bytes: &[u8], mut to: WriteHalf<impl AsyncWrite + Unpin>) {
    to.write_all(bytes).await.unwrap();
    to.close().await.unwrap();
}

async fn receive(mut from: ReadHalf<impl AsyncRead + Unpin>) -> Vec<u8> {
    let mut got = Vec::new();
    from.read_to_end(&mut got).await.unwrap();
    got
}

/// That these bytes get over.
async fn carry<C: AsyncRead + AsyncWrite + Unpin>(
    sent: &[u8],
    near: &mut Records<C>,
    far: &mut Records<TcpStream>,
) {
    let mut got = vec![0; sent.len()];
    let write = async {
        near.write_all(sent).await?;
        near.flush().await
    };
    let ends = async { tokio::join!(write, far.read_exact(&mut got)) };
    let (wrote, read) = in_time(ends).await;
    wrote.unwrap();
    read.unwrap();
    assert!(got == sent);
}

/// The alert with which the other end cut this one.
async fn alert_to(end: &mut Records<TcpStream>) -> u8 {
    let cut = in_time(end.read(&mut [0; 9])).await.unwrap_err();
    let told = cut.to_string();
    let alert = told.rsplit_once("TLS alert ").map(|(_, alert)| alert);
    alert.unwrap_or_else(|| panic!("{told}")).parse().unwrap()
}

#[tokio::test]
async fn keys_are_renewed_before_they_have_protected_too_much() {
    let (mut near, far) = ours_and_theirs().await;
    near.sealing.limit = 5;
    let sent = bytes(MIB);
    let ((near_in, near_out), (far_in, far_out)) = (near.split(), far.split());
    let ends = async {
        tokio::join!(
            send(&sent, near_out),
            receive(far_in),
            send(&sent, far_out),
            receive(near_in)
        )
    };
    let ((), there, (), back) = in_time(ends).await;
    assert!(there == sent && back == sent);
    // No key protects as many as its limit: the last one tells of the next.
    let (mut near, _far) = ours().await;
    near.sealing.limit = 5;
    for count in 0..20 {
        near.seal(ContentType::ApplicationData, &[0]).unwrap();
        assert!(near.sealing.next < 5, "record {count}");
    }
}

#[tokio::test]
async fn an_end_that_asks_for_new_keys_gets_them() {
    let (mut near, mut far) = ours_and_theirs().await;
    in_time(async {
        for _ in 0..3 {
            let TlsStream::Server(server) = &mut far else {
                panic!("it was dialled");
            };
            server.get_mut().1.refresh_traffic_keys().unwrap();
            far.write_all(b"new").await.unwrap();
            far.flush().await.unwrap();
            let mut got = [0; 3];
            near.read_exact(&mut got).await.unwrap();
            assert!(near.sealing.owes_keys);
            near.write_all(b"too").await.unwrap();
            near.flush().await.unwrap();
            assert_eq!((near.sealing.owes_keys, near.sealing.next), (false, 1));
            far.read_exact(&mut got).await.unwrap();
            assert_eq!(&got, b"too");
        }
    })
    .await;
}

#[tokio::test]
async fn an_end_that_is_said_is_one_and_a_cut_is_an_error() {
    let (mut near, mut far) = ours().await;
    let mut got = Vec::new();
    near.write_all(b"all of it").await.unwrap();
    near.close().await.unwrap();
    assert!(near.write_all(b"more").await.is_err());
    in_time(far.read_to_end(&mut got)).await.unwrap();
    assert_eq!(got, b"all of it");

    let (mut near, mut far) = ours().await;
    near.write_all(b"some of it").await.unwrap();
    near.flush().await.unwrap();
    drop(near);
    let cut = in_time(far.read_to_end(&mut got)).await;
    assert_eq!(cut.unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
}

#[tokio::test]
async fn a_record_that_was_changed_or_sent_twice_is_an_error() {
    // Any byte of it but those of the version, which count for nothing.
    for at in (0..60).filter(|at| ![1, 2].contains(at)) {
        let (mut near, mut far) = ours().await;
        near.seal(ContentType::ApplicationData, &[7; 60]).unwrap();
        let mut record = near.sealing.queue.pop_front().unwrap();
        record[at] ^= 1;
        // So that a longer one is not waited for.
        record.resize(2 * MAX_RECORD, 0);
        near.io.write_all(&record).await.unwrap();
        let read = in_time(far.read(&mut [0; 60])).await;
        assert!(read.is_err(), "byte {at}");
        let expected = if at == 0 {
            UNEXPECTED_MESSAGE
        } else {
            BAD_RECORD_MAC
        };
        assert_eq!(alert_to(&mut near).await, expected, "byte {at}");
    }
    let (mut near, mut far) = ours().await;
    near.seal(ContentType::ApplicationData, &[7; 60]).unwrap();
    let record = near.sealing.queue.pop_front().unwrap();
    near.io.write_all(&record).await.unwrap();
    near.io.write_all(&record).await.unwrap();
    let mut got = [0; 60];
    in_time(far.read_exact(&mut got)).await.unwrap();
    assert!(in_time(far.read(&mut got)).await.is_err());
}

#[tokio::test]
async fn what_has_no_place_after_the_handshake_is_an_error() {
    let raws = [
        (&[22, 3, 3, 0, 1, 0][..], UNEXPECTED_MESSAGE),
        (&[20, 3, 3, 0, 1, 1], UNEXPECTED_MESSAGE),
        (&[23, 3, 3, 0x41, 1], RECORD_OVERFLOW),
    ];
    for (raw, alert) in raws {
        let (mut near, mut far) = ours().await;
        near.io.write_all(raw).await.unwrap();
        assert!(in_time(far.read(&mut [0; 9])).await.is_err(), "{raw:?}");
        assert_eq!(alert_to(&mut near).await, alert, "{raw:?}");
    }
    let update = [KEY_UPDATE, 0, 0, 1, 0];
    let behind = [&update[..], &[NEW_SESSION_TICKET, 0, 0, 0]].concat();
    let odd = [KEY_UPDATE, 0, 0, 1, 2];
    let hello = [1, 0, 0, 0];
    let long = [NEW_SESSION_TICKET, 1, 0, 0];
    for (said, alert) in [
        (&behind[..], UNEXPECTED_MESSAGE),
        (&odd, ILLEGAL_PARAMETER),
        (&hello, UNEXPECTED_MESSAGE),
    ] {
        let (mut near, mut far) = ours().await;
        near.seal(ContentType::Handshake, said).unwrap();
        near.flush().await.unwrap();
        assert!(in_time(far.read(&mut [0; 9])).await.is_err(), "{said:?}");
        assert_eq!(alert_to(&mut near).await, alert, "{said:?}");
    }
    let (mut near, mut far) = ours().await;
    near.seal(ContentType::Handshake, &long).unwrap();
    for _ in 0..4 {
        near.seal(ContentType::Handshake, &[0; MAX_PLAIN]).unwrap();
    }
    near.flush().await.unwrap();
    assert!(in_time(far.read(&mut [0; 9])).await.is_err());
    assert_eq!(alert_to(&mut near).await, DECODE_ERROR);
}

#[tokio::test]
async fn a_message_may_come_in_pieces_and_nobody_waits_for_a_ticket() {
    let (mut client, mut server) = ours().await;
    let said = [NEW_SESSION_TICKET, 0, 0, 3, 1, 2, 3];
    for piece in [&said[..2], &said[2..6], &said[6..]] {
        server.seal(ContentType::Handshake, piece).unwrap();
    }
    server.write_all(b"data").await.unwrap();
    let mut got = [0; 4];
    in_time(client.read_exact(&mut got)).await.unwrap();
    assert_eq!(&got, b"data");
    assert!(client.opening.handshake.is_empty());
    // What is broken off by data is none, and a client has no tickets to give.
    server.seal(ContentType::Handshake, &said[..2]).unwrap();
    server.write_all(b"data").await.unwrap();
    assert!(in_time(client.read(&mut got)).await.is_err());
    let (mut client, mut server) = ours().await;
    client.seal(ContentType::Handshake, &said).unwrap();
    client.write_all(b"data").await.unwrap();
    assert!(in_time(server.read(&mut got)).await.is_err());
}

#[tokio::test]
async fn an_end_that_sends_ever_more_without_data_is_cut() {
    let ticket = [NEW_SESSION_TICKET, 0, 0, 0];
    let update = [KEY_UPDATE, 0, 0, 1, 0];
    let tickets = ticket.repeat(40);
    let (data, message) = (ContentType::ApplicationData, ContentType::Handshake);
    let floods = [
        ("empty records", data, &[][..], 40),
        ("tickets in one record", message, &tickets, 1),
        ("keys", message, &update, 40),
    ];
    for (what, kind, bytes, times) in floods {
        let (mut client, mut server) = ours().await;
        for _ in 0..times {
            server.seal(kind, bytes).unwrap();
            if bytes == update {
                let (next, secrets) = server.keys.next_sending().unwrap();
                server.sealing.encrypter = encrypter(server.suite, secrets).unwrap();
                server.sealing.next = next;
            }
        }
        server.write_all(b"data").await.unwrap();
        let read = in_time(client.read(&mut [0; 4])).await;
        assert!(read.is_err(), "{what}");
        // It stays an error, in both directions.
        assert!(in_time(client.read(&mut [0; 4])).await.is_err(), "{what}");
        assert!(in_time(client.write(b"more")).await.is_err(), "{what}");
    }
    // A few between data are nothing.
    let (mut client, mut server) = ours().await;
    for _ in 0..40 {
        server.seal(ContentType::Handshake, &ticket).unwrap();
        server.write_all(b"data").await.unwrap();
        in_time(client.read_exact(&mut [0; 4])).await.unwrap();
    }
}

#[tokio::test]
async fn what_came_before_a_bad_record_is_read_before_it_is_told() {
    let (mut near, mut far) = ours().await;
    near.seal(ContentType::ApplicationData, b"good").unwrap();
    near.seal(ContentType::Handshake, &[1, 0, 0, 0]).unwrap();
    near.flush().await.unwrap();
    let mut got = Vec::new();
    assert!(in_time(far.read_to_end(&mut got)).await.is_err());
    assert_eq!(got, b"good");
}

#[tokio::test]
async fn an_alert_says_why_the_other_end_went() {
    let (mut near, mut far) = ours().await;
    near.seal(ContentType::Alert, &[2, 40]).unwrap();
    near.flush().await.unwrap();
    assert_eq!(alert_to(&mut far).await, 40);
    // Nothing but the end is said to who ended it.
    far.close().await.unwrap();
    assert_eq!(in_time(near.read(&mut [0; 9])).await.unwrap(), 0);
}

#[tokio::test]
async fn rustls_is_told_why_it_was_cut_and_hears_no_end_after_it() {
    let (mut near, mut far) = ours_and_theirs().await;
    let garbage = [&[23, 3, 3, 0, 60][..], &[7; 60]].concat();
    far.get_mut().0.write_all(&garbage).await.unwrap();
    assert!(in_time(near.read(&mut [0; 9])).await.is_err());
    near.close().await.unwrap();
    assert_eq!(near.sealing.next, 1, "the alert, and nothing after it");
    let cut = in_time(far.read(&mut [0; 9])).await.unwrap_err();
    assert!(cut.to_string().contains("BadRecordMac"), "{cut}");
}

/// Takes nothing that is written to it once it is told so.
struct Stalling {
    io: TcpStream,
    stalls: pipe::UnboundedReceiver<()>,
    is_stalled: bool,
    /// How often it was asked to.
    asked: usize,
}

impl AsyncRead for Stalling {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        out: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_read(cx, out)
    }
}

impl AsyncWrite for Stalling {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.asked += 1;
        self.is_stalled |= self.stalls.next().now_or_never().flatten().is_some();
        match self.is_stalled {
            true => Poll::Pending,
            false => Pin::new(&mut self.io).poll_write(cx, bytes),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_close(cx)
    }
}

/// Ours at both ends, the near one of which stalls once it is told so.
async fn stalling() -> (
    Records<Stalling>,
    Records<TcpStream>,
    pipe::UnboundedSender<()>,
) {
    let (near, far) = sockets().await;
    let (stall, stalls) = pipe::unbounded();
    let near = Stalling {
        io: near,
        stalls,
        is_stalled: false,
        asked: 0,
    };
    let tls = |seed| Tls::new(&keypair(seed)).unwrap();
    let name = tls(1).protocol_info().next().unwrap();
    let (near, far) = tokio::join!(
        tls(1).upgrade_outbound(near, name),
        tls(2).upgrade_inbound(far, name)
    );
    (near.unwrap().1, far.unwrap().1, stall)
}

#[tokio::test]
async fn an_alert_is_not_waited_for_and_takes_nobodys_place_who_waits_to_write() {
    for is_waited_for in [false, true] {
        let (mut near, mut far, stall) = stalling().await;
        stall.unbounded_send(()).unwrap();
        if is_waited_for {
            near.write_all(b"data").await.unwrap();
            assert!(near.flush().now_or_never().is_none());
        }
        let asked = near.io.asked;
        far.io.write_all(&[22, 3, 3, 0, 1, 0]).await.unwrap();
        let cut = in_time(near.read(&mut [0; 9])).await.unwrap_err();
        assert!(cut.to_string().contains("not protected"), "{cut}");
        assert_eq!(near.sealing.queue.len(), 1 + usize::from(is_waited_for));
        assert_eq!(near.io.asked, asked + usize::from(!is_waited_for));
    }
}

#[tokio::test]
async fn room_that_nothing_needs_any_more_is_given_back_and_had_again() {
    let (mut near, mut far) = ours().await;
    let sent = bytes(4 * MIB);
    for _ in 0..2 {
        carry(&sent, &mut near, &mut far).await;
        assert!(far.opening.buf.len() > MIN_READ);
        let until = Instant::now() + Duration::from_secs(60);
        while far.opening.buf.len() > MIN_READ {
            let read = timeout(IDLE / 4, far.read(&mut [0; 4])).await;
            assert!(read.is_err() && Instant::now() < until);
        }
        assert!(far.opening.buf.capacity() < 2 * MIN_READ);
    }
}

#[tokio::test]
async fn room_stays_where_something_came_since_it_was_last_looked_at() {
    let past = Instant::now();
    let (_near, mut far) = ours().await;
    far.opening.buf.resize(MAX_READ, 0);
    for has_come in [true, false] {
        assert!(far.read(&mut [0; 4]).now_or_never().is_none());
        assert_eq!(far.opening.buf.len(), MAX_READ);
        let look = far.opening.look.as_mut().unwrap();
        look.as_mut().reset(past);
        far.opening.has_come = has_come;
        assert!(far.read(&mut [0; 4]).now_or_never().is_none());
        let kept = if has_come { MAX_READ } else { MIN_READ };
        assert_eq!(far.opening.buf.len(), kept);
    }
}

#[tokio::test]
async fn what_waits_in_either_direction_is_bounded() {
    let (mut near, mut far, stall) = stalling().await;
    let sent = bytes(4 * MIB);
    carry(&sent, &mut near, &mut far).await;
    assert!(far.opening.buf.len() <= MAX_READ);

    stall.unbounded_send(()).unwrap();
    let mut taken = 0;
    while let Some(wrote) = near.write(&sent).now_or_never() {
        taken += wrote.unwrap();
    }
    assert_eq!(taken, MAX_QUEUED * MAX_PLAIN);
    assert_eq!(near.sealing.queue.len(), MAX_QUEUED);
}
