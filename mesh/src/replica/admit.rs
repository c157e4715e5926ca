//! Answering who is not known here: joiners, holders of a root key, and nodes that
//! introduce themselves; and how this node introduces itself.
//!
//! Not here: what each of them must prove (`enrol`).

use super::absorb::News;
use super::{Output, Replica};
use crate::enrol::{
    Decision, DeniedCode, EnrolReply, EnrolRequest, MAX_CHAIN, chain_of, ledger_of,
};
use codec::Wire;
use keys::authority::authority;
use keys::{PublicKey, Signed, Statement, StatementId, UnixSecs};

/// How soon a node introduces itself again to a peer that still does not answer.
const INTRODUCE_AGAIN_MILLIS: u64 = 15_000;

/// Whether a decision is not to be made before this node has heard how far its own log
/// goes: it may not know of an invite that it made itself. To enrol it would have to
/// write, which is refused until then. Who was enrolled already is answered, or two that
/// lost each other's word would wait for ever.
fn needs_own_head(decision: &Decision) -> bool {
    let code = DeniedCode::UnknownInvite;
    *decision == Decision::Reply(EnrolReply::Denied { code })
}

impl Replica {
    pub(super) fn enrol(
        &mut self,
        wall: UnixSecs,
        from: PublicKey,
        request: EnrolRequest,
        nonce: [u8; 32],
        out: &mut Vec<Output>,
    ) -> EnrolReply {
        let me = self.my_key();
        let decision = self
            .admission
            .step(wall, nonce, me, from, request, &self.authority);
        if !self.may_write() && needs_own_head(&decision) {
            let code = DeniedCode::Busy;
            return EnrolReply::Denied { code };
        }
        let answer = match decision {
            Decision::Reply(reply) => return reply,
            Decision::Again(id) => self.enrolled(&id),
            Decision::Enrol(enrolment) => self
                .state(wall, Statement::Enrolment(*enrolment), out)
                .ok()
                .and_then(|id| self.enrolled(&id)),
            Decision::Recover(root) => self.known(&root),
            Decision::Introduce(chain) => {
                return match self.introduced(wall, from, chain, out) {
                    Ok(()) => EnrolReply::Introduced,
                    Err(code) => EnrolReply::Denied { code },
                };
            }
        };
        let busy = EnrolReply::Denied {
            code: DeniedCode::Busy,
        };
        answer.unwrap_or(busy)
    }

    fn enrolled(&self, id: &StatementId) -> Option<EnrolReply> {
        let enrolment = self.ledger.get(id)?.signed.clone();
        let chain = chain_of(&self.ledger, id)?;
        Some(EnrolReply::Enrolled { enrolment, chain })
    }

    /// What a root key needs to go on: its last statement, so that its chain does not
    /// fork, and who this node is, so that it can be synced with.
    fn known(&self, root: &PublicKey) -> Option<EnrolReply> {
        let head = StatementId(self.ledger.head(root).hash);
        let me = self.my_key();
        let wanted = self.ledger.origins(&me).chain([head]);
        let chain = self.ledger.chain(wanted, MAX_CHAIN)?;
        Some(EnrolReply::Known { chain })
    }

    /// What makes this node one, to be shown to a peer that does not know it.
    pub fn introduction(&self) -> Option<EnrolRequest> {
        let origins = self.ledger.origins(&self.identity.public());
        let chain = self.ledger.chain(origins, MAX_CHAIN)?;
        let bytes: usize = chain.iter().map(|signed| signed.body.len() + 128).sum();
        (bytes < EnrolRequest::LIMIT).then_some(EnrolRequest::Introduce { chain })
    }

    /// Makes this node known to a peer that does not answer: again after a while, as what
    /// was said may be lost, or have reached another holder of the peer's key.
    pub(super) fn introduce(&mut self, now: u64, to: PublicKey, out: &mut Vec<Output>) {
        let Some(peer) = self.peers.get_mut(&to) else {
            return;
        };
        let is_due = |at: u64| now >= at + INTRODUCE_AGAIN_MILLIS;
        if !peer.introduced_at.is_none_or(is_due) {
            return;
        }
        peer.introduced_at = Some(now);
        if let Some(request) = self.introduction() {
            out.push(Output::Introduce { to, request });
        }
    }

    /// Takes a chain that makes `from` a node, and nothing of one that does not. It is
    /// looked at by itself first: only who was a node once costs this node more.
    fn introduced(
        &mut self,
        wall: UnixSecs,
        from: PublicKey,
        chain: Vec<Signed>,
        out: &mut Vec<Output>,
    ) -> Result<(), DeniedCode> {
        if self.authority.admits(wall, &from) {
            return Ok(());
        }
        let shown = ledger_of(self.ledger.mesh(), chain.clone());
        let shown = shown.ok_or(DeniedCode::NotIntroduced)?;
        if !authority(&shown).admits(wall, &from) {
            return Err(DeniedCode::NotIntroduced);
        }
        // With all that is known here, revocations among it, and before any of it is
        // kept: who was revoked is not to fill the ledger.
        let mut tried = self.ledger.clone();
        if tried.insert_all(chain.clone()).is_err() {
            return Err(DeniedCode::Busy);
        }
        if !authority(&tried).admits(wall, &from) {
            return Err(DeniedCode::KeyRevoked);
        }
        let news = News {
            statements: chain,
            ..News::default()
        };
        if let Some(fresh) = self.absorb(wall, from, news, out) {
            let announcement = fresh.cut();
            out.push(Output::PassOn {
                not_to: Some(from),
                announcement,
            });
        }
        Ok(())
    }
}
