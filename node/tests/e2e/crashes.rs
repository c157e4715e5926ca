//! Nodes killed with SIGKILL at every stage of a migration, and started again: it goes
//! on, says so, and the copy is the source.
//!
//! Not here: lost writes and torn pages, which the simulations and `blocks` have.

use crate::harness::{Lab, Mesh, Node, count, eventually};
use crate::writing::{MIB, Writer, rewrite};
use serde_json::Value;
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// Large enough that a pass over all of it is still under way when its eighth part is
/// seen in the copy.
const LARGE_MIB: usize = 192;
const SMALL_MIB: usize = 32;

type Which = fn(&mut Mesh) -> &mut Node;
const OPERATOR: Which = |mesh| &mut mesh.operator;
const REPLICATOR: Which = |mesh| &mut mesh.replicator;
const AGENT: Which = |mesh| &mut mesh.agent;

/// Kills a node, reads its state while it is stopped, and starts it again.
fn kill_and_start(node: &mut Node) {
    node.kill();
    start_again(node);
}

fn start_again(node: &mut Node) {
    let stored = node.status();
    assert_eq!(stored["running"], false, "{stored:#}");
    assert_eq!(stored["node"]["name"], node.name, "{stored:#}");
    node.start();
}

/// Waits until the copy holds what the disk holds at one place.
fn until_copied(disk: &Path, copy: &Path, at: u64) {
    let page = |path: &Path| {
        let mut page = [0; 4096];
        let file = File::open(path).ok()?;
        file.read_exact_at(&mut page, at).ok().map(|()| page)
    };
    let wanted = page(disk).unwrap();
    eventually("the place is copied", || {
        (page(copy)? == wanted).then_some(())
    });
}

/// The raw file of the only copy, as soon as there is one.
fn only_copy(mesh: &Mesh) -> PathBuf {
    let cloud = mesh.operator.folder.join("cloud");
    eventually("the target volume", || {
        let files = fs::read_dir(&cloud).ok()?.flatten();
        let mut raw = files.map(|entry| entry.path());
        raw.find(|path| path.extension().is_some_and(|end| end == "raw"))
    })
}

/// Cuts over, and compares disk, copy and both signed roots.
fn finish(mesh: &Mesh, disk: &Path) {
    mesh.until("the copy's path", |view| {
        view["volumes"][0]["target_path"].is_string()
    });
    let copy = mesh.cut_over(disk);
    assert!(
        fs::read(disk).unwrap() == fs::read(&copy).unwrap(),
        "{} differs from its copy",
        disk.display()
    );
    let root = crate::harness::b3sum(disk);
    let verify = mesh.operator.run(&["verify", "m"]).ok();
    for end in ["source", "target"] {
        assert_eq!(verify["volumes"][0][end]["root"], root, "{verify:#}");
    }
}

/// A mesh killed at one node in the middle of its first pass; the copy went on after it.
fn killed_in_the_first_pass(lab: &Lab, which: Which) -> (Mesh, PathBuf) {
    let disk = lab.disk("disk.raw", LARGE_MIB, 1);
    let mut mesh = lab.mesh_of_three();
    mesh.plan(&disk);
    mesh.act("start");
    let copy = only_copy(&mesh);
    until_copied(&disk, &copy, LARGE_MIB as u64 / 8 * MIB);
    which(&mut mesh).kill();
    start_again(which(&mut mesh));
    mesh.until_passes(1);
    (mesh, disk)
}

#[test]
fn the_agent_killed_in_its_first_pass_goes_on() {
    let lab = Lab::new();
    let (mesh, disk) = killed_in_the_first_pass(&lab, AGENT);
    mesh.agent
        .until_event("session-resumed", &["durable barrier"]);
    finish(&mesh, &disk);
}

#[test]
fn the_replicator_killed_in_the_first_pass_hashes_again_what_it_was_writing() {
    let lab = Lab::new();
    let (mesh, disk) = killed_in_the_first_pass(&lab, REPLICATOR);
    let words = ["durable barrier", "hashed again"];
    mesh.replicator.until_event("copy-recovered", &words);
    mesh.agent
        .until_event("session-lost", &["durable barrier 0"]);
    mesh.agent
        .until_event("session-resumed", &["durable barrier"]);
    finish(&mesh, &disk);
}

#[test]
fn the_copy_goes_on_while_the_operator_is_gone() {
    let lab = Lab::new();
    let (mesh, disk) = killed_in_the_first_pass(&lab, OPERATOR);
    let sessions: Vec<usize> = ["session-opened", "session-resumed", "session-lost"]
        .map(|kind| count(&mesh.agent, kind))
        .into();
    assert_eq!(sessions, [1, 0, 0]);
    finish(&mesh, &disk);
}

