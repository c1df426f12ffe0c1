//! What goes wrong around the machines, and what hostile servers do.

macro_rules! kinds {
    ($($(#[doc = $about:literal])* $name:ident = $text:literal;)*) => {
        /// A kind of fault.
        #[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
        pub enum Kind {
            $($(#[doc = $about])* $name,)*
        }

        impl Kind {
            /// All there are.
            pub const ALL: &[Self] = &[$(Self::$name,)*];

            /// Its name.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$name => $text,)* }
            }

            /// What happens.
            #[must_use]
            pub const fn about(self) -> &'static str {
                match self { $(Self::$name => concat!($($about),*).trim_ascii(),)* }
            }
        }
    };
}

kinds! {
    /// The power goes: unsynced bytes are lost, but for a part of what was being written.
    PowerCut = "power_cut";
    /// The process is killed: what was handed to the disk is there, what was not is lost.
    Kill = "kill";
    /// A write fails: the server is read-only until it is started again.
    DiskError = "disk_error";
    /// No room for a while.
    DiskFull = "disk_full";
    /// Syncs take long.
    SlowDisk = "slow_disk";
    /// A connection breaks, with all that is on its way.
    LinkCut = "link_cut";
    /// Some servers cannot reach the others.
    Partition = "partition";
    /// A connection is slow and narrow.
    SlowLink = "slow_link";
    /// A server does nothing for a while.
    SlowPeer = "slow_peer";
    /// A wall clock is set forward.
    ClockForward = "clock_forward";
    /// A wall clock is set back.
    ClockBack = "clock_back";
    /// A client that loses answers and sends its events again.
    LostAnswers = "lost_answers";
    /// A home signs two commits on one, lately or long ago.
    Fork = "fork";
    /// A home signs a commit with a clock far in the past, which has seen nothing since.
    Backdate = "backdate";
    /// A home stamps a commit minutes or days ahead.
    Future = "future";
    /// A home names parents that it never sends.
    HiddenParent = "hidden_parent";
    /// A home builds on acts that it never sends.
    HiddenPast = "hidden_past";
    /// A home sends what everybody has, again and again.
    Replay = "replay";
    /// A home does not push, answer or compare.
    Withhold = "withhold";
    /// A home sends more than anybody asked for.
    Flood = "flood";
    /// Frames that the fuzzers make of good ones.
    MalformedFrame = "malformed_frame";
    /// Items with something wrong in them, among good ones; some are what the fuzzers make of those.
    MalformedItem = "malformed_item";
    /// Events and commits in the name of others.
    Forge = "forge";
    /// The identity log of another's user with a device that is not his.
    ForgeIdentity = "forge_identity";
    /// Events of others' users, committed by a home that is not theirs.
    Usurp = "usurp";
    /// Deleted text is handed out again.
    Resurrect = "resurrect";
    /// A steward signs several root records on one.
    Twins = "twins";
    /// A root record comes long after it was made.
    LateRecord = "late_record";
    /// Root records that their maker may not make, or that say what is not so.
    ForgeRecord = "forge_record";
    /// A steward forgets what it promised and signed.
    ForgetNotes = "forget_notes";
    /// Frames come twice.
    DuplicateFrames = "duplicate_frames";
    /// Frames overtake each other.
    ReorderFrames = "reorder_frames";
    /// Conversations of others are asked for.
    Snoop = "snoop";
    /// A member does everything at once while he is removed.
    RemovalRace = "removal_race";
}

impl Kind {
    /// Done by the hostile server.
    #[must_use]
    pub const fn is_hostile(self) -> bool {
        matches!(
            self,
            Self::Fork
                | Self::Backdate
                | Self::Future
                | Self::HiddenParent
                | Self::HiddenPast
                | Self::Replay
                | Self::Withhold
                | Self::Flood
                | Self::MalformedFrame
                | Self::MalformedItem
                | Self::Forge
                | Self::ForgeIdentity
                | Self::ForgetNotes
                | Self::Usurp
                | Self::Resurrect
                | Self::Twins
                | Self::LateRecord
                | Self::ForgeRecord
                | Self::DuplicateFrames
                | Self::ReorderFrames
                | Self::Snoop
        )
    }
}
