//! One peer: its link if it is up, and frames that wait for room.

use std::collections::VecDeque;

use bytes::Bytes;
use comity_links::{Channel, Links, SendError, StaticPeer};
use comity_protocol::{ids::ServerId, link::FrameChannel};

/// Bytes that wait for a peer's queue. The windows of the machine bound it far below; a peer whose
/// frames pass it is not reading.
const BACKLOG_BYTES_MAX: usize = 64 * 1024 * 1024;

pub(super) struct Peer {
    pub(super) server: ServerId,
    pub(super) at: StaticPeer,
    pub(super) name: String,
    pub(super) link: Option<u64>,
    pub(super) since_ms: u64,
    pub(super) last_error: Option<String>,
    backlog: [VecDeque<Bytes>; 2],
    backlog_bytes: usize,
}

const fn lane(channel: FrameChannel) -> (usize, Channel) {
    match channel {
        FrameChannel::Live => (0, Channel::Live),
        FrameChannel::Bulk => (1, Channel::Bulk),
    }
}

impl Peer {
    pub(super) fn new(server: ServerId, at: StaticPeer, name: String) -> Self {
        Self {
            server,
            at,
            name,
            link: None,
            since_ms: 0,
            last_error: None,
            backlog: [VecDeque::new(), VecDeque::new()],
            backlog_bytes: 0,
        }
    }

    pub(super) fn down(&mut self) {
        self.link = None;
        self.backlog = [VecDeque::new(), VecDeque::new()];
        self.backlog_bytes = 0;
    }

    /// Sends a frame, or keeps it in order until there is room. False if the peer does not read.
    pub(super) fn send(&mut self, links: &Links, channel: FrameChannel, bytes: Vec<u8>) -> bool {
        let (lane, channel) = lane(channel);
        let Some(link) = self.link else { return true };
        let bytes = Bytes::from(bytes);
        if self.backlog[lane].is_empty() {
            match links.try_send(self.at.key, link, channel, bytes.clone()) {
                Err(SendError::Full { .. }) => {}
                Err(error) => {
                    self.last_error = Some(error.to_string());
                    return true;
                }
                Ok(()) => return true,
            }
        }
        self.backlog_bytes += bytes.len();
        self.backlog[lane].push_back(bytes);
        self.backlog_bytes <= BACKLOG_BYTES_MAX
    }

    /// There is room again on a channel.
    pub(super) fn writable(&mut self, links: &Links, channel: Channel) {
        let lane = usize::from(channel == Channel::Bulk);
        let Some(link) = self.link else { return };
        while let Some(bytes) = self.backlog[lane].front() {
            if links
                .try_send(self.at.key, link, channel, bytes.clone())
                .is_err()
            {
                break;
            }
            self.backlog_bytes -= bytes.len();
            self.backlog[lane].pop_front();
        }
    }
}
