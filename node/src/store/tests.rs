//! The store against restarts, `kill -9`, damage, newer formats and second openers.
#![allow(clippy::unwrap_used)]

use super::*;
use crate::store::event::EVENTS_KEPT;
use crdt::report::Level;
use crdt::{PassRead, PassSummary, SignedChange};
use keys::statement::{Entry, Genesis};
use keys::{
    Domain, Epoch, Identity, MigrationId, Name, NodeId, Signature, Signed, Statement, UnixSecs,
    VolumeId,
};
use roles::{JobId, agent, replicator};
use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};
use tempfile::TempDir;

/// Set for the process that is to be killed: the file that it writes to.
const VICTIM: &str = "DUNLIN_TEST_STORE_VICTIM";

fn root() -> Identity {
    Identity::from_seed(&[1; 32])
}

fn genesis() -> Signed {
    let entry = Entry {
        seq: 1,
        previous: None,
        mesh: None,
        at: UnixSecs(7),
        statement: Statement::Genesis(Genesis {
            name: Name::new("moor").unwrap(),
            roots: vec![root().public()],
            nonce: [2; 16],
        }),
    };
    Signed::seal(&root(), Domain::Statement, &entry).unwrap()
}

fn mesh() -> MeshId {
    MeshId(genesis().statement_id().0)
}

/// A signed body that stands for a statement, report or proof: the store never looks.
fn signed(content: u32) -> Signed {
    Signed {
        body: content.to_be_bytes().repeat(40),
        signer: root().public(),
        signature: Signature([5; 64]),
    }
}

/// A change that stands for any: the store never looks into it.
fn change(content: u32) -> SignedChange {
    SignedChange {
        raw: content.to_be_bytes().repeat(50),
        author: root().public(),
        signature: Signature([6; 64]),
    }
}

/// [`change`] under its content as its number.
fn numbered(content: u32) -> Record {
    Record::Change(u64::from(content), change(content))
}

fn job(content: u8) -> JobId {
    JobId {
        migration: MigrationId([content; 16]),
        volume: VolumeId([3; 16]),
    }
}

fn agent_record(job: JobId, barrier: u64) -> agent::Record {
    agent::Record {
        job,
        epoch: Epoch(2),
        replicator: Some(NodeId([4; 32])),
        barrier,
        passes: vec![PassSummary {
            pass: 1,
            blocks: 10,
            bytes_sent: 20,
            millis: 30,
            since_millis: Some(40),
            read: PassRead::Whole,
        }],
        moves: 0,
        finished: None,
        swap: None,
        checkpoints: vec![],
    }
}

fn copy_record(job: JobId) -> replicator::Record {
    replicator::Record {
        job,
        epoch: Epoch(2),
        path: "/cloud/a.raw".into(),
        length: 1 << 30,
        barrier: 9,
        root: Some([8; 32]),
    }
}

fn volume(id: u8) -> OfferedVolume {
    OfferedVolume {
        id: VolumeId([id; 16]),
        name: format!("disk-{id}"),
        path: "/dev/vda".into(),
        added_at: UnixSecs(5),
    }
}

fn event(at: u64, migration: Option<MigrationId>) -> NewEvent {
    NewEvent {
        at: UnixSecs(at),
        level: Level::Warn,
        migration,
        kind: "session-lost".into(),
        text: format!("event of second {at}"),
    }
}

fn create(folder: &TempDir) -> (PathBuf, Store) {
    let path = folder.path().join("dunlin.redb");
    let first = [Record::Statement(genesis())];
    let store = Store::create(&path, mesh(), root().public(), &first).unwrap();
    (path, store)
}

fn filled(folder: &TempDir) -> PathBuf {
    let (path, store) = create(folder);
    let mut records: Vec<Record> = (0..300).map(numbered).collect();
    records.extend((0..300).map(|n| Record::Statement(signed(n))));
    records.push(Record::Report(NodeId([1; 32]), signed(9)));
    store.put_records(&records).unwrap();
    store.put_agent(&agent_record(job(1), 4)).unwrap();
    let events: Vec<NewEvent> = (0..100).map(|at| event(at, None)).collect();
    store.append_events(&events).unwrap();
    path
}

