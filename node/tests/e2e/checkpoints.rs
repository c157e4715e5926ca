//! Points of a source that goes on being written to, kept at the target: one is gone back to,
//! one is tried out, and each holds what the source did at its moment.
//!
//! That with a guard needs root, loop devices and a few programs; it says what is missing and
//! does nothing otherwise.

use crate::device::{Load, Loop, Mount, has_tools, run, text};
use crate::guard::{Guard, guarded_mesh};
use crate::harness::{Lab, Mesh, b3sum, eventually, is_root, noise};
use serde_json::Value;
use std::fs::{self, File, OpenOptions};
use std::io::{Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

const TEST: &str = "a checkpoint that freezes its source";

/// One checkpoint as the operator sees it.
fn checkpoint(view: &Value, name: &str) -> Option<Value> {
    let checkpoints = view["checkpoints"].as_array()?;
    let found = checkpoints.iter().find(|found| found["name"] == name)?;
    Some(found.clone())
}

/// Takes a checkpoint, and waits until it was read back.
fn take(mesh: &Mesh, name: &str) -> Value {
    let words = ["migration", "checkpoint", "m", "--name", name];
    mesh.operator.run(&words).ok();
    verified(mesh, name)
}

fn verified(mesh: &Mesh, name: &str) -> Value {
    let is = |view: &Value| {
        let found = checkpoint(view, name);
        found.is_some_and(|found| found["state"] == "verified")
    };
    checkpoint(&mesh.until("the checkpoint is verified", is), name).unwrap()
}

/// Where the copy of the first volume is that can be written to, once it is there.
fn copy_of(mesh: &Mesh, name: &str) -> PathBuf {
    let copy = |view: &Value| {
        checkpoint(view, name)?["volumes"][0]["copy"]
            .as_str()
            .map(PathBuf::from)
    };
    copy(&mesh.until("a copy to write to", |view| copy(view).is_some())).unwrap()
}

fn path_of(checkpoint: &Value) -> &Path {
    Path::new(checkpoint["volumes"][0]["path"].as_str().unwrap())
}

fn write_at(disk: &Path, at: u64, bytes: &[u8]) {
    let mut file = OpenOptions::new().write(true).open(disk).unwrap();
    file.seek(SeekFrom::Start(at)).unwrap();
    file.write_all(bytes).unwrap();
    file.sync_all().unwrap();
}

#[test]
fn a_source_is_gone_back_to_what_it_was_while_the_live_copy_stays() {
    let lab = Lab::new();
    let disk = lab.disk("disk.raw", 8, 1);
    let mut mesh = lab.mesh_of_three();
    mesh.plan(&disk);
    let words = ["migration", "checkpoint", "m"];
    mesh.operator.run(&words).fails(6, &["not started"]);
    mesh.act("start");
    mesh.until_passes(1);

    let first = take(&mesh, "first");
    let was = b3sum(&disk);
    assert_eq!(first["frozen_millis"], Value::Null);
    assert_eq!(first["volumes"][0]["proof"]["root"], was.as_str());
    write_at(&disk, 3 << 20, &noise(1 << 20, 7));
    let second = take(&mesh, "second");
    assert_eq!(b3sum(path_of(&second)), b3sum(&disk));
    assert_eq!(b3sum(path_of(&first)), was);
    assert_ne!(b3sum(&disk), was);

    // A name is used once, and what is not there is not gone back to.
    let again = ["migration", "checkpoint", "m", "--name", "first"];
    mesh.operator
        .run(&again)
        .fails(1, &["first", "another name"]);
    let nowhere = ["migration", "rollback", "m", "--to", "third"];
    mesh.operator.run(&nowhere).fails(6, &["third", "--list"]);

    let back = ["migration", "rollback", "m", "--to", "first"];
    mesh.operator.run(&back).ok();
    let copy = copy_of(&mesh, "first");
    mesh.until_stage("paused");
    assert_eq!(b3sum(&copy), was, "not what the source was");
    write_at(&copy, 0, b"written to the copy");
    assert_eq!(b3sum(path_of(&first)), was, "the checkpoint was written to");

    // The live copy goes on from where it was, also after a restart.
    mesh.agent.kill();
    mesh.agent.start();
    mesh.connected();
    mesh.act("resume");
    mesh.cut_over(&disk);
    let verify = mesh.operator.run(&["verify", "m"]).ok();
    let roots = verify["checkpoints"].as_array().unwrap();
    assert_eq!(roots.len(), 2, "{verify:#}");
    assert_eq!(roots[1]["volumes"][0]["proof"]["root"], was.as_str());
}

#[test]
fn a_copy_is_tried_out_and_old_checkpoints_are_dropped() {
    let lab = Lab::new();
    let disk = lab.disk("disk.raw", 8, 2);
    let mesh = lab.mesh_of_three();
    mesh.plan(&disk);
    mesh.act("start");
    mesh.until_passes(1);
    let one = take(&mesh, "one");
    let test = ["migration", "test", "m"];
    let asked = mesh.operator.run(&test).ok();
    let name = asked[0]["name"].as_str().unwrap().to_owned();
    assert!(name.starts_with("test-"), "{asked:#}");
    let copy = copy_of(&mesh, &name);
    assert_eq!(b3sum(&copy), b3sum(&disk));
    verified(&mesh, &name);
    let keep = ["migration", "checkpoint", "m", "--keep", "1"];
    mesh.operator.run(&keep).ok();
    eventually("the older one is dropped", || {
        (!path_of(&one).exists()).then_some(())
    });
    mesh.operator.run(&["migration", "test", "m", "--end"]).ok();
    eventually("the copy is deleted", || (!copy.exists()).then_some(()));
    // With the migration the checkpoint goes too.
    let kept = path_of(&verified(&mesh, &name)).to_owned();
    mesh.act("delete");
    eventually("the checkpoint is deleted", || {
        (!kept.exists()).then_some(())
    });
}

#[test]
fn a_disk_under_load_is_kept_as_it_was_at_one_moment_and_runs_on() {
    if !is_root(TEST) || !has_tools(TEST) {
        return;
    }
    let lab = Lab::new();
    let image = lab.path("disk.img");
    File::create(&image).unwrap().set_len(96 << 20).unwrap();
    let Some(disk) = Loop::attach(&image, TEST) else {
        return;
    };
    run("mkfs.ext4", &["-q", text(&disk.device)]);
    let mount = Mount::new(&disk.device, lab.path("mnt"));
    let _load = Load::start(&mount.folder);
    let _guard = Guard::start(&lab.path("guard.sock"));
    let mesh = guarded_mesh(&lab, "");
    mesh.plan(&disk.device);
    mesh.act("start");
    mesh.until_passes(1);

    let kept = take(&mesh, "under-load");
    assert!(kept["frozen_millis"].is_u64(), "{kept:#}");
    eprintln!("frozen for {} ms", kept["frozen_millis"]);
    mesh.agent.until_event("thawed", &["runs again"]);
    let root = kept["volumes"][0]["proof"]["root"].as_str().unwrap();
    assert_eq!(b3sum(path_of(&kept)), root);
    // What was kept is a file system that nobody was writing to.
    mesh.operator
        .run(&["migration", "test", "m", "--checkpoint", "under-load"])
        .ok();
    let copy = copy_of(&mesh, "under-load");
    let copied = Loop::attach(&copy, TEST).unwrap();
    run("e2fsck", &["-fp", text(&copied.device)]);
    // The source is written to as before.
    fs::write(mount.folder.join("after"), b"x").unwrap();
}
