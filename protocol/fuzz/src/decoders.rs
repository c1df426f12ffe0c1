//! One harness function for each decoder of bytes from outside. Each says whether the bytes were
//! taken, and panics where a promise is broken: what was taken is written as it was read, and reads
//! the same again.

use std::{
    fmt::{Debug, Display},
    str::FromStr,
};

use comity_protocol::{
    card::{Card, CardChain, RawCard},
    commit::{RawCommit, UnverifiedCommit},
    conversation::CheckedBundle,
    document::{ChangeKind, DocumentError, Heads, PackDocument, StateDocument},
    encoding::{self, DecodeError},
    event::{RawEvent, SealedContent, SignedEvent, Tip},
    history::Graph,
    identity::{Effect, Entry, IdentityLog, RawEntry},
    ids::{Blob, PublicKey, ServerId, Signature, UserId},
    limits::{
        COMMIT_BYTES_MAX, ENTRY_BYTES_MAX, EVENT_BYTES_MAX, LINK_FRAME_BYTES_MAX, ROOT_BYTES_MAX,
        SESSION_FRAME_BYTES_MAX,
    },
    link::{self, Bundle},
    name::{Handle, ServerName, UserAddress},
    root::{Genesis, RawRoot, SignedRoot},
    session::{ClientFrame, Cursor, CursorState, CursorVerdict, Place, ServerFrame},
    time::Hlc,
};
use serde::{Serialize, de::DeserializeOwned};

use crate::world;

/// What a signature and its framing add to signed bytes at most.
pub const FRAMING_BYTES: usize = 256;
/// Bytes of a list of server cards.
pub const CARDS_BYTES: usize = 1024 * 1024;
/// Bytes of a snapshot that is tried; far below what one may have, since each byte costs.
pub const SNAPSHOT_BYTES: usize = 1024 * 1024;

const NO_SIGNATURE: Signature = Signature::from_bytes([0; 64]);

/// An event's canonical bytes, as read back from a store: no signature is asked.
#[must_use]
pub fn event(bytes: &[u8]) -> bool {
    let raw = RawEvent {
        event: Blob(bytes.to_vec()),
        signature: NO_SIGNATURE,
    };
    let Ok(event) = SignedEvent::from_trusted(raw) else {
        return false;
    };
    assert_eq!(
        event.event().to_bytes(),
        bytes,
        "an event is written as it was read"
    );
    assert_eq!(event.id().as_bytes(), blake3::hash(bytes).as_bytes());
    let place = Place::from_key(&[0; 42]).unwrap_or_else(|| unreachable!("42 bytes"));
    let changes = ChangeKind::of(event.event(), place).is_some();
    assert!(
        !(changes && event.event().act.is_authority()),
        "an act changes no document"
    );
    true
}

/// A signed event as it travels.
#[must_use]
pub fn signed_event(bytes: &[u8]) -> bool {
    let Ok(raw) = encoding::decode_frame::<RawEvent>(bytes, EVENT_BYTES_MAX + FRAMING_BYTES) else {
        return false;
    };
    let trusted = SignedEvent::from_trusted(raw.clone());
    match SignedEvent::verify(raw.clone()) {
        Ok(event) => {
            assert_eq!(event.to_raw(), raw);
            assert_eq!(trusted, Ok(event));
            true
        }
        Err(_) => false,
    }
}

/// A content's canonical bytes.
#[must_use]
pub fn content(bytes: &[u8]) -> bool {
    let Ok(content) = SealedContent::open(bytes.to_vec()) else {
        return false;
    };
    assert_eq!(encoding::encode(content.content()), bytes);
    assert_eq!(SealedContent::seal(content.content()), Ok(content));
    true
}

/// A commit's canonical bytes.
#[must_use]
pub fn commit(bytes: &[u8]) -> bool {
    let raw = RawCommit {
        commit: Blob(bytes.to_vec()),
        signature: NO_SIGNATURE,
    };
    let Ok(commit) = UnverifiedCommit::decode(raw) else {
        return false;
    };
    assert_eq!(
        commit.commit().to_bytes(),
        bytes,
        "a commit is written as it was read"
    );
    assert_eq!(commit.trusted().to_raw().commit.0, bytes);
    true
}

