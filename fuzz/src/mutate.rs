//! Mutations of bytes, small ones most of the time.

use crate::chance::Chance;

/// Longest input that mutation makes.
pub const MAX_INPUT: usize = 256 * 1024;

/// Numbers at which something tends to change: signs, lengths, the edges of the
/// encodings of numbers.
const EDGES: [u64; 19] = [
    0,
    1,
    2,
    3,
    16,
    32,
    63,
    64,
    127,
    128,
    250,
    251,
    255,
    256,
    65_535,
    65_536,
    u32::MAX as u64,
    i64::MAX as u64,
    u64::MAX,
];

/// Changes `input` in one to eight places; `other` is a second input to take from.
pub fn mutate(input: &mut Vec<u8>, other: &[u8], chance: &mut Chance) {
    let times = 1 + chance.below(3) * chance.below(4);
    for _ in 0..times {
        once(input, other, chance);
    }
    input.truncate(MAX_INPUT);
}

fn once(input: &mut Vec<u8>, other: &[u8], chance: &mut Chance) {
    let at = chance.below(input.len() + 1);
    match chance.below(12) {
        0 | 1 => with_byte(input, at, |byte| *byte ^= 1 << chance.below(8)),
        2 => with_byte(input, at, |byte| *byte = chance.next() as u8),
        3 => with_byte(input, at, |byte| *byte = *chance.pick(&EDGES) as u8),
        4 => with_byte(input, at, |byte| {
            *byte = byte.wrapping_add(1 + chance.below(4) as u8);
        }),
        5 => overwrite(input, at, &number(chance)),
        6 => insert(input, at, &number(chance)),
        7 => {
            let end = at + short(chance).min(input.len() - at);
            input.drain(at..end);
        }
        8 => {
            let end = at + short(chance).min(input.len() - at);
            let part = input[at..end].to_vec();
            let to = chance.below(input.len() + 1);
            insert(input, to, &part);
        }
        9 => {
            let from = chance.below(other.len() + 1);
            let end = from + short(chance).min(other.len() - from);
            insert(input, at, &other[from..end]);
        }
        10 => {
            let from = chance.below(other.len() + 1);
            let end = from + short(chance).min(other.len() - from);
            overwrite(input, at, &other[from..end]);
        }
        _ => input.truncate(at),
    }
}

/// A number at an edge, in one of the encodings that the formats use.
fn number(chance: &mut Chance) -> Vec<u8> {
    let number = *chance.pick(&EDGES);
    match chance.below(6) {
        0 => vec![number as u8],
        1 => (number as u32).to_le_bytes().to_vec(),
        2 => number.to_le_bytes().to_vec(),
        3 => [&[0xfb][..], &(number as u16).to_le_bytes()].concat(),
        4 => [&[0xfd][..], &number.to_le_bytes()].concat(),
        _ => leb128(number),
    }
}

pub fn leb128(mut number: u64) -> Vec<u8> {
    let mut bytes = vec![];
    loop {
        let byte = (number & 0x7f) as u8;
        number >>= 7;
        if number == 0 {
            bytes.push(byte);
            return bytes;
        }
        bytes.push(byte | 0x80);
    }
}

fn short(chance: &mut Chance) -> usize {
    let longest = [4, 16, 64, 1024];
    let longest = *chance.pick(&longest);
    1 + chance.below(longest)
}

fn with_byte(input: &mut [u8], at: usize, change: impl FnOnce(&mut u8)) {
    if let Some(byte) = input.get_mut(at) {
        change(byte);
    }
}

fn overwrite(input: &mut [u8], at: usize, bytes: &[u8]) {
    for (old, new) in input.iter_mut().skip(at).zip(bytes) {
        *old = *new;
    }
}

fn insert(input: &mut Vec<u8>, at: usize, bytes: &[u8]) {
    input.splice(at..at, bytes.iter().copied());
}
