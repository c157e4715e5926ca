//! Golden bytes of every frame, and what is refused.

#![allow(clippy::unwrap_used)]

use proptest::prelude::*;

use super::*;
use crate::mark::ZERO_ENTRY;
use crate::piece::PieceHash;

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Frame, payload length, and the bytes it must be for ever.
fn golden_to_target() -> Vec<(ToTarget, usize, String)> {
    let mut frames = golden_questions();
    frames.extend(golden_extents());
    frames
}

fn golden_questions() -> Vec<(ToTarget, usize, String)> {
    let h = |byte: u8| format!("{byte:02x}").repeat(32);
    vec![
        (
            ToTarget::Open {
                ticket: vec![0xaa, 0xbb],
                length: 1 << 40,
                barrier: 300,
                mark: Mark([0x11; 32]),
            },
            0,
            format!(
                "310000000000000003_00_02aabb_fd0000000000010000_fb2c01_{}",
                h(0x11)
            ),
        ),
        (
            ToTarget::AskGroups {
                first: GroupIndex(5),
                count: 1024,
            },
            0,
            "060000000000000003_01_05_fb0004".into(),
        ),
        (
            ToTarget::AskLeaves {
                group: GroupIndex(9),
            },
            0,
            "030000000000000003_02_09".into(),
        ),
        (
            ToTarget::BeginPass { pass: 2 },
            0,
            "030000000000000003_03_02".into(),
        ),
        (
            ToTarget::Barrier { barrier: 4 },
            0,
            "030000000000000003_08_04".into(),
        ),
        (
            ToTarget::Finish {
                barrier: 4,
                root: Root([0x44; 32]),
                read_back: true,
            },
            0,
            format!("240000000000000003_09_04_{}_01", h(0x44)),
        ),
        (ToTarget::Close, 0, "020000000000000003_0a".into()),
    ]
}

fn golden_extents() -> Vec<(ToTarget, usize, String)> {
    let h = |byte: u8| format!("{byte:02x}").repeat(32);
    vec![
        (
            ToTarget::Extent {
                first: BlockIndex(7),
                encoding: Encoding::Raw,
                leaves: vec![Leaf([0x22; 32])],
                fingerprints: vec![],
            },
            65536,
            format!("260000000000010003_04_07_00_01{}_00", h(0x22)),
        ),
        (
            ToTarget::Extent {
                first: BlockIndex(7),
                encoding: Encoding::Zstd,
                leaves: vec![Leaf([0x22; 32]), Leaf([0x33; 32])],
                fingerprints: vec![Fingerprint(0x0102_0304_0506_0708), Fingerprint(9)],
            },
            9,
            format!(
                "500000000900000003_04_07_01_02{}{}_02_fd0807060504030201_09",
                h(0x22),
                h(0x33)
            ),
        ),
        (
            ToTarget::Zero {
                first: BlockIndex(1),
                count: 4096,
            },
            0,
            "060000000000000003_05_01_fb0010".into(),
        ),
        (
            ToTarget::Offer {
                first: BlockIndex(7),
                leaves: vec![Leaf([0x22; 32])],
                fingerprints: vec![Fingerprint(0x0102_0304_0506_0708)],
            },
            0,
            format!(
                "2e0000000000000003_06_07_01{}_01_fd0807060504030201",
                h(0x22)
            ),
        ),
        (
            ToTarget::Patch {
                first: BlockIndex(7),
                encoding: Encoding::Raw,
                leaves: vec![Leaf([0x22; 32]), Leaf([0x33; 32])],
                pieces: vec![PieceSet(1), PieceSet(0x8001)],
            },
            3 * 4096,
            format!(
                "4a0000000030000003_07_07_00_02{}{}_02_01_fb0180",
                h(0x22),
                h(0x33)
            ),
        ),
    ]
}

