//! Counters of the gateway: what an operator watches, and what tests assert instead of guessing.

use std::{
    fmt::Write,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use comity_protocol::session::{Code, Request};

use super::session::End;

/// How a session's frames travel.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Transport {
    /// QUIC, DAG-CBOR.
    Quic,
    /// WebSocket, DAG-CBOR.
    WebSocketCbor,
    /// WebSocket, JSON.
    WebSocketJson,
}

impl Transport {
    /// Every transport there is.
    pub const ALL: [Self; 3] = [Self::Quic, Self::WebSocketCbor, Self::WebSocketJson];

    const fn as_str(self) -> &'static str {
        match self {
            Self::Quic => "quic",
            Self::WebSocketCbor => "websocket_cbor",
            Self::WebSocketJson => "websocket_json",
        }
    }
}

const KINDS: [&str; 19] = [
    "begin",
    "hello",
    "ping",
    "send",
    "create",
    "open_direct",
    "conversations",
    "members",
    "history",
    "item",
    "identity",
    "lookup",
    "grantee",
    "delivery",
    "state",
    "next_root",
    "sign_root",
    "voided",
    "own",
];

const fn kind(request: &Request) -> usize {
    match request {
        Request::Begin { .. } => 0,
        Request::Hello(_) => 1,
        Request::Ping => 2,
        Request::Send { .. } => 3,
        Request::Create { .. } => 4,
        Request::OpenDirect { .. } => 5,
        Request::Conversations { .. } => 6,
        Request::Members { .. } => 7,
        Request::History { .. } => 8,
        Request::Item { .. } => 9,
        Request::Identity { .. } => 10,
        Request::Lookup { .. } => 11,
        Request::Grantee { .. } => 12,
        Request::Delivery { .. } => 13,
        Request::State { .. } => 14,
        Request::NextRoot { .. } => 15,
        Request::SignRoot { .. } => 16,
        Request::Voided { .. } => 17,
        Request::Own { .. } => 18,
    }
}

/// Counters since the start, and gauges of what is there now. All may be read at any time.
#[derive(Debug)]
pub struct Metrics {
    /// Sessions there are, by transport, those before their `hello` included.
    pub(super) open: [AtomicU64; 3],
    /// Sessions ever begun, by transport.
    pub(super) opened: [AtomicU64; 3],
    /// Sessions whose client left in good order.
    left: AtomicU64,
    /// Sessions whose connection broke.
    lost: AtomicU64,
    /// Sessions the server closed, by code.
    closed: Vec<AtomicU64>,
    /// Requests refused, by code; over HTTP too.
    refused: Vec<AtomicU64>,
    /// Requests by kind.
    requests: [AtomicU64; KINDS.len()],
    /// Frames that clients sent.
    pub(super) frames_in: AtomicU64,
    /// Frames put into outbound buffers.
    pub(super) frames_out: AtomicU64,
    /// Batches pulled from the home's updates.
    pub(super) batches: AtomicU64,
    /// Connections there are, of all kinds, sessions or not.
    pub(super) connections: AtomicU64,
    /// Connections refused because there were too many.
    pub(super) turned_away: AtomicU64,
    /// Connections that failed before they carried anything: garbage, scanners, time-outs.
    pub(super) failed_handshakes: AtomicU64,
}

impl Default for Metrics {
    fn default() -> Self {
        let by_code = || Code::ALL.iter().map(|_| AtomicU64::new(0)).collect();
        Self {
            open: Default::default(),
            opened: Default::default(),
            left: AtomicU64::new(0),
            lost: AtomicU64::new(0),
            closed: by_code(),
            refused: by_code(),
            requests: Default::default(),
            frames_in: AtomicU64::new(0),
            frames_out: AtomicU64::new(0),
            batches: AtomicU64::new(0),
            connections: AtomicU64::new(0),
            turned_away: AtomicU64::new(0),
            failed_handshakes: AtomicU64::new(0),
        }
    }
}

impl Metrics {
    /// Sessions there are, of all transports.
    #[must_use]
    pub fn sessions(&self) -> u64 {
        self.open.iter().map(|count| count.load(Relaxed)).sum()
    }

    /// Connections there are, of all kinds.
    #[must_use]
    pub fn connections(&self) -> u64 {
        self.connections.load(Relaxed)
    }

    /// Sessions whose client left in good order.
    #[must_use]
    pub fn left(&self) -> u64 {
        self.left.load(Relaxed)
    }

    /// Sessions whose connection broke.
    #[must_use]
    pub fn lost(&self) -> u64 {
        self.lost.load(Relaxed)
    }

    /// Batches pulled from the home's updates, by all sessions together.
    #[must_use]
    pub fn batches(&self) -> u64 {
        self.batches.load(Relaxed)
    }

    /// Sessions that the server closed with this code.
    #[must_use]
    pub fn closed(&self, code: Code) -> u64 {
        by_code(&self.closed, code).map_or(0, |count| count.load(Relaxed))
    }

    /// Requests refused with this code.
    #[must_use]
    pub fn refused(&self, code: Code) -> u64 {
        by_code(&self.refused, code).map_or(0, |count| count.load(Relaxed))
    }

