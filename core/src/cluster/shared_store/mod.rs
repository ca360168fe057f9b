//! The shared store: what a node asks of it, what it answers, and its keys. Each request concerns one bucket, and is applied whole.

mod names;
mod request;
mod answer;
mod contents;
mod keys;

pub use answer::{Answer, AnswerBody, BeatAnswer, OverridesAnswer, PageAnswer, Published, RecordAnswer};
pub use contents::{BucketContents, Floor};
pub use keys::BucketKeys;
pub use names::{Generation, GenerationId, HistoryId, NodeEntry, OverridesVersion, ScanPosition, Stamp, StoredRecord};
pub use request::{OverridesRequest, OwnId, Request, WriteRequest};
