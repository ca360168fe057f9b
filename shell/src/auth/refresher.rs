//! Fetches keys from their provider when [`RefreshSchedule`] says so, and lets tokens wait for them.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use std::{fmt, mem};

use session_core::Timestamp;
use smol::channel::{Receiver, Sender, bounded};
use smol::future::{or, ready};

use crate::auth::authenticator::NewerKeys;
use crate::auth::fetched_set::FetchedSet;
use crate::auth::key_provider::KeyProvider;
use crate::auth::keys::{KeyError, Keys};
use crate::auth::refresh_schedule::RefreshSchedule;
use crate::runtime::clock::Clock;
use crate::runtime::events::log_event;
use crate::runtime::rfc3339;

/// Keeps the keys of one provider fresh.
pub(super) struct Refresher {
    clock: Clock,
    /// Where the last good set is kept over a restart.
    file: Option<PathBuf>,
    state: Mutex<State>,
    /// Wakes the task because the schedule has changed.
    wake: (Sender<()>, Receiver<()>),
}

struct State {
    /// `None`: the keys are a secret or in a file.
    provider: Option<KeyProvider>,
    schedule: RefreshSchedule,
    /// Closed when the fetch ends that is under way, or else the next one.
    fetch_end: (Sender<()>, Receiver<()>),
    /// The last good set of an earlier run. It serves if the first fetch fails.
    saved: Option<Keys>,
    /// Whether the file could not be written the last time.
    is_unsaved: bool,
}

impl Refresher {
    /// Fetches at once if these keys are of a provider.
    pub(super) fn new(keys: &Keys, clock: Clock) -> Self {
        let schedule = RefreshSchedule::due(clock.now());
        let (provider, fetch_end) = (keys.provider().cloned(), bounded(1));
        let state = State { provider, schedule, fetch_end, saved: None, is_unsaved: false };
        Self { clock, file: None, state: Mutex::new(state), wake: bounded(1) }
    }

    /// Reads the keys of the last good set, if it was saved in this file, which the next good ones go to.
    ///
    /// They serve only if the first fetch fails: before it ends, nobody knows whether the provider has withdrawn one of them.
    pub(super) fn read_saved(&mut self, file: PathBuf, awaited: &Keys) {
        let file = self.file.insert(file);
        let Some(provider) = awaited.provider() else { return };
        let loaded = FetchedSet::load(provider, file).map_err(|error| error.to_string());
        let keys = loaded.and_then(|set| {
            set.map(|set| Keys::from_set(awaited.algorithms(), &set)).transpose().map_err(|error| error.to_string())
        });
        match keys {
            Ok(keys) => self.state.get_mut().unwrap_or_else(PoisonError::into_inner).saved = keys,
            Err(error) => log_event!(saved_keys_unusable { path: display(file.display()), error }),
        }
    }

    /// Other keys are in force: an operator has reloaded them.
    pub(super) fn reloaded(&self, keys: &Keys) {
        let (now, mut state) = (self.clock.now(), self.lock());
        if state.provider.as_ref() == keys.provider() {
            state.schedule.refresh(now);
        } else {
            state.provider = keys.provider().cloned();
            state.schedule = match keys.fetched() {
                Some(set) => RefreshSchedule::fetched(now, set.lifetime, fastrand::f64()),
                None => RefreshSchedule::due(now),
            };
        }
        drop(state);
        self.wake();
    }

    /// Waits for the fetch that may bring an unknown key. `None` if none begins before `until`. Ends at once if newer keys are there
    /// already: then the fetch has ended since the token was checked.
    pub(super) fn newer_keys(&self, are_there: impl FnOnce() -> bool, until: Timestamp) -> Option<NewerKeys> {
        let (now, mut state) = (self.clock.now(), self.lock());
        state.provider.as_ref()?;
        // Keys come into force before a fetch ends, and it ends under this lock. So either they are there, or it ends after this.
        if are_there() {
            return Some(Box::pin(ready(())));
        }
        let before = state.schedule.next();
        let begins = state.schedule.unknown_key(now);
        let (is_sooner, end) = (state.schedule.next() != before, state.fetch_end.1.clone());
        drop(state);
        if is_sooner {
            self.wake();
        }
        let wait = async move {
            let _closed = end.recv().await;
        };
        (begins < until).then(|| -> NewerKeys { Box::pin(wait) })
    }

    /// Fetches whenever it is time to. `in_force` are the present keys; `install` puts others in force, and says whether they
    /// are what is configured by now. Never ends by itself. After a panic it can run again.
    pub(super) async fn run(&self, in_force: impl Fn() -> Keys, install: impl Fn(Keys) -> bool) {
        self.end_lost_fetch();
        loop {
            let (begins, next) = self.begin();
            let woken = async {
                let _is_open = self.wake.1.recv().await;
            };
            match (begins, next) {
                (Some(provider), _) => self.fetch(provider, &in_force, &install).await,
                (None, Some(until)) => or(woken, self.clock.wait_until(until)).await,
                (None, None) => woken.await,
            }
        }
    }

