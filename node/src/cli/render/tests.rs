//! Pages of the small mesh, as people see them.
#![allow(clippy::unwrap_used)]

use super::*;
use crate::api::model::{
    CheckState, CheckView, DoctorView, ExposureView, FlowView, Lapsed, LimitView, MigrationView,
    NodeRevoked, PathView, PlannedServer, RevokedView, RoundTripView, ServerView, SpeedView,
};
use crate::cli::page::{Look, Page, Table};
use crate::cli::task::Verb;
use crate::cli::tests::*;

fn shown(page: &str) -> Vec<&str> {
    page.lines().collect()
}

#[test]
fn a_list_of_nodes_is_aligned() {
    assert_eq!(
        shown(&nodes::list(&[node(), agent()], &look())),
        [
            "ID        NAME    ROLES                 SITE  STATE   LINK       REPORT",
            "a1b2c3d4  office  operator,provisioner  hq    active  this node  30 s ago",
            "bb001122  web     agent                 -     active  away       -"
        ]
    );
}

#[test]
fn a_lone_node_is_told_how_to_get_company() {
    let page = nodes::list(&[node()], &look());
    assert!(page.contains("dunlin invite create"), "{page}");
    assert!(!nodes::list(&[node(), agent()], &look()).contains("dunlin invite create"));
}

#[test]
fn a_node_shows_all_that_is_known_of_it() {
    assert_eq!(
        shown(&nodes::page(&node(), &look())),
        [
            "name       office",
            "id         a1b2c3d4e5f60718293a4b5c6d7e8f90",
            "roles      operator, provisioner",
            "site       hq",
            "state      active",
            "link       this node",
            "enrolled   2026-01-30T08:00:00Z (24 h ago)",
            "report     2026-01-31T07:59:30Z (30 s ago)",
            "host       office.example",
            "version    0.1.0",
            "providers  local",
            "key        kkkkkkkk",
            "peer id    12D3Koo",
            "address    /ip4/10.0.0.1/tcp/7430"
        ]
    );
    let page = nodes::page(&agent(), &look());
    assert!(!page.contains("host"), "{page}");
}

#[test]
fn a_node_that_was_revoked_shows_by_whom_when_and_why() {
    let mut gone = agent();
    gone.state = "revoked".into();
    gone.revoked = Some(RevokedView {
        by: "office".into(),
        at: "2026-01-31T07:00:00Z".into(),
        reason: "sold".into(),
    });
    let page = nodes::page(&gone, &look());
    let lines = shown(&page);
    assert!(
        lines.contains(&"revoked   by office, 2026-01-31T07:00:00Z"),
        "{page}"
    );
    assert!(lines.contains(&"reason    sold"), "{page}");
}

#[test]
fn a_revocation_that_is_only_looked_at_says_so() {
    let done = NodeRevoked {
        id: agent().id,
        name: "web".into(),
        dry_run: true,
        honoured_statements: None,
        honoured_edits: None,
        lapsed: Lapsed {
            servers: vec!["db1".into()],
            limits: vec!["site hq".into()],
            ..Lapsed::default()
        },
    };
    assert_eq!(
        shown(&nodes::revoked(&done, &look())),
        [
            "node web would be revoked; nothing was changed",
            "would no longer count:",
            "  edits of planned servers, which are as they were before or gone: db1",
            "  limits, which are as they were before or gone: site hq"
        ]
    );
}

