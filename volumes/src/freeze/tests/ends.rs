//! However it ends: by the deadline, with the process, or not at all.

use std::io::{BufRead, BufReader};

use super::*;

#[test]
fn at_the_deadline_they_are_thawed_though_their_owner_hangs() {
    let (folder, left) = folder();
    let Some(volume) = Volume::new(folder.path(), "disk", "ext4") else {
        return;
    };
    let freezer = prepare(&[&volume.device]);
    let frozen = freezer.freeze(4 * HELD, &left).unwrap();
    let write = volume.write("while");
    assert_held(&write);
    // All that this thread does is wait.
    assert_done(&write);
    assert!(frozen.is_thawed() && !frozen.extend(LATE));
    let thawed = frozen.thaw();
    assert!(thawed.is_by_deadline && thawed.is_complete());
    assert_eq!(thawed.file_systems.len(), 1);
    assert!(thawed.frozen_for >= 4 * HELD);
    assert!(!left.exists());
}

#[test]
fn a_deadline_can_be_moved_either_way() {
    let (folder, left) = folder();
    let Some(volume) = Volume::new(folder.path(), "disk", "ext4") else {
        return;
    };
    let freezer = prepare(&[&volume.device]);
    let frozen = freezer.freeze(HELD, &left).unwrap();
    assert!(frozen.extend(LATE));
    let write = volume.write("while");
    assert_held(&write);
    assert_held(&write);
    assert!(frozen.extend(Duration::ZERO));
    assert_done(&write);
    assert!(frozen.is_thawed());
    assert!(matches!(frozen.keep(), Err(NotKept::Thawed)));
    assert!(!left.exists());
}

#[test]
fn a_deadline_that_comes_while_they_are_being_frozen_leaves_none_frozen() {
    let (folder, left) = folder();
    let made = ["one", "two"].map(|name| Volume::new(folder.path(), name, "ext4"));
    let [Some(one), Some(two)] = made else {
        return;
    };
    let freezer = prepare(&[&one.device, &two.device]);
    let failed = freezer.freeze(Duration::ZERO, &left);
    assert!(
        matches!(failed, Err(FreezeFailed::Late { .. })),
        "{failed:?}"
    );
    for volume in [&one, &two] {
        assert_done(&volume.write("after"));
    }
    assert!(!left.exists());
}

#[test]
fn what_is_kept_stays_frozen_until_somebody_thaws_it_on_purpose() {
    let (folder, left) = folder();
    let Some(volume) = Volume::new(folder.path(), "disk", "ext4") else {
        return;
    };
    let freezer = prepare(&[&volume.device]);
    freezer.freeze(HELD, &left).unwrap().keep().unwrap();
    drop(freezer);
    let write = volume.write("while");
    assert_held(&write);
    assert_held(&write);
    assert!(thaw_left_behind(&left).unwrap().is_none());
    assert_held(&write);
    let kept = LeftBehind::find(&left).unwrap().unwrap();
    assert!(kept.is_kept());
    assert_eq!(kept.file_systems().collect::<Vec<_>>(), [&volume.at]);
    let thawed = kept.thaw().unwrap();
    assert!(thawed.is_complete() && thawed.file_systems.len() == 1);
    assert_done(&write);
    assert!(!left.exists());
}

const CHILD: &str = "freeze::tests::ends::who_freezes_and_hangs";
const DISKS: &str = "DUNLIN_FREEZES";
const NOTED: &str = "DUNLIN_FREEZES_LEFT";

/// What the next test runs, to kill it.
#[test]
fn who_freezes_and_hangs() {
    let [Some(disks), Some(left)] = [DISKS, NOTED].map(std::env::var_os) else {
        eprintln!("skipped: it freezes something only where the environment says so");
        return;
    };
    let disks: Vec<PathBuf> = std::env::split_paths(&disks).collect();
    let freezer = Freezer::prepare(&disks).unwrap();
    lock_memory().unwrap();
    let _frozen = freezer.freeze(LATE, Path::new(&left)).unwrap();
    std::io::stdout().write_all(b"\nfrozen\n").unwrap();
    // The test waits for this line and kills us.
    std::io::stdin().lines().for_each(drop);
}

#[test]
fn what_a_process_left_frozen_that_was_killed_is_thawed_by_the_next() {
    let (folder, left) = folder();
    let Some(outer) = Volume::new(folder.path(), "outer", "btrfs") else {
        return;
    };
    let Some(inner) = Volume::new(&outer.at, "inner", "ext4") else {
        return;
    };
    let child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "--nocapture", CHILD])
        .env(DISKS, &outer.device)
        .env(NOTED, &left)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn();
    let mut child = child.unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let frozen = lines.map_while(Result::ok).any(|line| line == "frozen");
    let writes = [&outer, &inner].map(|volume| volume.write("while"));
    let in_use = thaw_left_behind(&left);
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(frozen);
    assert!(
        matches!(in_use, Err(CannotThaw::InUse { .. })),
        "{in_use:?}"
    );
    for write in &writes {
        assert_held(write);
    }
    let thawed = thaw_left_behind(&left).unwrap().unwrap();
    assert!(thawed.is_complete(), "{thawed:?}");
    let order: Vec<_> = thawed.file_systems.iter().map(|one| &one.at).collect();
    assert_eq!(order, [&outer.at, &inner.at]);
    for write in &writes {
        assert_done(write);
    }
    assert!(!left.exists() && thaw_left_behind(&left).unwrap().is_none());
}
