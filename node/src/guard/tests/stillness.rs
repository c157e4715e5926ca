//! Disks that a guard makes still: file systems on loop devices, as root.

use std::io::{BufRead, BufReader, Write};
use std::process::Stdio;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};

use super::*;
use crate::cli::outcome::CommandError;
use crate::stillness::NotStill;

const MIGRATION: MigrationId = MigrationId([0xab; 16]);
const OTHER: MigrationId = MigrationId([0xcd; 16]);

/// How long a condition is waited for.
const PATIENCE: Duration = Duration::from_secs(120);

/// A write that takes as long as this waits for something.
const HELD: Duration = Duration::from_millis(300);

/// Long after any of these tests.
const LATE: Duration = Duration::from_secs(600);

/// A deadline that is waited for.
const SOON: Duration = Duration::from_secs(4);

/// A mounted file system; thawed and unmounted when dropped.
struct Volume {
    at: PathBuf,
    device: Loop,
}

impl Volume {
    fn new(folder: &Path, name: &str) -> Option<Self> {
        let device = Loop::new()?;
        tool("mkfs.ext4", &[Path::new("-q"), &device.path])?;
        let at = folder.join(name);
        fs::create_dir(&at).unwrap();
        tool("mount", &[&device.path, &at])?;
        Some(Self { at, device })
    }

    fn disk(&self) -> SourceDisk {
        SourceDisk::try_from(&self.device.volume()).unwrap()
    }

    /// Begins to write a file and says when that is durable.
    fn write(&self, name: &str) -> Receiver<()> {
        let (done, told) = channel();
        let path = self.at.join(name);
        thread::spawn(move || {
            let mut file = File::create(path).unwrap();
            file.write_all(&[7; 5000]).unwrap();
            file.sync_all().unwrap();
            // Or it could not be unmounted yet.
            drop(file);
            // The test may have failed.
            let _ = done.send(());
        });
        told
    }
}

impl Drop for Volume {
    fn drop(&mut self) {
        // It is, in tests that fail.
        let _ = Command::new("fsfreeze").arg("-u").arg(&self.at).output();
        let unmounted = Command::new("umount").arg(&self.at).output();
        if !unmounted.is_ok_and(|output| output.status.success()) {
            let _ = Command::new("umount").arg("-l").arg(&self.at).output();
        }
    }
}

/// Runs a program; a word on stderr where it is missing or refuses, and the test is skipped.
fn tool(program: &str, arguments: &[&Path]) -> Option<()> {
    match Command::new(program).args(arguments).output() {
        Ok(output) if output.status.success() => Some(()),
        failed => {
            eprintln!("skipped: {program} does not work here: {failed:?}");
            None
        }
    }
}

fn assert_held(write: &Receiver<()>) {
    let told = write.recv_timeout(HELD);
    assert_eq!(told, Err(RecvTimeoutError::Timeout), "it is not frozen");
}

fn assert_done(write: &Receiver<()>) {
    write.recv_timeout(PATIENCE).expect("it is thawed");
}

/// A machine that counts how often it would have been powered off.
fn machine() -> (Host, Arc<AtomicUsize>) {
    let ends = Arc::new(AtomicUsize::new(0));
    let counted = ends.clone();
    let host = Host {
        lock_memory: Box::new(|| Ok(())),
        power_off: Box::new(move || {
            counted.fetch_add(1, Ordering::SeqCst);
            Ok(())
        }),
    };
    (host, ends)
}

fn refused<T: std::fmt::Debug>(asked: Result<T, NotStill>) -> String {
    match asked {
        Err(NotStill::Refused { why }) => why,
        other => panic!("not refused: {other:?}"),
    }
}

fn prepare_and_freeze(
    guard: &dyn Freezer,
    migration: MigrationId,
    (disks, deadline): (&[SourceDisk], Duration),
) -> Frozen {
    guard.prepare(migration, disks).unwrap();
    guard.sync(migration).unwrap();
    guard.freeze(migration, deadline).unwrap()
}

