//! Files that are read, refused and compared.
#![allow(clippy::unwrap_used)]

use super::*;
use crate::api::model::{NodeView, PlanEdit, ServerView};
use serde_json::json;

fn server(number: u8, name: &str) -> PlannedServer {
    PlannedServer {
        id: Some(keys::ServerId([number; 16]).to_string()),
        name: name.into(),
        site: "berlin".into(),
        ..PlannedServer::default()
    }
}

fn migration(number: u8, name: &str) -> PlannedMigration {
    PlannedMigration {
        id: Some(keys::MigrationId([number; 16]).to_string()),
        name: name.into(),
        server: "web".into(),
        to: "local".into(),
        replicators: vec!["r1".into()],
        disks: vec!["logs".into(), "data".into()],
        ..PlannedMigration::default()
    }
}

/// Of the server `web`.
fn limit(timetable: &str) -> PlannedLimit {
    PlannedLimit {
        server: Some("web".into()),
        site: None,
        timetable: timetable.into(),
        zone: "UTC".into(),
        polite: false,
    }
}

fn plan() -> PlanView {
    PlanView {
        base: vec!["abc 1 def".into()],
        servers: vec![server(1, "a"), server(2, "b")],
        limits: vec![limit("20MiB/s")],
        migrations: vec![migration(7, "move")],
    }
}

fn file(plan: &PlanView) -> PlanFile {
    parse(&render(plan).unwrap()).unwrap()
}

/// The id of the node `name`.
fn id(name: &str) -> String {
    hex::encode(&blake3::hash(name.as_bytes()).as_bytes()[..32])
}

fn names() -> Names {
    let node = |name: &str| -> NodeView {
        serde_json::from_value(json!({
            "id": id(name), "name": name, "roles": [], "site": null, "scope": null,
            "ends_at": null, "key": "", "peer_id": "", "state": "active",
            "this_node": false, "connected": null, "enrolled_at": "", "reported_at": null,
            "hostname": null, "version": null, "addresses": [], "providers": [],
        }))
        .unwrap()
    };
    let disk = |name: &str| {
        json!({
            "id": id(name), "name": name, "path": "", "length": 0, "kind": "", "model": null,
            "server": "web",
        })
    };
    let server: ServerView = serde_json::from_value(json!({
        "id": id("web"), "name": "web", "hostname": "", "os": "", "kernel": "", "cpus": 0,
        "memory_bytes": 0, "machine": "", "connected": null, "reported_at": "",
        "disks": [disk("data"), disk("logs")],
    }))
    .unwrap();
    Names::of(&["web", "db", "r1", "r2"].map(node), &[server])
}

/// As nodes `web` (a source with the disks `data` and `logs`), `r1` and `r2` know it.
fn compare(file: &PlanFile, base: &PlanView, current: &PlanView) -> Result<Difference, Fault> {
    difference(file, base, current, &names())
}

#[test]
fn what_is_exported_reads_back_and_changes_nothing() {
    let plan = plan();
    let file = file(&plan);
    assert_eq!(file.base, plan.base);
    let read: Vec<_> = file.servers.iter().map(|(_, server)| server).collect();
    assert_eq!(read, plan.servers.iter().collect::<Vec<_>>());
    let nothing = compare(&file, &plan, &plan).unwrap();
    assert_eq!(nothing, Difference::default());
}

#[test]
fn entries_can_be_added_to_the_file_of_an_empty_plan() {
    let text = render(&PlanView::default()).unwrap();
    let added = "[[server]]\nname = \"a\"\nsite = \"b\"\n";
    assert_eq!(parse(&(text + added)).unwrap().servers.len(), 1);
}

