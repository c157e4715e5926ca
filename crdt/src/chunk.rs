//! A first look at the bytes of a change, before automerge sees them.
//!
//! A change is a few runs of run-length-encoded columns: ten bytes can claim 2^60
//! operations, and automerge's parser would walk through all of them. Here every
//! run, counter and actor index is bounded, and only the columns that a change of
//! maps needs are let through. Whether the operations make sense is `admission`'s
//! question.
//!
//! Format: <https://automerge.org/automerge-binary-format-spec/>, change chunks.

/// Most operations of one change.
pub(crate) const MAX_OPS: u64 = 4096;
/// Most predecessors that the operations of one change name together.
pub(crate) const MAX_PREDS: u64 = 8192;
/// Most changes that one change may depend on: each operator has one head.
pub(crate) const MAX_DEPS: u64 = 256;
/// Most other authors that one change may refer to.
pub(crate) const MAX_ACTORS: u64 = 256;
/// Longest message, in bytes: a round in decimal digits.
pub(crate) const MAX_MESSAGE: u64 = 10;
/// Longest key of a map, in bytes.
pub(crate) const MAX_KEY: u64 = 256;

const MAGIC: [u8; 4] = [0x85, 0x6f, 0x4a, 0x83];
const CHANGE: u8 = 1;

/// Checks the layout; the error names what is wrong.
pub(crate) fn survey(raw: &[u8]) -> Result<(), &'static str> {
    let mut chunk = Cursor(raw);
    if chunk.take(4)? != MAGIC {
        return Err("magic bytes");
    }
    chunk.take(4)?;
    if chunk.take(1)? != [CHANGE] {
        return Err("chunk type");
    }
    if chunk.unsigned()? != chunk.0.len() as u64 {
        return Err("chunk length");
    }
    let deps = chunk.count(MAX_DEPS, "number of dependencies")?;
    chunk.take(deps * 32)?;
    chunk.actor()?;
    chunk.counter()?;
    chunk.counter()?;
    chunk.signed()?;
    let message = chunk.count(MAX_MESSAGE, "message")?;
    chunk.take(message)?;
    let others = chunk.count(MAX_ACTORS, "number of authors")?;
    for _ in 0..others {
        chunk.actor()?;
    }
    survey_columns(chunk, others as u64)
}

fn survey_columns(mut chunk: Cursor<'_>, others: u64) -> Result<(), &'static str> {
    let mut columns = Vec::new();
    for _ in 0..chunk.count(32, "number of columns")? {
        let spec = chunk.unsigned()?;
        let bytes = chunk.unsigned()?;
        if columns.last().is_some_and(|(last, _)| *last >= spec) {
            return Err("order of columns");
        }
        columns.push((spec, bytes));
    }
    let mut value_bytes = (0, 0);
    for (spec, bytes) in columns {
        let bytes = usize::try_from(bytes).map_err(|_| "column length")?;
        let data = chunk.take(bytes)?;
        match spec {
            0x01 => survey_indexes(data, MAX_OPS, others)?,
            0x02 => survey_counters(data)?,
            0x15 => survey_keys(data)?,
            0x34 => survey_flags(data)?,
            0x42 => survey_indexes(data, MAX_OPS, 6)?,
            0x56 => value_bytes.0 = survey_value_lengths(data)?,
            0x57 => value_bytes.1 = data.len() as u64,
            0x70 => survey_groups(data)?,
            0x71 => survey_indexes(data, MAX_PREDS, others)?,
            0x73 => survey_deltas(data)?,
            _ if data.is_empty() => {}
            _ => return Err("columns of lists and marks"),
        }
    }
    if value_bytes.0 != value_bytes.1 {
        return Err("length of values");
    }
    if chunk.0.is_empty() {
        Ok(())
    } else {
        Err("bytes after the columns")
    }
}

/// One run of a run-length-encoded column.
enum Run {
    /// So many absent values.
    Nulls(u64),
    /// The next value, so many times.
    Repeated(u64),
    /// So many values, each in full.
    Literal(u64),
}

/// Walks the runs of a column, which may hold `limit` items; `value` reads one
/// value that stands `times` times.
fn survey_runs(
    data: &[u8],
    limit: u64,
    mut value: impl FnMut(&mut Cursor<'_>, u64) -> Result<(), &'static str>,
) -> Result<(), &'static str> {
    let mut column = Cursor(data);
    let mut items: u64 = 0;
    while !column.0.is_empty() {
        let run = match column.signed()? {
            0 => Run::Nulls(column.unsigned()?),
            count if count > 0 => Run::Repeated(count.unsigned_abs()),
            count => Run::Literal(count.unsigned_abs()),
        };
        let (Run::Nulls(count) | Run::Repeated(count) | Run::Literal(count)) = run;
        items = items.saturating_add(count);
        if items > limit {
            return Err("number of items in a column");
        }
        match run {
            Run::Nulls(_) => {}
            Run::Repeated(count) => value(&mut column, count)?,
            Run::Literal(count) => {
                for _ in 0..count {
                    value(&mut column, 1)?;
                }
            }
        }
    }
    Ok(())
}

fn survey_indexes(data: &[u8], limit: u64, largest: u64) -> Result<(), &'static str> {
    survey_runs(data, limit, |column, _| {
        if column.unsigned()? > largest {
            return Err("index of an author or action");
        }
        Ok(())
    })
}

