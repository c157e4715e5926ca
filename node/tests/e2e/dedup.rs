//! Content that disks of other servers brought to a replicator is not sent again, and
//! not found either, unless an operator put both migrations into one group.

use crate::harness::{Lab, Mesh, Node, eventually, passes_of};
use serde_json::Value;
use std::fs;
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

    let whole = (MIB << 20) as u64;
    let group = ["--dedup-group", "web"];
    let (sent, view) = first_pass(&mesh, "one", &group);
    assert_eq!((sent, view["dedup_group"].as_str()), (whole, Some("web")));
    // Not even its own content elsewhere is found for who is in no group.
    let (sent, view) = first_pass(&mesh, "other", &[]);
    assert_eq!((sent, view["dedup_group"].as_str()), (whole, None));
    let (sent, view) = first_pass(&mesh, "alike", &group);
    assert_eq!((sent, view["dedup_group"].as_str()), (0, Some("web")));

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