fn golden_to_source() -> Vec<(ToSource, String)> {
    let h = |byte: u8| format!("{byte:02x}").repeat(32);
    vec![
        (
            ToSource::Opened {
                barrier: 3,
                mark: Mark([0x11; 32]),
                references: true,
            },
            format!("240000000000000003_00_03_{}_01", h(0x11)),
        ),
        (
            ToSource::Refused {
                code: RefusalCode::NotAuthorised,
            },
            "030000000000000003_01_00".into(),
        ),
        (
            ToSource::Refused {
                code: RefusalCode::Unsupported,
            },
            "030000000000000003_01_10".into(),
        ),
        (
            ToSource::Groups {
                first: GroupIndex(8),
                marks: vec![Mark([0x22; 32]), Mark([0x33; 32])],
            },
            format!("440000000000000003_02_08_02{}{}", h(0x22), h(0x33)),
        ),
        (
            ToSource::Leaves {
                group: GroupIndex(8),
                entries: vec![Leaf([0x22; 32]), ZERO_ENTRY],
            },
            format!("440000000000000003_03_08_02{}{}", h(0x22), h(0)),
        ),
        (
            ToSource::Answer {
                first: BlockIndex(7),
                held: vec![
                    Held::Made,
                    Held::Pieces(vec![PieceHash([0x55; 16]), PieceHash([0x66; 16])]),
                    Held::Nothing,
                ],
            },
            format!(
                "280000000000000003_04_07_03_00_01_02{}{}_02",
                &h(0x55)[..32],
                &h(0x66)[..32]
            ),
        ),
        (
            ToSource::Durable {
                barrier: 4,
                mark: Mark([0x44; 32]),
            },
            format!("230000000000000003_05_04_{}", h(0x44)),
        ),
        (
            ToSource::Finished {
                root: Root([0x44; 32]),
                read_back: false,
                proof: vec![0x99],
            },
            format!("250000000000000003_06_{}_00_0199", h(0x44)),
        ),
    ]
}

fn split(frame: &[u8]) -> (FramePrefix, &[u8]) {
    let (prefix, header) = frame.split_at(PREFIX_LEN);
    (
        FramePrefix::decode(prefix.try_into().unwrap()).unwrap(),
        header,
    )
}

#[test]
fn frames_to_a_target_keep_their_bytes() {
    for (frame, payload, bytes) in golden_to_target() {
        let encoded = frame.encode(payload).unwrap();
        assert_eq!(hex(&encoded), bytes.replace('_', ""), "{frame:?}");
        let (prefix, header) = split(&encoded);
        assert_eq!((prefix.header, prefix.payload), (header.len(), payload));
        assert_eq!(ToTarget::decode(header, payload).unwrap(), frame);
    }
}

#[test]
fn frames_to_a_source_keep_their_bytes() {
    for (frame, bytes) in golden_to_source() {
        let encoded = frame.encode().unwrap();
        assert_eq!(hex(&encoded), bytes.replace('_', ""), "{frame:?}");
        let (prefix, header) = split(&encoded);
        assert_eq!((prefix.header, prefix.payload), (header.len(), 0));
        assert_eq!(ToSource::decode(header, 0).unwrap(), frame);
    }
}

#[test]
fn refusal_codes_keep_their_numbers() {
    use RefusalCode::*;
    let codes = [
        NotAuthorised,
        Expired,
        Revoked,
        WrongVolume,
        StaleEpoch,
        NotReady,
        SizeMismatch,
        Busy,
        BadFrame,
        BadData,
        RootDiffers,
        ReadBackDiffers,
        StorageFull,
        StorageFailed,
        Paused,
        ShuttingDown,
        Unsupported,
        NoLease,
    ];
    for (number, code) in codes.into_iter().enumerate() {
        let encoded = ToSource::Refused { code }.encode().unwrap();
        assert_eq!(encoded.last(), Some(&(number as u8)), "{code:?}");
    }
}

#[test]
fn lengths_out_of_bounds_are_refused_before_anything_is_read() {
    let prefix = |header: u32, payload: u32| {
        let mut bytes = [0; 8];
        bytes[..4].copy_from_slice(&header.to_le_bytes());
        bytes[4..].copy_from_slice(&payload.to_le_bytes());
        FramePrefix::decode(bytes)
    };
    assert!(prefix(1, 0).is_ok());
    assert!(prefix(MAX_HEADER as u32, MAX_PAYLOAD as u32).is_ok());
    for header in [0, MAX_HEADER as u32 + 1, u32::MAX] {
        let bytes = u64::from(header);
        assert_eq!(prefix(header, 0), Err(FrameError::HeaderLength { bytes }));
    }
    for payload in [MAX_PAYLOAD as u32 + 1, u32::MAX] {
        let bytes = u64::from(payload);
        assert_eq!(prefix(1, payload), Err(FrameError::PayloadLength { bytes }));
    }
}

