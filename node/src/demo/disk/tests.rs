//! The demo disk against the tools that systems judge disks with; where a tool is missing, the test
//! says so and relies on what can be checked without it.
#![allow(clippy::unwrap_used)]

use std::os::unix::fs::FileExt;
use std::process::{Command, Output, Stdio};

use tempfile::TempDir;

use super::content::DATABASE_FOLDER;
use super::*;

const SMALL: u64 = 48 << 20;

fn spec(maker: Maker) -> DiskSpec {
    DiskSpec {
        length: SMALL,
        files: 500,
        seed: 7,
        maker: Some(maker),
        ..DiskSpec::default()
    }
}

/// A folder, the image in it, and what was made; `None` when this host has no mke2fs.
fn made(maker: Maker) -> Option<(TempDir, PathBuf, DiskMade)> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("source.raw");
    match make(&path, &spec(maker)) {
        Err(DiskError::NoMke2fs) => {
            eprintln!("skipped: this host has no mke2fs");
            None
        }
        made => Some((folder, path, made.unwrap())),
    }
}

/// Runs a tool that may live where only root looks; `None` when this host has not got it.
fn tool(name: &str, arguments: &[&str]) -> Option<Output> {
    let path = std::env::var("PATH").unwrap_or_default();
    let started = Command::new(name)
        .env("PATH", format!("{path}:/sbin:/usr/sbin"))
        .args(arguments)
        .stdin(Stdio::null())
        .output();
    match started {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            eprintln!("not checked with {name}: this host has not got it");
            None
        }
        out => Some(out.unwrap()),
    }
}

fn assert_succeeds(name: &str, arguments: &[&str]) -> Option<String> {
    let out = tool(name, arguments)?;
    let said = String::from_utf8_lossy(&out.stdout).into_owned();
    let complained = String::from_utf8_lossy(&out.stderr);
    assert!(
        out.status.success(),
        "{name}: {}\n{said}\n{complained}",
        out.status
    );
    Some(said)
}

fn assert_e2fsck_is_clean(path: &Path) {
    let target = format!("{}?offset={}", path.display(), gpt::PARTITION_OFFSET);
    assert_succeeds("e2fsck", &["-fn", &target]);
}

fn b3(path: &Path) -> blake3::Hash {
    blake3::hash(&fs::read(path).unwrap())
}

fn assert_stays_sound_while_written(maker: Maker) {
    let Some((_folder, path, made)) = made(maker) else {
        return;
    };
    assert_eq!(made.maker, maker);
    assert_eq!(made.partition_offset, 1 << 20);
    assert_e2fsck_is_clean(&path);
    let before = manifest(&path).unwrap();
    assert_eq!(before.len(), made.files);

    let mut writer = Writer::open(&path, 1).unwrap();
    for _ in 0..20 {
        assert!(writer.step().unwrap() > 0);
    }

    assert_e2fsck_is_clean(&path);
    let after = manifest(&path).unwrap();
    let changed: Vec<_> = before
        .keys()
        .filter(|name| before[*name] != after[*name])
        .collect();
    assert!(!changed.is_empty());
    assert!(
        changed.iter().all(|name| name.starts_with(DATABASE_FOLDER)),
        "{changed:?}"
    );
    assert!(before.keys().eq(after.keys()));
    assert_eq!(fs::metadata(&path).unwrap().len(), SMALL);
}

#[test]
fn a_disk_of_the_built_in_maker_is_clean_before_and_after_bursts() {
    assert_stays_sound_while_written(Maker::BuiltIn);
}

#[test]
fn a_disk_of_mke2fs_is_clean_before_and_after_bursts() {
    assert_stays_sound_while_written(Maker::Mke2fs);
}

