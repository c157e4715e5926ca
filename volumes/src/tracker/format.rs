//! Where the fields of a block event lie, which differs between kernels: as
//! `events/block/EVENT/format` of tracefs says.

use std::io::Read;

use super::{NoTracker, kernel, refused};

/// What tracefs says of an event is a few lines.
const MAX_FORMAT: u64 = 64 * 1024;

/// The events that are followed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stream {
    /// `block_rq_complete`: the kernel says that a request, or a part of one, is done.
    Completed,
    /// `block_bio_queue`: somebody hands over what is to be done.
    Queued,
}

impl Stream {
    /// Its name in tracefs.
    pub(super) fn event(self) -> &'static str {
        match self {
            Self::Completed => "block_rq_complete",
            Self::Queued => "block_bio_queue",
        }
    }
}

/// Number of an event and offsets of its fields, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Event {
    pub(super) id: u64,
    /// 32 bits.
    pub(super) dev: i16,
    /// 64 bits.
    pub(super) sector: i16,
    /// 32 bits.
    pub(super) nr_sector: i16,
    /// Letters.
    pub(super) rwbs: i16,
}

impl Event {
    /// The event of a stream, as the kernel that runs lays it out.
    pub(super) fn of(stream: Stream) -> Result<Self, NoTracker> {
        let event = stream.event();
        let path = format!("events/block/{event}/format");
        let mut text = String::new();
        kernel::trace_file(&path)
            .and_then(|file| file.take(MAX_FORMAT).read_to_string(&mut text))
            .map_err(refused("read the kernel's events (tracefs)"))?;
        Self::parse(&text).ok_or(NoTracker::UnknownEvent { event })
    }

    /// Reads a format; none for what is not one, or has other fields than we know.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let id = text.lines().find_map(|line| line.strip_prefix("ID: "))?;
        let field = |name: &str, size: u16| {
            let mut found = text.lines().filter_map(Field::parse);
            let field = found.find(|field| field.name == name)?;
            let is_good = size == 0 || field.size == size;
            is_good.then_some(field.offset)
        };
        Some(Self {
            id: id.trim().parse().ok()?,
            dev: field("dev", 4)?,
            sector: field("sector", 8)?,
            nr_sector: field("nr_sector", 4)?,
            rwbs: field("rwbs", 0)?,
        })
    }
}

/// One line: `field:TYPE NAME; offset:N; size:N; signed:N;`, with tabs.
struct Field<'a> {
    name: &'a str,
    offset: i16,
    size: u16,
}

impl<'a> Field<'a> {
    fn parse(line: &'a str) -> Option<Self> {
        let mut parts = line.trim().strip_prefix("field:")?.split(';');
        let name = parts.next()?.split_whitespace().last()?;
        let name = name.split('[').next()?;
        let mut number =
            |word: &str| -> Option<u32> { parts.next()?.trim().strip_prefix(word)?.parse().ok() };
        let (offset, size) = (number("offset:")?, number("size:")?);
        Some(Self {
            name,
            offset: i16::try_from(offset).ok()?,
            size: u16::try_from(size).ok()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NEW: &str = "name: block_rq_complete
ID: 1101
format:
	field:unsigned short common_type;	offset:0;	size:2;	signed:0;
	field:unsigned char common_flags;	offset:2;	size:1;	signed:0;
	field:unsigned char common_preempt_count;	offset:3;	size:1;	signed:0;
	field:int common_pid;	offset:4;	size:4;	signed:1;

	field:dev_t dev;	offset:8;	size:4;	signed:0;
	field:sector_t sector;	offset:16;	size:8;	signed:0;
	field:unsigned int nr_sector;	offset:24;	size:4;	signed:0;
	field:int error;	offset:28;	size:4;	signed:1;
	field:unsigned short ioprio;	offset:32;	size:2;	signed:0;
	field:char rwbs[10];	offset:34;	size:10;	signed:0;
	field:__data_loc char[] cmd;	offset:44;	size:4;	signed:0;

print fmt: \"%d,%d %s\", REC->dev
";

    #[test]
    fn offsets_are_those_that_the_kernel_says() {
        let event = Event {
            id: 1101,
            dev: 8,
            sector: 16,
            nr_sector: 24,
            rwbs: 34,
        };
        assert_eq!(Event::parse(NEW), Some(event));
        // Before there were priorities in it.
        let old = NEW.replace("offset:34;	size:10", "offset:32;	size:8");
        assert_eq!(Event::parse(&old), Some(Event { rwbs: 32, ..event }));
    }

    #[test]
    fn what_lacks_a_field_or_has_it_in_another_size_is_not_followed() {
        for (from, to) in [
            ("ID: 1101", ""),
            (
                "sector_t sector;	offset:16;	size:8",
                "sector_t sector;	offset:16;	size:4",
            ),
            ("nr_sector;", "nr_bytes;"),
            ("offset:8;", "offset:x;"),
            ("offset:24;", "offset:99999;"),
        ] {
            assert!(NEW.contains(from), "{from}");
            assert_eq!(Event::parse(&NEW.replace(from, to)), None, "{from}");
        }
        assert_eq!(Event::parse(""), None);
    }
}
