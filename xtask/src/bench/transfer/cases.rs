//! What is measured: for each thing a name, who takes part, and what has to be reached.
//!
//! Not here: how it is measured (`contest`), and how it is shown (`table`).

mod rescan;
mod several;
mod throttle;

use super::contest::{Contest, Entry, Way};
use super::disks::{Change, Disk};
use super::ours::{DISKS, Plan};
use super::peers::Peer;
use super::table::{Limit, Row, Section, median_by};
use crate::bench::link::{self, Link, Network, Shape, stream};
use anyhow::{Result, bail, ensure};
use std::fs;
use std::time::Duration;

/// What a case measures with.
pub(super) struct Bench<'a> {
    pub(super) contest: Contest<'a>,
    /// Of the dense disk; the others are multiples of it.
    pub(super) mib: u64,
    /// Of the link with delay.
    pub(super) mtu: u16,
}

/// One thing that is measured.
pub(super) struct Case {
    pub(super) name: &'static str,
    /// Whether what a user would pick instead takes part.
    pub(super) has_peers: bool,
    /// Only where it is asked for: it takes long.
    pub(super) is_long: bool,
    title: fn(u64) -> String,
    measure: fn(&Bench, &mut Section) -> Result<()>,
}

impl Case {
    /// Measures it; what keeps it from that is in the section.
    pub(super) fn run(&self, bench: &Bench) -> Section {
        let mut section = Section::new(self.name, (self.title)(bench.mib));
        if let Err(error) = (self.measure)(bench, &mut section) {
            section.obstacle = Some(format!("{error:#}"));
        }
        section
    }
}

/// All of them, in this order.
pub(super) const CASES: [Case; 14] = [
    Case {
        name: "dense",
        has_peers: true,
        is_long: false,
        title: |mib| format!("{mib} MiB, all of it used"),
        measure: |bench, section| whole(bench, section, Disk::Dense { mib: bench.mib }),
    },
    Case {
        name: "sparse",
        has_peers: true,
        is_long: false,
        title: |mib| format!("{} MiB, 22 % of it used", 2 * mib),
        measure: |bench, section| {
            let mib = 2 * bench.mib;
            whole(bench, section, Disk::Sparse { mib })
        },
    },
    Case {
        name: "update",
        has_peers: true,
        is_long: false,
        title: |mib| format!("{} MiB, 1 % of its blocks of 64 KiB changed", 2 * mib),
        measure: |bench, section| update(bench, section, (Change::Blocks64, Plan::Update), 3.0),
    },
    Case {
        name: "update-small",
        has_peers: true,
        is_long: false,
        title: |mib| format!("{} MiB, 1 % of its blocks of 4 KiB changed", 2 * mib),
        measure: |bench, section| {
            update(bench, section, (Change::Blocks4, Plan::Update), 3.0)?;
            sent(section, 2 * bench.mib, 2.0)
        },
    },
    Case {
        name: "dirty",
        has_peers: true,
        is_long: false,
        title: |mib| format!("the update of {} MiB, its changed blocks known", 2 * mib),
        measure: |bench, section| {
            update(bench, section, (Change::Blocks64, Plan::UpdateDirty), 20.0)
        },
    },
    Case {
        name: "references",
        has_peers: false,
        is_long: false,
        title: |mib| {
            format!(
                "{} MiB, 90 % of its blocks elsewhere on a disk that is there",
                2 * mib
            )
        },
        measure: references,
    },
    Case {
        name: "disks",
        has_peers: false,
        is_long: false,
        title: |mib| {
            let mib = several::LONG * mib;
            format!("{mib} MiB, all of it used, as {DISKS} disks of one server at once")
        },
        measure: several::disks,
    },
    Case {
        name: "agents",
        has_peers: false,
        is_long: false,
        title: |mib| format!("{mib} MiB, all of it used, as the disks of {DISKS} agents at once"),
        measure: several::agents,
    },
    Case {
        name: "link",
        has_peers: true,
        is_long: false,
        title: |mib| {
            format!("{mib} MiB, all of it used, over 1 Gbit/s with a round trip of 100 ms")
        },
        measure: over_link,
    },
    Case {
        name: "huge",
        has_peers: false,
        is_long: false,
        title: |mib| format!("{} MiB, of which {mib} are used", 4096 * mib),
        measure: huge,
    },
    Case {
        name: "hashing",
        has_peers: false,
        is_long: false,
        title: |mib| format!("{mib} MiB that have not changed, read and looked at"),
        measure: hashing,
    },
    Case {
        name: "rescan",
        has_peers: false,
        is_long: true,
        title: |mib| {
            format!(
                "{} MiB of a device that have not changed, all compared",
                2 * mib
            )
        },
        measure: rescan::measure,
    },
    Case {
        name: "scale",
        has_peers: false,
        is_long: true,
        title: |mib| format!("{mib} MiB, 8 and 32 times as much, all of it used"),
        measure: scale,
    },
    Case {
        name: "throttle",
        has_peers: false,
        is_long: true,
        title: |_| {
            format!(
                "a pass under a limit for {} s and half of it as long",
                throttle::SECS
            )
        },
        measure: throttle::measure,
    },
];

