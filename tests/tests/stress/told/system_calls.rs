//! Records what the server writes to its sockets, in the order of the calls.
//!
//! A client cannot see this order: what it receives on two sockets may have been sent in the other order. So the test's
//! executable defines the calls `send`, `shutdown` and `close` itself. The linker prefers these to those of the C library,
//! and so the standard library calls them. They do what those do, and keep a record while a test asks for one.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use libc::{c_int, c_long, c_void, size_t, ssize_t};

/// What the server has told its clients since [`Recording::start`].
#[derive(Debug, Default)]
pub(super) struct Told {
    /// The sockets whose clients were told that they are in: neither was a close frame written, nor is the socket gone. With
    /// the part of a frame that was written last: a socket that is nearly full takes frames in pieces.
    sockets: BTreeMap<c_int, Vec<u8>>,
    /// How many clients were told.
    pub(super) count: usize,
    /// The most that were in at the same time.
    pub(super) peak: usize,
    /// How many clients were told while at least `limit` others were in.
    pub(super) beyond: usize,
    limit: usize,
}

static IS_RECORDING: AtomicBool = AtomicBool::new(false);
static TOLD: Mutex<Option<Told>> = Mutex::new(None);

/// A recording. There is one at a time: until it is dropped, no other test runs a server.
pub(super) struct Recording(#[expect(dead_code, reason = "it is only held")] MutexGuard<'static, ()>);

impl Recording {
    /// Starts to record. A user may have `limit` clients.
    pub(super) fn start(limit: usize) -> Self {
        static ONE: Mutex<()> = Mutex::new(());

        let one = ONE.lock().unwrap_or_else(PoisonError::into_inner);
        *lock() = Some(Told { limit, ..Told::default() });
        IS_RECORDING.store(true, Ordering::SeqCst);
        Self(one)
    }

    /// How many clients were told so far.
    pub(super) fn count(&self) -> usize {
        lock().as_ref().map_or(0, |told| told.count)
    }

    /// Records no more.
    pub(super) fn end(&self) -> Told {
        IS_RECORDING.store(false, Ordering::SeqCst);
        lock().take().expect("a recording ends once")
    }
}

fn lock() -> MutexGuard<'static, Option<Told>> {
    TOLD.lock().unwrap_or_else(PoisonError::into_inner)
}

fn record(change: impl FnOnce(&mut Told)) {
    if IS_RECORDING.load(Ordering::SeqCst)
        && let Some(told) = &mut *lock()
    {
        change(told);
    }
}

/// The first byte and the payload of each whole frame that a server sends (RFC 6455 §5.2), and what is left. What a client
/// sends is masked.
fn frames(mut bytes: &[u8]) -> (Vec<(u8, &[u8])>, &[u8]) {
    let mut frames = Vec::new();
    while let [first, length, rest @ ..] = bytes {
        let (length, rest) = match (length, rest) {
            (126, [high, low, rest @ ..]) => (usize::from(u16::from_be_bytes([*high, *low])), rest),
            (0..126, rest) => (usize::from(*length), rest),
            _ => break,
        };
        let Some((payload, rest)) = rest.split_at_checked(length) else { break };
        frames.push((*first, payload));
        bytes = rest;
    }
    (frames, bytes)
}

fn is_told(bytes: &[u8]) -> bool {
    let (frames, _) = frames(bytes);
    frames.iter().any(|(first, text)| *first == 0x81 && text.starts_with(br#"{"type":"AUTHENTICATE_SUCCESS""#))
}

impl Told {
    /// These bytes were written.
    fn written(&mut self, socket: c_int, bytes: &[u8]) {
        let Some(written) = self.sockets.get_mut(&socket) else { return };
        written.extend_from_slice(bytes);
        let (frames, rest) = frames(written);
        if frames.iter().any(|(first, _)| *first == 0x88) {
            self.sockets.remove(&socket);
        } else {
            *written = rest.to_vec();
        }
    }
}

/// `send` of the C library. The client counts as in before the call, and as out after it: never the other way round.
///
/// # Safety
/// As for the C library's.
#[unsafe(no_mangle)]
unsafe extern "C" fn send(socket: c_int, buffer: *const c_void, length: size_t, flags: c_int) -> ssize_t {
    // SAFETY: the caller passes a buffer of this length.
    let bytes = unsafe { std::slice::from_raw_parts(buffer.cast::<u8>(), length) };
    record(|told| {
        if is_told(bytes) {
            told.count += 1;
            told.beyond += usize::from(told.sockets.len() >= told.limit);
            told.sockets.insert(socket, Vec::new());
            told.peak = told.peak.max(told.sockets.len());
        }
    });
    let none = std::ptr::null::<c_void>();
    // SAFETY: `send` is `sendto` without an address; the caller answers for the rest.
    let sent = unsafe { libc::syscall(libc::SYS_sendto, socket, buffer, length, flags, none, 0) };
    record(|told| told.written(socket, &bytes[..usize::try_from(sent).unwrap_or(0)]));
    ssize_t::try_from(sent).expect("no more is sent than `length`")
}

/// `shutdown` of the C library.
///
/// # Safety
/// As for the C library's.
#[unsafe(no_mangle)]
unsafe extern "C" fn shutdown(socket: c_int, how: c_int) -> c_int {
    // SAFETY: the caller answers for it.
    let result = unsafe { libc::syscall(libc::SYS_shutdown, socket, how) };
    gone(socket, how == libc::SHUT_RDWR);
    to_int(result)
}

/// `close` of the C library.
///
/// # Safety
/// As for the C library's.
#[unsafe(no_mangle)]
unsafe extern "C" fn close(file: c_int) -> c_int {
    // Before the call: after it, the number can be that of another socket.
    gone(file, true);
    // SAFETY: the caller answers for it.
    to_int(unsafe { libc::syscall(libc::SYS_close, file) })
}

fn gone(socket: c_int, is_gone: bool) {
    record(|told| {
        if is_gone {
            told.sockets.remove(&socket);
        }
    });
}

fn to_int(result: c_long) -> c_int {
    c_int::try_from(result).expect("these calls return 0 or -1")
}
