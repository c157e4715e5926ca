//! Hooks: scripts of a host, named by the plan, at points of a real migration.
//!
//! Not here: how scripts are run, and what of their output is shown, which have tests of
//! their own.

use crate::harness::{Lab, Mesh, Node, count, eventually};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

/// A folder of hooks for a node, which is started again with it.
fn give_hooks(lab: &Lab, node: &mut Node) -> PathBuf {
    let folder = lab.path(&format!("{}-hooks", node.name));
    fs::create_dir(&folder).unwrap();
    fs::set_permissions(&folder, fs::Permissions::from_mode(0o755)).unwrap();
    let config = lab.path(&format!("{}.toml", node.name));
    fs::write(
        &config,
        format!("[hooks]\nfolder = \"{}\"\n", folder.display()),
    )
    .unwrap();
    node.extra = vec!["--config".into(), config.display().to_string()];
    node.stop();
    node.start();
    folder
}

fn put(folder: &std::path::Path, name: &str, text: &str) {
    let draft = folder.join(format!("{name}.new"));
    fs::write(&draft, format!("#!/bin/sh\n{text}\n")).unwrap();
    fs::set_permissions(&draft, fs::Permissions::from_mode(0o755)).unwrap();
    fs::rename(draft, folder.join(name)).unwrap();
}

/// A mesh whose agent and provisioner have folders of hooks, and a migration `m`.
struct Hosts {
    mesh: Mesh,
    source: PathBuf,
    provisioner: PathBuf,
    disk: PathBuf,
    /// Where scripts write that they ran.
    done: PathBuf,
}

impl Hosts {
    fn new(lab: &Lab) -> Self {
        let mut mesh = lab.mesh_of_three();
        let source = give_hooks(lab, &mut mesh.agent);
        let provisioner = give_hooks(lab, &mut mesh.operator);
        mesh.connected();
        let disk = lab.disk("disk", 3, 1);
        mesh.plan(&disk);
        Self {
            mesh,
            source,
            provisioner,
            disk,
            done: lab.path("done"),
        }
    }

    fn add(&self, words: &[&str]) {
        let add = ["migration", "hook", "add", "m"];
        self.mesh.operator.run(&[&add[..], words].concat()).ok();
    }

    /// A script's line that notes what the shell makes of `what`.
    fn note(&self, what: &str) -> String {
        format!("echo \"{what}\" >>{}", self.done.display())
    }

    fn noted(&self) -> String {
        fs::read_to_string(&self.done).unwrap_or_default()
    }
}

#[test]
fn hooks_hold_up_a_migration_until_they_succeed() {
    let lab = Lab::new();
    let hosts = Hosts::new(&lab);
    let mesh = &hosts.mesh;
    let word = ["--env", "HOOK_WORD=opensesame"];
    hosts.add(&[&["before-replication", "quiet"], &word[..]].concat());
    hosts.add(&["after-cutover", "after", "--on", "provisioner"]);

    // Scripts that are not there are told before anything begins, on both hosts.
    mesh.act("start");
    mesh.agent
        .until_event("hook-missing", &["quiet", "there is no script"]);
    mesh.operator.until_event("hook-missing", &["after"]);
    let held = mesh.until("it waits for hooks", |view| {
        view["volumes"][0]["step"] == "hooks"
    });
    assert_eq!(held["stage"], "stalled");
    let detail = held["volumes"][0]["detail"].as_str().unwrap();
    assert!(detail.contains("quiet"), "{detail}");
    let doctor = mesh.agent.run(&["doctor"]);
    assert!(doctor.stdout.contains("cannot be run"), "{doctor:?}");

    // One that fails stops what follows, and says why without what is secret.
    let fails = "echo \"$HOOK_WORD token=abc\"; echo the database is busy; exit 3";
    put(&hosts.source, "quiet", fails);
    let failed = mesh
        .agent
        .until_event("hook-failed", &["quiet", "status 3"]);
    let text = failed["text"].as_str().unwrap();
    let printed = "\n[redacted] token=[redacted]\nthe database is busy";
    assert!(text.contains(printed), "{text}");
    mesh.until("the operator sees why", |view| {
        let detail = view["volumes"][0]["detail"].as_str().unwrap_or_default();
        detail.contains("the database is busy")
    });
    assert_eq!(count(&mesh.agent, "session-opened"), 0);

    // With the script mended it goes on, at once where an operator says so.
    put(&hosts.source, "quiet", &hosts.note("quiet"));
    mesh.act("pause");
    mesh.until_stage("paused");
    mesh.act("resume");
    mesh.until_passes(1);
    assert_eq!(hosts.noted(), "quiet\n");
    mesh.operator
        .run(&["migration", "hook", "remove", "m", "1"])
        .fails(6, &["before-replication"]);
}

