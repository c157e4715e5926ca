//! What a limit says at one moment: the hours of its timetable in its time zone.
//!
//! Zones come from the machine's database, and from the one in this program where the
//! machine has none. Not here: timetables themselves (`crdt::limit`), and what follows for
//! who sends (`engine`).

use crdt::{Limit, MinuteOfWeek, Rate, Timetable};
use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use keys::UnixSecs;

/// The zone where nothing else is known.
pub const UTC: &str = "UTC";
const MINUTE_SECS: i64 = 60;
/// In a week every rate of a timetable comes to hold, and one of an hour that a clock skips
/// in the next. How often a clock is put forward or back meanwhile, with plenty to spare.
const MOST_SHIFTS: usize = 16;

/// A text that is the name of no time zone.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is no time zone that is known here: give a name of the IANA database, e.g. Europe/Berlin or UTC"
)]
pub struct UnknownZone(String);

/// What a limit says at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Holding {
    /// The rate.
    pub rate: Rate,
    /// Until another one holds; none where it always does, and where that is not known.
    pub until: Option<UnixSecs>,
    /// Whether the zone is known here. Where it is not, the slowest rate holds all the time.
    pub zone_is_known: bool,
}

/// The name of a zone as the database spells it.
pub fn zone_named(text: &str) -> Result<String, UnknownZone> {
    let unknown = || UnknownZone(text.chars().take(80).collect());
    let zone = known(text).ok_or_else(unknown)?;
    Ok(zone.iana_name().ok_or_else(unknown)?.to_owned())
}

/// The zone of this machine, or UTC where it has none with a name.
pub fn zone_here() -> String {
    let here = TimeZone::system();
    let named = here.iana_name().map(zone_named);
    named.and_then(Result::ok).unwrap_or_else(|| UTC.to_owned())
}

/// Whether there are clocks here of a zone of this name.
pub fn is_known(zone: &str) -> bool {
    known(zone).is_some()
}

/// The rate that a limit says now.
pub fn rate_at(limit: &Limit, now: UnixSecs) -> Rate {
    match known(&limit.zone) {
        Some(zone) => limit.timetable.at(minute(&zone, now)),
        None => limit.timetable.slowest(),
    }
}

/// The same, and until when.
pub fn holding(limit: &Limit, now: UnixSecs) -> Holding {
    let rate = rate_at(limit, now);
    let zone = known(&limit.zone);
    let until = zone
        .as_ref()
        .and_then(|zone| next_change(&limit.timetable, zone, now));
    Holding {
        rate,
        until,
        zone_is_known: zone.is_some(),
    }
}

/// When another rate begins than holds now. Between two shifts a clock only goes on, so
/// that it is the timetable that says so; a shift may bring another rate by itself.
fn next_change(timetable: &Timetable, zone: &TimeZone, now: UnixSecs) -> Option<UnixSecs> {
    let rate = timetable.at(minute(zone, now));
    let shifts = zone.following(timestamp(now)).take(MOST_SHIFTS);
    let mut shifts = shifts.map(|shift| shift.timestamp());
    let mut from = timestamp(now);
    loop {
        let clock = zone.to_datetime(from);
        let shown = minute_of(&clock);
        if timetable.at(shown) != rate {
            return Some(UnixSecs(from.as_second().unsigned_abs()));
        }
        let minutes = i64::from(shown.until(timetable.next_change(shown)?));
        let secs = minutes * MINUTE_SECS - i64::from(clock.second());
        let change = Timestamp::from_second(from.as_second() + secs).ok()?;
        match shifts.next() {
            Some(shift) if shift <= change => from = shift,
            _ => return Some(UnixSecs(change.as_second().unsigned_abs())),
        }
    }
}

/// A moment as the clocks of a zone show it: `Fri 2026-11-27 18:00`.
pub fn shown(at: UnixSecs, zone: &str) -> String {
    let zone = known(zone).unwrap_or(TimeZone::UTC);
    zone.to_datetime(timestamp(at))
        .strftime("%a %Y-%m-%d %H:%M")
        .to_string()
}

fn known(name: &str) -> Option<TimeZone> {
    // It stands for a zone that could not be found out.
    let zone = TimeZone::get(name).ok();
    zone.filter(|zone| !zone.is_unknown())
}

fn minute(zone: &TimeZone, at: UnixSecs) -> MinuteOfWeek {
    minute_of(&zone.to_datetime(timestamp(at)))
}

fn minute_of(clock: &DateTime) -> MinuteOfWeek {
    let weekday = clock.weekday().to_monday_zero_offset();
    let minute = i16::from(clock.hour()) * 60 + i16::from(clock.minute());
    MinuteOfWeek::new(weekday.unsigned_abs(), minute.unsigned_abs())
        .expect("a clock shows hours of a day of the week")
}

