//! Hooks of a migration: which script of a host is to be run at which point of it.
//!
//! A hook names a script that the host's owner put there, and never holds one. All hooks of
//! a migration are one value, since their order is one decision. Not here: finding and
//! running scripts.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// Most hooks of one migration.
pub const MAX_HOOKS: usize = 32;
/// Most variables of one hook.
pub const MAX_HOOK_ENV: usize = 16;
/// Longest name of a script, in bytes.
pub const MAX_HOOK_NAME: usize = 64;
/// Longest name of a variable, in bytes.
pub const MAX_VARIABLE: usize = 64;
/// Longest value of a variable, in bytes.
pub const MAX_VALUE: usize = 256;
/// Longest time a script may take.
pub const MAX_HOOK_SECS: u32 = 3600;
/// The time a script may take unless it is said.
pub const DEFAULT_HOOK_SECS: u32 = 60;
/// Longest text of all hooks of a migration, in bytes.
pub const MAX_HOOKS_TEXT: usize = 16 * 1024;
/// How every variable of a hook begins. No shell, interpreter or loader takes orders from
/// variables of that name, as they do from `BASH_ENV` or `LD_PRELOAD`.
pub const VARIABLE_PREFIX: &str = "HOOK_";

/// What is written where there is no hook any more.
const NONE: &str = "none";
/// What stands between two hooks.
const BETWEEN: &str = ";";

/// When in a migration.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Point {
    /// Before the first block moves.
    BeforeReplication,
    /// Before the source's file systems are frozen for the cutover.
    BeforeFreeze,
    /// While they are frozen.
    AfterFreeze,
    /// Once they are let go.
    AfterThaw,
    /// Once every disk is cut over.
    AfterCutover,
    /// Before what a deleted migration left is removed.
    BeforeCleanup,
}

/// On which node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Side {
    /// The agent whose disks move.
    Source,
    /// The node that makes the volumes.
    Provisioner,
    /// The operator's node that planned the migration.
    Operator,
}

/// What a failure means for what follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum OnFailure {
    /// Nothing follows until the hook succeeds.
    Stop,
    /// It is told, and all goes on.
    Continue,
}

/// A script of a host, by name, at a point of a migration.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hook {
    /// When.
    pub point: Point,
    /// On which node.
    pub on: Side,
    /// Name of the file in that host's folder of hooks: `[a-z0-9][a-z0-9._-]*`.
    pub name: String,
    /// After this long it is stopped, and has failed; 1 to [`MAX_HOOK_SECS`].
    pub timeout_secs: u32,
    /// What a failure means.
    pub on_failure: OnFailure,
    /// Variables for it, each beginning with [`VARIABLE_PREFIX`]. They are in the plan, which
    /// every node holds: no place for secrets.
    pub env: Vec<(String, String)>,
}

/// Why something is no hook.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadHook {
    /// No such point.
    #[error("`{0}` is not a point at which hooks run: choose from {points}", points = all(&Point::ALL))]
    Point(String),
    /// No such side.
    #[error("`{0}` is not where hooks run: choose `source`, `provisioner` or `operator`")]
    Side(String),
    /// Nothing happens at that point on that side.
    #[error("hooks at {point} run on {sides}, not on the {on}", sides = all(point.sides()))]
    NotThere {
        /// The point.
        point: Point,
        /// The side.
        on: Side,
    },
    /// Neither of the two.
    #[error("`{0}` is not what a failure can mean: choose `stop` or `continue`")]
    OnFailure(String),
    /// Not a file name that a script may have.
    #[error(
        "`{0}` is not a name of a script: use 1 to {MAX_HOOK_NAME} of a-z, 0-9, `.`, `_` and `-`, beginning with a letter or digit, and no folder"
    )]
    Name(String),
    /// Too short or too long.
    #[error("the timeout of a hook is 1 to {MAX_HOOK_SECS} seconds, e.g. `60s`, not `{0}`")]
    Timeout(String),
    /// Not a variable that a hook may be given.
    #[error(
        "`{0}` is not a variable for a hook: use HOOK_NAME=VALUE, of A-Z, 0-9 and `_`, with a value of at most {MAX_VALUE} bytes without control characters"
    )]
    Variable(String),
    /// Too many variables, or one of them twice.
    #[error("hook {0} has more than {MAX_HOOK_ENV} variables, or one of them twice")]
    Variables(String),
    /// Too many hooks.
    #[error("a migration has at most {MAX_HOOKS} hooks, of {MAX_HOOKS_TEXT} bytes in all")]
    TooMany,
    /// A word is missing.
    #[error("it does not say point, node, script, timeout and what a failure means")]
    Incomplete,
}

