//! Who is in the mesh: inviting, taking back, and this node's next key.
//!
//! Not here: who is admitted with an invite (`mesh`), and how a node begins again with
//! its next key (`local`).

use super::lapsing::Counted;
use super::{CallError, Refused, parse_roles, random, usage};
use crate::api::model::{
    InviteCreate, InviteCreated, InviteRevoke, KeyRotated, NodeRevoke, NodeRevoked,
};
use crate::api::secret::Secret;
use crate::engine::Engine;
use crate::views::{LookupError, find_member};
use crdt::{Document, MigrationPlan};
use keys::authority::Authority;
use keys::invite::Token;
use keys::statement::{Honoured, Invite, MIN_LEASE_SECS, Position};
use keys::{
    Identity, Member, Name, NodeId, PublicKey, Revocation, Role, RootKey, Scope, Standing,
    Statement, StatementId, UnixSecs,
};
use mesh::StateError;
use mesh::replica::Output;
use roles::Note;
use zeroize::Zeroizing;

/// Longest life of an invite.
const MAX_INVITE_SECS: u64 = 30 * 86_400;
/// Longest life of an enrolment that has an end.
const MAX_MEMBER_SECS: u64 = 10 * 366 * 86_400;
/// How long the others have to hear of a new key before this node stops answering with
/// the old one. Who has not heard by then is told by an introduction.
const HEARD_MILLIS: u64 = 1_000;

/// A reason that fits into a revocation.
pub(super) fn short_reason(reason: &str) -> String {
    let mut reason = reason.to_owned();
    while reason.len() > keys::statement::MAX_REASON {
        reason.pop();
    }
    reason
}

impl Engine {
    /// Reads a root key that is lent for one call.
    pub(super) fn lent_root(&self, text: Option<&Secret>) -> Result<Option<Identity>, CallError> {
        let Some(text) = text else { return Ok(None) };
        let root = RootKey::from_text(text.expose())
            .map_err(|error| usage(format!("the root key cannot be used: {error}")))?;
        if root.mesh != self.replica.ledger().mesh() {
            return Err(usage(format!(
                "that is the root key of another mesh, {} ({})",
                root.name,
                root.mesh.short()
            )));
        }
        Ok(Some(root.identity))
    }

    /// States with the root key that is lent, where only that may.
    pub(super) fn state_lent(
        &mut self,
        statement: Statement,
        root: Option<&Identity>,
    ) -> Result<StatementId, CallError> {
        let target = match &statement {
            Statement::Revocation(revocation) => Some(revocation.target),
            _ => None,
        };
        match root.filter(|_| self.replica.root_alone_states(&statement)) {
            None => self.state(statement, target),
            Some(root) => {
                let mut out: Vec<Output> = vec![];
                let wall = self.now().wall;
                let stated = self.replica.state_as_root(root, wall, statement, &mut out);
                self.carry(out);
                let id = stated?;
                self.stored()?;
                Ok(id)
            }
        }
    }

