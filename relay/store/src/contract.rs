//! What every store promises, and the records that it keeps.

use bytes::Bytes;
use millstream_proto::v1;

/// Everything that a store keeps of one stream except its lines.
#[derive(Clone, Debug, PartialEq)]
pub struct StreamRecord {
    /// From 1, given by the relay in order of appearance, never used again.
    pub stream_id: u64,
    pub agent_id: String,
    /// Name of the source in the agent's configuration.
    pub source: String,
    /// Path or run id.
    pub instance: String,
    /// All labels, built-in ones included.
    pub labels: std::collections::BTreeMap<String, String>,
    pub created_unix_us: i64,
    /// Oldest stored line.
    pub first_sequence: u64,
    /// Sequence that the next line gets.
    pub next_sequence: u64,
    /// Uncompressed text of all lines ever appended, in bytes, terminators included.
    pub text_bytes: u64,
    /// Capture time of the newest line, 0 without one.
    pub last_line_unix_us: i64,
    /// The source's checkpoint that was stored with the last block that had one.
    pub checkpoint: Bytes,
    pub run: Option<v1::Run>,
    pub end: Option<v1::StreamEnd>,
}

/// Lines for one stream, with what changes in its record.
#[derive(Clone, Debug)]
pub struct AppendOp {
    pub stream_id: u64,
    /// Begins exactly at the stream's `next_sequence`; validated by the caller.
    pub block: v1::Block,
    /// Empty: keep the stored one.
    pub checkpoint: Bytes,
    /// Capture time of the block's last line.
    pub last_line_unix_us: i64,
}

/// One change of a commit.
#[derive(Clone, Debug)]
pub enum WriteOp {
    /// Creates the stream, or replaces its labels, run and end. What follows from its lines (sequences,
    /// text_bytes, last_line_unix_us, checkpoint) is taken from the record only at creation; afterwards
    /// appends alone change it, and the values here are ignored (they may be older than what is stored).
    PutStream(StreamRecord),
    Append(AppendOp),
    PutAgent(v1::Agent),
}

/// The home of all lines. Implementations are safe to share between threads; one thread writes at a
/// time, any number read.
pub trait LogStore: Send + Sync + std::fmt::Debug + 'static {
    /// Identity of this store, made when it was created; part of every cursor.
    fn store_id(&self) -> &str;

    /// Every stream, by id. Called once, at start.
    fn load_streams(&self) -> Result<Vec<StreamRecord>, StoreError>;

    /// Every agent that was ever put.
    fn load_agents(&self) -> Result<Vec<v1::Agent>, StoreError>;

    /// Applies all operations, in order, or none. On return readers see them and they survive a crash of
    /// this process; they survive a crash of the machine only after [`LogStore::sync`].
    ///
    /// A commit that failed may have been applied all the same. The caller repeats it, with the same
    /// operations, until it succeeds, and commits nothing else before; what was applied is not applied again.
    fn commit(&self, ops: Vec<WriteOp>) -> Result<(), StoreError>;

    /// Makes every commit that returned before durable (fsync).
    fn sync(&self) -> Result<(), StoreError>;

    /// Blocks in order, beginning with the one that holds line `from` (which may start earlier) or, when
    /// that line is not stored any more, with the oldest after it. Stops before `max_bytes` of encoded
    /// blocks are exceeded, but returns at least one block when there is one. Empty at the head.
    ///
    /// Damage ends the page before it; when line `from` itself is damaged, the answer is
    /// [`StoreError::DamagedLines`] with the place behind the damage, to go on from.
    fn read_blocks(&self, stream_id: u64, from: u64, max_bytes: usize) -> Result<Vec<v1::Block>, StoreError>;

    /// Sequence of the first line that was captured at or after the time (capture times of a stream are
    /// taken as ascending), or the stream's next sequence when there is none.
    fn seek_time(&self, stream_id: u64, unix_us: i64) -> Result<u64, StoreError>;

    /// Background work, a bounded piece at a time (some tens of milliseconds): settles small blocks into
    /// large compressed ones. True: there is more to do now. Called from a thread of its own, beside
    /// commits and reads, which it must not disturb.
    fn maintain(&self) -> Result<bool, StoreError>;

    /// Damage that was met since the store was opened, in words, place by place; the first ones when there is
    /// very much.
    fn damage(&self) -> Vec<String> {
        Vec::new()
    }

    /// Nothing will be written any more: notes what lets the next start know exactly what should be there. It may
    /// fail or be left out, as in a crash; nothing is lost by that.
    fn close(&self) {}

    /// Bytes on disk, for metrics.
    fn disk_bytes(&self) -> u64;
}

/// Why the store could not do it.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error("data directory {path}: {cause}; {cure}")]
    Directory {
        path: String,
        cause: String,
        cure: String,
    },
    /// No room on the disk. It works again as soon as there is.
    #[error("disk full: {place}: {cause}; free some space, it goes on by itself")]
    Full { place: String, cause: String },
    /// The caller's mistake; the store is as it was.
    #[error("store: {what} is refused: {cause}")]
    Refused { what: String, cause: String },
    #[error("store: {what}: {cause}")]
    Engine { what: String, cause: String },
    #[error("store: {place} is damaged: {cause}")]
    Damaged { place: String, cause: String },
    /// These lines cannot be read; what is before and after them can be asked for.
    #[error(
        "store: stream {stream_id}, lines {first_sequence} to {} are damaged: {cause}; lines from \
         {next_sequence} on can be read",
        next_sequence.saturating_sub(1)
    )]
    DamagedLines {
        stream_id: u64,
        first_sequence: u64,
        next_sequence: u64,
        cause: String,
    },
}