#[test]
fn a_planned_server_is_shown_as_planned_with_and_without_an_agent() {
    let planned = PlannedServer {
        name: "db1".into(),
        site: "berlin".into(),
        address: Some("10.0.0.7".into()),
        wave: Some("first".into()),
        note: Some("ask Ann".into()),
        ..PlannedServer::default()
    };
    let alone = ServerView {
        id: "cc00112233445566778899aabbccddee".into(),
        name: "db1".into(),
        planned: Some(planned.clone()),
        reported_at: None,
        disks: vec![],
        ..server()
    };
    let list = servers::list(&[server(), alone.clone()], &look());
    assert_eq!(
        shown(&list)[2],
        "cc001122  db1   10.0.0.7     planned, site berlin, wave first     -        -      -        -  planned"
    );
    assert_eq!(
        shown(&servers::page(&alone, &look()))[..5],
        [
            "name     db1",
            "id       cc00112233445566778899aabbccddee",
            "planned  site berlin, wave first",
            "address  10.0.0.7",
            "note     ask Ann"
        ]
    );
    let both = ServerView {
        planned: Some(planned),
        ..server()
    };
    let page = servers::page(&both, &look());
    let whereabouts = "planned   site berlin, wave first";
    assert!(shown(&page).contains(&whereabouts), "{page}");
}

#[test]
fn a_source_shows_its_disks() {
    assert_eq!(
        shown(&servers::page(&server(), &look())),
        [
            "name      web",
            "id        bb00112233445566778899aabbccddee",
            "host      web.example",
            "system    Debian 12",
            "kernel    6.1.0",
            "machine   QEMU Standard PC",
            "hardware  2 processors, 2.0 GiB of memory",
            "link      connected",
            "report    2026-01-31T07:58:00Z (2 min ago)",
            "",
            "disks",
            "ID        NAME     SIZE  KIND    MODEL  PATH",
            "7777aaaa  vda   4.0 GiB  device  -      /dev/vda"
        ]
    );
    assert_eq!(
        shown(&servers::list(&[server()], &look())),
        [
            "ID        NAME  HOST         SYSTEM     CPUS   MEMORY  DISKS    BYTES  LINK",
            "bb001122  web   web.example  Debian 12     2  2.0 GiB      1  4.0 GiB  connected"
        ]
    );
    assert_eq!(
        shown(&servers::disks(&[disk()], &look())),
        [
            "ID        NAME     SIZE  KIND    MODEL  SERVER  PATH",
            "7777aaaa  vda   4.0 GiB  device  -      web     /dev/vda"
        ]
    );
}

#[test]
fn invites_show_their_use_and_their_end() {
    assert_eq!(
        shown(&invites::list(&[invite()], &look())),
        [
            "ID        STATE  ROLES  NAME  SITE  USED  ENDS",
            "01020304  open   agent  -     -      0/1  in 23 h"
        ]
    );
}

#[test]
fn a_migration_shows_its_volumes_reasons_and_passes() {
    let mut job = job("stalled");
    job.detail = Some("the replicator is not connected".into());
    job.passes = vec![pass(1)];
    job.changes = Some("followed as they are written".into());
    let mut view = migration("started", vec![job]);
    view.conflicts = vec!["site: hq or dc2, shown is hq".into()];
    assert_eq!(
        shown(&migrations::page(&view, &look())),
        [
            "name         web-1",
            "id           3f2a91c05566778899aabbccddeeff00",
            "server       web",
            "to           local",
            "provisioner  office",
            "replicators  store",
            "wanted       started",
            "stage        stalled",
            "planned      2026-01-31T07:00:00Z (1 h ago)",
            "next         dunlin migration watch web-1",
            "",
            "conflicting edits",
            "site: hq or dc2, shown is hq",
            "",
            "volumes",
            "ID        NAME     SIZE  STAGE    STEP     PASS     DISK RATE  WIRE RATE  EPOCH  BARRIER  REPLICATOR",
            "7777aaaa  vda   4.0 GiB  stalled  copying  1: done  -          -              1        3  store",
            "",
            "volume vda",
            "because  the replicator is not connected",
            "copy at  /srv/cloud/vol-1/data",
            "changes  followed as they are written",
            "PASS  BLOCKS     SENT  TOOK  COMPARED",
            "   1   65536  4.0 GiB  13 s  whole disk"
        ]
    );
}

