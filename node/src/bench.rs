//! Figures of the scale to hold, measured on the real store and the real replica and
//! printed with their limits: `cargo xtask bench document`.
//!
//! A test that ordinary runs skip, so that it reaches what the program keeps
//! to itself and is no part of what users run.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

mod sample;
mod transfer;

use crate::datadir::{DataDir, KeyFile};
use crate::local;
use crate::store::Store;
use keys::{PublicKey, UnixSecs};
use mesh::{Input, Output, Record, Replica};
use sample::{NOW, Sample};
use std::collections::VecDeque;
use std::time::Instant;
use tempfile::TempDir;

/// Milliseconds between two looks of the pump, as virtual time.
const STEP_MILLIS: u64 = 1_000;

struct Figures {
    passed: bool,
}

impl Figures {
    fn line(&mut self, what: &str, found: f64, limit: f64, unit: &str) {
        let good = found <= limit;
        self.passed &= good;
        let verdict = if good { "pass" } else { "FAIL" };
        println!("{what:<58} {found:>10.2} {unit:<4} of {limit:>8.0} {unit:<4} {verdict}");
    }
}

fn number(name: &str, default: u32) -> u32 {
    let given = std::env::var(name).ok();
    given.map_or(default, |text| text.parse().unwrap())
}

fn millis(since: Instant) -> f64 {
    since.elapsed().as_secs_f64() * 1000.0
}

/// Of at least one; they are sorted after it.
fn median(figures: &mut [f64]) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures[figures.len() / 2]
}

/// Processor time of this thread in milliseconds: on a machine that does other things
/// too, what a figure would be without them.
fn cpu_millis() -> f64 {
    let stat = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    let nanos = stat
        .split(' ')
        .next()
        .and_then(|text| text.parse::<f64>().ok());
    nanos.unwrap_or_default() / 1e6
}

#[test]
fn document() {
    if std::env::var_os("DUNLIN_BENCH_NODES").is_none() {
        println!("skipped, as it takes minutes: `cargo xtask bench document` runs it");
        return;
    }
    let nodes = number("DUNLIN_BENCH_NODES", 1_000);
    let servers = number("DUNLIN_BENCH_SERVERS", 100_000);
    let singles = servers / 20;
    println!("{nodes} nodes, {servers} servers, {singles} of them in changes of their own");
    let sample = Sample::make(nodes, servers, singles);
    println!(
        "{} statements, {} changes, {} reports",
        sample.replica.ledger().len(),
        sample.replica.document().len(),
        sample.replica.reports().iter().count()
    );
    let folder = TempDir::new().unwrap();
    let mut figures = Figures { passed: true };
    let dir = stored(&sample, &folder);
    on_disk(&dir, &mut figures);
    let (mut op, store) = loaded(&dir, &sample, &mut figures);
    let mut node = sample.replica_of_node();
    edit(&mut op, &mut node, &store, &mut figures);
    assert!(figures.passed, "a figure is over its limit");
}

/// The sample as a node stores it: in the order in which it came, closed, and with its
/// snapshot.
fn stored(sample: &Sample, folder: &TempDir) -> DataDir {
    let dir = DataDir::create_new(&folder.path().join("data")).unwrap();
    dir.ensure_key(KeyFile::Node, || sample.operator.clone())
        .unwrap();
    let mesh = sample.replica.ledger().mesh();
    let (first, rest) = sample.records.split_at(2);
    let store = Store::create(&dir.store(), mesh, sample.operator.public(), first).unwrap();
    for records in rest.chunks(200) {
        store.put_records(records).unwrap();
    }
    drop(store);
    let mut document = sample.replica.document().clone();
    local::write_snapshot(&dir, document.save()).unwrap();
    dir
}

fn on_disk(dir: &DataDir, figures: &mut Figures) {
    let size = |path: std::path::PathBuf| std::fs::metadata(path).unwrap().len();
    let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
    let (store, snapshot) = (
        size(dir.store()),
        size(dir.path().join("document.snapshot")),
    );
    println!(
        "store {:.2} MiB, snapshot {:.2} MiB",
        mib(store),
        mib(snapshot)
    );
    figures.line(
        "on disk: store and snapshot",
        mib(store + snapshot),
        16.0,
        "MiB",
    );
}

fn loaded(dir: &DataDir, sample: &Sample, figures: &mut Figures) -> (Replica, Store) {
    let (since, cpu) = (Instant::now(), cpu_millis());
    let (store, header) = Store::open(&dir.store()).unwrap();
    let opened = millis(since);
    let (_, replica) = local::restore(dir, &store, &header).unwrap();
    let took = millis(since);
    let cpu = cpu_millis() - cpu;
    println!("opened after {opened:.0} ms; all of it took {cpu:.0} ms of processor time");
    figures.line(
        "load: open the store and restore all of it",
        took / 1000.0,
        3.0,
        "s",
    );
    assert!(replica.document().plan() == sample.replica.document().plan());
    assert_eq!(replica.heads(), sample.replica.heads());
    assert_eq!(replica.document().unsaved(), 0, "the snapshot was not used");
    (replica, store)
}

