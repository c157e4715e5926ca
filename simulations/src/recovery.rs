//! The first operator's machine is lost for good: people make a new operator with the
//! root key, which takes back the lost one's enrolment; and a thief who has the machine
//! speaks on with its key.
//!
//! Not here: when it is lost (`losses`), and the wishes that the new one goes on with
//! (`people`).

use crate::context::{Context, Flaw};
use crate::invariants::Invariant;
use crate::network::{Event, Packet};
use crate::node::{Lived, Node, encode};
use crate::rng::Rng;
use crate::world::World;
use crdt::{Desired, MigrationPlan};
use keys::root::RootKey;
use keys::statement::{Grant, Honoured, Position};
use keys::{MigrationId, PublicKey, Revocation, Role, Statement, UnixSecs};
use mesh::{EnrolReply, JoinStep, Recoverer, Replica};
use std::rc::Rc;

/// How long a question may go unanswered.
const ANSWER_MILLIS: u64 = 4_000;
/// How long people wait for what the new operator has not heard of the lost one.
const GAP_MILLIS: u64 = 20_000;
/// Most that a thief says.
const MOST_WORDS: u32 = 12;

/// The making of a new operator.
pub struct Recovery {
    heir: usize,
    thief_after_millis: Option<u64>,
    /// Whether the enrolment of the lost one was taken back.
    is_done: bool,
    /// Since when people wait for what is missing among the lost one's statements.
    gap_since: Option<u64>,
    thief: Option<Rng>,
    words: u32,
}

impl Recovery {
    /// As it begins.
    pub fn new(heir: usize, thief_after_millis: Option<u64>) -> Self {
        Self {
            heir,
            thief_after_millis,
            is_done: false,
            gap_since: None,
            thief: None,
            words: 0,
        }
    }

    /// The node that is made an operator.
    pub fn heir(&self) -> usize {
        self.heir
    }
}

/// What a node that recovers a mesh waits for.
pub struct Recovering {
    recoverer: Recoverer,
    member: usize,
    asked: u64,
    until: u64,
}

/// What is known of a lost operator's word.
#[derive(Clone)]
pub struct Lost {
    /// Its key.
    pub key: PublicKey,
    /// What its enrolment's revocation honours.
    pub honoured: Honoured,
    /// A migration that a thief planned.
    pub stolen: MigrationId,
}

impl World {
    /// Whether people are still making a new operator.
    pub fn is_recovering(&self) -> bool {
        self.recovery
            .as_ref()
            .is_some_and(|recovery| !recovery.is_done)
    }

    /// Goes on with the making of a new operator, and lets a thief speak.
    pub fn recover(&mut self) {
        let Some(recovery) = &self.recovery else {
            return;
        };
        let heir = recovery.heir;
        match (recovery.is_done, self.nodes[heir].replica().is_some()) {
            (true, _) => self.thief_speaks(),
            (false, true) => self.take_back(heir),
            (false, false) => self.ask_to_recover(heir),
        }
    }

    /// Asks some member that runs.
    fn ask_to_recover(&mut self, heir: usize) {
        let root = self.nodes[0].root.clone();
        let root = root.or_else(|| self.nodes[heir].lent.clone());
        let root = root.expect("the first node has the root key until it is lost");
        // From here on it is kept offline, and lent to who recovers.
        self.nodes[0].root = None;
        self.nodes[heir].lent = Some(root.clone());
        // People ask nobody whom they revoked, who may not have heard of it.
        let outcasts = self.scenario.outcasts();
        let members: Vec<usize> = (1..self.scenario.nodes)
            .filter(|index| self.nodes[*index].replica().is_some() && !outcasts.contains(index))
            .collect();
        let Some(mesh) = members.iter().find_map(|index| self.nodes[*index].mesh()) else {
            return;
        };
        let member = members[usize::try_from(self.ctx.now).unwrap_or(0) % members.len()];
        self.edges.insert((heir.min(member), heir.max(member)));
        let root = RootKey {
            mesh,
            name: self.nodes[heir].name.clone(),
            identity: root,
        };
        self.live(heir, |node, ctx| {
            node.ask_to_recover(ctx, root, member);
            Ok(())
        });
    }

