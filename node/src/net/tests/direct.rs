//! Block streams with connections of their own, over loopback.

use super::{MESH, Node, QUIC, Raw, TCP, key, node, pair, soon};
use crate::net::behaviour::Names;
use crate::net::direct::{Dialler, Io, Usable, socket_of};
use crate::net::peer::id_of;
use crate::net::striped::joined;
use crate::net::tls::Tls;
use crate::net::{BlockStream, Links, StreamError};
use futures::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, poll};
use libp2p::Multiaddr;
use libp2p::identity::Keypair;
use tokio::net::TcpListener;

/// Whoever has this key dials as a node does.
fn dialler(seed: u8) -> Dialler {
    let keypair = Keypair::ed25519_from_bytes([seed; 32]).unwrap();
    Dialler::new(Tls::new(&keypair).unwrap(), Names::new(&MESH).direct)
}

/// Has bytes carried there and back.
async fn carries(
    near: &mut (impl AsyncRead + AsyncWrite + Unpin),
    far: &mut (impl AsyncRead + AsyncWrite + Unpin),
) {
    let bytes: Vec<u8> = (0..2_000_000u32).map(|at| (at % 251) as u8).collect();
    let (mut there, mut back) = (vec![0; bytes.len()], vec![0; bytes.len()]);
    soon("bytes to be carried", async {
        let write = async {
            near.write_all(&bytes).await.unwrap();
            near.flush().await.unwrap();
        };
        let read = async { far.read_exact(&mut there).await.unwrap() };
        tokio::join!(write, read);
        let write = async {
            far.write_all(&there).await.unwrap();
            far.flush().await.unwrap();
        };
        let read = async { near.read_exact(&mut back).await.unwrap() };
        tokio::join!(write, read);
    })
    .await;
    assert!(there == bytes && back == bytes);
}

