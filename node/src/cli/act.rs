//! Commands that have a running node do something.
//!
//! Not here: what it does (the node) and the waiting (`watch`, `follow`).

use std::path::Path;
use std::time::{Duration, Instant};

use serde::Serialize;
use serde_json::Value;

use crate::api::client::Client;
use crate::api::model::{
    ActionOptions, HookRemove, InviteCreate, InviteCreated, InviteRevoke, KeyRotated, LimitOf,
    LimitView, MigrationCreate, MigrationDelete, MigrationView, NodeRevoke, NodeRevoked,
    PlannedHook, PlannedLimit, StatusView, VolumeAdd, VolumeView,
};
use crate::api::secret::Secret;
use crate::hours;
use crate::local::read_root_key;

use super::figures::short_id;
use super::outcome::CommandError;
use super::page::clean;
use super::reader::one;
use super::screen::Screen;
use super::task::{Act, Verb};
use super::{
    HookAddArgs, InviteCreateArgs, LimitOfArgs, LimitSetArgs, MigrationCreateArgs, NodeRevokeArgs,
    Steer, doctor, follow, plan, render, watch,
};

/// How long a node may take to come back with its next key.
const COMES_BACK: Duration = Duration::from_secs(30);
/// How often it is looked for.
const LOOK: Duration = Duration::from_millis(200);

/// Asks the node and prints what came of it.
pub async fn run(act: Act, client: &Client, screen: &mut Screen) -> Result<(), CommandError> {
    match act {
        Act::InviteCreate(args) => invite_create(args, client, screen).await,
        Act::InviteRevoke { id, root_key } => {
            invite_revoke(&id, root_key.as_deref(), client, screen).await
        }
        Act::NodeRevoke(args) => node_revoke(args, client, screen).await,
        Act::Measure { to, seconds } => doctor::measure(&to, seconds, client, screen).await,
        Act::RotateKey => rotate_key(client, screen).await,
        Act::VolumeRemove(which) => {
            let route = format!("{}/remove", one("volumes", &which));
            let removed: VolumeView = client.post(&route, &Value::Null).await?;
            screen.result(&removed, |disk, _| {
                format!("disk {} is not offered any more\n", clean(&disk.name))
            })
        }
        Act::VolumeAdd { path, name } => volume_add(&path, name, client, screen).await,
        Act::LimitSet(args) => limit_set(args, client, screen).await,
        Act::LimitRemove(LimitOfArgs { server, site }) => {
            let asked = LimitOf { server, site };
            let removed: LimitView = client.post("/v1/limits/remove", &asked).await?;
            screen.result(&removed, |limit, _| {
                let of = render::limits::of(limit);
                format!("{} has no limit any more\n", clean(&of))
            })
        }
        Act::MigrationCreate(args) => migration_create(args, client, screen).await,
        Act::HookAdd(args) => hook_add(args, client, screen).await,
        Act::HookRemove { id, number } => {
            let route = format!("{}/hooks/remove", one("migrations", &id));
            let view: MigrationView = client.post(&route, &HookRemove { number }).await?;
            screen.result(&view.hooks, render::hooks::list)
        }
        Act::Checkpoint { id, ask } => {
            let route = format!("{}/checkpoints", one("migrations", &id));
            let view: MigrationView = client.post(&route, &ask).await?;
            screen.result(&view.checkpoints, |all, look| {
                render::checkpoints::list(all, look)
            })
        }
        Act::Start(args) => {
            let options = ActionOptions {
                lease_secs: args.lease.map(|lease| lease.as_secs()),
                autonomy_secs: args.autonomy.map(|autonomy| autonomy.as_secs()),
                dedup_group: match args.no_dedup_group {
                    true => Some(String::new()),
                    false => args.dedup_group,
                },
                ..ActionOptions::default()
            };
            steer(Verb::Start, &args.steer, options, client, screen).await
        }
        Act::Steer(verb, args) => {
            let mut options = ActionOptions::default();
            if let Verb::Cutover { prove_full, source } = verb {
                options.prove_full = prove_full;
                options.source = source.map(|end| crdt::SourceEnd::from(end).to_string());
            }
            steer(verb, &args, options, client, screen).await
        }
        Act::Delete {
            steer: args,
            root_key,
        } => {
            let root_key = lent(root_key.as_deref())?;
            let asked = MigrationDelete { root_key };
            steer(Verb::Delete, &args, asked, client, screen).await
        }
        Act::PlanApply(args) => plan::apply(&args, client, screen).await,
        Act::Watch(which) => watch::watch(&which, client, screen).await,
        Act::Follow(events) => follow::follow(&events, client, screen).await,
    }
}

