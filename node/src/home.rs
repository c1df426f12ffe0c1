//! The home behind the gateway: answers sessions' requests and keeps accounts.

mod accounts;
mod meeting;
pub(crate) mod reads;
mod send;

use std::{
    net::IpAddr,
    sync::{Arc, Mutex},
};

use comity_protocol::{
    conversation::RootChange,
    ids::{Blob, UserId},
    session::{
        Code, CursorState, CursorVerdict, Hello, Reply, Request, Welcome, WireError,
        session_message,
    },
    signing::{Domain, SecretKey, verify},
};
use comity_storage::{Health, ReadError};

use meeting::Meeting;

use crate::{
    accounts::{Passwords, Registry, SignInThrottle, Tokens},
    config::ServerKeys,
    engine::{Engine, now},
    gateway::home::{
        Enroll, Home, Info, Introduced, Introduction, Opened, SignIn, SignUp, SignedIn, Who,
    },
    outbound::Web,
    updates::SessionUpdates,
};

/// Everything a session may ask. Cheap to clone.
#[derive(Clone)]
pub(crate) struct HomeServer(Arc<Inner>);

struct Inner {
    engine: Engine,
    info: Info,
    /// The keys that the home holds for its users derive from this one.
    users_key: SecretKey,
    cursor_key: [u8; 32],
    registry: Mutex<Registry>,
    tokens: Mutex<Tokens>,
    throttle: Mutex<SignInThrottle>,
    passwords: Passwords,
    meeting: Meeting,
}

impl std::fmt::Debug for HomeServer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("HomeServer")
            .field("info", &self.0.info)
            .finish_non_exhaustive()
    }
}

fn unreadable(error: &ReadError) -> WireError {
    tracing::error!(%error, "a request could not be read for");
    WireError::new(Code::Internal, "the store could not be read; try again")
}

fn not_found(what: &str) -> WireError {
    WireError::new(Code::NotFound, format!("no such {what}"))
}

impl HomeServer {
    /// Reads accounts and tokens back from the rows.
    pub(crate) fn new(engine: Engine, keys: &ServerKeys, web: Web) -> Result<Self, ReadError> {
        let card = keys.cards.current();
        let info = Info {
            server: keys.server(),
            name: card.name.to_string(),
            card: keys.cards.to_text().unwrap_or_default(),
        };
        let rows = &engine.shared.rows;
        let handles = rows.accounts()?.into_iter();
        let handles =
            handles.filter_map(|account| Some((account.handle.parse().ok()?, account.user)));
        let registry = Mutex::new(Registry::new(handles));
        let stored = rows
            .tokens()?
            .into_iter()
            .filter_map(|token| accounts::token_of(&token));
        let tokens = Mutex::new(Tokens::new(stored, now()));
        let cursor_key = keys.users.derive("comity cursor key v1", &[]).to_seed();
        Ok(Self(Arc::new(Inner {
            engine,
            info,
            users_key: keys.users.clone(),
            cursor_key,
            registry,
            tokens,
            throttle: Mutex::default(),
            passwords: Passwords::new(2),
            meeting: Meeting::new(web),
        })))
    }

    pub(crate) fn engine(&self) -> &Engine {
        &self.0.engine
    }

    fn cursor_at(&self, position: u64) -> CursorState {
        CursorState {
            server: self.0.info.server,
            incarnation: self.0.engine.shared.storage.incarnation(),
            position,
        }
    }

    async fn answer(&self, who: Who, request: Request) -> Result<Reply, WireError> {
        match request {
            Request::Send { event, content } => self.send(who, event, content).await,
            Request::Create { root } => self.create(who, root).await,
            Request::OpenDirect { user } => self.open_direct(who, user).await,
            Request::Conversations { offset, limit } => {
                self.conversations(who, offset, limit).await
            }
            Request::Members {
                conversation,
                after,
                limit,
            } => self.members(who, conversation, after, limit).await,
            Request::History {
                conversation,
                anchor,
                limit,
            } => self.history(who, conversation, anchor, limit).await,
            Request::Item {
                conversation,
                event,
            } => self.item(who, conversation, event).await,
            Request::State {
                conversation,
                after,
                limit,
            } => self.state(who, conversation, after, limit).await,
            Request::Voided {
                conversation,
                after,
                limit,
            } => self.voided(who, conversation, after, limit).await,
            Request::Identity { user } => self.identity(user).await,
            Request::Lookup { address } => self.lookup(&address).await,
            Request::Grantee { conversation, user } => self.grantee(who, conversation, user).await,
            Request::Own {
                conversation,
                event,
            } => self.own(who, conversation, event).await,
            Request::Delivery {
                conversation,
                event,
            } => self.delivery(who, conversation, event).await,
            Request::NextRoot {
                conversation,
                owner,
                stewards,
            } => {
                let change = RootChange { owner, stewards };
                self.next_root(who, conversation, change).await
            }
            Request::SignRoot { conversation, root } => {
                self.sign_root(who, conversation, root).await
            }
            Request::Begin { .. } | Request::Hello(_) | Request::Ping => {
                Err(WireError::new(Code::Malformed, "not in an open session"))
            }
        }
    }

