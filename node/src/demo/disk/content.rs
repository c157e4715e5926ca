//! What is on the demo disk: which folders and files, and every byte of them, all drawn from one seed.
//!
//! No file is touched here: the two makers of file systems read the same tree from this.

use std::io::{self, Read};

use blake3::OutputReader;

/// Contents are made and rewritten in pages, as a database does.
pub const PAGE: usize = 4096;

/// The folder with the files that the writer rewrites.
pub const DATABASE_FOLDER: &str = "srv/database";

/// The least that the database files hold together, so that there is something to rewrite.
pub const LEAST_DATABASE: u64 = 2 << 20;

/// How large one database file grows before there is another, and how many there may be.
const DATABASE_FILE: u64 = 16 << 20;
const MOST_DATABASE_FILES: u64 = 64;

const FILES_A_FOLDER: u32 = 64;
const PARENTS: [&str; 4] = ["etc", "home", "usr/share", "var/log"];

/// A repeatable stream of random bytes for one purpose.
pub struct Stream {
    source: OutputReader,
    buffer: [u8; 1024],
    used: usize,
}

impl Stream {
    /// The stream that `seed` gives for `purpose`; other purposes give unrelated ones.
    pub fn new(seed: u64, purpose: &str) -> Self {
        let mut hasher = blake3::Hasher::new_derive_key("dunlin 2026 demo disk content");
        hasher
            .update(&seed.to_le_bytes())
            .update(purpose.as_bytes());
        Self {
            source: hasher.finalize_xof(),
            buffer: [0; 1024],
            used: 1024,
        }
    }

    /// The next eight bytes.
    pub fn bytes8(&mut self) -> [u8; 8] {
        if self.used == self.buffer.len() {
            self.source.fill(&mut self.buffer);
            self.used = 0;
        }
        let mut out = [0; 8];
        out.copy_from_slice(&self.buffer[self.used..self.used + 8]);
        self.used += 8;
        out
    }

    /// A number below `bound`, which is not zero; its bias is of no concern for test data.
    pub fn below(&mut self, bound: u64) -> u64 {
        u64::from_le_bytes(self.bytes8()) % bound
    }

    /// Sixteen bytes for an identifier.
    pub fn bytes16(&mut self) -> [u8; 16] {
        let mut out = [0; 16];
        out[..8].copy_from_slice(&self.bytes8());
        out[8..].copy_from_slice(&self.bytes8());
        out
    }

    fn fill(&mut self, out: &mut [u8]) {
        self.source.fill(out);
    }
}

/// What a file's bytes look like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Lines of words: compresses well.
    Text,
    /// Like media and archives: does not compress.
    Random,
    /// Numbered pages, half rows and half blobs.
    Database,
}

/// A file to be made.
#[derive(Debug, Clone)]
pub struct PlannedFile {
    /// Index into [`Tree::folders`].
    pub folder: usize,
    /// Name inside its folder.
    pub name: String,
    /// Bytes.
    pub length: u64,
    /// What it holds.
    pub kind: Kind,
}

/// Everything the file system will hold.
#[derive(Debug, Clone)]
pub struct Tree {
    seed: u64,
    /// Paths relative to the root, every parent before its children.
    pub folders: Vec<String>,
    /// The files, in the order in which they are laid down.
    pub files: Vec<PlannedFile>,
}

impl Tree {
    /// Plans `files` small files and, in what `budget` bytes leave, the database files.
    /// When the budget does not reach, the bytes that would have been enough.
    pub fn plan(seed: u64, files: u32, budget: u64) -> Result<Self, u64> {
        let mut tree = Self {
            seed,
            folders: [
                "etc",
                "home",
                "usr",
                "usr/share",
                "var",
                "var/log",
                "srv",
                DATABASE_FOLDER,
            ]
            .map(String::from)
            .to_vec(),
            files: Vec::new(),
        };
        let database_folder = tree.folders.len() - 1;
        let small = tree.plan_small(files);
        let rest = budget.saturating_sub(small);
        if rest < LEAST_DATABASE {
            return Err(small + LEAST_DATABASE);
        }
        let count = (rest / DATABASE_FILE).clamp(2, MOST_DATABASE_FILES);
        let pages = rest / count / PAGE as u64;
        for number in 0..count {
            tree.files.push(PlannedFile {
                folder: database_folder,
                name: format!("table-{number:02}.db"),
                length: pages * PAGE as u64,
                kind: Kind::Database,
            });
        }
        Ok(tree)
    }

