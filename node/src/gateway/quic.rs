//! Sessions over QUIC: the first stream the client opens carries the frames.

mod reset;

use std::{
    io,
    net::SocketAddr,
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};

use quinn::{
    Connection, ConnectionError, Endpoint, EndpointConfig, IdleTimeout, Incoming, TokioRuntime,
    VarInt,
};
use tokio::{sync::OwnedSemaphorePermit, time::timeout};

use super::{
    home::Home,
    metrics::{Counted, Transport},
    session::{self, End, Gate},
    stream::{ByteSink, ByteSource},
};
use crate::{
    limits::{
        CLOSE_LINGER_MS, HANDSHAKE_MS, HANDSHAKES_MAX, QUIC_CONNECTION_WINDOW, QUIC_IDLE_MS,
        QUIC_INCOMING_BYTES, QUIC_RETRY_ABOVE, QUIC_SEND_WINDOW, QUIC_STREAM_WINDOW,
        QUIC_STREAMS_MAX,
    },
    tls::Tls,
};

/// Close code of every connection; the reason is the `bye`'s code as text, which arrives even
/// where the stream is stuck.
const CLOSED: VarInt = VarInt::from_u32(0);
/// Reset code of streams that this version has no use for.
const UNSUPPORTED: VarInt = VarInt::from_u32(1);

/// The endpoint, bound and ready. With a secret that outlives the process, clients whose
/// connections do not are told so by the first packet that they send.
pub(super) fn bind(addr: SocketAddr, tls: &Tls, secret: Option<[u8; 32]>) -> io::Result<Endpoint> {
    let config = secret.map_or_else(EndpointConfig::default, reset::endpoint_config);
    let socket = std::net::UdpSocket::bind(addr)?;
    Endpoint::new(
        config,
        Some(server_config(tls)),
        socket,
        Arc::new(TokioRuntime),
    )
}

/// What the endpoint is told for new connections.
pub(super) fn server_config(tls: &Tls) -> quinn::ServerConfig {
    let mut transport = quinn::TransportConfig::default();
    transport
        .max_concurrent_bidi_streams(QUIC_STREAMS_MAX.into())
        .max_concurrent_uni_streams(0_u32.into())
        .stream_receive_window(QUIC_STREAM_WINDOW.into())
        .receive_window(QUIC_CONNECTION_WINDOW.into())
        .send_window(QUIC_SEND_WINDOW)
        .datagram_receive_buffer_size(None)
        // Clients ping; a keep-alive of the transport's would hide that they are stuck.
        .keep_alive_interval(None)
        .max_idle_timeout(Some(IdleTimeout::from(VarInt::from_u32(QUIC_IDLE_MS))));
    let mut config = quinn::ServerConfig::with_crypto(tls.quic.clone());
    config
        .transport_config(Arc::new(transport))
        .max_incoming(HANDSHAKES_MAX)
        .incoming_buffer_size(QUIC_INCOMING_BYTES)
        .incoming_buffer_size_total(QUIC_INCOMING_BYTES * HANDSHAKES_MAX as u64);
    config
}

/// Lets connections in until the gateway stops.
pub(super) async fn accept<H: Home>(gate: Arc<Gate<H>>, endpoint: Endpoint) {
    let stopping = gate.stopping.child_token();
    while let Some(Some(incoming)) = stopping.run_until_cancelled(endpoint.accept()).await {
        let free = gate.handshakes.available_permits();
        let under_way = HANDSHAKES_MAX.saturating_sub(free);
        // Under load an address has to answer before it costs a handshake, so that forged ones
        // take no room.
        if under_way >= QUIC_RETRY_ABOVE && incoming.may_retry() {
            let _ = incoming.retry();
            continue;
        }
        let slot = Arc::clone(&gate.handshakes).try_acquire_owned();
        let permit = Arc::clone(&gate.connections).try_acquire_owned();
        let (Ok(slot), Ok(permit)) = (slot, permit) else {
            gate.metrics.turned_away.fetch_add(1, Relaxed);
            incoming.refuse();
            continue;
        };
        // In a task of its own: a handshake that hangs holds up no other.
        let gate = Arc::clone(&gate);
        gate.tasks.clone().spawn(async move {
            let _permit = permit;
            let _counted = Counted::connection(&gate.metrics);
            let cut = gate.cut.child_token();
            let _ = cut
                .run_until_cancelled(connection(&gate, slot, incoming))
                .await;
        });
    }
}

async fn connection<H: Home>(gate: &Gate<H>, slot: OwnedSemaphorePermit, incoming: Incoming) {
    let opening = async {
        let connection = incoming.await?;
        let streams = connection.accept_bi().await?;
        Ok::<_, ConnectionError>((connection, streams))
    };
    let opened = timeout(Duration::from_millis(HANDSHAKE_MS), Box::pin(opening)).await;
    let Ok(Ok((connection, (send, recv)))) = opened else {
        gate.metrics.failed_handshakes.fetch_add(1, Relaxed);
        return;
    };
    let counted = Counted::session(&gate.metrics, Transport::Quic);
    let mut source = ByteSource::new(recv);
    let mut sink = ByteSink::new(send);
    let end = {
        let session = session::run(gate, slot, &mut source, &mut sink);
        tokio::pin!(session);
        tokio::select! {
            biased;
            end = &mut session => Some(end),
            _ = refuse_streams(&connection) => None,
        }
    };
    let end = match (end, connection.close_reason()) {
        (Some(End::Lost) | None, Some(ConnectionError::ApplicationClosed(_))) => End::Left,
        (end, _) => end.unwrap_or(End::Lost),
    };
    gate.metrics.count_end(&end);
    let reason = match &end {
        End::Said(error) => error.code.as_str(),
        End::Left | End::Lost => "",
    };
    drop(counted);
    // Unread bytes are given up, and the last frame has a moment to arrive: closing the
    // connection discards what was not acknowledged.
    let _ = source.stream_mut().stop(CLOSED);
    let _ = sink.stream_mut().finish();
    let arrived = sink.stream_mut().stopped();
    let _ = timeout(Duration::from_millis(CLOSE_LINGER_MS), arrived).await;
    connection.close(CLOSED, reason.as_bytes());
}

/// Refuses all further streams with an answer, until the connection is gone.
async fn refuse_streams(connection: &Connection) -> ConnectionError {
    loop {
        match connection.accept_bi().await {
            Ok((mut send, mut recv)) => {
                // Either fails only when the client gave the stream up by itself.
                let _ = send.reset(UNSUPPORTED);
                let _ = recv.stop(UNSUPPORTED);
            }
            Err(error) => return error,
        }
    }
}
