//! What one act more costs in a group, counted and not timed: the same however many members there
//! are.

use comity_fuzz::{
    allocation,
    work::{self, One},
};

#[global_allocator]
static ALLOCATOR: allocation::Counting = allocation::Counting;

/// Two sizes, the second eight times the first.
const SIZES: [usize; 2] = [500, 4_000];
/// Times that each kind of act is done.
const EACH: usize = 16;
/// Pieces of memory asked for beyond those at the smaller size: a search tree that is higher splits
/// more nodes.
const MORE_PIECES: usize = 8;
/// Bytes kept for one member and all that he did.
const MEMBER_BYTES_MAX: usize = 1_000;
/// Bytes that a checkpoint of nothing new takes for a member while it is made: his leaf and two
/// hashes. A copy of the conversation takes more than what is kept.
const CHECKPOINT_BYTES_MAX: usize = 350;

/// Bytes that reading back a stored checkpoint of nothing new takes, whoever is there.
const RESTORE_BYTES_MAX: usize = 64 * 1024;

/// The most that one act took: events judged, pieces of memory.
type Cost = (u64, usize);

struct Counted {
    one_more: Vec<(One, Cost)>,
    /// Each for one member.
    kept: usize,
    checkpoint_peak: usize,
    /// All of it.
    restore_peak: usize,
}

fn count(size: usize) -> Counted {
    let mut crowd = work::crowd(size);
    let log = work::verified(&crowd.history);
    let (resolved, usage) = allocation::measure(|| work::resolve(&crowd.history.world, &log));
    let kept = usage.kept / size;
    let (mut graph, mut authority) = resolved;
    let mut one_more: Vec<(One, Cost)> = One::ALL.map(|one| (one, (0, 0))).into();
    for _ in 0..EACH {
        for (one, (judged, pieces)) in &mut one_more {
            let at = crowd.one_more(*one);
            let more = work::verified_at(&crowd.history, at);
            let before = authority.judged();
            let (stood, usage) =
                allocation::measure(|| work::resolve_one(&mut graph, &mut authority, &more));
            assert_eq!(stood, 1, "a {} stands", one.name());
            *judged = (*judged).max(authority.judged() - before);
            *pieces = (*pieces).max(usage.pieces);
        }
    }
    let mut machine = work::machine(&crowd.history);
    let first = work::checkpoint(&mut machine, &crowd.history.world);
    let (second, usage) =
        allocation::measure(|| work::checkpoint(&mut machine, &crowd.history.world));
    // The same two from the store, as after a restart.
    let mut restored = work::machine(&crowd.history);
    restored.restore_record(first).expect("it was stored");
    let (read_back, restoring) = allocation::measure(|| restored.restore_record(second));
    read_back.expect("it was stored");
    Counted {
        one_more,
        kept,
        checkpoint_peak: usage.peak / size,
        restore_peak: restoring.peak,
    }
}

#[test]
fn one_more_act_judges_and_allocates_no_more_in_a_larger_group() {
    assert!(allocation::is_counting(), "memory is measured");
    let [small, large] = SIZES.map(count);
    for ((one, few), (_, many)) in small.one_more.iter().zip(&large.one_more) {
        println!(
            "{}: {few:?} of {}, {many:?} of {}",
            one.name(),
            SIZES[0],
            SIZES[1]
        );
        assert!(few.0 > 0, "a {} is judged", one.name());
        assert!(
            many.0 <= few.0,
            "a {} judges what it does not touch",
            one.name()
        );
        assert!(
            many.1 <= few.1 + MORE_PIECES,
            "a {} copies what it does not touch",
            one.name()
        );
    }
    for counted in [&small, &large] {
        assert!(counted.kept > 0, "memory is measured");
        assert!(counted.kept <= MEMBER_BYTES_MAX, "{} B", counted.kept);
        let peak = counted.checkpoint_peak;
        assert!((1..=CHECKPOINT_BYTES_MAX).contains(&peak), "{peak} B");
        let peak = counted.restore_peak;
        assert!((1..=RESTORE_BYTES_MAX).contains(&peak), "{peak} B");
    }
}