#[test]
fn a_start_and_the_page_say_how_long_a_revocation_may_go_unheard() {
    let mut view = migration("started", vec![job("initial-sync")]);
    view.exposure = Some(ExposureView {
        lease_secs: 3_600,
        autonomy_secs: 7 * 86_400,
        exposure_secs: 7 * 86_400 + 3_600,
    });
    let sentence = "a revocation may go unheard for up to 7d1h by an end that is cut off (lease 1h, autonomy 7d)";
    let told = |verb| migrations::told(verb, &view, &look());
    assert_eq!(shown(&told(Verb::Start)).last(), Some(&sentence));
    assert!(!told(Verb::Pause).contains("unheard"));
    view.dedup_group = Some("web".into());
    let told = migrations::told(Verb::Start, &view, &look());
    assert!(told.contains("disks of dedup group web"), "{told}");
    let page = migrations::page(&view, &look());
    assert!(shown(&page).contains(&format!("exposure     {sentence}").as_str()));
}

#[test]
fn a_list_of_migrations_shows_how_far_each_is() {
    let mut syncing = job("initial-sync");
    syncing.progress = Some(live(GIB));
    let views = [
        migration("started", vec![syncing, job("replicating")]),
        migration("created", vec![]),
    ];
    assert_eq!(
        shown(&migrations::list(&views, &look())),
        [
            "ID        NAME   SERVER  TO     STAGE         FIRST PASS          DISK RATE  WIRE RATE  NEXT",
            "3f2a91c0  web-1  web     local  initial-sync  [######....]  62 %  256 MiB/s  128 MiB/s  dunlin migration watch web-1",
            "3f2a91c0  web-1  web     local  enrolled      [..........]   0 %  -          -          dunlin migration watch web-1"
        ]
    );
}

#[test]
fn a_glance_shows_what_goes_on_and_what_is_wrong() {
    let mut failed = job("failed");
    failed.detail = Some("the source has gone".into());
    let mut view = status();
    view.migrations = vec![migration("started", vec![failed])];
    view.warnings = vec![event("web", 4, "2026-01-31T07:48:00Z")];
    assert_eq!(
        shown(&status::page(&view, &look())),
        [
            "node       office (a1b2c3d4): operator, provisioner, site hq",
            "state      running, version 0.1.0, enrolment active",
            "machine    bound to this machine by its DMI product UUID",
            "mesh       acme (ffeeddcc), 3 nodes",
            "links      2 of 2 others connected",
            "listening  /ip4/10.0.0.1/tcp/7430",
            "",
            "migrations",
            "ID        NAME   SERVER  TO     STAGE   FIRST PASS          DISK RATE  WIRE RATE  NEXT",
            "3f2a91c0  web-1  web     local  failed  [..........]   0 %  -          -          dunlin migration watch web-1",
            "web-1/vda failed: the source has gone",
            "",
            "warnings",
            "12 min ago, web: the replicator is not connected",
            "more with `dunlin events`"
        ]
    );
}

#[test]
fn a_glance_at_a_stopped_node_says_so_and_shows_no_links() {
    let mut view = status();
    view.running = false;
    let page = status::page(&view, &look());
    assert!(page.contains("start it with `dunlin run`"), "{page}");
    assert!(!page.contains("connected"), "{page}");
}

#[test]
fn who_does_not_count_is_not_taken_from_the_others_and_hears_what_is_said_of_it() {
    let mut view = status();
    view.node.state = "revoked".into();
    view.nodes = 2;
    let page = status::page(&view, &look());
    assert!(page.contains("2 of 2 others connected"), "{page}");
    let mut view = status();
    view.may_write = false;
    view.node.said_revoked = Some("web".into());
    let page = status::page(&view, &look());
    assert!(page.contains("web says that it was revoked"), "{page}");
    assert!(!page.contains("heard from a peer"), "{page}");
}

