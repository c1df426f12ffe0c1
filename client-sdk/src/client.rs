//! The client: what a program holds, and what its tasks share.

mod shared;

use std::{fmt, sync::Arc};

use comity_protocol::{
    ids::{ConversationId, DeviceKey, Nonce, ServerId, UserId},
    root::{Genesis, Root},
    session::{LookedUp, Reply, Request, Summary},
};

pub(crate) use shared::{Call, Me, Shared, Stop};

use crate::{
    address::Who,
    builder::ClientBuilder,
    clock,
    conversation::Conversation,
    error::{Error, ErrorKind, Result},
    events::{ConnectionState, Events},
    random,
    sending::Outgoing,
};
use comity_protocol::role::Role;

/// Conversations asked for at once.
pub(crate) const CONVERSATIONS_PAGE: u32 = 500;

/// Figures of a client since it was made.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub struct Stats {
    /// Lines and edits that were not shown because they could not be verified.
    pub unverified: u64,
    /// Sessions opened.
    pub sessions: u64,
    /// Events in the outbox now.
    pub outbox: usize,
}

/// A signed-in user's client. Cheap to clone; the connection ends with the last clone, stream,
/// message and handle, or with [`close`](Self::close).
#[derive(Clone)]
pub struct Client {
    shared: Arc<Shared>,
    _guard: Arc<Guard>,
}

struct Guard(Arc<Shared>);

impl Drop for Guard {
    fn drop(&mut self) {
        self.0.stop(Stop::Now);
    }
}

impl Client {
    /// Begins to connect as `alice@eu.example`.
    pub fn builder(address: impl Into<String>) -> ClientBuilder {
        ClientBuilder::new(address.into())
    }

    pub(crate) fn from_shared(shared: Arc<Shared>) -> Self {
        Self {
            _guard: Arc::new(Guard(Arc::clone(&shared))),
            shared,
        }
    }

    pub(crate) fn shared(&self) -> &Shared {
        &self.shared
    }

    /// This client's user.
    #[must_use]
    pub fn user(&self) -> UserId {
        self.shared.me.user
    }

    /// The address it was made with.
    #[must_use]
    pub fn address(&self) -> &str {
        &self.shared.me.address
    }

    /// This client's device.
    #[must_use]
    pub fn device(&self) -> DeviceKey {
        self.shared.me.key.public()
    }

    /// The home server.
    #[must_use]
    pub fn server(&self) -> ServerId {
        self.shared.me.server
    }

    /// Events from here on; see [`Events`] for what several streams mean. A program with more than
    /// 64 streams gets one that ends at once.
    #[must_use]
    pub fn events(&self) -> Events {
        Events::new(self.clone())
    }

    /// The connection now; changes come as [`Event::Connection`](crate::Event::Connection).
    #[must_use]
    pub fn connection(&self) -> ConnectionState {
        self.shared.state()
    }

    /// Waits until a session is open.
    ///
    /// # Errors
    ///
    /// When there will be none any more: logged out, or closed.
    pub async fn wait_online(&self) -> Result<()> {
        self.shared.wait_online().await
    }

    /// Tries again at once instead of waiting: for programs that learn of a network change.
    pub fn reconnect_now(&self) {
        self.shared.reconnect.notify_waiters();
    }

    /// A handle on a conversation. Nothing is asked.
    #[must_use]
    pub fn conversation(&self, id: ConversationId) -> Conversation {
        Conversation::new(self.clone(), id)
    }

    /// The user's conversations, newest change first.
    ///
    /// # Errors
    ///
    /// The server's refusal, or [`ErrorKind::Offline`]; [`known_conversations`](
    /// Self::known_conversations) works offline.
    pub async fn conversations(&self) -> Result<Vec<Conversation>> {
        let summaries = self.shared.list().await?;
        let ids = summaries.into_iter().map(|summary| {
            let id = summary.conversation;
            self.shared.notebook().know(summary);
            self.conversation(id)
        });
        Ok(ids.collect())
    }

