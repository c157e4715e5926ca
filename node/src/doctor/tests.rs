//! What each check says of facts that are as they should be, and of those that are not.
#![allow(clippy::unwrap_used)]

use super::machine::Machine;
use super::*;
use std::fs;
use tempfile::TempDir;

/// 2026-01-31T08:00:00Z.
const NOW_SECS: u64 = 1_769_846_400;

fn member(name: &str, roles: &[&str]) -> NodeView {
    NodeView {
        id: format!("id-of-{name}"),
        name: name.into(),
        roles: roles.iter().map(ToString::to_string).collect(),
        site: None,
        scope: None,
        ends_at: None,
        key: String::new(),
        peer_id: String::new(),
        state: "active".into(),
        revoked: None,
        this_node: false,
        said_revoked: None,
        connected: Some(true),
        enrolled_at: "2026-01-30T08:00:00Z".into(),
        reported_at: Some("2026-01-31T07:59:00Z".into()),
        hostname: None,
        version: None,
        addresses: vec![],
        providers: vec![],
    }
}

/// A node that runs in a mesh of three, all connected.
fn sound(roles: &[&str]) -> Facts {
    let others = vec![member("a", &["agent"]), member("b", &["replicator"])];
    let links = others.iter().map(|other| {
        let address = "/ip4/192.0.2.1/tcp/7430".parse().unwrap();
        (other.id.clone(), vec![address])
    });
    Facts {
        folder: "/nowhere".into(),
        now_secs: NOW_SECS,
        me: member("me", roles),
        mesh_name: "acme".into(),
        live: Some(Live {
            may_write: true,
            listening: vec!["/ip4/192.0.2.7/tcp/7430".into()],
            links: links.collect(),
            ..Live::default()
        }),
        others,
        sources: vec![],
        blockers: vec![],
        copies: vec![],
    }
}

fn stopped(facts: Facts) -> Facts {
    Facts {
        live: None,
        ..facts
    }
}

/// The state of a check of a mesh, and that it says what to do exactly where it is not ok.
fn state(facts: &Facts, check: &str, on: Option<&str>) -> CheckState {
    let mut checks = vec![members::node(facts)];
    checks.extend(members::checks(facts));
    checks.extend(roles::checks(facts));
    for check in &checks {
        assert_eq!(
            check.todo.is_some(),
            check.state != CheckState::Ok,
            "{check:?}"
        );
    }
    let found = checks
        .iter()
        .find(|found| found.check == check && found.on.as_deref() == on);
    found
        .unwrap_or_else(|| panic!("no {check} in {checks:#?}"))
        .state
}

#[test]
fn a_sound_node_is_well() {
    let facts = sound(&["operator"]);
    for check in ["node", "clock", "listening", "links"] {
        assert_eq!(state(&facts, check, None), CheckState::Ok, "{check}");
    }
    for name in ["a", "b"] {
        assert_eq!(state(&facts, "member", Some(name)), CheckState::Ok);
    }
    assert_eq!(state(&stopped(facts), "node", None), CheckState::Warning);
}

#[test]
fn a_node_that_may_do_nothing_fails() {
    for word in ["cloned", "revoked", "lapsed"] {
        let mut facts = sound(&["agent"]);
        facts.me.state = word.into();
        assert_eq!(state(&facts, "node", None), CheckState::Failed);
        let told = members::node(&stopped(facts));
        assert_eq!(told.state, CheckState::Failed, "it does not have to run");
        assert!(told.text.contains(word), "{}", told.text);
    }
    let mut facts = sound(&["agent"]);
    facts.me.said_revoked = Some("boss".into());
    assert_eq!(state(&facts, "node", None), CheckState::Failed);
    let mut facts = sound(&["agent"]);
    facts.live.as_mut().unwrap().may_write = false;
    assert_eq!(state(&facts, "node", None), CheckState::Warning);
}

#[test]
fn a_report_from_the_future_shows_a_clock_that_is_wrong() {
    let mut facts = sound(&["operator"]);
    facts.others[0].reported_at = Some("2026-01-31T08:00:10Z".into());
    assert_eq!(
        state(&facts, "clock", None),
        CheckState::Ok,
        "within what is usual"
    );
    facts.others[0].reported_at = Some("2026-01-31T08:05:00Z".into());
    assert_eq!(state(&facts, "clock", None), CheckState::Warning);
    facts.others[1].reported_at = Some("2026-01-31T09:00:00Z".into());
    assert_eq!(
        state(&facts, "clock", None),
        CheckState::Failed,
        "all of them"
    );
}

