//! Error codes, one list for every transport and SDK. Source: `spec/06-client-protocol.md`, section 7.

use std::fmt;

use serde::{Deserialize, Serialize};

macro_rules! codes {
    ($($(#[$doc:meta])* $name:ident = $text:literal, $retry:literal;)*) => {
        /// What went wrong, as programs compare it.
        #[derive(Clone, Copy, Debug, Deserialize, Eq, Ord, PartialEq, PartialOrd, Serialize)]
        #[non_exhaustive]
        pub enum Code {
            $($(#[$doc])* #[serde(rename = $text)] $name,)*
        }

        impl Code {
            /// Every code there is.
            pub const ALL: &[Self] = &[$(Self::$name,)*];

            /// The stable text of this code.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$name => $text,)* }
            }

            /// Whether the same request may succeed later.
            #[must_use]
            pub const fn is_retryable(self) -> bool {
                match self { $(Self::$name => $retry,)* }
            }
        }
    };
}

codes! {
    /// The bytes are no request of this protocol.
    Malformed = "malformed", false;
    /// A version this server does not speak.
    UnknownVersion = "unknown_version", false;
    /// Larger than the limit that the message names.
    TooLarge = "too_large", false;
    /// A signature does not verify.
    WrongSignature = "wrong_signature", false;
    /// The author is not the session's user.
    ForeignAuthor = "foreign_author", false;
    /// The content is not the one that the event names.
    ContentMismatch = "content_mismatch", false;
    /// Not signed in, or the sign-in failed.
    Unauthenticated = "unauthenticated", false;
    /// The device is not, or no longer, one of the user's.
    UnknownDevice = "unknown_device", false;
    /// No such conversation, message or user, or not for this user to know of.
    NotFound = "not_found", false;
    /// The user is not a member.
    NotMember = "not_member", false;
    /// The user's role does not allow it.
    NotAllowed = "not_allowed", false;
    /// The user is not the owner, who alone decides about this.
    NotOwner = "not_owner", false;
    /// Another record came first, or the stewards hold more than what was signed: ask again.
    Overtaken = "overtaken", true;
    /// The same nonce was used for other content, or a name is taken.
    Conflict = "conflict", false;
    /// The handle looks like one that is taken.
    HandleConfusable = "handle_confusable", false;
    /// The handle or name breaks a rule that the message states.
    InvalidName = "invalid_name", false;
    /// A token is unknown, used up or expired.
    InvalidToken = "invalid_token", false;
    /// Too many at once; try again.
    Busy = "busy", true;
    /// Too often; try again after `retry_after_ms`.
    RateLimited = "rate_limited", true;
    /// The server's disk is full; reading goes on.
    DiskFull = "disk_full", true;
    /// The server's disk failed; reading goes on until an operator acts.
    ReadOnly = "read_only", true;
    /// The server is stopping; another connection will find it again.
    Stopping = "stopping", true;
    /// The client reads too slowly; reconnect with the cursor.
    TooSlow = "too_slow", true;
    /// Nothing was heard for two pings.
    Silent = "silent", true;
    /// Another server has to answer and cannot be reached now.
    Unreachable = "unreachable", true;
    /// Not in this version.
    Unsupported = "unsupported", false;
    /// A fault of this server; its log has the details.
    Internal = "internal", true;
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// An error as it travels.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize, thiserror::Error)]
#[error("{code}: {message}")]
#[serde(deny_unknown_fields)]
pub struct WireError {
    /// For programs.
    pub code: Code,
    /// For people: what happened and what to do.
    pub message: String,
    /// Earliest time for another try, in milliseconds from now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_after_ms: Option<u64>,
}

impl WireError {
    /// An error with a message.
    #[must_use]
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
            retry_after_ms: None,
        }
    }
}