async fn invite_create(
    args: InviteCreateArgs,
    client: &Client,
    screen: &mut Screen,
) -> Result<(), CommandError> {
    let wanted = InviteCreate {
        roles: args.role.iter().map(ToString::to_string).collect(),
        name: args.name,
        site: args.site,
        expires_secs: args.expires.as_secs(),
        uses: args.uses,
        scope: args.scope,
        valid_for_secs: args.valid_for.map(|lasts| lasts.as_secs()),
        root_key: lent(args.root_key.as_deref())?,
    };
    let made: InviteCreated = client.post("/v1/invites", &wanted).await?;
    screen.result(&made, |made, _| format!("{}\n", clean(&made.invite)))?;
    screen.note(format!(
        "invite {} for {}, open until {}; on the new machine run `dunlin join -` and paste the line above, which is a secret",
        short_id(&made.id),
        made.roles.join(", "),
        made.expires_at,
    ));
    if made.addresses.is_empty() {
        screen.warn(
            "warning: the invite names no address, so only machines on this local network find this node; let it listen where others reach it: `dunlin run --listen /ip4/ADDRESS/tcp/PORT`",
        );
    }
    Ok(())
}

/// The root key's text, to be lent to the node for one call.
fn lent(file: Option<&Path>) -> Result<Option<Secret>, CommandError> {
    let Some(file) = file else { return Ok(None) };
    let text = read_root_key(file).map_err(|error| CommandError::usage(format!("{error:#}")))?;
    Ok(Some(Secret::new(text)))
}

async fn invite_revoke(
    which: &str,
    root_key: Option<&Path>,
    client: &Client,
    screen: &mut Screen,
) -> Result<(), CommandError> {
    let route = format!("{}/revoke", one("invites", which));
    let root_key = lent(root_key)?;
    let answer: Value = client.post(&route, &InviteRevoke { root_key }).await?;
    screen.result(&answer, |_, _| format!("invite {} revoked\n", clean(which)))
}

async fn node_revoke(
    args: NodeRevokeArgs,
    client: &Client,
    screen: &mut Screen,
) -> Result<(), CommandError> {
    let route = format!("{}/revoke", one("nodes", &args.id));
    let asked = NodeRevoke {
        reason: args.reason,
        honour_through: args.honour_through,
        honour_edits: args.honour_edits,
        dry_run: args.dry_run,
        root_key: lent(args.root_key.as_deref())?,
    };
    let revoked: NodeRevoked = client.post(&route, &asked).await?;
    screen.result(&revoked, render::nodes::revoked)
}

async fn rotate_key(client: &Client, screen: &mut Screen) -> Result<(), CommandError> {
    let rotated: KeyRotated = client.post("/v1/rotate-key", &Value::Null).await?;
    let until = Instant::now() + COMES_BACK;
    loop {
        // While it begins again nobody answers.
        let status: Result<StatusView, _> = client.get("/v1/status").await;
        if status.is_ok_and(|status| status.node.key == rotated.key) {
            break;
        }
        if Instant::now() >= until {
            return Err(CommandError::failed(
                "the key was changed, but the node has not come back with it: look at its log, and start it again with `dunlin run`",
            ));
        }
        // Its socket is made anew, which nothing tells.
        tokio::time::sleep(LOOK).await;
    }
    screen.result(&rotated, |rotated, _| {
        format!(
            "this node has a new key {}\npeer id {}\n",
            rotated.key, rotated.peer_id
        )
    })?;
    if !rotated.closed_invites.is_empty() {
        screen.warn(format!(
            "warning: {} open invites of this node named its old key and admit nobody any more: make new ones",
            rotated.closed_invites.len()
        ));
    }
    Ok(())
}