    /// The conversations that this client knows of, newest change first, without asking.
    #[must_use]
    pub fn known_conversations(&self) -> Vec<Conversation> {
        let mut known: Vec<Arc<Summary>> = self.shared.notebook().known.values().cloned().collect();
        known.sort_by_key(|summary| std::cmp::Reverse(summary.changed_at));
        let ids = known
            .iter()
            .map(|summary| self.conversation(summary.conversation));
        ids.collect()
    }

    /// Makes a group with a title and members. The group is there when this returns; the title and
    /// the invitations are in the outbox. A member that cannot be found is an error, and the group
    /// is then not made.
    ///
    /// # Errors
    ///
    /// The server's refusal, or [`ErrorKind::Offline`].
    pub async fn create_group<W: Into<Who>>(
        &self,
        title: impl Into<String>,
        members: impl IntoIterator<Item = W>,
    ) -> Result<Conversation> {
        let mut users = vec![];
        for who in members {
            // Looked up first: a typing error must not leave a half-made group behind.
            users.push(match who.into() {
                Who::Id(user) => (user, None),
                Who::Address(address) => {
                    let found = self.lookup(address).await?;
                    (found.user, Some(found.home))
                }
            });
        }
        let root = Root {
            v: 1,
            n: 0,
            prev: None,
            owner: self.user(),
            home: self.server(),
            stewards: vec![self.server()],
            frontier: vec![],
            digest: None,
            nonce: Nonce::from_bytes(random::bytes()?),
            created_at: clock::now(),
        };
        let genesis = Genesis::sign(root, &self.shared.me.key);
        let request = Request::Create {
            root: genesis.raw().clone(),
        };
        let conversation = self.made(request).await?;
        if conversation.id() != genesis.conversation() {
            return Err(Error::unexpected_reply());
        }
        let title = title.into();
        if !title.is_empty() {
            let _ = conversation.set_title(title).await?;
        }
        for (user, home) in users {
            let _ = conversation.invite_found(user, home, Role::Member).await?;
        }
        Ok(conversation)
    }

    /// Opens the direct conversation with a user; with oneself, notes.
    ///
    /// # Errors
    ///
    /// The server's refusal, or [`ErrorKind::Offline`].
    pub async fn open_direct(&self, who: impl Into<Who>) -> Result<Conversation> {
        let user = match who.into() {
            Who::Id(user) => user,
            Who::Address(address) => self.lookup(address).await?.user,
        };
        self.made(Request::OpenDirect { user }).await
    }

    async fn made(&self, request: Request) -> Result<Conversation> {
        let Reply::Conversation(summary) = self.shared.call(request).await? else {
            return Err(Error::unexpected_reply());
        };
        let id = summary.conversation;
        self.shared.notebook().know(*summary);
        Ok(self.conversation(id))
    }

    /// Finds a user by address, or by a handle of the own server.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::NotFound`], another refusal, or [`ErrorKind::Offline`].
    pub async fn lookup(&self, address: impl Into<String>) -> Result<LookedUp> {
        let request = Request::Lookup {
            address: address.into(),
        };
        match self.shared.call(request).await? {
            Reply::LookedUp(found) => Ok(found),
            _ => Err(Error::unexpected_reply()),
        }
    }

    /// What waits in the outbox, in the order written; also what an earlier process left there.
    #[must_use]
    pub fn pending(&self) -> Vec<Outgoing> {
        let outbox = self.shared.outbox();
        let tickets = outbox
            .queue
            .iter()
            .map(|(_, item)| Arc::clone(&item.ticket));
        tickets
            .map(|ticket| Outgoing::new(self.clone(), ticket))
            .collect()
    }

    /// Figures.
    #[must_use]
    pub fn stats(&self) -> Stats {
        self.shared.stats()
    }

    /// Sends what is in the outbox if there is a session, for at most 5 s, then ends the session
    /// and every stream. What is still unsent stays in a stored outbox.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Offline`] if something was left unsent; the client is closed all the same.
    pub async fn close(&self) -> Result<()> {
        self.shared.stop(Stop::Flush);
        self.shared.wait_closed().await;
        match self.stats().outbox {
            0 => Ok(()),
            left => Err(Error::new(
                ErrorKind::Offline,
                format!("closed with {left} events unsent"),
            )),
        }
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client")
            .field("address", &self.shared.me.address)
            .field("state", &self.shared.state())
            .finish_non_exhaustive()
    }
}