/// Times beyond those that a calendar has are taken as the last of them.
fn timestamp(at: UnixSecs) -> Timestamp {
    let secs = i64::try_from(at.0).unwrap_or(i64::MAX);
    Timestamp::from_second(secs).unwrap_or(Timestamp::MAX)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    fn limit(text: &str) -> Limit {
        text.parse().unwrap()
    }

    fn at(text: &str) -> UnixSecs {
        let time: Timestamp = text.parse().unwrap();
        UnixSecs(time.as_second().unsigned_abs())
    }

    /// The rate that holds, and until when as clocks there show it.
    fn told(limit: &Limit, now: &str) -> (String, Option<String>) {
        let holding = holding(limit, at(now));
        let until = holding.until.map(|until| shown(until, &limit.zone));
        (holding.rate.to_string(), until)
    }

    #[test]
    fn hours_are_those_of_the_zone() {
        let text = "Mon-08:00,20MiB/s Fri-18:00,off";
        let berlin = limit(&format!("{text} zone=Europe/Berlin"));
        let tokyo = limit(&format!("{text} zone=Asia/Tokyo"));
        // A Monday.
        let now = "2026-11-23T06:59:00Z";
        let until = |text: &str| Some(text.to_owned());
        assert_eq!(
            told(&berlin, now),
            ("off".into(), until("Mon 2026-11-23 08:00"))
        );
        assert_eq!(
            told(&tokyo, now),
            ("20MiB/s".into(), until("Fri 2026-11-27 18:00"))
        );
        let now = "2026-11-23T07:00:00Z";
        assert_eq!(
            told(&berlin, now),
            ("20MiB/s".into(), until("Fri 2026-11-27 18:00"))
        );
        let always = limit("20MiB/s zone=Europe/Berlin");
        assert_eq!(told(&always, now), ("20MiB/s".into(), None));
    }

    #[test]
    fn a_clock_that_is_put_forward_or_back_changes_the_rate_when_it_shows_the_hour() {
        // At 01:00 UTC the clocks of Berlin go from 02:00 to 03:00: there is no 02:30.
        let spring = limit("02:30,1MiB/s 12:00,off zone=Europe/Berlin");
        let (rate, until) = told(&spring, "2026-03-29T00:59:59Z");
        assert_eq!(
            (&*rate, until.as_deref()),
            ("off", Some("Sun 2026-03-29 03:00"))
        );
        assert_eq!(told(&spring, "2026-03-29T01:00:00Z").0, "1MiB/s");
        // And back from 03:00 to 02:00: 02:30 comes twice, and what ends at it with it.
        let autumn = limit("02:15,1MiB/s 02:30,off zone=Europe/Berlin");
        for (now, rate) in [
            ("2026-10-25T00:20:00Z", "1MiB/s"),
            ("2026-10-25T00:40:00Z", "off"),
            ("2026-10-25T01:20:00Z", "1MiB/s"),
            ("2026-10-25T01:40:00Z", "off"),
        ] {
            assert_eq!(told(&autumn, now).0, rate, "{now}");
        }
        let until = holding(&autumn, at("2026-10-25T00:40:30Z")).until;
        assert_eq!(until, Some(at("2026-10-25T01:15:00Z")));
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(64) })]

        #[test]
        fn the_next_change_is_the_first_minute_at_which_clocks_show_another_rate(
            zone in prop::sample::select(vec![
                "UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe",
                "Africa/Casablanca", "Asia/Kathmandu", "Pacific/Apia",
            ]),
            entries in prop::collection::btree_map(
                (prop::sample::select(vec!["", "Sun-", "Wed-"]), 0_u32..1440), 0_u32..3, 1..6,
            ),
            // Before which shift of the clock, and how long.
            shift in 0_usize..40,
            before in prop_oneof![0_u64..691_200, 0_u64..7_200],
        ) {
            let words = entries.iter().map(|((day, at), rate)| {
                let rate = match rate {
                    0 => "off".to_owned(),
                    mib => format!("{mib}MiB/s"),
                };
                format!("{day}{:02}:{:02},{rate} ", at / 60, at % 60)
            });
            let limit = limit(&format!("{}zone={zone}", words.collect::<String>()));
            let zone = known(zone).unwrap();
            // In 2011 Samoa left a day out.
            let from: Timestamp = "2011-01-01T00:00:00Z".parse().unwrap();
            let shift = zone.following(from).nth(shift).map(|shift| shift.timestamp());
            let shift = shift.unwrap_or(from).as_second().unsigned_abs();
            let now = UnixSecs(shift - before);
            let rate = |at: u64| limit.timetable.at(minute(&zone, UnixSecs(at)));
            // A clock that is put back makes a week longer, one that is put forward may skip
            // all of a week's changes.
            let minutes = (1..=15 * 24 * 60).map(|minutes| (now.0 / 60 + minutes) * 60);
            let mut others = minutes.filter(|at| rate(*at) != rate(now.0));
            prop_assert_eq!(holding(&limit, now).until, others.next().map(UnixSecs));
        }
    }

    #[test]
    fn in_a_zone_that_is_not_known_the_slowest_rate_holds() {
        let limit = limit("08:00,20MiB/s 18:00,off zone=Mars/Olympus");
        for now in ["2026-11-23T07:00:00Z", "2026-11-23T23:00:00Z"] {
            let holding = holding(&limit, at(now));
            assert_eq!(holding.rate.to_string(), "20MiB/s");
            assert_eq!((holding.until, holding.zone_is_known), (None, false));
        }
    }

    #[test]
    fn a_zone_has_one_spelling_and_what_is_none_is_refused() {
        assert_eq!(zone_named("europe/berlin").unwrap(), "Europe/Berlin");
        assert_eq!(zone_named("UTC").unwrap(), "UTC");
        for text in ["", "Berlin", "CEST", "Etc/Unknown", "+01:00"] {
            assert!(zone_named(text).is_err(), "{text}");
        }
        assert!(zone_named(&zone_here()).is_ok());
    }
}
