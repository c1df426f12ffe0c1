//! HTTP: who the server is, signing in, health, and the upgrade to a session.
//!
//! CORS is closed: no header allows a foreign page to read an answer, and a body has to be
//! declared as JSON, so that no form of a foreign page is taken for one.

use std::{
    future::Future,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use axum::{
    Extension, Json, Router,
    body::{Body, Bytes, to_bytes},
    extract::{
        ConnectInfo, Request, State,
        ws::{WebSocketUpgrade, rejection::WebSocketUpgradeRejection},
    },
    http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header},
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use comity_protocol::{
    limits::SESSION_FRAME_BYTES_MAX,
    session::{Code, Codec, SUBPROTOCOL_CBOR, SUBPROTOCOL_JSON, VERSION, WireError},
};
use serde::{Serialize, de::DeserializeOwned};
use tokio::time::timeout;

use super::{
    home::{Home, SignedIn},
    session::Gate,
    socket::Meter,
    websocket,
};
use crate::limits::{
    HTTP_BODY_BYTES_MAX, HTTP_BODY_MS, JSON_FRAME_BYTES_MAX, WEBSOCKET_READ_BYTES,
    WEBSOCKET_WRITE_BYTES,
};

/// Where clients upgrade to a session.
const WEBSOCKET_PATH: &str = "/ws";

/// What the handlers share.
pub(super) struct Http<H> {
    pub(super) gate: Arc<Gate<H>>,
    /// UDP port told to clients.
    pub(super) quic_port: Option<u16>,
}

type Shared<H> = State<Arc<Http<H>>>;
type Remote = ConnectInfo<SocketAddr>;

/// Every route there is.
pub(super) fn router<H: Home>(http: Http<H>) -> Router {
    Router::new()
        .route("/.well-known/comity", get(well_known::<H>))
        .route("/v1/sign-up", post(sign_up::<H>))
        .route("/v1/sign-in", post(sign_in::<H>))
        .route("/v1/enroll", post(enroll::<H>))
        .route("/v1/servers", post(introduce::<H>))
        .route("/healthz", get(async || "ok"))
        .route("/readyz", get(readyz::<H>))
        .route("/metrics", get(metrics::<H>))
        .route(WEBSOCKET_PATH, get(upgrade::<H>))
        .fallback(async || refused(&WireError::new(Code::NotFound, "no such page")))
        .method_not_allowed_fallback(async || {
            let error = WireError::new(Code::Unsupported, "not with this method");
            (StatusCode::METHOD_NOT_ALLOWED, Json(error))
        })
        .layer(middleware::map_response(harden))
        .layer(middleware::from_fn(no_other_version))
        .with_state(Arc::new(http))
}

async fn harden(mut response: Response) -> Response {
    let headers = response.headers_mut();
    let fixed = |text| HeaderValue::from_static(text);
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, fixed("nosniff"));
    let cache = headers.entry(header::CACHE_CONTROL);
    cache.or_insert(fixed("no-store"));
    response
}

/// HTTP/2 is not offered; a client that speaks it unasked is told so by its own means.
async fn no_other_version(request: Request, next: Next) -> Response {
    if request.version() > axum::http::Version::HTTP_11 {
        return StatusCode::HTTP_VERSION_NOT_SUPPORTED.into_response();
    }
    next.run(request).await
}

#[derive(Serialize)]
struct WellKnown {
    name: String,
    server: comity_protocol::ids::ServerId,
    card: String,
    versions: [u64; 1],
    websocket: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    quic: Option<u16>,
}

async fn well_known<H: Home>(State(http): Shared<H>) -> Json<WellKnown> {
    let info = http.gate.home.info();
    Json(WellKnown {
        name: info.name,
        server: info.server,
        card: info.card,
        versions: [VERSION],
        websocket: WEBSOCKET_PATH,
        quic: http.quic_port,
    })
}

async fn sign_up<H: Home>(
    State(http): Shared<H>,
    ConnectInfo(remote): Remote,
    headers: HeaderMap,
    body: Body,
) -> Response {
    let ask = async |home: H, asked, ip| home.sign_up(asked, ip).await;
    signing(&http, remote, &headers, body, StatusCode::CREATED, ask).await
}

