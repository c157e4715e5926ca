//! What a user would pick instead: their servers on loopback, with keys made for this
//! run, and their commands.

use super::contest::timed;
use super::disks;
use super::place::cool;
use super::table::Run;
use crate::bench::link::{End, FAR, Network};
use crate::bench::running::Running;
use anyhow::{Context, Result, bail};
use std::fs::{self, File};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

/// Programs and the Debian packages that have them.
const NEEDED: [(&str, &str); 8] = [
    ("nbdcopy", "libnbd-bin"),
    ("nbdkit", "nbdkit"),
    ("certtool", "gnutls-bin"),
    ("ssh", "openssh-client"),
    ("ssh-keygen", "openssh-client"),
    ("sshd", "openssh-server"),
    ("rsync", "rsync"),
    ("dd", "coreutils"),
];

/// How long a server may take to listen.
const PATIENCE: Duration = Duration::from_secs(10);

/// A way to move a disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Peer {
    NbdCopy,
    DdOverSsh,
    RsyncWhole,
    RsyncUpdate,
}

impl Peer {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::NbdCopy => "nbdcopy over TLS",
            Self::DdOverSsh => "dd over ssh",
            Self::RsyncWhole => "rsync -S over ssh",
            Self::RsyncUpdate => "rsync --inplace over ssh",
        }
    }
}

/// What they need: a server of ssh, and certificates.
pub(super) struct Peers {
    place: PathBuf,
    _sshd: Running,
    port: u16,
}

impl Peers {
    /// Makes keys and starts what stays up; says what is not installed.
    pub(super) fn start(place: &Path) -> Result<Self> {
        let mut missing: Vec<&str> = NEEDED
            .iter()
            .filter(|(program, _)| path_of(program).is_none())
            .map(|(_, package)| *package)
            .collect();
        missing.dedup();
        if !missing.is_empty() {
            bail!("install the Debian packages {} first", missing.join(" "));
        }
        certificates(place)?;
        let port = free_port()?;
        Ok(Self {
            _sshd: ssh_server(place, port)?,
            place: place.to_owned(),
            port,
        })
    }

    /// Brings a disk to a new file, or an old copy of it up to date.
    pub(super) fn run(
        &self,
        peer: Peer,
        network: &Network,
        (source, target): (&Path, &Path),
        changes: Option<&[(u64, u32)]>,
    ) -> Result<Run> {
        if let Some(changes) = changes {
            fs::copy(source, target)?;
            disks::change(source, changes)?;
            cool(source)?;
            cool(target)?;
        }
        let run = match peer {
            Peer::NbdCopy => self.nbdcopy(network, source, target),
            Peer::DdOverSsh => self.dd(source, target),
            Peer::RsyncWhole => self.rsync(&["-S"], source, target),
            Peer::RsyncUpdate => {
                self.rsync(&["--inplace", "--no-whole-file", "-I"], source, target)
            }
        };
        let run = run.with_context(|| peer.name())?;
        anyhow::ensure!(
            disks::same(source, target)?,
            "{}: not the same",
            peer.name()
        );
        Ok(run)
    }

    fn nbdcopy(&self, network: &Network, source: &Path, target: &Path) -> Result<Run> {
        File::create(target)?.set_len(fs::metadata(source)?.len())?;
        let (host, port) = (network.far(), free_port()?);
        let pki = self.place.join("pki").display().to_string();
        let ready = target.with_extension("ready");
        let server = network
            .command(End::Far, "nbdkit")
            .args(["-f", "-i", host, "--tls=require"])
            .arg(format!("--port={port}"))
            .arg(format!("--tls-certificates={pki}"))
            // It is there once connections are taken.
            .arg(format!("--pidfile={}", ready.display()))
            .arg("file")
            .arg(target)
            .stdin(Stdio::null())
            .spawn()
            .context("starting nbdkit")?;
        let _server = Running(server);
        until("nbdkit", || ready.exists())?;
        let uri = format!("nbds://{host}:{port}/?tls-certificates={pki}");
        timed(|| {
            let mut copy = network.command(End::Near, "nbdcopy");
            run(copy.arg("--flush").arg(source).arg(uri))?;
            Ok(None)
        })
    }

    fn dd(&self, source: &Path, target: &Path) -> Result<Run> {
        timed(|| {
            let mut read = Command::new("dd")
                .arg(format!("if={}", source.display()))
                .args(["bs=1M", "status=none"])
                .stdout(Stdio::piped())
                .spawn()?;
            let bytes = read.stdout.take().context("dd has no output")?;
            let write = format!(
                "dd of={} bs=1M conv=fsync,sparse status=none",
                target.display()
            );
            let mut ssh = Command::new("ssh");
            run(ssh
                .args(self.ssh_options())
                .args(["127.0.0.1", &write])
                .stdin(bytes))?;
            anyhow::ensure!(read.wait()?.success(), "dd failed");
            Ok(None)
        })
    }

