//! Rates by the hours of a week, in the words of rclone's `--bwlimit`
//! (<https://rclone.org/docs/#bwlimit-bandwidth-spec>).

use super::rate::{BadRate, Rate, is_rate};
use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

/// Most entries of one timetable.
pub const MAX_ENTRIES: usize = 64;
/// Minutes of a day.
const DAY_MINUTES: u16 = 24 * 60;
/// Minutes of a week.
pub const WEEK_MINUTES: u16 = 7 * DAY_MINUTES;

const DAYS: [&str; 7] = ["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"];

/// A minute of the week, from Monday 00:00.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MinuteOfWeek(u16);

impl MinuteOfWeek {
    /// Of a weekday, 0 for Monday to 6, and a minute of that day from 0; none for what no
    /// clock shows.
    pub fn new(weekday: u8, minute_of_day: u16) -> Option<Self> {
        let is_real = usize::from(weekday) < DAYS.len() && minute_of_day < DAY_MINUTES;
        is_real.then(|| Self(u16::from(weekday) * DAY_MINUTES + minute_of_day))
    }

    /// The weekday, 0 for Monday.
    pub fn weekday(self) -> u8 {
        (self.0 / DAY_MINUTES) as u8
    }

    /// The minute of the day.
    pub fn minute_of_day(self) -> u16 {
        self.0 % DAY_MINUTES
    }

    /// So many minutes later it is that one, around the week.
    pub fn until(self, later: Self) -> u16 {
        (later.0 + WEEK_MINUTES - self.0) % WEEK_MINUTES
    }
}

/// One entry as it is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Entry {
    /// 0 for Monday; none for every day.
    weekday: Option<u8>,
    minute_of_day: u16,
    rate: Rate,
}

/// Which rate holds when, each until the next and around the week.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Timetable {
    /// As they were written; none where one rate always holds.
    entries: Vec<Entry>,
    /// What they come to, by the minute of the week at which each begins; never empty.
    begins: BTreeMap<MinuteOfWeek, Rate>,
}

/// A text that is no timetable.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadTimetable {
    /// Nothing is in it.
    #[error(
        "the timetable is empty: give a rate, e.g. 20MiB/s, or hours, e.g. \"08:00,20MiB/s 18:00,off\""
    )]
    Empty,
    /// Not a time with a rate.
    #[error(
        "`{0}` is no entry of a timetable: give a time and a rate, e.g. 08:00,20MiB/s or Mon-08:00,20MiB/s, the hours from 00:00 to 23:59"
    )]
    Entry(String),
    /// The rate is none.
    #[error(transparent)]
    Rate(#[from] BadRate),
    /// Two begin at once.
    #[error("two entries begin at {0}: leave one of them")]
    Twice(String),
    /// Too many.
    #[error("a timetable has at most {MAX_ENTRIES} entries")]
    TooMany,
}

impl Timetable {
    /// Of one rate that always holds.
    pub fn always(rate: Rate) -> Self {
        Self {
            entries: vec![],
            begins: [(MinuteOfWeek(0), rate)].into(),
        }
    }

    fn of(entries: Vec<Entry>) -> Result<Self, BadTimetable> {
        let mut written = std::collections::BTreeSet::new();
        let mut begins = BTreeMap::new();
        let (every_day, some_day): (Vec<&Entry>, Vec<&Entry>) =
            entries.iter().partition(|entry| entry.weekday.is_none());
        // What is said of one day goes before what is said of all.
        for entry in every_day.into_iter().chain(some_day) {
            if !written.insert((entry.weekday, entry.minute_of_day)) {
                return Err(BadTimetable::Twice(entry.time()));
            }
            for weekday in entry.weekday.map_or(0..7, |day| day..day + 1) {
                let minute = u16::from(weekday) * DAY_MINUTES + entry.minute_of_day;
                begins.insert(MinuteOfWeek(minute), entry.rate);
            }
        }
        Ok(Self { entries, begins })
    }

    /// The rate that holds in a minute.
    pub fn at(&self, minute: MinuteOfWeek) -> Rate {
        let before = self.begins.range(..=minute).next_back();
        let found = before.or_else(|| self.begins.last_key_value());
        *found.expect("a timetable is never empty").1
    }

    /// When after a minute another rate begins; none where one always holds.
    pub fn next_change(&self, minute: MinuteOfWeek) -> Option<MinuteOfWeek> {
        let now = self.at(minute);
        let after = (
            std::ops::Bound::Excluded(minute),
            std::ops::Bound::Unbounded,
        );
        let later = self.begins.range(after);
        let around = self.begins.range(..=minute);
        let mut others = later.chain(around).filter(|(_, rate)| **rate != now);
        others.next().map(|(begins, _)| *begins)
    }

