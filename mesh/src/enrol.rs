//! Enrolment: how a stranger with an invite becomes a node, a root key makes one
//! again, and a node that is not known yet makes itself known. Here: the messages, and
//! the side that is asked.
//!
//! ```text
//! joiner                                admitter
//!   Hello(mesh, invite)          ─────▶  invite known, open, unused?
//!                                ◀─────  Challenge(nonce)
//!   Prove(name, two signatures)  ─────▶  both signatures over one transcript?
//!                                        a use is burnt: the enrolment is signed
//!                                        and stored before it is sent
//!                                ◀─────  Enrolled(enrolment, chain of authority)
//!
//! holder of a root key                  any member
//!   Recover(mesh)                ─────▶
//!                                ◀─────  Challenge(nonce)
//!   ProveRoot(root, signature)   ─────▶  a root key of this mesh, over its transcript?
//!                                ◀─────  Known(who I am, where the root's chain ends)
//!   signs its own enrolment with the root key, stores it, and introduces itself
//!
//! node with a new key                   member that does not know it
//!   Introduce(chain)             ─────▶  does that make this key a node, here too?
//!                                ◀─────  Introduced
//! ```
//!
//! A joiner that asks again with the same key gets the same enrolment: a lost
//! answer costs no second use. Not here: the other side (`join`), the transport, and
//! what an enrolled node then syncs (`replica`).

mod join;

pub(crate) use join::ledger_of;
pub use join::{JoinError, JoinStep, Joiner, Recoverer};

use codec::Wire;
use keys::enrolment::{Proof, Transcript};
use keys::ledger::Ledger;
use keys::root::Recovery;
use keys::statement::{Admission as Admitted, Enrolment};
use keys::{
    Authority, MeshId, Name, PublicKey, Signature, Signed, Standing, StatementId, UnixSecs,
};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Challenges that may be open at once; the oldest is forgotten for a new one.
pub const MAX_CHALLENGES: usize = 64;
/// How long a challenge may be answered.
pub const CHALLENGE_SECS: u64 = 60;
/// Most statements of a chain of authority in one message.
pub const MAX_CHAIN: usize = 64;

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
    /// Asks for a challenge to a root key.
    Recover {
        /// The mesh.
        mesh: MeshId,
    },
    /// Answers the challenge.
    ProveRoot {
        /// The root key.
        root: PublicKey,
        /// Over the transcript of the recovery.
        proof: Signature,
    },
    /// Shows how the sender's key came to be a node's.
    Introduce {
        /// Genesis and all statements that it rests on.
        chain: Vec<Signed>,
    },
}

impl Wire for EnrolRequest {
    const NAME: &'static str = "enrolment request";
    const VERSION: u8 = 2;
    const LIMIT: usize = 48 * 1024;
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
    /// To who holds a root key: the mesh, and where to go on.
    Known {
        /// Genesis, what makes the member one, and the last statement of the root key
        /// with all that it rests on.
        chain: Vec<Signed>,
    },
    /// The introduced key is known now.
    Introduced,
    /// Not done.
    Denied {
        /// Why, as a code.
        code: DeniedCode,
    },
}

impl Wire for EnrolReply {
    const NAME: &'static str = "enrolment reply";
    const VERSION: u8 = 2;
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
    /// The key that was shown is no root key of this mesh.
    #[error("that is not the root key of this mesh, or the challenge was not answered in time")]
    NotRoot,
    /// What was shown does not make the key a node.
    #[error("the statements that were shown do not make this key a node of the mesh")]
    NotIntroduced,
    /// The admitter cannot do it now.
    #[error("that node cannot enrol anyone now; try again in a minute")]
    Busy,
}

/// What a challenge is to prove.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Purpose {
    Join(StatementId),
    Recover,
}

