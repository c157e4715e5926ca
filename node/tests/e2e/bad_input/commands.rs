//! Commands that cannot be carried out, each with its exit status: 2 for what is asked
//! wrongly, 3 for who may not, 4 without a node, 5 for what does not exist, 6 for what
//! the state does not allow.

use crate::harness::{Lab, Output, eventually};
use std::time::{Duration, Instant};

#[test]
fn wrong_usage_is_status_2() {
    let lab = Lab::new();
    let mut node = lab.founder("node");
    node.start();
    for (args, word) in [
        (&["frobnicate"][..], "frobnicate"),
        (&[], "Usage"),
        (&["migration"], "Usage"),
        (&["migration", "start"], "<ID>"),
        (&["migration", "start", ""], "value"),
        (&["migration", "start", "m", "--now"], "--now"),
        (&["migration", "create", "--to", "local"], "--server"),
        (&["invite", "create"], "--role"),
        (&["invite", "create", "--role", "king"], "king"),
        (
            &["invite", "create", "--role", "agent", "--scope", "hq"],
            "--scope",
        ),
        (
            &["invite", "create", "--role", "agent", "--uses", "0"],
            "uses",
        ),
        (
            &["invite", "create", "--role", "agent", "--expires", "soon"],
            "30m",
        ),
        (
            &["invite", "create", "--role", "agent", "--expires", "0s"],
            "expires",
        ),
        (
            &["invite", "create", "--role", "agent", "--expires", "60d"],
            "30 days",
        ),
        (
            &["invite", "create", "--role", "agent", "--name", "a b"],
            "name",
        ),
        (&["events", "--since", "yesterday"], "since"),
        (&["demo", "--size", "big"], "size"),
        (&["mesh", "init", "--role", "king"], "king"),
        (&["mesh", "init", "--name", "a/b"], "name"),
        (
            &[
                "mesh",
                "recover",
                "--root-key",
                "k",
                "--peer",
                "/ip4/1.2.3.4/tcp/1",
            ],
            "/p2p/PEERID",
        ),
        (
            &[
                "mesh",
                "recover",
                "--root-key",
                "k",
                "--peer",
                "/ip4/300/tcp/1",
            ],
            "--peer",
        ),
    ] {
        let output = node.run(args);
        assert_eq!(output.status.code(), Some(2), "{args:?}: {output:?}");
        output.fails(2, &[word]);
    }
    assert_eq!(
        node.run(&["invite", "list"]).ok().as_array().unwrap().len(),
        0
    );
}

#[test]
fn without_a_running_node_acts_are_status_4_and_looks_still_work() {
    let lab = Lab::new();
    let mut node = lab.founder("node");
    let disk = lab.disk("disk.raw", 1, 1);
    let acts = |node: &crate::harness::Node| {
        for args in [
            &["invite", "create", "--role", "agent"][..],
            &["invite", "revoke", "0123"],
            &["node", "revoke", "node"],
            &["volume", "add", disk.to_str().unwrap()],
            &["volume", "remove", "disk"],
            &["migration", "create", "--server", "node", "--to", "local"],
            &["migration", "start", "m"],
            &["migration", "watch", "m"],
            &["events", "--follow"],
        ] {
            node.run(args)
                .fails(4, &["no node is running", "dunlin run"]);
        }
        let status = node.status();
        assert_eq!(status["running"], false);
        assert_eq!(status["nodes"], 1);
        node.run(&["migration", "show", "m"])
            .fails(5, &["migration list"]);
    };
    acts(&node);
    // A node that was killed leaves its socket behind.
    node.start();
    assert_eq!(node.status()["running"], true);
    node.kill();
    acts(&node);
}

