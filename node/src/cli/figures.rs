//! Figures as people read them: sizes, rates, durations, ages, shares, short ids; and
//! RFC 3339 times as seconds since the Unix epoch.
//!
//! Not here: what people type (`value`) and where figures are put (`render`).

/// Hexadecimal digits of an id that are shown: enough to tell a mesh's nodes apart,
/// and any unambiguous prefix is accepted.
const SHORT_ID_DIGITS: usize = 8;

const SECS_PER_DAY: u64 = 86_400;

/// The beginning of an id.
pub fn short_id(id: &str) -> String {
    id.chars().take(SHORT_ID_DIGITS).collect()
}

/// `1.5 GiB`, `512 B`.
pub fn size(bytes: u64) -> String {
    const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    // Rounded to tenths before the unit is chosen, or 1023.99 KiB would read `1024.0 KiB`.
    let mut tenths = u128::from(bytes) * 10;
    let mut unit = 0;
    tenths = (tenths + 512) / 1024;
    while tenths >= 10_240 && unit + 1 < UNITS.len() {
        tenths = (tenths + 512) / 1024;
        unit += 1;
    }
    let unit = UNITS[unit];
    if tenths >= 1_000 {
        format!("{} {unit}", (tenths + 5) / 10)
    } else {
        format!("{}.{} {unit}", tenths / 10, tenths % 10)
    }
}

/// `312 MiB/s`.
pub fn rate(bytes_per_sec: u64) -> String {
    format!("{}/s", size(bytes_per_sec))
}

/// `4 s`, `3 min`, `5 h`, `12 d`: one unit, rounded down.
pub fn span(secs: u64) -> String {
    match secs {
        0..60 => format!("{secs} s"),
        60..3_600 => format!("{} min", secs / 60),
        3_600..172_800 => format!("{} h", secs / 3_600),
        _ => format!("{} d", secs / SECS_PER_DAY),
    }
}

/// `1h30m`, `7d1h`, `0s`: nothing is rounded, and it can be typed again.
pub fn exact(secs: u64) -> String {
    let units = [('d', SECS_PER_DAY), ('h', 3_600), ('m', 60), ('s', 1)];
    let (mut left, mut text) = (secs, String::new());
    for (letter, unit_secs) in units {
        let count = left / unit_secs;
        left %= unit_secs;
        if count > 0 || (letter == 's' && text.is_empty()) {
            text.push_str(&count.to_string());
            text.push(letter);
        }
    }
    text
}

/// `0.4 s`, `12 s`, `2 min 05 s`, `1 h 03 min`.
pub fn took(millis: u64) -> String {
    let secs = millis / 1_000;
    match secs {
        0..10 => format!("{secs}.{} s", millis % 1_000 / 100),
        10..60 => format!("{secs} s"),
        60..3_600 => format!("{} min {:02} s", secs / 60, secs % 60),
        _ => format!("{} h {:02} min", secs / 3_600, secs % 3_600 / 60),
    }
}

/// How long it takes for the rest, as `12 s` or `4 min`; none without a rate.
pub fn eta(left_bytes: u64, bytes_per_sec: u64) -> Option<String> {
    (bytes_per_sec > 0).then(|| span(left_bytes.div_ceil(bytes_per_sec)))
}

/// `3 min ago` or `in 23 h`; the time itself where it cannot be read.
pub fn age(at: &str, now_secs: u64) -> String {
    match parse_rfc3339(at) {
        None => at.to_owned(),
        Some(secs) if secs > now_secs => format!("in {}", span(secs - now_secs)),
        Some(secs) => format!("{} ago", span(now_secs - secs)),
    }
}

/// A share in percent, rounded down, so that 100 means all of it.
pub fn percent(done: u64, total: u64) -> u8 {
    if total == 0 {
        return 100;
    }
    let share = u128::from(done.min(total)) * 100 / u128::from(total);
    u8::try_from(share).expect("a share of at most the whole is at most 100")
}

/// `[######....]  60 %`, with as many cells as asked for.
pub fn bar(percent: u8, cells: usize) -> String {
    let percent = percent.min(100);
    let full = cells * usize::from(percent) / 100;
    format!(
        "[{}{}] {percent:>3} %",
        "#".repeat(full),
        ".".repeat(cells - full)
    )
}

/// Seconds since the Unix epoch, fractions dropped; none for anything that is not a
/// time of RFC 3339 from 1970 on. A leap second counts as the second before it.
pub fn parse_rfc3339(text: &str) -> Option<u64> {
    let text = text.as_bytes();
    let (date, rest) = text.split_at_checked(19)?;
    let shape_holds = date[4] == b'-'
        && date[7] == b'-'
        && matches!(date[10], b'T' | b't' | b' ')
        && date[13] == b':'
        && date[16] == b':';
    if !shape_holds {
        return None;
    }
    let year = number(&date[0..4])?;
    let month = number(&date[5..7])?;
    let day = number(&date[8..10])?;
    let hour = number(&date[11..13])?;
    let minute = number(&date[14..16])?;
    let second = number(&date[17..19])?;
    let day_exists = (1..=12).contains(&month) && (1..=days_in_month(year, month)).contains(&day);
    if year < 1970 || !day_exists || hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    let offset_secs = offset(skip_fraction(rest)?)?;
    let local = days_since_epoch(year, month, day) * SECS_PER_DAY
        + hour * 3_600
        + minute * 60
        + second.min(59);
    local.checked_add_signed(-offset_secs)
}

fn number(digits: &[u8]) -> Option<u64> {
    digits.iter().try_fold(0, |sum, digit| {
        digit
            .is_ascii_digit()
            .then(|| sum * 10 + u64::from(digit - b'0'))
    })
}

fn skip_fraction(rest: &[u8]) -> Option<&[u8]> {
    let Some(fraction) = rest.strip_prefix(b".") else {
        return Some(rest);
    };
    let digits = fraction.iter().take_while(|b| b.is_ascii_digit()).count();
    (digits > 0).then(|| &fraction[digits..])
}

fn offset(zone: &[u8]) -> Option<i64> {
    let (sign, clock) = match zone {
        b"Z" | b"z" => return Some(0),
        [b'+', clock @ ..] => (1, clock),
        [b'-', clock @ ..] => (-1, clock),
        _ => return None,
    };
    let [h1, h2, b':', m1, m2] = clock else {
        return None;
    };
    let hours = number(&[*h1, *h2])?;
    let minutes = number(&[*m1, *m2])?;
    if hours > 23 || minutes > 59 {
        return None;
    }
    let secs = i64::try_from(hours * 3_600 + minutes * 60).ok()?;
    Some(sign * secs)
}

fn is_leap(year: u64) -> bool {
    year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400))
}

fn days_in_month(year: u64, month: u64) -> u64 {
    match month {
        2 if is_leap(year) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Days from 1970-01-01, of the proleptic Gregorian calendar; years from 1970 on.
fn days_since_epoch(year: u64, month: u64, day: u64) -> u64 {
    let before = year - 1;
    let leaps = before / 4 - before / 100 + before / 400;
    // 719_162 days lie between 0001-01-01 and 1970-01-01.
    let months: u64 = (1..month).map(|month| days_in_month(year, month)).sum();
    before * 365 + leaps + months + day - 1 - 719_162
}