fn all<T: fmt::Display>(items: &[T]) -> String {
    let names: Vec<String> = items.iter().map(ToString::to_string).collect();
    names.join(", ")
}

fn shown(text: &str) -> String {
    text.chars().take(80).collect()
}

impl Point {
    /// All of them, in the order in which they come.
    pub const ALL: [Self; 6] = [
        Self::BeforeReplication,
        Self::BeforeFreeze,
        Self::AfterFreeze,
        Self::AfterThaw,
        Self::AfterCutover,
        Self::BeforeCleanup,
    ];

    /// Where its hooks can run.
    pub fn sides(self) -> &'static [Side] {
        match self {
            Self::BeforeReplication | Self::BeforeFreeze | Self::AfterFreeze | Self::AfterThaw => {
                &[Side::Source]
            }
            Self::AfterCutover => &[Side::Source, Side::Provisioner, Side::Operator],
            Self::BeforeCleanup => &[Side::Source, Side::Provisioner],
        }
    }

    /// What a failure means unless it is said: what comes before something stops it.
    pub fn on_failure(self) -> OnFailure {
        match self {
            Self::BeforeReplication
            | Self::BeforeFreeze
            | Self::AfterFreeze
            | Self::BeforeCleanup => OnFailure::Stop,
            Self::AfterThaw | Self::AfterCutover => OnFailure::Continue,
        }
    }
}

impl fmt::Display for Point {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::BeforeReplication => "before-replication",
            Self::BeforeFreeze => "before-freeze",
            Self::AfterFreeze => "after-freeze",
            Self::AfterThaw => "after-thaw",
            Self::AfterCutover => "after-cutover",
            Self::BeforeCleanup => "before-cleanup",
        })
    }
}

impl FromStr for Point {
    type Err = BadHook;

    fn from_str(text: &str) -> Result<Self, BadHook> {
        let mut points = Self::ALL.into_iter();
        let found = points.find(|point| point.to_string() == text);
        found.ok_or_else(|| BadHook::Point(shown(text)))
    }
}

impl fmt::Display for Side {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Source => "source",
            Self::Provisioner => "provisioner",
            Self::Operator => "operator",
        })
    }
}

impl FromStr for Side {
    type Err = BadHook;

    fn from_str(text: &str) -> Result<Self, BadHook> {
        match text {
            "source" => Ok(Self::Source),
            "provisioner" => Ok(Self::Provisioner),
            "operator" => Ok(Self::Operator),
            _ => Err(BadHook::Side(shown(text))),
        }
    }
}

impl fmt::Display for OnFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Stop => "stop",
            Self::Continue => "continue",
        })
    }
}

impl FromStr for OnFailure {
    type Err = BadHook;

    fn from_str(text: &str) -> Result<Self, BadHook> {
        match text {
            "stop" => Ok(Self::Stop),
            "continue" => Ok(Self::Continue),
            _ => Err(BadHook::OnFailure(shown(text))),
        }
    }
}

/// Whether a file in a folder of hooks may have this name.
pub fn is_hook_name(name: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    (1..=MAX_HOOK_NAME).contains(&name.len())
        && name.bytes().next().is_some_and(plain)
        && name
            .bytes()
            .all(|byte| plain(byte) || b"._-".contains(&byte))
}

fn is_variable(name: &str, value: &str) -> bool {
    let fits = |byte: u8| byte.is_ascii_uppercase() || byte.is_ascii_digit() || byte == b'_';
    let of_a_hook = name.strip_prefix(VARIABLE_PREFIX);
    of_a_hook.is_some_and(|rest| !rest.is_empty())
        && name.len() <= MAX_VARIABLE
        && name.bytes().all(fits)
        && value.len() <= MAX_VALUE
        && !value.chars().any(char::is_control)
}

/// Reads one variable, as people write it.
pub fn parse_variable(text: &str) -> Result<(String, String), BadHook> {
    let bad = || BadHook::Variable(shown(text));
    let (name, value) = text.split_once('=').ok_or_else(bad)?;
    match is_variable(name, value) {
        true => Ok((name.to_owned(), value.to_owned())),
        false => Err(bad()),
    }
}