async fn opened(near: &Node, far: &mut Node) -> (BlockStream, BlockStream) {
    let stream = soon("a stream", near.net.open_stream(far.key))
        .await
        .unwrap();
    (stream, far.stream().await.1)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_has_a_connection_of_its_own_over_tcp_and_shares_one_over_quic() {
    for (listen, is_direct) in [(TCP, true), (QUIC, false)] {
        let (a, mut b) = pair(listen).await;
        let (mut near, mut far) = opened(&a, &mut b).await;
        assert_eq!((near.is_direct(), far.is_direct()), (is_direct, is_direct));
        carries(&mut near, &mut far).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_was_dialled_opens_a_stream_where_the_other_says_it_listens_or_shares_the_connection() {
    let (mut a, b) = pair(TCP).await;
    let (mut near, mut far) = opened(&b, &mut a).await;
    assert!(!near.is_direct(), "nobody said where the other listens");
    carries(&mut near, &mut far).await;
    b.dials(&a);
    // It takes effect at some point after the command.
    let (mut near, mut far) = soon("a connection of its own", async {
        loop {
            let (near, far) = opened(&b, &mut a).await;
            if near.is_direct() {
                return (near, far);
            }
        }
    })
    .await;
    carries(&mut near, &mut far).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_ways_to_a_peer_are_told_while_it_is_connected() {
    let (mut a, b) = pair(TCP).await;
    let links = soon("its links", a.net.links(b.key)).await;
    let known = vec![b.address.clone()];
    assert_eq!((links.shared, links.own), (known.clone(), known));
    assert_eq!(a.net.links(key(9)).await, Links::default());
    a.allow([]);
    a.disconnected(b.key).await;
    assert_eq!(a.net.links(b.key).await, Links::default());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_that_leads_nowhere_or_to_somebody_else_is_passed_over() {
    let (a, other) = (node(1, TCP).await, node(2, TCP).await);
    let gone = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let nowhere = gone.local_addr().unwrap();
    drop(gone);
    let nowhere: Multiaddr = format!("/ip4/127.0.0.1/tcp/{}", nowhere.port())
        .parse()
        .unwrap();
    let wrong = [nowhere, other.address.clone()];
    let dialler = dialler(9);
    let all = wrong.clone().into_iter().chain([a.address.clone()]);
    assert!(
        soon("a dial", dialler.dial(a.key, all, None))
            .await
            .is_some()
    );
    let dialled = dialler.dial(a.key, wrong, None);
    assert!(soon("dials to fail", dialled).await.is_none());
    // It is not tried again at once.
    let right = dialler.dial(a.key, [a.address.clone()], None);
    assert!(soon("no dial", right).await.is_none());
}

/// Dials, and gives the stream if it is greeted.
async fn greeted(a: &Node, dialler: &Dialler) -> Option<(Box<dyn Io>, usize)> {
    let dialled = soon("a dial", dialler.dial(a.key, [a.address.clone()], None)).await?;
    let connections = dialled.len();
    let mut stream = joined(dialled);
    let mut greeting = [0];
    let read = soon("a greeting", stream.read_exact(&mut greeting)).await;
    read.is_ok().then_some((stream, connections))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_of_several_connections_is_one_stream_at_the_other_end() {
    let mut a = node(1, TCP).await;
    a.allow([key(9)]);
    let raw = Raw::new(9);
    raw.dials(&a).await;
    a.connected(key(9)).await;
    let dialler = dialler(9).with_least(5);
    let (mut near, connections) = greeted(&a, &dialler).await.unwrap();
    assert_eq!(connections, 5);
    let (peer, mut far) = a.stream().await;
    assert_eq!(peer, key(9));
    assert_eq!(far.connections(), 5);
    carries(&mut near, &mut far).await;
    // It ends as one.
    a.allow([]);
    a.disconnected(key(9)).await;
    let read = soon("the end", near.read(&mut [0])).await;
    assert!(matches!(read, Ok(0) | Err(_)), "{read:?}");
    assert!(soon("the end", far.read(&mut [0])).await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn only_a_member_that_is_connected_is_greeted_and_only_as_long_as_it_is() {
    let mut a = node(1, TCP).await;
    assert!(greeted(&a, &dialler(9)).await.is_none(), "a stranger");
    a.allow([key(9)]);
    assert!(
        greeted(&a, &dialler(9)).await.is_none(),
        "a member out of sight"
    );
    // Whoever leaves last: the member, or its connection.
    for is_parted in [true, false] {
        a.allow([key(9)]);
        let raw = Raw::new(9);
        raw.dials(&a).await;
        a.connected(key(9)).await;
        let (mut io, _) = greeted(&a, &dialler(9))
            .await
            .expect("a member that is connected");
        match is_parted {
            true => a.allow([]),
            false => drop(raw),
        }
        a.disconnected(key(9)).await;
        let mut said = Vec::new();
        let read = soon("the end", io.read_to_end(&mut said)).await;
        assert!(said.is_empty(), "{read:?}");
        assert!(
            greeted(&a, &dialler(9)).await.is_none(),
            "one that was connected"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_is_late_or_one_too_many_is_no_stream() {
    let usable = Usable::default();
    let io = || -> Box<dyn Io> { Box::new(futures::io::Cursor::new(Vec::new())) };
    assert!(usable.open(key(1), io()).is_none());
    let peers: Vec<_> = (1..=9).map(key).collect();
    usable.set(peers.iter().copied().collect());
    let mut first = usable.open(key(1), io()).unwrap();
    // A peer has some of them, and all together have no more than there are.
    let fill = |peer| {
        (0..)
            .map_while(|_| usable.open(peer, io()))
            .collect::<Vec<_>>()
    };
    let mut others: Vec<_> = peers[1..].iter().map(|peer| fill(*peer)).collect();
    assert_eq!(
        others.iter().map(Vec::len).collect::<Vec<_>>(),
        [128, 128, 128, 128, 128, 128, 128, 127]
    );
    assert!(usable.open(key(1), io()).is_none());
    // The last one of another peer makes room, and a peer that left has none.
    others.pop();
    assert!(usable.open(key(1), io()).is_some());
    usable.set([key(2)].into());
    assert!(first.write(b"late").await.is_err());
    assert!(usable.open(key(1), io()).is_none());
    others.clear();
    assert!(usable.open(key(2), io()).is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_end_with_the_network() {
    let (a, mut b) = pair(TCP).await;
    let (mut near, _far) = opened(&a, &mut b).await;
    assert!(near.is_direct());
    soon("a shutdown", a.net.shutdown()).await;
    let read = soon("the end", near.read(&mut [0])).await;
    assert!(read.is_err(), "{read:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_waits_ends_with_the_peer_at_both_ends() {
    let (mut a, mut b) = pair(TCP).await;
    let (mut near, mut far) = opened(&a, &mut b).await;
    assert!(near.is_direct());
    let (mut one, mut other) = ([0], [0]);
    let ends = async { tokio::join!(near.read(&mut one), far.read(&mut other)) };
    let mut ends = std::pin::pin!(ends);
    assert!(poll!(&mut ends).is_pending());
    b.allow([]);
    b.disconnected(a.key).await;
    let (near, far) = soon("the end of both", ends).await;
    assert!(matches!(near, Ok(0) | Err(_)), "{near:?}");
    assert!(far.is_err(), "{far:?}");
    a.disconnected(b.key).await;
    let again = a.net.open_stream(b.key).await;
    assert!(
        matches!(
            again,
            Err(StreamError::NotConnected(_) | StreamError::Unsupported(_))
        ),
        "{again:?}"
    );
}

#[test]
fn only_an_address_of_tcp_is_a_socket() {
    let is_one = |text: &str| socket_of(&text.parse().unwrap()).is_some();
    let peer = id_of(&key(1));
    assert!(is_one("/ip4/10.0.0.1/tcp/7432"));
    assert!(is_one(&format!("/ip6/::1/tcp/7432/p2p/{peer}")));
    for other in [
        "/ip4/10.0.0.1/udp/7432/quic-v1",
        "/ip4/10.0.0.1/udp/7432",
        "/dns4/example.com/tcp/7432",
        "/ip4/10.0.0.1/tcp/7432/ws",
    ] {
        assert!(!is_one(other), "{other}");
    }
}
