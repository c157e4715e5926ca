//! Who hears what is said to all, and whom a node is connected to.

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn gossip_reaches_every_neighbour_but_one_and_nobody_who_is_no_member() {
    let mut a = node(1, TCP).await;
    let mut between = node(2, TCP).await;
    let mut far = node(3, TCP).await;
    a.allow([between.key]);
    between.allow([a.key, far.key]);
    far.allow([between.key]);
    a.dials(&between);
    far.dials(&between);
    a.connected(between.key).await;
    far.connected(between.key).await;
    // In whatever order they come.
    let mut come = BTreeSet::from([a.key, far.key]);
    while !come.is_empty() {
        come.remove(&next_connected(&mut between).await);
    }
    // Nothing is passed on by the network itself.
    far.says(b"from far");
    assert_eq!(between.gossip().await, (far.key, b"from far".to_vec()));
    let not_to = Some(a.key);
    between.net.gossip(b"passed on".to_vec(), not_to).unwrap();
    between.says(b"to all");
    assert_eq!(far.gossip().await, (between.key, b"passed on".to_vec()));
    assert_eq!(far.gossip().await, (between.key, b"to all".to_vec()));
    assert_eq!(a.gossip().await, (between.key, b"to all".to_vec()));

    between.allow([far.key]);
    between.disconnected(a.key).await;
    between.says(b"after it");
    assert_eq!(far.gossip().await.1, b"after it");
    a.disconnected(between.key).await;
    while let Ok(event) = a.events.try_recv() {
        assert!(!matches!(event, Event::Gossip { .. }), "{event:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_that_does_not_listen_holds_up_nobody_and_hears_what_is_newest() {
    let (mut a, mut b) = pair(TCP).await;
    let mut deaf = Raw::new(9);
    let mut streams = deaf.control.accept(Raw::protocol("gossip/2")).unwrap();
    a.allow([b.key, deaf.key]);
    deaf.dials(&a).await;
    a.connected(deaf.key).await;
    let (_, mut stream) = soon("a gossip stream", streams.next()).await.unwrap();
    soon("a greeting", stream.write_all(&[1])).await.unwrap();
    // More than any window or queue holds.
    for number in 0..400u32 {
        let mut message = vec![7; GOSSIP_LIMIT];
        message[..4].copy_from_slice(&number.to_be_bytes());
        a.says(&message);
        assert_eq!(b.gossip().await.1, message);
    }
    let mut heard = vec![];
    while heard.last() != Some(&399) {
        let mut frame = vec![0; 4 + GOSSIP_LIMIT];
        soon("a message", stream.read_exact(&mut frame))
            .await
            .unwrap();
        heard.push(u32::from_be_bytes([frame[4], frame[5], frame[6], frame[7]]));
    }
    assert!(heard.is_sorted() && heard.len() < 400, "{}", heard.len());
    a.asks(&mut b).await;
}

/// That a key is in two places is found by what both say.
#[tokio::test(flavor = "multi_thread")]
async fn a_key_in_two_places_is_heard_from_both() {
    let mut places = [node(1, TCP).await, node(1, TCP).await];
    let mut hears = node(2, TCP).await;
    hears.allow([places[0].key]);
    for place in &mut places {
        place.allow([hears.key]);
        place.dials(&hears);
        place.connected(hears.key).await;
    }
    for number in 0..20 {
        for (at, place) in (0..).zip(&places) {
            place.says(&[at, number]);
            assert_eq!(hears.gossip().await, (place.key, vec![at, number]));
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn of_many_members_a_few_are_dialled_and_a_partner_is_always_among_them() {
    let mut a = node(1, TCP).await;
    let mut others = Vec::new();
    for seed in 10..30 {
        let other = node(seed, TCP).await;
        other.allow([a.key]);
        others.push(other);
    }
    let keys: BTreeSet<PeerKey> = others.iter().map(|other| other.key).collect();
    let addresses = others
        .iter()
        .map(|other| (other.key, vec![other.address.clone()]));
    a.net.allow(keys.clone());
    a.net.set_addresses(addresses.collect());
    let few = mesh::view::RING + mesh::view::LONG;
    let mut connected = BTreeSet::new();
    while connected.len() < few {
        connected.insert(next_connected(&mut a).await);
    }
    // Whoever else is wanted is being dialled already, and comes before or after it.
    let partner = *keys.difference(&connected).next().unwrap();
    a.net.set_partners([partner].into());
    while !connected.contains(&partner) {
        connected.insert(next_connected(&mut a).await);
    }
    assert!(connected.len() < keys.len(), "{}", connected.len());
}

async fn next_connected(node: &mut Node) -> PeerKey {
    let is = |event| match event {
        Event::Connected(peer) => Some(peer),
        _ => None,
    };
    node.wait("a connection", is).await
}
