//! A global allocator that keeps large blocks for reuse.
//!
//! A training step frees and allocates the same few hundred megabytes again and again. The system's allocator
//! returns blocks of this size to the kernel and gets them back page by page, cleared: on the machine where this
//! was measured, that doubled the time of the memory-bound operators.

use std::alloc::{GlobalAlloc, Layout, System};
use std::ptr::null_mut;
use std::sync::Mutex;

/// Blocks from this size on are kept.
const SMALLEST: usize = 1 << 16;
/// Size classes per doubling: at most an eighth of a block is wasted.
const STEPS: usize = 8;
const CLASSES: usize = 32 * STEPS;
const ALIGNMENT: usize = 64;

/// Keeps freed blocks of 64 KiB and more on free lists by size, and passes everything else to the system. For the
/// binary:
///
/// ```
/// #[global_allocator]
/// static ALLOCATOR: bandwise_kernels::RecyclingAllocator = bandwise_kernels::RecyclingAllocator::new();
/// # fn main() { drop(vec![0f32; 1 << 20]) }
/// ```
pub struct RecyclingAllocator {
    free: Mutex<FreeLists>,
}

/// Intrusive lists: a free block's first word points to the next free block of its class.
struct FreeLists {
    heads: [*mut u8; CLASSES],
    kept: usize,
    limit: usize,
}

// SAFETY: the pointers are owned by the lists, and blocks belong to no thread.
unsafe impl Send for FreeLists {}

impl RecyclingAllocator {
    /// Keeps at most 8 GiB of free blocks.
    pub const fn new() -> Self {
        Self::with_limit(8 << 30)
    }

    /// Keeps at most `limit` bytes of free blocks; more goes back to the system.
    pub const fn with_limit(limit: usize) -> Self {
        Self { free: Mutex::new(FreeLists { heads: [null_mut(); CLASSES], kept: 0, limit }) }
    }

    /// The class of a layout and the layout of its blocks; `None` for what is passed to the system.
    fn class(layout: &Layout) -> Option<(usize, Layout)> {
        let size = layout.size();
        if size < SMALLEST || layout.align() > ALIGNMENT {
            return None;
        }
        let doubling = size.ilog2() as usize;
        let step = (1usize << doubling) / STEPS;
        let steps = (size - (1 << doubling)).div_ceil(step);
        let class = (doubling - SMALLEST.ilog2() as usize) * STEPS + steps;
        let rounded = Layout::from_size_align((1usize << doubling) + steps * step, ALIGNMENT).ok()?;
        (class < CLASSES).then_some((class, rounded))
    }

    fn lists(&self) -> std::sync::MutexGuard<'_, FreeLists> {
        // Nothing inside the lock panics; a poisoned lock is as good as any.
        self.free.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// A kept block of the class, or null.
    fn take(&self, class: usize, block: &Layout) -> *mut u8 {
        let mut lists = self.lists();
        let head = lists.heads[class];
        if !head.is_null() {
            // SAFETY: a block on the list starts with the pointer that `dealloc` wrote.
            lists.heads[class] = unsafe { *head.cast::<*mut u8>() };
            lists.kept -= block.size();
        }
        head
    }
}

impl Default for RecyclingAllocator {
    fn default() -> Self {
        Self::new()
    }
}

// SAFETY: blocks come from the system with the class's layout, which is at least as large and as aligned as asked;
// a block is on a free list or handed out, never both; the class depends on the layout alone, so that `dealloc`
// finds the same one as `alloc`.
unsafe impl GlobalAlloc for RecyclingAllocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the layouts have a size above zero (caller's promise, and classes only grow).
        unsafe {
            match Self::class(&layout) {
                None => System.alloc(layout),
                Some((class, block)) => match self.take(class, &block) {
                    kept if kept.is_null() => System.alloc(block),
                    kept => kept,
                },
            }
        }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: as in `alloc`; a kept block has at least the size that is cleared.
        unsafe {
            match Self::class(&layout) {
                None => System.alloc_zeroed(layout),
                Some((class, block)) => match self.take(class, &block) {
                    kept if kept.is_null() => System.alloc_zeroed(block),
                    kept => {
                        kept.write_bytes(0, layout.size());
                        kept
                    }
                },
            }
        }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the block came from `alloc` with this layout (caller's promise), hence from the system with its
        // class's layout; it is large and aligned enough for a pointer.
        unsafe {
            let Some((class, block)) = Self::class(&layout) else { return System.dealloc(pointer, layout) };
            {
                let mut lists = self.lists();
                if lists.kept + block.size() <= lists.limit {
                    *pointer.cast::<*mut u8>() = lists.heads[class];
                    lists.heads[class] = pointer;
                    lists.kept += block.size();
                    return;
                }
            }
            System.dealloc(pointer, block);
        }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        // SAFETY: the caller promises a valid new size for this alignment; the copy stays inside both blocks.
        unsafe {
            let new_layout = Layout::from_size_align_unchecked(new_size, layout.align());
            match (Self::class(&layout), Self::class(&new_layout)) {
                (None, None) => return System.realloc(pointer, layout, new_size),
                (Some((old, _)), Some((new, _))) if old == new => return pointer,
                _ => {}
            }
            let moved = self.alloc(new_layout);
            if !moved.is_null() {
                moved.copy_from_nonoverlapping(pointer, layout.size().min(new_size));
                self.dealloc(pointer, layout);
            }
            moved
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layout(size: usize) -> Layout {
        Layout::from_size_align(size, 8).unwrap()
    }

    #[test]
    fn classes_are_large_enough_and_waste_an_eighth_at_most() {
        for size in (SMALLEST..1 << 22).step_by(4093).chain([usize::MAX >> 20, 1 << 20]) {
            let (_, block) = RecyclingAllocator::class(&layout(size)).unwrap();
            assert!(block.size() >= size && block.size() <= size + size / STEPS, "{size}: {block:?}");
        }
        let classes = |size| RecyclingAllocator::class(&layout(size)).map(|(class, _)| class);
        assert_eq!(
            classes((1 << 20) - 1),
            classes(1 << 20),
            "the last step of a doubling is the next doubling"
        );
        assert_eq!(classes(SMALLEST - 1), None);
    }

    #[test]
    fn blocks_come_back_and_cleared_when_asked() {
        let allocator = RecyclingAllocator::with_limit(1 << 20);
        // SAFETY: every block is freed once, with its own layout, and not used afterwards.
        unsafe {
            let first = allocator.alloc(layout(100_000));
            first.write_bytes(7, 100_000);
            allocator.dealloc(first, layout(100_000));
            let again = allocator.alloc_zeroed(layout(99_000));
            assert_eq!(first, again);
            assert!((0..99_000).all(|i| *again.add(i) == 0));
            again.write(5);
            let grown = allocator.realloc(again, layout(99_000), 500_000);
            assert_eq!(*grown, 5);
            let small = allocator.realloc(grown, layout(500_000), 10);
            assert_eq!(*small, 5);
            allocator.dealloc(small, layout(10));
        }
        assert!(allocator.lists().kept > 0);
    }

    #[test]
    fn no_more_than_the_limit_is_kept() {
        let allocator = RecyclingAllocator::with_limit(300_000);
        // SAFETY: as above.
        unsafe {
            let blocks = [(); 4].map(|()| allocator.alloc(layout(100_000)));
            blocks.into_iter().for_each(|block| allocator.dealloc(block, layout(100_000)));
        }
        assert!(allocator.lists().kept <= 300_000);
    }
}