#[test]
fn both_makers_lay_down_the_planned_bytes_of_every_file() {
    for maker in [Maker::BuiltIn, Maker::Mke2fs] {
        let Some((_folder, path, _)) = made(maker) else {
            continue;
        };
        let (_, tree) = plan(&spec(maker)).unwrap();
        let mut planned = BTreeMap::new();
        for file in &tree.files {
            let mut hasher = blake3::Hasher::new();
            let bytes = hasher.update_reader(tree.open(file)).unwrap().count();
            assert_eq!(bytes, file.length);
            planned.insert(tree.path(file), hasher.finalize());
        }
        assert_eq!(manifest(&path).unwrap(), planned, "{maker:?}");
    }
}

#[test]
fn debugfs_reads_a_file_of_the_built_in_maker_as_planned() {
    let (folder, path, _) = made(Maker::BuiltIn).unwrap();
    let (_, tree) = plan(&spec(Maker::BuiltIn)).unwrap();
    let target = format!("{}?offset={}", path.display(), gpt::PARTITION_OFFSET);
    for file in [&tree.files[0], tree.files.last().unwrap()] {
        let dumped = folder.path().join("dumped");
        let request = format!("dump /{} {}", tree.path(file), dumped.display());
        if assert_succeeds("debugfs", &["-R", &request, &target]).is_none() {
            return;
        }
        let mut planned = blake3::Hasher::new();
        planned.update_reader(tree.open(file)).unwrap();
        assert_eq!(b3(&dumped), planned.finalize(), "{}", tree.path(file));
    }
}

#[test]
fn the_partition_table_satisfies_the_tools_and_both_its_copies_are_sound() {
    let (_folder, path, made) = made(Maker::BuiltIn).unwrap();
    let image = path.to_str().unwrap();
    if let Some(said) = assert_succeeds("sgdisk", &["-v", image]) {
        assert!(said.contains("No problems found"), "{said}");
    }
    assert_succeeds("sfdisk", &["--verify", image]);
    if let Some(said) = assert_succeeds("partx", &["-r", "-g", "-o", "START,SECTORS", image]) {
        let sectors = made.partition_length / 512;
        assert_eq!(said.trim(), format!("2048 {sectors}"));
    }
    let span = Span {
        offset: made.partition_offset,
        length: made.partition_length,
    };
    assert_eq!(gpt::read(&File::open(&path).unwrap()).unwrap(), span);

    // The last sector holds the backup's header: with it gone, the table must no longer pass.
    let broken = OpenOptions::new()
        .read(true)
        .write(true)
        .open(&path)
        .unwrap();
    broken.write_all_at(&[0; 512], SMALL - 512).unwrap();
    assert!(gpt::read(&broken).is_err());
}

#[test]
fn one_seed_gives_one_image_and_another_seed_another() {
    let folder = tempfile::tempdir().unwrap();
    let image = |name: &str, seed| {
        let path = folder.path().join(name);
        let spec = DiskSpec {
            seed,
            ..spec(Maker::BuiltIn)
        };
        make(&path, &spec).unwrap();
        let fresh = b3(&path);
        Writer::open(&path, seed).unwrap().step().unwrap();
        (fresh, b3(&path))
    };
    let first = image("first", 7);
    assert_eq!(first, image("again", 7));
    let other = image("other", 8);
    assert_ne!(first.0, other.0);
    assert_ne!(first.0, first.1);
}

#[test]
fn a_disk_that_cannot_be_made_is_refused_and_leaves_no_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("source.raw");
    let refused = |change: &dyn Fn(&mut DiskSpec)| {
        let mut spec = spec(Maker::BuiltIn);
        change(&mut spec);
        let error = make(&path, &spec).unwrap_err();
        assert!(!path.exists(), "{error}");
        error
    };
    let odd = refused(&|spec| spec.length += 512);
    assert!(matches!(odd, DiskError::Length { .. }), "{odd}");
    let tiny = refused(&|spec| spec.length = 1 << 20);
    assert!(matches!(tiny, DiskError::Length { .. }), "{tiny}");
    let full = refused(&|spec| spec.fill_percent = 100);
    assert!(matches!(full, DiskError::Fill { percent: 100 }), "{full}");
    let many = refused(&|spec| spec.files = u32::MAX);
    assert!(matches!(many, DiskError::Files { .. }), "{many}");
    let crowded = refused(&|spec| spec.files = 3000);
    assert!(matches!(crowded, DiskError::TooSmall { .. }), "{crowded}");
}

