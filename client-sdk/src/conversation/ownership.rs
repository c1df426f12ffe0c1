//! Who owns a conversation, and which servers witness that.
//!
//! Both are said in a root record, which the own device signs and a majority of the servers named
//! before as stewards.

use std::time::Duration;

use comity_protocol::{
    encoding,
    ids::{Blob, ServerId, UserId},
    limits::{RECONNECT_MIN_MS, ROOT_BYTES_MAX},
    root::{RawRoot, Root},
    session::{Code, NextRoot, Reply, Request},
};

use super::Conversation;
use crate::{
    address::Who,
    error::{Error, ErrorKind, Result},
};

/// Records signed for one call: another came first each time before.
const SIGNED_MAX: u64 = 5;

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
        self.change_root(Some(user), None).await
    }

    /// Names the servers that have to sign the next record: 1, 3, 5 or 7 of those taking part. None:
    /// the usual ones, that is the own server, or with others taking part it and two of them.
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
        self.change_root(None, stewards).await
    }

    async fn change_root(
        &self,
        owner: Option<UserId>,
        stewards: Option<Vec<ServerId>>,
    ) -> Result<()> {
        let mut tries = 0;
        loop {
            match self.change_root_once(owner, stewards.clone()).await {
                Err(error) if error.code() == Code::Overtaken.as_str() && tries < SIGNED_MAX => {
                    tries += 1;
                    tokio::time::sleep(Duration::from_millis(tries * RECONNECT_MIN_MS)).await;
                }
                other => return other,
            }
        }
    }

    async fn change_root_once(
        &self,
        owner: Option<UserId>,
        stewards: Option<Vec<ServerId>>,
    ) -> Result<()> {
        let conversation = self.id;
        let request = Request::NextRoot {
            conversation,
            owner,
            stewards: stewards.clone(),
        };
        let NextRoot::Sign(bytes) = self.ask_for_root(request).await? else {
            return Ok(());
        };
        let owner = owner.unwrap_or_else(|| self.client.user());
        let root = self.sign(bytes, &owner, stewards.as_deref())?;
        match self
            .ask_for_root(Request::SignRoot { conversation, root })
            .await?
        {
            NextRoot::Stands(_) => Ok(()),
            NextRoot::Sign(_) => Err(Error::unexpected_reply()),
        }
    }

    async fn ask_for_root(&self, request: Request) -> Result<NextRoot> {
        match self.client.shared().call(request).await? {
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
                .is_some_and(|prev| prev.as_bytes() == self.id.as_bytes());
        if decoded.n == 0 || !first_follows {
            return Err(strange("a record of another conversation"));
        }
        if decoded.owner != *owner || stewards.is_some_and(|wanted| wanted != decoded.stewards) {
            return Err(strange("a record that says something else"));
        }
        Ok(RawRoot::by_device(root, &self.client.shared().me.key))
    }
}
