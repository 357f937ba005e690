//! One record of a spool: a chunk as it was read, with its channel, its time and a checksum.

use millstream_proto::v1::Channel;
use xxhash_rust::xxh3::xxh3_64_with_seed;

/// Length (4), channel (1), zero (3), capture time (8), checksum (8); little-endian.
pub const HEADER_BYTES: usize = 24;

/// Largest chunk of a record: what one read of a pipe gives.
pub const MAX_CHUNK_BYTES: usize = 64 << 10;

const SUMMED_HEADER_BYTES: usize = 16;

/// A chunk as it was read from the pipe.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Record<'a> {
    pub channel: Channel,
    pub time_unix_us: i64,
    pub bytes: &'a [u8],
}

/// What stands at a place of a segment.
#[derive(Debug, PartialEq, Eq)]
pub enum Decoded<'a> {
    Record(Record<'a>),
    /// The bytes end before the record does.
    Incomplete,
    /// No record begins here, or not the one that was written.
    Damaged,
}

/// Appends a record to `out`. The segment's number is part of the checksum, so that a record in the wrong
/// file is found.
///
/// # Panics
/// When the chunk is longer than [`MAX_CHUNK_BYTES`].
pub fn encode(record: &Record<'_>, segment: u64, out: &mut Vec<u8>) {
    assert!(
        record.bytes.len() <= MAX_CHUNK_BYTES,
        "callers split longer chunks"
    );
    let start = out.len();
    let length = u32::try_from(record.bytes.len()).expect("it is below MAX_CHUNK_BYTES");
    let channel = u8::try_from(i32::from(record.channel)).expect("channels are small numbers");
    out.extend(length.to_le_bytes());
    out.extend([channel, 0, 0, 0]);
    out.extend(record.time_unix_us.to_le_bytes());
    out.extend([0; HEADER_BYTES - SUMMED_HEADER_BYTES]);
    out.extend_from_slice(record.bytes);
    let sum = checksum(&out[start..], segment);
    out[start + SUMMED_HEADER_BYTES..start + HEADER_BYTES].copy_from_slice(&sum.to_le_bytes());
}

/// Reads the record at the front of `bytes`.
#[must_use]
pub fn decode(bytes: &[u8], segment: u64) -> Decoded<'_> {
    let Some(header) = bytes.get(..HEADER_BYTES) else {
        return Decoded::Incomplete;
    };
    let field = |at: usize| {
        let mut field = [0; 8];
        field.copy_from_slice(&header[at..at + 8]);
        u64::from_le_bytes(field)
    };
    let length = u32::from_le_bytes([header[0], header[1], header[2], header[3]]) as usize;
    let Ok(channel) = Channel::try_from(i32::from(header[4])) else {
        return Decoded::Damaged;
    };
    if length > MAX_CHUNK_BYTES || header[5..8] != [0; 3] {
        return Decoded::Damaged;
    }
    let Some(record) = bytes.get(..HEADER_BYTES + length) else {
        return Decoded::Incomplete;
    };
    if checksum(record, segment) != field(SUMMED_HEADER_BYTES) {
        return Decoded::Damaged;
    }
    Decoded::Record(Record {
        channel,
        time_unix_us: field(8).cast_signed(),
        bytes: &record[HEADER_BYTES..],
    })
}

fn checksum(record: &[u8], segment: u64) -> u64 {
    let head = xxh3_64_with_seed(&record[..SUMMED_HEADER_BYTES], segment);
    xxh3_64_with_seed(&record[HEADER_BYTES..], head)
}
