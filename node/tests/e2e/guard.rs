//! A disk that is followed while it is copied: what passes read, after which deaths. And one
//! that was left frozen, which the next guard or a person lets go.
//!
//! Needs root, loop devices and a few programs; says what is missing and does nothing
//! otherwise.

use crate::device::{Load, Loop, Mount, has_tools, run, text};
use crate::harness::{Lab, Mesh, PATIENCE, first_line, is_root};
use serde_json::Value;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::Duration;
use volumes::freeze::Freezer;

const TEST: &str = "a migration of a disk that is followed";
const DISK_MIB: u64 = 128;

/// A guard's process; killed when dropped.
pub struct Guard(Child);

impl Guard {
    pub fn start(socket: &Path) -> Self {
        let mut process = Command::new(env!("CARGO_BIN_EXE_dunlin"))
            .args(["guard", "--socket", text(socket)])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let line = first_line(&mut process).expect("a guard says when it is ready");
        assert!(line.contains("guard is ready"), "{line}");
        Self(process)
    }

    /// Ends it as a lack of memory would.
    pub fn kill(mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The newest pass, once there is one after this one.
fn pass_after(mesh: &Mesh, pass: u64) -> Value {
    let newest = |view: &Value| {
        let passes = view["volumes"][0]["passes"].as_array()?;
        passes.last().cloned()
    };
    let number = |pass: &Value| pass["pass"].as_u64().unwrap_or(0);
    let is_newer = |view: &Value| newest(view).is_some_and(|found| number(&found) > pass);
    let view = mesh.until(&format!("a pass after {pass}"), is_newer);
    newest(&view).unwrap()
}

/// Waits for a pass that read what was written; how many that did not came first.
fn until_tracked(mesh: &Mesh, mut pass: u64) -> (u64, u64) {
    let mut whole = 0;
    loop {
        let found = pass_after(mesh, pass);
        let number = found["pass"].as_u64().unwrap();
        if found["tracked"] == true {
            return (number, whole + number - pass - 1);
        }
        whole += number - pass;
        pass = number;
    }
}

/// A mesh whose agent has a guard at `guard.sock`, with more settings after its own.
pub fn guarded_mesh(lab: &Lab, more: &str) -> Mesh {
    let config = lab.path("agent.toml");
    let socket = lab.path("guard.sock");
    fs::write(&config, format!("[agent]\nguard = {socket:?}\n{more}")).unwrap();
    let mut mesh = lab.mesh_of_three();
    mesh.agent.kill();
    let config = config.to_str().unwrap().to_owned();
    mesh.agent.extra.extend(["--config".to_owned(), config]);
    mesh.agent.start();
    mesh.connected();
    mesh
}

#[test]
fn passes_read_what_was_written_after_an_agent_was_killed_too_and_all_after_its_guard_was() {
    if !is_root(TEST) || !has_tools(TEST) {
        return;
    }
    let lab = Lab::new();
    let image = lab.path("disk.img");
    fs::File::create(&image)
        .unwrap()
        .set_len(DISK_MIB << 20)
        .unwrap();
    let Some(disk) = Loop::attach(&image, TEST) else {
        return;
    };
    run("mkfs.ext4", &["-q", text(&disk.device)]);
    let mount = Mount::new(&disk.device, lab.path("mnt"));
    let _load = Load::start(&mount.folder);
    let socket: PathBuf = lab.path("guard.sock");
    let guard = Guard::start(&socket);
    let mut mesh = guarded_mesh(&lab, "");
    mesh.plan(&disk.device);
    mesh.act("start");
    let (pass, whole) = until_tracked(&mesh, 0);
    assert_eq!(whole, 1, "the first pass alone reads all");

    mesh.agent.kill();
    mesh.agent.start();
    let (pass, whole) = until_tracked(&mesh, pass);
    assert_eq!(
        whole, 0,
        "the guard remembers what an agent owed that was killed"
    );

    guard.kill();
    let lost = pass_after(&mesh, pass + 1);
    assert_eq!(lost["tracked"], false, "{lost:#}");
    let view = mesh.migration();
    let changes = view["volumes"][0]["changes"].as_str().unwrap();
    assert!(changes.contains("the whole disk is compared"), "{changes}");
    let _guard = Guard::start(&socket);
    let (_, whole) = until_tracked(&mesh, lost["pass"].as_u64().unwrap());
    assert!(whole >= 1, "a guard that was started again knows nothing");

    // Its load goes on: the cutover freezes it.
    let copy = mesh.cut_over(&image);
    assert!(
        fs::read(&image).unwrap() == fs::read(&copy).unwrap(),
        "the frozen device differs from its copy"
    );
    let verify = mesh.operator.run(&["verify", "m"]).ok();
    assert_eq!(
        verify["volumes"][0]["source"]["method"], "tracked",
        "{verify:#}"
    );
    let server = mesh.operator.run(&["server", "show", "agent"]).ok();
    let changes = server["disks"][0]["changes"].as_str().unwrap();
    assert_eq!(changes, "followed as they are written, by a BPF program");
    let tell = mesh.agent.until_event("cut-over", &["frozen for"]);
    eprintln!("{}", tell["text"].as_str().unwrap());
    run("e2fsck", &["-fn", text(&copy)]);
}

const STILL: &str = "a source that was left frozen";

/// A mounted disk that its last guard left frozen, for good or not, with the notes of that.
fn left_frozen(lab: &Lab, is_kept: bool) -> Option<(Loop, Mount)> {
    let image = lab.path("disk.img");
    let file = fs::File::create(&image).unwrap();
    file.set_len(DISK_MIB << 20).unwrap();
    let disk = Loop::attach(&image, STILL)?;
    run("mkfs.ext4", &["-q", text(&disk.device)]);
    let mount = Mount::new(&disk.device, lab.path("mnt"));
    let notes = lab.path("frozen");
    fs::create_dir(&notes).unwrap();
    let note = notes.join("ab".repeat(16));
    let freezer = Freezer::prepare(std::slice::from_ref(&disk.device)).unwrap();
    let frozen = freezer.freeze(PATIENCE, &note).unwrap();
    frozen.keep().unwrap();
    if !is_kept {
        let mut note = fs::OpenOptions::new().append(true).open(&note).unwrap();
        note.write_all(b"given-up\n").unwrap();
    }
    Some((disk, mount))
}

/// A write that takes as long as this waits for something.
const HELD: Duration = Duration::from_millis(300);

/// Begins to write a file and says when that is done.
fn write(mount: &Mount) -> Receiver<()> {
    let (done, told) = channel();
    let path = mount.folder.join("file");
    thread::spawn(move || {
        fs::write(path, b"file").unwrap();
        // The test may have failed.
        let _ = done.send(());
    });
    told
}

fn assert_held(write: &Receiver<()>) {
    let told = write.recv_timeout(HELD);
    assert_eq!(told, Err(RecvTimeoutError::Timeout), "it is not frozen");
}

fn assert_done(write: &Receiver<()>) {
    write.recv_timeout(PATIENCE).expect("it is thawed");
}

/// Runs `dunlin guard thaw` with these arguments: its status, and what it printed.
fn thaw(socket: &Path, args: &[&str]) -> (Option<i32>, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_dunlin"))
        .args(["guard", "thaw", "--json", "--socket", text(socket)])
        .args(args)
        .output()
        .unwrap();
    let printed = [output.stdout, output.stderr].concat();
    let printed = String::from_utf8_lossy(&printed).into_owned();
    (output.status.code(), printed)
}

#[test]
fn a_source_that_was_left_frozen_thaws_when_the_guard_starts() {
    if !is_root(STILL) || !has_tools(STILL) {
        return;
    }
    let lab = Lab::new();
    let Some((_disk, mount)) = left_frozen(&lab, false) else {
        return;
    };
    let write = write(&mount);
    assert_held(&write);
    let socket = lab.path("guard.sock");
    let _guard = Guard::start(&socket);
    assert_done(&write);
    let (status, printed) = thaw(&socket, &[]);
    assert_eq!(status, Some(5), "{printed}");
}

#[test]
fn a_source_that_is_kept_is_let_go_by_a_person_who_confirms_it() {
    if !is_root(STILL) || !has_tools(STILL) {
        return;
    }
    for has_guard in [true, false] {
        let lab = Lab::new();
        let Some((_disk, mount)) = left_frozen(&lab, true) else {
            return;
        };
        let socket = lab.path("guard.sock");
        let write = write(&mount);
        let guard = has_guard.then(|| Guard::start(&socket));
        let (status, printed) = thaw(&socket, &[]);
        assert_eq!(status, Some(6), "{printed}");
        assert!(printed.contains("guard thaw abab"), "{printed}");
        assert_held(&write);
        let (status, printed) = thaw(&socket, &["abab", "--yes"]);
        assert_eq!(status, Some(0), "{printed}");
        let done: Value = serde_json::from_str(&printed).unwrap();
        assert_eq!(done["was_kept"], true, "{printed}");
        assert_done(&write);
        let (status, printed) = thaw(&socket, &[]);
        assert_eq!(status, Some(5), "{printed}");
        drop(guard);
    }
}
