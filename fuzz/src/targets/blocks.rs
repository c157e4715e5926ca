//! Frames of a block stream with their payload, as far as to blocks that may be written;
//! and those of a speed check.

use crate::target::{Target, Verdict};
use blocks::extent::{MAX_EXTENT_BLOCKS, check_extent, check_zero, extent_len};
use blocks::frame::{Encoding, FramePrefix, MAX_PAYLOAD, PREFIX_LEN, ToSource, ToTarget};
use blocks::speed::{Flow, SpeedFrame, SpeedRefusal, ToAnswerer, ToAsker, speed_prefix};
use blocks::{
    BLOCK_SIZE, BlockIndex, Extent, Geometry, GroupIndex, Held, Leaf, Mark, Patch, PieceSet,
    ZERO_ENTRY, fingerprint, leaf, piece_hashes, remainder,
};

/// A whole frame: prefix, header and payload.
pub struct Extents;

fn geometry() -> Geometry {
    Geometry::new(40 * BLOCK_SIZE as u64 + 10).expect("a small volume")
}

/// What the source holds of so many blocks.
fn source(blocks: usize) -> Vec<u8> {
    (0..blocks * BLOCK_SIZE).map(|at| (at >> 9) as u8).collect()
}

/// What is in a place at the target: the source's bytes with the first of each
/// block changed.
fn in_place(place: std::ops::Range<u64>) -> Vec<u8> {
    let mut bytes = source((place.end - place.start).div_ceil(BLOCK_SIZE as u64) as usize);
    bytes.truncate((place.end - place.start) as usize);
    bytes.chunks_mut(BLOCK_SIZE).for_each(|block| block[0] ^= 1);
    bytes
}

fn leaves(first: u64, data: &[u8]) -> Vec<Leaf> {
    let indexes = (first..).map(BlockIndex);
    let blocks = indexes.zip(data.chunks(BLOCK_SIZE));
    blocks
        .map(|(block, data)| leaf(geometry(), block, data))
        .collect()
}

fn packed(encoding: Encoding, data: Vec<u8>) -> Vec<u8> {
    match encoding {
        Encoding::Raw => data,
        Encoding::Zstd => zstd::bulk::compress(&data, 1).expect("it compresses"),
    }
}

fn with_payload(frame: &ToTarget, payload: Vec<u8>) -> Vec<u8> {
    let mut bytes = frame.encode(payload.len()).expect("a sound frame");
    bytes.extend(payload);
    bytes
}

fn extent(first: u64, blocks: usize, encoding: Encoding) -> Vec<u8> {
    let data = source(blocks);
    let frame = ToTarget::Extent {
        first: BlockIndex(first),
        encoding,
        leaves: leaves(first, &data),
        fingerprints: data.chunks(BLOCK_SIZE).map(fingerprint).collect(),
    };
    with_payload(&frame, packed(encoding, data))
}

/// Of two blocks, with the piece that differs and one more.
fn patch(first: u64, encoding: Encoding) -> Vec<u8> {
    let data = source(2);
    let (at, leaves) = (BlockIndex(first), leaves(first, &data));
    let pieces = vec![PieceSet(0b1), PieceSet(0b1000_0000_0000_0001)];
    let patch = Patch::new(geometry(), at, leaves.clone(), pieces.clone());
    let payload = patch.expect("two blocks of the volume").gather(&data);
    let frame = ToTarget::Patch {
        first: at,
        encoding,
        leaves,
        pieces,
    };
    with_payload(&frame, packed(encoding, payload))
}

fn answer() -> ToSource {
    let place = geometry().run_range(BlockIndex(2), 1);
    ToSource::Answer {
        first: BlockIndex(2),
        held: vec![
            Held::Made,
            Held::Pieces(piece_hashes(&in_place(place))),
            Held::Nothing,
        ],
    }
}

