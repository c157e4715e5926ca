//! Just enough of Rust's lexical structure to search code without being fooled
//! by comments and literals, and to tell tests from the rest. Not a parser: it
//! trusts the compiler to refuse what is not Rust.

use std::collections::BTreeSet;
use std::ops::Range;

/// A source file whose comments and literals are blanked, line by line in place.
#[derive(Debug)]
pub struct Source {
    code: String,
    tests: Vec<Range<usize>>,
}

impl Source {
    /// Blanks `text` and finds the items under `#[cfg(test)]` and `#[test]`.
    pub fn new(text: &str) -> Self {
        let code = blank(text);
        let tests = test_items(&code);
        Self { code, tests }
    }

    /// The line, counted from 1, of an offset in `code`.
    pub fn line(&self, offset: usize) -> usize {
        1 + self.code[..offset].matches('\n').count()
    }

    /// Whether an offset in `code` lies in an item that only tests compile.
    pub fn in_test(&self, offset: usize) -> bool {
        self.tests.iter().any(|range| range.contains(&offset))
    }

    /// Where `word` stands as an identifier of its own.
    pub fn words<'a>(&'a self, word: &'a str) -> impl Iterator<Item = usize> + 'a {
        self.code.match_indices(word).filter_map(|(at, _)| {
            let before = self.code[..at].chars().next_back();
            let after = self.code[at + word.len()..].chars().next();
            let part = |c: Option<char>| c.is_some_and(is_word);
            (!part(before) && !part(after)).then_some(at)
        })
    }

    /// The code after `offset`, without leading space.
    pub fn after(&self, offset: usize) -> &str {
        self.code[offset..].trim_start()
    }

    /// The code before `offset`, without trailing space.
    pub fn before(&self, offset: usize) -> &str {
        self.code[..offset].trim_end()
    }

    /// The attributes, each from its `#` to its closing bracket.
    pub fn attributes(&self) -> impl Iterator<Item = (usize, &str)> {
        self.code.match_indices('#').filter_map(|(at, _)| {
            let rest = &self.code[at + 1..];
            let open = rest.find(|c: char| !c.is_whitespace() && c != '!')?;
            let end = closing(rest, open)?;
            rest[open..]
                .starts_with('[')
                .then(|| (at, &self.code[at..=at + 1 + end]))
        })
    }

    /// The names of the functions that are tests, or serve them.
    pub fn test_functions(&self) -> BTreeSet<&str> {
        self.functions()
            .filter(|(at, _)| self.in_test(*at))
            .map(|(_, name)| name)
            .collect()
    }

    /// Every function that the file defines: where, and its name.
    pub fn functions(&self) -> impl Iterator<Item = (usize, &str)> {
        self.words("fn").filter_map(|at| {
            let rest = self.after(at + 2);
            let end = rest.find(|c: char| !is_word(c)).unwrap_or(rest.len());
            (end > 0).then(|| (at, &rest[..end]))
        })
    }

    /// The modules that only tests compile and that have a file of their own.
    pub fn test_modules(&self) -> impl Iterator<Item = &str> {
        self.tests.iter().filter_map(|range| {
            let item = self.code[range.clone()].trim_end().strip_suffix(';')?;
            let (before, name) = item.trim_end().rsplit_once(char::is_whitespace)?;
            let is_module = before
                .trim_end()
                .strip_suffix("mod")
                .is_some_and(|rest| !rest.ends_with(is_word));
            is_module.then_some(name)
        })
    }
}

fn is_word(c: char) -> bool {
    c == '_' || c.is_alphanumeric()
}

/// Whether `text` names `word` as an identifier of its own.
pub fn names(text: &str, word: &str) -> bool {
    text.split(|c| !is_word(c)).any(|part| part == word)
}

/// The offset of the bracket that closes the one at `open`, both in `code`.
pub fn closing(code: &str, open: usize) -> Option<usize> {
    let mut depth = 0_usize;
    for (at, c) in code[open..].char_indices() {
        match c {
            '(' | '[' | '{' => depth += 1,
            ')' | ']' | '}' => {
                depth = depth.checked_sub(1)?;
                if depth == 0 {
                    return Some(open + at);
                }
            }
            _ if depth == 0 => return None,
            _ => {}
        }
    }
    None
}

/// The ranges of the items that carry `#[test]`, `#[…::test]` or `#[cfg(test)]`.
fn test_items(code: &str) -> Vec<Range<usize>> {
    let mut items = Vec::new();
    let mut from = 0;
    while let Some(at) = code[from..].find("#[").map(|at| from + at) {
        let Some(end) = closing(code, at + 1) else {
            break;
        };
        from = end + 1;
        if marks_test(&code[at + 2..end]) {
            let stop = item_end(code, end + 1);
            items.push(at..stop);
            from = stop;
        }
    }
    items
}

