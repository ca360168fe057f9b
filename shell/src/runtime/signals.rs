//! SIGINT, SIGTERM and SIGHUP.

use std::pin::pin;
use std::{io, process, thread};

use async_signal::{Signal, Signals};
use futures_util::{Stream, StreamExt as _};

/// Every SIGINT (Ctrl-C) and SIGTERM from now on, instead of the end of the process that they mean otherwise.
///
/// # Errors
/// When the system does not let them be caught.
pub fn interrupts() -> io::Result<impl Stream<Item = ()> + Send> {
    Ok(Signals::new([Signal::Int, Signal::Term])?.map(drop))
}

/// Every SIGHUP from now on, instead of the end of the process that it means otherwise.
///
/// # Errors
/// When the system does not let it be caught.
pub(crate) fn hangups() -> io::Result<impl Stream<Item = ()> + Send> {
    Ok(Signals::new([Signal::Hup])?.map(drop))
}

/// Ready at the first of them. The second ends the process at once, whatever it is doing.
///
/// # Errors
/// When the system does not let them be caught, or a thread be started.
pub(crate) fn stop() -> io::Result<impl Future<Output = ()>> {
    let interrupts = interrupts()?;
    let (first, stop) = smol::channel::bounded::<()>(1);
    // On a thread of its own, so that it works however busy the others are.
    thread::Builder::new().name("signals".into()).spawn(move || {
        smol::block_on(async {
            let mut interrupts = pin!(interrupts);
            interrupts.next().await;
            drop(first);
            interrupts.next().await;
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
