//! What the gateway needs of the rest of the node. The gateway carries frames, bounds and closes
//! sessions; every question of the protocol's substance is answered behind this trait.

use std::{fmt, future::Future, net::IpAddr};

use comity_protocol::{
    ids::{DeviceKey, ServerId, UserId},
    session::{Change, Cursor, Hello, Reply, Request, Welcome, WireError},
};
use serde::{Deserialize, Serialize};

/// Whose session it is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Who {
    /// The user.
    pub user: UserId,
    /// The device that signed the challenge.
    pub device: DeviceKey,
}

/// How the server presents itself to anybody who asks.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Info {
    /// The server's id.
    pub server: ServerId,
    /// The server's name.
    pub name: String,
    /// The newest card of its chain in text form, `comity-card:…`.
    pub card: String,
}

/// Changes for one session, in order.
#[derive(Clone, Debug, PartialEq)]
pub struct Batch {
    /// Resume here once the changes were taken in; absent when they are states only.
    pub cursor: Option<Cursor>,
    /// At most `UPDATE_ITEMS_MAX`, and together within a session frame: larger ones cannot be
    /// sent and end the session with `internal`.
    pub changes: Vec<Change>,
}

/// A session that was just opened.
#[derive(Debug)]
pub struct Opened<U> {
    /// Who proved to be there.
    pub who: Who,
    /// The answer to the `hello`.
    pub welcome: Welcome,
    /// What happens from `welcome.cursor` on.
    pub updates: U,
}

/// The stream of changes of one session. Dropped with the session.
pub trait Updates: Send + 'static {
    /// The next batch. Called again only once the batch before has been taken in by the outbound
    /// buffer, so a reader that stalls stalls this stream and costs no memory here.
    ///
    /// Must be cancel-safe: the future is dropped whenever something else happens first, and no
    /// batch may be lost with it. A call with nothing new waits.
    ///
    /// # Errors
    ///
    /// The session must end (device revoked, too far behind to go on): the error is said in a
    /// `bye` and the stream is dropped.
    fn next(&mut self) -> impl Future<Output = Result<Batch, WireError>> + Send;
}

/// Body of `POST /v1/sign-up`: a new account.
#[derive(Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct SignUp {
    /// Registration token.
    pub token: String,
    /// The handle wanted, unchecked.
    pub handle: String,
    /// The password as typed.
    pub password: String,
    /// The first device's public key.
    pub device: DeviceKey,
    /// Its name, unchecked.
    pub device_name: String,
}

/// Body of `POST /v1/sign-in`: another device of an account.
#[derive(Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct SignIn {
    /// The account's handle, unchecked.
    pub handle: String,
    /// The password as typed.
    pub password: String,
    /// The device's public key.
    pub device: DeviceKey,
    /// Its name, unchecked.
    pub device_name: String,
}

/// Body of `POST /v1/enroll`: a device by token, without a password.
#[derive(Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Enroll {
    /// Token of kind "device of user".
    pub token: String,
    /// The device's public key.
    pub device: DeviceKey,
    /// Its name, unchecked.
    pub device_name: String,
}

/// Body of `POST /v1/servers`: the name under which a server presents itself.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Introduction {
    /// The name: the cards are asked there.
    pub name: String,
}

/// The answer to an [`Introduction`].
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Introduced {
    /// The server that was introduced, as its name says.
    pub server: ServerId,
}

/// The device belongs to this user now and may open sessions.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct SignedIn {
    /// The user.
    pub user: UserId,
    /// The handle as it stands.
    pub handle: String,
    /// The home server.
    pub server: ServerId,
}

// Passwords and tokens must reach no log, so `Debug` shows none of them.
impl fmt::Debug for SignUp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = (&self.handle, &self.device);
        f.debug_tuple("SignUp").field(&shown).finish()
    }
}

impl fmt::Debug for SignIn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = (&self.handle, &self.device);
        f.debug_tuple("SignIn").field(&shown).finish()
    }
}

impl fmt::Debug for Enroll {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Enroll").field(&self.device).finish()
    }
}

/// The home server behind the gateway: a cheap handle, cloned for every session.
pub trait Home: Clone + Send + Sync + 'static {
    /// The stream of changes of a session.
    type Updates: Updates;

    /// How the server presents itself.
    fn info(&self) -> Info;

    /// Checks the device's signature over `session_message(challenge, server, user)` and opens
    /// the session's stream of changes. `challenge` was made for this session and is used once.
    ///
    /// # Errors
    ///
    /// Said to the client, and the session ends; nothing was opened.
    fn hello(
        &self,
        hello: Hello,
        challenge: [u8; 32],
    ) -> impl Future<Output = Result<Opened<Self::Updates>, WireError>> + Send;

    /// Answers one request; never `begin`, `hello` or `ping`, which are the gateway's.
    ///
    /// Requests of one session are called, and their futures first polled, in the order in which
    /// they came, so what is done before the first wait keeps that order (`send` needs it). They
    /// may be answered in any order, and up to `SESSION_REQUESTS_MAX` are under way at once. A
    /// session that breaks off drops its futures: what was handed on must not depend on them.
    ///
    /// # Errors
    ///
    /// Said to the client in `refused`; the session goes on.
    fn request(
        &self,
        who: Who,
        request: Request,
    ) -> impl Future<Output = Result<Reply, WireError>> + Send;

    /// Makes an account. `remote` is who asks, for limits by address.
    ///
    /// # Errors
    ///
    /// Becomes the HTTP answer; no account was made.
    fn sign_up(
        &self,
        sign_up: SignUp,
        remote: IpAddr,
    ) -> impl Future<Output = Result<SignedIn, WireError>> + Send;

    /// Adds a device by password; the same again for a device already there.
    ///
    /// # Errors
    ///
    /// Becomes the HTTP answer; no device was added.
    fn sign_in(
        &self,
        sign_in: SignIn,
        remote: IpAddr,
    ) -> impl Future<Output = Result<SignedIn, WireError>> + Send;

    /// Adds a device by token.
    ///
    /// # Errors
    ///
    /// Becomes the HTTP answer; no device was added and the token is as it was.
    fn enroll(
        &self,
        enroll: Enroll,
        remote: IpAddr,
    ) -> impl Future<Output = Result<SignedIn, WireError>> + Send;

    /// A server makes itself known by its name, at which it is asked who it is.
    ///
    /// # Errors
    ///
    /// Becomes the HTTP answer; the server is known as before.
    fn introduce(
        &self,
        by: Introduction,
    ) -> impl Future<Output = Result<Introduced, WireError>> + Send;

    /// Whether requests can be served now. Asked often; must not wait.
    ///
    /// # Errors
    ///
    /// The reason for the operator, in one line.
    fn ready(&self) -> Result<(), String>;

    /// The home's own counters as Prometheus text, each line ended by a newline. The gateway adds
    /// its own, which begin with `comity_gateway_`.
    fn metrics(&self) -> String;
}
