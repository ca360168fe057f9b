//! Readiness by poll(2), for systems without epoll(7). Each wait looks at every socket.

use std::io;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

use super::ready::{Ready, Watched};

/// The sockets of a thread.
pub(in super::super) struct Readiness;

/// The longest wait.
const LONGEST: Duration = Duration::from_secs(3600);

#[cfg_attr(
    target_os = "linux",
    expect(clippy::unused_self, clippy::unnecessary_wraps, reason = "the other kind has a descriptor of its own")
)]
impl Readiness {
    pub(in super::super) fn new() -> io::Result<Self> {
        Ok(Self)
    }

    #[cfg_attr(target_os = "linux", expect(dead_code, reason = "the engine uses the other kind"))]
    pub(in super::super) fn add(&self, _watched: Watched<'_>) -> io::Result<()> {
        Ok(())
    }

    #[cfg_attr(target_os = "linux", expect(dead_code, reason = "the engine uses the other kind"))]
    pub(in super::super) fn modify(&self, _watched: Watched<'_>) -> io::Result<()> {
        Ok(())
    }

    /// Waits until a socket is ready, at most this long.
    #[allow(single_use_lifetimes, reason = "an anonymous one is not stable here, and nightly does not object")]
    pub(in super::super) fn wait<'a>(
        &mut self,
        watched: impl Iterator<Item = Watched<'a>>,
        timeout: Option<Duration>,
        ready: &mut Vec<Ready>,
    ) -> io::Result<()> {
        ready.clear();
        let (mut polled, keys): (Vec<_>, Vec<_>) = watched
            .map(|Watched { socket, key, sends }| {
                let flags = if sends { PollFlags::IN | PollFlags::OUT } else { PollFlags::IN };
                (PollFd::from_borrowed_fd(socket, flags), key)
            })
            .unzip();
        let timeout = timeout.map(|timeout| Timespec::try_from(timeout.min(LONGEST)));
        match poll(&mut polled, timeout.transpose().map_err(io::Error::other)?.as_ref()) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        ready.extend(polled.iter().zip(keys).filter(|(socket, _)| !socket.revents().is_empty()).map(
            |(socket, key)| {
                let is_ending = socket.revents().intersects(PollFlags::HUP | PollFlags::ERR);
                Ready { key, is_ending }
            },
        ));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use std::io::Write as _;
    use std::os::fd::AsFd as _;
    use std::os::unix::net::UnixStream;

    #[test]
    fn sockets_with_bytes_or_room_are_ready() {
        let (mut ours, theirs) = UnixStream::pair().expect("sockets");
        let mut readiness = Readiness::new().expect("no descriptor of its own");
        let mut ready = Vec::new();
        let mut keys = |sends| {
            let watched = [(theirs.as_fd(), 7), (theirs.as_fd(), 8)];
            let watched = watched.into_iter().map(|(socket, key)| Watched { socket, key, sends: sends && key == 8 });
            readiness.wait(watched, Some(Duration::ZERO), &mut ready).expect("good sockets");
            ready.iter().map(|ready| (ready.key, ready.is_ending)).collect::<Vec<_>>()
        };
        assert_eq!(keys(false), []);
        assert_eq!(keys(true), [(8, false)]);
        ours.write_all(b"a").expect("a reader");
        assert_eq!(keys(false), [(7, false), (8, false)]);
        drop(ours);
        assert_eq!(keys(false), [(7, true), (8, true)]);
    }
}
