//! Subscriptions against a relay that cuts, repeats, skips and hangs.

mod fake;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use fake::{FakeRelay, Faults};
use futures_util::StreamExt;
use millstream_client::{
    Backoff, Client, ClientOptions, Credentials, Error, Event, Start, Subscription, TailOptions, TokenSource,
};
use tokio::time::timeout;

fn options(start: Start, follow: bool) -> TailOptions {
    TailOptions {
        start,
        follow,
        backoff: Backoff {
            first: Duration::from_millis(1),
            cap: Duration::from_millis(10),
        },
        ..TailOptions::default()
    }
}

async fn next(subscription: &mut Subscription) -> Option<Event> {
    let event = timeout(Duration::from_secs(30), subscription.next()).await;
    event
        .expect("an event within 30 s")
        .expect("a working subscription")
}

type Sequences = BTreeMap<u64, Vec<u64>>;

fn note(event: &Event, seen: &mut Sequences) {
    if let Event::Lines(lines) = event {
        let stream_id = lines.stream().stream_id;
        for line in lines.lines() {
            assert_eq!(
                line.text,
                format!("{stream_id} line {}", line.sequence).as_bytes()
            );
            seen.entry(stream_id).or_default().push(line.sequence);
        }
    }
}

fn lines(stream_id: u64, range: std::ops::Range<u64>) -> Vec<fake::FakeLine> {
    range
        .map(|sequence| format!("{stream_id} line {sequence}").as_str().into())
        .collect()
}

#[tokio::test]
async fn a_subscription_cut_at_random_points_gets_every_line_once_and_in_order() {
    let relay = FakeRelay::start().await;
    for stream_id in 1..=3 {
        relay.add_stream(stream_id, "build-1", "cargo");
        relay.push(stream_id, lines(stream_id, 0..300));
    }
    relay.set_faults(Faults {
        cut_within_bytes: Some(6000),
        repeat_lines: 3,
        ..Faults::default()
    });
    let client = Client::connect_lazy(relay.url().as_str()).unwrap();
    let mut subscription = loop {
        // The first attempt fails openly, so a cut during it is the caller's to repeat.
        match client.tail(options(Start::Beginning, true)).await {
            Ok(subscription) => break subscription,
            Err(error) => assert!(
                matches!(error, Error::Unreachable { .. } | Error::Lost { .. }),
                "{error}"
            ),
        }
    };
    let (mut seen, mut pushed, mut resumed) = (Sequences::new(), 300, 0);
    while seen.values().map(Vec::len).sum::<usize>() < 4 * 900 {
        let event = next(&mut subscription).await.unwrap();
        note(&event, &mut seen);
        resumed += u32::from(matches!(event, Event::Resumed { .. }));
        // Lines keep coming, and a fourth stream appears in the middle.
        if pushed < 900 && seen.values().map(Vec::len).sum::<usize>() > 3 * pushed / 2 {
            if pushed == 300 {
                relay.add_stream(4, "build-2", "npm");
                relay.push(4, lines(4, 0..300));
            }
            for stream_id in 1..=4 {
                relay.push(stream_id, lines(stream_id, pushed as u64..pushed as u64 + 100));
            }
            pushed += 100;
        }
    }
    for (stream_id, sequences) in &seen {
        assert_eq!(*sequences, (0..900).collect::<Vec<_>>(), "stream {stream_id}");
    }
    assert!(resumed > 0 && relay.cuts() > 0, "the test cut nothing");
    assert!(subscription.repeated_lines() > 0, "the test repeated nothing");
    drop(subscription);
    relay.stop().await;
}

#[tokio::test]
async fn history_read_without_following_is_complete_across_cuts_and_then_ends() {
    let relay = FakeRelay::start().await;
    relay.add_stream(1, "build-1", "cargo");
    relay.push(1, lines(1, 0..2000));
    let client = Client::connect(relay.url().as_str()).await.unwrap();
    relay.set_faults(Faults {
        cut_within_bytes: Some(8000),
        ..Faults::default()
    });
    let mut subscription = loop {
        if let Ok(subscription) = client.tail(options(Start::Beginning, false)).await {
            break subscription;
        }
    };
    let mut seen = Sequences::new();
    while let Some(event) = next(&mut subscription).await {
        note(&event, &mut seen);
    }
    assert_eq!(seen[&1], (0..2000).collect::<Vec<_>>());
    assert!(relay.cuts() > 0, "the test cut nothing");
}

