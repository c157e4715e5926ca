//! What a pass has to read where something marks what is written: marks that are never
//! cleared, and generations that say which of them are new.
//!
//! A tracker stores the present generation at each block that a write completed on. A pass
//! begins with an *advance*: the next generation begins, and every store of an older one
//! that was under way is waited for. Then the pass reads what is marked since the last
//! pass that was made durable began. Why no write is lost: let `c` be the moment at which
//! the kernel says that a write is done, before anybody can know it, and `r` the one at
//! which the pass reads the block. Where `c` is before `r`, the pass has its data. Where it
//! is not, the write is marked with the generation that this pass began, or a later one,
//! and so it is in what the next pass reads. Nothing is cleared, so that nothing is lost
//! between reading and clearing; a mark that is too new costs a read.
//!
//! Not here: marking and reading marks (`volumes`), and whether the marks can be trusted
//! (`counting`).

pub mod counting;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;

use crate::GroupIndex;

/// Marks that there are beside that of a block which was never marked, 0.
const MARKS: u64 = u16::MAX as u64;

/// Marks are told apart as long as they were made in the last so many generations. What is
/// older may be taken for new, and never the other way round.
const MAX_AGE: u64 = MARKS / 2;

/// A number for the time between two advances of a tracker, from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Generation(u64);

impl Generation {
    /// The one that a tracker begins with.
    pub const FIRST: Self = Self(1);

    /// What is stored at a block that is written: never 0, and used again in a circle.
    pub fn mark(self) -> u16 {
        // At least 1 and at most what 16 bits hold.
        ((self.0 - 1) % MARKS + 1) as u16
    }

    /// The one after it.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0 + 1)
    }

    /// How many have begun since it did, where the present one is `now`.
    fn age(self, now: Self) -> u64 {
        now.0.saturating_sub(self.0)
    }
}

/// Tells marks of some generations from those before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Recent {
    now: u16,
    age: u16,
}

impl Recent {
    /// Those from `since` to the present one; none where these are too many to be told from
    /// older ones.
    pub fn new(since: Generation, now: Generation) -> Option<Self> {
        let age = u16::try_from(since.age(now)).ok();
        let age = age.filter(|age| u64::from(*age) <= MAX_AGE)?;
        Some(Self {
            now: now.mark(),
            age,
        })
    }

    /// Whether a mark is one of them; an old one may be taken for one.
    pub fn has(self, mark: u16) -> bool {
        let age = match self.now.checked_sub(mark) {
            Some(age) => age,
            None => u16::MAX - (mark - self.now),
        };
        mark != 0 && age <= self.age
    }
}

/// Which run of a tracker it is: drawn at random when one starts. Marks of another one are
/// nothing to go by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Instance(pub [u8; 16]);

/// What an advance found for one disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Advanced {
    /// Of the tracker.
    pub instance: Instance,
    /// The generation that began. All that was marked with an older one is stored.
    pub begun: Generation,
    /// Whether what was written since the last advance is marked.
    pub window: Window,
    /// Nothing was under way, so that nothing done until now turns up later as missing: a
    /// window may be taken back by the next one until then.
    pub is_still: bool,
}

/// Which marks hold what was written since the last advance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Window {
    /// Those made since then.
    Whole,
    /// Some are missing there. They are among those made since this generation began.
    Since(Generation),
    /// It is not known: any block may have changed.
    Gap(Gap),
}

impl Window {
    /// With what was found besides.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        match (self, other) {
            (Self::Gap(_), _) | (_, Self::Whole) => self,
            (_, Self::Gap(_)) | (Self::Whole, _) => other,
            (Self::Since(ours), Self::Since(theirs)) => Self::Since(ours.min(theirs)),
        }
    }
}

/// Why it is not known which blocks changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Gap {
    /// No pass was made durable under this tracker yet.
    #[error("nothing was read yet since the tracker is there")]
    Begun,
    /// The tracker was started again: by a reboot, or since it ended.
    #[error("the tracker was started again")]
    Restarted,
    /// More generations have begun than can be told apart.
    #[error("the last complete pass is too long ago for its marks to be told from new ones")]
    TooOld,
    /// The device did more than the tracker saw.
    #[error("the device wrote more than the tracker saw")]
    Missed,
    /// Events came faster than they were read.
    #[error("the device wrote faster than the tracker could hear of it")]
    Overflowed,
    /// The kernel's figures stand still, so that nothing says whether the marks are whole.
    #[error("the kernel does not count what the device writes")]
    NotCounted,
    /// The kernel's figures cannot be read.
    #[error("what the kernel counts of the device cannot be read")]
    Unread,
}

