//! Commands that run in this process on a data folder: founding a mesh, joining one,
//! recovering one, running the node, and reading stored state while the node is stopped.

mod answering;
mod join;
mod offline;
mod recover;
mod root;
mod run;
mod snapshot;

pub(crate) use snapshot::{path as snapshot_path, write_snapshot};

pub use answering::{Answering, answering};
pub use join::{InviteExpired, Joining, join};
pub use offline::Offline;
pub use recover::{Recovery, recover};
pub use root::read_root_key;
pub use run::{run, told_to_stop};

use crate::datadir::{DataDir, KeyFile};
use crate::engine::wall_clock;
use crate::store::Store;
use anyhow::Context;
use keys::{Identity, MeshId, Name, NodeId, PublicKey, Roles, RootKey};
use mesh::{Founding, Replica};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use zeroize::Zeroizing;

/// What founding a mesh or joining one came to.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Enrolled {
    /// The mesh's id.
    pub mesh: String,
    /// The mesh's name.
    pub mesh_name: String,
    /// This node's id.
    pub node: String,
    /// This node's name.
    pub node_name: String,
    /// Its roles.
    pub roles: Vec<String>,
    /// Its data folder.
    pub folder: String,
    /// Where the mesh's root key is, on the node that founded the mesh.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub root_key: Option<String>,
}

fn fresh_identity() -> anyhow::Result<Identity> {
    let mut seed = Zeroizing::new([0; 32]);
    getrandom::fill(seed.as_mut())
        .map_err(|error| anyhow::anyhow!("no random bytes from the system: {error}"))?;
    Ok(Identity::from_seed(&seed))
}

/// This machine's host name as a node's name.
pub fn host_name() -> Name {
    let host = inventory::hostname(&inventory::Tree::new("/"));
    let kept: String = host
        .chars()
        .filter(|c| c.is_ascii_alphanumeric() || "._-".contains(*c))
        .take(63)
        .collect();
    Name::new(&kept).unwrap_or_else(|_| Name::new("node").expect("`node` is a sound name"))
}

/// What a mesh is founded with.
pub struct Init {
    /// Its name.
    pub mesh: Name,
    /// The first node's name.
    pub node: Name,
    /// Roles beside operator.
    pub roles: Roles,
    /// The first node's site.
    pub site: Option<Name>,
    /// Where the root key is written, instead of into the folder.
    pub root_key_out: Option<PathBuf>,
}

/// Founds a mesh in a new data folder.
pub fn init(folder: &Path, init: Init) -> anyhow::Result<Enrolled> {
    let dir = DataDir::create_new(folder)?;
    let _lock = dir.lock()?;
    let out = init.root_key_out.as_deref();
    let out = out
        .map(|out| root::place_outside(out, folder))
        .transpose()?;
    let first = fresh_identity()?;
    let identity = dir.ensure_key(KeyFile::Node, || first)?;
    let root = fresh_identity()?;
    let mut nonce = [0; 16];
    getrandom::fill(&mut nonce)
        .map_err(|error| anyhow::anyhow!("no random bytes from the system: {error}"))?;
    let founding = Founding {
        mesh: init.mesh,
        node: init.node,
        roles: init.roles,
        site: init.site,
        nonce,
    };
    let key = identity.public();
    let name = founding.mesh.clone();
    let (replica, records) = Replica::found(identity, root.clone(), founding, wall_clock())?;
    let mesh = replica.ledger().mesh();
    let root = RootKey {
        mesh,
        name,
        identity: root,
    };
    // Before the mesh exists: one whose root key could not be kept would have none.
    match &out {
        None => dir.write_root_key(&root)?,
        Some(out) => {
            // One that an earlier attempt left is the root of nothing.
            dir.forget_key(KeyFile::Root)?;
            root::write(out, &root)?;
        }
    }
    bind(&dir)?;
    Store::create(&dir.store(), mesh, key, &records)
        .with_context(|| format!("the mesh was not founded in {}", folder.display()))?;
    let kept = out.unwrap_or_else(|| dir.key_path(KeyFile::Root));
    Ok(Enrolled {
        root_key: Some(kept.display().to_string()),
        ..enrolled(&replica, folder)?
    })
}

/// Notes which machine the folder is made on, before there is anything to protect.
fn bind(dir: &DataDir) -> anyhow::Result<()> {
    crate::machine::bind(dir.path(), &crate::machine::sys())
        .with_context(|| format!("cannot note the machine in {}", dir.path().display()))?;
    Ok(())
}

