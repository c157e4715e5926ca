//! Runs a bench in a process group of its own, so that one that is told to end leaves no
//! process behind: whatever it started is ended with it, by whoever it was started.
//!
//! Not here: what a bench has made, which its caller removes.

use std::process::{Command, ExitStatus};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use rustix::process::{Pid, Signal, kill_process_group, test_kill_process_group};
use tokio::select;
use tokio::signal::unix::{SignalKind, signal};

/// How long processes that were killed are waited for.
const GONE: Duration = Duration::from_secs(5);
const PAUSE: Duration = Duration::from_millis(10);

/// How a guarded run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ended {
    /// By itself.
    Exited(ExitStatus),
    /// By a signal to this process.
    Told,
}

/// Runs a command until it ends or this process is told to; then nothing of it runs any
/// more, but what has left its process group.
///
/// # Errors
/// When it cannot be started.
pub(crate) fn run(command: Command) -> Result<Ended> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    runtime.context("waiting for signals")?.block_on(async {
        let listen = |kind| signal(kind).context("waiting for signals");
        let mut interrupt = listen(SignalKind::interrupt())?;
        let mut terminate = listen(SignalKind::terminate())?;
        let mut hang_up = listen(SignalKind::hangup())?;
        let mut command = tokio::process::Command::from(command);
        let mut child = command.process_group(0).spawn().context("starting it")?;
        let group = child.id().and_then(|id| Pid::from_raw(id.cast_signed()));
        let ended = select! {
            status = child.wait() => Ended::Exited(status.context("waiting for it")?),
            _ = interrupt.recv() => Ended::Told,
            _ = terminate.recv() => Ended::Told,
            _ = hang_up.recv() => Ended::Told,
        };
        if let Some(group) = group {
            // There is none where all have ended.
            let _ = kill_process_group(group, Signal::KILL);
            if ended == Ended::Told {
                child.wait().await.context("waiting for it")?;
            }
            wait_for(group);
        }
        Ok(ended)
    })
}

/// Waits until no process of the group is left: whoever still runs may make files.
fn wait_for(group: Pid) {
    let until = Instant::now() + GONE;
    while test_kill_process_group(group).is_ok() && Instant::now() < until {
        thread::sleep(PAUSE);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::bench::running::Running;
    use rustix::process::kill_process;
    use std::io::{BufRead, BufReader, Write};
    use std::path::Path;
    use std::process::Stdio;

    const TEST: &str = "bench::guard::tests::a_guard";
    /// Whether the test below is a guard.
    const IS_GUARD: &str = "DUNLIN_IS_GUARD";

    /// What the next test runs, to tell it to end.
    #[test]
    fn a_guard() {
        if std::env::var_os(IS_GUARD).is_none() {
            eprintln!("skipped: it is a guard only where the environment says so");
            return;
        }
        let mut command = Command::new("sh");
        command.args(["-c", "sleep 600 & echo; echo process=$!; wait"]);
        assert_eq!(run(command).unwrap(), Ended::Told);
        let mut out = std::io::stdout().lock();
        writeln!(out, "\ntold").unwrap();
    }

    fn is_running(process: &str) -> bool {
        let stat = std::fs::read_to_string(Path::new("/proc").join(process).join("stat"));
        stat.is_ok_and(|stat| !stat.contains(") Z "))
    }

    #[test]
    fn what_a_command_started_ends_with_it_when_the_guard_is_told_to_end() {
        for signal in [Signal::TERM, Signal::INT, Signal::HUP] {
            let guard = Command::new(std::env::current_exe().unwrap())
                .args(["--exact", "--nocapture", TEST])
                .env(IS_GUARD, "yes")
                .stdout(Stdio::piped())
                .spawn();
            let mut guard = Running(guard.unwrap());
            let out = BufReader::new(guard.0.stdout.take().unwrap());
            let mut lines = out.lines().map_while(Result::ok);
            let process = lines.find_map(|line| line.strip_prefix("process=").map(str::to_owned));
            let process = process.unwrap();
            assert!(is_running(&process));
            kill_process(Pid::from_child(&guard.0), signal).unwrap();
            assert!(lines.any(|line| line == "told"), "{signal:?}");
            assert!(!is_running(&process), "{signal:?}");
        }
    }

    #[test]
    fn what_a_command_left_behind_ends_when_it_does() {
        let folder = tempfile::tempdir().unwrap();
        let says = folder.path().join("says");
        let mut command = Command::new("sh");
        command.args(["-c", "sleep 600 & echo $! >\"$0\"; exit 3"]);
        command.arg(&says);
        let ended = run(command).unwrap();
        assert!(matches!(ended, Ended::Exited(status) if status.code() == Some(3)));
        let process = std::fs::read_to_string(&says).unwrap();
        assert!(!is_running(process.trim()));
    }
}
