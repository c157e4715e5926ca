//! Plain TCP connections: what a link gives to a program that does nothing about it, and
//! with enough of them what it carries.
//! Both ends are this program again, each in its namespace, told by its environment what
//! to do.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::process::Stdio;
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use super::{End, Network};
use crate::bench::running::Running;

/// How this program is asked to be an end.
const ARGUMENTS: &[&str] = match cfg!(test) {
    true => &[
        "--exact",
        "--nocapture",
        "bench::link::tests::an_end_of_a_stream",
    ],
    false => &["bench", "stream"],
};
/// The address to listen on, or the one to dial and how many bytes to send there; and
/// over how many connections.
const LISTEN: &str = "DUNLIN_STREAM_LISTEN";
const DIAL: &str = "DUNLIN_STREAM_DIAL";
const BYTES: &str = "DUNLIN_STREAM_BYTES";
const CONNECTIONS: &str = "DUNLIN_STREAM_CONNECTIONS";

/// Single bytes that are answered before anything else is sent.
const PINGS: usize = 9;
/// What is written at once.
const PIECE: usize = 256 * 1024;

/// What was found.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(in crate::bench) struct Measured {
    /// The median of some bytes that went there and back.
    pub(in crate::bench) round_trip: Duration,
    /// From the first byte sent until the other end had the last one.
    pub(in crate::bench) seconds: f64,
}

/// Sends so many bytes from one end to the other, over so many connections at once.
pub(in crate::bench) fn measure(
    network: &Network,
    bytes: u64,
    connections: u32,
) -> Result<Measured> {
    let program = std::env::current_exe().context("finding this program")?;
    let command = |end| {
        let mut command = network.command(end, &program);
        command.args(ARGUMENTS).stdout(Stdio::piped());
        command.env(CONNECTIONS, connections.to_string());
        command
    };
    let mut receiver = command(End::Far).env(LISTEN, network.far()).spawn()?;
    let said = receiver.stdout.take().context("it has no output")?;
    let _receiver = Running(receiver);
    let mut lines = BufReader::new(said).lines().map_while(Result::ok);
    let address = lines.find_map(|line| value(&line, "address"));
    let address = address.context("the receiving end of a stream does not listen")?;
    let mut sender = command(End::Near);
    sender.env(DIAL, address).env(BYTES, bytes.to_string());
    let sent = sender.output().context("sending")?;
    let told = String::from_utf8_lossy(&sent.stderr);
    ensure!(sent.status.success(), "sending over a plain stream: {told}");
    let said = String::from_utf8_lossy(&sent.stdout);
    let figure = |name| {
        said.lines()
            .find_map(|line| value(line, name)?.parse().ok())
    };
    let measured = figure("round_trip").zip(figure("seconds"));
    let (round_trip, seconds) = measured.with_context(|| format!("no figures in {said:?}"))?;
    let round_trip = Duration::from_secs_f64(round_trip);
    Ok(Measured {
        round_trip,
        seconds,
    })
}

fn value(line: &str, name: &str) -> Option<String> {
    let value = line.strip_prefix(name)?.strip_prefix('=')?;
    Some(value.to_owned())
}

/// Is the end that the environment says; false where it says none.
pub(in crate::bench) fn be_an_end() -> Result<bool> {
    let setting = |name| std::env::var(name).ok();
    let connections = setting(CONNECTIONS).unwrap_or_default().parse();
    if let Some(host) = setting(LISTEN) {
        receive(&host, connections?)?;
    } else if let Some((address, bytes)) = setting(DIAL).zip(setting(BYTES)) {
        send(&address, bytes.parse().context(BYTES)?, connections?)?;
    } else {
        return Ok(false);
    }
    Ok(true)
}

/// The receiving end: says where it listens, and takes what comes.
fn receive(host: &str, connections: u32) -> Result<()> {
    let listener = TcpListener::bind((host, 0)).with_context(|| format!("listening on {host}"))?;
    let mut out = std::io::stdout().lock();
    // Of a line that others have begun this is none.
    writeln!(out, "\naddress={}", listener.local_addr()?)?;
    out.flush()?;
    each(connections, || take(listener.accept()?.0)).map(drop)
}

fn take(mut stream: TcpStream) -> Result<()> {
    stream.set_nodelay(true)?;
    let mut piece = vec![0; PIECE];
    for _ in 0..PINGS {
        stream.read_exact(&mut piece[..1])?;
        stream.write_all(&piece[..1])?;
    }
    while stream.read(&mut piece)? > 0 {}
    stream.write_all(&[1])?;
    Ok(())
}

/// The sending end: prints the round trip and the time that it took, in seconds.
fn send(address: &str, bytes: u64, connections: u32) -> Result<()> {
    let streams = each(connections, || open(address))?;
    let (round_trips, streams): (Vec<Duration>, Vec<TcpStream>) = streams.into_iter().unzip();
    let streams = Mutex::new(streams);
    let since = Instant::now();
    each(connections, || {
        let mut streams = streams.lock().unwrap_or_else(PoisonError::into_inner);
        let stream = streams.pop().context("there is one for each")?;
        drop(streams);
        fill(stream, bytes / u64::from(connections))
    })?;
    let seconds = since.elapsed().as_secs_f64();
    let round_trip = round_trips[0].as_secs_f64();
    let mut out = std::io::stdout().lock();
    writeln!(out, "\nround_trip={round_trip}\nseconds={seconds}")?;
    Ok(())
}

/// A connection, and its round trip: the median of several.
fn open(address: &str) -> Result<(Duration, TcpStream)> {
    let mut stream = TcpStream::connect(address).with_context(|| format!("dialling {address}"))?;
    stream.set_nodelay(true)?;
    let mut round_trips = vec![];
    for _ in 0..PINGS {
        let since = Instant::now();
        stream.write_all(&[0])?;
        stream.read_exact(&mut [0])?;
        round_trips.push(since.elapsed());
    }
    round_trips.sort_unstable();
    Ok((round_trips[PINGS / 2], stream))
}

/// Sends so many bytes and waits until they are there.
fn fill(mut stream: TcpStream, bytes: u64) -> Result<()> {
    let piece = vec![0; PIECE];
    let mut left = bytes;
    while left > 0 {
        let next = left.min(PIECE as u64);
        stream.write_all(&piece[..next as usize])?;
        left -= next;
    }
    stream.shutdown(Shutdown::Write)?;
    stream.read_exact(&mut [0]).context("it was not taken")
}

/// Does something so many times at once.
fn each<T: Send>(times: u32, work: impl Fn() -> Result<T> + Sync) -> Result<Vec<T>> {
    thread::scope(|scope| {
        let threads: Vec<_> = (0..times).map(|_| scope.spawn(&work)).collect();
        let done = threads.into_iter().map(|thread| match thread.join() {
            Ok(done) => done,
            Err(panic) => std::panic::resume_unwind(panic),
        });
        done.collect()
    })
}
