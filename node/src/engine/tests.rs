//! What a replicator does with an agent whose grant is not good, and what a revocation
//! stops: engines in this process over loopback sockets. Other attacks are in `attacks`.
//!
//! Not here: each rule of authority, which `keys` proves, and the node as a program.

#![allow(clippy::unwrap_used)]

mod attacks;
mod limits;
mod rogue;
mod world;

use super::wall_clock;
use blocks::{RefusalCode, ToSource};
use futures::AsyncWriteExt;
use keys::{
    Domain, Epoch, Grant, Identity, MigrationId, Name, NodeId, Role, Signed, Statement,
    StatementId, UnixSecs, VolumeId,
};
use mesh::{Founding, Replica};
use roles::{JobId, Ticket};
use std::fs;
use std::os::unix::fs::FileExt;
use world::{Running, Taken, World, answer, content, extent, pause, soon, until};

/// One ticket that must not be accepted, and what is to be said about it.
struct Forgery {
    what: &'static str,
    ticket: Vec<u8>,
    code: RefusalCode,
    kind: &'static str,
    words: &'static str,
}

fn sealed(ticket: &Ticket) -> Vec<u8> {
    codec::encode(ticket).unwrap()
}

impl Taken {
    /// The grant as it was made for the migration.
    fn grant(&self) -> Grant {
        let id = self.rogue.ticket(self.job).grant.statement_id();
        let authority = self.rogue.replica.authority();
        authority.grant(&id).unwrap().grant.clone()
    }

    fn node(&self, name: &str) -> NodeId {
        let mut members = self.rogue.replica.authority().members();
        members
            .find(|member| member.name.as_str() == name)
            .unwrap()
            .id
    }

    /// A ticket with a grant that the operator really made, but other than it should be.
    async fn with_grant(&self, change: impl FnOnce(&mut Grant)) -> Ticket {
        let mut grant = self.grant();
        change(&mut grant);
        let signed = self.operator.state(Statement::Grant(grant)).await;
        Ticket {
            grant: signed,
            ..self.rogue.ticket(self.job)
        }
    }

    /// Shows a ticket, pushes blocks with it, and checks what comes of it: the code, the
    /// event, and not one byte in the copy.
    async fn refuses(&self, forgery: Forgery) {
        let Forgery {
            what,
            ticket,
            code,
            kind,
            words,
        } = forgery;
        let before = fs::read(&self.copy).unwrap();
        let newest = self.replicator.newest_event().await;
        let (_stream, answer) = self.rogue.push(ticket, &content(666)).await;
        assert_eq!(answer, ToSource::Refused { code }, "{what}");
        self.replicator.event(newest, kind, words).await;
        let is_idle = |engine: &mut super::Engine| engine.receiving.is_empty();
        assert!(
            self.replicator.call(is_idle).await,
            "{what}: a session runs"
        );
        assert!(fs::read(&self.copy).unwrap() == before, "{what}: it wrote");
    }

    async fn refuses_grant(&self, what: &'static str, ticket: &Ticket, code: RefusalCode) {
        self.refuses_with(what, ticket, code, "grant").await;
    }

    async fn refuses_with(
        &self,
        what: &'static str,
        ticket: &Ticket,
        code: RefusalCode,
        words: &'static str,
    ) {
        self.refuses(Forgery {
            what,
            ticket: sealed(ticket),
            code,
            kind: "grant-refused",
            words,
        })
        .await;
    }