async fn sign_in<H: Home>(
    State(http): Shared<H>,
    ConnectInfo(remote): Remote,
    headers: HeaderMap,
    body: Body,
) -> Response {
    let ask = async |home: H, asked, ip| home.sign_in(asked, ip).await;
    signing(&http, remote, &headers, body, StatusCode::OK, ask).await
}

async fn enroll<H: Home>(
    State(http): Shared<H>,
    ConnectInfo(remote): Remote,
    headers: HeaderMap,
    body: Body,
) -> Response {
    let ask = async |home: H, asked, ip| home.enroll(asked, ip).await;
    signing(&http, remote, &headers, body, StatusCode::OK, ask).await
}

async fn introduce<H: Home>(State(http): Shared<H>, headers: HeaderMap, body: Body) -> Response {
    let answer = match read_json(&headers, body).await {
        Ok(by) => http.gate.home.introduce(by).await,
        Err(error) => Err(error),
    };
    match answer {
        Ok(introduced) => Json(introduced).into_response(),
        Err(error) => {
            http.gate.metrics.count_refused(error.code);
            refused(&error)
        }
    }
}

async fn signing<H: Home, T: DeserializeOwned, F>(
    http: &Http<H>,
    remote: SocketAddr,
    headers: &HeaderMap,
    body: Body,
    done: StatusCode,
    ask: impl FnOnce(H, T, IpAddr) -> F,
) -> Response
where
    F: Future<Output = Result<SignedIn, WireError>>,
{
    let answer = match read_json(headers, body).await {
        Ok(asked) => ask(http.gate.home.clone(), asked, remote.ip().to_canonical()).await,
        Err(error) => Err(error),
    };
    match answer {
        Ok(signed_in) => (done, Json(signed_in)).into_response(),
        Err(error) => {
            http.gate.metrics.count_refused(error.code);
            refused(&error)
        }
    }
}

async fn read_json<T: DeserializeOwned>(headers: &HeaderMap, body: Body) -> Result<T, WireError> {
    let malformed = |why: String| WireError::new(Code::Malformed, why);
    let is_json = headers
        .get(header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.split(';').next())
        .is_some_and(|kind| kind.trim().eq_ignore_ascii_case("application/json"));
    if !is_json {
        return Err(malformed(
            "the content type has to be application/json".to_owned(),
        ));
    }
    let bytes = read_body(headers, body).await?;
    // The parser's own words may quote the body, and with it a password: they name the place only.
    serde_json::from_slice(&bytes).map_err(|error| {
        let (line, column) = (error.line(), error.column());
        let what = match error.classify() {
            serde_json::error::Category::Data => "an unknown, missing or wrong field",
            _ => "not JSON",
        };
        malformed(format!("{what} at line {line}, column {column}"))
    })
}

async fn read_body(headers: &HeaderMap, body: Body) -> Result<Bytes, WireError> {
    let too_large = || {
        let why = format!("a body has at most {HTTP_BODY_BYTES_MAX} bytes here");
        WireError::new(Code::TooLarge, why)
    };
    let announced = headers
        .get(header::CONTENT_LENGTH)
        .and_then(|value| value.to_str().ok()?.parse().ok());
    if announced.is_some_and(|len: u64| len > HTTP_BODY_BYTES_MAX as u64) {
        return Err(too_large());
    }
    let reading = to_bytes(body, HTTP_BODY_BYTES_MAX);
    match timeout(Duration::from_millis(HTTP_BODY_MS), reading).await {
        Ok(Ok(bytes)) => Ok(bytes),
        // Too long without an announcement; a broken connection hears no answer anyway.
        Ok(Err(_)) => Err(too_large()),
        Err(_) => {
            let why = format!("no whole body within {HTTP_BODY_MS} ms");
            Err(WireError::new(Code::Silent, why))
        }
    }
}

async fn readyz<H: Home>(State(http): Shared<H>) -> Response {
    if http.gate.stopping.is_cancelled() {
        return (StatusCode::SERVICE_UNAVAILABLE, "stopping\n").into_response();
    }
    match http.gate.home.ready() {
        Ok(()) => "ready\n".into_response(),
        Err(why) => (StatusCode::SERVICE_UNAVAILABLE, format!("{why}\n")).into_response(),
    }
}

