//! Files that are read, refused and compared.
#![allow(clippy::unwrap_used)]

use super::*;
use crate::api::model::PlanEdit;

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
        ..PlannedMigration::default()
    }
}

fn plan() -> PlanView {
    PlanView {
        base: vec!["abc 1 def".into()],
        servers: vec![server(1, "a"), server(2, "b")],
        migrations: vec![migration(7, "move")],
    }
}

fn file(plan: &PlanView) -> PlanFile {
    parse(&render(plan).unwrap()).unwrap()
}

#[test]
fn what_is_exported_reads_back_and_changes_nothing() {
    let plan = plan();
    let file = file(&plan);
    assert_eq!(file.base, plan.base);
    let read: Vec<_> = file.servers.iter().map(|(_, server)| server).collect();
    assert_eq!(read, plan.servers.iter().collect::<Vec<_>>());
    let nothing = difference(&file, &plan, &plan).unwrap();
    assert_eq!(nothing, Difference::default());
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
    let fault = difference(&parse(text).unwrap(), &plan(), &plan()).unwrap_err();
    assert_eq!(fault.line, 4);
    let text = "[[server]]\nname = \"x\"\nsite = \"b\"\n[[server]]\nname = \"x\"\nsite = \"c\"\n";
    let fault = difference(&parse(text).unwrap(), &plan(), &plan()).unwrap_err();
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
    let found = difference(&edited, &base, &current).unwrap();
    let mut merged = current.servers[0].clone();
    merged.wave = Some("first".into());
    assert_eq!(found.edits, [PlanEdit::ChangeServer(merged.clone())]);
    assert!(found.left_out.is_empty());
    // Applied, it has nothing more to say.
    current.servers[0] = merged;
    assert_eq!(
        difference(&edited, &base, &current).unwrap(),
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
    let found = difference(&edited, &base, &base).unwrap();
    assert_eq!(found.edits, [PlanEdit::CreateServer(new)]);
    let mut current = base.clone();
    current.servers.push(server(9, "new"));
    assert_eq!(
        difference(&edited, &base, &current).unwrap(),
        Difference::default()
    );
    current.servers.push(server(10, "new"));
    let fault = difference(&edited, &base, &current).unwrap_err();
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
    let found = difference(&edited, &base, &current).unwrap();
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
        difference(&edited, &base, &current).unwrap(),
        Difference::default()
    );
    edited.servers[0].1.site = "paris".into();
    let found = difference(&edited, &base, &current).unwrap();
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
    let found = difference(&edited, &base, &base).unwrap();
    assert!(
        matches!(&found.edits[..], [PlanEdit::ChangeMigration(changed)]
        if changed.name == "moved" && changed.replicators.len() == 2)
    );
    for alter in [
        (|migration: &mut PlannedMigration| migration.server = "db".into()) as fn(&mut _),
        |migration| migration.to = "aws".into(),
        |migration| migration.site = Some("eu".into()),
        |migration| migration.disks = vec!["other".into()],
    ] {
        let mut edited = file(&base);
        alter(&mut edited.migrations[0].1);
        assert!(difference(&edited, &base, &base).is_err());
    }
    let mut gone = base.clone();
    gone.migrations.clear();
    assert!(difference(&file(&base), &base, &gone).is_err());
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
        let read = parse(&altered).and_then(|file| difference(&file, &plan(), &plan()));
        if let Err(fault) = read {
            refused += 1;
            assert!((1..=lines).contains(&fault.line), "{fault} in\n{altered}");
        }
    }
    assert!(refused > 1_000, "only {refused} of 4,000 were refused");
}
