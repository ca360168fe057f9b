//! The store as the rest of the process knows it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fs;
use std::future::ready;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use session_core::cluster::NodeEntry;
use session_core::ledger::{AdmissionPolicy, Liveness, Outcome, StoreCommand, StoreError};
use session_core::{NodeId, SessionId, UserId};
use smol::channel::Receiver;
use thiserror::Error;

use super::announce;
use super::config::RedisConfig;
use super::fence;
use super::hints;
use super::identity::IdFile;
use super::lane;
use super::link::LinkError;
use super::locator::Locator;
use super::node::{BUCKETS, Node};
use super::script::Script;
use crate::runtime::process::Process;
use crate::runtime::supervisor::Part;
use crate::store::api::{HealthFuture, NodeStatus, Store, StoreFuture, UsageFuture, UserUpdate};
use crate::store::completion::Completion;
use crate::store::directory_lock::{DirectoryLock, LockError};
use crate::store::failure::StoreFailure;
use crate::store::nodes::{Burial, NodeList, SharedSettings};
use crate::store::pages::{Page, PageRequest, StoredSession, StoredUser, UserFilter};
use crate::store::shared::{NodeContext, SharedPolicy};
use crate::store::usage::StoreUsage;
use crate::store::user_state::UserState;

/// A store in Redis or Valkey, which several servers share.
pub struct RedisStore {
    node: Arc<Node>,
    /// Ends once no thread runs any more.
    running: Receiver<()>,
    /// Until the store is closed.
    lock: Mutex<Option<DirectoryLock>>,
}

/// Why the store cannot be opened.
#[derive(Debug, Error)]
pub enum RedisOpenError {
    /// The data directory cannot be used.
    #[error("cannot use the data directory {}: {why}", directory.display())]
    Directory {
        /// The directory.
        directory: PathBuf,
        /// The error.
        why: io::Error,
    },
    /// Another server uses the data directory.
    #[error("the data directory {} cannot be used: {reason}; stop that server or use another directory", directory.display())]
    InUse {
        /// The directory.
        directory: PathBuf,
        /// Who uses it.
        reason: String,
    },
    /// The shared store cannot be used.
    #[error("cannot use the store at {place}: {why}{hint}", hint = tls_hint(place, why))]
    Store {
        /// Where it is, without a password.
        place: String,
        /// The error.
        why: LinkError,
    },
    /// A thread does not start.
    #[error("cannot start a thread: {0}")]
    Thread(io::Error),
}

/// What may be wrong with the URL, if the two ends seem to wait for each other, or one has hung up on the other.
fn tls_hint(place: &str, why: &LinkError) -> &'static str {
    let is_tls = place.contains("rediss://");
    if is_tls && matches!(why, LinkError::Late) {
        ". Perhaps it speaks no TLS: then the URL begins with redis://"
    } else if !is_tls
        && matches!(why, LinkError::Redis(error) if error.is_connection_dropped() && !error.is_connection_refusal())
    {
        ". Perhaps it speaks only TLS: then the URL begins with rediss://"
    } else {
        ""
    }
}

impl RedisStore {
    /// The script that each sign-in runs in the store, for benchmarks.
    #[must_use]
    pub fn write_script() -> String {
        Script::Admit.source()
    }