impl Target for Extents {
    fn name(&self) -> &'static str {
        "frame"
    }

    fn weight(&self) -> u64 {
        3
    }

    fn seeds(&self) -> Vec<Vec<u8>> {
        let plain = [
            ToTarget::Open {
                ticket: vec![1; 40],
                length: geometry().length(),
                barrier: 3,
                mark: Mark([7; 32]),
            },
            ToTarget::Zero {
                first: BlockIndex(3),
                count: 30,
            },
            ToTarget::Barrier { barrier: 4 },
            ToTarget::Offer {
                first: BlockIndex(2),
                leaves: leaves(2, &source(3)),
                fingerprints: source(3).chunks(BLOCK_SIZE).map(fingerprint).collect(),
            },
        ];
        let plain = plain.iter();
        let mut seeds: Vec<Vec<u8>> = plain
            .map(|frame| frame.encode(0).expect("a sound frame"))
            .collect();
        let opened = ToSource::Opened {
            barrier: 3,
            mark: Mark([7; 32]),
            references: true,
        };
        seeds.push(opened.encode().expect("a sound frame"));
        let group = GroupIndex(0);
        let mut entries = vec![ZERO_ENTRY; 41];
        entries[3] = Leaf([9; 32]);
        let leaves = ToSource::Leaves { group, entries };
        seeds.push(leaves.encode().expect("a sound frame"));
        seeds.push(answer().encode().expect("a sound frame"));
        seeds.push(extent(2, 2, Encoding::Zstd));
        seeds.push(patch(2, Encoding::Raw));
        seeds.push(patch(2, Encoding::Zstd));
        // A bomb: as many zeros as zstd packs into a little, far beyond one block.
        let bomb = zstd::bulk::compress(&vec![0; 64 << 20], 19).expect("it compresses");
        let frame = ToTarget::Extent {
            first: BlockIndex(2),
            encoding: Encoding::Zstd,
            leaves: vec![leaf(geometry(), BlockIndex(2), &[0; BLOCK_SIZE])],
            fingerprints: vec![],
        };
        seeds.push(with_payload(&frame, bomb));
        seeds
    }

    fn check(&self, input: &[u8]) -> Result<Verdict, String> {
        let Some((prefix, rest)) = input.split_first_chunk::<PREFIX_LEN>() else {
            return Ok(Verdict::Refused);
        };
        let Ok(lengths) = FramePrefix::decode(*prefix) else {
            return Ok(Verdict::Refused);
        };
        let Some((header, payload)) = rest.split_at_checked(lengths.header) else {
            return Ok(Verdict::Refused);
        };
        if payload.len() != lengths.payload {
            return Ok(Verdict::Refused);
        }
        let mut verdict = Verdict::Refused;
        if let Ok(frame) = ToSource::decode(header, payload.len()) {
            verdict = Verdict::Accepted;
            same(input, frame.encode(), 0)?;
            if let ToSource::Answer { first, held } = frame {
                left(first, &held)?;
            }
        }
        let Ok(frame) = ToTarget::decode(header, payload.len()) else {
            return Ok(verdict);
        };
        same(input, frame.encode(payload.len()), payload.len())?;
        let taken = match frame {
            ToTarget::Extent {
                first,
                encoding,
                leaves,
                ..
            } => data(first, encoding, leaves, payload)?,
            ToTarget::Patch {
                first,
                encoding,
                leaves,
                pieces,
            } => patched(
                Patch::new(geometry(), first, leaves, pieces),
                encoding,
                payload,
            )?,
            ToTarget::Zero { first, count } => check_zero(geometry(), first, count).is_ok(),
            _ => true,
        };
        Ok(if taken {
            Verdict::Accepted
        } else {
            Verdict::Refused
        })
    }
}

fn same<E: std::fmt::Display>(
    input: &[u8],
    again: Result<Vec<u8>, E>,
    payload: usize,
) -> Result<(), String> {
    let again = again.map_err(|error| format!("what decoded does not encode: {error}"))?;
    if again == input[..input.len() - payload] {
        Ok(())
    } else {
        Err("another encoding of a frame was taken".into())
    }
}

/// As the receiving end does it: the length is known before anything is decompressed.
fn data(
    first: BlockIndex,
    encoding: Encoding,
    leaves: Vec<blocks::Leaf>,
    payload: &[u8],
) -> Result<bool, String> {
    let extent = Extent::Data {
        first,
        leaves: leaves.clone(),
    };
    let Ok(expected) = extent_len(geometry(), &extent) else {
        return Ok(false);
    };
    let expected = usize::try_from(expected).map_err(|error| error.to_string())?;
    if expected > MAX_EXTENT_BLOCKS as usize * BLOCK_SIZE || payload.len() > MAX_PAYLOAD {
        return Err("an extent is larger than one may be".into());
    }
    let Some(bytes) = unpacked(encoding, payload, expected) else {
        return Ok(false);
    };
    Ok(check_extent(geometry(), first, leaves, &bytes).is_ok())
}

