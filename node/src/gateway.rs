//! The client gateway: QUIC, WebSocket and HTTP in front of a home. Source:
//! `spec/06-client-protocol.md`.
//!
//! It decides nothing about conversations. It opens sessions, carries frames, keeps every buffer
//! bounded and closes sessions with a reason; the [`Home`] answers.
//!
//! - [`home`]: what the rest of the node has to provide.
//! - `session`: one session over any transport; `frames`, `stream`: what it is made of.
//! - `quic`, `http`, `websocket`, `socket`: the transports.
//! - [`Metrics`]: what happened.

mod frames;
pub mod home;
mod http;
mod listen;
mod metrics;
mod quic;
mod session;
mod socket;
mod stream;
#[cfg(test)]
mod tests;
mod websocket;

use std::{fmt, net::SocketAddr, sync::Arc, time::Duration};

use axum_server::{Handle, tls_rustls::RustlsConfig};
use quinn::{Endpoint, VarInt};
use tokio::{
    sync::Semaphore,
    time::{Instant, timeout, timeout_at},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

pub use self::{
    home::Home,
    listen::StartError,
    metrics::{Metrics, Transport},
};
use self::{
    http::{Http, router},
    session::Gate,
};
use crate::{
    limits::{CONNECTIONS_MAX, HANDSHAKES_MAX},
    tls::Tls,
};

/// Where to listen and with what.
#[derive(Clone, Debug)]
pub struct Config {
    /// UDP address for QUIC; needs `tls`.
    pub quic: Option<SocketAddr>,
    /// TCP address for HTTPS and WebSocket over TLS; needs `tls`.
    pub https: Option<SocketAddr>,
    /// TCP address for plain HTTP and WebSocket: in the development profile and on loopback only.
    pub http: Option<SocketAddr>,
    /// The development profile, which allows `http`.
    pub development: bool,
    /// UDP port told to clients, where it is not the one listened on.
    pub public_quic_port: Option<u16>,
    /// The certificate.
    pub tls: Option<Tls>,
    /// Connections of all transports together.
    pub connections_max: usize,
    /// The same for ever: by it a server that came back after a crash tells QUIC clients at once
    /// that their connections are gone, where they would wait for a minute. Random if absent.
    pub reset_secret: Option<[u8; 32]>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            quic: None,
            https: None,
            http: None,
            development: false,
            public_quic_port: None,
            tls: None,
            connections_max: CONNECTIONS_MAX,
            reset_secret: None,
        }
    }
}

/// What stopping came to.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Stopped {
    /// Sessions that there were.
    pub sessions: u64,
    /// Of those, how many were cut off when the time was over.
    pub cut: u64,
}

/// The gateway, running. Dropping it leaves it running; it is stopped by [`Self::stop`].
pub struct Gateways {
    /// Where QUIC is listened for.
    pub quic_addr: Option<SocketAddr>,
    /// Where HTTPS is listened for.
    pub https_addr: Option<SocketAddr>,
    /// Where plain HTTP is listened for.
    pub http_addr: Option<SocketAddr>,
    metrics: Arc<Metrics>,
    stopping: CancellationToken,
    cut: CancellationToken,
    tasks: TaskTracker,
    endpoint: Option<Endpoint>,
    certificate: Option<RustlsConfig>,
    servers: Vec<Handle<SocketAddr>>,
}

impl fmt::Debug for Gateways {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gateways")
            .field("quic_addr", &self.quic_addr)
            .field("https_addr", &self.https_addr)
            .field("http_addr", &self.http_addr)
            .finish_non_exhaustive()
    }
}

impl Gateways {
    /// Binds every address and begins to serve. Needs a tokio runtime around it.
    ///
    /// # Errors
    ///
    /// [`StartError`]; nothing is left listening.
    pub fn start<H: Home>(config: &Config, home: H) -> Result<Self, StartError> {
        let bound = listen::bind(config)?;
        let metrics = Arc::new(Metrics::default());
        let gate = Arc::new(Gate {
            home,
            metrics: Arc::clone(&metrics),
            handshakes: Arc::new(Semaphore::new(HANDSHAKES_MAX)),
            connections: Arc::new(Semaphore::new(config.connections_max)),
            stopping: CancellationToken::new(),
            cut: CancellationToken::new(),
            tasks: TaskTracker::new(),
        });
        let mut gateways = Self {
            quic_addr: bound.quic_addr,
            https_addr: bound.https.as_ref().map(|(_, addr)| *addr),
            http_addr: bound.http.as_ref().map(|(_, addr)| *addr),
            metrics,
            stopping: gate.stopping.clone(),
            cut: gate.cut.clone(),
            tasks: gate.tasks.clone(),
            endpoint: bound.quic.clone(),
            certificate: None,
            servers: Vec::new(),
        };
        let quic_port = bound.quic_addr.map(|addr| addr.port());
        let router = router(Http {
            gate: Arc::clone(&gate),
            quic_port: quic_port.map(|port| config.public_quic_port.unwrap_or(port)),
        });
        if let Some((listener, _)) = bound.https
            && let Some(tls) = &config.tls
        {
            let certificate = RustlsConfig::from_config(Arc::clone(&tls.https));
            gateways.certificate = Some(certificate.clone());
            let handle = listen::serve_https(&gate, listener, certificate, router.clone());
            gateways.servers.push(handle);
        }
        if let Some((listener, _)) = bound.http {
            gateways
                .servers
                .push(listen::serve_http(&gate, listener, router));
        }
        if let Some(endpoint) = bound.quic {
            gate.tasks.spawn(quic::accept(Arc::clone(&gate), endpoint));
        }
        Ok(gateways)
    }

    /// The gateway's counters.
    #[must_use]
    pub fn metrics(&self) -> Arc<Metrics> {
        Arc::clone(&self.metrics)
    }

    /// Uses another certificate for new connections; those there are go on.
    pub fn replace_certificate(&self, tls: &Tls) {
        if let Some(certificate) = &self.certificate {
            certificate.reload_from_config(Arc::clone(&tls.https));
        }
        if let Some(endpoint) = &self.endpoint {
            endpoint.set_server_config(Some(quic::server_config(tls)));
        }
    }

    /// Stops: lets nobody in, answers what is under way, says `bye` with `stopping` to every
    /// session and closes it. What is left after `deadline` is cut off. Returns once no task and
    /// no connection is left.
    pub async fn stop(self, deadline: Duration) -> Stopped {
        let sessions = self.metrics.sessions();
        let until = Instant::now() + deadline;
        self.stopping.cancel();
        if let Some(endpoint) = &self.endpoint {
            endpoint.set_server_config(None);
        }
        for server in &self.servers {
            server.graceful_shutdown(Some(deadline));
        }
        self.tasks.close();
        let mut cut = 0;
        if timeout_at(until, self.tasks.wait()).await.is_err() {
            cut = self.metrics.sessions();
            self.cut.cancel();
            for server in &self.servers {
                server.shutdown();
            }
            self.tasks.wait().await;
        }
        if let Some(endpoint) = self.endpoint {
            endpoint.close(VarInt::from_u32(0), b"stopping");
            // Waits for the peers' acknowledgement of the close, which nothing depends on.
            let _ = timeout(Duration::from_secs(1), endpoint.wait_idle()).await;
        }
        Stopped { sessions, cut }
    }
}
