//! Views of a small mesh.

use crate::api::model::*;

pub const NODE_ID: &str = "a1b2c3d4e5f60718293a4b5c6d7e8f90";
pub const MIGRATION_ID: &str = "3f2a91c05566778899aabbccddeeff00";
pub const VOLUME_ID: &str = "7777aaaabbbbccccddddeeeeffff0000";
pub const GIB: u64 = 1 << 30;

pub fn node() -> NodeView {
    NodeView {
        revoked: None,
        said_revoked: None,
        id: NODE_ID.into(),
        name: "office".into(),
        roles: vec!["operator".into(), "provisioner".into()],
        site: Some("hq".into()),
        scope: None,
        ends_at: None,
        key: "k".repeat(8),
        peer_id: "12D3Koo".into(),
        state: "active".into(),
        this_node: true,
        connected: Some(true),
        enrolled_at: "2026-01-30T08:00:00Z".into(),
        reported_at: Some("2026-01-31T07:59:30Z".into()),
        hostname: Some("office.example".into()),
        version: Some("0.1.0".into()),
        addresses: vec!["/ip4/10.0.0.1/tcp/7430".into()],
        providers: vec!["local".into()],
    }
}

pub fn agent() -> NodeView {
    NodeView {
        id: "bb00112233445566778899aabbccddee".into(),
        name: "web".into(),
        roles: vec!["agent".into()],
        site: None,
        this_node: false,
        connected: Some(false),
        reported_at: None,
        hostname: None,
        version: None,
        addresses: Vec::new(),
        providers: Vec::new(),
        ..node()
    }
}

pub fn disk() -> VolumeView {
    VolumeView {
        id: VOLUME_ID.into(),
        name: "vda".into(),
        path: "/dev/vda".into(),
        length: 4 * GIB,
        kind: "device".into(),
        model: None,
        server: "web".into(),
        changes: None,
    }
}

pub fn server() -> ServerView {
    ServerView {
        planned: None,
        id: agent().id,
        name: "web".into(),
        hostname: "web.example".into(),
        os: "Debian 12".into(),
        kernel: "6.1.0".into(),
        cpus: 2,
        memory_bytes: 2 * GIB,
        machine: "QEMU Standard PC".into(),
        connected: Some(true),
        reported_at: Some("2026-01-31T07:58:00Z".into()),
        disks: vec![disk()],
        limits: vec![],
        limit_warning: None,
        inventory: None,
        findings: vec![],
    }
}

pub fn job(stage: &str) -> JobView {
    JobView {
        volume: VOLUME_ID.into(),
        name: "vda".into(),
        length: 4 * GIB,
        stage: stage.into(),
        step: "copying".into(),
        detail: None,
        epoch: 1,
        replicator: Some("store".into()),
        target_path: Some("/srv/cloud/vol-1/data".into()),
        barrier: 3,
        confirmed_by: None,
        unconfirmed: None,
        left_out: vec![],
        bytes_left_out: 0,
        passes: Vec::new(),
        progress: None,
        changes: None,
        first_pass_bytes: Some(0),
        counters: None,
        forecast: None,
    }
}

pub fn pass(pass: u32) -> PassView {
    PassView {
        pass,
        blocks: 65_536,
        bytes_sent: 4 * GIB,
        millis: 13_500,
        since_millis: None,
        tracked: false,
    }
}

pub fn live(done_bytes: u64) -> ProgressView {
    ProgressView {
        pass: 1,
        total_bytes: 4 * GIB,
        done_bytes,
        sent_bytes: done_bytes / 2,
        bytes_per_sec: 256 << 20,
        pass_bytes_per_sec: 256 << 20,
        sent_bytes_per_sec: Some(128 << 20),
        millis: 4_000,
        limit_bytes_per_sec: None,
        reads_held_bytes_per_sec: None,
    }
}

pub fn migration(desired: &str, volumes: Vec<JobView>) -> MigrationView {
    MigrationView {
        id: MIGRATION_ID.into(),
        name: "web-1".into(),
        server: "web".into(),
        to: "local".into(),
        site: None,
        provisioner: "office".into(),
        replicators: vec!["store".into()],
        desired: desired.into(),
        stage: volumes
            .first()
            .map_or("enrolled".into(), |job| job.stage.clone()),
        created_at: "2026-01-31T07:00:00Z".into(),
        volumes,
        exposure: None,
        dedup_group: None,
        standing_grants: vec![],
        hooks: vec![],
        leave_out: None,
        checkpoints: vec![],
        keep_checkpoints: None,
        limits: vec![],
        conflicts: Vec::new(),
        next: Some("dunlin migration watch web-1".into()),
    }
}

pub fn event(node: &str, seq: u64, at: &str) -> EventView {
    EventView {
        node: node.into(),
        seq,
        at: at.into(),
        level: "warn".into(),
        migration: Some(MIGRATION_ID.into()),
        kind: "replicator-unreachable".into(),
        text: "the replicator is not connected".into(),
    }
}

pub fn status() -> StatusView {
    StatusView {
        version: "0.1.0".into(),
        machine: "bound to this machine by its DMI product UUID".into(),
        may_write: true,
        running: true,
        mesh: "ffeeddccbbaa00112233445566778899".into(),
        mesh_name: "acme".into(),
        node: node(),
        nodes: 3,
        connected: 2,
        listening: vec!["/ip4/10.0.0.1/tcp/7430".into()],
        heads: crate::api::model::HeadsView {
            ledger: "00".repeat(32),
            logs: "11".repeat(32),
            reports: "22".repeat(32),
        },
        migrations: Vec::new(),
        warnings: Vec::new(),
    }
}

pub fn invite() -> InviteView {
    InviteView {
        id: "0102030405060708".into(),
        roles: vec!["agent".into()],
        name: None,
        site: None,
        expires_at: "2026-02-01T07:00:00Z".into(),
        uses: 1,
        used: 0,
        state: "open".into(),
    }
}

pub fn proof(by: &str, root: &str) -> ProofView {
    ProofView {
        root: root.into(),
        method: "read in full".into(),
        at: "2026-01-31T07:59:00Z".into(),
        signed_by: by.into(),
        epoch: 1,
        left_out: vec![],
        bytes_left_out: 0,
        command: format!("head -c 4294967296 /{by}/disk | b3sum"),
    }
}

pub fn proven(source: Option<&str>, target: Option<&str>) -> VerifyView {
    let equal = source.is_some() && source == target;
    VerifyView {
        checkpoints: vec![],
        migration: MIGRATION_ID.into(),
        verified: equal,
        confirmed: false,
        volumes: vec![VolumeProof {
            volume_problem: None,
            volume: VOLUME_ID.into(),
            name: "vda".into(),
            length: 4 * GIB,
            source: source.map(|root| proof("web", root)),
            target: target.map(|root| proof("store", root)),
            witness: None,
            equal,
            confirmed: false,
            unconfirmed: Some("not confirmed by another node yet".into()),
        }],
    }
}

pub fn limit() -> LimitView {
    LimitView {
        server: Some("web".into()),
        server_id: Some(agent().id),
        timetable: "08:00,20MiB/s 18:00,off".into(),
        zone: "Europe/Berlin".into(),
        zone_is_known: true,
        is_readable: true,
        now: "20MiB/s".into(),
        now_bytes_per_sec: Some(20 << 20),
        until: Some("2026-01-31T17:00:00Z".into()),
        set_by: "office".into(),
        ..LimitView::default()
    }
}
