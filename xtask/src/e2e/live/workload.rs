//! What the guest does all the while: pgbench, and a writer that tells of each row and file
//! once it is durable. What was told is to be in the copy.
//!
//! Not here: the writer itself (`guest/writer.pl`), nor how what it told is held against the
//! copy (`checks`).

use super::guest::Guest;
use anyhow::Result;
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

/// Transactions of pgbench in a second.
const RATE: u32 = 10;

/// What the guest told to be durable.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Told {
    /// Checksums of rows, by number.
    pub(super) rows: BTreeMap<u64, String>,
    /// Checksums of files, by path.
    pub(super) files: BTreeMap<String, String>,
}

impl Told {
    /// Takes a line; what is cut off says nothing.
    fn take(&mut self, line: &str) {
        let is_sum = |text: &str| text.len() == 64;
        match line.split(' ').collect::<Vec<_>>()[..] {
            ["row", number, sum] if is_sum(sum) => {
                if let Ok(number) = number.parse() {
                    self.rows.insert(number, sum.to_owned());
                }
            }
            ["file", sum, path] if is_sum(sum) && path.starts_with("/srv/") => {
                self.files.insert(path.to_owned(), sum.to_owned());
            }
            _ => {}
        }
    }
}

/// What was told so far, by however many starts of the guest.
#[derive(Debug, Clone, Default)]
pub(super) struct Acknowledged(Arc<Mutex<Told>>);

impl Acknowledged {
    /// Takes down what comes in, until the other end hangs up.
    pub(super) fn listen(&self, stream: UnixStream) {
        let told = Arc::clone(&self.0);
        thread::spawn(move || {
            for line in BufReader::new(stream).lines().map_while(Result::ok) {
                told.lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .take(&line);
            }
        });
    }

    /// What was told until now.
    pub(super) fn told(&self) -> Told {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}

/// Starts it in a guest that has just been switched on, for the `run`th time.
pub(super) fn start(guest: &mut Guest, run: u32) -> Result<()> {
    let script = format!(
        "for second in $(seq 120); do
           if runuser -u postgres -- psql -qAtX -c 'SELECT 1' bench >/dev/null 2>&1; then break; fi
           sleep 1
         done
         systemd-run --quiet --unit=load-pgbench --setenv=PGOPTIONS='-c search_path=public' \
           runuser -u postgres -- pgbench --no-vacuum --client=2 --rate={RATE} --time=86400 bench
         systemd-run --quiet --unit=load-writer perl /usr/local/lib/guest/writer.pl run{run}"
    );
    guest.run(&script).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_that_was_cut_off_tells_nothing() {
        let sum = "a".repeat(64);
        let mut told = Told::default();
        for line in [
            "",
            "row 1",
            &format!("row 2 {}", &sum[1..]),
            &format!("row x {sum}"),
            &format!("file {sum}"),
            &format!("file {sum} /etc/x"),
        ] {
            told.take(line);
        }
        assert_eq!(told, Told::default());
        told.take(&format!("row 2 {sum}"));
        told.take(&format!("file {sum} /srv/files/run1-1"));
        assert_eq!((told.rows.len(), told.files.len()), (1, 1));
    }
}
