//! Answers an operator's questions about all users, on a connection of its own: no sign-in waits for them.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use redis::{Cmd, Connection, FromRedisValue};
use session_core::ledger::{StoreError, UserOverrides, UserRecord, remove_lapsed};
use session_core::{SessionId, UserId};

use super::cell::Cell;
use super::link::LinkError;
use super::locator::ServerName;
use super::node::Node;
use super::value;
use crate::store::failure::StoreFailure;
use crate::store::pages::{Cursor, Page, PageRequest, StoredSession, StoredUser, UserFilter};
use crate::store::user_state::{SeenState, SessionCounts, UserState};

/// A user's name and record, as bytes.
type NameAndValue = (Vec<u8>, Vec<u8>);

/// How many records are read at a time.
const CHUNK: usize = 1000;

/// How many records a page looks at before it ends, unless that is in the middle of a bucket.
const PAGE_RECORDS: usize = 50_000;

/// A user of a bucket, as far as anything is kept.
#[derive(Default)]
struct Found {
    record: Option<UserRecord>,
    overrides: UserOverrides,
}

/// Where a page begins: in a bucket, behind a user, behind a session of that user.
struct Place {
    bucket: usize,
    after: Option<(UserId, Option<SessionId>)>,
}

impl Place {
    fn of(page: &PageRequest) -> Option<Self> {
        let Some(cursor) = &page.after else { return Some(Self { bucket: 0, after: None }) };
        let (bucket, rest) = cursor.as_bytes().split_first_chunk()?;
        let bucket = usize::from(u16::from_be_bytes(*bucket));
        let (&[has_user], rest) = rest.split_first_chunk()?;
        if has_user == 0 {
            return Some(Self { bucket, after: None });
        }
        let (session, user) = rest.split_first_chunk()?;
        let session = Some(SessionId::from_bytes(*session)).filter(|_| has_user == 2);
        Some(Self { bucket, after: Some((value::parse_user(user)?, session)) })
    }

    fn cursor(&self) -> Cursor {
        let mut bytes = u16::try_from(self.bucket).unwrap_or(u16::MAX).to_be_bytes().to_vec();
        match &self.after {
            None => bytes.push(0),
            Some((user, session)) => {
                bytes.push(if session.is_some() { 2 } else { 1 });
                bytes.extend_from_slice(&session.unwrap_or(SessionId::from_bytes([0; 16])).to_bytes());
                bytes.extend_from_slice(user.as_str().as_bytes());
            }
        }
        Cursor::from_bytes(&bytes)
    }
}

fn failed(_: LinkError) -> StoreFailure {
    FAILED
}

/// Connections to the servers that an answer needs.
struct Connections<'a> {
    node: &'a Node,
    open: BTreeMap<ServerName, Connection>,
}

impl<'a> Connections<'a> {
    const fn new(node: &'a Node) -> Self {
        Self { node, open: BTreeMap::new() }
    }

    /// Asks the server of a bucket.
    fn ask<T: FromRedisValue>(&mut self, cell: &Cell, command: &Cmd) -> Result<T, StoreFailure> {
        if self.node.is_over() {
            return Err(FAILED);
        }
        let server = self.node.locator.home(cell.number());
        let connection = match self.open.entry(server) {
            Entry::Occupied(open) => open.into_mut(),
            Entry::Vacant(vacant) => {
                let connection = self.node.locator.connect(vacant.key()).map_err(failed)?;
                vacant.insert(connection)
            }
        };
        command.query(connection).map_err(|error| failed(error.into()))
    }
}

impl Node {
    /// The record of a user, without what has lapsed. `None` if there is none.
    fn read(&self, connections: &mut Connections<'_>, user: &UserId) -> Result<Option<UserRecord>, StoreFailure> {
        let cell = self.cell_of(user);
        let records = cell.names.records();
        let bytes: Option<Vec<u8>> = connections.ask(cell, redis::cmd("HGET").arg(records).arg(user.as_str()))?;
        Ok(bytes.and_then(|bytes| self.in_force(cell, &bytes)))
    }

    /// The record of these bytes as it counts now. `None` if it is empty, or cannot be read.
    fn in_force(&self, cell: &Cell, bytes: &[u8]) -> Option<UserRecord> {
        let (_, mut record) = value::parse_record(bytes).ok()?;
        let now = self.context.clock().now();
        cell.look(|bucket| {
            let membership = bucket.membership();
            remove_lapsed(&mut record, now, |node| membership.liveness(node, membership.looked(), now));
        });
        (!record.sessions().is_empty()).then_some(record)
    }

    /// What is kept of a user.
    pub(super) fn find_user(&self, user: &UserId) -> Result<UserState, StoreFailure> {
        let record = self.read(&mut Connections::new(self), user)?;
        let overrides = self.cell_of(user).look(|bucket| bucket.overrides().and_then(|all| all.get(user)).copied());
        Ok(UserState { overrides: overrides.unwrap_or_default(), seen: seen(record.as_ref()) })
    }

    /// When the user was seen, as far as the slots say.
    pub(super) fn seen(&self, user: &UserId) -> SeenState {
        self.read(&mut Connections::new(self), user).map_or(SeenState::Unreadable, |record| seen(record.as_ref()))
    }

