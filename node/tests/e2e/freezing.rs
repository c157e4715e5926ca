//! A server whose disks are written to all the time, and frozen for its cutover: what counts
//! is of one moment, and what becomes of the source.
//!
//! Needs root, loop devices and a few programs; says what is missing and does nothing
//! otherwise.

use crate::device::{Load, Loop, Mount, has_tools, run, text};
use crate::guard::{Guard, guarded_mesh};
use crate::harness::{Lab, Mesh, eventually, is_root};
use serde_json::Value;
use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

const TEST: &str = "a cutover that freezes its source";
const DISK_MIB: u64 = 96;

/// How often a source is frozen for each kind of load, and how large it is, where that is to
/// be measured (`cargo xtask bench freeze`).
const ROUNDS: &str = "DUNLIN_FREEZE_ROUNDS";
const SIZE: &str = "DUNLIN_FREEZE_MIB";

/// A disk with a file system that is written to.
struct Live {
    image: PathBuf,
    disk: Loop,
    mount: Mount,
}

impl Live {
    fn new(lab: &Lab, name: &str) -> Option<Self> {
        Self::of(lab, name, DISK_MIB)
    }

    fn of(lab: &Lab, name: &str, mib: u64) -> Option<Self> {
        let image = lab.path(name);
        let file = File::create(&image).unwrap();
        file.set_len(mib << 20).unwrap();
        let disk = Loop::attach(&image, TEST)?;
        run("mkfs.ext4", &["-q", text(&disk.device)]);
        let mount = Mount::new(&disk.device, lab.path(&format!("mnt-{name}")));
        Some(Self { image, disk, mount })
    }
}

/// Writes each number to one disk, and once it is durable there to the other.
struct Counter {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Counter {
    fn start(folders: [PathBuf; 2]) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let told = stop.clone();
        let thread = std::thread::spawn(move || {
            let mut files = folders.map(|folder| File::create(folder.join("count")).unwrap());
            for number in 1_u64.. {
                for file in &mut files {
                    if told.load(Ordering::Relaxed) {
                        return;
                    }
                    file.write_all(&number.to_le_bytes()).unwrap();
                    file.sync_all().unwrap();
                }
            }
        });
        Self {
            stop,
            thread: Some(thread),
        }
    }

    fn is_over(&self) -> bool {
        self.thread.as_ref().is_none_or(JoinHandle::is_finished)
    }

    /// Ends it where it can write.
    fn stop(mut self) {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.take().unwrap().join().unwrap();
    }
}

impl Drop for Counter {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        // It may be held by a disk that is frozen: nobody waits for it then.
    }
}

/// The last number in the counter's file on a copy.
fn counted(lab: &Lab, copy: &Path) -> u64 {
    let disk = Loop::attach(copy, TEST).unwrap();
    let mount = Mount::new(&disk.device, lab.path("copy"));
    let bytes = fs::read(mount.folder.join("count")).unwrap();
    drop(mount);
    fs::remove_dir(lab.path("copy")).unwrap();
    let last = bytes.as_chunks::<8>().0.last().copied().unwrap();
    u64::from_le_bytes(last)
}

fn plan(mesh: &Mesh, disks: &[&Live]) {
    for (number, live) in disks.iter().enumerate() {
        mesh.offer(&live.disk.device, &format!("disk{number}"));
    }
    let create = ["migration", "create", "--server", "agent", "--to", "local"];
    mesh.operator
        .run(&[&create[..], &["--name", "m"]].concat())
        .ok();
    mesh.act("start");
    mesh.until("a first pass of every disk", |view| {
        let volumes = view["volumes"].as_array().unwrap();
        let passed = |volume: &Value| !volume["passes"].as_array().unwrap().is_empty();
        volumes.len() == disks.len() && volumes.iter().all(passed)
    });
}

fn targets(view: &Value) -> Vec<(String, PathBuf)> {
    let volumes = view["volumes"].as_array().unwrap();
    let target = |volume: &Value| {
        let name = volume["name"].as_str().unwrap().to_owned();
        (name, PathBuf::from(volume["target_path"].as_str().unwrap()))
    };
    volumes.iter().map(target).collect()
}

