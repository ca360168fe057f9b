//! The scripts do what [`BucketKeys`] does: both get the same requests, at random, and give the same answers.

#![allow(clippy::print_stdout, reason = "it tells who runs the tests which seed failed")]

use std::collections::BTreeMap;
use std::time::Duration;

use redis::{Connection, ConnectionLike as _, Value};
use session_core::cluster::{
    AnswerBody, BucketKeys, GenerationId, HistoryId, OverridesRequest, OverridesVersion, OwnId, Published, Request,
    Stamp, WriteRequest,
};
use session_core::ledger::{
    Hint, SessionHint, SessionRecord, SessionStatus, SlotLimit, UserOverrides, UserRecord, WhenFull,
};
use session_core::{NodeId, Timestamp, UserId};

use super::command::{BucketNames, Packer, channel};
use super::decode::CommandReader;
use super::script::Script;
use super::testing::RedisServer;
use super::{reply, value};

const PREFIX: &str = "test";
const BUCKET: u16 = 7;
const NODES: [NodeId; 3] = [NodeId::new(1), NodeId::new(0xdead_beef_0000_0002), NodeId::new(u64::MAX)];

/// A real bucket and the reference, and what the requests so far have shown.
struct Pair {
    store: Connection,
    hashes: Vec<String>,
    reader: CommandReader,
    names: BucketNames,
    reference: BucketKeys,
    published: Vec<Published>,
    random: fastrand::Rng,
    generations: Vec<GenerationId>,
    stamps: Vec<Option<Stamp>>,
    versions: Vec<OverridesVersion>,
    beats: u64,
    seed: u64,
}

impl Pair {
    fn new(server: &RedisServer, seed: u64) -> Self {
        let mut store = server.client().get_connection().unwrap();
        redis::cmd("FLUSHALL").exec(&mut store).unwrap();
        let mut reader = CommandReader::new(PREFIX);
        let load = |script: Script, store: &mut Connection, reader: &mut CommandReader| {
            let hash: String = redis::cmd("SCRIPT").arg("LOAD").arg(script.source()).query(store).unwrap();
            assert!(reader.learn(script.source().as_bytes(), &hash));
            hash
        };
        Self {
            hashes: Script::ALL.into_iter().map(|script| load(script, &mut store, &mut reader)).collect(),
            reader,
            store,
            names: BucketNames::new(PREFIX, BUCKET),
            reference: BucketKeys::default(),
            published: Vec::new(),
            random: fastrand::Rng::with_seed(seed),
            generations: vec![GenerationId { node: NODES[0], beat: 1 }],
            stamps: vec![None],
            versions: vec![OverridesVersion::default()],
            beats: 0,
            seed,
        }
    }

    fn history(&mut self) -> HistoryId {
        let info = self.store.req_command(redis::cmd("INFO").arg("replication")).unwrap();
        reply::parse_history(&info).unwrap()
    }

    fn ask(&mut self, request: &Request) -> AnswerBody {
        let mut bytes = Vec::new();
        let expected = Packer::new(&self.hashes).pack(&self.names, request.clone(), &mut bytes);
        let words: Vec<Vec<u8>> = redis::from_redis_value(redis::parse_redis_value(&bytes).unwrap()).unwrap();
        let read = self.reader.read(&words).unwrap().unwrap();
        assert_eq!((read.bucket, &read.request), (BUCKET, request), "it is read as it was packed");
        let reply = self.store.req_packed_command(&bytes).unwrap();
        assert!(!matches!(reply, Value::ServerError(_)), "{request:?}: {reply:?}");
        let mut answer = reply::parse(expected, &reply, &mut Vec::new()).unwrap();
        let history = self.history();
        let mut should_be = self.reference.apply(request, history, &mut self.published);
        for answer in [&mut answer, &mut should_be] {
            if let AnswerBody::Beat(answer) = answer {
                answer.inbox.sort();
            }
        }
        if !matches!(request, Request::Scan { .. }) {
            assert_eq!(answer, should_be, "seed {}: {request:?}", self.seed);
        }
        self.note(&answer);
        answer
    }

    fn note(&mut self, answer: &AnswerBody) {
        match answer {
            AnswerBody::Beat(answer) => {
                self.generations.push(answer.generation.id);
                self.versions.push(answer.overrides);
            }
            AnswerBody::Record(answer) => self.stamps.push(answer.record.as_ref().map(|(stamp, _)| *stamp)),
            AnswerBody::Overrides(answer) => self.versions.push(answer.version),
            AnswerBody::Done(_) | AnswerBody::Page(_) | AnswerBody::Failed(_) => {}
        }
    }

