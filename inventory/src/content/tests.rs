//! Superblocks that the tools of each kind wrote, and those that no tool writes here, by
//! the bytes of their specifications.
#![allow(clippy::unwrap_used)]

use super::*;
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::{Command, Stdio};

const MIB: u64 = 1 << 20;

struct Image(File);

impl Source for Image {
    fn read(&self, at: u64, length: usize) -> Option<Vec<u8>> {
        let mut bytes = vec![0; length];
        let read = self.0.read_at(&mut bytes, at).ok()?;
        bytes.truncate(read);
        Some(bytes)
    }
}

/// What is on an image that `tool` was let make, in these arguments with `IMAGE` for its
/// path; none, and said so, where the tool is missing.
fn made_by(tool: &str, arguments: &[&str], bytes: u64) -> Option<(Option<Content>, Option<Group>)> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("image");
    File::create(&path).unwrap().set_len(bytes).unwrap();
    let arguments = arguments.iter().map(|argument| match *argument {
        "IMAGE" => path.to_str().unwrap(),
        argument => argument,
    });
    let made = Command::new(tool)
        .args(arguments)
        .env("PATH", "/usr/sbin:/sbin:/usr/bin:/bin")
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .output();
    let Ok(made) = made else {
        eprintln!("skipped: {tool} is not installed");
        return None;
    };
    let said = String::from_utf8_lossy(&made.stderr);
    assert!(made.status.success(), "{tool}: {said}");
    Some(find(&Image(File::open(&path).unwrap()), bytes))
}

/// Kind, UUID, label and journal, in one line.
fn told(content: &Content) -> String {
    let journal = match content.detail {
        Detail::FileSystem { has_journal, .. } => format!("{has_journal:?}"),
        _ => "-".into(),
    };
    format!(
        "{} {} {} {journal}",
        content.kind, content.uuid, content.label
    )
}

const ID: &str = "11223344-5566-7788-99aa-bbccddeeff00";

#[test]
fn file_systems_are_told_apart_as_their_tools_make_them() {
    let cases: [(&str, &[&str], u64, &str); 8] = [
        (
            "mkfs.ext4",
            &["-q", "-U", ID, "-L", "root", "IMAGE"],
            16,
            "ext4 ID root Some(true)",
        ),
        (
            "mkfs.ext4",
            &["-q", "-U", ID, "-O", "^has_journal", "IMAGE"],
            16,
            "ext4 ID  Some(false)",
        ),
        (
            "mkfs.ext3",
            &["-q", "-U", ID, "IMAGE"],
            16,
            "ext3 ID  Some(true)",
        ),
        (
            "mkfs.ext2",
            &["-q", "-U", ID, "IMAGE"],
            16,
            "ext2 ID  Some(false)",
        ),
        (
            "mkfs.xfs",
            &[
                "-q",
                "-m",
                "uuid=11223344-5566-7788-99aa-bbccddeeff00",
                "-L",
                "data",
                "IMAGE",
            ],
            320,
            "xfs ID data Some(true)",
        ),
        (
            "mkfs.btrfs",
            &["-q", "-U", ID, "-L", "pool", "IMAGE"],
            128,
            "btrfs ID pool Some(true)",
        ),
        (
            "mkfs.vfat",
            &["-F", "32", "-i", "1A2B3C4D", "-n", "ESP", "IMAGE"],
            64,
            "vfat 1A2B-3C4D ESP Some(false)",
        ),
        (
            "mkswap",
            &["-U", ID, "-L", "swap", "IMAGE"],
            8,
            "swap ID swap -",
        ),
    ];
    for (tool, arguments, mib, expected) in cases {
        let Some((content, group)) = made_by(tool, arguments, mib * MIB) else {
            continue;
        };
        let expected = expected.replace("ID", ID);
        assert_eq!(told(&content.unwrap()), expected, "{tool}");
        assert_eq!(group, None);
    }
}