async fn volume_add(
    path: &Path,
    name: Option<String>,
    client: &Client,
    screen: &mut Screen,
) -> Result<(), CommandError> {
    let path = std::path::absolute(path).map_err(|error| {
        CommandError::usage(format!(
            "`{}` cannot be offered as a disk: {error}; give the path of a device or image file",
            path.display()
        ))
    })?;
    let added: VolumeView = client
        .post("/v1/volumes", &VolumeAdd { path, name })
        .await?;
    screen.result(&added, |added, look| {
        render::servers::disks(std::slice::from_ref(added), look)
    })?;
    screen.note(format!(
        "offered to the mesh; next, on an operator's node: `dunlin migration create --server {} --to PROVIDER`",
        added.server
    ));
    Ok(())
}

async fn limit_set(
    args: LimitSetArgs,
    client: &Client,
    screen: &mut Screen,
) -> Result<(), CommandError> {
    let asked = PlannedLimit {
        server: args.of.server,
        site: args.of.site,
        timetable: args.timetable.to_string(),
        zone: args.zone.unwrap_or_else(hours::zone_here),
        polite: args.polite,
    };
    let before: Vec<LimitView> = client.get("/v1/limits").await?;
    let set: LimitView = client.post("/v1/limits", &asked).await?;
    screen.result(&set, |set, look| {
        render::limits::list(std::slice::from_ref(set), look)
    })?;
    if let Some(replaced) = render::limits::replaced(&before, &set) {
        screen.note(replaced);
    }
    Ok(())
}

async fn migration_create(
    args: MigrationCreateArgs,
    client: &Client,
    screen: &mut Screen,
) -> Result<(), CommandError> {
    let wanted = MigrationCreate {
        name: args.name,
        server: args.server,
        to: args.to,
        site: args.site,
        provisioner: args.provisioner,
        replicators: args.replicator,
        disks: args.disk,
        leave_out: args.leave_out.map(|what| what.to_string()),
    };
    let made: MigrationView = client.post("/v1/migrations", &wanted).await?;
    screen.result(&made, render::migrations::page)
}

async fn hook_add(
    args: HookAddArgs,
    client: &Client,
    screen: &mut Screen,
) -> Result<(), CommandError> {
    let asked = PlannedHook {
        point: args.point.to_string(),
        name: args.script,
        on: args.on.to_string(),
        timeout_secs: u32::try_from(args.timeout.as_secs()).unwrap_or(u32::MAX),
        on_failure: args.on_failure.map(|what| what.to_string()),
        env: args.env.into_iter().collect(),
    };
    let route = format!("{}/hooks", one("migrations", &args.id));
    let view: MigrationView = client.post(&route, &asked).await?;
    screen.result(&view.hooks, render::hooks::list)
}

async fn steer(
    verb: Verb,
    args: &Steer,
    options: impl Serialize,
    client: &Client,
    screen: &mut Screen,
) -> Result<(), CommandError> {
    let route = format!("{}/{}", one("migrations", &args.id), verb.word());
    let view: MigrationView = client.post(&route, &options).await?;
    if args.wait {
        if verb == Verb::Start {
            render::migrations::granted(&view).for_each(|line| screen.note(line));
        }
        if verb == Verb::Delete {
            let left = render::migrations::left_by_delete(&view);
            left.into_iter().for_each(|line| screen.note(line));
        }
        return watch::wait(verb, view, client, screen).await;
    }
    screen.result(&view, |view, look| {
        render::migrations::told(verb, view, look)
    })
}
