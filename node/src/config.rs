//! Settings of a node: the TOML file of `run --config`, its flags, and what the node
//! was told when it joined.
//!
//! Not here: anything that the mesh decides; that is in the master document.

use crate::api::metrics::loopback;
use crate::transfer::Compression;
use anyhow::{Context, bail};
use keys::PublicKey;
use libp2p::Multiaddr;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Where a node listens unless it is told otherwise: every interface, one well-known
/// port, both transports.
pub const DEFAULT_LISTEN: [&str; 2] = ["/ip4/0.0.0.0/tcp/7430", "/ip4/0.0.0.0/udp/7430/quic-v1"];

/// Longest wait for a lost replicator: 30 days, as long as a grant lasts.
const MAX_MOVE_ON_SECS: u64 = 30 * 24 * 3600;

/// Longest freezes that may be asked for, in seconds: as long as a guard freezes.
const FREEZE_SECS: RangeInclusive<u64> = 3..=roles::cutover::LONGEST_FREEZE_MILLIS / 1000;

/// Settings of a running node.
#[derive(Debug, Clone, Default)]
pub struct Config {
    /// Where to listen.
    pub listen: Vec<Multiaddr>,
    /// Addresses under which others reach this node, when it cannot see them itself.
    pub announce: Vec<String>,
    /// Whether to look for nodes on the LAN.
    pub mdns: bool,
    /// Whether blocks are compressed on the way.
    pub compression: Compression,
    /// Folder of the local cloud's volumes.
    pub local_cloud: Option<PathBuf>,
    /// Where Prometheus may read this node's metrics, with a token; nowhere without.
    pub metrics: Option<SocketAddr>,
    /// Where this agent's guard listens, if elsewhere than by default.
    pub guard: Option<PathBuf>,
    /// How long this agent waits for a lost replicator before it goes on with the next.
    pub move_on_after: Option<Duration>,
    /// How long this agent's source is frozen at most before its copy is proven, if not as
    /// usual.
    pub freeze: Option<Duration>,
    /// Folder of hooks, where it is not the default.
    pub hooks: Option<PathBuf>,
    /// Whether the node may write before it has heard from any peer.
    pub alone: bool,
    /// Whether the data folder is to be bound to this machine, whatever it was bound to.
    pub moved: bool,
    /// Addresses of nodes that were learnt when joining.
    pub told: BTreeMap<PublicKey, Vec<String>>,
}

