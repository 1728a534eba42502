//! The read buffer of a thread, which all its connections share, so that idle ones need none.

use std::cell::RefCell;

/// Calls `read` with the buffer of this thread.
pub(crate) fn with_read_buffer<T>(read: impl FnOnce(&mut [u8]) -> T) -> T {
    READ_BUFFER.with_borrow_mut(|buffer| {
        if buffer.is_empty() {
            buffer.resize(READ_BUFFER_BYTES, 0);
        }
        read(buffer)
    })
}

thread_local! {
    /// One buffer per thread, allocated on first use, so that idle connections need none.
    static READ_BUFFER: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

const READ_BUFFER_BYTES: usize = 64 << 10;
