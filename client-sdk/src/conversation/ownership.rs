//! Who owns a conversation, and which servers witness that.
//!
//! Both are said in a root record, which the own device signs and a majority of the servers named
//! before as stewards.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use comity_protocol::{
    encoding,
    ids::{Blob, ConversationId, ServerId, UserId},
    limits::{RECONNECT_MIN_MS, ROOT_BYTES_MAX},
    role::Role,
    root::{RawRoot, Root},
    session::{Code, NextRoot, Reply, Request, Summary},
};

use tokio::sync::Notify;

use super::Conversation;
use crate::{
    address::Who,
    client::Shared,
    error::{Error, ErrorKind, Result},
};

/// Records signed for one call: another came first each time before.
const SIGNED_MAX: u64 = 5;
/// Conversations that wait for their stewards to be named.
const WANTED_MAX: usize = 1_024;

impl Conversation {
    /// Makes a member the owner; the one who was becomes an admin. Asked again after an error it
    /// says whether it is done, or goes on.
    ///
    /// The stewards are the usual ones of the new owner's server from then on.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Forbidden`] unless the user is the owner and the other a member,
    /// [`ErrorKind::NotFound`]; [`ErrorKind::Unavailable`] while a majority of the stewards cannot
    /// be reached: it may still be done later, by what was signed.
    pub async fn transfer_ownership(&self, who: impl Into<Who>) -> Result<()> {
        let (user, _) = self.find(who.into()).await?;
        self.root().change(Some(user), None).await
    }

    /// Names the servers that have to sign the next record: 1, 3, 5 or 7 of those taking part. None:
    /// the usual ones, that is the own server, or with others taking part it and two of them.
    ///
    /// The usual ones are named by themselves, once two other servers take part in a conversation of
    /// which the user is the owner and the own server the only steward. Whoever called this before
    /// decides by himself.
    ///
    /// # Errors
    ///
    /// As [`transfer_ownership`](Self::transfer_ownership).
    pub async fn set_stewards(&self, stewards: Option<Vec<ServerId>>) -> Result<()> {
        let stewards = stewards.map(|mut stewards| {
            stewards.sort_unstable();
            stewards.dedup();
            stewards
        });
        self.root().change(None, stewards).await
    }

    fn root(&self) -> NextRecord<'_> {
        NextRecord {
            shared: self.client.shared(),
            conversation: self.id,
        }
    }
}

/// Conversations in which the home server wants the usual stewards named, each once.
#[derive(Debug, Default)]
pub(crate) struct Wanted {
    conversations: Mutex<BTreeSet<ConversationId>>,
    added: Notify,
}

impl Wanted {
    /// Notes what the home server said of a conversation. What finds no room is said again with the
    /// next session.
    pub(crate) fn note(&self, summary: &Summary) {
        let mut all = self.lock();
        if !summary.names_stewards || summary.role != Role::Owner {
            all.remove(&summary.conversation);
        } else if all.len() < WANTED_MAX {
            all.insert(summary.conversation);
            self.added.notify_one();
        }
    }

    async fn next(&self) -> ConversationId {
        loop {
            if let Some(id) = self.lock().pop_first() {
                return id;
            }
            // One reader: a permit left by `notify_one` is his.
            self.added.notified().await;
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeSet<ConversationId>> {
        self.conversations
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// Has the usual stewards named wherever the home server wants it, one conversation after the other,
/// until the client ends. What fails is tried when the home says it again, and not before.
pub(crate) async fn name_stewards(shared: Arc<Shared>) {
    let name = async {
        loop {
            let conversation = shared.wanted.next().await;
            let shared = &shared;
            let root = NextRecord {
                shared,
                conversation,
            };
            if let Err(error) = root.change(None, None).await {
                tracing::debug!(%conversation, error = error.chain(), "no stewards were named");
            }
        }
    };
    tokio::select! {
        () = name => {}
        _ = shared.ended() => {}
    }
}

/// The next root record of a conversation.
struct NextRecord<'a> {
    shared: &'a Shared,
    conversation: ConversationId,
}

impl NextRecord<'_> {
    async fn change(&self, owner: Option<UserId>, stewards: Option<Vec<ServerId>>) -> Result<()> {
        let mut tries = 0;
        loop {
            match self.change_once(owner, stewards.clone()).await {
                Err(error) if error.code() == Code::Overtaken.as_str() && tries < SIGNED_MAX => {
                    tries += 1;
                    tokio::time::sleep(Duration::from_millis(tries * RECONNECT_MIN_MS)).await;
                }
                other => return other,
            }
        }
    }

    async fn change_once(
        &self,
        owner: Option<UserId>,
        stewards: Option<Vec<ServerId>>,
    ) -> Result<()> {
        let conversation = self.conversation;
        let request = Request::NextRoot {
            conversation,
            owner,
            stewards: stewards.clone(),
        };
        let NextRoot::Sign(bytes) = self.ask(request).await? else {
            return Ok(());
        };
        let owner = owner.unwrap_or(self.shared.me.user);
        let root = self.sign(bytes, &owner, stewards.as_deref())?;
        match self.ask(Request::SignRoot { conversation, root }).await? {
            NextRoot::Stands(_) => Ok(()),
            NextRoot::Sign(_) => Err(Error::unexpected_reply()),
        }
    }

    async fn ask(&self, request: Request) -> Result<NextRoot> {
        match self.shared.call(request).await? {
            Reply::NextRoot(next) => Ok(next),
            _ => Err(Error::unexpected_reply()),
        }
    }

    /// Signs a record, if it says what was asked for.
    fn sign(&self, root: Blob, owner: &UserId, stewards: Option<&[ServerId]>) -> Result<RawRoot> {
        let strange = |what: &str| {
            let text = format!("the home server gave {what} to sign");
            Error::new(ErrorKind::Protocol, text)
        };
        let decoded: Root = encoding::decode(&root.0, ROOT_BYTES_MAX)
            .map_err(|error| strange("what is no record").because(error))?;
        let first_follows = decoded.n > 1
            || decoded
                .prev
                .is_some_and(|prev| prev.as_bytes() == self.conversation.as_bytes());
        if decoded.n == 0 || !first_follows {
            return Err(strange("a record of another conversation"));
        }
        if decoded.owner != *owner || stewards.is_some_and(|wanted| wanted != decoded.stewards) {
            return Err(strange("a record that says something else"));
        }
        Ok(RawRoot::by_device(root, &self.shared.me.key))
    }
}

#[cfg(test)]
mod tests;
