//! The operator's node killed while blocks move: they stop within the lease, or go on
//! for the autonomy that the grant was given, and go on when it is back.
//!
//! Not here: clocks that are off and reboots, which the simulations have.

use crate::harness::{Lab, Mesh, b3sum, eventually, noise, passes_of, pause};
use serde_json::Value;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

const DISK_MIB: usize = 8;
const LEASE: Duration = Duration::from_secs(6);
/// Two passes and the rest between them: a disk that is written to shows in its copy.
const TWO_PASSES: Duration = Duration::from_secs(6);

/// A mesh with a migration that has made its first pass; its disk and the copy.
fn started(lab: &Lab, lease: &str, autonomy: &str) -> (Mesh, PathBuf, PathBuf) {
    let disk = lab.disk("disk.raw", DISK_MIB, 1);
    let mesh = lab.mesh_of_three();
    mesh.plan(&disk);
    let start = ["migration", "start", "m", "--lease", lease, "--autonomy"];
    mesh.operator.run(&[&start[..], &[autonomy]].concat()).ok();
    mesh.until_passes(1);
    let view = mesh.until("the copy's path", |view| {
        view["volumes"][0]["target_path"].is_string()
    });
    let copy = view["volumes"][0]["target_path"].as_str().unwrap();
    (mesh, disk, PathBuf::from(copy))
}

/// Writes one other MiB of noise into a disk.
fn rewrite(disk: &Path, seed: u64) {
    let file = File::options().write(true).open(disk).unwrap();
    file.write_all_at(&noise(1 << 20, seed), 0).unwrap();
}

/// Migration `m` as its agent sees it, without an operator.
fn seen_by_agent(mesh: &Mesh) -> Value {
    mesh.agent.run(&["migration", "show", "m"]).ok()
}

fn until_copied(disk: &Path, copy: &Path) {
    eventually("the copy is the disk", || {
        (b3sum(disk) == b3sum(copy)).then_some(())
    });
}

#[test]
fn blocks_stop_within_the_lease_of_a_dead_operator_and_go_on_when_it_is_back() {
    let lab = Lab::new();
    let (mut mesh, disk, copy) = started(&lab, "6s", "0");
    // Longer than a lease: it is renewed, or this would never be copied.
    let begun = Instant::now();
    let mut seed = 2;
    while begun.elapsed() < LEASE * 2 {
        rewrite(&disk, seed);
        until_copied(&disk, &copy);
        seed += 1;
    }
    mesh.operator.kill();
    let killed = Instant::now();
    // Any renewal it still sent was made before.
    pause((killed + LEASE).saturating_duration_since(Instant::now()));
    let (then, written) = (b3sum(&copy), seed);
    rewrite(&disk, written);
    pause(TWO_PASSES);
    assert_eq!(b3sum(&copy), then, "a block moved after the lease");
    for node in [&mut mesh.agent, &mut mesh.replicator] {
        assert!(node.is_running());
    }
    assert_eq!(mesh.agent.status()["connected"], 1, "the two ends are");
    let words = ["start an operator's node", "it goes on"];
    mesh.agent.until_event("no-lease", &words);
    let view = seen_by_agent(&mesh);
    assert_eq!(view["stage"], "stalled", "{view:#}");
    assert_eq!(view["volumes"][0]["step"], "waiting for an operator");

    mesh.operator.start();
    until_copied(&disk, &copy);
    mesh.cut_over(&disk);
}

#[test]
fn a_grant_with_autonomy_goes_on_to_a_whole_pass_without_an_operator_and_says_so() {
    let lab = Lab::new();
    let (mut mesh, disk, copy) = started(&lab, "2s", "1h");
    let exposure = mesh.migration()["exposure"].clone();
    assert_eq!(exposure["lease_secs"], 2, "{exposure}");
    assert_eq!(exposure["autonomy_secs"], 3_600, "{exposure}");
    assert_eq!(exposure["exposure_secs"], 3_602, "{exposure}");
    mesh.operator.kill();
    let words = ["its lease of 2 s", "3600 s more", "unheard"];
    mesh.agent.until_event("on-autonomy", &words);
    mesh.replicator.until_event("on-autonomy", &words);
    // What was stored of the leases is as good as what was held.
    mesh.agent.kill();
    mesh.replicator.kill();
    mesh.replicator.start();
    mesh.agent.start();
    let before = passes_of(&seen_by_agent(&mesh));
    rewrite(&disk, 2);
    until_copied(&disk, &copy);
    let view = eventually("a pass without an operator", || {
        let view = seen_by_agent(&mesh);
        (passes_of(&view) > before).then_some(view)
    });
    let detail = view["volumes"][0]["detail"].as_str().unwrap();
    assert!(detail.contains("autonomy"), "{view:#}");

    mesh.operator.start();
    mesh.agent.until_event("lease-renewed", &["was renewed"]);
    mesh.replicator
        .until_event("lease-renewed", &["was renewed"]);
    mesh.cut_over(&disk);
}

#[test]
fn starting_again_changes_of_a_lease_what_is_asked_for_alone_and_bad_ones_are_refused() {
    let lab = Lab::new();
    let (mesh, disk, copy) = started(&lab, "6s", "0");
    let start = |options: &[&str]| {
        let args = [&["migration", "start", "m"], options].concat();
        mesh.operator.run(&args)
    };
    start(&["--lease", "1s"]).fails(2, &["from 2 s to 7 days"]);
    start(&["--autonomy", "91d"]).fails(2, &["at most 90 days"]);
    let unchanged = start(&[]).ok();
    assert_eq!(unchanged["exposure"]["lease_secs"], 6, "{unchanged:#}");
    let changed = start(&["--lease", "10m", "--autonomy", "1d"]).ok();
    assert_eq!(changed["exposure"]["lease_secs"], 600, "{changed:#}");
    assert_eq!(changed["exposure"]["autonomy_secs"], 86_400, "{changed:#}");
    let kept = start(&["--lease", "1h"]).ok();
    assert_eq!(kept["exposure"]["lease_secs"], 3_600, "{kept:#}");
    assert_eq!(kept["exposure"]["autonomy_secs"], 86_400, "{kept:#}");
    rewrite(&disk, 2);
    until_copied(&disk, &copy);
    mesh.cut_over(&disk);
}