fn enrolled(replica: &Replica, folder: &Path) -> anyhow::Result<Enrolled> {
    let me: NodeId = replica
        .me()
        .context("the node's own enrolment is missing")?;
    let member = replica
        .authority()
        .member(&me)
        .context("the node's own enrolment does not count")?;
    let genesis = keys::StatementId(replica.ledger().mesh().0);
    let mesh_name = match replica
        .ledger()
        .get(&genesis)
        .map(|found| &found.entry.statement)
    {
        Some(keys::Statement::Genesis(genesis)) => genesis.name.to_string(),
        _ => String::new(),
    };
    Ok(Enrolled {
        mesh: replica.ledger().mesh().to_string(),
        mesh_name,
        node: me.to_string(),
        node_name: member.name.to_string(),
        roles: member.roles.iter().map(|role| role.to_string()).collect(),
        folder: folder.display().to_string(),
        root_key: None,
    })
}

/// The replica as it was stored. Its key must be the folder's.
pub(crate) fn restore<D: crate::store::Engine>(
    dir: &DataDir,
    store: &crate::store::Stored<D>,
    header: &crate::store::Header,
) -> anyhow::Result<(Identity, Replica)> {
    let identity = dir.read_key(KeyFile::Node)?;
    let next = dir.find_key(KeyFile::Next)?;
    let root = dir.find_key(KeyFile::Root)?;
    let loaded = store.load()?;
    let corrupt = || {
        format!(
            "the state in {} cannot be used; restore the folder from a backup, or join again in an empty folder (no source or copy is in it)",
            dir.path().display()
        )
    };
    let mut statements = loaded.statements.into_iter();
    let genesis = statements
        .next()
        .context("there is no genesis")
        .with_context(corrupt)?;
    let mut ledger = keys::Ledger::found(genesis).with_context(corrupt)?;
    if ledger.mesh() != header.mesh {
        anyhow::bail!("{}: its ledger is of another mesh", corrupt());
    }
    ledger
        .restore_all(statements.collect())
        .with_context(corrupt)?;
    let identity = match next.filter(|next| has_key(&ledger, header.key, next.public())) {
        // The mesh has heard of it, so the key before is worth nothing any more.
        Some(next) => next,
        None if identity.public() == header.key => identity,
        None => anyhow::bail!(
            "the key in {} is not the one that the state there belongs to: the folder was mixed with another node's; restore both from one backup, or join again in an empty folder",
            dir.path().display()
        ),
    };
    let snapshot = snapshot::read_snapshot(dir);
    let mut replica = Replica::restore_from(
        identity.clone(),
        root,
        ledger,
        loaded.changes,
        snapshot.as_ref(),
        loaded.reports,
    )
    .with_context(corrupt)?;
    replica.restore_evidence(loaded.evidence);
    Ok((identity, replica))
}

/// Whether `next` is the key that the node has whose key is or was `known`.
fn has_key(ledger: &keys::Ledger, known: PublicKey, next: PublicKey) -> bool {
    let authority = keys::authority::authority(ledger);
    authority
        .by_key(&next)
        .is_some_and(|member| member.key == next && authority.is_node(member.id, known))
}

/// Completes or takes back a change of keys that was under way, whichever the ledger
/// says: `identity` is the key that the node has. A crash on the way changes nothing.
fn settle_key(dir: &DataDir, store: &Store, identity: &Identity) -> anyhow::Result<()> {
    let Some(next) = dir.find_key(KeyFile::Next)? else {
        return Ok(());
    };
    if next.public() != identity.public() {
        return Ok(dir.forget_key(KeyFile::Next)?);
    }
    store.set_key(next.public())?;
    Ok(dir.adopt_next_key()?)
}

/// Where other nodes were when this one joined, so that it finds them after a
/// restart without any report.
fn told_path(dir: &DataDir) -> std::path::PathBuf {
    dir.path().join("told.json")
}

pub(crate) fn read_told(dir: &DataDir) -> BTreeMap<PublicKey, Vec<String>> {
    let text = std::fs::read(told_path(dir)).unwrap_or_default();
    let told: BTreeMap<String, Vec<String>> = serde_json::from_slice(&text).unwrap_or_default();
    told.into_iter()
        .filter_map(|(key, addresses)| Some((key.parse().ok()?, addresses)))
        .collect()
}

fn write_told(dir: &DataDir, key: PublicKey, addresses: &[String]) -> anyhow::Result<()> {
    let told = BTreeMap::from([(key.to_string(), addresses)]);
    let write = || -> anyhow::Result<()> {
        let mut file = tempfile::NamedTempFile::new_in(dir.path())?;
        file.write_all(&serde_json::to_vec(&told)?)?;
        file.as_file().sync_all()?;
        file.persist(told_path(dir))?;
        Ok(std::fs::File::open(dir.path())?.sync_all()?)
    };
    write().with_context(|| format!("cannot write {}", told_path(dir).display()))
}

/// Names protocols and topics by the mesh, so that two meshes never mix.
pub(crate) fn mesh_tag(mesh: &MeshId) -> [u8; 32] {
    mesh.0
}
