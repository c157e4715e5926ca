//! The records beside the files of volumes and of checkpoints, as JSON that a person can
//! read. Not the rules of what they may become: those are `provider`'s.

use blocks::Root;
use provider::{AttachTo, CheckpointKey, CheckpointRecord, VolumeKey, VolumeRecord, VolumeState};
use serde::{Deserialize, Serialize};

use crate::folder::{known_format, newer_format};

/// A volume's record and how far its making or unmaking has come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Sidecar {
    pub(crate) phase: Phase,
    pub(crate) record: VolumeRecord,
}

/// Written before what it announces, so that after a crash it is known which
/// files are ours to finish or to remove.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Phase {
    Creating,
    Ready,
    Deleting,
}

/// Why bytes are no record.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum BadSidecar {
    #[error("it has format {0}, made by a later version of this program: upgrade this one")]
    Newer(u32),
    #[error("it cannot be read ({0}): restore it, or remove it together with its raw file")]
    Corrupt(String),
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Stored {
    format: u32,
    phase: Phase,
    migration: String,
    volume: String,
    generation: u64,
    length: u64,
    attached: Option<StoredHolder>,
    fenced_below: u64,
    state: Option<StoredState>,
}

/// A checkpoint's record, and how far its making or unmaking, and that of its copy, has come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct CheckpointSidecar {
    pub(crate) phase: Phase,
    /// None where there is no copy.
    pub(crate) copy: Option<Phase>,
    pub(crate) key: CheckpointKey,
    pub(crate) length: u64,
    pub(crate) epoch: u64,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct StoredCheckpoint {
    format: u32,
    phase: Phase,
    copy: Option<Phase>,
    migration: String,
    volume: String,
    generation: u64,
    name: String,
    length: u64,
    epoch: u64,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct StoredHolder {
    holder: String,
    epoch: u64,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct StoredState {
    epoch: u64,
    barrier: u64,
    root: Option<String>,
}

impl Sidecar {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let VolumeRecord {
            key,
            length,
            attached,
            fenced_below,
            state,
        } = &self.record;
        let stored = Stored {
            format: known_format(),
            phase: self.phase,
            migration: key.migration.to_string(),
            volume: key.volume.to_string(),
            generation: key.generation,
            length: *length,
            attached: attached.map(|to| StoredHolder {
                holder: to.holder.to_string(),
                epoch: to.epoch,
            }),
            fenced_below: *fenced_below,
            state: state.map(|state| StoredState {
                epoch: state.epoch,
                barrier: state.barrier,
                root: state.root.map(|root| root.to_string()),
            }),
        };
        json(&stored)
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, BadSidecar> {
        let stored: Stored = parsed(bytes)?;
        let attached = stored.attached.map(|to| {
            let holder = to.holder.parse().map_err(|error| corrupt(&error))?;
            let epoch = to.epoch;
            Ok(AttachTo { holder, epoch })
        });
        let state = stored.state.map(|state| {
            let root = state.root.map(|root| root.parse::<Root>());
            let root = root.transpose().map_err(|error| corrupt(&error))?;
            Ok(VolumeState {
                epoch: state.epoch,
                barrier: state.barrier,
                root,
            })
        });
        let key = volume_key(&stored.migration, &stored.volume, stored.generation)?;
        Ok(Self {
            phase: stored.phase,
            record: VolumeRecord {
                key,
                length: stored.length,
                attached: attached.transpose()?,
                fenced_below: stored.fenced_below,
                state: state.transpose()?,
            },
        })
    }
}

impl CheckpointSidecar {
    /// What the cloud says of it.
    pub(crate) fn record(&self) -> CheckpointRecord {
        CheckpointRecord {
            key: self.key.clone(),
            length: self.length,
            epoch: self.epoch,
            sealed: self.phase == Phase::Ready,
            has_copy: self.copy.is_some(),
        }
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        let volume = &self.key.volume;
        json(&StoredCheckpoint {
            format: known_format(),
            phase: self.phase,
            copy: self.copy,
            migration: volume.migration.to_string(),
            volume: volume.volume.to_string(),
            generation: volume.generation,
            name: self.key.name.to_string(),
            length: self.length,
            epoch: self.epoch,
        })
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, BadSidecar> {
        let stored: StoredCheckpoint = parsed(bytes)?;
        Ok(Self {
            phase: stored.phase,
            copy: stored.copy,
            key: CheckpointKey {
                volume: volume_key(&stored.migration, &stored.volume, stored.generation)?,
                name: stored.name.parse().map_err(|error| corrupt(&error))?,
            },
            length: stored.length,
            epoch: stored.epoch,
        })
    }
}

fn json(stored: &impl Serialize) -> Vec<u8> {
    let mut bytes = serde_json::to_vec_pretty(stored).expect("numbers and texts are always JSON");
    bytes.push(b'\n');
    bytes
}

fn parsed<T: for<'a> Deserialize<'a>>(bytes: &[u8]) -> Result<T, BadSidecar> {
    if let Some(format) = newer_format(bytes) {
        return Err(BadSidecar::Newer(format));
    }
    serde_json::from_slice(bytes).map_err(|error| corrupt(&error))
}

fn volume_key(migration: &str, volume: &str, generation: u64) -> Result<VolumeKey, BadSidecar> {
    Ok(VolumeKey {
        migration: migration.parse().map_err(|error| corrupt(&error))?,
        volume: volume.parse().map_err(|error| corrupt(&error))?,
        generation,
    })
}

fn corrupt(what: &dyn ToString) -> BadSidecar {
    BadSidecar::Corrupt(what.to_string())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use provider::{HolderId, MigrationTag, VolumeTag};

    use super::*;

    fn sidecar() -> Sidecar {
        Sidecar {
            phase: Phase::Ready,
            record: VolumeRecord {
                key: VolumeKey {
                    migration: MigrationTag([0xab; 16]),
                    volume: VolumeTag([0xcd; 16]),
                    generation: 2,
                },
                length: 1000,
                attached: Some(AttachTo {
                    holder: HolderId([0xef; 32]),
                    epoch: 3,
                }),
                fenced_below: 2,
                state: Some(VolumeState {
                    epoch: 3,
                    barrier: 4,
                    root: Some(Root([0x12; 32])),
                }),
            },
        }
    }

    #[test]
    fn a_record_is_this_text() {
        let expected = format!(
            r#"{{
  "format": 3,
  "phase": "ready",
  "migration": "{}",
  "volume": "{}",
  "generation": 2,
  "length": 1000,
  "attached": {{
    "holder": "{}",
    "epoch": 3
  }},
  "fenced_below": 2,
  "state": {{
    "epoch": 3,
    "barrier": 4,
    "root": "{}"
  }}
}}
"#,
            "ab".repeat(16),
            "cd".repeat(16),
            "ef".repeat(32),
            "12".repeat(32)
        );
        assert_eq!(String::from_utf8(sidecar().encode()).unwrap(), expected);
        assert_eq!(Sidecar::decode(expected.as_bytes()), Ok(sidecar()));
    }

    #[test]
    fn a_blank_record_reads_back() {
        let mut blank = sidecar();
        blank.phase = Phase::Creating;
        blank.record.attached = None;
        blank.record.state = None;
        assert_eq!(Sidecar::decode(&blank.encode()), Ok(blank));
    }

    #[test]
    fn what_is_newer_is_told_apart_from_what_is_damaged() {
        let text = String::from_utf8(sidecar().encode()).unwrap();
        let newer = text.replace(r#""format": 3"#, r#""format": 4, "more": []"#);
        let newer = Sidecar::decode(newer.as_bytes());
        assert_eq!(newer, Err(BadSidecar::Newer(4)));
        let damaged = [
            String::new(),
            text[..text.len() / 2].to_owned(),
            text.replace("efef", "EFEF"),
            text.replace("1212", "12"),
            text.replace(r#""length": 1000"#, r#""length": -1"#),
            text.replace("ready", "unheard-of"),
        ];
        for text in damaged {
            let refused = Sidecar::decode(text.as_bytes());
            assert!(matches!(refused, Err(BadSidecar::Corrupt(_))), "{text}");
        }
    }

    #[test]
    fn a_checkpoint_is_this_text() {
        let sidecar = CheckpointSidecar {
            phase: Phase::Ready,
            copy: Some(Phase::Creating),
            key: CheckpointKey {
                volume: sidecar().record.key,
                name: "before-upgrade".parse().unwrap(),
            },
            length: 1000,
            epoch: 2,
        };
        let expected = format!(
            r#"{{
  "format": 3,
  "phase": "ready",
  "copy": "creating",
  "migration": "{}",
  "volume": "{}",
  "generation": 2,
  "name": "before-upgrade",
  "length": 1000,
  "epoch": 2
}}
"#,
            "ab".repeat(16),
            "cd".repeat(16),
        );
        assert_eq!(String::from_utf8(sidecar.encode()).unwrap(), expected);
        assert_eq!(CheckpointSidecar::decode(expected.as_bytes()), Ok(sidecar));
        let outside = expected.replace("before-upgrade", "../up");
        let refused = CheckpointSidecar::decode(outside.as_bytes());
        assert!(matches!(refused, Err(BadSidecar::Corrupt(_))));
    }
}
