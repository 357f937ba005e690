//! Inputs made from the real build logs in `tests/data/`.

use std::sync::OnceLock;

use crate::binaries::workspace_root;

const FILES: [&str; 4] = [
    "cpython-build-1.log",
    "cpython-build-2.log",
    "cargo-build-failed.ansi.log",
    "pip-progress.ansi.log",
];

/// One of the logs, as it is.
pub fn log(name: &str) -> Vec<u8> {
    let path = workspace_root().join("tests/data").join(name);
    std::fs::read(&path).unwrap_or_else(|error| panic!("{} cannot be read: {error}", path.display()))
}

/// Every line of every log, each with its terminator.
fn lines() -> &'static [Vec<u8>] {
    static LINES: OnceLock<Vec<Vec<u8>>> = OnceLock::new();
    LINES.get_or_init(|| {
        let mut lines = Vec::new();
        for name in FILES {
            let mut bytes = log(name);
            if !bytes.ends_with(b"\n") {
                bytes.push(b'\n');
            }
            lines.extend(bytes.split_inclusive(|byte| *byte == b'\n').map(<[u8]>::to_vec));
        }
        lines
    })
}

/// One line of the logs, with its `\n`; they repeat for ever.
pub fn line(number: usize) -> &'static [u8] {
    let lines = lines();
    &lines[number % lines.len()]
}

/// `line_count` lines that begin at another place for each `seed`, wrap around and are thus different in each
/// stream. Each line ends with `\n`.
pub fn variant(seed: usize, line_count: usize) -> Vec<u8> {
    // A stride of its own for every seed interleaves distant parts of the logs.
    let lines = lines();
    let stride = [1, 3, 7, 11, 13][seed % 5];
    let mut at = seed.wrapping_mul(1_237) % lines.len();
    let mut bytes = Vec::with_capacity(line_count * 100);
    for _ in 0..line_count {
        bytes.extend_from_slice(&lines[at]);
        at = (at + stride) % lines.len();
    }
    bytes
}

/// Number of `\n` in `bytes`.
pub fn count_lines(bytes: &[u8]) -> u64 {
    memchr::memchr_iter(b'\n', bytes).count() as u64
}

/// Fails with the place of the first difference, instead of printing megabytes.
///
/// # Panics
/// When `left` and `right` differ.
pub fn assert_same(what: &str, got: &[u8], want: &[u8]) {
    if got == want {
        return;
    }
    let at = got.iter().zip(want).take_while(|(got, want)| got == want).count();
    let line = count_lines(&want[..at]);
    let show = |bytes: &[u8]| {
        let end = bytes.len().min(at + 160);
        bytes[at.min(bytes.len()).saturating_sub(40)..end]
            .escape_ascii()
            .to_string()
    };
    panic!(
        "{what}: got {} bytes, want {}; they differ from byte {at} (line {line}):\n got: {}\nwant: {}",
        got.len(),
        want.len(),
        show(got),
        show(want)
    );
}
