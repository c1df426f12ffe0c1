//! Finding the home server and connecting to it: QUIC, then WebSocket.

use std::{
    future::Future,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use comity_protocol::{ids::ServerId, name::ServerName, session::ALPN};
use futures::{FutureExt, future::BoxFuture};
use quinn::crypto::rustls::QuicClientConfig;
use tokio::{net::TcpStream, time};
use tokio_rustls::TlsConnector;

use super::{Dial, Dialed, Transport, stream::StreamLink, websocket::WebSocketLink};
use crate::{
    account::{Discovered, Web, is_distrust},
    clock,
    error::{Error, ErrorKind, Result},
    events::Via,
    limits::{QUIC_AGAIN_MS, QUIC_CONNECT_MS, WEBSOCKET_CONNECT_MS},
    tls::{self, Ca},
};

const QUIC_KEEP_ALIVE: Duration = Duration::from_secs(10);
const QUIC_IDLE_MS: u32 = 60_000;

/// Connects to one home server over the network.
#[derive(Debug)]
pub(crate) struct Network {
    web: Web,
    /// The name in the user's address: whoever answers must bear it.
    name: ServerName,
    /// Known after the first sign-in: whoever answers must be it.
    server: Option<ServerId>,
    transport: Transport,
    extra: Vec<Ca>,
    found: Option<Discovered>,
    /// When WebSocket worked where QUIC had not, in milliseconds of the wall clock.
    avoid_quic_since: Option<u64>,
    remember: Option<PathBuf>,
}

impl Network {
    pub(crate) fn new(
        web: Web,
        name: ServerName,
        transport: Transport,
        extra: Vec<Ca>,
        remember: Option<PathBuf>,
    ) -> Self {
        let avoided = remember.as_ref().and_then(|path| {
            let text = std::fs::read_to_string(path).ok()?;
            text.trim().parse().ok()
        });
        Self {
            web,
            name,
            server: None,
            transport,
            extra,
            found: None,
            avoid_quic_since: avoided,
            remember,
        }
    }

    pub(crate) const fn web(&self) -> &Web {
        &self.web
    }

    pub(crate) const fn expect(&mut self, server: ServerId) {
        self.server = Some(server);
    }

    /// Asks the server who it is, and compares.
    pub(crate) async fn discover(&mut self) -> Result<Discovered> {
        let found = self.web.discover().await?;
        if found.name.parse().as_ref() != Ok(&self.name) {
            let text = format!("the server is {:?} and not {}", found.name, self.name);
            return Err(Error::new(ErrorKind::Untrusted, text));
        }
        if self.server.is_some_and(|server| server != found.server) {
            let text = format!(
                "{} is another server than the one signed in at; if it was set up anew, sign in with a \
                 new store",
                self.name
            );
            return Err(Error::new(ErrorKind::Untrusted, text));
        }
        self.found = Some(found.clone());
        Ok(found)
    }

    async fn connect(&mut self) -> Result<Dialed> {
        // What was found last time is tried once; after a failure the server is asked again.
        let found = match self.found.take() {
            Some(found) => found,
            None => self.discover().await?,
        };
        let dialed = self.by_transport(&found).await?;
        self.found = Some(found);
        Ok(dialed)
    }

    async fn by_transport(&mut self, found: &Discovered) -> Result<Dialed> {
        match self.transport {
            Transport::Quic => self.quic(found).await,
            Transport::WebSocket => self.websocket(found).await,
            Transport::Auto if found.quic.is_none() => self.websocket(found).await,
            Transport::Auto if self.avoids_quic() => match self.websocket(found).await {
                Ok(dialed) => Ok(dialed),
                Err(error) => self.quic(found).await.map_err(|_| error),
            },
            Transport::Auto => match self.quic(found).await {
                Ok(dialed) => {
                    self.remember(None);
                    Ok(dialed)
                }
                Err(quic_error) => {
                    tracing::debug!(error = %quic_error.chain(), "QUIC does not get through");
                    let dialed = self.websocket(found).await?;
                    // Distrust comes from a missing root, not from the path to the server.
                    if quic_error.kind() != ErrorKind::Untrusted {
                        self.remember(Some(clock::now().0));
                    }
                    Ok(dialed)
                }
            },
        }
    }

    fn avoids_quic(&self) -> bool {
        let since = self.avoid_quic_since;
        since.is_some_and(|since| clock::now().0.abs_diff(since) < QUIC_AGAIN_MS)
    }

    fn remember(&mut self, avoid_since: Option<u64>) {
        if self.avoid_quic_since.is_none() && avoid_since.is_none() {
            return;
        }
        self.avoid_quic_since = avoid_since;
        let Some(path) = &self.remember else {
            return;
        };
        // A hint only: without it the next start tries QUIC first.
        let _ = match avoid_since {
            Some(since) => std::fs::write(path, since.to_string()),
            None => std::fs::remove_file(path),
        };
    }

    fn host(&self) -> Result<String> {
        let host = self.web.base().host_str();
        let host = host.ok_or_else(|| Error::new(ErrorKind::Invalid, "the server has no host"))?;
        Ok(host
            .trim_start_matches('[')
            .trim_end_matches(']')
            .to_owned())
    }

    async fn addresses(&self, port: u16) -> Result<Vec<SocketAddr>> {
        let host = self.host()?;
        let found = tokio::net::lookup_host((host.as_str(), port)).await;
        let unknown =
            |e| Error::new(ErrorKind::Offline, format!("{host} was not found")).because(e);
        Ok(found.map_err(unknown)?.collect())
    }

    async fn quic(&self, found: &Discovered) -> Result<Dialed> {
        let port = found
            .quic
            .ok_or_else(|| Error::new(ErrorKind::Offline, "the server does not offer QUIC"))?;
        let config = tls::config(&self.extra, &[ALPN])?;
        let crypto = QuicClientConfig::try_from(config)
            .map_err(|e| Error::new(ErrorKind::Invalid, "QUIC cannot be set up").because(e))?;
        let mut config = quinn::ClientConfig::new(Arc::new(crypto));
        let mut transport = quinn::TransportConfig::default();
        transport.keep_alive_interval(Some(QUIC_KEEP_ALIVE));
        transport.max_idle_timeout(Some(quinn::VarInt::from_u32(QUIC_IDLE_MS).into()));
        // The server opens no streams to a client and sends no datagrams.
        transport.max_concurrent_bidi_streams(0u32.into());
        transport.max_concurrent_uni_streams(0u32.into());
        transport.datagram_receive_buffer_size(None);
        config.transport_config(Arc::new(transport));
        let addresses = self.addresses(port).await?;
        let host = self.host()?;
        first_that_works(&addresses, QUIC_CONNECT_MS, async |address| {
            let local: SocketAddr = match address {
                SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
                SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
            };
            let failed = || Error::new(ErrorKind::Offline, "QUIC failed");
            let endpoint = quinn::Endpoint::client(local).map_err(|e| failed().because(e))?;
            let connecting = endpoint.connect_with(config.clone(), address, &host);
            let connecting = connecting.map_err(|e| failed().because(e))?;
            let connection = connecting.await.map_err(quic_failed)?;
            let (send, receive) = connection
                .open_bi()
                .await
                .map_err(|e| failed().because(e))?;
            let stream = tokio::io::join(receive, send);
            Ok(Dialed {
                link: Box::new(StreamLink::new(stream, (connection, endpoint))),
                via: Via::Quic,
            })
        })
        .await
    }

    async fn websocket(&self, found: &Discovered) -> Result<Dialed> {
        let base = self.web.base();
        let mut url = base.clone();
        let encrypted = base.scheme() == "https";
        let scheme = if encrypted { "wss" } else { "ws" };
        // The path is the server's, the host is not: what it says cannot lead elsewhere.
        url.set_path(&found.websocket);
        let set = url.set_scheme(scheme);
        set.map_err(|()| Error::new(ErrorKind::Invalid, "no WebSocket address"))?;
        let host = self.host()?;
        let tls = if encrypted {
            let config = tls::config(&self.extra, &[b"http/1.1"])?;
            let name = rustls_pki_types::ServerName::try_from(host.clone()).map_err(|e| {
                Error::new(ErrorKind::Invalid, format!("{host} is no server name")).because(e)
            })?;
            Some((TlsConnector::from(Arc::new(config)), name))
        } else {
            None
        };
        let port = base.port_or_known_default().unwrap_or(443);
        let addresses = self.addresses(port).await?;
        first_that_works(&addresses, WEBSOCKET_CONNECT_MS, async |address| {
            let tcp = TcpStream::connect(address).await;
            let refused = |e| Error::new(ErrorKind::Offline, "connecting failed").because(e);
            let tcp = tcp.map_err(refused)?;
            Ok(Dialed {
                link: Box::new(WebSocketLink::open(tcp, tls.clone(), url.as_str()).await?),
                via: Via::WebSocket,
            })
        })
        .await
    }
}

impl Dial for Network {
    fn dial(&mut self) -> BoxFuture<'_, Result<Dialed>> {
        self.connect().boxed()
    }
}

