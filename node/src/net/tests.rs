//! The network on loopback sockets: who gets in, who does not, and what
//! becomes of garbage. Not the parts that are tested where they live.
#![allow(clippy::unwrap_used)]

use std::time::Duration;

use futures::{AsyncReadExt, AsyncWriteExt, StreamExt};
use libp2p::swarm::SwarmEvent;
use libp2p::swarm::dial_opts::DialOpts;
use libp2p::{PeerId, StreamProtocol, SwarmBuilder, tcp, tls, yamux};

use super::peer::id_of;

use super::*;

mod direct;
mod floods;
mod gossip;
pub(super) mod sockets;

const TCP: &str = "/ip4/127.0.0.1/tcp/0";
const QUIC: &str = "/ip4/127.0.0.1/udp/0/quic-v1";
const MESH: [u8; 32] = [0xab; 32];
/// No wait in these tests is longer; a machine under load needs much of it.
const DEADLINE: Duration = Duration::from_secs(60);

struct Node {
    net: Net,
    events: mpsc::Receiver<Event>,
    key: PeerKey,
    address: Multiaddr,
}

fn key(seed: u8) -> PeerKey {
    let pair = Keypair::ed25519_from_bytes([seed; 32]).unwrap();
    pair.public().try_into_ed25519().unwrap().to_bytes()
}

async fn try_node(seed: u8, listen: &str) -> Result<Node, StartError> {
    let config = Config::new(&mut [seed; 32], vec![listen.parse().unwrap()], false, MESH);
    let (net, events) = start(config).await?;
    let address = Multiaddr::empty();
    let mut node = Node {
        net,
        events,
        key: key(seed),
        address,
    };
    node.address = node
        .wait("a listening address", |event| match event {
            Event::Listening(address) => Some(address),
            _ => None,
        })
        .await;
    Ok(node)
}

async fn node(seed: u8, listen: &str) -> Node {
    try_node(seed, listen).await.unwrap()
}

async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    let result = timeout(DEADLINE, future).await;
    result.unwrap_or_else(|_| panic!("waited in vain for {what}"))
}

impl Node {
    /// Takes events until one is what is waited for; the others are dropped.
    async fn wait<T>(&mut self, what: &str, mut pick: impl FnMut(Event) -> Option<T>) -> T {
        soon(what, async {
            loop {
                let event = self.events.recv().await.expect("the network runs");
                if let Some(found) = pick(event) {
                    return found;
                }
            }
        })
        .await
    }

    async fn connected(&mut self, peer: PeerKey) {
        let is = |event| matches!(event, Event::Connected(p) if p == peer).then_some(());
        self.wait("a connection", is).await;
    }

    async fn disconnected(&mut self, peer: PeerKey) {
        let is = |event| matches!(event, Event::Disconnected(p) if p == peer).then_some(());
        self.wait("a disconnection", is).await;
    }

    async fn sync_request(&mut self) -> (PeerKey, Vec<u8>, Reply) {
        self.wait("a sync request", |event| match event {
            Event::SyncRequest {
                peer,
                request,
                reply,
            } => Some((peer, request, reply)),
            _ => None,
        })
        .await
    }

    async fn enrol_request(&mut self) -> (PeerKey, Vec<u8>, Reply) {
        self.wait("an enrolment request", |event| match event {
            Event::EnrolRequest {
                peer,
                request,
                reply,
            } => Some((peer, request, reply)),
            _ => None,
        })
        .await
    }

    async fn stream(&mut self) -> (PeerKey, BlockStream) {
        self.wait("a stream", |event| match event {
            Event::Stream { peer, stream } => Some((peer, stream)),
            _ => None,
        })
        .await
    }

    async fn gossip(&mut self) -> (PeerKey, Vec<u8>) {
        self.wait("gossip", |event| match event {
            Event::Gossip { peer, bytes } => Some((peer, bytes)),
            _ => None,
        })
        .await
    }

    async fn refusal(&mut self) -> (PeerKey, Refusal) {
        self.wait("a refusal", |event| match event {
            Event::Refused { peer, what } => Some((peer, what)),
            _ => None,
        })
        .await
    }

    fn allow<const N: usize>(&self, peers: [PeerKey; N]) {
        self.net.allow(peers.into());
    }