    /// Opens the store, as the node with this id, which no process has had. The data directory has the id, so that a restart can
    /// say which node is gone.
    ///
    /// # Errors
    /// [`RedisOpenError`]: the directory is in use, or the store cannot be reached, or cannot be used.
    pub fn open(
        config: &RedisConfig,
        directory: &Path,
        node: NodeId,
        process: Process,
    ) -> Result<Self, RedisOpenError> {
        let in_directory = |why| RedisOpenError::Directory { directory: directory.into(), why };
        fs::create_dir_all(directory).map_err(in_directory)?;
        let lock = DirectoryLock::acquire(directory).map_err(|error| match error {
            LockError::InUse(_) => RedisOpenError::InUse { directory: directory.into(), reason: error.to_string() },
            LockError::Io(why) => in_directory(why),
        })?;
        let in_store = |why| RedisOpenError::Store { place: config.place.to_string(), why };
        let locator = Locator::new(config.clone(), BUCKETS).map_err(in_store)?;
        let id_file = IdFile::new(directory).map_err(in_directory)?;
        let former = id_file.read();
        let context = NodeContext::with_policy(node, SharedPolicy::new(config.policy, Default::default()), process);
        // If the process is killed in the next moment, the node it was before is buried a lease later.
        id_file.write(node).map_err(in_directory)?;
        let (running, ended) = smol::channel::bounded(1);
        let node = Arc::new(Node::new(locator, context, id_file, former, running));
        let (mut links, mut checked) = (Vec::new(), BTreeSet::new());
        for number in node.place() {
            let server = node.server_of(number);
            let mut link = lane::open(&node, &server).map_err(in_store)?;
            // Several threads may have connections to a server, and it is to be warned of once.
            if checked.insert(server.clone()) {
                link.check_settings(config, &node.locator.name(&server)).map_err(in_store)?;
            }
            links.push((number, link));
        }
        // From here on threads may run, which end when this is dropped.
        let store = Self { node, running: ended, lock: Mutex::new(Some(lock)) };
        let node = &store.node;
        for (number, link) in links {
            lane::start(node, number, Some(link)).map_err(RedisOpenError::Thread)?;
        }
        let (fenced, listening) = (Arc::clone(node), Arc::clone(node));
        node.spawn(Part::StoreFence, move |guard| fence::run(&fenced, guard)).map_err(RedisOpenError::Thread)?;
        node.spawn(Part::StoreHints, move |guard| hints::run(&listening, guard)).map_err(RedisOpenError::Thread)?;
        let announcing = Arc::clone(node);
        node.spawn(Part::StoreAbout, move |guard| announce::run(&announcing, guard)).map_err(RedisOpenError::Thread)?;
        if node.locator.has_to_ask() {
            let asking = Arc::clone(node);
            node.spawn(Part::StoreLane, move |_| lane::watch(&asking)).map_err(RedisOpenError::Thread)?;
        }
        Ok(store)
    }
}

impl Store for RedisStore {
    fn context(&self) -> &NodeContext {
        &self.node.context
    }

    fn is_shared(&self) -> bool {
        true
    }

    fn submit(&self, command: StoreCommand, mut completion: Completion<Outcome>) {
        if !completion.claim() {
            return;
        }
        let cell = self.node.cell_of(command.user());
        let is_acquire = matches!(command, StoreCommand::Acquire { .. });
        if (self.node.is_closing() && !command.is_release()) || (is_acquire && !self.node.is_up(cell)) {
            return completion.answer(Outcome::Rejected(StoreError::Failed));
        }
        self.node.handled(cell, cell.submit(command, completion));
    }

    fn tell(&self, user: &UserId, session: SessionId) -> bool {
        self.node.cell_of(user).tell(user, session)
    }

    fn may_serve(&self, user: &UserId) -> bool {
        self.node.cell_of(user).may_serve()
    }

    fn closed(&self, user: &UserId, session: SessionId) {
        let cell = self.node.cell_of(user);
        self.node.handle(cell, session_core::cluster::BucketEvent::Closed(user.clone(), session));
    }

    fn update_user(&self, user: UserId, update: UserUpdate, completion: Completion<Result<UserState, StoreFailure>>) {
        let cell = self.node.cell_of(&user);
        if self.node.is_closing() || !self.node.is_up(cell) {
            return completion.answer(Err(StoreFailure::Rejected(StoreError::Failed)));
        }
        let (node, of) = (Arc::clone(&self.node), user.clone());
        let answered = Completion::new(move |answer: Result<UserState, StoreFailure>| {
            // This store keeps no more of when a user was seen than the slots say, and a change leaves those.
            let seen = move || {
                completion.answer(answer.map(|before| UserState { seen: node.seen(&of), ..before }));
            };
            smol::unblock(seen).detach();
        });
        self.node.handled(cell, cell.set_overrides(user, update.overrides(), answered));
    }