    /// Makes an invite; its secret is in the answer and nowhere else.
    pub fn invite_create(&mut self, asked: &InviteCreate) -> Result<InviteCreated, CallError> {
        self.require_operator()?;
        let roles = parse_roles(&asked.roles)?;
        if asked.uses == 0 || !(1..=MAX_INVITE_SECS).contains(&asked.expires_secs) {
            return Err(usage(
                "an invite has at least one use and lasts from a second to 30 days",
            ));
        }
        let now = self.now().wall;
        let member_until = match asked.valid_for_secs {
            None => None,
            Some(secs) if (1..=MAX_MEMBER_SECS).contains(&secs) => Some(UnixSecs(now.0 + secs)),
            Some(_) => return Err(usage("an enrolment lasts at most ten years, or for ever")),
        };
        let scope = parse_scope(&asked.scope)?;
        if scope != Scope::Everywhere && !roles.has(Role::Operator) {
            return Err(usage(
                "only an operator is limited to sites: use --scope with --role operator, and --site for where a node is",
            ));
        }
        let root = self.lent_root(asked.root_key.as_ref())?;
        let optional = |text: &Option<String>| text.as_deref().map(Name::new).transpose();
        let seed = Zeroizing::new(random::<32>()?);
        let not_after = UnixSecs(now.0 + asked.expires_secs);
        let invite = Invite {
            key: Identity::from_seed(&seed).public(),
            roles,
            name: optional(&asked.name).map_err(usage)?,
            site: optional(&asked.site).map_err(usage)?,
            not_after,
            uses: asked.uses,
            admitter: self.replica.my_key(),
            scope,
            member_until,
        };
        let id = self.state_lent(Statement::Invite(invite), root.as_ref())?;
        let mut addresses = self.reachable();
        addresses.truncate(keys::invite::MAX_ADDRESSES);
        let token = Token {
            mesh: self.replica.ledger().mesh(),
            invite: id,
            admitter: self.replica.my_key(),
            addresses: addresses.clone(),
            not_after,
            seed: *seed,
        };
        let text = token
            .to_text()
            .map_err(|error| CallError::Failed(error.to_string()))?;
        Ok(InviteCreated {
            invite: text.to_string(),
            id: id.to_string(),
            roles: roles.iter().map(|role| role.to_string()).collect(),
            expires_at: not_after.to_string(),
            addresses,
        })
    }

    /// Takes an invite back.
    pub fn invite_revoke(&mut self, wanted: &str, asked: &InviteRevoke) -> Result<(), CallError> {
        let root = self.lent_root(asked.root_key.as_ref())?;
        if root.is_none() {
            self.require_revoker()?;
        }
        let invites = self.replica.authority().invites();
        let matching: Vec<(StatementId, bool)> = invites
            .filter(|(id, _)| wanted.len() >= 4 && id.to_string().starts_with(wanted))
            .map(|(id, state)| (*id, state.revoked))
            .collect();
        match matching.as_slice() {
            [] => Err(CallError::Lookup(LookupError::NotFound {
                kind: "invite",
                wanted: wanted.chars().take(80).collect(),
                list: "dunlin invite list",
            })),
            [(_, true)] => Ok(()),
            [(id, false)] => {
                let revocation = Revocation {
                    target: *id,
                    honours: None,
                    reason: "invite revoked".into(),
                };
                self.state_lent(Statement::Revocation(revocation), root.as_ref())?;
                Ok(())
            }
            _ => Err(usage(format!(
                "`{wanted}` could be any of {} invites: give more of the id",
                matching.len()
            ))),
        }
    }

    /// Takes a node's enrolment back, and says what goes with it.
    pub fn node_revoke(
        &mut self,
        wanted: &str,
        asked: &NodeRevoke,
    ) -> Result<NodeRevoked, CallError> {
        let root = self.lent_root(asked.root_key.as_ref())?;
        if root.is_none() {
            self.require_revoker()?;
        }
        let member = find_member(self.replica.authority(), wanted)?.clone();
        if member.key == self.replica.my_key() {
            return Err(CallError::Refused(Refused {
                action: "revoke",
                what: format!("node {}", member.name),
                state: "the node this command runs on".into(),
                allowed: "run it on another operator's node".into(),
            }));
        }
        let honours = self.honours(&member, asked)?;
        let wall = self.now().wall;
        let counted = |authority: &Authority, document: &Document| {
            Counted::of(authority, document, &member.id, wall)
        };
        let before = counted(self.replica.authority(), self.replica.document());
        let reason = asked.reason.as_deref().unwrap_or("revoked by an operator");
        let reason = short_reason(reason);
        let revocation = Statement::Revocation(Revocation {
            target: member.id.into(),
            honours,
            reason: reason.clone(),
        });
        let is_revoked = matches!(member.standing, Standing::Revoked(_));
        let after = if asked.dry_run && !is_revoked {
            let supposed = self.replica.suppose(root.as_ref(), wall, revocation);
            let supposed = supposed.map_err(|error| self.not_stated(error, member.id.into()))?;
            counted(&supposed.authority, &supposed.document)
        } else {
            if !is_revoked {
                self.state_lent(revocation, root.as_ref())?;
                let text = format!("node {} ({}): {reason}", member.name, member.id.short());
                self.tell(None, Note::info("node-revoked", text));
            }
            counted(self.replica.authority(), self.replica.document())
        };
        Ok(NodeRevoked {
            id: member.id.to_string(),
            name: member.name.to_string(),
            dry_run: asked.dry_run,
            honoured_statements: honours.map(|honours| honours.statements.seq),
            honoured_edits: honours.map(|honours| honours.changes.seq),
            lapsed: before.without(&after, &member.id),
        })
    }

