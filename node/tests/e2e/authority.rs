//! Who decides, when people and machines come and go: a second operator, a founder
//! that is lost, a node that changes its key while blocks move.

use crate::harness::{Lab, Mesh, Node, eventually, passes_of};
use serde_json::Value;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

/// A founder that keeps no root key, an agent, and a node that is the target's side.
fn mesh_without_root_key(lab: &Lab, root_key: &str) -> (Node, Node, Node) {
    let mut founder = lab.node("founder");
    let init = ["mesh", "init", "--node-name", "founder", "--root-key-out"];
    founder.run(&[&init[..], &[root_key]].concat()).ok();
    founder.start();
    let mut target = lab.joiner(&founder, "target", "provisioner,replicator");
    target.start();
    let mut agent = lab.joiner(&founder, "agent", "agent");
    agent.start();
    eventually("the founder knows what the target offers", || {
        let target = founder.run(&["node", "show", "target"]).ok();
        (!target["providers"].as_array()?.is_empty()).then_some(())
    });
    (founder, target, agent)
}

fn state_of(node: &Node, name: &str) -> Option<String> {
    let nodes = node.run(&["node", "list"]).ok();
    let mut nodes = nodes.as_array()?.iter();
    let found = nodes.find(|node| node["name"] == name)?;
    Some(found["state"].as_str()?.to_owned())
}

fn key_of(node: &Node) -> String {
    node.status()["node"]["key"].as_str().unwrap().to_owned()
}

/// `/ip4/…/p2p/…` of a running node.
fn peer_address(node: &Node) -> String {
    let status = node.status();
    let peer = status["node"]["peer_id"].as_str().unwrap();
    format!("/ip4/127.0.0.1/tcp/{}/p2p/{peer}", node.port)
}

fn migration(node: &Node) -> Value {
    node.run(&["migration", "show", "m"]).ok()
}

fn until_stage(node: &Node, stage: &str) -> Value {
    eventually(stage, || {
        let view = migration(node);
        (view["stage"] == stage).then_some(view)
    })
}

