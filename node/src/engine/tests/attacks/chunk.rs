//! Changes of the document made byte by byte, so that they can be what no honest
//! program makes: automerge's own would refuse to.
//!
//! Format: <https://automerge.org/automerge-binary-format-spec/>, change chunks.

use crdt::{SignedChange, shards};
use keys::{Domain, Identity, MeshId, PublicKey};
use sha2::{Digest, Sha256};

const MAGIC: [u8; 4] = [0x85, 0x6f, 0x4a, 0x83];

/// Before a value that is not repeated, in the one form in which columns are encoded.
pub const ONE: u8 = 0x7f;

/// A change with one operation. Columns are run-length encoded: a count, then the value.
pub struct Chunk {
    pub kind: u8,
    pub deps: Vec<[u8; 32]>,
    pub actor: PublicKey,
    pub seq: u64,
    pub start_op: u64,
    pub others: Vec<PublicKey>,
    pub columns: Vec<(u8, Vec<u8>)>,
}

impl Chunk {
    /// A sound first change of `actor`, which puts `true` under the key `a` in its shard.
    pub fn first(actor: PublicKey) -> Self {
        Self {
            kind: 1,
            deps: vec![shards::first()],
            actor,
            seq: 1,
            start_op: u64::from(shards::SHARDS) + 1,
            others: vec![shards::AUTHOR],
            columns: vec![
                (0x01, vec![ONE, 1]),
                (0x02, vec![ONE, shards::of("a") + 1]),
                (0x15, vec![ONE, 1, b'a']),
                (0x34, vec![1]),
                (0x42, vec![ONE, 1]),
                (0x56, vec![ONE, 2]),
                (0x70, vec![ONE, 0]),
            ],
        }
    }

    /// Puts a column in its place, or another in the place of one that is there.
    pub fn with(mut self, column: u8, data: Vec<u8>) -> Self {
        self.columns.retain(|(spec, _)| *spec != column);
        self.columns.push((column, data));
        self.columns.sort();
        self
    }

    fn body(&self) -> Vec<u8> {
        let mut body = leb128(self.deps.len() as u64);
        let mut deps = self.deps.clone();
        deps.sort_unstable();
        body.extend(deps.iter().flatten());
        body.push(32);
        body.extend(self.actor.0);
        body.extend(leb128(self.seq));
        body.extend(leb128(self.start_op));
        // Time, and no message.
        body.extend([0, 0]);
        body.extend(leb128(self.others.len() as u64));
        for other in &self.others {
            body.push(32);
            body.extend(other.0);
        }
        body.extend(leb128(self.columns.len() as u64));
        for (spec, data) in &self.columns {
            body.push(*spec);
            body.extend(leb128(data.len() as u64));
        }
        body.extend(self.columns.iter().flat_map(|(_, data)| data));
        body
    }

    pub fn bytes(&self) -> Vec<u8> {
        framed(self.kind, &self.body())
    }
}

/// A chunk with its checksum. That of a compressed one is of what is in it, so that a
/// bomb has to be inflated before its checksum can be seen to be wrong.
pub fn framed(kind: u8, body: &[u8]) -> Vec<u8> {
    let mut hashed = vec![kind];
    hashed.extend(leb128(body.len() as u64));
    hashed.extend(body);
    let mut chunk = MAGIC.to_vec();
    chunk.extend(&Sha256::digest(&hashed)[..4]);
    chunk.extend(hashed);
    chunk
}

/// A compressed change of at most `bytes` that inflates to 150 times as much: a zero,
/// then matches of 258 at distance 1, by the fixed codes of deflate (RFC 1951).
pub fn bomb(bytes: usize) -> Vec<u8> {
    let mut bits: Vec<bool> = vec![];
    let mut push = |code: u32, count: u32| {
        bits.extend((0..count).map(|at| code >> at & 1 == 1));
    };
    // The last block, of fixed codes; the literal 0 is 00110000, most significant first.
    push(0b011, 3);
    push(0b0000_1100, 8);
    let matches = (bytes - 64) * 8 / 13;
    for _ in 0..matches {
        // Length 258 is symbol 285, 11000101; distance 1 is 00000.
        push(0b1010_0011, 8);
        push(0, 5);
    }
    push(0, 7);
    let packed: Vec<u8> = bits
        .chunks(8)
        .map(|byte| {
            let set = byte.iter().enumerate().filter(|(_, bit)| **bit);
            set.fold(0, |byte, (at, _)| byte | 1 << at)
        })
        .collect();
    framed(2, &packed)
}

fn leb128(mut value: u64) -> Vec<u8> {
    let mut bytes = vec![];
    loop {
        let byte = (value & 0x7f) as u8;
        value >>= 7;
        if value == 0 {
            bytes.push(byte);
            return bytes;
        }
        bytes.push(byte | 0x80);
    }
}

/// What an operator's program does with a change, whatever the change is.
pub fn signed(identity: &Identity, mesh: MeshId, raw: Vec<u8>) -> SignedChange {
    let mut message = mesh.0.to_vec();
    message.extend(blake3::hash(&raw).as_bytes());
    SignedChange {
        signature: identity.sign(Domain::Change, &message),
        author: identity.public(),
        raw,
    }
}