/// Everything that can be read, so that damage anywhere is met.
fn read_all(
    path: &Path,
) -> Result<(Header, Loaded, Vec<agent::Record>, Vec<crdt::Event>), StoreError> {
    let (store, header) = Store::open(path)?;
    store.copies()?;
    store.volumes()?;
    store.proofs()?;
    let events = store.events(0, usize::MAX, None)?;
    Ok((header, store.load()?, store.agents()?, events))
}

#[test]
fn everything_put_is_there_after_reopening_in_the_order_it_came() {
    let folder = TempDir::new().unwrap();
    let (path, store) = create(&folder);
    let node = NodeId([1; 32]);
    store
        .put_records(&[
            Record::Statement(signed(2)),
            numbered(300),
            numbered(2),
            Record::Report(node, signed(3)),
        ])
        .unwrap();
    store
        .put_records(&[
            Record::Statement(signed(1)),
            Record::Report(node, signed(4)),
            forked(9, 7),
            forked(8, 7),
        ])
        .unwrap();
    store.put_agent(&agent_record(job(1), 3)).unwrap();
    store.put_agent(&agent_record(job(1), 4)).unwrap();
    store.put_agent(&agent_record(job(2), 5)).unwrap();
    store.delete_agent(job(2)).unwrap();
    store.put_copy(&copy_record(job(1))).unwrap();
    store.put_copy(&copy_record(job(2))).unwrap();
    store.delete_copy(job(1)).unwrap();
    store.put_volume(&volume(1)).unwrap();
    store.put_volume(&volume(2)).unwrap();
    store.remove_volume(volume(1).id).unwrap();
    store.put_proof(&signed(6)).unwrap();
    store.put_proof(&signed(5)).unwrap();
    drop(store);

    let (store, header) = Store::open(&path).unwrap();
    assert_eq!(
        header,
        Header {
            mesh: mesh(),
            key: root().public(),
            format: FORMAT
        }
    );
    let expected = Loaded {
        statements: vec![genesis(), signed(2), signed(1)],
        changes: vec![change(2), change(300)],
        reports: vec![signed(4)],
        // The lower fork of a log has taken the place of the higher one.
        evidence: vec![evidence(8)],
    };
    assert_eq!(store.load().unwrap(), expected);
    assert_eq!(store.agents().unwrap(), [agent_record(job(1), 4)]);
    assert_eq!(store.copies().unwrap(), [copy_record(job(2))]);
    assert_eq!(store.volumes().unwrap(), [volume(2)]);
    assert_eq!(store.proofs().unwrap(), [signed(6), signed(5)]);
}

fn evidence(seq: u32) -> crdt::Evidence {
    crdt::Evidence::Changes(Box::new([change(seq), change(seq)]))
}

fn forked(seq: u32, author: u8) -> Record {
    let author = PublicKey([author; 32]);
    Record::Evidence(crdt::Forked::Changes(author, u64::from(seq)), evidence(seq))
}

#[test]
fn the_leases_that_were_put_last_are_there_after_reopening() {
    let folder = tempfile::tempdir().unwrap();
    let (path, store) = create(&folder);
    assert_eq!(store.leases().unwrap(), None);
    let at = |mono_millis| keys::Now {
        mono_millis,
        ..keys::Now::default()
    };
    let stored = |millis| keys::Leases::new().snapshot(at(millis), keys::lease::Boot([1; 16]));
    store.put_leases(&stored(1)).unwrap();
    store.put_leases(&stored(2)).unwrap();
    drop(store);
    let (store, _) = Store::open(&path).unwrap();
    assert_eq!(store.leases().unwrap(), Some(stored(2)));
}

#[test]
fn a_statement_or_proof_put_twice_is_stored_once() {
    let folder = TempDir::new().unwrap();
    let (_, store) = create(&folder);
    let statement = Record::Statement(signed(1));
    store.put_records(&[statement.clone(), statement]).unwrap();
    store.put_records(&[Record::Statement(genesis())]).unwrap();
    store.put_proof(&signed(1)).unwrap();
    store.put_proof(&signed(1)).unwrap();
    assert_eq!(store.load().unwrap().statements, [genesis(), signed(1)]);
    assert_eq!(store.proofs().unwrap(), [signed(1)]);
}