    /// The slowest rate that ever holds.
    pub fn slowest(&self) -> Rate {
        self.begins
            .values()
            .fold(Rate::OFF, |slowest, rate| slowest.slower(*rate))
    }
}

impl Entry {
    fn time(&self) -> String {
        let day = self
            .weekday
            .map(|day| format!("{}-", DAYS[usize::from(day)]));
        let (hour, minute) = (self.minute_of_day / 60, self.minute_of_day % 60);
        format!("{}{hour:02}:{minute:02}", day.unwrap_or_default())
    }

    fn parse(text: &str) -> Result<Self, BadTimetable> {
        let bad = || BadTimetable::Entry(text.chars().take(40).collect());
        let (time, rate) = text.split_once(',').ok_or_else(bad)?;
        let (weekday, clock) = match time.split_once('-') {
            None => (None, time),
            Some((day, clock)) => {
                let known = DAYS
                    .iter()
                    .position(|known| known.eq_ignore_ascii_case(day));
                (Some(known.ok_or_else(bad)? as u8), clock)
            }
        };
        let (hour, minute) = clock.split_once(':').ok_or_else(bad)?;
        let number = |text: &str, end: u16| {
            let is_short = (1..=2).contains(&text.len());
            let digits = is_short && text.bytes().all(|byte| byte.is_ascii_digit());
            let number = text.parse().ok().filter(|_| digits);
            number.filter(|number: &u16| *number < end).ok_or_else(bad)
        };
        Ok(Self {
            weekday,
            minute_of_day: number(hour, 24)? * 60 + number(minute, 60)?,
            rate: rate.parse()?,
        })
    }
}

impl fmt::Display for Timetable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.entries.is_empty() {
            return self.slowest().fmt(f);
        }
        for (at, entry) in self.entries.iter().enumerate() {
            let space = if at > 0 { " " } else { "" };
            write!(f, "{space}{},{}", entry.time(), entry.rate)?;
        }
        Ok(())
    }
}

impl FromStr for Timetable {
    type Err = BadTimetable;