#[test]
fn a_second_operator_goes_on_when_the_founder_is_lost_and_the_root_key_makes_another() {
    let lab = Lab::new();
    let root_key = lab.path("root-key");
    let root_key = root_key.to_str().unwrap();
    let (mut founder, target, agent) = mesh_without_root_key(&lab, root_key);
    let mode = fs::metadata(root_key).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    assert!(!founder.folder.join("root.key").exists());
    let again = lab.node("again");
    again
        .run(&["mesh", "init", "--root-key-out", root_key])
        .fails(1, &["not overwritten"]);

    // Without the root key nobody is made an operator; with it, by the founder's hand.
    let invite = ["invite", "create", "--role", "operator"];
    founder.run(&invite).fails(3, &["root key", "--root-key"]);
    let line = founder.invite(&["--role", "operator", "--root-key", root_key]);
    let mut second = lab.node("second");
    second.join(&line).ok();
    second.start();
    eventually("the second operator knows the agent and its disk", || {
        state_of(&second, "agent").filter(|state| state == "active")
    });

    let disk = lab.disk("disk.raw", 24, 5);
    let path = disk.to_str().unwrap();
    agent.run(&["volume", "add", path, "--name", "disk"]).ok();
    eventually("the second operator knows the disk", || {
        let servers = second.run(&["server", "list"]).ok();
        let disks = servers[0]["disks"].as_array()?.len();
        let target = second.run(&["node", "show", "target"]).ok();
        let offers = target["providers"].as_array()?.len();
        (disks == 1 && offers == 1).then_some(())
    });
    let plan = ["migration", "create", "--server", "agent", "--to", "local"];
    second.run(&[&plan[..], &["--name", "m"]].concat()).ok();
    second.run(&["migration", "start", "m"]).ok();
    eventually("a pass", || {
        (passes_of(&migration(&second)) > 0).then_some(())
    });

    // The founder's machine is gone for good.
    founder.kill();
    fs::remove_dir_all(&founder.folder).unwrap();
    let mut third = lab.node("third");
    let peer = peer_address(&agent);
    let recover = ["mesh", "recover", "--name", "third", "--peer", &peer];
    let other = lab.path("other-root-key");
    let other = other.to_str().unwrap();
    let stranger = lab.node("stranger");
    stranger
        .run(&["mesh", "init", "--root-key-out", other])
        .ok();
    third
        .run(&[&recover[..], &["--root-key", other]].concat())
        .fails(1, &["does it belong to that mesh"]);
    third
        .run(&[&recover[..], &["--root-key", root_key]].concat())
        .ok();
    third.start();
    eventually("the new operator knows all", || {
        let known = ["founder", "second", "target", "agent"];
        let active = |name: &&str| state_of(&third, name).as_deref() == Some("active");
        let knows = known.iter().all(active) && third.status()["may_write"] == true;
        knows.then_some(())
    });

    // It takes the founder back; what that one said until then still counts.
    let revoke = ["node", "revoke", "founder", "--reason", "lost"];
    third.run(&revoke).fails(3, &["root key"]);
    let revoked = third
        .run(&[&revoke[..], &["--root-key", root_key]].concat())
        .ok();
    assert!(revoked["honoured_statements"].as_u64().unwrap() > 0);
    assert_eq!(revoked["lapsed"]["nodes"].as_array().unwrap().len(), 0);
    for node in [&second, &target, &agent] {
        eventually("the revocation is heard", || {
            state_of(node, "founder").filter(|state| state == "revoked")
        });
        assert_eq!(state_of(node, "second").as_deref(), Some("active"));
    }

    // The migration goes on, and the new operator decides in it.
    eventually("the new operator knows the migration", || {
        let list = third.run(&["migration", "list"]).ok();
        (list.as_array()?.len() == 1).then_some(())
    });
    third.run(&["migration", "cutover", "m"]).ok();
    until_stage(&third, "cut-over");
    eventually("both ends' proofs", || {
        let verify = third.run(&["verify", "m"]).ok();
        (verify["verified"] == true).then_some(())
    });
    let log = [founder.log(), third.log(), second.log()].concat();
    let seed = fs::read_to_string(root_key).unwrap();
    let seed = seed.lines().last().unwrap().rsplit(':').next().unwrap();
    assert!(seed.len() == 64 && !log.contains(seed), "a seed is logged");
    assert!(!third.folder.join("root.key").exists());
}

#[test]
fn another_operator_deletes_a_migration_and_is_told_which_grants_stay() {
    let lab = Lab::new();
    let root_key = lab.path("root-key");
    let root_key = root_key.to_str().unwrap();
    let (founder, _target, agent) = mesh_without_root_key(&lab, root_key);
    let line = founder.invite(&["--role", "operator", "--root-key", root_key]);
    let mut second = lab.node("second");
    second.join(&line).ok();
    second.start();
    let disk = lab.disk("disk.raw", 8, 5);
    let path = disk.to_str().unwrap();
    agent.run(&["volume", "add", path, "--name", "disk"]).ok();
    eventually("the founder knows the disk", || {
        let servers = founder.run(&["server", "list"]).ok();
        (!servers[0]["disks"].as_array()?.is_empty()).then_some(())
    });
    let create = ["migration", "create", "--server", "agent", "--to", "local"];
    let granted_by_the_founder = |name: &str| {
        let made = founder.run(&[&create[..], &["--name", name]].concat()).ok();
        founder.run(&["migration", "start", name]).ok();
        eventually("the second operator knows that it is started", || {
            let list = second.run(&["migration", "list"]).ok();
            let mut list = list.as_array()?.iter();
            let found = list.find(|one| one["name"] == name)?;
            // The grant comes with the ledger.
            (found["desired"] == "started" && found["exposure"].is_object()).then_some(())
        });
        made["id"].as_str().unwrap().to_owned()
    };

    let id = granted_by_the_founder("one");
    let deleted = second.run(&["migration", "delete", "one"]).ok();
    assert_eq!(deleted["desired"], "deleted");
    let standing = &deleted["standing_grants"];
    assert_eq!(standing.as_array().unwrap().len(), 1, "{deleted:#}");
    assert_eq!(standing[0]["operator"], "founder");
    eventually("the founder hears that it is deleted", || {
        let list = founder.run(&["migration", "list"]).ok();
        list.as_array()?.is_empty().then_some(())
    });
    // Its granter, and the root key, take it back.
    let again = founder.run(&["migration", "delete", &id]).ok();
    assert_eq!(again["standing_grants"], Value::Null, "{again:#}");
    granted_by_the_founder("two");
    let delete = ["migration", "delete", "two", "--root-key", root_key];
    let deleted = second.run(&delete).ok();
    assert_eq!(deleted["standing_grants"], Value::Null, "{deleted:#}");
}