    /// Mostly the newest, for otherwise nothing would be written.
    fn some<T: Copy>(random: &mut fastrand::Rng, all: &[T]) -> T {
        let newest = random.u8(..4) > 0;
        if newest { *all.last().unwrap() } else { all[random.usize(..all.len())] }
    }

    fn generation(&mut self) -> GenerationId {
        Self::some(&mut self.random, &self.generations)
    }

    fn node(&mut self) -> NodeId {
        NODES[self.random.usize(..NODES.len())]
    }

    fn user(&mut self) -> UserId {
        UserId::parse(["ada", "zoë", "a user with spaces"][self.random.usize(..3)]).unwrap()
    }

    fn overrides(&mut self) -> UserOverrides {
        let limit = self.random.bool().then(|| SlotLimit::new(self.random.u32(..5)).unwrap());
        UserOverrides { limit, when_full: self.random.bool().then_some(WhenFull::EvictOldest) }
    }

    fn version(&mut self) -> OverridesVersion {
        let OverridesVersion { generation, number, .. } = Self::some(&mut self.random, &self.versions);
        let stamp = Stamp(self.random.u64(..));
        OverridesVersion { generation: generation + self.random.u64(..2), number: number + self.random.u64(..2), stamp }
    }

    fn record(&mut self) -> UserRecord {
        let at = Timestamp::from_epoch(Duration::from_secs(self.random.u64(..1000)));
        let sessions = (0..self.random.u64(1..4)).map(|number| {
            let mut session = SessionRecord::new(self.node().session(number), at);
            if self.random.bool() {
                session.status = SessionStatus::Lingering { until: at };
            }
            session
        });
        UserRecord::from_sessions(sessions.collect()).unwrap()
    }

    fn write(&mut self) -> Request {
        let has_more = self.random.bool();
        let mut some = |most: u64| -> Vec<NodeId> {
            let count = if has_more { self.random.u64(..=most) } else { 0 };
            (0..count).map(|_| self.node()).collect()
        };
        let (ended, closed, tell, hints) = (some(3), some(3), some(2), some(2));
        let session = |(number, node): (usize, NodeId)| node.session(number as u64 % 2);
        let ended: Vec<_> = ended.into_iter().enumerate().map(session).collect();
        let closed = closed.into_iter().enumerate().map(session).collect();
        let hint = |(number, node): (usize, NodeId)| SessionHint {
            session: node.session(number as u64),
            hint: if number == 0 { Hint::Turn } else { Hint::Changed },
        };
        let version = self.random.bool().then(|| Self::some(&mut self.random, &self.versions));
        Request::Write(Box::new(WriteRequest {
            user: self.user(),
            generation: self.generation(),
            node: self.node(),
            epoch: self.random.u64(..4),
            expected: Self::some(&mut self.random, &self.stamps),
            overrides: version,
            record: (self.random.u8(..4) > 0).then(|| (Stamp(self.random.u64(..)), self.record())),
            ended,
            closed,
            tell,
            hints: hints.into_iter().enumerate().map(hint).collect(),
        }))
    }

    fn request(&mut self) -> Request {
        let (node, generation) = (self.node(), self.generation());
        match self.random.u8(..24) {
            0..6 => {
                self.beats += 1;
                let number = self.beats;
                let ids =
                    (0..self.random.u8(1..3)).map(|_| OwnId { node: self.node(), has_joined: self.random.bool() });
                let ids: BTreeMap<_, _> = ids.map(|own| (own.node, own)).collect();
                Request::Beat {
                    ids: ids.into_values().collect(),
                    number,
                    seen: self.random.bool().then_some(generation),
                    seen_number: self.random.u64(..3),
                    proposed: GenerationId { node, beat: number },
                }
            }
            6 => {
                let beat = self.random.bool().then(|| self.random.u64(..=self.beats));
                Request::Bury { node, beat, at: Timestamp::from_epoch(Duration::from_millis(self.random.u64(..9999))) }
            }
            7 => Request::Open(generation),
            8 if self.random.bool() => Request::Leave { node, generation },
            8 | 9 => Request::Forget { node, generation },
            10 => Request::RaiseFloor { nodes: vec![node, self.node()], generation, epoch: self.random.u64(..4) },
            11..14 => Request::Read(self.user()),
            14 => Request::ReadOverrides,
            15 => Request::WriteOverrides(Box::new(OverridesRequest {
                user: self.user(),
                overrides: self.overrides(),
                generation,
                node,
                epoch: self.random.u64(..4),
                expected: Self::some(&mut self.random, &self.versions),
                version: self.version(),
            })),
            16 => {
                let users: Vec<_> = (0..self.random.u8(..3)).map(|_| self.user()).collect();
                let overrides: BTreeMap<_, _> = users.into_iter().map(|user| (user, self.overrides())).collect();
                let overrides = overrides.into_iter().filter(|(_, overrides)| !overrides.is_empty()).collect();
                Request::RestoreOverrides { generation, version: self.version(), overrides }
            }
            _ => self.write(),
        }
    }

