//! Result buffers that several threads fill, without clearing them first.

use std::marker::PhantomData;
use std::mem::MaybeUninit;

/// A buffer under construction that tasks write to at disjoint places.
pub(crate) struct SharedMut<'a, T> {
    pointer: *mut T,
    length: usize,
    lifetime: PhantomData<&'a mut [T]>,
}

// SAFETY: the pointer is only dereferenced through the unsafe methods below, whose callers promise that no two
// threads touch the same element.
unsafe impl<T: Send> Send for SharedMut<'_, T> {}
// SAFETY: as above.
unsafe impl<T: Send> Sync for SharedMut<'_, T> {}

impl<'a, T> SharedMut<'a, T> {
    pub(crate) fn new(slice: &'a mut [T]) -> Self {
        Self { pointer: slice.as_mut_ptr(), length: slice.len(), lifetime: PhantomData }
    }

    /// # Safety
    /// `offset <= length`; writes through the pointer stay inside the buffer and touch no element that another
    /// task touches.
    pub(crate) unsafe fn at(&self, offset: usize) -> *mut T {
        debug_assert!(offset <= self.length);
        // SAFETY: in bounds by the caller's promise.
        unsafe { self.pointer.add(offset) }
    }

    /// A part of the buffer, to be written: it may never have been.
    ///
    /// # Safety
    /// The range lies inside the buffer and no other task touches it while the slice lives. Where the buffer holds
    /// values already, nothing uninitialized is written.
    #[allow(clippy::mut_from_ref)]
    pub(crate) unsafe fn slice(&self, offset: usize, length: usize) -> &mut [MaybeUninit<T>] {
        debug_assert!(offset + length <= self.length);
        // SAFETY: in bounds and exclusive by the caller's promise; `MaybeUninit` asks for no value.
        unsafe { std::slice::from_raw_parts_mut(self.pointer.add(offset).cast(), length) }
    }
}

/// A vector of `length` elements that `fill` writes completely. Clearing 16 MB first would cost as much as the
/// operator that fills it.
///
/// # Safety
/// `fill` writes every element and reads none before it has written it. `T` is a plain number (no drop, every
/// bit pattern valid).
pub(crate) unsafe fn produce<T: Copy>(length: usize, fill: impl FnOnce(&SharedMut<'_, T>)) -> Vec<T> {
    let mut buffer = Vec::with_capacity(length);
    let shared = SharedMut { pointer: buffer.as_mut_ptr(), length, lifetime: PhantomData };
    fill(&shared);
    // SAFETY: capacity is `length` and `fill` has written all of it.
    unsafe { buffer.set_len(length) };
    buffer
}
