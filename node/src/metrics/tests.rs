//! Pages are read back as strictly as Prometheus reads them.
#![allow(clippy::unwrap_used)]

use super::*;
use crate::api::model::RangeView;
use crate::cli::tests::{job, live, migration};
use std::collections::{BTreeMap, BTreeSet};

/// A page, read back: the type of each family, and the value of each series.
struct Read {
    types: BTreeMap<String, String>,
    series: BTreeMap<(String, Vec<(String, String)>), f64>,
}

impl Read {
    fn value(&self, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
        let owned = |(name, value): &(&str, &str)| ((*name).into(), (*value).into());
        let labels = labels.iter().map(owned).collect();
        self.series.get(&(name.to_owned(), labels)).copied()
    }
}

fn is_name(text: &str) -> bool {
    let mut letters = text.chars();
    letters
        .next()
        .is_some_and(|first| first.is_ascii_alphabetic() || first == '_')
        && letters.all(|letter| letter.is_ascii_alphanumeric() || letter == '_')
}

/// Labels of a series: `{a="b",c="d"}`, with `\\`, `\"` and `\n` in values.
fn labels(text: &str) -> (Vec<(String, String)>, &str) {
    let Some(mut rest) = text.strip_prefix('{') else {
        return (vec![], text);
    };
    let mut labels = vec![];
    loop {
        if let Some(rest) = rest.strip_prefix('}') {
            return (labels, rest);
        }
        let (name, after) = rest.split_once("=\"").expect("a label has a value");
        assert!(is_name(name), "label {name}");
        let mut value = String::new();
        let mut letters = after.char_indices();
        let end = loop {
            match letters.next().expect("a value ends") {
                (at, '"') => break at,
                (_, '\\') => match letters.next().expect("something is escaped").1 {
                    'n' => value.push('\n'),
                    other @ ('"' | '\\') => value.push(other),
                    other => panic!("escaped {other}"),
                },
                (_, letter) => value.push(letter),
            }
        };
        labels.push((name.to_owned(), value));
        rest = &after[end + 1..];
        rest = rest.strip_prefix(',').unwrap_or(rest);
    }
}

/// Reads a page, and refuses what Prometheus would refuse, and more.
fn read(text: &str) -> Read {
    let body = text.strip_suffix("# EOF\n").expect("it ends with EOF");
    let mut read = Read {
        types: BTreeMap::new(),
        series: BTreeMap::new(),
    };
    let mut family = String::new();
    for line in body.lines() {
        if let Some(comment) = line.strip_prefix("# ") {
            let mut words = comment.splitn(3, ' ');
            let (what, name) = (words.next().unwrap(), words.next().unwrap());
            assert!(is_name(name), "family {name}");
            match (what, words.next().unwrap_or_default()) {
                ("HELP", help) => {
                    assert!(help.len() > 5, "{line}");
                    family = name.to_owned();
                }
                ("TYPE", kind) => {
                    assert_eq!(name, family, "its help comes first");
                    let twice = read.types.insert(family.clone(), kind.to_owned());
                    assert_eq!(twice, None, "{name} is there twice");
                }
                ("UNIT", unit) => assert!(name.ends_with(unit), "{line}"),
                other => panic!("{other:?}"),
            }
            continue;
        }
        let end = line.find(['{', ' ']).expect("a series has a value");
        let (name, rest) = line.split_at(end);
        let suffix = match read.types[&family].as_str() {
            "counter" => "_total",
            "gauge" => "",
            "info" => "_info",
            other => panic!("type {other}"),
        };
        assert_eq!(name, format!("{family}{suffix}"), "of its family");
        let (labels, value) = labels(rest);
        let names: BTreeSet<_> = labels.iter().map(|(name, _)| name).collect();
        assert_eq!(names.len(), labels.len(), "a label is there twice: {line}");
        let value: f64 = value.trim().parse().unwrap();
        assert!(value.is_finite() && value >= 0.0, "{line}");
        let twice = read.series.insert((name.to_owned(), labels), value);
        assert_eq!(twice, None, "{line} is there twice");
    }
    read
}

