//! Runs one script: in a process group of its own, with a limit of time, its output read as
//! it comes.
//!
//! The script is not waited for by name until its group was dealt with: so long its number
//! can be no other group's. What it leaves running goes on, unless it was out of time.

use super::folder::Script;
use super::output::Output;
use super::{Cancel, Context};
use crdt::plan::hook::Hook;
use rustix::fs::{OFlags, fcntl_setfl};
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process_group, waitid};
use std::fmt;
use std::io::{self, PipeReader, Read};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// How long a script has between SIGTERM and SIGKILL.
pub const GRACE: Duration = Duration::from_secs(5);
/// How often a script and its output are looked at, at first and at last.
const LOOK: (Duration, Duration) = (Duration::from_millis(1), Duration::from_millis(20));
/// Most bytes read after the end of a script of what others still write.
const LAST_BYTES: usize = 1 << 20;
/// Where scripts find programs.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// How a script ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ended {
    /// By itself, with this status.
    Exited(i32),
    /// By a signal that was not ours.
    Killed(i32),
    /// It took too long, and was ended.
    TimedOut,
    /// It was asked to end, since what it was for is not wanted any more.
    Cancelled,
    /// It never began, and why.
    NotStarted(String),
}

/// What became of a script.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ran {
    /// How it ended.
    pub ended: Ended,
    /// How long it took.
    pub took: Duration,
    /// What it printed to either stream: the first and last of it, without secrets.
    pub output: String,
}

impl Ended {
    /// Whether it did what it was to do.
    pub fn is_ok(&self) -> bool {
        *self == Self::Exited(0)
    }
}

impl fmt::Display for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exited(status) => write!(f, "ended with status {status}"),
            Self::Killed(signal) => write!(f, "was killed by signal {signal}"),
            Self::TimedOut => f.write_str("took longer than its timeout and was ended"),
            Self::Cancelled => f.write_str("was ended, since its migration does not go on"),
            Self::NotStarted(why) => write!(f, "was not started: {why}"),
        }
    }
}

impl Ran {
    pub(super) fn not_started(why: String) -> Self {
        Self {
            ended: Ended::NotStarted(why),
            took: Duration::ZERO,
            output: String::new(),
        }
    }
}

/// Runs a script and waits for its end.
pub(super) fn run(script: &Script, hook: &Hook, context: &Context, cancel: &Cancel) -> Ran {
    let began = Instant::now();
    let (mut group, reader) = match start(script, hook, context) {
        Ok(started) => started,
        Err(error) => return Ran::not_started(format!("{}: {error}", script.path().display())),
    };
    let mut output = Printed {
        reader: Some(reader),
        output: Output::default(),
    };
    let timeout = Duration::from_secs(hook.timeout_secs.into());
    let ended = group.wait(began + timeout, cancel, &mut output);
    output.read(LAST_BYTES);
    let secrets: Vec<&str> = hook.env.iter().map(|(_, value)| value.as_str()).collect();
    Ran {
        ended,
        took: began.elapsed(),
        output: output.output.into_text(&secrets),
    }
}

fn start(script: &Script, hook: &Hook, context: &Context) -> io::Result<(Group, PipeReader)> {
    let (reader, writer) = io::pipe()?;
    fcntl_setfl(&reader, OFlags::NONBLOCK)?;
    let mut command = Command::new(script.path());
    command
        .env_clear()
        .envs(environment(hook, context))
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(writer.try_clone()?)
        .stderr(writer)
        .process_group(0);
    let child = spawn(&mut command)?;
    let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
    let pid = pid.expect("the number of a child is one of a process");
    // The command's own ends of the pipe are closed with it, or its end would never be seen.
    drop(command);
    let group = Group {
        child,
        pid,
        is_over: false,
    };
    Ok((group, reader))
}

/// A script that was written a moment ago may still be open for writing in a process that
/// was forked from another thread; it is for a moment only.
fn spawn(command: &mut Command) -> io::Result<Child> {
    let until = Instant::now() + Duration::from_secs(1);
    loop {
        match command.spawn() {
            Err(error)
                if error.kind() == io::ErrorKind::ExecutableFileBusy && Instant::now() < until =>
            {
                std::thread::sleep(LOOK.1);
            }
            spawned => return spawned,
        }
    }
}