#[test]
fn a_wrong_line_is_named_with_its_reason() {
    let cases = [
        ("base = []\n\n[[server]]\nname = \"a\"\n", 3, "site"),
        (
            "[[server]]\nname = \"a\"\nsite = \"b\"\ncolour = \"red\"\n",
            4,
            "colour",
        ),
        ("\nname = \n", 2, ""),
        ("[[migration]]\nname = 7\n", 2, "string"),
    ];
    for (text, line, word) in cases {
        let fault = parse(text).unwrap_err();
        assert_eq!(fault.line, line, "{text}: {fault}");
        assert!(fault.why.contains(word), "{fault}");
    }
    let text = "[[server]]\nname = \"a\"\nsite = \"b\"\n[[server]]\nname = \"\"\nsite = \"b\"\n";
    let fault = compare(&parse(text).unwrap(), &plan(), &plan()).unwrap_err();
    assert_eq!(fault.line, 4);
    let text = "[[server]]\nname = \"x\"\nsite = \"b\"\n[[server]]\nname = \"x\"\nsite = \"c\"\n";
    let fault = compare(&parse(text).unwrap(), &plan(), &plan()).unwrap_err();
    assert_eq!(
        fault.to_string(),
        "line 4: this server is in line 1 already: leave one of them"
    );
}

#[test]
fn only_what_was_edited_is_applied_and_what_others_did_since_stays() {
    let base = plan();
    let mut edited = file(&base);
    edited.servers[0].1.wave = Some("first".into());
    let mut current = base.clone();
    current.servers[0].site = "paris".into();
    current.servers[1].name = "renamed".into();
    current.servers.push(server(3, "c"));
    let found = compare(&edited, &base, &current).unwrap();
    let mut merged = current.servers[0].clone();
    merged.wave = Some("first".into());
    assert_eq!(found.edits, [PlanEdit::ChangeServer(merged.clone())]);
    assert!(found.left_out.is_empty());
    // Applied, it has nothing more to say.
    current.servers[0] = merged;
    assert_eq!(
        compare(&edited, &base, &current).unwrap(),
        Difference::default()
    );
}

#[test]
fn an_entry_without_an_id_is_created_once() {
    let base = plan();
    let mut edited = file(&base);
    let mut new = server(0, "new");
    new.id = None;
    edited.servers.push((99, new.clone()));
    let found = compare(&edited, &base, &base).unwrap();
    assert_eq!(found.edits, [PlanEdit::CreateServer(new)]);
    let mut current = base.clone();
    current.servers.push(server(9, "new"));
    assert_eq!(
        compare(&edited, &base, &current).unwrap(),
        Difference::default()
    );
    current.servers.push(server(10, "new"));
    let fault = compare(&edited, &base, &current).unwrap_err();
    assert_eq!(fault.line, 99);
}

#[test]
fn what_is_not_in_the_file_is_told_and_never_deleted_unasked() {
    let base = plan();
    let mut edited = file(&base);
    edited.servers.remove(0);
    edited.migrations.clear();
    let mut current = base.clone();
    current.servers.push(server(3, "since"));
    let found = compare(&edited, &base, &current).unwrap();
    assert!(found.edits.is_empty());
    assert_eq!(found.left_out, [base.servers[0].clone()]);
    assert_eq!(found.migrations_left_out, 1);
}

#[test]
fn a_server_deleted_since_comes_back_only_if_it_was_edited() {
    let base = plan();
    let mut current = base.clone();
    current.servers.remove(0);
    let mut edited = file(&base);
    assert_eq!(
        compare(&edited, &base, &current).unwrap(),
        Difference::default()
    );
    edited.servers[0].1.site = "paris".into();
    let found = compare(&edited, &base, &current).unwrap();
    assert!(
        matches!(&found.edits[..], [PlanEdit::CreateServer(back)] if back.id == base.servers[0].id)
    );
}

#[test]
fn of_a_migration_name_and_replicators_change_and_nothing_else() {
    let base = plan();
    let mut edited = file(&base);
    edited.migrations[0].1.name = "moved".into();
    edited.migrations[0].1.replicators = vec!["r2".into(), "r1".into()];
    let found = compare(&edited, &base, &base).unwrap();
    assert!(
        matches!(&found.edits[..], [PlanEdit::ChangeMigration(changed)]
        if changed.name == "moved" && changed.replicators.len() == 2)
    );
    for alter in [
        (|migration: &mut PlannedMigration| migration.server = "db".into()) as fn(&mut _),
        |migration| migration.to = "aws".into(),
        |migration| migration.site = Some("eu".into()),
        |migration| migration.disks = vec!["other".into()],
        |migration| migration.disks = vec!["data".into()],
        |migration| migration.provisioner = Some("db".into()),
    ] {
        let mut edited = file(&base);
        alter(&mut edited.migrations[0].1);
        assert!(compare(&edited, &base, &base).is_err());
    }
}

