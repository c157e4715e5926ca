//! One node of a bench: a process with a data folder of its own, asked over its local
//! API. Its end ends the process.
//!
//! Speaks just enough HTTP for that, so that this program needs no packages.

use anyhow::{Context, Result, bail};
use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// How long one answer may take.
const ANSWER: Duration = Duration::from_secs(30);

/// A temporary folder, gone with this value.
pub(super) struct Folder(PathBuf);

impl Folder {
    pub(super) fn new() -> Result<Self> {
        let path = std::env::temp_dir().join(format!("dunlin-bench-{}", std::process::id()));
        std::fs::create_dir(&path).with_context(|| format!("making {}", path.display()))?;
        Ok(Folder(path))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // What cannot be removed is left in the folder for temporary things.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// See the module's page.
pub(super) struct Node {
    program: PathBuf,
    folder: PathBuf,
    process: Option<Child>,
}

/// What a node says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Status {
    /// Digest of its ledger.
    pub(super) ledger: String,
    /// Nodes that it knows of.
    pub(super) nodes: usize,
    /// Nodes that it is connected to.
    pub(super) connected: usize,
}

impl Node {
    pub(super) fn new(program: &Path, folder: &Folder, number: usize) -> Self {
        Node {
            program: program.to_owned(),
            folder: folder.0.join(format!("n{number}")),
            process: None,
        }
    }

    /// Runs a command on it, and gives what it printed.
    pub(super) fn command(&self, arguments: &[&str]) -> Result<String> {
        let ran = Command::new(&self.program)
            .arg("--data-dir")
            .arg(&self.folder)
            .args(arguments)
            .output()
            .with_context(|| format!("starting {}", self.program.display()))?;
        if !ran.status.success() {
            bail!(
                "dunlin {}: {}",
                arguments.join(" "),
                String::from_utf8_lossy(&ran.stderr)
            );
        }
        Ok(String::from_utf8_lossy(&ran.stdout).into_owned())
    }

    /// Starts it, and waits until it says that it is ready.
    pub(super) fn started(mut self) -> Result<Self> {
        let log = self.folder.with_extension("log");
        let log = File::create(&log).with_context(|| format!("making {}", log.display()))?;
        let mut process = Command::new(&self.program)
            .arg("--data-dir")
            .arg(&self.folder)
            .args(["run", "--no-mdns", "--listen", "/ip4/127.0.0.1/tcp/0"])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .with_context(|| format!("starting {}", self.program.display()))?;
        let stdout = process.stdout.take().context("the node has no stdout")?;
        self.process = Some(process);
        let mut line = String::new();
        let read = BufReader::new(stdout).read_line(&mut line);
        if read.context("reading what the node says")? == 0 {
            bail!("the node of {} did not get ready", self.folder.display());
        }
        Ok(self)
    }

    pub(super) fn status(&self) -> Result<Status> {
        let body = self.ask("GET", "/v1/status", "")?;
        let field = |name: &str| {
            let (_, rest) = body.split_once(&format!("\"{name}\":"))?;
            let end = rest.find([',', '}']).unwrap_or(rest.len());
            Some(rest[..end].trim_matches('"').to_owned())
        };
        let number = |name: &str| field(name).and_then(|text| text.parse().ok());
        let read = || {
            Some(Status {
                ledger: field("ledger")?,
                nodes: number("nodes")?,
                // Of the nodes in it each says whether it is connected, not how many.
                connected: last_number(&body, "connected")?,
            })
        };
        read().with_context(|| format!("no status in {body}"))
    }

    pub(super) fn post(&self, path: &str, body: &str) -> Result<()> {
        self.ask("POST", path, body).map(drop)
    }

    fn ask(&self, method: &str, path: &str, body: &str) -> Result<String> {
        let socket = self.folder.join("run/api.sock");
        let mut stream = UnixStream::connect(&socket)
            .with_context(|| format!("connecting to {}", socket.display()))?;
        stream.set_read_timeout(Some(ANSWER)).context("a limit")?;
        write!(
            stream,
            "{method} {path} HTTP/1.1\r\nHost: node\r\nConnection: close\r\n\
             Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        )
        .context("asking the node")?;
        let mut answer = String::new();
        stream
            .read_to_string(&mut answer)
            .with_context(|| format!("reading the answer to {method} {path}"))?;
        let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
        if !head.starts_with("HTTP/1.1 2") {
            bail!("{method} {path}: {answer}");
        }
        Ok(body.to_owned())
    }

    /// Memory that it holds now, in KiB.
    pub(super) fn resident_kib(&self) -> Result<u64> {
        let process = self.process.as_ref().context("the node does not run")?;
        let path = format!("/proc/{}/status", process.id());
        let status = std::fs::read_to_string(&path).with_context(|| format!("reading {path}"))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kib = line.and_then(|line| line.trim().strip_suffix(" kB")?.parse().ok());
        kib.with_context(|| format!("no VmRSS in {path}"))
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if let Some(process) = &mut self.process {
            // It may be gone already; there is nothing else to do for it.
            let _ = process.kill();
            let _ = process.wait();
        }
    }
}

/// The number after the last field of a name that has one.
fn last_number(body: &str, name: &str) -> Option<usize> {
    let field = format!("\"{name}\":");
    let found = body.split(field.as_str()).skip(1);
    let numbers = found.filter_map(|rest| {
        let end = rest.find([',', '}'])?;
        rest[..end].parse().ok()
    });
    numbers.last()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_number_of_connections_is_not_taken_for_one_nodes_state() {
        let body = r#"{"node":{"connected":null},"nodes":3,"connected":2,"listening":[]}"#;
        assert_eq!(last_number(body, "connected"), Some(2));
        assert_eq!(last_number(body, "listening"), None);
    }
}
