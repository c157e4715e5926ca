//! Every bound of a chunk: what is just within it passes, what is beyond is refused by
//! name.
#![allow(clippy::unwrap_used)]

use super::*;

/// A change in its parts, each to be altered alone.
struct Parts {
    magic: [u8; 4],
    kind: u8,
    /// The length that is claimed, if not the true one.
    claimed: Option<u64>,
    deps: usize,
    author: Vec<u8>,
    seq: u64,
    start_op: u64,
    message: usize,
    others: usize,
    columns: Vec<(u64, Vec<u8>)>,
    tail: Vec<u8>,
}

impl Parts {
    fn sound() -> Self {
        Self {
            magic: MAGIC,
            kind: CHANGE,
            claimed: None,
            deps: 1,
            author: vec![7; 32],
            seq: 1,
            start_op: 1,
            message: 0,
            others: 1,
            columns: vec![],
            tail: vec![],
        }
    }

    fn bytes(&self) -> Vec<u8> {
        let mut body = unsigned(self.deps as u64);
        body.extend(vec![1; self.deps * 32]);
        body.extend(unsigned(self.author.len() as u64));
        body.extend(&self.author);
        body.extend(unsigned(self.seq));
        body.extend(unsigned(self.start_op));
        body.push(0);
        body.extend(unsigned(self.message as u64));
        body.extend(vec![b'1'; self.message]);
        body.extend(unsigned(self.others as u64));
        for _ in 0..self.others {
            body.push(32);
            body.extend([8; 32]);
        }
        body.extend(unsigned(self.columns.len() as u64));
        for (spec, data) in &self.columns {
            body.extend(unsigned(*spec));
            body.extend(unsigned(data.len() as u64));
        }
        body.extend(self.columns.iter().flat_map(|(_, data)| data));
        body.extend(&self.tail);
        let mut chunk = self.magic.to_vec();
        chunk.extend([0; 4]);
        chunk.push(self.kind);
        chunk.extend(unsigned(self.claimed.unwrap_or(body.len() as u64)));
        chunk.extend(body);
        chunk
    }
}

