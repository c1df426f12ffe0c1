//! From sound inputs to hostile ones: flipped bits, splices, lies about lengths, what CBOR and JSON
//! allow and this protocol does not, and all of it inside of what is nested.

mod text;

use crate::{
    cbor::{self, Item},
    random::Random,
};

/// How a target's inputs are written.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Kind {
    /// DAG-CBOR.
    Cbor,
    /// JSON.
    Json,
    /// Text.
    Text,
    /// Bytes without form.
    Bytes,
    /// Steps of a machine: each an opcode, a big-endian u16 length, and that many bytes, which are
    /// DAG-CBOR more often than not.
    Steps,
}

/// Changes made to one input at most.
const CHANGES_MAX: usize = 4;
/// Bytes that one change adds at most, save for the rare large ones.
const GROWTH: usize = 64;
/// Deepest nesting of byte strings that are changed inside.
const DEPTH_MAX: u32 = 4;
/// One input in so many is larger than its decoder may take.
const OVERSIZE_ONE_IN: usize = 4_000;
/// One input in so many holds a long run of one byte, as deep nesting is.
const RUN_ONE_IN: usize = 1_000;
/// Bytes of such a run at most.
const RUN_MAX: usize = 64 * 1024;

/// What strict decoders stumble over, as raw CBOR.
const CBOR_TRAPS: &[&[u8]] = &[
    // Lengths and counts that nothing follows.
    &[0x9b, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff],
    &[0xbb, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff],
    &[0x5b, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff],
    &[0x7b, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff],
    &[0x9a, 0x7f, 0xff, 0xff, 0xff],
    &[0x5a, 0xff, 0xff, 0xff, 0xff],
    &[0x99, 0xff, 0xff],
    // Indefinite lengths, open and closed.
    &[0x9f],
    &[0xbf],
    &[0x5f],
    &[0x7f],
    &[0x9f, 0xff],
    &[0xbf, 0xff],
    &[0x5f, 0x41, 0x00, 0xff],
    // Numbers: 2^53, one more, the largest, negative ones, and longer forms than needed.
    &[0x1b, 0x00, 0x20, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00],
    &[0x1b, 0x00, 0x20, 0x00, 0x00, 0x00, 0x00, 0x00, 0x01],
    &[0x1b, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff],
    &[0x3b, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff],
    &[0x20],
    &[0x18, 0x05],
    &[0x1a, 0x00, 0x00, 0x00, 0x01],
    &[0xc2, 0x49, 0x01, 0, 0, 0, 0, 0, 0, 0, 0],
    // NaN in two sizes, infinity, a plain number with a point.
    &[0xf9, 0x7e, 0x00],
    &[0xfb, 0x7f, 0xf8, 0, 0, 0, 0, 0, 0],
    &[0xf9, 0x7c, 0x00],
    &[0xfb, 0x3f, 0xf0, 0, 0, 0, 0, 0, 0],
    // Null, undefined, true, a simple value, a lone break, a link, a tag of a tag.
    &[0xf6],
    &[0xf7],
    &[0xf5],
    &[0xf8, 0x20],
    &[0xff],
    &[0xd8, 0x2a, 0x45, 0x00, 0x01, 0x55, 0x00, 0x00],
    &[0xc0, 0xc1, 0x00],
    // Text that is no UTF-8: a lone surrogate, a cut-off and an overlong form.
    &[0x63, 0xed, 0xa0, 0x80],
    &[0x61, 0xc3],
    &[0x62, 0xc0, 0x80],
    // Empty ones, and names of other forms.
    &[0x80],
    &[0xa0],
    &[0x40],
    &[0x60],
    &[0xa1, 0x61, b'x', 0x00],
    &[0xa2, 0x61, b'x', 0x00, 0x61, b'x', 0x00],
];