/// A folder of hooks, of which `note` notes its point in the file given with it, and `hangs`
/// takes a minute.
fn hooks(lab: &Lab) -> (PathBuf, PathBuf) {
    let (folder, notes) = (lab.path("hooks"), lab.path("notes"));
    fs::create_dir(&folder).unwrap();
    let note = format!("echo $DUNLIN_POINT >> {}", notes.display());
    for (name, line) in [("note", note.as_str()), ("hangs", "exec sleep 60")] {
        let script = folder.join(name);
        fs::write(&script, format!("#!/bin/sh\n{line}\n")).unwrap();
        fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
    }
    fs::set_permissions(&folder, fs::Permissions::from_mode(0o755)).unwrap();
    (folder, notes)
}

/// A process that writes one file to a folder and syncs it: whether it hangs is known by
/// whether it ended.
fn write_once(folder: &Path) -> Child {
    Command::new("dd")
        .args(["if=/dev/zero", "bs=4k", "count=1", "conv=fsync"])
        .arg(format!("of={}", folder.join("once").display()))
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

fn ended(process: &mut Child, what: &str) {
    eventually(what, || process.try_wait().unwrap());
}

#[test]
fn disks_under_load_are_cut_over_at_one_moment_and_stay_frozen() {
    if !is_root(TEST) || !has_tools(TEST) {
        return;
    }
    let lab = Lab::new();
    let (Some(one), Some(two)) = (Live::new(&lab, "one"), Live::new(&lab, "two")) else {
        return;
    };
    let counter = Counter::start([one.mount.folder.clone(), two.mount.folder.clone()]);
    let _loads = [&one, &two].map(|live| Load::start(&live.mount.folder));
    let guard = Guard::start(&lab.path("guard.sock"));
    let mut mesh = guarded_mesh(&lab, "");
    plan(&mesh, &[&one, &two]);

    mesh.act("cutover");
    let view = mesh.until_stage("cut-over");
    let told = mesh.agent.until_event("cut-over", &["frozen for"]);
    eprintln!("{}", told["text"].as_str().unwrap());
    let mut numbers = vec![];
    for (name, copy) in targets(&view) {
        let live = if name == "disk0" { &one } else { &two };
        assert!(
            fs::read(&live.image).unwrap() == fs::read(&copy).unwrap(),
            "{name}: the frozen disk differs from its copy"
        );
        numbers.push((name, counted(&lab, &copy)));
    }
    numbers.sort_unstable();
    let ahead = numbers[0].1.checked_sub(numbers[1].1);
    assert!(
        ahead.is_some_and(|ahead| ahead <= 1),
        "of two moments: {numbers:?}"
    );
    assert!(!counter.is_over());

    // Whatever becomes of agent and guard, the source stays as it is.
    mesh.agent.kill();
    guard.kill();
    let _guard = Guard::start(&lab.path("guard.sock"));
    mesh.agent.start();
    mesh.connected();
    mesh.until_stage("cut-over");
    let mut held = write_once(&one.mount.folder);
    let socket = lab.path("guard.sock");
    let let_go = |more: &[&str]| {
        let words = ["guard", "thaw", "--socket", text(&socket)];
        Command::new(env!("CARGO_BIN_EXE_dunlin"))
            .args(words)
            .args(more)
            .output()
            .unwrap()
    };
    assert!(!let_go(&[]).status.success(), "what is kept takes a --yes");
    assert!(held.try_wait().unwrap().is_none(), "it is not frozen");
    let done = let_go(&["--yes"]);
    assert!(done.status.success(), "{done:?}");
    ended(&mut held, "the source runs again");
    counter.stop();
    // And its agent says so, once it looks.
    mesh.agent.kill();
    mesh.agent.start();
    mesh.agent.until_event("source-runs-again", &["only one"]);
}

#[test]
fn a_source_whose_services_a_hook_stops_runs_on_after_the_cutover() {
    if !is_root(TEST) || !has_tools(TEST) {
        return;
    }
    let lab = Lab::new();
    let Some(live) = Live::new(&lab, "one") else {
        return;
    };
    let _guard = Guard::start(&lab.path("guard.sock"));
    let (hooks, notes) = hooks(&lab);
    let mesh = guarded_mesh(&lab, &format!("[hooks]\nfolder = {hooks:?}\n"));
    plan(&mesh, &[&live]);
    let cutover = || {
        let words = ["migration", "cutover", "m", "--source", "thaw"];
        mesh.operator.run(&words)
    };
    cutover().fails(6, &["hook", "before-freeze"]);
    for point in ["before-freeze", "after-freeze", "after-thaw"] {
        let add = ["migration", "hook", "add", "m", point, "note"];
        mesh.operator.run(&add).ok();
    }
    cutover().ok();
    mesh.until_stage("cut-over");
    mesh.agent.until_event("thawed", &["cut over and runs on"]);
    ended(&mut write_once(&live.mount.folder), "a write to the source");
    // What was stopped is not started again: its copy serves now.
    assert_eq!(
        fs::read_to_string(&notes).unwrap(),
        "before-freeze\nafter-freeze\n"
    );
}

#[test]
fn a_cutover_that_does_not_come_about_in_time_gives_the_source_back() {
    if !is_root(TEST) || !has_tools(TEST) {
        return;
    }
    let lab = Lab::new();
    let Some(live) = Live::new(&lab, "one") else {
        return;
    };
    let _guard = Guard::start(&lab.path("guard.sock"));
    let (hooks, notes) = hooks(&lab);
    let settings = format!("freeze_secs = 6\n[hooks]\nfolder = {hooks:?}\n");
    let mesh = guarded_mesh(&lab, &settings);
    plan(&mesh, &[&live]);
    for words in [["after-freeze", "hangs"], ["after-thaw", "note"]] {
        let add = ["migration", "hook", "add", "m"];
        mesh.operator.run(&[&add[..], &words].concat()).ok();
    }
    mesh.act("cutover");
    mesh.agent.until_event(
        "cutover-put-off",
        &["after-freeze", "nothing was committed"],
    );
    ended(&mut write_once(&live.mount.folder), "a write to the source");
    eventually("what was stopped is started again", || {
        fs::read_to_string(&notes)
            .ok()
            .filter(|text| text == "after-thaw\n")
    });
    let view = mesh.migration();
    assert_eq!(view["stage"], "cutting-over", "{view:#}");
    // People take it back, and nothing is frozen any more.
    mesh.act("pause");
    mesh.until_stage("paused");
    ended(&mut write_once(&live.mount.folder), "a write to the source");
}

fn setting(name: &str, otherwise: u64) -> u64 {
    let text = std::env::var(name).ok();
    text.map_or(otherwise, |text| text.parse().unwrap())
}

/// How long a source was frozen that was written to at 20 MiB/s.
fn frozen_millis(kind: &str, mib: u64) -> Option<u64> {
    let lab = Lab::new();
    let live = Live::of(&lab, "one", mib)?;
    let size = format!("--size={}m", mib / 2);
    let block = format!("--bs={kind}");
    let _load = Load::with(&live.mount.folder, &[&size, &block, "--rate=20m"]);
    let _guard = Guard::start(&lab.path("guard.sock"));
    let mesh = guarded_mesh(&lab, "");
    plan(&mesh, &[&live]);
    mesh.act("cutover");
    let view = mesh.until_stage("cut-over");
    let told = mesh.agent.until_event("cut-over", &["frozen for"]);
    let copy = &targets(&view)[0].1;
    assert!(
        fs::read(&live.image).unwrap() == fs::read(copy).unwrap(),
        "the frozen disk differs from its copy"
    );
    let words = told["text"].as_str().unwrap().split_whitespace();
    words.rev().find_map(|word| word.parse().ok())
}

#[test]
fn a_source_under_a_heavy_load_is_frozen_for_moments() {
    if !is_root(TEST) || !has_tools(TEST) {
        return;
    }
    let (rounds, mib) = (setting(ROUNDS, 1), setting(SIZE, 256));
    for kind in ["64k", "4k"] {
        for round in 1..=rounds {
            let Some(millis) = frozen_millis(kind, mib) else {
                return;
            };
            eprintln!("round {round}: writes of {kind}, 20 MiB/s: frozen for {millis} ms");
        }
    }
}
