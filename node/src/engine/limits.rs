//! Limits of how fast is sent: setting them, and what they come to for this agent now.
//!
//! Not here: what an agent takes of a limit that it shares (`roles::share`), the hours
//! (`hours`), and keeping to the pace (`transfer`).

use super::Engine;
use super::calls::{CallError, usage};
use crate::api::model::{LimitOf, LimitView, PlannedLimit};
use crate::hours;
use crate::transfer::Pace;
use crate::views::{LookupError, find_limited, find_member};
use crdt::limit::Rate;
use crdt::{EditError, EntryId, Limit, LimitPlan, Limited};
use keys::{Name, NodeId, Role, Scope, Standing, UnixSecs};
use roles::share::{Lending, MAX_LENT_MILLIS, has_borrowers, senders, share};
use roles::{Note, Now};
use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroU64;

/// For how long an agent lends what it does not use, each time that it says so, in a mesh
/// where all gossip their figures as often as they measure them.
const LENT_MILLIS: u64 = 3_000;
/// What is said each so often, by who sends nothing and has no figures to say.
const SAY_MILLIS: u64 = 500;

/// What is known of lending at a site, and what was told of limits.
pub(super) struct Limits {
    pub(super) lending: Lending,
    /// Agents that lend, and until when that counts.
    heard: BTreeMap<NodeId, u64>,
    next_say_millis: u64,
    /// What was told last; none before the first look.
    told: Option<Held>,
}

/// What limits say of this agent at one moment, shares left aside.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Held {
    /// Of this server alone.
    own: Rate,
    /// Of its site, with its name.
    shared: Option<(Name, Rate)>,
    polite: bool,
    /// Whose limits this program cannot read, and keeps to something slower instead.
    unreadable: Vec<String>,
    /// Whose limits have hours of a time zone that is not known here, and of which.
    unknown_zones: Vec<(String, String)>,
}

impl Held {
    const NOTHING: Self = Self {
        own: Rate::OFF,
        shared: None,
        polite: false,
        unreadable: vec![],
        unknown_zones: vec![],
    };

    /// Of an agent at a site.
    fn of(
        limits: &BTreeMap<Limited, LimitPlan>,
        me: NodeId,
        site: Option<&Name>,
        now: UnixSecs,
    ) -> Self {
        let own = limits.get(&Limited::Server(me));
        let shared = site.and_then(|site| {
            let set = limits.get(&Limited::Site(site.clone()))?;
            Some((site, set))
        });
        let own_of = own.map(|set| ("this server".to_owned(), set));
        let shared_of = shared.map(|(site, set)| (format!("site {site}"), set));
        let all: Vec<(String, &LimitPlan)> = own_of.into_iter().chain(shared_of).collect();
        let unreadable = all.iter().filter(|(_, set)| !set.is_readable);
        let unreadable = unreadable.map(|(of, _)| of.clone()).collect();
        let unknown_zones = all
            .into_iter()
            .filter(|(_, set)| !hours::is_known(&set.limit.zone))
            .map(|(of, set)| (of, set.limit.zone.clone()))
            .collect();
        let shared = shared.map(|(site, set)| (site.clone(), hours::rate_at(&set.limit, now)));
        Self {
            own: own.map_or(Rate::OFF, |set| hours::rate_at(&set.limit, now)),
            shared: shared.filter(|(_, rate)| *rate != Rate::OFF),
            polite: own.is_some_and(|set| set.limit.polite),
            unreadable,
            unknown_zones,
        }
    }

    fn note(&self) -> Note {
        match self.unreadable.is_empty() && self.unknown_zones.is_empty() {
            true => Note::info("limit", self.text()),
            false => Note::warn("limit", self.text()),
        }
    }

    fn text(&self) -> String {
        let mut parts = vec![];
        if self.own != Rate::OFF {
            parts.push(format!("this server sends at most {}", self.own));
        }
        if let Some((site, rate)) = &self.shared {
            parts.push(format!(
                "all servers of site {site} together send at most {rate}"
            ));
        }
        if self.polite {
            parts.push("reading gives way to the server's own work".to_owned());
        }
        if !self.unreadable.is_empty() {
            parts.push(format!(
                "the limit of {} cannot be read by this program, so that the slowest of what was set with it holds, or the least rate: use a newer program, or set it again",
                self.unreadable.join(" and of ")
            ));
        }
        for (of, zone) in &self.unknown_zones {
            parts.push(format!(
                "time zone {zone} of the limit of {of} is not known on this server, so that its slowest rate holds all the time: bring the time zones of this server up to date (`tzdata`), or set the limit in another"
            ));
        }
        match parts.is_empty() {
            true => "no limit holds for what this server sends".to_owned(),
            false => parts.join("; "),
        }
    }
}

