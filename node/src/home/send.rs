//! What changes something: sending, creating, opening.

use comity_protocol::{
    conversation::{RoleChange, RootChange},
    encoding::DecodeError,
    event::{EventError, RawEvent, SealedContent, SignedEvent},
    ids::{Blob, ConversationId, UserId},
    limits::{CONTENT_BYTES_MAX, EVENT_BYTES_MAX, ROOT_BYTES_MAX},
    replication::NewConversation,
    role::Role,
    root::{Genesis, RawRoot, RootSignature, RootSigner, direct_conversation},
    session::{Code, Reply, WireError},
    shard::first_answer,
};

use super::{HomeServer, not_found, unreadable};
use crate::{
    engine::{self, Command},
    gateway::home::Who,
    items::Items,
};

pub(super) fn decode_error(error: &DecodeError) -> WireError {
    let code = match error {
        DecodeError::TooLarge { .. } => Code::TooLarge,
        DecodeError::UnknownVersion(_) => Code::UnknownVersion,
        _ => Code::Malformed,
    };
    WireError::new(code, error.to_string())
}

fn event_error(error: &EventError) -> WireError {
    match error {
        EventError::Decode(error) => decode_error(error),
        _ => WireError::new(
            Code::WrongSignature,
            "the event's signature is not its device's",
        ),
    }
}

fn create(new: NewConversation) -> impl FnOnce(engine::Reply<()>) -> Command {
    move |reply| Command::Create {
        new,
        reply: Some(reply),
    }
}

impl HomeServer {
    /// Checks an event in the order of `spec/06-client-protocol.md`, section 3, and hands it to its
    /// conversation. Everything up to the hand-over happens in the first poll, so that events of
    /// one session keep their order.
    pub(super) async fn send(
        &self,
        who: Who,
        raw: RawEvent,
        content: Option<Blob>,
    ) -> Result<Reply, WireError> {
        let shared = &self.0.engine.shared;
        if raw.event.0.len() > EVENT_BYTES_MAX {
            let (len, max) = (raw.event.0.len(), EVENT_BYTES_MAX);
            return Err(decode_error(&DecodeError::TooLarge { len, max }));
        }
        if let Some(content) = content.as_ref().filter(|c| c.0.len() > CONTENT_BYTES_MAX) {
            let (len, max) = (content.0.len(), CONTENT_BYTES_MAX);
            return Err(decode_error(&DecodeError::TooLarge { len, max }));
        }
        // Before every other check: the answer to a retry is the first answer, whatever has
        // changed meanwhile.
        let known =
            comity_protocol::ids::EventId::from_bytes(*blake3::hash(&raw.event.0).as_bytes());
        let row = shared.rows.event(&known).map_err(|e| unreadable(&e))?;
        // What another home committed of it and is void is no answer of this one.
        let row = row.filter(|row| {
            let origin = || Items::new(&shared.rows).origin(row.record);
            row.void.is_none() || origin() == Some(shared.me)
        });
        if let Some(row) = row {
            return first_answer(known, row.place, row.void.as_deref()).map(Reply::Accepted);
        }
        let event = SignedEvent::verify(raw).map_err(|e| event_error(&e))?;
        let it = event.event();
        if it.author != who.user {
            return Err(WireError::new(
                Code::ForeignAuthor,
                "the author is not this session's user",
            ));
        }
        if it.device != who.device {
            return Err(WireError::new(
                Code::UnknownDevice,
                "signed by another device than this session's",
            ));
        }
        // Claimed before it is looked up: whoever had it until now has left a row.
        let conflict = || WireError::new(Code::Conflict, "this nonce was used for another event");
        let claim = shared.nonces.claim(it.device, it.nonce, event.id());
        let claim = claim.ok_or_else(conflict)?;
        let same = shared
            .rows
            .nonce(&it.device, &it.nonce)
            .map_err(|e| unreadable(&e))?;
        if same.is_some_and(|other| other != event.id()) {
            return Err(conflict());
        }
        let content = content
            .map(|bytes| SealedContent::open(bytes.0))
            .transpose();
        let content = content.map_err(|e| decode_error(&e))?;
        if it.act.content() != content.as_ref().map(SealedContent::reference) {
            return Err(WireError::new(
                Code::ContentMismatch,
                "the content is not the one that the event names",
            ));
        }
        let conversation = it.conversation;
        let event = Box::new(event);
        let send = |reply| Command::Send {
            event,
            content,
            claim,
            reply,
        };
        self.0
            .engine
            .ask(&conversation, send)
            .await
            .map(Reply::Accepted)
    }

