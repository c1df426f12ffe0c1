//! Sound inputs to begin with: what `spec/vectors/` holds, and what is made of it. What the vectors
//! say is to be refused is among them.

mod built;

use std::sync::LazyLock;

use comity_protocol::{
    card::RawCard,
    commit::RawCommit,
    encoding,
    event::RawEvent,
    identity::RawEntry,
    ids::{Blob, PublicKey, ServerId, Signature},
    link::{Frame, decode_frame},
    root::{RawRoot, RootSignature, RootSigner},
    session::CursorState,
};
use data_encoding::HEXLOWER;
use serde_json::Value;

pub use built::{
    batch, conversation, link, pack_snapshot, replication, session, state_snapshot, tips,
};

macro_rules! vectors {
    ($($name:ident: $file:literal;)*) => {$(
        static $name: LazyLock<Value> = LazyLock::new(|| {
            let text = include_str!(concat!("../../../spec/vectors/", $file));
            serde_json::from_str(text).expect("the vectors are JSON")
        });
    )*};
}

vectors! {
    CARD: "card.json";
    COMMIT: "commit.json";
    EVENT: "event.json";
    IDENTITY: "identity.json";
    LINK: "link.json";
    NAMES: "names.json";
    SESSION: "session.json";
}

type Seeds = Vec<Vec<u8>>;

fn list<'a>(value: &'a Value, name: &str) -> &'a [Value] {
    value[name].as_array().map_or(&[], Vec::as_slice)
}

fn unhex(value: &Value) -> Vec<u8> {
    let text = value.as_str().unwrap_or_default();
    HEXLOWER.decode(text.as_bytes()).unwrap_or_default()
}

fn text(value: &Value) -> Vec<u8> {
    value.as_str().unwrap_or_default().as_bytes().to_vec()
}

fn fixed<const N: usize>(value: &Value) -> [u8; N] {
    unhex(value).try_into().unwrap_or([0; N])
}

/// A field of the objects in some lists, as bytes.
fn all(of: &Value, lists: &[&str], field: &str) -> Seeds {
    let objects = lists.iter().flat_map(|name| list(of, name));
    objects.map(|object| unhex(&object[field])).collect()
}

fn signature(of: &Value) -> Signature {
    Signature::from_bytes(fixed(&of["signature"]))
}

/// Canonical events.
#[must_use]
pub fn event() -> Seeds {
    all(&EVENT, &["events", "refused_events"], "bytes")
}

/// Signed events.
#[must_use]
pub fn signed_event() -> Seeds {
    let objects = list(&EVENT, "events")
        .iter()
        .chain(list(&EVENT, "refused_events"));
    let raw = |object: &Value| RawEvent {
        event: Blob(unhex(&object["bytes"])),
        signature: signature(object),
    };
    objects
        .map(|object| encoding::encode(&raw(object)))
        .collect()
}

/// Canonical contents.
#[must_use]
pub fn content() -> Seeds {
    all(&EVENT, &["contents", "refused_contents"], "bytes")
}

/// Canonical commits.
#[must_use]
pub fn commit() -> Seeds {
    all(&COMMIT, &["commits", "refused_commits"], "bytes")
}

/// Signed commits.
#[must_use]
pub fn signed_commit() -> Seeds {
    let objects = list(&COMMIT, "commits")
        .iter()
        .chain(list(&COMMIT, "refused_commits"));
    let raw = |object: &Value| RawCommit {
        commit: Blob(unhex(&object["bytes"])),
        signature: signature(object),
    };
    objects
        .map(|object| encoding::encode(&raw(object)))
        .collect()
}

/// The key of the first commit.
pub(crate) fn commit_key() -> Option<PublicKey> {
    list(&COMMIT, "commits")
        .first()
        .map(|first| PublicKey::from_bytes(fixed(&first["key"])))
}

