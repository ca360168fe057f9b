//! The ledger without the session machine, for an application that has sessions and messages of its own. It keeps each user's
//! record in a database with compare-and-set. A user may hold three slots, and a lost session keeps its slot for 30 seconds.
//!
//! The page `ledger` of `cargo doc -p session-core --open` shows it.

use session_core::ledger::{
    self, Acquire, AcquireOptions, AdmissionPolicy, Denied, Grant, KnownToken, Liveness, Resumption, UserRecord,
};
use session_core::{NodeId, ResumeToken, SessionId, Timestamp, UserId};
use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::Duration;

/// A database. A row has a version, which grows with each write, and bytes.
#[derive(Default)]
struct Database(Mutex<BTreeMap<UserId, (u64, Vec<u8>)>>);

impl Database {
    fn read(&self, user: &UserId) -> (u64, Vec<u8>) {
        self.0.lock().expect("no thread panics").get(user).cloned().unwrap_or_default()
    }

    /// Writes a row, unless somebody else wrote it since this version was read.
    fn compare_and_set(&self, user: &UserId, version: u64, bytes: Vec<u8>) -> bool {
        let mut rows = self.0.lock().expect("no thread panics");
        let row = rows.entry(user.clone()).or_default();
        if row.0 != version {
            return false;
        }
        *row = (version + 1, bytes);
        true
    }

    /// Changes a user's record. `change` may run several times, and only the last one counts. So it changes the record and
    /// nothing else: who lost a slot is told afterwards.
    fn update<T>(&self, user: &UserId, change: impl Fn(&mut UserRecord) -> T) -> T {
        loop {
            let (version, bytes) = self.read(user);
            let mut record = match &*bytes {
                [] => UserRecord::default(),
                bytes => UserRecord::decode(bytes).expect("a row is what `encode` wrote"),
            };
            let result = change(&mut record);
            let mut bytes = Vec::new();
            if !record.is_empty() {
                record.encode(&mut bytes);
            }
            if self.compare_and_set(user, version, bytes) {
                return result;
            }
        }
    }

    fn acquire(
        &self,
        user: &UserId,
        session: SessionId,
        at: Timestamp,
        options: &AcquireOptions,
    ) -> Result<Grant, Denied> {
        let acquire = Acquire { session, token_limit: None, options: Some(options), at };
        self.update(user, |record| ledger::acquire(record, acquire, &POLICY(), liveness))
    }
}

const LINGER: Duration = Duration::from_secs(30);
const POLICY: fn() -> AdmissionPolicy = || AdmissionPolicy { linger: LINGER, ..AdmissionPolicy::default() };

/// Whether the process that serves a session still runs. The application has to know: from leases, or a health check.
fn liveness(_node: NodeId) -> Liveness {
    Liveness::Alive
}

fn main() {
    let (database, ada) = (Database::default(), UserId::parse("ada").expect("it is short"));
    let (node, now) = (NodeId::new(0x5eed), Timestamp::default());
    // An application draws a token at random, gives it to the client, and keeps only its key.
    let token = |number| ResumeToken::new([number; 32]).key();

    // Eight sessions at once, from eight threads. Three get in.
    let granted: Vec<SessionId> = std::thread::scope(|scope| {
        let threads: Vec<_> = (1..=8)
            .map(|number| {
                let (database, ada, session) = (&database, &ada, node.session(number.into()));
                let options = AcquireOptions { new_resume_key: Some(token(number)), ..AcquireOptions::default() };
                scope.spawn(move || database.acquire(ada, session, now, &options).ok().map(|_| session))
            })
            .collect();
        threads.into_iter().filter_map(|thread| thread.join().expect("it does not panic")).collect()
    });
    let [first, second, third] = granted[..] else { panic!("the limit is three") };

    // The first leaves. The second is lost, and keeps its slot for 30 seconds. Its client resumes it in time.
    assert!(database.update(&ada, |record| ledger::release(record, first)));
    database.update(&ada, |record| ledger::linger(record, second, now, &KnownToken::Granted));
    let key = token(u8::try_from(second.number()).expect("there are eight"));
    let options = AcquireOptions { resume: Some(key), ..AcquireOptions::default() };
    let grant = database.acquire(&ada, node.session(9), now + LINGER / 2, &options).expect("it has the slot's token");
    assert!(grant.resume == Resumption::Resumed && grant.ended.is_empty());

    // The third is lost too, and nobody comes. Its slot lapses. Acquire notices by itself; for the rest, call `remove_lapsed`.
    database.update(&ada, |record| ledger::linger(record, third, now, &KnownToken::Granted));
    let lapsed = database.update(&ada, |record| ledger::remove_lapsed(record, now + LINGER, liveness));
    assert_eq!(lapsed, [third]);
    assert_eq!(database.update(&ada, |record| ledger::count(record, &POLICY())), 1);

    assert!(database.update(&ada, |record| ledger::release(record, node.session(9))));
    assert!(database.read(&ada).1.is_empty());
}
