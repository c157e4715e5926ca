//! Commands that have a running node do something.
//!
//! Not here: what it does (the node) and the waiting (`watch`, `follow`).

use std::path::Path;

use serde::Serialize;
use serde_json::Value;

use crate::api::client::Client;
use crate::api::model::{
    ActionOptions, InviteCreate, InviteCreated, MigrationCreate, MigrationView, VolumeAdd,
    VolumeView,
};

use super::figures::short_id;
use super::outcome::CommandError;
use super::page::clean;
use super::reader::one;
use super::screen::Screen;
use super::task::{Act, Verb};
use super::{InviteCreateArgs, MigrationCreateArgs, Steer, follow, plan, render, watch};

#[derive(Serialize)]
struct Revoke<'a> {
    reason: Option<&'a str>,
}

/// Asks the node and prints what came of it.
pub async fn run(act: Act, client: &Client, screen: &mut Screen) -> Result<(), CommandError> {
    match act {
        Act::InviteCreate(args) => invite_create(args, client, screen).await,
        Act::InviteRevoke(id) => revoke("invites", &id, None, client, screen).await,
        Act::NodeRevoke { id, reason } => {
            revoke("nodes", &id, reason.as_deref(), client, screen).await
        }
        Act::VolumeRemove(which) => {
            let route = format!("{}/remove", one("volumes", &which));
            let removed: VolumeView = client.post(&route, &Value::Null).await?;
            screen.result(&removed, |disk, _| {
                format!("disk {} is not offered any more\n", clean(&disk.name))
            })
        }
        Act::VolumeAdd { path, name } => volume_add(&path, name, client, screen).await,
        Act::MigrationCreate(args) => migration_create(args, client, screen).await,
        Act::Steer(verb, args) => steer(verb, &args, client, screen).await,
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

async fn revoke(
    kind: &str,
    which: &str,
    reason: Option<&str>,
    client: &Client,
    screen: &mut Screen,
) -> Result<(), CommandError> {
    let route = format!("{}/revoke", one(kind, which));
    let answer: Value = client.post(&route, &Revoke { reason }).await?;
    let what = kind.trim_end_matches('s');
    screen.result(&answer, |_, _| format!("{what} {} revoked\n", clean(which)))
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
    };
    let made: MigrationView = client.post("/v1/migrations", &wanted).await?;
    screen.result(&made, render::migrations::page)
}

async fn steer(
    verb: Verb,
    args: &Steer,
    client: &Client,
    screen: &mut Screen,
) -> Result<(), CommandError> {
    let route = format!("{}/{}", one("migrations", &args.id), verb.word());
    let prove_full = verb == Verb::Cutover { prove_full: true };
    let view: MigrationView = client.post(&route, &ActionOptions { prove_full }).await?;
    if args.wait {
        return watch::wait(verb, view, client, screen).await;
    }
    screen.result(&view, |view, look| {
        render::migrations::told(verb, view, look)
    })
}