#[test]
fn who_is_needed_and_not_connected_weighs_more_than_who_is_not() {
    let mut facts = sound(&["agent"]);
    facts.others[1].connected = Some(false);
    assert_eq!(state(&facts, "member", Some("b")), CheckState::Warning);
    assert_eq!(state(&facts, "links", None), CheckState::Ok);
    let partner = facts.others[1].id.clone();
    facts
        .live
        .as_mut()
        .unwrap()
        .partners
        .insert(partner.clone());
    assert_eq!(
        state(&facts, "member", Some("b")),
        CheckState::Warning,
        "a spare replicator"
    );
    facts.live.as_mut().unwrap().needed.insert(partner);
    assert_eq!(state(&facts, "member", Some("b")), CheckState::Failed);
    facts.others[0].connected = Some(false);
    assert_eq!(state(&facts, "links", None), CheckState::Failed);

    let mut large = sound(&["agent"]);
    large.others = (0..9).map(|n| member(&format!("n{n}"), &[])).collect();
    large.others[0].connected = Some(false);
    assert_eq!(state(&large, "member", Some("n0")), CheckState::Ok);
    let spare = large.others[0].id.clone();
    large.live.as_mut().unwrap().partners.insert(spare);
    assert_eq!(state(&large, "member", Some("n0")), CheckState::Warning);
    // Of a stopped node nobody knows, and nothing is said of it.
    let quiet = members::checks(&stopped(large));
    assert!(quiet.iter().all(|check| check.state == CheckState::Ok));
    assert!(quiet.iter().all(|check| check.check != "links"));
}

#[test]
fn a_node_that_nobody_can_reach_is_told() {
    let mut facts = sound(&["agent"]);
    let live = facts.live.as_mut().unwrap();
    live.listening = vec!["/ip4/127.0.0.1/tcp/1".into(), "/ip6/::1/tcp/1".into()];
    assert_eq!(state(&facts, "listening", None), CheckState::Warning);
    facts.live.as_mut().unwrap().listening.clear();
    assert_eq!(state(&facts, "listening", None), CheckState::Failed);
}

fn disk(folder: &TempDir, name: &str, length: u64) -> Disk {
    let path = folder.path().join(name);
    fs::write(&path, [7; 1000]).unwrap();
    Disk {
        name: name.into(),
        path,
        length,
    }
}

#[test]
fn what_keeps_a_copy_from_its_work_is_a_warning_at_its_agent() {
    let mut facts = sound(&["agent"]);
    facts.blockers = vec![crate::api::model::FindingView {
        level: "blocker".into(),
        subject: "/boot".into(),
        what: "its disk is not offered".into(),
        todo: "offer it".into(),
    }];
    let found = state(&facts, "readiness", Some("/boot"));
    assert_eq!(found, CheckState::Warning);
}

#[test]
fn sources_must_be_there_with_the_length_that_was_offered() {
    let folder = TempDir::new().unwrap();
    let mut facts = sound(&["agent"]);
    assert_eq!(
        state(&facts, "source", None),
        CheckState::Warning,
        "none is offered"
    );
    let gone = Disk {
        path: folder.path().join("gone"),
        ..disk(&folder, "gone", 1000)
    };
    fs::remove_file(&gone.path).unwrap();
    facts.sources = vec![
        disk(&folder, "good", 1000),
        disk(&folder, "grew", 900),
        gone,
    ];
    assert_eq!(state(&facts, "source", Some("good")), CheckState::Ok);
    assert_eq!(state(&facts, "source", Some("grew")), CheckState::Failed);
    assert_eq!(state(&facts, "source", Some("gone")), CheckState::Failed);
    // Only an agent needs them.
    facts.me.roles = vec!["operator".into()];
    assert!(roles::checks(&facts).is_empty());
}

#[test]
fn copies_must_be_writable_and_have_room_to_grow() {
    let folder = TempDir::new().unwrap();
    fs::create_dir(folder.path().join("copies")).unwrap();
    let mut facts = sound(&["replicator"]);
    facts.folder = folder.path().to_owned();
    let gone = disk(&folder, "gone", 1000);
    fs::remove_file(&gone.path).unwrap();
    let large = disk(&folder, "large", u64::MAX / 2);
    facts.copies = vec![disk(&folder, "good", 1000), large, gone];
    assert_eq!(state(&facts, "copies", None), CheckState::Ok);
    assert_eq!(state(&facts, "copy", Some("good")), CheckState::Ok);
    assert_eq!(state(&facts, "copy", Some("large")), CheckState::Warning);
    assert_eq!(state(&facts, "copy", Some("gone")), CheckState::Failed);
    fs::remove_dir(folder.path().join("copies")).unwrap();
    assert_eq!(state(&facts, "copies", None), CheckState::Failed);
}

#[test]
fn a_cloud_folder_must_be_there() {
    let folder = TempDir::new().unwrap();
    let mut facts = sound(&["provisioner"]);
    facts.live.as_mut().unwrap().cloud = Some(folder.path().to_owned());
    assert_eq!(state(&facts, "cloud-folder", None), CheckState::Ok);
    facts.live.as_mut().unwrap().cloud = Some(folder.path().join("absent"));
    assert_eq!(state(&facts, "cloud-folder", None), CheckState::Failed);
}