    /// Plans the small files, 1 to 64 KiB with as many in each doubling; returns the bytes they occupy.
    fn plan_small(&mut self, files: u32) -> u64 {
        let mut stream = Stream::new(self.seed, "file lengths");
        let mut occupied = 0;
        for number in 0..files {
            if number % FILES_A_FOLDER == 0 {
                let index = (number / FILES_A_FOLDER) as usize;
                self.folders
                    .push(format!("{}/{index:04}", PARENTS[index % PARENTS.len()]));
            }
            let least = 1024 << stream.below(6);
            let length = least + stream.below(least);
            let (kind, extension) = match stream.below(10) {
                0..=5 => (Kind::Text, "txt"),
                _ => (Kind::Random, "bin"),
            };
            self.files.push(PlannedFile {
                folder: self.folders.len() - 1,
                name: format!("{number:06}.{extension}"),
                length,
                kind,
            });
            occupied += length.next_multiple_of(PAGE as u64);
        }
        occupied
    }

    /// The path of `file` from the root.
    pub fn path(&self, file: &PlannedFile) -> String {
        format!("{}/{}", self.folders[file.folder], file.name)
    }

    /// The bytes of `file`, from its start.
    pub fn open(&self, file: &PlannedFile) -> FileBytes {
        FileBytes {
            stream: Stream::new(self.seed, &self.path(file)),
            kind: file.kind,
            left: file.length,
            number: 0,
            page: [0; PAGE],
            used: PAGE,
        }
    }
}

/// Reads the bytes of one planned file.
pub struct FileBytes {
    stream: Stream,
    kind: Kind,
    left: u64,
    number: u64,
    page: [u8; PAGE],
    used: usize,
}

impl Read for FileBytes {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        if self.left == 0 {
            return Ok(0);
        }
        if self.used == PAGE {
            match self.kind {
                Kind::Text => text(&mut self.stream, &mut self.page),
                Kind::Random => self.stream.fill(&mut self.page),
                Kind::Database => database_page(&mut self.stream, self.number, 0, &mut self.page),
            }
            self.number += 1;
            self.used = 0;
        }
        let left = usize::try_from(self.left).unwrap_or(usize::MAX);
        let count = out.len().min(PAGE - self.used).min(left);
        out[..count].copy_from_slice(&self.page[self.used..self.used + count]);
        self.used += count;
        self.left -= count as u64;
        Ok(count)
    }
}

/// Fills one page of a database file: a header with its number and generation, rows, blobs.
pub fn database_page(stream: &mut Stream, number: u64, generation: u64, page: &mut [u8; PAGE]) {
    let (rows, blobs) = page.split_at_mut(PAGE / 2);
    let (header, rows) = rows.split_at_mut(24);
    header[..8].copy_from_slice(b"DEMOPAGE");
    header[8..16].copy_from_slice(&number.to_le_bytes());
    header[16..].copy_from_slice(&generation.to_le_bytes());
    text(stream, rows);
    stream.fill(blobs);
}

/// Fills `out` with lines of eight words; the last one ends in dots where no word fits.
fn text(stream: &mut Stream, out: &mut [u8]) {
    let mut at = 0;
    while at < out.len() {
        for (index, byte) in stream.bytes8().into_iter().enumerate() {
            let word = WORDS[usize::from(byte) % WORDS.len()].as_bytes();
            let Some(place) = out.get_mut(at..at + word.len() + 1) else {
                out[at..].fill(b'.');
                return;
            };
            place[..word.len()].copy_from_slice(word);
            place[word.len()] = if index == 7 { b'\n' } else { b' ' };
            at += word.len() + 1;
        }
    }
}

const WORDS: [&str; 32] = [
    "accepted",
    "address",
    "backup",
    "balance",
    "cache",
    "client",
    "closed",
    "connection",
    "customer",
    "delivered",
    "error",
    "expired",
    "failed",
    "from",
    "index",
    "invoice",
    "listening",
    "message",
    "order",
    "payment",
    "queue",
    "received",
    "renewed",
    "request",
    "retry",
    "session",
    "started",
    "stopped",
    "timeout",
    "update",
    "warning",
    "worker",
];
