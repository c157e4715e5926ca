//! `dunlin doctor`: the checks of a node that is stopped, runs, or is no node; and the speed
//! check between two nodes, with what refuses it.

use crate::harness::{Lab, Node, eventually, noise, pause};
use crate::metrics::{scrape, sum};
use serde_json::Value;
use std::fs;
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

/// An operator's node and an agent's, connected.
fn pair(lab: &Lab) -> (Node, Node) {
    let mut operator = lab.founder("operator");
    operator.start();
    let mut agent = lab.joiner(&operator, "agent", "agent");
    agent.start();
    for node in [&operator, &agent] {
        eventually("the two are connected", || {
            (node.status()["connected"] == 1).then_some(())
        });
    }
    (operator, agent)
}

/// The checks that a node's doctor prints, whatever it ends with.
fn checks(node: &Node) -> Vec<Value> {
    let output = node.run(&["doctor"]);
    let view: Value = serde_json::from_str(&output.stdout)
        .unwrap_or_else(|error| panic!("{error} in {output:?}"));
    let failed = view["state"] == "failed";
    assert_eq!(output.status.code(), Some(i32::from(failed)), "{output:?}");
    let checks = view["checks"].as_array().unwrap().clone();
    for check in &checks {
        assert_eq!(check["todo"].is_string(), check["state"] != "ok", "{check}");
    }
    checks
}

/// The state of one check.
fn state(checks: &[Value], name: &str) -> String {
    let found = checks.iter().find(|check| check["check"] == name);
    let found = found.unwrap_or_else(|| panic!("no {name} in {checks:#?}"));
    found["state"].as_str().unwrap().to_owned()
}

#[test]
fn the_doctor_looks_at_a_node_that_runs_is_stopped_or_is_none() {
    let lab = Lab::new();
    let none = checks(&lab.node("none"));
    assert_eq!(state(&none, "node"), "failed");
    assert!(!state(&none, "socket-buffers").is_empty());

    let (mut operator, mut agent) = pair(&lab);
    let disk = lab.disk("disk", 1, 1);
    agent
        .run(&["volume", "add", disk.to_str().unwrap(), "--name", "disk"])
        .ok();
    let all = checks(&agent);
    for name in [
        "node", "folder", "space", "clock", "links", "member", "source",
    ] {
        assert_eq!(state(&all, name), "ok", "{name}");
    }
    assert_eq!(
        state(&all, "listening"),
        "warning",
        "nobody else reaches loopback"
    );
    let member = all.iter().find(|check| check["check"] == "member").unwrap();
    assert_eq!(member["on"], "operator");
    let text = member["text"].as_str().unwrap();
    assert!(
        text.contains("directly by tcp (/ip4/127.0.0.1/tcp/"),
        "{text}"
    );
    assert_eq!(state(&checks(&operator), "cloud-folder"), "ok");

    // What goes wrong while it runs is seen.
    fs::remove_file(&disk).unwrap();
    let key = agent.folder.join("node.key");
    fs::set_permissions(&key, fs::Permissions::from_mode(0o644)).unwrap();
    operator.stop();
    eventually("the connection is gone", || {
        (agent.status()["connected"] == 0).then_some(())
    });
    let all = checks(&agent);
    for name in ["folder", "links", "source"] {
        assert_eq!(state(&all, name), "failed", "{name}");
    }
    assert_eq!(state(&all, "member"), "warning");

    // A folder whose key others may read is not used, and said to be so.
    agent.stop();
    let all = checks(&agent);
    assert_eq!(state(&all, "node"), "failed");
    assert_eq!(state(&all, "folder"), "failed");
    fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).unwrap();
    let all = checks(&agent);
    assert_eq!(state(&all, "node"), "warning", "it is stopped");
    assert_eq!(state(&all, "folder"), "ok");
    assert_eq!(state(&all, "source"), "failed");
}

