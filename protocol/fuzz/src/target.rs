//! The list of everything that is attacked.

use crate::{decoders, machines, mutate::Kind, seeds};

/// What a target is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Form {
    /// Reads bytes once, and gives a value or refuses.
    Decoder,
    /// Keeps state over a sequence of inputs that the bytes stand for.
    Machine,
}

/// Something that takes bytes from outside.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// Its name; also that of its file in `fuzz_targets/`.
    pub name: &'static str,
    /// What it is.
    pub form: Form,
    /// How its inputs are written, which decides how they are harmed.
    pub kind: Kind,
    /// Takes the bytes; true if they were not refused. Panics where a promise is broken.
    pub take: fn(&[u8]) -> bool,
    /// Sound inputs, and those that the vectors say are to be refused.
    pub seeds: fn() -> Vec<Vec<u8>>,
    /// Bytes that the decoder takes at most; a longer input must be refused unread.
    pub bytes_max: usize,
    /// One in so many of the inputs asked for is run: machines do much for each.
    pub one_in: u64,
}

macro_rules! targets {
    ($($form:ident $kind:ident $module:ident::$name:ident: $bytes_max:expr, one in $one_in:literal;)*) => {
        /// Every target of the core.
        pub const TARGETS: &[Target] = &[$(Target {
            name: stringify!($name),
            form: Form::$form,
            kind: Kind::$kind,
            take: $module::$name,
            seeds: seeds::$name,
            bytes_max: $bytes_max,
            one_in: $one_in,
        },)*];
    };
}

use comity_protocol::limits::{
    COMMIT_BYTES_MAX, CONTENT_BYTES_MAX, ENTRY_BYTES_MAX, EVENT_BYTES_MAX, HANDLE_BYTES_MAX,
    LINK_FRAME_BYTES_MAX, ROOT_BYTES_MAX, SERVER_NAME_BYTES_MAX, SESSION_FRAME_BYTES_MAX,
};

targets! {
    Decoder Cbor decoders::event: EVENT_BYTES_MAX, one in 1;
    Decoder Cbor decoders::signed_event: EVENT_BYTES_MAX + decoders::FRAMING_BYTES, one in 1;
    Decoder Cbor decoders::content: CONTENT_BYTES_MAX, one in 1;
    Decoder Cbor decoders::commit: COMMIT_BYTES_MAX, one in 1;
    Decoder Cbor decoders::signed_commit: COMMIT_BYTES_MAX + decoders::FRAMING_BYTES, one in 1;
    Decoder Cbor decoders::root: ROOT_BYTES_MAX + 8 * decoders::FRAMING_BYTES, one in 1;
    Decoder Cbor decoders::later_root: ROOT_BYTES_MAX + 16 * decoders::FRAMING_BYTES, one in 1;
    Decoder Cbor decoders::identity_entry: ENTRY_BYTES_MAX, one in 1;
    Decoder Cbor decoders::identity_log: LINK_FRAME_BYTES_MAX, one in 1;
    Decoder Cbor decoders::card: ENTRY_BYTES_MAX, one in 1;
    Decoder Cbor decoders::card_chain: decoders::CARDS_BYTES, one in 1;
    Decoder Text decoders::card_text: 2 * decoders::CARDS_BYTES, one in 1;
    Decoder Text decoders::handle: HANDLE_BYTES_MAX, one in 1;
    Decoder Text decoders::server_name: SERVER_NAME_BYTES_MAX + 6, one in 1;
    Decoder Text decoders::user_address: SERVER_NAME_BYTES_MAX + HANDLE_BYTES_MAX + 8, one in 1;
    Decoder Text decoders::id_text: 128, one in 1;
    Decoder Bytes decoders::place_key: 42, one in 1;
    Decoder Cbor decoders::tips: LINK_FRAME_BYTES_MAX, one in 1;
    Decoder Cbor decoders::link_frame: LINK_FRAME_BYTES_MAX, one in 1;
    Decoder Cbor decoders::bundle: LINK_FRAME_BYTES_MAX, one in 1;
    Decoder Cbor decoders::client_frame: SESSION_FRAME_BYTES_MAX, one in 1;
    Decoder Json decoders::client_frame_json: SESSION_FRAME_BYTES_MAX, one in 1;
    Decoder Cbor decoders::server_frame: SESSION_FRAME_BYTES_MAX, one in 1;
    Decoder Json decoders::server_frame_json: 3 * SESSION_FRAME_BYTES_MAX, one in 1;
    Decoder Cbor decoders::cursor: 256, one in 1;
    Decoder Cbor decoders::pack_snapshot: decoders::SNAPSHOT_BYTES, one in 1;
    Decoder Cbor decoders::state_snapshot: decoders::SNAPSHOT_BYTES, one in 1;
    Machine Steps machines::session: machines::STEPS_BYTES, one in 1;
    Machine Steps machines::link: machines::STEPS_BYTES, one in 1;
    Machine Steps machines::replication: machines::STEPS_BYTES, one in 4;
    Machine Bytes machines::conversation: machines::STEPS_BYTES, one in 50;
    Machine Cbor machines::batch: LINK_FRAME_BYTES_MAX, one in 50;
}

/// The target of this name.
#[must_use]
pub fn find(name: &str) -> Option<&'static Target> {
    TARGETS.iter().find(|target| target.name == name)
}