#[test]
fn a_copy_whose_volume_is_gone_is_not_only_called_equal() {
    let mut view = proven(Some("aaaa"), Some("aaaa"));
    view.volumes[0].volume_problem = Some("/cloud/x.raw is missing".into());
    let page = verify::page(&view, &look());
    let problem = "the copy's volume is not in order now: /cloud/x.raw is missing";
    assert!(shown(&page).contains(&problem), "{page}");
}

#[test]
fn proofs_show_both_roots_and_a_command_for_each_on_its_own_line() {
    assert_eq!(
        shown(&verify::page(&proven(Some("aaaa"), Some("aaaa")), &look())),
        [
            "volume vda (7777aaaa), 4.0 GiB = 4294967296 bytes",
            "source  aaaa",
            "        read in full, signed by web for epoch 1, 2026-01-31T07:59:00Z",
            "copy    aaaa",
            "        read in full, signed by store for epoch 1, 2026-01-31T07:59:00Z",
            "equal",
            "not confirmed by another node yet",
            "to prove it, on web:",
            "head -c 4294967296 /web/disk | b3sum",
            "to prove it, on store:",
            "head -c 4294967296 /store/disk | b3sum"
        ]
    );
    let open = verify::page(&proven(Some("aaaa"), None), &look());
    assert!(open.contains("copy    no signed root yet\n"), "{open}");
    assert!(open.contains("\nnot yet proven\n"), "{open}");
}

#[test]
fn a_confirmed_copy_says_by_whom_and_a_migration_shows_it_too() {
    let mut view = proven(Some("aaaa"), Some("aaaa"));
    view.volumes[0].witness = Some(proof("cloud", "aaaa"));
    view.volumes[0].unconfirmed = None;
    let page = verify::page(&view, &look());
    assert!(page.contains("witness aaaa\n"), "{page}");
    let confirmed = "confirmed by cloud, which read the copy back\n";
    assert!(page.contains(confirmed), "{page}");
    let mut job = job("cut-over");
    job.confirmed_by = Some("cloud".into());
    let page = migrations::page(&migration("cutover", vec![job]), &look());
    assert!(
        page.contains("by cloud, which read the copy back"),
        "{page}"
    );
}

#[test]
fn equal_roots_that_do_not_count_are_not_called_equal() {
    let mut view = proven(Some("aaaa"), Some("aaaa"));
    view.volumes[0].equal = false;
    let page = verify::page(&view, &look());
    assert!(
        page.contains("NOT EQUAL: the roots are the same, but"),
        "{page}"
    );
}

#[test]
fn events_are_one_a_line() {
    assert_eq!(
        shown(&events::list(
            &[event("web", 1, "2026-01-31T07:00:00Z")],
            &look()
        )),
        [
            "2026-01-31T07:00:00Z  web  warn   3f2a91c0  replicator-unreachable  the replicator is not connected"
        ]
    );
}

#[test]
fn what_other_nodes_say_cannot_steer_the_terminal() {
    let mut hostile = event("web\u{1b}[2J", 1, "2026-01-31T07:00:00Z");
    hostile.text = "one\ntwo\r\u{9b}31m\u{202e}".into();
    let look = Look {
        colour: true,
        ..look()
    };
    let page = events::list(&[hostile], &look);
    let plain = ["\u{1b}[2m", "\u{1b}[33m", "\u{1b}[0m"]
        .iter()
        .fold(page, |page, own| page.replace(own, ""));
    assert_eq!(plain.lines().count(), 1, "{plain}");
    assert!(!plain.trim_end().contains(char::is_control), "{plain:?}");
    assert!(!plain.contains('\u{202e}'), "{plain:?}");
}

#[test]
fn colours_are_there_only_when_wanted() {
    let plain = nodes::list(&[node(), agent()], &look());
    assert!(!plain.contains('\u{1b}'));
    let look = Look {
        colour: true,
        ..look()
    };
    let coloured = nodes::list(&[node(), agent()], &look);
    assert!(
        coloured.contains("\u{1b}[32mactive\u{1b}[0m"),
        "{coloured:?}"
    );
}

