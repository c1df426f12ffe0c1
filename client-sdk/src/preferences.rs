//! What a user's devices agree on: mutes, drafts, folders.

use std::collections::BTreeMap;

use comity_protocol::{
    event::{Act, Content, SealedContent},
    ids::{ConversationId, Salt},
    preference::{Folder, FolderId, Mute, Setting, Value},
    role::Role,
    root::direct_conversation,
    session::{Reply, Request, StateField},
};

use crate::{
    client::{Client, Shared},
    conversation::Draft,
    error::{Error, ErrorKind, Result},
    message::{Body, Line},
    random,
    sending::Outgoing,
    verify,
};

/// Settings asked for at once.
const PAGE: u32 = 500;
/// Pages of settings that are read; a home that has more is not believed.
const PAGES_MAX: usize = 64;

/// All that is set.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub struct Preferences {
    /// Muted conversations. A time that has passed is still listed: compare it with the clock.
    pub mutes: BTreeMap<ConversationId, Mute>,
    /// Messages begun and not sent.
    pub drafts: BTreeMap<ConversationId, Content>,
    /// Folders.
    pub folders: BTreeMap<FolderId, Folder>,
}

impl Preferences {
    fn insert(&mut self, setting: Setting, value: Value) {
        match (setting, value) {
            (Setting::Mute(conversation), Value::Mute(mute)) => {
                self.mutes.insert(conversation, mute);
            }
            (Setting::Draft(conversation), Value::Draft(draft)) => {
                self.drafts.insert(conversation, draft);
            }
            (Setting::Folder(id), Value::Folder(folder)) => {
                self.folders.insert(id, folder);
            }
            _ => {}
        }
    }
}

impl Client {
    /// The user's own settings, shared by all his devices: they are kept at his home, in his
    /// conversation with himself, and nobody else is shown them. Changes made by another device come
    /// as [`Event::Preference`](crate::Event::Preference).
    ///
    /// ```no_run
    /// # async fn example(client: comity_sdk::Client) -> comity_sdk::Result<()> {
    /// use comity_sdk::{Draft, Mute};
    ///
    /// let room = client.known_conversations()[0].id();
    /// client.set_mute(room, Some(Mute::Forever)).await?.accepted().await?;
    /// client.set_draft(room, Some(Draft::text("what I wanted to say"))).await?.accepted().await?;
    /// let preferences = client.preferences().await?;
    /// assert_eq!(preferences.mutes[&room], Mute::Forever);
    /// assert_eq!(preferences.drafts[&room].text, "what I wanted to say");
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// The server's refusal, or [`ErrorKind::Offline`].
    pub async fn preferences(&self) -> Result<Preferences> {
        let conversation = self.open_own().await?;
        let (mut preferences, mut after) = (Preferences::default(), None);
        for _ in 0..PAGES_MAX {
            let request = Request::State {
                conversation,
                after: after.clone(),
                limit: PAGE,
            };
            let Reply::State { fields, complete } = self.shared().call(request).await? else {
                return Err(Error::unexpected_reply());
            };
            let last = fields.last().map(|field| field.field.clone());
            for field in fields {
                if let Some((setting, Some(value))) = self.read(conversation, &field).await? {
                    preferences.insert(setting, value);
                }
            }
            if complete {
                return Ok(preferences);
            }
            // A server whose pages do not move on would keep this loop going.
            if last <= after {
                return Err(Error::unexpected_reply());
            }
            after = last;
        }
        Err(Error::unexpected_reply())
    }

    async fn read(
        &self,
        conversation: ConversationId,
        field: &StateField,
    ) -> Result<Option<(Setting, Option<Value>)>> {
        let version = verify::version(&field.item);
        match verify::line(self.shared(), conversation, &field.item, version).await {
            Ok(line) => Ok(setting(self.shared(), &line)),
            // Told as a warning already; the others are read all the same.
            Err(verify::Failure::Unverified) => Ok(None),
            Err(verify::Failure::Later(error)) => Err(error),
        }
    }

