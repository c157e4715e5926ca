//! The command line from words to output, with a made-up node behind it.
#![allow(clippy::unwrap_used)]

mod acting;
mod grammar;
mod node;
mod reading;
mod views;
mod waiting;
mod words;

pub use views::*;

use std::io::{self, Write};
use std::sync::{Arc, Mutex};

use super::Globals;
use super::page::Look;
use super::screen::Screen;

/// 2026-01-31T08:00:00Z.
pub const NOW_SECS: u64 = 1_769_846_400;

/// What was written to a stream.
#[derive(Debug, Clone, Default)]
pub struct Written(Arc<Mutex<Vec<u8>>>);

impl Written {
    pub fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }
}

impl Write for Written {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A stream whose reader has gone.
pub struct Gone;

impl Write for Gone {
    fn write(&mut self, _: &[u8]) -> io::Result<usize> {
        Err(io::ErrorKind::BrokenPipe.into())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

pub fn look() -> Look {
    Look {
        now_secs: NOW_SECS,
        colour: false,
        width: None,
    }
}

/// A screen with its stdout and stderr.
pub fn screen(globals: &Globals) -> (Screen, Written, Written) {
    let (out, err) = (Written::default(), Written::default());
    let screen = Screen::with(globals, look(), out.clone(), err.clone());
    (screen, out, err)
}

pub fn json() -> Globals {
    Globals {
        json: true,
        ..Globals::default()
    }
}
