//! Statements that are forged, backdated or withheld, by sync, gossip and tickets.

use super::super::rogue::{Rogue, empty_page};
use super::super::world::{Running, World, confirmed, content, pause, soon, until};
use super::super::{sealed, wall_clock};
use crate::api::model::NodeRevoke;
use crate::engine::{Engine, offences};
use blocks::{RefusalCode, ToSource};
use keys::permit::Move;
use keys::statement::{Entry, Position};
use keys::{
    Domain, Epoch, Grant, MigrationId, PublicKey, Revocation, Role, Signed, Statement, UnixSecs,
    VolumeId,
};
use roles::{JobId, Ticket};

const MIGRATION: MigrationId = MigrationId([5; 16]);
const VOLUME: VolumeId = VolumeId([6; 16]);

/// A grant for blocks of `agent` to the replicator, such as an operator may make.
fn grant(rogue: &Rogue, agent: PublicKey, replicator: PublicKey, days: u64) -> Grant {
    let authority = rogue.replica.authority();
    let id = |key| authority.by_key(key).unwrap().id;
    Grant {
        migration: MIGRATION,
        agent: id(&agent),
        replicators: vec![id(&replicator)],
        volumes: vec![VOLUME],
        not_after: UnixSecs(wall_clock().0 + days * 86_400),
        lease_secs: 3_600,
        autonomy_secs: 0,
        dedup_group: None,
    }
}

/// Whether blocks may move under a grant, once an operator has confirmed it.
fn allows(engine: &Engine, grant: &Signed, agent: PublicKey) -> bool {
    let asked = Move {
        grant: grant.statement_id(),
        migration: MIGRATION,
        volume: VOLUME,
        agent,
        replicator: engine.replica.my_key(),
    };
    let authority = engine.replica.authority();
    let leases = confirmed(engine, asked.grant);
    authority
        .permit_receive(engine.now(), &leases, &asked)
        .is_ok()
}

async fn is_allowed(node: &Running, grant: &Signed, agent: PublicKey) -> bool {
    let grant = grant.clone();
    node.call(move |engine| allows(engine, &grant, agent)).await
}