#[test]
fn a_file_system_of_several_devices_says_of_how_many() {
    let folder = tempfile::tempdir().unwrap();
    let paths = ["a", "b"].map(|name| folder.path().join(name));
    for path in &paths {
        File::create(path).unwrap().set_len(128 * MIB).unwrap();
    }
    let made = Command::new("/usr/sbin/mkfs.btrfs")
        .arg("-q")
        .args(&paths)
        .output();
    let Ok(made) = made else {
        eprintln!("skipped: mkfs.btrfs is not installed");
        return;
    };
    assert!(made.status.success());
    let (content, _) = find(&Image(File::open(&paths[1]).unwrap()), 128 * MIB);
    let detail = content.unwrap().detail;
    assert!(
        matches!(detail, Detail::FileSystem { devices: 2, .. }),
        "{detail:?}"
    );
}

#[test]
fn encrypted_devices_say_their_version() {
    for (kind, version, label) in [("luks1", 1, ""), ("luks2", 2, "vault")] {
        let folder = tempfile::tempdir().unwrap();
        let key = folder.path().join("key");
        fs::write(&key, "secret").unwrap();
        let mut arguments = vec!["luksFormat", "--batch-mode", "--type", kind, "--uuid", ID];
        arguments.extend(["--pbkdf", "pbkdf2", "--pbkdf-force-iterations", "1000"]);
        if !label.is_empty() {
            arguments.extend(["--label", label]);
        }
        arguments.extend(["IMAGE", key.to_str().unwrap()]);
        let Some((content, _)) = made_by("cryptsetup", &arguments, 32 * MIB) else {
            return;
        };
        let content = content.unwrap();
        assert_eq!(told(&content), format!("crypto_LUKS {ID} {label} -"));
        assert_eq!(content.detail, Detail::Luks { version });
    }
}

/// A member of a group whose text is at `offset` in an area of `size` bytes at 4096, and
/// goes on at the area's beginning where it does not fit.
fn physical_volume(path: &Path, text: &str, sum: u32, (offset, size): (u64, u64)) {
    let file = File::create(path).unwrap();
    file.set_len(16 * MIB).unwrap();
    let mut label = vec![0; 512];
    label[0..8].copy_from_slice(b"LABELONE");
    label[20..24].copy_from_slice(&32_u32.to_le_bytes());
    label[24..32].copy_from_slice(b"LVM2 001");
    label[32..64].copy_from_slice(b"aaaaaabbbbccccddddeeeeffffgggggg");
    // One data area, an end, one metadata area, an end.
    let rows = [(MIB, 0), (0, 0), (4096, size), (0, 0)];
    for (row, (at, length)) in rows.into_iter().enumerate() {
        let place = 72 + 16 * row;
        label[place..place + 8].copy_from_slice(&at.to_le_bytes());
        label[place + 8..place + 16].copy_from_slice(&length.to_le_bytes());
    }
    file.write_all_at(&label, 512).unwrap();
    let mut header = vec![0; 512];
    header[4..20].copy_from_slice(b" LVM2 x[5A%r0N*>");
    header[40..48].copy_from_slice(&offset.to_le_bytes());
    header[48..56].copy_from_slice(&(text.len() as u64).to_le_bytes());
    header[56..60].copy_from_slice(&sum.to_le_bytes());
    file.write_all_at(&header, 4096).unwrap();
    let fits = text.len().min(usize::try_from(size - offset).unwrap());
    file.write_all_at(&text.as_bytes()[..fits], 4096 + offset)
        .unwrap();
    file.write_all_at(&text.as_bytes()[fits..], 4096 + 512)
        .unwrap();
}

const METADATA: &str = "vg0 {\nid = \"VVVVVV\"\nseqno = 3\nphysical_volumes {\n\npv0 {\nid = \"aaaaaa-bbbb-cccc-dddd-eeee-ffff-gggggg\"\ndevice = \"/dev/sda2\"\n}\n\npv1 {\nid = \"other\"\n}\n}\nlogical_volumes {\nroot {\nid = \"no member\"\n}\n}\n}\n";

