//! Files of settings: `KEY=VALUE` as a shell reads it, and sections of such lines.
//!
//! Not here: what the keys mean.

/// The last value of a key, without its quotes; none where it is empty.
pub(crate) fn value(text: &str, key: &str) -> Option<String> {
    let values = assignments(text).filter(|(found, _)| *found == key);
    values
        .map(|(_, value)| value)
        .last()
        .filter(|value| !value.is_empty())
}

/// All assignments in order, values without quotes and comments.
pub(crate) fn assignments(text: &str) -> impl Iterator<Item = (&str, String)> {
    let lines = text.lines().map(str::trim);
    let lines = lines.filter(|line| !line.starts_with(['#', ';']));
    lines.filter_map(|line| {
        let (key, value) = line.split_once('=')?;
        Some((key.trim(), unquoted(value)))
    })
}

/// The sections of an INI file in order, each with its text.
pub(crate) fn sections(text: &str) -> Vec<(&str, String)> {
    let mut sections: Vec<(&str, String)> = vec![];
    for line in text.lines() {
        let line = line.trim();
        let name = line
            .strip_prefix('[')
            .and_then(|rest| rest.strip_suffix(']'));
        match (name, sections.last_mut()) {
            (Some(name), _) => sections.push((name, String::new())),
            (None, Some((_, section))) => {
                section.push_str(line);
                section.push('\n');
            }
            (None, None) => {}
        }
    }
    sections
}

/// A value without the quotes around it, or without the comment behind it.
pub(crate) fn unquoted(value: &str) -> String {
    let value = value.trim();
    for quote in ['"', '\''] {
        if let Some(rest) = value.strip_prefix(quote) {
            return rest.split(quote).next().unwrap_or_default().to_owned();
        }
    }
    let end = value.find(" #").unwrap_or(value.len());
    value[..end].trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_read_as_a_shell_reads_them() {
        let text = "# A=0\nA=1\nB = \"two words\" # why\nC='3'\nA=4 # last\nD=\n";
        assert_eq!(value(text, "A").as_deref(), Some("4"));
        assert_eq!(value(text, "B").as_deref(), Some("two words"));
        assert_eq!(value(text, "C").as_deref(), Some("3"));
        assert_eq!(value(text, "D"), None);
        assert_eq!(value(text, "E"), None);
    }

    #[test]
    fn sections_have_their_own_lines() {
        let text = "x=0\n[a]\nx=1\n\n[b]\nx=2\n[a]\nx=3\n";
        let found: Vec<_> = sections(text)
            .into_iter()
            .map(|(name, text)| (name, value(&text, "x")))
            .collect();
        let some = |text: &str| Some(text.to_owned());
        assert_eq!(
            found,
            [("a", some("1")), ("b", some("2")), ("a", some("3"))]
        );
    }
}
