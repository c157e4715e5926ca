//! Frames of a block stream with their payload, as far as to blocks that may be written.

use crate::target::{Target, Verdict};
use blocks::extent::{MAX_EXTENT_BLOCKS, check_extent, check_zero, extent_len};
use blocks::frame::{Encoding, FramePrefix, MAX_PAYLOAD, PREFIX_LEN, ToSource, ToTarget};
use blocks::{BLOCK_SIZE, BlockIndex, Extent, Geometry, GroupIndex, Leaf, Mark, ZERO_ENTRY, leaf};

/// A whole frame: prefix, header and payload.
pub struct Extents;

fn geometry() -> Geometry {
    Geometry::new(40 * BLOCK_SIZE as u64 + 10).expect("a small volume")
}

fn extent(first: u64, blocks: usize, encoding: Encoding) -> Vec<u8> {
    let data: Vec<u8> = (0..blocks * BLOCK_SIZE).map(|at| (at >> 9) as u8).collect();
    let indexes = (first..).map(BlockIndex);
    let leaves = indexes.zip(data.chunks(BLOCK_SIZE));
    let leaves = leaves
        .map(|(block, data)| leaf(geometry(), block, data))
        .collect();
    let payload = match encoding {
        Encoding::Raw => data,
        Encoding::Zstd => zstd::bulk::compress(&data, 1).expect("it compresses"),
    };
    let frame = ToTarget::Extent {
        first: BlockIndex(first),
        encoding,
        leaves,
        fingerprints: vec![],
    };
    let mut bytes = frame.encode(payload.len()).expect("a sound frame");
    bytes.extend(payload);
    bytes
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
        seeds.push(extent(2, 2, Encoding::Zstd));
        // A bomb: as many zeros as zstd packs into a little, far beyond one block.
        let bomb = zstd::bulk::compress(&vec![0; 64 << 20], 19).expect("it compresses");
        let frame = ToTarget::Extent {
            first: BlockIndex(2),
            encoding: Encoding::Zstd,
            leaves: vec![leaf(geometry(), BlockIndex(2), &[0; BLOCK_SIZE])],
            fingerprints: vec![],
        };
        let mut bytes = frame.encode(bomb.len()).expect("a sound frame");
        bytes.extend(bomb);
        seeds.push(bytes);
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
        if let Ok(frame) = ToSource::decode(header, payload.len()) {
            same(input, frame.encode(), 0)?;
        }
        let Ok(frame) = ToTarget::decode(header, payload.len()) else {
            return Ok(Verdict::Refused);
        };
        same(input, frame.encode(payload.len()), payload.len())?;
        let taken = match frame {
            ToTarget::Extent {
                first,
                encoding,
                leaves,
                ..
            } => data(first, encoding, leaves, payload)?,
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
    let bytes = match encoding {
        Encoding::Raw => payload.to_vec(),
        Encoding::Zstd => match zstd::bulk::decompress(payload, expected) {
            Ok(bytes) => bytes,
            Err(_) => return Ok(false),
        },
    };
    Ok(check_extent(geometry(), first, leaves, &bytes).is_ok())
}
