//! Views of limits, with what they say now.

use super::State;
use super::nodes::ACTIVE;
use crate::api::model::{LimitView, PlannedLimit};
use crate::hours;
use crdt::{Event, Level, LimitPlan, Limited};
use keys::NodeId;
use roles::share::senders;

/// What an agent warned of when it spoke of limits last, as far back as its report goes.
pub(super) fn warned_of(events: &[Event]) -> Option<String> {
    let spoke = events.iter().filter(|event| event.kind == "limit");
    let last = spoke.max_by_key(|event| event.seq)?;
    (last.level == Level::Warn).then(|| last.text.clone())
}

impl State<'_> {
    /// Every limit, those of servers first, by name.
    pub fn limits(&self) -> Vec<LimitView> {
        let all = self.plan().limits.values();
        let mut views: Vec<LimitView> = all.map(|set| self.limit_with_sharers(set)).collect();
        let order = |view: &LimitView| {
            (
                view.server.is_none(),
                view.server.clone(),
                view.site.clone(),
            )
        };
        views.sort_by_cached_key(order);
        views
    }

    /// The limit that is set of this server or site.
    pub fn limit_of(&self, of: &Limited) -> Option<LimitView> {
        let set = self.plan().limits.get(of)?;
        Some(self.limit_with_sharers(set))
    }

    /// Limits of a server, its own first.
    pub(super) fn limits_of_server(&self, node: &NodeId) -> Vec<LimitView> {
        let member = self.replica.authority().member(node);
        let site = member.and_then(|member| member.site.clone());
        let of = [Some(Limited::Server(*node)), site.map(Limited::Site)];
        of.iter()
            .flatten()
            .filter_map(|of| self.limit_of(of))
            .collect()
    }

    /// A limit as people set it.
    pub(super) fn planned_limit(&self, set: &LimitPlan) -> PlannedLimit {
        let (server, site) = match &set.of {
            Limited::Server(id) => (Some(self.called(id)), None),
            Limited::Site(name) => (None, Some(name.to_string())),
        };
        PlannedLimit {
            server,
            site,
            timetable: set.limit.timetable.to_string(),
            zone: set.limit.zone.clone(),
            polite: set.limit.polite,
        }
    }

    fn limit_with_sharers(&self, set: &LimitPlan) -> LimitView {
        let holding = hours::holding(&set.limit, self.now);
        let shared_by = match &set.of {
            Limited::Server(_) => None,
            Limited::Site(site) => {
                let (authority, reports) = (self.replica.authority(), self.replica.reports());
                Some(senders(self.plan(), authority, reports, self.now, site).len())
            }
        };
        let conflicts = set.conflicts.iter().map(|conflict| {
            format!(
                "operators set the limit to {} apart from each other; {} holds: {}",
                conflict.values.join(" or to "),
                set.limit,
                crdt::conflicts::why(&conflict.field)
            )
        });
        let (server, site) = match &set.of {
            Limited::Server(id) => (Some(id), None),
            Limited::Site(name) => (None, Some(name.to_string())),
        };
        let state = server.map(|id| {
            let member = self.replica.authority().member(id);
            // Of a node that is not known here nothing moves either.
            member.map_or("unknown", |member| self.standing(member))
        });
        LimitView {
            server: server.map(|id| self.name_of(id)),
            server_id: server.map(ToString::to_string),
            server_state: state.filter(|state| *state != ACTIVE).map(Into::into),
            site,
            timetable: set.limit.timetable.to_string(),
            zone: set.limit.zone.clone(),
            zone_is_known: holding.zone_is_known,
            polite: set.limit.polite,
            is_readable: set.is_readable,
            now: holding.rate.to_string(),
            now_bytes_per_sec: holding.rate.bytes_per_sec().map(std::num::NonZeroU64::get),
            until: holding.until.map(|until| until.to_string()),
            shared_by,
            set_by: self.name_of_key(&set.set_by),
            conflicts: conflicts.collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_agent_warned_of_counts_until_it_speaks_of_limits_again() {
        let event = |seq, kind: &str, level| Event {
            seq,
            at: keys::UnixSecs(1),
            level,
            migration: None,
            kind: kind.to_owned(),
            text: format!("{kind} {seq}"),
        };
        let warned = [
            event(1, "limit", Level::Info),
            event(2, "limit", Level::Warn),
            event(3, "lease", Level::Warn),
        ];
        assert_eq!(warned_of(&warned).as_deref(), Some("limit 2"));
        let calm = [warned[1].clone(), event(4, "limit", Level::Info)];
        assert_eq!((warned_of(&calm), warned_of(&warned[..1])), (None, None));
        assert_eq!(warned_of(&[]), None);
    }
}