/// Reads a timeout, as people write it: seconds, with or without an `s`.
pub fn parse_timeout(text: &str) -> Result<u32, BadHook> {
    let digits = text.strip_suffix('s').unwrap_or(text);
    let secs = digits.parse().ok();
    let secs = secs.filter(|secs| (1..=MAX_HOOK_SECS).contains(secs));
    secs.ok_or_else(|| BadHook::Timeout(shown(text)))
}

impl Hook {
    /// With what is usual at that point.
    pub fn new(point: Point, on: Side, name: &str) -> Self {
        Self {
            point,
            on,
            name: name.to_owned(),
            timeout_secs: DEFAULT_HOOK_SECS,
            on_failure: point.on_failure(),
            env: vec![],
        }
    }

    /// Whether it keeps to what a hook may be.
    pub fn check(&self) -> Result<(), BadHook> {
        let Self { point, on, .. } = *self;
        if !point.sides().contains(&on) {
            return Err(BadHook::NotThere { point, on });
        }
        if !is_hook_name(&self.name) {
            return Err(BadHook::Name(shown(&self.name)));
        }
        if !(1..=MAX_HOOK_SECS).contains(&self.timeout_secs) {
            return Err(BadHook::Timeout(self.timeout_secs.to_string()));
        }
        let bad = self
            .env
            .iter()
            .find(|(name, value)| !is_variable(name, value));
        if let Some((name, _)) = bad {
            return Err(BadHook::Variable(shown(name)));
        }
        let names: std::collections::BTreeSet<_> = self.env.iter().map(|(name, _)| name).collect();
        if self.env.len() > MAX_HOOK_ENV || names.len() < self.env.len() {
            return Err(BadHook::Variables(self.name.clone()));
        }
        Ok(())
    }
}

impl fmt::Display for Hook {
    /// As it is written into the document.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            point,
            on,
            name,
            timeout_secs,
            on_failure,
            env,
        } = self;
        write!(f, "{point} {on} {name} {timeout_secs}s {on_failure}")?;
        for (name, value) in env {
            write!(f, " {name}={}", escaped(value))?;
        }
        Ok(())
    }
}

/// A value as one word.
fn escaped(value: &str) -> String {
    let mut word = String::new();
    for byte in value.bytes() {
        match byte {
            b'%' => word.push_str("%25"),
            byte if byte.is_ascii_graphic() => word.push(char::from(byte)),
            byte => word.push_str(&format!("%{byte:02x}")),
        }
    }
    word
}

fn unescaped(word: &str) -> Option<String> {
    let mut bytes = vec![];
    let mut rest = word.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'%' => {
                let mut digit = || char::from(rest.next()?).to_digit(16);
                u8::try_from(digit()? * 16 + digit()?).ok()?
            }
            byte => byte,
        });
    }
    String::from_utf8(bytes).ok()
}

impl FromStr for Hook {
    type Err = BadHook;

    fn from_str(text: &str) -> Result<Self, BadHook> {
        let mut words = text.split_ascii_whitespace();
        let mut word = || words.next().ok_or(BadHook::Incomplete);
        let mut hook = Self {
            point: word()?.parse()?,
            on: word()?.parse()?,
            name: word()?.to_owned(),
            timeout_secs: parse_timeout(word()?)?,
            on_failure: word()?.parse()?,
            env: vec![],
        };
        for word in words {
            let bad = || BadHook::Variable(shown(word));
            let plain = unescaped(word).ok_or_else(bad)?;
            hook.env.push(parse_variable(&plain)?);
        }
        hook.check()?;
        Ok(hook)
    }
}

/// All hooks of a migration as one text.
pub fn hooks_text(hooks: &[Hook]) -> String {
    if hooks.is_empty() {
        return NONE.to_owned();
    }
    let texts: Vec<String> = hooks.iter().map(Hook::to_string).collect();
    texts.join(&format!(" {BETWEEN} "))
}

/// Reads what [`hooks_text`] wrote.
pub fn parse_hooks(text: &str) -> Result<Vec<Hook>, BadHook> {
    if text.len() > MAX_HOOKS_TEXT {
        return Err(BadHook::TooMany);
    }
    if text == NONE {
        return Ok(vec![]);
    }
    let words: Vec<&str> = text.split_ascii_whitespace().collect();
    let hooks = words.split(|word| *word == BETWEEN);
    let hooks: Vec<Hook> = hooks
        .map(|words| words.join(" ").parse())
        .collect::<Result<_, _>>()?;
    check_hooks(&hooks)?;
    Ok(hooks)
}

