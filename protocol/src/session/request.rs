//! Requests, replies and the frames that carry them. Source: `spec/06-client-protocol.md`,
//! sections 2 to 4.

use serde::{Deserialize, Serialize};

use super::{Change, ContentState, Item, Place, Summary, VoidItem, WireError};
use crate::{
    commit::RootRef,
    event::{RawEvent, Tip},
    ids::{Blob, ConversationId, DeviceKey, EventId, ServerId, Signature, UserId},
    role::Role,
    root::RawRoot,
    time::Timestamp,
};

/// Where a client stopped reading, made and authenticated by the server; opaque to clients.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(transparent)]
pub struct Cursor(pub Blob);

/// A frame from client to server.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct ClientFrame {
    /// Chosen by the client; not in use by another request under way.
    pub id: u64,
    /// What is asked.
    pub request: Request,
}

/// A frame from server to client.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum ServerFrame {
    /// The answer to one request.
    Response {
        /// The request's id.
        id: u64,
        /// The answer.
        reply: Box<Reply>,
    },
    /// The request was refused; nothing was changed by it.
    Refused {
        /// The request's id.
        id: u64,
        /// Why.
        error: WireError,
    },
    /// What happened, in order.
    Update {
        /// Resume here once the changes were taken in. Absent when the update is a state only.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        cursor: Option<Cursor>,
        /// At most 128.
        changes: Vec<Change>,
    },
    /// The server closes the session. Reconnect if the code is retryable.
    Bye(WireError),
}

/// What a client asks.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Request {
    /// First frame: asks for a challenge.
    Begin {
        /// Version of the protocol the client speaks.
        version: u64,
    },
    /// Second frame: proves the device.
    Hello(Hello),
    /// Keeps the session alive both ways.
    Ping,
    /// Commit this event. Retry with the same bytes until answered: it counts once.
    Send {
        /// The signed event.
        event: RawEvent,
        /// Its content's canonical bytes, if it has one.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        content: Option<Blob>,
    },
    /// Make a group of which the session's user is owner.
    Create {
        /// Record 0, signed by the session's device.
        root: RawRoot,
    },
    /// Make the direct conversation with a user usable.
    OpenDirect {
        /// The other one.
        user: UserId,
    },
    /// The user's conversations, newest change first.
    Conversations {
        /// Skip this many.
        offset: u32,
        /// At most this many, 500 at most.
        limit: u32,
    },
    /// Members of a conversation in order of their ids.
    Members {
        /// Which.
        conversation: ConversationId,
        /// Only those after this one.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        after: Option<UserId>,
        /// At most this many, 500 at most.
        limit: u32,
    },
    /// A page of lines.
    History {
        /// Which.
        conversation: ConversationId,
        /// From where.
        anchor: Anchor,
        /// At most this many, 500 at most.
        limit: u32,
    },
    /// One line.
    Item {
        /// Which conversation.
        conversation: ConversationId,
        /// Which event.
        event: EventId,
    },
    /// An own event that is no line: one that is void, or an edit. Its author reads it also when he is
    /// no member any more.
    Own {
        /// Which conversation.
        conversation: ConversationId,
        /// Which event.
        event: EventId,
    },
    /// The fields of a conversation's state that are set, in order of their names.
    State {
        /// Which conversation.
        conversation: ConversationId,
        /// Only those after this one.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        after: Option<String>,
        /// At most this many, 500 at most.
        limit: u32,
    },
    /// A user's identity log, which proves whose devices sign for him.
    Identity {
        /// Who.
        user: UserId,
    },
    /// Finds a user by address.
    Lookup {
        /// `alice@acme.example`, or a handle of this server.
        address: String,
    },
    /// What a grant, removal or leave has to name.
    Grantee {
        /// Where.
        conversation: ConversationId,
        /// About whom; absent: the door.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        user: Option<UserId>,
    },
    /// How far an own event got.
    Delivery {
        /// Where.
        conversation: ConversationId,
        /// Which event.
        event: EventId,
    },
    /// What acts of the asker took away, and what was void for it when it came.
    Voided {
        /// Where.
        conversation: ConversationId,
        /// Only what comes after this place.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        after: Option<Place>,
        /// At most this many, 500 at most.
        limit: u32,
    },
    /// The next root record as the owner wants it, for his device to sign.
    NextRoot {
        /// Where.
        conversation: ConversationId,
        /// The owner from then on, a member; absent: who is it now.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        owner: Option<UserId>,
        /// The stewards from then on, 1, 3, 5 or 7 in order of their ids; absent: the usual ones.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        stewards: Option<Vec<ServerId>>,
    },
    /// Have the stewards sign the next root record.
    SignRoot {
        /// Where.
        conversation: ConversationId,
        /// As it was given, signed by the session's device.
        root: RawRoot,
    },
}

/// Proof of a device.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Hello {
    /// Who.
    pub user: UserId,
    /// With which device.
    pub device: DeviceKey,
    /// The device's signature, domain `Session`, over [`session_message`].
    pub signature: Signature,
    /// Resume here; absent for a device that knows nothing yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cursor: Option<Cursor>,
    /// Program and version, for the operator.
    pub client: String,
}

