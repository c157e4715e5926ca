//! Targets that are full, too small or gone.

use crate::harness::{Lab, Mesh, eventually, is_root};
use crate::writing::Writer;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

const MIB: u64 = 1 << 20;

/// A file system in memory, of a size that can be changed; unmounted at the end.
struct Tmpfs(PathBuf);

impl Tmpfs {
    fn mount(at: PathBuf, mib: u32) -> Option<Self> {
        fs::create_dir(&at).unwrap();
        mount(&format!("size={mib}m,mode=700"), &at).then_some(Self(at))
    }

    fn resize(&self, mib: u32) {
        assert!(mount(&format!("remount,size={mib}m"), &self.0));
    }
}

fn mount(options: &str, at: &Path) -> bool {
    let mut command = Command::new("mount");
    command
        .args(["-t", "tmpfs", "-o", options, "dunlin-e2e"])
        .arg(at);
    command.status().is_ok_and(|status| status.success())
}

impl Drop for Tmpfs {
    fn drop(&mut self) {
        // Also when a node that is being ended still holds a file there.
        let _ = Command::new("umount").arg("--lazy").arg(&self.0).status();
    }
}

fn stalled(mesh: &Mesh, words: &[&str]) {
    mesh.until("stalled with the reason", |view| {
        let job = &view["volumes"][0];
        let why = job["detail"].as_str().unwrap_or_default();
        job["stage"] == "stalled" && words.iter().all(|word| why.contains(word))
    });
}

#[test]
fn a_full_disk_below_the_target_stalls_the_migration_until_there_is_space() {
    if !is_root("a full disk below the target") {
        return;
    }
    let lab = Lab::new();
    let disk = lab.disk("disk.raw", 24, 1);
    let Some(cloud) = Tmpfs::mount(lab.path("cloud"), 12) else {
        eprintln!("skipped: no tmpfs can be mounted here");
        return;
    };
    let config = lab.path("operator.toml");
    fs::write(&config, format!("[local]\nfolder = {:?}\n", cloud.0)).unwrap();
    let mut mesh = lab.mesh_of_three();
    mesh.operator.stop();
    mesh.operator.extra = vec!["--config".into(), config.to_str().unwrap().into()];
    mesh.operator.start();
    mesh.connected();
    mesh.plan(&disk);
    mesh.act("start");
    let path = cloud.0.to_str().unwrap();
    mesh.replicator
        .until_event("storage-failed", &[path, "free some space"]);
    stalled(&mesh, &["storage is full"]);
    cloud.resize(64);
    mesh.until_passes(1);
    let copy = mesh.cut_over(&disk);
    assert!(copy.starts_with(&cloud.0), "{copy:?}");
    drop(mesh);
}

#[test]
fn a_target_smaller_than_the_source_is_refused_and_copied_anew_when_it_is_mended() {
    let lab = Lab::new();
    let disk = lab.disk("disk.raw", 24, 1);
    let mesh = lab.mesh_of_three();
    mesh.plan(&disk);
    mesh.act("start");
    let view = mesh.until_passes(1);
    mesh.act("pause");
    mesh.until_stage("paused");
    let copy = view["volumes"][0]["target_path"].as_str().unwrap();
    let file = File::options().write(true).open(copy).unwrap();
    file.set_len(5 * MIB).unwrap();
    mesh.act("resume");
    let text = format!("target {copy} has 5242880 bytes, 25165824 are needed");
    mesh.replicator.until_event("stream-refused", &[&text]);
    stalled(&mesh, &["refused by the replicator"]);
    // What was cut off is lost, and must not be believed to be there.
    file.set_len(24 * MIB).unwrap();
    mesh.cut_over(&disk);
}