#[test]
fn a_name_and_an_id_of_one_thing_are_equal_and_disks_are_a_set() {
    let mut base = plan();
    base.migrations[0].provisioner = Some("r2".into());
    let mut edited = file(&base);
    let migration = &mut edited.migrations[0].1;
    migration.server = id("web");
    migration.provisioner = Some(id("r2")[..8].into());
    migration.replicators = vec![id("r1")];
    migration.disks = vec![id("data")[..6].into(), "logs".into()];
    let nothing = Difference::default();
    assert_eq!(compare(&edited, &base, &base).unwrap(), nothing);
    // A disk that the file has by its name, and the plan by its id since the source's
    // node was revoked and reports nothing more.
    let mut unknown = base.clone();
    unknown.migrations[0].server = "db".into();
    let written = file(&unknown);
    unknown.migrations[0].disks = vec![id("logs"), id("data")];
    assert_eq!(compare(&written, &unknown, &unknown).unwrap(), nothing);
}

#[test]
fn an_edit_that_leaves_the_replicators_alone_names_none() {
    let base = plan();
    let mut edited = file(&base);
    edited.migrations[0].1.name = "moved".into();
    let found = compare(&edited, &base, &base).unwrap();
    assert!(
        matches!(&found.edits[..], [PlanEdit::ChangeMigration(changed)]
        if changed.name == "moved" && changed.replicators.is_empty()),
        "{found:?}"
    );
}

#[test]
fn a_new_entry_may_take_the_name_that_another_gives_up() {
    let base = plan();
    let mut edited = file(&base);
    edited.servers[0].1.name = "old".into();
    edited.migrations[0].1.name = "old".into();
    let (mut server, mut migration) = (server(1, "a"), migration(7, "move"));
    (server.id, migration.id) = (None, None);
    edited.servers.insert(0, (90, server.clone()));
    edited.migrations.insert(0, (91, migration.clone()));
    let found = compare(&edited, &base, &base).unwrap();
    let (made, renamed): (Vec<_>, Vec<_>) = found.edits.iter().partition(|edit| {
        matches!(
            edit,
            PlanEdit::CreateServer(_) | PlanEdit::CreateMigration(_)
        )
    });
    assert_eq!(
        made,
        [
            &PlanEdit::CreateServer(server),
            &PlanEdit::CreateMigration(migration)
        ]
    );
    assert_eq!(renamed.len(), 2, "{found:?}");
    assert!(
        matches!(found.edits.last(), Some(PlanEdit::CreateMigration(_))),
        "the name has to be free first: {found:?}"
    );
}

#[test]
fn two_lines_that_mean_one_entry_are_refused() {
    let base = plan();
    let mut edited = file(&base);
    let again = edited.servers[0].1.clone();
    edited.servers.push((92, again));
    let fault = compare(&edited, &base, &base).unwrap_err();
    assert_eq!(fault.line, 92);
    // By two names that it had at two times.
    let mut current = base.clone();
    current.servers[0].name = "since".into();
    let mut edited = file(&base);
    edited.servers[0].1.id = None;
    let mut other = edited.servers[0].1.clone();
    other.name = "since".into();
    edited.servers.push((93, other));
    let fault = compare(&edited, &base, &current).unwrap_err();
    assert_eq!(fault.line, 93);
}

#[test]
fn a_migration_deleted_since_is_an_error_only_where_it_was_edited() {
    let base = plan();
    let mut gone = base.clone();
    gone.migrations.clear();
    let nothing = Difference::default();
    assert_eq!(compare(&file(&base), &base, &gone).unwrap(), nothing);
    let mut edited = file(&base);
    edited.migrations[0].1.name = "moved".into();
    let fault = compare(&edited, &base, &gone).unwrap_err();
    assert!(fault.why.contains("any more"), "{fault}");
    // One that is not in the file either is not said to be left out.
    edited.migrations.clear();
    assert_eq!(compare(&edited, &base, &gone).unwrap(), nothing);
}

