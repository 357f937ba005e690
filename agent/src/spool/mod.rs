//! The disk spool of one run: what was read from its pipes and is not durable at the relay yet.
//!
//! [`record`] is the format of one chunk, [`writer`] appends chunks to numbered segment files and keeps a
//! bound, [`reader`] reads them from any position and reports damage. Who deletes segments is the reader's
//! user: it alone knows what the relay has acknowledged. Nothing here knows of lines, streams or processes.

pub mod reader;
pub mod record;
pub mod writer;

use std::io;
use std::path::{Path, PathBuf};

/// Smallest bound of a spool: its segments have to be larger than a few records.
pub const MIN_SPOOL_BYTES: u64 = 1 << 20;

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

#[cfg(test)]
mod tests;
