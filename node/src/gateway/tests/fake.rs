//! A home that answers as its clients ask it to, and remembers what reached it.

use std::{
    net::IpAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
};

use comity_protocol::{
    ids::{Blob, ConversationId, ServerId, UserId},
    limits::SESSION_FRAME_BYTES_MAX,
    session::{
        Change, Code, Cursor, Hello, LookedUp, Reply, Request, Welcome, WireError, session_message,
    },
    signing::{self, Domain},
    time::Timestamp,
};
use tokio::sync::{Notify, Semaphore};

use crate::gateway::home::{
    Batch, Enroll, Home, Info, Introduced, Introduction, Opened, SignIn, SignUp, SignedIn, Updates,
    Who,
};

pub(super) const SERVER: ServerId = ServerId::from_bytes([9; 32]);
/// Changes of each endless batch; about 4 KiB of frame.
const ENDLESS_CHANGES: usize = 64;
/// Batches that no test's bounds allow for: some hundred megabytes.
const ENDLESS_BATCHES: u64 = 50_000;

#[derive(Clone)]
pub(super) struct Fake(pub(super) Arc<State>);

pub(super) struct State {
    /// Events of `send` in the order in which they reached the home.
    pub(super) sent: Mutex<Vec<Vec<u8>>>,
    /// Requests whose future was polled.
    pub(super) begun: AtomicU64,
    /// Permits for answers that wait to be let go.
    pub(super) hold: Semaphore,
    /// Ends the updates of sessions that asked for it.
    pub(super) revoke: Notify,
    pub(super) unready: AtomicBool,
    /// Batches that endless updates gave.
    pub(super) pulled: AtomicU64,
    /// Streams of updates there are.
    pub(super) streams: AtomicU64,
    pub(super) asked_from: Mutex<Vec<IpAddr>>,
}

impl Default for Fake {
    fn default() -> Self {
        Self(Arc::new(State {
            sent: Mutex::default(),
            begun: AtomicU64::new(0),
            hold: Semaphore::new(0),
            revoke: Notify::new(),
            unready: AtomicBool::new(false),
            pulled: AtomicU64::new(0),
            streams: AtomicU64::new(0),
            asked_from: Mutex::default(),
        }))
    }
}

impl Fake {
    pub(super) fn begun(&self) -> u64 {
        self.0.begun.load(Relaxed)
    }

    pub(super) fn pulled(&self) -> u64 {
        self.0.pulled.load(Relaxed)
    }

    fn signed_in(&self, handle: &str, remote: IpAddr) -> Result<SignedIn, WireError> {
        self.0.asked_from.lock().unwrap().push(remote);
        let error = match handle {
            "taken" => WireError::new(Code::Conflict, "taken"),
            "wrong" => WireError::new(Code::Unauthenticated, "wrong"),
            "often" => WireError {
                retry_after_ms: Some(2_500),
                ..WireError::new(Code::RateLimited, "too often")
            },
            _ => {
                return Ok(SignedIn {
                    user: UserId::from_bytes([1; 32]),
                    handle: handle.to_owned(),
                    server: SERVER,
                });
            }
        };
        Err(error)
    }
}

/// What a session is told, chosen by the name of its client.
pub(super) struct FakeUpdates {
    home: Fake,
    mode: String,
    given: u64,
}

impl Drop for FakeUpdates {
    fn drop(&mut self) {
        self.home.0.streams.fetch_sub(1, Relaxed);
    }
}

impl Updates for FakeUpdates {
    async fn next(&mut self) -> Result<Batch, WireError> {
        let conversation = ConversationId::from_bytes([4; 32]);
        let changes = match self.mode.as_str() {
            "endless" => {
                let pulled = self.home.0.pulled.fetch_add(1, Relaxed);
                assert!(pulled < ENDLESS_BATCHES, "pulled without bound");
                vec![
                    Change::Left {
                        conversation,
                        by: None
                    };
                    ENDLESS_CHANGES
                ]
            }
            "one" if self.given == 0 => vec![Change::Gap { conversation }],
            "huge" => vec![
                Change::Left {
                    conversation,
                    by: None
                };
                SESSION_FRAME_BYTES_MAX / 40
            ],
            "revocable" => {
                self.home.0.revoke.notified().await;
                return Err(WireError::new(Code::UnknownDevice, "revoked"));
            }
            _ => std::future::pending().await,
        };
        self.given += 1;
        Ok(Batch {
            cursor: Some(Cursor(Blob(self.given.to_be_bytes().to_vec()))),
            changes,
        })
    }
}

