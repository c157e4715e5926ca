//! A disk with swap on it, whose content is left out of its copy.
//!
//! Needs root, loop devices and a few programs; says what is missing and does nothing
//! otherwise.

use crate::device::{Loop, run, text};
use crate::guard::{Guard, guarded_mesh};
use crate::harness::{Lab, Mesh, eventually, is_root, noise};
use serde_json::Value;
use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;

const TEST: &str = "swap that is left out";
const MIB: usize = 1 << 20;
const DISK: usize = 96 * MIB;
/// Where the partition with swap begins, and how long it is.
const SWAP: (usize, usize) = (40 * MIB, 48 * MIB);

/// Partitions of a loop device that this kernel does not find by itself.
struct Partitions(PathBuf);

impl Drop for Partitions {
    fn drop(&mut self) {
        // A test that failed may have left it in use.
        let swap = format!("{}p2", self.0.display());
        let _ = Command::new("swapoff").arg(swap).output();
        let _ = Command::new("partx").arg("-d").arg(&self.0).output();
    }
}

/// A disk with a partition of noise, and one of swap that is full of noise.
fn disk(lab: &Lab) -> Option<(PathBuf, Loop, Partitions)> {
    let image = lab.path("image");
    let file = File::create(&image).unwrap();
    file.set_len(DISK as u64).unwrap();
    let table = lab.path("table");
    let sectors = |bytes: usize| bytes / 512;
    let lines = format!(
        "label: dos\nstart=2048, size={}, type=83\nstart={}, size={}, type=82\n",
        sectors(30 * MIB),
        sectors(SWAP.0),
        sectors(SWAP.1)
    );
    fs::write(&table, lines).unwrap();
    let script = format!("sfdisk -q {} < {}", text(&image), text(&table));
    run("sh", &["-c", &script]);
    let device = Loop::attach(&image, TEST)?;
    run("partx", &["-a", text(&device.device)]);
    let partitions = Partitions(device.device.clone());
    let open = OpenOptions::new().write(true).open(&device.device).unwrap();
    open.write_all_at(&noise(30 * MIB, 1), MIB as u64).unwrap();
    open.write_all_at(&noise(SWAP.1, 2), SWAP.0 as u64).unwrap();
    open.sync_all().unwrap();
    let swap = format!("{}p2", device.device.display());
    run("mkswap", &["-q", "-L", "spare", &swap]);
    Some((image, device, partitions))
}

/// A mesh that moves the disk, but for its swap.
fn moving(lab: &Lab, device: &Loop) -> Mesh {
    let mesh = guarded_mesh(lab, "");
    mesh.offer(&device.device, "disk");
    let plan = ["migration", "create", "--server", "agent", "--to", "local"];
    let plan = [&plan[..], &["--name", "m", "--leave-out", "swap"]].concat();
    assert_eq!(mesh.operator.run(&plan).ok()["leave_out"], "swap");
    mesh.act("start");
    mesh
}

fn read(path: &Path) -> Vec<u8> {
    fs::read(path).unwrap()
}

fn printed(command: &Value) -> String {
    let command = command.as_str().unwrap();
    run("sh", &["-c", command]).trim().to_owned()
}

#[test]
fn swap_stays_behind_and_the_commands_of_both_ends_print_the_same_root() {
    if !is_root(TEST) {
        return;
    }
    for tool in ["mkswap", "partx", "sfdisk", "b3sum"] {
        if Command::new(tool).arg("--version").output().is_err() {
            eprintln!("skipped: {TEST} needs {tool}");
            return;
        }
    }
    let lab = Lab::new();
    let Some((_image, device, _partitions)) = disk(&lab) else {
        return;
    };
    let _guard = Guard::start(&lab.path("guard.sock"));
    let mesh = moving(&lab, &device);
    let view = mesh.until_passes(1);
    let (start, length) = (SWAP.0 + 65_536, SWAP.1 - 65_536);
    let extents = serde_json::json!([{ "offset": start, "length": length }]);
    assert_eq!(view["volumes"][0]["left_out"], extents);
    assert_eq!(view["volumes"][0]["bytes_left_out"], length);
    let sent = view["volumes"][0]["passes"][0]["bytes_sent"].as_u64();
    assert!(sent.unwrap() < 34 * MIB as u64, "{sent:?}");
    // The kernel may not let it: then nobody swaps to it, and it is swap all the same.
    let swap = format!("{}p2", device.device.display());
    let on = Command::new("swapon").arg(&swap).output().unwrap();
    if !on.status.success() {
        let why = String::from_utf8_lossy(&on.stderr);
        eprintln!("swap is not in use in this test: {why}");
    }
    mesh.act("cutover");
    let view = mesh.until_stage("cut-over");
    let copy = PathBuf::from(view["volumes"][0]["target_path"].as_str().unwrap());
    let mut expected = read(&device.device);
    let (source, target) = (expected.clone(), read(&copy));
    assert!(source[start..start + length].iter().any(|byte| *byte != 0));
    expected[start..start + length].fill(0);
    assert!(target == expected, "the copy is the disk without swap");
    assert_eq!(target[SWAP.0..start], source[SWAP.0..start], "its header");
    let verify = eventually("both ends' proofs", || {
        let verify = mesh.operator.run(&["verify", "m"]).ok();
        (verify["verified"] == true).then_some(verify)
    });
    let proofs = &verify["volumes"][0];
    assert_eq!(proofs["source"]["left_out"], extents);
    assert_eq!(proofs["target"]["left_out"], Value::Null);
    for end in ["source", "target"] {
        let proof = &proofs[end];
        assert_eq!(printed(&proof["command"]), proof["root"].as_str().unwrap());
    }
}

#[test]
fn swap_that_was_made_anew_is_copied_after_all() {
    if !is_root(TEST) {
        return;
    }
    let lab = Lab::new();
    let Some((_image, device, _partitions)) = disk(&lab) else {
        return;
    };
    let _guard = Guard::start(&lab.path("guard.sock"));
    let mesh = moving(&lab, &device);
    let view = mesh.until_passes(1);
    assert_ne!(view["volumes"][0]["bytes_left_out"], Value::Null);
    let swap = format!("{}p2", device.device.display());
    run("mkswap", &["-q", &swap]);
    mesh.act("cutover");
    let view = mesh.until_stage("cut-over");
    assert_eq!(view["volumes"][0]["left_out"], Value::Null);
    let copy = PathBuf::from(view["volumes"][0]["target_path"].as_str().unwrap());
    assert!(read(&copy) == read(&device.device), "all of it is there");
    assert_eq!(crate::harness::count(&mesh.agent, "swap-moved"), 1);
}
