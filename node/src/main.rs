//! `dunlin`: moves running servers' disks to any cloud, from peer to peer.
//!
//! Reads the command line and hands the task to what can carry it out: this process,
//! or the running node through its local API.

mod api;
#[cfg(test)]
mod bench;
mod cli;
mod clock;
mod config;
mod datadir;
mod demo;
mod doctor;
mod engine;
mod guard;
mod hooks;
mod hours;
mod local;
mod machine;
mod metrics;
mod net;
mod planfile;
mod speed;
mod stillness;
mod store;
mod transfer;
mod views;

use api::client::Client;
use cli::outcome::CommandError;
use cli::screen::Screen;
use cli::task::{Here, Read, Task};
use cli::{Cli, Globals, MeshInit, MeshRecover};
use datadir::DataDirError;
use keys::invite::Token;
use keys::{Name, Roles};
use std::process::ExitCode;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::writer::BoxMakeWriter;

fn main() -> ExitCode {
    let cli = match Cli::read(std::env::args_os()) {
        Ok(cli) => cli,
        Err(status) => return ExitCode::from(status),
    };
    let Cli { globals, command } = cli;
    let task = Task::from(command);
    let log = log_to_stderr(&globals, &task);
    let mut screen = Screen::of_process(&globals);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build();
    let ended = match runtime {
        Ok(runtime) => {
            let ended = runtime.block_on(carry_out(task, &globals, &mut screen));
            runtime.shutdown_timeout(std::time::Duration::from_secs(3));
            ended
        }
        Err(error) => Err(CommandError::failed(format!(
            "the program cannot start its threads: {error}"
        ))),
    };
    if let Some(log) = log {
        log.finish();
    }
    cli::outcome::report(ended, globals.json)
}

/// Logs are for those who ask: a node logs what it does, a command only warnings. A guard's is
/// written by a thread, which is to be waited for at the end.
fn log_to_stderr(globals: &Globals, task: &Task) -> Option<guard::Log> {
    let runs = matches!(task, Task::Here(Here::Run(_) | Here::Guard(_)));
    let default = match (globals.verbose, runs) {
        (0, false) => "error",
        // That a packet was not sent while the network is away, the node says in its own words.
        (0, true) if globals.quiet => "quinn_udp=error,warn",
        (0, true) => "dunlin=info,quinn_udp=error,warn",
        (1, _) => "dunlin=debug,info",
        _ => "trace",
    };
    let filter = EnvFilter::try_from_env("DUNLIN_LOG").unwrap_or_else(|_| EnvFilter::new(default));
    // Without a thread it is written as every other.
    let log = match task {
        Task::Here(Here::Guard(_)) => guard::Log::to(std::io::stderr()).ok(),
        _ => None,
    };
    let writer = match &log {
        Some(log) => BoxMakeWriter::new(log.clone()),
        None => BoxMakeWriter::new(std::io::stderr),
    };
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(writer)
        .with_ansi(false)
        .with_target(globals.verbose > 0)
        .init();
    log
}

async fn carry_out(task: Task, globals: &Globals, screen: &mut Screen) -> Result<(), CommandError> {
    match task {
        Task::Here(here) => Box::pin(run_here(here, globals, screen)).await,
        Task::Read(read) => look(read, globals, screen).await,
        Task::Act(act) => {
            let client = Client::connect(&globals.folder()?.join("run")).await?;
            Box::pin(cli::act::run(act, &client, screen)).await
        }
    }
}

/// Asks the running node; when there is none, the stored state.
async fn look(read: Read, globals: &Globals, screen: &mut Screen) -> Result<(), CommandError> {
    match local::answering(&globals.folder()?).await? {
        local::Answering::Node(client) => cli::read::run(read, &client, screen).await,
        local::Answering::Stored(offline) => cli::read::run(read, &*offline, screen).await,
    }
}

