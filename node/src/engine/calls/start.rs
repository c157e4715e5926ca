//! Starting a migration: the grant that lets blocks move, and the leases that bound it.
//!
//! Not here: who confirms a grant to its ends, and when (`roles::vouching`).

use super::{CallError, Engine, IS_CUT_OVER, refuse_if_final, refused, usage};
use crate::api::model::{ActionOptions, MigrationView};
use crate::views::find_migration;
use crdt::{Desired, MigrationPlan, Stage};
use keys::lease::Span;
use keys::statement::{MAX_AUTONOMY_SECS, MAX_LEASE_SECS, MIN_LEASE_SECS};
use keys::{Grant, Name, Statement, StatementId, UnixSecs};

/// How long a grant made by `migration start` lasts.
const GRANT_SECS: u64 = 30 * 86_400;
/// How long its leases last: an operator's node may be restarted without a word.
const LEASE_SECS: u64 = 3_600;
/// How much longer work goes on: an operator's laptop may be away for a week.
const AUTONOMY_SECS: u64 = 7 * 86_400;

impl Engine {
    /// Lets blocks move, or move again.
    pub fn migration_start(
        &mut self,
        wanted: &str,
        resume: bool,
        options: ActionOptions,
    ) -> Result<MigrationView, CallError> {
        self.require_operator()?;
        let plan = find_migration(self.replica.document().plan(), wanted)?.clone();
        let action = if resume { "resume" } else { "start" };
        match plan.desired {
            Desired::Deleted => return Err(refused(action, &plan, "deleted", "create a new one")),
            Desired::Cutover { .. } => {
                let view = self.view(&plan.id)?;
                if view.stage == Stage::CutOver.to_string() {
                    return Err(refused(action, &plan, "cut over", IS_CUT_OVER));
                }
                refuse_if_final(action, &plan, &view)?;
                return Err(refused(
                    action,
                    &plan,
                    "cutting over",
                    "pause it first to take the cutover back, as long as it is not cut over",
                ));
            }
            Desired::Created if resume => {
                return Err(refused(action, &plan, "not started", "start it instead"));
            }
            Desired::Created | Desired::Paused | Desired::Started => {}
        }
        self.refuse_if_moved_elsewhere(action, &plan)?;
        let good = self.good_grants(&plan);
        let asked = Asked::read(&options)?;
        let others: Vec<StatementId> = good
            .iter()
            .filter(|(_, terms)| !asked.is_in(terms))
            .map(|(id, _)| *id)
            .collect();
        let grant = match good.is_empty() || !others.is_empty() {
            false => None,
            true => {
                self.refuse_if_others_stand(action, &plan, &others)?;
                let terms = asked.over(self.kept_terms(&plan, &good));
                Some(self.sign_grant(&plan, terms)?)
            }
        };
        let id = plan.id;
        self.edit(move |edit| {
            if let Some(grant) = grant {
                edit.add_grant(id, grant)?;
            }
            edit.set_desired(id, Desired::Started)
        })?;
        // They would go on exposing what they did.
        for old in others {
            self.revoke(old, "replaced by a grant with other terms")?;
        }
        self.view(&plan.id)
    }

    /// One disk has one copy at a time: two would each take half of the source's reading,
    /// and only one can be cut over for good.
    fn refuse_if_moved_elsewhere(
        &mut self,
        action: &'static str,
        plan: &MigrationPlan,
    ) -> Result<(), CallError> {
        let other = self.with_state(|state| state.moved_elsewhere(plan).into_iter().next());
        let Some((disk, other)) = other else {
            return Ok(());
        };
        let state = format!("of disk {disk}, which migration {other} moves already");
        let allowed =
            format!("cut {other} over, pause it or delete it first: a disk has one copy at a time");
        Err(refused(action, plan, &state, &allowed))
    }

    /// A grant with other terms that only its own signer can take back would stand beside a
    /// new one, and count as before.
    fn refuse_if_others_stand(
        &self,
        action: &'static str,
        plan: &MigrationPlan,
        grants: &[StatementId],
    ) -> Result<(), CallError> {
        let authority = self.replica.authority();
        let me = self.replica.me();
        let mut signers = grants
            .iter()
            .filter_map(|id| Some(authority.grant(id)?.signer));
        let other = signers.find(|signer| !me.is_some_and(|me| authority.is_node(me, *signer)));
        let Some(other) = other else {
            return Ok(());
        };
        let name = self.name_of(&other);
        let state = format!("granted by operator {name} with other terms");
        let allowed = format!(
            "start it with these on the node {name}, or take that grant back with `dunlin migration delete --root-key FILE` and plan it anew"
        );
        Err(refused(action, plan, &state, &allowed))
    }

