//! Round trips, hostile input, limits.

use proptest::collection::vec;
use proptest::prelude::*;

use super::{BlockBuilder, BlockError, Compressor, Line, OpenBlock, Unpacker, next_sequence, validate};
use crate::limits::{MAX_BLOCK_TEXT_BYTES, MAX_LINE_BYTES};
use crate::v1::{Block, Channel, Codec, Severity};

#[derive(Clone, Debug, PartialEq)]
struct OwnedLine {
    time_unix_us: i64,
    channel: Channel,
    partial: bool,
    severity: Severity,
    text: Vec<u8>,
}

fn any_line() -> impl Strategy<Value = OwnedLine> {
    let channel = prop_oneof![
        Just(Channel::Stdout),
        Just(Channel::Stderr),
        Just(Channel::Notice)
    ];
    let text = vec(
        any::<u8>().prop_filter("a line holds no newline", |byte| *byte != b'\n'),
        0..40,
    );
    (any::<i64>(), channel, any::<bool>(), any_severity(), text).prop_map(
        |(time_unix_us, channel, partial, severity, text)| OwnedLine {
            time_unix_us,
            channel,
            partial,
            severity,
            text,
        },
    )
}

fn any_severity() -> impl Strategy<Value = Severity> {
    prop_oneof![
        Just(Severity::Unspecified),
        Just(Severity::None),
        Just(Severity::Warning),
        Just(Severity::Error)
    ]
}

fn build(first_sequence: u64, lines: &[OwnedLine]) -> Block {
    let mut builder = BlockBuilder::new();
    for line in lines {
        assert!(builder.push(&Line {
            sequence: 0,
            time_unix_us: line.time_unix_us,
            channel: line.channel,
            partial: line.partial,
            severity: line.severity,
            text: &line.text,
        }));
    }
    builder.finish(first_sequence).expect("there are lines")
}

fn owned(line: &Line<'_>) -> OwnedLine {
    OwnedLine {
        time_unix_us: line.time_unix_us,
        channel: line.channel,
        partial: line.partial,
        severity: line.severity,
        text: line.text.to_vec(),
    }
}

