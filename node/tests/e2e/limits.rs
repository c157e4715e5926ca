//! Limits of how fast is sent: set, shown, removed, and carried by the plan's file.
//!
//! Not here: hours, shares and the exact pace, which have tests of their own.

use crate::harness::{Lab, Node, eventually};
use serde_json::Value;
use std::fs;

/// An operator, and the agent `web` at the site `berlin`, both running.
fn mesh(lab: &Lab) -> (Node, Node) {
    let mut operator = lab.founder("operator");
    operator.start();
    let mut web = lab.node("web");
    let invite = operator.invite(&["--role", "agent", "--site", "berlin"]);
    web.join(&invite).ok();
    web.start();
    eventually("the agent has reported", || {
        let shown = operator.run(&["server", "list"]).ok();
        (shown.as_array()?.len() == 1).then_some(())
    });
    (operator, web)
}

fn limits(node: &Node) -> Vec<Value> {
    let listed = node.run(&["limit", "list"]).ok();
    listed.as_array().unwrap().clone()
}

#[test]
fn limits_are_set_listed_shown_where_they_hold_and_removed() {
    let lab = Lab::new();
    let (operator, web) = mesh(&lab);
    assert!(limits(&operator).is_empty());
    let set = ["limit", "set", "--server", "web", "08:00,20MiB/s 18:00,off"];
    let set = operator.run(&[&set[..], &["--zone", "europe/berlin", "--polite"]].concat());
    let set = set.ok();
    assert_eq!(set["server"], "web");
    assert_eq!(set["zone"], "Europe/Berlin");
    assert_eq!(set["polite"], true);
    assert!(set["until"].is_string(), "{set:#}");
    let site = ["limit", "set", "--site", "berlin", "100Mbit/s"];
    let site = operator.run(&site).ok();
    assert_eq!(site["now_bytes_per_sec"], 12_500_000);
    assert!(
        site["zone"].is_string() && site["until"].is_null(),
        "{site:#}"
    );
    assert_eq!(limits(&operator), [set.clone(), site.clone()]);

    // The agent hears of them, and tells what holds.
    web.until_event(
        "limit",
        &["all servers of site berlin", "100Mbit/s", "gives way"],
    );
    assert_eq!(limits(&web).len(), 2);
    let shown = operator.run(&["server", "show", "web"]).ok();
    assert_eq!(shown["limits"], Value::Array(vec![set, site]));

    let removed = operator.run(&["limit", "remove", "--site", "berlin"]).ok();
    assert_eq!(removed["site"], "berlin");
    operator
        .run(&["limit", "set", "--server", "web", "off"])
        .ok();
    web.until_event("limit", &["no limit holds"]);
    operator.run(&["limit", "remove", "--server", "web"]).ok();
    assert!(limits(&operator).is_empty());
}

#[test]
fn a_limit_that_is_wrong_or_of_nothing_is_refused_and_only_operators_set_one() {
    let lab = Lab::new();
    let (operator, web) = mesh(&lab);
    let set = |of: &str, name: &str, timetable: &str| {
        operator.run(&["limit", "set", of, name, timetable])
    };
    set("--server", "nope", "20MiB/s").fails(5, &["nope"]);
    set("--site", "nope", "20MiB/s").fails(5, &["site `nope`"]);
    set("--server", "operator", "20MiB/s").fails(2, &["not enrolled as agent"]);
    set("--server", "web", "20").fails(2, &["unit"]);
    set("--server", "web", "63KiB/s").fails(2, &["at least 64KiB/s"]);
    set("--server", "web", "08:00,1MiB/s 8:00,off").fails(2, &["two entries"]);
    let polite = ["limit", "set", "--site", "berlin", "off", "--polite"];
    operator.run(&polite).fails(2, &["--polite"]);
    operator
        .run(&["limit", "set", "20MiB/s"])
        .fails(2, &["--server"]);
    for (of, name) in [
        ("--server", "web"),
        ("--server", "nope"),
        ("--site", "berlin"),
    ] {
        operator
            .run(&["limit", "remove", of, name])
            .fails(5, &[name]);
    }
    web.run(&["limit", "set", "--server", "web", "20MiB/s"])
        .fails(3, &["operator"]);
    // An operator whose word counts in Paris.
    let mut paris = lab.node("paris");
    let scoped = ["--role", "operator", "--scope", "paris"];
    paris.join(&operator.invite(&scoped)).ok();
    paris.start();
    eventually("it knows the agent", || {
        let known = paris.run(&["node", "list"]).ok();
        let mut known = known.as_array()?.iter();
        known.any(|node| node["name"] == "web").then_some(())
    });
    for (of, name) in [("--server", "web"), ("--site", "berlin")] {
        paris
            .run(&["limit", "set", of, name, "20MiB/s"])
            .fails(3, &["limited to paris"]);
    }
    assert!(limits(&operator).is_empty());
}

