//! What the command line takes and what it makes of it.

use clap::{CommandFactory, Parser};

use crate::cli::task::{Act, Events, Here, Read, Task, Verb};
use crate::cli::value::Since;
use crate::cli::{Cli, Globals};

fn parse(line: &str) -> Result<Cli, clap::Error> {
    Cli::try_parse_from(std::iter::once("dunlin").chain(line.split_whitespace()))
}

fn task(line: &str) -> Task {
    parse(line)
        .unwrap_or_else(|error| panic!("`{line}`: {error}"))
        .command
        .into()
}

#[test]
fn the_grammar_is_sound() {
    Cli::command().debug_assert();
}

#[test]
fn every_command_of_the_contract_is_taken() {
    for line in [
        "mesh init",
        "node revoke web --dry-run",
        "mesh init --name acme --role provisioner,replicator --site hq --node-name office",
        "invite create --role agent",
        "invite create --role agent,replicator --name web --site hq --expires 30m --uses 3",
        "invite create --role operator --scope hq,lab --valid-for 90d --root-key f",
        "invite list",
        "invite revoke 0102",
        "invite revoke 0102 --root-key f",
        "mesh init --root-key-out f",
        "mesh recover --root-key f --peer /ip4/192.0.2.7/tcp/1/p2p/x --name n --role provisioner --site hq",
        "join dunlin1abc",
        "join - --name web",
        "run",
        "run --listen /ip4/0.0.0.0/tcp/1 --listen /ip4/0.0.0.0/udp/1/quic-v1 --config f --no-mdns",
        "status",
        "node list",
        "node show office",
        "node revoke web --reason lost",
        "node revoke op --honour-through 7 --honour-edits none --root-key f",
        "node rotate-key",
        "server list",
        "server show web",
        "volume add /dev/vda --name root",
        "volume list",
        "limit set --server web 20MiB/s",
        "limit set --site hq Mon-08:00,100Mbit/s --zone Europe/Berlin",
        "limit set --server web off --polite",
        "limit set --server web --polite off",
        "limit list",
        "limit remove --site hq",
        "migration create --server web --to local",
        "migration create --server web --to local --site s --name n --provisioner p --replicator a --replicator b --disk c --disk d",
        "migration list",
        "migration show m",
        "migration watch m",
        "migration log m",
        "migration start m --wait",
        "migration start m --lease 1h30m --autonomy 0",
        "migration pause m --wait",
        "migration resume m --wait",
        "migration cutover m --wait --prove full",
        "migration delete m --wait",
        "verify m",
        "events --migration m --since 2h --follow",
        "doctor",
        "doctor --to web --seconds 60",
        "demo --keep --size 1GiB --files 10 --seed 4",
        "completions bash",
        "man",
        "man migration create",
    ] {
        parse(line).unwrap_or_else(|error| panic!("`{line}`: {error}"));
        parse(&format!("{line} --json --quiet -vv --data-dir /tmp/d"))
            .unwrap_or_else(|error| panic!("`{line}` with global options: {error}"));
    }
}

#[test]
fn wrong_usage_is_refused_with_status_2() {
    for line in [
        "",
        "unknown",
        "invite create",
        "invite create --role king",
        "invite create --role agent --expires 24",
        "invite create --role agent --uses 0",
        "join",
        "run --listen 0.0.0.0:7430",
        "node show",
        "node list extra",
        "migration create --server web",
        "migration create --to local",
        "migration cutover m --prove some",
        "migration show m --wait",
        "events --since yesterday",
        "demo --size 0",
        "completions cobol",
        "plan export",
        "console",
        "doctor web",
        "doctor --seconds 5",
        "doctor --to web --seconds 0",
        "doctor --to web --seconds 61",
        "run --console 127.0.0.1:1",
        "migration try m",
    ] {
        let error = parse(line).map(|cli| format!("{cli:?}")).unwrap_err();
        assert_eq!(error.exit_code(), 2, "`{line}`");
    }
}

