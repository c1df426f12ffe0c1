//! An allocator that says what a call took: the largest single piece, and the most held at once.
//!
//! A program that wants figures makes [`Counting`] its global allocator. Outside of [`measure`] it
//! costs one look at a flag and is otherwise the system's allocator.

use std::{
    alloc::{GlobalAlloc, Layout, System},
    cell::Cell,
    sync::atomic::{AtomicBool, Ordering::Relaxed},
};

/// Whether any thread measures.
static WANTED: AtomicBool = AtomicBool::new(false);

thread_local! {
    // Const and without a destructor: reading it never allocates, which an allocator must not.
    static METER: Cell<Option<Meter>> = const { Cell::new(None) };
}

#[derive(Clone, Copy, Default)]
struct Meter {
    /// Bytes held now beyond those at the start; below zero when earlier ones were given back.
    held: isize,
    usage: Usage,
}

/// What a call took on its own thread.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Usage {
    /// The largest single piece asked for, in bytes.
    pub largest: usize,
    /// The most held at once beyond what was held before, in bytes.
    pub peak: usize,
    /// Pieces asked for, regrowth included.
    pub pieces: usize,
    /// What is still held at the end beyond what was held before, in bytes.
    pub kept: usize,
}

/// The system's allocator with a meter.
#[derive(Clone, Copy, Debug, Default)]
pub struct Counting;

impl Counting {
    fn note(before: usize, after: usize) {
        if !WANTED.load(Relaxed) {
            return;
        }
        // A thread that is ending has no meter any more.
        let _ = METER.try_with(|meter| {
            let Some(mut now) = meter.get() else {
                return;
            };
            now.held += after.cast_signed() - before.cast_signed();
            now.usage.peak = now.usage.peak.max(usize::try_from(now.held).unwrap_or(0));
            if after > 0 {
                now.usage.largest = now.usage.largest.max(after);
                now.usage.pieces += 1;
            }
            meter.set(Some(now));
        });
    }
}

#[expect(
    unsafe_code,
    reason = "the trait is unsafe; every call goes to the system's allocator"
)]
// SAFETY: all requests are handed on unchanged, and counting neither allocates nor unwinds.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        Self::note(0, layout.size());
        // SAFETY: the caller keeps the rules of `alloc`, which are the system's.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        Self::note(0, layout.size());
        // SAFETY: as above.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        Self::note(layout.size(), 0);
        // SAFETY: as above; `at` came from the system's allocator.
        unsafe { System.dealloc(at, layout) }
    }

    unsafe fn realloc(&self, at: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        Self::note(layout.size(), size);
        // SAFETY: as above.
        unsafe { System.realloc(at, layout, size) }
    }
}

/// Calls `call` and says what it took on this thread: nothing, if this program's allocator is not
/// [`Counting`]. Not to be nested.
pub fn measure<T>(call: impl FnOnce() -> T) -> (T, Usage) {
    WANTED.store(true, Relaxed);
    METER.set(Some(Meter::default()));
    let value = call();
    let meter = METER.take().unwrap_or_default();
    let kept = usize::try_from(meter.held).unwrap_or(0);
    (
        value,
        Usage {
            kept,
            ..meter.usage
        },
    )
}

/// Whether this program counts.
#[must_use]
pub fn is_counting() -> bool {
    let (_, usage) = measure(|| std::hint::black_box(vec![0_u8; 100]));
    usage.largest >= 100
}
