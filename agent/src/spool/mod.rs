//! The disk spool of one process: what was read from it and is not durable at the relay yet.
//!
//! [`record`] is the format of one chunk, [`segment`] of what stands before the chunks of a file, [`writer`]
//! appends chunks to numbered segment files and keeps a bound, [`reader`] reads them from any place and reports
//! what is damaged or missing, with exact counts. The reader's user deletes what the relay has acknowledged; the
//! writer deletes only when it is full and told to drop the oldest. Nothing here knows of lines, streams or
//! processes.
//!
//! A record is in the file when its write returns, so it survives `kill -9` of its writer; it is not fsynced: a
//! power failure ends the process that it came from anyway.

pub mod reader;
pub mod record;
mod segment;
pub mod writer;

use std::io;
use std::path::{Path, PathBuf};

use millstream_proto::v1::Channel;

/// Smallest bound of a spool: its segments have to be larger than a few records.
pub const MIN_SPOOL_BYTES: u64 = 1 << 20;

/// Bound of a spool unless settings say otherwise, bytes.
pub const DEFAULT_SPOOL_BYTES: u64 = 1 << 30;

/// What a full spool does.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize, clap::ValueEnum,
)]
#[serde(rename_all = "kebab-case")]
pub enum WhenFull {
    /// Takes nothing more until there is room: who writes has to wait.
    #[default]
    Block,
    /// Drops its oldest segments. The reader tells how much is missing, and where.
    DropOldest,
}

/// How large a spool may get, and what it does then.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Bound {
    pub max_bytes: u64,
    pub when_full: WhenFull,
}

impl Default for Bound {
    fn default() -> Self {
        Self {
            max_bytes: DEFAULT_SPOOL_BYTES,
            when_full: WhenFull::default(),
        }
    }
}

/// The channels of a spool; a place in this list is how they are counted.
pub const CHANNELS: [Channel; 3] = [Channel::Stdout, Channel::Stderr, Channel::Notice];

/// Where a channel stands in [`CHANNELS`].
#[must_use]
pub fn index_of(channel: Channel) -> usize {
    match channel {
        Channel::Stdout => 0,
        Channel::Stderr => 1,
        Channel::Notice => 2,
    }
}

/// An amount of text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Count {
    pub bytes: u64,
    /// Ends of lines.
    pub lines: u64,
}

impl Count {
    /// Of a piece of text.
    #[must_use]
    pub fn of(text: &[u8]) -> Self {
        Self {
            bytes: text.len() as u64,
            lines: memchr::memchr_iter(b'\n', text).count() as u64,
        }
    }

    /// What this has beyond `earlier`; nothing where that is ahead.
    #[must_use]
    pub fn since(self, earlier: Self) -> Self {
        Self {
            bytes: self.bytes.saturating_sub(earlier.bytes),
            lines: self.lines.saturating_sub(earlier.lines),
        }
    }
}

impl std::ops::AddAssign for Count {
    fn add_assign(&mut self, other: Self) {
        self.bytes += other.bytes;
        self.lines += other.lines;
    }
}

/// All text of a spool up to some place, by channel.
pub type Totals = [Count; CHANNELS.len()];

const SUFFIX: &str = ".seg";

/// The file of one segment.
#[must_use]
pub fn segment_path(directory: &Path, segment: u64) -> PathBuf {
    directory.join(format!("{segment:012}{SUFFIX}"))
}

/// Numbers of the segments that exist, in order.
///
/// # Errors
/// When the directory cannot be read.
pub fn segments(directory: &Path) -> io::Result<Vec<u64>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(directory)? {
        let name = entry?.file_name();
        let number: Option<u64> = name
            .to_str()
            .and_then(|name| name.strip_suffix(SUFFIX))
            .and_then(|number| number.parse().ok());
        found.extend(number);
    }
    found.sort_unstable();
    Ok(found)
}

/// Deletes a segment; one that is gone already is no error, as writer and reader may both delete it.
fn remove_segment(directory: &Path, segment: u64) -> io::Result<()> {
    match std::fs::remove_file(segment_path(directory, segment)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result,
    }
}

#[cfg(test)]
mod model;
#[cfg(test)]
mod tests;