    pub(super) async fn create(&self, who: Who, root: RawRoot) -> Result<Reply, WireError> {
        let shared = &self.0.engine.shared;
        let genesis = Genesis::verify(root).map_err(|error| match error {
            comity_protocol::root::RootError::Decode(error) => decode_error(&error),
            _ => WireError::new(Code::WrongSignature, "record 0 is not signed by its device"),
        })?;
        let root = genesis.root();
        if root.owner != who.user || genesis.device() != who.device {
            return Err(WireError::new(
                Code::ForeignAuthor,
                "the owner is this session's user",
            ));
        }
        if root.home != shared.me || root.stewards != [shared.me] {
            return Err(WireError::new(
                Code::Malformed,
                "home and the one steward of a new group are the owner's home server",
            ));
        }
        let conversation = genesis.conversation();
        self.0
            .engine
            .ask(
                &conversation,
                create(NewConversation::Group(Box::new(genesis))),
            )
            .await?;
        self.summary(conversation, who.user).await
    }

    pub(super) async fn open_direct(&self, who: Who, user: UserId) -> Result<Reply, WireError> {
        let own = self
            .identity_log(who.user)
            .await?
            .ok_or_else(|| not_found("user"))?;
        let other = self
            .identity_log(user)
            .await?
            .ok_or_else(|| not_found("user"))?;
        let member = |user, home| RoleChange {
            user,
            role: Role::Member,
            home,
        };
        let members = [member(who.user, own.home()), member(user, other.home())];
        let conversation = direct_conversation(&who.user, &user);
        self.0
            .engine
            .ask(&conversation, create(NewConversation::Direct(members)))
            .await?;
        self.summary(conversation, who.user).await
    }

    async fn summary(
        &self,
        conversation: ConversationId,
        user: UserId,
    ) -> Result<Reply, WireError> {
        let rows = self.0.engine.shared.rows.clone();
        self.read(move || Items::new(&rows).summary(&conversation, &user))
            .await?
            .map(|summary| Reply::Conversation(Box::new(summary)))
            .ok_or_else(|| not_found("conversation"))
    }

    /// The next root record as its owner wants it, for his device to sign.
    pub(super) async fn next_root(
        &self,
        who: Who,
        conversation: ConversationId,
        change: RootChange,
    ) -> Result<Reply, WireError> {
        let command = |reply| Command::NextRoot {
            conversation,
            asker: who.user,
            change,
            reply,
        };
        self.0
            .engine
            .ask(&conversation, command)
            .await
            .map(Reply::NextRoot)
    }

    /// Has the stewards sign what the device of this session signed.
    pub(super) async fn sign_root(
        &self,
        who: Who,
        conversation: ConversationId,
        root: RawRoot,
    ) -> Result<Reply, WireError> {
        let by = |signature: &RootSignature| signature.by == RootSigner::Device(who.device);
        if root.root.0.len() > ROOT_BYTES_MAX {
            let (len, max) = (root.root.0.len(), ROOT_BYTES_MAX);
            return Err(decode_error(&DecodeError::TooLarge { len, max }));
        }
        if root.signatures.len() != 1 || !root.signatures.iter().all(by) {
            let text = "signed by another device than this session's";
            return Err(WireError::new(Code::UnknownDevice, text));
        }
        let command = |reply| Command::SignRoot {
            conversation,
            asker: who.user,
            root,
            reply,
        };
        self.0
            .engine
            .ask(&conversation, command)
            .await
            .map(Reply::NextRoot)
    }
}
