//! The running node: one task that owns the replica and the roles' machines, takes
//! one message at a time, and carries out what they decide.
//!
//! Everything slow happens elsewhere (streams, disks, clouds) and comes back as a
//! message. What must be durable is stored before the next output is carried out;
//! when the store fails the node stops, since nothing it would say could be kept.

mod agents;
mod alarms;
mod calls;
mod checkpoints;
mod clouds;
mod copies;
mod cutovers;
mod doctor;
mod events;
mod exchange;
mod facts;
mod figures;
mod hooks;
mod leases;
mod limits;
mod measured;
mod offences;
mod planning;
mod points;
mod repeats;
mod report;
mod saving;
mod speed;
mod stocktaking;
mod superseded;

pub use crate::clock::wall_clock;
pub use alarms::shown_value;
pub use calls::CallError;
pub use doctor::{copy, facts};
pub use figures::Figures;

use crate::clock;
use crate::config::Config;
use crate::datadir::DataDir;
use crate::net::{self, Net};
use crate::speed::SpeedError;
use crate::stillness::Freezer;
use crate::store::{OfferedVolume, Store};
use crate::transfer::{Pace, Pacer, ReceiveEvent, Scope, SendEvent, SharedBuffers, Trackers};
use crate::views::{Live, State};
use agents::AgentSlot;
use copies::Receiving;
use crdt::Event;
use keys::lease::Boot;
use keys::{DedupDomain, Identity, Leases, PublicKey, UnixSecs, VolumeId};
use mesh::Replica;
use provider::Provider;
use roles::cutover::Cutover;
use roles::provisioner::Provisioner;
use roles::replicator::Replicator;
use roles::{JobId, Now, Vouching};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::sync::{mpsc, oneshot, watch};
use volumes::FingerprintIndex;

/// Messages that may wait for the engine.
const INBOX: usize = 1024;
/// How long a call that writes waits for a node that has just started.
const HEARD: std::time::Duration = std::time::Duration::from_secs(5);
/// How often time-driven work is looked at.
const TICK: std::time::Duration = std::time::Duration::from_millis(250);
/// Events kept in memory for views; the store keeps more.
const RECENT_EVENTS: usize = 2_000;

/// Something for the engine to take in.
pub(crate) enum Message {
    /// A peer to which this node introduced itself says that its key was revoked.
    SaidRevoked(PublicKey),
    /// A call of the local API, to be run on the engine's own state.
    Call(Box<dyn FnOnce(&mut Engine) + Send>),
    /// A peer answered a sync question, or did not.
    Answered(PublicKey, Result<Vec<u8>, net::RequestError>),
    /// A stream to the replicator is open and its session runs, or it could not be opened.
    SendOpened(JobId, u64, Result<(), String>),
    /// From a sending session.
    Sent(JobId, u64, SendEvent),
    /// A stream came in and its first frame was read.
    Incoming(Box<copies::Incoming>),
    /// A stream came in that began as a speed check.
    SpeedAsked(Box<speed::Asked>),
    /// A peer's speed check is over.
    SpeedAnswered(PublicKey, Result<(), SpeedError>),
    /// From a receiving session.
    Received(JobId, u64, ReceiveEvent),
    /// A cloud call ended.
    Cloud(roles::provisioner::Input),
    /// The machine was read.
    StockTaken(Box<(inventory::Reader, crdt::Inventory)>),
    /// From a run of hooks.
    Hooks(roles::hooks::At, hooks::News),
    /// Whoever freezes the source of a migration has answered.
    Stillness(keys::MigrationId, cutovers::Answered),
}

/// A handle to the running engine.
#[derive(Clone)]
pub struct Handle {
    inbox: mpsc::Sender<Message>,
    heard: watch::Receiver<bool>,
}

/// The engine is gone: the node is stopping.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the node is stopping")]
pub struct Stopped;

impl Handle {
    /// Waits a moment until the node has heard from its peers how far its own logs go:
    /// before that it refuses to write.
    pub async fn heard(&self) {
        let mut heard = self.heard.clone();
        // A node that is stopping, or stays alone, says so itself when it is called.
        let _ = tokio::time::timeout(HEARD, heard.wait_for(|heard| *heard)).await;
    }

