//! Bugs built in on purpose, each where a driver could have it: a checker that never fires proves
//! nothing. They sit in the simulated drivers only; no server has a switch for them.

macro_rules! planted {
    ($($(#[$doc:meta])* $name:ident = $text:literal, $promise:literal, $about:literal;)*) => {
        /// A bug.
        #[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
        pub enum Planted {
            $($(#[$doc])* $name,)*
        }

        impl Planted {
            /// All there are.
            pub const ALL: &[Self] = &[$(Self::$name,)*];

            /// Its name.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$name => $text,)* }
            }

            /// The promise that it breaks first.
            #[must_use]
            pub const fn promise(self) -> &'static str {
                match self { $(Self::$name => $promise,)* }
            }

            /// What it does.
            #[must_use]
            pub const fn about(self) -> &'static str {
                match self { $(Self::$name => $about,)* }
            }
        }
    };
}

planted! {
    /// See its text.
    AckBeforeSync = "ack-before-sync", "P1", "answers before the record is on the disk";
    /// See its text.
    LoseLastRecord = "lose-last-record", "P1", "a start drops the newest record";
    /// See its text.
    ExpireEarly = "expire-early", "P1", "erases texts a day before their days are over";
    /// See its text.
    SkipDedup = "skip-dedup", "P2", "an event sent again is one more line";
    /// See its text.
    OrderByArrival = "order-by-arrival", "P3", "lines are kept in the order in which they came";
    /// See its text.
    ShowVoid = "show-void", "P3", "shows events that do not count, the losing branch of a fork too";
    /// See its text.
    KeepVoided = "keep-voided", "P3", "goes on showing what an act took away later";
    /// See its text.
    IgnoreRemoval = "ignore-removal", "P3", "members stay in the list whatever is done to them";
    /// See its text.
    EditAfterDelete = "edit-after-delete", "P3", "an edit brings a deleted message back";
    /// See its text.
    ForgetTransfer = "forget-transfer", "P3", "a root record changes nobody's role";
    /// See its text.
    Unsettle = "unsettle", "P3", "takes no notice of verdicts that a root record settled";
    /// See its text.
    FirstTwinStands = "first-twin-stands", "P3", "of two root records on one goes by the first that came";
    /// See its text.
    HastyHeir = "hasty-heir", "P3", "as a steward takes an owner for lost whose server cannot be reached now";
    /// See its text.
    NoRecords = "no-records", "P4", "takes no root records of others, and what has seen them waits";
    /// See its text.
    TellBeforeSync = "tell-before-sync", "P3", "pushes commits that are not on the disk yet, and others in their place after a crash";
    /// See its text.
    NoRounds = "no-rounds", "P4", "never compares with its peers";
    /// See its text.
    DropPushed = "drop-pushed", "P4", "says stored to a pushed commit and drops it, never compares";
    /// See its text.
    ForgetOutbox = "forget-outbox", "P4", "never reads back what a peer lacks of its own chain";
    /// See its text.
    NoLookups = "no-lookups", "P4", "never asks for identity logs that items wait for";
    /// See its text.
    StopAtBadItem = "stop-at-bad-item", "P5", "takes no more items of a conversation after a bad one";
    /// See its text.
    ForgetDeletion = "forget-deletion", "P6", "hides deleted text and leaves it on the disk";
    /// See its text.
    EraseOnce = "erase-once", "P6", "erases a deleted text, not its edits";
    /// See its text.
    KeepModerated = "keep-moderated", "P6", "leaves what a moderator deleted on the disk after it is settled";
    /// See its text.
    KeepExpired = "keep-expired", "P6", "writes down whose days are over and leaves the text on the disk";
    /// See its text.
    HoardItems = "hoard-items", "P7", "keeps every item that waits, beside the waiting room";
    /// See its text.
    BelieveAnyDevice = "believe-any-device", "authorship", "takes any device for anybody's";
    /// See its text.
    ServeStrangers = "serve-strangers", "secrecy", "serves conversations to servers outside them";
}
