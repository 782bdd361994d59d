//! Runs hostile work on a thread of its own that can be given up on.
//!
//! A template can double a string thirty times in a few instructions, which neither fuel nor an output limit sees, and
//! Rust has no way to fail one allocation. It can also nest values so deeply that comparing or dropping them needs more
//! stack than there is. So the allocator counts what a confined thread holds, and looks at its stack. A thread that goes
//! over its budget, or whose caller stopped waiting, is parked inside its next allocation for ever: it holds no lock, its
//! memory is bounded by the budget, and the process lives. The caller of `run` gets `Overrun`.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{channel, RecvTimeoutError, Sender};
use std::sync::Arc;
use std::time::Duration;

// Recursion allocates as it goes, but not at every level: the rest of the stack is for the levels in between.
const STACK_BYTES: usize = 256 << 20;
const USABLE_STACK_BYTES: usize = 64 << 20;
// Blocks worth giving back; a hostile template holds few of them, since they are large.
const LARGE_BYTES: usize = 1 << 20;
const LARGE_BLOCKS: usize = 64;

pub enum Overrun {
    Memory,
    Time,
    Fault,
}

/// Lets the allocator end the wait of whoever runs the thread. Sending is a part of the standard library that may
/// allocate, so the guard is taken off the thread before it is used.
struct Guard {
    budget: isize,
    given_up: Arc<AtomicBool>,
    over_budget: Box<dyn Fn()>,
}

thread_local! {
    static HELD_BYTES: Cell<isize> = const { Cell::new(0) };
    static GUARD: Cell<*const Guard> = const { Cell::new(std::ptr::null()) };
    static STACK_BASE: Cell<usize> = const { Cell::new(0) };
    static LARGE: Cell<[Block; LARGE_BLOCKS]> = const { Cell::new([(0, 0); LARGE_BLOCKS]) };
}

/// Address and bytes.
type Block = (usize, usize);

fn is_confined() -> bool {
    GUARD.try_with(Cell::get).is_ok_and(|guard| !guard.is_null())
}

/// Replaces the first `from` in the list of large blocks.
fn note_large(from: usize, to: Block) {
    LARGE.with(|large| {
        let mut blocks = large.get();
        if let Some(block) = blocks.iter_mut().find(|block| block.0 == from) {
            *block = to;
            large.set(blocks);
        }
    });
}

fn note_allocation(pointer: *mut u8, bytes: usize) -> *mut u8 {
    if bytes >= LARGE_BYTES && !pointer.is_null() && is_confined() {
        note_large(0, (pointer as usize, bytes));
    }
    pointer
}

fn note_free(pointer: *mut u8, bytes: usize) {
    if bytes >= LARGE_BYTES && is_confined() {
        note_large(pointer as usize, (0, 0));
    }
}

/// Gives the whole pages between two addresses back to the system; they read as zeros afterwards.
#[cfg(target_os = "linux")]
fn give_back(from: usize, to: usize) {
    use std::ffi::{c_char, c_int, c_void};
    extern "C" {
        fn madvise(address: *mut c_void, bytes: usize, advice: c_int) -> c_int;
        fn dlsym(library: *mut c_void, name: *const c_char) -> *mut c_void;
    }
    // A leak checker would miss the small blocks that only these pages lead to.
    if !unsafe { dlsym(std::ptr::null_mut(), c"__asan_init".as_ptr()) }.is_null() {
        return;
    }
    const PAGE_BYTES: usize = 64 << 10; // the largest page of any system we run on
    const MADV_DONTNEED: c_int = 4;
    let (from, to) = (from.next_multiple_of(PAGE_BYTES), to / PAGE_BYTES * PAGE_BYTES);
    if from < to {
        unsafe { madvise(from as *mut c_void, to - from, MADV_DONTNEED) };
    }
}
#[cfg(not(target_os = "linux"))]
fn give_back(_from: usize, _to: usize) {}

/// For a thread that will never return to its callers. Their frames lie between here and the base of its stack.
fn give_back_everything() {
    const OWN_FRAMES_BYTES: usize = 256 << 10;
    let blocks = LARGE.with(Cell::get);
    for (address, bytes) in blocks.into_iter().filter(|block| block.0 != 0) {
        give_back(address, address + bytes);
    }
    let base = STACK_BASE.with(Cell::get);
    give_back(
        stack_address() + OWN_FRAMES_BYTES,
        base.saturating_sub(OWN_FRAMES_BYTES),
    );
}

