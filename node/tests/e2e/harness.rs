//! Meshes of real `dunlin` processes for tests: a folder, nodes with a port each,
//! commands with a deadline, and waiting for a condition.
//!
//! A node's process ends with its value, also when the test fails; a node that panicked
//! fails the test.

use serde_json::Value;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// How long a condition may take to come true. Two cores run two tests at a time.
pub const PATIENCE: Duration = Duration::from_secs(60);
/// How often a condition is looked at.
const LOOK: Duration = Duration::from_millis(50);
/// How long a command is tried again at a node that waits to hear from a peer.
const HEARING: Duration = Duration::from_secs(5);
/// Lines of a node's log that are shown when a test fails.
const SHOWN_LINES: usize = 25;

/// Waits until `look` gives something, and fails naming `what` when it never does.
pub fn eventually<T>(what: &str, look: impl FnMut() -> Option<T>) -> T {
    eventually_within(PATIENCE, what, look)
}

/// As [`eventually`], with another deadline.
pub fn eventually_within<T>(
    patience: Duration,
    what: &str,
    mut look: impl FnMut() -> Option<T>,
) -> T {
    let until = Instant::now() + patience;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < until, "{what}: not within {patience:?}");
        pause(LOOK);
    }
}

/// Lets others run for a while: between two looks, or so that a change meets different
/// moments. Nothing may depend on how far they get.
pub fn pause(length: Duration) {
    let (_open, nobody) = mpsc::channel::<()>();
    let _ = nobody.recv_timeout(length);
}

/// A folder for one test's nodes and disks. Make it first: it goes last.
pub struct Lab {
    folder: TempDir,
}

impl Lab {
    pub fn new() -> Self {
        let folder = tempfile::Builder::new()
            .prefix("dunlin-e2e-")
            .tempdir()
            .unwrap();
        Self { folder }
    }

    /// A path in the lab.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// A node that has no data folder yet and does not run.
    pub fn node(&self, name: &str) -> Node {
        Node {
            name: name.to_owned(),
            folder: self.path(name),
            port: free_port(),
            extra: vec![],
            user: None,
            machine: None,
            process: None,
        }
    }

    /// A node that founded a mesh of its own, as operator and provisioner; it does not
    /// run yet.
    pub fn founder(&self, name: &str) -> Node {
        let node = self.node(name);
        node.run(&["mesh", "init", "--role", "provisioner", "--node-name", name])
            .ok();
        node
    }

    /// A node that joined the mesh of a running operator; it does not run yet.
    pub fn joiner(&self, operator: &Node, name: &str, roles: &str) -> Node {
        let node = self.node(name);
        node.join(&operator.invite(&["--role", roles])).ok();
        node
    }

    /// Operator (and provisioner), replicator and agent, started and connected.
    pub fn mesh_of_three(&self) -> Mesh {
        let mut operator = self.founder("operator");
        operator.start();
        let mut replicator = self.joiner(&operator, "replicator", "replicator");
        replicator.start();
        let mut agent = self.joiner(&operator, "agent", "agent");
        agent.start();
        let mesh = Mesh {
            operator,
            replicator,
            agent,
        };
        mesh.connected();
        mesh
    }

    /// A raw disk of `mib` MiB of content that does not compress, given by `seed`.
    pub fn disk(&self, name: &str, mib: usize, seed: u64) -> PathBuf {
        let path = self.path(name);
        fs::write(&path, noise(mib << 20, seed)).unwrap();
        path
    }
}

/// Bytes that do not compress, given by `seed`.
pub fn noise(length: usize, seed: u64) -> Vec<u8> {
    let mut bytes = vec![0; length];
    blake3::Hasher::new()
        .update(&seed.to_le_bytes())
        .finalize_xof()
        .fill(&mut bytes);
    bytes
}

/// What `b3sum` prints for a file.
pub fn b3sum(path: &Path) -> String {
    let mut hasher = blake3::Hasher::new();
    hasher.update_reader(File::open(path).unwrap()).unwrap();
    hasher.finalize().to_hex().to_string()
}

/// Whether the tests run as root; says so when not, for a test that then does nothing.
pub fn is_root(test: &str) -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        eprintln!("skipped: {test} needs root");
    }
    root
}