/// An input made to harm: of one or two of the `seeds`, or of nothing.
pub fn hostile(random: &mut Random, kind: Kind, seeds: &[Vec<u8>], bytes_max: usize) -> Vec<u8> {
    if seeds.is_empty() || random.once_in(64) {
        let len = random.below(256);
        return random.bytes(len);
    }
    let mut bytes = random.pick(seeds).clone();
    for _ in 0..=random.below(CHANGES_MAX) {
        change(random, kind, &mut bytes, seeds, 0);
    }
    if random.once_in(RUN_ONE_IN) {
        let byte = *random.pick(&[
            0x81, 0xa1, 0x9f, 0xbf, 0xc1, 0xd8, 0xff, 0x00, b'[', b'{', b'9',
        ]);
        let (at, len) = (random.below(bytes.len() + 1), random.below(RUN_MAX));
        bytes.splice(at..at, std::iter::repeat_n(byte, len));
    }
    if random.once_in(OVERSIZE_ONE_IN) {
        let byte = random.byte();
        bytes.resize(bytes_max + 1 + random.below(GROWTH), byte);
    }
    bytes
}

fn change(random: &mut Random, kind: Kind, bytes: &mut Vec<u8>, seeds: &[Vec<u8>], depth: u32) {
    let formless = random.once_in(4);
    match kind {
        Kind::Cbor if !formless => change_cbor(random, bytes, seeds, depth),
        Kind::Json if !formless => text::change_json(random, bytes),
        Kind::Text if !formless => text::change_text(random, bytes),
        Kind::Steps if !formless => change_steps(random, bytes, seeds),
        _ => change_bytes(random, bytes, seeds),
    }
}

/// Where something of at most so many bytes is, anywhere in `len` bytes.
fn stretch(random: &mut Random, len: usize) -> std::ops::Range<usize> {
    let from = random.below(len + 1);
    let to = (from + random.below(GROWTH)).min(len);
    from..to
}

fn change_bytes(random: &mut Random, bytes: &mut Vec<u8>, seeds: &[Vec<u8>]) {
    let at = random.below(bytes.len());
    match random.below(9) {
        0 if !bytes.is_empty() => bytes[at] ^= 1 << random.below(8),
        1 if !bytes.is_empty() => {
            bytes[at] = *random.pick(&[0, 1, 0x17, 0x18, 0x7f, 0x80, 0x9f, 0xf6, 0xfb, 0xff]);
        }
        2 if !bytes.is_empty() => bytes[at] = random.byte(),
        3 => bytes.truncate(at),
        4 => {
            let more = random.below(GROWTH);
            bytes.extend(random.bytes(more));
        }
        5 => drop(bytes.drain(stretch(random, bytes.len()))),
        6 => {
            let copy = bytes[stretch(random, bytes.len())].to_vec();
            bytes.splice(at..at, copy);
        }
        7 => {
            let other = random.pick(seeds);
            let piece = other[stretch(random, other.len())].to_vec();
            let place = stretch(random, bytes.len());
            bytes.splice(place, piece);
        }
        _ => {
            // The front of this one and the end of another.
            let other = random.pick(seeds);
            let from = random.below(other.len() + 1);
            bytes.truncate(at);
            bytes.extend_from_slice(&other[from..]);
        }
    }
}

fn change_cbor(random: &mut Random, bytes: &mut Vec<u8>, seeds: &[Vec<u8>], depth: u32) {
    let items = cbor::items(bytes);
    if items.is_empty() {
        return change_bytes(random, bytes, seeds);
    }
    let item = *random.pick(&items);
    match random.below(12) {
        0 => replace(bytes, item.at..item.end, random.pick::<&[u8]>(CBOR_TRAPS)),
        1 => replace(bytes, item.at..item.at, random.pick::<&[u8]>(CBOR_TRAPS)),
        2 => drop(bytes.drain(item.at..item.end)),
        3 => {
            let other = *random.pick(&items);
            let copy = bytes[other.at..other.end].to_vec();
            replace(bytes, item.at..item.end, &copy);
        }
        4 => {
            let other = random.pick(seeds);
            let from = cbor::items(other);
            if let Some(piece) = (!from.is_empty()).then(|| *random.pick(&from)) {
                replace(bytes, item.at..item.end, &other[piece.at..piece.end]);
            }
        }
        5 => new_head(random, bytes, item),
        6 => {
            let len = *random.pick(&[1, 2, 4, 8]);
            let head = cbor::write_long_head(item.major, item.number, len);
            replace(bytes, item.at..item.body(), &head);
        }
        7 | 8 => number_or_inside(random, bytes, item, seeds, depth),
        9 => repeat_or_swap(random, bytes, item, &items),
        10 => another_form(random, bytes, item),
        _ => change_bytes(random, bytes, seeds),
    }
}