    fn sign_grant(&mut self, plan: &MigrationPlan, terms: Terms) -> Result<StatementId, CallError> {
        let grant = Grant {
            migration: plan.id,
            agent: plan.source,
            replicators: plan.replicators.clone(),
            volumes: plan.volumes.clone(),
            not_after: UnixSecs(self.now().wall.0 + GRANT_SECS),
            lease_secs: terms.span.lease_secs,
            autonomy_secs: terms.span.autonomy_secs,
            dedup_group: terms.dedup_group,
        };
        check_leases(&grant)?;
        self.state(Statement::Grant(grant), None)
    }

    /// What a new grant has where nothing else is asked for: what the present one has,
    /// of several that which exposes most; else what the one had that ended last.
    fn kept_terms(&self, plan: &MigrationPlan, good: &[(StatementId, Terms)]) -> Terms {
        let present = good.iter().map(|(_, terms)| terms);
        if let Some(terms) = present.max_by_key(|terms| terms.span.exposure_secs()) {
            return terms.clone();
        }
        let authority = self.replica.authority();
        let grants = plan.grants.iter().filter_map(|id| authority.grant(id));
        let ended = grants.filter(|state| !state.revoked);
        let last = ended.max_by_key(|state| state.not_after);
        let span = Span {
            lease_secs: LEASE_SECS,
            autonomy_secs: AUTONOMY_SECS,
        };
        last.map_or(
            Terms {
                span,
                dedup_group: None,
            },
            |state| Terms::of(&state.grant),
        )
    }

    /// Grants of the plan that cover all of it.
    fn good_grants(&self, plan: &MigrationPlan) -> Vec<(StatementId, Terms)> {
        let now = self.now().wall;
        let grants = plan.grants.iter().filter_map(|id| {
            let state = self.replica.authority().grant(id)?;
            let good =
                !state.revoked && now < state.not_after && state.grant.volumes == plan.volumes;
            good.then(|| (*id, Terms::of(&state.grant)))
        });
        grants.collect()
    }
}

/// What of a grant people choose.
#[derive(Debug, Clone)]
struct Terms {
    span: Span,
    dedup_group: Option<Name>,
}

impl Terms {
    fn of(grant: &Grant) -> Self {
        Self {
            span: grant.span(),
            dedup_group: grant.dedup_group.clone(),
        }
    }
}

/// Terms that somebody asks for; what is none is kept.
struct Asked {
    lease_secs: Option<u64>,
    autonomy_secs: Option<u64>,
    dedup_group: Option<Option<Name>>,
}

impl Asked {
    fn read(options: &ActionOptions) -> Result<Self, CallError> {
        let dedup_group = match options.dedup_group.as_deref() {
            None => None,
            Some("") => Some(None),
            Some(group) => Some(Some(Name::new(group).map_err(usage)?)),
        };
        Ok(Self {
            lease_secs: options.lease_secs,
            autonomy_secs: options.autonomy_secs,
            dedup_group,
        })
    }

    /// Whether terms have all of it.
    fn is_in(&self, terms: &Terms) -> bool {
        let same = |asked: Option<u64>, had: u64| asked.is_none_or(|asked| asked == had);
        let group = self.dedup_group.as_ref();
        same(self.lease_secs, terms.span.lease_secs)
            && same(self.autonomy_secs, terms.span.autonomy_secs)
            && group.is_none_or(|asked| *asked == terms.dedup_group)
    }

    /// Terms with it, and else what they have.
    fn over(self, kept: Terms) -> Terms {
        Terms {
            span: Span {
                lease_secs: self.lease_secs.unwrap_or(kept.span.lease_secs),
                autonomy_secs: self.autonomy_secs.unwrap_or(kept.span.autonomy_secs),
            },
            dedup_group: self.dedup_group.unwrap_or(kept.dedup_group),
        }
    }
}

/// Whether lease and autonomy are within what a grant may have.
fn check_leases(grant: &Grant) -> Result<(), CallError> {
    let lease = MIN_LEASE_SECS..=MAX_LEASE_SECS;
    if !lease.contains(&grant.lease_secs) {
        return Err(usage(format!(
            "a lease lasts from {MIN_LEASE_SECS} s to {} days",
            MAX_LEASE_SECS / 86_400
        )));
    }
    if grant.autonomy_secs > MAX_AUTONOMY_SECS {
        return Err(usage(format!(
            "autonomy lasts at most {} days",
            MAX_AUTONOMY_SECS / 86_400
        )));
    }
    Ok(())
}