proptest! {
    #[test]
    fn lines_come_back_as_they_went_in(
        first in 0..u64::MAX / 2,
        lines in vec(any_line(), 1..60),
        level in -5..10,
    ) {
        let raw = build(first, &lines);
        for block in [raw.clone(), Compressor::new(level).compress(raw)] {
            validate(&block).unwrap();
            let open = OpenBlock::open(&block).unwrap();
            prop_assert_eq!(open.lines().map(|line| owned(&line)).collect::<Vec<_>>(), lines.clone());
            let sequences: Vec<u64> = open.lines().map(|line| line.sequence).collect();
            prop_assert_eq!(sequences, (first..first + lines.len() as u64).collect::<Vec<_>>());
            prop_assert_eq!(open.next_sequence(), first + lines.len() as u64);
            prop_assert_eq!(next_sequence(&block).unwrap(), open.next_sequence());
            let mut unpacker = Unpacker::new();
            for _ in 0..2 {
                let unpacked = unpacker.unpack(&block).unwrap();
                prop_assert_eq!(unpacked.text(), &open.text()[..]);
                prop_assert!(unpacked.lines().unwrap().eq(open.lines()));
            }
            prop_assert_eq!(open.first_time_unix_us(), lines[0].time_unix_us);
            prop_assert_eq!(open.last_time_unix_us(), lines[lines.len() - 1].time_unix_us);
        }
    }

    #[test]
    fn a_slice_is_the_lines_of_its_range(
        lines in vec(any_line(), 1..60), first in 0_u64..1000, from in 0_u64..70, to in 0_u64..70,
    ) {
        let open = OpenBlock::open(&build(first, &lines)).unwrap();
        let range = first + from..first + to;
        let expected: Vec<_> = open.lines().filter(|line| range.contains(&line.sequence))
            .map(|line| (line.sequence, owned(&line))).collect();
        match open.slice(range) {
            None => prop_assert!(expected.is_empty()),
            Some(block) => {
                validate(&block).unwrap();
                prop_assert!(block.sequences.is_empty(), "a slice is dense");
                let slice = OpenBlock::open(&block).unwrap();
                let got: Vec<_> = slice.lines().map(|line| (line.sequence, owned(&line))).collect();
                prop_assert_eq!(got, expected);
            }
        }
    }

    #[test]
    fn filtered_lines_keep_their_sequences(
        lines in vec(any_line(), 1..60), kept in vec(any::<bool>(), 60), kept_again in vec(any::<bool>(), 60),
    ) {
        let open = OpenBlock::open(&build(100, &lines)).unwrap();
        let keep = |line: &Line<'_>| kept[usize::try_from(line.sequence - 100).unwrap()];
        let keep_again = |line: &Line<'_>| kept_again[usize::try_from(line.sequence - 100).unwrap()];
        let expected: Vec<_> = open.lines().filter(|line| keep(line) && keep_again(line))
            .map(|line| (line.sequence, owned(&line))).collect();
        let mut got = Vec::new();
        for block in open.filter(keep) {
            validate(&block).unwrap();
            for block in OpenBlock::open(&block).unwrap().filter(keep_again) {
                validate(&block).unwrap();
                let open = OpenBlock::open(&block).unwrap();
                got.extend(open.lines().map(|line| (line.sequence, owned(&line))));
                prop_assert_eq!(next_sequence(&block).unwrap(), open.next_sequence());
            }
        }
        prop_assert_eq!(got, expected);
    }

    #[test]
    fn terminated_chunks_equal_single_lines(texts in vec(vec(0_u8..200, 0..20), 1..50), time in any::<i64>()) {
        let mut chunk = Vec::new();
        for text in &texts {
            chunk.extend(text.iter().filter(|byte| **byte != b'\n'));
            chunk.push(b'\n');
        }
        let mut whole = BlockBuilder::new();
        prop_assert_eq!(whole.push_terminated(&chunk, time, Channel::Stderr), chunk.len());
        let mut single = BlockBuilder::new();
        for text in chunk[..chunk.len() - 1].split(|byte| *byte == b'\n') {
            single.push_line(text, time, Channel::Stderr, false);
        }
        prop_assert_eq!(whole.finish(7), single.finish(7));
    }

    /// However many lines a run has that is told at once.
    #[test]
    fn terminated_chunks_with_severities_equal_single_lines(
        lines in vec(("[a-z]{0,9}", any_severity()), 1..50), time in any::<i64>(), longest_run in 1_usize..5,
    ) {
        let chunk: Vec<u8> = lines.iter().flat_map(|(text, _)| [text.as_bytes(), b"\n"].concat()).collect();
        let mut whole = BlockBuilder::new();
        let mut at = 0;
        let taken = whole.push_terminated_with(&chunk, time, Channel::Stderr, |_| {
            let severity = lines[at].1;
            let run = lines[at..].iter().take(longest_run).take_while(|line| line.1 == severity).count();
            let bytes = lines[at..at + run].iter().map(|(text, _)| text.len() + 1).sum();
            at += run;
            (severity, bytes)
        });
        prop_assert_eq!(taken, chunk.len());
        let mut single = BlockBuilder::new();
        for (text, severity) in &lines {
            single.push(&Line {
                sequence: 0, time_unix_us: time, channel: Channel::Stderr, partial: false, severity: *severity,
                text: text.as_bytes(),
            });
        }
        prop_assert_eq!(whole.finish(7), single.finish(7));
    }

    #[test]
    fn hostile_blocks_are_refused_without_panic(
        first_sequence in any::<u64>(), line_count in 0_u32..50, text_bytes in 0_u32..200, codec in -1..4,
        text in vec(prop_oneof![Just(b'\n'), any::<u8>()], 0..200), times in vec(any::<u8>(), 0..30),
        channels in vec(0_u8..4, 0..10), flags in vec(0_u8..3, 0..10), severities in vec(0_u8..6, 0..10),
        sequences in vec(any::<u8>(), 0..12),
    ) {
        let block = Block {
            first_sequence, line_count, text_bytes, codec, text: text.into(), first_time_unix_us: i64::MAX,
            times: times.into(), channels: channels.into(), flags: flags.into(), severities: severities.into(),
            sequences: sequences.into(),
        };
        let _ = next_sequence(&block);
        let valid = validate(&block).is_ok();
        let mut unpacker = Unpacker::new();
        let unpacked = unpacker.unpack(&block).and_then(|unpacked| unpacked.lines());
        let opened = OpenBlock::open(&block).map(|open| open.lines().count());
        prop_assert_eq!(unpacked.map(Iterator::count).ok(), opened.ok());
        if let Ok(open) = OpenBlock::open(&block) {
            prop_assert!(valid, "what opens is valid");
            prop_assert_eq!(open.lines().count(), line_count as usize);
            prop_assert!(open.lines().is_sorted_by(|a, b| a.sequence < b.sequence));
        }
    }

    #[test]
    fn one_changed_byte_in_compressed_text_is_an_error_or_other_text_but_no_panic(
        at in any::<prop::sample::Index>(), to in any::<u8>(),
    ) {
        let lines: Vec<_> = (0..200).map(|number| OwnedLine {
            time_unix_us: number, channel: Channel::Stdout, partial: false, severity: Severity::None,
            text: b"checking for gcc... gcc".to_vec(),
        }).collect();
        let mut block = Compressor::new(1).compress(build(0, &lines));
        let mut text = block.text.to_vec();
        let at = at.index(text.len());
        text[at] = to;
        block.text = text.into();
        if let Ok(open) = OpenBlock::open(&block) {
            prop_assert_eq!(open.lines().count(), 200);
        }
    }
}

