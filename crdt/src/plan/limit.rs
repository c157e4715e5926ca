//! A limit of how fast is sent: of one server, or shared by all of a site.
//!
//! Not here: which rate holds when (`limit`), and what share of a site's an agent takes
//! (`roles`).

use super::{Conflict, MAX_WORD};
use crate::limit::{BadTimetable, Rate, Timetable};
use keys::{Name, NodeId, PublicKey};
use std::fmt;
use std::str::FromStr;

/// Longest text of a limit, in bytes: what as many entries as may be take, with room.
pub(crate) const MAX_LIMIT: usize = 4_096;
const ZONE: &str = "zone=";
const POLITE: &str = "polite";

/// Whom a limit is of.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Limited {
    /// One agent: all its disks together.
    Server(NodeId),
    /// All agents of a site together.
    Site(Name),
}

/// What is decided of a limit: one value, since hours mean nothing without their zone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limit {
    /// Which rate holds when.
    pub timetable: Timetable,
    /// In which time zone: a name of the IANA database, 1 to [`MAX_WORD`] bytes. Whether
    /// there is such a zone is known where there is a clock.
    pub zone: String,
    /// Whether the agent backs off when the source's own reads and writes slow.
    pub polite: bool,
}

/// One limit as it is planned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LimitPlan {
    /// Whom it is of.
    pub of: Limited,
    /// What holds.
    pub limit: Limit,
    /// Whether that is the value of the register. Where this program cannot read that one,
    /// the slowest holds of those set apart from it that can be read, else the least rate.
    pub is_readable: bool,
    /// Whose change set it: read from the change's signature, not from a field.
    pub set_by: PublicKey,
    /// What operators set apart from each other, not yet settled by a new edit.
    pub conflicts: Vec<Conflict>,
}

/// A text that is no limit.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadLimit {
    /// The timetable is none.
    #[error(transparent)]
    Timetable(#[from] BadTimetable),
    /// The zone is none, or not what a zone can be called.
    #[error("it names no time zone, or two, or one with characters that no name has")]
    Zone,
    /// Longer than a limit may be.
    #[error("it is longer than {MAX_LIMIT} bytes")]
    TooLong,
}

impl Limit {
    /// Of one rate that always holds.
    pub fn always(rate: Rate) -> Self {
        Self {
            timetable: Timetable::always(rate),
            zone: "UTC".to_owned(),
            polite: false,
        }
    }
}

impl Limited {
    /// Names the first field of a limit that is not for this.
    pub fn unsound(&self, limit: &Limit) -> Option<&'static str> {
        if !is_zone(&limit.zone) {
            Some("zone")
        } else if limit.polite && matches!(self, Self::Site(_)) {
            Some(POLITE)
        } else {
            None
        }
    }
}

impl fmt::Display for Limited {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Server(id) => write!(f, "server {id}"),
            Self::Site(name) => write!(f, "site {name}"),
        }
    }
}

fn is_zone(text: &str) -> bool {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"/_+-".contains(&byte);
    (1..=MAX_WORD).contains(&text.len()) && text.bytes().all(fits)
}

impl fmt::Display for Limit {
    /// As it is written into the document.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {ZONE}{}", self.timetable, self.zone)?;
        match self.polite {
            true => write!(f, " {POLITE}"),
            false => Ok(()),
        }
    }
}

impl FromStr for Limit {
    type Err = BadLimit;

    fn from_str(text: &str) -> Result<Self, BadLimit> {
        if text.len() > MAX_LIMIT {
            return Err(BadLimit::TooLong);
        }
        let (mut zone, mut polite, mut entries) = (None, false, vec![]);
        for word in text.split_whitespace() {
            match word.strip_prefix(ZONE) {
                Some(name) if zone.is_none() && is_zone(name) => zone = Some(name.to_owned()),
                Some(_) => return Err(BadLimit::Zone),
                None if word == POLITE => polite = true,
                None => entries.push(word),
            }
        }
        Ok(Self {
            timetable: entries.join(" ").parse()?,
            zone: zone.ok_or(BadLimit::Zone)?,
            polite,
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_limit_survives_its_text_and_one_of_the_longest_fits() {
        for text in [
            "20MiB/s zone=UTC",
            "Mon-08:00,20MiB/s Fri-18:00,off zone=Europe/Berlin polite",
            "off zone=Etc/GMT+3 polite",
        ] {
            let limit: Limit = text.parse().unwrap();
            assert_eq!(limit.to_string(), text);
        }
        let entry = |at: usize| format!("Mon-{:02}:{:02},1099511627775B/s ", at / 60, at % 60);
        let entries: String = (0..crate::limit::MAX_ENTRIES).map(entry).collect();
        let longest = format!("{entries}zone={} polite", "x".repeat(MAX_WORD));
        assert!(longest.parse::<Limit>().is_ok(), "{} bytes", longest.len());
    }

    #[test]
    fn a_limit_without_a_zone_or_with_a_strange_one_is_none() {
        let refused = |text: &str| text.parse::<Limit>().unwrap_err();
        for text in [
            "20MiB/s",
            "20MiB/s zone=",
            "20MiB/s zone=a zone=b",
            "20MiB/s zone=\u{e9}",
        ] {
            assert_eq!(refused(text), BadLimit::Zone, "{text}");
        }
        assert!(matches!(refused("20 zone=UTC"), BadLimit::Timetable(_)));
        assert_eq!(refused(&" ".repeat(MAX_LIMIT + 1)), BadLimit::TooLong);
    }

    #[test]
    fn only_a_server_is_asked_to_be_polite() {
        let limit: Limit = "off zone=UTC polite".parse().unwrap();
        let site = Limited::Site(Name::new("berlin").unwrap());
        assert_eq!(site.unsound(&limit), Some("polite"));
        assert_eq!(Limited::Server(NodeId([1; 32])).unsound(&limit), None);
    }
}
