//! Where one stream of a plugin stands, as the relay keeps it in the stream's checkpoint, and what of a plugin's
//! repeated output is skipped after a restart.
//!
//! A plugin need not give a checkpoint with each line. What is stored is its last checkpoint *and how many lines
//! came after it*: a plugin that can resume prints exactly those lines again, and they are skipped. So a line
//! never waits for a checkpoint, and none is stored twice. A hash tells whether the repeated lines are the same.

use bytes::Bytes;
use millstream_proto::v1::Channel;
use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_64_with_seed;

const VERSION: u8 = 1;

/// What times count from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ScopeOfTime {
    Ever,
    /// The start of the machine: another boot is another clock.
    Boot,
}

/// Everything up to here is in the stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Position {
    After(AfterCheckpoint),
    At(AtTime),
}

/// So many lines after the plugin's own checkpoint.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, Serialize)]
pub(super) struct AfterCheckpoint {
    /// `None`: the beginning.
    checkpoint: Option<String>,
    lines: u64,
    hash: u64,
}

/// The time of the last line of each channel, and how many lines had that time.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, Serialize)]
pub(super) struct AtTime {
    /// Which clock the times are of, where there is more than one.
    scope: String,
    stdout: ChannelTime,
    stderr: ChannelTime,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, Serialize)]
struct ChannelTime {
    /// As the command wrote it; empty before the first line.
    text: String,
    /// The same as a number that can be compared.
    key: i64,
    lines: u64,
}

#[derive(Deserialize, Serialize)]
struct Stored<T> {
    version: u8,
    #[serde(flatten)]
    position: T,
}

impl AtTime {
    pub(super) fn new(scope: String) -> Self {
        Self {
            scope,
            ..Self::default()
        }
    }
}

impl Position {
    pub(super) fn encode(&self) -> Bytes {
        let encoded = match self {
            Self::After(position) => serde_json::to_vec(&Stored {
                version: VERSION,
                position,
            }),
            Self::At(position) => serde_json::to_vec(&Stored {
                version: VERSION,
                position,
            }),
        };
        encoded.expect("numbers and text are always JSON").into()
    }

    /// Reads a checkpoint of the same kind as `kind`, which is the beginning. `None` for what this agent did not
    /// write.
    pub(super) fn decode(bytes: &[u8], kind: &Self) -> Option<Self> {
        if bytes.is_empty() {
            return Some(kind.clone());
        }
        fn stored<T: serde::de::DeserializeOwned>(bytes: &[u8]) -> Option<T> {
            let stored: Stored<T> = serde_json::from_slice(bytes).ok()?;
            (stored.version == VERSION).then_some(stored.position)
        }
        match kind {
            Self::After(_) => stored(bytes).map(Self::After),
            Self::At(beginning) => {
                let position: AtTime = stored(bytes)?;
                // Times of another boot say nothing about this one's.
                let same_clock = position.scope == beginning.scope;
                Some(Self::At(if same_clock { position } else { beginning.clone() }))
            }
        }
    }

    /// What to resume the command with.
    pub(super) fn resume_value(&self) -> Option<&str> {
        match self {
            Self::After(position) => position.checkpoint.as_deref(),
            Self::At(position) => {
                let times = [&position.stdout, &position.stderr];
                let seen = times.into_iter().filter(|time| !time.text.is_empty());
                seen.min_by_key(|time| time.key).map(|time| time.text.as_str())
            }
        }
    }
}

/// What to do with a line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Taken {
    /// It is in the stream already.
    Skip,
    /// It is new; the position counts it.
    New,
}

/// Follows one stream through a plugin's output from one start of the plugin to its end.
#[derive(Debug)]
pub(super) struct Tracker {
    position: Position,
    replay: Replay,
}

#[derive(Debug)]
enum Replay {
    None,
    /// Lines of the checkpoint's tail that are still to come again, and the hash of those that came.
    Lines {
        left: u64,
        hash: u64,
    },
    /// Lines of the last time that were seen again, a channel each.
    Times {
        seen: [u64; 2],
        over: [bool; 2],
    },
}