    /// Mutes a conversation; `None` lets it be heard again. Safe in the outbox when this returns.
    ///
    /// # Errors
    ///
    /// As [`Conversation::send`](crate::Conversation::send). The first setting ever needs a
    /// connection: [`ErrorKind::Offline`].
    pub async fn set_mute(
        &self,
        conversation: ConversationId,
        mute: Option<Mute>,
    ) -> Result<Outgoing> {
        self.set(Setting::Mute(conversation), mute.map(Value::Mute))
            .await
    }

    /// Keeps a draft, so that the user goes on with it on another device; `None` clears it. The draft
    /// before is erased. Each is an event: programs keep one when its author pauses, not at each key.
    ///
    /// # Errors
    ///
    /// As [`set_mute`](Self::set_mute).
    pub async fn set_draft(
        &self,
        conversation: ConversationId,
        draft: Option<Draft>,
    ) -> Result<Outgoing> {
        let value = draft.map(|draft| Value::Draft(draft.into_content()));
        self.set(Setting::Draft(conversation), value).await
    }

    /// Makes a folder, or changes it; `None` removes it.
    ///
    /// # Errors
    ///
    /// As [`set_mute`](Self::set_mute), and [`ErrorKind::Invalid`] for a name or a list of
    /// conversations outside the limits of [`Folder`].
    pub async fn set_folder(&self, id: FolderId, folder: Option<Folder>) -> Result<Outgoing> {
        self.set(Setting::Folder(id), folder.map(Value::Folder))
            .await
    }

    /// An id for a new folder.
    ///
    /// # Errors
    ///
    /// If the system gives no random bytes.
    pub fn new_folder_id(&self) -> Result<FolderId> {
        Ok(FolderId(random::bytes()?))
    }

    async fn set(&self, setting: Setting, value: Option<Value>) -> Result<Outgoing> {
        let sealed = match value {
            None => None,
            Some(value) => {
                let content = value.to_content(Salt::from_bytes(random::bytes()?));
                let invalid = |error| Error::new(ErrorKind::Invalid, "a setting").because(error);
                Some(SealedContent::seal(&content.map_err(invalid)?)?)
            }
        };
        let conversation = self.open_own().await?;
        let act = Act::State {
            field: setting.field(),
            content: sealed.as_ref().map(SealedContent::reference),
        };
        self.conversation(conversation)
            .queue(Role::Member, act, sealed)
    }

    /// The conversation with oneself, which is made when it is first needed.
    async fn open_own(&self) -> Result<ConversationId> {
        let id = own_conversation(self.shared());
        if self.conversation(id).summary().is_none() {
            self.open_direct(self.user()).await?;
        }
        Ok(id)
    }
}

fn own_conversation(shared: &Shared) -> ConversationId {
    direct_conversation(&shared.me.user, &shared.me.user)
}

/// The setting that a line sets, and to what; none if it is none, or was replaced since.
pub(crate) fn setting(shared: &Shared, line: &Line) -> Option<(Setting, Option<Value>)> {
    let Act::State { field, content } = &line.event.act else {
        return None;
    };
    if line.conversation != own_conversation(shared) || line.event.author != shared.me.user {
        return None;
    }
    let setting = Setting::of(field).ok().flatten()?;
    match (&line.body, content) {
        (_, None) => Some((setting, None)),
        (Body::Held(content), _) => Some((setting, Some(setting.read(content).ok()?))),
        _ => None,
    }
}

/// Whether a line is about a setting, whatever became of it.
pub(crate) fn is_setting(shared: &Shared, line: &Line) -> bool {
    matches!(&line.event.act, Act::State { field, .. } if Setting::is_named_by(field))
        && line.conversation == own_conversation(shared)
}

#[cfg(test)]
mod tests;