/// A machine on which nothing is to be done.
fn tuned() -> Machine {
    Machine {
        open_files: Some(1 << 20),
        is_node: true,
        tcp_receive: Some(32 << 20),
        tcp_send: Some(32 << 20),
        sizes_itself: Some(true),
        scales_windows: Some(true),
        has_aes: true,
    }
}

fn of_machine(machine: Machine) -> Vec<(String, CheckState, String)> {
    let checks = machine::checks(&machine);
    let told = checks.into_iter().map(|check| {
        assert_eq!(check.todo.is_some(), check.state != CheckState::Ok);
        let text = format!("{} {}", check.text, check.todo.unwrap_or_default());
        (check.check, check.state, text)
    });
    told.collect()
}

#[test]
fn a_machine_is_told_what_to_set_and_only_where_it_has_to() {
    let tuned_checks = of_machine(tuned());
    assert!(
        tuned_checks
            .iter()
            .all(|(_, state, _)| *state == CheckState::Ok)
    );

    let files = |open_files| {
        of_machine(Machine {
            open_files,
            ..tuned()
        })[0]
            .1
    };
    assert_eq!(files(None), CheckState::Ok);
    assert_eq!(files(Some(4095)), CheckState::Warning);
    assert_eq!(files(Some(4096)), CheckState::Ok);
    assert_eq!(files(Some(100)), CheckState::Failed);
    for open_files in [None, Some(100), Some(4095), Some(4096)] {
        for is_node in [true, false] {
            let machine = Machine {
                open_files,
                is_node,
                ..tuned()
            };
            let (_, _, text) = &of_machine(machine)[0];
            assert_eq!(text.contains("this shell"), !is_node, "{text}");
        }
    }

    let buffers = |machine| of_machine(machine)[1].clone();
    // As Debian has them.
    let usual = buffers(Machine {
        tcp_receive: Some(6 << 20),
        tcp_send: Some(4 << 20),
        ..tuned()
    });
    assert_eq!(usual.1, CheckState::Ok);
    let (_, state, text) = buffers(Machine {
        tcp_receive: Some(1 << 20),
        tcp_send: Some(2 << 20),
        ..tuned()
    });
    assert_eq!(state, CheckState::Warning);
    let words = [
        "reach 335 Mbit/s",
        "net.ipv4.tcp_rmem=",
        "net.ipv4.tcp_wmem=",
    ];
    assert!(words.iter().all(|word| text.contains(word)), "{text}");
    let tcp_send = Some(1 << 20);
    let (_, _, text) = buffers(Machine {
        tcp_send,
        ..tuned()
    });
    assert!(!text.contains("net.ipv4.tcp_rmem="), "{text}");
    let scales_windows = Some(false);
    let (_, _, text) = buffers(Machine {
        scales_windows,
        ..tuned()
    });
    assert!(text.contains("net.ipv4.tcp_window_scaling=1"), "{text}");
    let sizes_itself = Some(false);
    let (_, _, text) = buffers(Machine {
        sizes_itself,
        ..tuned()
    });
    assert!(text.contains("net.ipv4.tcp_moderate_rcvbuf=1"), "{text}");
    let tcp_receive = None;
    assert_eq!(
        buffers(Machine {
            tcp_receive,
            ..tuned()
        })
        .1,
        CheckState::Warning
    );

    let has_aes = false;
    assert_eq!(
        of_machine(Machine { has_aes, ..tuned() })[2].1,
        CheckState::Warning
    );
}

#[test]
fn this_machine_can_be_read() {
    let machine = Machine::read(true);
    assert!(machine.tcp_receive.unwrap() > 0 && machine.tcp_send.unwrap() > 0);
}

#[test]
fn the_worst_check_is_the_state_of_all_and_an_error_is_told_whole() {
    let folder = TempDir::new().unwrap();
    let error = "the stored state is damaged: the file: no magic; restore it";
    let view = examine_without_state(&folder.path().join("none"), error, false);
    assert_eq!(view.state, CheckState::Failed);
    assert!(!view.running && view.node.is_none());
    assert_eq!(view.checks[0].text, error);
    let todo = view.checks[0].todo.as_deref().unwrap();
    assert!(
        todo.starts_with("do what this says"),
        "a cause is no advice: {todo}"
    );
    // Of a folder that is not there nothing is said, and the machine is looked at all the same.
    let names: Vec<&str> = view
        .checks
        .iter()
        .map(|check| check.check.as_str())
        .collect();
    assert_eq!(names, ["node", "open-files", "socket-buffers", "aes"]);
}
