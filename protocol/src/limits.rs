//! Every limit of the protocol, by name. Source: the section of `spec/` each line names.

/// Bytes of a content's canonical form (`spec/02-events-and-commits.md`, section 3).
pub const CONTENT_BYTES_MAX: usize = 64 * 1024;
/// Bytes of an event's canonical form: a grant with a full cut is the largest.
pub const EVENT_BYTES_MAX: usize = 16 * 1024;
/// Bytes of a commit's canonical form: 256 event ids, 16 parents and a frontier.
pub const COMMIT_BYTES_MAX: usize = 256 * 1024;
/// Bytes of a commit with its events and contents.
pub const COMMIT_TOTAL_BYTES_MAX: usize = 1024 * 1024;
/// Events in a commit.
pub const COMMIT_EVENTS_MAX: usize = 256;
/// Parents of a commit.
pub const COMMIT_PARENTS_MAX: usize = 16;
/// Homes named by a cut; a user who moved more often is cut by homes still in use.
pub const CUT_TIPS_MAX: usize = 64;
/// Homes named by the authority change of one commit; more wait for the next commit.
pub const AUTHORITY_TIPS_MAX: usize = 1_024;
/// Bans that a grant may lift.
pub const LIFTS_MAX: usize = 64;
/// Branches of one home's chain that are taken unasked, unless one more would stand.
pub const BRANCHES_MAX: usize = 64;
/// Commits below an unknown tip that are asked for at first when it is not above what is held.
pub const FORK_LOOKBACK: u64 = 64;
/// Messages a message may answer.
pub const REPLY_TO_MAX: usize = 16;
/// Users a message may mention.
pub const MENTIONS_MAX: usize = 64;
/// Attachments of a message.
pub const ATTACHMENTS_MAX: usize = 32;
/// Bytes of a reaction's emoji: the longest joined sequences stay below.
pub const EMOJI_BYTES_MAX: usize = 64;
/// Bytes of a state field's name.
pub const STATE_FIELD_BYTES_MAX: usize = 64;
/// Bytes of a file name or media type in an attachment.
pub const ATTACHMENT_TEXT_BYTES_MAX: usize = 512;
/// Bytes of a root record's canonical form.
pub const ROOT_BYTES_MAX: usize = 128 * 1024;
/// Stewards of a root record.
pub const STEWARDS_MAX: usize = 7;
/// Time without a word from the owner's server after which a steward signs a succession, in
/// milliseconds: 30 days.
pub const SUCCESSION_MS: u64 = 30 * 24 * 3_600 * 1_000;
/// Time after which the owner's home makes a checkpoint, in milliseconds, if there were acts.
pub const CHECKPOINT_MS: u64 = 24 * 3_600 * 1_000;
/// Acts after which the owner's home makes a checkpoint.
pub const CHECKPOINT_ACTS: usize = 1_000;
/// Time over which the policy `rate` counts messages of a home, in milliseconds: a minute.
pub const RATE_WINDOW_MS: u64 = 60_000;
/// A day, in which the policy `keep_days` counts, in milliseconds.
pub const DAY_MS: u64 = 24 * 3_600 * 1_000;
/// Contents whose days are over that are erased at once.
pub const RETENTION_BATCH: usize = 100;
/// Commits that are looked at for such contents at once.
pub const RETENTION_LOOK: usize = 65_536;
/// Time between two looks for them in a conversation, in milliseconds: six hours.
pub const RETENTION_MS: u64 = 6 * 3_600 * 1_000;
/// Time between two looks for conversations in which something is due though nobody uses them, in
/// milliseconds: ten minutes.
pub const WAKE_MS: u64 = 600_000;
/// Bytes of an identity entry or server card.
pub const ENTRY_BYTES_MAX: usize = 8 * 1024;
/// Entries of one identity log, side branches included.
pub const IDENTITY_ENTRIES_MAX: usize = 1_024;
/// Bytes of a handle.
pub const HANDLE_BYTES_MAX: usize = 64;
/// Bytes of a server name.
pub const SERVER_NAME_BYTES_MAX: usize = 253;
/// Bytes of a device's name.
pub const DEVICE_NAME_BYTES_MAX: usize = 128;
/// Addresses on a server card.
pub const CARD_ADDRESSES_MAX: usize = 16;

/// A commit this far ahead of local time is shown but not taken as a parent, in milliseconds.
pub const AHEAD_PARENT_MS: u64 = 60_000;
/// A commit further ahead than this is held until its time comes, in milliseconds.
pub const AHEAD_HOLD_MS: u64 = 300_000;
/// A home that learns of commits of its own chain waits this long for more of them before it
/// commits again what was lost, in milliseconds.
pub const AGAIN_WAIT_MS: u64 = 2_000;

/// Bytes of the name of a folder.
pub const FOLDER_NAME_BYTES_MAX: usize = 128;
/// Conversations in a folder.
pub const FOLDER_CONVERSATIONS_MAX: usize = 500;

/// Bytes of the documents that the conversations driven together have open.
pub const SHARD_DOCUMENT_BYTES_MAX: usize = 64 * 1024 * 1024;

/// Bytes of a frame between servers.
pub const LINK_FRAME_BYTES_MAX: usize = 2 * 1024 * 1024;
/// Items waiting for what they depend on, per conversation.
pub const WAITING_ITEMS_MAX: usize = 1_000;
/// Bytes waiting for what they depend on, per conversation.
pub const WAITING_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Pushed and unacknowledged commits per peer.
pub const LINK_WINDOW_ITEMS: usize = 1_024;
/// Pushed and unacknowledged bytes per peer.
pub const LINK_WINDOW_BYTES: usize = 4 * 1024 * 1024;
/// Bytes asked for by one `want`.
pub const WANT_BYTES_MAX: u64 = 4 * 1024 * 1024;
/// Time between rounds of anti-entropy, in milliseconds, before jitter.
pub const ANTI_ENTROPY_MS: u64 = 60_000;

/// Bytes of a frame between client and server.
pub const SESSION_FRAME_BYTES_MAX: usize = 1024 * 1024;
/// Changes queued for one session before it reads them from the change log instead.
pub const SESSION_QUEUE_FRAMES: usize = 1_024;
/// Bytes queued for one session before it reads them from the change log instead.
pub const SESSION_QUEUE_BYTES: usize = 4 * 1024 * 1024;
/// Requests of one session under way at once.
pub const SESSION_REQUESTS_MAX: usize = 256;
/// Time between pings, in milliseconds.
pub const PING_MS: u64 = 25_000;
/// A session silent for this long is dropped: two pings.
pub const SESSION_SILENCE_MS: u64 = 55_000;
/// Items in a page of history.
pub const PAGE_ITEMS_MAX: u32 = 500;
/// Changes in one update.
pub const UPDATE_ITEMS_MAX: usize = 128;
/// Shortest wait before a client reconnects, in milliseconds.
pub const RECONNECT_MIN_MS: u64 = 500;
/// Longest wait before a client reconnects, in milliseconds.
pub const RECONNECT_MAX_MS: u64 = 60_000;