#[test]
fn who_writes_waits_from_freezing_to_thawing() {
    let folder = tempfile::tempdir().unwrap();
    let Some(volume) = Volume::new(folder.path(), "at") else {
        return;
    };
    let agent = freezer(guard(folder.path()));
    assert!(refused(agent.sync(MIGRATION)).contains("nothing is prepared"));
    assert!(refused(agent.freeze(MIGRATION, LATE)).contains("nothing is prepared"));
    let nothing = agent.thaw(MIGRATION).unwrap();
    assert_eq!(nothing.by, ThawedBy::Nobody);
    let prepared = agent.prepare(MIGRATION, &[volume.disk()]).unwrap();
    let found = &prepared.file_systems[..];
    assert!(
        matches!(found, [one] if one.kind == "ext4" && one.at == volume.at && one.can_freeze),
        "{found:?}"
    );
    assert_eq!(prepared.unreached, Vec::<String>::new());
    assert_done(&volume.write("before"));
    agent.sync(MIGRATION).unwrap();
    assert_eq!(agent.stillness(MIGRATION), Ok(Stillness::Running));
    let frozen = agent.freeze(MIGRATION, LATE).unwrap();
    assert_eq!(frozen.unfrozen, vec![]);
    let write = volume.write("while");
    assert_held(&write);
    match agent.stillness(MIGRATION).unwrap() {
        Stillness::Frozen { left } => assert!(left > LATE / 2 && left <= LATE),
        other => panic!("{other:?}"),
    }
    // An agent that was started again, and knows nothing of it.
    let again = agent.prepare(MIGRATION, &[volume.disk()]);
    assert!(refused(again).contains("still already"));
    assert!(refused(agent.freeze(MIGRATION, LATE)).contains("still already"));
    let thawed = agent.thaw(MIGRATION).unwrap();
    assert_eq!(thawed.by, ThawedBy::Asked);
    assert!(thawed.frozen_for >= HELD);
    assert_done(&write);
    assert_eq!(agent.thaw(MIGRATION), Ok(thawed), "it is told again");
    assert_eq!(agent.stillness(MIGRATION), Ok(Stillness::Running));
    assert!(refused(agent.keep(MIGRATION)).contains("not frozen"));
    // And once more.
    prepare_and_freeze(&agent, MIGRATION, (&[volume.disk()], LATE));
    agent.thaw(MIGRATION).unwrap();
    assert_done(&volume.write("after"));
}

#[test]
fn at_the_deadline_the_disks_are_thawed_though_nobody_is_connected() {
    let folder = tempfile::tempdir().unwrap();
    let Some(volume) = Volume::new(folder.path(), "at") else {
        return;
    };
    let socket = guard(folder.path());
    // Each question has a connection of its own, which is closed with its answer.
    let agent = freezer(socket.clone());
    prepare_and_freeze(&agent, MIGRATION, (&[volume.disk()], SOON));
    drop(agent);
    let write = volume.write("while");
    assert_held(&write);
    assert_done(&write);
    let agent = freezer(socket);
    assert_eq!(agent.stillness(MIGRATION), Ok(Stillness::Running));
    let late = refused(agent.keep(MIGRATION));
    assert!(late.contains("thawed at their deadline"), "{late}");
    let thawed = agent.thaw(MIGRATION).unwrap();
    assert_eq!(thawed.by, ThawedBy::Deadline);
    assert!(thawed.frozen_for >= SOON);
    let noted = notes_of(&folder.path().join("guard.sock"));
    assert_eq!(left::left_in(&noted).unwrap(), vec![]);
}