#[test]
fn the_largest_frames_fit_and_larger_ones_are_refused() {
    let open = |ticket| {
        let (length, barrier, mark) = (u64::MAX, u64::MAX, Mark([1; 32]));
        let ticket = vec![0; ticket];
        ToTarget::Open {
            ticket,
            length,
            barrier,
            mark,
        }
        .encode(0)
    };
    assert!(open(MAX_TICKET).is_ok());
    assert!(
        open(0).is_ok(),
        "whether a ticket is any good is not for the frame"
    );
    assert!(matches!(
        open(MAX_TICKET + 1),
        Err(FrameError::Count { .. })
    ));

    let groups = |count| {
        let first = GroupIndex(u64::MAX);
        let marks = vec![Mark([0xff; 32]); count];
        ToSource::Groups { first, marks }.encode()
    };
    assert!(groups(MAX_GROUPS_PER_FRAME as usize).is_ok());
    for count in [0, MAX_GROUPS_PER_FRAME as usize + 1] {
        assert!(matches!(groups(count), Err(FrameError::Count { .. })));
    }

    let leaves = |count| {
        let group = GroupIndex(u64::MAX);
        let entries = vec![Leaf([0xff; 32]); count];
        ToSource::Leaves { group, entries }.encode()
    };
    assert!(leaves(GROUP_BLOCKS as usize).is_ok());
    assert!(leaves(GROUP_BLOCKS as usize + 1).is_err());

    let finished = |proof| {
        let (root, read_back) = (Root([1; 32]), true);
        let proof = vec![0; proof];
        ToSource::Finished {
            root,
            read_back,
            proof,
        }
        .encode()
    };
    assert!(finished(MAX_PROOF).is_ok());
    assert!(finished(MAX_PROOF + 1).is_err());
}

/// A frame with as many of its things as that.
type OfSize<'a> = dyn Fn(u32) -> ToTarget + 'a;