    fn dials(&self, peer: &Node) {
        self.net
            .set_addresses([(peer.key, vec![peer.address.clone()])].into());
    }

    fn says(&self, bytes: &[u8]) {
        self.net.gossip(bytes.to_vec(), None).unwrap();
    }

    /// Has one sync request answered, which proves that both sides work.
    async fn asks(&self, other: &mut Node) {
        let asked = self.net.request(other.key, b"question".to_vec());
        let answers = async {
            let (peer, request, reply) = other.sync_request().await;
            assert_eq!((peer, request.as_slice()), (self.key, &b"question"[..]));
            reply.send(b"answer".to_vec()).unwrap();
        };
        let (answer, ()) = soon("an answer", async { tokio::join!(asked, answers) }).await;
        assert_eq!(answer.unwrap(), b"answer");
    }
}

/// Two nodes that know each other and are connected; the first dialled.
async fn pair(listen: &str) -> (Node, Node) {
    let mut a = node(1, listen).await;
    let mut b = node(2, listen).await;
    a.allow([b.key]);
    b.allow([a.key]);
    a.dials(&b);
    a.connected(b.key).await;
    b.connected(a.key).await;
    (a, b)
}

async fn copies_64_mib(a: &Node, b: &mut Node) {
    let data: Vec<u8> = (0..64u32 << 20).map(|i| (i % 251) as u8).collect();
    let hash = blake3::hash(&data);
    let key = b.key;
    let send = async {
        let mut stream = a.net.open_stream(key).await.unwrap();
        stream.write_all(&data).await.unwrap();
        stream.close().await.unwrap();
        let mut end = Vec::new();
        stream.read_to_end(&mut end).await.unwrap();
        end
    };
    let receive = async {
        let (peer, mut stream) = b.stream().await;
        let mut received = Vec::new();
        stream.read_to_end(&mut received).await.unwrap();
        stream.write_all(b"done").await.unwrap();
        stream.close().await.unwrap();
        (peer, received)
    };
    let (end, (peer, received)) = soon("64 MiB", async { tokio::join!(send, receive) }).await;
    assert_eq!(end, b"done");
    assert_eq!(peer, a.key);
    assert_eq!(blake3::hash(&received), hash);
}