fn free_port() -> u16 {
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    listener.local_addr().unwrap().port()
}

/// Three nodes of one mesh.
pub struct Mesh {
    pub operator: Node,
    pub replicator: Node,
    pub agent: Node,
}

impl Mesh {
    /// Waits until each of the three is connected to the other two and has reported to
    /// the operator.
    pub fn connected(&self) {
        for node in [&self.operator, &self.replicator, &self.agent] {
            eventually("all three connected", || {
                (node.status()["connected"].as_u64()? >= 2).then_some(())
            });
            eventually("all three have reported", || {
                let shown = self.operator.run(&["node", "show", &node.name]).ok();
                shown["reported_at"].is_string().then_some(())
            });
        }
    }

    /// Has the agent offer a disk, and waits until the operator knows it.
    pub fn offer(&self, disk: &Path, name: &str) -> Value {
        let path = disk.to_str().unwrap();
        let added = self
            .agent
            .run(&["volume", "add", path, "--name", name])
            .ok();
        eventually("the operator knows the disk", || {
            let servers = self.operator.run(&["server", "list"]).ok();
            let disks = servers[0]["disks"].as_array()?;
            disks.iter().any(|disk| disk["name"] == name).then_some(())
        });
        added
    }

    /// Offers a disk and plans its migration to the local cloud under the name `m`.
    pub fn plan(&self, disk: &Path) {
        self.offer(disk, "disk");
        let plan = ["migration", "create", "--server", "agent", "--to", "local"];
        self.operator
            .run(&[&plan[..], &["--name", "m"]].concat())
            .ok();
    }

    /// `migration VERB m` on the operator.
    pub fn act(&self, verb: &str) -> Value {
        self.operator.run(&["migration", verb, "m"]).ok()
    }

    /// Migration `m` as the operator sees it.
    pub fn migration(&self) -> Value {
        self.operator.run(&["migration", "show", "m"]).ok()
    }

    /// Waits until `reached` holds for migration `m`.
    pub fn until(&self, what: &str, reached: impl Fn(&Value) -> bool) -> Value {
        let mut last = Value::Null;
        let patience = Instant::now() + PATIENCE;
        eventually_within(PATIENCE * 2, what, || {
            last = self.migration();
            assert!(Instant::now() < patience, "{what}: not with {last:#}");
            reached(&last).then(|| last.clone())
        })
    }

    /// Waits until migration `m` is in a stage, e.g. `syncing`, `paused`, `cut-over`.
    pub fn until_stage(&self, stage: &str) -> Value {
        self.until(stage, |view| view["stage"] == stage)
    }

    /// Waits until the only disk of `m` has ended `passes` passes.
    pub fn until_passes(&self, passes: u64) -> Value {
        self.until("passes", |view| passes_of(view) >= passes)
    }

    /// Cuts `m` over and checks that source and copy hold the same; the copy's path.
    pub fn cut_over(&self, disk: &Path) -> PathBuf {
        self.act("cutover");
        let view = self.until_stage("cut-over");
        let copy = PathBuf::from(view["volumes"][0]["target_path"].as_str().unwrap());
        assert_eq!(b3sum(disk), b3sum(&copy), "source and copy differ");
        eventually("both ends' proofs", || {
            let verify = self.operator.run(&["verify", "m"]).ok();
            (verify["verified"] == true).then_some(())
        });
        copy
    }
}

/// How many passes the first disk of a migration has ended.
pub fn passes_of(migration: &Value) -> u64 {
    let passes = migration["volumes"][0]["passes"].as_array();
    let newest = passes.and_then(|passes| passes.last());
    newest.map_or(0, |pass| pass["pass"].as_u64().unwrap())
}

/// How often a node itself has told of this.
pub fn count(node: &Node, kind: &str) -> usize {
    let events = node.events();
    let own = events.iter().filter(|event| event["node"] == node.name);
    own.filter(|event| event["kind"] == kind).count()
}

