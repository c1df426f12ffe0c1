//! The gateway in front of a made-up home: the session loop in memory under a paused clock, and
//! the real transports over loopback.

mod client;
mod fake;
mod hostile;
mod http;
mod session;
mod stopping;
mod transports;

use std::{future::Future, net::SocketAddr, time::Duration};

use self::fake::Fake;
use super::{Config, Gateways};
use crate::tls::Tls;

/// Every wait of a test ends, by failing.
async fn within<F: Future>(what: &str, future: F) -> F::Output {
    let limit = Duration::from_secs(60);
    match tokio::time::timeout(limit, future).await {
        Ok(output) => output,
        Err(_) => panic!("{what}: not within {limit:?}"),
    }
}

/// Waits until something that other tasks do is true. Asks again after a moment instead of at
/// once, so that a paused clock goes on meanwhile.
async fn until(what: &str, mut is_true: impl FnMut() -> bool) {
    within(what, async {
        while !is_true() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    })
    .await;
}

const LOOPBACK: SocketAddr = SocketAddr::V4(std::net::SocketAddrV4::new(
    std::net::Ipv4Addr::LOCALHOST,
    0,
));

/// A gateway on all transports, and the certificate its clients trust.
struct Server {
    gateways: Gateways,
    home: Fake,
    trusted: rustls_pki_types::CertificateDer<'static>,
}

impl Server {
    fn start() -> Self {
        Self::start_with(|_| {})
    }

    fn start_with(change: impl FnOnce(&mut Config)) -> Self {
        let (tls, trusted) = certificate();
        let mut config = Config {
            quic: Some(LOOPBACK),
            https: Some(LOOPBACK),
            http: Some(LOOPBACK),
            development: true,
            tls: Some(tls),
            ..Config::default()
        };
        change(&mut config);
        let home = Fake::default();
        let gateways = Gateways::start(&config, home.clone()).unwrap();
        Self {
            gateways,
            home,
            trusted,
        }
    }
}

fn certificate() -> (Tls, rustls_pki_types::CertificateDer<'static>) {
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let key = rustls_pki_types::PrivatePkcs8KeyDer::from(made.signing_key.serialize_der());
    let chain = vec![made.cert.der().clone()];
    let tls = Tls::new(chain, key.into()).unwrap();
    (tls, made.cert.der().clone())
}