#[test]
fn a_small_block_that_claims_gigabytes_is_refused_before_anything_is_allocated() {
    let bomb = zstd::bulk::compress(&vec![b'\n'; 64 << 20], 19).unwrap();
    assert!(bomb.len() < 10_000);
    let mut block = Block {
        line_count: 64 << 20,
        text_bytes: 64 << 20,
        codec: Codec::Zstd.into(),
        text: bomb.into(),
        ..Block::default()
    };
    let too_large = Err(BlockError::TextTooLarge { text_bytes: 64 << 20 });
    assert_eq!(validate(&block), too_large);
    assert_eq!(OpenBlock::open(&block).map(|_| ()), too_large);
    // A header that lies about the size does not help either.
    block.text_bytes = 1000;
    block.line_count = 1000;
    assert_eq!(
        validate(&block),
        Err(BlockError::TextSize {
            declared: 1000,
            actual: 64 << 20
        })
    );
    assert!(OpenBlock::open(&block).is_err());
}

#[test]
fn a_frame_that_holds_more_than_it_states_is_refused() {
    let frame = zstd::stream::encode_all(&b"a\nb\n"[..], 1).unwrap();
    let block = Block {
        line_count: 1,
        text_bytes: 2,
        codec: Codec::Zstd.into(),
        text: frame.into(),
        ..Block::default()
    };
    assert!(matches!(OpenBlock::open(&block), Err(BlockError::BadFrame(_))));
}

#[test]
fn the_longest_line_fills_a_block_and_a_longer_one_never_fits() {
    let mut builder = BlockBuilder::new();
    assert!(!builder.push_line(&vec![b'x'; MAX_LINE_BYTES + 1], 0, Channel::Stdout, false));
    assert!(builder.push_line(&vec![b'x'; MAX_LINE_BYTES], 0, Channel::Stdout, true));
    assert!(!builder.push_line(b"", 0, Channel::Stdout, false));
    assert_eq!(builder.push_terminated(b"\n", 0, Channel::Stdout), 0);
    let block = builder.finish(0).unwrap();
    assert_eq!(block.text_bytes as usize, MAX_BLOCK_TEXT_BYTES);
    validate(&block).unwrap();
}

