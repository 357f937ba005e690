//! `Search` through gRPC: what it finds, in which order, what it says of limits and damage.

#![allow(
    clippy::unwrap_used,
    reason = "clippy exempts functions marked as tests, not their helpers"
)]

mod support;

use std::collections::{BTreeMap, BTreeSet};

use millstream_proto::block::{BlockBuilder, OpenBlock};
use millstream_proto::v1::{self, Filter, SearchOrder, SearchRequest, search_response::Message};
use support::{Agent, Relay, SOON};
use tonic::{Code, Status};

/// What a search sent, in the order in which it came.
#[derive(Debug, Default)]
struct Found {
    /// Stream and sequence of each hit; those of one message stay in its order.
    messages: Vec<Vec<(u64, u64)>>,
    text: BTreeMap<(u64, u64), String>,
    context: Vec<(u64, u64)>,
    announced: BTreeSet<u64>,
    gaps: Vec<v1::Gap>,
    progress: Vec<v1::SearchProgress>,
}

impl Found {
    async fn of(relay: &Relay, request: SearchRequest) -> Result<Self, Status> {
        let mut responses = relay.log().await.search(request).await?.into_inner();
        let mut found = Self::default();
        while let Some(response) = tokio::time::timeout(SOON, responses.message()).await.unwrap()? {
            let message = response.message.unwrap();
            assert!(
                !found.progress.last().is_some_and(|progress| progress.done),
                "nothing follows the end"
            );
            match message {
                Message::Stream(stream) => assert!(found.announced.insert(stream.stream_id)),
                Message::Hits(hits) => {
                    let lines = found.lines(&hits);
                    assert!(lines.is_sorted());
                    found.messages.push(lines);
                }
                Message::Context(context) => {
                    let lines = found.lines(&context);
                    found.context.extend(lines);
                }
                Message::Progress(progress) => found.progress.push(progress),
                Message::Gap(gap) => found.gaps.push(gap),
            }
        }
        assert!(found.end().done, "the end is said");
        Ok(found)
    }

    fn lines(&mut self, lines: &v1::StreamBlock) -> Vec<(u64, u64)> {
        assert!(self.announced.contains(&lines.stream_id), "announced before");
        let open = OpenBlock::open(lines.block.as_ref().unwrap()).unwrap();
        let mut places = Vec::new();
        for line in open.lines() {
            let place = (lines.stream_id, line.sequence);
            let text = String::from_utf8_lossy(line.text).into_owned();
            assert!(
                self.text.insert(place, text).is_none(),
                "{place:?} was sent twice"
            );
            places.push(place);
        }
        places
    }

    /// Hits of a stream in the order in which a reader shows them.
    fn of_stream(&self, stream_id: u64, newest_first: bool) -> Vec<u64> {
        let mut sequences = Vec::new();
        for message in &self.messages {
            let of_stream = message
                .iter()
                .filter(|(id, _)| *id == stream_id)
                .map(|(_, line)| *line);
            let mut lines: Vec<_> = of_stream.collect();
            if newest_first {
                lines.reverse();
            }
            sequences.extend(lines);
        }
        sequences
    }

    fn end(&self) -> &v1::SearchProgress {
        self.progress.last().unwrap()
    }
}

fn substring(text: &str) -> Option<Filter> {
    Some(Filter {
        substring: text.to_owned(),
        ..Filter::default()
    })
}

/// Line `sequence` of the log that these tests search: every 7th line names a target, some are warnings or errors.
fn text(sequence: u64) -> String {
    match sequence % 21 {
        7 => format!("target {sequence}: warning: unused variable"),
        14 => format!("target {sequence}: error: mismatched types"),
        0 => format!("target {sequence}"),
        rest => format!("line {sequence} of kind {rest}, 0 errors"),
    }
}

fn block(first: u64, count: u64) -> v1::Block {
    let mut builder = BlockBuilder::new();
    for sequence in first..first + count {
        let time = i64::try_from(sequence).unwrap() * 1000;
        assert!(builder.push_line(text(sequence).as_bytes(), time, v1::Channel::Stdout, false));
    }
    builder.finish(first).unwrap()
}