fn here(peer: &str) -> Job {
    Job {
        migration: "3f2a91c05566778899aabbccddeeff00".into(),
        migration_name: "web-1".into(),
        volume: "7777aaaabbbbccccddddeeeeffff0000".into(),
        volume_name: "vda".into(),
        peer: peer.into(),
    }
}

const VOLUME: [(&str, &str); 2] = [("migration", "web-1"), ("volume", "vda")];

fn of<'a>(more: &[(&'a str, &'a str)]) -> Vec<(&'a str, &'a str)> {
    [&VOLUME[..], more].concat()
}

#[test]
fn a_page_is_read_back_with_what_was_put_in() {
    let mut counts = Counts {
        bytes_read: 900,
        bytes_reread: 50,
        blocks_sent: 3,
        barriers: 4,
        paced: std::time::Duration::from_millis(7_900),
        reads_held_at: 1 << 20,
        ..Counts::default()
    };
    counts.ways[Way::Zstd as usize] = (2, 70_000);
    let mut moving = job("replicating");
    moving.counters = Some(CountersView {
        lag_secs: Some(30),
        backlog_bytes: 5,
        ..CountersView::default()
    });
    let snapshot = Snapshot {
        members: 3,
        limit: Some(9_000),
        sources: vec![(here("store"), counts)],
        copies: vec![(here("web"), counts)],
        migrations: vec![migration("started", vec![moving])],
        ..Snapshot::default()
    };
    let read = read(&text(&snapshot));
    assert_eq!(read.value("dunlin_members", &[]), Some(3.0));
    let zstd = of(&[("peer", "store"), ("encoding", "zstd")]);
    let sent = read.value("dunlin_source_sent_payload_bytes_total", &zstd);
    assert_eq!(sent, Some(70_000.0));
    let disk = read.value("dunlin_source_sent_disk_bytes_total", &zstd);
    assert_eq!(disk, Some(131_072.0));
    for (name, peer, value) in [
        ("dunlin_source_read_bytes_total", "store", 900.0),
        ("dunlin_source_barriers_total", "store", 4.0),
        ("dunlin_source_limit_wait_seconds_total", "store", 7.0),
        ("dunlin_source_backing_off", "store", 1.0),
        ("dunlin_copy_reread_bytes_total", "web", 50.0),
        ("dunlin_copy_written_bytes_total", "web", 196_608.0),
    ] {
        assert_eq!(
            read.value(name, &of(&[("peer", peer)])),
            Some(value),
            "{name}"
        );
    }
    assert_eq!(read.value("dunlin_volume_lag_seconds", &VOLUME), Some(30.0));
    assert_eq!(
        read.value("dunlin_volume_backlog_bytes", &VOLUME),
        Some(5.0)
    );
    let stage = of(&[("stage", "replicating")]);
    assert_eq!(read.value("dunlin_volume_stage", &stage), Some(1.0));
    let limit = read.value("dunlin_limit_bytes_per_second", &[]);
    assert_eq!(limit, Some(9_000.0));
    let unknown = read.value("dunlin_volume_converges", &VOLUME);
    assert_eq!(unknown, None, "what is not known is not there");
    for name in ["process_cpu_seconds_total", "process_resident_memory_bytes"] {
        assert!(
            read.value(name, &[]).is_some_and(|value| value > 0.0),
            "{name}"
        );
    }
    assert_eq!(read.types["dunlin_gossip_bytes"], "counter");
}

