//! Takes out of a text what looks like a secret.
//!
//! A guess: it knows the common ways to write one. What a script does not print is safer.

/// What stands in the place of a secret.
pub const REDACTED: &str = "[redacted]";

/// Shortest value of a variable that is taken out: of shorter ones every text is full.
const SHORTEST: usize = 4;
/// In whose names a secret is announced.
const KEYWORDS: [&str; 11] = [
    "password",
    "passwd",
    "passphrase",
    "secret",
    "token",
    "api_key",
    "apikey",
    "api-key",
    "access_key",
    "private_key",
    "credential",
];
/// Names after which the whole line is one.
const LINES: [&str; 3] = ["authorization", "set-cookie", "cookie"];
/// How keys of AWS begin.
const AWS: [&str; 2] = ["AKIA", "ASIA"];
/// How long they are.
const AWS_LENGTH: usize = 20;

/// The text without these values and without all that looks like a secret.
pub fn redact(text: &str, values: &[&str]) -> String {
    let mut text = text.to_owned();
    let mut values: Vec<&&str> = values
        .iter()
        .filter(|value| value.trim().len() >= SHORTEST)
        .collect();
    // One may be part of another.
    values.sort_by_key(|value| std::cmp::Reverse(value.len()));
    for value in values {
        text = text.replace(*value, REDACTED);
    }
    let text = without_keys(&text);
    let lines: Vec<String> = text.split('\n').map(line).collect();
    lines.join("\n")
}

/// Without private keys as PEM has them, also where only one end is here.
fn without_keys(text: &str) -> String {
    let mut lines = vec![];
    let mut in_key = false;
    for line in text.split('\n') {
        let names_key = line.contains("PRIVATE KEY-----");
        if names_key && line.contains("-----BEGIN") {
            in_key = !line.contains("-----END");
            lines.push(REDACTED);
        } else if names_key && line.contains("-----END") {
            if !in_key {
                lines.clear();
                lines.push(REDACTED);
            }
            in_key = false;
        } else if !in_key {
            lines.push(line);
        }
    }
    lines.join("\n")
}

fn line(line: &str) -> String {
    let line = named(line);
    let line = words(&line, &['\'', '"', ',', ';', '(', ')', '<', '>', '='], aws);
    let line = words(&line, &['\'', '"', ',', '<', '>'], url);
    after_bearer(&line)
}

/// Without values that come after a name which announces a secret.
fn named(line: &str) -> String {
    // Only ASCII changes, so that places are the same in both.
    let lower = line.to_ascii_lowercase();
    let mut shown = String::new();
    let mut at = 0;
    while let Some((start, whole_line)) = next_name(&lower, at) {
        let value = value_after(&lower, start, whole_line);
        let Some((from, to)) = value.filter(|(from, to)| from < to) else {
            shown.push_str(&line[at..start]);
            at = start;
            continue;
        };
        shown.push_str(&line[at..from]);
        shown.push_str(REDACTED);
        at = to;
    }
    shown.push_str(&line[at..]);
    shown
}

/// Where the next announcing name ends, and whether the whole rest is the value.
fn next_name(lower: &str, from: usize) -> Option<(usize, bool)> {
    let find = |name: &&'static str| {
        let at = lower[from..].find(*name)? + from;
        Some((at + name.len(), *name))
    };
    let found = KEYWORDS.iter().chain(&LINES).filter_map(find);
    let (end, name) =
        found.min_by_key(|(end, name)| (end - name.len(), usize::MAX - name.len()))?;
    Some((end, LINES.contains(&name)))
}

/// The value that belongs to a name of which `start` is the end of a part.
fn value_after(lower: &str, start: usize, whole_line: bool) -> Option<(usize, usize)> {
    let rest = &lower[start..];
    let in_name = |c: char| c.is_ascii_alphanumeric() || "_-.".contains(c);
    let name_end = rest.find(|c| !in_name(c)).unwrap_or(rest.len());
    let after = &rest[name_end..];
    // Of `"password": "x"` and `password = x`.
    let gap = after.trim_start_matches(['"', '\'', ' ', '\t', ']']);
    let sign = gap.chars().next();
    let is_flag = lower[..start]
        .rsplit(char::is_whitespace)
        .next()
        .is_some_and(|word| word.starts_with('-'));
    let value = match sign {
        Some('=' | ':') => gap[1..].trim_start_matches(['=', '>', ' ', '\t']),
        Some(_) if is_flag && after.starts_with([' ', '\t']) => gap,
        _ => return None,
    };
    let from = lower.len() - value.len();
    let end = match value.chars().next()? {
        quote @ ('"' | '\'') => value[1..].find(quote).map(|at| at + 2),
        _ if whole_line || sign == Some(':') => None,
        _ => value.find(|c: char| c.is_whitespace() || "&;,".contains(c)),
    };
    Some((from, from + end.unwrap_or(value.len())))
}

