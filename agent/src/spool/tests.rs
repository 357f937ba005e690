#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::path::Path;

use millstream_proto::v1::Channel;
use proptest::prelude::*;

use super::reader::{Next, Place, SpoolReader};
use super::record::{Decoded, MAX_CHUNK_BYTES, Record, decode, encode};
use super::writer::{Appended, SpoolWriter};
use super::{Bound, MIN_SPOOL_BYTES, WhenFull, segment, segment_path, segments};

type Owned = (Channel, i64, Vec<u8>);

fn chunks() -> impl Strategy<Value = Vec<Owned>> {
    let channel = prop_oneof![Just(Channel::Stdout), Just(Channel::Stderr)];
    prop::collection::vec(
        (channel, any::<i64>(), prop::collection::vec(any::<u8>(), 0..60)),
        1..12,
    )
}

fn writer(directory: &Path, max_bytes: u64) -> SpoolWriter {
    let bound = Bound {
        max_bytes,
        when_full: WhenFull::Block,
    };
    SpoolWriter::open(directory.to_path_buf(), bound).unwrap()
}

fn write(directory: &Path, chunks: &[Owned]) {
    let mut writer = writer(directory, MIN_SPOOL_BYTES);
    for (channel, time_unix_us, bytes) in chunks {
        let record = Record {
            channel: *channel,
            time_unix_us: *time_unix_us,
            bytes,
        };
        append_whole(&mut writer, record);
    }
}

/// All of a record, in as many as the writer makes of it.
fn append_whole(writer: &mut SpoolWriter, mut record: Record<'_>) {
    loop {
        match writer.append(&record, 0).unwrap() {
            Appended::Written(bytes) if bytes == record.bytes.len() => return,
            Appended::Written(bytes) => record.bytes = &record.bytes[bytes..],
            other => panic!("{other:?}"),
        }
    }
}

/// Reads beside a writer until so many records are there, whose times are their numbers.
fn read_in_order(directory: &Path, records: i64) {
    let mut reader = SpoolReader::new(directory.to_path_buf(), Place::default());
    let mut expected = 0;
    while expected < records {
        match reader.next(false).unwrap() {
            Next::Record(_, record, _) => {
                assert_eq!(record.time_unix_us, expected);
                expected += 1;
            }
            Next::End => {}
            other => panic!("{other:?} at record {expected}"),
        }
    }
}

