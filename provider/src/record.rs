//! The rules of one volume's record, which every provider shares: who may
//! attach it, and which state may be written on it. It stores nothing.

use crate::{AttachTo, CloudError, VolumeRecord, VolumeSpec, VolumeState};

impl VolumeSpec {
    /// Refuses a length no volume of a cloud with this maximum can have.
    pub fn check_length(&self, max: u64) -> Result<(), CloudError> {
        if (1..=max).contains(&self.length) {
            return Ok(());
        }
        Err(CloudError::BadLength {
            key: self.key,
            asked: self.length,
            max,
        })
    }
}

impl VolumeState {
    /// Whether the other is this state with its root, which was not known.
    fn becomes(&self, other: &Self) -> bool {
        let root = other.root;
        self.root.is_none() && Self { root, ..*self } == *other
    }
}

impl VolumeRecord {
    /// The record of a volume that was just made.
    pub fn new(spec: &VolumeSpec) -> Self {
        Self {
            key: spec.key,
            length: spec.length,
            attached: None,
            fenced_below: 0,
            state: None,
        }
    }

    /// Refuses a spec that asks for something else under the same key.
    pub fn admit_spec(&self, spec: &VolumeSpec) -> Result<(), CloudError> {
        if self.length == spec.length {
            return Ok(());
        }
        Err(CloudError::Conflict {
            key: self.key,
            have: self.length,
            asked: spec.length,
        })
    }

    /// Attaches the volume, or says why not. Repeating it changes nothing.
    pub fn attach(&mut self, to: &AttachTo) -> Result<(), CloudError> {
        let key = self.key;
        self.admit_epoch(to.epoch)?;
        match self.attached {
            Some(have) if to.epoch < have.epoch => Err(CloudError::Fenced {
                key,
                have: have.epoch,
                asked: to.epoch,
            }),
            Some(have) if to.epoch == have.epoch && to.holder != have.holder => {
                Err(CloudError::AttachedElsewhere {
                    key,
                    holder: have.holder,
                    epoch: have.epoch,
                })
            }
            _ => {
                self.attached = Some(*to);
                Ok(())
            }
        }
    }

    /// Takes the volume from whoever holds it with a lower epoch, and keeps those
    /// epochs out, or says why not. Repeating it changes nothing.
    pub fn detach(&mut self, epoch: u64) -> Result<(), CloudError> {
        match self.attached {
            Some(have) if have.epoch >= epoch => Err(CloudError::Fenced {
                key: self.key,
                have: have.epoch,
                asked: epoch,
            }),
            _ => {
                self.attached = None;
                self.fenced_below = self.fenced_below.max(epoch);
                Ok(())
            }
        }
    }

    fn admit_epoch(&self, asked: u64) -> Result<(), CloudError> {
        match asked < self.fenced_below {
            true => Err(CloudError::Fenced {
                key: self.key,
                have: self.fenced_below,
                asked,
            }),
            false => Ok(()),
        }
    }

    /// Refuses an epoch that is not the one the volume is attached with.
    pub(crate) fn admit_holder(&self, asked: u64) -> Result<(), CloudError> {
        let key = self.key;
        self.admit_epoch(asked)?;
        match self.attached {
            Some(have) if asked < have.epoch => Err(CloudError::Fenced {
                key,
                have: have.epoch,
                asked,
            }),
            Some(have) if asked == have.epoch => Ok(()),
            _ => Err(CloudError::NotAttached { key, epoch: asked }),
        }
    }

    /// Takes a new durable state, or says why not. Repeating it changes
    /// nothing.
    pub fn tag(&mut self, state: &VolumeState) -> Result<(), CloudError> {
        let key = self.key;
        self.admit_holder(state.epoch)?;
        if let Some(have) = self.state
            && have != *state
            && have.epoch == state.epoch
            && have.barrier >= state.barrier
            && !have.becomes(state)
        {
            return Err(CloudError::StaleBarrier {
                key,
                have: have.barrier,
                asked: state.barrier,
            });
        }
        self.state = Some(*state);
        Ok(())
    }
}
