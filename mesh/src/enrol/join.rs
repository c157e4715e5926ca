//! The asking side of enrolment: a joiner with an invite, and who recovers a mesh with
//! its root key.
//!
//! Not here: the messages and the side that is asked (`enrol`).

use super::{DeniedCode, EnrolReply, EnrolRequest, MAX_CHAIN};
use keys::enrolment::Transcript;
use keys::invite::Token;
use keys::root::Recovery;
use keys::{Identity, Ledger, MeshId, Name, PublicKey, RootKey, Signed, Statement};

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

impl JoinError {
    /// Whether the invite is one that admits nobody any more: it was used, has expired or
    /// was revoked.
    pub fn is_of_the_invites_state(&self) -> bool {
        use DeniedCode::{Expired, Revoked, Used};
        matches!(self, Self::Denied(Expired | Revoked | Used))
    }
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
            EnrolReply::Known { .. } | EnrolReply::Introduced => Err(JoinError::Untrusted),
        }
    }

    fn check(&self, enrolment: Signed, chain: Vec<Signed>) -> Result<JoinStep, JoinError> {
        let untrusted = JoinError::Untrusted;
        let mut ledger = ledger_of(self.token.mesh, chain).ok_or(untrusted.clone())?;
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

/// The side of who holds a root key and makes a new operator with it.
pub struct Recoverer {
    root: RootKey,
    joiner: PublicKey,
    member: PublicKey,
}

impl Recoverer {
    /// Prepares to recover as `joiner`, by asking `member`.
    pub fn new(root: RootKey, joiner: PublicKey, member: PublicKey) -> Self {
        Self {
            root,
            joiner,
            member,
        }
    }

    /// The first request.
    pub fn start(&self) -> EnrolRequest {
        EnrolRequest::Recover {
            mesh: self.root.mesh,
        }
    }

    /// Takes the member's answer. The ledger that it ends with holds what the root key
    /// goes on from, and what makes the member one.
    pub fn answered(&self, reply: EnrolReply) -> Result<JoinStep, JoinError> {
        let root = &self.root.identity;
        match reply {
            EnrolReply::Challenge { nonce, .. } => {
                let transcript = Recovery {
                    mesh: self.root.mesh,
                    joiner: self.joiner,
                    member: self.member,
                    nonce,
                };
                Ok(JoinStep::Send(EnrolRequest::ProveRoot {
                    root: root.public(),
                    proof: transcript.prove(root),
                }))
            }
            EnrolReply::Known { chain } => ledger_of(self.root.mesh, chain)
                .filter(|ledger| ledger.roots().contains(&root.public()))
                .map(|ledger| JoinStep::Done(Box::new(ledger)))
                .ok_or(JoinError::Untrusted),
            EnrolReply::Denied { code } => Err(JoinError::Denied(code)),
            EnrolReply::Enrolled { .. } | EnrolReply::Introduced => Err(JoinError::Untrusted),
        }
    }
}

/// The ledger of a chain, if it is sound and begins with the genesis of `mesh`.
pub(crate) fn ledger_of(mesh: MeshId, chain: Vec<Signed>) -> Option<Ledger> {
    if chain.len() > MAX_CHAIN {
        return None;
    }
    let mut statements = chain.into_iter();
    let genesis = statements.next()?;
    if genesis.statement_id().0 != mesh.0 {
        return None;
    }
    let mut ledger = Ledger::found(genesis).ok()?;
    ledger.insert_all(statements.collect()).ok()?;
    Some(ledger)
}