#[test]
fn a_change_takes_the_place_of_another_with_its_author_and_number() {
    let folder = TempDir::new().unwrap();
    let (_, store) = create(&folder);
    let mut foreign = change(3);
    foreign.author = PublicKey([0xff; 32]);
    let first = [1, 2, 1].map(|seq| Record::Change(seq, change(7)));
    store.put_records(&first).unwrap();
    let second = [
        Record::Change(2, change(8)),
        Record::Change(2, foreign.clone()),
    ];
    store.put_records(&second).unwrap();
    let mut expected = vec![change(7), change(8), foreign];
    expected.sort_by_key(|change| change.author);
    assert_eq!(store.load().unwrap().changes, expected);
}

#[test]
fn the_genesis_is_first_however_it_came() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("dunlin.redb");
    let first = [signed(1), signed(2), genesis(), signed(3)].map(Record::Statement);
    let store = Store::create(&path, mesh(), root().public(), &first).unwrap();
    let expected = [genesis(), signed(1), signed(2), signed(3)];
    assert_eq!(store.load().unwrap().statements, expected);
}

#[test]
fn records_are_put_all_or_none() {
    let folder = TempDir::new().unwrap();
    let (_, store) = create(&folder);
    let mut large = signed(2);
    large.body = vec![0; 1024 * 1024];
    let refused = store.put_records(&[Record::Statement(signed(1)), Record::Statement(large)]);
    assert!(matches!(refused, Err(StoreError::Encode(_))));
    assert_eq!(store.load().unwrap().statements, [genesis()]);
}

#[test]
fn while_records_are_put_a_commit_of_this_process_is_under_way() {
    let folder = TempDir::new().unwrap();
    let (_, store) = create(&folder);
    let seen = store.write(|_| Ok(volumes::committed()));
    assert_eq!(seen.unwrap(), None);
}

#[test]
fn a_store_is_made_whole_or_not_at_all_and_only_once() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("dunlin.redb");
    fs::write(folder.path().join("dunlin.redb.new"), b"left by a crash").unwrap();
    let mut large = signed(1);
    large.body = vec![0; 1024 * 1024];
    let refused = Store::create(&path, mesh(), root().public(), &[Record::Statement(large)]);
    assert!(matches!(refused, Err(StoreError::Encode(_))));
    assert!(!path.exists());

    let (path, store) = create(&folder);
    drop(store);
    let second = Store::create(&path, mesh(), root().public(), &[]);
    assert!(matches!(second, Err(StoreError::Exists { .. })));
    let mode = std::os::unix::fs::MetadataExt::mode(&fs::metadata(&path).unwrap());
    assert_eq!(mode & 0o777, 0o600);
}

#[test]
fn a_second_opener_is_told_that_it_is_locked() {
    let folder = TempDir::new().unwrap();
    let (path, store) = create(&folder);
    assert!(matches!(Store::open(&path), Err(StoreError::Locked { .. })));
    assert!(matches!(
        Reader::open_read_only(&path),
        Err(StoreError::Locked { .. })
    ));
    drop(store);
    let (first, _) = Reader::open_read_only(&path).unwrap();
    let (second, _) = Reader::open_read_only(&path).unwrap();
    assert_eq!(first.load().unwrap(), second.load().unwrap());
    assert!(matches!(Store::open(&path), Err(StoreError::Locked { .. })));
}

#[test]
fn an_absent_store_is_told_from_a_damaged_one() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("dunlin.redb");
    assert!(matches!(
        Store::open(&path),
        Err(StoreError::Missing { .. })
    ));
    fs::write(&path, b"").unwrap();
    assert!(matches!(
        Store::open(&path),
        Err(StoreError::Corrupt { .. })
    ));
    fs::write(&path, b"some other file").unwrap();
    assert!(matches!(
        Store::open(&path),
        Err(StoreError::Corrupt { .. })
    ));
    assert_eq!(fs::read(&path).unwrap(), b"some other file");
}