#[test]
fn a_narrow_terminal_cuts_only_what_may_be_cut() {
    let look = Look {
        width: Some(40),
        ..look()
    };
    let mut table = Table::new(["ID", "~PATH", ">SIZE"]);
    let long = "/srv/images/a-very-long-name-of-a-disk-image.raw";
    table.row(["0123456789abcdef".into(), long.into(), "1.0 GiB".into()]);
    let mut page = Page::new(&look);
    page.table(table);
    let text = page.finish();
    assert!(
        text.lines().all(|line| line.chars().count() <= 40),
        "{text}"
    );
    assert!(text.contains("0123456789abcdef  /srv/images/"), "{text}");
    assert!(text.contains("…  1.0 GiB"), "{text}");
}

#[test]
fn first_passes_count_by_bytes_over_all_volumes() {
    let mut small = job("replicating");
    small.length = GIB;
    let mut large = job("initial-sync");
    large.length = 3 * GIB;
    large.progress = Some(live(GIB));
    let view = migration("started", vec![small, large]);
    assert_eq!(progress::first_passes_percent(&view), Some(50));
    let speed = progress::Speed {
        disk_bytes: 256 << 20,
        sent_bytes: Some(128 << 20),
    };
    assert_eq!(progress::total_speed(&view), Some(speed));
    assert_eq!(
        progress::first_passes_percent(&migration("created", vec![])),
        Some(0)
    );
}

#[test]
fn what_is_not_known_any_more_has_no_share_and_no_bar() {
    let mut lost = job("unknown");
    lost.length = 0;
    let lost = migration("started", vec![lost]);
    assert_eq!(progress::first_passes_percent(&lost), None);
    let text = super::migrations::list(std::slice::from_ref(&lost), &look());
    assert!(text.contains("unknown") && !text.contains('%'), "{text}");
    // One that has not reported its disk's length has made no pass.
    let mut fresh = job("enrolled");
    fresh.length = 0;
    let fresh = migration("created", vec![fresh]);
    assert_eq!(progress::first_passes_percent(&fresh), Some(0));
}

#[test]
fn a_first_pass_that_is_held_shows_what_of_it_is_in_the_copy() {
    let mut held = job("paused");
    held.step = "paused".into();
    held.first_pass_bytes = Some(3 * GIB);
    assert_eq!(progress::pass_percent(&held), 75);
    let said = " 75 % paused, pass 1, 3.0 GiB of 4.0 GiB in the copy";
    assert_eq!(progress::line(&held), said);
    let view = migration("paused", vec![held]);
    assert_eq!(progress::first_passes_percent(&view), Some(75));
    let page = migrations::page(&view, &look());
    assert!(page.contains("1: 75 %"), "{page}");
    // After a restart nobody knows before it goes on, and nobody says 0.
    let mut restarted = job("paused");
    restarted.first_pass_bytes = None;
    let view = migration("paused", vec![restarted]);
    assert_eq!(progress::first_passes_percent(&view), None);
}

#[test]
fn both_rates_are_told_apart_where_they_are_far_from_each_other() {
    let mut moving = job("initial-sync");
    moving.progress = Some(live(GIB));
    let line = progress::line(&moving);
    let rates = "pass 1, 256 MiB/s of the disk, 128 MiB/s on the wire, ";
    assert!(line.contains(rates), "{line}");
    for sent in [None, Some(250 << 20)] {
        moving.progress.as_mut().unwrap().sent_bytes_per_sec = sent;
        let line = progress::line(&moving);
        assert!(line.contains("pass 1, 256 MiB/s, "), "{line}");
    }
}

