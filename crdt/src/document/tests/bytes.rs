//! Bytes that anybody may send: none panics, none that is no change alters anything, and
//! what is admitted can always be loaded again.

use super::hostile::{resign, with_next};
use super::*;

#[test]
fn a_change_whose_checksum_is_another_is_no_change_not_even_in_the_store() {
    let (world, document, next) = with_next();
    let mut raw = next.raw;
    raw[5] ^= 1;
    let change = resign(&world, raw);
    let (author, what) = (key(1).public(), "checksum");
    let refusal = Refusal::Malformed { author, what };
    let offered = document.clone().offer(change.clone(), &world.authority());
    assert_eq!(offered, Outcome::Refused(refusal.clone()));
    let stored = [all(&document), vec![change]].concat();
    let loaded = Document::load(world.mesh(), stored, None, &world.authority());
    assert_eq!(loaded.err(), Some(CorruptLog { author, refusal }));
}

/// Sets the checksum, so that what was altered is not refused for that alone.
fn fix_checksum(raw: &mut [u8]) {
    let hash = std::panic::catch_unwind(|| Change::from_bytes(raw.to_vec()));
    if let Ok(Ok(change)) = hash {
        raw[4..8].copy_from_slice(&change.hash().0[..4]);
    }
}

/// A first change of these columns, which refers to these authors.
fn first_change(others: &[[u8; 32]], columns: &[(u8, Vec<u8>)]) -> Vec<u8> {
    let mut body = vec![1];
    body.extend(shards::hash().0);
    body.push(32);
    body.extend(key(1).public().0);
    body.extend([1, shards::SHARDS + 1]);
    body.extend([0, 0, others.len() as u8]);
    for other in others {
        body.push(32);
        body.extend(other);
    }
    body.push(columns.len() as u8);
    for (column, data) in columns {
        body.extend([*column, data.len() as u8]);
    }
    body.extend(columns.iter().flat_map(|(_, data)| data));
    let mut chunk = vec![0x85, 0x6f, 0x4a, 0x83, 0, 0, 0, 0, 1];
    let bytes = body.len();
    chunk.extend([bytes as u8 | 0x80, (bytes >> 7) as u8]);
    chunk.extend(body);
    chunk
}

/// Columns that put one key, with the run of each as long as `run` says.
fn puts(run: &[u8], flags: &[u8]) -> Vec<(u8, Vec<u8>)> {
    vec![
        (0x01, [run, &[1]].concat()),
        (0x02, [run, &[shards::of("a") + 1]].concat()),
        (0x15, [run, &[1, b'a']].concat()),
        (0x34, flags.to_vec()),
        (0x42, [run, &[1]].concat()),
        (0x56, [run, &[2]].concat()),
        (0x70, [run, &[0]].concat()),
    ]
}

#[test]
fn a_few_bytes_that_claim_a_trillion_operations_are_refused_at_once() {
    let world = World::of(&[1]);
    let mut document = Document::new(world.mesh());
    let trillion = [0x80, 0x80, 0x80, 0x80, 0x80, 0x20];
    let authors = [shards::AUTHOR.0];
    let bomb = first_change(&authors, &puts(&trillion, &trillion));
    let bomb = resign(&world, bomb);
    let author = key(1).public();
    let what = "number of items in a column";
    let refused = Outcome::Refused(Refusal::Malformed { author, what });
    assert_eq!(document.offer(bomb, &world.authority()), refused);
    let mut one = first_change(&authors, &puts(&[0x7f], &[1]));
    fix_checksum(&mut one);
    let one = resign(&world, one);
    assert_eq!(document.offer(one, &world.authority()), Outcome::Admitted);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn arbitrary_signed_bytes_alter_nothing(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let (world, mut document, _) = with_next();
        let before = document.clone();
        let outcome = document.offer(resign(&world, bytes.clone()), &world.authority());
        prop_assert!(matches!(outcome, Outcome::Refused(_)));
        let mut chunk = vec![0x85, 0x6f, 0x4a, 0x83, 0, 0, 0, 0, 1];
        chunk.push(bytes.len() as u8 & 0x7f);
        chunk.extend(&bytes[..bytes.len() & 0x7f]);
        let outcome = document.offer(resign(&world, chunk), &world.authority());
        prop_assert!(matches!(outcome, Outcome::Refused(_)));
        assert_same(&document, &before);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1024))]

    #[test]
    fn altered_bytes_alter_nothing_or_make_another_sound_change_or_fork_the_log(
        alterations in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        first in any::<bool>(),
    ) {
        let (world, mut document, next) = with_next();
        let mut raw = if first { all(&document)[0].raw.clone() } else { next.raw };
        if first {
            document = Document::new(world.mesh());
        }
        for (at, byte) in alterations {
            let at = 10 + at.index(raw.len() - 10);
            raw[at] = byte;
        }
        if crate::chunk::survey(&raw).is_ok() {
            fix_checksum(&mut raw);
        }
        let before = document.clone();
        match document.offer(resign(&world, raw), &world.authority()) {
            Outcome::Admitted => {
                let stored = all(&document);
                prop_assert_eq!(stored.len(), before.len() + 1);
                let loaded = Document::load(world.mesh(), stored, None, &world.authority()).unwrap();
                assert_same(&loaded, &document);
            }
            // Its number became that of the change before it.
            Outcome::Fork(fork) => {
                prop_assert_eq!((fork.seq, before.len()), (1, 1));
                prop_assert!(document.is_empty());
            }
            _ => assert_same(&document, &before),
        }
    }
}

/// Found by fuzzing: automerge takes such a change, encodes it otherwise when it saves
/// the document, and does not load what it saved.
#[test]
fn a_change_that_would_be_encoded_otherwise_is_refused() {
    let world = World::of(&[1]);
    let mut document = Document::new(world.mesh());
    // It lists an author that it does not refer to.
    let authors = [shards::AUTHOR.0, [1; 32]];
    let mut raw = first_change(&authors, &puts(&[0x7f], &[1]));
    fix_checksum(&mut raw);
    let outcome = document.offer(resign(&world, raw), &world.authority());
    let what = "not in the form that its operations are encoded in";
    let author = key(1).public();
    assert_eq!(
        outcome,
        Outcome::Refused(Refusal::Malformed { author, what })
    );
}
