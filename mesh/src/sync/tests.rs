//! The bounds of what is compared, listed and announced.
#![allow(clippy::unwrap_used)]

use super::*;

/// As many buckets as a set has, each with a digest of its own.
fn buckets() -> Vec<[u8; 32]> {
    (0..=255).map(|bucket| [bucket; 32]).collect()
}

#[test]
fn groups_and_buckets_that_are_the_same_are_not_asked_for() {
    let ours = buckets();
    assert!(differing_groups(&ours, &groups(&ours)).is_empty());
    let mut theirs = ours.clone();
    theirs[35] = [0; 32];
    theirs[200] = [0; 32];
    let told = differing_groups(&theirs, &groups(&ours));
    assert_eq!(
        told.iter().map(|(group, _)| *group).collect::<Vec<_>>(),
        [2, 12]
    );
    assert_eq!(differing_buckets(&ours, &told), [35, 200]);
}

#[test]
fn what_a_peer_says_of_buckets_names_each_of_ours_once_and_none_that_is_not() {
    let differs = |groups: &[(u8, usize)]| {
        let told = groups
            .iter()
            .map(|(group, many)| (*group, vec![[0xee; 8]; *many]));
        differing_buckets(&buckets(), &told.collect())
    };
    let third: Vec<u8> = (48..64).collect();
    assert_eq!(differs(&[(3, GROUP)]), third);
    assert_eq!(differs(&[(3, 10 * GROUP)]), third);
    assert_eq!(differs(&[(3, GROUP), (3, GROUP)]), third);
    let both: Vec<u8> = (0..16).chain(48..64).collect();
    assert_eq!(differs(&[(3, GROUP), (0, GROUP)]), both);
    assert!(differs(&[(16, GROUP), (255, GROUP)]).is_empty());
}

#[test]
fn no_more_is_listed_in_a_question_than_fits_and_always_something() {
    let listed = |many: [usize; 3]| {
        let summary = held(&[0, 1, 2], |bucket| vec![(); many[usize::from(bucket)]]);
        assert!(summary.sound());
        let Summary::Held(buckets) = summary else {
            panic!("things held are listed");
        };
        let each = buckets.iter().map(|(_, held)| held.len());
        each.collect::<Vec<_>>()
    };
    assert_eq!(listed([1, 2, 3]), [1, 2, 3]);
    assert_eq!(listed([1, MAX_LISTED - 1, 0]), [1, MAX_LISTED - 1, 0]);
    assert_eq!(listed([1, MAX_LISTED, 1]), [1]);
    assert_eq!(listed([MAX_LISTED + 9, 1, 1]), [MAX_LISTED]);
}

#[test]
fn an_announcement_with_more_of_any_kind_than_fits_is_cut_to_its_heads() {
    let raw = vec![7; MAX_ANNOUNCEMENT];
    let author = PublicKey([1; 32]);
    let signature = keys::Signature([2; 64]);
    let change = SignedChange {
        raw: raw.clone(),
        author,
        signature,
    };
    let signed = Signed {
        signer: author,
        signature,
        body: raw,
    };
    let pair = Box::new([signed.clone(), signed.clone()]);
    let heads = Heads {
        ledger: [9; 32],
        ..Heads::default()
    };
    let empty = Announcement {
        heads,
        ..Announcement::default()
    };
    let mut small = empty.clone();
    small.changes = vec![SignedChange {
        raw: vec![7; 100],
        ..change.clone()
    }];
    assert_eq!(small.clone().cut(), small);
    let with: [&dyn Fn(&mut Announcement); 4] = [
        &|news| news.statements = vec![signed.clone()],
        &|news| news.reports = vec![signed.clone()],
        &|news| news.changes = vec![change.clone()],
        &|news| news.evidence = vec![Evidence::Reports(pair.clone())],
    ];
    for large in with {
        let mut news = empty.clone();
        large(&mut news);
        assert_eq!(news.cut(), empty);
    }
}