async fn metrics<H: Home>(
    State(http): Shared<H>,
    ConnectInfo(remote): Remote,
    headers: HeaderMap,
) -> Response {
    // A proxy on this machine is on loopback too, but says for whom it asks.
    let forwarded = ["forwarded", "x-forwarded-for", "x-real-ip", "via"];
    let direct = !forwarded.iter().any(|name| headers.contains_key(*name));
    if !(direct && remote.ip().to_canonical().is_loopback()) {
        return refused(&WireError::new(Code::NotFound, "no such page"));
    }
    let mut text = http.gate.home.metrics();
    text.push_str(&http.gate.metrics.prometheus());
    let kind = "text/plain; version=0.0.4; charset=utf-8";
    ([(header::CONTENT_TYPE, kind)], text).into_response()
}

async fn upgrade<H: Home>(
    State(http): Shared<H>,
    Extension(meter): Extension<Arc<Meter>>,
    asked: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Response {
    let asked = match asked {
        Ok(asked) => asked,
        Err(rejection) => {
            return refused(&WireError::new(Code::Malformed, rejection.body_text()));
        }
    };
    let asked = asked.protocols([SUBPROTOCOL_CBOR, SUBPROTOCOL_JSON]);
    let codec = match asked.selected_protocol().map(HeaderValue::as_bytes) {
        Some(chosen) if chosen == SUBPROTOCOL_CBOR.as_bytes() => Codec::Cbor,
        Some(_) => Codec::Json,
        None => {
            let why = format!("offer the subprotocol {SUBPROTOCOL_CBOR} or {SUBPROTOCOL_JSON}");
            return refused(&WireError::new(Code::Malformed, why));
        }
    };
    let gate = Arc::clone(&http.gate);
    if gate.stopping.is_cancelled() {
        return refused(&WireError::new(Code::Stopping, "the server is stopping"));
    }
    let Ok(slot) = Arc::clone(&gate.handshakes).try_acquire_owned() else {
        let mut error = WireError::new(Code::Busy, "too many sessions are being opened");
        error.retry_after_ms = Some(1_000);
        gate.metrics.count_refused(error.code);
        return refused(&error);
    };
    // Taken before the upgrade, whose task is the library's, so that stopping waits for it too.
    let token = gate.tasks.token();
    asked
        .read_buffer_size(WEBSOCKET_READ_BYTES)
        .write_buffer_size(WEBSOCKET_WRITE_BYTES)
        .max_write_buffer_size(2 * JSON_FRAME_BYTES_MAX)
        .max_message_size(SESSION_FRAME_BYTES_MAX)
        .max_frame_size(SESSION_FRAME_BYTES_MAX)
        .on_upgrade(move |socket| async move {
            let _token = token;
            Box::pin(websocket::serve(gate, slot, socket, codec, meter)).await;
        })
}

/// An error as an HTTP answer.
fn refused(error: &WireError) -> Response {
    let mut response = (status(error.code), Json(error)).into_response();
    if let Some(ms) = error.retry_after_ms {
        let name: HeaderName = header::RETRY_AFTER;
        response
            .headers_mut()
            .insert(name, ms.div_ceil(1_000).into());
    }
    response
}

fn status(code: Code) -> StatusCode {
    match code {
        Code::Malformed | Code::UnknownVersion | Code::InvalidName | Code::ContentMismatch => {
            StatusCode::BAD_REQUEST
        }
        Code::Unauthenticated | Code::InvalidToken | Code::WrongSignature | Code::UnknownDevice => {
            StatusCode::UNAUTHORIZED
        }
        Code::NotAllowed | Code::NotMember | Code::NotOwner | Code::ForeignAuthor => {
            StatusCode::FORBIDDEN
        }
        Code::NotFound => StatusCode::NOT_FOUND,
        Code::Silent => StatusCode::REQUEST_TIMEOUT,
        Code::Conflict | Code::HandleConfusable | Code::Overtaken => StatusCode::CONFLICT,
        Code::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
        Code::RateLimited => StatusCode::TOO_MANY_REQUESTS,
        Code::Busy | Code::ReadOnly | Code::DiskFull | Code::Stopping | Code::TooSlow => {
            StatusCode::SERVICE_UNAVAILABLE
        }
        Code::Unreachable => StatusCode::BAD_GATEWAY,
        Code::Unsupported => StatusCode::NOT_IMPLEMENTED,
        _ => StatusCode::INTERNAL_SERVER_ERROR,
    }
}
