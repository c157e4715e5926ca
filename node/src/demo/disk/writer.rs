//! The demo's running server: rewrites pages of the database files of a demo disk in place.
//!
//! It never makes, moves or grows a file, and it decides nothing about when it writes.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use super::content::{DATABASE_FOLDER, PAGE, Stream, database_page};
use super::{ImageError, open_file_system};

/// Pages rewritten in one burst.
const BURST_PAGES: usize = 64;

/// One page in this many is hot, and half of all writes go to the hot ones: servers write like that,
/// and it is what lets the passes of a replication shrink.
const HOT_ONE_IN: usize = 16;

/// Changes a demo disk as a running server would: rewrites pages of its database files in place,
/// and nothing else, so that the file system stays sound at every moment.
pub struct Writer {
    path: PathBuf,
    image: File,
    stream: Stream,
    /// Offset of every page on the disk.
    pages: Vec<u64>,
    generation: u64,
}

impl Writer {
    /// Opens the demo disk at `path` and finds where its database files lie. The same seed writes
    /// the same pages again: whoever opens a disk a second time chooses another.
    pub fn open(path: &Path, seed: u64) -> Result<Self, ImageError> {
        let failed = |source| ImageError::Image {
            path: path.to_owned(),
            source,
        };
        let image = OpenOptions::new()
            .read(true)
            .write(true)
            .open(path)
            .map_err(failed)?;
        let fs = open_file_system(path, image.try_clone().map_err(failed)?)?;
        let find = || {
            let mut pages = Vec::new();
            for file in fs.files(DATABASE_FOLDER)? {
                for span in fs.whole_blocks(&file)? {
                    pages.extend((span.offset..span.offset + span.length).step_by(PAGE));
                }
            }
            Ok(pages)
        };
        let pages: Vec<u64> = find().map_err(|source| ImageError::FileSystem {
            path: path.to_owned(),
            source,
        })?;
        if pages.is_empty() {
            return Err(ImageError::NoDatabase {
                path: path.to_owned(),
            });
        }
        Ok(Self {
            path: path.to_owned(),
            image,
            stream: Stream::new(seed, "rewrites"),
            pages,
            generation: 0,
        })
    }

    /// Writes one burst of pages and returns how many bytes that were. It does not sync: the pages
    /// are seen by every reader of the file at once, as they are on a running server.
    pub fn step(&mut self) -> Result<u64, ImageError> {
        self.generation += 1;
        let mut page = [0; PAGE];
        for _ in 0..BURST_PAGES {
            let hot = self.pages.len().div_ceil(HOT_ONE_IN);
            let among = if self.stream.below(2) == 0 {
                hot
            } else {
                self.pages.len()
            };
            let number = self.stream.below(among as u64);
            let offset = self.pages[number as usize];
            database_page(&mut self.stream, number, self.generation, &mut page);
            let written = self.image.write_all_at(&page, offset);
            written.map_err(|source| ImageError::Image {
                path: self.path.clone(),
                source,
            })?;
        }
        Ok((BURST_PAGES * PAGE) as u64)
    }
}
