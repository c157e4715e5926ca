//! One key in two places, and folders that were copied, restored and moved.

use crate::harness::{Lab, Mesh, Node, eventually};
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Copies a data folder as a backup does, whether or not a process is at work in it.
fn copy(from: &Path, to: &Path) {
    let done = Command::new("cp").arg("-a").arg(from).arg(to).status();
    assert!(done.unwrap().success());
    let _ = fs::remove_file(to.join("run/api.sock"));
}

/// Texts of the events of a kind that the node `name` raised itself.
fn told(node: &Node, name: &str, kind: &str) -> Vec<String> {
    let events = node.events().into_iter();
    let mine = events.filter(|event| event["kind"] == kind && event["node"] == name);
    mine.map(|event| event["text"].as_str().unwrap().to_owned())
        .collect()
}

fn state_of(node: &Node, name: &str) -> Value {
    node.run(&["node", "show", name]).ok()["state"].clone()
}

fn may_write(node: &Node) {
    eventually("the node may write", || {
        (node.status()["may_write"] == true).then_some(())
    });
}

#[test]
fn a_folder_that_runs_twice_stops_both_and_the_alarm_names_both_places() {
    let lab = Lab::new();
    let mesh = lab.mesh_of_three();
    let disk = lab.disk("disk.img", 8, 1);
    mesh.plan(&disk);
    mesh.act("start");
    mesh.until_passes(1);
    let mut twin = lab.node("twin");
    copy(&mesh.agent.folder, &twin.folder);
    twin.start();
    let Mesh {
        operator,
        replicator,
        agent,
    } = &mesh;
    for (node, name) in [
        (operator, "operator"),
        (replicator, "replicator"),
        (agent, "agent"),
        (&twin, "agent"),
    ] {
        eventually("the node knows of the clone", || {
            (state_of(node, "agent") == "cloned").then_some(())
        });
        let alarms = told(node, name, "cloned-key");
        assert_eq!(alarms.len(), 1, "{alarms:?}");
        for port in [agent.port, twin.port] {
            let place = format!("/tcp/{port}");
            assert!(alarms[0].contains(&place), "{place} is not in {alarms:?}");
        }
    }
    // What is new on the disk is not sent by either.
    let passes = mesh.migration()["volumes"][0]["passes"].clone();
    let refused = |node: &Node| {
        let shown = node.run(&["migration", "show", "m"]).ok();
        shown["volumes"][0].to_string().contains("two places")
    };
    for node in [agent, &twin] {
        eventually("it says why it does not send", || {
            refused(node).then_some(())
        });
    }
    assert_eq!(mesh.migration()["volumes"][0]["passes"], passes);
    operator.run(&["node", "revoke", "agent"]).ok();
    eventually("its place is free", || {
        (state_of(operator, "agent") == "revoked").then_some(())
    });
}

#[test]
fn an_old_folder_goes_on_after_what_it_had_written_since() {
    let lab = Lab::new();
    let mut operator = lab.founder("operator");
    operator.start();
    let mut other = lab.joiner(&operator, "other", "agent");
    other.start();
    may_write(&other);
    operator.stop();
    let kept = lab.path("kept");
    copy(&operator.folder, &kept);
    operator.start();
    may_write(&operator);
    let invite = operator.invite(&["--role", "agent"]);
    eventually("the other has the invite", || {
        let invites = other.run(&["invite", "list"]).ok();
        (invites.as_array()?.len() == 2).then_some(())
    });
    operator.stop();
    other.stop();
    fs::remove_dir_all(&operator.folder).unwrap();
    copy(&kept, &operator.folder);

    // Nobody tells it how far it had come: it writes nothing.
    operator.start();
    let refused = operator.run(&["invite", "create", "--role", "agent"]);
    refused.fails(6, &["not heard from any peer", "dunlin run --alone"]);
    assert_eq!(operator.status()["may_write"], false);
    other.start();
    may_write(&operator);
    let invites = operator.run(&["invite", "list"]).ok();
    assert_eq!(invites.as_array().unwrap().len(), 2, "its own are back");
    let mut late = lab.node("late");
    late.join(&invite).ok();
    late.start();
    eventually("all agree", || {
        let nodes = other.run(&["node", "list"]).ok();
        let nodes = nodes.as_array()?;
        let all = nodes.len() == 3 && nodes.iter().all(|node| node["state"] == "active");
        all.then_some(())
    });
    for (node, name) in [(&operator, "operator"), (&other, "other"), (&late, "late")] {
        assert!(told(node, name, "cloned-key").is_empty());
    }

    // And without anybody, where a person says that it is no copy.
    for node in [&mut operator, &mut other, &mut late] {
        node.stop();
    }
    operator.extra = vec!["--alone".into()];
    operator.start();
    operator.invite(&["--role", "agent"]);
}

#[test]
fn a_folder_starts_on_its_own_machine_alone_unless_a_person_says_that_it_moved() {
    let lab = Lab::new();
    let machine = |name: &str, uuid: &str| -> Option<PathBuf> {
        let sys = lab.path(name);
        fs::create_dir_all(sys.join("class/dmi/id")).unwrap();
        fs::write(sys.join("class/dmi/id/product_uuid"), uuid).unwrap();
        Some(sys)
    };
    let here = machine("here", "4c4c4544-0042-3510-8052-b4c04f564433\n");
    let there = machine("there", "4c4c4544-0042-3510-8052-b4c04f564434\n");
    let mut node = lab.node("node");
    node.machine = here.clone();
    node.run(&["mesh", "init"]).ok();
    node.start();
    let bound = "bound to this machine by its DMI product UUID";
    assert_eq!(node.status()["machine"], bound);
    node.stop();
    node.machine = there;
    let refused = node.try_start().unwrap_err();
    refused.fails(6, &["made on another machine", "--moved", "join anew"]);
    node.extra = vec!["--moved".into()];
    node.start();
    let moved = node.events().into_iter();
    assert_eq!(
        moved
            .filter(|event| event["kind"] == "machine-moved")
            .count(),
        1
    );
    node.stop();
    // From now on this is its machine.
    node.extra = vec![];
    node.start();
    node.stop();
    node.machine = here;
    let refused = node.try_start().unwrap_err();
    refused.fails(6, &["made on another machine"]);
}