fn unsigned(mut value: u64) -> Vec<u8> {
    let mut bytes = vec![];
    while value >= 0x80 {
        bytes.push(value as u8 | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
    bytes
}

fn signed(mut value: i64) -> Vec<u8> {
    let mut bytes = vec![];
    while !(-64..64).contains(&value) {
        bytes.push(value as u8 | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8 & 0x7f);
    bytes
}

/// One run of `times` the same value.
fn run(times: u64, value: Vec<u8>) -> Vec<u8> {
    [signed(times as i64), value].concat()
}

/// Values each in full.
fn literal(values: &[Vec<u8>]) -> Vec<u8> {
    [signed(-(values.len() as i64)), values.concat()].concat()
}

fn nulls(times: u64) -> Vec<u8> {
    [vec![0], unsigned(times)].concat()
}

fn with_column(spec: u64, data: Vec<u8>) -> Result<(), &'static str> {
    let columns = vec![(spec, data)];
    let sound = Parts::sound();
    survey(&Parts { columns, ..sound }.bytes())
}

type Alteration = fn(&mut Parts);

#[test]
fn a_chunk_beyond_any_bound_of_its_head_is_refused_by_name() {
    let beyond: [(&str, Alteration); 15] = [
        ("magic bytes", |parts| parts.magic[0] ^= 1),
        ("chunk type", |parts| parts.kind = 0),
        ("chunk length", |parts| parts.claimed = Some(3)),
        ("chunk length", |parts| parts.claimed = Some(u64::MAX)),
        ("number of dependencies", |parts| parts.deps = 257),
        ("length of an author", |parts| parts.author = vec![7; 31]),
        ("length of an author", |parts| parts.author = vec![7; 33]),
        ("a counter", |parts| parts.seq = 1 << 32),
        ("a counter", |parts| parts.start_op = 1 << 32),
        ("message", |parts| parts.message = 11),
        ("number of authors", |parts| parts.others = 257),
        ("number of columns", |parts| {
            parts.columns = (0..33).map(|spec| (spec * 16 + 8, vec![])).collect();
        }),
        ("order of columns", |parts| {
            parts.columns = vec![(0x15, vec![]), (0x15, vec![])];
        }),
        ("order of columns", |parts| {
            parts.columns = vec![(0x15, vec![]), (0x02, vec![])];
        }),
        ("bytes after the columns", |parts| parts.tail = vec![0]),
    ];
    for (what, alter) in beyond {
        let mut parts = Parts::sound();
        alter(&mut parts);
        assert_eq!(survey(&parts.bytes()), Err(what));
    }
    let within: [Alteration; 6] = [
        |_| {},
        |parts| parts.deps = 256,
        |parts| parts.message = 10,
        |parts| parts.others = 256,
        |parts| (parts.seq, parts.start_op) = (u64::from(u32::MAX), u64::from(u32::MAX)),
        |parts| parts.columns = (0..32).map(|spec| (spec * 16 + 8, vec![])).collect(),
    ];
    for (at, alter) in within.into_iter().enumerate() {
        let mut parts = Parts::sound();
        alter(&mut parts);
        assert_eq!(survey(&parts.bytes()), Ok(()), "{at}");
    }
}

#[test]
fn a_chunk_cut_short_anywhere_is_refused() {
    let columns = vec![(0x15, literal(&[vec![1, b'a']]))];
    let sound = Parts::sound();
    let whole = Parts { columns, ..sound }.bytes();
    assert_eq!(survey(&whole), Ok(()));
    for end in 0..whole.len() {
        assert!(survey(&whole[..end]).is_err(), "{end} bytes");
    }
    // And a column that claims more than there is.
    let mut columns = whole;
    let at = columns.len() - 4;
    assert_eq!(columns[at], 3);
    columns[at] = 4;
    assert_eq!(survey(&columns), Err("too short"));
}

#[test]
fn a_column_beyond_any_bound_is_refused_by_name() {
    let items = "number of items in a column";
    let index = "index of an author or action";
    let counter = u64::from(u32::MAX);
    let beyond = [
        (0x01, run(MAX_OPS + 1, unsigned(0)), items),
        (0x01, nulls(MAX_OPS + 1), items),
        (0x01, run(1, unsigned(2)), index),
        (0x02, run(MAX_OPS + 1, unsigned(0)), items),
        (0x02, run(1, unsigned(counter + 1)), "a counter"),
        (0x15, run(MAX_OPS + 1, vec![1, b'a']), items),
        (
            0x15,
            run(1, [unsigned(257), vec![b'a'; 257]].concat()),
            "length of a key",
        ),
        (0x15, run(1, vec![2, b'a']), "too short"),
        (0x34, unsigned(MAX_OPS + 1), items),
        (0x34, [unsigned(u64::MAX), unsigned(1)].concat(), items),
        (0x42, run(MAX_OPS + 1, unsigned(0)), items),
        (0x42, run(1, unsigned(7)), index),
        (0x56, run(MAX_OPS + 1, unsigned(0)), items),
        (0x56, run(1, unsigned(1 << 4)), "length of values"),
        (0x57, vec![0], "length of values"),
        (0x70, run(MAX_OPS + 1, unsigned(0)), items),
        (0x70, run(2, unsigned(4097)), "number of predecessors"),
        (0x70, run(2, unsigned(1 << 63)), "number of predecessors"),
        (0x71, run(MAX_PREDS + 1, unsigned(0)), items),
        (0x71, run(1, unsigned(2)), index),
        (0x73, run(MAX_PREDS + 1, signed(0)), items),
        (0x73, run(1, signed(-1)), "a counter"),
        (0x73, run(2, signed(1 << 31)), "a counter"),
        (0x73, literal(&[signed(1), signed(i64::MAX)]), "a counter"),
        (0x03, vec![0], "columns of lists and marks"),
        (0x80, vec![0], "columns of lists and marks"),
        // Numbers that a sum of 64 bits would lose sight of.
        (0x01, [nulls(2), nulls(u64::MAX - 1)].concat(), items),
        (
            0x70,
            literal(&[unsigned(u64::MAX), unsigned(1)]),
            "number of predecessors",
        ),
        (0x56, run(32, unsigned(1 << 63)), "length of values"),
    ];
    for (spec, data, what) in beyond {
        assert_eq!(
            with_column(spec, data.clone()),
            Err(what),
            "{spec:#x} {data:?}"
        );
    }
    let within = [
        (0x01, run(MAX_OPS, unsigned(1))),
        (0x02, run(MAX_OPS, unsigned(counter))),
        (
            0x15,
            run(MAX_OPS, [unsigned(256), vec![b'a'; 256]].concat()),
        ),
        (0x34, unsigned(MAX_OPS)),
        (0x42, run(MAX_OPS, unsigned(6))),
        (0x56, run(MAX_OPS, unsigned(15))),
        (0x70, run(2, unsigned(4096))),
        (0x71, run(MAX_PREDS, unsigned(1))),
        (0x73, run(MAX_PREDS, signed(524_287))),
        (
            0x73,
            literal(&[signed((1 << 32) - 1), signed(1 - (1 << 32))]),
        ),
        (0x03, vec![]),
    ];
    for (spec, data) in within {
        assert_eq!(with_column(spec, data), Ok(()), "{spec:#x}");
    }
}

fn read_signed(bytes: &[u8]) -> Result<i64, &'static str> {
    Cursor(bytes).signed()
}

#[test]
fn numbers_are_read_in_their_shortest_form_only() {
    assert_eq!(Cursor(&[0x80, 0x01]).unsigned(), Ok(128));
    assert_eq!(Cursor(&[0x81, 0x00]).unsigned(), Err("padded number"));
    assert_eq!(Cursor(&[0xff; 11]).unsigned(), Err("number out of range"));
    let largest = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01];
    assert_eq!(Cursor(&largest).unsigned(), Ok(u64::MAX));
    assert_eq!(read_signed(&[0x7f]), Ok(-1));
    assert_eq!(read_signed(&[0xff, 0x7f]), Err("padded number"));
    assert_eq!(read_signed(&[0xc0, 0x00]), Ok(64));
    let smallest = [0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x7f];
    assert_eq!(read_signed(&smallest), Ok(i64::MIN));
    for beyond in [0x02, 0x7f] {
        let mut number = [0xff; 10];
        number[9] = beyond;
        assert_eq!(Cursor(&number).unsigned(), Err("number out of range"));
    }
    for beyond in [0x01, 0x7d] {
        let mut number = [0x80; 10];
        number[9] = beyond;
        assert_eq!(read_signed(&number), Err("number out of range"));
    }
}

#[test]
fn a_run_of_more_items_than_a_change_may_hold_is_not_walked() {
    // A run of 2^56 ones in nine bytes, and a literal of 2^56.
    let run = [0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x01, 1];
    assert!(survey_indexes(&run, MAX_OPS, 6).is_err());
    let literal = [0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x7f, 1];
    assert!(survey_indexes(&literal, MAX_OPS, 6).is_err());
    assert_eq!(survey_indexes(&[2, 1], MAX_OPS, 6), Ok(()));
}

#[test]
fn few_operations_may_not_claim_many_predecessors() {
    // Two operations with 8,000 predecessors each.
    assert!(survey_groups(&[2, 0xc0, 0x3e]).is_err());
    assert_eq!(survey_groups(&[1, 0xc0, 0x3e]), Ok(()));
}
