//! Connections that are closed without a word, after a while.
//!
//! Who is closed at once comes again at once, and a flood of callers costs the relay a processor in nothing but taking
//! and closing connections. Who is closed a little later has waited.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::time::{Instant, sleep_until};

/// How long they are kept. Nothing is read from them.
const TIME: Duration = Duration::from_secs(1);

/// How many are kept at most; the oldest makes room for the newest. What they sent meanwhile lies in the system's
/// buffers.
const MAX: usize = 256;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct TurnedAway {
    /// With the time to close it, oldest first.
    waiting: VecDeque<(Instant, TcpStream)>,
}

impl TurnedAway {
    pub(super) fn put(&mut self, stream: TcpStream) {
        if self.waiting.len() >= MAX {
            self.waiting.pop_front();
        }
        self.waiting.push_back((Instant::now() + TIME, stream));
    }

    /// Closes the oldest when its time is over. Cancel safe; never returns while there is none.
    pub(super) async fn close_next(&mut self) {
        let Some((until, _)) = self.waiting.front() else {
            return std::future::pending().await;
        };
        sleep_until(*until).await;
        self.waiting.pop_front();
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use tokio::io::AsyncReadExt as _;
    use tokio::net::TcpListener;

    use super::*;

    #[tokio::test]
    async fn who_is_turned_away_waits_and_the_oldest_makes_room() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let mut turned_away = TurnedAway::default();
        let mut callers = Vec::new();
        let begin = Instant::now();
        for _ in 0..=MAX {
            callers.push(TcpStream::connect(listener.local_addr().unwrap()).await.unwrap());
            turned_away.put(listener.accept().await.unwrap().0);
        }
        assert_eq!(turned_away.waiting.len(), MAX);
        let mut byte = [0];
        assert_eq!(
            callers[0].read(&mut byte).await.unwrap(),
            0,
            "the first made room"
        );
        turned_away.close_next().await;
        assert!(begin.elapsed() >= TIME);
        assert_eq!(callers[1].read(&mut byte).await.unwrap(), 0);
    }
}
