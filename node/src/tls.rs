//! The server's certificate for clients: PEM files to ready configurations for HTTPS and QUIC.

use std::{
    fmt,
    path::{Path, PathBuf},
    sync::Arc,
};

use comity_protocol::session::ALPN;
use quinn::crypto::rustls::QuicServerConfig;
use rustls::{
    ServerConfig,
    crypto::{CryptoProvider, aws_lc_rs},
    version::{TLS12, TLS13},
};
use rustls_pki_types::{
    CertificateDer, PrivateKeyDer,
    pem::{self, PemObject},
};

/// Why a certificate cannot be used. Nothing was changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TlsError {
    /// The file with the certificate chain.
    #[error("cannot read certificates from {}", path.display())]
    Certificates {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: pem::Error,
    },
    /// The file holds no certificate.
    #[error("no `BEGIN CERTIFICATE` in {}", path.display())]
    NoCertificate {
        /// Which file.
        path: PathBuf,
    },
    /// The file with the private key.
    #[error("cannot read a private key from {}", path.display())]
    Key {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: pem::Error,
    },
    /// Both were read, but cannot be used, or not together.
    #[error("the certificate in {} and the key in {} cannot be used together", certificates.display(), key.display())]
    Unusable {
        /// The file with the certificate chain.
        certificates: PathBuf,
        /// The file with the private key.
        key: PathBuf,
        /// Why.
        source: rustls::Error,
    },
}

/// A certificate ready for both kinds of listener; cheap to clone.
#[derive(Clone)]
pub struct Tls {
    pub(crate) https: Arc<ServerConfig>,
    pub(crate) quic: Arc<QuicServerConfig>,
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Tls")
    }
}

impl Tls {
    /// Reads a chain (the server's certificate first) and its private key, both PEM.
    ///
    /// # Errors
    ///
    /// [`TlsError`], which names the file.
    pub fn load(certificates: &Path, key: &Path) -> Result<Self, TlsError> {
        let unreadable = |source| TlsError::Certificates {
            path: certificates.to_owned(),
            source,
        };
        let chain = CertificateDer::pem_file_iter(certificates)
            .map_err(unreadable)?
            .collect::<Result<Vec<_>, _>>()
            .map_err(unreadable)?;
        if chain.is_empty() {
            return Err(TlsError::NoCertificate {
                path: certificates.to_owned(),
            });
        }
        let private = PrivateKeyDer::from_pem_file(key).map_err(|source| TlsError::Key {
            path: key.to_owned(),
            source,
        })?;
        Self::new(chain, private).map_err(|source| TlsError::Unusable {
            certificates: certificates.to_owned(),
            key: key.to_owned(),
            source,
        })
    }

    /// The configurations for a chain and its key.
    ///
    /// # Errors
    ///
    /// The key is of an unknown kind or is not the certificate's.
    pub fn new(
        chain: Vec<CertificateDer<'static>>,
        key: PrivateKeyDer<'static>,
    ) -> Result<Self, rustls::Error> {
        // Named here, so that it does not matter whether another crate of the program turns on a
        // second provider.
        let provider = Arc::new(aws_lc_rs::default_provider());
        let mut https = config(&provider, &[&TLS13, &TLS12], chain.clone(), key.clone_key())?;
        https.alpn_protocols = vec![b"http/1.1".to_vec()];
        let mut quic = config(&provider, &[&TLS13], chain, key)?;
        quic.alpn_protocols = vec![ALPN.to_vec()];
        // No early data: a replayed `hello` or `send` must not be possible.
        quic.max_early_data_size = 0;
        let quic = QuicServerConfig::try_from(quic)
            .map_err(|e| rustls::Error::General(format!("no QUIC cipher suite: {e}")))?;
        Ok(Self {
            https: Arc::new(https),
            quic: Arc::new(quic),
        })
    }
}

fn config(
    provider: &Arc<CryptoProvider>,
    versions: &[&'static rustls::SupportedProtocolVersion],
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
) -> Result<ServerConfig, rustls::Error> {
    let mut config = ServerConfig::builder_with_provider(Arc::clone(provider))
        .with_protocol_versions(versions)?
        .with_no_client_auth()
        .with_single_cert(chain, key)?;
    // Resumption by ticket: a crowd that reconnects is cheap, and the server remembers nothing.
    config.ticketer = aws_lc_rs::Ticketer::new()?;
    config.session_storage = Arc::new(rustls::server::NoServerSessionStorage {});
    config.send_tls13_tickets = 1;
    Ok(config)
}

#[cfg(test)]
mod tests {
    use std::{error::Error as _, fs};

    use super::*;

    #[test]
    fn errors_name_the_file_and_a_foreign_key_is_found_out() {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| {
            let path = dir.path().join(name);
            fs::write(&path, text).unwrap();
            path
        };
        let make = || rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
        let (own, other) = (make(), make());
        let chain = write("chain.pem", &own.cert.pem());
        let key = write("key.pem", &own.signing_key.serialize_pem());
        let foreign = write("foreign.pem", &other.signing_key.serialize_pem());
        let empty = write("empty.pem", "");
        let absent = dir.path().join("absent.pem");

        Tls::load(&chain, &key).unwrap();
        for (chain, key, named) in [
            (&absent, &key, "absent.pem"),
            (&empty, &key, "empty.pem"),
            (&key, &key, "key.pem"),
            (&chain, &absent, "absent.pem"),
            (&chain, &empty, "empty.pem"),
            (&chain, &chain, "chain.pem"),
            (&chain, &foreign, "foreign.pem"),
        ] {
            let error = Tls::load(chain, key).unwrap_err();
            assert!(error.to_string().contains(named), "{error}");
            let has_cause = !matches!(error, TlsError::NoCertificate { .. });
            assert_eq!(error.source().is_some(), has_cause);
        }
    }
}