#[test]
fn every_metric_has_its_line_in_the_guide() {
    let guide = include_str!("../../../docs/guide.md");
    let mut moving = job("replicating");
    moving.progress = Some(live(1));
    moving.counters = Some(CountersView {
        lag_secs: Some(1),
        barrier_age_secs: Some(1),
        ..CountersView::default()
    });
    let range = Some(RangeView { low: 1, high: 2 });
    moving.forecast = Some(ForecastView {
        verdict: "converges".into(),
        because: None,
        help: vec![],
        converges_in_secs: range,
        behind_bytes: range,
        change_bytes_per_sec: range,
        link_bytes_per_sec: range,
        link_is_at_least: false,
        looking_millis: range,
        pass_left_secs: range,
        freeze_millis: 2_000,
    });
    let snapshot = Snapshot {
        limit: Some(9_000),
        events: [("info", 1), ("warn", 1), ("error", 1)],
        stored_bytes: [("store", 1), ("snapshot", 1)],
        sources: vec![(here("store"), Counts::default())],
        copies: vec![(here("web"), Counts::default())],
        migrations: vec![migration("started", vec![moving])],
        ..Snapshot::default()
    };
    let read = read(&text(&snapshot));
    let names: BTreeSet<&str> = read.series.keys().map(|(name, _)| name.as_str()).collect();
    assert!(names.len() > 40, "all of them are shown: {names:?}");
    for name in names {
        assert!(guide.contains(&format!("`{name}`")), "{name}");
    }
}

#[test]
fn a_forecast_is_a_number_that_can_be_alerted_on() {
    for (verdict, converges, within) in [
        ("fits", Some(1.0), Some(0.0)),
        ("converges", Some(1.0), Some(90.0)),
        ("uncertain", Some(0.5), None),
        ("diverges", Some(0.0), None),
        ("unknown", None, None),
        ("cutover", None, None),
    ] {
        let mut moving = job("replicating");
        moving.forecast = Some(ForecastView {
            verdict: verdict.into(),
            because: None,
            help: vec![],
            converges_in_secs: Some(RangeView { low: 9, high: 90 }),
            behind_bytes: None,
            change_bytes_per_sec: None,
            link_bytes_per_sec: None,
            link_is_at_least: false,
            looking_millis: None,
            pass_left_secs: None,
            freeze_millis: 2_000,
        });
        let snapshot = Snapshot {
            migrations: vec![migration("started", vec![moving])],
            ..Snapshot::default()
        };
        let read = read(&text(&snapshot));
        let value = read.value("dunlin_volume_converges", &VOLUME);
        assert_eq!(value, converges, "{verdict}");
        let secs = read.value("dunlin_volume_converges_in_seconds", &VOLUME);
        assert_eq!(secs, within, "{verdict}");
    }
}

#[test]
fn whatever_people_call_things_the_page_is_sound() {
    let name = "a \"b\" \\ {c}\nd,e=\"f\"";
    let mut one = migration("started", vec![job("replicating"), job("replicating")]);
    one.name = name.into();
    one.volumes[1].volume = "8888aaaabbbbccccddddeeeeffff0000".into();
    let mut other = one.clone();
    other.id = "4f2a91c05566778899aabbccddeeff00".into();
    let snapshot = Snapshot {
        migrations: vec![one, other],
        ..Snapshot::default()
    };
    let read = read(&text(&snapshot));
    let sizes = read
        .series
        .keys()
        .filter(|(name, _)| name == "dunlin_volume_size_bytes");
    assert_eq!(sizes.count(), 4, "namesakes are told apart");
    let migration = format!("{name} (3f2a91c0)");
    let labels = [
        ("migration", migration.as_str()),
        ("volume", "vda (7777aaaa)"),
    ];
    assert!(read.value("dunlin_volume_size_bytes", &labels).is_some());
}

#[test]
fn a_page_is_bounded_however_much_moves() {
    let many = (0..MAX_VOLUMES + 100).map(|number| {
        let mut migration = migration("started", vec![job("replicating")]);
        migration.id = format!("{number:032x}");
        migration.name = format!("m{number}");
        migration
    });
    let snapshot = Snapshot {
        migrations: many.collect(),
        ..Snapshot::default()
    };
    let text = text(&snapshot);
    let sizes = read(&text).series;
    let sizes = sizes
        .keys()
        .filter(|(name, _)| name == "dunlin_volume_size_bytes");
    assert_eq!(sizes.count(), MAX_VOLUMES);
    assert!(text.len() < 1 << 20, "{} bytes", text.len());
}
