//! Sources that are not disks, and disks that change under a migration.

use crate::harness::{Lab, Mesh, is_root, noise, passes_of, pause};
use serde_json::Value;
use std::fs::{self, File, Permissions};
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::mpsc;
use std::time::Duration;

/// A user without rights, on every system.
const NOBODY: u32 = 65_534;
const MIB: u64 = 1 << 20;

#[test]
fn what_is_no_disk_is_not_offered() {
    let lab = Lab::new();
    let mut operator = lab.founder("operator");
    operator.start();
    let mut agent = lab.joiner(&operator, "agent", "agent");
    agent.start();
    let add = |path: &Path| agent.run(&["volume", "add", path.to_str().unwrap()]);
    add(&lab.path("nowhere.raw")).fails(2, &["nowhere.raw"]);
    fs::create_dir(lab.path("folder")).unwrap();
    add(&lab.path("folder")).fails(2, &["folder", "neither a block device nor"]);
    fs::write(lab.path("empty.raw"), "").unwrap();
    add(&lab.path("empty.raw")).fails(2, &["empty.raw", "cannot be moved"]);
    add(Path::new("/dev/zero")).fails(2, &["/dev/zero", "neither a block device nor"]);
    assert_eq!(agent.run(&["volume", "list"]).ok(), Value::Array(vec![]));

    let disk = lab.disk("disk.raw", 1, 1);
    crate::harness::eventually("the agent reports", || {
        (agent.status()["may_write"] == true).then_some(())
    });
    add(&disk).ok();
    let other = lab.disk("other.raw", 1, 2);
    let named = ["volume", "add", other.to_str().unwrap(), "--name"];
    agent
        .run(&[&named[..], &["disk.raw"]].concat())
        .fails(2, &["disk.raw", "--name"]);
    agent
        .run(&[&named[..], &["a b"]].concat())
        .fails(2, &["name"]);
    assert_eq!(
        agent
            .run(&["volume", "list"])
            .ok()
            .as_array()
            .unwrap()
            .len(),
        1
    );
}

#[test]
fn nothing_in_the_agents_own_data_folder_is_offered() {
    let lab = Lab::new();
    let mut operator = lab.founder("operator");
    operator.start();
    let mut agent = lab.joiner(&operator, "agent", "agent");
    agent.start();
    let link = lab.path("link.raw");
    std::os::unix::fs::symlink(agent.folder.join("dunlin.redb"), &link).unwrap();
    let around = agent.folder.join("run/../node.key");
    for path in [agent.folder.join("node.key"), link, around] {
        agent
            .run(&["volume", "add", path.to_str().unwrap()])
            .fails(6, &["own data folder", "outside that folder"]);
    }
    assert_eq!(agent.run(&["volume", "list"]).ok(), Value::Array(vec![]));
}

#[test]
fn a_file_that_the_node_may_not_read_is_not_offered() {
    let lab = Lab::new();
    let secret = lab.disk("secret.raw", 1, 1);
    let mut node = lab.node("node");
    if rustix::process::geteuid().is_root() {
        // Root may read everything, so the node runs as somebody else.
        node.user = Some(NOBODY);
        fs::set_permissions(&secret, Permissions::from_mode(0o600)).unwrap();
        fs::set_permissions(lab.path("."), Permissions::from_mode(0o777)).unwrap();
    } else {
        fs::set_permissions(&secret, Permissions::from_mode(0o000)).unwrap();
    }
    node.run(&["mesh", "init", "--role", "agent"]).ok();
    node.start();
    let output = node.run(&["volume", "add", secret.to_str().unwrap()]);
    output.fails(2, &["secret.raw", "not allowed to read"]);
}

/// A mesh whose migration `m` of `disk` has made a pass.
fn replicating(lab: &Lab, disk: &Path) -> Mesh {
    let mesh = lab.mesh_of_three();
    mesh.plan(disk);
    mesh.act("start");
    mesh.until_passes(1);
    mesh
}

fn stalled(mesh: &Mesh, words: &[&str]) {
    mesh.until("stalled with the reason", |view| {
        let job = &view["volumes"][0];
        let why = job["detail"].as_str().unwrap_or_default();
        job["stage"] == "stalled" && words.iter().any(|word| why.contains(word))
    });
}

#[test]
fn a_source_that_disappears_stalls_the_migration_until_it_is_back() {
    let lab = Lab::new();
    let disk = lab.disk("disk.raw", 16, 1);
    let away = lab.path("away.raw");
    let mesh = replicating(&lab, &disk);
    fs::rename(&disk, &away).unwrap();
    stalled(&mesh, &["bring it back", "put it back"]);
    mesh.agent
        .until_event("source-failed", &["disk.raw", "back"]);
    let passes = passes_of(&mesh.migration());
    fs::rename(&away, &disk).unwrap();
    mesh.until_passes(passes + 1);
    mesh.cut_over(&disk);
}

#[test]
fn a_source_that_grows_is_not_copied_until_it_has_its_length_again() {
    let lab = Lab::new();
    let disk = lab.disk("disk.raw", 8, 1);
    let mesh = replicating(&lab, &disk);
    let file = File::options().write(true).open(&disk).unwrap();
    file.write_all_at(&noise(MIB as usize, 9), 8 * MIB).unwrap();
    let grown = ["disk.raw", "grew from 8388608 to 9437184"];
    mesh.agent.until_event("source-failed", &grown);
    stalled(&mesh, &["grew"]);
    mesh.act("cutover");
    stalled(&mesh, &["grew"]);
    file.set_len(8 * MIB).unwrap();
    mesh.cut_over(&disk);
}