#[test]
fn another_format_is_refused_with_what_to_do() {
    let newer = format!(
        "format {} and this dunlin knows formats up to {FORMAT}: use the dunlin that wrote it",
        FORMAT + 1
    );
    let older = format!(
        "format {} and this dunlin reads format {FORMAT} only: use",
        FORMAT - 1
    );
    for (format, words) in [(FORMAT + 1, newer), (FORMAT - 1, older)] {
        let folder = TempDir::new().unwrap();
        let (path, store) = create(&folder);
        store
            .write(|txn| {
                let other = [format, 0xff, 0xff];
                txn.open_table(HEADER)?
                    .insert(HEADER_KEY, other.as_slice())?;
                Ok(())
            })
            .unwrap();
        drop(store);
        let Err(refused) = Store::open(&path) else {
            panic!("format {format} was opened");
        };
        assert!(refused.to_string().contains(&words), "{refused}");
    }
}

#[test]
fn a_record_of_an_older_version_is_told_from_a_damaged_one() {
    let folder = TempDir::new().unwrap();
    let (_, store) = create(&folder);
    #[derive(Serialize, Deserialize)]
    struct Older(u8);
    impl Wire for Older {
        const NAME: &'static str = "older";
        const VERSION: u8 = 1;
        const LIMIT: usize = 10;
    }
    store
        .write(|txn| table::put(txn, mine::AGENTS, b"x", &Older(1)))
        .unwrap();
    let refused = store.agents().unwrap_err();
    let words = refused.to_string();
    assert!(
        matches!(refused, StoreError::OlderFormat { found: 1, .. }),
        "{words}"
    );
    assert!(
        words.contains("has format 1 and this dunlin reads format"),
        "{words}"
    );
    assert!(words.contains("join the mesh again"), "{words}");
}

#[test]
fn a_newer_record_is_told_from_a_damaged_one() {
    #[derive(Serialize, Deserialize)]
    struct Newer(u8);
    impl Wire for Newer {
        const NAME: &'static str = "newer";
        const VERSION: u8 = 2;
        const LIMIT: usize = 10;
    }
    let folder = TempDir::new().unwrap();
    let (_, store) = create(&folder);
    store
        .write(|txn| table::put(txn, mine::VOLUMES, b"x", &Newer(1)))
        .unwrap();
    let refused = store.volumes();
    assert!(matches!(
        refused,
        Err(StoreError::NewerFormat {
            what: "offered volume",
            found: 2,
            known: 1
        })
    ));
}

#[test]
fn a_changed_record_is_named_by_table_and_key() {
    let folder = TempDir::new().unwrap();
    let (path, store) = create(&folder);
    store.put_records(&[numbered(0xabcd)]).unwrap();
    drop(store);
    let mut bytes = fs::read(&path).unwrap();
    let pattern = 0xabcd_u32.to_be_bytes().repeat(50);
    let places: Vec<usize> = (0..bytes.len() - pattern.len())
        .filter(|at| bytes[*at..].starts_with(&pattern))
        .collect();
    assert!(!places.is_empty());
    for at in places {
        bytes[at + 77] ^= 4;
    }
    fs::write(&path, &bytes).unwrap();
    let Err(StoreError::Corrupt { what }) = read_all(&path) else {
        panic!("a changed record was read");
    };
    assert_eq!(
        what,
        format!(
            "record {}000000000000abcd of table `changes`: its checksum does not match",
            root().public()
        )
    );
}

#[test]
fn a_record_moved_to_another_key_or_table_does_not_pass() {
    let folder = TempDir::new().unwrap();
    let (_, store) = create(&folder);
    store.put_volume(&volume(1)).unwrap();
    let sealed = store
        .read(|txn| table::raw(txn, mine::VOLUMES, &volume(1).id.0))
        .unwrap()
        .unwrap();
    let unseal = |table, key: &[u8]| table::unseal::<OfferedVolume>(table, key, &sealed);
    assert_eq!(unseal("volumes", &volume(1).id.0).unwrap(), volume(1));
    assert!(unseal("volumes", &volume(2).id.0).is_err());
    assert!(unseal("copies", &volume(1).id.0).is_err());
}

