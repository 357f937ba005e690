//! The bodies of the fuzz targets: each takes any bytes and panics when a promise is broken.
//!
//! The programs in `fuzz_targets/` feed them with what libFuzzer invents; `relay/tests/fuzz_seeds.rs`
//! includes this file and feeds them with the seeds and small changes of them on every `cargo test`.

mod cursor;
mod http_path;

use std::collections::BTreeMap;

use millstream_proto::block::{BlockBuilder, Line, OpenBlock, Unpacker, next_sequence, validate};
use millstream_proto::v1;
use millstream_relay::filter::LineFilter;
use millstream_relay::search::Scanner;
use millstream_relay::selector::Selector;
use prost::Message;

pub use cursor::cursor;
pub use http_path::http_path;

/// Bytes as a block. What opens is valid, has the lines that it says, in ascending order, and can be cut
/// and filtered into blocks that are valid too.
pub fn block_open(data: &[u8]) {
    let Ok(block) = v1::Block::decode(data) else {
        return;
    };
    let valid = validate(&block);
    let next = next_sequence(&block);
    let open = match OpenBlock::open(&block) {
        Ok(open) => open,
        Err(error) => {
            // Only the content of a compressed frame can be wrong without `validate` seeing it.
            let is_packed = block.codec == i32::from(v1::Codec::Zstd);
            assert!(valid.is_err() || is_packed, "valid, but does not open: {error}");
            return;
        }
    };
    valid.expect("what opens is valid");
    assert_eq!(
        next.expect("what opens has a next sequence"),
        open.next_sequence()
    );

    let lines: Vec<_> = open.lines().collect();
    assert_eq!(lines.len(), open.line_count() as usize);
    assert_eq!(
        lines.first().map(|line| line.sequence),
        Some(open.first_sequence())
    );
    assert_eq!(
        lines.last().map(|line| line.sequence + 1),
        Some(open.next_sequence())
    );
    assert!(
        lines.is_sorted_by(|a, b| a.sequence < b.sequence),
        "sequences ascend"
    );
    assert_eq!(
        lines.last().map(|line| line.time_unix_us),
        Some(open.last_time_unix_us())
    );
    let text_bytes: usize = lines.iter().map(|line| line.text.len() + 1).sum();
    assert_eq!(text_bytes, open.text().len(), "nothing stands between the lines");

    let middle = lines[lines.len() / 2].sequence;
    let whole = 0..open.next_sequence();
    for range in [whole, 0..middle, middle..middle + 1, middle..u64::MAX] {
        let expected = lines.iter().filter(|line| range.contains(&line.sequence));
        assert_lines(open.slice(range.clone()).as_slice(), expected);
    }
    // One line in three, then two in three.
    for remainder in [true, false] {
        let keep = |line: &Line<'_>| line.sequence.is_multiple_of(3) == remainder;
        assert_lines(&open.filter(keep), lines.iter().filter(|line| keep(line)));
    }
}

/// The blocks are valid and their lines are the expected ones.
fn assert_lines<'a, 'b: 'a>(blocks: &[v1::Block], expected: impl Iterator<Item = &'a Line<'b>>) {
    let mut expected = expected.copied();
    for block in blocks {
        validate(block).expect("what was cut from a block is valid");
        let open = OpenBlock::open(block).expect("what was cut from a block opens");
        for line in open.lines() {
            assert_eq!(Some(line), expected.next(), "the lines are the same");
        }
    }
    assert_eq!(expected.next(), None, "no line went missing");
}

/// Text as a selector. What parses can be written down, and what is written down parses and means the
/// same.
pub fn selector(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    let first = match Selector::parse(text) {
        Ok(selector) => selector,
        Err(error) => {
            assert!(error.position <= text.len(), "the position is in the text");
            let _ = error.to_string();
            return;
        }
    };
    let written = first.to_string();
    let second = match Selector::parse(&written) {
        Ok(selector) => selector,
        // Quotes that were added may make it too long.
        Err(_) if written.len() > text.len() && written.len() > 8192 => return,
        Err(error) => panic!("{text:?} was written as {written:?}, which does not parse: {error}"),
    };
    assert_eq!(second.to_string(), written, "written twice it is the same");
    // Labels made of the text's own words are the likeliest to match.
    let words: Vec<_> = text
        .split(|character: char| !character.is_ascii_alphanumeric())
        .filter(|word| !word.is_empty())
        .take(8)
        .collect();
    for value in words.iter().copied().chain([""]) {
        let labels: BTreeMap<_, _> = words
            .iter()
            .map(|name| ((*name).to_owned(), value.to_owned()))
            .collect();
        assert_eq!(
            first.matches(&labels),
            second.matches(&labels),
            "{text:?} is not {written:?}"
        );
    }
}