fn survey_counters(data: &[u8]) -> Result<(), &'static str> {
    survey_runs(data, MAX_OPS, |column, _| column.counter())
}

fn survey_keys(data: &[u8]) -> Result<(), &'static str> {
    survey_runs(data, MAX_OPS, |column, _| {
        let bytes = column.count(MAX_KEY, "length of a key")?;
        column.take(bytes).map(|_| ())
    })
}

/// Booleans are runs of alternating value, false first.
fn survey_flags(data: &[u8]) -> Result<(), &'static str> {
    let mut column = Cursor(data);
    let mut items: u64 = 0;
    while !column.0.is_empty() {
        items = items.saturating_add(column.unsigned()?);
    }
    if items > MAX_OPS {
        return Err("number of items in a column");
    }
    Ok(())
}

/// The sum of the lengths in a column of value types and lengths.
fn survey_value_lengths(data: &[u8]) -> Result<u64, &'static str> {
    let mut sum: u64 = 0;
    survey_runs(data, MAX_OPS, |column, times| {
        let bytes = column.unsigned()? >> 4;
        sum = sum.saturating_add(bytes.saturating_mul(times));
        Ok(())
    })?;
    Ok(sum)
}

fn survey_groups(data: &[u8]) -> Result<(), &'static str> {
    let mut sum: u64 = 0;
    survey_runs(data, MAX_OPS, |column, times| {
        let items = column.unsigned()?;
        sum = sum.saturating_add(items.saturating_mul(times));
        Ok(())
    })?;
    if sum > MAX_PREDS {
        return Err("number of predecessors");
    }
    Ok(())
}

/// Counters stored as differences: each must stay a counter.
fn survey_deltas(data: &[u8]) -> Result<(), &'static str> {
    let mut at: i64 = 0;
    survey_runs(data, MAX_PREDS, |column, times| {
        let delta = column.signed()?;
        for _ in 0..times {
            at = at.checked_add(delta).ok_or("a counter")?;
            if !(0..=i64::from(u32::MAX)).contains(&at) {
                return Err("a counter");
            }
        }
        Ok(())
    })
}

struct Cursor<'a>(&'a [u8]);

impl<'a> Cursor<'a> {
    fn take(&mut self, bytes: usize) -> Result<&'a [u8], &'static str> {
        let (taken, rest) = self.0.split_at_checked(bytes).ok_or("too short")?;
        self.0 = rest;
        Ok(taken)
    }

    fn count(&mut self, limit: u64, what: &'static str) -> Result<usize, &'static str> {
        let count = self.unsigned()?;
        if count > limit {
            return Err(what);
        }
        usize::try_from(count).map_err(|_| what)
    }

    fn actor(&mut self) -> Result<(), &'static str> {
        if self.unsigned()? != 32 {
            return Err("length of an author");
        }
        self.take(32).map(|_| ())
    }

    /// Automerge keeps counters in 32 bits.
    fn counter(&mut self) -> Result<(), &'static str> {
        if self.unsigned()? > u64::from(u32::MAX) {
            return Err("a counter");
        }
        Ok(())
    }

    /// An unsigned LEB128 number in its shortest form, so that no two readers differ.
    fn unsigned(&mut self) -> Result<u64, &'static str> {
        let (value, bytes) = self.leb128()?;
        if bytes > 1 && value >> (7 * (bytes - 1)) == 0 {
            return Err("padded number");
        }
        u64::try_from(value).map_err(|_| "number out of range")
    }

    /// A signed LEB128 number in its shortest form.
    fn signed(&mut self) -> Result<i64, &'static str> {
        let (value, bytes) = self.leb128()?;
        let bits = 7 * bytes;
        let value = ((value << (128 - bits)) as i128) >> (128 - bits);
        if bytes > 1 {
            let shorter = bits - 7;
            if ((value << (128 - shorter)) >> (128 - shorter)) == value {
                return Err("padded number");
            }
        }
        i64::try_from(value).map_err(|_| "number out of range")
    }

    fn leb128(&mut self) -> Result<(u128, u32), &'static str> {
        let mut value: u128 = 0;
        for at in 0..10 {
            let byte = self.take(1)?[0];
            value |= u128::from(byte & 0x7f) << (7 * at);
            if byte & 0x80 == 0 {
                return Ok((value, at + 1));
            }
        }
        Err("number out of range")
    }
}

#[cfg(test)]
mod tests;