#[test]
fn the_smallest_and_the_fullest_disk_can_be_made_by_both_makers() {
    for (length, fill_percent) in [(LEAST_LENGTH, 50), (LEAST_LENGTH, 80), (SMALL, 80)] {
        for maker in [Maker::BuiltIn, Maker::Mke2fs] {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("source.raw");
            let spec = DiskSpec {
                length,
                fill_percent,
                files: 200,
                ..spec(maker)
            };
            match make(&path, &spec) {
                Err(DiskError::NoMke2fs) => eprintln!("skipped: this host has no mke2fs"),
                made => drop(made.unwrap()),
            }
            if path.exists() {
                assert_e2fsck_is_clean(&path);
            }
        }
    }
}

#[test]
fn an_existing_file_is_never_overwritten() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("precious");
    fs::write(&path, "kept").unwrap();
    let error = make(&path, &spec(Maker::BuiltIn)).unwrap_err();
    assert!(matches!(error, DiskError::Image { .. }), "{error}");
    assert_eq!(fs::read(&path).unwrap(), b"kept");
}

#[test]
fn a_mke2fs_that_fails_is_reported_when_asked_for_and_replaced_when_not() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("source.raw");
    let (span, tree) = plan(&spec(Maker::BuiltIn)).unwrap();
    let image = File::create_new(&path).unwrap();
    let making = Making {
        path: &path,
        image: &image,
        length: SMALL,
        tree: &tree,
        span,
        ids: [uuid::Uuid::from_bytes([1; 16]); 3],
    };
    let failing = Path::new("false");
    let error = making.with_mke2fs(failing).unwrap_err();
    assert!(matches!(error, DiskError::Mke2fs { .. }), "{error}");
    let missing = making.with_choice(Some(Maker::Mke2fs), None).unwrap_err();
    assert!(matches!(missing, DiskError::NoMke2fs), "{missing}");
    assert_eq!(
        making.with_choice(None, Some(failing)).unwrap(),
        Maker::BuiltIn
    );
    assert_e2fsck_is_clean(&path);
    assert_eq!(making.with_choice(None, None).unwrap(), Maker::BuiltIn);
    let left: Vec<_> = fs::read_dir(folder.path()).unwrap().collect();
    assert_eq!(left.len(), 1, "{left:?}");
}

#[test]
fn mke2fs_is_found_in_the_search_path_before_the_folders_of_root() {
    let folder = tempfile::tempdir().unwrap();
    let tool = folder.path().join("mke2fs");
    fs::write(&tool, "").unwrap();
    let search = std::env::join_paths([Path::new("/nonexistent"), folder.path()]).unwrap();
    assert_eq!(ext4::find_mke2fs(Some(&search)), Some(tool));
}

#[test]
fn a_disk_that_is_no_demo_disk_is_neither_read_nor_written() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("other.raw");
    let image = File::create_new(&path).unwrap();
    image.set_len(SMALL).unwrap();
    let blank = Writer::open(&path, 1).err().unwrap();
    assert!(matches!(blank, ImageError::Table { .. }), "{blank}");

    let nil = uuid::Uuid::from_bytes([1; 16]);
    let image = OpenOptions::new()
        .read(true)
        .write(true)
        .open(&path)
        .unwrap();
    gpt::write(&image, gpt::plan(SMALL).unwrap(), nil, nil).unwrap();
    let before = b3(&path);
    let unformatted = Writer::open(&path, 1).err().unwrap();
    assert!(
        matches!(unformatted, ImageError::FileSystem { .. }),
        "{unformatted}"
    );
    assert!(manifest(&path).is_err());
    assert_eq!(b3(&path), before);

    let gone = manifest(&folder.path().join("gone")).unwrap_err();
    assert!(matches!(gone, ImageError::Image { .. }), "{gone}");
}