/// Tries each address in turn, the time divided between them.
async fn first_that_works<F: Future<Output = Result<Dialed>>>(
    addresses: &[SocketAddr],
    total_ms: u64,
    connect: impl Fn(SocketAddr) -> F,
) -> Result<Dialed> {
    let mut error = Error::new(ErrorKind::Offline, "the server has no address");
    let share = total_ms / u64::try_from(addresses.len().max(1)).unwrap_or(1);
    for address in addresses {
        let within = Duration::from_millis(share.max(total_ms / 4));
        match time::timeout(within, connect(*address)).await {
            Ok(Ok(dialed)) => return Ok(dialed),
            Ok(Err(e)) => error = e,
            Err(_) => {
                let text = format!("{address} did not answer");
                error = Error::new(ErrorKind::Timeout, text);
            }
        }
    }
    Err(error)
}

fn quic_failed(error: quinn::ConnectionError) -> Error {
    // TLS alerts 42 to 48 are about certificates; QUIC adds 0x100 to an alert.
    let distrust = match &error {
        quinn::ConnectionError::TransportError(e) => (0x12a..=0x130).contains(&u64::from(e.code)),
        _ => false,
    };
    if distrust {
        return Error::new(
            ErrorKind::Untrusted,
            "the server did not prove to be itself",
        )
        .because(error);
    }
    Error::new(ErrorKind::Offline, "QUIC failed").because(error)
}

/// A failed TLS handshake: distrust, or a network that failed.
pub(crate) fn tls_failed(error: std::io::Error) -> Error {
    let inner = error
        .get_ref()
        .and_then(|e| e.downcast_ref::<rustls::Error>());
    if inner.is_some_and(is_distrust) {
        return Error::new(
            ErrorKind::Untrusted,
            "the server did not prove to be itself",
        )
        .because(error);
    }
    Error::new(ErrorKind::Offline, "the TLS handshake failed").because(error)
}
