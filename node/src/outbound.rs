//! What this server asks of others over HTTPS: one client, which dials public addresses only, or
//! those that the operator allows, whatever a name stands for; follows no redirect, uses no proxy,
//! and reads no more than was said.

use std::{
    fmt, io,
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use comity_links::Reach;
use comity_protocol::session::WireError;
use reqwest::{
    Method, Url,
    dns::{Addrs, Name, Resolve, Resolving},
    redirect,
};
use rustls::{ClientConfig, RootCertStore, crypto::aws_lc_rs};
use rustls_pki_types::{CertificateDer, pem::PemObject};
use serde::{Serialize, de::DeserializeOwned};

/// From dialling to the last byte.
const PATIENCE: Duration = Duration::from_secs(10);
/// Of it, for the connection.
const CONNECT: Duration = Duration::from_secs(5);

/// Why an answer was not had.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum WebError {
    /// Its address is not one to dial.
    #[error("{0} is not a public address, and network.allow does not name it")]
    NotAllowed(IpAddr),
    /// No connection, a certificate that does not prove the name, or no answer in time.
    #[error("cannot be reached: {0}")]
    Unreachable(String),
    /// It answered with this.
    #[error("answered with {status}{}", said(.text))]
    Status {
        /// The HTTP status.
        status: u16,
        /// What it says, shortened.
        text: String,
    },
    /// The answer is longer than it may be.
    #[error("answered with more than {0} bytes")]
    TooLarge(usize),
    /// The answer is no JSON of the form expected.
    #[error("answered with something else: {0}")]
    Unreadable(String),
}

fn said(text: &str) -> String {
    if text.is_empty() {
        String::new()
    } else {
        format!(" ({text})")
    }
}

/// Why the roots that are trusted cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RootsError {
    /// The file cannot be read.
    #[error("network.ca: cannot read {}: {source}", path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It holds no certificate that can be used.
    #[error("network.ca: {} holds no certificate that can be used", path.display())]
    Unusable {
        /// Which.
        path: PathBuf,
    },
    /// The client cannot be made.
    #[error("HTTPS cannot be set up: {0}")]
    Setup(String),
}

/// See the module.
#[derive(Clone)]
pub(crate) struct Web {
    http: reqwest::Client,
    reach: Reach,
}

impl fmt::Debug for Web {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Web")
            .field("reach", &self.reach)
            .finish_non_exhaustive()
    }
}

/// Resolves names to addresses that may be dialled.
struct Checked(Reach);

/// A name of which no address may be dialled.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("{0} is not a public address")]
struct Forbidden(IpAddr);

impl Resolve for Checked {
    fn resolve(&self, name: Name) -> Resolving {
        let (reach, name) = (self.0.clone(), name.as_str().to_owned());
        Box::pin(async move {
            let found: Vec<SocketAddr> =
                tokio::net::lookup_host((name.as_str(), 0)).await?.collect();
            let permitted: Vec<_> = found
                .iter()
                .copied()
                .filter(|address| reach.permits(address.ip()))
                .collect();
            if let (true, Some(first)) = (permitted.is_empty(), found.first()) {
                return Err(Forbidden(first.ip()).into());
            }
            Ok(Box::new(permitted.into_iter()) as Addrs)
        })
    }
}

fn roots(ca: Option<&Path>) -> Result<RootCertStore, RootsError> {
    let mut roots = RootCertStore {
        roots: webpki_roots::TLS_SERVER_ROOTS.to_vec(),
    };
    let Some(path) = ca else {
        return Ok(roots);
    };
    let path = path.to_owned();
    let pem = std::fs::read(&path).map_err(|source| RootsError::Read {
        path: path.clone(),
        source,
    })?;
    let mut found = false;
    for certificate in CertificateDer::pem_slice_iter(&pem) {
        let added = certificate.ok().and_then(|c| roots.add(c).ok());
        if added.is_none() {
            return Err(RootsError::Unusable { path });
        }
        found = true;
    }
    if found {
        Ok(roots)
    } else {
        Err(RootsError::Unusable { path })
    }
}

