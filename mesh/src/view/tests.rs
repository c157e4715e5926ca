//! A view stays small and in one piece, whoever comes and goes.
#![allow(clippy::unwrap_used)]

use super::*;

fn key(number: u16) -> PublicKey {
    PublicKey(*blake3::hash(&number.to_le_bytes()).as_bytes())
}

fn members(count: u16) -> BTreeMap<PublicKey, bool> {
    (0..count).map(|number| (key(number), true)).collect()
}

fn step(view: &mut View, now: u64, input: Input) -> Vec<Output> {
    let mut out = vec![];
    view.step(now, input, &mut out);
    out
}

/// A view of member 0 of some, with everybody it wants connected.
fn settled(count: u16) -> View {
    let mut view = View::new(key(0), 7);
    step(&mut view, 0, Input::Members(members(count)));
    connect_wanted(&mut view, 0, |_| true);
    view
}

/// Dials whom the view wants until it wants nobody else; those that are dead fail.
fn connect_wanted(view: &mut View, now: u64, is_alive: impl Fn(&PublicKey) -> bool) {
    while let Some(peer) = view
        .wanted()
        .iter()
        .find(|peer| !view.links.contains_key(peer))
        .copied()
    {
        let is_inbound = false;
        let input = match is_alive(&peer) {
            true => Input::Connected { peer, is_inbound },
            false => Input::DialFailed(peer),
        };
        step(view, now, input);
    }
}

fn closed(out: &[Output]) -> Vec<PublicKey> {
    let closed = out.iter().filter_map(|output| match output {
        Output::Close(peer) => Some(*peer),
        Output::Want(_) => None,
    });
    closed.collect()
}

#[test]
fn in_a_small_mesh_everybody_is_wanted_and_in_a_large_one_a_few() {
    assert_eq!(settled(6).wanted().len(), 5);
    assert_eq!(settled(1000).wanted().len(), RING + LONG);
    let mut alone = View::new(key(0), 7);
    step(&mut alone, 0, Input::Members(members(1000)));
    assert_eq!(alone.wanted().len(), RING_PENDING + LONG);
    // Those drawn at random are others than those on the ring.
    let mut small = View::new(key(0), 7);
    step(&mut small, 0, Input::Members(members(9)));
    assert!(small.long.is_disjoint(&small.ring(0)));
    assert_eq!(small.wanted().len(), 8);
}

#[test]
fn the_members_next_on_the_ring_are_wanted_and_the_dead_among_them_skipped() {
    let mut order: Vec<PublicKey> = members(100).into_keys().collect();
    let at = order.iter().position(|one| *one == key(0)).unwrap();
    order.rotate_left(at);
    let dead = &order[1..5];
    let mut view = View::new(key(0), 7);
    step(&mut view, 0, Input::Members(members(100)));
    connect_wanted(&mut view, 0, |peer| !dead.contains(peer));
    for live in &order[5..5 + RING] {
        assert!(view.wanted().contains(live));
    }
    // They are tried again, and take their place once they are back.
    let again = view.deadline_millis(0).unwrap();
    assert!(again <= FIRST_PAUSE_MILLIS);
    step(&mut view, FIRST_PAUSE_MILLIS, Input::Tick);
    assert!(dead.iter().any(|peer| view.wanted().contains(peer)));
    connect_wanted(&mut view, FIRST_PAUSE_MILLIS, |_| true);
    let ring = view.ring(FIRST_PAUSE_MILLIS);
    assert_eq!(ring, order[1..1 + RING].iter().copied().collect());
}

#[test]
fn who_cannot_be_dialled_is_not_wanted_unless_it_came_by_itself() {
    let mut view = View::new(key(0), 7);
    let known = (1..4).map(|number| (key(number), number == 1)).collect();
    step(&mut view, 0, Input::Members(known));
    assert_eq!(view.wanted(), &BTreeSet::from([key(1)]));
    let peer = key(2);
    let is_inbound = true;
    step(&mut view, 0, Input::Connected { peer, is_inbound });
    assert_eq!(view.wanted(), &BTreeSet::from([key(1), key(2)]));
}

