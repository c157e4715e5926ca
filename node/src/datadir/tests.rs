//! The data folder: what is accepted, what is refused, and with which words.
#![allow(clippy::unwrap_used)]

use super::*;
use keys::{Identity, MeshId, Name, RootKey};
use std::os::unix::fs::symlink;
use tempfile::TempDir;

fn identity(seed: u8) -> Identity {
    Identity::from_seed(&[seed; 32])
}

fn root_key(seed: u8) -> RootKey {
    RootKey {
        mesh: MeshId([seed; 32]),
        name: Name::new("home").unwrap(),
        identity: identity(seed),
    }
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().mode() & 0o7777
}

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

/// A folder that looks like that of a node in a mesh.
fn member(folder: &TempDir) -> DataDir {
    let dir = DataDir::create_new(&folder.path().join("data")).unwrap();
    dir.ensure_key(KeyFile::Node, || identity(1)).unwrap();
    write_private(&dir.store());
    dir
}

fn write_private(path: &Path) {
    private_file().create_new(true).open(path).unwrap();
}

#[test]
fn a_new_folder_and_all_in_it_belong_to_its_owner_alone() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("a/b/data");
    let dir = DataDir::create_new(&path).unwrap();
    dir.ensure_key(KeyFile::Node, || identity(1)).unwrap();
    dir.write_root_key(&root_key(2)).unwrap();
    let (trees, copies) = (path.join(TREES), path.join(COPIES));
    for made in [path.clone(), dir.run(), trees, copies, dir.cloud()] {
        assert_eq!(mode(&made), 0o700, "{}", made.display());
    }
    for made in ["node.key", "root.key", "lock"] {
        assert_eq!(mode(&path.join(made)), 0o600, "{made}");
    }
    let mut names: Vec<_> = fs::read_dir(&path)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    let expected = [
        "cloud", "copies", "lock", "node.key", "root.key", "run", "trees",
    ];
    assert_eq!(names, expected);
}

#[test]
fn an_empty_folder_is_taken_and_closed_to_others() {
    let folder = TempDir::new().unwrap();
    set_mode(folder.path(), 0o755);
    fs::create_dir(folder.path().join("lost+found")).unwrap();
    DataDir::create_new(folder.path()).unwrap();
    assert_eq!(mode(folder.path()), 0o700);
}

#[test]
fn keys_survive_and_an_attempt_that_was_cut_off_goes_on_with_its_own() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("data");
    let dir = DataDir::create_new(&path).unwrap();
    assert!(dir.find_key(KeyFile::Node).unwrap().is_none());
    fs::write(path.join("node.key.new"), b"dunlin-key-1:07").unwrap();
    dir.ensure_key(KeyFile::Node, || identity(1)).unwrap();

    let dir = DataDir::create_new(&path).unwrap();
    let kept = dir
        .ensure_key(KeyFile::Node, || panic!("there is a key already"))
        .unwrap();
    assert_eq!(kept.public(), identity(1).public());
    let read = dir.read_key(KeyFile::Node).unwrap();
    assert_eq!(read.public(), identity(1).public());
    assert!(!path.join("node.key.new").exists());
}

#[test]
fn a_folder_without_a_mesh_says_which_commands_make_one() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("data");
    for _ in 0..2 {
        let refused = DataDir::open(&path).unwrap_err();
        assert!(matches!(refused, DataDirError::NoMesh { .. }));
        assert!(refused.to_string().contains("run `dunlin mesh init`"));
        DataDir::create_new(&path).unwrap();
    }
    write_private(&path.join(STORE));
    assert_eq!(DataDir::open(&path).unwrap().path(), path);
}

#[test]
fn a_folder_of_something_else_is_refused_and_left_alone() {
    let folder = TempDir::new().unwrap();
    let path = folder.path();
    fs::write(path.join("photo.jpg"), b"x").unwrap();
    set_mode(path, 0o755);
    let opened = DataDir::open(path).unwrap_err();
    assert!(matches!(opened, DataDirError::NotOurs { .. }));
    let created = DataDir::create_new(path).unwrap_err();
    assert!(matches!(created, DataDirError::NotOurs { .. }));
    let file = path.join("photo.jpg");
    let created = DataDir::create_new(&file).unwrap_err();
    assert!(matches!(created, DataDirError::NotOurs { .. }));
    assert_eq!(mode(path), 0o755);
    assert_eq!(fs::read_dir(path).unwrap().count(), 1);
}

