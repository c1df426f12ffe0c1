//! Binding and serving: addresses, the rule for plain HTTP, and the HTTP servers' limits.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use axum::Router;
use axum_server::{
    Handle, Server,
    accept::NoDelayAcceptor,
    tls_rustls::{RustlsAcceptor, RustlsConfig},
};
use quinn::Endpoint;
use tokio::net::{TcpListener, TcpSocket};

use super::{Config, quic, session::Gate, socket::Door};
use crate::limits::{
    HANDSHAKE_MS, HTTP_BACKLOG, HTTP_HEAD_BYTES_MAX, HTTP_HEAD_MS, HTTP2_STREAMS_MAX,
};

/// Why the gateway did not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// QUIC or HTTPS without a certificate.
    #[error(
        "{0} is configured, but no certificate; set one, or use `http` on loopback for development"
    )]
    NoCertificate(&'static str),
    /// Plain HTTP outside of the development profile.
    #[error(
        "plain HTTP on {0} would send passwords in the clear; it is for the development profile only, use `https`"
    )]
    PlainHttpNotDevelopment(SocketAddr),
    /// Plain HTTP where others could reach it.
    #[error(
        "plain HTTP on {0} could be reached from other machines; it may listen on loopback only, use `https`"
    )]
    PlainHttpNotLoopback(SocketAddr),
    /// No address at all.
    #[error("no address to listen on: set `https`, `quic` or, for development, `http`")]
    NoAddress,
    /// An address is in use, not this machine's or not allowed.
    #[error("cannot listen on {addr} for {what}")]
    Bind {
        /// What for.
        what: &'static str,
        /// Where.
        addr: SocketAddr,
        /// Why.
        source: io::Error,
    },
}

/// Sockets, listening but not served yet.
pub(super) struct Bound {
    pub(super) quic: Option<Endpoint>,
    pub(super) quic_addr: Option<SocketAddr>,
    pub(super) https: Option<(TcpListener, SocketAddr)>,
    pub(super) http: Option<(TcpListener, SocketAddr)>,
}

/// Checks the configuration, then binds; what was bound is closed again on an error.
pub(super) fn bind(config: &Config) -> Result<Bound, StartError> {
    if let Some(addr) = config.http {
        if !config.development {
            return Err(StartError::PlainHttpNotDevelopment(addr));
        }
        if !addr.ip().to_canonical().is_loopback() {
            return Err(StartError::PlainHttpNotLoopback(addr));
        }
    }
    for (what, addr) in [("quic", config.quic), ("https", config.https)] {
        if addr.is_some() && config.tls.is_none() {
            return Err(StartError::NoCertificate(what));
        }
    }
    if [config.quic, config.https, config.http] == [None; 3] {
        return Err(StartError::NoAddress);
    }
    let bind_tcp = |what, addr: Option<SocketAddr>| {
        addr.map(|addr| listen(addr).map_err(|source| StartError::Bind { what, addr, source }))
            .transpose()
    };
    let https = bind_tcp("https", config.https)?;
    let http = bind_tcp("http", config.http)?;
    let quic = match (config.quic, &config.tls) {
        (Some(addr), Some(tls)) => {
            let failed = |source| StartError::Bind {
                what: "quic",
                addr,
                source,
            };
            let endpoint = quic::bind(addr, tls, config.reset_secret).map_err(failed)?;
            let bound = endpoint.local_addr().map_err(failed)?;
            Some((endpoint, bound))
        }
        _ => None,
    };
    let (quic, quic_addr) = quic.unzip();
    Ok(Bound {
        quic,
        quic_addr,
        https,
        http,
    })
}

fn listen(addr: SocketAddr) -> io::Result<(TcpListener, SocketAddr)> {
    let socket = match addr {
        SocketAddr::V4(_) => TcpSocket::new_v4()?,
        SocketAddr::V6(_) => TcpSocket::new_v6()?,
    };
    // Otherwise a restart has to wait until the old connections' ports time out.
    socket.set_reuseaddr(true)?;
    socket.bind(addr)?;
    let listener = socket.listen(HTTP_BACKLOG)?;
    let bound = listener.local_addr()?;
    Ok((listener, bound))
}

/// Serves HTTPS until its handle says otherwise.
pub(super) fn serve_https<H>(
    gate: &Gate<H>,
    listener: TcpListener,
    certificate: RustlsConfig,
    router: Router,
) -> Handle<SocketAddr> {
    let tls = RustlsAcceptor::new(certificate)
        .handshake_timeout(Duration::from_millis(HANDSHAKE_MS))
        .acceptor(NoDelayAcceptor);
    let server = server(listener).acceptor(door(gate, tls));
    let handle = Handle::new();
    let service = router.into_make_service_with_connect_info::<SocketAddr>();
    let serving = server.handle(handle.clone()).serve(service);
    gate.tasks.spawn(async move { log("https", serving.await) });
    handle
}

/// Serves plain HTTP until its handle says otherwise.
pub(super) fn serve_http<H>(
    gate: &Gate<H>,
    listener: TcpListener,
    router: Router,
) -> Handle<SocketAddr> {
    let server = server(listener).acceptor(door(gate, NoDelayAcceptor));
    let handle = Handle::new();
    let service = router.into_make_service_with_connect_info::<SocketAddr>();
    let serving = server.handle(handle.clone()).serve(service);
    gate.tasks.spawn(async move { log("http", serving.await) });
    handle
}

fn log(what: &str, served: io::Result<()>) {
    if let Err(error) = served {
        tracing::error!(%error, what, "the server ended");
    }
}

/// Nagle's algorithm stays off in every acceptor: with it, answers wait for 44 ms.
fn door<H, A>(gate: &Gate<H>, inner: A) -> Door<A> {
    Door {
        inner,
        room: Arc::clone(&gate.connections),
        metrics: Arc::clone(&gate.metrics),
        tasks: gate.tasks.clone(),
    }
}

fn server(listener: TcpListener) -> Server<SocketAddr> {
    let mut server = Server::<SocketAddr>::from_listener(listener)
        .first_request_timeout(Duration::from_millis(HTTP_HEAD_MS));
    let builder = server.http_builder();
    builder
        .http1()
        .max_buf_size(HTTP_HEAD_BYTES_MAX)
        .header_read_timeout(Duration::from_millis(HTTP_HEAD_MS));
    // Not offered, but the library would speak it when spoken to.
    builder
        .http2()
        .max_concurrent_streams(HTTP2_STREAMS_MAX)
        .initial_stream_window_size(Some(64 * 1024))
        .initial_connection_window_size(Some(64 * 1024));
    server
}