#[test]
fn a_frame_beyond_any_limit_is_refused_by_who_sends_it_and_by_who_reads_it() {
    let first = BlockIndex(0);
    let zero = |count| ToTarget::Zero { first, count };
    let ask = |count| {
        let first = GroupIndex(0);
        ToTarget::AskGroups { first, count }
    };
    let extent = |count| {
        let encoding = Encoding::Zstd;
        let leaves = vec![Leaf([0; 32]); count as usize];
        ToTarget::Extent {
            first,
            encoding,
            leaves,
            fingerprints: vec![],
        }
    };
    let offer = |count| {
        let leaves = vec![Leaf([0; 32]); count as usize];
        let fingerprints = vec![Fingerprint(7); count as usize];
        ToTarget::Offer {
            first,
            leaves,
            fingerprints,
        }
    };
    let patch = |count| {
        let encoding = Encoding::Zstd;
        let leaves = vec![Leaf([0; 32]); count as usize];
        let pieces = vec![PieceSet(1); count as usize];
        ToTarget::Patch {
            first,
            encoding,
            leaves,
            pieces,
        }
    };
    let kinds: [(&OfSize<'_>, u32, usize); 5] = [
        (&zero, MAX_ZERO_BLOCKS, 0),
        (&ask, MAX_GROUPS_PER_FRAME, 0),
        (&extent, MAX_EXTENT_BLOCKS, 9),
        (&offer, MAX_EXTENT_BLOCKS, 0),
        (&patch, MAX_EXTENT_BLOCKS, 9),
    ];
    for (frame, limit, payload) in kinds {
        for (count, fits) in [(0, false), (1, true), (limit, true), (limit + 1, false)] {
            let frame = frame(count);
            // As a peer may encode it that checks nothing.
            let header = codec::encode(&frame).unwrap();
            let read = ToTarget::decode(&header, payload);
            assert_eq!(frame.encode(payload).is_ok(), fits, "{frame:?}");
            assert_eq!(read.is_ok(), fits, "{frame:?}");
        }
    }
}

/// Whether a frame is taken, by who sends it and by who reads it alike.
fn is_taken(frame: &ToTarget, payload: usize) -> bool {
    let read = ToTarget::decode(&codec::encode(frame).unwrap(), payload);
    assert_eq!(frame.encode(payload).is_ok(), read.is_ok(), "{frame:?}");
    read.is_ok()
}

#[test]
fn fingerprints_are_none_or_one_for_each_block_and_sets_of_pieces_one_for_each() {
    let (first, leaves) = (BlockIndex(0), vec![Leaf([0; 32]); 2]);
    for count in 0..4 {
        let fingerprints = vec![Fingerprint(7); count];
        let extent = ToTarget::Extent {
            first,
            encoding: Encoding::Raw,
            leaves: leaves.clone(),
            fingerprints: fingerprints.clone(),
        };
        let offer = ToTarget::Offer {
            first,
            leaves: leaves.clone(),
            fingerprints,
        };
        assert_eq!(is_taken(&extent, 2 * 65536), count == 0 || count == 2);
        assert_eq!(is_taken(&offer, 0), count == 0 || count == 2);
        let patch = ToTarget::Patch {
            first,
            encoding: Encoding::Zstd,
            leaves: leaves.clone(),
            pieces: vec![PieceSet(7); count],
        };
        assert_eq!(is_taken(&patch, 9), count == 2);
    }
}

#[test]
fn a_patch_has_pieces_of_every_block_and_a_payload_of_their_size() {
    let patch = |encoding, sets: [u16; 2]| ToTarget::Patch {
        first: BlockIndex(0),
        encoding,
        leaves: vec![Leaf([0; 32]); 2],
        pieces: sets.map(PieceSet).to_vec(),
    };
    let raw = |payload| is_taken(&patch(Encoding::Raw, [0xffff, 0b101]), payload);
    let full = 18 * 4096;
    assert!(raw(full) && raw(full - 4095));
    assert!(!raw(full + 1) && !raw(full - 4096) && !raw(0));
    let zstd = |payload| is_taken(&patch(Encoding::Zstd, [1, 1]), payload);
    assert!(!zstd(0) && zstd(1) && zstd(MAX_PAYLOAD) && !zstd(MAX_PAYLOAD + 1));
    for empty in [[0, 1], [1, 0]] {
        assert!(!is_taken(&patch(Encoding::Zstd, empty), 9));
    }
}

#[test]
fn an_answer_has_1_to_16_blocks_with_1_to_16_hashes_where_it_has_some() {
    let is_taken = |held: Vec<Held>| {
        let first = BlockIndex(u64::MAX);
        let frame = ToSource::Answer { first, held };
        let read = ToSource::decode(&codec::encode(&frame).unwrap(), 0);
        assert_eq!(frame.encode().is_ok(), read.is_ok(), "{frame:?}");
        read.is_ok()
    };
    let hashes = |count| Held::Pieces(vec![PieceHash([0xff; 16]); count]);
    assert!(is_taken(vec![hashes(16); 16]));
    assert!(!is_taken(vec![hashes(16); 17]) && !is_taken(vec![]));
    assert!(is_taken(vec![hashes(1), Held::Made, Held::Nothing]));
    assert!(!is_taken(vec![Held::Made, hashes(0)]));
    assert!(!is_taken(vec![Held::Made, hashes(17)]));
}

#[test]
fn only_extents_and_patches_have_a_payload_and_its_size_must_fit() {
    for (frame, payload, _) in golden_to_target() {
        let wrong = if payload == 0 { 1 } else { 0 };
        assert!(
            matches!(frame.encode(wrong), Err(FrameError::Payload { .. })),
            "{frame:?}"
        );
    }
    let extent = |encoding| ToTarget::Extent {
        first: BlockIndex(0),
        encoding,
        leaves: vec![Leaf([0; 32]); 2],
        fingerprints: vec![],
    };
    let raw = |payload| is_taken(&extent(Encoding::Raw), payload);
    assert!(!raw(65536) && raw(65537) && raw(131_072) && !raw(131_073));
    let zstd = |payload| is_taken(&extent(Encoding::Zstd), payload);
    assert!(!zstd(0) && zstd(1) && zstd(MAX_PAYLOAD) && !zstd(MAX_PAYLOAD + 1));

    let (source, _) = golden_to_source().remove(0);
    let header = codec::encode(&source).unwrap();
    assert!(matches!(
        ToSource::decode(&header, 1),
        Err(FrameError::Payload { .. })
    ));
}

#[test]
fn a_header_of_another_version_cut_short_or_with_more_behind_it_is_refused() {
    for (frame, payload, _) in golden_to_target() {
        let header = codec::encode(&frame).unwrap();
        for cut in 0..header.len() {
            assert!(ToTarget::decode(&header[..cut], payload).is_err());
        }
        for version in [2, 4] {
            let mut other = header.clone();
            other[0] = version;
            assert!(ToTarget::decode(&other, payload).is_err());
        }
        let mut longer = header;
        longer.push(0);
        assert!(ToTarget::decode(&longer, payload).is_err());
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn garbage_never_panics_and_what_decodes_encodes_to_itself(
        mut garbage in prop::collection::vec(any::<u8>(), 0..200),
        payload in 0..2usize,
    ) {
        if let Some(first) = garbage.first_mut() {
            *first = 3;
        }
        if let Ok(frame) = ToTarget::decode(&garbage, payload) {
            let encoded = frame.encode(payload).unwrap();
            prop_assert_eq!(ToTarget::decode(&encoded[PREFIX_LEN..], payload).unwrap(), frame);
        }
        if let Ok(frame) = ToSource::decode(&garbage, payload) {
            let encoded = frame.encode().unwrap();
            prop_assert_eq!(ToSource::decode(&encoded[PREFIX_LEN..], payload).unwrap(), frame);
        }
    }
}
