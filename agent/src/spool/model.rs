//! The spool against a model: a writer that is killed between any two of its operations on the disk or in the
//! middle of one, a reader that acknowledges and starts again, both policies.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use millstream_proto::v1::Channel;
use proptest::prelude::*;

use super::reader::{Next, Place, SpoolReader};
use super::record::Record;
use super::writer::{Appended, Disk, SpoolWriter};
use super::{Bound, Count, Totals, WhenFull, index_of, segments};

const MAX_BYTES: u64 = 1000;
const SEGMENT_BYTES: u64 = 120;

/// Dies after so many bytes written; every other operation counts as one.
struct Mortal {
    left: usize,
}

impl Mortal {
    fn spend(&mut self, wanted: usize) -> usize {
        let spent = wanted.min(self.left);
        self.left -= spent;
        spent
    }

    fn step(&mut self) -> io::Result<()> {
        if self.spend(1) == 1 { Ok(()) } else { Err(killed()) }
    }
}

/// Nothing after it runs: the test drops the writer.
fn killed() -> io::Error {
    io::Error::other("killed")
}

impl Disk for Mortal {
    fn create(&mut self, path: &Path) -> io::Result<File> {
        self.step()?;
        File::create(path)
    }

    fn rename(&mut self, from: &Path, to: &Path) -> io::Result<()> {
        self.step()?;
        std::fs::rename(from, to)
    }

    fn write(&mut self, file: &File, bytes: &[u8], at: u64) -> io::Result<()> {
        let spent = self.spend(bytes.len());
        file.write_all_at(&bytes[..spent], at)?;
        if spent == bytes.len() {
            Ok(())
        } else {
            Err(killed())
        }
    }

    fn cut(&mut self, file: &File, length: u64) -> io::Result<()> {
        self.step()?;
        file.set_len(length)
    }

    fn remove(&mut self, directory: &Path, segment: u64) -> io::Result<()> {
        self.step()?;
        super::remove_segment(directory, segment)
    }
}

#[derive(Debug, Clone)]
enum Step {
    Append {
        stderr: bool,
        text: Vec<u8>,
    },
    /// The reader takes so many records.
    Read(usize),
    /// What it has read is acknowledged: whole segments go.
    Acknowledge,
    /// The reader starts again at what was acknowledged.
    ReadAgain,
    /// A new writer, as after a crash between two steps.
    WriterAgain,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let text = prop::collection::vec(prop_oneof![3 => b'a'..=b'z', 1 => Just(b'\n')], 1..90);
    let step = prop_oneof![
        8 => (any::<bool>(), text).prop_map(|(stderr, text)| Step::Append { stderr, text }),
        3 => (1..6_usize).prop_map(Step::Read),
        2 => Just(Step::Acknowledge),
        1 => Just(Step::ReadAgain),
        1 => Just(Step::WriterAgain),
    ];
    prop::collection::vec(step, 1..40)
}

/// What has to be in the spool: every byte of each channel that the writer said it had taken.
#[derive(Debug, Default)]
struct Written([Vec<u8>; 3]);

/// What a reader has of it.
#[derive(Debug, Default, Clone)]
struct Got {
    place: Place,
    /// Text by channel that was read or is known to be gone.
    upto: Totals,
    gone: Count,
    damaged: u64,
}

struct World {
    directory: tempfile::TempDir,
    when_full: WhenFull,
    written: Written,
    /// A writer was killed, so a part of one record may be there.
    was_killed: bool,
    reader: SpoolReader,
    got: Got,
    acknowledged: Got,
}

impl World {
    fn new(when_full: WhenFull) -> Self {
        let directory = tempfile::tempdir().unwrap();
        Self {
            reader: SpoolReader::new(directory.path().to_path_buf(), Place::default()),
            directory,
            when_full,
            written: Written::default(),
            was_killed: false,
            got: Got::default(),
            acknowledged: Got::default(),
        }
    }

    fn writer(&self, left: usize) -> SpoolWriter {
        let bound = Bound {
            max_bytes: MAX_BYTES,
            when_full: self.when_full,
        };
        let directory = self.directory.path().to_path_buf();
        SpoolWriter::open_on(Box::new(Mortal { left }), directory, bound, SEGMENT_BYTES).unwrap()
    }

    /// Runs the steps until the writer is killed, then a writer that is not adds two lines.
    fn run(&mut self, steps: &[Step], budget: usize) {
        let mut writer = self.writer(budget);
        for step in steps {
            match step {
                Step::Append { stderr, text } => {
                    let channel = if *stderr { Channel::Stderr } else { Channel::Stdout };
                    if !self.append(&mut writer, channel, text) {
                        break;
                    }
                }
                Step::Read(records) => self.read(*records, false),
                Step::Acknowledge => {
                    self.acknowledged = self.got.clone();
                    self.reader.delete_before(self.got.place.segment).unwrap();
                }
                Step::ReadAgain => self.read_again(),
                Step::WriterAgain => writer = self.writer(budget),
            }
            self.check_bound();
        }
        drop(writer);
        let mut last = self.writer(usize::MAX);
        for text in [b"after\n", b"crash\n"] {
            while !self.append(&mut last, Channel::Stdout, text) {}
        }
    }