#[test]
fn what_a_migration_is_held_to_is_said_wherever_its_rate_is_shown() {
    let mut slow = job("initial-sync");
    let mut figures = live(GIB);
    figures.limit_bytes_per_sec = Some(2 << 20);
    slow.progress = Some(figures.clone());
    assert_eq!(progress::holds(&slow), ["limit 2.0 MiB/s"]);
    figures.reads_held_bytes_per_sec = Some(1 << 20);
    slow.progress = Some(figures);
    let line = progress::line(&slow);
    let short = "limit 2.0 MiB/s, gives way to own work at 1.0 MiB/s";
    assert!(line.contains(short), "{line}");
    let why = "a limit of 2.0 MiB/s for all disks of this server together; reading 1.0 MiB/s, since what the server itself writes slows";
    let one = format!("web-1/vda is held to {why}");
    let all = format!("web-1 (2 disks) is held to {why}");
    let view = |disks| migration("started", disks);
    let lists = |page: &str, line: &str| page.lines().any(|shown| shown == line);
    let page = migrations::list(&[view(vec![slow.clone()])], &look());
    assert!(lists(&page, &one), "{page}");
    let page = migrations::page(&view(vec![slow.clone()]), &look());
    assert!(page.contains(&format!("held to  {why}")), "{page}");
    let mut glance = status();
    glance.migrations = vec![view(vec![slow.clone(), slow.clone()])];
    let page = status::page(&glance, &look());
    assert!(lists(&page, &all), "{page}");
    // Between passes, and once it is paused, nothing is held.
    slow.stage = "paused".into();
    assert_eq!(progress::held_to(&slow), None);
    assert!(progress::holds(&slow).is_empty());
}

fn check(check: &str, state: CheckState, todo: Option<&str>) -> CheckView {
    CheckView {
        check: check.into(),
        on: None,
        state,
        text: format!("how {check} is"),
        todo: todo.map(Into::into),
    }
}

#[test]
fn checks_are_aligned_with_what_to_do_below_and_a_sum() {
    let clock = check("clock", CheckState::Warning, Some("set it"));
    let on_web = CheckView {
        on: Some("web".into()),
        ..check("member", CheckState::Failed, Some("start it"))
    };
    let view = DoctorView {
        folder: "/d".into(),
        node: Some("office".into()),
        running: true,
        state: CheckState::Failed,
        checks: vec![check("aes", CheckState::Ok, None), clock, on_web],
    };
    assert_eq!(
        shown(&doctor::page(&view, &look())),
        [
            "ok       aes         how aes is",
            "warning  clock       how clock is",
            "                     → set it",
            "failed   member web  how member is",
            "                     → start it",
            "",
            "3 checks: 1 ok, 1 warning, 1 failed"
        ]
    );
}

#[test]
fn a_speed_check_shows_way_round_trip_and_both_directions() {
    let flow = FlowView {
        bytes_per_sec: 125_000_000,
        bytes: 187_500_000,
        seconds: 1.5,
        bytes_in_all: 1 << 28,
    };
    let mut view = SpeedView {
        id: NODE_ID.into(),
        node: "web".into(),
        path: PathView {
            own_connections: 1,
            transport: Some("tcp".into()),
            relayed: Some(false),
            address: Some("/ip4/192.0.2.1/tcp/7430".into()),
        },
        round_trip: RoundTripView {
            count: 20,
            median_micros: 245,
            worst_micros: 100_900,
        },
        sent: flow.clone(),
        received: flow,
        clock_ahead_millis: -1_250,
    };
    assert_eq!(
        shown(&doctor::speed(&view, &look())),
        [
            "node        web",
            "path        a connection of its own, by tcp, direct, /ip4/192.0.2.1/tcp/7430",
            "round trip  0.24 ms in the middle, 100 ms at worst, of 20",
            "sent        119 MiB/s (1000 Mbit/s): 179 MiB in 1.5 s, 256 MiB in all",
            "received    119 MiB/s (1000 Mbit/s): 179 MiB in 1.5 s, 256 MiB in all",
            "its clock   1.2 s behind this one"
        ]
    );
    view.path.own_connections = 7;
    assert!(doctor::speed(&view, &look()).contains("7 connections of its own, by tcp"));
    view.path = PathView {
        own_connections: 0,
        transport: None,
        relayed: None,
        address: None,
    };
    view.clock_ahead_millis = 3_600_000;
    let page = doctor::speed(&view, &look());
    assert!(
        page.contains("the shared connection, one of several"),
        "{page}"
    );
    assert!(
        page.contains("3600.0 s ahead of this one: set both"),
        "{page}"
    );
}

