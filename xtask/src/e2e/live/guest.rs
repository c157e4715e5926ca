//! A machine under QEMU: its start, what is run in it, its network and its end.
//!
//! Not here: what it is told to do.

use super::image::{self, DATA_MIB, DISKS, STATE};
use super::workload::Acknowledged;
use crate::bench::running::Running;
use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

/// How long what is run in it may take, a start of the machine before it included.
const PATIENCE: Duration = Duration::from_secs(300);
/// How long QEMU may take to listen.
const LISTENS: Duration = Duration::from_secs(20);
const LOOK: Duration = Duration::from_millis(50);
/// The most that it may print: a journal.
const MAX_PRINTED: usize = 64 << 20;

/// Which disks it has.
pub(super) enum Disks<'a> {
    /// Those of the source, written to.
    Source(&'a Path),
    /// The copies, which are not changed: root and data.
    Copies([PathBuf; 2]),
}

/// A machine that runs; it is off once this is dropped.
pub(super) struct Guest {
    _process: Running,
    console: BufReader<UnixStream>,
    control: PathBuf,
}

impl Guest {
    /// Switches it on. Sockets and logs are in `place`, under this name.
    pub(super) fn start(
        place: &Path,
        name: &str,
        disks: &Disks,
        acknowledged: Option<&Acknowledged>,
    ) -> Result<Self> {
        let socket = |what: &str| place.join(format!("{name}-{what}.sock"));
        let (console, told, control) = (socket("console"), socket("told"), socket("control"));
        for socket in [&console, &told, &control] {
            // Of the same machine before it was switched off.
            let _ = fs::remove_file(socket);
        }
        let log = File::create(place.join(format!("{name}-qemu.log")))?;
        let mut command = Command::new("nice");
        command.args(["-n", "15", "qemu-system-x86_64", "-nodefaults"]);
        command.args(["-display", "none", "-vga", "std", "-M", "pc"]);
        command.args(["-accel", "tcg,thread=multi,tb-size=512", "-cpu", "max"]);
        command.args(["-smp", "2", "-m", "1024", "-device", "virtio-serial-pci"]);
        command.args(["-device", "virtio-scsi-pci,id=scsi", "-serial"]);
        command.arg(format!("file:{}/{name}-serial.log", place.display()));
        command.arg("-qmp").arg(listen(&control));
        for (socket, port) in [(&console, "console"), (&told, "acknowledged")] {
            let listen = listen(socket);
            command.args([
                "-chardev",
                &format!("socket,id={port},path={}", &listen[5..]),
            ]);
            let port = format!("virtserialport,chardev={port},name=guest.{port}");
            command.args(["-device", &port]);
        }
        for argument in disks.arguments() {
            command.arg(argument);
        }
        let process = command.stdin(Stdio::null()).stdout(log.try_clone()?);
        let process = Running(process.stderr(log).spawn().context("starting QEMU")?);
        let told = connect(&told)?;
        if let Some(acknowledged) = acknowledged {
            acknowledged.listen(told);
        }
        let console = connect(&console)?;
        console.set_read_timeout(Some(PATIENCE))?;
        Ok(Self {
            _process: process,
            console: BufReader::new(console),
            control,
        })
    }

    /// Runs a script in it, which has to succeed; what it printed.
    pub(super) fn run(&mut self, script: &str) -> Result<String> {
        self.run_with(script, &[])
    }

    /// The same, with what it reads.
    pub(super) fn run_with(&mut self, script: &str, input: &[u8]) -> Result<String> {
        let console = self.console.get_mut();
        let head = format!("{} {}\n{script}", script.len(), input.len());
        let sent = console.write_all(head.as_bytes());
        let sent = sent.and_then(|()| console.write_all(input));
        sent.with_context(|| format!("asking the guest for `{script}`"))?;
        let mut line = String::new();
        let read = self.console.read_line(&mut line);
        read.with_context(|| format!("the guest does not answer to `{script}`"))?;
        let numbers: Vec<usize> = line.split_whitespace().flat_map(str::parse).collect();
        let [status, out, err] = numbers[..] else {
            bail!("the guest answers `{line}` to `{script}`");
        };
        ensure!(out + err <= MAX_PRINTED, "the guest prints too much");
        let mut printed = vec![0; out + err];
        self.console.read_exact(&mut printed)?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
        let (out, err) = (text(&printed[..out]), text(&printed[out..]));
        ensure!(
            status == 0,
            "in the guest `{script}` ended with {status}: {out} {err}"
        );
        Ok(out)
    }

    /// Pulls the cable of its network, or puts it back.
    pub(super) fn set_link(&self, up: bool) -> Result<()> {
        self.control("set_link", &json!({ "name": "nic", "up": up }))
    }

    /// Halts its processors where they are: it writes nothing any more.
    pub(super) fn halt(&self) -> Result<()> {
        self.control("stop", &json!({}))
    }

    fn control(&self, command: &str, arguments: &Value) -> Result<()> {
        let mut stream = connect(&self.control)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let mut lines = BufReader::new(stream.try_clone()?).lines();
        for (command, arguments) in [("qmp_capabilities", &json!({})), (command, arguments)] {
            let asked = json!({ "execute": command, "arguments": arguments });
            writeln!(stream, "{asked}")?;
            loop {
                let line = lines.next().context("QEMU hangs up")??;
                let said: Value = serde_json::from_str(&line)?;
                if said.get("error").is_some() {
                    bail!("QEMU refuses {command}: {line}");
                }
                if said.get("return").is_some() {
                    break;
                }
            }
        }
        Ok(())
    }
}

impl Disks<'_> {
    fn arguments(&self) -> Vec<String> {
        let (paths, state, snapshot) = match self {
            Self::Source(folder) => {
                let paths = DISKS.map(|name| image::disk(folder, name));
                (paths, Some(image::disk(folder, STATE)), "off")
            }
            Self::Copies(paths) => (paths.clone(), None, "on"),
        };
        let mut arguments = vec![];
        let mut add = |name: &str, path: &Path, device: &str| {
            let drive = format!(
                "file={},format=raw,if=none,id={name},cache=writeback,snapshot={snapshot}",
                path.display()
            );
            let device = format!("{device},drive={name},serial={name}");
            arguments.extend(["-drive".into(), drive, "-device".into(), device]);
        };
        add("root", &paths[0], "virtio-blk-pci,bootindex=0");
        add("data", &paths[1], "scsi-hd,bus=scsi.0");
        if let Some(state) = state {
            add(STATE, &state, "virtio-blk-pci");
            // The nodes of this machine are at 10.0.2.2 there.
            let nic = ["-netdev", "user,id=net", "-device"];
            arguments.extend(nic.map(str::to_owned));
            arguments.push("virtio-net-pci,netdev=net,id=nic".into());
        }
        arguments
    }
}

/// Where on the data disk nothing lies, in bytes: between its file system and the end.
pub(super) const FREE_AT: u64 = (DATA_MIB - 2) << 20;

fn listen(socket: &Path) -> String {
    format!("unix:{},server=on,wait=off", socket.display())
}

/// Waits until somebody listens there.
fn connect(socket: &Path) -> Result<UnixStream> {
    let until = Instant::now() + LISTENS;
    loop {
        match UnixStream::connect(socket) {
            Ok(stream) => return Ok(stream),
            Err(_) if Instant::now() < until => thread::sleep(LOOK),
            Err(error) => {
                return Err(error).with_context(|| format!("reaching {}", socket.display()));
            }
        }
    }
}