/// Waits until a node has it, whatever it makes of it.
async fn has(node: &Running, statement: &Signed) {
    let id = statement.statement_id();
    until("a statement", node, move |engine| {
        engine.replica.ledger().get(&id).map(|_| ())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_that_forges_is_named_and_in_the_end_shut_out_for_a_while() {
    let world = World::new().await;
    let job = world.migrate().await;
    let mallory = world.hostile("mallory", &[Role::Agent]).await;
    let newest = world.replicator.newest_event().await;
    let digest = |engine: &mut Engine| {
        let heads = engine.replica.heads();
        (heads.ledger, heads.logs)
    };
    let before = world.replicator.call(digest).await;
    let mut page = empty_page();
    let mut statement = mallory.ticket(job).grant;
    statement.body[60] ^= 1;
    page.statements.push(statement);
    let authors = mallory.replica.document().heads();
    let author = authors.keys().next().unwrap();
    let log = mallory.replica.document().entries_after(author, 0, 1);
    let mut change = log[0].clone();
    change.signature.0[9] ^= 1;
    page.changes.push(change);
    mallory.answers(&page);
    let named = "mallory sent a statement that is forged";
    mallory
        .announce_until(&page, &world.replicator, move |engine| {
            let mut events = engine.events.iter();
            let fits = |event: &crdt::Event| event.seq > newest && event.text.contains(named);
            events.any(fits).then_some(())
        })
        .await;
    let key = mallory.identity.public();
    mallory
        .announce_until(&page, &world.replicator, move |engine| {
            engine.offences.is_out(&key).then_some(())
        })
        .await;
    let out = world.replicator.event(newest, "peer-shut-out", "mallory");
    out.await;
    mallory.is_cut_off(world.replicator.key).await;
    assert!(
        mallory
            .net
            .open_stream(world.replicator.key.0)
            .await
            .is_err()
    );
    // A handful of lines, however often it was tried.
    let lines = world.replicator.events_with(newest, "mallory").await;
    assert!(lines <= 8, "{lines} events");
    assert_eq!(world.replicator.call(digest).await, before);
    world.goes_on(job, 3).await;

    // When its time is over it may come again, with nothing held against it.
    let replicator = world.replicator.key;
    world
        .replicator
        .call(move |engine| {
            let now = engine.now().mono_millis;
            let back = engine.offences.over(now + offences::PAUSE_MILLIS);
            assert_eq!(back, [key]);
            engine.let_in();
        })
        .await;
    mallory.answers(&empty_page());
    mallory.is_connected(replicator).await;
    let asked = mallory.asked_by(replicator);
    until("it is asked again", &world.replicator, {
        let script = mallory.watch_asked(replicator);
        move |_| (script() > asked).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_revoked_operator_signs_afterwards_moves_nothing_by_whatever_way_it_comes() {
    let world = World::new().await;
    let mut second = world.hostile("second", &[Role::Operator]).await;
    let mallory = world.hostile("mallory", &[Role::Agent]).await;
    let (agent, replicator) = (mallory.identity.public(), world.replicator.key);
    // It hears of mallory by itself.
    let statements = mallory.statements();
    let from = mallory.identity.public();
    let shown = mesh::Input::Shown { from, statements };
    second.replica.step(wall_clock(), 0, shown, &mut vec![]);
    let honest = second.states(Statement::Grant(grant(&second, agent, replicator, 1)));
    let mut page = empty_page();
    page.statements.push(honest.clone());
    let id = honest.statement_id();
    second
        .announce_until(&page, &world.replicator, move |engine| {
            engine.replica.ledger().get(&id).map(|_| ())
        })
        .await;
    assert!(is_allowed(&world.replicator, &honest, agent).await);

    let enrolment = second.replica.me().unwrap();
    let revocation = Revocation {
        target: enrolment.into(),
        honours: Some(keys::statement::Honoured {
            key: second.identity.public(),
            statements: Position {
                seq: 1,
                hash: honest.statement_id().0,
            },
            changes: Position {
                seq: 0,
                hash: [0; 32],
            },
        }),
        reason: "a test".into(),
    };
    world.by_root(Statement::Revocation(revocation)).await;
    second.is_cut_off(replicator).await;

    // All with a time at which it was an operator still.
    let past = |seq, previous, days| Entry {
        seq,
        previous,
        mesh: Some(second.replica.ledger().mesh()),
        at: UnixSecs(1_000),
        statement: Statement::Grant(grant(&second, agent, replicator, days)),
    };
    let seal = |entry: &Entry| Signed::seal(&second.identity, Domain::Statement, entry).unwrap();
    let later = seal(&past(2, Some(honest.statement_id()), 2));
    let instead = seal(&past(1, None, 3));
    let branch = seal(&past(2, Some(instead.statement_id()), 4));
    let backdated = [later, instead, branch];
    let newest = world.replicator.newest_event().await;

    // A member carries them: by gossip, by sync, and with a stream.
    let mut page = empty_page();
    page.statements.push(backdated[0].clone());
    let id = backdated[0].statement_id();
    mallory
        .announce_until(&page, &world.replicator, move |engine| {
            engine.replica.ledger().get(&id).map(|_| ())
        })
        .await;
    page.statements = backdated.to_vec();
    mallory.answers(&page);
    for statement in &backdated {
        has(&world.replicator, statement).await;
    }
    let code = RefusalCode::NotAuthorised;
    for statement in &backdated {
        assert!(!is_allowed(&world.replicator, statement, agent).await);
        let ticket = Ticket {
            job: JobId {
                migration: MIGRATION,
                volume: VOLUME,
            },
            epoch: Epoch(1),
            grant: statement.clone(),
            support: second.statements(),
        };
        let bytes = content(1);
        let pushed = mallory.push_to(replicator, sealed(&ticket), &bytes).await;
        assert_eq!(pushed.1, ToSource::Refused { code });
    }
    let refused = world.replicator.event(newest, "grant-refused", "not known");
    refused.await;
    // What it signed while it was trusted stands until it is taken back itself.
    assert!(is_allowed(&world.replicator, &honest, agent).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_is_not_honoured_through_a_statement_before_which_one_is_missing() {
    let world = World::new().await;
    let mut second = world.hostile("second", &[Role::Operator]).await;
    let mallory = world.hostile("mallory", &[Role::Agent]).await;
    let statements = mallory.statements();
    let from = mallory.identity.public();
    let shown = mesh::Input::Shown { from, statements };
    second.replica.step(wall_clock(), 0, shown, &mut vec![]);
    let mut granted = |days| {
        let grant = grant(&second, from, world.replicator.key, days);
        second.states(Statement::Grant(grant))
    };
    // The second of them is shown to nobody yet.
    let [first, missing, third] = [granted(1), granted(2), granted(3)];
    let mut page = empty_page();
    page.statements = vec![first, third.clone()];
    let id = third.statement_id();
    second
        .announce_until(&page, &world.operator, move |engine| {
            engine.replica.ledger().get(&id).map(|_| ())
        })
        .await;
    let revoke = |through: Option<&str>| {
        let asked = NodeRevoke {
            honour_through: through.map(str::to_owned),
            honour_edits: Some("none".into()),
            ..NodeRevoke::default()
        };
        let which = second.replica.me().unwrap().to_string();
        let called = world
            .operator
            .call(move |engine| engine.node_revoke(&which, &asked));
        async { called.await.map_err(|error| error.to_string()) }
    };
    for through in [None, Some("all"), Some("3")] {
        let refused = revoke(through).await.unwrap_err();
        let what = "through its statement 3: it is not known here what its statement 2 was";
        assert!(refused.contains(what), "{refused}");
        assert!(refused.contains("--honour-through 1 "), "{refused}");
    }
    page.statements = vec![missing.clone()];
    let id = missing.statement_id();
    second
        .announce_until(&page, &world.operator, move |engine| {
            engine.replica.ledger().get(&id).map(|_| ())
        })
        .await;
    let revoked = revoke(None).await.unwrap();
    assert_eq!(revoked.honoured_statements, Some(3));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_that_withholds_a_revocation_undoes_nothing() {
    let world = World::new().await;
    let job = world.migrate().await;
    let mallory = world.hostile("mallory", &[Role::Agent]).await;
    let ticket = mallory.ticket(job);
    let mut page = empty_page();
    // All that was stated, but for the grants and what takes them back.
    page.statements = mallory.statements();
    page.statements.retain(|signed| *signed != ticket.grant);
    mallory.answers(&page);
    let grant = ticket.grant.statement_id();
    world.operator.revoke(grant).await;
    let heard = world.replicator.event(0, "grant-refused", "was revoked");
    heard.await;
    let victim = world.replicator.key;
    let asked = mallory.asked_by(victim);
    until("three answers", &world.replicator, {
        let script = mallory.watch_asked(victim);
        move |_| (script() >= asked + 3).then_some(())
    })
    .await;
    let state = |engine: &mut Engine| {
        let ledger = engine.replica.heads().ledger;
        let grants = engine.replica.authority().grants();
        let revoked: Vec<_> = grants.map(|(id, state)| (*id, state.revoked)).collect();
        (ledger, revoked)
    };
    let here = world.replicator.call(state).await;
    assert_eq!(here, world.operator.call(state).await);
    assert!(here.1.contains(&(grant, true)), "the revocation is gone");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_whose_enrolment_ends_is_parted_from_when_it_does() {
    let world = World::new().await;
    let end = UnixSecs(wall_clock().0 + 15);
    let late = world.hostile_until("late", &[Role::Agent], Some(end)).await;
    assert!(late.is_let_in().await, "its time is not over");
    soon("the end of its connection", async {
        while late.is_let_in().await {
            pause().await;
        }
    })
    .await;
    assert!(wall_clock() >= end);
}