/// Everything to the end, and the bytes that were reported as damaged.
fn read(reader: &mut SpoolReader, finished: bool) -> (Vec<Owned>, u64) {
    let (mut found, mut damaged) = (Vec::new(), 0);
    loop {
        match reader.next(finished).unwrap() {
            Next::Record(_, record, _) => {
                found.push((record.channel, record.time_unix_us, record.bytes.to_vec()));
            }
            Next::Damaged { bytes } => damaged += bytes,
            Next::Missing { segments, .. } => panic!("{segments} segments are missing"),
            Next::End => return (found, damaged),
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn arbitrary_bytes_never_panic_and_are_never_a_record(bytes: Vec<u8>, segment: u64) {
        prop_assert!(!matches!(decode(&bytes, segment), Decoded::Record(_)));
    }

    #[test]
    fn a_spool_cut_at_any_byte_gives_the_records_before_it_and_reports_the_rest(chunks in chunks()) {
        let directory = tempfile::tempdir().unwrap();
        write(directory.path(), &chunks);
        let path = segment_path(directory.path(), 0);
        let whole = std::fs::read(&path).unwrap();
        let mut ends = vec![segment::HEADER_BYTES];
        for (_, _, bytes) in &chunks {
            ends.push(ends.last().unwrap() + 24 + bytes.len());
        }
        for cut in (segment::HEADER_BYTES..=whole.len()).rev() {
            std::fs::write(&path, &whole[..cut]).unwrap();
            let complete = ends.iter().rposition(|end| *end <= cut).unwrap();
            let mut live = SpoolReader::new(directory.path().to_path_buf(), Place::default());
            prop_assert_eq!(read(&mut live, false), (chunks[..complete].to_vec(), 0));
            // The writer goes on: a reader that had waited takes the rest.
            std::fs::write(&path, &whole).unwrap();
            prop_assert_eq!(read(&mut live, false), (chunks[complete..].to_vec(), 0));
            std::fs::write(&path, &whole[..cut]).unwrap();
            let mut after_crash = SpoolReader::new(directory.path().to_path_buf(), Place::default());
            let torn = (cut - ends[complete]) as u64;
            prop_assert_eq!(read(&mut after_crash, true), (chunks[..complete].to_vec(), torn));
        }
    }

    #[test]
    fn a_flipped_bit_costs_its_own_record_only_and_is_reported(
        chunks in chunks(), at: prop::sample::Index, bit in 0..8_u8,
    ) {
        let directory = tempfile::tempdir().unwrap();
        write(directory.path(), &chunks);
        let path = segment_path(directory.path(), 0);
        let mut bytes = std::fs::read(&path).unwrap();
        let front = segment::HEADER_BYTES;
        let at = front + at.index(bytes.len() - front);
        bytes[at] ^= 1 << bit;
        std::fs::write(&path, &bytes).unwrap();
        let (mut end, mut hit) = (front, 0);
        for (index, (_, _, chunk)) in chunks.iter().enumerate() {
            hit = index;
            end += 24 + chunk.len();
            if at < end {
                break;
            }
        }
        let mut expected = chunks.clone();
        let (_, _, lost) = expected.remove(hit);
        let mut reader = SpoolReader::new(directory.path().to_path_buf(), Place::default());
        prop_assert_eq!(read(&mut reader, true), (expected, 24 + lost.len() as u64));
    }
}

#[test]
fn reading_can_go_on_from_the_place_of_any_record() {
    let directory = tempfile::tempdir().unwrap();
    let chunks: Vec<Owned> = (0..20)
        .map(|n| (Channel::Stdout, n, vec![b'x'; 50_000]))
        .collect();
    write(directory.path(), &chunks);
    assert!(
        segments(directory.path()).unwrap().len() > 3,
        "it has several segments"
    );
    let mut places = Vec::new();
    let mut reader = SpoolReader::new(directory.path().to_path_buf(), Place::default());
    while let Next::Record(place, ..) = reader.next(true).unwrap() {
        places.push(place);
    }
    assert_eq!(places.len(), chunks.len());
    for (index, place) in places.into_iter().enumerate() {
        let mut reader = SpoolReader::new(directory.path().to_path_buf(), place);
        assert_eq!(read(&mut reader, true), (chunks[index..].to_vec(), 0));
    }
}

#[test]
fn a_full_spool_takes_nothing_more_until_a_segment_is_deleted() {
    let directory = tempfile::tempdir().unwrap();
    let mut writer = writer(directory.path(), MIN_SPOOL_BYTES);
    let bytes = vec![b'x'; MAX_CHUNK_BYTES];
    let record = Record {
        channel: Channel::Stdout,
        time_unix_us: 0,
        bytes: &bytes,
    };
    while writer.append(&record, 0).unwrap() == Appended::Written(bytes.len()) {}
    let held: u64 = segments(directory.path())
        .unwrap()
        .iter()
        .map(|segment| {
            std::fs::metadata(segment_path(directory.path(), *segment))
                .unwrap()
                .len()
        })
        .sum();
    assert!(held <= MIN_SPOOL_BYTES, "{held}");
    assert_eq!(writer.append(&record, 0).unwrap(), Appended::Full);
    let mut reader = SpoolReader::new(directory.path().to_path_buf(), Place::default());
    reader.delete_before(1).unwrap();
    assert_eq!(writer.append(&record, 0).unwrap(), Appended::Written(bytes.len()));
    let missing = Next::Missing {
        segments: 1,
        counted: true,
    };
    assert_eq!(reader.next(false).unwrap(), missing);
}

#[test]
fn a_damaged_front_of_a_segment_costs_no_record_and_is_reported() {
    let directory = tempfile::tempdir().unwrap();
    let chunks: Vec<Owned> = vec![(Channel::Stdout, 1, b"one\n".to_vec())];
    write(directory.path(), &chunks);
    let path = segment_path(directory.path(), 0);
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[20] ^= 4;
    std::fs::write(&path, &bytes).unwrap();
    let mut reader = SpoolReader::new(directory.path().to_path_buf(), Place::default());
    assert_eq!(read(&mut reader, true), (chunks, segment::HEADER_BYTES as u64));
}

#[test]
fn segments_end_with_whole_lines_where_there_are_any() {
    let directory = tempfile::tempdir().unwrap();
    // As a program writes whose output is buffered: pieces that end anywhere.
    let text: Vec<u8> = (0..100_000)
        .flat_map(|n| format!("line {n}\n").into_bytes())
        .collect();
    let chunks: Vec<Owned> = text
        .chunks(4096)
        .map(|piece| (Channel::Stdout, 0, piece.to_vec()))
        .collect();
    let mut spool = writer(directory.path(), 8 * MIN_SPOOL_BYTES);
    for (channel, time_unix_us, bytes) in &chunks {
        append_whole(
            &mut spool,
            Record {
                channel: *channel,
                time_unix_us: *time_unix_us,
                bytes,
            },
        );
    }
    let numbers = segments(directory.path()).unwrap();
    assert!(numbers.len() > 1);
    for number in numbers {
        let mut reader = SpoolReader::new(directory.path().to_path_buf(), Place::start_of(number));
        let Next::Record(_, first, _) = reader.next(true).unwrap() else {
            panic!("segment {number} has a record")
        };
        assert!(first.bytes.starts_with(b"line "), "segment {number}");
    }
}

#[test]
fn a_writer_that_comes_later_goes_on_behind_what_is_there() {
    let directory = tempfile::tempdir().unwrap();
    let chunk = |text: &[u8]| -> Owned { (Channel::Stderr, 0, text.to_vec()) };
    let chunks = [chunk(b"one\ntw"), chunk(b"o\n"), chunk(b"three\n")];
    for chunk in &chunks {
        write(directory.path(), std::slice::from_ref(chunk));
    }
    assert_eq!(segments(directory.path()).unwrap(), [0, 1, 2]);
    let mut reader = SpoolReader::new(directory.path().to_path_buf(), Place::default());
    assert_eq!(read(&mut reader, true), (chunks.to_vec(), 0));
    assert_eq!((reader.totals()[1].bytes, reader.totals()[1].lines), (14, 3));
    // Who begins in the middle knows as much.
    let mut late = SpoolReader::new(directory.path().to_path_buf(), Place::start_of(2));
    assert_eq!(read(&mut late, true).0, chunks[2..]);
    assert_eq!(late.totals(), reader.totals());
}

#[test]
fn a_record_in_the_wrong_segment_is_damaged() {
    let mut bytes = Vec::new();
    let record = Record {
        channel: Channel::Stderr,
        time_unix_us: 7,
        bytes: b"text",
    };
    encode(&record, 3, &mut bytes);
    assert_eq!(decode(&bytes, 3), Decoded::Record(record));
    assert_eq!(decode(&bytes, 4), Decoded::Damaged);
}

#[test]
fn a_reader_beside_the_writer_gets_every_record_and_sees_no_damage() {
    const RECORDS: i64 = 4000;
    let directory = tempfile::tempdir().unwrap();
    std::thread::scope(|threads| {
        threads.spawn(|| {
            let mut writer = writer(directory.path(), 1 << 30);
            let bytes = vec![b'x'; MAX_CHUNK_BYTES];
            for time_unix_us in 0..RECORDS {
                let bytes = &bytes[..bytes.len() - usize::try_from(time_unix_us).unwrap()];
                let record = Record {
                    channel: Channel::Stdout,
                    time_unix_us,
                    bytes,
                };
                append_whole(&mut writer, record);
            }
        });
        read_in_order(directory.path(), RECORDS);
    });
}

#[test]
fn a_reader_that_is_there_before_the_writer_misses_nothing_of_the_first_segments() {
    const RECORDS: i64 = 24;
    let bytes = vec![b'x'; usize::try_from(MIN_SPOOL_BYTES / 32).unwrap()];
    for _ in 0..300 {
        let directory = tempfile::tempdir().unwrap();
        let both = std::sync::Barrier::new(2);
        std::thread::scope(|threads| {
            threads.spawn(|| {
                let mut writer = writer(directory.path(), MIN_SPOOL_BYTES);
                both.wait();
                for time_unix_us in 0..RECORDS {
                    let record = Record {
                        channel: Channel::Stdout,
                        time_unix_us,
                        bytes: &bytes,
                    };
                    append_whole(&mut writer, record);
                }
            });
            both.wait();
            read_in_order(directory.path(), RECORDS);
        });
    }
}