fn replace(bytes: &mut Vec<u8>, place: std::ops::Range<usize>, by: &[u8]) {
    bytes.splice(place, by.iter().copied());
}

/// A lie about a length or count.
fn new_head(random: &mut Random, bytes: &mut Vec<u8>, item: Item) {
    let lies = [
        0,
        item.number.wrapping_add(1),
        item.number.wrapping_sub(1),
        item.number.wrapping_mul(2),
        u64::from(u16::MAX),
        u64::from(u32::MAX),
        1 << 53,
        u64::MAX >> 1,
        u64::MAX,
    ];
    let head = cbor::write_head(item.major, *random.pick(&lies));
    replace(bytes, item.at..item.body(), &head);
}

/// Another number; or what is in a byte string or text, whose length follows, so that all around it
/// stays sound and the harm is found deeper.
fn number_or_inside(
    random: &mut Random,
    bytes: &mut Vec<u8>,
    item: Item,
    seeds: &[Vec<u8>],
    depth: u32,
) {
    if !matches!(item.major, 2 | 3) {
        return new_head(random, bytes, item);
    }
    let mut inside = bytes[item.body()..item.end].to_vec();
    let nested = item.major == 2 && cbor::items(&inside).len() > 1;
    let kind = match item.major {
        2 if nested && depth < DEPTH_MAX => Kind::Cbor,
        2 => Kind::Bytes,
        _ => Kind::Text,
    };
    if kind == Kind::Bytes && !inside.is_empty() && !random.once_in(4) {
        // Ids and keys: of the right length, and wrong.
        let at = random.below(inside.len());
        inside[at] ^= 1 << random.below(8);
    } else {
        change(random, kind, &mut inside, seeds, depth + 1);
    }
    let mut new = cbor::write_head(item.major, inside.len() as u64);
    new.append(&mut inside);
    replace(bytes, item.at..item.end, &new);
}

/// An entry of a list or map twice, the count following; or two items in each other's place.
fn repeat_or_swap(random: &mut Random, bytes: &mut Vec<u8>, item: Item, items: &[Item]) {
    if matches!(item.major, 4 | 5) && item.number > 0 && item.end > item.body() {
        let copy = bytes[item.body()..item.end].to_vec();
        let head = cbor::write_head(item.major, item.number.saturating_mul(2));
        bytes.splice(item.end..item.end, copy);
        replace(bytes, item.at..item.body(), &head);
        return;
    }
    let other = *random.pick(items);
    let (first, second) = if item.at < other.at {
        (item, other)
    } else {
        (other, item)
    };
    if first.end <= second.at {
        let (a, b) = (
            bytes[first.at..first.end].to_vec(),
            bytes[second.at..second.end].to_vec(),
        );
        replace(bytes, second.at..second.end, &a);
        replace(bytes, first.at..first.end, &b);
    }
}

/// The same in another form: text for bytes and the other way, a list for a map, a tag before it, a
/// list of indefinite length.
fn another_form(random: &mut Random, bytes: &mut Vec<u8>, item: Item) {
    let first = bytes[item.at];
    match random.below(4) {
        0 => bytes[item.at] = first ^ 0x20,
        1 => bytes.insert(item.at, 0xc0 | first & 0x17),
        2 if matches!(item.major, 2..6) => {
            bytes.insert(item.end, 0xff);
            replace(bytes, item.at..item.body(), &[item.major << 5 | 0x1f]);
        }
        _ => bytes[item.at] = first & 0x1f | (random.byte() & 0xe0),
    }
}