#[test]
fn a_server_that_is_only_planned_is_not_limited_and_one_that_is_gone_is_listed_so() {
    let lab = Lab::new();
    let (operator, _web) = mesh(&lab);
    let file = lab.path("plan.toml");
    fs::write(&file, "[[server]]\nname = \"db9\"\nsite = \"berlin\"\n").unwrap();
    let path = file.to_str().unwrap();
    operator.run(&["plan", "apply", path]).ok();
    let set = |server: &str| operator.run(&["limit", "set", "--server", server, "20MiB/s"]);
    set("db9").fails(6, &["`db9` is only planned", "limit set --site berlin"]);
    let remove = |server: &str| operator.run(&["limit", "remove", "--server", server]);
    remove("db9").fails(5, &["db9"]);

    let state = |limits: &[Value]| limits[0]["server_state"].clone();
    set("web").ok();
    assert_eq!(state(&limits(&operator)), Value::Null);
    operator.run(&["node", "revoke", "web"]).ok();
    let left = limits(&operator);
    assert_eq!(state(&left), "revoked");
    remove(&left[0]["server_id"].as_str().unwrap()[..8]).ok();
    assert!(limits(&operator).is_empty());
}

#[test]
fn limits_are_exported_edited_in_the_file_and_applied() {
    let lab = Lab::new();
    let (operator, _web) = mesh(&lab);
    let file = lab.path("plan.toml");
    let path = file.to_str().unwrap();
    let set = [
        "limit", "set", "--server", "web", "20MiB/s", "--zone", "UTC",
    ];
    operator.run(&set).ok();
    let exported = operator.run(&["plan", "export", path]);
    assert!(exported.status.success(), "{exported:?}");
    let text = fs::read_to_string(&file).unwrap();
    let nothing = operator.run(&["plan", "apply", path]).ok();
    assert_eq!(nothing["edits"], Value::Array(vec![]), "{nothing:#}");

    let site = "\n[[limit]]\nsite = \"berlin\"\ntimetable = \"Mon-08:00,1MiB/s Fri-18:00,off\"\nzone = \"Europe/Berlin\"\n";
    fs::write(&file, text.replace("20MiB/s", "30MiB/s") + site).unwrap();
    let applied = operator.run(&["plan", "apply", path]).ok();
    assert_eq!(applied["changed"], 2, "{applied:#}");
    let timetables: Vec<Value> = limits(&operator)
        .into_iter()
        .map(|limit| limit["timetable"].clone())
        .collect();
    assert_eq!(timetables, ["30MiB/s", "Mon-08:00,1MiB/s Fri-18:00,off"]);

    // What is not in the file any more stays, unless it is to go.
    let base: String = text
        .lines()
        .filter(|line| line.starts_with("base"))
        .collect();
    fs::write(&file, &base).unwrap();
    let kept = operator.run(&["plan", "apply", path]).ok();
    assert_eq!(
        (&kept["limits_kept"], &kept["deleted"]),
        (&1.into(), &0.into())
    );
    let gone = operator.run(&["plan", "apply", path, "--delete"]).ok();
    assert_eq!(gone["deleted"], 1, "{gone:#}");
    let left = limits(&operator);
    assert_eq!(left.len(), 1);
    assert_eq!(left[0]["site"], "berlin", "it was set after the export");
}

/// At 64 KiB/s the disk takes two minutes, which nobody here waits for.
#[test]
fn a_limit_slows_blocks_that_move_and_they_go_on_at_once_when_it_is_taken_away() {
    let lab = Lab::new();
    let disk = lab.disk("disk.raw", 8, 1);
    let mesh = lab.mesh_of_three();
    mesh.plan(&disk);
    let set = ["limit", "set", "--server", "agent", "64KiB/s"];
    mesh.operator.run(&set).ok();
    mesh.agent.until_event("limit", &["64KiB/s"]);
    mesh.act("start");
    let view = mesh.until("some of it", |view| {
        let sent = view["volumes"][0]["progress"]["sent_bytes"].as_u64();
        sent.is_some_and(|sent| sent >= 192 << 10)
    });
    assert_eq!(view["limits"][0]["now"], "64KiB/s", "{view:#}");
    let holds = &view["volumes"][0]["progress"]["limit_bytes_per_sec"];
    assert_eq!(holds, 64 << 10, "{view:#}");
    let removed = ["limit", "remove", "--server", "agent"];
    mesh.operator.run(&removed).ok();
    let view = mesh.until_passes(1);
    let millis = view["volumes"][0]["passes"][0]["millis"].as_u64().unwrap();
    // A block counts before it is through: two of the three are, less what goes at once.
    assert!(millis >= 1_500, "{view:#}");
    mesh.cut_over(&disk);
}

#[test]
fn of_a_first_pass_that_is_paused_what_is_durable_is_shown_and_nothing_lags_in_the_end() {
    let lab = Lab::new();
    let disk = lab.disk("disk.raw", 8, 1);
    let mesh = lab.mesh_of_three();
    mesh.plan(&disk);
    let set = ["limit", "set", "--server", "agent", "256KiB/s"];
    mesh.operator.run(&set).ok();
    mesh.agent.until_event("limit", &["256KiB/s"]);
    mesh.act("start");
    mesh.until("a barrier", |view| {
        view["volumes"][0]["barrier"].as_u64() > Some(0)
    });
    mesh.act("pause");
    let view = mesh.until_stage("paused");
    let durable = view["volumes"][0]["first_pass_bytes"].as_u64();
    assert!(durable >= Some(64 << 10), "{view:#}");
    assert!(durable < Some(8 << 20), "{view:#}");
    let removed = ["limit", "remove", "--server", "agent"];
    mesh.operator.run(&removed).ok();
    mesh.act("resume");
    mesh.until_passes(1);
    mesh.cut_over(&disk);
    let view = mesh.migration();
    let counters = &view["volumes"][0]["counters"];
    assert!(counters["barriers"].as_u64() > Some(0), "{view:#}");
    assert!(counters["lag_secs"].is_null(), "{view:#}");
}