    /// False: the writer was killed in it.
    fn append(&mut self, writer: &mut SpoolWriter, channel: Channel, text: &[u8]) -> bool {
        let mut rest = text;
        loop {
            let record = Record {
                channel,
                time_unix_us: 0,
                bytes: rest,
            };
            match writer.append(&record, 0) {
                Ok(Appended::Written(bytes)) => {
                    self.written.0[index_of(channel)].extend_from_slice(&rest[..bytes]);
                    rest = &rest[bytes..];
                    if rest.is_empty() {
                        return true;
                    }
                }
                // What a blocked process waits for.
                Ok(Appended::Full) => {
                    assert_eq!(self.when_full, WhenFull::Block);
                    self.read(usize::MAX, false);
                    self.acknowledged = self.got.clone();
                    self.reader.delete_before(self.got.place.segment).unwrap();
                }
                Ok(Appended::DiskFull) => panic!("this disk has room"),
                Err(error) => {
                    assert_eq!(error.to_string(), "killed");
                    self.was_killed = true;
                    return false;
                }
            }
        }
    }

    fn read_again(&mut self) {
        self.got = self.acknowledged.clone();
        self.reader = SpoolReader::new(self.directory.path().to_path_buf(), self.got.place);
    }

    fn read(&mut self, records: usize, finished: bool) {
        for _ in 0..records {
            match self.reader.next(finished).unwrap() {
                Next::End => return,
                Next::Record(_, record, _) => {
                    let channel = index_of(record.channel);
                    let written = &self.written.0[channel];
                    let at = usize::try_from(self.got.upto[channel].bytes).unwrap();
                    let wanted = &written[at..at + record.bytes.len()];
                    assert_eq!(wanted, record.bytes, "what comes is what was written there");
                    self.got.upto[channel] += Count::of(record.bytes);
                }
                Next::Damaged { bytes } => self.got.damaged += bytes,
                Next::Missing { counted, .. } => {
                    assert!(counted);
                    self.skip_missing();
                }
            }
            self.got.place = self.reader.place();
        }
    }

    /// Both counts of what is gone are exact, and nothing goes but by the policy that says so.
    fn skip_missing(&mut self) {
        assert_eq!(
            self.when_full,
            WhenFull::DropOldest,
            "only a spool that drops loses"
        );
        for (channel, totals) in self.reader.totals().iter().enumerate() {
            let from = usize::try_from(self.got.upto[channel].bytes).unwrap();
            let to = usize::try_from(totals.bytes).unwrap();
            let written = &self.written.0[channel];
            let gone = totals.since(self.got.upto[channel]);
            assert_eq!(gone, Count::of(&written[from..to]));
            self.got.gone += gone;
            self.got.upto[channel] = *totals;
        }
    }

    fn check_bound(&self) {
        let held: u64 = segments(self.directory.path())
            .unwrap()
            .into_iter()
            .map(|segment| {
                super::segment_path(self.directory.path(), segment)
                    .metadata()
                    .unwrap()
                    .len()
            })
            .sum();
        assert!(held <= MAX_BYTES, "{held} bytes are held");
    }

    /// After everything: all that was written was read or is counted as gone, and only a record that a writer
    /// was killed in can be damaged.
    fn check_end(&mut self) {
        self.read_again();
        self.read(usize::MAX, true);
        for (channel, written) in self.written.0.iter().enumerate() {
            assert_eq!(self.got.upto[channel], Count::of(written));
        }
        assert!(self.got.damaged == 0 || self.was_killed);
    }
}

fn policies() -> impl Strategy<Value = WhenFull> {
    prop_oneof![Just(WhenFull::Block), Just(WhenFull::DropOldest)]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn a_killed_writer_loses_nothing_that_it_had_taken(
        steps in steps(), when_full in policies(), budget in 0..6000_usize,
    ) {
        let mut world = World::new(when_full);
        world.run(&steps, budget);
        world.check_end();
    }
}

#[test]
fn a_writer_may_be_killed_at_any_byte_and_between_any_two_operations() {
    let text = |at: usize| -> Vec<u8> {
        (0..=at % 61)
            .map(|n| if n % 11 == 10 { b'\n' } else { b"abcdefg"[n % 7] })
            .collect()
    };
    let mut steps: Vec<Step> = Vec::new();
    for at in 0..36_usize {
        steps.push(Step::Append {
            stderr: at % 3 == 0,
            text: text(at * 7),
        });
        match at % 12 {
            4 => steps.push(Step::Read(7)),
            5 => steps.push(Step::Acknowledge),
            9 => steps.push(Step::ReadAgain),
            _ => {}
        }
    }
    for when_full in [WhenFull::Block, WhenFull::DropOldest] {
        for budget in 0.. {
            let mut world = World::new(when_full);
            world.run(&steps, budget);
            world.check_end();
            if !world.was_killed {
                assert!(budget > 2000, "{budget} bytes and operations");
                break;
            }
        }
    }
}
