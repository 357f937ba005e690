//! Notes for a run's own log: what an agent wants to stand in the stream of a run that another process writes.
//!
//! The agent appends a line of JSON to `notes.jsonl` in the run's directory and wakes the supervisor with SIGUSR1;
//! the supervisor writes each note into the spool, once, in order with the output. A note that is on disk outlives
//! the agent.

use std::fs::OpenOptions;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

const FILE: &str = "notes.jsonl";

/// All notes of one run. People do not press that many buttons; a script that does is not noted any more.
const MAX_FILE_BYTES: u64 = 1 << 20;

/// One note.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Note {
    /// "kind: sentence", as in every notice.
    pub text: String,
    /// The run is stopped for this reason, which also stands in its end.
    pub stop_reason: Option<String>,
}

impl Note {
    /// A note that changes nothing.
    #[must_use]
    pub fn new(text: impl Into<String>) -> Self {
        Self {
            text: text.into(),
            stop_reason: None,
        }
    }
}

/// Appends a note.
pub(super) fn write(directory: &Path, note: &Note) -> io::Result<()> {
    let mut file = OpenOptions::new()
        .create(true)
        .append(true)
        .mode(0o600)
        .open(directory.join(FILE))?;
    if file.metadata()?.len() > MAX_FILE_BYTES {
        return Err(io::Error::other("the run has very many notes already"));
    }
    let mut line = serde_json::to_vec(note)?;
    line.push(b'\n');
    // In one write, so that no other note comes between.
    file.write_all(&line)
}

/// The supervisor's side: reads each note once.
#[derive(Debug)]
pub(super) struct Notes {
    path: PathBuf,
    read_bytes: u64,
}

impl Notes {
    pub(super) fn of(directory: &Path) -> Self {
        Self {
            path: directory.join(FILE),
            read_bytes: 0,
        }
    }

    /// Notes that were written since the last look. A line that is no note is passed over.
    ///
    /// # Errors
    /// When the file is there and cannot be read.
    pub(super) fn take(&mut self) -> io::Result<Vec<Note>> {
        let mut file = match std::fs::File::open(&self.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            file => file?,
        };
        file.seek(SeekFrom::Start(self.read_bytes))?;
        let mut bytes = Vec::new();
        file.take(2 * MAX_FILE_BYTES).read_to_end(&mut bytes)?;
        // What has no end yet is still being written.
        let whole = bytes
            .iter()
            .rposition(|byte| *byte == b'\n')
            .map_or(0, |at| at + 1);
        self.read_bytes += whole as u64;
        let lines = bytes[..whole].split(|byte| *byte == b'\n');
        Ok(lines
            .filter_map(|line| serde_json::from_slice(line).ok())
            .collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_note_is_taken_once_and_one_that_is_being_written_later() {
        let directory = tempfile::tempdir().unwrap();
        let mut notes = Notes::of(directory.path());
        assert!(notes.take().unwrap().is_empty());
        let one = Note::new("control: one\nand \"more\"");
        let two = Note {
            stop_reason: Some("ada asked for it".to_owned()),
            ..Note::new("two")
        };
        write(directory.path(), &one).unwrap();
        write(directory.path(), &two).unwrap();
        assert_eq!(notes.take().unwrap(), [one, two]);
        let mut file = OpenOptions::new()
            .append(true)
            .open(directory.path().join(FILE))
            .unwrap();
        file.write_all(b"no note\n{\"text\":\"three\",").unwrap();
        assert!(notes.take().unwrap().is_empty());
        file.write_all(b"\"stop_reason\":null}\n").unwrap();
        assert_eq!(notes.take().unwrap(), [Note::new("three")]);
    }
}
