//! `dunlin mesh recover`: a new operator by the root key, with what any member tells.
//!
//! The enrolment is stored before the member hears of it. If the introduction fails
//! after that, the node makes itself known when it runs.

use super::join::{connect, converse, open_folder};
use super::{Enrolled, enrolled, fresh_identity, root, write_told};
use crate::datadir::KeyFile;
use crate::engine::wall_clock;
use crate::net;
use crate::store::Store;
use anyhow::{Context, bail};
use keys::{Name, Roles};
use libp2p::Multiaddr;
use mesh::{EnrolReply, Recoverer, Recovering, Replica};
use std::path::{Path, PathBuf};

/// What a mesh is recovered with.
pub struct Recovery {
    /// The root key's file.
    pub root_key: PathBuf,
    /// A member, with its address.
    pub peer: Multiaddr,
    /// Name of the new operator.
    pub name: Name,
    /// Roles beside operator.
    pub roles: Roles,
    /// Where it is.
    pub site: Option<Name>,
}

/// Makes this node an operator. The flag says whether the member has taken note.
pub async fn recover(folder: &Path, asked: Recovery) -> anyhow::Result<(Enrolled, bool)> {
    let root = root::open(&asked.root_key)?;
    let Some((address, member)) = net::split_peer(&asked.peer) else {
        bail!(
            "{} does not name a node: it must end in /p2p/PEERID; `dunlin node show` on that node prints its addresses and peer id",
            asked.peer
        );
    };
    let dir = open_folder(folder)?;
    let _lock = dir.lock()?;
    let fresh = fresh_identity()?;
    let identity = dir.ensure_key(KeyFile::Node, || fresh)?;
    let key = identity.public();
    let network = connect(&identity, &root.mesh).await?;
    let member = keys::PublicKey(member);
    let addresses = vec![address.clone()];
    let recoverer = Recoverer::new(root.clone(), key, member);
    let ledger = converse(&network, &addresses, member, recoverer.start(), |reply| {
        recoverer.answered(reply)
    })
    .await
    .context("the mesh was not recovered")?;
    let recovering = Recovering {
        node: asked.name,
        roles: asked.roles,
        site: asked.site,
    };
    let made = Replica::recover(identity, &root.identity, *ledger, recovering, wall_clock());
    let (replica, records) = made?;
    write_told(&dir, member, &[address.to_string()])?;
    Store::create(&dir.store(), root.mesh, key, &records)?;
    let mut known = false;
    if let Some(introduction) = replica.introduction() {
        let asked = network.enrol(addresses, member.0, codec::encode(&introduction)?);
        let reply = asked.await.ok();
        let reply = reply.and_then(|bytes| codec::decode::<EnrolReply>(&bytes).ok());
        known = reply == Some(EnrolReply::Introduced);
    }
    network.shutdown().await;
    Ok((enrolled(&replica, folder)?, known))
}
