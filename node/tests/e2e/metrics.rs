//! What Prometheus and operators see of a migration while it runs: counters that grow at
//! both ends, the forecast, and nothing for whoever has no token.
//!
//! Not here: the form of the page (`metrics`' own tests), and the forecast's sums (`roles`).

use crate::harness::{Lab, Node, eventually, noise};
use serde_json::Value;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::os::unix::net::UnixStream;

const MIB: u64 = 1 << 20;

/// Asks for a page over a connection: the status and the body.
fn get(mut stream: impl Read + Write, path: &str, header: &str) -> (u16, String) {
    let request = format!("GET {path} HTTP/1.1\r\nHost: node\r\nConnection: close\r\n{header}\r\n");
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    (status, body.to_owned())
}

/// The metrics of a node, by its socket.
pub fn scrape(node: &Node) -> String {
    let socket = UnixStream::connect(node.folder.join("run/api.sock")).unwrap();
    let (status, page) = get(socket, "/metrics", "");
    assert_eq!(status, 200, "{page}");
    assert!(page.ends_with("# EOF\n"), "{page}");
    page
}

/// The sum of all series of a name that have these labels.
pub fn sum(page: &str, name: &str, labels: &[&str]) -> Option<f64> {
    let series = page.lines().filter(|line| {
        let named = line
            .strip_prefix(name)
            .is_some_and(|rest| rest.starts_with(['{', ' ']));
        named && labels.iter().all(|label| line.contains(label))
    });
    let value = |line: &str| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap();
    series.map(value).reduce(|one, other| one + other)
}

fn at_least(node: &Node, name: &str, labels: &[&str], least: u64) -> f64 {
    let what = format!("{name} of {} reaches {least}", node.name);
    eventually(&what, || {
        sum(&scrape(node), name, labels).filter(|value| *value >= least as f64)
    })
}

#[test]
fn counters_grow_while_a_migration_runs_and_its_forecast_is_told() {
    let lab = Lab::new();
    let mesh = lab.mesh_of_three();
    let disk = lab.disk("disk.raw", 24, 1);
    mesh.plan(&disk);
    let before = scrape(&mesh.agent);
    let read = sum(&before, "dunlin_source_read_bytes_total", &[]);
    assert_eq!(read.unwrap_or(0.0), 0.0);
    mesh.act("start");
    mesh.until_passes(1);

    let of = [r#"migration="m""#, r#"volume="disk""#];
    let to = [&of[..], &[r#"peer="replicator""#]].concat();
    let read = at_least(&mesh.agent, "dunlin_source_read_bytes_total", &to, 24 * MIB);
    at_least(
        &mesh.agent,
        "dunlin_source_sent_disk_bytes_total",
        &to,
        24 * MIB,
    );
    at_least(&mesh.agent, "dunlin_source_barriers_total", &to, 1);
    let from = [&of[..], &[r#"peer="agent""#]].concat();
    let written = "dunlin_copy_written_bytes_total";
    let first = at_least(&mesh.replicator, written, &from, 24 * MIB);
    // The next passes read the disk again, and find what was written to it meanwhile.
    let source = File::options().write(true).open(&disk).unwrap();
    source.write_all_at(&noise(5 << 20, 2), 7 << 20).unwrap();
    at_least(
        &mesh.agent,
        "dunlin_source_read_bytes_total",
        &to,
        read as u64 + 1,
    );
    at_least(&mesh.replicator, written, &from, first as u64 + 5 * MIB);
    at_least(&mesh.replicator, "dunlin_copy_barriers_total", &from, 2);
    let sent = "dunlin_source_sent_payload_bytes_total";
    at_least(&mesh.agent, sent, &to, 29 * MIB);

    // An operator elsewhere sees how far it is, and what is to be expected: the one by
    // reports, the other by gossip, in either order.
    let view = mesh.until("a forecast and counters", |view| {
        let job = &view["volumes"][0];
        let bytes = job["counters"]["disk_bytes"].as_u64();
        job["forecast"]["verdict"] == "fits" && bytes.is_some_and(|bytes| bytes >= 29 * MIB)
    });
    let job = &view["volumes"][0];
    let counters = &job["counters"];
    assert!(counters["lag_secs"].is_u64(), "{job:#}");
    let changes = &job["forecast"]["change_bytes_per_sec"];
    assert!(changes["high"].as_u64().is_some(), "{job:#}");
    let operators = scrape(&mesh.operator);
    for (name, least) in [
        ("dunlin_members", 3.0),
        ("dunlin_peers_connected", 2.0),
        ("dunlin_gossip_bytes_total", 1.0),
        ("dunlin_sync_rounds_total", 1.0),
        ("dunlin_document_changes", 2.0),
        ("dunlin_volume_size_bytes", 24.0 * MIB as f64),
        ("dunlin_volume_converges", 1.0),
        ("dunlin_volume_lag_seconds", 0.0),
        ("process_cpu_seconds_total", 0.001),
        ("process_resident_memory_bytes", MIB as f64),
    ] {
        let value = sum(&operators, name, &[]);
        assert!(
            value.is_some_and(|value| value >= least),
            "{name}: {value:?}"
        );
    }
}

#[test]
fn on_its_loopback_address_metrics_are_for_who_has_the_token() {
    let lab = Lab::new();
    let mut node = lab.founder("operator");
    let free = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let address = free.local_addr().unwrap();
    drop(free);
    let config = lab.path("node.toml");
    fs::write(&config, format!("[metrics]\nlisten = \"{address}\"\n")).unwrap();
    node.extra = vec!["--config".into(), config.to_str().unwrap().into()];
    node.start();
    let file = node.folder.join("metrics.token");
    let mode = file.metadata().unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let token = fs::read_to_string(&file).unwrap();
    let ask = |path: &str, header: &str| get(TcpStream::connect(address).unwrap(), path, header);
    let good = format!("Authorization: Bearer {token}\r\n");
    let (status, page) = ask("/metrics", &good);
    assert_eq!(status, 200, "{page}");
    assert_eq!(sum(&page, "dunlin_members", &[]), Some(1.0));
    for header in [
        "",
        "Authorization: Bearer\r\n",
        "Authorization: Bearer 00\r\n",
        "Authorization: Basic b3BlbjpzZXNhbWU=\r\n",
    ] {
        assert_eq!(ask("/metrics", header), (401, String::new()), "{header}");
    }
    // The rest of the API is not there, with the token or without.
    for path in ["/v1/status", "/v1/nodes", "/"] {
        assert_eq!(ask(path, &good), (404, String::new()), "{path}");
        assert_eq!(ask(path, "").0, 401, "{path}");
    }
    let log = node.log();
    assert!(!log.contains(token.trim()), "the token is in the log");
    let shown: Value = node.status();
    assert!(!shown.to_string().contains(token.trim()));
}
