//! A global allocator that keeps large blocks for reuse.
//!
//! A training step frees and allocates the same few hundred megabytes again and again. The system's allocator
//! returns blocks of this size to the kernel and gets them back page by page, cleared: on the machine where this
//! was measured, that doubled the time of the memory-bound operators.

use std::alloc::{GlobalAlloc, Layout, System};
use std::ptr::null_mut;
use std::sync::{Mutex, OnceLock};

/// Blocks from this size on are kept.
const SMALLEST: usize = 1 << 16;
/// Size classes per doubling: at most an eighth of a block is wasted.
const STEPS: usize = 8;
const CLASSES: usize = 32 * STEPS;
const ALIGNMENT: usize = 64;
/// The share of the machine's memory that may be kept.
const SHARE: usize = 4;
/// The limit where the system does not say how much memory there is.
const UNKNOWN_LIMIT: usize = 2 << 30;

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
    limit: Option<usize>,
    /// The limit if none is given, found out when the first block is kept.
    share: OnceLock<usize>,
}

/// Intrusive lists: a free block's first word points to the next free block of its class.
struct FreeLists {
    heads: [*mut u8; CLASSES],
    kept: usize,
}

// SAFETY: the pointers are owned by the lists, and blocks belong to no thread.
unsafe impl Send for FreeLists {}

impl FreeLists {
    const EMPTY: Self = Self { heads: [null_mut(); CLASSES], kept: 0 };

    /// # Safety
    /// The block has the size of its class and belongs to nobody.
    unsafe fn push(&mut self, class: usize, block: *mut u8) {
        // SAFETY: blocks are large and aligned enough for a pointer.
        unsafe { *block.cast::<*mut u8>() = self.heads[class] };
        self.heads[class] = block;
        self.kept += size_of_class(class);
    }

    /// A block of the class, or null.
    fn pop(&mut self, class: usize) -> *mut u8 {
        let head = self.heads[class];
        if !head.is_null() {
            // SAFETY: a block on the list starts with the pointer that `push` wrote.
            self.heads[class] = unsafe { *head.cast::<*mut u8>() };
            self.kept -= size_of_class(class);
        }
        head
    }

    /// Gives blocks back to the system, the largest first, until `size` more bytes fit under `limit`. A program whose
    /// sizes have changed thus loses those it no longer uses, and few calls free much.
    fn make_room(&mut self, size: usize, limit: usize) {
        for class in (0..CLASSES).rev() {
            while self.kept + size > limit && !self.heads[class].is_null() {
                let block = self.pop(class);
                // SAFETY: the block came from the system with its class's layout, and belongs to nobody.
                unsafe { System.dealloc(block, layout_of_class(class)) };
            }
        }
    }
}

/// Bytes of the blocks of a class.
fn size_of_class(class: usize) -> usize {
    let doubling = SMALLEST << (class / STEPS);
    doubling + class % STEPS * (doubling / STEPS)
}

fn layout_of_class(class: usize) -> Layout {
    // SAFETY: the alignment is a power of two, and classes end below the largest size.
    unsafe { Layout::from_size_align_unchecked(size_of_class(class), ALIGNMENT) }
}

/// Bytes that this process may use: the machine's memory, or less if its control group says so.
fn memory() -> Option<usize> {
    // none of this allocates a block that would be kept
    let read = |path: &str| std::fs::read_to_string(path).ok();
    let machine = read("/proc/meminfo")?
        .lines()
        .find_map(|line| line.strip_prefix("MemTotal:")?.trim().strip_suffix(" kB")?.trim().parse().ok())
        .map(|kilobytes: usize| kilobytes.saturating_mul(1024))?;
    let group = read("/proc/self/cgroup").unwrap_or_default();
    let group = group.lines().find_map(|line| line.strip_prefix("0::")).unwrap_or("/");
    let limits = [
        format!("/sys/fs/cgroup{group}/memory.max"),
        "/sys/fs/cgroup/memory.max".to_string(),
        "/sys/fs/cgroup/memory/memory.limit_in_bytes".to_string(),
    ];
    let allowed = limits.iter().filter_map(|path| read(path)?.trim().parse().ok());
    Some(allowed.fold(machine, usize::min))
}