/// Records 0 with their signatures.
#[must_use]
pub fn root() -> Seeds {
    let raw = |object: &Value, device: &str| RawRoot {
        root: Blob(unhex(&object["bytes"])),
        ballot: None,
        signatures: vec![RootSignature {
            by: RootSigner::Device(PublicKey::from_bytes(fixed(&object[device]))),
            signature: signature(object),
        }],
    };
    let sound = list(&COMMIT, "roots")
        .iter()
        .map(|object| raw(object, "device"));
    let refused = list(&COMMIT, "refused_roots")
        .iter()
        .map(|object| raw(object, "key"));
    sound
        .chain(refused)
        .map(|raw| encoding::encode(&raw))
        .collect()
}

/// Records that follow one with three stewards: a transfer, a checkpoint, a succession.
#[must_use]
pub fn later_root() -> Seeds {
    built::later_roots().iter().map(encoding::encode).collect()
}

/// Every object of a list within the objects of another.
fn inner<'a>(of: &'a Value, outer: &[&str], inner: &'a str) -> Vec<&'a Value> {
    let objects = outer.iter().flat_map(|name| list(of, name));
    objects.flat_map(|object| list(object, inner)).collect()
}

/// Entries of identity logs.
#[must_use]
pub fn identity_entry() -> Seeds {
    let sound = inner(&IDENTITY, &["logs"], "entries").into_iter();
    let refused = list(&IDENTITY, "refused")
        .iter()
        .map(|object| &object["entry"]);
    sound
        .chain(refused)
        .map(|entry| unhex(&entry["bytes"]))
        .collect()
}

/// Whole identity logs as they travel.
#[must_use]
pub fn identity_log() -> Seeds {
    let raw = |entry: &Value| {
        let entry = RawEntry {
            entry: Blob(unhex(&entry["bytes"])),
            signature: signature(entry),
        };
        Blob(encoding::encode(&entry))
    };
    let sound = list(&IDENTITY, "logs")
        .iter()
        .map(|log| list(log, "entries").iter().map(raw).collect::<Vec<_>>());
    let refused = list(&IDENTITY, "refused").iter().map(|object| {
        let before = list(object, "after").iter();
        before.chain([&object["entry"]]).map(raw).collect()
    });
    sound
        .chain(refused)
        .map(|log| encoding::encode(&log))
        .collect()
}

fn raw_card(card: &Value) -> RawCard {
    let new_key = &card["new_key_signature"];
    RawCard {
        card: Blob(unhex(&card["bytes"])),
        signature: signature(card),
        new_key_signature: new_key
            .is_string()
            .then(|| Signature::from_bytes(fixed(new_key))),
    }
}

/// Server cards.
#[must_use]
pub fn card() -> Seeds {
    let sound = inner(&CARD, &["chains"], "cards").into_iter();
    let refused = list(&CARD, "refused").iter().map(|object| &object["card"]);
    sound
        .chain(refused)
        .map(|card| unhex(&card["bytes"]))
        .collect()
}

/// Chains of server cards.
#[must_use]
pub fn card_chain() -> Seeds {
    let sound = list(&CARD, "chains").iter().map(|chain| {
        list(chain, "cards")
            .iter()
            .map(raw_card)
            .collect::<Vec<_>>()
    });
    let refused = list(&CARD, "refused").iter().map(|object| {
        let before = list(object, "after").iter();
        before.chain([&object["card"]]).map(raw_card).collect()
    });
    sound
        .chain(refused)
        .map(|cards| encoding::encode(&cards))
        .collect()
}

/// Chains of server cards as text.
#[must_use]
pub fn card_text() -> Seeds {
    list(&CARD, "chains")
        .iter()
        .map(|chain| text(&chain["says"]["text"]))
        .collect()
}

fn names(of: &str) -> Seeds {
    let lists = ["accepted", "refused"].into_iter();
    let objects = lists.flat_map(|name| list(&NAMES[of], name));
    objects.map(|object| text(&object["text"])).collect()
}

/// Handles.
#[must_use]
pub fn handle() -> Seeds {
    names("handles")
}