#[test]
fn a_disk_that_two_operators_set_moving_apart_from_each_other_is_shown_as_a_conflict() {
    let lab = Lab::new();
    let root_key = lab.path("root-key");
    let root_key = root_key.to_str().unwrap();
    let (mut founder, mut target, mut agent) = mesh_without_root_key(&lab, root_key);
    let line = founder.invite(&["--role", "operator", "--root-key", root_key]);
    let mut second = lab.node("second");
    second.join(&line).ok();
    second.start();
    let disk = lab.disk("disk.raw", 1, 5);
    let path = disk.to_str().unwrap();
    agent.run(&["volume", "add", path, "--name", "disk"]).ok();
    eventually("the founder knows the disk", || {
        let servers = founder.run(&["server", "list"]).ok();
        (!servers[0]["disks"].as_array()?.is_empty()).then_some(())
    });
    for name in ["one", "two"] {
        let create = ["migration", "create", "--server", "agent", "--to", "local"];
        founder.run(&[&create[..], &["--name", name]].concat()).ok();
    }
    eventually("the second operator knows both", || {
        let list = second.run(&["migration", "list"]).ok();
        (list.as_array()?.len() == 2 && second.status()["may_write"] == true).then_some(())
    });
    for node in [&mut founder, &mut target, &mut agent] {
        node.stop();
    }
    second.run(&["migration", "start", "two"]).ok();
    second.stop();
    founder.extra = vec!["--alone".into()];
    founder.start();
    founder.run(&["migration", "start", "one"]).ok();
    second.start();
    for (name, other) in [("one", "two"), ("two", "one")] {
        eventually("the conflict is shown", || {
            let view = founder.run(&["migration", "show", name]).ok();
            let told = view["conflicts"].to_string();
            let words = format!("disk is moved by migration {other} as well");
            told.contains(&words).then_some(())
        });
    }
}

#[test]
fn a_copy_of_the_root_key_in_the_founders_folder_recovers_the_mesh() {
    let lab = Lab::new();
    let mut founder = lab.node("founder");
    let founded = founder
        .run(&["mesh", "init", "--node-name", "founder"])
        .ok();
    let root_key = founded["root_key"].as_str().unwrap();
    assert_eq!(Path::new(root_key), founder.folder.join("root.key"));
    founder.start();
    let operator = ["--role", "operator", "--root-key", root_key];
    founder.invite(&operator);
    let copy = lab.path("offline");
    fs::copy(root_key, &copy).unwrap();
    let mut agent = lab.joiner(&founder, "agent", "agent");
    agent.start();
    founder.kill();
    fs::remove_dir_all(&founder.folder).unwrap();

    let mut second = lab.node("second");
    let peer = peer_address(&agent);
    let recover = ["mesh", "recover", "--name", "second", "--peer", &peer];
    let recover = [&recover[..], &["--root-key", copy.to_str().unwrap()]].concat();
    fs::set_permissions(&copy, fs::Permissions::from_mode(0o644)).unwrap();
    second.run(&recover).fails(1, &["chmod go="]);
    fs::set_permissions(&copy, fs::Permissions::from_mode(0o600)).unwrap();
    second.run(&recover).ok();
    second.start();
    eventually("the new operator knows the agent", || {
        state_of(&second, "agent").filter(|state| state == "active")
    });
}

