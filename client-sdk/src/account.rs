//! HTTPS with the home server: finding it, and making this device known to it.

use comity_protocol::{
    ids::{DeviceKey, ServerId, UserId},
    session::WireError,
};
use reqwest::{Response, Url, redirect};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use std::{net::IpAddr, time::Duration};

use crate::{
    error::{Error, ErrorKind, Result},
    limits::{HTTP_BODY_BYTES_MAX, HTTP_MS},
    store::SignedIn,
};

/// How a new device signs in.
#[derive(Clone)]
pub(crate) enum Credential {
    Password(String),
    Token(String),
    SignUp { password: String, token: String },
}

/// What `/.well-known/comity` says.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Discovered {
    pub(crate) name: String,
    pub(crate) server: ServerId,
    #[serde(default)]
    pub(crate) versions: Vec<u64>,
    pub(crate) websocket: String,
    #[serde(default)]
    pub(crate) quic: Option<u16>,
}

#[derive(Deserialize)]
struct Answer {
    user: UserId,
    handle: String,
    server: ServerId,
}

#[derive(Serialize)]
struct Ask<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    token: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    handle: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    password: Option<&'a str>,
    device: DeviceKey,
    device_name: &'a str,
}

/// A home server's web address.
#[derive(Clone, Debug)]
pub(crate) struct Web {
    base: Url,
    http: reqwest::Client,
}

/// The web address that a program or an address names: `https` everywhere, `http` to this machine
/// only.
pub(crate) fn base_url(server: &str) -> Result<Url> {
    let bad = |why: &str| Error::new(ErrorKind::Invalid, format!("{server:?} {why}"));
    let text = if server.contains("://") {
        server.to_owned()
    } else if is_loopback(
        &Url::parse(&format!("http://{server}")).map_err(|e| bad("is no server").because(e))?,
    ) {
        format!("http://{server}")
    } else {
        format!("https://{server}")
    };
    let url = Url::parse(&text).map_err(|e| bad("is no server").because(e))?;
    let plain = url.scheme() == "http" && is_loopback(&url);
    if url.scheme() != "https" && !plain {
        return Err(bad("is not https, and plain http is for this machine only"));
    }
    if url.host_str().is_none() || url.path() != "/" || url.query().is_some() {
        return Err(bad("is no server: expected host, or host:port"));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(bad("holds a user name: sign in by address"));
    }
    Ok(url)
}