/// Names of servers.
#[must_use]
pub fn server_name() -> Seeds {
    names("servers")
}

/// Addresses of users.
#[must_use]
pub fn user_address() -> Seeds {
    names("addresses")
}

/// Identifiers as text, and clocks.
#[must_use]
pub fn id_text() -> Seeds {
    let ids = list(&EVENT, "events")
        .iter()
        .map(|event| text(&event["id"]));
    let signatures = list(&EVENT, "events")
        .iter()
        .map(|event| text(&event["signature"]));
    let clocks = list(&COMMIT, "clocks")
        .iter()
        .map(|clock| text(&clock["next"]));
    ids.chain(signatures).chain(clocks).collect()
}

/// Places as keys.
#[must_use]
pub fn place_key() -> Seeds {
    all(&SESSION, &["places"], "key")
}

/// Frames between servers.
#[must_use]
pub fn link_frame() -> Seeds {
    all(&LINK, &["frames"], "cbor")
}

/// The frames of [`link_frame`], read.
pub(crate) fn link_frames() -> Vec<Frame> {
    link_frame()
        .iter()
        .filter_map(|bytes| decode_frame(bytes).ok())
        .collect()
}

/// Commits with their events and contents: those of the vectors' frames, and a small history's.
#[must_use]
pub fn bundle() -> Seeds {
    let mut bundles = built::bundles();
    for frame in link_frames() {
        match frame {
            Frame::Push { bundle, .. } => bundles.push(bundle),
            Frame::Have { bundles: more, .. } => bundles.extend(more),
            _ => {}
        }
    }
    bundles.iter().map(encoding::encode).collect()
}

/// Frames of clients.
#[must_use]
pub fn client_frame() -> Seeds {
    all(&SESSION, &["client"], "cbor")
}

/// Frames of clients in JSON.
#[must_use]
pub fn client_frame_json() -> Seeds {
    let frames = list(&SESSION, "client").iter();
    frames
        .map(|frame| frame["json"].to_string().into_bytes())
        .collect()
}

/// Frames of servers.
#[must_use]
pub fn server_frame() -> Seeds {
    all(&SESSION, &["server"], "cbor")
}

/// Frames of servers in JSON.
#[must_use]
pub fn server_frame_json() -> Seeds {
    let frames = list(&SESSION, "server").iter();
    frames
        .map(|frame| frame["json"].to_string().into_bytes())
        .collect()
}

/// Cursors, sealed and not.
#[must_use]
pub fn cursor() -> Seeds {
    let mut seeds = all(&SESSION, &["cursors"], "cursor");
    // Without their seals, which the harness makes anew.
    let bare: Seeds = seeds
        .iter()
        .filter_map(|sealed| Some(sealed.get(..sealed.len().checked_sub(16)?)?.to_vec()))
        .collect();
    seeds.extend(bare);
    seeds
}

/// The store that the first cursor is judged by.
pub(crate) fn cursor_state() -> CursorState {
    let first = &SESSION["cursors"][0];
    CursorState {
        server: ServerId::from_bytes(fixed(&first["server"])),
        incarnation: fixed(&first["incarnation"]),
        position: first["newest"].as_u64().unwrap_or(0),
    }
}

/// The key of the first cursor.
#[cfg(test)]
fn cursor_key() -> [u8; 32] {
    fixed(&SESSION["cursors"][0]["key"])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{TARGETS, world};

    #[test]
    fn every_target_has_seeds_and_takes_some_of_them() {
        for target in TARGETS {
            let seeds = (target.seeds)();
            assert!(!seeds.is_empty(), "{}", target.name);
            let taken = seeds.iter().filter(|seed| (target.take)(seed)).count();
            assert!(
                taken > 0,
                "{} takes none of {} seeds",
                target.name,
                seeds.len()
            );
        }
    }

    #[test]
    fn the_cursors_of_the_vectors_are_judged_by_their_own_key() {
        assert_eq!(cursor_key(), world::CURSOR_KEY);
    }
}
