//! Leases of this node and, where it is an operator, of others: what is heard is made
//! durable, pulses are made when they are due, and a report is wanted when one of the
//! two has something to say.
//!
//! Not here: when a pulse is due and whom to answer (`keys::lease`, `roles::vouching`).

use super::Engine;
use crate::clock;
use crdt::Report;
use keys::Pulse;

impl Engine {
    /// Takes up what the reports say about leases. Comes before everything that rests
    /// on them.
    pub(super) fn settle_leases(&mut self) {
        let now = self.now();
        let mut leases = std::mem::take(&mut self.leases);
        let mut vouching = std::mem::take(&mut self.vouching);
        let looked = self.situation().map(|situation| {
            let (me, wanted) = (situation.me, situation.wanted_leases());
            let mut longer = false;
            for (node, report) in situation.reports.iter() {
                let from = (*node, &report.renewals[..]);
                longer |= leases.hear(situation.authority, now.wall, (me, &wanted), from);
            }
            leases.retain(&wanted);
            let answers = vouching.settle(&situation);
            (longer, leases.pulse_due(now, &wanted), answers)
        });
        self.leases = leases;
        self.vouching = vouching;
        let Some((longer, due, answers)) = looked else {
            return;
        };
        if due {
            self.pulse();
        }
        if longer {
            let stored = self.store.put_leases(&self.leases.snapshot(now, self.boot));
            self.must(stored);
            self.recheck_permits();
        }
        if due || answers {
            self.report.soon();
        }
    }

    fn pulse(&mut self) {
        let mut mark = [0; 16];
        if let Err(error) = getrandom::fill(&mut mark) {
            self.fatal = Some(anyhow::anyhow!("no random bytes from the system: {error}"));
            return;
        }
        // Before anybody sees the mark.
        self.leases.pulse(clock::now(), Pulse(mark));
    }

    /// What this node's report says about leases.
    pub(super) fn report_leases(&mut self, report: &mut Report) {
        report.pulse = self.leases.newest_pulse();
        let mut vouching = std::mem::take(&mut self.vouching);
        if let Some(situation) = self.situation() {
            report.renewals = vouching.renewals(&situation);
        }
        self.vouching = vouching;
    }
}
