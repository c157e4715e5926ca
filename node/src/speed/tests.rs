//! Both ends of a speed check over a loopback socket, and ends that do as they like.
#![allow(clippy::unwrap_used)]

use super::*;
use libp2p::tcp::tokio::TcpStream as Io;
use std::pin::Pin;
use std::task::{Context, Poll};
use tokio::net::{TcpListener, TcpStream};

/// No wait in these tests is longer.
const DEADLINE: Duration = Duration::from_secs(60);

async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    let ended = timeout(DEADLINE, future).await;
    ended.unwrap_or_else(|_| panic!("waited in vain for {what}"))
}

async fn pair() -> (Io, Io) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (near, far) = tokio::join!(TcpStream::connect(address), listener.accept());
    let (near, far) = (near.unwrap(), far.unwrap().0);
    near.set_nodelay(true).unwrap();
    far.set_nodelay(true).unwrap();
    (Io(near), Io(far))
}

fn still() -> (watch::Sender<bool>, Moving) {
    watch::channel(false)
}

/// Takes a stream as a node does that lets everybody check.
async fn answerer(mut stream: Io, moving: Moving) -> Result<(), SpeedError> {
    let Begins::Check(open) = begins(&mut stream).await.unwrap() else {
        panic!("it is a speed check");
    };
    answer(stream, open.unwrap(), moving).await
}

async fn hello(stream: &mut Io, frame: &ToAnswerer) {
    stream.write_all(&SPEED_HELLO).await.unwrap();
    say(stream, frame).await.unwrap();
}

#[tokio::test]
async fn a_check_measures_round_trips_and_both_ways() {
    let (near, far) = pair().await;
    let (_near_moves, near_moving) = still();
    let (_far_moves, far_moving) = still();
    let both = async { tokio::join!(ask(near, 400, near_moving), answerer(far, far_moving)) };
    let (measured, answered) = soon("the check", both).await;
    answered.unwrap();
    let measured = measured.unwrap();
    assert_eq!(measured.round_trips.len(), PINGS as usize);
    assert!(measured.round_trips.is_sorted() && measured.round_trips[0] > 0);
    for flow in [measured.there, measured.back] {
        assert!(flow.bytes_per_sec() > 0, "{flow:?}");
        assert!(flow.bytes < flow.bytes_in_all, "the start does not count");
        // Half of the time each way, and the start does not count; a machine under load
        // may see the first of it late.
        assert!((1..=200_000).contains(&flow.micros), "{flow:?}");
    }
    assert!(measured.clock_ahead_millis.abs() < 10_000);
}

#[tokio::test]
async fn a_stream_that_begins_otherwise_is_given_back_as_it_began() {
    let (mut near, mut far) = pair().await;
    near.write_all(&[1; 20]).await.unwrap();
    let begun = soon("its first bytes", begins(&mut far)).await.unwrap();
    assert!(matches!(begun, Begins::Other(head) if head == [1; PREFIX_LEN]));
    let mut rest = [0; 12];
    far.read_exact(&mut rest).await.unwrap();
    assert_eq!(rest, [1; 12]);
    drop(near);
    assert!(begins(&mut far).await.is_err());
}

/// A stream at whose end blocks begin to move once so much was read from it.
struct Trips {
    io: Io,
    left: usize,
    moves: watch::Sender<bool>,
}

impl AsyncRead for Trips {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        let read = Pin::new(&mut self.io).poll_read(cx, buf);
        if let Poll::Ready(Ok(count)) = &read {
            self.left = self.left.saturating_sub(*count);
            self.moves.send_replace(self.left == 0);
        }
        read
    }
}

impl AsyncWrite for Trips {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_close(cx)
    }
}

#[tokio::test]
async fn blocks_that_begin_to_move_where_it_was_asked_for_end_the_check() {
    let (near, far) = pair().await;
    let (moves, moving) = still();
    let (_far_moves, far_moving) = still();
    // Some of the pongs.
    let (io, left) = (near, 100);
    let asking = ask(Trips { io, left, moves }, MAX_SPEED_MILLIS, moving);
    let both = async { tokio::join!(asking, answerer(far, far_moving)) };
    let (asked, answered) = soon("its end", both).await;
    assert!(matches!(asked, Err(SpeedError::MovingBlocks)), "{asked:?}");
    assert!(matches!(answered, Err(SpeedError::Cut(_))), "{answered:?}");
}