/// The first line that a process prints, or why there is none. What it prints after that is
/// read too, so that it never waits for somebody to read it.
pub fn first_line(process: &mut Child) -> Result<String, mpsc::RecvTimeoutError> {
    let stdout = process.stdout.take().unwrap();
    let (tell, told) = mpsc::channel();
    std::thread::spawn(move || {
        for line in BufReader::new(stdout).lines().map_while(Result::ok) {
            // The test has heard enough once it goes on.
            let _ = tell.send(line);
        }
    });
    told.recv_timeout(PATIENCE)
}

/// One node: a data folder, a port, and while it runs a process.
pub struct Node {
    pub name: String,
    pub folder: PathBuf,
    pub port: u16,
    /// More arguments for `run`.
    pub extra: Vec<String>,
    /// The user that its processes run as, when it is not the test's own.
    pub user: Option<u32>,
    /// A folder like `/sys` of the machine that its processes see, when it is not this one.
    pub machine: Option<PathBuf>,
    process: Option<Child>,
}

impl Node {
    /// Starts the node and waits until it says that it is ready.
    pub fn start(&mut self) {
        if let Err(ended) = self.try_start() {
            panic!("node {} did not start: {ended:?}", self.name);
        }
    }

    /// Starts the node; when it ends instead of getting ready, what it ended with.
    pub fn try_start(&mut self) -> Result<(), Output> {
        assert!(self.process.is_none(), "node {} runs", self.name);
        let before = self.log().len();
        let log = File::options()
            .create(true)
            .append(true)
            .open(self.log_path())
            .unwrap();
        let mut process = self
            .command(&["run", "--no-mdns", "--listen"])
            .arg(format!("/ip4/127.0.0.1/tcp/{}", self.port))
            .args(&self.extra)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .unwrap();
        match first_line(&mut process) {
            Ok(_) => {
                self.process = Some(process);
                Ok(())
            }
            Err(mpsc::RecvTimeoutError::Disconnected) => Err(Output {
                status: process.wait().unwrap(),
                stdout: String::new(),
                stderr: self.log().split_off(before),
            }),
            Err(mpsc::RecvTimeoutError::Timeout) => {
                process.kill().unwrap();
                process.wait().unwrap();
                panic!("node {} was not ready in {PATIENCE:?}", self.name);
            }
        }
    }

    /// Ends the process as a power cut would (SIGKILL).
    pub fn kill(&mut self) {
        let mut process = self.process.take().expect("the node runs");
        process.kill().unwrap();
        process.wait().unwrap();
    }

    /// Asks the process to stop (SIGTERM) and waits for it.
    pub fn stop(&mut self) -> ExitStatus {
        let mut process = self.process.take().expect("the node runs");
        let pid = rustix::process::Pid::from_child(&process);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        eventually("the node stops", || process.try_wait().unwrap())
    }

    /// Halts the process where it is (SIGSTOP), or lets it go on (SIGCONT).
    pub fn freeze(&self, frozen: bool) {
        let process = self.process.as_ref().expect("the node runs");
        let signal = match frozen {
            true => rustix::process::Signal::STOP,
            false => rustix::process::Signal::CONT,
        };
        let pid = rustix::process::Pid::from_child(process);
        rustix::process::kill_process(pid, signal).unwrap();
    }

    /// Whether the process has not ended by itself.
    pub fn is_running(&mut self) -> bool {
        let process = self.process.as_mut();
        process.is_some_and(|process| process.try_wait().unwrap().is_none())
    }

    /// Runs a command on this node's folder, with `--json`.
    pub fn run(&self, args: &[&str]) -> Output {
        self.run_with_input(args, "")
    }

    /// Runs a command on this node's folder, with `--json` and something on stdin.
    pub fn run_with_input(&self, args: &[&str], input: &str) -> Output {
        // A node that has just started says to wait until it has heard from a peer.
        let until = Instant::now() + HEARING;
        loop {
            let output = finished(self.command(args).arg("--json"), input);
            let waits = output.stderr.contains("has not heard from any peer");
            if !waits || Instant::now() >= until {
                return output;
            }
            pause(LOOK);
        }
    }

    /// `join -` with an invite on stdin.
    pub fn join(&self, invite: &str) -> Output {
        self.run_with_input(&["join", "-", "--name", &self.name], invite)
    }

    /// Makes an invite on this operator's node and gives its line.
    pub fn invite(&self, args: &[&str]) -> String {
        let made = self.run(&[&["invite", "create"], args].concat()).ok();
        made["invite"].as_str().unwrap().to_owned()
    }

