//! Limits of documents. Source: `spec/03-history-and-documents.md`, part "Documents", section 8.

use crate::limits::{EMOJI_BYTES_MAX, STATE_FIELD_BYTES_MAX};

/// Changes, deletions included, above which a document is kept in [`SHARDS`] parts.
pub const SPLIT_ABOVE: usize = 1_000;
/// Parts of a large document.
pub const SHARDS: usize = 16;
/// Changes other than deletions that one document holds.
pub const CHANGES_MAX: usize = SHARDS * 2_000;
/// Deletions that one document holds; apart, so that no flood of reactions keeps a text alive.
pub const DELETIONS_MAX: usize = SHARDS * 2_000;
/// Homes with changes in one part: its clocks grow with homes times changes.
pub const LANES_MAX: usize = 1_024;
/// Events kept as quarantined, so that they are not tried again.
pub const QUARANTINE_MAX: usize = 256;
/// Events quarantined one by one in one rebuild of a part before the part is given up.
pub(super) const QUARANTINE_ROUNDS: usize = 8;
/// Bytes of a key.
pub const KEY_BYTES_MAX: usize = 200;
/// Bytes of a snapshot that is read back.
pub const SNAPSHOT_BYTES_MAX: usize = 64 * 1024 * 1024;

/// Characters of an identifier in a key: base64url of 32 bytes without padding.
pub(super) const KEY_ID_BYTES: usize = 43;

const _: () = assert!(2 * KEY_ID_BYTES + 2 + EMOJI_BYTES_MAX <= KEY_BYTES_MAX);
const _: () = assert!(STATE_FIELD_BYTES_MAX <= KEY_BYTES_MAX);