fn is_loopback(url: &Url) -> bool {
    let host = url.host_str().unwrap_or_default();
    let ip = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost" || ip.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

impl Web {
    pub(crate) fn new(base: Url, tls: rustls::ClientConfig) -> Result<Self> {
        let http = reqwest::Client::builder()
            .tls_backend_preconfigured(tls)
            // A password must go where the address says, and nowhere else.
            .redirect(redirect::Policy::none())
            .no_proxy()
            .timeout(Duration::from_millis(HTTP_MS))
            .user_agent(concat!("comity-sdk/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(|e| Error::new(ErrorKind::Invalid, "HTTP cannot be set up").because(e))?;
        Ok(Self { base, http })
    }

    pub(crate) const fn base(&self) -> &Url {
        &self.base
    }

    fn url(&self, path: &str) -> Url {
        let mut url = self.base.clone();
        url.set_path(path);
        url
    }

    /// Asks the server who it is and how to reach it.
    pub(crate) async fn discover(&self) -> Result<Discovered> {
        let response = self.http.get(self.url("/.well-known/comity")).send().await;
        let found: Discovered = read(response.map_err(|e| self.unreachable(e))?).await?;
        let version = comity_protocol::session::VERSION;
        if !found.versions.is_empty() && !found.versions.contains(&version) {
            let text = format!("{} does not speak version {version}", found.name);
            return Err(Error::new(ErrorKind::Protocol, text));
        }
        Ok(found)
    }

    /// Makes a device known. May be repeated for the same device.
    pub(crate) async fn sign_in(
        &self,
        handle: &str,
        credential: &Credential,
        device: DeviceKey,
        device_name: &str,
    ) -> Result<SignedIn> {
        let mut ask = Ask {
            token: None,
            handle: None,
            password: None,
            device,
            device_name,
        };
        let path = match credential {
            Credential::Password(password) => {
                ask.handle = Some(handle);
                ask.password = Some(password);
                "/v1/sign-in"
            }
            Credential::Token(token) => {
                ask.token = Some(token);
                "/v1/enroll"
            }
            Credential::SignUp { password, token } => {
                ask.handle = Some(handle);
                ask.password = Some(password);
                ask.token = Some(token);
                "/v1/sign-up"
            }
        };
        let response = self.http.post(self.url(path)).json(&ask).send().await;
        let answer: Answer = read(response.map_err(|e| self.unreachable(e))?).await?;
        Ok(SignedIn {
            user: answer.user,
            server: answer.server,
            handle: answer.handle,
        })
    }

    fn unreachable(&self, error: reqwest::Error) -> Error {
        let host = self.base.authority();
        let mut cause: Option<&dyn std::error::Error> = Some(&error);
        while let Some(inner) = cause {
            if inner
                .downcast_ref::<rustls::Error>()
                .is_some_and(is_distrust)
            {
                let text = format!("{host} did not prove to be itself");
                return Error::new(ErrorKind::Untrusted, text).because(error);
            }
            // An I/O error hides the TLS error inside it from `source`.
            let io = inner.downcast_ref::<std::io::Error>();
            cause = io
                .and_then(|io| io.get_ref().map(|e| e as &dyn std::error::Error))
                .or_else(|| inner.source());
        }
        let kind = if error.is_timeout() {
            ErrorKind::Timeout
        } else {
            ErrorKind::Offline
        };
        Error::new(kind, format!("{host} cannot be reached")).because(error)
    }
}

/// Whether a TLS error speaks against the server's certificate.
pub(crate) const fn is_distrust(error: &rustls::Error) -> bool {
    matches!(error, rustls::Error::InvalidCertificate(_))
}

async fn read<T: DeserializeOwned>(mut response: Response) -> Result<T> {
    let status = response.status();
    let cut = |e| Error::new(ErrorKind::Offline, "the answer was cut off").because(e);
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(cut)? {
        if body.len() + chunk.len() > HTTP_BODY_BYTES_MAX {
            let text = "an answer larger than any of this protocol";
            return Err(Error::new(ErrorKind::Protocol, text));
        }
        body.extend_from_slice(&chunk);
    }
    if status.is_success() {
        return serde_json::from_slice(&body).map_err(|e| {
            Error::new(ErrorKind::Protocol, "the answer is not of this protocol").because(e)
        });
    }
    // A proxy in front of the server answers in its own words.
    Err(serde_json::from_slice::<WireError>(&body).map_or_else(
        |_| {
            let kind = if status.is_server_error() {
                ErrorKind::Unavailable
            } else {
                ErrorKind::Protocol
            };
            Error::new(kind, format!("the server answered {status}"))
        },
        Error::from,
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_http_is_for_this_machine_only() {
        for (server, url) in [
            ("eu.example", "https://eu.example/"),
            ("eu.example:8443", "https://eu.example:8443/"),
            ("https://eu.example", "https://eu.example/"),
            ("127.0.0.1:8008", "http://127.0.0.1:8008/"),
            ("[::1]:8008", "http://[::1]:8008/"),
            ("localhost:8008", "http://localhost:8008/"),
            ("http://127.0.0.9:1", "http://127.0.0.9:1/"),
            ("https://127.0.0.1:8443", "https://127.0.0.1:8443/"),
        ] {
            assert_eq!(base_url(server).unwrap().as_str(), url, "{server}");
        }
        for bad in [
            "http://eu.example",
            "http://10.0.0.1:80",
            "http://localhost.evil.example",
            "ws://127.0.0.1:1",
            "https://",
            "https://a/b",
            "https://u:p@a",
            "a b",
            "",
        ] {
            assert!(base_url(bad).is_err(), "{bad}");
        }
    }
}