impl Limits {
    pub(super) fn new(now: Now) -> Self {
        Self {
            lending: Lending::new(now.mono_millis, MAX_LENT_MILLIS),
            heard: BTreeMap::new(),
            next_say_millis: 0,
            told: None,
        }
    }

    /// An agent says whether it lends what it does not use, and for how long.
    pub(super) fn hear(&mut self, now_millis: u64, agent: NodeId, lends_millis: Option<u64>) {
        self.heard.retain(|_, until| now_millis < *until);
        match lends_millis {
            Some(span) => {
                let until = now_millis + span.min(MAX_LENT_MILLIS);
                self.heard.insert(agent, until);
            }
            None => drop(self.heard.remove(&agent)),
        }
    }
}

impl Engine {
    /// Who belongs to the mesh is known: of the process before this one others may have
    /// heard that it lends, for a span as long as one would be given now.
    pub(super) fn begin_lending(&mut self) {
        let now = self.now().mono_millis;
        self.limits.lending = Lending::new(now, self.lent_span_millis());
    }

    /// For how long is lent each time: longer where gossip is rarer.
    fn lent_span_millis(&self) -> u64 {
        (LENT_MILLIS + 3 * self.pace_millis()).min(MAX_LENT_MILLIS)
    }

    /// Brings the pace of this agent's sessions in line with plan, hours and gossip.
    pub(super) fn settle_pace(&mut self) {
        let now = self.now();
        let slots = self.agents.values();
        let (sent, on_its_way) = slots.fold((0, false), |(sent, on_its_way), slot| {
            let counts = slot.progress.counts();
            // What was on its way in a session that is gone is lost.
            let open = slot.has_session() && counts.blocks_sent > counts.blocks_durable;
            (sent + counts.bytes_sent, on_its_way || open)
        });
        let lending = &mut self.limits.lending;
        lending.look(now.mono_millis, sent, on_its_way);
        let held = self.held(now).unwrap_or(Held::NOTHING);
        let own = held.own.bytes_per_sec();
        let part = held.shared.as_ref();
        let part = part.and_then(|(site, rate)| self.part(now, site, *rate));
        let limit = match (own, part) {
            (Some(own), Some(part)) => Some(own.min(part)),
            (own, part) => own.or(part),
        };
        let pace = Pace {
            limit,
            polite: held.polite,
        };
        self.pace.send_if_modified(|before| {
            let is_new = *before != pace;
            *before = pace;
            is_new
        });
        self.tell_held(held);
    }

    /// What limits say of this node now; none where it is no agent.
    fn held(&self, now: Now) -> Option<Held> {
        let me = self.replica.me()?;
        let member = self.replica.authority().member(&me)?;
        if !member.roles.has(Role::Agent) {
            return None;
        }
        let limits = &self.replica.document().plan().limits;
        Some(Held::of(limits, me, member.site.as_ref(), now.wall))
    }

    fn senders(&self, now: Now, site: &Name) -> BTreeSet<NodeId> {
        let plan = self.replica.document().plan();
        let (authority, reports) = (self.replica.authority(), self.replica.reports());
        senders(plan, authority, reports, now.wall, site)
    }

    /// What this agent may take of a rate that its site shares.
    fn part(&self, now: Now, site: &Name, rate: Rate) -> Option<NonZeroU64> {
        let rate = rate.bytes_per_sec()?;
        let me = self.replica.me()?;
        let heard = self.limits.heard.iter();
        let heard = heard.filter(|(_, until)| now.mono_millis < **until);
        let mut lending: BTreeSet<NodeId> = heard.map(|(agent, _)| *agent).collect();
        lending.remove(&me);
        if self.limits.lending.is_bound(now.mono_millis) {
            lending.insert(me);
        }
        let senders = self.senders(now, site);
        NonZeroU64::new(share(rate.get(), &senders, &lending, &me))
    }

    /// For how long this agent lends what it does not use of its site's limit; none where it
    /// sends, and where nobody could use it.
    pub(super) fn lends_millis(&self) -> Option<u64> {
        let now = self.now();
        let (site, _) = self.held(now)?.shared?;
        let me = self.replica.me()?;
        let lends = self.limits.lending.lends(now.mono_millis);
        let lends = lends && has_borrowers(&self.senders(now, &site), &me);
        lends.then(|| self.lent_span_millis())
    }

    /// Whether it is time to say so, where nothing else is to be said.
    pub(super) fn is_lending_due(&self, now_millis: u64) -> bool {
        now_millis >= self.limits.next_say_millis
    }