struct Challenge {
    purpose: Purpose,
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
    /// Tell who holds this root key what it needs to go on.
    Recover(PublicKey),
    /// See whether this makes the sender's key a node.
    Introduce(Vec<Signed>),
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
                self.challenge(now, joiner, Purpose::Join(invite), nonce);
                let name = authority
                    .invite(&invite)
                    .and_then(|state| state.invite.name.clone());
                Decision::Reply(EnrolReply::Challenge { nonce, name })
            }
            EnrolRequest::Recover { mesh } => {
                if mesh != authority.mesh() {
                    return denied(DeniedCode::AnotherMesh);
                }
                self.challenge(now, joiner, Purpose::Recover, nonce);
                Decision::Reply(EnrolReply::Challenge { nonce, name: None })
            }
            EnrolRequest::ProveRoot { root, proof } => {
                let challenge = self.open.remove(&joiner);
                let challenge = challenge.filter(|open| open.purpose == Purpose::Recover);
                let proven = challenge.is_some_and(|challenge| {
                    let transcript = Recovery {
                        mesh: authority.mesh(),
                        joiner,
                        member: me,
                        nonce: challenge.nonce,
                    };
                    transcript.proven(&root, &proof)
                });
                if proven && authority.is_root(&root) {
                    Decision::Recover(root)
                } else {
                    denied(DeniedCode::NotRoot)
                }
            }
            EnrolRequest::Introduce { chain } => Decision::Introduce(chain),
            EnrolRequest::Prove {
                invite,
                name,
                proof,
            } => match check(now, me, joiner, invite, authority) {
                Ok(use_index) => {
                    let challenge = self.open.remove(&joiner);
                    let asked = Purpose::Join(invite);
                    match challenge.filter(|open| open.purpose == asked) {
                        Some(challenge) => {
                            let transcript = Transcript {
                                mesh: authority.mesh(),
                                invite,
                                joiner,
                                admitter: me,
                                nonce: challenge.nonce,
                                name,
                            };
                            enrol(authority, transcript, use_index, proof)
                        }
                        None => denied(DeniedCode::BadProof),
                    }
                }
                Err(decision) => *decision,
            },
        }
    }

    /// Opens a challenge, in place of one that the joiner had, or of the oldest.
    fn challenge(&mut self, now: UnixSecs, joiner: PublicKey, purpose: Purpose, nonce: [u8; 32]) {
        if self.open.len() >= MAX_CHALLENGES && !self.open.contains_key(&joiner) {
            let open = self.open.iter();
            let oldest = open.min_by_key(|(_, challenge)| challenge.number);
            if let Some(oldest) = oldest.map(|(key, _)| *key) {
                self.open.remove(&oldest);
            }
        }
        self.made += 1;
        let challenge = Challenge {
            purpose,
            nonce,
            until: UnixSecs(now.0 + CHALLENGE_SECS),
            number: self.made,
        };
        self.open.insert(joiner, challenge);
    }
}

/// The enrolment to be signed, if the proof holds.
fn enrol(authority: &Authority, asked: Transcript, use_index: u16, proof: Proof) -> Decision {
    let state = authority
        .invite(&asked.invite)
        .expect("check found the invite in the same authority");
    let invite = &state.invite;
    let renamed = invite.name.as_ref().is_some_and(|name| *name != asked.name);
    if renamed || !asked.proven(&invite.key, &proof) {
        let code = DeniedCode::BadProof;
        return Decision::Reply(EnrolReply::Denied { code });
    }
    Decision::Enrol(Box::new(Enrolment {
        subject: asked.joiner,
        name: asked.name,
        roles: invite.roles,
        site: invite.site.clone(),
        not_after: invite.member_until,
        scope: invite.scope.clone(),
        admission: Admitted::Invited {
            invite: asked.invite,
            use_index,
            nonce: asked.nonce,
            invite_signature: proof.invite_signature,
            subject_signature: proof.subject_signature,
        },
    }))
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
    let known = authority.invite(&invite);
    let Some(state) = known.filter(|state| state.invite.admitter == me) else {
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
    if known.is_some_and(|member| member.standing != Standing::Active || member.key != joiner) {
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

/// Genesis first, then what `enrolment` rests on, each after what it needs; none if
/// that is too much for one message.
pub fn chain_of(ledger: &Ledger, enrolment: &StatementId) -> Option<Vec<Signed>> {
    let mut chain = ledger.chain([*enrolment], MAX_CHAIN)?;
    chain.retain(|signed| signed.statement_id() != *enrolment);
    Some(chain)
}

#[cfg(test)]
mod tests;
