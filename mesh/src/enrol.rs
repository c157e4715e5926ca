//! Enrolment: how a stranger with an invite becomes a node.
//!
//! ```text
//! joiner                                admitter
//!   Hello(mesh, invite)          ─────▶  invite known, open, unused?
//!                                ◀─────  Challenge(nonce)
//!   Prove(name, two signatures)  ─────▶  both signatures over one transcript?
//!                                        a use is burnt: the enrolment is signed
//!                                        and stored before it is sent
//!                                ◀─────  Enrolled(enrolment, chain of authority)
//! ```
//!
//! A joiner that asks again with the same key gets the same enrolment: a lost
//! answer costs no second use. Not here: the transport, and what an enrolled node
//! then syncs (`replica`).

use codec::Wire;
use keys::enrolment::{Proof, Transcript};
use keys::invite::Token;
use keys::ledger::Ledger;
use keys::statement::{Admission as Admitted, Enrolment, Statement};
use keys::{Authority, Identity, MeshId, Name, PublicKey, Signed, Standing, StatementId, UnixSecs};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// Challenges that may be open at once; the oldest is forgotten for a new one.
pub const MAX_CHALLENGES: usize = 64;
/// How long a challenge may be answered.
pub const CHALLENGE_SECS: u64 = 60;
/// Most statements sent with an enrolment: what its chain of authority needs.
pub const MAX_CHAIN: usize = 32;

/// What a joiner says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum EnrolRequest {
    /// Names the invite and asks for a challenge.
    Hello {
        /// The mesh to join.
        mesh: MeshId,
        /// The invite's statement.
        invite: StatementId,
    },
    /// Answers the challenge.
    Prove {
        /// The invite's statement.
        invite: StatementId,
        /// The name that the joiner gives itself.
        name: Name,
        /// Both signatures.
        proof: Proof,
    },
}

impl Wire for EnrolRequest {
    const NAME: &'static str = "enrolment request";
    const VERSION: u8 = 1;
    const LIMIT: usize = 4 * 1024;
}

/// What the admitter answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum EnrolReply {
    /// To be signed with both keys.
    Challenge {
        /// Fresh and random.
        nonce: [u8; 32],
        /// The name that the invite gives; the joiner's own choice without one.
        name: Option<Name>,
    },
    /// Done.
    Enrolled {
        /// The enrolment.
        enrolment: Signed,
        /// Genesis and all statements that the enrolment rests on.
        chain: Vec<Signed>,
    },
    /// Not done.
    Denied {
        /// Why, as a code.
        code: DeniedCode,
    },
}

impl Wire for EnrolReply {
    const NAME: &'static str = "enrolment reply";
    const VERSION: u8 = 1;
    const LIMIT: usize = 64 * 1024;
}

/// Why an enrolment was denied.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum DeniedCode {
    /// The admitter belongs to another mesh.
    #[error("that node belongs to another mesh; ask who gave you the invite for a new one")]
    AnotherMesh,
    /// The admitter does not know the invite, or did not make it.
    #[error("that node does not know this invite; ask for a new one")]
    UnknownInvite,
    /// Past its end.
    #[error("the invite has expired; ask for a new one")]
    Expired,
    /// All uses are burnt.
    #[error(
        "the invite has been used; if that was not you, have the operator check `dunlin node list`, and ask for a new one"
    )]
    Used,
    /// Taken back.
    #[error("the invite was revoked; ask for a new one")]
    Revoked,
    /// A signature did not match, or there was no challenge to answer.
    #[error("the proof was not accepted; try again, and check that the whole invite was copied")]
    BadProof,
    /// This key was a node before and was revoked.
    #[error("this node's key was revoked; remove its data folder to join as a new node")]
    KeyRevoked,
    /// The admitter cannot do it now.
    #[error("that node cannot enrol anyone now; try again in a minute")]
    Busy,
}

struct Challenge {
    invite: StatementId,
    nonce: [u8; 32],
    until: UnixSecs,
    /// Rises with each: many may be made within a second.
    number: u64,
}

/// The admitter's side: open challenges. Bounded, and empty after a restart.
#[derive(Default)]
pub struct Admission {
    open: BTreeMap<PublicKey, Challenge>,
    made: u64,
}

/// What the admitter is to do.
#[derive(Debug, PartialEq, Eq)]
pub enum Decision {
    /// Send this.
    Reply(EnrolReply),
    /// Sign and store this enrolment, then send it.
    Enrol(Box<Enrolment>),
    /// Send this enrolment, which was made before.
    Again(StatementId),
}

