//! Real scripts, run.

#![allow(clippy::unwrap_used)]
mod examples;

use super::*;
use crdt::plan::hook::Side;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::PathBuf;
use std::time::{Duration, Instant};

struct Place {
    dir: tempfile::TempDir,
    folder: Folder,
}

impl Place {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("hooks");
        fs::create_dir(&path).unwrap();
        mode(&path, 0o755);
        Self {
            folder: Folder::of(Some(&path), dir.path()),
            dir,
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn script(&self, name: &str, text: &str) -> PathBuf {
        let path = self.folder.path().join(name);
        fs::write(&path, format!("#!/bin/sh\n{text}\n")).unwrap();
        mode(&path, 0o755);
        path
    }

    fn run(&self, hook: &Hook) -> Ran {
        self.run_with(hook, &Cancel::default())
    }

    fn run_with(&self, hook: &Hook, cancel: &Cancel) -> Ran {
        let hooks = std::slice::from_ref(hook);
        let context = Context::default();
        let outcome = run_all_blocking(&self.folder, hook.point, hooks, &context, cancel, |_| {});
        outcome.done()[0].ran.clone()
    }
}

fn mode(path: &std::path::Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

fn hook(name: &str) -> Hook {
    Hook::new(Point::BeforeReplication, Side::Source, name)
}

/// Of a script that would go on for long.
fn short(name: &str) -> Hook {
    Hook {
        timeout_secs: 1,
        ..hook(name)
    }
}

/// Whether a process is there and not merely not waited for yet.
fn is_running(pid: &str) -> bool {
    fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| {
        let state = stat.rsplit(')').next().unwrap_or_default();
        !state.trim_start().starts_with('Z')
    })
}

fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !is_so() {
        assert!(Instant::now() < deadline, "{what} did not happen");
        std::thread::yield_now();
    }
}

#[test]
fn a_script_ends_with_its_status_and_both_streams_are_kept_in_order() {
    let place = Place::new();
    place.script("good", "echo one; echo two >&2; echo three");
    let ran = place.run(&hook("good"));
    assert_eq!(ran.ended, Ended::Exited(0));
    assert_eq!(ran.output, "one\ntwo\nthree");
    place.script("bad", "echo no room >&2; exit 7");
    let ran = place.run(&hook("bad"));
    assert_eq!(ran.ended, Ended::Exited(7));
    assert_eq!(ran.output, "no room");
    place.script("killed", "kill -9 $$");
    assert_eq!(place.run(&hook("killed")).ended, Ended::Killed(9));
    place.script("asks", "read line || echo nothing to read");
    assert_eq!(place.run(&hook("asks")).output, "nothing to read");
    let path = place.script("no-shell", "");
    fs::write(path, "#!/no/such/shell\n").unwrap();
    let ended = place.run(&hook("no-shell")).ended;
    assert!(
        matches!(&ended, Ended::NotStarted(why) if why.contains("no-shell")),
        "{ended:?}"
    );
}

#[test]
fn a_script_sees_what_it_is_told_and_nothing_else_of_this_process() {
    let place = Place::new();
    place.script("env", "env | sort; pwd; echo \"$DUNLIN_DISKS\" | wc -l");
    let hook = Hook {
        env: vec![("HOOK_ROOM".into(), "a b\"c".into())],
        ..hook("env")
    };
    let context = Context {
        migration: "01ab".into(),
        migration_name: "we\0b".into(),
        server: "web".into(),
        node: "web-node".into(),
        disks: vec!["/dev/a".into(), "/dev/b".into()],
    };
    let none = Cancel::default();
    let hooks = [hook];
    let outcome = run_all_blocking(
        &place.folder,
        hooks[0].point,
        &hooks,
        &context,
        &none,
        |_| {},
    );
    let output = &outcome.done()[0].ran.output;
    let mut names: Vec<&str> = output
        .lines()
        .filter_map(|line| Some(line.split_once('=')?.0))
        .collect();
    // What a shell sets by itself.
    names.retain(|name| !["PWD", "OLDPWD", "SHLVL", "_"].contains(name));
    let told = [
        "DUNLIN_DISKS",
        "DUNLIN_MIGRATION",
        "DUNLIN_MIGRATION_NAME",
        "DUNLIN_NODE",
        "DUNLIN_POINT",
        "DUNLIN_SERVER",
        "HOOK_ROOM",
        "LANG",
        "PATH",
    ];
    assert_eq!(names, told);
    assert!(output.contains("DUNLIN_MIGRATION_NAME=web\n"), "{output}");
    assert!(output.contains("DUNLIN_POINT=before-replication\n"));
    assert!(output.contains("HOOK_ROOM=[redacted]\n"), "{output}");
    assert!(output.ends_with("\n/\n2"), "{output}");
}

