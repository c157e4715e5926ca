//! A member's key in the hands of somebody who speaks on the wire as he likes.
//!
//! The one place where hostile bytes are put on the network's own protocols, so that
//! a change of a protocol is followed here and nowhere else.

use super::world::{Running, answer, extent, pause, soon, until};
use crate::datadir::DataDir;
use crate::engine::exchange::Gossip;
use crate::engine::{Engine, wall_clock};
use crate::local;
use crate::net::{self, BlockStream, Event, Net};
use crate::store::Store;
use blocks::{Mark, ToSource, ToTarget};
use crdt::SignedChange;
use futures::AsyncWriteExt;
use keys::{Domain, Identity, PublicKey, Signed, Statement};
use libp2p::Multiaddr;
use mesh::{Announcement, Heads, Output, Page, Record, Replica};
use roles::{JobId, Ticket};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::{mpsc, watch};

/// What it answers to whoever asks it, and how often it was asked.
#[derive(Default)]
struct Script {
    page: Vec<u8>,
    asked: BTreeMap<PublicKey, u64>,
}

/// Speaks with an enrolled key, and keeps to no rule.
pub struct Rogue {
    pub identity: Identity,
    /// What its node knew when the key was taken.
    pub replica: Box<Replica>,
    pub net: Net,
    pub victims: Vec<PublicKey>,
    script: Arc<Mutex<Script>>,
    connected: watch::Receiver<BTreeSet<PublicKey>>,
    streams: tokio::sync::Mutex<mpsc::Receiver<BlockStream>>,
}

/// Heads that nobody has: who hears them asks.
pub const STRANGE: Heads = Heads {
    ledger: [9; 32],
    logs: [9; 32],
    reports: [9; 32],
    forks: [9; 32],
};

/// A page that brings nothing.
pub fn empty_page() -> Page {
    Page {
        heads: STRANGE,
        statements: vec![],
        changes: vec![],
        reports: vec![],
        evidence: vec![],
        yours: mesh::Yours::default(),
        ledger_groups: vec![],
        report_groups: vec![],
        more: false,
    }
}

/// Gossip of live figures under the seal of `identity`, whatever `body` is.
pub fn progress(identity: &Identity, body: Vec<u8>) -> Vec<u8> {
    let signed = Signed {
        signature: identity.sign(Domain::Progress, &body),
        signer: identity.public(),
        body,
    };
    codec::encode(&Gossip::Progress(signed)).unwrap()
}

impl Rogue {
    /// With the key of an engine that was stopped.
    pub async fn of_folder(folder: &Path, victims: &[&Running]) -> Self {
        let dir = DataDir::open(folder).unwrap();
        // Its engine has ended, and its last session lets go of the store a moment later.
        let (store, header) = soon("the store", async {
            loop {
                match Store::open(&dir.store()) {
                    Ok(opened) => return opened,
                    Err(_) => pause().await,
                }
            }
        })
        .await;
        let (identity, replica) = local::restore(&dir, &store, &header).unwrap();
        Self::new(identity, Box::new(replica), victims).await
    }

    pub async fn new(identity: Identity, replica: Box<Replica>, victims: &[&Running]) -> Self {
        let tag = local::mesh_tag(&replica.ledger().mesh());
        let network = net::Config::new(&mut identity.seed(), vec![], false, tag);
        let (net, events) = Box::pin(net::start(network)).await.unwrap();
        let mut addresses: BTreeMap<[u8; 32], Vec<Multiaddr>> = BTreeMap::new();
        for victim in victims {
            addresses.insert(victim.key.0, victim.addresses().await);
        }
        let victims: Vec<PublicKey> = victims.iter().map(|victim| victim.key).collect();
        net.allow(victims.iter().map(|key| key.0).collect());
        net.set_addresses(addresses);
        let script = Arc::<Mutex<Script>>::default();
        let (tell, connected) = watch::channel(BTreeSet::new());
        let (arrivals, streams) = mpsc::channel(64);
        tokio::spawn(play(events, script.clone(), tell, arrivals));
        let rogue = Self {
            identity,
            replica,
            net,
            victims,
            script,
            connected,
            streams: tokio::sync::Mutex::new(streams),
        };
        for victim in &rogue.victims {
            rogue.is_connected(*victim).await;
        }
        rogue
    }

    /// Waits until there is a connection.
    pub async fn is_connected(&self, peer: PublicKey) {
        let mut connected = self.connected.clone();
        let comes = connected.wait_for(|all| all.contains(&peer));
        soon("the rogue's connection", comes).await.unwrap();
    }

    /// Waits until there is none, or a new one that no victim lets it use.
    pub async fn is_cut_off(&self, peer: PublicKey) {
        soon("the end of the rogue's connection", async {
            while self
                .net
                .request(peer.0, vec![])
                .await
                .is_err_and(|error| matches!(error, net::RequestError::Refused(_)))
            {}
        })
        .await;
    }

    /// The ticket that the agent itself would show.
    pub fn ticket(&self, job: JobId) -> Ticket {
        let grants = &self.replica.document().plan().migrations[&job.migration].grants;
        let ledger = self.replica.ledger();
        Ticket {
            job,
            epoch: keys::Epoch(1),
            grant: ledger.get(&grants[0]).unwrap().signed.clone(),
            support: vec![],
        }
    }

    /// Everything it knows to be stated.
    pub fn statements(&self) -> Vec<Signed> {
        let ledger = self.replica.ledger();
        let mut all: Vec<_> = ledger.iter().collect();
        all.sort_by_key(|(id, _)| ledger.rank(id));
        let signed = all.into_iter().map(|(_, recorded)| recorded.signed.clone());
        signed.collect()
    }