impl Web {
    /// Dials what `reach` permits, and believes the roots that browsers trust and those of a file.
    ///
    /// # Errors
    ///
    /// [`RootsError`].
    pub(crate) fn new(reach: Reach, ca: Option<&Path>) -> Result<Self, RootsError> {
        let setup = |error: &dyn fmt::Display| RootsError::Setup(error.to_string());
        let tls = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(|e| setup(&e))?
            .with_root_certificates(roots(ca)?)
            .with_no_client_auth();
        let http = reqwest::Client::builder()
            .tls_backend_preconfigured(tls)
            .dns_resolver(Arc::new(Checked(reach.clone())))
            .redirect(redirect::Policy::none())
            .no_proxy()
            .https_only(true)
            .timeout(PATIENCE)
            .connect_timeout(CONNECT)
            .pool_max_idle_per_host(0)
            .user_agent(concat!("comity/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(|e| setup(&e))?;
        Ok(Self { http, reach })
    }

    /// Gets JSON of at most so many bytes.
    ///
    /// # Errors
    ///
    /// [`WebError`].
    pub(crate) async fn get<T: DeserializeOwned>(
        &self,
        url: Url,
        max_bytes: usize,
    ) -> Result<T, WebError> {
        self.ask(Method::GET, url, None::<&()>, max_bytes).await
    }

    /// Posts JSON and gets JSON of at most so many bytes.
    ///
    /// # Errors
    ///
    /// [`WebError`].
    pub(crate) async fn post<T: DeserializeOwned>(
        &self,
        url: Url,
        body: &impl Serialize,
        max_bytes: usize,
    ) -> Result<T, WebError> {
        self.ask(Method::POST, url, Some(body), max_bytes).await
    }

    async fn ask<T: DeserializeOwned>(
        &self,
        method: Method,
        url: Url,
        body: Option<&impl Serialize>,
        max_bytes: usize,
    ) -> Result<T, WebError> {
        // What is an address is not resolved, and so not checked there.
        if let Some(ip) = literal(&url)
            && !self.reach.permits(ip)
        {
            return Err(WebError::NotAllowed(ip));
        }
        let request = self.http.request(method, url);
        let request = match body {
            Some(body) => request.json(body),
            None => request,
        };
        let mut response = request.send().await.map_err(unreachable)?;
        let status = response.status();
        let mut bytes = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(unreachable)? {
            if bytes.len() + chunk.len() > max_bytes {
                return Err(WebError::TooLarge(max_bytes));
            }
            bytes.extend_from_slice(&chunk);
        }
        if !status.is_success() {
            // A server of this kind says why.
            let said: Option<WireError> = serde_json::from_slice(&bytes).ok();
            let text = said.map_or_else(
                || String::from_utf8_lossy(&bytes).into_owned(),
                |error| error.message,
            );
            let shown = text.chars().filter(|c| !c.is_control()).take(200);
            return Err(WebError::Status {
                status: status.as_u16(),
                text: shown.collect(),
            });
        }
        serde_json::from_slice(&bytes).map_err(|error| WebError::Unreadable(error.to_string()))
    }
}

fn literal(url: &Url) -> Option<IpAddr> {
    let host = url.host_str()?;
    host.trim_start_matches('[')
        .trim_end_matches(']')
        .parse()
        .ok()
}

/// What stands behind an error of the client: its own text names the address alone.
fn unreachable(error: reqwest::Error) -> WebError {
    let error = error.without_url();
    let mut cause: Option<&dyn std::error::Error> = Some(&error);
    let mut text = String::new();
    while let Some(inner) = cause {
        if let Some(Forbidden(ip)) = inner.downcast_ref::<Forbidden>() {
            return WebError::NotAllowed(*ip);
        }
        text = inner.to_string();
        cause = inner.source();
    }
    WebError::Unreachable(text)
}

#[cfg(test)]
mod tests;
