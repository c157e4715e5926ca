//! Content that disks of other servers brought to a replicator is not sent again, and
//! not found either, unless an operator put both migrations into one group.

use crate::harness::{Lab, Mesh, Node, eventually, passes_of};
use serde_json::Value;
use std::fs::{self, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::Path;

const MIB: usize = 16;

/// Offers a disk of `server` and plans its migration, both under one name.
fn plan(mesh: &Mesh, server: &Node, disk: &Path, name: &str) {
    let path = disk.to_str().unwrap();
    server.run(&["volume", "add", path, "--name", name]).ok();
    let create = ["migration", "create", "--server", &server.name];
    let create = [
        &create[..],
        &["--disk", name, "--to", "local", "--name", name],
        &["--replicator", "replicator"],
    ];
    eventually("the operator knows the disk", || {
        let made = mesh.operator.run(&create.concat());
        made.status.success().then_some(())
    });
}

/// Starts a migration, and the payload bytes of its first pass.
fn first_pass(mesh: &Mesh, name: &str, options: &[&str]) -> (u64, Value) {
    let start = [&["migration", "start", name][..], options].concat();
    mesh.operator.run(&start).ok();
    eventually("the first pass", || {
        let view = mesh.operator.run(&["migration", "show", name]).ok();
        let passed = passes_of(&view) >= 1;
        let sent = view["volumes"][0]["passes"][0]["bytes_sent"].as_u64();
        passed.then(|| (sent.unwrap(), view))
    })
}

#[test]
fn blocks_that_a_disk_of_the_same_group_brought_are_not_sent_again_and_others_are() {
    let lab = Lab::new();
    let mesh = lab.mesh_of_three();
    let mut twin = lab.joiner(&mesh.operator, "twin", "agent");
    twin.start();
    let disk = lab.disk("one.img", MIB, 7);
    let copies = ["other.img", "alike.img"].map(|name| {
        let path = lab.path(name);
        fs::copy(&disk, &path).unwrap();
        path
    });
    plan(&mesh, &mesh.agent, &disk, "one");
    plan(&mesh, &twin, &copies[0], "other");
    plan(&mesh, &twin, &copies[1], "alike");
    // The second half of it comes later.
    let half = (MIB << 20) / 2;
    let content = fs::read(&disk).unwrap();
    let alike = OpenOptions::new().write(true).open(&copies[1]).unwrap();
    alike.write_all_at(&vec![0; half], half as u64).unwrap();

    let whole = (MIB << 20) as u64;
    let group = ["--dedup-group", "web"];
    let (sent, view) = first_pass(&mesh, "one", &group);
    assert_eq!((sent, view["dedup_group"].as_str()), (whole, Some("web")));
    // Not even its own content elsewhere is found for who is in no group.
    let (sent, view) = first_pass(&mesh, "other", &[]);
    assert_eq!((sent, view["dedup_group"].as_str()), (whole, None));
    let (sent, view) = first_pass(&mesh, "alike", &group);
    assert_eq!((sent, view["dedup_group"].as_str()), (0, Some("web")));

    // The first one's grant is good for nothing any more, while the session of the other runs.
    mesh.operator.run(&["node", "revoke", "agent"]).ok();
    eventually("the replicator knows it", || {
        let shown = mesh.replicator.run(&["node", "show", "agent"]).ok();
        (shown["state"] == "revoked").then_some(())
    });
    alike.write_all_at(&content[half..], half as u64).unwrap();
    let sent: u64 = eventually("it is brought up to date", || {
        let view = mesh.operator.run(&["migration", "show", "alike"]).ok();
        let passes = view["volumes"][0]["passes"].as_array()?.clone();
        let sum = |field: &str| {
            passes
                .iter()
                .map(|pass| pass[field].as_u64().unwrap())
                .sum()
        };
        let blocks: u64 = sum("blocks");
        (blocks as usize >= (half + half) / 65536).then(|| sum("bytes_sent"))
    });
    // A block that was read while it was written is sent again.
    let most = half as u64 + (2 << 20);
    assert!((half as u64..most).contains(&sent), "{sent}");

    // What is not said again stays, and what is replaces the grant.
    let start = |options: &[&str]| {
        let start = [&["migration", "start", "alike"][..], options].concat();
        mesh.operator.run(&start).ok()["dedup_group"].clone()
    };
    assert_eq!(start(&[]), "web");
    assert_eq!(start(&["--lease", "2h"]), "web");
    assert_eq!(start(&["--no-dedup-group"]), Value::Null);
    assert_eq!(start(&["--dedup-group", "db"]), "db");
    mesh.operator
        .run(&["migration", "start", "alike", "--dedup-group", "two words"])
        .fails(2, &["`two words` cannot be a name"]);
}

#[test]
fn terms_that_another_operator_granted_are_not_changed_behind_its_back() {
    let lab = Lab::new();
    let mesh = lab.mesh_of_three();
    let root_key = mesh.operator.folder.join("root.key");
    let mut second = lab.node("second");
    let invite = [
        "--role",
        "operator",
        "--root-key",
        root_key.to_str().unwrap(),
    ];
    second.join(&mesh.operator.invite(&invite)).ok();
    second.start();
    let disk = lab.disk("one.img", 2, 7);
    mesh.plan(&disk);
    mesh.operator
        .run(&["migration", "start", "m", "--lease", "1h"])
        .ok();
    let start = |options: &[&str]| {
        let start = [&["migration", "start", "m"][..], options].concat();
        second.run(&start)
    };
    let grants = || {
        let status = second.status();
        status["heads"]["ledger"].clone()
    };
    eventually("the second operator knows that it is started", || {
        let list = second.run(&["migration", "list"]).ok();
        (list[0]["exposure"].is_object()).then_some(())
    });
    let before = grants();
    for options in [&["--lease", "2h"][..], &["--dedup-group", "web"]] {
        start(options).fails(6, &["granted by operator operator with other terms"]);
    }
    // Nothing was signed for that, and what is so already is no change.
    start(&[]).ok();
    start(&["--lease", "1h", "--no-dedup-group"]).ok();
    assert_eq!(grants(), before);
    assert!(!before.is_null());
}
