//! Writing files as builds do.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::path::Path;
use std::time::Duration;

/// Bytes that are written at a time. Odd, so that lines are cut anywhere.
const PIECE_BYTES: usize = 16_381;
/// Between two pieces: long enough that a follower sees many states of the file, short enough for a test.
const PAUSE: Duration = Duration::from_millis(2);

/// Appends `content`.
pub fn append(path: &Path, content: &[u8]) {
    let mut file = OpenOptions::new()
        .create(true)
        .append(true)
        .open(path)
        .expect("the test's file can be opened");
    file.write_all(content).expect("the test's file can be written");
}

/// Appends `content` in pieces that end in the middle of lines, with pauses between them.
pub async fn append_in_pieces(path: &Path, content: &[u8]) {
    for piece in content.chunks(PIECE_BYTES) {
        append(path, piece);
        tokio::time::sleep(PAUSE).await;
    }
}
