//! CBOR seen from outside: where its items are, so that they can be harmed one by one. It reads
//! anything that is well-formed and stops where something is not; it is no decoder of values.

/// Items looked at; what follows is left alone.
const ITEMS_MAX: usize = 2_048;

/// One item's head in the bytes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Item {
    /// Where the head begins.
    pub at: usize,
    /// Bytes of the head.
    pub head: usize,
    /// 0 number, 1 negative, 2 bytes, 3 text, 4 list, 5 map, 6 tag, 7 other.
    pub major: u8,
    /// The head's number: a value, a length or a count.
    pub number: u64,
    /// Where the item ends, all that is in it included.
    pub end: usize,
}

impl Item {
    /// Where what follows the head begins.
    #[must_use]
    pub const fn body(&self) -> usize {
        self.at + self.head
    }
}

/// The items of `bytes`, outer before inner, as far as they are well-formed.
#[must_use]
pub fn items(bytes: &[u8]) -> Vec<Item> {
    let mut items: Vec<Item> = Vec::new();
    // Lists and maps not yet ended: place in `items`, and how many items are still to come.
    let mut open: Vec<(usize, u64)> = Vec::new();
    let mut at = 0;
    while items.len() < ITEMS_MAX
        && let Some(mut item) = head(bytes, at)
    {
        let inner = match item.major {
            4 => item.number,
            5 => item.number.saturating_mul(2),
            6 => 1,
            _ => 0,
        };
        if matches!(item.major, 2 | 3) {
            let len = usize::try_from(item.number).unwrap_or(usize::MAX);
            let Some(end) = item.end.checked_add(len).filter(|end| *end <= bytes.len()) else {
                break;
            };
            item.end = end;
        }
        at = item.end;
        items.push(item);
        if inner > 0 {
            open.push((items.len() - 1, inner));
            continue;
        }
        while let Some((parent, left)) = open.last_mut() {
            *left -= 1;
            items[*parent].end = at;
            if *left > 0 {
                break;
            }
            open.pop();
        }
        if open.is_empty() {
            break;
        }
    }
    items
}

fn head(bytes: &[u8], at: usize) -> Option<Item> {
    let first = *bytes.get(at)?;
    let (major, low) = (first >> 5, first & 0x1f);
    let more = match low {
        0..24 => 0,
        24..28 => 1 << (low - 24),
        _ => return None,
    };
    let tail = bytes.get(at + 1..at + 1 + more)?;
    let number = if more == 0 {
        u64::from(low)
    } else {
        tail.iter().fold(0, |n, byte| n << 8 | u64::from(*byte))
    };
    let head = 1 + more;
    Some(Item {
        at,
        head,
        major,
        number,
        end: at + head,
    })
}

/// A head in its shortest form.
#[must_use]
pub fn write_head(major: u8, number: u64) -> Vec<u8> {
    let bytes = number.to_be_bytes();
    let (low, tail) = match number {
        0..24 => (bytes[7], 8),
        24..=0xff => (24, 7),
        0x100..=0xffff => (25, 6),
        0x1_0000..=0xffff_ffff => (26, 4),
        _ => (27, 0),
    };
    let mut head = vec![major << 5 | low];
    head.extend_from_slice(&bytes[tail..]);
    head
}

/// A head of so many bytes of number (1, 2, 4 or 8), whether or not a shorter one would do.
#[must_use]
pub fn write_long_head(major: u8, number: u64, len: usize) -> Vec<u8> {
    let low = match len {
        1 => 24,
        2 => 25,
        4 => 26,
        _ => 27,
    };
    let len = 1 << (low - 24);
    let mut head = vec![major << 5 | low];
    head.extend_from_slice(&number.to_be_bytes()[8 - len..]);
    head
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn items_are_found_with_their_ends() {
        // {"a": [1, h'0203'], "bb": 300}
        let bytes = [
            0xa2, 0x61, b'a', 0x82, 1, 0x42, 2, 3, 0x62, b'b', b'b', 0x19, 1, 44,
        ];
        let found: Vec<_> = items(&bytes)
            .iter()
            .map(|i| (i.at, i.major, i.number, i.end))
            .collect();
        let expected = [
            (0, 5, 2, 14),
            (1, 3, 1, 3),
            (3, 4, 2, 8),
            (4, 0, 1, 5),
            (5, 2, 2, 8),
            (8, 3, 2, 11),
            (11, 0, 300, 14),
        ];
        assert_eq!(found, expected);
    }

    #[test]
    fn lies_and_depth_end_the_walk() {
        assert_eq!(
            items(&[0x9b, 255, 255, 255, 255, 255, 255, 255, 255, 1]).len(),
            2
        );
        assert!(items(&[0x5b, 255, 255, 255, 255, 255, 255, 255, 255]).is_empty());
        assert_eq!(items(&[0x81; 100_000]).len(), ITEMS_MAX);
        assert!(items(&[0x9f, 1, 0xff]).is_empty());
        assert!(items(&[]).is_empty());
    }

    #[test]
    fn heads_are_written_short_or_long() {
        for number in [0, 23, 24, 255, 256, 65_535, 65_536, u64::MAX] {
            let head = write_head(4, number);
            let read = head_of(&head);
            assert_eq!(
                (read.major, read.number, read.head),
                (4, number, head.len())
            );
        }
        assert_eq!(write_long_head(0, 5, 8), [0x1b, 0, 0, 0, 0, 0, 0, 0, 5]);
        assert_eq!(write_long_head(2, 5, 1), [0x58, 5]);
    }

    fn head_of(bytes: &[u8]) -> Item {
        head(bytes, 0).unwrap()
    }
}