    /// Why something was not stated that takes `target` back: who may, where this node
    /// may not.
    pub(super) fn not_stated(&self, error: StateError, target: StatementId) -> CallError {
        let authority = self.replica.authority();
        let by = |signer: &PublicKey| match authority.by_key(signer) {
            Some(member) if member.standing == Standing::Active => Some(member.name.to_string()),
            _ => None,
        };
        const ROOT: &str = "with --root-key FILE (`root.key` of the founder's folder, or its copy)";
        let text = match (error, authority.member(&NodeId(target.0))) {
            (StateError::NeedsRoot, Some(member)) if member.roles.has(Role::Operator) => {
                format!(
                    "{} is an operator, and only the mesh's root key takes back an operator: run this {ROOT}",
                    member.name
                )
            }
            (StateError::NeedsRoot, Some(member)) => match by(&member.enrolled_by) {
                Some(operator) => format!(
                    "{} was enrolled by operator {operator}, and only that one or the mesh's root key takes it back: run this on {operator}, or here {ROOT}",
                    member.name
                ),
                None => format!(
                    "{} was not enrolled by this operator, and who enrolled it is no operator any more: only the mesh's root key takes it back, so run this {ROOT}",
                    member.name
                ),
            },
            (StateError::NeedsRoot, None) => {
                let grant = authority.grant(&target).map(|state| state.signer);
                let invite = authority.invite(&target).map(|state| state.signer);
                let what = match grant {
                    Some(_) => "grant",
                    None => "invite",
                };
                let Some(operator) = grant.or(invite).and_then(|signer| by(&signer)) else {
                    return StateError::NeedsRoot.into();
                };
                format!(
                    "{what} {} is of operator {operator}, and only that one or the mesh's root key takes it back: run this on {operator}, or here {ROOT}",
                    target.short()
                )
            }
            (error, _) => return error.into(),
        };
        CallError::NotAuthorised(text)
    }

    /// What a revocation is to honour of an operator's word: what is held here, unless
    /// it is asked for otherwise.
    fn honours(&self, member: &Member, asked: &NodeRevoke) -> Result<Option<Honoured>, CallError> {
        let named = asked.honour_through.as_deref();
        let edits = asked.honour_edits.as_deref();
        if !member.roles.has(Role::Operator) {
            return match (named, edits) {
                (None, None) => Ok(None),
                _ => Err(usage(format!(
                    "{} is no operator: there is nothing of its word to honour",
                    member.name
                ))),
            };
        }
        if named.is_some_and(|named| named.parse::<u64>().is_ok()) && edits.is_none() {
            return Err(usage(
                "statements and edits are numbered apart: say with --honour-edits which edits count, `all`, `none` or through a number",
            ));
        }
        let key = member.key;
        let ledger = self.replica.ledger();
        let document = self.replica.document();
        let head = document.heads().get(&key).copied();
        let statements = through(named, ledger.head(&key), |seq| ledger.at(&key, seq))?;
        if let Some(last) = statements.filter(|last| !ledger.is_whole(&key, last)) {
            return Err(unheard(member, ledger.unbroken(&key).seq, last.seq));
        }
        let edits = through(edits.or(named), head.unwrap_or(Position::NONE), |seq| {
            document.position(&key, seq)
        })?;
        let nothing = statements.is_none() && edits.is_none();
        Ok((!nothing).then_some(Honoured {
            key,
            statements: statements.unwrap_or(Position::NONE),
            changes: edits.unwrap_or(Position::NONE),
        }))
    }

