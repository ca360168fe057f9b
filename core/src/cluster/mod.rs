#![doc = include_str!("../../docs/cluster.md")]

mod timing;
mod shared_store;
mod membership;
mod bucket;
mod spread;

pub use bucket::{Bucket, BucketActions, BucketEvent, CallId, OverridesOutcome, RequestId};
pub use membership::{FenceReason, Membership, MembershipActions, MembershipEvent};
pub use shared_store::{
    Answer, AnswerBody, BeatAnswer, BucketContents, BucketKeys, Floor, Generation, GenerationId, HistoryId, NodeEntry,
    OverridesAnswer, OverridesRequest, OverridesVersion, OwnId, PageAnswer, Published, RecordAnswer, Request,
    ScanPosition, Stamp, StoredRecord, WriteRequest,
};
pub use spread::bucket_of;
pub use timing::{ClusterTiming, ClusterTimingError};