    /// It is about to say so: from here on it keeps to it.
    pub(super) fn says_it_lends(&mut self, now_millis: u64, span_millis: u64) {
        self.limits.next_say_millis = now_millis + SAY_MILLIS;
        self.limits.lending.said(now_millis, span_millis);
        self.settle_pace();
    }

    fn tell_held(&mut self, held: Held) {
        let before = self.limits.told.replace(held.clone());
        let note = held.note();
        match before {
            None if held != Held::NOTHING => self.tell_once(None, note),
            Some(before) if before != held => self.tell(None, note),
            _ => {}
        }
    }

    /// Sets a limit.
    pub fn limit_set(&mut self, asked: &PlannedLimit) -> Result<LimitView, CallError> {
        self.require_operator()?;
        let (of, limit) = self.limit_of(asked)?;
        let about = of.clone();
        self.edit(move |edit| edit.set_limit(&about, &limit))?;
        self.settle_pace();
        self.limit_view(&of)
    }

    /// Takes a limit away, and answers what it was.
    pub fn limit_remove(&mut self, asked: &LimitOf) -> Result<LimitView, CallError> {
        self.require_operator()?;
        let of = self.limit_that_is_set(asked)?;
        let view = self.limit_view(&of)?;
        self.edit(move |edit| edit.remove_limit(&of))?;
        self.settle_pace();
        Ok(view)
    }

    fn limit_view(&mut self, of: &Limited) -> Result<LimitView, CallError> {
        let view = self.with_state(|state| state.limit_of(of));
        view.ok_or_else(|| CallError::Failed("the limit was taken away by another edit".into()))
    }

    /// Whom a limit is asked for, and what it is to say.
    pub(super) fn limit_of(&self, asked: &PlannedLimit) -> Result<(Limited, Limit), CallError> {
        let of = match target(asked.server.as_deref(), asked.site.as_deref())? {
            Target::Server(wanted) => {
                let plan = self.replica.document().plan();
                let member = find_limited(self.replica.authority(), plan, wanted)?;
                super::calls::active_in(member, Role::Agent)?;
                Limited::Server(member.id)
            }
            Target::Site(wanted) => Limited::Site(self.known_site(wanted)?),
        };
        self.require_scope_of(&of)?;
        let limit = Limit {
            timetable: asked.timetable.parse().map_err(usage)?,
            zone: hours::zone_named(&asked.zone).map_err(usage)?,
            polite: asked.polite,
        };
        if let Some(field) = of.unsound(&limit) {
            let entry = EntryId::Limit(of);
            return Err(match field {
                "polite" => usage(
                    "only a server can be asked to be polite, not a site: set it for each of its servers",
                ),
                field => EditError::Unsound { entry, field }.into(),
            });
        }
        Ok((of, limit))
    }

    /// The limit that is meant, of those that are set: its server may be gone.
    pub(super) fn limit_that_is_set(&self, asked: &LimitOf) -> Result<Limited, CallError> {
        let of = match target(asked.server.as_deref(), asked.site.as_deref())? {
            Target::Server(wanted) => {
                Limited::Server(find_member(self.replica.authority(), wanted)?.id)
            }
            Target::Site(wanted) => match Name::new(wanted) {
                Ok(name) => Limited::Site(name),
                Err(_) => return Err(no_limit(&format!("site {wanted}"))),
            },
        };
        if !self.replica.document().plan().limits.contains_key(&of) {
            let what = match (&asked.server, &asked.site) {
                (Some(server), _) => format!("server {server}"),
                (_, site) => format!("site {}", site.as_deref().unwrap_or_default()),
            };
            return Err(no_limit(&what));
        }
        self.require_scope_of(&of)?;
        Ok(of)
    }

    /// A site that a node is at, or is planned to be.
    fn known_site(&self, wanted: &str) -> Result<Name, CallError> {
        let name = Name::new(wanted).ok();
        let known = name.filter(|name| {
            let mut members = self.replica.authority().members();
            let mut planned = self.replica.document().plan().servers.values();
            members.any(|member| {
                member.standing == Standing::Active && member.site.as_ref() == Some(name)
            }) || planned.any(|server| server.site == name.as_str())
        });
        Ok(known.ok_or_else(|| LookupError::NotFound {
            kind: "site",
            wanted: wanted.chars().take(80).collect(),
            list: "dunlin node list",
        })?)
    }