    /// Refuses a plan that this operator could not grant.
    pub(in crate::engine) fn require_scope(&self, plan: &MigrationPlan) -> Result<(), CallError> {
        let grant = Statement::Grant(keys::Grant {
            migration: plan.id,
            agent: plan.source,
            replicators: plan.replicators.clone(),
            volumes: plan.volumes.clone(),
            not_after: UnixSecs(0),
            lease_secs: MIN_LEASE_SECS,
            autonomy_secs: 0,
            dedup_group: None,
        });
        Ok(self.replica.within_scope(&grant)?)
    }

    /// Gives this node its next key. The run ends soon after, to begin again with it.
    pub fn rotate_key(&mut self) -> Result<KeyRotated, CallError> {
        if self.rotated.is_some() {
            return Err(CallError::Failed(
                "the key is being changed already: wait a few seconds".into(),
            ));
        }
        let closing = self.open_invites();
        let seed = Zeroizing::new(random::<32>()?);
        let next = Identity::from_seed(&seed);
        // Durable before the mesh hears of it, or the node could lose the key it has.
        self.dir
            .write_next_key(&next)
            .map_err(|error| CallError::Failed(error.to_string()))?;
        let mut out: Vec<Output> = vec![];
        self.replica.rotate(&next, self.now().wall, &mut out)?;
        self.rotated = Some(self.now().mono_millis + HEARD_MILLIS);
        // In good order, before the other ends see that the key is no good any more.
        self.close_sessions();
        self.carry(out);
        let text = format!(
            "this node has the new key {}; the one it had is let in nowhere any more",
            next.public()
        );
        self.tell(None, Note::info("key-rotated", text));
        self.stored()?;
        Ok(KeyRotated {
            key: next.public().to_string(),
            peer_id: crate::net::peer_id_text(&next.public().0),
            closed_invites: closing,
        })
    }

    /// Invites that name the key which this node is about to give up.
    fn open_invites(&self) -> Vec<String> {
        let now = self.now().wall;
        let me = self.replica.my_key();
        let invites = self.replica.authority().invites();
        let open = invites.filter(|(_, state)| {
            let invite = &state.invite;
            invite.admitter == me
                && !state.revoked
                && now < invite.not_after
                && state.used.len() < usize::from(invite.uses)
        });
        open.map(|(id, _)| id.to_string()).collect()
    }
}

/// An operator's statements are honoured in a chain: with a link missing, nothing before it
/// would count on any node.
fn unheard(member: &Member, held: u64, last: u64) -> CallError {
    let missing = held + 1;
    let honoured = match held {
        0 => "none".to_owned(),
        held => held.to_string(),
    };
    CallError::Refused(Refused {
        action: "honour",
        what: format!("{} through its statement {last}", member.name),
        state: format!("not known here what its statement {missing} was"),
        allowed: format!(
            "wait until a peer that holds it has passed it on, or leave out what followed: --honour-through {honoured} --honour-edits all"
        ),
    })
}

/// `all`, `none` or a number, as a place in a log whose last entry is `head`.
fn through(
    asked: Option<&str>,
    head: Position,
    at: impl Fn(u64) -> Option<Position>,
) -> Result<Option<Position>, CallError> {
    match asked {
        None | Some("all") => Ok(Some(head)),
        Some("none" | "0") => Ok(None),
        Some(number) => {
            let seq: u64 = number
                .parse()
                .map_err(|_| usage(format!("`{number}` is neither `all`, `none` nor a number")))?;
            let found = at(seq).ok_or_else(|| {
                usage(format!(
                    "there is no number {seq} of it here: the last is {}",
                    head.seq
                ))
            })?;
            Ok(Some(found))
        }
    }
}

fn parse_scope(sites: &[String]) -> Result<Scope, CallError> {
    if sites.is_empty() {
        return Ok(Scope::Everywhere);
    }
    if sites.len() > keys::scope::MAX_SITES {
        return Err(usage(format!(
            "a scope names at most {} sites",
            keys::scope::MAX_SITES
        )));
    }
    let names: Result<Vec<Name>, _> = sites.iter().map(|site| Name::new(site)).collect();
    Ok(Scope::Sites(names.map_err(usage)?))
}
