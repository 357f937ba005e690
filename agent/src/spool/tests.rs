#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::path::Path;

use millstream_proto::v1::Channel;
use proptest::prelude::*;

use super::reader::{Next, Place, SpoolReader};
use super::record::{Decoded, MAX_CHUNK_BYTES, Record, decode, encode};
use super::writer::{Appended, SpoolWriter};
use super::{MIN_SPOOL_BYTES, segment_path, segments};

type Owned = (Channel, i64, Vec<u8>);

fn chunks() -> impl Strategy<Value = Vec<Owned>> {
    let channel = prop_oneof![Just(Channel::Stdout), Just(Channel::Stderr)];
    prop::collection::vec(
        (channel, any::<i64>(), prop::collection::vec(any::<u8>(), 0..60)),
        1..12,
    )
}

fn write(directory: &Path, chunks: &[Owned]) {
    let mut writer = SpoolWriter::new(directory.to_path_buf(), MIN_SPOOL_BYTES);
    for (channel, time_unix_us, bytes) in chunks {
        let record = Record {
            channel: *channel,
            time_unix_us: *time_unix_us,
            bytes,
        };
        assert_eq!(writer.append(&record).unwrap(), Appended::Written);
    }
}

/// Everything to the end, and the bytes that were reported as damaged.
fn read(reader: &mut SpoolReader, finished: bool) -> (Vec<Owned>, u64) {
    let (mut found, mut damaged) = (Vec::new(), 0);
    loop {
        match reader.next(finished).unwrap() {
            Next::Record(_, record) => {
                found.push((record.channel, record.time_unix_us, record.bytes.to_vec()));
            }
            Next::Damaged { bytes } => damaged += bytes,
            Next::Missing { segments } => panic!("{segments} segments are missing"),
            Next::End => return (found, damaged),
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

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
        let mut ends = vec![0];
        for (_, _, bytes) in &chunks {
            ends.push(ends.last().unwrap() + 24 + bytes.len());
        }
        for cut in (0..=whole.len()).rev() {
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
        let at = at.index(bytes.len());
        bytes[at] ^= 1 << bit;
        std::fs::write(&path, &bytes).unwrap();
        let (mut end, mut hit) = (0, 0);
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
    while let Next::Record(place, _) = reader.next(true).unwrap() {
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
    let mut writer = SpoolWriter::new(directory.path().to_path_buf(), MIN_SPOOL_BYTES);
    let bytes = vec![b'x'; MAX_CHUNK_BYTES];
    let record = Record {
        channel: Channel::Stdout,
        time_unix_us: 0,
        bytes: &bytes,
    };
    while writer.append(&record).unwrap() == Appended::Written {}
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
    assert_eq!(writer.append(&record).unwrap(), Appended::Full);
    let mut reader = SpoolReader::new(directory.path().to_path_buf(), Place::default());
    reader.delete_before(1).unwrap();
    assert_eq!(writer.append(&record).unwrap(), Appended::Written);
    assert_eq!(reader.next(false).unwrap(), Next::Missing { segments: 1 });
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
            let mut writer = SpoolWriter::new(directory.path().to_path_buf(), 1 << 30);
            let bytes = vec![b'x'; MAX_CHUNK_BYTES];
            for time_unix_us in 0..RECORDS {
                let bytes = &bytes[..bytes.len() - usize::try_from(time_unix_us).unwrap()];
                let record = Record {
                    channel: Channel::Stdout,
                    time_unix_us,
                    bytes,
                };
                assert_eq!(writer.append(&record).unwrap(), Appended::Written);
            }
        });
        let mut reader = SpoolReader::new(directory.path().to_path_buf(), Place::default());
        let mut expected = 0;
        while expected < RECORDS {
            match reader.next(false).unwrap() {
                Next::Record(_, record) => {
                    assert_eq!(record.time_unix_us, expected);
                    expected += 1;
                }
                Next::End => {}
                other => panic!("{other:?} at record {expected}"),
            }
        }
    });
}
