//! Strangers at the door: forged and replayed proofs, one invite used twice, and more
//! of them than there is room for.

use super::super::world::{Running, World, soon, until};
use crate::api::model::InviteCreate;
use crate::local::{self, Joining};
use crate::net::{self, Net};
use keys::enrolment::Transcript;
use keys::invite::Token;
use keys::{Identity, MeshId, Name, PublicKey, Signed, StatementId};
use libp2p::Multiaddr;
use mesh::enrol::MAX_CHALLENGES;
use mesh::{DeniedCode, EnrolReply, EnrolRequest};

fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

async fn invite(operator: &Running, uses: u16) -> Token {
    let asked = InviteCreate {
        roles: vec!["agent".into()],
        name: None,
        site: None,
        expires_secs: 600,
        uses,
        scope: vec![],
        valid_for_secs: None,
        root_key: None,
    };
    let created = operator.call(move |engine| engine.invite_create(&asked).unwrap());
    Token::from_text(&created.await.invite).unwrap()
}

/// How often an invite was used, and how many statements there are.
async fn used(operator: &Running, token: &Token) -> (usize, usize) {
    let invite = token.invite;
    operator
        .call(move |engine| {
            let state = engine.replica.authority().invite(&invite).unwrap();
            (state.used.len(), engine.replica.ledger().len())
        })
        .await
}

/// Somebody with a key of his own, and an invite.
struct Stranger {
    identity: Identity,
    net: Net,
    token: Token,
}

impl Stranger {
    async fn new(seed: u64, token: &Token) -> Self {
        let seed = blake3::hash(&seed.to_le_bytes());
        let identity = Identity::from_seed(seed.as_bytes());
        let tag = local::mesh_tag(&token.mesh);
        let config = net::Config::new(&mut identity.seed(), vec![], false, tag);
        let (net, mut events) = net::start(config).await.unwrap();
        tokio::spawn(async move { while events.recv().await.is_some() {} });
        let token = token.clone();
        Self {
            identity,
            net,
            token,
        }
    }

    async fn ask(&self, request: &EnrolRequest) -> EnrolReply {
        let bytes = codec::encode(request).unwrap();
        let addresses = self.token.addresses.iter();
        let addresses: Vec<Multiaddr> = addresses.map(|text| text.parse().unwrap()).collect();
        soon("an answer at the door", async {
            loop {
                let (door, bytes) = (self.token.admitter.0, bytes.clone());
                // Its connection is closed after an enrolment, to be made again.
                if let Ok(answer) = self.net.enrol(addresses.clone(), door, bytes).await {
                    return codec::decode(&answer).unwrap();
                }
            }
        })
        .await
    }

    async fn challenge(&self) -> [u8; 32] {
        let hello = EnrolRequest::Hello {
            mesh: self.token.mesh,
            invite: self.token.invite,
        };
        match self.ask(&hello).await {
            EnrolReply::Challenge { nonce, .. } => nonce,
            other => panic!("no challenge: {other:?}"),
        }
    }

    fn transcript(&self, nonce: [u8; 32]) -> Transcript {
        Transcript {
            mesh: self.token.mesh,
            invite: self.token.invite,
            joiner: self.identity.public(),
            admitter: self.token.admitter,
            nonce,
            name: name("guest"),
        }
    }

    fn prove(&self, nonce: [u8; 32]) -> EnrolRequest {
        EnrolRequest::Prove {
            invite: self.token.invite,
            name: name("guest"),
            proof: self.transcript(nonce).prove(&self.token, &self.identity),
        }
    }

    async fn is_denied(&self, request: &EnrolRequest, code: DeniedCode, what: &str) {
        match self.ask(request).await {
            EnrolReply::Denied { code: said } => assert_eq!(said, code, "{what}"),
            _ => panic!("{what}: not denied"),
        }
    }

    async fn is_enrolled(&self, request: &EnrolRequest) -> Signed {
        match self.ask(request).await {
            EnrolReply::Enrolled { enrolment, .. } => enrolment,
            other => panic!("not enrolled: {other:?}"),
        }
    }