    fn from_str(text: &str) -> Result<Self, BadTimetable> {
        let words: Vec<&str> = text.split_whitespace().take(MAX_ENTRIES + 1).collect();
        match words.as_slice() {
            [] => Err(BadTimetable::Empty),
            [rate] if !rate.contains([',', ':']) => Ok(Self::always(rate.parse()?)),
            // A rate with a space in it, which says what to write instead.
            words if is_rate(&words.concat()) => Ok(Self::always(words.join(" ").parse()?)),
            words if words.len() > MAX_ENTRIES => Err(BadTimetable::TooMany),
            words => {
                let entries: Result<_, _> = words.iter().map(|word| Entry::parse(word)).collect();
                Self::of(entries?)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    fn timetable(text: &str) -> Timetable {
        text.parse().unwrap()
    }

    fn at(weekday: u8, hour: u16, minute: u16) -> MinuteOfWeek {
        MinuteOfWeek::new(weekday, hour * 60 + minute).unwrap()
    }

    fn holds(table: &Timetable, weekday: u8, hour: u16, minute: u16) -> String {
        table.at(at(weekday, hour, minute)).to_string()
    }

    #[test]
    fn an_entry_without_a_day_holds_every_day_until_the_next_and_over_midnight() {
        let table = timetable("08:00,20MiB/s 18:00,off");
        for weekday in 0..7 {
            assert_eq!(holds(&table, weekday, 7, 59), "off");
            assert_eq!(holds(&table, weekday, 8, 0), "20MiB/s");
            assert_eq!(holds(&table, weekday, 17, 59), "20MiB/s");
            assert_eq!(holds(&table, weekday, 18, 0), "off");
            assert_eq!(holds(&table, weekday, 0, 0), "off");
        }
        assert_eq!(table.next_change(at(6, 23, 0)), Some(at(0, 8, 0)));
        assert_eq!(table.next_change(at(2, 8, 0)), Some(at(2, 18, 0)));
        assert_eq!(table.slowest().to_string(), "20MiB/s");
    }

    #[test]
    fn an_entry_with_a_day_holds_around_the_week() {
        let table = timetable("Mon-08:00,20MiB/s Fri-18:00,off");
        assert_eq!(holds(&table, 0, 7, 59), "off");
        assert_eq!(holds(&table, 0, 8, 0), "20MiB/s");
        assert_eq!(holds(&table, 3, 0, 0), "20MiB/s");
        assert_eq!(holds(&table, 4, 18, 0), "off");
        assert_eq!(holds(&table, 6, 23, 59), "off");
        assert_eq!(table.next_change(at(4, 18, 0)), Some(at(0, 8, 0)));
        assert_eq!(table.next_change(at(0, 7, 59)), Some(at(0, 8, 0)));
    }

    #[test]
    fn one_rate_and_one_entry_always_hold_and_never_change() {
        for text in [
            "20MiB/s",
            "12:00,20MiB/s",
            "Wed-12:00,20MiB/s",
            "08:00,20MiB/s 09:00,20MiB/s",
        ] {
            let table = timetable(text);
            for minute in (0..WEEK_MINUTES).step_by(77) {
                let minute = MinuteOfWeek(minute);
                assert_eq!(table.at(minute).to_string(), "20MiB/s", "{text}");
                assert_eq!(table.next_change(minute), None, "{text}");
            }
            assert_eq!(table.to_string(), text);
        }
    }

    #[test]
    fn of_one_day_counts_before_of_every_day_wherever_it_stands() {
        for text in ["08:00,20MiB/s Sat-08:00,off", "Sat-08:00,off 08:00,20MiB/s"] {
            let table = timetable(text);
            assert_eq!(holds(&table, 5, 8, 0), "off");
            assert_eq!(holds(&table, 6, 8, 0), "20MiB/s");
            assert_eq!(table.to_string(), text);
        }
    }

    #[test]
    fn what_is_no_timetable_is_refused_with_what_is_wrong() {
        let refused = |text: &str| text.parse::<Timetable>().unwrap_err().to_string();
        for (text, words) in [
            ("", "empty"),
            ("08:00", "`08:00` is no entry"),
            ("20MiB/s 30MiB/s", "`20MiB/s` is no entry"),
            ("24:00,20MiB/s", "23:59"),
            ("08:60,20MiB/s", "23:59"),
            ("8,20MiB/s", "no entry"),
            ("+8:00,20MiB/s", "no entry"),
            ("008:00,20MiB/s", "no entry"),
            ("Moon-08:00,20MiB/s", "no entry"),
            ("08:00,20", "has no unit"),
            ("20 MiB/s", "`20 MiB/s` is no rate: write 20MiB/s"),
            ("08:00,1KiB/s", "at least 64KiB/s"),
            ("08:00,20MiB/s 8:00,off", "two entries begin at 08:00"),
            (
                "mon-08:00,20MiB/s Mon-08:00,off",
                "two entries begin at Mon-08:00",
            ),
        ] {
            let said = refused(text);
            assert!(said.contains(words), "{text}: {said}");
        }
        let many = |count: usize| {
            let entry = |at: usize| format!("{:02}:{:02},20MiB/s ", at / 60, at % 60);
            (0..count).map(entry).collect::<String>()
        };
        assert!(many(MAX_ENTRIES).parse::<Timetable>().is_ok());
        assert_eq!(
            many(MAX_ENTRIES + 1).parse::<Timetable>(),
            Err(BadTimetable::TooMany)
        );
    }

    proptest! {
        #[test]
        fn a_timetable_survives_its_text_and_says_truly_when_it_changes(
            entries in proptest::collection::vec((proptest::option::of(0_u8..7), 0_u16..1440, 0_u64..3), 1..8),
            from in 0..WEEK_MINUTES,
        ) {
            let words: Vec<String> = entries.iter().map(|(weekday, minute_of_day, rate)| {
                let rate = match rate {
                    0 => Rate::OFF,
                    mib => format!("{mib}MiB/s").parse().unwrap(),
                };
                let entry = Entry { weekday: *weekday, minute_of_day: *minute_of_day, rate };
                format!("{},{rate}", entry.time())
            }).collect();
            let Ok(table) = words.join(" ").parse::<Timetable>() else { return Ok(()) };
            prop_assert_eq!(&table.to_string().parse::<Timetable>().unwrap(), &table);
            // Minute by minute, as a clock goes.
            let minutes = (from..WEEK_MINUTES).chain(0..from).map(MinuteOfWeek);
            let now = table.at(MinuteOfWeek(from));
            let first = minutes.clone().find(|minute| table.at(*minute) != now);
            prop_assert_eq!(table.next_change(MinuteOfWeek(from)), first);
            let mut slowest = Rate::OFF;
            minutes.for_each(|minute| slowest = slowest.slower(table.at(minute)));
            prop_assert_eq!(table.slowest(), slowest);
        }
    }
}