#[test]
fn each_migration_has_its_own_disks_and_time_and_none_holds_what_another_has() {
    let folder = tempfile::tempdir().unwrap();
    let made = ["one", "two"].map(|name| Volume::new(folder.path(), name));
    let [Some(one), Some(two)] = made else {
        return;
    };
    let agent = freezer(guard(folder.path()));
    prepare_and_freeze(&agent, MIGRATION, (&[one.disk()], LATE));
    prepare_and_freeze(&agent, OTHER, (&[two.disk()], LATE));
    let writes = [&one, &two].map(|volume| volume.write("while"));
    writes.iter().for_each(assert_held);
    agent.thaw(MIGRATION).unwrap();
    assert_done(&writes[0]);
    assert_held(&writes[1]);
    // One of them is still for the other migration.
    let shared = agent.prepare(MIGRATION, &[one.disk(), two.disk()]);
    assert!(refused(shared).contains(&OTHER.to_string()));
    agent.thaw(OTHER).unwrap();
    assert_done(&writes[1]);
    // Both were prepared before either was frozen.
    agent.prepare(MIGRATION, &[one.disk(), two.disk()]).unwrap();
    prepare_and_freeze(&agent, OTHER, (&[two.disk()], LATE));
    assert!(refused(agent.freeze(MIGRATION, LATE)).contains(&OTHER.to_string()));
    assert_done(&one.write("after"));
    agent.thaw(OTHER).unwrap();
    agent.freeze(MIGRATION, LATE).unwrap();
    agent.thaw(MIGRATION).unwrap();
}

#[test]
fn what_is_kept_stays_frozen_for_guards_to_come_and_only_a_person_lets_it_go() {
    let folder = tempfile::tempdir().unwrap();
    let Some(volume) = Volume::new(folder.path(), "at") else {
        return;
    };
    let notes = folder.path().join("frozen");
    let (host, ends) = machine();
    let first = Stills::open(notes.clone(), host).unwrap();
    prepare_and_freeze(&first, MIGRATION, (&[volume.disk()], SOON));
    let early = refused(first.power_off(MIGRATION));
    assert!(early.contains("do not stay frozen"), "{early}");
    first.keep(MIGRATION).unwrap();
    first.keep(MIGRATION).unwrap();
    let mode = fs::metadata(&notes).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o700);
    // Past its deadline, too.
    let write = volume.write("while");
    let told = write.recv_timeout(SOON + HELD);
    assert_eq!(told, Err(RecvTimeoutError::Timeout), "it is not kept");
    assert_eq!(first.stillness(MIGRATION), Ok(Stillness::Kept));
    first.look();
    first.end();
    drop(first);
    assert_held(&write);

    let (host, _) = machine();
    let second = Stills::open(notes.clone(), host).unwrap();
    assert_eq!(second.stillness(MIGRATION), Ok(Stillness::Kept));
    second.keep(MIGRATION).unwrap();
    let kept = refused(second.thaw(MIGRATION));
    assert!(kept.contains("the copy may run"), "{kept}");
    let shared = second.prepare(OTHER, &[volume.disk()]);
    assert!(refused(shared).contains(&MIGRATION.to_string()));
    let again = second.prepare(MIGRATION, &[volume.disk()]);
    assert!(refused(again).contains("still already"));
    assert_eq!(ends.load(Ordering::SeqCst), 0);
    assert_held(&write);
    let thawed = second.release(MIGRATION).unwrap();
    assert_eq!(thawed.by, ThawedBy::Asked);
    assert_done(&write);
    assert_eq!(second.stillness(MIGRATION), Ok(Stillness::Running));
    assert_eq!(left::left_in(&notes).unwrap(), vec![]);
}

