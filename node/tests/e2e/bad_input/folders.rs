//! Data folders that are not what they should be, and settings that are wrong: the
//! node does not start, says why, and leaves everything as it was.

use crate::harness::{Lab, Node, noise};
use redb::ReadableTable;
use std::fs::{self, File, Permissions};
use std::net::TcpListener;
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::Path;

/// `run` where it is expected to end by itself.
fn run(node: &Node) -> crate::harness::Output {
    let listen = format!("/ip4/127.0.0.1/tcp/{}", node.port);
    node.run(&["run", "--no-mdns", "--listen", &listen])
}

#[test]
fn a_folder_that_is_missing_empty_or_not_ours_is_left_alone() {
    let lab = Lab::new();
    let node = lab.node("node");
    run(&node).fails(1, &["holds no mesh yet", "dunlin join"]);
    assert!(!node.folder.exists());
    fs::create_dir(&node.folder).unwrap();
    fs::set_permissions(&node.folder, Permissions::from_mode(0o700)).unwrap();
    run(&node).fails(1, &["holds no mesh yet", "dunlin join"]);
    fs::write(node.folder.join("letter.txt"), "dear reader").unwrap();
    let folder = node.folder.to_str().unwrap();
    run(&node).fails(1, &[folder, "is not a data folder of dunlin"]);
    node.run(&["mesh", "init"])
        .fails(1, &[folder, "is not a data folder of dunlin"]);
    let held: Vec<_> = fs::read_dir(&node.folder).unwrap().collect();
    assert_eq!(held.len(), 1, "{held:?}");
    let used = lab.founder("used");
    let again = used.run(&["mesh", "init"]);
    again.fails(6, &["belongs to a mesh already", "--data-dir"]);
    let mut file = lab.node("file");
    fs::write(&file.folder, "x").unwrap();
    run(&file).fails(1, &["is not a data folder of dunlin"]);
    file.folder = lab.path("file/below");
    run(&file).fails(1, &["file/below"]);
}

#[test]
fn a_key_that_is_another_nodes_damaged_missing_or_exposed_is_refused() {
    let lab = Lab::new();
    let mut node = lab.founder("node");
    let other = lab.founder("other");
    let key = node.folder.join("node.key");
    let good = fs::read(&key).unwrap();
    fs::copy(other.folder.join("node.key"), &key).unwrap();
    run(&node).fails(
        1,
        &["mixed with another node's", "restore both from one backup"],
    );
    fs::write(&key, &good[..good.len() / 2]).unwrap();
    run(&node).fails(1, &["node.key", "is damaged"]);
    fs::remove_file(&key).unwrap();
    run(&node).fails(1, &["node.key", "is missing"]);
    fs::write(&key, &good).unwrap();
    fs::set_permissions(&key, Permissions::from_mode(0o640)).unwrap();
    run(&node).fails(1, &["node.key", "chmod go="]);
    fs::set_permissions(&key, Permissions::from_mode(0o600)).unwrap();
    fs::set_permissions(&node.folder, Permissions::from_mode(0o755)).unwrap();
    run(&node).fails(1, &["other users", "chmod go="]);
    fs::set_permissions(&node.folder, Permissions::from_mode(0o700)).unwrap();
    node.start();
    node.status();
}

#[test]
fn a_store_of_a_newer_format_is_refused_and_kept() {
    let lab = Lab::new();
    let mut node = lab.founder("node");
    let path = node.folder.join("dunlin.redb");
    assert_eq!(reformatted(&path, 11), 10);
    let words = ["format 11", "knows formats up to 10", "or a newer one"];
    run(&node).fails(1, &words);
    node.run(&["status"]).fails(1, &words);
    assert_eq!(
        reformatted(&path, 10),
        11,
        "it is as the newer program left it"
    );
    node.start();
    node.status();
}

/// Gives a store another format, and the format that it had.
fn reformatted(path: &Path, format: u8) -> u8 {
    let header = redb::TableDefinition::<&[u8], &[u8]>::new("header");
    let store = redb::Database::open(path).unwrap();
    let txn = store.begin_write().unwrap();
    let mut table = txn.open_table(header).unwrap();
    let stored = table.get(&b"header"[..]).unwrap().unwrap();
    let mut changed = stored.value().to_vec();
    drop(stored);
    let had = std::mem::replace(&mut changed[0], format);
    table.insert(&b"header"[..], changed.as_slice()).unwrap();
    drop(table);
    txn.commit().unwrap();
    had
}