    /// Runs `call` on the engine and gives its result.
    pub async fn call<T: Send + 'static>(
        &self,
        call: impl FnOnce(&mut Engine) -> T + Send + 'static,
    ) -> Result<T, Stopped> {
        let (done, result) = oneshot::channel();
        let run = Box::new(move |engine: &mut Engine| {
            // The caller may have gone away; the call was still carried out.
            let _ = done.send(call(engine));
        });
        self.inbox
            .send(Message::Call(run))
            .await
            .map_err(|_| Stopped)?;
        result.await.map_err(|_| Stopped)
    }
}

/// What a node is started with.
pub struct Parts {
    /// Its data folder.
    pub dir: DataDir,
    /// Its store.
    pub store: Store,
    /// Its key.
    pub identity: Identity,
    /// What was stored.
    pub replica: Replica,
    /// The network and its events.
    pub net: (Net, mpsc::Receiver<net::Event>),
    /// Clouds by kind.
    pub providers: BTreeMap<String, Arc<dyn Provider>>,
    /// Settings.
    pub config: Config,
}

/// See the module's page.
pub struct Engine {
    dir: DataDir,
    store: Store,
    identity: Identity,
    replica: Replica,
    net: Net,
    config: Config,
    inbox: mpsc::Sender<Message>,
    connected: BTreeSet<PublicKey>,
    admitted: BTreeSet<PublicKey>,
    /// Peers that are not admitted any more, and until when they stay connected.
    leaving: BTreeMap<PublicKey, u64>,
    offences: offences::Offences,
    repeats: repeats::Repeats,
    listening: Vec<String>,
    /// The member that says that this node was revoked, while nothing of it is known here.
    said_revoked: Option<PublicKey>,
    replies: BTreeMap<u64, net::Reply>,
    next_number: u64,
    agents: BTreeMap<JobId, AgentSlot>,
    replicator: Replicator,
    receiving: BTreeMap<JobId, Receiving>,
    /// Where contents of copies here were seen, once it was needed.
    fingerprints: Option<Arc<FingerprintIndex>>,
    /// The copies that running sessions may look into, and the domain that each came with.
    scopes: BTreeMap<JobId, (DedupDomain, Scope)>,
    checks: speed::Checks,
    /// Keeps all sending sessions to what limits say.
    pacer: Pacer,
    /// What all sessions share.
    buffers: SharedBuffers,
    /// Who may follow what is written to sources.
    trackers: Trackers,
    freezer: Arc<dyn Freezer>,
    cutovers: BTreeMap<keys::MigrationId, Cutover>,
    /// What they say now.
    pace: watch::Sender<Pace>,
    limits: limits::Limits,
    provisioner: Provisioner,
    hooks: roles::Hooks,
    hook_runs: hooks::Runs,
    providers: BTreeMap<String, Arc<dyn Provider>>,
    volumes: Vec<OfferedVolume>,
    lengths: BTreeMap<VolumeId, u64>,
    proofs: Vec<keys::Signed>,
    events: VecDeque<Event>,
    /// What was told before this start, and is not to be told again because of it.
    told_before: events::ToldBefore,
    conflicts: crdt::Conflicts,
    binding: Option<crate::machine::Binding>,
    live: BTreeMap<JobId, Live>,
    progress: events::Progress,
    measured: measured::Measured,
    tagged: BTreeMap<provider::VolumeKey, provider::VolumeState>,
    report: report::Draft,
    boot: Boot,
    leases: Leases,
    vouching: Vouching,
    stocktaking: stocktaking::Stocktaking,
    saving: Option<tokio::task::JoinHandle<()>>,
    /// Ends what reads for long.
    closing: Arc<AtomicBool>,
    fatal: Option<anyhow::Error>,
    /// The key was changed; when the node begins again with the next one.
    rotated: Option<u64>,
    /// Whether it may write to its own logs, for those that wait for it.
    heard: watch::Sender<bool>,
    /// When the next enrolment of a member ends, by the wall clock.
    next_expiry: UnixSecs,
}