/// Whether these can be all hooks of a migration.
pub fn check_hooks(hooks: &[Hook]) -> Result<(), BadHook> {
    hooks.iter().try_for_each(Hook::check)?;
    if hooks.len() > MAX_HOOKS || hooks_text(hooks).len() > MAX_HOOKS_TEXT {
        return Err(BadHook::TooMany);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn hook() -> Hook {
        Hook {
            env: vec![
                ("HOOK_PORT".into(), "5432".into()),
                ("HOOK_NOTE".into(), "50 % ; h\u{f6}chstens".into()),
            ],
            ..Hook::new(Point::BeforeFreeze, Side::Source, "stop-postgresql")
        }
    }

    #[test]
    fn hooks_survive_their_text_and_its_bytes_are_these() {
        let after = Hook {
            timeout_secs: 5,
            ..Hook::new(Point::AfterCutover, Side::Provisioner, "dns.sh")
        };
        let text = hooks_text(&[hook(), after.clone()]);
        assert_eq!(
            text,
            "before-freeze source stop-postgresql 60s stop HOOK_PORT=5432 HOOK_NOTE=50%20%25%20;%20h%c3%b6chstens ; after-cutover provisioner dns.sh 5s continue"
        );
        assert_eq!(parse_hooks(&text).unwrap(), [hook(), after]);
        assert_eq!(parse_hooks(&hooks_text(&[])).unwrap(), []);
    }

    #[test]
    fn every_point_has_a_text_and_a_side() {
        for point in Point::ALL {
            assert_eq!(point.to_string().parse::<Point>().unwrap(), point);
            assert!(point.sides().contains(&Side::Source), "{point}");
        }
        assert!("after-launch".parse::<Point>().is_err());
        let elsewhere = Hook::new(Point::BeforeFreeze, Side::Provisioner, "x");
        assert!(matches!(elsewhere.check(), Err(BadHook::NotThere { .. })));
    }

    #[test]
    fn a_hook_names_a_file_and_no_path() {
        for name in ["a", "7zip", "stop-postgresql", "x.sh", &"a".repeat(64)] {
            assert!(is_hook_name(name), "{name}");
        }
        for name in [
            "",
            ".",
            "..",
            "../x",
            "a/b",
            "/x",
            "-x",
            "Stop",
            "a b",
            "h\u{f6}",
            &"a".repeat(65),
        ] {
            assert!(!is_hook_name(name), "{name}");
        }
    }

    #[test]
    fn a_variable_that_an_interpreter_obeys_is_none_for_a_hook() {
        assert!(parse_variable("HOOK_A=b=c").is_ok());
        for text in [
            "BASH_ENV=/tmp/x",
            "LD_PRELOAD=/tmp/x.so",
            "PATH=/tmp",
            "HOOK_=x",
            "HOOK_a=x",
            "HOOK_A",
            "HOOK_A()=x",
            "HOOK_A=x\ny",
        ] {
            assert!(
                matches!(parse_variable(text), Err(BadHook::Variable(_))),
                "{text}"
            );
        }
    }

    #[test]
    fn what_is_out_of_bounds_is_refused() {
        let one = |hook: Hook| check_hooks(&[hook]).unwrap_err();
        for timeout_secs in [0, MAX_HOOK_SECS + 1] {
            let hook = Hook {
                timeout_secs,
                ..hook()
            };
            assert!(matches!(one(hook), BadHook::Timeout(_)));
        }
        let twice = Hook {
            env: vec![("HOOK_A".into(), "1".into()); 2],
            ..hook()
        };
        assert!(matches!(one(twice), BadHook::Variables(_)));
        assert_eq!(check_hooks(&vec![hook(); MAX_HOOKS]), Ok(()));
        let many = vec![hook(); MAX_HOOKS + 1];
        assert_eq!(check_hooks(&many), Err(BadHook::TooMany));
        let long = Hook {
            env: vec![("HOOK_A".into(), "x".repeat(MAX_VALUE)); 1],
            ..hook()
        };
        let long: Vec<Hook> = vec![long; MAX_HOOKS];
        assert_eq!(check_hooks(&long), Ok(()));
        for text in [
            "",
            "before-freeze",
            "none ; none",
            &"x".repeat(MAX_HOOKS_TEXT + 1),
        ] {
            assert!(parse_hooks(text).is_err(), "{text}");
        }
    }
}