#[tokio::test]
async fn blocks_that_begin_to_move_where_data_goes_end_the_check() {
    let (near, mut far) = pair().await;
    let (moves, moving) = still();
    let (_near_moves, near_moving) = still();
    let answering = async {
        let Begins::Check(Ok(open)) = begins(&mut far).await.unwrap() else {
            panic!("it is a speed check");
        };
        let (io, left) = (far, 1 << 20);
        answer(Trips { io, left, moves }, open, moving).await
    };
    let both = async { tokio::join!(ask(near, MAX_SPEED_MILLIS, near_moving), answering) };
    let (asked, answered) = soon("its end", both).await;
    let code = SpeedRefusal::MovingBlocks;
    assert!(
        matches!(asked, Err(SpeedError::Refused(told)) if told == code),
        "{asked:?}"
    );
    assert!(
        matches!(answered, Err(SpeedError::MovingBlocks)),
        "{answered:?}"
    );
}

#[tokio::test]
async fn blocks_that_begin_to_move_while_the_answerer_sends_end_the_check_too() {
    let (mut near, far) = pair().await;
    let (moves, moving) = still();
    let answering = tokio::spawn(answerer(far, moving));
    hello(
        &mut near,
        &ToAnswerer::Open {
            millis: MAX_SPEED_MILLIS,
        },
    )
    .await;
    say(&mut near, &ToAnswerer::EndData).await.unwrap();
    say(&mut near, &ToAnswerer::AskData).await.unwrap();
    let mut incoming = Incoming::new(near, MAX_SPEED_MILLIS);
    let told = soon("a refusal", async {
        loop {
            match incoming.next::<ToAsker>().await.unwrap() {
                ToAsker::Data => moves.send_replace(true),
                ToAsker::Refused { code } => return code,
                _ => continue,
            };
        }
    });
    assert_eq!(told.await, SpeedRefusal::MovingBlocks);
    drop(incoming);
    let answered = soon("its end", answering).await.unwrap();
    assert!(matches!(answered, Err(SpeedError::MovingBlocks)));
}

#[tokio::test]
async fn a_check_that_is_refused_or_cut_says_so() {
    let (near, far) = pair().await;
    let (_moves, moving) = still();
    let refusing = refuse(far, SpeedRefusal::Busy);
    let (asked, ()) = tokio::join!(ask(near, 1000, moving.clone()), refusing);
    assert!(matches!(
        asked,
        Err(SpeedError::Refused(SpeedRefusal::Busy))
    ));

    let (near, mut far) = pair().await;
    let cutting = async {
        let _ = begins(&mut far).await;
        say(&mut far, &ToAsker::Opened { at_millis: 1 })
            .await
            .unwrap();
        drop(far);
    };
    let (asked, ()) = tokio::join!(ask(near, 1000, moving), cutting);
    assert!(matches!(asked, Err(SpeedError::Cut(_))), "{asked:?}");
}

#[tokio::test]
async fn of_a_check_that_is_refused_a_mebibyte_is_taken_and_no_more() {
    let (mut near, far) = pair().await;
    let (moves, _) = still();
    let left = LINGER_BYTES as usize + 1;
    let mut taken = moves.subscribe();
    let refusing = async {
        let io = Trips {
            io: far,
            left,
            moves,
        };
        refuse(io, SpeedRefusal::Busy).await;
    };
    let sending = async {
        let data = vec![0; MAX_SPEED_PAYLOAD];
        // Until the other end is closed.
        while near.write_all(&data).await.is_ok() {}
    };
    soon("its end", async { tokio::join!(refusing, sending) }).await;
    assert!(!*taken.borrow_and_update(), "more was taken");
}

/// What the answerer tells and ends with when it is sent this after a check was opened.
async fn after(frames: &[(ToAnswerer, usize)]) -> (ToAsker, SpeedError) {
    let (mut near, far) = pair().await;
    let (_moves, moving) = still();
    let answering = tokio::spawn(answerer(far, moving));
    hello(&mut near, &ToAnswerer::Open { millis: 1000 }).await;
    for (frame, payload) in frames {
        let mut bytes = frame.encode(*payload).unwrap();
        bytes.resize(bytes.len() + payload, 0);
        near.write_all(&bytes).await.unwrap();
    }
    let last = soon("the refusal", async {
        loop {
            match next::<ToAsker, _>(&mut near).await.unwrap() {
                ToAsker::Opened { .. } | ToAsker::Pong { .. } | ToAsker::Received(_) => {}
                frame => return frame,
            }
        }
    });
    let last = last.await;
    drop(near);
    let ended = soon("its end", answering).await.unwrap();
    (last, ended.unwrap_err())
}