/// What a pass has to read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Owed {
    /// Every block.
    All(Gap),
    /// Every block that was marked in this generation or after it.
    Since(Generation),
}

impl Owed {
    /// With what was found besides.
    fn with(self, window: Window) -> Self {
        match (self, window) {
            (Self::All(_), _) | (_, Window::Whole) => self,
            (_, Window::Gap(gap)) => Self::All(gap),
            (Self::Since(ours), Window::Since(theirs)) => Self::Since(ours.min(theirs)),
        }
    }
}

/// Where the passes over one volume are among a tracker's generations. It lives as long as
/// the tracker, not as its owner: an owner that begins anew goes on with what it owed.
#[derive(Debug, Clone)]
pub struct Follow {
    instance: Option<Instance>,
    owed: Owed,
    /// Owed whatever is marked.
    groups: BTreeSet<GroupIndex>,
    running: Option<Running>,
}

/// A pass that is not durable yet.
#[derive(Debug, Clone)]
struct Running {
    begun: Generation,
    /// What was found since it began.
    besides: Window,
    /// What it reads of what is owed whatever is marked.
    groups: BTreeSet<GroupIndex>,
}

impl Follow {
    /// Of a volume that was never read.
    pub fn new() -> Self {
        Self {
            instance: None,
            owed: Owed::All(Gap::Begun),
            groups: BTreeSet::new(),
            running: None,
        }
    }

    /// Begins a pass with an advance, after which alone it may read: what it has to read,
    /// together with [`Self::groups`]. A pass that ran has broken off.
    pub fn collect(&mut self, advanced: &Advanced) -> Owed {
        self.broke_off();
        let now = advanced.begun;
        match self.instance {
            Some(instance) if instance != advanced.instance => {
                self.owed = Owed::All(Gap::Restarted);
            }
            _ => self.look(advanced.window),
        }
        self.instance = Some(advanced.instance);
        if let Owed::Since(since) = self.owed
            && Recent::new(since, now).is_none()
        {
            self.owed = Owed::All(Gap::TooOld);
        }
        self.running = Some(Running {
            begun: now,
            besides: Window::Whole,
            groups: self.groups.clone(),
        });
        self.owed
    }

    /// Takes in what was found between two passes, or while one runs.
    pub fn look(&mut self, window: Window) {
        self.owed = self.owed.with(window);
        if let Some(running) = &mut self.running {
            // The pass may have read the block before that write.
            running.besides = running.besides.and(window);
        }
    }

    /// What is held to be at the other end of these blocks came from there, and was not read
    /// here: it is owed, whatever is marked, until a pass that begins after this has read it.
    /// To be said before that is taken in.
    pub fn owe(&mut self, group: GroupIndex) {
        self.groups.insert(group);
        if let Some(running) = &mut self.running {
            running.groups.remove(&group);
        }
    }

    /// The groups that are owed whatever is marked.
    pub fn groups(&self) -> impl Iterator<Item = GroupIndex> + '_ {
        self.groups.iter().copied()
    }

    /// What is owed by what is known now.
    pub fn owed(&self) -> Owed {
        self.owed
    }

    /// All that the pass had to read which began with this generation is durable, and so is
    /// that it is: from now on what it read is not owed any more. False, and nothing changes,
    /// where another has begun since: who says so speaks of what is over.
    pub fn settled(&mut self, begun: Generation) -> bool {
        let Some(running) = self.running.take_if(|running| running.begun == begun) else {
            return false;
        };
        self.owed = Owed::Since(running.begun).with(running.besides);
        self.groups.retain(|group| !running.groups.contains(group));
        true
    }

    /// The pass ended without that: what it had to read is owed as before.
    pub fn broke_off(&mut self) {
        self.running = None;
    }
}

impl Default for Follow {
    fn default() -> Self {
        Self::new()
    }
}