/// The settings file.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    listen: Vec<String>,
    #[serde(default)]
    announce: Vec<String>,
    mdns: Option<bool>,
    #[serde(default)]
    compression: Compression,
    #[serde(default)]
    local: Local,
    #[serde(default)]
    agent: Agent,
    #[serde(default)]
    metrics: Metrics,
    #[serde(default)]
    hooks: Hooks,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Hooks {
    folder: Option<PathBuf>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Metrics {
    listen: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Agent {
    move_on_after_secs: Option<u64>,
    freeze_secs: Option<u64>,
    guard: Option<PathBuf>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Local {
    folder: Option<PathBuf>,
}

impl Config {
    /// Reads the settings file, if there is one, and lets flags override it.
    pub fn read(file: Option<&Path>, listen: &[String], no_mdns: bool) -> anyhow::Result<Self> {
        let settings = match file {
            None => File::default(),
            Some(path) => {
                let text = std::fs::read_to_string(path).with_context(|| {
                    format!("the settings file {} cannot be read", path.display())
                })?;
                toml::from_str(&text)
                    .with_context(|| format!("the settings file {} is wrong", path.display()))?
            }
        };
        let chosen: Vec<String> = if !listen.is_empty() {
            listen.to_vec()
        } else if !settings.listen.is_empty() {
            settings.listen
        } else {
            DEFAULT_LISTEN.iter().map(ToString::to_string).collect()
        };
        let mut parsed = vec![];
        for text in chosen {
            match text.parse() {
                Ok(address) => parsed.push(address),
                Err(error) => bail!(
                    "`{text}` is not an address to listen on ({error}): use e.g. /ip4/0.0.0.0/tcp/7430 or /ip4/0.0.0.0/udp/7430/quic-v1"
                ),
            }
        }
        for text in &settings.announce {
            text.parse::<Multiaddr>()
                .with_context(|| format!("`{text}` in `announce` is not a multiaddress"))?;
        }
        let move_on_after = settings.agent.move_on_after_secs;
        if move_on_after.is_some_and(|secs| !(1..=MAX_MOVE_ON_SECS).contains(&secs)) {
            bail!("`move_on_after_secs` in `[agent]` must be 1 to {MAX_MOVE_ON_SECS} seconds");
        }
        let freeze = settings.agent.freeze_secs;
        if freeze.is_some_and(|secs| !FREEZE_SECS.contains(&secs)) {
            bail!(
                "`freeze_secs` in `[agent]` must be {} to {} seconds",
                FREEZE_SECS.start(),
                FREEZE_SECS.end()
            );
        }
        let metrics = settings.metrics.listen.as_deref();
        let metrics = metrics.map(loopback).transpose();
        let metrics = metrics.context("`listen` in `[metrics]`")?;
        let hooks = settings.hooks.folder;
        if hooks.as_ref().is_some_and(|folder| folder.is_relative()) {
            bail!("`folder` in `[hooks]` must be a path from the root, e.g. /etc/dunlin/hooks");
        }
        Ok(Self {
            hooks,
            metrics,
            move_on_after: move_on_after.map(Duration::from_secs),
            freeze: freeze.map(Duration::from_secs),
            guard: settings.agent.guard,
            listen: parsed,
            announce: settings.announce,
            mdns: settings.mdns.unwrap_or(true) && !no_mdns,
            compression: settings.compression,
            local_cloud: settings.local.folder,
            alone: false,
            moved: false,
            told: BTreeMap::new(),
        })
    }

    /// Where a node said it was when this one joined.
    pub fn told_addresses(&self, key: &PublicKey) -> impl Iterator<Item = &String> {
        self.told.get(key).into_iter().flatten()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn flags_come_before_the_file_and_the_file_before_the_defaults() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("dunlin.toml");
        std::fs::write(
            &path,
            "listen = [\"/ip4/10.0.0.1/tcp/1\"]\nmdns = false\ncompression = \"off\"\n[local]\nfolder = \"/srv/volumes\"\n[agent]\nmove_on_after_secs = 30\nfreeze_secs = 5\n[metrics]\nlisten = \"127.0.0.1:7432\"\n[hooks]\nfolder = \"/srv/hooks\"\n",
        )
        .unwrap();
        let config = Config::read(Some(&path), &[], false).unwrap();
        assert_eq!(config.listen[0].to_string(), "/ip4/10.0.0.1/tcp/1");
        assert!(!config.mdns);
        assert_eq!(config.compression, Compression::Off);
        assert_eq!(config.local_cloud, Some("/srv/volumes".into()));
        assert_eq!(config.hooks, Some("/srv/hooks".into()));
        assert_eq!(config.move_on_after, Some(Duration::from_secs(30)));
        assert_eq!(config.freeze, Some(Duration::from_secs(5)));
        assert_eq!(config.metrics, Some(([127, 0, 0, 1], 7432).into()));
        let flag = ["/ip4/127.0.0.1/tcp/0".to_owned()];
        let config = Config::read(Some(&path), &flag, false).unwrap();
        assert_eq!(config.listen[0].to_string(), flag[0]);
        assert_eq!(Config::read(None, &[], false).unwrap().listen.len(), 2);
        assert!(!Config::read(None, &[], true).unwrap().mdns);
    }

    #[test]
    fn an_unknown_setting_and_a_bad_address_are_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("dunlin.toml");
        std::fs::write(&path, "lisen = []\n").unwrap();
        let error = format!("{:#}", Config::read(Some(&path), &[], false).unwrap_err());
        assert!(error.contains("lisen"), "{error}");
        std::fs::write(&path, "[agent]\nmove_on_after_secs = 0\n").unwrap();
        let error = format!("{:#}", Config::read(Some(&path), &[], false).unwrap_err());
        assert!(error.contains("move_on_after_secs"), "{error}");
        std::fs::write(&path, "[metrics]\nlisten = \"0.0.0.0:7432\"\n").unwrap();
        let error = format!("{:#}", Config::read(Some(&path), &[], false).unwrap_err());
        assert!(
            error.contains("[metrics]") && error.contains("loopback"),
            "{error}"
        );
        let flag = ["localhost:80".to_owned()];
        let error = Config::read(None, &flag, false).unwrap_err().to_string();
        assert!(error.contains("localhost:80"), "{error}");
    }
}
