//! The command that prints the root of a disk of which something was left out.

use keys::LeftOut;
use std::fmt::Write;

/// Prints a disk's first bytes, of which what is left out is zeros; `disk` is quoted. Of a
/// device the disk itself is read, past what a file system has changed in memory alone.
pub(super) fn reading(disk: &str, length: u64, is_device: bool, left_out: &LeftOut) -> String {
    let direct = if is_device { "direct," } else { "" };
    let piece = |from: u64, to: u64| {
        let count = to - from;
        format!(
            "dd if={disk} bs=1M iflag={direct}skip_bytes,count_bytes skip={from} count={count} status=none; "
        )
    };
    let (mut text, mut at) = (String::from("{ "), 0);
    for &(offset, count) in left_out.extents() {
        if at < offset {
            text.push_str(&piece(at, offset));
        }
        let _ = write!(text, "head -c {count} /dev/zero; ");
        at = offset + count;
    }
    if at < length {
        text.push_str(&piece(at, length));
    }
    text + "}"
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::process::Command;

    #[test]
    fn the_command_prints_the_disk_with_zeros_in_what_is_left_out() {
        let folder = tempfile::tempdir().unwrap();
        let disk = folder.path().join("a disk");
        let mut bytes: Vec<u8> = (0..3_000_000u32).map(|at| (at % 251) as u8 + 1).collect();
        std::fs::write(&disk, &bytes).unwrap();
        let extents = vec![(0, 65_536), (131_072, 1 << 20), (2_949_120, 50_880)];
        for (offset, length) in &extents {
            bytes[*offset as usize..(offset + length) as usize].fill(0);
        }
        let left_out = LeftOut::new(extents).unwrap();
        let quoted = format!("'{}'", disk.display());
        let command = reading(&quoted, bytes.len() as u64, false, &left_out);
        let printed = Command::new("sh").args(["-c", &command]).output().unwrap();
        assert!(printed.stdout == bytes, "{command}");
        let device = reading(
            "'/dev/sda'",
            1 << 20,
            true,
            &LeftOut::new(vec![(65_536, 65_536)]).unwrap(),
        );
        assert_eq!(
            device,
            "{ dd if='/dev/sda' bs=1M iflag=direct,skip_bytes,count_bytes skip=0 count=65536 status=none; head -c 65536 /dev/zero; dd if='/dev/sda' bs=1M iflag=direct,skip_bytes,count_bytes skip=131072 count=917504 status=none; }"
        );
    }
}