/// A signed commit as it travels, under the key of the vectors and under one that its sender chose.
#[must_use]
pub fn signed_commit(bytes: &[u8]) -> bool {
    let max = COMMIT_BYTES_MAX + FRAMING_BYTES;
    let Ok(raw) = encoding::decode_frame::<RawCommit>(bytes, max) else {
        return false;
    };
    let Ok(commit) = UnverifiedCommit::decode(raw.clone()) else {
        return false;
    };
    let chosen = PublicKey::from_bytes(*commit.commit().origin.as_bytes());
    let (known, other) = (
        commit.clone().verify(&world::vector_key()),
        commit.verify(&chosen),
    );
    for signed in known.iter().chain(&other) {
        assert_eq!(signed.to_raw(), raw);
    }
    known.is_ok() || other.is_ok()
}

/// Record 0 of a group with its signatures.
#[must_use]
pub fn root(bytes: &[u8]) -> bool {
    let max = ROOT_BYTES_MAX + 8 * FRAMING_BYTES;
    let Ok(raw) = encoding::decode_frame::<RawRoot>(bytes, max) else {
        return false;
    };
    let Ok(genesis) = Genesis::verify(raw.clone()) else {
        return false;
    };
    assert_eq!(*genesis.raw(), raw);
    assert_eq!(encoding::encode(genesis.root()), raw.root.0);
    true
}

/// A record that follows record 0, with the notes of its stewards.
#[must_use]
pub fn later_root(bytes: &[u8]) -> bool {
    let max = ROOT_BYTES_MAX + 16 * FRAMING_BYTES;
    let Ok(raw) = encoding::decode_frame::<RawRoot>(bytes, max) else {
        return false;
    };
    let (before_id, before) = world::record_before();
    let key_of = |server: &ServerId, epoch: u64| {
        let steward = world::steward(server)?;
        (epoch == 0).then(|| steward.public())
    };
    let Ok(signed) = SignedRoot::verify(raw.clone(), &before_id, &before, key_of) else {
        return false;
    };
    assert_eq!(*signed.raw(), raw);
    assert_eq!(encoding::encode(signed.root()), raw.root.0);
    assert!(raw.signatures.len() >= 2, "a majority of three");
    true
}

/// An entry of an identity log.
#[must_use]
pub fn identity_entry(bytes: &[u8]) -> bool {
    let Ok(entry) = Entry::decode(bytes) else {
        return false;
    };
    assert_eq!(
        entry.to_bytes(),
        bytes,
        "an entry is written as it was read"
    );
    true
}

/// A whole identity log as links and sessions carry it: a list of signed entries.
#[must_use]
pub fn identity_log(bytes: &[u8]) -> bool {
    let Ok(blobs) = encoding::decode_frame::<Vec<Blob>>(bytes, LINK_FRAME_BYTES_MAX) else {
        return false;
    };
    let read = |blob: &Blob| encoding::decode(&blob.0, ENTRY_BYTES_MAX + FRAMING_BYTES).ok();
    let Some(entries) = blobs.iter().map(read).collect::<Option<Vec<RawEntry>>>() else {
        return false;
    };
    // What a store gave back is believed, so that harm behind the signature is reached as well.
    if let Ok(log) = IdentityLog::from_trusted(&entries) {
        check_log(&log);
    }
    let Ok(mut log) = IdentityLog::verify(&entries) else {
        return false;
    };
    check_log(&log);
    for entry in &entries {
        let again = log
            .extend(entry)
            .expect("an entry that is held is taken again");
        assert_eq!(again.effect, Effect::Known);
    }
    true
}

fn check_log(log: &IdentityLog) {
    let entries: Vec<RawEntry> = log.entries().cloned().collect();
    let again = IdentityLog::from_trusted(&entries).expect("a log reads what it wrote");
    assert_eq!(
        again, *log,
        "the log is a function of the set of its entries"
    );
}

/// A server card.
#[must_use]
pub fn card(bytes: &[u8]) -> bool {
    Card::decode(bytes).is_ok()
}

