//! Invites that cannot be used. None of them enrols anybody, and a folder in which
//! joining failed is good for another try.

use crate::harness::{Lab, Node, eventually};

fn nodes(operator: &Node) -> usize {
    operator
        .run(&["node", "list"])
        .ok()
        .as_array()
        .unwrap()
        .len()
}

#[test]
fn text_that_is_no_invite_is_told_from_one_that_was_cut_or_mistyped() {
    let lab = Lab::new();
    let mut operator = lab.founder("operator");
    operator.start();
    let invite = operator.invite(&["--role", "agent"]);
    let joiner = lab.node("joiner");
    joiner.join("").fails(2, &["invite"]);
    joiner.join("hello").fails(2, &["does not begin with"]);
    let long = "x".repeat(1 << 20);
    joiner.join(&long).fails(2, &["invite"]);
    for length in [invite.len() - 1, invite.len() / 2, 20] {
        joiner
            .join(&invite[..length])
            .fails(2, &["copy the whole line again"]);
    }
    let middle = invite.len() / 2;
    let other = if &invite[middle..=middle] == "A" {
        "B"
    } else {
        "A"
    };
    let mistyped = format!("{}{other}{}", &invite[..middle], &invite[middle + 1..]);
    joiner.join(&mistyped).fails(2, &["mistyped"]);
    assert!(!joiner.folder.exists(), "nothing is made for a bad invite");
    assert_eq!(nodes(&operator), 1);
    joiner.join(&invite).ok();
    assert_eq!(nodes(&operator), 2);
}

#[test]
fn an_expired_a_used_and_a_revoked_invite_enrol_nobody() {
    let lab = Lab::new();
    let mut operator = lab.founder("operator");
    operator.start();
    let state_of = |id: &str| {
        let invites = operator.run(&["invite", "list"]).ok();
        let invites = invites.as_array().unwrap().clone();
        let found = invites.iter().find(|invite| invite["id"] == id);
        found.unwrap()["state"].as_str().unwrap().to_owned()
    };
    let create = |args: &[&str]| {
        let made = operator
            .run(&[&["invite", "create", "--role", "agent"], args].concat())
            .ok();
        let text = |name: &str| made[name].as_str().unwrap().to_owned();
        (text("invite"), text("id"))
    };
    let joiner = lab.node("joiner");

    let (expired, id) = create(&["--expires", "1s"]);
    eventually("the invite expires", || {
        (state_of(&id) == "expired").then_some(())
    });
    joiner
        .join(&expired)
        .fails(6, &["expired", "ask for a new one"]);

    let (revoked, id) = create(&[]);
    operator.run(&["invite", "revoke", &id[..12]]).ok();
    assert_eq!(state_of(&id), "revoked");
    joiner
        .join(&revoked)
        .fails(6, &["revoked", "ask for a new one"]);

    let (used, id) = create(&[]);
    lab.node("first").join(&used).ok();
    assert_eq!(state_of(&id), "used");
    joiner.join(&used).fails(6, &["has been used", "node list"]);

    assert_eq!(nodes(&operator), 2);
    let (good, _) = create(&[]);
    joiner.join(&good).ok();
    assert_eq!(nodes(&operator), 3);
}

#[test]
fn an_invite_of_a_stopped_node_or_of_another_mesh_names_the_address() {
    let lab = Lab::new();
    let mut operator = lab.founder("operator");
    operator.start();
    let invite = operator.invite(&["--role", "agent"]);
    let address = format!("/ip4/127.0.0.1/tcp/{}", operator.port);
    operator.stop();
    let joiner = lab.node("joiner");
    joiner.join(&invite).fails(1, &[&address, "is it running"]);

    let mut stranger = lab.founder("stranger");
    stranger.port = operator.port;
    stranger.start();
    joiner.join(&invite).fails(1, &[&address, "is it running"]);
    assert_eq!(nodes(&stranger), 1);
    stranger.stop();

    operator.start();
    joiner.join(&invite).ok();
    assert_eq!(nodes(&operator), 2);
}

#[test]
fn a_folder_that_holds_a_node_joins_no_second_mesh_and_founds_none() {
    let lab = Lab::new();
    let mut first = lab.founder("first");
    first.start();
    let mut second = lab.founder("second");
    second.start();
    let member = lab.joiner(&first, "member", "agent");
    let folder = member.folder.to_str().unwrap();
    let before = member.status();
    let invite = second.invite(&["--role", "agent"]);
    member
        .join(&invite)
        .fails(6, &[folder, "belongs to a mesh already"]);
    member
        .run(&["mesh", "init"])
        .fails(6, &[folder, "--data-dir"]);
    first.join(&invite).fails(6, &["--data-dir"]);
    let after = member.status();
    assert_eq!(after["mesh"], before["mesh"]);
    assert_eq!(after["node"]["id"], before["node"]["id"]);
    assert_eq!(nodes(&second), 1);
    // Nothing was used up by the attempts.
    lab.node("other").join(&invite).ok();
}