    /// The counters as Prometheus text.
    #[must_use]
    pub fn prometheus(&self) -> String {
        let mut text = Text::default();
        let transports = || Transport::ALL.iter().map(|transport| transport.as_str());
        let codes = || Code::ALL.iter().map(|code| code.as_str());
        text.labelled("sessions", "gauge", "transport", transports(), &self.open);
        text.labelled(
            "sessions_opened_total",
            "counter",
            "transport",
            transports(),
            &self.opened,
        );
        text.labelled(
            "sessions_closed_total",
            "counter",
            "reason",
            codes(),
            &self.closed,
        );
        text.line("sessions_closed_total", "reason", "left", &self.left);
        text.line("sessions_closed_total", "reason", "lost", &self.lost);
        let kinds = KINDS.iter().copied();
        text.labelled("requests_total", "counter", "kind", kinds, &self.requests);
        text.labelled("refused_total", "counter", "code", codes(), &self.refused);
        text.plain("frames_received_total", "counter", &self.frames_in);
        text.plain("frames_sent_total", "counter", &self.frames_out);
        text.plain("update_batches_total", "counter", &self.batches);
        text.plain("connections", "gauge", &self.connections);
        text.plain(
            "connections_turned_away_total",
            "counter",
            &self.turned_away,
        );
        text.plain(
            "handshakes_failed_total",
            "counter",
            &self.failed_handshakes,
        );
        text.0
    }

    pub(super) fn count_request(&self, request: &Request) {
        self.requests[kind(request)].fetch_add(1, Relaxed);
    }

    pub(super) fn count_refused(&self, code: Code) {
        if let Some(count) = by_code(&self.refused, code) {
            count.fetch_add(1, Relaxed);
        }
    }

    pub(super) fn count_end(&self, end: &End) {
        let count = match end {
            End::Left => Some(&self.left),
            End::Lost => Some(&self.lost),
            End::Said(error) => by_code(&self.closed, error.code),
        };
        if let Some(count) = count {
            count.fetch_add(1, Relaxed);
        }
    }
}

fn by_code(counts: &[AtomicU64], code: Code) -> Option<&AtomicU64> {
    counts.get(Code::ALL.iter().position(|known| *known == code)?)
}

#[derive(Default)]
struct Text(String);

// Writing to a string cannot fail, so the results below carry nothing.
impl Text {
    fn kind(&mut self, name: &str, kind: &str) {
        let _ = writeln!(self.0, "# TYPE comity_gateway_{name} {kind}");
    }

    fn plain(&mut self, name: &str, kind: &str, value: &AtomicU64) {
        self.kind(name, kind);
        let _ = writeln!(self.0, "comity_gateway_{name} {}", value.load(Relaxed));
    }

    fn line(&mut self, name: &str, label: &str, value: &str, count: &AtomicU64) {
        let count = count.load(Relaxed);
        let _ = writeln!(
            self.0,
            "comity_gateway_{name}{{{label}=\"{value}\"}} {count}"
        );
    }

    fn labelled<'a>(
        &mut self,
        name: &str,
        kind: &str,
        label: &str,
        values: impl Iterator<Item = &'a str>,
        counts: &[AtomicU64],
    ) {
        self.kind(name, kind);
        for (value, count) in values.zip(counts) {
            self.line(name, label, value, count);
        }
    }
}

/// One more in a gauge for as long as this lives.
#[derive(Debug)]
pub(super) struct Counted {
    metrics: Arc<Metrics>,
    gauge: fn(&Metrics) -> &AtomicU64,
}

impl Counted {
    pub(super) fn new(metrics: &Arc<Metrics>, gauge: fn(&Metrics) -> &AtomicU64) -> Self {
        gauge(metrics).fetch_add(1, Relaxed);
        Self {
            metrics: Arc::clone(metrics),
            gauge,
        }
    }

    pub(super) fn connection(metrics: &Arc<Metrics>) -> Self {
        Self::new(metrics, |metrics| &metrics.connections)
    }

    pub(super) fn session(metrics: &Arc<Metrics>, transport: Transport) -> Self {
        metrics.opened[transport as usize].fetch_add(1, Relaxed);
        Self::new(
            metrics,
            match transport {
                Transport::Quic => |metrics| &metrics.open[0],
                Transport::WebSocketCbor => |metrics| &metrics.open[1],
                Transport::WebSocketJson => |metrics| &metrics.open[2],
            },
        )
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        (self.gauge)(&self.metrics).fetch_sub(1, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_is_a_name_labels_and_a_number() {
        let metrics = Arc::new(Metrics::default());
        let session = Counted::session(&metrics, Transport::WebSocketJson);
        metrics.count_request(&Request::Ping);
        metrics.count_refused(Code::Malformed);
        metrics.count_end(&End::said(Code::TooSlow, ""));
        let text = metrics.prometheus();
        for line in [
            "comity_gateway_sessions{transport=\"websocket_json\"} 1",
            "comity_gateway_requests_total{kind=\"ping\"} 1",
            "comity_gateway_refused_total{code=\"malformed\"} 1",
            "comity_gateway_sessions_closed_total{reason=\"too_slow\"} 1",
            "comity_gateway_sessions_closed_total{reason=\"left\"} 0",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} in\n{text}");
        }
        drop(session);
        assert_eq!(metrics.sessions(), 0);
    }
}