#[test]
fn hooks_follow_the_cutover_on_both_sides_and_no_restart_runs_them_again() {
    let lab = Lab::new();
    let mut hosts = Hosts::new(&lab);
    hosts.add(&["before-replication", "before"]);
    hosts.add(&["after-cutover", "after"]);
    hosts.add(&["after-cutover", "after", "--on", "provisioner"]);
    let list = ["migration", "hook", "list", "m"];
    let listed = hosts.mesh.operator.run(&list).ok();
    assert_eq!(listed.as_array().unwrap().len(), 3);
    assert_eq!(listed[0]["on_failure"], "stop");
    assert_eq!(listed[1]["on_failure"], "continue");
    put(&hosts.source, "before", &hosts.note("before"));
    let after = hosts.note("$DUNLIN_POINT $DUNLIN_NODE $DUNLIN_DISKS");
    put(&hosts.source, "after", &after);
    put(&hosts.provisioner, "after", &after);
    hosts.mesh.act("start");
    hosts.mesh.until_passes(1);
    hosts.mesh.agent.stop();
    hosts.mesh.agent.start();
    hosts.mesh.connected();
    let copy = hosts.mesh.cut_over(&hosts.disk);
    let mut expected = [
        "before".to_owned(),
        format!("after-cutover agent {}", hosts.disk.display()),
        format!("after-cutover operator {}", copy.display()),
    ];
    expected.sort_unstable();
    eventually("all hooks ran once", || {
        let noted = hosts.noted();
        let mut lines: Vec<&str> = noted.lines().collect();
        lines.sort_unstable();
        (lines == expected).then_some(())
    });
    for node in [&hosts.mesh.agent, &hosts.mesh.operator] {
        node.until_event("hook-done", &["after-cutover", "status 0"]);
    }
    for node in [&mut hosts.mesh.agent, &mut hosts.mesh.operator] {
        node.stop();
        node.start();
    }
    hosts.mesh.connected();
    assert_eq!(hosts.noted().lines().count(), 3);
}

#[test]
fn a_deleted_migration_is_cleaned_up_once_the_hooks_before_that_have_passed() {
    let lab = Lab::new();
    let hosts = Hosts::new(&lab);
    let mesh = &hosts.mesh;
    put(&hosts.source, "last", &hosts.note("source"));
    put(&hosts.provisioner, "last", "exit 1");
    hosts.add(&["before-cleanup", "last"]);
    hosts.add(&["before-cleanup", "last", "--on", "provisioner"]);
    mesh.act("start");
    let view = mesh.until_passes(1);
    let copy = PathBuf::from(view["volumes"][0]["target_path"].as_str().unwrap());
    mesh.act("delete");
    mesh.operator
        .until_event("hook-failed", &["before-cleanup"]);
    assert!(copy.exists(), "the copy was removed before its hook passed");
    put(&hosts.provisioner, "last", &hosts.note("provisioner"));
    eventually("the copy is removed", || (!copy.exists()).then_some(()));
    assert_eq!(hosts.noted(), "source\nprovisioner\n");
}

#[test]
fn hooks_that_cannot_be_are_refused() {
    let lab = Lab::new();
    let mesh = lab.mesh_of_three();
    mesh.plan(&lab.disk("disk", 1, 3));
    let add = |words: &[&str]| {
        let add = ["migration", "hook", "add", "m"];
        mesh.operator.run(&[&add[..], words].concat())
    };
    add(&["before-launch", "x"]).fails(2, &["before-launch"]);
    add(&["before-freeze", "x", "--on", "provisioner"]).fails(2, &["source"]);
    add(&["before-replication", "../x"]).fails(2, &["name of a script"]);
    add(&["before-replication", "x", "--on", "provisioner"]).fails(2, &["source"]);
    add(&["before-replication", "x", "--env", "LD_PRELOAD=x"]).fails(2, &["HOOK_NAME"]);
    add(&["before-replication", "x", "--timeout", "2h"]).fails(2, &["3600"]);
    let remove = ["migration", "hook", "remove", "m", "1"];
    mesh.operator.run(&remove).fails(2, &["none of number 1"]);
    add(&["before-replication", "x"]).ok();
    mesh.agent.run(&remove).fails(3, &["operator"]);
    assert_eq!(mesh.operator.run(&remove).ok().as_array().unwrap().len(), 0);
}