#[tokio::test]
async fn a_program_goes_on_from_its_resume_point_in_another_process() {
    let relay = FakeRelay::start().await;
    relay.add_stream(1, "build-1", "cargo");
    relay.push(1, lines(1, 0..50));
    let client = Client::connect(relay.url().as_str()).await.unwrap();
    let mut seen = Sequences::new();
    let mut first = client.tail(options(Start::Beginning, true)).await.unwrap();
    while seen.values().flatten().count() < 30 {
        note(&next(&mut first).await.unwrap(), &mut seen);
    }
    let point = first.resume_point();
    drop(first);
    let mut second = client.tail(options(Start::Resume(point), false)).await.unwrap();
    while let Some(event) = next(&mut second).await {
        note(&event, &mut seen);
    }
    assert_eq!(seen[&1], (0..50).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_hole_without_a_gap_is_an_error_that_the_caller_sees() {
    let relay = FakeRelay::start().await;
    relay.add_stream(1, "build-1", "cargo");
    relay.push(1, lines(1, 0..50));
    relay.set_faults(Faults {
        skip_sequence: Some(17),
        ..Faults::default()
    });
    let client = Client::connect(relay.url().as_str()).await.unwrap();
    let mut subscription = client.tail(options(Start::Beginning, false)).await.unwrap();
    let error = loop {
        match subscription.next().await {
            Ok(event) => assert!(event.is_some(), "the hole was not noticed"),
            Err(error) => break error,
        }
    };
    assert!(matches!(
        error,
        Error::MissingLines {
            stream_id: 1,
            expected_sequence: 17,
            got_sequence: 18
        }
    ));
    assert!(
        subscription.next().await.unwrap().is_none(),
        "nothing follows an error"
    );
}

#[tokio::test]
async fn lines_that_retention_removed_are_told_as_a_gap() {
    let relay = FakeRelay::start().await;
    relay.add_stream(1, "build-1", "cargo");
    relay.push(1, lines(1, 0..50));
    relay.set_faults(Faults {
        gap_below: 20,
        ..Faults::default()
    });
    let client = Client::connect(relay.url().as_str()).await.unwrap();
    let subscription = client.tail(options(Start::Beginning, false)).await.unwrap();
    let events: Vec<Event> = subscription.into_stream().map(Result::unwrap).collect().await;
    let gaps: Vec<_> = events
        .iter()
        .filter_map(|event| match event {
            Event::Gap { gap, .. } => Some((gap.first_sequence, gap.next_sequence)),
            _ => None,
        })
        .collect();
    assert_eq!(gaps, [(0, 20)]);
    let mut seen = Sequences::new();
    events.iter().for_each(|event| note(event, &mut seen));
    assert_eq!(seen[&1], (20..50).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_connection_that_says_nothing_is_given_up_and_made_anew() {
    let relay = FakeRelay::start().await;
    relay.add_stream(1, "build-1", "cargo");
    relay.push(1, lines(1, 0..5));
    relay.set_faults(Faults {
        silent_calls: 2,
        ..Faults::default()
    });
    let client = Client::connect(relay.url().as_str()).await.unwrap();
    let silence_limit = Duration::from_millis(100);
    let options = TailOptions {
        silence_limit,
        ..options(Start::Beginning, true)
    };
    let mut subscription = client.tail(options).await.unwrap();
    let (mut seen, mut silences) = (Sequences::new(), 0);
    while seen.is_empty() {
        let event = next(&mut subscription).await.unwrap();
        if let Event::Reconnecting { reason, .. } = &event {
            assert!(reason.to_string().contains("nothing came for"), "{reason}");
            silences += 1;
        }
        note(&event, &mut seen);
    }
    assert_eq!(silences, 2);
}

#[tokio::test]
async fn a_relay_that_is_busy_gets_the_time_that_it_asks_for_and_nothing_is_lost() {
    let relay = FakeRelay::start().await;
    relay.add_stream(1, "build-1", "cargo");
    relay.push(1, lines(1, 0..5));
    let client = Client::connect(relay.url().as_str()).await.unwrap();
    relay.set_faults(Faults {
        busy_calls: 1,
        ..Faults::default()
    });
    // A program that begins is told.
    let refused = client.tail(options(Start::Beginning, true)).await.unwrap_err();
    assert!(
        matches!(refused, Error::Busy { retry_after, .. } if retry_after == fake::BUSY_WAIT),
        "{refused:?}"
    );
    // A subscription that was cut off waits, as often as it has to.
    relay.set_faults(Faults {
        hang_ups: 1,
        busy_calls: 2,
        ..Faults::default()
    });
    let mut subscription = client.tail(options(Start::Beginning, true)).await.unwrap();
    let mut seen = Sequences::new();
    let (mut refusals, mut cut_off) = (0, None);
    while seen.get(&1).is_none_or(|seen| seen.len() < 8) {
        let event = next(&mut subscription).await.unwrap();
        if let Event::Reconnecting { reason, wait, .. } = &event {
            let since = *cut_off.get_or_insert_with(|| {
                relay.push(1, lines(1, 5..8));
                Instant::now()
            });
            if matches!(reason, Error::Busy { .. }) {
                assert!(since.elapsed() >= fake::BUSY_WAIT * refusals, "it came too early");
                assert!(*wait >= fake::BUSY_WAIT, "{wait:?}");
                refusals += 1;
            }
        }
        note(&event, &mut seen);
    }
    assert_eq!(refusals, 2);
    assert!(cut_off.unwrap().elapsed() >= 2 * fake::BUSY_WAIT);
    assert_eq!(seen[&1], (0..8).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_stream_that_appears_during_an_early_disconnect_is_read_from_its_first_line() {
    for (start, first) in [(Start::Now, 5), (Start::LastLines(2), 3)] {
        let relay = FakeRelay::start().await;
        relay.add_stream(1, "build-1", "cargo");
        relay.push(1, lines(1, 0..5));
        relay.set_faults(Faults {
            hang_ups: 1,
            ..Faults::default()
        });
        let client = Client::connect(relay.url().as_str()).await.unwrap();
        let mut subscription = client.tail(options(start, true)).await.unwrap();
        let mut seen = Sequences::new();
        loop {
            let event = next(&mut subscription).await.unwrap();
            assert!(!matches!(event, Event::CaughtUp), "the call ended before");
            if matches!(event, Event::Reconnecting { .. }) {
                break;
            }
        }
        relay.push(1, lines(1, 5..8));
        relay.add_stream(2, "build-1", "npm");
        relay.push(2, lines(2, 0..5));
        while seen.values().map(Vec::len).sum::<usize>() < 8 - first + 5 {
            note(&next(&mut subscription).await.unwrap(), &mut seen);
        }
        assert_eq!(seen[&1], (first as u64..8).collect::<Vec<_>>());
        assert_eq!(seen[&2], (0..5).collect::<Vec<_>>());
        drop(subscription);
        relay.stop().await;
    }
}

#[tokio::test]
async fn a_cursor_of_another_store_ends_the_subscription_with_the_cure() {
    let relay = FakeRelay::start().await;
    relay.add_stream(1, "build-1", "cargo");
    let client = Client::connect(relay.url().as_str()).await.unwrap();
    let mut subscription = client.tail(options(Start::Beginning, true)).await.unwrap();
    while !matches!(next(&mut subscription).await, Some(Event::CaughtUp)) {}
    let point = subscription.resume_point();
    relay.replace_store();
    let error = client
        .tail(options(Start::Resume(point), true))
        .await
        .unwrap_err();
    assert!(matches!(error, Error::CursorOfAnotherStore { .. }), "{error}");
    assert!(error.to_string().contains("start again from"), "{error}");
}

#[tokio::test]
async fn a_relay_that_is_away_is_an_error_at_first_and_a_wait_later() {
    let relay = FakeRelay::start().await;
    relay.add_stream(1, "build-1", "cargo");
    let url = relay.url();
    let client = Client::connect(url.as_str()).await.unwrap();
    let options = TailOptions {
        give_up_after: Some(Duration::ZERO),
        ..options(Start::Beginning, true)
    };
    let mut subscription = client.tail(options).await.unwrap();
    relay.stop().await;
    let error = loop {
        match subscription.next().await {
            Ok(event) => assert!(event.is_some()),
            Err(error) => break error,
        }
    };
    assert!(error.to_string().contains(&url), "{error}");
    let error = Client::connect(url.as_str()).await.unwrap_err().to_string();
    assert!(
        error.contains(&url) && error.contains("is millstream-relay running there?"),
        "{error}"
    );
}

#[tokio::test]
async fn lists_are_paged_and_the_token_goes_with_every_call() {
    let relay = FakeRelay::start().await;
    for stream_id in 1..=5 {
        relay.add_stream(stream_id, "build-1", "cargo");
    }
    let client = Client::connect(ClientOptions {
        url: relay.url(),
        credentials: Credentials {
            token: TokenSource::text("secret-1"),
            ..Credentials::default()
        },
    })
    .await
    .unwrap();
    let streams = client.list_streams("").all().await.unwrap();
    assert_eq!(
        streams.iter().map(|stream| stream.stream_id).collect::<Vec<_>>(),
        [5, 4, 3, 2, 1]
    );
    assert_eq!(client.list_agents().all().await.unwrap().len(), 1);
    let mut watch = client.watch("").await.unwrap();
    let mut watched = 0;
    while watch.next().await.unwrap().is_some() {
        watched += 1;
    }
    assert_eq!(watched, 6);
    assert_eq!(
        relay.tokens().into_iter().collect::<Vec<_>>(),
        ["Bearer secret-1"]
    );
    assert!(
        !format!("{client:?}").contains("secret-1"),
        "a token must not be printed"
    );
}