async fn talk_over(listen: &str) {
    let (a, mut b) = pair(listen).await;
    let mut a = a;
    a.asks(&mut b).await;
    b.asks(&mut a).await;
    a.says(b"heads");
    assert_eq!(b.gossip().await, (a.key, b"heads".to_vec()));
    b.says(b"other heads");
    assert_eq!(a.gossip().await, (b.key, b"other heads".to_vec()));
    copies_64_mib(&a, &mut b).await;
    soon("a shutdown", a.net.shutdown()).await;
    b.disconnected(a.key).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_enrolled_nodes_ask_gossip_and_copy_over_tcp() {
    talk_over(TCP).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_enrolled_nodes_ask_gossip_and_copy_over_quic() {
    talk_over(QUIC).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_largest_request_and_answer_pass_and_longer_ones_are_refused_here() {
    let (a, mut b) = pair(TCP).await;
    let asked = a.net.request(b.key, vec![1; SYNC_LIMIT]);
    let answers = async {
        let (_, request, reply) = b.sync_request().await;
        assert_eq!(request.len(), SYNC_LIMIT);
        reply.send(vec![2; SYNC_LIMIT]).unwrap();
    };
    let (answer, ()) = soon("an answer", async { tokio::join!(asked, answers) }).await;
    assert_eq!(answer.unwrap(), vec![2; SYNC_LIMIT]);
    let long = a.net.request(b.key, vec![1; SYNC_LIMIT + 1]).await;
    assert!(matches!(long, Err(RequestError::TooLong(_))), "{long:?}");
    let largest = vec![3; GOSSIP_LIMIT];
    a.says(&largest);
    assert_eq!(b.gossip().await.1.len(), GOSSIP_LIMIT);
    assert!(a.net.gossip(vec![3; GOSSIP_LIMIT + 1], None).is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reply_that_is_dropped_tells_the_peer_that_it_was_refused() {
    let (a, mut b) = pair(TCP).await;
    let asked = a.net.request(b.key, Vec::new());
    let drops = async { drop(b.sync_request().await) };
    let (answer, ()) = soon("an answer", async { tokio::join!(asked, drops) }).await;
    assert!(
        matches!(answer, Err(RequestError::Refused(p)) if p == b.key),
        "{answer:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stranger_reaches_enrolment_and_nothing_else() {
    let mut a = node(1, TCP).await;
    let mut member = node(2, TCP).await;
    let mut stranger = node(3, TCP).await;
    a.allow([member.key]);
    member.allow([a.key]);
    member.dials(&a);
    member.connected(a.key).await;
    // The stranger takes us for a peer, and so tries everything.
    stranger.allow([a.key]);
    stranger.dials(&a);
    stranger.connected(a.key).await;

    let asked = stranger.net.request(a.key, b"sync".to_vec()).await;
    assert!(
        matches!(asked, Err(RequestError::Unsupported(_))),
        "{asked:?}"
    );
    let opened = stranger.net.open_stream(a.key).await;
    assert!(
        matches!(opened, Err(StreamError::Unsupported(_))),
        "{opened:?}"
    );
    stranger.says(b"strange");
    let enrols = stranger.net.enrol(Vec::new(), a.key, b"let me in".to_vec());
    let answers = async {
        // Everything the stranger did before would have come first.
        let event = soon("an enrolment", async {
            loop {
                match a.events.recv().await.unwrap() {
                    Event::Connected(peer) => assert_eq!(peer, member.key),
                    other => return other,
                }
            }
        });
        let Event::EnrolRequest {
            peer,
            request,
            reply,
        } = event.await
        else {
            panic!("a stranger got through");
        };
        assert_eq!(
            (peer, request.as_slice()),
            (stranger.key, &b"let me in"[..])
        );
        reply.send(b"no".to_vec()).unwrap();
    };
    let (answer, ()) = soon("an answer", async { tokio::join!(enrols, answers) }).await;
    assert_eq!(answer.unwrap(), b"no");

    // Our gossip goes to the member and not to the stranger; the stranger's
    // goes nowhere.
    a.says(b"members only");
    assert_eq!(member.gossip().await.1, b"members only");
    stranger.says(b"strange");
    member.says(b"member");
    assert_eq!(a.gossip().await.0, member.key);
    a.asks(&mut member).await;
    while let Ok(event) = stranger.events.try_recv() {
        assert!(!matches!(event, Event::Gossip { .. }), "{event:?}");
    }
}

async fn enrols_over(listen: &str) {
    let mut admitter = node(1, listen).await;
    let mut joiner = node(2, listen).await;
    let addresses = vec![admitter.address.clone()];
    let enrols = joiner
        .net
        .enrol(addresses, admitter.key, b"invite".to_vec());
    let admits = async {
        let (peer, _, reply) = admitter.enrol_request().await;
        assert_eq!(peer, joiner.key);
        reply.send(vec![7; ENROL_LIMIT]).unwrap();
        // At once, while the answer is still on its way.
        admitter.allow([peer]);
    };
    let (answer, ()) = soon("an answer", async { tokio::join!(enrols, admits) }).await;
    assert_eq!(answer.unwrap(), vec![7; ENROL_LIMIT]);
    joiner.allow([admitter.key]);
    joiner.dials(&admitter);
    joiner.connected(admitter.key).await;
    admitter.connected(joiner.key).await;
    joiner.asks(&mut admitter).await;
    admitter.asks(&mut joiner).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_that_was_enrolled_dials_again_and_is_let_in_over_tcp() {
    enrols_over(TCP).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_that_was_enrolled_dials_again_and_is_let_in_over_quic() {
    enrols_over(QUIC).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_that_came_before_it_was_allowed_is_let_in_once_it_is() {
    let mut a = node(1, TCP).await;
    let mut b = node(2, TCP).await;
    b.allow([a.key]);
    b.dials(&a);
    b.connected(a.key).await;
    let asked = b.net.request(a.key, Vec::new()).await;
    assert!(
        matches!(asked, Err(RequestError::Unsupported(_))),
        "{asked:?}"
    );
    a.allow([b.key]);
    // Well before a stranger's connection would have ended by itself.
    let again = timeout(Duration::from_secs(10), async {
        b.disconnected(a.key).await;
        b.connected(a.key).await;
        a.connected(b.key).await;
    });
    again.await.unwrap();
    b.asks(&mut a).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_dropped_from_the_set_is_cut_off_with_its_streams() {
    let (mut a, mut b) = pair(TCP).await;
    let mut stream = b.net.open_stream(a.key).await.unwrap();
    let (_, mut inbound) = a.stream().await;
    a.allow([]);
    a.disconnected(b.key).await;
    b.disconnected(a.key).await;
    let mut byte = [0];
    let read = soon("the stream to end", inbound.read(&mut byte)).await;
    assert!(matches!(read, Ok(0) | Err(_)), "{read:?}");
    let write = soon("writing to fail", async {
        loop {
            if let Err(error) = stream.write_all(&[0; 1024]).await {
                return error;
            }
        }
    });
    write.await;
    let asked = a.net.request(b.key, Vec::new()).await;
    assert!(
        matches!(asked, Err(RequestError::NotEnrolled(_))),
        "{asked:?}"
    );
    let opened = a.net.open_stream(b.key).await;
    assert!(
        matches!(opened, Err(StreamError::NotEnrolled(_))),
        "{opened:?}"
    );
    // It may dial, but is a stranger now.
    b.dials(&a);
    b.connected(a.key).await;
    let asked = b.net.request(a.key, Vec::new()).await;
    assert!(
        matches!(asked, Err(RequestError::Unsupported(_))),
        "{asked:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_has_its_block_streams_at_once_and_more_when_they_end() {
    let (a, mut b) = pair(TCP).await;
    let mut held = Vec::new();
    for _ in 0..MAX_STREAMS_PER_PEER {
        let stream = a.net.open_stream(b.key).await.unwrap();
        held.push((stream, b.stream().await.1));
    }
    let further = a.net.open_stream(b.key).await;
    assert!(
        matches!(further, Err(StreamError::Refused(_))),
        "{further:?}"
    );
    let limit = MAX_STREAMS_PER_PEER;
    assert_eq!(
        b.refusal().await,
        (a.key, Refusal::TooManyStreams { limit })
    );
    held.pop();
    a.net.open_stream(b.key).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_opened_at_the_same_moment_are_not_lost() {
    let (a, mut b) = pair(QUIC).await;
    for _ in 0..20 {
        let both = async { tokio::join!(a.net.open_stream(b.key), a.net.open_stream(b.key)) };
        let (first, second) = soon("two streams", both).await;
        let (_first, _second) = (first.unwrap(), second.unwrap());
        b.stream().await;
        b.stream().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_that_went_away_is_found_again_where_it_was() {
    let (mut a, b) = pair(TCP).await;
    let (key, address) = (b.key, b.address.to_string());
    soon("a shutdown", b.net.shutdown()).await;
    a.disconnected(key).await;
    let asked = a.net.request(key, Vec::new()).await;
    assert!(
        matches!(asked, Err(RequestError::NotConnected(_))),
        "{asked:?}"
    );
    let mut b = node(2, &address).await;
    b.allow([a.key]);
    a.connected(key).await;
    b.connected(a.key).await;
    a.asks(&mut b).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_enrolment_nobody_hears_says_where_it_tried() {
    let a = node(1, TCP).await;
    let gone = node(2, TCP).await;
    let (key, address) = (gone.key, gone.address.clone());
    soon("a shutdown", gone.net.shutdown()).await;
    let asked = a.net.enrol(vec![address.clone()], key, Vec::new()).await;
    let Err(RequestError::Unreachable { peer, reason }) = asked else {
        panic!("{asked:?}");
    };
    assert_eq!(peer, key);
    assert!(reason.contains(&address.to_string()), "{reason}");
    let other = node(3, TCP).await;
    let asked = a.net.enrol(vec![other.address.clone()], key, Vec::new());
    let asked = asked.await;
    assert!(
        matches!(asked, Err(RequestError::Unreachable { .. })),
        "{asked:?}"
    );
    let asked = a.net.enrol(Vec::new(), key, Vec::new()).await;
    assert!(
        matches!(asked, Err(RequestError::Unreachable { .. })),
        "{asked:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_port_in_use_is_named_with_what_to_do() {
    for listen in [TCP, QUIC] {
        let a = node(1, listen).await;
        let Err(error) = try_node(2, &a.address.to_string()).await else {
            panic!("two nodes listen on {}", a.address);
        };
        assert!(matches!(&error, StartError::AddressInUse { address } if *address == a.address));
        assert!(error.to_string().contains("choose another port"), "{error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_nobody_can_listen_on_is_told_from_one_that_is_not_ours() {
    let Err(error) = try_node(1, "/ip4/127.0.0.1").await else {
        panic!("listening without a port");
    };
    assert!(matches!(error, StartError::BadAddress { .. }), "{error}");
    // Reserved for future use: it belongs to no machine.
    let Err(error) = try_node(1, "/ip4/240.0.0.1/tcp/4001").await else {
        panic!("listening on an address of nobody");
    };
    assert!(matches!(error, StartError::Listen { .. }), "{error}");
}

/// A peer that speaks libp2p but writes what it likes.
struct Raw {
    control: libp2p_stream::Control,
    key: PeerKey,
    dial: mpsc::Sender<(DialOpts, oneshot::Sender<()>)>,
}

impl Raw {
    fn new(seed: u8) -> Raw {
        let pair = Keypair::ed25519_from_bytes([seed; 32]).unwrap();
        let mut swarm = SwarmBuilder::with_existing_identity(pair)
            .with_tokio()
            .with_tcp(tcp::Config::new(), tls::Config::new, yamux::Config::default)
            .unwrap()
            .with_behaviour(|_| libp2p_stream::Behaviour::new())
            .unwrap()
            .with_swarm_config(|swarm| swarm.with_idle_connection_timeout(DEADLINE))
            .build();
        let control = swarm.behaviour().new_control();
        let (dial, mut dials) = mpsc::channel::<(DialOpts, oneshot::Sender<()>)>(1);
        tokio::spawn(async move {
            let mut connected = None;
            loop {
                tokio::select! {
                    event = swarm.select_next_some() => {
                        if let SwarmEvent::ConnectionEstablished { .. } = event {
                            connected.take().map(|done: oneshot::Sender<()>| done.send(()));
                        }
                    }
                    dial = dials.recv() => match dial {
                        Some((dial, done)) => {
                            connected = Some(done);
                            swarm.dial(dial).unwrap();
                        }
                        None => return,
                    }
                }
            }
        });
        let key = key(seed);
        Raw { control, key, dial }
    }

    fn protocol(name: &str) -> StreamProtocol {
        let name = format!("/dunlin/{}/{name}", hex::encode(&MESH[..4]));
        StreamProtocol::try_from_owned(name).unwrap()
    }

    async fn open(&mut self, peer: &Node, protocol: &str) -> Option<libp2p::Stream> {
        let id: PeerId = id_of(&peer.key);
        let opened = self.control.open_stream(id, Raw::protocol(protocol));
        soon("a raw stream", opened).await.ok()
    }

    async fn dials(&self, peer: &Node) {
        let dial = DialOpts::peer_id(id_of(&peer.key))
            .addresses(vec![peer.address.clone()])
            .build();
        let (done, connected) = oneshot::channel();
        self.dial.send((dial, done)).await.unwrap();
        soon("a raw connection", connected).await.unwrap();
    }

    /// Writes bytes to a protocol, ends the stream, and waits until the other
    /// side has ended it, too.
    async fn write(&mut self, peer: &Node, protocol: &str, bytes: &[u8]) {
        let mut stream = self.open(peer, protocol).await.unwrap();
        soon("the end of a stream", async {
            // The other side may have given up before all of it is written.
            let _ = stream.write_all(bytes).await;
            let _ = stream.close().await;
            let _ = stream.read_to_end(&mut Vec::new()).await;
        })
        .await;
    }
}

fn frame_refusal(protocol: Protocol, error: FrameError) -> Refusal {
    Refusal::Frame { protocol, error }
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_frames_are_refused_by_name_and_others_go_on() {
    let (mut a, mut b) = pair(TCP).await;
    let mut raw = Raw::new(9);
    b.allow([a.key, raw.key]);
    raw.dials(&b).await;
    b.connected(raw.key).await;
    let cases = [
        ("enrol/1", Protocol::Enrol, ENROL_LIMIT),
        ("sync/1", Protocol::Sync, SYNC_LIMIT),
    ];
    for (name, protocol, limit) in cases {
        let len = limit + 1;
        let prefix = u32::try_from(len).unwrap().to_be_bytes();
        raw.write(&b, name, &prefix).await;
        let oversized = frame_refusal(protocol, FrameError::Oversized { len, limit });
        assert_eq!(b.refusal().await, (raw.key, oversized));

        raw.write(&b, name, &[0, 0, 1, 0, 42]).await;
        let truncated = frame_refusal(protocol, FrameError::Truncated);
        assert_eq!(b.refusal().await, (raw.key, truncated));

        raw.write(&b, name, &[0xff; 100_000]).await;
        let (peer, what) = b.refusal().await;
        assert_eq!(peer, raw.key);
        let Refusal::Frame {
            error: FrameError::Oversized { .. },
            ..
        } = what
        else {
            panic!("{what:?}");
        };
    }
    a.asks(&mut b).await;
    b.asks(&mut a).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn garbage_on_gossip_ping_and_block_streams_hurts_nobody_else() {
    let (mut a, mut b) = pair(TCP).await;
    let mut raw = Raw::new(9);
    b.allow([a.key, raw.key]);
    raw.dials(&b).await;
    b.connected(raw.key).await;
    // A block stream is opened whatever is on it: its garbage is the reader's.
    let mut stream = raw.open(&b, "blocks/1").await.unwrap();
    let (peer, mut inbound) = b.stream().await;
    assert_eq!(peer, raw.key);
    stream.write_all(&[0xee; 1000]).await.unwrap();
    let mut bytes = [0; 1000];
    soon("garbage", inbound.read_exact(&mut bytes))
        .await
        .unwrap();
    assert_eq!(bytes, [0xee; 1000]);
    drop((stream, inbound));
    let (len, limit) = (u32::MAX as usize, GOSSIP_LIMIT);
    let too_long: (&[u8], _) = (&[0xff; 100_000], FrameError::Oversized { len, limit });
    let too_short: (&[u8], _) = (&[0, 0, 1, 0, 42], FrameError::Truncated);
    for (garbage, error) in [too_long, too_short] {
        raw.write(&b, "gossip/2", garbage).await;
        assert_eq!(b.refusal().await, (raw.key, Refusal::Gossip(error)));
    }
    a.says(b"still here");
    assert_eq!(b.gossip().await.0, a.key);
    a.asks(&mut b).await;
    b.asks(&mut a).await;
    copies_64_mib(&a, &mut b).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_frames_of_a_stranger_are_refused_by_name() {
    let (a, mut b) = pair(TCP).await;
    let mut raw = Raw::new(9);
    raw.dials(&b).await;
    raw.write(&b, "enrol/1", &[0xff; 5]).await;
    let len = u32::MAX as usize;
    let limit = ENROL_LIMIT;
    let oversized = frame_refusal(Protocol::Enrol, FrameError::Oversized { len, limit });
    assert_eq!(b.refusal().await, (raw.key, oversized));
    for closed in ["sync/1", "blocks/1", "gossip/2"] {
        assert!(raw.open(&b, closed).await.is_none(), "{closed} is open");
    }
    a.asks(&mut b).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn strangers_fill_their_own_places_and_not_those_of_members() {
    let mut a = node(1, TCP).await;
    let mut strangers = Vec::new();
    for seed in 0..gate::MAX_STRANGERS as u8 {
        let mut raw = Raw::new(100 + seed);
        raw.dials(&a).await;
        // An open stream proves that the connection stands.
        let stream = raw.open(&a, "enrol/1").await.unwrap();
        strangers.push((raw, stream));
    }
    let late = node(2, TCP).await;
    let addresses = vec![a.address.clone()];
    let asked = late.net.enrol(addresses, a.key, b"too late".to_vec()).await;
    assert!(
        matches!(asked, Err(RequestError::Broken { .. })),
        "{asked:?}"
    );
    let mut member = node(3, TCP).await;
    a.allow([member.key]);
    member.allow([a.key]);
    member.dials(&a);
    member.connected(a.key).await;
    member.asks(&mut a).await;
}
