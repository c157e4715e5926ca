//! Gossip: messages without an answer, to every connected member at once. Each end
//! opens one stream for what it says; the other end only listens on it. Not what is
//! said, and not passing on: that is decided by who understands it.
//!
//! Nothing here waits for a slow peer: what it does not take in time makes room for
//! what is newer, and anti-entropy brings what was left out.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::{AsyncReadExt, AsyncWriteExt, StreamExt};
use libp2p::{PeerId, Stream, StreamProtocol};
use libp2p_stream::{Control, IncomingStreams};
use tokio::sync::{Notify, mpsc};
use tokio::task::AbortHandle;
use tokio::time::{sleep, timeout};

use super::frame::{Frame, FrameError, Frames, ReadError};
use super::peer::{PeerKey, id_of, key_of};
use super::{GOSSIP_LIMIT, gate};

/// Messages that wait to be written to one peer.
const QUEUE: usize = 64;
/// How long a stream may take to be opened and greeted.
const OPEN: Duration = Duration::from_secs(5);
/// Pause after a stream that could not be opened, or broke: the peer may not have let
/// us in yet.
const PAUSE: Duration = Duration::from_millis(200);
/// How long one message may take to be written before the stream is given up.
const WRITE: Duration = Duration::from_secs(20);

const FRAMES: Frames = Frames {
    limit: GOSSIP_LIMIT,
};
/// Sent by who listens: the stream was not lost on the way (see `streams`).
const GREETING: u8 = 1;

/// What the listening tasks hand on.
#[derive(Debug)]
pub(super) enum Heard {
    Message(PeerKey, Vec<u8>),
    Refused(PeerKey, FrameError),
}

/// What waits to be said to one peer.
#[derive(Debug, Default)]
struct Queue {
    waiting: Mutex<VecDeque<Arc<[u8]>>>,
    more: Notify,
}

impl Queue {
    fn push(&self, message: Arc<[u8]>) {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        if waiting.len() >= QUEUE {
            waiting.pop_front();
        }
        waiting.push_back(message);
        drop(waiting);
        self.more.notify_one();
    }

    async fn pop(&self) -> Arc<[u8]> {
        loop {
            match self.first() {
                Some(message) => return message,
                None => self.more.notified().await,
            }
        }
    }

    fn first(&self) -> Option<Arc<[u8]>> {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.pop_front()
    }
}

/// A task that ends with this value.
#[derive(Debug)]
struct Task(AbortHandle);

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// The streams on which we speak, one for each connected member.
pub(super) struct Gossip {
    control: Control,
    protocol: StreamProtocol,
    mouths: HashMap<PeerKey, (Arc<Queue>, Task)>,
}

impl Gossip {
    pub(super) fn new(control: Control, protocol: StreamProtocol) -> Self {
        Gossip {
            control,
            protocol,
            mouths: HashMap::new(),
        }
    }

    /// A member is connected.
    pub(super) fn opened(&mut self, peer: PeerKey) {
        let queue = Arc::new(Queue::default());
        let (control, protocol) = (self.control.clone(), self.protocol.clone());
        let speak = speak(control, id_of(&peer), protocol, queue.clone());
        let task = Task(tokio::spawn(speak).abort_handle());
        self.mouths.insert(peer, (queue, task));
    }

    /// It is gone.
    pub(super) fn closed(&mut self, peer: &PeerKey) {
        self.mouths.remove(peer);
    }

    /// Says it to every connected member but one.
    pub(super) fn say(&self, message: &Arc<[u8]>, not_to: Option<PeerKey>) {
        for (peer, (queue, _)) in &self.mouths {
            if Some(*peer) != not_to {
                queue.push(message.clone());
            }
        }
    }
}

/// Writes what waits for one peer, on one stream after another, until it is stopped.
async fn speak(mut control: Control, peer: PeerId, protocol: StreamProtocol, queue: Arc<Queue>) {
    loop {
        let open = async {
            let mut stream = control.open_stream(peer, protocol.clone()).await.ok()?;
            let mut greeting = [0];
            stream.read_exact(&mut greeting).await.ok()?;
            (greeting == [GREETING]).then_some(stream)
        };
        if let Ok(Some(mut stream)) = timeout(OPEN, open).await {
            while write(&mut stream, &queue).await {}
        }
        sleep(PAUSE).await;
    }
}

async fn write(stream: &mut Stream, queue: &Queue) -> bool {
    let message = queue.pop().await;
    let frame = Frame::Whole(message.to_vec());
    matches!(
        timeout(WRITE, FRAMES.write(stream, frame)).await,
        Ok(Ok(()))
    )
}

/// Listens to every member that opens a stream, for as long as the swarm lives: to as many
/// streams as it may have connections, since a key that is in two places opens one from
/// each, and both are to be heard.
pub(super) async fn listen(mut incoming: IncomingStreams, heard: mpsc::Sender<Heard>) {
    let mut ears: HashMap<PeerKey, VecDeque<Task>> = HashMap::new();
    while let Some((peer, stream)) = incoming.next().await {
        let Some(peer) = key_of(&peer) else { continue };
        if ears.len() >= gate::MAX_LINKS * super::redial::MAX_PEERS {
            ears.retain(|_, tasks| tasks.iter().any(|task| !task.0.is_finished()));
        }
        let task = tokio::spawn(read(peer, stream, heard.clone()));
        let tasks = ears.entry(peer).or_default();
        tasks.retain(|task| !task.0.is_finished());
        if tasks.len() >= gate::MAX_LINKS {
            tasks.pop_front();
        }
        tasks.push_back(Task(task.abort_handle()));
    }
}

/// Reads one message at a time, and no more before it was taken: a peer that floods
/// waits.
async fn read(peer: PeerKey, mut stream: Stream, heard: mpsc::Sender<Heard>) {
    if stream.write_all(&[GREETING]).await.is_err() || stream.flush().await.is_err() {
        return;
    }
    loop {
        let message = match FRAMES.read(&mut stream).await {
            Ok(message) => Heard::Message(peer, message),
            Err(ReadError::Frame(FrameError::Empty) | ReadError::Io(_)) => return,
            Err(ReadError::Frame(error)) => {
                // A closed queue means the swarm is gone.
                let _ = heard.send(Heard::Refused(peer, error)).await;
                return;
            }
        };
        if heard.send(message).await.is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use futures::executor::block_on;

    #[test]
    fn what_a_slow_peer_does_not_take_makes_room_for_what_is_newer() {
        let queue = Queue::default();
        let messages = (0..QUEUE + 3).map(|number| Arc::from(number.to_le_bytes()));
        for message in messages {
            queue.push(message);
        }
        let first = block_on(queue.pop());
        assert_eq!(*first, 3usize.to_le_bytes());
        assert_eq!(queue.waiting.lock().unwrap().len(), QUEUE - 1);
    }
}