#[test]
fn a_folder_of_a_mesh_is_not_made_again() {
    let folder = TempDir::new().unwrap();
    let dir = member(&folder);
    let refused = DataDir::create_new(dir.path()).unwrap_err();
    assert!(matches!(refused, DataDirError::InUse { .. }));
}

#[test]
fn a_folder_that_others_may_enter_is_refused() {
    let folder = TempDir::new().unwrap();
    let dir = member(&folder);
    set_mode(dir.path(), 0o750);
    let refused = DataDir::open(dir.path()).unwrap_err();
    assert!(matches!(refused, DataDirError::Exposed { mode: 0o750, .. }));
    set_mode(dir.path(), 0o700);
    DataDir::open(dir.path()).unwrap();
}

#[test]
fn a_missing_folder_of_the_layout_is_made_again() {
    let folder = TempDir::new().unwrap();
    let dir = member(&folder);
    fs::remove_dir(dir.path().join(TREES)).unwrap();
    fs::remove_dir(dir.cloud()).unwrap();
    fs::write(dir.cloud(), b"no folder").unwrap();
    let refused = DataDir::open(dir.path()).unwrap_err();
    assert!(matches!(refused, DataDirError::WrongKind { .. }));
    fs::remove_file(dir.cloud()).unwrap();
    DataDir::open(dir.path()).unwrap();
    assert!(dir.path().join(TREES).is_dir() && dir.cloud().is_dir());
}

#[test]
fn whoever_only_looks_makes_nothing_and_sees_what_is_in_the_way() {
    let folder = TempDir::new().unwrap();
    let dir = member(&folder);
    let (lock, copies) = (dir.path().join(LOCK), dir.path().join(COPIES));
    fs::remove_file(&lock).unwrap();
    fs::remove_dir(&copies).unwrap();
    DataDir::look(dir.path()).unwrap();
    assert!(!lock.exists() && !copies.exists());
    symlink("nowhere", &copies).unwrap();
    let refused = DataDir::look(dir.path()).unwrap_err();
    assert!(matches!(refused, DataDirError::WrongKind { .. }));
    fs::remove_file(&copies).unwrap();
    DataDir::open(dir.path()).unwrap();
    assert!(lock.exists() && copies.is_dir());
}

#[test]
fn a_key_that_others_may_read_is_refused_with_what_to_do() {
    let folder = TempDir::new().unwrap();
    let dir = member(&folder);
    let key = dir.path().join("node.key");
    for exposed in [0o640, 0o604, 0o620, 0o601] {
        set_mode(&key, exposed);
        let refused = dir.read_key(KeyFile::Node).unwrap_err();
        assert!(matches!(refused, DataDirError::Exposed { mode, .. } if mode == exposed));
        assert!(refused.to_string().contains("chmod go= "));
    }
    set_mode(&key, 0o400);
    dir.read_key(KeyFile::Node).unwrap();
}

#[test]
fn a_key_is_read_from_a_regular_file_only() {
    let folder = TempDir::new().unwrap();
    let dir = member(&folder);
    let key = dir.path().join("node.key");
    let elsewhere = folder.path().join("elsewhere");
    fs::rename(&key, &elsewhere).unwrap();
    let missing = dir.read_key(KeyFile::Node).unwrap_err();
    assert!(matches!(missing, DataDirError::KeyMissing { .. }));
    symlink(&elsewhere, &key).unwrap();
    let linked = dir.read_key(KeyFile::Node).unwrap_err();
    assert!(matches!(linked, DataDirError::WrongKind { .. }));
    fs::remove_file(&key).unwrap();
    make_folder(&key).unwrap();
    let refused = dir.read_key(KeyFile::Node).unwrap_err();
    assert!(matches!(refused, DataDirError::WrongKind { .. }));
}

#[test]
fn a_damaged_key_is_neither_read_nor_replaced() {
    let folder = TempDir::new().unwrap();
    let dir = member(&folder);
    let key = dir.path().join("node.key");
    for content in ["", "dunlin-key-1:0707", "dunlin-key-2:00"] {
        fs::write(&key, content).unwrap();
        let refused = dir.read_key(KeyFile::Node).unwrap_err();
        assert!(matches!(refused, DataDirError::KeyDamaged { .. }));
        assert!(dir.ensure_key(KeyFile::Node, || identity(9)).is_err());
        assert_eq!(fs::read_to_string(&key).unwrap(), content);
    }
}