#[test]
fn tries_grow_further_apart_and_start_anew_after_a_connection_that_lasted() {
    let mut view = View::new(key(0), 7);
    step(&mut view, 0, Input::Members(members(2)));
    let mut now = 0;
    for tries in 0..80 {
        assert!(view.wanted().contains(&key(1)));
        step(&mut view, now, Input::DialFailed(key(1)));
        assert!(view.wanted().is_empty());
        let pause = view.away[&key(1)].until - now;
        let whole = (FIRST_PAUSE_MILLIS << tries.min(20)).min(LONGEST_PAUSE_MILLIS);
        assert!(pause >= whole / 2 && pause <= whole, "{pause} of {whole}");
        now += pause;
        step(&mut view, now, Input::Tick);
    }
    let (peer, is_inbound) = (key(1), false);
    step(&mut view, now, Input::Connected { peer, is_inbound });
    // That another way to it fails is of no consequence, that it breaks at once is.
    step(&mut view, now, Input::DialFailed(peer));
    assert_eq!(view.away[&peer].tries, 80);
    step(&mut view, now + 1, Input::Disconnected(peer));
    assert_eq!(view.away[&peer].tries, 81);
    step(&mut view, now, Input::Connected { peer, is_inbound });
    step(&mut view, now + STABLE_MILLIS, Input::Disconnected(peer));
    assert!(view.away.is_empty() && view.wanted().contains(&peer));
}

#[test]
fn nobody_is_remembered_who_is_no_member() {
    let mut view = View::new(key(0), 7);
    step(&mut view, 0, Input::Members(members(3)));
    step(&mut view, 0, Input::DialFailed(key(1)));
    step(&mut view, 0, Input::DialFailed(key(7)));
    assert_eq!(view.away.keys().collect::<Vec<_>>(), [&key(1)]);
    step(&mut view, 0, Input::Members(members(1)));
    assert!(view.away.is_empty());
}

#[test]
fn a_member_drawn_at_random_whose_connection_is_lost_makes_way_for_another() {
    let mut view = settled(1000);
    let lost = *view.long.first().unwrap();
    step(&mut view, STABLE_MILLIS, Input::Disconnected(lost));
    assert!(!view.long.contains(&lost) && view.long.len() == LONG);
}

#[test]
fn a_connection_that_we_made_and_do_not_want_is_closed_after_a_while_and_one_that_came_is_not() {
    let mut view = settled(1000);
    let (ours, theirs) = (key(500), key(501));
    for (peer, is_inbound) in [(ours, false), (theirs, true)] {
        let out = step(&mut view, 0, Input::Connected { peer, is_inbound });
        assert!(closed(&out).is_empty());
    }
    let out = step(&mut view, GRACE_MILLIS - 1, Input::Tick);
    assert!(closed(&out).is_empty());
    let out = step(&mut view, GRACE_MILLIS, Input::Tick);
    assert_eq!(closed(&out), [ours]);
}

#[test]
fn members_that_are_partners_take_no_place_of_those_drawn_at_random() {
    let mut view = View::new(key(0), 7);
    let partners: BTreeSet<PublicKey> = (1..15).map(key).collect();
    step(&mut view, 0, Input::Partners(partners.clone()));
    step(&mut view, 0, Input::Members(members(40)));
    assert!(view.long.is_disjoint(&partners));
    assert_eq!(view.long.len(), LONG);
}

#[test]
fn partners_are_wanted_and_never_closed() {
    let mut view = settled(1000);
    let partners: BTreeSet<PublicKey> = (500..540).map(key).collect();
    step(&mut view, 0, Input::Partners(partners.clone()));
    assert!(view.wanted().is_superset(&partners));
    connect_wanted(&mut view, 0, |_| true);
    for number in 100..200 {
        let peer = key(number);
        let is_inbound = true;
        step(&mut view, 0, Input::Connected { peer, is_inbound });
    }
    let out = step(&mut view, GRACE_MILLIS, Input::Tick);
    assert!(!closed(&out).is_empty());
    assert!(partners.iter().all(|peer| view.links.contains_key(peer)));
    let others = view.links.keys().filter(|peer| !partners.contains(peer));
    assert_eq!(
        others.count(),
        MAX_NEIGHBOURS,
        "partners take no place of others"
    );
    let many = (0..1000).map(key).collect();
    step(&mut view, 0, Input::Partners(many));
    assert!(view.wanted().len() <= MAX_PARTNERS + RING + RING_PENDING + LONG);
}