impl RecyclingAllocator {
    /// Keeps at most a quarter of the memory that the process may use.
    pub const fn new() -> Self {
        Self { free: Mutex::new(FreeLists::EMPTY), limit: None, share: OnceLock::new() }
    }

    /// Keeps at most `limit` bytes of free blocks; more goes back to the system.
    pub const fn with_limit(limit: usize) -> Self {
        Self { free: Mutex::new(FreeLists::EMPTY), limit: Some(limit), share: OnceLock::new() }
    }

    fn limit(&self) -> usize {
        let share = || *self.share.get_or_init(|| memory().map_or(UNKNOWN_LIMIT, |bytes| bytes / SHARE));
        self.limit.unwrap_or_else(share)
    }

    /// The class of a layout and the layout of its blocks; `None` for what is passed to the system.
    fn class(layout: &Layout) -> Option<(usize, Layout)> {
        let size = layout.size();
        if size < SMALLEST || layout.align() > ALIGNMENT {
            return None;
        }
        let doubling = size.ilog2() as usize;
        let steps = (size - (1 << doubling)).div_ceil((1 << doubling) / STEPS);
        let class = (doubling - SMALLEST.ilog2() as usize) * STEPS + steps;
        if class >= CLASSES {
            return None;
        }
        Some((class, Layout::from_size_align(size_of_class(class), ALIGNMENT).ok()?))
    }

    fn lists(&self) -> std::sync::MutexGuard<'_, FreeLists> {
        // Nothing inside the lock panics; a poisoned lock is as good as any.
        self.free.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

impl Drop for RecyclingAllocator {
    /// Gives back what is kept. A global allocator is never dropped.
    fn drop(&mut self) {
        self.lists().make_room(0, 0);
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
            let Some((class, block)) = Self::class(&layout) else { return System.alloc(layout) };
            let kept = self.lists().pop(class);
            if kept.is_null() { System.alloc(block) } else { kept }
        }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: as in `alloc`; a kept block has at least the size that is cleared.
        unsafe {
            let Some((class, block)) = Self::class(&layout) else { return System.alloc_zeroed(layout) };
            let kept = self.lists().pop(class);
            if kept.is_null() {
                return System.alloc_zeroed(block);
            }
            kept.write_bytes(0, layout.size());
            kept
        }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the block came from `alloc` with this layout (caller's promise), hence from the system with its
        // class's layout; it is large and aligned enough for a pointer.
        unsafe {
            let Some((class, block)) = Self::class(&layout) else { return System.dealloc(pointer, layout) };
            let limit = self.limit();
            if block.size() > limit {
                return System.dealloc(pointer, block);
            }
            let mut lists = self.lists();
            lists.make_room(block.size(), limit);
            lists.push(class, pointer);
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
    fn the_largest_blocks_make_room_for_those_in_use() {
        let allocator = RecyclingAllocator::with_limit(1 << 20);
        // SAFETY: as above.
        unsafe {
            let [large, small, new] = [600_000, 100_000, 500_000].map(layout);
            let blocks = [large, small, new].map(|layout| allocator.alloc(layout));
            allocator.dealloc(blocks[1], small);
            allocator.dealloc(blocks[0], large);
            allocator.dealloc(blocks[2], new);
            let kept =
                |layout| !allocator.lists().heads[RecyclingAllocator::class(&layout).unwrap().0].is_null();
            assert!(kept(small) && kept(new) && !kept(large));
            let all = [small, new].map(|layout| RecyclingAllocator::class(&layout).unwrap().1.size());
            assert_eq!(allocator.lists().kept, all.iter().sum::<usize>());
            // larger than everything that may be kept
            let huge = layout(2 << 20);
            allocator.dealloc(allocator.alloc(huge), huge);
            assert!(kept(small) && kept(new) && !kept(huge));
            allocator.lists().make_room(1 << 20, 1 << 20);
        }
        assert_eq!(allocator.lists().kept, 0);
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn the_limit_is_a_share_of_the_memory() {
        let limit = RecyclingAllocator::new().limit();
        assert!(limit > 1 << 26 && limit < 1 << 44 && limit == memory().unwrap() / SHARE, "{limit}");
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