fn environment(hook: &Hook, context: &Context) -> Vec<(String, String)> {
    let fixed = [
        ("PATH", PATH.to_owned()),
        ("LANG", "C.UTF-8".to_owned()),
        ("DUNLIN_POINT", hook.point.to_string()),
        ("DUNLIN_MIGRATION", context.migration.clone()),
        ("DUNLIN_MIGRATION_NAME", context.migration_name.clone()),
        ("DUNLIN_SERVER", context.server.clone()),
        ("DUNLIN_NODE", context.node.clone()),
        ("DUNLIN_DISKS", context.disks.join("\n")),
    ];
    let fixed = fixed
        .into_iter()
        .map(|(name, value)| (name.to_owned(), value));
    // A name in the plan may hold a zero byte, with which nothing could be started.
    let whole = |(name, value): (String, String)| (name, value.replace('\0', ""));
    fixed.chain(hook.env.iter().cloned()).map(whole).collect()
}

/// What a script prints.
struct Printed {
    /// None once the last that could write to it is gone.
    reader: Option<PipeReader>,
    output: Output,
}

impl Printed {
    /// Takes what is there, up to about `most` bytes; whether there was any.
    fn read(&mut self, most: usize) -> bool {
        let mut buffer = [0; 16 * 1024];
        let mut taken = 0;
        while taken < most
            && let Some(reader) = &mut self.reader
        {
            match reader.read(&mut buffer) {
                Ok(0) => self.reader = None,
                Ok(count) => {
                    self.output.take(&buffer[..count]);
                    taken += count;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(_) => self.reader = None,
            }
        }
        taken > 0
    }
}

/// A script and what it started, as long as that stays in its group.
struct Group {
    child: Child,
    pid: Pid,
    is_over: bool,
}

impl Group {
    fn wait(&mut self, until: Instant, cancel: &Cancel, output: &mut Printed) -> Ended {
        let ended = match self.look(until, cancel, output) {
            Look::Over => None,
            Look::Asked => Some(Ended::Cancelled),
            Look::Late => Some(Ended::TimedOut),
        };
        if let Some(ended) = ended {
            self.signal(Signal::TERM);
            let _ = self.look(Instant::now() + GRACE, &Cancel::default(), output);
            self.signal(Signal::KILL);
            let _ = self.reap();
            return ended;
        }
        match self.reap() {
            Ok(status) => match (status.code(), status.signal()) {
                (Some(code), _) => Ended::Exited(code),
                (None, signal) => Ended::Killed(signal.unwrap_or(0)),
            },
            Err(error) => Ended::NotStarted(format!("it cannot be waited for: {error}")),
        }
    }

    /// Reads output until the script is over, time is, or an end is asked for.
    fn look(&self, until: Instant, cancel: &Cancel, output: &mut Printed) -> Look {
        let mut pause = LOOK.0;
        loop {
            let has_printed = output.read(LAST_BYTES);
            if self.has_exited() {
                return Look::Over;
            }
            if cancel.is_asked_for() {
                return Look::Asked;
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Look::Late;
            }
            pause = match has_printed {
                true => LOOK.0,
                false => (pause * 2).min(LOOK.1),
            };
            std::thread::sleep(pause.min(left));
        }
    }

    /// Whether the script itself is over; its number stays its own.
    fn has_exited(&self) -> bool {
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
        matches!(waitid(WaitId::Pid(self.pid), options), Ok(Some(_)))
    }

    fn signal(&self, signal: Signal) {
        // There is nobody left, which is what is wanted.
        let _ = kill_process_group(self.pid, signal);
    }

    fn reap(&mut self) -> io::Result<ExitStatus> {
        self.is_over = true;
        self.child.wait()
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        if !self.is_over {
            self.signal(Signal::KILL);
            let _ = self.child.wait();
        }
    }
}

enum Look {
    Over,
    Asked,
    Late,
}