#[test]
fn a_target_that_is_gone_is_named() {
    let lab = Lab::new();
    let disk = lab.disk("disk.raw", 8, 1);
    let mesh = lab.mesh_of_three();
    mesh.plan(&disk);
    mesh.act("start");
    let view = mesh.until_passes(1);
    mesh.act("pause");
    mesh.until_stage("paused");
    let copy = view["volumes"][0]["target_path"].as_str().unwrap();
    let away = lab.path("away.raw");
    fs::rename(copy, &away).unwrap();
    mesh.act("resume");
    mesh.replicator
        .until_event("stream-refused", &[copy, "does not exist"]);
    stalled(&mesh, &["refused by the replicator"]);
    fs::rename(&away, copy).unwrap();
    mesh.cut_over(&disk);
}

#[test]
fn a_copy_that_is_deleted_while_it_is_written_is_not_cut_over_and_is_named() {
    let lab = Lab::new();
    let disk = lab.disk("disk.raw", 8, 1);
    let mesh = lab.mesh_of_three();
    mesh.plan(&disk);
    mesh.act("start");
    let view = mesh.until_passes(1);
    let copy = view["volumes"][0]["target_path"].as_str().unwrap();
    let away = lab.path("away.raw");
    fs::rename(copy, &away).unwrap();
    mesh.operator
        .run(&["migration", "cutover", "m", "--prove", "full"])
        .ok();
    mesh.replicator
        .until_event("storage-failed", &[copy, "is gone", "put it back"]);
    stalled(&mesh, &["refused by the replicator"]);
    let verify = mesh.operator.run(&["verify", "m"]);
    assert_eq!(verify.status.code(), Some(6), "{verify:?}");
    assert!(verify.stdout.contains("\"equal\":false"), "{verify:?}");
    fs::rename(&away, copy).unwrap();
    mesh.until_stage("cut-over");
    // After the cutover it is the witness that misses it.
    let verify = || mesh.operator.run(&["verify", "m"]).ok();
    eventually("the witness", || {
        (verify()["confirmed"] == true).then_some(())
    });
}

#[test]
fn a_copy_that_is_gone_when_the_witness_comes_is_told_by_verify() {
    let lab = Lab::new();
    let disk = lab.disk("disk.raw", 8, 1);
    let mut mesh = lab.mesh_of_three();
    mesh.plan(&disk);
    mesh.act("start");
    let view = mesh.until_passes(1);
    let copy = view["volumes"][0]["target_path"].as_str().unwrap();
    // The cutover ends while the provisioner, who would read the copy back, is away.
    let writer = Writer::start(&disk);
    mesh.act("cutover");
    mesh.agent.until_event("source-not-quiet", &[]);
    mesh.operator.stop();
    drop(writer);
    eventually("the cutover", || {
        let view = mesh.agent.run(&["migration", "show", "m"]).ok();
        (view["stage"] == "cut-over").then_some(())
    });
    fs::remove_file(copy).unwrap();
    mesh.operator.start();
    mesh.operator
        .until_event("read-back-failed", &[copy, "is missing"]);
    let verify = eventually("the provisioner says that it is missing", || {
        let verify = mesh.operator.run(&["verify", "m"]);
        let view: serde_json::Value = serde_json::from_str(&verify.stdout).ok()?;
        let volume = &view["volumes"][0];
        let is_told = volume["equal"] == true && volume["volume_problem"].is_string();
        is_told.then(|| {
            assert_eq!(verify.status.code(), Some(6), "{verify:?}");
            assert!(verify.stderr.contains("is not in order now"), "{verify:?}");
            view
        })
    });
    let volume = &verify["volumes"][0];
    let said = |field: &str| volume[field].as_str().unwrap().to_owned();
    assert!(said("volume_problem").contains("is missing"), "{verify:#}");
    let unconfirmed = said("unconfirmed");
    assert!(
        unconfirmed.contains("could not be read back"),
        "{unconfirmed}"
    );
    let command = volume["target"]["command"].as_str().unwrap();
    assert!(command.contains("'COPY'"), "{command}");
}