    pub fn status(&self) -> Value {
        self.run(&["status"]).ok()
    }

    /// This node's events, oldest first.
    pub fn events(&self) -> Vec<Value> {
        let events = self.run(&["events"]).ok();
        events.as_array().unwrap().clone()
    }

    /// Waits for an event of this kind whose text holds all of `words`.
    pub fn until_event(&self, kind: &str, words: &[&str]) -> Value {
        let mut seen = vec![];
        let patience = Instant::now() + PATIENCE;
        eventually_within(PATIENCE * 2, kind, || {
            seen = self.events();
            let fits = |event: &&Value| {
                let text = event["text"].as_str().unwrap();
                event["kind"] == kind && words.iter().all(|word| text.contains(word))
            };
            let found = seen.iter().find(fits).cloned();
            let late = found.is_none() && Instant::now() >= patience;
            assert!(!late, "no {kind} with {words:?} in {seen:#?}");
            found
        })
    }

    /// What the node's processes wrote to stderr so far.
    pub fn log(&self) -> String {
        fs::read_to_string(self.log_path()).unwrap_or_default()
    }

    fn log_path(&self) -> PathBuf {
        self.folder.with_extension("log")
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_dunlin"));
        command
            .env_remove("DUNLIN_LOG")
            .arg("--data-dir")
            .arg(&self.folder)
            .args(args);
        if let Some(machine) = &self.machine {
            command.env("DUNLIN_SYS_ROOT", machine);
        }
        if let Some(user) = self.user {
            command.uid(user).gid(user);
        }
        command
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if let Some(mut process) = self.process.take() {
            let _ = process.kill();
            let _ = process.wait();
        }
        let log = self.log();
        if std::thread::panicking() {
            let lines: Vec<&str> = log.lines().collect();
            let last = &lines[lines.len().saturating_sub(SHOWN_LINES)..];
            eprintln!("--- log of {}\n{}", self.name, last.join("\n"));
        } else {
            assert!(!log.contains("panicked"), "{} panicked: {log}", self.name);
        }
    }
}

/// What a command came to.
#[derive(Debug)]
pub struct Output {
    pub status: ExitStatus,
    pub stdout: String,
    pub stderr: String,
}

impl Output {
    /// The value it printed; fails the test when the command failed.
    pub fn ok(&self) -> Value {
        assert!(self.status.success(), "{self:?}");
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("{error} in {self:?}"))
    }

    /// Checks that it failed with this exit status and an error that holds all of
    /// `words`, printed nothing on stdout and did not panic.
    pub fn fails(&self, status: i32, words: &[&str]) {
        assert_eq!(self.status.code(), Some(status), "{self:?}");
        assert_eq!(self.stdout, "", "{self:?}");
        assert!(!self.stderr.contains("panicked"), "{self:?}");
        for word in words {
            assert!(self.stderr.contains(word), "no `{word}` in {self:?}");
        }
    }
}

/// Runs a command to its end; kills it and fails the test when it takes too long.
fn finished(command: &mut Command, input: &str) -> Output {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // A command that does not read its stdin may have closed it.
    let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
    let stdout = collected(child.stdout.take().unwrap());
    let stderr = collected(child.stderr.take().unwrap());
    let until = Instant::now() + PATIENCE * 2;
    let mut wait = |read: &mpsc::Receiver<String>| {
        let left = until.saturating_duration_since(Instant::now());
        read.recv_timeout(left).unwrap_or_else(|_| {
            child.kill().unwrap();
            child.wait().unwrap();
            panic!("{command:?} did not end in {:?}", PATIENCE * 2)
        })
    };
    let (stdout, stderr) = (wait(&stdout), wait(&stderr));
    Output {
        status: child.wait().unwrap(),
        stdout,
        stderr,
    }
}

fn collected(mut from: impl Read + Send + 'static) -> mpsc::Receiver<String> {
    let (tell, told) = mpsc::channel();
    std::thread::spawn(move || {
        let mut bytes = vec![];
        let _ = from.read_to_end(&mut bytes);
        let _ = tell.send(String::from_utf8_lossy(&bytes).into_owned());
    });
    told
}