    /// Shows the agent's own ticket: it is good, and blocks are written.
    async fn accepts_the_true_one(&self) {
        let bytes = content(42);
        let ticket = sealed(&self.rogue.ticket(self.job));
        let (mut stream, opened) = self.rogue.push(ticket, &bytes).await;
        assert!(matches!(opened, ToSource::Opened { .. }), "{opened:?}");
        let durable = soon("a barrier", answer(&mut stream)).await;
        assert!(matches!(durable, Some(ToSource::Durable { .. })));
        let copy = fs::read(&self.copy).unwrap();
        assert!(copy[..blocks::BLOCK_SIZE] == bytes[..blocks::BLOCK_SIZE]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_grant_with_any_byte_edited_moves_nothing() {
    let taken = World::new().await.taken().await;
    let good = taken.rogue.ticket(taken.job);
    for at in (0..good.grant.body.len()).step_by(17) {
        let mut ticket = good.clone();
        ticket.grant.body[at] ^= 1;
        let code = RefusalCode::NotAuthorised;
        taken.refuses_grant("an edited grant", &ticket, code).await;
    }
    let mut ticket = good;
    ticket.grant.signer.0[5] ^= 1;
    let code = RefusalCode::NotAuthorised;
    taken.refuses_grant("another signer", &ticket, code).await;
    taken.accepts_the_true_one().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_expired_and_a_revoked_grant_move_nothing() {
    let taken = World::new().await.taken().await;
    let soon_over = UnixSecs(wall_clock().0 + 1);
    let expired = taken.with_grant(|grant| grant.not_after = soon_over).await;
    until("the grant's end", &taken.replicator, move |_| {
        (wall_clock() >= soon_over).then_some(())
    })
    .await;
    let code = RefusalCode::Expired;
    taken
        .refuses_with("expired", &expired, code, "expired at")
        .await;

    let revoked = taken.with_grant(|grant| grant.not_after.0 += 1).await;
    let id = revoked.grant.statement_id();
    taken.operator.revoke(id).await;
    until("the revocation", &taken.replicator, move |engine| {
        let state = engine.replica.authority().grant(&id);
        state.filter(|state| state.revoked).map(|_| ())
    })
    .await;
    let code = RefusalCode::Revoked;
    taken
        .refuses_with("revoked", &revoked, code, "was revoked")
        .await;
    taken.accepts_the_true_one().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_grant_of_a_foreign_mesh_or_of_the_agents_own_making_moves_nothing() {
    let taken = World::new().await.taken().await;
    let code = RefusalCode::NotAuthorised;
    let good = taken.rogue.ticket(taken.job);

    let (foreign, support) = foreign_grant(&taken);
    let ticket = Ticket {
        grant: foreign,
        support,
        ..good.clone()
    };
    taken
        .refuses_with("a foreign mesh's grant", &ticket, code, "not known")
        .await;

    let entry: keys::statement::Entry = good.grant.open(Domain::Statement).unwrap();
    let own = keys::statement::Entry {
        seq: 1,
        previous: None,
        ..entry
    };
    let ticket = Ticket {
        grant: Signed::seal(&taken.rogue.identity, Domain::Statement, &own).unwrap(),
        ..good
    };
    taken
        .refuses_with("its own grant", &ticket, code, "not known")
        .await;
    taken.accepts_the_true_one().await;
}

/// The same words, signed by the operator of another mesh, and all they rest on there.
fn foreign_grant(taken: &Taken) -> (Signed, Vec<Signed>) {
    let [identity, root] = [[71; 32], [72; 32]].map(|seed| Identity::from_seed(&seed));
    let founding = Founding {
        mesh: Name::new("mesh").unwrap(),
        node: Name::new("operator").unwrap(),
        roles: [Role::Provisioner].into_iter().collect(),
        site: None,
        nonce: [9; 16],
    };
    let wall = wall_clock();
    let (mut replica, _) = Replica::found(identity, root, founding, wall).unwrap();
    let grant = Statement::Grant(taken.grant());
    let id = replica.state(wall, grant, &mut vec![]).unwrap();
    let ledger = replica.ledger();
    let support = ledger.iter().map(|(_, recorded)| recorded.signed.clone());
    (ledger.get(&id).unwrap().signed.clone(), support.collect())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_grant_for_something_else_moves_nothing() {
    let taken = World::new().await.taken().await;
    let code = RefusalCode::NotAuthorised;
    let replicator = taken.node("replicator");
    let ticket = taken.with_grant(|grant| grant.agent = replicator).await;
    taken
        .refuses_with("another agent's", &ticket, code, "another agent")
        .await;

    let operator = taken.node("operator");
    let change = |grant: &mut Grant| grant.replicators = vec![operator];
    let ticket = taken.with_grant(change).await;
    let words = "does not name replicator";
    taken
        .refuses_with("another replicator's", &ticket, code, words)
        .await;

    let code = RefusalCode::WrongVolume;
    let words = "does not cover volume";
    let change = |grant: &mut Grant| grant.volumes = vec![VolumeId([5; 16])];
    let ticket = taken.with_grant(change).await;
    taken
        .refuses_with("another volume's", &ticket, code, words)
        .await;

    let change = |grant: &mut Grant| grant.migration = MigrationId([5; 16]);
    let ticket = taken.with_grant(change).await;
    taken
        .refuses_with("another migration's", &ticket, code, words)
        .await;

    let job = JobId {
        volume: VolumeId([6; 16]),
        ..taken.job
    };
    let ticket = Ticket {
        job,
        ..taken.rogue.ticket(taken.job)
    };
    taken
        .refuses_with("for another volume", &ticket, code, words)
        .await;
    taken.accepts_the_true_one().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_epoch_that_is_over_or_has_no_volume_and_bytes_that_are_no_ticket_move_nothing() {
    let taken = World::new().await.taken().await;
    let good = taken.rogue.ticket(taken.job);
    let with_epoch = |epoch| {
        sealed(&Ticket {
            epoch: Epoch(epoch),
            ..good.clone()
        })
    };
    let kind = "stream-refused";
    let forgeries = [
        Forgery {
            what: "a lower epoch",
            ticket: with_epoch(0),
            code: RefusalCode::StaleEpoch,
            kind,
            words: "epoch 0 is over, epoch 1 has begun",
        },
        Forgery {
            what: "an epoch without a volume",
            ticket: with_epoch(2),
            code: RefusalCode::NotReady,
            kind,
            words: "no volume of epoch 2",
        },
        Forgery {
            what: "no ticket",
            ticket: b"let me in".to_vec(),
            code: RefusalCode::BadFrame,
            kind,
            words: "stream of agent refused",
        },
    ];
    for forgery in forgeries {
        taken.refuses(forgery).await;
    }
    taken.accepts_the_true_one().await;
}

/// Whose word is taken back while blocks flow.
#[derive(Clone, Copy)]
enum Withdrawn {
    Grant,
    Agent,
    Replicator,
}

impl Withdrawn {
    fn statement(self, grant: StatementId, agent: NodeId, replicator: NodeId) -> StatementId {
        match self {
            Self::Grant => grant,
            Self::Agent => agent.into(),
            Self::Replicator => replicator.into(),
        }
    }
}

/// An agent that goes on sending after a revocation writes nothing more.
async fn a_deaf_agent_is_stopped(withdrawn: Withdrawn) {
    let taken = World::new().await.taken().await;
    let ticket = taken.rogue.ticket(taken.job);
    let grant = ticket.grant.statement_id();
    let bytes = content(1);
    let (stream, opened) = taken.rogue.push(sealed(&ticket), &bytes).await;
    assert!(matches!(opened, ToSource::Opened { .. }), "{opened:?}");
    let newest = taken.replicator.newest_event().await;
    let (mut reader, mut writer) = futures::AsyncReadExt::split(stream);
    let sending = tokio::spawn(async move {
        // Round and round, with other bytes each time, until the stream is gone.
        for seed in 2.. {
            let bytes = content(seed);
            for block in 0..world::BLOCKS {
                if writer.write_all(&extent(&bytes, block)).await.is_err() {
                    return;
                }
            }
        }
    });
    until("the rogue's blocks", &taken.replicator, {
        let (copy, first) = (taken.copy.clone(), bytes[..4096].to_vec());
        move |_| {
            let mut page = vec![0; 4096];
            let file = fs::File::open(&copy).ok()?;
            file.read_exact_at(&mut page, 0).ok()?;
            (page != first).then_some(())
        }
    })
    .await;

    let nodes = (taken.node("agent"), taken.node("replicator"));
    let target = withdrawn.statement(grant, nodes.0, nodes.1);
    taken.operator.revoke(target).await;
    let refused = taken.replicator.event(newest, "grant-refused", "revoked");
    refused.await;
    until("the session's end", &taken.replicator, |engine| {
        engine.receiving.is_empty().then_some(())
    })
    .await;
    let then = fs::read(&taken.copy).unwrap();
    soon("the stream's end", async {
        while let Some(frame) = answer(&mut reader).await {
            let code = RefusalCode::Revoked;
            let durable = matches!(frame, ToSource::Durable { .. });
            assert!(durable || frame == ToSource::Refused { code }, "{frame:?}");
        }
    })
    .await;
    // Nobody takes what it still has to say.
    sending.abort();
    match withdrawn {
        // It lets members in until they part from it, but takes nothing of them.
        Withdrawn::Grant | Withdrawn::Replicator => {
            let code = RefusalCode::Revoked;
            taken
                .refuses_with("it comes again", &ticket, code, "was revoked")
                .await;
        }
        Withdrawn::Agent => {
            soon("the connection's end", async {
                while taken.rogue.is_let_in().await {
                    pause().await;
                }
            })
            .await;
        }
    }
    assert!(fs::read(&taken.copy).unwrap() == then, "it wrote on");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_sends_on_after_its_grant_was_revoked_writes_nothing_more() {
    Box::pin(a_deaf_agent_is_stopped(Withdrawn::Grant)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_sends_on_after_it_was_revoked_itself_writes_nothing_more() {
    Box::pin(a_deaf_agent_is_stopped(Withdrawn::Agent)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replicator_that_was_revoked_takes_nothing_more() {
    Box::pin(a_deaf_agent_is_stopped(Withdrawn::Replicator)).await;
}

/// Both ends of an honest mesh stop and say why.
async fn both_ends_stop(withdrawn: Withdrawn) {
    let world = World::new().await;
    let job = world.migrate().await;
    let copy = world.copy(job).await;
    let keys = (world.agent.key, world.replicator.key);
    let target = world
        .operator
        .call(move |engine| {
            let plan = engine.replica.document().plan();
            let grant = plan.migrations[&job.migration].grants[0];
            let authority = engine.replica.authority();
            let id = |key| authority.by_key(key).unwrap().id;
            withdrawn.statement(grant, id(&keys.0), id(&keys.1))
        })
        .await;
    world.operator.revoke(target).await;
    world
        .replicator
        .event(0, "grant-refused", "was revoked")
        .await;
    world.agent.event(0, "grant-refused", "was revoked").await;
    until("the session's end", &world.replicator, |engine| {
        engine.receiving.is_empty().then_some(())
    })
    .await;
    let then = fs::read(&copy).unwrap();
    fs::write(&world.disk, content(9)).unwrap();
    until("the agent stands still", &world.agent, move |engine| {
        let (stage, step, why) = engine.agents[&job].machine.standing();
        let refused = stage == crdt::Stage::Stalled && step == "refused";
        (refused && why?.contains("was revoked")).then_some(())
    })
    .await;
    assert!(fs::read(&copy).unwrap() == then, "it wrote on");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revoked_grant_stops_both_ends() {
    both_ends_stop(Withdrawn::Grant).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revoked_agent_and_its_replicator_both_stop() {
    both_ends_stop(Withdrawn::Agent).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revoked_replicator_and_its_agent_both_stop() {
    both_ends_stop(Withdrawn::Replicator).await;
}

/// A provisioner finds after each start that it keeps the volumes of what was deleted.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_found_again_after_a_start_is_told_once() {
    let world = World::new().await;
    let folder = world.folder.path().join("agent");
    let tell = |engine: &mut super::Engine, text: &'static str| {
        let note = roles::Note::warn("volumes-kept", text);
        engine.tell_once(Some(MigrationId([1; 16])), note);
        let events = engine.events.iter();
        events.filter(|event| event.kind == "volumes-kept").count()
    };
    assert_eq!(
        world.agent.call(move |engine| tell(engine, "of a")).await,
        1
    );
    assert_eq!(
        world.agent.call(move |engine| tell(engine, "of b")).await,
        2
    );
    world.agent.stop().await;
    let agent = Box::pin(Running::start(&folder)).await;
    assert_eq!(agent.call(move |engine| tell(engine, "of a")).await, 2);
    assert_eq!(agent.call(move |engine| tell(engine, "of b")).await, 2);
    // What happens again is told again.
    assert_eq!(agent.call(move |engine| tell(engine, "of a")).await, 3);
    agent.stop().await;
}
