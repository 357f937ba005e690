//! Masks that a build asks for in its own output: `::add-mask::VALUE` (GitHub), `##vso[task.setsecret]VALUE` and
//! `##vso[task.setvariable …;issecret=true]VALUE` (Azure Pipelines).

use memchr::memmem;

const GITHUB: &[u8] = b"::add-mask::";
const AZURE: &[u8] = b"##vso[task.set";

/// What every command begins with.
pub(super) const MARKERS: [&[u8]; 2] = [GITHUB, AZURE];

/// A command that is not complete is waited for, up to so much of a line.
pub(super) const MAX_COMMAND_BYTES: usize = 64 << 10;

/// The values that lines of this text ask to mask. Escape sequences are stripped; lines end with `\n`, or with
/// the text.
pub(super) fn values(clean: &[u8]) -> Vec<Vec<u8>> {
    let mut values = Vec::new();
    for marker in MARKERS {
        for at in memmem::find_iter(clean, marker) {
            let line_start = memchr::memrchr(b'\n', &clean[..at]).map_or(0, |newline| newline + 1);
            if !clean[line_start..at].trim_ascii().is_empty() {
                continue;
            }
            let rest = &clean[at..];
            let line = &rest[..memchr::memchr(b'\n', rest).unwrap_or(rest.len())];
            values.extend(value(line.trim_ascii_end()));
        }
    }
    values
}

/// An unfinished line may be such a command, or the beginning of one.
pub(super) fn may_become_one(clean_line: &[u8]) -> bool {
    let line = clean_line.trim_ascii_start();
    !line.is_empty()
        && clean_line.len() < MAX_COMMAND_BYTES
        && MARKERS
            .iter()
            .any(|marker| line.starts_with(marker) || marker.starts_with(line))
}

/// It is one already, and what it hides may be on the line.
pub(super) fn is_one(clean_line: &[u8]) -> bool {
    let line = clean_line.trim_ascii_start();
    MARKERS.iter().any(|marker| line.starts_with(marker))
}

fn value(line: &[u8]) -> Option<Vec<u8>> {
    if let Some(value) = line.strip_prefix(GITHUB) {
        return Some(unescape(value, &[("%25", b"%"), ("%0D", b"\r"), ("%0A", b"\n")]));
    }
    let end = memchr::memchr(b']', line)?;
    let command = line[AZURE.len()..end].to_ascii_lowercase();
    let is_secret = command.starts_with(b"secret")
        || (command.starts_with(b"variable") && memmem::find(&command, b"issecret=true").is_some());
    let escapes: &[(&str, &[u8])] = &[
        ("%AZP25", b"%"),
        ("%3B", b";"),
        ("%0D", b"\r"),
        ("%0A", b"\n"),
        ("%5D", b"]"),
    ];
    is_secret.then(|| unescape(&line[end + 1..], escapes))
}

fn unescape(text: &[u8], escapes: &[(&str, &[u8])]) -> Vec<u8> {
    let mut plain = Vec::with_capacity(text.len());
    let mut rest = text;
    'next: while let Some(byte) = rest.first() {
        for (escape, meaning) in escapes {
            if rest.len() >= escape.len() && rest[..escape.len()].eq_ignore_ascii_case(escape.as_bytes()) {
                plain.extend_from_slice(meaning);
                rest = &rest[escape.len()..];
                continue 'next;
            }
        }
        plain.push(*byte);
        rest = &rest[1..];
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_of_both_kinds_give_their_values() {
        let text = b"x\n  ::add-mask::hunter2%25%0Ay\r\n##vso[task.setsecret]s3cr%3Bet\n\
            ##vso[task.setvariable variable=a;isSecret=true]value%AZP25\n##vso[task.setvariable variable=b]open\n\
            say ::add-mask::no\n";
        assert_eq!(
            values(text),
            [&b"hunter2%\ny"[..], b"s3cr;et", b"value%"].map(<[u8]>::to_vec)
        );
    }

    #[test]
    fn an_unfinished_command_is_waited_for() {
        assert!(may_become_one(b"::add"));
        assert!(may_become_one(b"::add-mask::hun"));
        assert!(may_become_one(b" ##vso[task.setv"));
        assert!(!may_become_one(b"::address"));
        assert!(!may_become_one(b""));
        assert!(is_one(b"::add-mask::") && !is_one(b"::add-mas"));
    }
}