#[test]
fn what_does_not_exist_is_status_5_and_what_is_ambiguous_status_2() {
    let lab = Lab::new();
    let mut operator = lab.founder("operator");
    operator.start();
    let mut agent = lab.joiner(&operator, "agent", "agent");
    agent.start();
    for (args, list) in [
        (&["migration", "show", "nope"][..], "migration list"),
        (&["migration", "start", "nope"], "migration list"),
        (&["migration", "pause", "nope"], "migration list"),
        (&["migration", "resume", "nope"], "migration list"),
        (&["migration", "cutover", "nope"], "migration list"),
        (&["migration", "delete", "nope"], "migration list"),
        (&["migration", "watch", "nope"], "migration list"),
        (&["migration", "log", "nope"], "migration list"),
        (&["verify", "../nope?x=1#y"], "migration list"),
        (&["events", "--migration", "nope"], "migration list"),
        (&["node", "show", "nope"], "node list"),
        (&["node", "revoke", "nope"], "node list"),
        (&["server", "show", "nope"], "list"),
        (&["invite", "revoke", "00000000"], "invite list"),
        (
            &["migration", "create", "--server", "nope", "--to", "local"],
            "list",
        ),
    ] {
        operator
            .run(args)
            .fails(5, &["nope", list][usize::from(args[0] == "invite")..]);
    }
    agent.run(&["volume", "remove", "nope"]).fails(5, &["nope"]);
    // Two nodes may bear one name: only their ids tell them apart, and that is told.
    for folder in ["one", "two"] {
        let mut twin = lab.node(folder);
        twin.name = "twin".into();
        twin.join(&operator.invite(&["--role", "agent"])).ok();
    }
    operator.until_event(
        "node-enrolled",
        &["twin joined", "under the name that node"],
    );
    let warnings = operator.status()["warnings"].to_string();
    assert!(warnings.contains("under the name that node"), "{warnings}");
    let nodes = operator.run(&["node", "list"]).ok();
    assert_eq!(nodes.as_array().unwrap().len(), 4);
    let twins = nodes.as_array().unwrap().iter();
    let twins = twins.filter(|node| node["name"] == "twin");
    let ids: Vec<&str> = twins
        .map(|node| &node["id"].as_str().unwrap()[..8])
        .collect();
    for verb in ["show", "revoke"] {
        operator
            .run(&["node", verb, "twin"])
            .fails(2, &["give one of these ids", ids[0], ids[1]]);
    }
    for node in nodes.as_array().unwrap() {
        let id = node["id"].as_str().unwrap();
        let shown = operator.run(&["node", "show", &id[..16]]).ok();
        assert_eq!(shown["id"], node["id"]);
    }
}

#[test]
fn what_only_an_operator_may_do_is_status_3() {
    let lab = Lab::new();
    let disk = lab.disk("disk.raw", 1, 1);
    let mesh = lab.mesh_of_three();
    mesh.plan(&disk);
    for node in [&mesh.agent, &mesh.replicator] {
        for args in [
            &["invite", "create", "--role", "agent"][..],
            &["invite", "revoke", "0123"],
            &["node", "revoke", "operator"],
            &["migration", "create", "--server", "agent", "--to", "local"],
            &["migration", "start", "m"],
            &["migration", "delete", "m"],
        ] {
            node.run(args).fails(3, &["only an operator may do this"]);
        }
    }
    assert_eq!(mesh.migration()["desired"], "created");
    assert_eq!(mesh.operator.status()["nodes"], 3);
}

#[test]
fn what_the_state_does_not_allow_is_status_6_and_says_what_is_allowed() {
    let lab = Lab::new();
    let disk = lab.disk("disk.raw", 8, 1);
    let mesh = lab.mesh_of_three();
    let on = |verb: &str| -> Output { mesh.operator.run(&["migration", verb, "m"]) };
    mesh.operator
        .run(&["migration", "create", "--server", "agent", "--to", "local"])
        .fails(1, &["agent", "volume add"]);
    mesh.operator
        .run(&["volume", "add", disk.to_str().unwrap()])
        .fails(6, &["not an agent"]);
    mesh.offer(&disk, "disk");
    let create = |args: &[&str]| {
        let plan = ["migration", "create", "--server", "agent", "--name", "m"];
        mesh.operator.run(&[&plan[..], args].concat())
    };
    create(&["--to", "mars"]).fails(5, &["mars", "node show"]);
    create(&["--to", "local", "--disk", "nope"]).fails(5, &["nope"]);
    create(&["--to", "local", "--replicator", "agent"]).fails(2, &["not enrolled as replicator"]);
    create(&["--to", "local", "--provisioner", "agent"]).fails(2, &["not enrolled as provisioner"]);
    create(&["--to", "local"]).ok();
    create(&["--to", "local"]).fails(6, &["already", "choose another"]);

    on("pause").fails(6, &["not started", "start it first"]);
    on("resume").fails(6, &["not started", "start it instead"]);
    on("cutover").fails(6, &["not started", "start it first"]);
    on("start").ok();
    mesh.until_passes(1);
    on("pause").ok();
    on("cutover").fails(6, &["paused", "resume it first"]);
    on("resume").ok();
    mesh.agent
        .run(&["volume", "remove", "disk"])
        .fails(6, &["part of migration m"]);
    mesh.cut_over(&disk);
    for verb in ["start", "resume", "pause"] {
        let refused = on(verb);
        refused.fails(6, &["it is cut over; verify it", "create a new one"]);
        assert!(!refused.stderr.contains("pause it"), "{refused:?}");
    }
    on("cutover").ok();
    mesh.operator
        .run(&["node", "revoke", "operator"])
        .fails(6, &["operator"]);
    let deleted = on("delete").ok();
    assert!(deleted["next"].is_null(), "{deleted:#}");
    on("start").fails(6, &["deleted", "create a new one"]);
}

