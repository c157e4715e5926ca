//! What the processes of a run print: waited for, and read as figures.
//!
//! Not here: who they are and what they do (`ours`).

use super::table::Run;
use anyhow::{Context, Result, bail};
use std::io::{BufRead, BufReader, Read};
use std::process::ChildStdout;

/// What the processes of both ends printed.
pub(super) struct Said {
    /// Of each that sends.
    pub(super) near: Vec<String>,
    pub(super) far: String,
}

impl Said {
    /// What the one process printed that sends.
    pub(super) fn near(&self) -> Result<&str> {
        let near = self.near.first().context("nobody sends")?;
        Ok(near)
    }

    /// The run of the one process that sends.
    pub(super) fn run(&self) -> Option<Run> {
        let near = self.near.first()?;
        let line = last_figures(near)?;
        Some(Run {
            sent: Some(field(line, "bytes")? as u64),
            most_mib: Some([last(near, "most_mib")?, last(&self.far, "most_mib")?]),
            first: field(line, "first"),
            moved: field(line, "least_moved").zip(field(line, "most_moved")),
            ..Run::took(field(line, "seconds")?, field(line, "core_seconds")?)
        })
    }

    /// One run of all that send, from when the first began to when the last was done.
    pub(super) fn run_of_all(&self) -> Option<Run> {
        let lines = self.near.iter().map(|near| last_figures(near));
        let lines: Vec<&str> = lines.collect::<Option<_>>()?;
        let all = |name: &str| -> Option<Vec<f64>> {
            lines.iter().map(|line| field(line, name)).collect()
        };
        let least = |figures: &[f64]| figures.iter().copied().fold(f64::INFINITY, f64::min);
        let most = |figures: &[f64]| figures.iter().copied().fold(0.0, f64::max);
        let (began, ended) = (least(&all("began")?), all("ended")?);
        let memory = self.near.iter().map(|near| last(near, "most_mib"));
        let memory: Vec<f64> = memory.collect::<Option<_>>()?;
        // Each counts what the machine does from when it begins to when it is done.
        let cores = most(&all("core_seconds")?);
        Some(Run {
            sent: Some(all("bytes")?.iter().sum::<f64>() as u64),
            most_mib: Some([most(&memory), last(&self.far, "most_mib")?]),
            first: Some(least(&ended) - began),
            ..Run::took(most(&ended) - began, cores)
        })
    }
}

/// The figures of a process: of several steps the last one counts.
fn last_figures(said: &str) -> Option<&str> {
    let mut lines = said.lines().rev();
    lines.find(|line| line.starts_with("seconds="))
}

/// What a process prints.
pub(super) struct Lines(Option<BufReader<ChildStdout>>);

impl Lines {
    pub(super) fn of(out: Option<ChildStdout>) -> Self {
        Self(out.map(BufReader::new))
    }

    /// Waits for a line with this name; what it says.
    pub(super) fn until(&mut self, name: &str) -> Result<String> {
        let mut said = String::new();
        while let Some(out) = &mut self.0 {
            let mut line = String::new();
            if out.read_line(&mut line)? == 0 {
                break;
            }
            if let Some(value) = line.strip_prefix(name) {
                return Ok(value.trim().to_owned());
            }
            said.push_str(&line);
        }
        bail!("an end of the bench did not say {name} {said}")
    }

    /// Waits for its end.
    pub(super) fn rest(&mut self) -> Result<String> {
        let mut rest = String::new();
        if let Some(out) = &mut self.0 {
            out.read_to_string(&mut rest)?;
        }
        Ok(rest)
    }
}

/// A number by its name.
pub(super) fn field(line: &str, name: &str) -> Option<f64> {
    let mut fields = line.split_whitespace();
    let value = fields.find_map(|field| field.strip_prefix(name)?.strip_prefix('='));
    value?.parse().ok()
}

/// A number in the last line that has one of this name.
pub(super) fn last(said: &str, name: &str) -> Option<f64> {
    said.lines().rev().find_map(|line| field(line, name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_read_by_their_names_and_nothing_else_is() {
        let said = "core_seconds=4.5 seconds=2.25 bytes=77\nmost_mib=80\nmost_mib=90\n";
        assert_eq!(field(said, "seconds"), Some(2.25));
        assert_eq!(field(said, "second"), None);
        assert_eq!(last(said, "most_mib"), Some(90.0));
    }

    #[test]
    fn several_agents_are_one_run_from_the_first_to_the_last() {
        let near = [
            "seconds=3 core_seconds=5 bytes=10 began=100 ended=103\nmost_mib=40\n",
            "seconds=2 core_seconds=4 bytes=20 began=100.5 ended=102.5\nmost_mib=60\n",
        ];
        let said = Said {
            near: near.map(str::to_owned).into(),
            far: "most_mib=90\n".to_owned(),
        };
        let run = said.run_of_all().expect("all figures are there");
        assert_eq!((run.seconds, run.cores, run.sent), (3.0, 5.0, Some(30)));
        assert_eq!((run.first, run.most_mib), (Some(2.5), Some([60.0, 90.0])));
        // One that did not say what it did is none.
        let near = [near[0], "most_mib=60\n"];
        let said = Said {
            near: near.map(str::to_owned).into(),
            ..said
        };
        assert_eq!(said.run_of_all(), None);
    }
}
