//! What is held against each other: the frozen disks and their copies byte for byte, and
//! what the guest told to be durable with what its copy holds.

use super::guest::Guest;
use super::image::{self, DISKS};
use super::workload::Told;
use anyhow::{Context, Result, bail, ensure};
use std::fmt::{self, Write as _};
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

/// As the product's blocks.
const BLOCK: usize = 64 << 10;

/// Blocks that differ, by the place of each in bytes, of each disk.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Differences([Vec<u64>; 2]);

impl Differences {
    pub(super) fn is_empty(&self) -> bool {
        self.0.iter().all(Vec::is_empty)
    }
}

impl fmt::Display for Differences {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        for (name, places) in DISKS.iter().zip(&self.0) {
            let count = places.len();
            match places.first() {
                None => write!(f, "{name} is equal; ")?,
                Some(first) => write!(f, "{name} differs in {count} blocks from {first} on; ")?,
            }
        }
        Ok(())
    }
}

/// Compares the disks in `place` with their copies.
pub(super) fn compare(place: &Path, copies: &[PathBuf; 2]) -> Result<Differences> {
    let mut found = Differences::default();
    for ((name, copy), places) in DISKS.iter().zip(copies).zip(&mut found.0) {
        let disk = image::disk(place, name);
        *places = blocks(&disk, copy).with_context(|| format!("comparing {name} with its copy"))?;
    }
    Ok(found)
}

/// Places of blocks that differ between two files of one length.
fn blocks(one: &Path, other: &Path) -> Result<Vec<u64>> {
    let open =
        |path: &Path| File::open(path).with_context(|| format!("opening {}", path.display()));
    let (mut one, mut other) = (open(one)?, open(other)?);
    let length = one.metadata()?.len();
    let copied = other.metadata()?.len();
    ensure!(
        length == copied,
        "{length} bytes, and the copy has {copied}"
    );
    let mut found = vec![];
    let mut buffers = [vec![0; BLOCK], vec![0; BLOCK]];
    let mut at = 0;
    while at < length {
        let left = usize::try_from(length - at).unwrap_or(BLOCK).min(BLOCK);
        let [ours, theirs] = &mut buffers;
        one.read_exact(&mut ours[..left])?;
        other.read_exact(&mut theirs[..left])?;
        if ours[..left] != theirs[..left] {
            found.push(at);
        }
        at += left as u64;
    }
    Ok(found)
}

/// Of the control: what was written unseen to the data disk differs, and nothing else.
pub(super) fn found_unseen(found: &Differences, at: u64, length: u64) -> Result<()> {
    let Differences([root, data]) = found;
    let expected: Vec<u64> = (at..at + length).step_by(BLOCK).collect();
    ensure!(
        root.is_empty() && *data == expected,
        "the comparison did not find what was written unseen at {at}: {found}"
    );
    Ok(())
}

/// Waits until the database of a copy has recovered, and holds everything against what was
/// told; a sentence about it.
pub(super) fn judge(copy: &mut Guest, told: &Told) -> Result<String> {
    copy.run(
        "for second in $(seq 240); do
           if runuser -u postgres -- psql -qAtX -c 'SELECT 1' bench >/dev/null 2>&1; then exit 0; fi
           sleep 1
         done
         tail -n 30 /var/log/postgresql/*.log >&2
         exit 1",
    )
    .context("the copy's database")?;
    let rows = rows(copy, told)?;
    let sums = told.files.iter();
    let sums = sums.fold(String::new(), |mut all, (path, sum)| {
        let _ = writeln!(all, "{sum}  {path}");
        all
    });
    copy.run_with("sha256sum --quiet --strict --check -", sums.as_bytes())
        .context("files that the guest told to be durable")?;
    copy.run("runuser -u postgres -- /usr/lib/postgresql/*/bin/pg_amcheck bench")
        .context("the copy's database is damaged")?;
    let said = copy
        .run("dmesg | grep -E 'EXT4-fs (error|warning)|XFS.*([Cc]orrupt|error)|I/O error' || :")?;
    ensure!(said.is_empty(), "the copy's kernel says {said}");
    let redo = copy
        .run("grep -h 'redo done' /var/log/postgresql/*.log | tail -n 1 | grep -o 'redo.*' || :")?;
    Ok(format!("{rows} rows, {} files; {redo}", told.files.len()))
}

/// Every row that was told, every checksum, and the sums that pgbench keeps equal.
fn rows(copy: &mut Guest, told: &Told) -> Result<u64> {
    let lines = told.rows.iter();
    let lines = lines.fold(String::new(), |mut all, (number, sum)| {
        let _ = writeln!(all, "{number} {sum}");
        all
    });
    let script = "chmod a+r /run/guest-console/in
runuser -u postgres -- psql -qAtX -v ON_ERROR_STOP=1 bench <<'SQL'
CREATE TEMP TABLE told (n bigint, sum text);
\\copy told FROM '/run/guest-console/in' (DELIMITER ' ')
SELECT count(*) FROM told LEFT JOIN acknowledged a USING (n) WHERE a.sum IS DISTINCT FROM told.sum;
SELECT count(*) FROM acknowledged WHERE encode(sha256(convert_to(body, 'UTF8')), 'hex') <> sum;
SELECT count(*) FROM acknowledged;
SELECT sum(abalance) FROM pgbench_accounts;
SELECT sum(tbalance) FROM pgbench_tellers;
SELECT sum(bbalance) FROM pgbench_branches;
SELECT coalesce(sum(delta), 0) FROM pgbench_history;
SELECT count(*) FROM pgbench_history;
SQL";
    let said = copy.run_with(script, lines.as_bytes())?;
    let numbers: Vec<i64> = said.lines().flat_map(str::parse).collect();
    let [
        missing,
        wrong,
        rows,
        accounts,
        tellers,
        branches,
        history,
        done,
    ] = numbers[..]
    else {
        bail!("the copy's database says {said}");
    };
    ensure!(
        missing == 0,
        "{missing} of the rows that were acknowledged are not in the copy"
    );
    ensure!(wrong == 0, "{wrong} rows of the copy have another checksum");
    ensure!(done > 0, "pgbench did nothing");
    ensure!(
        accounts == tellers && tellers == branches && branches == history,
        "sums of pgbench differ: {accounts}, {tellers}, {branches}, {history}"
    );
    Ok(rows.unsigned_abs())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_block_that_differs_is_found_and_so_is_another_length() {
        let folder = tempfile::tempdir().unwrap();
        let [root, data] = DISKS.map(|name| image::disk(folder.path(), name));
        let mut bytes = vec![7; 3 * BLOCK + 5];
        for disk in [&root, &data] {
            std::fs::write(disk, &bytes).unwrap();
        }
        let copies = ["a", "b"].map(|name| folder.path().join(name));
        std::fs::write(&copies[0], &bytes).unwrap();
        bytes[BLOCK] = 8;
        bytes[3 * BLOCK] = 8;
        std::fs::write(&copies[1], &bytes).unwrap();
        let found = compare(folder.path(), &copies).unwrap();
        let (second, last) = (BLOCK as u64, 3 * BLOCK as u64);
        assert_eq!(found, Differences([vec![], vec![second, last]]));
        assert!(found_unseen(&found, second, BLOCK as u64).is_err());
        assert!(found_unseen(&Differences::default(), second, BLOCK as u64).is_err());
        let unseen = Differences([vec![], vec![second]]);
        assert!(found_unseen(&unseen, second, BLOCK as u64).is_ok());
        std::fs::write(&copies[0], &bytes[1..]).unwrap();
        assert!(compare(folder.path(), &copies).is_err());
    }
}