impl Admission {
    /// Takes one request from `joiner`, whose key the transport has proven.
    /// `me` is the key that would sign; `nonce` must be fresh and random.
    pub fn step(
        &mut self,
        now: UnixSecs,
        nonce: [u8; 32],
        me: PublicKey,
        joiner: PublicKey,
        request: EnrolRequest,
        authority: &Authority,
    ) -> Decision {
        let denied = |code| Decision::Reply(EnrolReply::Denied { code });
        self.open.retain(|_, challenge| now < challenge.until);
        match request {
            EnrolRequest::Hello { mesh, invite } => {
                if mesh != authority.mesh() {
                    return denied(DeniedCode::AnotherMesh);
                }
                if let Err(decision) = check(now, me, joiner, invite, authority) {
                    return *decision;
                }
                if self.open.len() >= MAX_CHALLENGES && !self.open.contains_key(&joiner) {
                    let open = self.open.iter();
                    let oldest = open.min_by_key(|(_, challenge)| challenge.number);
                    if let Some(oldest) = oldest.map(|(key, _)| *key) {
                        self.open.remove(&oldest);
                    }
                }
                let until = UnixSecs(now.0 + CHALLENGE_SECS);
                self.made += 1;
                self.open.insert(
                    joiner,
                    Challenge {
                        invite,
                        nonce,
                        until,
                        number: self.made,
                    },
                );
                let name = authority
                    .invite(&invite)
                    .and_then(|state| state.invite.name.clone());
                Decision::Reply(EnrolReply::Challenge { nonce, name })
            }
            EnrolRequest::Prove {
                invite,
                name,
                proof,
            } => {
                let use_index = match check(now, me, joiner, invite, authority) {
                    Ok(use_index) => use_index,
                    Err(decision) => return *decision,
                };
                let challenge = self.open.remove(&joiner);
                let Some(challenge) = challenge.filter(|open| open.invite == invite) else {
                    return denied(DeniedCode::BadProof);
                };
                let state = authority
                    .invite(&invite)
                    .expect("check found the invite in the same authority");
                let transcript = Transcript {
                    mesh: authority.mesh(),
                    invite,
                    joiner,
                    admitter: me,
                    nonce: challenge.nonce,
                    name: name.clone(),
                };
                let given = state.invite.name.as_ref();
                if given.is_some_and(|given| *given != name) {
                    return denied(DeniedCode::BadProof);
                }
                if !transcript.proven(&state.invite.key, &proof) {
                    return denied(DeniedCode::BadProof);
                }
                Decision::Enrol(Box::new(Enrolment {
                    subject: joiner,
                    name,
                    roles: state.invite.roles,
                    site: state.invite.site.clone(),
                    not_after: None,
                    admission: Admitted::Invited {
                        invite,
                        use_index,
                        nonce: challenge.nonce,
                        invite_signature: proof.invite_signature,
                        subject_signature: proof.subject_signature,
                    },
                }))
            }
        }
    }
}

/// The index of the use to burn, or what to answer instead.
fn check(
    now: UnixSecs,
    me: PublicKey,
    joiner: PublicKey,
    invite: StatementId,
    authority: &Authority,
) -> Result<u16, Box<Decision>> {
    let denied = |code| Err(Box::new(Decision::Reply(EnrolReply::Denied { code })));
    let Some(state) = authority.invite(&invite).filter(|state| state.signer == me) else {
        return denied(DeniedCode::UnknownInvite);
    };
    if state.used.values().any(|subject| *subject == joiner)
        && let Some(member) = authority.by_key(&joiner)
    {
        return if authority.admits(now, &joiner) {
            Err(Box::new(Decision::Again(member.id.into())))
        } else {
            denied(DeniedCode::KeyRevoked)
        };
    }
    // A key that lost its place does not come back by another invite.
    let known = authority.by_key(&joiner);
    if known.is_some_and(|member| member.standing != Standing::Active) {
        return denied(DeniedCode::KeyRevoked);
    }
    if state.revoked {
        return denied(DeniedCode::Revoked);
    }
    if now >= state.invite.not_after {
        return denied(DeniedCode::Expired);
    }
    let free = (0..state.invite.uses).find(|index| !state.used.contains_key(index));
    match free {
        Some(index) => Ok(index),
        None => denied(DeniedCode::Used),
    }
}

