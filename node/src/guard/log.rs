//! The guard's log, which nothing of the guard waits for: a thread writes it. Where it goes may
//! lie on a disk that is frozen, and who would thaw that must not wait for it.

use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;
use std::time::Duration;

use tracing_subscriber::fmt::MakeWriter;

/// Lines that wait to be written; more are counted and lost.
const MAX_LINES: usize = 1024;

/// How long the end of the guard waits for what is not written yet.
const AT_THE_END: Duration = Duration::from_secs(1);

enum Line {
    Text(Vec<u8>),
    /// To be told when all before it is written.
    End(SyncSender<()>),
}

/// Takes lines for the thread; a copy is for the same one.
#[derive(Clone)]
pub struct Log {
    lines: SyncSender<Line>,
    lost: Arc<AtomicU64>,
}

impl Log {
    /// Starts the thread that writes to `out`.
    ///
    /// # Errors
    /// Where it cannot be started.
    pub fn to(out: impl Write + Send + 'static) -> io::Result<Self> {
        let (lines, taken) = sync_channel(MAX_LINES);
        let lost = Arc::new(AtomicU64::new(0));
        let told = lost.clone();
        thread::Builder::new()
            .name("dunlin-log".into())
            .spawn(move || write_all(out, &taken, &told))?;
        Ok(Self { lines, lost })
    }

    /// Waits for a moment until all is written.
    pub fn finish(&self) {
        let (done, told) = sync_channel(1);
        if self.lines.try_send(Line::End(done)).is_ok() {
            // It may wait for a disk: then nobody reads it now.
            let _ = told.recv_timeout(AT_THE_END);
        }
    }
}

fn write_all(mut out: impl Write, lines: &Receiver<Line>, lost: &AtomicU64) {
    while let Ok(line) = lines.recv() {
        // Nobody is left to tell that it cannot be written.
        let _ = match line {
            Line::Text(text) => out.write_all(&text),
            Line::End(done) => done.try_send(()).map_err(io::Error::other),
        };
        let lost = lost.swap(0, Ordering::Relaxed);
        if lost > 0 {
            let _ = writeln!(out, "{lost} more lines were lost: they came too fast");
        }
    }
}

impl Write for Log {
    fn write(&mut self, text: &[u8]) -> io::Result<usize> {
        if self.lines.try_send(Line::Text(text.to_vec())).is_err() {
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
        Ok(text.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl MakeWriter<'_> for Log {
    type Writer = Self;

    fn make_writer(&self) -> Self {
        self.clone()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::sync::mpsc::{Sender, channel};

    use super::*;

    /// Takes nothing before it is let go.
    struct Stuck {
        go: Receiver<()>,
        seen: Sender<String>,
    }

    impl Write for Stuck {
        fn write(&mut self, text: &[u8]) -> io::Result<usize> {
            // It goes on by itself once nobody is left to let it go.
            let _ = self.go.recv();
            self.seen
                .send(String::from_utf8_lossy(text).into_owned())
                .map_err(io::Error::other)?;
            Ok(text.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn who_logs_does_not_wait_for_what_takes_no_lines_and_is_told_of_those_that_were_lost() {
        let (go, held) = channel();
        let (seen, told) = channel();
        let mut log = Log::to(Stuck { go: held, seen }).unwrap();
        for number in 0..MAX_LINES + 10 {
            log.write_all(format!("{number}\n").as_bytes()).unwrap();
        }
        drop(go);
        drop(log);
        let text: String = told.iter().collect();
        assert!(text.starts_with("0\n"), "{text}");
        assert!(text.contains("\n1000\n"), "{text}");
        assert!(text.contains(" more lines were lost"), "{text}");
    }

    #[test]
    fn at_the_end_all_is_written() {
        let (go, held) = channel();
        let (seen, told) = channel();
        let mut log = Log::to(Stuck { go: held, seen }).unwrap();
        log.write_all(b"last\n").unwrap();
        drop(go);
        log.finish();
        assert_eq!(told.try_recv().unwrap(), "last\n");
    }
}