/// The cards of one server, as they are handed on.
#[must_use]
pub fn card_chain(bytes: &[u8]) -> bool {
    let Ok(cards) = encoding::decode_frame::<Vec<RawCard>>(bytes, CARDS_BYTES) else {
        return false;
    };
    let Ok(chain) = CardChain::verify(&cards) else {
        return false;
    };
    // A chain too long for a line is still one.
    if let Ok(text) = chain.to_text() {
        let again = CardChain::from_text(&text).expect("a chain reads what it wrote");
        assert_eq!(again.server(), chain.server());
    }
    true
}

/// A server's cards as one line of text.
#[must_use]
pub fn card_text(bytes: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return false;
    };
    let Ok(chain) = CardChain::from_text(text) else {
        return false;
    };
    let again = CardChain::from_text(&chain.to_text().expect("it came as a line"));
    assert_eq!(
        again.expect("a chain reads what it wrote").server(),
        chain.server()
    );
    true
}

fn name<T>(bytes: &[u8]) -> bool
where
    T: FromStr<Err: Debug> + Display + PartialEq + Debug + Serialize + DeserializeOwned,
{
    let Ok(text) = std::str::from_utf8(bytes) else {
        return false;
    };
    let Ok(name) = text.parse::<T>() else {
        // What nobody may type, nobody may sign either.
        let signed = encoding::encode(&text);
        assert!(encoding::decode_frame::<T>(&signed, signed.len()).is_err());
        return false;
    };
    let canonical = name.to_string();
    assert_eq!(
        canonical
            .parse::<T>()
            .expect("the canonical text of a name is one"),
        name
    );
    let signed = encoding::encode(&name);
    assert_eq!(encoding::decode_frame::<T>(&signed, signed.len()), Ok(name));
    true
}

/// A handle.
#[must_use]
pub fn handle(bytes: &[u8]) -> bool {
    name::<Handle>(bytes)
}

/// A server's name.
#[must_use]
pub fn server_name(bytes: &[u8]) -> bool {
    name::<ServerName>(bytes)
}

/// A user's address.
#[must_use]
pub fn user_address(bytes: &[u8]) -> bool {
    name::<UserAddress>(bytes)
}

/// Identifiers and clocks as text.
#[must_use]
pub fn id_text(bytes: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return false;
    };
    let user = text
        .parse::<UserId>()
        .inspect(|id| assert_eq!(id.to_string(), text));
    let signature = text
        .parse::<Signature>()
        .inspect(|signature| assert_eq!(signature.to_string(), text));
    let json = serde_json::Value::String(text.to_owned());
    let clock: Result<Hlc, _> = serde_json::from_value(json.clone());
    if let Ok(clock) = &clock {
        assert_eq!(serde_json::to_value(clock).ok(), Some(json));
    }
    user.is_ok() || signature.is_ok() || clock.is_ok()
}

/// A place as a key of rows.
#[must_use]
pub fn place_key(bytes: &[u8]) -> bool {
    let Some(place) = Place::from_key(bytes) else {
        return false;
    };
    assert_eq!(place.to_key().as_slice(), bytes);
    let frame = encoding::encode(&place);
    assert_eq!(encoding::decode::<Place>(&frame, 128), Ok(place));
    true
}

/// A frontier, compared with a history.
#[must_use]
pub fn tips(bytes: &[u8]) -> bool {
    let Ok(tips) = encoding::decode_frame::<Vec<Tip>>(bytes, LINK_FRAME_BYTES_MAX) else {
        return false;
    };
    world::with_graph(|graph: &Graph| {
        for span in graph.missing_from(&tips) {
            assert!(span.from <= span.to);
        }
        for tip in &tips {
            let whole = graph.range(&tip.home, &tip.id, 0..=tip.seq).count();
            assert!(whole <= graph.len(), "a range has no more than is held");
        }
    });
    true
}

/// Reads a frame, writes it, and reads what was written.
fn frame<T>(bytes: &[u8], max: usize) -> Option<T>
where
    T: Serialize + DeserializeOwned + PartialEq + Debug,
{
    let frame: T = encoding::decode_frame(bytes, max).ok()?;
    again(&frame);
    Some(frame)
}

