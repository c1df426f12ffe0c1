//! The tasks of one link. None of them runs inside the swarm loop, and each ends with the link.

use std::sync::Arc;

use libp2p::Stream;
use tokio::{
    sync::{Mutex, Notify, mpsc, watch},
    task::JoinSet,
    time::{Instant, sleep_until},
};

use crate::{
    behaviour::Wires,
    board::{Direction, Entry},
    driver::Note,
    event::{Channel, Feed, FrameFeed, LinkEvent},
    frame::{FrameReader, ReadError, write_frames},
    key::PeerKey,
    limits::DRAIN_TIMEOUT,
    outbox::Outboxes,
    reason::with_causes,
};

/// What the swarm loop wants of a link.
#[derive(Clone, Debug)]
pub(crate) enum Stop {
    Run,
    /// Take no more frames, write what is queued, end the substreams, wait for the peer to close.
    Drain,
    /// The connection is gone; deliver what has arrived, for a moment.
    Gone(String),
    /// End now.
    Cut(String),
}

/// Everything a link needs; [`Link::run`] is its life.
#[derive(Debug)]
pub(crate) struct Link {
    pub(crate) peer: PeerKey,
    pub(crate) number: u64,
    pub(crate) direction: Direction,
    pub(crate) outbound: Stream,
    pub(crate) inbound: Stream,
    pub(crate) wires: Wires,
    pub(crate) entry: Arc<Entry>,
    pub(crate) feed: Feed,
    /// Held from before `Up` until after `Down`, so that a peer's links follow each other even
    /// when the consumer is slow to take the events of the last one.
    pub(crate) turn: Arc<Mutex<()>>,
    pub(crate) stop: watch::Receiver<Stop>,
    pub(crate) notes: mpsc::Sender<Note>,
}

impl Link {
    pub(crate) async fn run(mut self) {
        let (peer, link) = (self.peer, self.number);
        let turn = Arc::clone(&self.turn);
        let _turn = tokio::select! {
            turn = turn.lock() => turn,
            reason = stopped(&mut self.stop) => return ended(&self.notes, peer, link, reason).await,
        };
        let outboxes = Arc::new(Outboxes::new(link));
        // Before `Up` is seen: whoever sees it may send at once.
        self.entry.link_up(Arc::clone(&outboxes), self.direction);
        let announced = tokio::select! {
            sent = self.feed.send(LinkEvent::Up { peer, link }) => {
                sent.map_err(|_| "nobody takes the events".to_owned())
            }
            reason = stopped(&mut self.stop) => Err(reason),
        };
        let (entry, feed, notes) = (
            Arc::clone(&self.entry),
            self.feed.clone(),
            self.notes.clone(),
        );
        match announced {
            Ok(()) => {
                tracing::info!(%peer, link, direction = ?self.direction, "link is up");
                let reason = self.serve(outboxes).await;
                tracing::info!(%peer, link, %reason, "link is down");
                entry.link_down();
                // The swarm loop first: redialling must not wait for the consumer.
                ended(&notes, peer, link, reason.clone()).await;
                let _ = feed.send(LinkEvent::Down { peer, link, reason }).await;
            }
            Err(reason) => {
                entry.link_down();
                ended(&notes, peer, link, reason).await;
            }
        }
    }

    /// Moves frames until the link is over, and returns why. No task of it is left then.
    async fn serve(self, outboxes: Arc<Outboxes>) -> String {
        let writable = Arc::new([Notify::new(), Notify::new()]);
        let reader = |channel| Reader {
            entry: Arc::clone(&self.entry),
            frames: FrameFeed::new(self.feed.clone(), self.peer, self.number, channel),
            channel,
        };
        let writer = |channel| Writer {
            outboxes: Arc::clone(&outboxes),
            entry: Arc::clone(&self.entry),
            writable: Arc::clone(&writable),
            channel,
        };
        let (live, bulk) = (Channel::Live, Channel::Bulk);
        let (opener, mut wires) = (self.wires.opener.clone(), self.wires);
        let mut tasks = JoinSet::new();
        tasks.spawn(reader(live).run(self.inbound));
        tasks.spawn(writer(live).run(self.outbound));
        let (reader, writer) = (reader(bulk), writer(bulk));
        tasks.spawn(async move {
            match wires.accept(bulk).await {
                Ok(stream) => reader.run(stream).await,
                Err(error) => End::Read(error.to_string()),
            }
        });
        tasks.spawn(async move {
            match opener.open(bulk).await {
                Ok(stream) => writer.run(stream).await,
                Err(error) => End::Unwritten(error.to_string()),
            }
        });
        let mut supervisor = Supervisor {
            peer: self.peer,
            number: self.number,
            feed: self.feed,
            stop: self.stop,
            outboxes,
            writable,
            reading: 2,
            ending: None,
            draining: false,
        };
        let reason = supervisor.watch(&mut tasks).await;
        tasks.shutdown().await;
        reason
    }
}

async fn ended(notes: &mpsc::Sender<Note>, peer: PeerKey, link: u64, reason: String) {
    // Without a swarm loop nobody needs to know.
    let _ = notes.send(Note::Ended { peer, link, reason }).await;
}