#[test]
fn the_stored_form_of_a_record_does_not_change() {
    let folder = TempDir::new().unwrap();
    let (_, store) = create(&folder);
    store.put_volume(&volume(1)).unwrap();
    let sealed = store
        .read(|txn| table::raw(txn, mine::VOLUMES, &volume(1).id.0))
        .unwrap()
        .unwrap();
    let mut expected = vec![1];
    expected.extend([1; 16]);
    expected.extend(b"\x06disk-1\x08/dev/vda\x05");
    let (encoded, sum) = sealed.split_at(sealed.len() - 16);
    assert_eq!(encoded, expected);
    assert_eq!(hex::encode(sum), "655d0c404c183272790aaa907dbdebf4");
}

#[test]
fn a_file_cut_short_anywhere_is_refused_without_a_panic() {
    let folder = TempDir::new().unwrap();
    let path = filled(&folder);
    let whole = read_all(&path).unwrap();
    let bytes = fs::read(&path).unwrap();
    for part in 0..16 {
        fs::write(&path, &bytes[..bytes.len() * part / 16]).unwrap();
        match read_all(&path) {
            Err(StoreError::Corrupt { .. }) => {}
            Err(other) => panic!("{part}/16 of the file: {other}"),
            // What is cut off may have been free.
            Ok(read) => assert!(read == whole, "{part}/16 of the file is other data"),
        }
    }
}

#[test]
fn bytes_changed_anywhere_are_refused_or_make_no_difference() {
    let folder = TempDir::new().unwrap();
    let path = filled(&folder);
    let whole = read_all(&path).unwrap();
    let bytes = fs::read(&path).unwrap();
    let mut refused = 0;
    let mut random = 0x9e37_79b9_7f4a_7c15_u64;
    for _ in 0..150 {
        let mut damaged = bytes.clone();
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        let at = usize::try_from(random % bytes.len() as u64).unwrap();
        let end = bytes.len().min(at + 64);
        for (byte, noise) in damaged[at..end]
            .iter_mut()
            .zip(random.to_le_bytes().repeat(8))
        {
            *byte ^= noise;
        }
        fs::write(&path, &damaged).unwrap();
        match read_all(&path) {
            Err(StoreError::Corrupt { .. }) => refused += 1,
            Err(other) => panic!("64 bytes at {at}: {other}"),
            Ok(read) => assert!(read == whole, "64 bytes at {at} gave other data"),
        }
    }
    assert!(refused > 10, "only {refused} of 150 were noticed");
}

#[test]
fn events_are_numbered_from_one_and_found_by_number_and_migration() {
    let folder = TempDir::new().unwrap();
    let (path, store) = create(&folder);
    let mine = Some(MigrationId([1; 16]));
    assert_eq!(store.append_event(&event(10, None)).unwrap(), 1);
    assert_eq!(store.append_event(&event(11, mine)).unwrap(), 2);
    let more = [event(12, mine), event(13, None)];
    assert_eq!(store.append_events(&more).unwrap(), Some(4));
    assert_eq!(store.append_events(&[]).unwrap(), None);
    drop(store);

    let (store, _) = Reader::open_read_only(&path).unwrap();
    let seqs = |events: Result<Vec<crdt::Event>, StoreError>| -> Vec<u64> {
        events.unwrap().iter().map(|event| event.seq).collect()
    };
    assert_eq!(seqs(store.events(0, 10, None)), [1, 2, 3, 4]);
    assert_eq!(seqs(store.events(1, 2, None)), [2, 3]);
    assert_eq!(seqs(store.events(2, 10, mine)), [3]);
    assert_eq!(seqs(store.events(4, 10, None)), [0; 0]);
    assert_eq!(seqs(store.events(u64::MAX, 10, None)), [0; 0]);
    assert_eq!(seqs(store.newest_events(3, None)), [2, 3, 4]);
    assert_eq!(seqs(store.newest_events(1, mine)), [3]);
    assert_eq!(
        store.events(0, 1, None).unwrap()[0].text,
        "event of second 10"
    );
}

