#![doc = include_str!("../../docs/cluster.md")]

mod timing;
mod shared_store;
mod membership;
mod own_session;
mod user_state;
mod walk;
mod write;
mod io;
mod bucket;

pub use bucket::Bucket;
pub use io::{BucketActions, BucketEvent, RequestId};
pub use membership::{FenceReason, Membership, MembershipActions, MembershipEvent};
pub use own_session::CallId;
pub use shared_store::{
    Answer, AnswerBody, BeatAnswer, Generation, GenerationId, HistoryId, NodeEntry, OwnId, PageAnswer, RecordAnswer,
    Request, Stamp, StoredRecord, WriteRequest,
};
pub use timing::{ClusterTiming, ClusterTimingError};