impl Tracker {
    pub(super) fn new(position: Position) -> Self {
        let mut tracker = Self {
            position,
            replay: Replay::None,
        };
        tracker.restart();
        tracker
    }

    pub(super) fn position(&self) -> &Position {
        &self.position
    }

    /// The plugin is started again from the present position.
    pub(super) fn restart(&mut self) {
        self.replay = match &self.position {
            Position::After(position) if position.lines == 0 => Replay::None,
            Position::After(position) => Replay::Lines {
                left: position.lines,
                hash: 0,
            },
            Position::At(position) => Replay::Times {
                seen: [0; 2],
                over: [&position.stdout, &position.stderr].map(|time| time.text.is_empty()),
            },
        };
    }

    /// A plugin that cannot resume begins anew: nothing comes again.
    pub(super) fn begin_anew(&mut self) {
        self.position = Position::After(AfterCheckpoint::default());
        self.replay = Replay::None;
    }

    /// The next line. `Err`: it is new, but lines before it were not what they had been.
    pub(super) fn take(&mut self, text: &[u8]) -> Result<Taken, &'static str> {
        let Position::After(position) = &mut self.position else {
            return Ok(Taken::New);
        };
        if let Replay::Lines { left, hash } = &mut self.replay {
            *hash = xxh3_64_with_seed(text, *hash);
            *left -= 1;
            if *left > 0 {
                return Ok(Taken::Skip);
            }
            let same = *hash == position.hash;
            self.replay = Replay::None;
            return if same {
                Ok(Taken::Skip)
            } else {
                Err(
                    "the lines that it printed again after its checkpoint differ from those of the first time",
                )
            };
        }
        position.lines += 1;
        position.hash = xxh3_64_with_seed(text, position.hash);
        Ok(Taken::New)
    }

    /// A new checkpoint: it covers every line so far.
    pub(super) fn checkpoint(&mut self, checkpoint: String) -> Result<(), &'static str> {
        let early = matches!(self.replay, Replay::Lines { .. });
        self.replay = Replay::None;
        self.position = Position::After(AfterCheckpoint {
            checkpoint: Some(checkpoint),
            ..AfterCheckpoint::default()
        });
        if early {
            return Err("it gave a new checkpoint before it had printed again what followed the last one");
        }
        Ok(())
    }

    /// The next line with a time in front; `None` when it had none, and belongs to the line before.
    pub(super) fn take_at(&mut self, channel: Channel, time: Option<(&str, i64)>) -> Taken {
        let index = usize::from(channel == Channel::Stderr);
        let Position::At(position) = &mut self.position else {
            return Taken::New;
        };
        let at = if index == 0 {
            &mut position.stdout
        } else {
            &mut position.stderr
        };
        if let Replay::Times { seen, over } = &mut self.replay
            && !over[index]
        {
            match time {
                // Without a time of its own it is one more line of the last time.
                Some((_, key)) if key < at.key => return Taken::Skip,
                Some((_, key)) if key > at.key => over[index] = true,
                _ if seen[index] < at.lines => {
                    seen[index] += 1;
                    return Taken::Skip;
                }
                _ => over[index] = true,
            }
        }
        match time {
            Some((text, key)) if key != at.key || at.text.is_empty() => {
                *at = ChannelTime {
                    text: text.to_owned(),
                    key,
                    lines: 1,
                };
            }
            _ => at.lines += 1,
        }
        Taken::New
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn beginning() -> Position {
        Position::After(AfterCheckpoint::default())
    }

    /// A plugin that prints numbered lines and a checkpoint after some of them.
    fn play(tracker: &mut Tracker, checkpoints: &[bool], until: usize, stored: &mut Vec<usize>) {
        let from = tracker
            .position()
            .resume_value()
            .map_or(0, |checkpoint| checkpoint.parse().unwrap());
        for (line, gives_checkpoint) in checkpoints.iter().enumerate().take(until).skip(from) {
            if tracker.take(line.to_string().as_bytes()) == Ok(Taken::New) {
                stored.push(line);
            }
            if *gives_checkpoint {
                tracker.checkpoint((line + 1).to_string()).unwrap();
            }
        }
    }

    proptest! {
        /// However often it is killed, each line is stored once and in order; also when the position goes through
        /// the relay, and when the agent's was ahead of what the relay had stored.
        #[test]
        fn lines_after_a_checkpoint_are_stored_once(
            checkpoints in prop::collection::vec(prop::bool::weighted(0.2), 1..60),
            stops in prop::collection::vec((0_usize..60, any::<bool>()), 0..6),
        ) {
            let mut stored = Vec::new();
            let mut tracker = Tracker::new(beginning());
            for (stop, agent_too) in stops {
                play(&mut tracker, &checkpoints, stop, &mut stored);
                if agent_too {
                    let bytes = tracker.position().encode();
                    tracker = Tracker::new(Position::decode(&bytes, &beginning()).unwrap());
                } else {
                    tracker.restart();
                }
            }
            play(&mut tracker, &checkpoints, checkpoints.len(), &mut stored);
            // A kill in the middle of a replay leaves the rest of it to the next one.
            prop_assert_eq!(stored, (0..checkpoints.len()).collect::<Vec<_>>());
        }

        /// Lines with times, some of them equal, on two channels; the command repeats from the resume time on.
        #[test]
        fn lines_of_equal_time_are_stored_once(
            steps in prop::collection::vec((0_i64..2, any::<bool>()), 1..60),
            stops in prop::collection::vec(0_usize..60, 0..6),
        ) {
            let beginning = Position::At(AtTime::default());
            let mut time = 1;
            let lines: Vec<(i64, Channel)> = steps
                .iter()
                .map(|(step, is_stderr)| {
                    time += step;
                    (time, if *is_stderr { Channel::Stderr } else { Channel::Stdout })
                })
                .collect();
            let mut stored = Vec::new();
            let mut tracker = Tracker::new(beginning.clone());
            let last = lines.len();
            for stop in stops.into_iter().chain([last]) {
                let since: i64 = tracker.position().resume_value().map_or(0, |text| text.parse().unwrap());
                for (index, (time, channel)) in lines.iter().enumerate().take(stop) {
                    let text = time.to_string();
                    if *time >= since && tracker.take_at(*channel, Some((&text, *time))) == Taken::New {
                        stored.push(index);
                    }
                }
                let bytes = tracker.position().encode();
                tracker = Tracker::new(Position::decode(&bytes, &beginning).unwrap());
            }
            stored.sort_unstable();
            prop_assert_eq!(stored, (0..last).collect::<Vec<_>>());
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes: Vec<u8>) {
            let _ = Position::decode(&bytes, &beginning());
            let _ = Position::decode(&bytes, &Position::At(AtTime::default()));
        }
    }

    #[test]
    fn a_plugin_that_prints_something_else_the_second_time_is_noticed() {
        let mut tracker = Tracker::new(beginning());
        for line in ["a", "b"] {
            assert_eq!(tracker.take(line.as_bytes()), Ok(Taken::New));
        }
        tracker.restart();
        assert_eq!(tracker.take(b"a"), Ok(Taken::Skip));
        assert!(tracker.take(b"x").is_err());
        tracker.take(b"c").unwrap();
        tracker.restart();
        assert!(tracker.checkpoint("9".to_owned()).is_err());
    }

    #[test]
    fn times_of_another_boot_are_forgotten() {
        let clock = |scope: &str| {
            Position::At(AtTime {
                scope: scope.to_owned(),
                ..AtTime::default()
            })
        };
        let mut tracker = Tracker::new(clock("one"));
        tracker.take_at(Channel::Stdout, Some(("5.0", 5)));
        let stored = tracker.position().encode();
        assert_eq!(
            Position::decode(&stored, &clock("one")).unwrap().resume_value(),
            Some("5.0")
        );
        assert_eq!(
            Position::decode(&stored, &clock("two")).unwrap().resume_value(),
            None
        );
    }
}
