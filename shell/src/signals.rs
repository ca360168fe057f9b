//! SIGINT and SIGTERM.

use std::io;
use std::process;
use std::thread;

use async_signal::{Signal, Signals};
use futures_util::StreamExt as _;

/// Ready at the first SIGINT or SIGTERM. The second ends the process at once, whatever it is doing.
///
/// # Errors
/// When the system does not let signals be caught, or a thread be started.
pub(crate) fn stop() -> io::Result<impl Future<Output = ()>> {
    let mut signals = Signals::new([Signal::Int, Signal::Term])?;
    let (first, stop) = smol::channel::bounded::<()>(1);
    // On a thread of its own, so that it works however busy the others are.
    thread::Builder::new().name("signals".into()).spawn(move || {
        smol::block_on(async {
            signals.next().await;
            drop(first);
            signals.next().await;
        });
        exit_at_once();
    })?;
    Ok(async move {
        let _ended = stop.recv().await;
    })
}

#[expect(clippy::exit, reason = "the second signal asks for exactly this")]
fn exit_at_once() {
    // 128 + SIGINT, what a shell reports for a process that a signal has ended.
    process::exit(130);
}