    async fn joins(&self) -> Signed {
        let nonce = self.challenge().await;
        self.is_enrolled(&self.prove(nonce)).await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_proof_with_any_part_of_its_transcript_changed_enrols_nobody() {
    let world = World::new().await;
    let token = invite(&world.operator, 1).await;
    let (thief, other) = (
        Stranger::new(1, &token).await,
        Stranger::new(2, &token).await,
    );
    let before = used(&world.operator, &token).await;
    let parts = [
        "mesh",
        "invite",
        "joiner",
        "admitter",
        "nonce",
        "name",
        "secret",
        "key",
        "challenge",
    ];
    for part in parts {
        let nonce = thief.challenge().await;
        let mut transcript = thief.transcript(nonce);
        let (mut secret, mut signer) = (token.clone(), thief.identity.clone());
        match part {
            "mesh" => transcript.mesh = MeshId([1; 32]),
            "invite" => transcript.invite = StatementId([1; 32]),
            "joiner" => transcript.joiner = other.identity.public(),
            "admitter" => transcript.admitter = PublicKey([1; 32]),
            "nonce" => transcript.nonce[7] ^= 1,
            "name" => transcript.name = name("operator"),
            "secret" => secret.seed = [1; 32],
            "key" => signer = other.identity.clone(),
            // Fresh, and given to somebody else.
            _ => transcript.nonce = other.challenge().await,
        }
        let forged = EnrolRequest::Prove {
            invite: token.invite,
            name: name("guest"),
            proof: transcript.prove(&secret, &signer),
        };
        thief.is_denied(&forged, DeniedCode::BadProof, part).await;
    }
    assert_eq!(used(&world.operator, &token).await, before);
    thief.joins().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_recorded_proof_enrols_nobody_a_second_time() {
    let world = World::new().await;
    let token = invite(&world.operator, 2).await;
    let (guest, thief) = (
        Stranger::new(1, &token).await,
        Stranger::new(2, &token).await,
    );
    let nonce = guest.challenge().await;
    let recorded = guest.prove(nonce);
    let bad = DeniedCode::BadProof;
    thief.is_denied(&recorded, bad, "before it was used").await;
    let enrolment = guest.is_enrolled(&recorded).await;
    thief.is_denied(&recorded, bad, "without a challenge").await;
    thief.challenge().await;
    thief.is_denied(&recorded, bad, "with a challenge").await;
    // Its own key gets what it has, and no second place.
    assert_eq!(guest.is_enrolled(&recorded).await, enrolment);
    assert_eq!(used(&world.operator, &token).await.0, 1);

    // The last use is burnt: even a true proof comes too late, after a restart too.
    let late = Stranger::new(3, &token).await;
    let nonce = late.challenge().await;
    thief.joins().await;
    let used_up = DeniedCode::Used;
    late.is_denied(&late.prove(nonce), used_up, "too late")
        .await;
    world.operator.revoke(enrolment.statement_id()).await;
    let revoked = DeniedCode::KeyRevoked;
    guest
        .is_denied(&recorded, revoked, "after its revocation")
        .await;
    let folder = world.folder.path().join("operator");
    let key = world.operator.key;
    world.operator.stop().await;
    let operator = Running::start(&folder).await;
    assert_eq!(operator.key, key);
    let addresses = until("its address", &operator, |engine| {
        let listening = engine.listening.clone();
        (!listening.is_empty()).then_some(listening)
    });
    let moved = Token {
        addresses: addresses.await,
        ..token
    };
    let late = Stranger::new(4, &moved).await;
    let hello = EnrolRequest::Hello {
        mesh: moved.mesh,
        invite: moved.invite,
    };
    late.is_denied(&hello, used_up, "after a restart").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_who_use_one_invite_at_the_same_moment_get_one_place() {
    let world = World::new().await;
    let token = invite(&world.operator, 1).await;
    let join = |folder: &str| {
        let folder = world.folder.path().join(folder);
        let token = token.clone();
        async move {
            let name = name("guest");
            local::join(&folder, Joining { token, name }).await
        }
    };
    let both = async { tokio::join!(join("first"), join("second")) };
    let (first, second) = soon("both answers", both).await;
    assert!(first.is_ok() != second.is_ok(), "{first:?} {second:?}");
    let denied = [first, second].into_iter().find_map(Result::err).unwrap();
    let words = format!("{denied:#}");
    assert!(words.contains("the invite has been used"), "{words}");
    assert_eq!(used(&world.operator, &token).await.0, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_keys_at_the_door_drops_the_oldest_challenge_and_stops_nobody_else() {
    let world = World::new().await;
    let token = invite(&world.operator, 100).await;
    let first = Stranger::new(0, &token).await;
    let oldest = first.challenge().await;
    let mut seed = 1;
    // A few at a time: strangers have few places.
    while seed <= MAX_CHALLENGES as u64 {
        let few = (seed..).take(8.min(MAX_CHALLENGES - seed as usize + 1));
        let few: Vec<u64> = few.collect();
        seed += few.len() as u64;
        let mut nets = vec![];
        for seed in few {
            let stranger = Stranger::new(seed, &token).await;
            stranger.challenge().await;
            nets.push(stranger.net);
        }
        for net in nets {
            net.shutdown().await;
        }
    }
    let bad = DeniedCode::BadProof;
    first
        .is_denied(&first.prove(oldest), bad, "forgotten")
        .await;
    // Who asks again is served, and what was enrolled reaches the others.
    let enrolment = first.joins().await.statement_id();
    until("the enrolment", &world.replicator, move |engine| {
        engine.replica.ledger().get(&enrolment).map(|_| ())
    })
    .await;
}
