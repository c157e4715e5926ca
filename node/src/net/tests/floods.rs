//! More connections, handshakes, questions and addresses than there is room for, from
//! peers that keep to no rule: those that do keep to them are served all the same.

use std::collections::BTreeSet;
use std::io::Read;
use std::net::SocketAddr;

use tokio::net::TcpSocket;
use tokio::time::Instant;

use super::super::behaviour::SYNC_STREAMS;
use super::super::redial::MAX_ADDRESSES;
use super::*;

/// Where those come from who open connections and say nothing: another host than that
/// of the honest, as far as anybody can tell on one machine.
const ELSEWHERE: &str = "127.0.0.9:0";
/// More than there is room for in a handshake, from all hosts together.
const HALF_OPEN: usize = 100;

fn socket_of(node: &Node) -> SocketAddr {
    let text = node.address.to_string();
    let port = text.rsplit('/').next().unwrap();
    format!("127.0.0.1:{port}").parse().unwrap()
}

async fn half_open(to: SocketAddr) -> std::net::TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(ELSEWHERE.parse().unwrap()).unwrap();
    let stream = socket.connect(to).await.unwrap().into_std().unwrap();
    stream.set_nonblocking(true).unwrap();
    stream
}

/// Whether the other end still waits for a word on it.
fn is_waited_for(stream: &mut std::net::TcpStream) -> bool {
    let mut bytes = [0; 64];
    loop {
        match stream.read(&mut bytes) {
            Ok(0) => return false,
            Ok(_) => {}
            Err(error) => return error.kind() == std::io::ErrorKind::WouldBlock,
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_host_cannot_hold_all_the_handshakes() {
    let mut a = node(1, TCP).await;
    let mut member = node(2, TCP).await;
    a.allow([member.key]);
    member.allow([a.key]);
    let mut held = vec![];
    for _ in 0..HALF_OPEN {
        held.push(half_open(socket_of(&a)).await);
    }
    member.dials(&a);
    member.connected(a.key).await;
    let waiting = held.iter_mut().filter_map(|stream| {
        let waits = is_waited_for(stream);
        waits.then_some(())
    });
    let waiting = waiting.count();
    // Not because the others had run out of time.
    assert!(waiting > 0, "the member came in when the flood was over");
    member.asks(&mut a).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_that_connects_over_and_over_has_a_few_connections_and_no_more() {
    let (mut a, mut b) = pair(TCP).await;
    let mut raws: Vec<Raw> = (0..gate::MAX_LINKS + 4).map(|_| Raw::new(9)).collect();
    b.allow([a.key, raws[0].key]);
    let mut open = 0;
    for raw in &mut raws {
        raw.dials(&b).await;
        if raw.open(&b, "sync/1").await.is_some() {
            open += 1;
        }
    }
    assert_eq!(open, gate::MAX_LINKS);
    a.asks(&mut b).await;
    b.asks(&mut a).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_wrong_addresses_are_dialled_a_few_at_a_time_and_ever_more_seldom() {
    let listener = tokio::net::TcpListener::bind("0.0.0.0:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let a = node(1, TCP).await;
    a.allow([key(2)]);
    // One listener on many addresses: it answers none of them.
    let addresses = (0..1_000).map(|at| {
        let address = format!("/ip4/127.1.{}.{}/tcp/{port}", at / 250, at % 250 + 1);
        address.parse().unwrap()
    });
    let began = Instant::now();
    a.net.set_addresses([(key(2), addresses.collect())].into());
    let (mut dialled, mut count) = (BTreeSet::new(), 0);
    // Three rounds, or all of a first one if it had no end.
    while count < 3 * MAX_ADDRESSES {
        let (stream, _) = soon("a dial", listener.accept()).await.unwrap();
        dialled.insert(stream.local_addr().unwrap());
        count += 1;
    }
    assert!(
        dialled.len() <= MAX_ADDRESSES,
        "{} addresses",
        dialled.len()
    );
    // Between the rounds it rested: half of 250 and of 500 ms at the least.
    let elapsed = began.elapsed();
    assert!(elapsed >= Duration::from_millis(375), "{elapsed:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_that_asks_and_does_not_read_takes_its_own_places_only() {
    let (a, mut b) = pair(TCP).await;
    let mut raw = Raw::new(9);
    b.allow([a.key, raw.key]);
    raw.dials(&b).await;
    b.connected(raw.key).await;
    let mut unread = vec![];
    for _ in 0..2 * SYNC_STREAMS {
        // Those beyond its places are dropped.
        if let Some(mut stream) = raw.open(&b, "sync/1").await {
            let _ = stream.write_all(&[0, 0, 0, 1, 7]).await;
            let _ = stream.flush().await;
            unread.push(stream);
        }
    }
    let asked = a.net.request(b.key, b"question".to_vec());
    let mut of_raw = 0;
    let answers = async {
        loop {
            let (peer, request, reply) = b.sync_request().await;
            if peer == raw.key {
                of_raw += 1;
                reply.send(vec![1; SYNC_LIMIT]).unwrap();
            } else {
                assert_eq!(request, b"question");
                return reply.send(b"answer".to_vec()).unwrap();
            }
        }
    };
    let (answer, ()) = soon("an answer", async { tokio::join!(asked, answers) }).await;
    assert_eq!(answer.unwrap(), b"answer");
    while let Ok(event) = b.events.try_recv() {
        if matches!(event, Event::SyncRequest { .. }) {
            of_raw += 1;
        }
    }
    assert!((1..=SYNC_STREAMS).contains(&of_raw), "{of_raw} questions");
}