    /// The new operator takes back the lost one's enrolment, and honours all it has heard.
    fn take_back(&mut self, heir: usize) {
        let lost = self.nodes[0].identity.public();
        let replica = self.nodes[heir].replica();
        let ledger = replica.expect("it is an operator").ledger();
        if ledger.unbroken(&lost) != ledger.head(&lost) {
            // What is missing may come, or be lost with who said it.
            let now = self.ctx.now;
            let recovery = self.recovery.as_mut().expect("it is under way");
            self.ctx.seen.gaps += u64::from(recovery.gap_since.is_none());
            let since = *recovery.gap_since.get_or_insert(now);
            if now < since + GAP_MILLIS && self.ctx.flaw != Some(Flaw::HonoursPastGaps) {
                return;
            }
        }
        if !self.knows_what_is_planned(heir) {
            return;
        }
        let mut taken = None;
        self.live(heir, |node, ctx| {
            taken = node.take_back(ctx, lost)?;
            Ok(())
        });
        let Some(honoured) = taken else {
            return;
        };
        let stolen = MigrationId(Rng::new(self.ctx.seed).bytes());
        self.ctx.oracle.lost = Some(Lost {
            key: lost,
            honoured,
            stolen,
        });
        self.ctx.seen.recovered += 1;
        let now = self.ctx.now;
        let recovery = self.recovery.as_mut().expect("it is under way");
        recovery.is_done = true;
        if let Some(after) = recovery.thief_after_millis {
            recovery.thief = Some(Rng::new(self.ctx.seed ^ now));
            self.nodes[0].lost_until = Some(now + after);
            self.ctx
                .network
                .schedule(now + after, Event::Start { node: 0 });
        }
    }

    /// Whether a node has heard of every migration that others show: what it does not honour
    /// people would have to plan anew.
    fn knows_what_is_planned(&self, heir: usize) -> bool {
        let outcasts = self.scenario.outcasts();
        let knows = |index: usize, id: &MigrationId| {
            let replica = self.nodes[index].replica();
            replica.is_some_and(|one| one.document().plan().migrations.contains_key(id))
        };
        let mut migrations = self.scenario.migrations.iter();
        migrations.all(|migration| {
            let mut others = (1..self.scenario.nodes).filter(|index| !outcasts.contains(index));
            knows(heir, &migration.id) || !others.any(|other| knows(other, &migration.id))
        })
    }

    /// Whoever has the lost machine says something more with its key.
    fn thief_speaks(&mut self) {
        let recovery = self.recovery.as_mut().expect("it is done");
        let (Some(rng), Some(lost)) = (&mut recovery.thief, &self.ctx.oracle.lost) else {
            return;
        };
        if recovery.words >= MOST_WORDS || rng.below(2) == 0 {
            return;
        }
        recovery.words += 1;
        let (what, stolen) = (rng.below(4), lost.stolen);
        let migration = self.scenario.migrations[0].id;
        self.live(0, |node, ctx| {
            node.speak_as_thief(ctx, what, migration, stolen)
        });
    }
}

impl Node {
    /// Whether it waits for an answer about the root key.
    pub fn is_recovering(&self) -> bool {
        self.up.as_ref().is_some_and(|up| up.recoverer.is_some())
    }

    fn ask_to_recover(&mut self, ctx: &mut Context, root: RootKey, member: usize) {
        let now = ctx.now;
        let waits = self
            .up()
            .recoverer
            .as_ref()
            .is_some_and(|asked| now < asked.until);
        if waits {
            return;
        }
        let recoverer = Recoverer::new(root, self.identity.public(), ctx.key_of(member));
        let asked = ctx.network.number();
        let request = Rc::new(encode(&recoverer.start()));
        ctx.send(self.index, member, Packet::Enrol(asked, request));
        self.up().recoverer = Some(Recovering {
            recoverer,
            member,
            asked,
            until: now + ANSWER_MILLIS,
        });
    }

    /// A member answers who asked with the root key.
    pub fn recover_answered(&mut self, ctx: &mut Context, id: u64, bytes: &[u8]) -> Lived {
        let at = self.index;
        let up = self
            .up
            .as_mut()
            .expect("only a running node is given events");
        let Some(asked) = up.recoverer.as_mut().filter(|asked| asked.asked == id) else {
            return Ok(());
        };
        let Ok(reply) = codec::decode::<EnrolReply>(bytes) else {
            return Ok(());
        };
        let member = asked.member;
        match asked.recoverer.answered(reply) {
            Ok(JoinStep::Send(request)) => {
                asked.asked = ctx.network.number();
                asked.until = ctx.now + ANSWER_MILLIS;
                let packet = Packet::Enrol(asked.asked, Rc::new(encode(&request)));
                ctx.send(at, member, packet);
                Ok(())
            }
            Ok(JoinStep::Done(ledger)) => self.go_on_from(ctx, *ledger, member),
            // The challenge was lost: from the beginning.
            Err(_) => {
                up.recoverer = None;
                Ok(())
            }
        }
    }

