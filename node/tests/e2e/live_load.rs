//! A mounted file system under load on a block device, migrated while it is written to
//! and cut over while it is frozen.
//!
//! Needs root, loop devices and a few programs; says what is missing and does nothing
//! otherwise.

use crate::device::{Load, Loop, Mount, has_tools, run, text};
use crate::harness::{Lab, is_root};
use serde_json::Value;
use std::fs;

const TEST: &str = "a migration under live load";
const DISK_MIB: u64 = 128;
/// Passes after the first that must have found something new.
const BUSY_PASSES: usize = 2;

/// How many passes after the first found something new.
fn busy_passes(view: &Value) -> usize {
    let passes = view["volumes"][0]["passes"].as_array().unwrap();
    let later = passes.iter().skip(1);
    later
        .filter(|pass| pass["blocks"].as_u64() > Some(0))
        .count()
}

#[test]
fn a_file_system_under_load_is_migrated_and_clean_when_frozen_for_the_cutover() {
    if !is_root(TEST) || !has_tools(TEST) {
        return;
    }
    let lab = Lab::new();
    let image = lab.path("disk.img");
    fs::File::create(&image)
        .unwrap()
        .set_len(DISK_MIB << 20)
        .unwrap();
    let Some(disk) = Loop::attach(&image, TEST) else {
        return;
    };
    run("mkfs.ext4", &["-q", text(&disk.device)]);
    let mount = Mount::new(&disk.device, lab.path("mnt"));
    let mut load = Load::start(&mount.folder);

    let mesh = lab.mesh_of_three();
    mesh.plan(&disk.device);
    mesh.act("start");
    mesh.until("passes under load", |view| busy_passes(view) >= BUSY_PASSES);
    load.stop();
    mount.freeze();
    // What is on the disk. Read through the page cache, the device also shows what the
    // file system has changed in memory alone.
    let copy = mesh.cut_over(&image);

    let checked = run("e2fsck", &["-fn", text(&copy)]);
    assert!(!checked.contains("recover"), "{checked}");
    assert!(
        fs::read(&image).unwrap() == fs::read(&copy).unwrap(),
        "the frozen device differs from its copy"
    );
    let verify = mesh.operator.run(&["verify", "m"]).ok();
    for end in ["source", "target"] {
        let proof = &verify["volumes"][0][end];
        let printed = run("sh", &["-c", proof["command"].as_str().unwrap()]);
        assert_eq!(proof["root"], printed.trim(), "{proof:#}");
    }
    mount.thaw();
}