impl Home for Fake {
    type Updates = FakeUpdates;

    fn info(&self) -> Info {
        Info {
            server: SERVER,
            name: "eu.example".to_owned(),
            card: "comity-card:x".to_owned(),
        }
    }

    async fn hello(
        &self,
        hello: Hello,
        challenge: [u8; 32],
    ) -> Result<Opened<FakeUpdates>, WireError> {
        let message = session_message(&challenge, &SERVER, &hello.user);
        signing::verify(&hello.device, Domain::Session, &message, &hello.signature)
            .map_err(|e| WireError::new(Code::WrongSignature, e.to_string()))?;
        self.0.streams.fetch_add(1, Relaxed);
        Ok(Opened {
            who: Who {
                user: hello.user,
                device: hello.device,
            },
            welcome: Welcome {
                cursor: Cursor(Blob(vec![0])),
                reset: false,
                handle: "alice".to_owned(),
                now: Timestamp(1),
            },
            updates: FakeUpdates {
                home: self.clone(),
                mode: hello.client,
                given: 0,
            },
        })
    }

    async fn request(&self, who: Who, request: Request) -> Result<Reply, WireError> {
        let count = self.0.begun.fetch_add(1, Relaxed);
        match request {
            Request::Send { event, .. } => {
                self.0.sent.lock().unwrap().push(event.event.0.clone());
                // Later ones are answered earlier.
                for _ in 0..(7 - count % 7) {
                    tokio::task::yield_now().await;
                }
                Ok(Reply::Pong)
            }
            // Answers of about `limit` KiB once they are let go.
            Request::Members { limit, .. } => {
                self.let_go().await;
                let entries = vec![Blob(vec![0; 1024]); limit as usize];
                Ok(Reply::Identity { entries })
            }
            Request::Lookup { address } => match address.as_str() {
                "hold" => {
                    self.let_go().await;
                    Ok(Reply::Pong)
                }
                "huge" => Ok(Reply::Identity {
                    entries: vec![Blob(vec![0; 4 * SESSION_FRAME_BYTES_MAX])],
                }),
                "busy" => Err(WireError::new(Code::Busy, "busy")),
                handle => Ok(Reply::LookedUp(LookedUp {
                    user: who.user,
                    home: SERVER,
                    handle: handle.to_owned(),
                })),
            },
            _ => Err(WireError::new(Code::Unsupported, "not in this test")),
        }
    }

    async fn sign_up(&self, asked: SignUp, remote: IpAddr) -> Result<SignedIn, WireError> {
        self.signed_in(&asked.handle, remote)
    }

    async fn sign_in(&self, asked: SignIn, remote: IpAddr) -> Result<SignedIn, WireError> {
        self.signed_in(&asked.handle, remote)
    }

    async fn enroll(&self, asked: Enroll, remote: IpAddr) -> Result<SignedIn, WireError> {
        self.signed_in(&asked.device_name, remote)
    }

    async fn introduce(&self, by: Introduction) -> Result<Introduced, WireError> {
        Err(WireError::new(Code::Unreachable, by.name))
    }

    fn ready(&self) -> Result<(), String> {
        if self.0.unready.load(Relaxed) {
            return Err("the disk is full".to_owned());
        }
        Ok(())
    }

    fn metrics(&self) -> String {
        "comity_home_events_total 3\n".to_owned()
    }
}

impl Fake {
    async fn let_go(&self) {
        self.0.hold.acquire().await.unwrap().forget();
    }
}