#[test]
fn an_agent_and_a_replicator_change_their_keys_while_blocks_move() {
    let lab = Lab::new();
    let mesh = lab.mesh_of_three();
    let disk = lab.disk("disk.raw", 48, 9);
    mesh.plan(&disk);
    mesh.act("start");
    mesh.until_passes(1);
    for node in [&mesh.agent, &mesh.replicator] {
        let before = key_of(node);
        let passes = passes_of(&mesh.migration());
        let rotated = node.run(&["node", "rotate-key"]).ok();
        assert_ne!(rotated["key"], before);
        assert_eq!(key_of(node), rotated["key"].as_str().unwrap());
        assert!(!node.folder.join("node.key.next").exists());
        mesh.connected();
        // The same node to all, with another key.
        eventually("the operator knows the new key", || {
            let shown = mesh.operator.run(&["node", "show", &node.name]).ok();
            (shown["key"] == rotated["key"] && shown["state"] == "active").then_some(())
        });
        mesh.until_passes(passes + 1);
    }
    mesh.cut_over(&disk);
}

#[test]
fn a_change_of_keys_is_told_and_closes_the_invites_that_named_the_old_one() {
    let lab = Lab::new();
    let mut node = lab.founder("node");
    node.start();
    node.invite(&["--role", "agent"]);
    let states = || -> Vec<String> {
        let invites = node.run(&["invite", "list"]).ok();
        let invites = invites.as_array().unwrap().iter();
        let states = invites.map(|invite| invite["state"].as_str().unwrap().to_owned());
        states.collect()
    };
    assert_eq!(states(), ["open"]);
    let rotated = node.run(&["node", "rotate-key"]).ok();
    assert_eq!(states(), ["closed"]);
    node.until_event("key-rotated", &[rotated["key"].as_str().unwrap()]);
    node.invite(&["--role", "agent"]);
    let mut now = states();
    now.sort();
    assert_eq!(now, ["closed", "open"]);
}

#[test]
fn a_node_that_was_away_while_another_changed_its_key_is_told_by_that_one() {
    let lab = Lab::new();
    let mut mesh: Mesh = lab.mesh_of_three();
    mesh.operator.kill();
    let rotated = mesh.agent.run(&["node", "rotate-key"]).ok();
    // Nobody else who has heard of it is there when the operator comes back.
    mesh.replicator.kill();
    mesh.operator.start();
    eventually("the operator lets the new key in", || {
        let shown = mesh.operator.run(&["node", "show", "agent"]).ok();
        (shown["key"] == rotated["key"] && shown["connected"] == true).then_some(())
    });
}

#[test]
fn a_change_of_keys_that_a_crash_cut_short_ends_one_way_or_the_other() {
    let lab = Lab::new();
    let mut mesh: Mesh = lab.mesh_of_three();
    let agent = &mut mesh.agent;
    // A next key that the mesh never heard of is dropped.
    let key = key_of(agent);
    agent.kill();
    let old = fs::read(agent.folder.join("node.key")).unwrap();
    let next = agent.folder.join("node.key.next");
    fs::write(&next, format!("dunlin-key-1:{}\n", "07".repeat(32))).unwrap();
    fs::set_permissions(&next, fs::Permissions::from_mode(0o600)).unwrap();
    agent.start();
    assert_eq!(key_of(agent), key);
    assert!(!next.exists());
    eventually("the agent may write", || {
        (agent.status()["may_write"] == true).then_some(())
    });
    // One that the mesh has heard of is taken up: as after a crash just before that.
    let rotated = agent.run(&["node", "rotate-key"]).ok();
    agent.kill();
    let new = agent.folder.join("node.key");
    fs::rename(&new, &next).unwrap();
    fs::write(&new, old).unwrap();
    fs::set_permissions(&new, fs::Permissions::from_mode(0o600)).unwrap();
    assert_eq!(agent.status()["node"]["key"], rotated["key"], "stopped");
    agent.start();
    assert_eq!(key_of(agent), rotated["key"].as_str().unwrap());
    assert!(!next.exists());
}
