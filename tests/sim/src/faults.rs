//! What goes wrong, when, and for how long: drawn from the seed.

use std::time::Duration;

use crate::dice::Dice;
use crate::disk::Mood;
use crate::net::Death;

/// One fault of the network, the disk, or a process.
#[derive(Clone, Debug)]
pub(crate) enum Fault {
    /// Nothing passes from the host to the relay or back, or neither way. With `still_connects` connections are made
    /// all the same.
    Partition {
        host: usize,
        is_from_host: bool,
        both_ways: bool,
        still_connects: bool,
    },
    /// Every message takes this long, and no more than so many bytes a millisecond pass.
    SlowLink {
        host: usize,
        latency: Duration,
        bytes_per_ms: Option<u64>,
    },
    /// All connections of the host are reset.
    Reset {
        host: usize,
    },
    /// They are reset after so many bytes more: in the middle of a block.
    Cut {
        host: usize,
        bytes: u64,
        is_answer: bool,
    },
    RelayDies(Death),
    /// At one of the next calls of its store.
    RelayDiesAtCall {
        calls: u64,
        death: Death,
    },
    RelayStops,
    AgentDies {
        agent: usize,
        death: Death,
    },
    AgentStops {
        agent: usize,
    },
    /// Another process with the agent's identity and files connects.
    AgentTwice {
        agent: usize,
    },
    Disk(Mood),
    ReaderIsSlow {
        reader: usize,
    },
    ReaderDies {
        reader: usize,
        events: u64,
    },
}

impl Fault {
    /// Draws one, in a world of so many agents and readers. Hosts are numbered: agents, then readers.
    pub(crate) fn draw(dice: &Dice, agents: usize, readers: usize) -> Self {
        let (host, agent, reader) = (
            dice.size(0..agents + readers),
            dice.size(0..agents),
            dice.size(0..readers),
        );
        let death = dice.pick(&[Death::Killed, Death::PowerCut]);
        match dice.below(0..24) {
            0..=3 => Self::Partition {
                host,
                is_from_host: dice.one_in(2),
                both_ways: dice.one_in(2),
                still_connects: dice.one_in(4),
            },
            4 | 5 => Self::SlowLink {
                host,
                latency: dice.wait(20..4000),
                bytes_per_ms: dice.pick(&[None, Some(1), Some(100)]),
            },
            6 => Self::Reset { host },
            7..=9 => Self::Cut {
                host,
                bytes: dice.below(1..1 << dice.below(4..18)),
                is_answer: dice.one_in(2),
            },
            10 | 11 => Self::RelayDies(death),
            12..=14 => Self::RelayDiesAtCall {
                calls: dice.below(0..1 << dice.below(1..6)),
                death,
            },
            15 => Self::RelayStops,
            16 | 17 => Self::AgentDies { agent, death },
            18 => Self::AgentStops { agent },
            19 => Self::AgentTwice { agent },
            20 | 21 => Self::Disk(dice.pick(&[Mood::Full, Mood::FullBehind, Mood::CannotSync])),
            22 => Self::ReaderIsSlow { reader },
            _ => Self::ReaderDies {
                reader,
                events: dice.below(1..40),
            },
        }
    }

    /// How long it lasts, for those that last.
    pub(crate) fn duration(&self, dice: &Dice) -> Duration {
        match self {
            // Sometimes longer than every ping.
            Self::Partition { .. } => dice.wait(100..60_000),
            Self::AgentTwice { .. } => dice.wait(1000..60_000),
            _ => dice.wait(10..20_000),
        }
    }
}
