//! What a script printed: the first and the last of it, as text, without secrets.

use super::redact::redact;
use std::collections::VecDeque;

/// Bytes kept of the beginning, and as many of the end.
pub const KEPT: usize = 8 * 1024;

/// Output as it comes.
#[derive(Debug, Default)]
pub struct Output {
    head: Vec<u8>,
    tail: VecDeque<u8>,
    /// Bytes between the two.
    left_out: u64,
}

impl Output {
    /// Takes what was read.
    pub fn take(&mut self, bytes: &[u8]) {
        let room = KEPT - self.head.len();
        let (head, rest) = bytes.split_at(room.min(bytes.len()));
        self.head.extend_from_slice(head);
        let rest_kept = &rest[rest.len().saturating_sub(KEPT)..];
        self.left_out += (rest.len() - rest_kept.len()) as u64;
        self.tail.extend(rest_kept);
        let over = self.tail.len().saturating_sub(KEPT);
        self.tail.drain(..over);
        self.left_out += over as u64;
    }

    /// As text, in which these values and all that looks like a secret are not shown.
    ///
    /// Where something was left out, the broken word before and the broken line after go
    /// too: a secret that was cut in two would not be known as one.
    pub fn into_text(mut self, secrets: &[&str]) -> String {
        let tail: Vec<u8> = std::mem::take(&mut self.tail).into();
        if self.left_out == 0 {
            let mut whole = self.head;
            whole.extend(tail);
            return redact(&plain(&whole), secrets);
        }
        let head_end = self.head.iter().rposition(u8::is_ascii_whitespace);
        let head = &self.head[..head_end.unwrap_or(0)];
        let tail_start = tail.iter().position(|byte| *byte == b'\n');
        let last = &tail[tail_start.map_or(tail.len(), |at| at + 1)..];
        let broken = (self.head.len() - head.len()) + (tail.len() - last.len());
        let left_out = self.left_out + broken as u64;
        format!(
            "{}\n[{left_out} bytes left out]\n{}",
            redact(&plain(head), secrets),
            redact(&plain(last), secrets)
        )
    }
}

/// Text without what would move a cursor or colour a terminal.
fn plain(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let shown = |c: &char| matches!(c, '\n' | '\t') || !c.is_control();
    let text: String = text.chars().filter(shown).collect();
    text.trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(chunks: &[&[u8]]) -> String {
        let mut output = Output::default();
        for chunk in chunks {
            output.take(chunk);
        }
        output.into_text(&[])
    }

    #[test]
    fn little_output_is_kept_whole() {
        assert_eq!(text(&[b"one\n", b"two\n"]), "one\ntwo");
        let most = vec![b'x'; 2 * KEPT];
        assert_eq!(text(&[&most]).len(), 2 * KEPT);
        assert_eq!(text(&[b"\x1b[31mred\x07 \xff"]), "[31mred \u{fffd}");
    }

    #[test]
    fn of_much_output_the_first_and_the_last_lines_are_kept_and_the_rest_counted() {
        let lines: String = (0..10_000).map(|line| format!("line {line}\n")).collect();
        for size in [1, 7, 4096, KEPT, 3 * KEPT, lines.len()] {
            let chunks: Vec<&[u8]> = lines.as_bytes().chunks(size).collect();
            let kept = text(&chunks);
            assert!(kept.starts_with("line 0\nline 1\n"), "{size}");
            assert!(kept.ends_with("line 9998\nline 9999"), "{size}");
            let marker = kept.lines().find(|line| line.ends_with("bytes left out]"));
            let count = marker.map(|line| line[1..].split(' ').next().unwrap_or_default());
            let count: usize = count.and_then(|count| count.parse().ok()).unwrap_or(0);
            let shown = kept.len() - marker.map_or(0, str::len);
            let sum = count + shown;
            assert!(sum.abs_diff(lines.len()) <= 4, "{sum} of {}", lines.len());
        }
    }

    #[test]
    fn a_secret_that_was_cut_in_two_is_not_shown_in_part() {
        let mut output = Output::default();
        let line = format!("password={}\n", "s".repeat(3 * KEPT));
        output.take(line.as_bytes());
        output.take(b"end\n");
        let text = output.into_text(&[]);
        assert!(!text.contains("sss") && text.ends_with("\nend"), "{text}");
        let mut output = Output::default();
        output.take(&[b'.'; KEPT - 8]);
        output.take(b" hunter2hunter2 ");
        output.take(&[b'\n'; 2 * KEPT]);
        let text = output.into_text(&["hunter2hunter2"]);
        assert!(!text.contains("hunter"), "{text}");
    }
}