#[test]
fn a_machine_is_powered_off_only_where_its_disks_are_kept_and_its_owner_allows_it() {
    let folder = tempfile::tempdir().unwrap();
    let Some(volume) = Volume::new(folder.path(), "at") else {
        return;
    };
    let notes = folder.path().join("frozen");
    let (host, ends) = machine();
    let stills = Stills::open(notes.clone(), host).unwrap();
    refused(stills.power_off(MIGRATION));
    prepare_and_freeze(&stills, MIGRATION, (&[volume.disk()], LATE));
    refused(stills.power_off(MIGRATION));
    stills.keep(MIGRATION).unwrap();
    refused(stills.power_off(OTHER));
    assert_eq!(ends.load(Ordering::SeqCst), 0);
    stills.power_off(MIGRATION).unwrap();
    assert_eq!(ends.load(Ordering::SeqCst), 1);
    drop(stills);
    let stills = Stills::open(notes, Host::real(false)).unwrap();
    let forbidden = refused(stills.power_off(MIGRATION));
    assert!(forbidden.contains("--no-power-off"), "{forbidden}");
    stills.release(MIGRATION).unwrap();
}

#[test]
fn a_guard_that_is_stopped_thaws_what_is_not_kept_and_freezes_nothing_more() {
    let folder = tempfile::tempdir().unwrap();
    let made = ["one", "two"].map(|name| Volume::new(folder.path(), name));
    let [Some(one), Some(two)] = made else {
        return;
    };
    let (host, _) = machine();
    let stills = Stills::open(folder.path().join("frozen"), host).unwrap();
    prepare_and_freeze(&stills, MIGRATION, (&[one.disk()], LATE));
    stills.prepare(OTHER, &[two.disk()]).unwrap();
    let write = one.write("while");
    assert_held(&write);
    stills.end();
    assert_done(&write);
    assert!(refused(stills.prepare(OTHER, &[two.disk()])).contains("being stopped"));
    assert_done(&two.write("after"));
}

#[test]
fn another_device_under_a_path_is_not_frozen() {
    let folder = tempfile::tempdir().unwrap();
    let Some(volume) = Volume::new(folder.path(), "at") else {
        return;
    };
    let agent = freezer(guard(folder.path()));
    let is = volume.disk();
    let number = SourceDisk {
        device: is.device + 1,
        ..is.clone()
    };
    let length = SourceDisk {
        length: is.length + 512,
        ..is
    };
    for other in [number, length] {
        let why = refused(agent.prepare(MIGRATION, &[other]));
        assert!(why.contains("is another device for the guard"), "{why}");
    }
    assert!(refused(agent.prepare(MIGRATION, &[])).contains("0 disks"));
    assert!(refused(agent.freeze(MIGRATION, LATE)).contains("nothing is prepared"));
}

#[test]
fn a_person_lets_go_of_what_is_kept_with_a_guard_and_without() {
    let folder = tempfile::tempdir().unwrap();
    let Some(volume) = Volume::new(folder.path(), "at") else {
        return;
    };
    let text = |failed: Result<release::Released, CommandError>| {
        let failed = failed.unwrap_err();
        (failed.exit_status(), failed.to_string())
    };
    for has_guard in [true, false] {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("guard.sock");
        let (status, nothing) = text(let_go(&socket, None, false));
        assert!(status == 5 && nothing.contains("no disks"), "{nothing}");
        match has_guard {
            true => {
                let agent = freezer(guard(folder.path()));
                prepare_and_freeze(&agent, MIGRATION, (&[volume.disk()], LATE));
                agent.keep(MIGRATION).unwrap();
            }
            false => {
                let stills = stills(&socket, machine().0).unwrap();
                prepare_and_freeze(&*stills, MIGRATION, (&[volume.disk()], LATE));
                stills.keep(MIGRATION).unwrap();
            }
        }
        let write = volume.write("while");
        assert_held(&write);
        let (status, other) = text(let_go(&socket, Some("cd"), true));
        assert!(status == 5 && other.contains("begins with `cd`"), "{other}");
        let (status, why) = text(let_go(&socket, Some("AB"), false));
        assert!(status == 6 && why.contains("--yes"), "{why}");
        assert_held(&write);
        let done = let_go(&socket, None, true).unwrap();
        assert!(done.was_kept && done.migration == MIGRATION.to_string());
        assert_done(&write);
    }
}