    /// Opens a stream with a ticket and pushes blocks after it without waiting to be let
    /// in; the stream and the first answer. The first victim is the replicator.
    pub async fn push(&self, ticket: Vec<u8>, bytes: &[u8]) -> (BlockStream, ToSource) {
        self.push_to(self.victims[0], ticket, bytes).await
    }

    pub async fn push_to(
        &self,
        replicator: PublicKey,
        ticket: Vec<u8>,
        bytes: &[u8],
    ) -> (BlockStream, ToSource) {
        let opening = self.net.open_stream(replicator.0);
        let mut stream = soon("a stream", opening).await.unwrap();
        let open = ToTarget::Open {
            ticket,
            length: bytes.len() as u64,
            barrier: 1,
            mark: Mark([7; 32]),
        };
        let mut frames = open.encode(0).unwrap();
        frames.extend(ToTarget::BeginPass { pass: 1 }.encode(0).unwrap());
        frames.extend(extent(bytes, 0));
        frames.extend(ToTarget::Barrier { barrier: 2 }.encode(0).unwrap());
        // The other end may close before it has read all of it.
        let _ = stream.write_all(&frames).await;
        let _ = stream.flush().await;
        let answer = soon("an answer", answer(&mut stream)).await.unwrap();
        (stream, answer)
    }

    /// Whether the first victim lets it open a stream at all.
    pub async fn is_let_in(&self) -> bool {
        soon("a stream", self.net.open_stream(self.victims[0].0))
            .await
            .is_ok()
    }

    /// The next stream that somebody opens to it.
    pub async fn stream(&self) -> BlockStream {
        let mut streams = self.streams.lock().await;
        soon("a stream to the rogue", streams.recv()).await.unwrap()
    }

    /// Tells all that it is connected to.
    pub fn gossip(&self, bytes: Vec<u8>) {
        self.net.gossip(bytes, None).unwrap();
    }

    pub fn announce(&self, announcement: Announcement) {
        self.gossip(codec::encode(&Gossip::News(announcement)).unwrap());
    }

    /// Announces heads that nobody has, and whatever `page` holds.
    pub fn announce_page(&self, page: &Page) {
        let page = page.clone();
        self.announce(Announcement {
            heads: page.heads,
            statements: page.statements,
            changes: page.changes,
            reports: page.reports,
            evidence: page.evidence,
        });
    }

    /// Announces again and again, as gossip may be lost, until a look at a node gives
    /// something.
    pub async fn announce_until<T: Send + 'static>(
        &self,
        page: &Page,
        node: &Running,
        look: impl Fn(&mut Engine) -> Option<T> + Clone + Send + 'static,
    ) -> T {
        let announcing = async {
            loop {
                self.announce_page(page);
                pause().await;
            }
        };
        tokio::select! {
            () = announcing => unreachable!("it goes on for ever"),
            found = until("what was announced", node, look) => found,
        }
    }

    /// Answers everybody who asks with this page from now on.
    pub fn answers(&self, page: &Page) {
        self.answers_bytes(codec::encode(page).unwrap());
    }

    pub fn answers_bytes(&self, bytes: Vec<u8>) {
        self.script().page = bytes;
    }

    /// How often `peer` has asked it.
    pub fn asked_by(&self, peer: PublicKey) -> u64 {
        self.script().asked.get(&peer).copied().unwrap_or(0)
    }

    /// The same, to be looked at from elsewhere.
    pub fn watch_asked(&self, peer: PublicKey) -> impl Fn() -> u64 + Clone + Send + 'static {
        let script = self.script.clone();
        move || {
            let script = script.lock().unwrap_or_else(PoisonError::into_inner);
            script.asked.get(&peer).copied().unwrap_or(0)
        }
    }

    /// Signs a statement as the operator it is.
    pub fn states(&mut self, statement: Statement) -> Signed {
        let stated = self.replica.state(wall_clock(), statement, &mut vec![]);
        let ledger = self.replica.ledger();
        ledger.get(&stated.unwrap()).unwrap().signed.clone()
    }

    /// Edits the plan as the operator it is; the signed changes.
    pub fn edits(
        &mut self,
        edit: impl FnOnce(&mut crdt::Edit<'_>) -> Result<(), crdt::EditError>,
    ) -> Vec<SignedChange> {
        let mut out = vec![];
        self.replica.edit(wall_clock(), edit, &mut out).unwrap();
        let stored = out.into_iter().filter_map(|output| match output {
            Output::Store(records) => Some(records),
            _ => None,
        });
        let changes = stored.flatten().filter_map(|record| match record {
            Record::Change(_, change) => Some(change),
            _ => None,
        });
        changes.collect()
    }

    fn script(&self) -> std::sync::MutexGuard<'_, Script> {
        self.script.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn play(
    mut events: mpsc::Receiver<Event>,
    script: Arc<Mutex<Script>>,
    connected: watch::Sender<BTreeSet<PublicKey>>,
    streams: mpsc::Sender<BlockStream>,
) {
    while let Some(event) = events.recv().await {
        match event {
            Event::Connected(peer) => {
                connected.send_modify(|all| {
                    all.insert(PublicKey(peer));
                });
            }
            Event::Disconnected(peer) => {
                connected.send_modify(|all| {
                    all.remove(&PublicKey(peer));
                });
            }
            Event::SyncRequest { peer, reply, .. } => {
                let mut script = script.lock().unwrap_or_else(PoisonError::into_inner);
                *script.asked.entry(PublicKey(peer)).or_default() += 1;
                if !script.page.is_empty() {
                    reply.send(script.page.clone()).unwrap();
                }
            }
            Event::Stream { stream, .. } => {
                // Nobody takes it: it is closed.
                let _ = streams.try_send(stream);
            }
            _ => {}
        }
    }
}