async fn run_here(here: Here, globals: &Globals, screen: &mut Screen) -> Result<(), CommandError> {
    match here {
        Here::MeshInit(args) => {
            let folder = globals.folder()?;
            let moved_out = args.root_key_out.is_some();
            let enrolled = local::init(&folder, init(args)?).map_err(failed)?;
            screen.result(&enrolled, |done, _| {
                format!(
                    "mesh {} founded; this node is {} ({})\nfolder {}\nnext: {}\n",
                    done.mesh_name,
                    done.node_name,
                    done.roles.join(","),
                    done.folder,
                    globals.again("run")
                )
            })?;
            let file = enrolled.root_key.as_deref().unwrap_or_default();
            let todo = match moved_out {
                true => "move it offline now, and keep it",
                false => "put a copy away offline",
            };
            screen.warn(format!(
                "the root key is in {file} and nowhere else: {todo}; it makes operators and takes them back, and recovers the mesh when this machine is lost (`dunlin mesh recover --root-key FILE --peer MULTIADDR/p2p/PEERID`)"
            ));
            Ok(())
        }
        Here::MeshRecover(args) => mesh_recover(args, globals, screen).await,
        Here::Join(args) => {
            let folder = globals.folder()?;
            let text = args.invite.resolve(std::io::stdin())?;
            let token = Token::from_text(&text).map_err(|error| {
                CommandError::usage(format!("that is no invite that can be used: {error}"))
            })?;
            let name = match &args.name {
                Some(name) => sound_name(name)?,
                None => local::host_name(),
            };
            let joining = local::Joining { token, name };
            let enrolled = Box::pin(local::join(&folder, joining))
                .await
                .map_err(failed)?;
            screen.result(&enrolled, |done, _| {
                format!(
                    "joined mesh {} as {} ({})\nfolder {}\nnext: {}\n",
                    done.mesh_name,
                    done.node_name,
                    done.roles.join(","),
                    done.folder,
                    globals.again("run")
                )
            })
        }
        Here::Run(args) => {
            let listen: Vec<String> = args.listen.into_iter().map(|wire| wire.0).collect();
            let mut config = config::Config::read(args.config.as_deref(), &listen, args.no_mdns)
                .map_err(|error| CommandError::usage(format!("{error:#}")))?;
            config.alone = args.alone;
            config.moved = args.moved;
            let folder = globals.folder()?;
            let mut told = Ok(());
            let ended = local::run(&folder, config, |line| {
                told = screen.out(&format!("{line}\n"));
            });
            Box::pin(ended).await.map_err(not_run)?;
            told
        }
        Here::GuardThaw { socket, id, yes } => {
            let done = move || guard::let_go(&socket, id.as_deref(), yes);
            let done = tokio::task::spawn_blocking(done).await;
            let done = done.map_err(|error| CommandError::failed(error.to_string()))??;
            screen.result(&done, |done, _| {
                format!("the disks of migration {} run again\n", done.migration)
            })
        }
        Here::Guard(args) => {
            let mut told = Ok(());
            let ended = guard::run(
                &args.socket,
                (!args.no_power_off, args.tracker.map(Into::into)),
                || {
                    let line = format!("dunlin: guard is ready at {}\n", args.socket.display());
                    told = screen.out(&line);
                },
            );
            ended.await.map_err(failed)?;
            told
        }
        Here::Doctor => Box::pin(cli::doctor::examine(globals, screen)).await,
        Here::Demo(args) => Box::pin(demo::run(args, screen)).await,
        Here::Completions(shell) => cli::manual::completions(shell, screen),
        Here::Man(words) => cli::manual::man(&words, screen),
    }
}

async fn mesh_recover(
    args: MeshRecover,
    globals: &Globals,
    screen: &mut Screen,
) -> Result<(), CommandError> {
    let optional = |text: Option<String>| text.map(|text| sound_name(&text)).transpose();
    let recovery = local::Recovery {
        root_key: args.root_key,
        peer: peer_address(&args.peer.0)?,
        name: optional(args.name)?.unwrap_or_else(local::host_name),
        roles: args.role.into_iter().collect(),
        site: optional(args.site)?,
    };
    let recovered = Box::pin(local::recover(&globals.folder()?, recovery)).await;
    let (enrolled, known) = recovered.map_err(failed)?;
    screen.result(&enrolled, |done, _| {
        format!(
            "mesh {} recovered; this node is {} ({})\nfolder {}\nnext: {}, then `{}`, and for each operator that is lost `{}`\n",
            done.mesh_name,
            done.node_name,
            done.roles.join(","),
            done.folder,
            globals.again("run"),
            globals.again("node list"),
            globals.again("node revoke NODE --root-key FILE")
        )
    })?;
    if !known {
        screen.warn("warning: the other node has not taken note of this one yet; it will when this node runs");
    }
    Ok(())
}

/// An address that names the node at it.
fn peer_address(text: &str) -> Result<libp2p::Multiaddr, CommandError> {
    let address: libp2p::Multiaddr = text
        .parse()
        .map_err(|error| CommandError::usage(format!("--peer `{text}`: {error}")))?;
    if net::split_peer(&address).is_none() {
        return Err(CommandError::usage(format!(
            "--peer `{text}` does not name a node: it must end in /p2p/PEERID; `dunlin node show` on that node prints its addresses and peer id"
        )));
    }
    Ok(address)
}

fn sound_name(text: &str) -> Result<Name, CommandError> {
    Name::new(text).map_err(|error| CommandError::usage(error.to_string()))
}

fn init(args: MeshInit) -> Result<local::Init, CommandError> {
    let optional = |text: Option<String>| text.map(|text| sound_name(&text)).transpose();
    Ok(local::Init {
        mesh: optional(args.name)?.unwrap_or_else(local::host_name),
        node: optional(args.node_name)?.unwrap_or_else(local::host_name),
        roles: args.role.into_iter().collect::<Roles>(),
        site: optional(args.site)?,
        root_key_out: args.root_key_out,
    })
}

fn not_run(error: anyhow::Error) -> CommandError {
    match error.downcast_ref::<machine::Elsewhere>() {
        Some(elsewhere) => CommandError::refused(elsewhere.to_string()),
        None => failed(error),
    }
}

fn failed(error: anyhow::Error) -> CommandError {
    let folder = error.downcast_ref::<DataDirError>();
    let held = matches!(
        folder,
        Some(DataDirError::InUse { .. } | DataDirError::Locked { .. })
    );
    let closed = error.downcast_ref::<mesh::JoinError>();
    let closed = closed.is_some_and(mesh::JoinError::is_of_the_invites_state);
    let ended = error.is::<local::InviteExpired>();
    let text = format!("{error:#}");
    match held || closed || ended {
        true => CommandError::refused(text),
        false => CommandError::failed(text),
    }
}