    fn scan_all(&mut self) {
        let except: Vec<_> = NODES.into_iter().filter(|_| self.random.bool()).collect();
        let lingering = self.random.bool();
        let scan = |from| Request::Scan { from, except: except.clone(), lingering };
        let mut found = BTreeMap::new();
        let mut from = None;
        loop {
            let AnswerBody::Page(page) = self.ask(&scan(from)) else { panic!("a page answers a scan") };
            found.extend(page.records.into_iter().map(|(user, stamp, record)| (user, (stamp, record))));
            from = page.next;
            if from.is_none() {
                break;
            }
        }
        let history = self.history();
        let AnswerBody::Page(page) = self.reference.apply(&scan(None), history, &mut Vec::new()) else { panic!() };
        let should_be: BTreeMap<_, _> =
            page.records.into_iter().map(|(user, stamp, record)| (user, (stamp, record))).collect();
        assert_eq!(found, should_be, "seed {}", self.seed);
    }

    /// Compares all keys, also what no answer shows.
    fn compare_keys(&mut self) {
        let names: Vec<String> = redis::cmd("KEYS").arg("*").query(&mut self.store).unwrap();
        let content = |name: String| {
            let command = if name.contains(":inbox:") { "SMEMBERS" } else { "HGETALL" };
            let content = redis::cmd(command).arg(&name).query(&mut self.store).unwrap();
            (name.into_bytes(), content)
        };
        let keys: Vec<(Vec<u8>, Value)> = names.into_iter().map(content).collect();
        let contents = self.reader.contents(&keys).unwrap().remove(&BUCKET).unwrap_or_default();
        assert_eq!(contents, self.reference.contents(), "seed {}", self.seed);
    }

    fn forget_something(&mut self) {
        let key = ["nodes", "meta"][self.random.usize(..2)];
        match self.random.u8(..3) {
            0 => redis::cmd("DEBUG").arg("CHANGE-REPL-ID").exec(&mut self.store).unwrap(),
            1 => {
                redis::cmd("FLUSHALL").exec(&mut self.store).unwrap();
                self.reference = BucketKeys::default();
            }
            _ => {
                redis::cmd("DEL").arg(format!("{{{PREFIX}:{BUCKET}}}:{key}")).exec(&mut self.store).unwrap();
                self.reference.lose(key == "nodes");
            }
        }
    }
}

#[test]
#[allow(clippy::print_stdout, reason = "it is shown if the test fails")]
fn scripts_do_what_the_reference_does() {
    let Some(server) = RedisServer::start() else { return };
    let cases = std::env::var("SCRIPT_CASES").map_or(150, |cases| cases.parse().unwrap());
    for seed in 0..cases {
        let mut pair = Pair::new(&server, seed);
        let mut messages = server.client().get_connection().unwrap();
        let mut messages = messages.as_pubsub();
        for node in NODES {
            messages.subscribe(channel(PREFIX, node)).unwrap();
        }
        for _ in 0..120 {
            match pair.random.u8(..40) {
                0 => pair.forget_something(),
                1..3 => pair.scan_all(),
                _ => drop({
                    let request = pair.request();
                    pair.ask(&request)
                }),
            }
        }
        pair.compare_keys();
        for should_be in std::mem::take(&mut pair.published) {
            let message = messages.get_message().unwrap();
            let node = value::parse_node(message.get_channel_name().rsplit(':').next().unwrap().as_bytes()).unwrap();
            assert_eq!(value::parse_message(node, message.get_payload_bytes()), Some(should_be));
        }
        messages.set_read_timeout(Some(Duration::from_millis(1))).unwrap();
        assert!(messages.get_message().is_err(), "nothing else is published");
    }
}