#[test]
fn the_oldest_events_go_and_their_numbers_are_not_used_again() {
    let folder = TempDir::new().unwrap();
    let (path, store) = create(&folder);
    let many: Vec<NewEvent> = (0..EVENTS_KEPT + 5).map(|at| event(at, None)).collect();
    store.append_events(&many).unwrap();
    drop(store);
    let (store, _) = Store::open(&path).unwrap();
    let next = store.append_event(&event(0, None)).unwrap();
    assert_eq!(next, EVENTS_KEPT + 6);
    let kept = store.events(0, usize::MAX, None).unwrap();
    assert_eq!(kept.len() as u64, EVENTS_KEPT);
    assert_eq!(kept[0].seq, 7);
}

#[test]
fn a_long_event_is_cut_between_characters() {
    let folder = TempDir::new().unwrap();
    let (_, store) = create(&folder);
    let mut long = event(1, None);
    long.text = format!("x{}", "é".repeat(event::MAX_EVENT_TEXT));
    store.append_event(&long).unwrap();
    let text = &store.events(0, 1, None).unwrap()[0].text;
    let room = event::MAX_EVENT_TEXT / 2 - 1;
    assert_eq!(text, &format!("x{}", "é".repeat(room)));
}

#[test]
fn more_volumes_than_a_report_holds_are_refused() {
    let folder = TempDir::new().unwrap();
    let (_, store) = create(&folder);
    store
        .write(|txn| {
            for id in 0..256_u128 {
                let mut volume = volume(0);
                volume.id = VolumeId(id.to_be_bytes());
                table::put(txn, mine::VOLUMES, &volume.id.0, &volume)?;
            }
            Ok(())
        })
        .unwrap();
    let refused = store.put_volume(&volume(0xff));
    assert!(matches!(refused, Err(StoreError::Full { limit: 256, .. })));
    assert_eq!(store.volumes().unwrap().len(), 256);
    store.put_volume(&volume(0)).unwrap();
}

/// Writes until it is killed, and says what was acknowledged.
fn be_the_victim(path: &Path) {
    let (store, _) = Store::open(path).unwrap();
    let mut out = std::io::stdout();
    for n in store.load().unwrap().changes.len() as u32.. {
        store.put_records(&[numbered(n)]).unwrap();
        store
            .put_agent(&agent_record(job(1), u64::from(n)))
            .unwrap();
        writeln!(out, "\nacknowledged {n}").unwrap();
        out.flush().unwrap();
    }
}

#[test]
fn what_was_acknowledged_survives_kill_9() {
    if let Some(path) = std::env::var_os(VICTIM) {
        return be_the_victim(Path::new(&path));
    }
    let folder = TempDir::new().unwrap();
    let (path, store) = create(&folder);
    drop(store);
    let module = module_path!().split_once("::").unwrap().1;
    for acknowledgements in [1, 7, 40] {
        let mut victim = Command::new(std::env::current_exe().unwrap())
            .arg(format!("{module}::what_was_acknowledged_survives_kill_9"))
            .args(["--exact", "--nocapture"])
            .env(VICTIM, &path)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(victim.stdout.take().unwrap()).lines();
        let mut numbers = lines.filter_map(|line| {
            let line = line.unwrap();
            line.strip_prefix("acknowledged ")?.parse::<u32>().ok()
        });
        numbers.nth(acknowledgements - 1).unwrap();
        victim.kill().unwrap();
        victim.wait().unwrap();
        let last = numbers.last();

        // A reader comes first, as a command does while the node is stopped.
        let (reader, _) = Reader::open_read_only(&path).unwrap();
        let read = reader.load().unwrap();
        drop(reader);
        let (store, _) = Store::open(&path).unwrap();
        let loaded = store.load().unwrap();
        assert_eq!(loaded, read);
        let count = u32::try_from(loaded.changes.len()).unwrap();
        assert!(last.is_none_or(|last| count > last), "{count}, {last:?}");
        assert!(count as usize >= acknowledgements);
        assert!(
            loaded
                .changes
                .iter()
                .eq((0..count).map(change).collect::<Vec<_>>().iter())
        );
        let barrier = store.agents().unwrap()[0].barrier;
        assert!(barrier + 1 == u64::from(count) || barrier + 2 == u64::from(count));
    }
}