fn marks_test(attribute: &str) -> bool {
    let compact: String = attribute.split_whitespace().collect();
    let path = compact.split('(').next().unwrap_or_default();
    if path == "cfg" {
        return compact == "cfg(test)" || compact.starts_with("cfg(all(test,");
    }
    path == "test" || path.ends_with("::test")
}

/// Where the item that begins at `from` ends: after its `;` or its braces.
fn item_end(code: &str, from: usize) -> usize {
    let mut skip_to = from;
    for (at, c) in code[from..].char_indices() {
        let at = from + at;
        if at < skip_to {
            continue;
        }
        match c {
            ';' => return at + 1,
            '{' => return closing(code, at).map_or(code.len(), |end| end + 1),
            '(' | '[' => skip_to = closing(code, at).unwrap_or(code.len()),
            _ => {}
        }
    }
    code.len()
}

/// Replaces comments and the insides of literals by spaces; lines stay.
fn blank(text: &str) -> String {
    let chars: Vec<char> = text.chars().collect();
    let mut out = String::with_capacity(text.len());
    let mut at = 0;
    while at < chars.len() {
        let end = match chars[at] {
            '/' if chars.get(at + 1) == Some(&'/') => line_end(&chars, at),
            '/' if chars.get(at + 1) == Some(&'*') => comment_end(&chars, at),
            '"' => quoted_end(&chars, at),
            '\'' => character_end(&chars, at),
            c if is_word(c) => {
                let end = word_end(&chars, at);
                out.extend(&chars[at..end]);
                at = end;
                // `r`, `br` and `cr` are the only words a quote or `#"` may follow.
                let raw = chars[end - 1] == 'r';
                raw.then(|| raw_end(&chars, at)).flatten().unwrap_or(at)
            }
            c => {
                out.push(c);
                at += 1;
                at
            }
        };
        out.extend(
            chars[at..end]
                .iter()
                .map(|&c| if c == '\n' { '\n' } else { ' ' }),
        );
        at = end;
    }
    out
}

fn line_end(chars: &[char], at: usize) -> usize {
    position(chars, at, |c| c == '\n').unwrap_or(chars.len())
}

fn word_end(chars: &[char], at: usize) -> usize {
    position(chars, at, |c| !is_word(c)).unwrap_or(chars.len())
}

fn position(chars: &[char], from: usize, found: impl Fn(char) -> bool) -> Option<usize> {
    (from..chars.len()).find(|&at| found(chars[at]))
}

/// Block comments nest.
fn comment_end(chars: &[char], start: usize) -> usize {
    let mut depth = 0_usize;
    let mut at = start;
    while at < chars.len() {
        match (chars[at], chars.get(at + 1)) {
            ('/', Some('*')) => {
                depth += 1;
                at += 2;
            }
            ('*', Some('/')) => {
                depth -= 1;
                at += 2;
                if depth == 0 {
                    return at;
                }
            }
            _ => at += 1,
        }
    }
    chars.len()
}

fn quoted_end(chars: &[char], start: usize) -> usize {
    let mut at = start + 1;
    while at < chars.len() {
        match chars[at] {
            '\\' => at += 2,
            '"' => return at + 1,
            _ => at += 1,
        }
    }
    chars.len()
}

/// The end of a character literal, or just past the quote of a lifetime.
fn character_end(chars: &[char], start: usize) -> usize {
    match chars.get(start + 1) {
        Some('\\') => position(chars, start + 3, |c| c == '\'').map_or(chars.len(), |end| end + 1),
        Some(_) if chars.get(start + 2) == Some(&'\'') => start + 3,
        _ => start + 1,
    }
}

/// The end of the raw string whose hashes or quote stand at `at`, if one does.
fn raw_end(chars: &[char], at: usize) -> Option<usize> {
    let quote = position(chars, at, |c| c != '#')?;
    let hashes = quote - at;
    if chars[quote] != '"' {
        return None;
    }
    let mut from = quote + 1;
    while let Some(end) = position(chars, from, |c| c == '"') {
        let after = &chars[end + 1..];
        if after.len() >= hashes && after[..hashes].iter().all(|&c| c == '#') {
            return Some(end + 1 + hashes);
        }
        from = end + 1;
    }
    Some(chars.len())
}

#[cfg(test)]
mod tests;