#[test]
fn after_a_delete_nobody_is_told_to_start_the_migration_again() {
    let lab = Lab::new();
    let disk = lab.disk("disk.raw", 8, 1);
    let mesh = lab.mesh_of_three();
    mesh.plan(&disk);
    mesh.act("start");
    mesh.until_passes(1);
    let id = mesh.migration()["id"].as_str().unwrap().to_owned();
    let deleted = mesh.act("delete");
    assert!(deleted["next"].is_null(), "{deleted:#}");
    for node in [&mesh.operator, &mesh.replicator, &mesh.agent] {
        eventually("it is deleted", || {
            let view = node.run(&["migration", "show", &id]).ok();
            (view["stage"] == "deleted").then_some(())
        });
        let events = node.events();
        let wrong = events.iter().find(|event| {
            let text = event["text"].as_str().unwrap();
            event["kind"] == "grant-refused" || text.contains("start the migration again")
        });
        assert_eq!(wrong, None, "{events:#?}");
    }
}

#[test]
fn a_disk_that_one_migration_moves_is_not_moved_by_another() {
    let lab = Lab::new();
    let disk = lab.disk("disk.raw", 8, 1);
    let mesh = lab.mesh_of_three();
    mesh.plan(&disk);
    let other = ["migration", "create", "--server", "agent", "--to", "local"];
    let other = [&other[..], &["--name", "other"]].concat();
    mesh.operator.run(&other).ok();
    let on = |verb: &str, which: &str| mesh.operator.run(&["migration", verb, which]);
    on("start", "m").ok();
    on("start", "other").fails(6, &["disk disk", "migration m moves already", "delete it"]);
    on("pause", "m").ok();
    on("start", "other").ok();
    on("resume", "m").fails(6, &["migration other moves already"]);
    on("pause", "other").ok();
    on("resume", "m").ok();
    mesh.until_passes(1);
    mesh.cut_over(&disk);
    on("resume", "other").ok();
}

#[test]
fn without_a_replicator_at_the_volumes_nothing_is_planned_and_the_status_is_5() {
    let lab = Lab::new();
    let mut operator = lab.founder("operator");
    operator.start();
    let mut agent = lab.joiner(&operator, "agent", "agent");
    agent.start();
    let disk = lab.disk("disk.raw", 1, 1);
    agent.run(&["volume", "add", disk.to_str().unwrap()]).ok();
    let create = || {
        let create = ["migration", "create", "--server", "agent", "--to", "local"];
        operator.run(&create)
    };
    eventually("the disk is known", || {
        let servers = operator.run(&["server", "list"]).ok();
        (!servers[0]["disks"].as_array()?.is_empty()).then_some(())
    });
    create().fails(5, &["the mesh has no replicator", "invite create"]);
    // Of several on the provisioner's machine all are taken, in the order of their names.
    let others = ["zeta", "alpha"].map(|name| {
        let mut node = lab.joiner(&operator, name, "replicator");
        node.start();
        node
    });
    eventually("both have reported", || {
        let reported = |node: &crate::harness::Node| {
            let shown = operator.run(&["node", "show", &node.name]).ok();
            shown["reported_at"].is_string()
        };
        others.iter().all(reported).then_some(())
    });
    for _ in 0..2 {
        let pool = create().ok()["replicators"].clone();
        assert_eq!(pool, serde_json::json!(["alpha", "zeta"]));
    }
}

#[test]
fn a_frozen_node_is_given_up_with_status_4() {
    let lab = Lab::new();
    let mut node = lab.founder("node");
    node.start();
    node.freeze(true);
    let asked = Instant::now();
    for args in [&["status"][..], &["invite", "create", "--role", "agent"]] {
        node.run(args).fails(4, &["the node does not answer"]);
    }
    assert!(asked.elapsed() < Duration::from_secs(40));
    node.freeze(false);
    node.run(&["status"]).ok();
}
