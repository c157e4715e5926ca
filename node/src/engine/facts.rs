//! Bringing the machines in line with plan, authority and reports. Called after
//! anything changed and on every tick; each machine does nothing when nothing
//! concerns it.

use super::Engine;
use keys::PublicKey;
use roles::{JobId, Situation};

/// Times that one change may lead to another before the rest waits for the next tick.
const MAX_ROUNDS: usize = 4;

impl Engine {
    /// What the machines may look at.
    pub(super) fn situation(&self) -> Option<Situation<'_>> {
        Some(Situation {
            now: self.now(),
            me: self.replica.me()?,
            my_key: self.replica.my_key(),
            plan: self.replica.document().plan(),
            authority: self.replica.authority(),
            reports: self.replica.reports(),
            leases: &self.leases,
            is_heard: self.replica.may_write(),
        })
    }

    pub(super) fn settle(&mut self) {
        // With a key that was given up nothing is done any more.
        if self.rotated.is_some() {
            return;
        }
        self.settle_leases();
        for _ in 0..MAX_ROUNDS {
            self.adopt_jobs();
            let acted = self.settle_agents()
                | self.settle_cutovers()
                | self.settle_provisioner()
                | self.settle_hooks();
            self.forget_copies_that_are_over();
            if !acted || self.fatal.is_some() {
                break;
            }
        }
    }

    fn settle_agents(&mut self) -> bool {
        let mut acted = false;
        let jobs: Vec<JobId> = self.agents.keys().copied().collect();
        for job in jobs {
            let source = self.source_state(&job);
            let Some(slot) = self.agents.get(&job) else {
                continue;
            };
            let Some(situation) = self.situation() else {
                return false;
            };
            let connected = |key: &PublicKey| self.connected.contains(key);
            let checkpoint = self.due_checkpoint(&job.migration);
            let facts = situation.agent_facts(slot.machine.record(), connected, source);
            let mut facts = facts.with_hooks(&self.hooks, &situation, &job.migration);
            facts.cutover = self.cutover_standing(&job.migration);
            facts.checkpoint = checkpoint;
            acted |= self.step_agent(job, roles::agent::Input::Facts(facts));
        }
        acted
    }

    fn settle_provisioner(&mut self) -> bool {
        let mut provisioner = std::mem::take(&mut self.provisioner);
        let mut actions = vec![];
        if let Some(situation) = self.situation() {
            provisioner.settle(&situation, &self.hooks, &mut actions);
        }
        self.provisioner = provisioner;
        let acted = !actions.is_empty();
        self.carry_provisioner(actions);
        self.tag_volumes();
        acted
    }
}