fn again<T: Serialize + DeserializeOwned + PartialEq + Debug>(frame: &T) {
    let written = encoding::encode(frame);
    let read: Result<T, DecodeError> = encoding::decode_frame(&written, usize::MAX);
    assert_eq!(read.as_ref(), Ok(frame), "a frame reads as it was written");
}

/// A frame between servers.
#[must_use]
pub fn link_frame(bytes: &[u8]) -> bool {
    let Ok(frame) = link::decode_frame(bytes) else {
        return false;
    };
    again(&frame);
    true
}

/// A commit with its events and contents, signatures and all.
#[must_use]
pub fn bundle(bytes: &[u8]) -> bool {
    let Some(bundle) = frame::<Bundle>(bytes, LINK_FRAME_BYTES_MAX) else {
        return false;
    };
    let key = |server: &ServerId, _| Some(world::key_of(server).unwrap_or_else(world::vector_key));
    CheckedBundle::check(bundle, key).is_ok()
}

/// A client's frame in DAG-CBOR.
#[must_use]
pub fn client_frame(bytes: &[u8]) -> bool {
    frame::<ClientFrame>(bytes, SESSION_FRAME_BYTES_MAX).is_some()
}

/// A server's frame in DAG-CBOR, as clients read it.
#[must_use]
pub fn server_frame(bytes: &[u8]) -> bool {
    frame::<ServerFrame>(bytes, SESSION_FRAME_BYTES_MAX).is_some()
}

fn json<T>(bytes: &[u8]) -> bool
where
    T: Serialize + DeserializeOwned + PartialEq + Debug,
{
    let Ok(frame) = serde_json::from_slice::<T>(bytes) else {
        return false;
    };
    let text = serde_json::to_string(&frame).expect("a frame has a JSON form");
    assert_eq!(
        serde_json::from_str::<T>(&text).expect("a frame reads as it was written"),
        frame
    );
    // The two forms are of one frame.
    again(&frame);
    true
}

/// A client's frame in JSON.
#[must_use]
pub fn client_frame_json(bytes: &[u8]) -> bool {
    json::<ClientFrame>(bytes)
}

/// A server's frame in JSON.
#[must_use]
pub fn server_frame_json(bytes: &[u8]) -> bool {
    json::<ServerFrame>(bytes)
}

/// A cursor, and one whose seal is right whatever it says.
#[must_use]
pub fn cursor(bytes: &[u8]) -> bool {
    let now = world::cursor_now();
    let plain = now.judge(&world::CURSOR_KEY, &Cursor(Blob(bytes.to_vec())));
    let mac = blake3::keyed_hash(&world::CURSOR_KEY, bytes);
    let sealed = [bytes, &mac.as_bytes()[..16]].concat();
    let verdict = now.judge(&world::CURSOR_KEY, &Cursor(Blob(sealed)));
    if let CursorVerdict::Resume(position) = verdict {
        let state = CursorState { position, ..now };
        assert_eq!(
            encoding::encode(&state),
            bytes,
            "only an own cursor resumes"
        );
        assert!(position <= now.position);
    }
    plain != CursorVerdict::Reset || verdict != CursorVerdict::Reset
}

/// A snapshot of a pack's document whose checksum is right.
#[must_use]
pub fn pack_snapshot(bytes: &[u8]) -> bool {
    let sum = blake3::hash(bytes);
    let snapshot = [bytes, sum.as_bytes()].concat();
    match PackDocument::load(&snapshot, &Heads::default()) {
        Ok(document) => assert!(document.heads().is_empty()),
        // Only now is it known what a sound document with these changes would have for heads.
        Err(DocumentError::OtherHeads) => {}
        Err(_) => return false,
    }
    true
}

/// A snapshot of a conversation's state whose checksum is right.
#[must_use]
pub fn state_snapshot(bytes: &[u8]) -> bool {
    let sum = blake3::hash(bytes);
    let snapshot = [bytes, sum.as_bytes()].concat();
    match StateDocument::load(&snapshot, &Heads::default()) {
        Ok(document) => assert!(document.heads().is_empty()),
        Err(DocumentError::OtherHeads) => {}
        Err(_) => return false,
    }
    true
}