    /// All users of a bucket of whom anything is kept, in the order of their ids, and how many records were looked at.
    fn users_of(
        &self,
        cell: &Cell,
        connections: &mut Connections<'_>,
        is_wanted: impl Fn(&UserId) -> bool,
    ) -> Result<(BTreeMap<UserId, Found>, usize), StoreFailure> {
        let mut looked_at = 0;
        let records = cell.names.records();
        let mut all = BTreeMap::<UserId, Found>::new();
        let overrides = cell.look(|bucket| bucket.overrides().cloned()).unwrap_or_default();
        for (user, overrides) in overrides.into_iter().filter(|(user, _)| is_wanted(user)) {
            all.entry(user).or_default().overrides = overrides;
        }
        let mut cursor = b"0".to_vec();
        loop {
            let mut command = redis::cmd("HSCAN");
            command.arg(records).arg(&cursor).arg("COUNT").arg(CHUNK);
            let (next, found): (Vec<u8>, Vec<NameAndValue>) = connections.ask(cell, &command)?;
            looked_at += found.len();
            for (name, bytes) in found {
                let Some(user) = value::parse_user(&name).filter(|user| is_wanted(user)) else { continue };
                if let Some(record) = self.in_force(cell, &bytes) {
                    all.entry(user).or_default().record = Some(record);
                }
            }
            if next == b"0" {
                return Ok((all, looked_at));
            }
            cursor = next;
        }
    }

    /// One page of the users.
    pub(super) fn list_users(&self, filter: &UserFilter, page: &PageRequest) -> Result<Page<StoredUser>, StoreFailure> {
        let mut place = Place::of(page).ok_or(FAILED)?;
        let (mut items, mut looked_at, mut connections) = (Vec::new(), 0, Connections::new(self));
        while let Some(cell) = self.cells().get(place.bucket) {
            let after = place.after.take().map(|(user, _)| user);
            let is_wanted = |user: &UserId| {
                user.as_str().starts_with(&filter.prefix) && after.as_ref().is_none_or(|after| user > after)
            };
            let (users, records) = self.users_of(cell, &mut connections, is_wanted)?;
            looked_at += records;
            for (user, Found { record, overrides }) in users {
                if filter.with_sessions && record.is_none() {
                    continue;
                }
                let sessions = record.as_ref().map(SessionCounts::of_record).unwrap_or_default();
                let state = UserState { overrides, seen: seen(record.as_ref()) };
                items.push(StoredUser { user, state, sessions });
                if items.len() == page.limit() {
                    place.after = items.last().map(|last| (last.user.clone(), None));
                    return Ok(Page { items, next: Some(place.cursor()) });
                }
            }
            place.bucket += 1;
            if looked_at >= PAGE_RECORDS {
                return Ok(Page { items, next: Some(place.cursor()) });
            }
        }
        Ok(Page { items, next: None })
    }

    /// One page of the sessions of one user, or of all.
    pub(super) fn list_sessions(
        &self,
        user: Option<&UserId>,
        page: &PageRequest,
    ) -> Result<Page<StoredSession>, StoreFailure> {
        let mut place = Place::of(page).ok_or(FAILED)?;
        let (mut items, mut looked_at, mut connections) = (Vec::new(), 0, Connections::new(self));
        loop {
            let after = place.after.take();
            let (users, records) = match user {
                Some(user) => {
                    let record = self.read(&mut connections, user)?;
                    ([(user.clone(), Found { record, ..Found::default() })].into(), 1)
                }
                None => {
                    let Some(cell) = self.cells().get(place.bucket) else { break };
                    let first = after.as_ref().map(|(user, _)| user);
                    self.users_of(cell, &mut connections, |user| first.is_none_or(|first| user >= first))?
                }
            };
            looked_at += records;
            for (user, Found { record, .. }) in users {
                let mut sessions = record.map(|record| record.sessions().to_vec()).unwrap_or_default();
                sessions.sort_unstable_by_key(|session| session.session);
                let behind = after.as_ref().filter(|(last, _)| *last == user).and_then(|(_, session)| *session);
                for record in sessions.into_iter().filter(|record| behind.is_none_or(|behind| record.session > behind))
                {
                    items.push(StoredSession { user: user.clone(), record });
                    if items.len() == page.limit() {
                        place.after = items.last().map(|last| (last.user.clone(), Some(last.record.session)));
                        return Ok(Page { items, next: Some(place.cursor()) });
                    }
                }
            }
            if user.is_some() {
                break;
            }
            place.bucket += 1;
            if looked_at >= PAGE_RECORDS {
                return Ok(Page { items, next: Some(place.cursor()) });
            }
        }
        Ok(Page { items, next: None })
    }

    /// How many users hold slots, and how many have overrides.
    pub(super) fn count_users(&self) -> Option<(usize, usize)> {
        let mut connections = Connections::new(self);
        let (mut users, mut with_overrides) = (0, 0);
        for cell in self.cells() {
            let records = cell.names.records();
            users += connections.ask::<usize>(cell, redis::cmd("HLEN").arg(records)).ok()?;
            with_overrides += cell.look(|bucket| bucket.overrides().map_or(0, BTreeMap::len));
        }
        Some((users, with_overrides))
    }
}

/// The failure of a store that is closed or does not answer, and of a cursor that another list, or another store, has made.
const FAILED: StoreFailure = StoreFailure::Rejected(StoreError::Failed);

/// When the user was granted the slots that are held. This store keeps no more.
fn seen(record: Option<&UserRecord>) -> SeenState {
    SeenState::Never.with_grants(record.iter().flat_map(|record| record.sessions()).map(|session| session.since))
}