/// A new disk, by all.
fn whole(bench: &Bench, section: &mut Section, disk: Disk) -> Result<()> {
    let peers = [Peer::NbdCopy, Peer::DdOverSsh, Peer::RsyncWhole];
    let peers = peers.map(|peer| Entry::new(peer.name(), disk, Way::Peer(peer)));
    let ours = Entry::new("dunlin", disk, Way::Dunlin(Plan::Copy, true));
    let entries: Vec<Entry> = [ours].into_iter().chain(peers).collect();
    section.rows = bench.contest.run(&Network::Loopback, &entries)?;
    faster(section, Peer::NbdCopy, 2.0)
}

/// A disk that changed, beside rsync.
fn update(
    bench: &Bench,
    section: &mut Section,
    (change, plan): (Change, Plan),
    times: f64,
) -> Result<()> {
    let disk = Disk::Dense { mib: 2 * bench.mib };
    let entry = |who: &str, way| Entry {
        change: Some(change),
        ..Entry::new(who, disk, way)
    };
    let peer = Peer::RsyncUpdate;
    let entries = [
        entry("dunlin", Way::Dunlin(plan, true)),
        entry(peer.name(), Way::Peer(peer)),
    ];
    section.rows = bench.contest.run(&Network::Loopback, &entries)?;
    faster(section, peer, times)
}

/// A disk of which the site has most already, in other places of another disk.
fn references(bench: &Bench, section: &mut Section) -> Result<()> {
    let mib = 2 * bench.mib;
    let way = Way::Dunlin(Plan::CopyBesideHeld, true);
    let entry = Entry {
        held: Some(Disk::Dense { mib }),
        ..Entry::new("dunlin", Disk::Shared { mib }, way)
    };
    section.rows = bench.contest.run(&Network::Loopback, &[entry])?;
    sent(section, mib, 12.0)
}

/// A far place.
fn over_link(bench: &Bench, section: &mut Section) -> Result<()> {
    if let Some(obstacle) = link::obstacle() {
        bail!("{obstacle}");
    }
    let shape = Shape {
        bits_per_second: 1_000_000_000,
        one_way: Duration::from_millis(50),
        mtu: bench.mtu,
    };
    let network = Network::Delayed(Link::lay(shape)?);
    let round_trip = stream::measure(&network, 0, 1)?.round_trip;
    let millis = round_trip.as_secs_f64() * 1000.0;
    ensure!(
        (100.0..110.0).contains(&millis),
        "the round trip over the link is {millis:.1} ms: the machine is too busy to lay one"
    );
    let disk = Disk::Dense { mib: bench.mib };
    let nbd = Peer::NbdCopy;
    let entries = [
        // What is judged carries every byte.
        Entry::new("dunlin", disk, Way::Dunlin(Plan::Copy, false)),
        Entry::new("dunlin, compressing", disk, Way::Dunlin(Plan::Copy, true)),
        Entry::new(nbd.name(), disk, Way::Peer(nbd)),
        Entry::new("1 TCP connection", disk, Way::Plain(1)),
        // What the link carries.
        Entry::new("16 TCP connections", disk, Way::Plain(16)),
    ];
    section.rows = bench.contest.run(&network, &entries)?;
    let filled = |row: &Row| {
        let bits = (bench.mib << 20) as f64 * 8.0;
        100.0 * bits / row.run.seconds / shape.bits_per_second as f64
    };
    let shares = section
        .rows
        .iter()
        .map(|row| format!("{} {:.0} %", row.who, filled(row)));
    let shares: Vec<String> = shares.collect();
    section
        .notes
        .push(format!("of the link: {}", shares.join(", ")));
    if let Network::Delayed(link) = &network {
        let (carried, dropped) = link.packets();
        section.notes.push(format!(
            "round trip {millis:.1} ms, packets of {} bytes, {carried} bunches of them carried \
             and {dropped} dropped, {}; the core-seconds are the link's too",
            shape.mtu,
            link.congestion_control()?
        ));
    }
    let found = filled(&section.rows[0]);
    section.judge(
        "% of the link, as bytes of the disk",
        found,
        Limit::AtLeast(85.0),
    );
    Ok(())
}

