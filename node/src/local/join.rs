//! `dunlin join`: the joiner's conversation with the admitting node, over a network
//! of its own that lasts as long as the command.

use super::{Enrolled, bind, enrolled, fresh_identity, mesh_tag, write_told};
use crate::datadir::{DataDir, DataDirError, KeyFile};
use crate::engine::wall_clock;
use crate::net;
use crate::store::Store;
use anyhow::{Context, bail};
use keys::invite::Token;
use keys::{Identity, Ledger, MeshId, Name, PublicKey, UnixSecs};
use libp2p::Multiaddr;
use mesh::replica::Record;
use mesh::{EnrolReply, EnrolRequest, JoinError, JoinStep, Joiner, Replica};
use std::path::Path;

/// Steps of the conversation: hello and proof, and one more for a challenge that ran out.
const MAX_STEPS: usize = 4;

/// What a node joins with.
pub struct Joining {
    /// The invite.
    pub token: Token,
    /// The name the node gives itself.
    pub name: Name,
}

/// The invite is over, by this machine's clock.
#[derive(Debug, thiserror::Error)]
#[error(
    "the invite expired at {0}: ask for a new one (or set this machine's clock, which says {1})"
)]
pub struct InviteExpired(UnixSecs, UnixSecs);

/// Enrols this node. Asking again after a failure is safe: the admitter gives the
/// same enrolment to the same key.
pub async fn join(folder: &Path, joining: Joining) -> anyhow::Result<Enrolled> {
    let token = joining.token;
    let now = wall_clock();
    if now >= token.not_after {
        return Err(InviteExpired(token.not_after, now).into());
    }
    let dir = open_folder(folder)?;
    let _lock = dir.lock()?;
    let fresh = fresh_identity()?;
    let identity = dir.ensure_key(KeyFile::Node, || fresh)?;
    let addresses: Vec<Multiaddr> = token
        .addresses
        .iter()
        .filter_map(|address| address.parse().ok())
        .collect();
    if addresses.is_empty() {
        bail!("the invite holds no address: start the node that made it, then make a new invite");
    }
    let network = connect(&identity, &token.mesh).await?;
    let joiner = Joiner::new(token.clone(), identity.clone(), joining.name);
    let ledger = converse(
        &network,
        &addresses,
        token.admitter,
        joiner.start(),
        |reply| joiner.answered(reply),
    )
    .await
    .context("the invite was not accepted")?;
    network.shutdown().await;
    let statements = ledger.iter().map(|(_, recorded)| recorded.signed.clone());
    let records: Vec<Record> = statements.map(Record::Statement).collect();
    let mesh = ledger.mesh();
    let key = identity.public();
    bind(&dir)?;
    write_told(&dir, token.admitter, &token.addresses)?;
    Store::create(&dir.store(), mesh, key, &records)?;
    let replica = Replica::restore(identity, None, *ledger, vec![], vec![])?;
    enrolled(&replica, folder)
}

/// A network that only speaks enrolment, for as long as a command lasts.
pub(super) async fn connect(identity: &Identity, mesh: &MeshId) -> anyhow::Result<net::Net> {
    let config = net::Config::new(&mut identity.seed(), vec![], false, mesh_tag(mesh));
    Ok(net::start(config).await?.0)
}

/// Speaks with `peer` until it has told what a ledger can be made of.
pub(super) async fn converse(
    network: &net::Net,
    addresses: &[Multiaddr],
    peer: PublicKey,
    first: EnrolRequest,
    answered: impl Fn(EnrolReply) -> Result<JoinStep, JoinError>,
) -> anyhow::Result<Box<Ledger>> {
    let mut request = first;
    for _ in 0..MAX_STEPS {
        let bytes = codec::encode(&request)?;
        let answer = network.enrol(addresses.to_vec(), peer.0, bytes).await;
        let answer = answer.with_context(|| {
            let places: Vec<String> = addresses.iter().map(Multiaddr::to_string).collect();
            format!(
                "the other node cannot be asked at {}: is it running, does it belong to that mesh, and is a firewall in between?",
                places.join(", ")
            )
        })?;
        let reply: EnrolReply = codec::decode(&answer).context("the other node's answer")?;
        match answered(reply)? {
            JoinStep::Send(next) => request = next,
            JoinStep::Done(ledger) => return Ok(ledger),
        }
    }
    bail!("the other node asked for too many steps; it may be of another version")
}

/// A new folder, or one in which joining did not get as far as an enrolment.
pub(super) fn open_folder(folder: &Path) -> anyhow::Result<DataDir> {
    match DataDir::create_new(folder) {
        Ok(dir) => Ok(dir),
        Err(created) => match DataDir::open(folder) {
            Ok(dir) if !dir.store().exists() => Ok(dir),
            Ok(dir) => Err(DataDirError::InUse {
                path: dir.path().to_path_buf(),
            }
            .into()),
            Err(_) => Err(created.into()),
        },
    }
}
