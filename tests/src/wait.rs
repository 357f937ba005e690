//! Waiting for conditions.

use std::time::Duration;

use tokio::time::Instant;

/// How long a step of a test may take on a busy machine with two cores before it counts as hung.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Time between two looks at a condition.
const TICK: Duration = Duration::from_millis(10);

/// Asks `probe` again and again until it has an answer.
///
/// # Panics
/// When there is none after `limit`; `what` then says what was waited for.
pub async fn eventually_within<T>(
    limit: Duration,
    what: &str,
    mut probe: impl AsyncFnMut() -> Option<T>,
) -> T {
    let deadline = Instant::now() + limit;
    loop {
        if let Some(answer) = probe().await {
            return answer;
        }
        assert!(Instant::now() < deadline, "waited {limit:?} in vain: {what}");
        tokio::time::sleep(TICK).await;
    }
}

/// [`eventually_within`] the usual [`PATIENCE`].
pub async fn eventually<T>(what: &str, probe: impl AsyncFnMut() -> Option<T>) -> T {
    eventually_within(PATIENCE, what, probe).await
}

/// Waits until `condition` holds, within [`PATIENCE`].
///
/// # Panics
/// When it does not; `what` then says what was waited for.
pub async fn until(what: &str, mut condition: impl FnMut() -> bool) {
    eventually(what, async || condition().then_some(())).await;
}