#[test]
fn of_a_file_without_a_base_nothing_is_left_out() {
    let base = plan();
    let written = parse("[[server]]\nname = \"new\"\nsite = \"b\"\n").unwrap();
    let found = compare(&written, &base, &base).unwrap();
    assert_eq!(found.edits.len(), 1);
    assert_eq!((found.left_out.len(), found.migrations_left_out), (0, 0));
}

#[test]
fn a_file_with_anything_changed_is_read_or_refused_with_a_line_of_it() {
    let text = render(&plan()).unwrap().into_bytes();
    let mut random = 0x9e37_79b9_7f4a_7c15_u64;
    let mut refused = 0;
    for _ in 0..4_000 {
        let mut altered = text.clone();
        for _ in 0..3 {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            let at = (random >> 16) as usize % altered.len();
            match random % 3 {
                0 => altered[at] = b"\"[]=\n#.'0 x\\"[(random >> 8) as usize % 12],
                1 => drop(altered.remove(at)),
                _ => altered.insert(at, altered[(random >> 40) as usize % altered.len()]),
            }
        }
        let altered = String::from_utf8_lossy(&altered);
        let lines = altered.lines().count() + 1;
        let read = parse(&altered).and_then(|file| compare(&file, &plan(), &plan()));
        if let Err(fault) = read {
            refused += 1;
            assert!((1..=lines).contains(&fault.line), "{fault} in\n{altered}");
        }
    }
    assert!(refused > 1_000, "only {refused} of 4,000 were refused");
}

#[test]
fn a_limit_that_was_edited_is_set_and_one_that_was_not_stays_as_others_set_it() {
    let base = plan();
    let mut current = base.clone();
    current.limits = vec![limit("1MiB/s")];
    let unedited = compare(&file(&base), &base, &current).unwrap();
    assert_eq!(unedited, Difference::default());
    current.limits.clear();
    let unedited = compare(&file(&base), &base, &current).unwrap();
    assert_eq!(unedited, Difference::default(), "nor does it come back");

    let mut edited = base.clone();
    let site = PlannedLimit {
        server: None,
        site: Some("hq".into()),
        ..limit("08:00,20MiB/s 18:00,off")
    };
    edited.limits = vec![limit("2MiB/s"), site.clone()];
    let found = compare(&file(&edited), &base, &base).unwrap();
    let set = [limit("2MiB/s"), site.clone()].map(PlanEdit::SetLimit);
    assert_eq!(found.edits, set);
    let applied = PlanView {
        limits: vec![limit("2MiB/s"), site],
        ..base.clone()
    };
    let again = compare(&file(&edited), &base, &applied).unwrap();
    assert_eq!(again, Difference::default());
}

#[test]
fn a_zone_that_is_not_known_here_is_refused_only_where_its_limit_was_edited() {
    let mars = |timetable: &str| PlannedLimit {
        zone: "Mars/Olympus".into(),
        ..limit(timetable)
    };
    let mut base = plan();
    base.limits = vec![mars("20MiB/s")];
    let unedited = compare(&file(&base), &base, &base).unwrap();
    assert_eq!(unedited, Difference::default());
    let mut edited = base.clone();
    edited.limits = vec![mars("1MiB/s")];
    let fault = compare(&file(&edited), &base, &base).unwrap_err();
    assert!(fault.why.contains("time zone"), "{fault}");
}

#[test]
fn a_limit_by_id_and_in_other_words_is_the_same_and_one_left_out_is_left_out() {
    let base = plan();
    let mut other = base.clone();
    other.limits = vec![PlannedLimit {
        server: Some(id("web")),
        timetable: "20480KiB/s".into(),
        zone: "utc".into(),
        ..limit("")
    }];
    assert_eq!(
        compare(&file(&other), &base, &base).unwrap(),
        Difference::default()
    );
    other.limits.push(limit("1MiB/s"));
    let twice = compare(&file(&other), &base, &base).unwrap_err();
    assert!(twice.why.contains("already"), "{twice}");
    other.limits.clear();
    let left = compare(&file(&other), &base, &base).unwrap();
    assert_eq!(left.limits_left_out, [limit("").of()]);
    assert!(left.edits.is_empty());
    // Who wrote it by hand left nothing out.
    other.base.clear();
    let by_hand = compare(&file(&other), &base, &base).unwrap();
    assert!(by_hand.limits_left_out.is_empty());
}