/// What this confined thread allocated and did not free.
pub fn held_bytes() -> isize {
    HELD_BYTES.with(Cell::get)
}

fn stack_address() -> usize {
    let here = 0u8;
    std::ptr::from_ref(&here) as usize
}

struct CountingAllocator;

#[global_allocator]
static ALLOCATOR: CountingAllocator = CountingAllocator;

/// Adds `bytes` to what this thread holds, when it is confined. Does not return when that is too much.
fn count(bytes: isize) {
    let guard = GUARD.try_with(Cell::get).unwrap_or(std::ptr::null());
    if guard.is_null() {
        return;
    }
    let held = HELD_BYTES.with(|held| held.replace(held.get() + bytes)) + bytes;
    // The guard lives on the stack of `confined_main`, which cannot end while it is set.
    let guard = unsafe { &*guard };
    let over_budget = bytes > 0 && held > guard.budget;
    // Stacks grow downwards. Freeing counts too: dropping what is nested deeply allocates nothing.
    let over_stack = STACK_BASE.with(Cell::get).saturating_sub(stack_address()) > USABLE_STACK_BYTES;
    let given_up = bytes > 0 && guard.given_up.load(Ordering::Relaxed);
    if over_budget || over_stack || given_up {
        GUARD.with(|cell| cell.set(std::ptr::null()));
        if over_budget || over_stack {
            (guard.over_budget)();
        }
        give_back_everything();
        loop {
            std::thread::park();
        }
    }
}

unsafe impl GlobalAlloc for CountingAllocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size() as isize);
        note_allocation(System.alloc(layout), layout.size())
    }
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count(layout.size() as isize);
        note_allocation(System.alloc_zeroed(layout), layout.size())
    }
    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        note_free(pointer, layout.size());
        System.dealloc(pointer, layout);
        count(-(layout.size() as isize));
    }
    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        // While it is copied, both may exist.
        count(new_size as isize);
        note_free(pointer, layout.size());
        let moved = System.realloc(pointer, layout, new_size);
        if moved.is_null() {
            note_allocation(pointer, layout.size());
        }
        count(-(layout.size() as isize));
        note_allocation(moved, new_size)
    }
}

/// Runs `work` on a thread of its own. Work that overran keeps its thread and what it captured for ever, so callers
/// must not try the same again.
pub fn run<T: Send + 'static>(
    memory_bytes: u64,
    time: Duration,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Overrun> {
    silence_faults();
    let (sender, receiver) = channel::<Result<T, Overrun>>();
    let given_up = Arc::new(AtomicBool::new(false));
    let flag = given_up.clone();
    let budget = isize::try_from(memory_bytes).unwrap_or(isize::MAX);
    let spawned = std::thread::Builder::new()
        .name("template".to_string())
        .stack_size(STACK_BYTES)
        .spawn(move || confined_main(budget, flag, sender, work));
    let thread = spawned.unwrap_or_else(|error| panic!("cannot start a thread for a template: {error}"));
    // A thread that ends is waited for: a process that exits at this moment would find it half taken down.
    let outcome = match receiver.recv_timeout(time) {
        Ok(outcome) => outcome,
        Err(RecvTimeoutError::Timeout) => {
            given_up.store(true, Ordering::Relaxed);
            return Err(Overrun::Time);
        }
        Err(RecvTimeoutError::Disconnected) => Err(Overrun::Fault),
    };
    if !matches!(outcome, Err(Overrun::Memory)) {
        let _ = thread.join();
    }
    outcome
}

/// A fault of confined work is told to its caller and nobody else. The usual hook would also hold the lock of the error
/// stream while it allocates, which is where this thread may be parked.
fn silence_faults() {
    static ONCE: std::sync::Once = std::sync::Once::new();
    ONCE.call_once(|| {
        let usual = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |fault| {
            if !is_confined() {
                usual(fault);
            }
        }));
    });
}

fn confined_main<T: Send + 'static>(
    budget: isize,
    given_up: Arc<AtomicBool>,
    sender: Sender<Result<T, Overrun>>,
    work: impl FnOnce() -> T,
) {
    let reporter = sender.clone();
    let guard = Guard {
        budget,
        given_up,
        over_budget: Box::new(move || {
            let _ = reporter.send(Err(Overrun::Memory));
        }),
    };
    STACK_BASE.with(|base| base.set(stack_address()));
    GUARD.with(|cell| cell.set(&guard));
    let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(work));
    GUARD.with(|cell| cell.set(std::ptr::null()));
    if let Ok(result) = result {
        let _ = sender.send(Ok(result));
    }
}