#[test]
fn the_root_key_in_the_folder_is_the_file_that_is_kept_offline() {
    let folder = TempDir::new().unwrap();
    let dir = member(&folder);
    dir.write_root_key(&root_key(4)).unwrap();
    dir.write_root_key(&root_key(5)).unwrap();
    let read = dir.read_key(KeyFile::Root).unwrap();
    assert_eq!(read.public(), identity(5).public());
    let text = fs::read_to_string(dir.key_path(KeyFile::Root)).unwrap();
    let copied = RootKey::from_text(&text).unwrap();
    assert_eq!(copied.mesh, MeshId([5; 32]));
    // A node's key is no root key, nor the other way round.
    fs::copy(dir.key_path(KeyFile::Root), dir.key_path(KeyFile::Node)).unwrap();
    let refused = dir.read_key(KeyFile::Node).unwrap_err();
    assert!(matches!(refused, DataDirError::KeyDamaged { .. }));
    fs::write(
        dir.key_path(KeyFile::Root),
        identity(5).to_file().as_bytes(),
    )
    .unwrap();
    let refused = dir.read_key(KeyFile::Root).unwrap_err();
    assert!(refused.to_string().contains("dunlin-root-1"), "{refused}");
}

#[test]
fn what_belongs_to_another_user_is_refused_by_both_numbers() {
    let folder = TempDir::new().unwrap();
    let dir = member(&folder);
    if !geteuid().is_root() {
        // The root of the file system belongs to root.
        let refused = DataDir::open(Path::new("/")).unwrap_err();
        assert!(matches!(
            refused,
            DataDirError::AnotherOwner { owner: 0, .. }
        ));
        return;
    }
    let key = dir.path().join("node.key");
    std::os::unix::fs::chown(&key, Some(4242), None).unwrap();
    let refused = dir.read_key(KeyFile::Node).unwrap_err();
    assert!(matches!(
        refused,
        DataDirError::AnotherOwner {
            owner: 4242,
            user: 0,
            ..
        }
    ));
    std::os::unix::fs::chown(dir.path(), Some(4242), None).unwrap();
    let refused = DataDir::open(dir.path()).unwrap_err();
    assert!(matches!(
        refused,
        DataDirError::AnotherOwner {
            owner: 4242,
            user: 0,
            ..
        }
    ));
}

#[test]
fn a_locked_folder_names_the_process_that_has_it() {
    let folder = TempDir::new().unwrap();
    let dir = member(&folder);
    fs::write(
        dir.path().join("lock"),
        "4294967295 is no process of ours\n",
    )
    .unwrap();
    let held = dir.lock().unwrap();
    let refused = dir.lock().unwrap_err();
    let expected = format!(
        "data folder {} is in use by process {}: stop it first, or give another folder with --data-dir",
        dir.path().display(),
        std::process::id()
    );
    assert_eq!(refused.to_string(), expected);
    drop(held);
    dir.lock().unwrap();
}

#[test]
fn the_default_folder_depends_on_the_user() {
    let default = |is_root, data_home: &str, home: &str| {
        default_folder(is_root, Some(data_home.into()), Some(home.into()))
    };
    let at = |path: &str| Some(PathBuf::from(path));
    assert_eq!(default(true, "/x", "/root"), at("/var/lib/dunlin"));
    assert_eq!(default(false, "/x", "/home/a"), at("/x/dunlin"));
    assert_eq!(
        default(false, "", "/home/a"),
        at("/home/a/.local/share/dunlin")
    );
    assert_eq!(
        default(false, "relative", "/home/a"),
        at("/home/a/.local/share/dunlin")
    );
    assert_eq!(default(false, "relative", ""), None);
    assert_eq!(default_folder(false, None, None), None);
}

#[test]
fn a_given_folder_is_made_absolute() {
    let given = DataDir::resolve(Some("data".into())).unwrap();
    assert_eq!(given, std::env::current_dir().unwrap().join("data"));
}

#[test]
fn every_epoch_of_a_job_has_state_of_its_own_inside_the_folder() {
    let folder = TempDir::new().unwrap();
    let dir = member(&folder);
    let job = |migration| JobId {
        migration: keys::MigrationId([migration; 16]),
        volume: keys::VolumeId([3; 16]),
    };
    let places = [(job(1), 1), (job(1), 2), (job(2), 1)];
    let mut paths = std::collections::BTreeSet::new();
    for (job, epoch) in places {
        let (tree, copy) = (dir.tree(&job, Epoch(epoch)), dir.copy(&job, Epoch(epoch)));
        assert_eq!(tree.parent(), Some(dir.path().join(TREES).as_path()));
        assert_eq!(copy.parent(), Some(dir.path().join(COPIES).as_path()));
        paths.extend([tree, copy]);
    }
    assert_eq!(paths.len(), 6);
}