/// Why a node's run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// It was told to stop.
    Stopped,
    /// Its key was changed: it is to begin again with the next one.
    KeyChanged,
}

impl Engine {
    /// Prepares the engine from what was stored.
    pub fn new(
        parts: Parts,
    ) -> anyhow::Result<(Self, mpsc::Receiver<net::Event>, mpsc::Receiver<Message>)> {
        let (inbox, messages) = mpsc::channel(INBOX);
        let (net, net_events) = parts.net;
        let store = parts.store;
        let events: VecDeque<Event> = store.newest_events(RECENT_EVENTS, None)?.into();
        let told_before = events::told_before(&events);
        let boot = clock::boot()?;
        let leases = store.leases()?;
        let store_hooks = store.hooks()?;
        let leases = leases.map(|stored| Leases::restore(stored, clock::now(), boot));
        let leases = leases.unwrap_or_default();
        let pace = watch::Sender::new(Pace::default());
        let guard = crate::guard::socket_of(parts.config.guard.as_ref());
        let trackers = crate::guard::trackers(guard.clone());
        let freezer = Arc::new(crate::guard::freezer(guard));
        let mut engine = Self {
            replicator: Replicator::new(store.copies()?),
            volumes: store.volumes()?,
            lengths: BTreeMap::new(),
            proofs: store.proofs()?,
            events,
            told_before,
            conflicts: crdt::Conflicts::known(parts.replica.document().plan()),
            binding: crate::machine::bound(parts.dir.path()),
            identity: parts.identity,
            replica: parts.replica,
            stocktaking: stocktaking::Stocktaking::new(parts.dir.path()),
            dir: parts.dir,
            config: parts.config,
            providers: parts.providers,
            store,
            net,
            inbox,
            connected: BTreeSet::new(),
            admitted: BTreeSet::new(),
            leaving: BTreeMap::new(),
            offences: offences::Offences::default(),
            repeats: repeats::Repeats::default(),
            listening: vec![],
            said_revoked: None,
            replies: BTreeMap::new(),
            next_number: 0,
            agents: BTreeMap::new(),
            receiving: BTreeMap::new(),
            fingerprints: None,
            scopes: BTreeMap::new(),
            checks: speed::Checks::default(),
            pacer: Pacer::new(pace.subscribe()),
            buffers: SharedBuffers::default(),
            trackers,
            freezer,
            cutovers: BTreeMap::new(),
            pace,
            limits: limits::Limits::new(clock::now()),
            provisioner: Provisioner::default(),
            hooks: roles::Hooks::new(store_hooks),
            hook_runs: hooks::Runs::default(),
            live: BTreeMap::new(),
            progress: events::Progress::new(wall_clock()),
            measured: measured::Measured::default(),
            tagged: BTreeMap::new(),
            report: report::Draft::default(),
            boot,
            leases,
            vouching: Vouching::default(),
            saving: None,
            closing: Arc::default(),
            fatal: None,
            rotated: None,
            heard: watch::Sender::new(false),
            next_expiry: UnixSecs(0),
        };
        engine.restore_agents()?;
        engine.restore_cutovers();
        engine.measure_volumes();
        engine.take_up_inventory();
        Ok((engine, net_events, messages))
    }

    /// A handle for the API.
    pub fn handle(&self) -> Handle {
        Handle {
            inbox: self.inbox.clone(),
            heard: self.heard.subscribe(),
        }
    }