    fn find_user(&self, user: UserId) -> StoreFuture<'_, UserState> {
        let node = Arc::clone(&self.node);
        Box::pin(smol::unblock(move || node.find_user(&user)))
    }

    fn list_users(&self, filter: UserFilter, page: PageRequest) -> StoreFuture<'_, Page<StoredUser>> {
        let node = Arc::clone(&self.node);
        Box::pin(smol::unblock(move || node.list_users(&filter, &page)))
    }

    fn list_sessions(&self, user: Option<UserId>, page: PageRequest) -> StoreFuture<'_, Page<StoredSession>> {
        let node = Arc::clone(&self.node);
        Box::pin(smol::unblock(move || node.list_sessions(user.as_ref(), &page)))
    }

    fn usage(&self) -> UsageFuture<'_> {
        let node = Arc::clone(&self.node);
        Box::pin(smol::unblock(move || {
            let (known_users, users_with_overrides) = node.count_users().unzip();
            StoreUsage { known_users, users_with_overrides, ..StoreUsage::default() }
        }))
    }

    fn health(&self) -> HealthFuture<'_> {
        Box::pin(ready(self.node.health()))
    }

    fn set_policy(&self, policy: AdmissionPolicy) {
        self.context().set_policy(policy);
        let policy = self.context().policy().for_all();
        self.node.cells().iter().for_each(|cell| cell.set_policy(policy));
    }

    fn policy_for<'a>(&'a self, user: &'a UserId) -> StoreFuture<'a, AdmissionPolicy> {
        let overrides = self.node.cell_of(user).look(|bucket| bucket.overrides().map(|all| all.get(user).copied()));
        let policy = self.context().policy().for_all();
        let known = overrides.map(|overrides| policy.with_overrides(overrides.unwrap_or_default()));
        Box::pin(ready(known.ok_or(StoreFailure::Rejected(StoreError::Failed))))
    }

    fn nodes(&self) -> StoreFuture<'_, Vec<NodeStatus>> {
        let mut nodes = BTreeMap::new();
        for cell in self.node.cells() {
            for (node, entry) in cell.look(|bucket| bucket.membership().nodes().collect::<Vec<_>>()) {
                let liveness = match entry {
                    NodeEntry::Beats(_) => Liveness::Alive,
                    NodeEntry::Dead(at) => Liveness::DeadSince(at),
                    NodeEntry::Left => continue,
                };
                // It is alive if it is in any part.
                if liveness == Liveness::Alive || !nodes.contains_key(&node) {
                    nodes.insert(node, liveness);
                }
            }
        }
        Box::pin(ready(Ok(nodes.into_iter().map(|(node, liveness)| NodeStatus { node, liveness }).collect())))
    }

    fn share_settings(&self, settings: SharedSettings) {
        self.node.about.set_settings(settings);
    }

    fn list_nodes(&self) -> StoreFuture<'_, Option<NodeList>> {
        let node = Arc::clone(&self.node);
        Box::pin(smol::unblock(move || Ok(Some(node.list_nodes()))))
    }

    fn bury(&self, buried: NodeId) -> StoreFuture<'_, Burial> {
        let node = Arc::clone(&self.node);
        Box::pin(smol::unblock(move || Ok(node.bury(buried))))
    }

    fn close(&self, timeout: Duration) -> StoreFuture<'_, ()> {
        self.node.close();
        let running = self.running.clone();
        Box::pin(async move {
            let ended = async {
                // Nothing is ever sent.
                let _closed = running.recv().await;
                true
            };
            let late = async {
                smol::Timer::after(timeout).await;
                false
            };
            let has_ended = smol::future::or(ended, late).await;
            // Whoever locks the directory next has an id of its own there.
            self.node.abandon();
            self.lock.lock().unwrap_or_else(PoisonError::into_inner).take();
            if has_ended { Ok(()) } else { Err(StoreFailure::TimedOut) }
        })
    }
}

impl Drop for RedisStore {
    fn drop(&mut self) {
        self.node.abandon();
    }
}

impl fmt::Debug for RedisStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisStore").field("place", &self.node.locator.config().place).finish_non_exhaustive()
    }
}