/// The joiner's side of the conversation.
pub struct Joiner {
    token: Token,
    identity: Identity,
    name: Name,
}

/// What the joiner is to do next.
#[derive(Debug)]
pub enum JoinStep {
    /// Send this and give the answer to [`Joiner::answered`].
    Send(EnrolRequest),
    /// Enrolled: store this ledger.
    Done(Box<Ledger>),
}

/// Why joining ended.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum JoinError {
    /// The admitter said no.
    #[error("{0}")]
    Denied(DeniedCode),
    /// The answer does not hold up: not the mesh of the invite, or a broken chain.
    #[error(
        "the answer of the admitting node cannot be trusted: its statements do not lead from the invite's mesh to this node"
    )]
    Untrusted,
}

impl Joiner {
    /// Prepares to join with `token` as `identity`.
    pub fn new(token: Token, identity: Identity, name: Name) -> Self {
        Self {
            token,
            identity,
            name,
        }
    }

    /// The first request.
    pub fn start(&self) -> EnrolRequest {
        EnrolRequest::Hello {
            mesh: self.token.mesh,
            invite: self.token.invite,
        }
    }

    /// Takes the admitter's answer.
    pub fn answered(&self, reply: EnrolReply) -> Result<JoinStep, JoinError> {
        match reply {
            EnrolReply::Challenge { nonce, name } => {
                let name = name.unwrap_or_else(|| self.name.clone());
                let transcript = Transcript {
                    mesh: self.token.mesh,
                    invite: self.token.invite,
                    joiner: self.identity.public(),
                    admitter: self.token.admitter,
                    nonce,
                    name: name.clone(),
                };
                Ok(JoinStep::Send(EnrolRequest::Prove {
                    invite: self.token.invite,
                    name,
                    proof: transcript.prove(&self.token, &self.identity),
                }))
            }
            EnrolReply::Enrolled { enrolment, chain } => self.check(enrolment, chain),
            EnrolReply::Denied { code } => Err(JoinError::Denied(code)),
        }
    }

    fn check(&self, enrolment: Signed, chain: Vec<Signed>) -> Result<JoinStep, JoinError> {
        let untrusted = JoinError::Untrusted;
        if chain.len() > MAX_CHAIN {
            return Err(untrusted);
        }
        let mut statements = chain.into_iter();
        let genesis = statements.next().ok_or(untrusted.clone())?;
        if genesis.statement_id().0 != self.token.mesh.0 {
            return Err(untrusted);
        }
        let mut ledger = Ledger::found(genesis).map_err(|_| untrusted.clone())?;
        for statement in statements {
            ledger.insert(statement).map_err(|_| untrusted.clone())?;
        }
        let id = enrolment.statement_id();
        ledger.insert(enrolment).map_err(|_| untrusted.clone())?;
        let mine = ledger.get(&id).is_some_and(|recorded| {
            matches!(&recorded.entry.statement,
                Statement::Enrolment(enrolment) if enrolment.subject == self.identity.public())
        });
        if mine {
            Ok(JoinStep::Done(Box::new(ledger)))
        } else {
            Err(untrusted)
        }
    }
}

/// Genesis first, then what `enrolment` rests on, each after what it needs.
pub fn chain_of(ledger: &Ledger, enrolment: &StatementId) -> Vec<Signed> {
    let mut wanted = vec![*enrolment];
    let mut found = BTreeSet::from([StatementId(ledger.mesh().0)]);
    while let Some(id) = wanted.pop() {
        let Some(recorded) = ledger.get(&id).filter(|_| found.len() < MAX_CHAIN) else {
            continue;
        };
        if !found.insert(id) {
            continue;
        }
        if let Statement::Enrolment(stated) = &recorded.entry.statement
            && let Admitted::Invited { invite, .. } = &stated.admission
        {
            wanted.push(*invite);
        }
        let signer = recorded.signed.signer;
        wanted.extend(
            ledger
                .iter()
                .filter_map(|(id, recorded)| match &recorded.entry.statement {
                    Statement::Enrolment(stated) if stated.subject == signer => Some(*id),
                    _ => None,
                }),
        );
    }
    found.remove(enrolment);
    let mut chain: Vec<StatementId> = found.into_iter().collect();
    chain.sort_by_key(|id| ledger.rank(id));
    chain
        .iter()
        .filter_map(|id| ledger.get(id).map(|recorded| recorded.signed.clone()))
        .collect()
}

#[cfg(test)]
mod tests;