/// Cuts the bytes of a machine's input into steps: opcode and what belongs to it.
#[must_use]
pub fn steps(bytes: &[u8]) -> Vec<(u8, &[u8])> {
    let mut rest = bytes;
    let mut steps = Vec::new();
    while let [op, high, low, more @ ..] = rest {
        let len = usize::from(u16::from_be_bytes([*high, *low])).min(more.len());
        let (body, after) = more.split_at(len);
        steps.push((*op, body));
        rest = after;
    }
    steps
}

/// Writes steps as [`steps`] reads them; what does not fit a length is cut.
#[must_use]
pub fn write_steps<'a>(steps: impl IntoIterator<Item = (u8, &'a [u8])>) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (op, body) in steps {
        let len = u16::try_from(body.len()).unwrap_or(u16::MAX);
        bytes.push(op);
        bytes.extend_from_slice(&len.to_be_bytes());
        bytes.extend_from_slice(&body[..usize::from(len)]);
    }
    bytes
}

fn change_steps(random: &mut Random, bytes: &mut Vec<u8>, seeds: &[Vec<u8>]) {
    let mut all: Vec<(u8, Vec<u8>)> = steps(bytes)
        .into_iter()
        .map(|(op, body)| (op, body.to_vec()))
        .collect();
    if all.is_empty() {
        return change_bytes(random, bytes, seeds);
    }
    let at = random.below(all.len());
    match random.below(8) {
        0 => drop(all.remove(at)),
        1 => {
            let copy = all[at].clone();
            let to = random.below(all.len() + 1);
            all.insert(to, copy);
        }
        2 => {
            let other = random.below(all.len());
            all.swap(at, other);
        }
        3 => all[at].0 = random.byte(),
        4 => {
            let other = random.pick(seeds);
            let from = steps(other);
            if !from.is_empty() {
                let (op, body) = *random.pick(&from);
                all.insert(at, (op, body.to_vec()));
            }
        }
        _ => {
            let nested: Vec<Vec<u8>> = all.iter().map(|(_, body)| body.clone()).collect();
            change_cbor(random, &mut all[at].1, &nested, 0);
        }
    }
    *bytes = write_steps(all.iter().map(|(op, body)| (*op, body.as_slice())));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_makes_the_same_inputs() {
        let seeds = [vec![0xa1, 0x61, b'a', 0x01], b"{\"a\":1}".to_vec()];
        for kind in [Kind::Cbor, Kind::Json, Kind::Text, Kind::Bytes, Kind::Steps] {
            let all = |seed| -> Vec<Vec<u8>> {
                let mut random = Random::new(seed);
                (0..500)
                    .map(|_| hostile(&mut random, kind, &seeds, 4_096))
                    .collect()
            };
            assert_eq!(all(7), all(7));
            assert_ne!(all(7), all(8));
        }
    }

    #[test]
    fn steps_round_trip() {
        let written = write_steps([(1, &b"ab"[..]), (2, b""), (3, b"c")]);
        assert_eq!(steps(&written), [(1, &b"ab"[..]), (2, b""), (3, b"c")]);
        assert_eq!(steps(&[9, 0xff, 0xff, 1]), [(9, &[1][..])]);
        assert!(steps(&[9, 0]).is_empty());
    }

    #[test]
    fn bytes_nested_in_sound_frames_are_reached() {
        // {"a": h'a1616201'}: the inner map is changed while the outer one stays well-formed.
        let seed = vec![0xa1, 0x61, b'a', 0x44, 0xa1, 0x61, b'b', 0x01];
        let mut random = Random::new(3);
        let deep = (0..5_000)
            .map(|_| hostile(&mut random, Kind::Cbor, std::slice::from_ref(&seed), 64))
            .filter(|bytes| bytes.starts_with(&[0xa1, 0x61, b'a']) && *bytes != seed)
            .filter(|bytes| {
                cbor::items(bytes)
                    .first()
                    .is_some_and(|i| i.end == bytes.len())
            })
            .count();
        assert!(deep > 200, "{deep}");
    }
}