/// Waits for any wish but to run; a link that is not up yet has nothing to drain.
async fn stopped(stop: &mut watch::Receiver<Stop>) -> String {
    let wish = stop.wait_for(|stop| !matches!(stop, Stop::Run)).await;
    match wish.as_deref() {
        Ok(Stop::Gone(reason) | Stop::Cut(reason)) => reason.clone(),
        _ => SHUT_DOWN.to_owned(),
    }
}

const SHUT_DOWN: &str = "shut down";

/// Waits for the four tasks and for wishes of the swarm loop.
struct Supervisor {
    peer: PeerKey,
    number: u64,
    feed: Feed,
    stop: watch::Receiver<Stop>,
    outboxes: Arc<Outboxes>,
    writable: Arc<[Notify; 2]>,
    /// Readers that have not come to their end.
    reading: usize,
    /// Why the link is over, and until when the remaining readers may go on.
    ending: Option<(String, Instant)>,
    draining: bool,
}

impl Supervisor {
    async fn watch(&mut self, tasks: &mut JoinSet<End>) -> String {
        let [live, bulk] = Channel::ALL;
        let writable = Arc::clone(&self.writable);
        loop {
            let until = self.ending.as_ref().map(|(_, until)| *until);
            tokio::select! {
                changed = self.stop.changed() => {
                    let wish = match changed {
                        Ok(()) => self.stop.borrow_and_update().clone(),
                        Err(_) => Stop::Cut(SHUT_DOWN.to_owned()),
                    };
                    match wish {
                        Stop::Run => {}
                        Stop::Drain => {
                            self.draining = true;
                            self.outboxes.close();
                        }
                        Stop::Gone(reason) => self.end_soon(reason),
                        Stop::Cut(reason) => return reason,
                    }
                }
                Some(end) = tasks.join_next() => {
                    let end = end.unwrap_or_else(|error| End::Failed(format!("task: {error}")));
                    match end {
                        End::Read(reason) => {
                            self.reading -= 1;
                            self.end_soon(reason);
                        }
                        End::Written => {}
                        End::Unwritten(reason) => self.end_soon(reason),
                        End::Failed(reason) => return reason,
                    }
                }
                () = pause_until(until) => return self.reason(),
                () = writable[0].notified() => if let Some(reason) = self.tell(live).await {
                    return reason;
                },
                () = writable[1].notified() => if let Some(reason) = self.tell(bulk).await {
                    return reason;
                },
            }
            if self.reading == 0 {
                return self.reason();
            }
        }
    }

    /// The first reason stands: what follows is its consequence.
    fn end_soon(&mut self, reason: String) {
        let reason = if self.draining {
            SHUT_DOWN.to_owned()
        } else {
            reason
        };
        self.ending
            .get_or_insert_with(|| (reason, Instant::now() + DRAIN_TIMEOUT));
    }

    fn reason(&mut self) -> String {
        self.ending
            .take()
            .map_or_else(|| SHUT_DOWN.to_owned(), |(reason, _)| reason)
    }

    /// Says that a queue has room. A slow consumer must not keep the link from ending: the wish
    /// to stop is only looked at here, so that the loop above still finds it.
    async fn tell(&mut self, channel: Channel) -> Option<String> {
        let (peer, link) = (self.peer, self.number);
        let mut stop = self.stop.clone();
        tokio::select! {
            sent = self.feed.send(LinkEvent::Writable { peer, link, channel }) => {
                sent.err().map(|_| "nobody takes the events".to_owned())
            }
            _ = stop.wait_for(|stop| !matches!(stop, Stop::Run)) => None,
        }
    }
}

async fn pause_until(at: Option<Instant>) {
    match at {
        Some(at) => sleep_until(at).await,
        None => std::future::pending().await,
    }
}

/// How one of the four tasks ended.
enum End {
    /// Nothing more comes on a channel: the peer ended it, or the connection is lost.
    Read(String),
    /// Our side is written and ended.
    Written,
    /// The connection is lost here; a reader may still have something.
    Unwritten(String),
    /// What the peer sent cannot be read on.
    Failed(String),
}

fn lost(error: &std::io::Error) -> String {
    format!("connection lost: {}", with_causes(error))
}

struct Reader {
    entry: Arc<Entry>,
    frames: FrameFeed,
    channel: Channel,
}

impl Reader {
    async fn run(self, stream: Stream) -> End {
        let mut reader = FrameReader::new(stream);
        loop {
            match reader.next().await {
                Ok(Some(bytes)) => {
                    self.entry.count_in(bytes.len());
                    if self.frames.send(bytes).await.is_err() {
                        return End::Failed("nobody takes the frames".to_owned());
                    }
                }
                Ok(None) => return End::Read("closed by the peer".to_owned()),
                Err(ReadError::Io(error)) => return End::Read(lost(&error)),
                Err(error) => return End::Failed(format!("{:?} channel: {error}", self.channel)),
            }
        }
    }
}

struct Writer {
    outboxes: Arc<Outboxes>,
    entry: Arc<Entry>,
    writable: Arc<[Notify; 2]>,
    channel: Channel,
}

impl Writer {
    async fn run(self, stream: Stream) -> End {
        let outbox = self.outboxes.of(self.channel);
        let written = |frames, bytes| self.entry.count_out(frames, bytes);
        let writable = || self.writable[self.channel.index()].notify_one();
        match write_frames(stream, outbox, written, writable).await {
            Ok(()) => End::Written,
            Err(error) => End::Unwritten(lost(&error)),
        }
    }
}
