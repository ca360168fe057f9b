//! The signals SIGINT, SIGTERM and SIGHUP.

use std::future::pending;
use std::pin::pin;
use std::{io, process, thread};

use async_signal::{Signal, Signals};
use futures_util::{Stream, StreamExt as _};
use smol::future::or;

use crate::runtime::events::log_event;
use crate::runtime::log::LogHandle;
use crate::runtime::supervisor::{Part, Supervisor};

/// A stream of every SIGINT (Ctrl-C) and SIGTERM from now on. They no longer end the process.
///
/// # Errors
/// When the signals cannot be caught.
pub fn interrupts() -> io::Result<impl Stream<Item = ()> + Send> {
    Ok(Signals::new([Signal::Int, Signal::Term])?.map(drop))
}

/// A stream of every SIGHUP from now on. It no longer ends the process.
///
/// # Errors
/// When the signal cannot be caught.
pub(crate) fn hangups() -> io::Result<impl Stream<Item = ()> + Send> {
    Ok(Signals::new([Signal::Hup])?.map(drop))
}

/// Ready at the first SIGINT or SIGTERM. The second ends the process at once: only the log is flushed.
///
/// # Errors
/// When the signals cannot be caught, or the thread cannot be started.
pub(crate) fn stop(log: LogHandle, supervisor: &Supervisor) -> io::Result<impl Future<Output = ()>> {
    let interrupts = interrupts()?;
    let (first, stop) = smol::channel::bounded::<()>(1);
    // A thread of its own, so that the second signal works even if all other threads are busy.
    let supervisor = supervisor.clone();
    thread::Builder::new().name(Part::Signals.name().into()).spawn(move || {
        let guard = supervisor.watch(Part::Signals);
        let signals = async {
            let mut interrupts = pin!(interrupts);
            interrupts.next().await;
            let _nobody_waits = first.try_send(());
            interrupts.next().await;
        };
        smol::block_on(or(signals, guard.panic_when_due()));
        log_event!(server_stopped_at_once {});
        let _is_written = log.flush();
        exit_at_once();
    })?;
    Ok(first_signal(stop))
}

/// Ready at the signal. If the thread that waits for it panics, the supervisor ends the process: that must not look like an
/// orderly stop, which would end it first, with exit code 0.
async fn first_signal(stop: smol::channel::Receiver<()>) {
    if stop.recv().await.is_err() {
        pending().await
    }
}

#[expect(clippy::exit, reason = "the second signal asks for exactly this")]
fn exit_at_once() {
    // 128 + SIGINT: the exit code that a shell reports for a process that the signal has ended.
    process::exit(130);
}

#[cfg(test)]
mod tests {
    use std::task::{Context, Poll, Waker};

    use super::*;

    #[test]
    fn end_of_the_thread_is_no_signal() {
        let poll = |stop| pin!(first_signal(stop)).poll(&mut Context::from_waker(Waker::noop()));
        let (first, stop) = smol::channel::bounded(1);
        first.try_send(()).unwrap();
        assert_eq!(poll(stop), Poll::Ready(()));
        let (first, stop) = smol::channel::bounded(1);
        drop(first);
        assert_eq!(poll(stop), Poll::Pending);
    }
}