/// As Python's `zlib.crc32` has it.
const METADATA_SUM: u32 = 0xc46df8f8;

#[test]
fn a_physical_volume_tells_all_members_of_its_group_also_where_its_text_wraps() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("pv");
    for place in [(512, MIB), (4096 - 100, 4096)] {
        physical_volume(&path, METADATA, METADATA_SUM, place);
        let (content, group) = find(&Image(File::open(&path).unwrap()), 16 * MIB);
        let content = content.unwrap();
        assert_eq!(content.kind, "LVM2_member");
        assert_eq!(content.uuid, "aaaaaa-bbbb-cccc-dddd-eeee-ffff-gggggg");
        let group = group.unwrap();
        assert_eq!(group.name, "vg0");
        assert_eq!(group.members, [&*content.uuid, "other"]);
    }
    // A text that is not whole is none, and the label counts all the same.
    physical_volume(&path, METADATA, 1, (512, MIB));
    let (content, group) = find(&Image(File::open(&path).unwrap()), 16 * MIB);
    assert_eq!(content.unwrap().kind, "LVM2_member");
    assert_eq!(group, None);
}

#[test]
fn members_of_arrays_are_found_at_the_place_of_each_version() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("member");
    let length = 16 * MIB + 3 * 4096;
    let mut block = vec![0; 256];
    block[0..4].copy_from_slice(&0xa92b_4efc_u32.to_le_bytes());
    block[4] = 1;
    block[16..32].copy_from_slice(&[0xab; 16]);
    block[32..40].copy_from_slice(b"host:md0");
    block[72..76].copy_from_slice(&1_u32.to_le_bytes());
    block[92..96].copy_from_slice(&2_u32.to_le_bytes());
    for at in [0, 4096, length - 8192] {
        let file = File::create(&path).unwrap();
        file.set_len(length).unwrap();
        file.write_all_at(&block, at).unwrap();
        let (content, _) = find(&Image(File::open(&path).unwrap()), length);
        let content = content.unwrap();
        assert_eq!(content.kind, "linux_raid_member");
        assert_eq!(content.uuid, "abababab-abab-abab-abab-abababababab");
        let expected = Detail::RaidMember {
            level: "raid1".into(),
            name: "host:md0".into(),
            devices: 2,
        };
        assert_eq!(content.detail, expected, "at {at}");
    }
    let mut words = vec![0_u32; 64];
    words[0] = 0xa92b_4efc;
    (words[5], words[13], words[14], words[15]) = (0x0102_0304, 5, 6, 7);
    (words[7], words[10]) = (5, 3);
    let block: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
    let file = File::create(&path).unwrap();
    file.set_len(length).unwrap();
    file.write_all_at(&block, 16 * MIB - 65536).unwrap();
    let (content, _) = find(&Image(File::open(&path).unwrap()), length);
    let content = content.unwrap();
    assert_eq!(content.uuid, "01020304-0000-0005-0000-000600000007");
    let level = "raid5".to_owned();
    assert!(
        matches!(content.detail, Detail::RaidMember { level: found, devices: 3, .. } if found == level)
    );
}

#[test]
fn noise_and_short_devices_hold_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("noise");
    // A plain generator: all that matters is that no byte stands for itself.
    let mut state = 1_u64;
    let mut byte = || {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        (state >> 56) as u8
    };
    for length in [0, 1, 511, 512, 4096, 70_000, 200_000] {
        let bytes: Vec<u8> = (0..length).map(|_| byte()).collect();
        fs::write(&path, &bytes).unwrap();
        let source = Image(File::open(&path).unwrap());
        assert_eq!(find(&source, length), (None, None), "{length}");
    }
}