#[test]
fn a_corrupted_store_is_refused_with_what_to_do() {
    let lab = Lab::new();
    let mut node = lab.founder("node");
    let path = node.folder.join("dunlin.redb");
    let good = fs::read(&path).unwrap();
    let refused = |what: &str, damaged: &[u8]| {
        fs::write(&path, damaged).unwrap();
        for output in [run(&node), node.run(&["status"])] {
            eprintln!("{what}");
            output.fails(1, &["is damaged", "restore the data folder from a backup"]);
        }
    };
    refused("empty", &[]);
    refused("cut to a header", &good[..100]);
    refused("cut in half", &good[..good.len() / 2]);
    refused("another file", &noise(good.len(), 7));
    let mut headless = good.clone();
    headless[..320].fill(0xff);
    refused("no header", &headless);
    let mut bodiless = good.clone();
    bodiless[4096..].fill(0xff);
    refused("no pages", &bodiless);
    fs::write(&path, &good).unwrap();
    node.start();
    assert_eq!(node.status()["nodes"], 1);
}

#[test]
fn a_page_overwritten_anywhere_in_the_store_is_noticed_or_of_no_consequence() {
    const STEP: usize = 4096;
    let lab = Lab::new();
    let node = lab.founder("node");
    let path = node.folder.join("dunlin.redb");
    let good = fs::read(&path).unwrap();
    let whole = node.status();
    let used = |page: &[u8]| page.iter().any(|byte| *byte != 0);
    let pages: Vec<usize> = (0..good.len())
        .step_by(STEP)
        .filter(|start| used(&good[*start..good.len().min(start + STEP)]))
        .collect();
    let mut noticed = 0;
    for start in &pages {
        fs::write(&path, &good).unwrap();
        let file = File::options().write(true).open(&path).unwrap();
        let end = good.len().min(start + STEP);
        file.write_all_at(&noise(end - start, 3), *start as u64)
            .unwrap();
        let output = node.run(&["status"]);
        if output.status.success() {
            assert_eq!(output.ok()["mesh"], whole["mesh"], "page at {start}");
            assert_eq!(output.ok()["node"]["id"], whole["node"]["id"]);
        } else {
            output.fails(1, &["damaged"]);
            noticed += 1;
        }
    }
    assert!(noticed >= 2, "{noticed} of {} noticed", pages.len());
}

#[test]
fn a_folder_in_use_and_a_port_in_use_are_named() {
    let lab = Lab::new();
    let mut node = lab.founder("node");
    node.start();
    let folder = node.folder.to_str().unwrap();
    run(&node).fails(6, &[folder, "in use by process", "stop it first"]);
    let mut other = lab.founder("other");
    let port = format!("tcp/{}", node.port);
    let own = std::mem::replace(&mut other.port, node.port);
    run(&other).fails(1, &[&port, "is in use", "another port"]);
    let taken = TcpListener::bind(("127.0.0.1", own)).unwrap();
    other.port = own;
    run(&other).fails(1, &[&format!("tcp/{own}"), "is in use"]);
    drop(taken);
    other.start();
    other.status();
    assert!(node.is_running());
    node.status();
}

#[test]
fn wrong_settings_are_named_before_anything_starts() {
    let lab = Lab::new();
    let node = lab.founder("node");
    let listen = |address: &str| node.run(&["run", "--no-mdns", "--listen", address]);
    listen("127.0.0.1:7430").fails(2, &["127.0.0.1:7430", "/ip4/"]);
    listen("").fails(2, &["--listen"]);
    listen("/ip4/127.0.0.1").fails(1, &["/ip4/127.0.0.1", "must look like"]);
    listen("/ip4/192.0.2.1/tcp/7430").fails(1, &["192.0.2.1", "cannot listen"]);
    let file = lab.path("dunlin.toml");
    let config = || node.run(&["run", "--no-mdns", "--config", file.to_str().unwrap()]);
    config().fails(2, &["dunlin.toml", "cannot be read"]);
    for (text, word) in [
        ("lisen = []", "lisen"),
        ("listen = 7", "listen"),
        ("[local]\nfolders = \"/x\"", "folders"),
        ("listen = [\"nowhere\"]", "nowhere"),
        ("announce = [\"nowhere\"]", "nowhere"),
        ("compression = \"best\"", "compression"),
        ("= =", "dunlin.toml"),
    ] {
        fs::write(&file, text).unwrap();
        config().fails(2, &[word]);
    }
    fs::write(&file, [0xff, 0xfe, 0x00]).unwrap();
    config().fails(2, &["dunlin.toml"]);
    let missing = lab.path("nowhere");
    let listen = format!("listen = [\"/ip4/127.0.0.1/tcp/{}\"]\n", node.port);
    fs::write(&file, format!("{listen}[local]\nfolder = {missing:?}")).unwrap();
    config().fails(1, &[missing.to_str().unwrap()]);
}
