//! TLS: whom to trust. There is no way to turn verification off.

use std::{path::PathBuf, sync::Arc};

use rustls::{ClientConfig, RootCertStore, crypto::aws_lc_rs};
use rustls_pki_types::{CertificateDer, pem::PemObject};

use crate::error::{Error, ErrorKind, Result};

/// Environment variable with the path of an extra trusted root, as PEM.
pub const CA_VARIABLE: &str = "COMITY_CA";

/// An extra trusted root.
#[derive(Clone, Debug)]
pub enum Ca {
    /// PEM bytes.
    Pem(Vec<u8>),
    /// A PEM file.
    File(PathBuf),
}

impl From<Vec<u8>> for Ca {
    fn from(pem: Vec<u8>) -> Self {
        Self::Pem(pem)
    }
}

impl From<&[u8]> for Ca {
    fn from(pem: &[u8]) -> Self {
        Self::Pem(pem.to_vec())
    }
}

impl From<PathBuf> for Ca {
    fn from(path: PathBuf) -> Self {
        Self::File(path)
    }
}

impl From<&std::path::Path> for Ca {
    fn from(path: &std::path::Path) -> Self {
        Self::File(path.to_owned())
    }
}

/// The configuration of every connection: the roots that browsers trust, and those given.
pub(crate) fn config(extra: &[Ca], alpn: &[&[u8]]) -> Result<ClientConfig> {
    let mut roots = RootCertStore {
        roots: webpki_roots::TLS_SERVER_ROOTS.to_vec(),
    };
    let from_environment = std::env::var_os(CA_VARIABLE).map(|path| Ca::File(path.into()));
    for ca in extra.iter().chain(&from_environment) {
        add(&mut roots, ca)?;
    }
    let unusable = |e| Error::new(ErrorKind::Invalid, "TLS cannot be set up").because(e);
    // The provider is named: a process may hold two, and then rustls refuses to choose.
    let mut config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(unusable)?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = alpn.iter().map(|protocol| protocol.to_vec()).collect();
    Ok(config)
}

fn add(roots: &mut RootCertStore, ca: &Ca) -> Result<()> {
    let (pem, name) = match ca {
        Ca::Pem(pem) => (pem.clone(), "the given root certificate".to_owned()),
        Ca::File(path) => {
            let name = format!("the root certificate {}", path.display());
            let read = std::fs::read(path);
            let failed =
                |e| Error::new(ErrorKind::Invalid, format!("{name} cannot be read")).because(e);
            (read.map_err(failed)?, name)
        }
    };
    let mut found = false;
    for certificate in CertificateDer::pem_slice_iter(&pem) {
        let bad = || Error::new(ErrorKind::Invalid, format!("{name} is damaged"));
        let certificate = certificate.map_err(|e| bad().because(e))?;
        roots.add(certificate).map_err(|e| bad().because(e))?;
        found = true;
    }
    if !found {
        let text = format!("{name} holds no certificate");
        return Err(Error::new(ErrorKind::Invalid, text));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_root_that_cannot_be_used_is_an_error_and_not_skipped() {
        assert!(config(&[], &[]).is_ok());
        for bad in [
            Ca::from(&b""[..]),
            Ca::from(&b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"[..]),
            Ca::File("/nonexistent/ca.pem".into()),
        ] {
            assert_eq!(config(&[bad], &[]).unwrap_err().kind(), ErrorKind::Invalid);
        }
    }
}
