//! Counts the heap allocations of each thread.
//!
//! The count is the thread's own and plain, so that counting costs about a nanosecond: a shared atomic
//! counter would weigh on whoever allocates most, and bend the comparison.
#![allow(
    unsafe_code,
    reason = "an allocator cannot be written otherwise; it only hands on to the system's"
)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

thread_local! {
    static COUNT: Cell<u64> = const { Cell::new(0) };
}

/// The system's allocator, counted. A reallocation counts as one.
pub(crate) struct Counting;

fn count() {
    // A thread that is ending has no counter any more, and nobody asks for its count.
    let _ = COUNT.try_with(|c| c.set(c.get() + 1));
}

// SAFETY: every call goes to `System` unchanged; counting neither allocates nor unwinds.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: the caller keeps the contract of `GlobalAlloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: the caller keeps the contract of `GlobalAlloc`.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count();
        // SAFETY: the caller keeps the contract of `GlobalAlloc`.
        unsafe { System.realloc(block, layout, size) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: the caller keeps the contract of `GlobalAlloc`.
        unsafe { System.dealloc(block, layout) }
    }
}

/// How many allocations this thread has made so far.
pub(crate) fn of_this_thread() -> u64 {
    COUNT.with(Cell::get)
}
