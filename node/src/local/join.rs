//! `dunlin join`: the joiner's conversation with the admitting node, over a network
//! of its own that lasts as long as the command.

use super::{Enrolled, bind, enrolled, fresh_identity, mesh_tag, write_told};
use crate::datadir::{DataDir, KeyFile};
use crate::engine::wall_clock;
use crate::net;
use crate::store::Store;
use anyhow::{Context, bail};
use keys::Name;
use keys::invite::Token;
use libp2p::Multiaddr;
use mesh::replica::Record;
use mesh::{EnrolReply, JoinStep, Joiner, Replica};
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

/// Enrols this node. Asking again after a failure is safe: the admitter gives the
/// same enrolment to the same key.
pub async fn join(folder: &Path, joining: Joining) -> anyhow::Result<Enrolled> {
    let token = joining.token;
    if wall_clock() >= token.not_after {
        bail!(
            "the invite expired at {}: ask for a new one (or set this machine's clock, which says {})",
            token.not_after,
            wall_clock()
        );
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
    let config = net::Config::new(&mut identity.seed(), vec![], false, mesh_tag(&token.mesh));
    let (network, _events) = net::start(config).await?;
    let joiner = Joiner::new(token.clone(), identity.clone(), joining.name);
    let mut request = joiner.start();
    for _ in 0..MAX_STEPS {
        let bytes = codec::encode(&request)?;
        let answer = network
            .enrol(addresses.clone(), token.admitter.0, bytes)
            .await
            .with_context(|| {
                format!(
                    "the node that made the invite cannot be asked at {}: is it running, and is a firewall in between?",
                    token.addresses.join(", ")
                )
            })?;
        let reply: EnrolReply = codec::decode(&answer).context("the admitting node's answer")?;
        match joiner
            .answered(reply)
            .context("the invite was not accepted")?
        {
            JoinStep::Send(next) => request = next,
            JoinStep::Done(ledger) => {
                network.shutdown().await;
                let statements = ledger.iter().map(|(_, recorded)| recorded.signed.clone());
                let records: Vec<Record> = statements.map(Record::Statement).collect();
                let mesh = ledger.mesh();
                let key = identity.public();
                bind(&dir)?;
                write_told(&dir, token.admitter, &token.addresses)?;
                Store::create(&dir.store(), mesh, key, &records)?;
                let replica = Replica::restore(identity, None, *ledger, vec![], vec![])?;
                return enrolled(&replica, folder);
            }
        }
    }
    bail!("the admitting node asked for too many steps; it may be of another version")
}

/// A new folder, or one in which joining did not get as far as an enrolment.
fn open_folder(folder: &Path) -> anyhow::Result<DataDir> {
    match DataDir::create_new(folder) {
        Ok(dir) => Ok(dir),
        Err(created) => match DataDir::open(folder) {
            Ok(dir) if !dir.store().exists() => Ok(dir),
            Ok(_) => bail!(
                "{} already holds a node of a mesh: give another folder with --data-dir, or remove this one to leave its mesh",
                folder.display()
            ),
            Err(_) => Err(created.into()),
        },
    }
}
