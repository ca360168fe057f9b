//! Readiness by epoll(7).

use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::buffer::spare_capacity;
use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

use super::ready::{Ready, Watched};

/// The sockets of a thread.
pub(in super::super) struct Readiness {
    epoll: OwnedFd,
    events: Vec<epoll::Event>,
}

/// How many events are taken at once. Between two lots the engine does what is due.
const LOT: usize = 64;

/// Shorter waits are exact. Epoll itself counts in milliseconds.
const EXACT: Duration = Duration::from_millis(50);

/// The longest wait.
const LONGEST: Duration = Duration::from_secs(3600);

impl Readiness {
    pub(in super::super) fn new() -> io::Result<Self> {
        Ok(Self { epoll: epoll::create(CreateFlags::CLOEXEC)?, events: Vec::with_capacity(LOT) })
    }

    /// From now on the socket is reported when bytes arrive, each time that more do, and if it sends, when there is room.
    pub(in super::super) fn add(&self, Watched { socket, key, sends }: Watched<'_>) -> io::Result<()> {
        Ok(epoll::add(&self.epoll, socket, EventData::new_u64(key), flags(sends))?)
    }

    /// Changes whether the socket sends.
    pub(in super::super) fn modify(&self, Watched { socket, key, sends }: Watched<'_>) -> io::Result<()> {
        Ok(epoll::modify(&self.epoll, socket, EventData::new_u64(key), flags(sends))?)
    }

    /// Waits until a socket is ready, at most this long. The kernel knows the sockets that are open.
    #[allow(single_use_lifetimes, reason = "an anonymous one is not stable here, and nightly does not object")]
    pub(in super::super) fn wait<'a>(
        &mut self,
        _watched: impl Iterator<Item = Watched<'a>>,
        timeout: Option<Duration>,
        ready: &mut Vec<Ready>,
    ) -> io::Result<()> {
        ready.clear();
        let mut timeout = timeout.map(|timeout| timeout.min(LONGEST));
        if let Some(exact) = timeout.filter(|&timeout| timeout < EXACT) {
            if !exact.is_zero() {
                let exact = Timespec::try_from(exact).map_err(io::Error::other)?;
                // A signal only makes it shorter.
                let _ready: Result<usize, Errno> = poll(&mut [PollFd::new(&self.epoll, PollFlags::IN)], Some(&exact));
            }
            timeout = Some(Duration::ZERO);
        }
        let timeout = timeout.map(Timespec::try_from).transpose().map_err(io::Error::other)?;
        self.events.clear();
        match epoll::wait(&self.epoll, spare_capacity(&mut self.events), timeout.as_ref()) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        ready.extend(self.events.iter().map(|event| {
            // Copied, because the fields of an event are not aligned.
            let flags = event.flags;
            let is_ending = flags.intersects(EventFlags::RDHUP | EventFlags::HUP | EventFlags::ERR);
            Ready { key: event.data.u64(), is_ending }
        }));
        Ok(())
    }
}

fn flags(sends: bool) -> EventFlags {
    let reads = EventFlags::IN | EventFlags::RDHUP | EventFlags::ET;
    if sends { reads | EventFlags::OUT } else { reads }
}