/// A disk that is nearly nothing but holes, beside a smaller one that holds the same.
fn huge(bench: &Bench, section: &mut Section) -> Result<()> {
    let entry = |times| {
        let disk = Disk::Spread {
            mib: bench.mib,
            times,
        };
        Entry::new(disk.to_string(), disk, Way::Dunlin(Plan::Copy, true))
    };
    section.rows = bench
        .contest
        .run(&Network::Loopback, &[entry(4096), entry(4)])?;
    let (large, small) = (section.rows[0].run, section.rows[1].run);
    let times = large.seconds / small.seconds;
    section.judge(
        "times as long as the smaller one",
        times,
        Limit::AtMost(2.0),
    );
    memory(section);
    Ok(())
}

/// Disks of several sizes. Each is whole on its file system when its pass begins, and
/// what was sent is punched out behind it, so that 32 GiB need the room of 38.
fn scale(bench: &Bench, section: &mut Section) -> Result<()> {
    let sizes = [1, 8, 32].map(|times| times * bench.mib);
    let entries = sizes.map(|mib| {
        let disk = Disk::Dense { mib };
        Entry::new(disk.to_string(), disk, Way::Dunlin(Plan::Consume, true))
    });
    section.rows = bench.contest.run(&Network::Loopback, &entries)?;
    let cost = |pick: fn(&Row) -> f64| {
        let rows = section.rows.iter().zip(sizes);
        let costs = rows.map(|(row, mib)| pick(row) * 1024.0 / mib as f64);
        costs.collect::<Vec<f64>>()
    };
    let (seconds, cores) = (cost(|row| row.run.seconds), cost(|row| row.run.cores));
    for (what, costs) in [("seconds", seconds), ("core-seconds", cores)] {
        let texts: Vec<String> = costs.iter().map(|cost| format!("{cost:.2}")).collect();
        section
            .notes
            .push(format!("{what} for each GiB: {}", texts.join(", ")));
        let most = costs[1].max(costs[2]);
        let what = format!("times the {what} for each GiB of the smallest");
        section.judge(what, most / costs[0], Limit::AtMost(1.15));
    }
    Ok(())
}

/// The sending end alone, beside the hash.
fn hashing(bench: &Bench, section: &mut Section) -> Result<()> {
    let Contest { folder, rounds, .. } = bench.contest;
    let case = folder.join("case");
    fs::create_dir_all(case.join("disk"))?;
    let disk = Disk::Dense { mib: bench.mib };
    disk.write(&case.join("disk/source"))?;
    let found = bench.contest.program.find(&case, rounds)?;
    // What is judged is not the time, which other work on the machine is in.
    let [found, hashed] = found.map(|runs| median_by(runs, |run| run.cores));
    fs::remove_dir_all(&case)?;
    let row = |who: &str, run| Row {
        who: who.to_owned(),
        run,
    };
    section.rows = vec![
        row("dunlin finds no change", found),
        row("blake3::Hasher::update", hashed),
    ];
    section
        .notes
        .push("core-seconds of the sending process; both read the file, in pieces of 1 MiB".into());
    let more = 100.0 * (found.cores / hashed.cores - 1.0);
    section.judge(
        "% more core-seconds than the hash",
        more,
        Limit::AtMost(10.0),
    );
    Ok(())
}

/// Holds the first row's time to that of a peer.
fn faster(section: &mut Section, peer: Peer, times: f64) -> Result<()> {
    let name = peer.name();
    let Some(other) = section.rows.iter().find(|row| row.who == name) else {
        bail!("{name} was not measured");
    };
    let found = other.run.seconds / section.rows[0].run.seconds;
    section.judge(
        format!("times as fast as {name}"),
        found,
        Limit::AtLeast(times),
    );
    Ok(())
}

/// Holds what the first row sent to a part of the disk.
fn sent(section: &mut Section, mib: u64, percent: f64) -> Result<()> {
    let Some(sent) = section.rows[0].run.sent else {
        bail!("what was sent is not known");
    };
    let found = 100.0 * sent as f64 / (mib << 20) as f64;
    section.judge("% of the disk sent", found, Limit::AtMost(percent));
    Ok(())
}

/// Holds the most memory that the ends of the first row had to the limit; where there are
/// several at one end, of each.
fn memory(section: &mut Section) {
    let [near, far] = section.rows[0].run.most_mib.unwrap_or([f64::NAN; 2]);
    section.judge("MiB of memory, sending", near, Limit::AtMost(256.0));
    section.judge("MiB of memory, receiving", far, Limit::AtMost(256.0));
}