    /// Runs until `stop` resolves or the store fails. `ready` is told once where the
    /// node listens, when it knows: an invite made after that holds an address.
    pub async fn run(
        mut self,
        mut net_events: mpsc::Receiver<net::Event>,
        mut messages: mpsc::Receiver<Message>,
        ready: impl FnOnce(&[String]),
        stop: impl Future<Output = ()>,
    ) -> anyhow::Result<Ended> {
        let mut ready = Some(ready);
        let mut ticks = tokio::time::interval(TICK);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        tokio::pin!(stop);
        self.tell_started();
        self.keep_finished();
        self.authority_changed();
        // Before any session is opened.
        self.begin_lending();
        self.settle_pace();
        self.settle();
        let ended = loop {
            tokio::select! {
                () = &mut stop => break Ended::Stopped,
                event = net_events.recv() => match event {
                    Some(event) => self.network(event),
                    None => {
                        let lost = "the network ended by itself, which is a defect of this program: start the node again, and report what its log says";
                        self.fatal = Some(anyhow::anyhow!(lost));
                    }
                },
                Some(message) = messages.recv() => self.message(message),
                _ = ticks.tick() => {
                    self.tick();
                    // Each address to listen on is heard of at least once.
                    if self.listening.len() >= self.config.listen.len().max(1)
                        && let Some(ready) = ready.take()
                    {
                        ready(&self.reachable());
                    }
                }
            }
            if let Some(fatal) = self.fatal.take() {
                self.close().await;
                return Err(fatal.context(
                    "the node stopped because it cannot store its state; nothing that was acknowledged is lost; free space or mend the disk, then start it again",
                ));
            }
            let now = self.now().mono_millis;
            if self.rotated.is_some_and(|at| now >= at) {
                break Ended::KeyChanged;
            }
        };
        self.close().await;
        Ok(ended)
    }

    async fn close(&mut self) {
        self.close_sessions();
        self.save_document_at_end().await;
        self.net.clone().shutdown().await;
        self.hook_runs.end().await;
    }

    fn close_sessions(&mut self) {
        self.closing.store(true, Ordering::Relaxed);
        for slot in self.agents.values_mut() {
            slot.close();
        }
        self.hook_runs.cancel_all();
        for receiving in self.receiving.values() {
            receiving.withdraw(blocks::RefusalCode::ShuttingDown);
        }
    }

    fn message(&mut self, message: Message) {
        match message {
            Message::SaidRevoked(by) => self.said_revoked(by),
            Message::Call(call) => call(self),
            Message::Answered(from, answer) => self.answered(from, answer),
            Message::SendOpened(job, session, opened) => self.send_opened(job, session, opened),
            Message::Sent(job, session, event) => self.sent(job, session, event),
            Message::Incoming(incoming) => self.incoming(*incoming),
            Message::SpeedAsked(asked) => self.speed_asked(*asked),
            Message::SpeedAnswered(from, ended) => self.speed_answered(from, &ended),
            Message::Received(job, session, event) => self.received(job, session, event),
            Message::Cloud(input) => self.cloud_answered(input),
            Message::StockTaken(taken) => self.stock_taken(taken.0, taken.1),
            Message::Hooks(at, news) => self.hooks_told(at, news),
            Message::Stillness(id, answered) => self.stillness_told(id, answered),
        }
    }

    fn tick(&mut self) {
        self.step_replica(mesh::Input::Tick);
        self.recheck_permits();
        self.part_from_expired();
        self.part_from_leaving();
        self.end_pauses();
        self.tell_repeats();
        self.settle();
        self.settle_pace();
        self.sample_progress();
        self.watch_sessions();
        self.take_stock_if_due();
        self.publish_if_due();
        self.save_document_if_due();
    }

    pub(crate) fn now(&self) -> Now {
        clock::now()
    }

    fn number(&mut self) -> u64 {
        self.next_number += 1;
        self.next_number
    }

    /// Keeps the first failure of the store; the loop stops the node.
    fn must<T>(&mut self, stored: Result<T, impl Into<anyhow::Error>>) -> Option<T> {
        match stored {
            Ok(value) => Some(value),
            Err(error) => {
                if self.fatal.is_none() {
                    self.fatal = Some(error.into());
                }
                None
            }
        }
    }

    /// What views are made from, with this node's newest events.
    pub fn with_state<T>(&mut self, view: impl FnOnce(&State<'_>) -> T) -> T {
        self.events.make_contiguous();
        let (events, _) = self.events.as_slices();
        view(&self.state_with(events))
    }

    fn state_with<'a>(&'a self, events: &'a [Event]) -> State<'a> {
        State {
            replica: &self.replica,
            connected: Some(&self.connected),
            live: &self.live,
            listening: &self.listening,
            events,
            binding: self.binding.as_ref(),
            said_revoked: self.said_revoked,
            now: wall_clock(),
        }
    }
}

#[cfg(test)]
mod tests;