#[test]
fn a_script_that_takes_too_long_is_ended_with_what_it_started_even_where_that_ignores_sigterm() {
    let place = Place::new();
    let pid = place.path("pid");
    let text = format!(
        "trap '' TERM\n(trap '' TERM; while :; do sleep 1; done) &\necho $! >{}\necho waiting\nwhile :; do sleep 1; done",
        pid.display()
    );
    place.script("stuck", &text);
    let ran = place.run(&short("stuck"));
    assert_eq!(ran.ended, Ended::TimedOut);
    assert_eq!(ran.output, "waiting");
    assert!(ran.took >= Duration::from_secs(6), "{:?}", ran.took);
    let child = fs::read_to_string(pid).unwrap();
    wait_until("the end of the child", || !is_running(child.trim()));
}

#[test]
fn a_script_that_ends_on_sigterm_is_not_waited_for() {
    let place = Place::new();
    place.script(
        "polite",
        "trap 'echo bye; exit 3' TERM\nwhile :; do sleep 0.05; done",
    );
    let ran = place.run(&short("polite"));
    assert_eq!(ran.ended, Ended::TimedOut);
    assert!(ran.output.ends_with("bye"), "{}", ran.output);
    assert!(ran.took < Duration::from_secs(5), "{:?}", ran.took);
}

#[test]
fn a_script_ends_when_what_it_is_for_is_not_wanted_any_more() {
    let place = Place::new();
    let began = place.path("began");
    place.script(
        "slow",
        &format!("touch {}\nwhile :; do sleep 0.05; done", began.display()),
    );
    place.script("next", "exit 0");
    let cancel = Cancel::default();
    let outcome = std::thread::scope(|scope| {
        let running = scope.spawn(|| {
            let hooks = [hook("slow"), hook("next")];
            let context = Context::default();
            run_all_blocking(
                &place.folder,
                hooks[0].point,
                &hooks,
                &context,
                &cancel,
                |_| {},
            )
        });
        wait_until("the beginning of the script", || began.exists());
        cancel.cancel();
        running.join().unwrap()
    });
    let Outcome::Cancelled(done) = outcome else {
        panic!("it went on: {outcome:?}")
    };
    assert_eq!(done.len(), 1);
    assert_eq!(done[0].ran.ended, Ended::Cancelled);
}

#[tokio::test]
async fn a_script_ends_when_nobody_waits_for_it_any_more() {
    let place = Place::new();
    let pid = place.path("pid");
    place.script(
        "slow",
        &format!("echo $$ >{}\nwhile :; do sleep 0.05; done", pid.display()),
    );
    let running = tokio::spawn(run_all(
        place.folder.clone(),
        Point::BeforeReplication,
        vec![hook("slow")],
        Context::default(),
        Cancel::default(),
        |_| {},
    ));
    let read = || fs::read_to_string(&pid).is_ok_and(|pid| pid.ends_with('\n'));
    tokio::task::spawn_blocking({
        let pid = pid.clone();
        move || {
            wait_until("the beginning of the script", || {
                fs::read_to_string(&pid).is_ok_and(|pid| pid.ends_with('\n'))
            });
        }
    })
    .await
    .unwrap();
    assert!(read());
    running.abort();
    let number = fs::read_to_string(&pid).unwrap();
    let gone = tokio::task::spawn_blocking(move || {
        wait_until("the end of the script", || !is_running(number.trim()));
    });
    gone.await.unwrap();
}

#[test]
fn however_much_a_script_prints_it_goes_on_and_little_is_kept() {
    let place = Place::new();
    place.script(
        "loud",
        "echo first; head -c 30000000 /dev/zero | tr '\\0' '\\n'; echo last",
    );
    let ran = place.run(&hook("loud"));
    assert_eq!(ran.ended, Ended::Exited(0));
    assert!(ran.output.starts_with("first"), "{}", ran.output);
    assert!(ran.output.ends_with("last"));
    assert!(ran.output.contains("bytes left out]"));
    assert!(ran.output.len() <= 2 * output::KEPT + 64);
}

