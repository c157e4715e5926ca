//! The plan as a file: exported, edited, checked and applied.
//!
//! Not here: which edits a file amounts to, which `planfile` has its own tests of.

use crate::harness::{Lab, Mesh, Output, eventually};
use serde_json::Value;
use std::fs;
use std::path::PathBuf;

/// A mesh with a planned migration `m`, and its plan in a file.
fn exported(lab: &Lab) -> (Mesh, PathBuf, String) {
    let disk = lab.disk("disk.raw", 8, 1);
    let mesh = lab.mesh_of_three();
    mesh.plan(&disk);
    let file = lab.path("plan.toml");
    let path = file.to_str().unwrap();
    done(mesh.operator.run(&["plan", "export", path]));
    let text = fs::read_to_string(&file).unwrap();
    (mesh, file, text)
}

/// Checks that a command which prints nothing was carried out.
fn done(output: Output) {
    assert!(output.status.success(), "{output:?}");
}

fn migrations(mesh: &Mesh) -> Vec<String> {
    let list = mesh.operator.run(&["migration", "list"]).ok();
    let list = list.as_array().unwrap().iter();
    let mut names: Vec<String> = list
        .map(|one| one["name"].as_str().unwrap().to_owned())
        .collect();
    names.sort();
    names
}

#[test]
fn a_dry_run_refuses_all_that_applying_would_and_nothing_of_a_wrong_file_is_applied() {
    let lab = Lab::new();
    let (mesh, file, text) = exported(&lab);
    let path = file.to_str().unwrap();
    let apply = |text: &str, more: &[&str]| -> Output {
        fs::write(&file, text).unwrap();
        mesh.operator
            .run(&[&["plan", "apply", path], more].concat())
    };
    let entry = |name: &str, server: &str, to: &str, more: &str| {
        format!(
            "{text}\n[[server]]\nname = \"new\"\nsite = \"b\"\n\n[[migration]]\nname = \"{name}\"\nserver = \"{server}\"\nto = \"{to}\"\n{more}\n"
        )
    };
    for (text, status, word) in [
        (entry("n", "nope", "local", ""), 5, "nope"),
        (entry("n", "agent", "mars", ""), 5, "mars"),
        (
            entry("n", "agent", "mars", "provisioner = \"operator\""),
            5,
            "mars",
        ),
        (
            entry("n", "agent", "local", "replicators = [\"operator\"]"),
            2,
            "not enrolled as replicator",
        ),
        (
            entry("n", "agent", "local", "disks = [\"nope\"]"),
            5,
            "nope",
        ),
        (entry("a/b", "agent", "local", ""), 2, "name"),
        (
            text.replace("name = \"m\"", "name = \"n\"")
                + &entry("n", "agent", "local", "")[text.len()..],
            6,
            "a migration `n`: it is the name of another one already",
        ),
    ] {
        apply(&text, &["--dry-run"]).fails(status, &[word]);
        apply(&text, &[]).fails(status, &[word]);
    }
    let plan = mesh.operator.run(&["plan", "export", "-"]).ok();
    assert_eq!(plan["server"], Value::Array(vec![]), "{plan:#}");
    assert_eq!(migrations(&mesh), ["m"]);
}

#[test]
fn a_file_is_replaced_only_by_force_and_without_a_base_deletes_nothing() {
    let lab = Lab::new();
    let mut node = lab.founder("node");
    node.start();
    let file = lab.path("plan.toml");
    let path = file.to_str().unwrap();
    let server = "[[server]]\nname = \"db\"\nsite = \"berlin\"\n";
    fs::write(&file, server).unwrap();
    node.run(&["plan", "apply", path]).ok();
    node.run(&["plan", "export", path])
        .fails(6, &["there already", "--force"]);
    assert_eq!(fs::read_to_string(&file).unwrap(), server);
    fs::write(&file, "").unwrap();
    node.run(&["plan", "apply", path, "--delete"])
        .fails(2, &["no `base`"]);
    let kept = node.run(&["plan", "apply", path]).ok();
    assert_eq!((&kept["kept"], &kept["deleted"]), (&0.into(), &0.into()));
    done(node.run(&["plan", "export", path, "--force"]));
    let text = fs::read_to_string(&file).unwrap();
    assert!(text.contains("berlin"), "{text}");
    // What is planned is seen where its agent will be.
    let listed = node.run(&["server", "list"]).ok();
    let shown = node.run(&["server", "show", "db"]).ok();
    assert_eq!(listed[0], shown);
    assert_eq!(shown["planned"]["site"], "berlin", "{shown:#}");
    assert!(shown["reported_at"].is_null(), "{shown:#}");
}

#[test]
fn a_new_migration_takes_the_name_that_another_gives_up_and_a_renamed_one_keeps_its_pool() {
    let lab = Lab::new();
    let (mesh, file, text) = exported(&lab);
    let path = file.to_str().unwrap();
    let new = "\n[[migration]]\nname = \"m\"\nserver = \"agent\"\nto = \"local\"\n";
    let edited = text.replace("name = \"m\"", "name = \"old\"") + new;
    fs::write(&file, &edited).unwrap();
    let applied = mesh.operator.run(&["plan", "apply", path]).ok();
    assert_eq!(
        (&applied["created"], &applied["changed"]),
        (&1.into(), &1.into())
    );
    assert_eq!(migrations(&mesh), ["m", "old"]);
    let again = mesh.operator.run(&["plan", "apply", path]).ok();
    assert_eq!(again["edits"], Value::Array(vec![]), "{again:#}");

    // Its replicator does not count any more, and nobody asks for another.
    mesh.operator.run(&["node", "revoke", "replicator"]).ok();
    let again = edited.replace("name = \"old\"", "name = \"older\"");
    fs::write(&file, again).unwrap();
    mesh.operator.run(&["plan", "apply", path]).ok();
    assert_eq!(migrations(&mesh), ["m", "older"]);

    // One that was deleted since, and not edited here, is passed over.
    mesh.operator.run(&["migration", "delete", "m"]).ok();
    mesh.operator.run(&["migration", "delete", "older"]).ok();
    fs::write(&file, &text).unwrap();
    let nothing = mesh.operator.run(&["plan", "apply", path]).ok();
    assert_eq!(nothing["edits"], Value::Array(vec![]), "{nothing:#}");
    eventually("the list is empty", || {
        migrations(&mesh).is_empty().then_some(())
    });
}