#[test]
fn every_role_of_the_mesh_can_be_named() {
    for role in keys::Role::ALL {
        match task(&format!("invite create --role {role}")) {
            Task::Act(Act::InviteCreate(args)) => assert_eq!(args.role, [role]),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn global_options_may_stand_anywhere() {
    for line in ["--json --data-dir /d status", "status --data-dir /d --json"] {
        let Globals { data_dir, json, .. } = parse(line).unwrap().globals;
        assert_eq!(data_dir.as_deref(), Some("/d".as_ref()));
        assert!(json);
    }
}

#[test]
fn commands_are_sorted_by_what_can_answer_them() {
    for line in [
        "mesh init",
        "join -",
        "run",
        "demo",
        "doctor",
        "man",
        "completions zsh",
    ] {
        assert!(matches!(task(line), Task::Here(_)), "{line}");
    }
    for line in [
        "status",
        "verify m",
        "events",
        "migration log m",
        "volume list",
    ] {
        assert!(matches!(task(line), Task::Read(_)), "{line}");
    }
    for line in [
        "volume add x",
        "migration watch m",
        "events --follow",
        "invite revoke i",
        "doctor --to web",
    ] {
        assert!(matches!(task(line), Task::Act(_)), "{line}");
    }
}

#[test]
fn options_reach_the_task() {
    match task("migration cutover m --prove full --wait") {
        Task::Act(Act::Steer(verb, steer)) => {
            assert_eq!(
                verb,
                Verb::Cutover {
                    prove_full: true,
                    source: None
                }
            );
            assert!(steer.wait);
        }
        other => panic!("{other:?}"),
    }
    match task("migration cutover m") {
        Task::Act(Act::Steer(verb, steer)) => {
            assert_eq!(
                verb,
                Verb::Cutover {
                    prove_full: false,
                    source: None
                }
            );
            assert!(!steer.wait);
        }
        other => panic!("{other:?}"),
    }
    match task("migration cutover m --source power-off") {
        Task::Act(Act::Steer(verb, _)) => {
            let source = Some(crate::cli::End::PowerOff);
            assert_eq!(
                verb,
                Verb::Cutover {
                    prove_full: false,
                    source
                }
            );
        }
        other => panic!("{other:?}"),
    }
    match task("doctor --to web") {
        Task::Act(Act::Measure { to, seconds }) => assert_eq!((to.as_str(), seconds), ("web", 5)),
        other => panic!("{other:?}"),
    }
    let since = Some(Since::At(0));
    match task("events --since 1970-01-01T00:00:00Z --migration m") {
        Task::Read(Read::Events(events)) => {
            assert_eq!(
                events,
                Events {
                    migration: Some("m".into()),
                    since
                }
            );
        }
        other => panic!("{other:?}"),
    }
    match task("demo") {
        Task::Here(Here::Demo(demo)) => {
            assert_eq!((demo.size, demo.files, demo.seed), (256 << 20, 3_000, 1));
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_next_command_names_the_data_folder_that_was_given() {
    let again = |folder: Option<&str>| {
        let globals = Globals {
            data_dir: folder.map(Into::into),
            ..Globals::default()
        };
        globals.again("run")
    };
    assert_eq!(again(None), "dunlin run");
    assert_eq!(again(Some("/srv/a")), "dunlin --data-dir /srv/a run");
    let odd = "dunlin --data-dir '/srv/it'\\''s; here' run";
    assert_eq!(again(Some("/srv/it's; here")), odd);
}

#[test]
fn every_command_and_option_says_what_it_does() {
    fn check(command: &clap::Command) {
        assert!(command.get_about().is_some(), "{}", command.get_name());
        for arg in command.get_arguments() {
            let of = command.get_name();
            assert!(arg.get_help().is_some(), "{of}: {}", arg.get_id());
        }
        command.get_subcommands().for_each(check);
    }
    check(&Cli::command());
}

#[test]
fn a_limit_is_of_one_thing_and_says_a_rate_with_its_unit() {
    for (line, word) in [
        ("limit set 20MiB/s", "--server"),
        (
            "limit set --server web --site hq 20MiB/s",
            "cannot be used with",
        ),
        ("limit set --server web", "TIMETABLE"),
        ("limit set --server web 20", "has no unit that is known"),
        ("limit set --server web 1KiB/s", "at least 64KiB/s"),
        ("limit set --server web -1MiB/s", "`-1MiB/s` is no rate"),
        ("limit set --server web 25:00,20MiB/s", "23:59"),
        ("limit set --server web 20MiB/s --zone Mars", "IANA"),
        ("limit set --site hq off --polite", "cannot be used with"),
        ("limit remove", "--server"),
    ] {
        let refused = parse(line).expect_err(line).to_string();
        assert!(refused.contains(word), "`{line}`: {refused}");
    }
}