#[test]
fn both_ends_killed_at_once_resume_from_the_last_durable_barrier() {
    let lab = Lab::new();
    let disk = lab.disk("disk.raw", LARGE_MIB, 1);
    let mut mesh = lab.mesh_of_three();
    mesh.plan(&disk);
    mesh.act("start");
    mesh.until_passes(1);
    rewrite(&disk, 0, LARGE_MIB, 2);
    let copy = only_copy(&mesh);
    until_copied(&disk, &copy, LARGE_MIB as u64 / 8 * MIB);
    mesh.replicator.kill();
    mesh.agent.kill();
    start_again(&mut mesh.agent);
    start_again(&mut mesh.replicator);
    let durable = ["durable barrier 1"];
    mesh.agent.until_event("session-resumed", &durable);
    mesh.replicator.until_event("copy-recovered", &durable);
    finish(&mesh, &disk);
}

#[test]
fn each_node_killed_between_two_passes_comes_back() {
    let lab = Lab::new();
    let disk = lab.disk("disk.raw", SMALL_MIB, 1);
    let mut mesh = lab.mesh_of_three();
    mesh.plan(&disk);
    mesh.act("start");
    let mut passes = crate::harness::passes_of(&mesh.until_passes(1));
    for (seed, which) in (2..).zip([OPERATOR, REPLICATOR, AGENT]) {
        mesh.until("a rest", |view| view["volumes"][0]["step"] == "resting");
        which(&mut mesh).kill();
        rewrite(&disk, seed, 4, seed);
        start_again(which(&mut mesh));
        mesh.connected();
        let view = mesh.until_passes(passes + 2);
        passes = crate::harness::passes_of(&view);
    }
    assert!(count(&mesh.agent, "session-resumed") >= 2);
    finish(&mesh, &disk);
}

#[test]
fn ten_kills_in_a_row_lose_nothing() {
    let lab = Lab::new();
    let disk = lab.disk("disk.raw", SMALL_MIB * 2, 1);
    let mut mesh = lab.mesh_of_three();
    mesh.plan(&disk);
    mesh.act("start");
    let copy = only_copy(&mesh);
    let victims: [&[Which]; 5] = [
        &[AGENT],
        &[REPLICATOR],
        &[AGENT, REPLICATOR],
        &[OPERATOR],
        &[OPERATOR, REPLICATOR, AGENT],
    ];
    for (round, victims) in (0..10).zip(victims.into_iter().cycle()) {
        // Each round's content is recognised in the copy, in the middle of a pass.
        rewrite(&disk, round * 4, 16, 100 + round);
        until_copied(&disk, &copy, (round * 4 + 2) * MIB);
        victims.iter().for_each(|which| which(&mut mesh).kill());
        victims
            .iter()
            .for_each(|which| start_again(which(&mut mesh)));
    }
    finish(&mesh, &disk);
}

#[test]
fn each_node_killed_while_cutting_over_comes_back_and_the_cutover_goes_on() {
    let lab = Lab::new();
    let disk = lab.disk("disk.raw", SMALL_MIB, 1);
    let mut mesh = lab.mesh_of_three();
    mesh.plan(&disk);
    mesh.act("start");
    mesh.until_passes(1);
    // As long as it writes no pass is clean, and the cutover cannot end.
    let writer = Writer::start(&disk);
    mesh.act("cutover");
    mesh.agent
        .until_event("source-not-quiet", &["stop or freeze"]);
    for which in [OPERATOR, REPLICATOR, AGENT] {
        let passes = crate::harness::passes_of(&mesh.migration());
        kill_and_start(which(&mut mesh));
        mesh.until("more passes", |view: &Value| {
            view["stage"] == "cutting-over" && crate::harness::passes_of(view) > passes
        });
    }
    drop(writer);
    mesh.agent
        .until_event("session-resumed", &["durable barrier"]);
    finish(&mesh, &disk);
}

/// Asks for a cutover with the copy read back in full, and kills a node at once.
fn killed_when_cutover_was_asked(which: Which) {
    let lab = Lab::new();
    let disk = lab.disk("disk.raw", SMALL_MIB * 2, 1);
    let mut mesh = lab.mesh_of_three();
    mesh.plan(&disk);
    mesh.act("start");
    mesh.until_passes(1);
    let cutover = ["migration", "cutover", "m", "--prove", "full"];
    mesh.operator.run(&cutover).ok();
    kill_and_start(which(&mut mesh));
    finish(&mesh, &disk);
    let verify = mesh.operator.run(&["verify", "m"]).ok();
    let method = &verify["volumes"][0]["target"]["method"];
    assert!(method.as_str().unwrap().contains("back"), "{verify:#}");
}

#[test]
fn the_operator_killed_right_after_it_asked_for_the_cutover_has_it_done() {
    killed_when_cutover_was_asked(OPERATOR);
}

#[test]
fn the_replicator_killed_right_after_cutover_was_asked_proves_the_copy_later() {
    killed_when_cutover_was_asked(REPLICATOR);
}

#[test]
fn the_agent_killed_right_after_cutover_was_asked_cuts_over_later() {
    killed_when_cutover_was_asked(AGENT);
}