/// Changes the words between separators.
fn words(line: &str, between: &[char], change: fn(&str) -> Option<String>) -> String {
    let is_between = |c: char| c.is_whitespace() || between.contains(&c);
    let parts = line.split_inclusive(is_between);
    let changed = parts.map(|part| {
        let word = part.trim_end_matches(is_between);
        match change(word) {
            Some(changed) => format!("{changed}{}", &part[word.len()..]),
            None => part.to_owned(),
        }
    });
    changed.collect()
}

fn aws(word: &str) -> Option<String> {
    let begins = AWS.iter().filter_map(|start| word.find(start)).min()?;
    let key = word[begins..].bytes();
    let length = key
        .take_while(|byte| byte.is_ascii_uppercase() || byte.is_ascii_digit())
        .count();
    let end = begins + length;
    (length >= AWS_LENGTH).then(|| format!("{}{REDACTED}{}", &word[..begins], &word[end..]))
}

/// Of `https://user:password@host` user and password.
fn url(word: &str) -> Option<String> {
    let start = word.find("://")? + 3;
    let place = word[start..].find(['/', '?', '#']);
    let place = place.map_or(word.len(), |at| start + at);
    // A password may hold an unescaped `/`, and then what is taken out reaches further.
    let at = word[start..place].rfind('@').or_else(|| {
        let at = word[start..].find('@')?;
        let (_, port) = word[start..place].split_once(':')?;
        let is_port = port.bytes().all(|byte| byte.is_ascii_digit());
        (!is_port).then_some(at)
    })?;
    let user = &word[start..start + at];
    user.contains(':')
        .then(|| format!("{}{REDACTED}{}", &word[..start], &word[start + at..]))
}

fn after_bearer(line: &str) -> String {
    const BEARER: &str = "bearer ";
    let lower = line.to_ascii_lowercase();
    let Some(at) = lower.find(BEARER) else {
        return line.to_owned();
    };
    let from = at + BEARER.len();
    let rest = &line[from..];
    let end = rest.find(|c: char| c.is_whitespace() || "\"',".contains(c));
    let end = end.unwrap_or(rest.len());
    match &rest[..end] {
        "" | REDACTED => line.to_owned(),
        _ => format!("{}{REDACTED}{}", &line[..from], &rest[end..]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_looks_like_a_secret_is_not_shown() {
        for (text, shown) in [
            ("password=hunter2 user=bob", "password=[redacted] user=bob"),
            ("DB_PASSWORD=hunter2", "DB_PASSWORD=[redacted]"),
            ("PGPASSWORD='a b' psql", "PGPASSWORD=[redacted] psql"),
            (
                r#"{"password": "hunter2", "port": 1}"#,
                r#"{"password": [redacted], "port": 1}"#,
            ),
            ("password: correct horse", "password: [redacted]"),
            (
                "mysql --password hunter2 -u x",
                "mysql --password [redacted] -u x",
            ),
            ("secret_key = x1 next", "secret_key = [redacted] next"),
            (
                "client-secret=a&token=b&c=d",
                "client-secret=[redacted]&token=[redacted]&c=d",
            ),
            (
                "Authorization: Basic dXNlcjpwYXNz more",
                "Authorization: [redacted]",
            ),
            (
                "sent Bearer abc.def and on",
                "sent Bearer [redacted] and on",
            ),
            ("key AKIAIOSFODNN7EXAMPLE, ok", "key [redacted], ok"),
            (
                "postgres://bob:hunter2@db:5432/x",
                "postgres://[redacted]@db:5432/x",
            ),
            ("https://bob:hun/ter2@db/x", "https://[redacted]@db/x"),
            ("caf\u{e9} token=\u{e9}\u{e9}", "caf\u{e9} token=[redacted]"),
        ] {
            assert_eq!(redact(text, &[]), shown, "{text}");
        }
    }

    #[test]
    fn what_is_no_secret_stays() {
        for text in [
            "",
            "stopped postgresql in 3 s",
            "the password was not asked for",
            "https://db.example:5432/x?y=1#z@w",
            "mail bob@example.com",
            "AKIA is short",
            "a\n\nb",
        ] {
            assert_eq!(redact(text, &[]), text);
        }
    }

    #[test]
    fn values_of_variables_are_not_shown_unless_every_text_is_full_of_them() {
        let text = "port 5432 of db-main and db";
        assert_eq!(
            redact(text, &["db", "db-main", "5432"]),
            "port [redacted] of [redacted] and db"
        );
    }

    #[test]
    fn a_private_key_is_not_shown_even_where_an_end_of_it_is_missing() {
        let key = "a\n-----BEGIN RSA PRIVATE KEY-----\nMIIE\nxyz\n-----END RSA PRIVATE KEY-----\nb";
        assert_eq!(redact(key, &[]), "a\n[redacted]\nb");
        assert_eq!(
            redact("a\n-----BEGIN PRIVATE KEY-----\nMIIE", &[]),
            "a\n[redacted]"
        );
        assert_eq!(
            redact("MIIE\n-----END PRIVATE KEY-----\nb", &[]),
            "[redacted]\nb"
        );
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_taken(text in "(?s).{0,80}", more in "(password|token|AKIA|://|@|:|=|'|\"|bearer | |\u{e9}){0,20}") {
            redact(&format!("{more}{text}{more}"), &[&text]);
        }
    }
}