#[test]
fn a_block_of_a_million_empty_lines_with_changing_columns_stays_within_its_limits() {
    let mut builder = BlockBuilder::new();
    let mut count = 0_i64;
    while builder.push_line(
        b"",
        count * (count % 1000) * 1_000_000,
        if count % 2 == 0 {
            Channel::Stdout
        } else {
            Channel::Stderr
        },
        count % 3 == 0,
    ) {
        count += 1;
    }
    let block = builder.finish(u64::from(u32::MAX)).unwrap();
    validate(&block).unwrap();
    assert_eq!(
        OpenBlock::open(&block).unwrap().lines().count(),
        usize::try_from(count).unwrap()
    );
}

#[test]
fn severities_that_change_with_every_line_stay_within_their_column_and_none_is_lost() {
    let chunk = b"\n".repeat(MAX_BLOCK_TEXT_BYTES);
    let mut builder = BlockBuilder::new();
    let mut is_error = false;
    let taken = builder.push_terminated_with(&chunk, 0, Channel::Stdout, |_| {
        is_error = !is_error;
        (if is_error { Severity::Error } else { Severity::None }, 1)
    });
    assert!(
        0 < taken && taken < chunk.len(),
        "the column is full before the text is"
    );
    let block = builder.finish(0).unwrap();
    validate(&block).unwrap();
    let open = OpenBlock::open(&block).unwrap();
    assert_eq!(open.lines().count(), taken);
    let errors = open
        .lines()
        .filter(|line| line.severity == Severity::Error)
        .count();
    assert_eq!(errors, taken.div_ceil(2));
}

/// Numbers of a later protocol are no reason to refuse a block, and say nothing.
#[test]
fn a_severity_that_is_not_known_is_not_said() {
    let mut builder = BlockBuilder::new();
    builder.push_line(b"a", 5, Channel::Stdout, false);
    let block = Block {
        severities: vec![9, 1].into(),
        ..builder.finish(0).unwrap()
    };
    validate(&block).unwrap();
    let open = OpenBlock::open(&block).unwrap();
    assert_eq!(open.lines().next().unwrap().severity, Severity::Unspecified);
}

#[test]
fn a_builder_is_empty_after_finish() {
    let mut builder = BlockBuilder::new();
    assert!(builder.finish(0).is_none());
    builder.push_line(b"a", 5, Channel::Notice, true);
    builder.finish(0).unwrap();
    builder.push_line(b"b", 9, Channel::Stdout, false);
    let block = builder.finish(1).unwrap();
    assert_eq!(
        (
            block.first_time_unix_us,
            block.times.len(),
            block.channels.len(),
            block.flags.len()
        ),
        (9, 0, 0, 0)
    );
}

#[test]
fn a_filter_that_leaves_out_every_third_of_half_a_million_lines_loses_none_of_the_others() {
    let mut builder = BlockBuilder::new();
    assert_eq!(
        builder.push_terminated(&b"a\n".repeat(500_000), 7, Channel::Stdout),
        1_000_000
    );
    let open = OpenBlock::open(&builder.finish(0).unwrap()).unwrap();
    let blocks = open.filter(|line| line.sequence % 3 != 1);
    assert!(blocks.len() > 1, "one block cannot describe so many gaps");
    let mut sequences = Vec::new();
    for block in &blocks {
        validate(block).unwrap();
        sequences.extend(OpenBlock::open(block).unwrap().lines().map(|line| line.sequence));
    }
    assert!(
        sequences
            .into_iter()
            .eq((0..500_000).filter(|sequence| sequence % 3 != 1))
    );
}

#[test]
fn a_slice_of_a_block_with_full_columns_is_complete() {
    let mut builder = BlockBuilder::new();
    let mut count = 0_i64;
    while builder.push_line(
        b"",
        count * (count % 1000) * 1_000_000,
        Channel::Stdout,
        count % 2 == 0,
    ) {
        count += 1;
    }
    let mut open = OpenBlock::open(&builder.finish(0).unwrap()).unwrap();
    let count = u64::try_from(count).unwrap();
    for cut in 1..4 {
        open = OpenBlock::open(&open.slice(cut..count).unwrap()).unwrap();
        assert_eq!(u64::from(open.line_count()), count - cut);
    }
}