    /// Becomes an operator by the root key's hand, and makes itself known.
    fn go_on_from(&mut self, ctx: &mut Context, ledger: keys::Ledger, member: usize) -> Lived {
        let wall = self.now(ctx).wall;
        let root = self.lent.clone().expect("people brought the root key");
        let recovering = mesh::Recovering {
            node: self.name.clone(),
            roles: [Role::Operator].into_iter().collect(),
            site: None,
        };
        let made = Replica::recover(self.identity.clone(), &root, ledger, recovering, wall);
        let (replica, records) = match made {
            Ok(made) => made,
            Err(why) => {
                ctx.fail(Invariant::EnrolmentEnds, format!("cannot recover: {why}"));
                return Ok(());
            }
        };
        self.deed(ctx)?;
        self.keep(ctx, records);
        self.deed(ctx)?;
        ctx.note(self.index, format_args!("is an operator by the root key"));
        if let Some(request) = replica.introduction() {
            let id = ctx.network.number();
            ctx.send(
                self.index,
                member,
                Packet::Enrol(id, Rc::new(encode(&request))),
            );
        }
        let up = self.up();
        up.replica = Some(replica);
        up.recoverer = None;
        up.know_conflicts();
        Ok(())
    }

    /// What the revocation of the lost operator honours, once it is stated.
    fn take_back(
        &mut self,
        ctx: &mut Context,
        lost: PublicKey,
    ) -> Result<Option<Honoured>, crate::node::Died> {
        let replica = self.replica().expect("it is an operator");
        let member = replica.authority().by_key(&lost);
        let Some(member) = member.filter(|_| replica.is_level()) else {
            return Ok(None);
        };
        let target = member.id.into();
        let revoked =
            replica
                .ledger()
                .iter()
                .find_map(|(_, recorded)| match &recorded.entry.statement {
                    Statement::Revocation(revocation) if revocation.target == target => {
                        Some(revocation.honours)
                    }
                    _ => None,
                });
        // A crash came between stating it and hearing that it was stated.
        if let Some(Some(honoured)) = revoked {
            return Ok(Some(honoured));
        }
        let head = replica.document().heads().get(&lost).copied();
        let ledger = replica.ledger();
        let honoured = Honoured {
            key: lost,
            // With a gap before it, no statement says who stands.
            statements: match ctx.flaw {
                Some(Flaw::HonoursPastGaps) => ledger.head(&lost),
                _ => ledger.unbroken(&lost),
            },
            changes: head.unwrap_or(Position::NONE),
        };
        if ctx.flaw == Some(Flaw::SparesTheLost) {
            return Ok(Some(honoured));
        }
        let revocation = Statement::Revocation(Revocation {
            target,
            honours: (ctx.flaw != Some(Flaw::HonoursNothing)).then_some(honoured),
            reason: "the machine is lost".into(),
        });
        let stated = self.state(ctx, revocation)?;
        Ok(stated.map(|_| honoured))
    }

    /// One more thing said with the key of an operator that was taken back.
    fn speak_as_thief(
        &mut self,
        ctx: &mut Context,
        what: u64,
        migration: MigrationId,
        stolen: MigrationId,
    ) -> Lived {
        let now = self.now(ctx);
        let Some(replica) = self.up().replica.as_mut() else {
            return Ok(());
        };
        // A thief does not wait for anybody's leave.
        replica.write_unheard();
        ctx.seen.thefts += 1;
        let plans = &replica.document().plan().migrations;
        let Some(plan) = plans.get(&migration).cloned() else {
            return Ok(());
        };
        let done = match what {
            0 => self.edit(ctx, |edit| edit.set_desired(migration, Desired::Paused)),
            1 => self.edit(ctx, |edit| {
                edit.create_migration(&MigrationPlan {
                    id: stolen,
                    grants: vec![],
                    ..plan
                })
            }),
            2 => self
                .invite(ctx, [Role::Agent].into_iter().collect(), [7; 32])
                .map(|_| crate::people::Done::Yes),
            _ => {
                let grant = Statement::Grant(Grant {
                    migration: stolen,
                    agent: plan.source,
                    replicators: plan.replicators,
                    volumes: plan.volumes,
                    not_after: UnixSecs(now.wall.0 + 86_400),
                    lease_secs: 3_600,
                    autonomy_secs: 0,
                    dedup_group: None,
                });
                self.state(ctx, grant).map(|_| crate::people::Done::Yes)
            }
        };
        done.map(drop)
    }
}