    /// An operator that is limited to sites sets limits there.
    fn require_scope_of(&self, of: &Limited) -> Result<(), CallError> {
        let authority = self.replica.authority();
        let me = authority.by_key(&self.replica.my_key());
        let Some(scope @ Scope::Sites(_)) = me.map(|member| &member.scope) else {
            return Ok(());
        };
        let site = match of {
            Limited::Server(id) => authority.member(id).and_then(|member| member.site.as_ref()),
            Limited::Site(name) => Some(name),
        };
        match scope.has(site) {
            true => Ok(()),
            false => Err(CallError::NotAuthorised(format!(
                "this operator is limited to {scope}, and that is elsewhere: an operator without such a limit may do it"
            ))),
        }
    }
}

enum Target<'a> {
    Server(&'a str),
    Site(&'a str),
}

fn target<'a>(server: Option<&'a str>, site: Option<&'a str>) -> Result<Target<'a>, CallError> {
    match (server, site) {
        (Some(server), None) => Ok(Target::Server(server)),
        (None, Some(site)) => Ok(Target::Site(site)),
        _ => Err(usage(
            "a limit is of a server or of a site: name one of the two",
        )),
    }
}

fn no_limit(what: &str) -> CallError {
    let wanted = what.chars().take(80).collect();
    CallError::Lookup(LookupError::NotFound {
        kind: "limit of",
        wanted,
        list: "dunlin limit list",
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_limit_that_cannot_be_read_holds_and_is_told_as_such() {
        let me = NodeId([1; 32]);
        let berlin = Name::new("berlin").unwrap();
        let set = |of: Limited, is_readable| {
            let plan = LimitPlan {
                of: of.clone(),
                limit: Limit::always(Rate::LEAST),
                is_readable,
                set_by: keys::PublicKey([9; 32]),
                conflicts: vec![],
            };
            (of, plan)
        };
        let held = |own, shared| {
            let limits = BTreeMap::from([
                set(Limited::Server(me), own),
                set(Limited::Site(berlin.clone()), shared),
            ]);
            Held::of(&limits, me, Some(&berlin), UnixSecs(1))
        };
        let least = (berlin.clone(), Rate::LEAST);
        for (own, shared, of) in [
            (true, false, Some("the limit of site berlin cannot be read")),
            (false, true, Some("the limit of this server cannot be read")),
            (
                false,
                false,
                Some("the limit of this server and of site berlin"),
            ),
            (true, true, None),
        ] {
            let held = held(own, shared);
            assert_eq!(
                (held.own, &held.shared),
                (Rate::LEAST, &Some(least.clone()))
            );
            let note = held.note();
            let level = if of.is_some() {
                crdt::Level::Warn
            } else {
                crdt::Level::Info
            };
            assert_eq!(note.level, level, "{}", note.text);
            assert_eq!(
                note.text.contains("cannot be read"),
                of.is_some(),
                "{}",
                note.text
            );
            assert!(
                note.text.contains(of.unwrap_or("at most 64KiB/s")),
                "{}",
                note.text
            );
        }
    }

    #[test]
    fn a_zone_that_is_not_known_here_is_told_with_what_holds() {
        let me = NodeId([1; 32]);
        let set = |zone: &str| {
            let plan = LimitPlan {
                of: Limited::Server(me),
                limit: format!("08:00,20MiB/s 18:00,1MiB/s zone={zone}")
                    .parse()
                    .unwrap(),
                is_readable: true,
                set_by: keys::PublicKey([9; 32]),
                conflicts: vec![],
            };
            let limits = BTreeMap::from([(plan.of.clone(), plan)]);
            // A noon.
            Held::of(&limits, me, None, UnixSecs(12 * 3_600)).note()
        };
        let note = set("Mars/Olympus");
        assert_eq!(note.level, crdt::Level::Warn);
        for part in [
            "at most 1MiB/s",
            "time zone Mars/Olympus of the limit of this server",
        ] {
            assert!(note.text.contains(part), "{}", note.text);
        }
        let note = set("UTC");
        assert_eq!(note.level, crdt::Level::Info);
        assert_eq!(note.text, "this server sends at most 20MiB/s");
    }

    #[test]
    fn what_an_agent_lends_counts_until_its_span_is_over_or_it_says_otherwise() {
        let now = Now {
            wall: keys::UnixSecs(1),
            mono_millis: 0,
        };
        let (one, two) = (NodeId([1; 32]), NodeId([2; 32]));
        let mut limits = Limits::new(now);
        limits.hear(0, one, Some(3_000));
        limits.hear(10, two, Some(u64::MAX));
        assert_eq!(
            limits.heard[&two],
            10 + MAX_LENT_MILLIS,
            "and no longer than that"
        );
        limits.hear(20, two, None);
        assert_eq!(limits.heard.keys().collect::<Vec<_>>(), [&one]);
        limits.hear(3_000, two, None);
        assert!(limits.heard.is_empty());
    }
}