#[test]
fn a_script_that_leaves_something_running_with_its_output_is_over_when_it_ends() {
    let place = Place::new();
    let pid = place.path("pid");
    place.script(
        "leaves",
        &format!("sleep 600 &\necho $! >{}\necho done", pid.display()),
    );
    let ran = place.run(&hook("leaves"));
    assert_eq!(ran.ended, Ended::Exited(0));
    assert_eq!(ran.output, "done");
    assert!(ran.took < Duration::from_secs(10), "{:?}", ran.took);
    let left = fs::read_to_string(pid).unwrap();
    assert!(is_running(left.trim()), "what it meant to leave was ended");
    let left = rustix::process::Pid::from_raw(left.trim().parse().unwrap()).unwrap();
    rustix::process::kill_process(left, rustix::process::Signal::KILL).unwrap();
}

#[test]
fn only_a_file_that_its_owner_alone_can_change_is_run() {
    let place = Place::new();
    let find = |name: &str| place.folder.find(name);
    let path = place.script("hook", "exit 0");
    assert_eq!(find("hook").unwrap().path(), path);
    assert_eq!(find("../hook"), Err(NoScript::Name("../hook".into())));
    let missing = find("gone").unwrap_err();
    assert!(matches!(missing, NoScript::Missing { .. }), "{missing}");

    mode(&path, 0o644);
    assert_eq!(
        find("hook"),
        Err(NoScript::NotExecutable { path: path.clone() })
    );
    for writable in [0o775, 0o757] {
        mode(&path, writable);
        assert_eq!(find("hook"), Err(NoScript::Writable { path: path.clone() }));
    }
    mode(&path, 0o755);
    let elsewhere = place.path("elsewhere");
    fs::copy(&path, &elsewhere).unwrap();
    let link = place.folder.path().join("link");
    symlink(&elsewhere, &link).unwrap();
    assert_eq!(find("link"), Err(NoScript::NotAFile { path: link }));
    let folder = place.folder.path().join("folder");
    fs::create_dir(&folder).unwrap();
    assert_eq!(find("folder"), Err(NoScript::NotAFile { path: folder }));

    mode(place.folder.path(), 0o777);
    let path = place.folder.path().to_owned();
    assert_eq!(find("hook"), Err(NoScript::Writable { path }));
    let nowhere = Folder::of(Some(&place.path("nowhere")), place.dir.path());
    assert!(matches!(
        nowhere.find("hook"),
        Err(NoScript::Missing { .. })
    ));
}

#[test]
fn a_script_of_another_user_is_not_run() {
    let place = Place::new();
    let path = place.script("hook", "exit 0");
    let nobody = 65_534;
    if std::os::unix::fs::chown(&path, Some(nobody), None).is_err() {
        #[allow(clippy::print_stderr)]
        {
            eprintln!("skipped: only root can give a file to another user");
        }
        return;
    }
    let refused = place.folder.find("hook").unwrap_err();
    assert!(
        matches!(refused, NoScript::Owner { owner, .. } if owner == nobody),
        "{refused}"
    );
}

#[test]
fn a_failure_stops_what_follows_or_does_not_as_the_hook_says() {
    let place = Place::new();
    let count = place.path("count");
    place.script("counts", &format!("echo x >>{}", count.display()));
    place.script("fails", "exit 1");
    let goes_on = Hook {
        on_failure: OnFailure::Continue,
        ..hook("fails")
    };
    let elsewhere = Hook::new(Point::AfterThaw, Side::Source, "fails");
    let run = |hooks: &[Hook]| {
        let (context, none) = (Context::default(), Cancel::default());
        run_all_blocking(
            &place.folder,
            Point::BeforeReplication,
            hooks,
            &context,
            &none,
            |_| {},
        )
    };
    let passed = run(&[elsewhere, goes_on.clone(), hook("counts")]);
    let Outcome::Passed(done) = passed else {
        panic!("{passed:?}")
    };
    assert_eq!(done[0].ran.ended, Ended::Exited(1));
    assert_eq!(done.len(), 2);
    let stopped = run(&[hook("counts"), hook("fails"), hook("counts")]);
    let Outcome::Stopped(done) = stopped else {
        panic!("{stopped:?}")
    };
    assert_eq!(done.len(), 2);
    assert_eq!(fs::read_to_string(&count).unwrap().lines().count(), 2);
    // One that is not there is known before another has done anything.
    let stopped = run(&[hook("counts"), hook("gone")]);
    assert!(matches!(&stopped, Outcome::Stopped(done) if done.len() == 1));
    assert_eq!(fs::read_to_string(&count).unwrap().lines().count(), 2);
    let missing = check(&place.folder, &[hook("counts"), hook("gone")]).unwrap_err();
    assert!(missing.to_string().contains("gone"), "{missing}");
}
