//! Who may expel whom, what it takes along, and what is seen of it afterwards.

use crate::harness::{Lab, Node, eventually};
use serde_json::Value;

fn shown(at: &Node, name: &str) -> Value {
    at.run(&["node", "show", name]).ok()
}

fn migrations(at: &Node) -> usize {
    let list = at.run(&["migration", "list"]).ok();
    list.as_array().unwrap().len()
}

/// Waits until `at` knows what can be planned: the agent's disk and the cloud.
fn until_plannable(at: &Node) {
    eventually("disk and cloud are known", || {
        let servers = at.run(&["server", "list"]).ok();
        let target = at.run(&["node", "show", "target"]);
        let target: Value = serde_json::from_str(&target.stdout).ok()?;
        let ready = !servers[0]["disks"].as_array()?.is_empty()
            && !target["providers"].as_array()?.is_empty()
            && shown(at, "another")["reported_at"].is_string();
        ready.then_some(())
    });
}

/// A founder with its root key, a second operator, a target with both of its roles, another
/// replicator, and an agent that offers a disk.
struct Pair {
    founder: Node,
    second: Node,
    agent: Node,
    _others: [Node; 2],
}

impl Pair {
    fn new(lab: &Lab) -> Self {
        let mut founder = lab.node("founder");
        founder
            .run(&["mesh", "init", "--node-name", "founder"])
            .ok();
        founder.start();
        let join = |name, roles| {
            let mut node = lab.joiner(&founder, name, roles);
            node.start();
            node
        };
        let target = join("target", "provisioner,replicator");
        let another = join("another", "replicator");
        let agent = join("agent", "agent");
        let second = join("second", "operator");
        let disk = lab.disk("disk.raw", 1, 5);
        agent.run(&["volume", "add", disk.to_str().unwrap()]).ok();
        until_plannable(&second);
        Self {
            founder,
            second,
            agent,
            _others: [target, another],
        }
    }
}

#[test]
fn what_another_operator_made_is_taken_back_by_that_one_or_with_the_root_key() {
    let lab = Lab::new();
    let Pair {
        founder, second, ..
    } = &Pair::new(&lab);
    let root = "--root-key FILE";
    let theirs = ["agent was enrolled by operator founder", root];
    second.run(&["node", "revoke", "agent"]).fails(3, &theirs);
    let operator = ["founder is an operator", root];
    second
        .run(&["node", "revoke", "founder"])
        .fails(3, &operator);
    founder.invite(&["--role", "agent"]);
    let open = |at: &Node| {
        let invites = at.run(&["invite", "list"]).ok();
        let mut invites = invites.as_array().unwrap().iter();
        let open = invites.find(|invite| invite["state"] == "open");
        open.map(|invite| invite["id"].as_str().unwrap().to_owned())
    };
    let id = eventually("the second operator knows the invite", || open(second));
    let theirs = ["is of operator founder", root];
    second.run(&["invite", "revoke", &id]).fails(3, &theirs);
    founder.run(&["invite", "revoke", &id]).ok();
    founder.run(&["node", "revoke", "agent"]).ok();
}

#[test]
fn an_operator_goes_with_what_rests_on_it_and_that_is_named_before_it_is_done() {
    let lab = Lab::new();
    let Pair {
        founder,
        second,
        agent,
        ..
    } = &Pair::new(&lab);
    let create = ["migration", "create", "--server", "agent", "--to", "local"];
    let planned = second.run(&[&create[..], &["--name", "m"]].concat()).ok();
    // The provisioner itself receives; another replicator might not reach the volumes.
    assert_eq!(planned["replicators"], Value::from(&["target"][..]));
    second.run(&["migration", "start", "m"]).ok();
    let line = second.invite(&["--role", "agent"]);
    lab.node("late").join(&line).ok();
    eventually("the founder knows it all", || {
        let list = founder.run(&["migration", "list"]).ok();
        let started = list[0]["exposure"].is_object();
        let late = founder.run(&["node", "show", "late"]);
        (started && late.status.success()).then_some(())
    });

    let none = ["node", "revoke", "second", "--honour-through", "none"];
    let look = founder.run(&[&none[..], &["--dry-run"]].concat()).ok();
    for (what, names) in [
        ("migrations", ["m"]),
        ("granted", ["m"]),
        ("nodes", ["late"]),
    ] {
        assert_eq!(look["lapsed"][what], Value::from(&names[..]), "{look:#}");
    }
    assert_eq!(look["dry_run"], true);
    assert_eq!(shown(founder, "second")["state"], "active");
    assert_eq!(migrations(founder), 1);

    let reason = ["--reason", "laptop stolen"];
    let done = founder.run(&[&none[..], &reason].concat()).ok();
    assert_eq!(done["lapsed"], look["lapsed"], "as it was foretold");
    assert_eq!(migrations(founder), 0);
    founder.until_event("node-revoked", &["second", "laptop stolen"]);
    eventually("the agent hears why", || {
        let revoked = shown(agent, "second")["revoked"].clone();
        (revoked["reason"] == "laptop stolen" && revoked["by"] == "the root key").then_some(())
    });
}

#[test]
fn a_node_that_was_revoked_while_it_was_away_is_told_so_by_its_status() {
    let lab = Lab::new();
    let mut mesh = lab.mesh_of_three();
    mesh.agent.stop();
    mesh.operator.run(&["node", "revoke", "agent"]).ok();
    assert_eq!(shown(&mesh.operator, "agent")["revoked"]["by"], "operator");
    eventually("the replicator hears of it", || {
        (shown(&mesh.replicator, "agent")["state"] == "revoked").then_some(())
    });
    // Right after it the others still let it in, so that it hears of it by itself.
    for node in [&mut mesh.operator, &mut mesh.replicator] {
        node.stop();
        node.start();
    }
    mesh.agent.start();
    eventually("its status says what the others say", || {
        let status = mesh.agent.status();
        let by = status["node"]["said_revoked"].as_str()?.to_owned();
        ["operator", "replicator"]
            .contains(&by.as_str())
            .then_some(())
    });
    mesh.agent.until_event("said-revoked", &["was revoked"]);
}
