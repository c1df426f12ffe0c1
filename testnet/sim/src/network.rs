//! Links between the simulated servers: ordered and reliable while up, and cut often.

use comity_protocol::link::FrameChannel;

use crate::random::Random;

/// Bytes on their way to one peer, beyond which a driver closes the link.
pub(crate) const BACKLOG_BYTES_MAX: usize = 64 * 1024 * 1024;

/// One connection of two servers.
#[derive(Clone, Debug, Default)]
pub(crate) struct Pair {
    /// Counts the connections; even while down.
    pub(crate) session: u64,
    pub(crate) up: bool,
    pub(crate) blocked_until: u64,
    pub(crate) slow_until: u64,
    delay_ms: u64,
    /// When the last frame of a direction and channel arrives.
    last: [[u64; 2]; 2],
    /// Bytes on their way, by direction.
    pub(crate) on_the_way: [usize; 2],
}

/// All connections.
#[derive(Debug)]
pub(crate) struct Network {
    pairs: Vec<Pair>,
    servers: usize,
}

impl Network {
    pub(crate) fn new(servers: usize, random: &mut Random) -> Self {
        let pair = |random: &mut Random| Pair {
            delay_ms: random.between(1, 120),
            ..Pair::default()
        };
        let pairs = (0..servers * servers).map(|_| pair(random)).collect();
        Self { pairs, servers }
    }

    pub(crate) fn pairs(&self) -> impl Iterator<Item = (usize, usize)> + use<> {
        let servers = self.servers;
        (0..servers).flat_map(move |a| (a + 1..servers).map(move |b| (a, b)))
    }

    pub(crate) fn pair(&mut self, a: usize, b: usize) -> &mut Pair {
        let (low, high) = (a.min(b), a.max(b));
        &mut self.pairs[low * self.servers + high]
    }

    pub(crate) fn is_up(&self, a: usize, b: usize) -> bool {
        self.pairs[a.min(b) * self.servers + a.max(b)].up
    }

    /// When a frame sent now arrives, in the order of its channel.
    pub(crate) fn arrival(
        &mut self,
        now: u64,
        from: usize,
        to: usize,
        channel: FrameChannel,
        bytes: usize,
        random: &mut Random,
    ) -> u64 {
        let (lane, way) = (
            usize::from(channel == FrameChannel::Bulk),
            usize::from(from > to),
        );
        let pair = self.pair(from, to);
        let mut delay = pair.delay_ms + random.below(1 + pair.delay_ms / 2);
        if now < pair.slow_until {
            // 20 kB a second, and a long way.
            delay += 400 + bytes as u64 / 20;
        }
        let at = (now + delay).max(pair.last[way][lane]);
        pair.last[way][lane] = at;
        pair.on_the_way[way] += bytes;
        at
    }

    pub(crate) fn arrived(&mut self, from: usize, to: usize, bytes: usize) {
        let way = usize::from(from > to);
        let pair = self.pair(from, to);
        pair.on_the_way[way] = pair.on_the_way[way].saturating_sub(bytes);
    }

    /// Breaks a connection with all that is on its way. False if there was none.
    pub(crate) fn cut(&mut self, a: usize, b: usize) -> bool {
        let pair = self.pair(a, b);
        pair.session += 1;
        pair.last = [[0; 2]; 2];
        pair.on_the_way = [0; 2];
        std::mem::take(&mut pair.up)
    }
}
