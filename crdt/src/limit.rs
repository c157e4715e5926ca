//! When which rate of sending holds: rates and timetables, as people write them.
//!
//! Not here: whom a limit is of (`plan`), and what time it is where it stands (`node`).

mod meant;
mod rate;
mod timetable;

pub use rate::{BadRate, LEAST_BYTES_PER_SEC, MOST_BYTES_PER_SEC, Rate};
pub use timetable::{BadTimetable, MAX_ENTRIES, MinuteOfWeek, Timetable, WEEK_MINUTES};