fn unpacked(encoding: Encoding, payload: &[u8], expected: usize) -> Option<Vec<u8>> {
    match encoding {
        Encoding::Raw => Some(payload.to_vec()),
        Encoding::Zstd => zstd::bulk::decompress(payload, expected).ok(),
    }
}

/// A patch that is taken changes what it says it changes, and makes what its
/// leaves say.
fn patched<E>(patch: Result<Patch, E>, encoding: Encoding, payload: &[u8]) -> Result<bool, String> {
    let Ok(patch) = patch else {
        return Ok(false);
    };
    let Some(pieces) = unpacked(encoding, payload, patch.payload_len()) else {
        return Ok(false);
    };
    let old = in_place(patch.place());
    let mut new = old.clone();
    if patch.apply(&pieces, &mut new).is_err() {
        return Ok(false);
    }
    if leaves(patch.first().0, &new) != patch.leaves() {
        return Err("a patch was taken that does not make its leaves".into());
    }
    let offset = patch.place().start;
    let changed = (offset..).zip(old.iter().zip(&new));
    let mut changed = changed.filter(|(_, (old, new))| old != new);
    let told = |at| patch.ranges().iter().any(|range| range.contains(&at));
    match changed.all(|(at, _)| told(at)) {
        true => Ok(true),
        false => Err("a patch changes bytes that it does not tell".into()),
    }
}

/// What an answer leaves to be sent fits into frames.
fn left(first: BlockIndex, held: &[Held]) -> Result<(), String> {
    if !geometry().contains_run(first, held.len() as u64) {
        return Ok(());
    }
    let place = geometry().run_range(first, held.len() as u64);
    let data = in_place(place.clone());
    let leaves = vec![Leaf([1; 32]); held.len()];
    let left = remainder(geometry(), first, &leaves, held, &data);
    match left.saved_bytes > place.end - place.start {
        true => Err("more is saved than there is".into()),
        false => Ok(()),
    }
}

/// A whole frame of a speed check, either way.
pub struct SpeedFrames;

impl Target for SpeedFrames {
    fn name(&self) -> &'static str {
        "speed-frame"
    }

    fn seeds(&self) -> Vec<Vec<u8>> {
        let asked = [
            ToAnswerer::Open { millis: 5000 },
            ToAnswerer::Ping { number: 3 },
            ToAnswerer::AskData,
        ];
        let told = [
            ToAsker::Opened { at_millis: 1 << 40 },
            ToAsker::Refused {
                code: SpeedRefusal::Busy,
            },
            ToAsker::Received(Flow {
                bytes: 1 << 20,
                micros: 300,
                bytes_in_all: 1 << 21,
            }),
        ];
        let asked = asked.iter().map(|frame| frame.encode(0));
        let told = told.iter().map(|frame| frame.encode(0));
        let seeds = asked.chain(told);
        let mut seeds: Vec<_> = seeds.map(|seed| seed.expect("a sound frame")).collect();
        let mut data = ToAnswerer::Data.encode(10).expect("a sound frame");
        data.extend([7; 10]);
        seeds.push(data);
        seeds
    }

    fn check(&self, input: &[u8]) -> Result<Verdict, String> {
        let Some((prefix, rest)) = input.split_first_chunk::<PREFIX_LEN>() else {
            return Ok(Verdict::Refused);
        };
        let Ok(lengths) = speed_prefix(*prefix) else {
            return Ok(Verdict::Refused);
        };
        let Some((header, payload)) = rest.split_at_checked(lengths.header) else {
            return Ok(Verdict::Refused);
        };
        if payload.len() != lengths.payload {
            return Ok(Verdict::Refused);
        }
        let asked = ToAnswerer::decode(header, payload.len());
        let told = ToAsker::decode(header, payload.len());
        if let Ok(frame) = &asked {
            same(input, frame.encode(payload.len()), payload.len())?;
        }
        if let Ok(frame) = &told {
            same(input, frame.encode(payload.len()), payload.len())?;
        }
        Ok(match asked.is_ok() || told.is_ok() {
            true => Verdict::Accepted,
            false => Verdict::Refused,
        })
    }
}