/// Writes lines in blocks of ten and waits until they are stored.
async fn write(agent: &mut Agent, handle: u32, lines: u64) -> u64 {
    let opened = agent.open(handle, &format!("/log/{handle}")).await;
    for first in (0..lines).step_by(10) {
        agent.push(handle, block(first, 10.min(lines - first)), b"").await;
    }
    agent.acked(handle, lines).await;
    opened.stream_id
}

fn targets(lines: std::ops::Range<u64>) -> Vec<u64> {
    lines.filter(|sequence| sequence % 7 == 0).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_search_finds_every_line_in_the_order_that_was_asked_for() {
    let relay = Relay::start().await;
    let mut agent = relay.agent("a").await;
    let stream_id = write(&mut agent, 1, 500).await;
    for newest_first in [true, false] {
        let order = if newest_first {
            SearchOrder::NewestFirst
        } else {
            SearchOrder::OldestFirst
        };
        let request = SearchRequest {
            filter: substring("target"),
            order: order.into(),
            ..SearchRequest::default()
        };
        let found = Found::of(&relay, request).await.unwrap();
        let mut expected = targets(0..500);
        if newest_first {
            expected.reverse();
        }
        assert_eq!(found.of_stream(stream_id, newest_first), expected);
        assert!(
            found.messages.len() < 10,
            "hits are packed: {}",
            found.messages.len()
        );
        assert_eq!(found.text[&(stream_id, 14)], text(14));
        let end = found.end();
        assert_eq!((end.hits, end.limit_reached), (expected.len() as u64, false));
        assert_eq!(end.searched_text_bytes, end.total_text_bytes);
        let total: usize = (0..500).map(|sequence| text(sequence).len() + 1).sum();
        assert_eq!(end.searched_text_bytes, total as u64);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_newest_hits_of_several_streams_come_first_and_a_selector_chooses_streams() {
    let relay = Relay::start().await;
    let mut agent = relay.agent("a").await;
    let long = write(&mut agent, 1, 900).await;
    let short = write(&mut agent, 2, 300).await;
    let request = SearchRequest {
        filter: substring("target"),
        max_hits: 20,
        ..SearchRequest::default()
    };
    let found = Found::of(&relay, request.clone()).await.unwrap();
    // Line 300 of the other stream is older than all of these.
    assert_eq!(found.of_stream(long, true).len(), 20);
    assert!(found.end().limit_reached);
    assert_eq!(found.end().hits, 20);

    let of_one = SearchRequest {
        selector: "path=/log/2".to_owned(),
        ..request.clone()
    };
    let found = Found::of(&relay, of_one).await.unwrap();
    let newest: Vec<_> = targets(0..300).into_iter().rev().take(20).collect();
    assert_eq!(found.of_stream(short, true), newest);
    let none = SearchRequest {
        selector: "host=nobody".to_owned(),
        ..request
    };
    let found = Found::of(&relay, none).await.unwrap();
    assert!(found.messages.is_empty());
    assert_eq!(found.end().hits, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_limit_is_kept_and_counting_goes_on_when_asked() {
    let relay = Relay::start().await;
    let mut agent = relay.agent("a").await;
    let stream_id = write(&mut agent, 1, 500).await;
    let all = targets(0..500);
    for order in [SearchOrder::NewestFirst, SearchOrder::OldestFirst] {
        let request = SearchRequest {
            filter: substring("target"),
            order: order.into(),
            max_hits: 5,
            count_all: true,
            ..SearchRequest::default()
        };
        let newest_first = order == SearchOrder::NewestFirst;
        let found = Found::of(&relay, request).await.unwrap();
        let mut expected = all.clone();
        if newest_first {
            expected.reverse();
        }
        expected.truncate(5);
        assert_eq!(found.of_stream(stream_id, newest_first), expected);
        assert_eq!(
            (found.end().hits, found.end().limit_reached),
            (all.len() as u64, true)
        );
        let exactly_all = SearchRequest {
            filter: substring("target"),
            order: order.into(),
            max_hits: u32::try_from(all.len()).unwrap(),
            ..SearchRequest::default()
        };
        let found = Found::of(&relay, exactly_all).await.unwrap();
        assert_eq!(found.end().hits, all.len() as u64);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_next_and_the_previous_hit_from_a_line_are_one_cheap_call_each() {
    let relay = Relay::start().await;
    let mut agent = relay.agent("a").await;
    let stream_id = write(&mut agent, 1, 500).await;
    let errors = Some(Filter {
        severities: vec![v1::Severity::Error.into()],
        ..Filter::default()
    });
    let next = SearchRequest {
        stream_ids: vec![stream_id],
        filter: errors.clone(),
        order: SearchOrder::OldestFirst.into(),
        max_hits: 1,
        from_sequence: 15,
        ..SearchRequest::default()
    };
    let found = Found::of(&relay, next).await.unwrap();
    assert_eq!(found.of_stream(stream_id, false), [35]);
    let looked_at: usize = (10..60).map(|sequence| text(sequence).len() + 1).sum();
    let searched = found.end().searched_text_bytes;
    assert!(searched <= looked_at as u64, "{searched} bytes were searched");
    let previous = SearchRequest {
        stream_ids: vec![stream_id],
        filter: errors,
        order: SearchOrder::NewestFirst.into(),
        max_hits: 1,
        to_sequence: 35,
        ..SearchRequest::default()
    };
    let found = Found::of(&relay, previous).await.unwrap();
    assert_eq!(found.of_stream(stream_id, true), [14]);
}

#[tokio::test(flavor = "multi_thread")]
async fn severities_and_times_choose_lines() {
    let relay = Relay::start().await;
    let mut agent = relay.agent("a").await;
    let stream_id = write(&mut agent, 1, 500).await;
    let request = SearchRequest {
        filter: Some(Filter {
            severities: vec![v1::Severity::Warning.into(), v1::Severity::Error.into()],
            ..Filter::default()
        }),
        order: SearchOrder::OldestFirst.into(),
        since_unix_us: 100_000,
        until_unix_us: 203_000,
        ..SearchRequest::default()
    };
    let found = Found::of(&relay, request).await.unwrap();
    let expected: Vec<_> = (100..203)
        .filter(|sequence| [7, 14].contains(&(sequence % 21)))
        .collect();
    assert_eq!(found.of_stream(stream_id, false), expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn context_is_what_grep_shows_and_no_line_comes_twice() {
    let relay = Relay::start().await;
    let mut agent = relay.agent("a").await;
    let stream_id = write(&mut agent, 1, 300).await;
    for order in [SearchOrder::NewestFirst, SearchOrder::OldestFirst] {
        for context_lines in [1, 3, 4, 30] {
            for needle in ["target", "error:", "target 1", "line 29"] {
                let request = SearchRequest {
                    filter: substring(needle),
                    order: order.into(),
                    context_lines,
                    ..SearchRequest::default()
                };
                let found = Found::of(&relay, request).await.unwrap();
                let is_hit = |sequence: u64| text(sequence).contains(needle);
                let is_shown = |sequence: u64| {
                    let around = sequence.saturating_sub(context_lines.into())
                        ..=(sequence + u64::from(context_lines)).min(299);
                    around.into_iter().any(is_hit)
                };
                let expected: Vec<_> = (0..300)
                    .filter(|sequence| is_shown(*sequence) && !is_hit(*sequence))
                    .map(|sequence| (stream_id, sequence))
                    .collect();
                let mut context = found.context.clone();
                context.sort_unstable();
                assert_eq!(context, expected, "{needle} with {context_lines}, {order:?}");
                for place in context {
                    assert_eq!(found.text[&place], text(place.1));
                }
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_searched_is_refused_with_words() {
    let relay = Relay::start().await;
    let mut agent = relay.agent("a").await;
    let stream_id = write(&mut agent, 1, 10).await;
    let regex = |regex: &str| {
        Some(Filter {
            regex: regex.to_owned(),
            ..Filter::default()
        })
    };
    let request = SearchRequest::default;
    for (request, code, words) in [
        (
            SearchRequest {
                filter: regex("("),
                ..request()
            },
            Code::InvalidArgument,
            "unclosed",
        ),
        (
            SearchRequest {
                filter: regex("(a{1000}){1000}"),
                ..request()
            },
            Code::InvalidArgument,
            "limit",
        ),
        (
            SearchRequest {
                selector: "a b".to_owned(),
                ..request()
            },
            Code::InvalidArgument,
            "position",
        ),
        (
            SearchRequest {
                context_lines: 101,
                ..request()
            },
            Code::InvalidArgument,
            "the limit is 100",
        ),
        (
            SearchRequest {
                max_hits: 1_000_001,
                ..request()
            },
            Code::InvalidArgument,
            "1000000",
        ),
        (
            SearchRequest {
                from_sequence: 1,
                ..request()
            },
            Code::InvalidArgument,
            "one stream_ids",
        ),
        (
            SearchRequest {
                order: 9,
                ..request()
            },
            Code::InvalidArgument,
            "order 9",
        ),
        (
            SearchRequest {
                since_unix_us: -1,
                ..request()
            },
            Code::InvalidArgument,
            "since_unix_us",
        ),
        (
            SearchRequest {
                stream_ids: vec![stream_id, 77],
                ..request()
            },
            Code::NotFound,
            "77",
        ),
    ] {
        let error = Found::of(&relay, request).await.unwrap_err();
        assert_eq!(error.code(), code, "{error}");
        assert!(error.message().contains(words), "{error}");
    }
}

/// Splitmix64, so that a failure names the round and comes again.
struct Random(u64);

impl Random {
    fn index(&mut self, end: usize) -> usize {
        usize::try_from(self.below(end as u64)).unwrap()
    }

    fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % end.max(1)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn any_search_finds_what_looking_at_every_line_finds() {
    let relay = Relay::start().await;
    let mut agent = relay.agent("a").await;
    let mut random = Random(1);
    let lines = 700;
    let opened = agent.open(1, "/log").await;
    let mut first = 0;
    while first < lines {
        let count = (1 + random.below(40)).min(lines - first);
        agent.push(1, block(first, count), b"").await;
        first += count;
    }
    agent.acked(1, lines).await;
    for round in 0..300_u64 {
        let mut random = Random(round);
        let pattern = [
            "target [0-9]+5",
            "^line .*7",
            "",
            "kind 1[0-9]*,",
            "\\bwarning\\b",
            "9$",
            "[^0-9]7[^0-9]",
        ];
        let filter = Filter {
            regex: pattern[random.index(pattern.len())].to_owned(),
            invert: random.below(4) == 0,
            ignore_case: random.below(2) == 0,
            ..Filter::default()
        };
        let (from, to) = (random.below(lines), random.below(lines + 100));
        let newest_first = random.below(2) == 0;
        let request = SearchRequest {
            stream_ids: vec![opened.stream_id],
            filter: Some(filter.clone()),
            order: i32::from(if newest_first {
                SearchOrder::NewestFirst
            } else {
                SearchOrder::OldestFirst
            }),
            max_hits: u32::try_from(1 + random.below(300)).unwrap(),
            from_sequence: from,
            to_sequence: to,
            context_lines: u32::try_from(random.below(3)).unwrap(),
            count_all: random.below(2) == 0,
            ..SearchRequest::default()
        };
        let max_hits = request.max_hits as usize;
        let count_all = request.count_all;
        let found = Found::of(&relay, request).await.unwrap();
        let regex = regex::RegexBuilder::new(&filter.regex)
            .case_insensitive(filter.ignore_case)
            .build()
            .unwrap();
        let end = if to == 0 { lines } else { to.min(lines) };
        // An empty pattern is none, and inverts nothing.
        let keeps = |text: &str| filter.regex.is_empty() || regex.is_match(text) != filter.invert;
        let mut expected: Vec<_> = (from..end).filter(|sequence| keeps(&text(*sequence))).collect();
        if newest_first {
            expected.reverse();
        }
        let all = expected.len();
        expected.truncate(max_hits);
        assert_eq!(
            found.of_stream(opened.stream_id, newest_first),
            expected,
            "round {round}"
        );
        let counted = if count_all { all } else { expected.len() };
        assert_eq!(found.end().hits, counted as u64, "round {round}");
        assert!(all <= max_hits || found.end().limit_reached, "round {round}");
    }
}