    /// The provider to ask, if a fetch begins now, and otherwise when the next one is due.
    fn begin(&self) -> (Option<KeyProvider>, Option<Timestamp>) {
        let (now, mut state) = (self.clock.now(), self.lock());
        let begins = state.provider.clone().filter(|_| state.schedule.begin(now));
        let next = state.provider.as_ref().and_then(|_| state.schedule.next());
        (begins, next)
    }

    /// A fetch is lost if the task was started again meanwhile.
    fn end_lost_fetch(&self) {
        let (now, mut state) = (self.clock.now(), self.lock());
        if state.schedule.next().is_none() {
            let _reported = state.schedule.failed(now, fastrand::f64());
            state.wake_waiting();
        }
    }

    async fn fetch(&self, provider: KeyProvider, in_force: &impl Fn() -> Keys, install: &impl Fn(Keys) -> bool) {
        let (of, file, now) = (provider.clone(), self.file.clone(), self.clock.unix_seconds());
        let before = in_force();
        let old = before.clone();
        // It blocks, so it must not run on a thread that serves connections.
        let (fetched, saved) = smol::unblock(move || {
            let fetched = FetchedSet::fetch(&of, now).map_err(|why| Keys::cannot_get(&of, why));
            let keys = fetched.and_then(|set| old.renewed(set));
            let saved = keys.as_ref().ok().and_then(|keys| save(keys, file.as_deref()));
            (keys, saved)
        })
        .await;
        let lifetime = fetched.as_ref().ok().and_then(Keys::fetched).and_then(|set| set.lifetime);
        let earlier = self.lock().saved.take();
        let (is_installed, before) = match &fetched {
            Ok(keys) => (install(keys.clone()), before),
            Err(_) => {
                let earlier = earlier.filter(|earlier| in_force().are_awaited() && install(earlier.clone()));
                (true, earlier.unwrap_or(before))
            }
        };
        let (now, mut state) = (self.clock.now(), self.lock());
        if state.provider.as_ref() == Some(&provider) {
            match &fetched {
                Ok(keys) => {
                    let ended = state.schedule.succeeded(now, lifetime, fastrand::f64());
                    // The algorithms have changed meanwhile.
                    if !is_installed {
                        state.schedule.refresh(now);
                    }
                    let next = state.schedule.next().map(|next| next.since(now));
                    log_success(keys, &before, ended.map(|failing| (failing.fetches, now.since(failing.since))), next);
                }
                Err(error) => {
                    if let Some(failing) = state.schedule.failed(now, fastrand::f64()) {
                        log_failure(error, &before, failing.fetches, now.since(failing.since));
                    }
                }
            }
            if let Some(saved) = saved {
                state.log_save(saved, self.file.as_deref());
            }
        }
        state.wake_waiting();
    }

    fn wake(&self) {
        // If it is full, the task wakes anyway.
        let _full = self.wake.0.try_send(());
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing panics half-way through a change, so a poisoned state is still consistent.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn wake_waiting(&mut self) {
        drop(mem::replace(&mut self.fetch_end, bounded(1)));
    }

    /// Logs the first of several failures to write the file.
    fn log_save(&mut self, saved: Result<(), String>, file: Option<&Path>) {
        let path = file.map(|file| file.display().to_string());
        match saved {
            Ok(()) => self.is_unsaved = false,
            Err(error) if !mem::replace(&mut self.is_unsaved, true) => {
                log_event!(keys_not_saved { path, error });
            }
            Err(_) => {}
        }
    }
}

impl fmt::Debug for Refresher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Refresher").field("schedule", &self.lock().schedule).finish_non_exhaustive()
    }
}

fn save(keys: &Keys, file: Option<&Path>) -> Option<Result<(), String>> {
    let (set, file) = (keys.fetched()?, file?);
    Some(set.save(file).map_err(|error| error.to_string()))
}

fn log_success(keys: &Keys, before: &Keys, ended: Option<(u32, Duration)>, next: Option<Duration>) {
    let set = keys.fetched().expect("they were fetched");
    let (url, count) = (&set.url, keys.count());
    let next_in = next.map(|next| humantime::format_duration(Duration::from_secs(next.as_secs())).to_string());
    if let Some((failures, time)) = ended {
        let seconds = time.as_secs();
        log_event!(keys_fetched_again { url: display(url), failures, seconds });
    }
    if before.fetched().map(|before| &before.json) == Some(&set.json) {
        log_event!(keys_unchanged { url: display(url), keys: count, next_in });
    } else {
        log_event!(keys_fetched { url: display(url), keys: count, key_ids: keys.describe().join(", "), next_in });
    }
}

fn log_failure(error: &KeyError, before: &Keys, failures: u32, time: Duration) {
    let seconds = time.as_secs();
    match before.fetched() {
        Some(set) => {
            let since = rfc3339::format_rfc3339(set.at.unix_seconds().saturating_mul(1000));
            let keys = before.count();
            log_event!(keys_not_fetched { error: display(error), failures, seconds, keys, in_force_since: since });
        }
        None => log_event!(keys_missing { error: display(error), failures, seconds }),
    }
}