fn edit(op: &mut Replica, node: &mut Replica, store: &Store, figures: &mut Figures) {
    let mut wire = Wire::between(op, node);
    wire.settle(op, node);
    let mut made = vec![];
    // Of servers that were there, and of new ones.
    let mut absorbed = [vec![], vec![]];
    let (mut synced, mut gossiped, mut durable) = (0, 0, 0_f64);
    for round in 0..20_u32 {
        let mut out = vec![];
        let mut server = sample::server(round * 41);
        server.note = Some(format!("edited in round {round}"));
        let since = Instant::now();
        let edited = op.edit(
            NOW,
            |edit| {
                if round % 2 == 0 {
                    edit.change_server(&server)
                } else {
                    server.id.0[0] ^= 0xff;
                    edit.create_server(&server)
                }
            },
            &mut out,
        );
        edited.unwrap();
        made.push(millis(since));
        for output in &out {
            match output {
                Output::Store(records) => {
                    let since = Instant::now();
                    store.put_records(records).unwrap();
                    durable = durable.max(millis(since));
                }
                Output::Announce(announcement) => {
                    gossiped = gossiped.max(codec::encode(announcement).unwrap().len());
                }
                _ => {}
            }
        }
        wire.bytes = 0;
        wire.settle(op, node);
        synced = synced.max(wire.bytes);
        absorbed[round as usize % 2].push(wire.absorb_millis);
        assert_eq!(op.heads(), node.heads());
    }
    figures.line(
        "one more edit: made, signed, applied (median of 20)",
        median(&mut made),
        20.0,
        "ms",
    );
    println!(
        "the slowest took {:.1} ms; it is durable after another {durable:.1} ms",
        made[made.len() - 1]
    );
    for (what, mut millis) in ["changed", "new"].into_iter().zip(absorbed) {
        figures.line(
            &format!("a {what} server: taken in at a peer (median of 10)"),
            median(&mut millis),
            20.0,
            "ms",
        );
        println!("the slowest took {:.1} ms", millis[millis.len() - 1]);
    }
    figures.line("one more edit: gossip", gossiped as f64, 2048.0, "B");
    figures.line(
        "one more edit: all of anti-entropy without gossip",
        synced as f64,
        2048.0,
        "B",
    );
}

/// Two replicas that exchange requests and pages, and how many bytes that takes.
struct Wire {
    keys: [PublicKey; 2],
    mono_millis: u64,
    bytes: usize,
    absorb_millis: f64,
}

impl Wire {
    fn between(a: &mut Replica, b: &mut Replica) -> Self {
        Self {
            keys: [a.my_key(), b.my_key()],
            mono_millis: 0,
            bytes: 0,
            absorb_millis: 0.0,
        }
    }

    /// Lets both talk until they hold the same.
    fn settle(&mut self, a: &mut Replica, b: &mut Replica) {
        let mut inputs = VecDeque::new();
        if self.mono_millis == 0 {
            inputs.push_back((0, Input::Connected(self.keys[1])));
            inputs.push_back((1, Input::Connected(self.keys[0])));
        }
        for _ in 0..1_000 {
            while let Some((to, input)) = inputs.pop_front() {
                let replica = if to == 0 { &mut *a } else { &mut *b };
                self.step(to, replica, input, &mut inputs);
            }
            self.mono_millis += STEP_MILLIS;
            if a.heads() == b.heads() {
                return;
            }
            inputs.push_back((0, Input::Tick));
            inputs.push_back((1, Input::Tick));
        }
        panic!("the two never agree");
    }

    fn step(
        &mut self,
        to: usize,
        replica: &mut Replica,
        input: Input,
        inputs: &mut VecDeque<(usize, Input)>,
    ) {
        let brings = matches!(&input, Input::Answered { page, .. } if !page.changes.is_empty());
        let (from, mut out) = (self.keys[to], vec![]);
        let since = Instant::now();
        replica.step(NOW, self.mono_millis, input, &mut out);
        if brings {
            self.absorb_millis = millis(since);
        }
        for output in out {
            match output {
                Output::Ask { request, .. } => {
                    self.bytes += codec::encode(&request).unwrap().len();
                    let reply = 0;
                    let asked = Input::Asked {
                        from,
                        request,
                        reply,
                    };
                    inputs.push_back((1 - to, asked));
                }
                Output::Answer { page, .. } => {
                    self.bytes += codec::encode(&page).unwrap().len();
                    inputs.push_back((1 - to, Input::Answered { from, page }));
                }
                Output::Blame { fault, .. } => panic!("blamed: {fault}"),
                _ => {}
            }
        }
    }
}

/// Puts what a replica stores where the bench finds it.
fn keep(out: Vec<Output>, records: &mut Vec<Record>) {
    for output in out {
        if let Output::Store(stored) = output {
            records.extend(stored);
        }
    }
}

fn at(secs: u64) -> UnixSecs {
    UnixSecs(NOW.0 + secs)
}