/// A guard in a process of its own, which is killed when dropped.
struct Process(std::process::Child);

impl Process {
    fn start(folder: &Path) -> Self {
        let child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "--nocapture", CHILD])
            .env(FOLDER, folder)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn();
        let mut child = child.unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        assert!(lines.map_while(Result::ok).any(|line| line == "ready"));
        Self(child)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

const CHILD: &str = "guard::tests::stillness::a_guard_that_is_to_be_killed";
const FOLDER: &str = "DUNLIN_TEST_GUARD";

/// What the next test runs, to kill it.
#[test]
fn a_guard_that_is_to_be_killed() {
    let Some(folder) = std::env::var_os(FOLDER) else {
        eprintln!("skipped: it runs only where the environment says so");
        return;
    };
    let socket = Path::new(&folder).join("guard.sock");
    let stills = stills(&socket, Host::real(false)).unwrap();
    let listener = listen(&socket).unwrap();
    thread::spawn(move || serve(&listener, &stills, None));
    std::io::stdout().write_all(b"\nready\n").unwrap();
    // The test kills us, or has ended.
    std::io::stdin().lines().for_each(drop);
}

#[test]
fn a_guard_that_is_killed_leaves_what_the_next_thaws_or_knows_to_be_kept() {
    let folder = tempfile::tempdir().unwrap();
    let made = ["one", "two"].map(|name| Volume::new(folder.path(), name));
    let [Some(one), Some(two)] = made else {
        return;
    };
    let agent = freezer(folder.path().join("guard.sock"));
    let first = Process::start(folder.path());
    prepare_and_freeze(&agent, MIGRATION, (&[one.disk()], LATE));
    prepare_and_freeze(&agent, OTHER, (&[two.disk()], LATE));
    agent.keep(OTHER).unwrap();
    let writes = [&one, &two].map(|volume| volume.write("while"));
    writes.iter().for_each(assert_held);
    drop(first);
    writes.iter().for_each(assert_held);
    let gone = agent.stillness(MIGRATION);
    assert!(matches!(gone, Err(NotStill::NoGuard { .. })), "{gone:?}");

    let second = Process::start(folder.path());
    assert_done(&writes[0]);
    assert_eq!(agent.stillness(MIGRATION), Ok(Stillness::Running));
    assert_eq!(agent.thaw(MIGRATION).unwrap().by, ThawedBy::Guard);
    assert_eq!(agent.stillness(OTHER), Ok(Stillness::Kept));
    agent.keep(OTHER).unwrap();
    assert!(refused(agent.sync(MIGRATION)).contains("the guard was started again"));
    assert_held(&writes[1]);
    // It is killed once more, and a person comes when no guard runs.
    drop(second);
    let socket = folder.path().join("guard.sock");
    let why = let_go(&socket, None, false).unwrap_err().to_string();
    assert!(why.contains("--yes"), "{why}");
    assert_held(&writes[1]);
    assert!(let_go(&socket, None, true).unwrap().was_kept);
    assert_done(&writes[1]);
}

#[test]
fn no_guard_and_one_that_goes_away_are_told_apart() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("guard.sock");
    let agent = freezer(socket.clone());
    match agent.keep(MIGRATION) {
        Err(NotStill::NoGuard { why }) => assert!(why.contains("run `dunlin guard`"), "{why}"),
        other => panic!("{other:?}"),
    }
    let listener = UnixListener::bind(&socket).unwrap();
    thread::spawn(move || {
        while let Ok((stream, _)) = listener.accept() {
            let mut line = Line::new(stream);
            let _asked: Option<Ask> = line.hear().unwrap();
        }
    });
    match agent.keep(MIGRATION) {
        Err(NotStill::Lost { why }) => assert!(why.contains("start `dunlin guard`"), "{why}"),
        other => panic!("{other:?}"),
    }
}