/// The bytes that a device signs to open a session: the challenge, the server's id and the user's,
/// so that no other server can use the signature.
#[must_use]
pub fn session_message(challenge: &[u8; 32], server: &ServerId, user: &UserId) -> Vec<u8> {
    [challenge.as_slice(), server.as_bytes(), user.as_bytes()].concat()
}

/// From where a page is read.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Anchor {
    /// The newest lines.
    Newest,
    /// The oldest lines.
    Oldest,
    /// The lines just before this place.
    Before(Place),
    /// The lines just after this place.
    After(Place),
}

/// Answers.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Reply {
    /// To `begin`.
    Challenge(Challenge),
    /// To `hello`.
    Welcome(Welcome),
    /// To `ping`.
    Pong,
    /// To `send`.
    Accepted(Accepted),
    /// To `create` and `open_direct`.
    Conversation(Box<Summary>),
    /// To `conversations`.
    Conversations {
        /// In the order asked for.
        summaries: Vec<Summary>,
        /// Nothing follows.
        complete: bool,
    },
    /// To `members`.
    Members {
        /// In order of user ids.
        members: Vec<Member>,
        /// Nothing follows.
        complete: bool,
    },
    /// To `history`.
    Page(Page),
    /// To `item`.
    Item(Box<Item>),
    /// To `own`.
    Own(OwnEvent),
    /// To `state`.
    State {
        /// In order of the fields' names.
        fields: Vec<StateField>,
        /// Nothing follows.
        complete: bool,
    },
    /// To `identity`: raw entries, genesis first.
    Identity {
        /// Canonical DAG-CBOR of the signed entries (`spec/08-identity.md`).
        entries: Vec<Blob>,
    },
    /// To `lookup`.
    LookedUp(LookedUp),
    /// To `grantee`.
    Grantee(Grantee),
    /// To `delivery`.
    Delivery {
        /// Servers that stored it, this one not counted.
        replicated: u32,
        /// Servers that have to.
        of: u32,
        /// Servers still waited for.
        waiting: Vec<ServerId>,
    },
    /// To `voided`.
    Voided {
        /// In order of their places.
        items: Vec<VoidItem>,
        /// Where reading stopped, for the next page; absent when nothing follows.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        next: Option<Place>,
    },
    /// To `next_root` and `sign_root`.
    NextRoot(NextRoot),
}

/// How far the record is that the owner wants.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum NextRoot {
    /// The device is to look at it and to sign it: canonical bytes, see
    /// [`Domain::Root`](crate::signing::Domain::Root).
    Sign(Blob),
    /// This record is made, durable, and says what he wants.
    Stands(RootRef),
}

/// A challenge.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Challenge {
    /// 32 random bytes.
    pub challenge: Blob,
    /// The server's id.
    pub server: ServerId,
    /// The server's name.
    pub name: String,
}

/// The session is open.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Welcome {
    /// Updates begin after this one.
    pub cursor: Cursor,
    /// The cursor of the `hello` was of no use: re-read the list and the newest pages.
    pub reset: bool,
    /// The user's handle.
    pub handle: String,
    /// The server's clock.
    pub now: Timestamp,
}

/// An event is durable at home.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Accepted {
    /// The event.
    pub event: EventId,
    /// Where it is shown.
    pub place: Place,
}

/// A member.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Member {
    /// Who.
    pub user: UserId,
    /// With which role.
    pub role: Role,
    /// Home server.
    pub home: ServerId,
    /// Handle, if this server knows the identity.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub handle: Option<String>,
    /// Display name in this conversation, if set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
}

/// An own event that is no line.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct OwnEvent {
    /// The event as its author signed it.
    pub event: RawEvent,
    /// Its content.
    pub content: ContentState,
    /// Why it does not count, if it does not: a code of `spec/04-authority.md`, section 5.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub void: Option<String>,
}

/// A field of a conversation's state that is set.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct StateField {
    /// Its name.
    pub field: String,
    /// The line that set it.
    pub item: Item,
}

/// A page of lines, oldest first. Pages never shift: they are bounded by places, not by counts.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Page {
    /// The lines.
    pub items: Vec<Item>,
    /// Nothing follows in the direction read.
    pub complete: bool,
    /// Where reading stopped, for the next page in the same direction; absent when nothing was
    /// read. Lines that the reader may not see end no page.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<Place>,
}

/// A user found.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct LookedUp {
    /// Who.
    pub user: UserId,
    /// Home server.
    pub home: ServerId,
    /// Handle.
    pub handle: String,
}

/// What an act about a user has to name.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Grantee {
    /// The user's role now.
    pub role: Role,
    /// The asker's own role.
    pub own_role: Role,
    /// The user's home, if known here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub home: Option<ServerId>,
    /// Tips of the user's homes' chains, as the home knows them.
    pub cut: Vec<Tip>,
    /// Bans that stand against the user.
    pub bans: Vec<EventId>,
}