#[tokio::test]
async fn frames_out_of_turn_and_pings_without_end_are_refused() {
    let pings = |count| vec![(ToAnswerer::Ping { number: 1 }, 0); count];
    let open = ToAnswerer::Open { millis: 1000 };
    for frames in [
        vec![(open, 0)],
        vec![(ToAnswerer::AskData, 0)],
        vec![(ToAnswerer::EndData, 0), (ToAnswerer::EndData, 0)],
        vec![(ToAnswerer::EndData, 0), (ToAnswerer::Data, 5)],
        pings(MAX_PINGS as usize + 1),
    ] {
        let (told, ended) = after(&frames).await;
        let code = SpeedRefusal::BadFrame;
        assert_eq!(told, ToAsker::Refused { code }, "{frames:?}");
        assert!(ended.is_malformed(), "{frames:?}");
    }
}

#[tokio::test]
async fn more_data_than_a_check_may_have_ends_it() {
    let (near, mut far) = pair().await;
    let mut incoming = Incoming::new(near, 1000);
    // As if almost all had come.
    incoming.meter.note(0, MAX_SPEED_BYTES - 5);
    let data = ToAnswerer::Data;
    for (payload, is_taken) in [(5, true), (1, false)] {
        let mut bytes = data.encode(payload).unwrap();
        bytes.resize(bytes.len() + payload, 0);
        far.write_all(&bytes).await.unwrap();
        let next = soon("a frame", incoming.next::<ToAnswerer>()).await;
        assert_eq!(next.is_ok(), is_taken, "{next:?}");
    }
}

#[tokio::test]
async fn no_more_is_sent_than_a_check_may_have() {
    let (mut near, far) = pair().await;
    let (_moves, moving) = still();
    let (data, end) = (ToAnswerer::Data, ToAnswerer::EndData);
    let share = Share {
        millis: MAX_SPEED_MILLIS,
        bytes: 3 * MAX_SPEED_PAYLOAD as u64 + 1,
    };
    let sending = pour(&mut near, &data, &end, share, &moving);
    let mut incoming = Incoming::new(far, MAX_SPEED_MILLIS);
    let taking = async {
        while incoming.next::<ToAnswerer>().await.unwrap() != end {}
        incoming.meter.bytes_in_all()
    };
    let (sent, taken) = soon("all of it", async { tokio::join!(sending, taking) }).await;
    sent.unwrap();
    assert_eq!(taken, 3 * MAX_SPEED_PAYLOAD as u64);
}

#[tokio::test]
async fn a_check_of_no_time_or_too_much_is_refused() {
    for millis in [0, MAX_SPEED_MILLIS + 1] {
        let (mut near, far) = pair().await;
        let (_moves, moving) = still();
        let answering = tokio::spawn(answerer(far, moving));
        hello(&mut near, &ToAnswerer::Open { millis }).await;
        let told = soon("the refusal", next::<ToAsker, _>(&mut near)).await;
        let code = SpeedRefusal::BadFrame;
        assert_eq!(told.unwrap(), ToAsker::Refused { code });
        drop(near);
        assert!(soon("its end", answering).await.unwrap().is_err());
    }
}

#[tokio::test]
async fn an_answerer_that_says_what_it_should_not_fails_the_check() {
    for frame in [ToAsker::EndData, ToAsker::Pong { number: 5 }] {
        let (near, mut far) = pair().await;
        let (_moves, moving) = still();
        let answering = async {
            let _ = begins(&mut far).await;
            say(&mut far, &ToAsker::Opened { at_millis: 1 })
                .await
                .unwrap();
            say(&mut far, &frame).await.unwrap();
            far
        };
        let (asked, _far) = tokio::join!(ask(near, 1000, moving), answering);
        assert!(asked.unwrap_err().is_malformed(), "{frame:?}");
    }
}
