//! The examples of the guide, run with values that a plan should not have.
//!
//! The programs they call are stubs that write down their arguments.

use super::*;
use std::process::{Command, Output};

/// Says how it was called, an argument a line.
const STUB: &str =
    "for word in \"${0##*/}\" \"$@\"; do printf '%s\\n' \"$word\"; done >>\"$CALLS\"";

struct Stubs {
    dir: tempfile::TempDir,
}

impl Stubs {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let stub = |name: &str| {
            let path = dir.path().join(name);
            // Only asking whether a unit is active is to fail: it was stopped.
            let text = format!("#!/bin/sh\n{STUB}\n[ \"$1\" = is-active ] && exit 3\nexit 0\n");
            fs::write(&path, text).unwrap();
            mode(&path, 0o755);
        };
        for name in ["curl", "mysql", "sleep", "sync", "systemctl"] {
            stub(name);
        }
        Self { dir }
    }

    /// Runs an example, and says what it called.
    fn run(&self, example: &str, name: &str, value: &str) -> (Output, Vec<String>) {
        let calls = self.dir.path().join("calls");
        fs::write(&calls, "").unwrap();
        let run = Command::new("/bin/sh")
            .arg(examples().join(example))
            .env_clear()
            .env(
                "PATH",
                format!("{}:/usr/bin:/bin", self.dir.path().display()),
            )
            .env("CALLS", &calls)
            .env(name, value)
            .output()
            .unwrap();
        let calls = fs::read_to_string(calls).unwrap();
        (run, calls.lines().map(str::to_owned).collect())
    }
}

fn examples() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../docs/hooks")
}

#[test]
fn the_examples_of_the_guide_can_be_named_and_are_scripts_that_a_shell_can_read() {
    let mut seen = 0;
    for example in fs::read_dir(examples()).unwrap() {
        let path = example.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap();
        assert!(crdt::plan::hook::is_hook_name(name), "{name}");
        assert_ne!(fs::metadata(&path).unwrap().permissions().mode() & 0o111, 0);
        let read = Command::new("sh").arg("-n").arg(&path).status();
        assert!(read.unwrap().success(), "{name}");
        seen += 1;
    }
    assert_eq!(seen, 3);
}

#[test]
fn the_example_that_asks_for_a_page_asks_for_nothing_else() {
    let stubs = Stubs::new();
    let hostile = [
        "-K/tmp/options",
        "--config=/tmp/options",
        "file:///etc/shadow",
        "ftp://127.0.0.1/",
        " http://127.0.0.1/",
    ];
    for value in hostile {
        let (run, calls) = stubs.run("check-http", "HOOK_URL", value);
        assert_eq!(run.status.code(), Some(2), "{value}");
        assert_eq!(calls, [""; 0], "{value}");
    }
    for value in ["http://127.0.0.1/health", "http://h/ --output /etc/passwd"] {
        let (run, calls) = stubs.run("check-http", "HOOK_URL", value);
        assert!(run.status.success(), "{run:?}");
        assert_eq!(calls[..4], ["curl", "--proto", "=http,https", "--globoff"]);
        assert_eq!(calls[calls.len() - 2..], ["--", value]);
    }
}

#[test]
fn the_example_that_stops_postgresql_stops_nothing_else() {
    let stubs = Stubs::new();
    let hostile = [
        "--root=/tmp/elsewhere",
        "-Hattacker@example.org",
        "sshd.service",
        "postgresql*",
        "postgresql-[a-z]*",
        "postgresqlx.service",
        "postgresql.service sshd.service",
        "postgresql.service\nsshd.service",
        "../postgresql.service",
    ];
    for value in hostile {
        let (run, calls) = stubs.run("stop-postgresql", "HOOK_UNIT", value);
        assert_eq!(run.status.code(), Some(2), "{value}");
        assert_eq!(calls, [""; 0], "{value}");
    }
    for value in ["postgresql@15-main", "postgresql-15.service", "postgresql"] {
        let (run, calls) = stubs.run("stop-postgresql", "HOOK_UNIT", value);
        assert!(run.status.success(), "{run:?}");
        assert_eq!(calls[..4], ["systemctl", "stop", "--", value]);
        assert_eq!(
            calls[4..],
            ["systemctl", "is-active", "--quiet", "--", value, "sync"]
        );
    }
}

#[test]
fn the_example_that_flushes_mysql_reads_no_options_that_the_plan_chose() {
    let stubs = Stubs::new();
    let (run, calls) = stubs.run("flush-mysql", "HOOK_DEFAULTS", "/tmp/options");
    assert!(run.status.success(), "{run:?}");
    assert_eq!(calls[..2], ["mysql", "--defaults-extra-file=/root/.my.cnf"]);
    assert!(!calls.concat().contains("/tmp/options"), "{calls:?}");
}