#[test]
fn a_source_that_grew_is_moved_whole_by_a_new_migration() {
    let lab = Lab::new();
    let disk = lab.disk("disk.raw", 8, 1);
    let mesh = replicating(&lab, &disk);
    let file = File::options().write(true).open(&disk).unwrap();
    file.write_all_at(&noise(MIB as usize, 9), 8 * MIB).unwrap();
    stalled(&mesh, &["grew"]);
    mesh.act("delete");
    mesh.plan(&disk);
    mesh.act("start");
    mesh.until_passes(1);
    let copy = mesh.cut_over(&disk);
    assert_eq!(fs::metadata(copy).unwrap().len(), 9 * MIB);
}

#[test]
fn a_source_that_shrinks_is_not_copied_until_it_has_its_length_again() {
    let lab = Lab::new();
    let disk = lab.disk("disk.raw", 8, 1);
    let mesh = replicating(&lab, &disk);
    let file = File::options().write(true).open(&disk).unwrap();
    file.set_len(3 * MIB).unwrap();
    mesh.agent
        .until_event("source-failed", &["disk.raw", "8388608", "3145728"]);
    stalled(&mesh, &["shrank"]);
    file.set_len(8 * MIB).unwrap();
    mesh.cut_over(&disk);
}

#[test]
fn a_source_that_is_replaced_is_noticed_and_the_first_one_is_copied_when_it_is_back() {
    let lab = Lab::new();
    let disk = lab.disk("disk.raw", 8, 1);
    let (away, other) = (lab.path("away.raw"), lab.disk("other.raw", 8, 2));
    let mesh = replicating(&lab, &disk);
    fs::hard_link(&disk, &away).unwrap();
    fs::rename(&other, &disk).unwrap();
    mesh.agent
        .until_event("source-failed", &["disk.raw", "put the first one back"]);
    stalled(&mesh, &["put the first one back"]);
    fs::rename(&away, &disk).unwrap();
    mesh.cut_over(&disk);
}

#[test]
fn a_source_that_changes_its_length_and_place_during_passes_is_copied_in_the_end() {
    let lab = Lab::new();
    let disk = lab.disk("disk.raw", 32, 1);
    let away = lab.path("away.raw");
    let mesh = replicating(&lab, &disk);
    let (stop, stopped) = mpsc::channel::<()>();
    let path = disk.clone();
    // Written to without an end, a cutover makes one pass after another.
    let writer = std::thread::spawn(move || {
        let file = File::options().write(true).open(path).unwrap();
        for number in 0.. {
            let at = (number % 29) * MIB;
            file.write_all_at(&noise(4096, number), at).unwrap();
            let waited = stopped.recv_timeout(Duration::from_millis(5));
            if waited != Err(mpsc::RecvTimeoutError::Timeout) {
                break;
            }
        }
    });
    mesh.act("cutover");
    mesh.agent.until_event("source-not-quiet", &["freeze"]);
    let file = File::options().write(true).open(&disk).unwrap();
    let hold = |millis| pause(Duration::from_millis(millis));
    for round in 0..6 {
        file.set_len(33 * MIB).unwrap();
        hold(40 + 7 * round);
        file.set_len(30 * MIB).unwrap();
        hold(40 + 7 * round);
        file.set_len(32 * MIB).unwrap();
        fs::rename(&disk, &away).unwrap();
        hold(40 + 7 * round);
        fs::rename(&away, &disk).unwrap();
        hold(40 + 7 * round);
    }
    assert_ne!(mesh.migration()["stage"], "cut-over");
    mesh.agent.until_event("source-failed", &["disk.raw"]);
    drop(stop);
    writer.join().unwrap();
    mesh.cut_over(&disk);
}

/// A loop device, given back at the end.
struct Loop(PathBuf);

impl Loop {
    fn over(file: &Path) -> Option<Self> {
        let made = Command::new("losetup")
            .args(["--find", "--show"])
            .arg(file)
            .output();
        let made = made.ok().filter(|made| made.status.success())?;
        Some(Self(String::from_utf8(made.stdout).unwrap().trim().into()))
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        let _ = Command::new("losetup")
            .arg("--detach")
            .arg(&self.0)
            .status();
    }
}

#[test]
fn a_disk_with_read_errors_stalls_the_migration_until_it_can_be_read() {
    if !is_root("a disk with read errors") {
        return;
    }
    let lab = Lab::new();
    let backing = lab.disk("backing.raw", 16, 1);
    let Some(device) = Loop::over(&backing) else {
        eprintln!("skipped: no loop device can be had here");
        return;
    };
    let whole = fs::read(&backing).unwrap();
    let mesh = replicating(&lab, &device.0);
    // What lies past the end of the file below cannot be read any more.
    let file = File::options().write(true).open(&backing).unwrap();
    file.set_len(9 * MIB).unwrap();
    let path = device.0.to_str().unwrap();
    mesh.agent
        .until_event("source-failed", &[path, "at offset", "check the disk"]);
    stalled(&mesh, &["cannot read"]);
    file.write_all_at(&whole[9 << 20..], 9 * MIB).unwrap();
    let passes = passes_of(&mesh.migration());
    mesh.until_passes(passes + 1);
    let copy = mesh.cut_over(&device.0);
    assert!(fs::read(copy).unwrap() == whole);
}