#[test]
fn a_speed_check_measures_the_way_and_refuses_what_makes_no_sense() {
    let lab = Lab::new();
    let (operator, mut agent) = pair(&lab);
    for (from, to) in [(&operator, "agent"), (&agent, "operator")] {
        let view = from.run(&["doctor", "--to", to, "--seconds", "1"]).ok();
        assert_eq!(view["node"], to);
        assert_eq!(view["round_trip"]["count"], 20);
        let median = view["round_trip"]["median_micros"].as_u64().unwrap();
        let worst = view["round_trip"]["worst_micros"].as_u64().unwrap();
        assert!(median > 0 && median <= worst, "{view}");
        for way in ["sent", "received"] {
            let flow = &view[way];
            assert!(flow["bytes_per_sec"].as_u64().unwrap() > 0, "{view}");
            assert!(
                flow["bytes"].as_u64() <= flow["bytes_in_all"].as_u64(),
                "{view}"
            );
            let seconds = flow["seconds"].as_f64().unwrap();
            assert!(seconds > 0.0 && seconds < 1.0, "{view}");
        }
        let path = &view["path"];
        assert_eq!(
            (&path["relayed"], &path["transport"]),
            (&false.into(), &"tcp".into())
        );
        let address = path["address"].as_str().unwrap_or_default();
        assert!(address.starts_with("/ip4/127.0.0.1/tcp/"), "{view}");
        assert!(view["clock_ahead_millis"].as_i64().unwrap().abs() < 60_000);
    }
    agent.until_event("speed-check", &["operator measures"]);

    let to = |node: &str| operator.run(&["doctor", "--to", node, "--seconds", "1"]);
    to("operator").fails(2, &["this node itself"]);
    to("nobody").fails(5, &["nobody"]);
    agent.stop();
    eventually("the connection is gone", || {
        (operator.status()["connected"] == 0).then_some(())
    });
    to("agent").fails(4, &["agent", "not connected"]);
    agent
        .run(&["doctor", "--to", "operator"])
        .fails(4, &["no node is running"]);
    operator.run(&["node", "revoke", "agent"]).ok();
    to("agent").fails(6, &["agent", "no member"]);
}

#[test]
fn a_speed_check_is_refused_beside_another_and_ends_when_the_other_end_goes() {
    let lab = Lab::new();
    let (operator, mut agent) = pair(&lab);
    let long = ["doctor", "--to", "agent", "--seconds", "60"];
    std::thread::scope(|scope| {
        let first = scope.spawn(|| operator.run(&long));
        agent.until_event("speed-check", &["operator measures"]);
        // Whoever asks: a second check between the two would spoil the first.
        let second = ["doctor", "--to", "operator", "--seconds", "1"];
        agent.run(&second).fails(6, &["other speed checks"]);
        agent.kill();
        let first = first.join().unwrap();
        first.fails(1, &["agent", "was not measured"]);
    });
}

#[test]
fn no_speed_check_runs_beside_blocks_that_move() {
    let lab = Lab::new();
    let mesh = lab.mesh_of_three();
    let disk = lab.disk("disk", 16, 1);
    mesh.plan(&disk);
    mesh.act("start");
    mesh.until_passes(1);
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        // Every pass finds something to send, and no more is asked for than that.
        scope.spawn(|| {
            let file = fs::File::options().write(true).open(&disk).unwrap();
            for seed in 2.. {
                if over.load(Relaxed) {
                    return;
                }
                file.write_all_at(&noise(4 << 20, seed), 0).unwrap();
                pause(Duration::from_millis(50));
            }
        });
        let refused = |from: &Node, to: &str, words: &str| {
            eventually(words, || {
                let output = from.run(&["doctor", "--to", to, "--seconds", "1"]);
                let refused = output.status.code() == Some(6) && output.stderr.contains(words);
                assert!(refused || output.status.success() || output.status.code() == Some(6));
                refused.then_some(())
            });
        };
        let ended = std::panic::catch_unwind(AssertUnwindSafe(|| {
            refused(&mesh.agent, "operator", "blocks that move at this node");
            refused(&mesh.operator, "agent", "blocks that move at agent");
            // One that was ended in its middle was not refused, and does not count.
            eventually("a check that was refused counts", || {
                mesh.operator
                    .run(&["doctor", "--to", "agent", "--seconds", "1"]);
                let page = scrape(&mesh.agent);
                let count = sum(&page, "dunlin_refused_total", &["what=\"stream\""]);
                count.filter(|count| *count >= 1.0)
            });
            refused(
                &mesh.operator,
                "replicator",
                "blocks that move at replicator",
            );
        }));
        over.store(true, Relaxed);
        ended.unwrap();
    });
}