/// A filter and a line: one byte of choices, then substring, regular expression and line, separated by
/// zero bytes. What compiles can be asked, inverting inverts, and a plain substring is found where it is.
pub fn line_filter(data: &[u8]) {
    let Some((choices, rest)) = data.split_first() else {
        return;
    };
    let mut parts = rest.splitn(3, |byte| *byte == 0);
    let (Some(substring), Some(regex), Some(text)) = (parts.next(), parts.next(), parts.next()) else {
        return;
    };
    let (Ok(substring), Ok(regex)) = (std::str::from_utf8(substring), std::str::from_utf8(regex)) else {
        return;
    };
    let filter = v1::Filter {
        substring: substring.to_owned(),
        regex: regex.to_owned(),
        ignore_case: choices & 1 != 0,
        invert: choices & 2 != 0,
        channels: if choices & 4 != 0 {
            vec![i32::from(choices >> 5)]
        } else {
            Vec::new()
        },
        severities: Vec::new(),
    };
    let line = Line {
        sequence: 0,
        time_unix_us: 0,
        channel: if choices & 8 != 0 {
            v1::Channel::Stderr
        } else {
            v1::Channel::Stdout
        },
        partial: false,
        severity: v1::Severity::Unspecified,
        text,
    };
    let compiled = match LineFilter::compile(&filter) {
        Ok(compiled) => compiled,
        Err(error) => {
            assert!(!error.to_string().is_empty());
            return;
        }
    };
    let keeps = compiled.as_ref().is_none_or(|compiled| compiled.keeps(&line));
    let is_of_channel = filter.channels.is_empty() || filter.channels.contains(&i32::from(line.channel));
    let has_pattern = !(substring.is_empty() && regex.is_empty());
    if !is_of_channel {
        assert!(!keeps, "channels choose first");
    } else if !has_pattern {
        assert!(keeps, "without a pattern every line of the channel is wanted");
    } else {
        let inverted = v1::Filter {
            invert: !filter.invert,
            ..filter.clone()
        };
        let inverted = LineFilter::compile(&inverted).expect("it compiled before");
        assert_ne!(
            inverted.is_none_or(|compiled| compiled.keeps(&line)),
            keeps,
            "inverting inverts"
        );
    }
    if is_of_channel && regex.is_empty() && !substring.is_empty() && !filter.ignore_case {
        let found = text
            .windows(substring.len())
            .any(|window| window == substring.as_bytes());
        assert_eq!(keeps, found != filter.invert, "a substring is found where it is");
    }
}

/// A filter and the text of a block: one byte of choices, then substring, regular expression and lines,
/// separated by zero bytes. Looking through the whole text finds exactly the lines that the filter keeps when
/// it is asked of each.
pub fn scan(data: &[u8]) {
    let Some((choices, rest)) = data.split_first() else {
        return;
    };
    let mut parts = rest.splitn(3, |byte| *byte == 0);
    let (Some(substring), Some(regex), Some(text)) = (parts.next(), parts.next(), parts.next()) else {
        return;
    };
    let (Ok(substring), Ok(regex)) = (std::str::from_utf8(substring), std::str::from_utf8(regex)) else {
        return;
    };
    let filter = v1::Filter {
        substring: substring.to_owned(),
        regex: regex.to_owned(),
        ignore_case: choices & 1 != 0,
        invert: choices & 2 != 0,
        severities: (1..=3)
            .filter(|severity| choices & (2 << severity) != 0)
            .collect(),
        ..v1::Filter::default()
    };
    let Ok(scanner) = Scanner::new(&filter) else {
        return;
    };
    let mut builder = BlockBuilder::new();
    for (number, line) in text.split(|byte| *byte == b'\n').enumerate() {
        let channel = if choices & 32 != 0 && number % 2 == 1 {
            v1::Channel::Notice
        } else {
            v1::Channel::Stdout
        };
        if !builder.push_line(line, 0, channel, false) {
            return;
        }
    }
    let block = builder.finish(0).expect("there is a line, perhaps an empty one");
    let mut unpacker = Unpacker::new();
    let unpacked = unpacker.unpack(&block).expect("what was built opens");
    let mut found = Vec::new();
    let scanned = scanner.scan(&unpacked, |line, end| {
        assert_eq!(unpacked.text()[end - 1], b'\n', "a line ends where it is said");
        found.push(line.sequence);
    });
    scanned.expect("what was built has lines");
    let lines = unpacked.lines().expect("what was built has lines");
    let asked: Vec<_> = lines
        .filter(|line| scanner.keeps(line))
        .map(|line| line.sequence)
        .collect();
    assert_eq!(found, asked, "{filter:?}");
}