#[test]
fn a_partner_that_leaves_the_mesh_is_forgotten_at_once() {
    let mut view = View::new(key(0), 7);
    step(&mut view, 0, Input::Members(members(3)));
    let partners = BTreeSet::from([key(1), key(2)]);
    step(&mut view, 0, Input::Partners(partners));
    connect_wanted(&mut view, 0, |_| true);
    let out = step(&mut view, STABLE_MILLIS, Input::Members(members(2)));
    assert!(closed(&out).is_empty(), "that is the shell's to do");
    assert_eq!(view.links.keys().collect::<Vec<_>>(), [&key(1)]);
    // Even one that connects before it is known to be a member again.
    let (peer, is_inbound) = (key(2), false);
    step(
        &mut view,
        STABLE_MILLIS,
        Input::Connected { peer, is_inbound },
    );
    step(&mut view, STABLE_MILLIS + GRACE_MILLIS, Input::Tick);
    assert_eq!(view.links.len(), 1);
}

#[test]
fn inbound_connections_beyond_the_limit_have_a_time_at_which_they_are_closed() {
    let mut view = settled(1000);
    for number in 100..140 {
        let peer = key(number);
        let is_inbound = true;
        step(&mut view, 0, Input::Connected { peer, is_inbound });
    }
    assert!(view.links.len() > MAX_NEIGHBOURS);
    let at = view.deadline_millis(0).unwrap();
    assert_eq!(at, GRACE_MILLIS);
    let out = step(&mut view, at - 1, Input::Tick);
    assert!(
        closed(&out).is_empty(),
        "who has just come may be catching up"
    );
    // With what is not wanted any more gone, no more are closed than are too many.
    for number in 140..145 {
        let peer = key(number);
        let is_inbound = false;
        step(&mut view, 0, Input::Connected { peer, is_inbound });
    }
    let gone = closed(&step(&mut view, at, Input::Tick));
    assert_eq!(view.links.len(), MAX_NEIGHBOURS);
    let once: BTreeSet<&PublicKey> = gone.iter().collect();
    assert_eq!(once.len(), gone.len());
}

#[test]
fn beyond_the_limit_the_least_useful_are_closed_and_in_a_rush_at_once() {
    let mut view = settled(1000);
    let wanted = view.wanted().clone();
    for (now, number) in (0..).zip(100..400) {
        let peer = key(number);
        let is_inbound = true;
        step(&mut view, now, Input::Connected { peer, is_inbound });
        assert!(
            view.links.len() <= 2 * MAX_NEIGHBOURS,
            "{}",
            view.links.len()
        );
    }
    let before = view.before_me();
    step(&mut view, GRACE_MILLIS + 400, Input::Tick);
    assert_eq!(view.links.len(), MAX_NEIGHBOURS);
    let kept = |peer: &PublicKey| view.links.contains_key(peer);
    assert!(wanted.iter().chain(&before).all(kept));
    assert!(kept(&key(399)), "the newest has had no time yet");
}

#[test]
fn members_drawn_at_random_are_exchanged_one_at_a_time_and_the_old_ones_let_go() {
    let mut view = settled(1000);
    let before = view.long.clone();
    let at = view.redraw_at;
    step(&mut view, at, Input::Tick);
    assert_eq!(view.long.intersection(&before).count(), LONG - 1);
    assert_eq!(view.links.len(), RING + LONG - 1, "the old one is closed");
    connect_wanted(&mut view, at, |_| true);
    assert_eq!(view.links.len(), RING + LONG);
}

#[test]
fn whatever_half_is_left_hangs_together() {
    let all: Vec<PublicKey> = members(200).into_keys().collect();
    let alive: BTreeSet<PublicKey> = (0..200).filter(|n| n % 2 == 0).map(key).collect();
    let mut edges: BTreeMap<PublicKey, BTreeSet<PublicKey>> = BTreeMap::new();
    for (seed, me) in (0..).zip(&alive) {
        let mut view = View::new(*me, seed);
        let known = all.iter().map(|key| (*key, true)).collect();
        step(&mut view, 0, Input::Members(known));
        connect_wanted(&mut view, 0, |peer| alive.contains(peer));
        for peer in view.links.keys() {
            edges.entry(*me).or_default().insert(*peer);
            edges.entry(*peer).or_default().insert(*me);
        }
    }
    let mut reached = BTreeSet::new();
    let mut next: Vec<PublicKey> = alive.iter().take(1).copied().collect();
    while let Some(key) = next.pop() {
        if reached.insert(key) {
            next.extend(&edges[&key]);
        }
    }
    assert_eq!(reached, alive);
}