#[test]
fn a_limit_that_is_none_is_named_by_its_line() {
    for (entry, word) in [
        ("server = \"web\"\n", "timetable"),
        ("server = \"web\"\ntimetable = \"20\"\n", "no unit"),
        (
            "server = \"web\"\ntimetable = \"1MiB/s\"\nzone = \"Mars\"\n",
            "time zone",
        ),
    ] {
        let text = format!("[[server]]\nname = \"a\"\nsite = \"b\"\n\n[[limit]]\n{entry}");
        let compared = parse(&text).and_then(|file| compare(&file, &plan(), &plan()));
        let fault = compared.unwrap_err();
        assert_eq!(fault.line, 5, "{fault}");
        assert!(fault.why.contains(word), "{fault}");
    }
}

fn hooked(name: &str, hooks: &[&str]) -> PlannedMigration {
    let hook = |name: &&str| crate::api::model::PlannedHook {
        point: "before-replication".into(),
        name: (*name).to_owned(),
        on: "source".into(),
        timeout_secs: 60,
        on_failure: Some("stop".into()),
        env: [("HOOK_PORT".to_owned(), "5432".to_owned())].into(),
    };
    PlannedMigration {
        hooks: (!hooks.is_empty()).then(|| hooks.iter().map(hook).collect()),
        ..migration(1, name)
    }
}

#[test]
fn hooks_are_edited_in_a_file_and_those_that_others_planned_since_stay() {
    let plan = |hooks: &[&str]| PlanView {
        base: vec!["a 1 b".into()],
        migrations: vec![hooked("shop", hooks)],
        ..PlanView::default()
    };
    let edits = |file: &PlanView, base: &PlanView, current: &PlanView| {
        let file = parse(&render(file).unwrap()).unwrap();
        let found = difference(&file, base, current, &names()).unwrap();
        let mut edits = found.edits.into_iter().map(|edit| match edit {
            PlanEdit::ChangeMigration(changed) => changed.hooks,
            other => panic!("{other:?}"),
        });
        edits.next()
    };
    let (none, one, two) = (plan(&[]), plan(&["a"]), plan(&["a", "b"]));
    assert_eq!(edits(&one, &one, &one), None);
    let wanted = two.migrations[0].hooks.clone();
    assert_eq!(edits(&two, &one, &one), Some(wanted));
    assert_eq!(edits(&one, &one, &two), None, "another planned it since");
    assert_eq!(edits(&two, &one, &two), None, "it is so already");
    assert_eq!(edits(&none, &one, &one), Some(Some(vec![])));
    // A file that was not exported says nothing of hooks where it has none.
    let by_hand = PlanView {
        base: vec![],
        ..plan(&[])
    };
    assert_eq!(edits(&by_hand, &one, &one), None);
}

#[test]
fn what_is_left_out_is_said_when_a_migration_is_new_and_not_changed() {
    let leaving_out = |what: Option<&str>| PlanView {
        base: vec!["a 1 b".into()],
        migrations: vec![PlannedMigration {
            leave_out: what.map(str::to_owned),
            ..hooked("shop", &["a"])
        }],
        ..PlanView::default()
    };
    let (all, swap) = (leaving_out(None), leaving_out(Some("swap")));
    let file = parse(&render(&swap).unwrap()).unwrap();
    assert_eq!(file.migrations[0].1, swap.migrations[0]);
    let same = difference(&file, &swap, &swap, &names()).unwrap();
    assert_eq!(same, Difference::default());
    let refused = difference(&file, &all, &all, &names()).unwrap_err();
    assert!(refused.why.contains("the leave_out of"), "{refused}");
}