#[test]
fn limits_are_shown_with_what_holds_now_and_until_when() {
    let site = LimitView {
        server: None,
        server_id: None,
        site: Some("hq".into()),
        timetable: "100Mbit/s".into(),
        now: "100Mbit/s".into(),
        until: None,
        shared_by: Some(3),
        zone: "Mars/Olympus".into(),
        zone_is_known: false,
        is_readable: false,
        conflicts: vec!["operators set the limit apart".into()],
        ..limit()
    };
    assert_eq!(
        shown(&limits::list(&[limit(), site.clone()], &look())),
        [
            "OF          NOW        UNTIL                 TIMETABLE                ZONE           POLITE  SHARED BY  SET BY",
            "server web  20MiB/s    Sat 2026-01-31 18:00  08:00,20MiB/s 18:00,off  Europe/Berlin  -       -          office",
            "site hq     100Mbit/s  -                     100Mbit/s                Mars/Olympus   -       3 agents   office",
            "the limit of site hq cannot be read by this program, and 100Mbit/s holds instead: use a newer program, set it again or remove it",
            "time zone Mars/Olympus is not known here: the slowest rate of the limit of site hq holds all the time",
            "operators set the limit apart",
        ]
    );
    let limited = ServerView {
        limits: vec![limit(), site],
        limit_warning: Some("time zone Mars/Olympus is not known on this server".into()),
        ..server()
    };
    let page = servers::page(&limited, &look());
    let line = "limit     20MiB/s for server web until Sat 2026-01-31 18:00 (Europe/Berlin); 100Mbit/s for site hq, the slowest for time zone Mars/Olympus is not known here";
    assert!(shown(&page).contains(&line), "{page}");
    let line = "its word  time zone Mars/Olympus is not known on this server";
    assert!(shown(&page).contains(&line), "{page}");
    let moved = MigrationView {
        limits: vec![LimitView {
            polite: true,
            ..limit()
        }],
        ..migration("started", vec![])
    };
    let page = migrations::page(&moved, &look());
    assert!(page.contains("(Europe/Berlin), polite\n"), "{page}");
    assert!(limits::list(&[], &look()).contains("dunlin limit set"));
}

#[test]
fn the_limit_of_a_server_that_does_not_count_any_more_is_listed_as_such() {
    let gone = LimitView {
        server_state: Some("revoked".into()),
        ..limit()
    };
    let page = limits::list(&[gone], &look());
    let said = "the node of server web is revoked, and its limit holds for nobody: `dunlin limit remove --server bb001122` takes it away";
    assert!(shown(&page).contains(&said), "{page}");
    assert!(!limits::list(&[limit()], &look()).contains("holds for nobody"));
}

#[test]
fn what_a_limit_took_the_place_of_is_said_in_full() {
    let old = LimitView {
        polite: true,
        ..limit()
    };
    let new = LimitView {
        timetable: "off".into(),
        ..limit()
    };
    let replaced = limits::replaced(std::slice::from_ref(&old), &new);
    let said = "it took the place of: 08:00,20MiB/s 18:00,off, zone Europe/Berlin, polite";
    assert_eq!(replaced.as_deref(), Some(said));
    assert_eq!(limits::replaced(&[], &new), None);
    assert_eq!(limits::replaced(std::slice::from_ref(&new), &new), None);
}