    async fn identity(&self, user: UserId) -> Result<Reply, WireError> {
        let log = self
            .identity_log(user)
            .await?
            .ok_or_else(|| not_found("user"))?;
        let entries: Vec<Blob> = log.to_travel();
        Ok(Reply::Identity { entries })
    }
}

impl Home for HomeServer {
    type Updates = SessionUpdates;

    fn info(&self) -> Info {
        self.0.info.clone()
    }

    async fn hello(
        &self,
        hello: Hello,
        challenge: [u8; 32],
    ) -> Result<Opened<SessionUpdates>, WireError> {
        let shared = &self.0.engine.shared;
        // One answer for a user that is not here, a device that is not his, and a wrong signature:
        // it tells nobody which users there are.
        let refused = || WireError::new(Code::UnknownDevice, "this device is not signed in here");
        let log = shared
            .identities
            .get(&hello.user)
            .map_err(|e| unreadable(&e))?;
        let log = log
            .filter(|log| log.home() == shared.me)
            .ok_or_else(refused)?;
        if !log.is_current(&hello.device) {
            return Err(refused());
        }
        let message = session_message(&challenge, &shared.me, &hello.user);
        verify(&hello.device, Domain::Session, &message, &hello.signature)
            .map_err(|_| refused())?;
        let account = shared
            .rows
            .account_of(&hello.user)
            .map_err(|e| unreadable(&e))?;
        let account = account.ok_or_else(refused)?;

        // The inbox is open before the position is read: what is published from here on is in one
        // or the other, and what is in both is told by its position.
        let inbox = shared.hub.open(hello.user, hello.device);
        let newest = self.cursor_at(shared.rows.0.newest());
        let (position, reset) = match &hello.cursor {
            None => (newest.position, false),
            Some(cursor) => match newest.judge(&self.0.cursor_key, cursor) {
                CursorVerdict::Resume(position) => (position, false),
                CursorVerdict::Reset => (newest.position, true),
            },
        };
        let cursor = self.cursor_at(position);
        let updates = SessionUpdates::new(
            Arc::clone(&shared.hub),
            inbox,
            shared.rows.clone(),
            hello.user,
            cursor,
            self.0.cursor_key,
        );
        let welcome = Welcome {
            cursor: cursor.seal(&self.0.cursor_key),
            reset,
            handle: account.handle,
            now: now(),
        };
        let who = Who {
            user: hello.user,
            device: hello.device,
        };
        Ok(Opened {
            who,
            welcome,
            updates,
        })
    }

    async fn request(&self, who: Who, request: Request) -> Result<Reply, WireError> {
        self.answer(who, request).await
    }

    async fn sign_up(&self, sign_up: SignUp, remote: IpAddr) -> Result<SignedIn, WireError> {
        self.make_account_by_token(sign_up, remote).await
    }

    async fn sign_in(&self, sign_in: SignIn, remote: IpAddr) -> Result<SignedIn, WireError> {
        self.sign_in_by_password(sign_in, remote).await
    }

    async fn enroll(&self, enroll: Enroll, remote: IpAddr) -> Result<SignedIn, WireError> {
        self.enroll_by_token(enroll, remote).await
    }

    async fn introduce(&self, by: Introduction) -> Result<Introduced, WireError> {
        self.introduced(by).await
    }

    fn ready(&self) -> Result<(), String> {
        match self.0.engine.shared.storage.health() {
            Health::Ok => Ok(()),
            other => Err(format!("storage: {other:?}")),
        }
    }

    fn metrics(&self) -> String {
        crate::metrics::text(&self.0.engine)
    }
}