    fn rsync(&self, options: &[&str], source: &Path, target: &Path) -> Result<Run> {
        let shell = format!("ssh {}", self.ssh_options().join(" "));
        timed(|| {
            let mut rsync = Command::new("rsync");
            let said = run(rsync
                .args(options)
                .args(["--fsync", "--stats", "-e", &shell])
                .arg(source)
                .arg(format!("127.0.0.1:{}", target.display())))?;
            let line = said
                .lines()
                .find_map(|line| line.strip_prefix("Total bytes sent: "));
            Ok(line.and_then(|bytes| bytes.replace(',', "").parse().ok()))
        })
    }

    fn ssh_options(&self) -> Vec<String> {
        let file = |name: &str| self.place.join("ssh").join(name).display().to_string();
        let options = [
            "-p".into(),
            self.port.to_string(),
            "-i".into(),
            file("user"),
            "-oBatchMode=yes".into(),
            "-oStrictHostKeyChecking=no".into(),
            format!("-oUserKnownHostsFile={}", file("known")),
            "-oLogLevel=ERROR".into(),
            "-caes128-gcm@openssh.com".into(),
        ];
        options.into()
    }
}

/// Where a program is: servers are often not on a user's path.
fn path_of(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&path).chain(["/usr/sbin".into(), "/sbin".into()]);
    folders
        .map(|folder| folder.join(program))
        .find(|path| path.is_file())
}

/// Runs to its end; what it printed.
fn run(command: &mut Command) -> Result<String> {
    let ran = command.stderr(Stdio::piped()).output()?;
    if !ran.status.success() {
        bail!("{}", String::from_utf8_lossy(&ran.stderr).trim());
    }
    Ok(String::from_utf8_lossy(&ran.stdout).into_owned())
}

fn free_port() -> Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

/// Waits for what another program does when it is ready, and tells nobody.
fn until(what: &str, is_ready: impl Fn() -> bool) -> Result<()> {
    let until = Instant::now() + PATIENCE;
    while !is_ready() {
        anyhow::ensure!(Instant::now() < until, "{what} did not get ready");
        thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

/// An authority, and a certificate of the server, for this run alone.
fn certificates(place: &Path) -> Result<()> {
    let pki = place.join("pki");
    fs::create_dir(&pki)?;
    let certtool = |arguments: &[&str]| {
        run(Command::new("certtool").args(arguments).current_dir(&pki)).context("certtool")
    };
    fs::write(pki.join("ca.info"), "cn = bench\nca\ncert_signing_key\n")?;
    let names: String = FAR
        .iter()
        .map(|host| format!("ip_address = {host}\n"))
        .collect();
    let server = format!("cn = server\n{names}tls_www_server\nencryption_key\nsigning_key\n");
    fs::write(pki.join("server.info"), server)?;
    for key in ["ca-key.pem", "server-key.pem"] {
        certtool(&["--generate-privkey", "--outfile", key])?;
    }
    certtool(&[
        "--generate-self-signed",
        "--load-privkey=ca-key.pem",
        "--template=ca.info",
        "--outfile=ca-cert.pem",
    ])?;
    certtool(&[
        "--generate-certificate",
        "--load-privkey=server-key.pem",
        "--load-ca-certificate=ca-cert.pem",
        "--load-ca-privkey=ca-key.pem",
        "--template=server.info",
        "--outfile=server-cert.pem",
    ])?;
    Ok(())
}

fn ssh_server(place: &Path, port: u16) -> Result<Running> {
    let ssh = place.join("ssh");
    fs::create_dir(&ssh)?;
    for key in ["host", "user"] {
        let mut keygen = Command::new("ssh-keygen");
        run(keygen
            .args(["-q", "-t", "ed25519", "-N", "", "-f"])
            .arg(ssh.join(key)))?;
    }
    fs::copy(ssh.join("user.pub"), ssh.join("allowed"))?;
    let file = |name: &str| ssh.join(name).display().to_string();
    let settings = format!(
        "Port {port}\nListenAddress 127.0.0.1\nHostKey {}\nAuthorizedKeysFile {}\nPidFile none\nStrictModes no\nUsePAM no\nPermitRootLogin prohibit-password\n",
        file("host"),
        file("allowed"),
    );
    fs::write(ssh.join("config"), settings)?;
    // What its start script makes; without it, it says so.
    let _ = fs::create_dir("/run/sshd");
    let program = path_of("sshd").context("sshd is gone")?;
    let server = Command::new(program)
        .args(["-D", "-q", "-f"])
        .arg(ssh.join("config"))
        .stdin(Stdio::null())
        .spawn()
        .context("starting sshd")?;
    let server = Running(server);
    until("sshd", || TcpStream::connect(("127.0.0.1", port)).is_ok())?;
    Ok(server)
}
