//! The node itself, its clock, and the other members: who is connected and how.

use super::{Facts, Live, broken, ok, on, warning};
use crate::api::model::{CheckView, NodeView};
use crate::cli::figures::{age, parse_rfc3339, span};
use crate::net::Carrier;
use libp2p::Multiaddr;

/// In a mesh of no more nodes than this beside it a node is connected to all of them; in a
/// larger one it chooses some (`mesh::view`).
const ALL_CONNECTED: usize = 8;
/// A report from further in the future than this was made by another clock. Reports count
/// in seconds.
const CLOCKS_APART_SECS: u64 = 10;

/// Whether the node may do anything, and runs. To start one that may not would help nobody.
pub(super) fn node(facts: &Facts) -> CheckView {
    let check = "node";
    let (me, mesh) = (&facts.me, &facts.mesh_name);
    if let Some(by) = &me.said_revoked {
        return broken(
            check,
            format!("{by} says that {} was revoked", me.name),
            "ask an operator; if it is so, join again in a new folder",
        );
    }
    if me.state != "active" {
        return broken(
            check,
            format!(
                "{} is `{}` in mesh {mesh}, and may do nothing",
                me.name, me.state
            ),
            "`dunlin events` says why; ask an operator",
        );
    }
    let Some(live) = &facts.live else {
        return warning(
            check,
            format!("{} of mesh {mesh} is not running", me.name),
            "start it with `dunlin run`; what needs a connection was not looked at",
        );
    };
    let version = env!("CARGO_PKG_VERSION");
    match live.may_write {
        true => ok(
            check,
            format!("{} of mesh {mesh} runs, version {version}", me.name),
        ),
        false => warning(
            check,
            format!(
                "{} of mesh {mesh} runs and has not heard from any peer",
                me.name
            ),
            "start a node that knew it; to work offline, in a folder that is no old copy, `dunlin run --alone`",
        ),
    }
}

pub(super) fn checks(facts: &Facts) -> Vec<CheckView> {
    let mut checks = vec![clock(facts)];
    if let Some(live) = &facts.live {
        checks.push(listening(live));
        checks.push(links(facts));
    }
    let others = facts.others.iter();
    checks.extend(others.map(|other| on(&other.name, member(facts, other))));
    checks
}

/// A report cannot have been made after now. That it is old says nothing: one is made when
/// something changes.
fn clock(facts: &Facts) -> CheckView {
    let check = "clock";
    let ahead = |node: &NodeView| {
        let made = parse_rfc3339(node.reported_at.as_deref()?)?;
        let ahead = made.saturating_sub(facts.now_secs);
        (ahead > CLOCKS_APART_SECS).then_some((ahead, node.name.clone()))
    };
    let ahead: Vec<_> = facts.others.iter().filter_map(ahead).collect();
    let reported = |node: &&NodeView| node.reported_at.is_some();
    let reported = facts.others.iter().filter(reported).count();
    let Some((most, name)) = ahead.iter().max() else {
        return ok(
            check,
            match reported {
                0 => "there is no other clock to compare with".to_owned(),
                _ => "no report of another node is from the future".to_owned(),
            },
        );
    };
    let todo = "set both clocks by NTP (`timedatectl`); `dunlin doctor --to NODE` measures how far they are apart";
    // One clock that all others are ahead of is itself behind.
    match ahead.len() == reported && reported > 1 {
        true => broken(
            check,
            format!(
                "this machine's clock is behind those of all others, of {name} by {} or more",
                span(*most)
            ),
            todo,
        ),
        false => warning(
            check,
            format!(
                "the clock of {name} is ahead of this machine's by {} or more",
                span(*most)
            ),
            todo,
        ),
    }
}

fn listening(live: &Live) -> CheckView {
    let check = "listening";
    let loopback =
        |address: &String| address.starts_with("/ip4/127.") || address.starts_with("/ip6/::1/");
    if live.listening.is_empty() {
        return broken(
            check,
            "it listens nowhere",
            "give it an address to listen on: `dunlin run --listen /ip4/0.0.0.0/tcp/7430`",
        );
    }
    let text = format!("it listens on {}", live.listening.join(", "));
    match live.listening.iter().all(loopback) {
        false => ok(check, text),
        true => warning(
            check,
            format!("{text}, which no other machine reaches"),
            "unless all nodes are on this machine: `dunlin run --listen /ip4/0.0.0.0/tcp/7430`",
        ),
    }
}

fn links(facts: &Facts) -> CheckView {
    let check = "links";
    let others = facts.others.len();
    let is_connected = |node: &&NodeView| node.connected == Some(true);
    match facts.others.iter().filter(is_connected).count() {
        _ if others == 0 => ok(check, "there is no other node in the mesh yet"),
        0 => broken(
            check,
            format!("none of {others} other nodes is connected"),
            "start them; look whether their addresses (`dunlin node show NODE`) can be reached from here, through firewalls on both sides",
        ),
        connected => ok(
            check,
            format!("{connected} of {others} other nodes are connected"),
        ),
    }
}

fn member(facts: &Facts, other: &NodeView) -> CheckView {
    let check = "member";
    let report = match &other.reported_at {
        Some(at) => format!("its newest report was made {}", age(at, facts.now_secs)),
        None => "it has not reported yet".to_owned(),
    };
    let Some(live) = &facts.live else {
        return ok(check, report);
    };
    if other.connected == Some(true) {
        let links = live.links.get(&other.id);
        let ways = ways(links.map(Vec::as_slice).unwrap_or_default());
        return ok(check, format!("connected{ways}; {report}"));
    }
    let text = format!("not connected; {report}");
    let todo = match other.addresses.as_slice() {
        [] => "start it; nobody has said yet where it listens".to_owned(),
        addresses => format!(
            "start it, and let one of the two reach the other: it said that it listens on {}",
            addresses.join(", ")
        ),
    };
    if live.needed.contains(&other.id) {
        let text = format!("{text}; a migration of this node's needs it");
        return broken(check, text, todo);
    }
    if live.partners.contains(&other.id) {
        let text = format!("{text}; a migration of this node's may fall back on it");
        return warning(check, text, todo);
    }
    match facts.others.len() <= ALL_CONNECTED {
        true => warning(check, text, todo),
        false => ok(check, format!("{text}; in a large mesh few are")),
    }
}

/// How a node is connected, in words; nothing where it is not known any more.
fn ways(addresses: &[Multiaddr]) -> String {
    let way = |address: &Multiaddr| match Carrier::of(address) {
        Carrier::Relay => format!("through a relay ({address})"),
        carrier => format!("directly by {carrier} ({address})"),
    };
    let ways: Vec<String> = addresses.iter().map(way).collect();
    match ways.is_empty() {
        true => String::new(),
        false => format!(" {}", ways.join(" and ")),
    }
}
