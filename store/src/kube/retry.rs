//! Short faults of the server (429, 503, 504) are waited out: as long as it asks (`Retry-After`), and a while of random
//! length on top of that. It asks all whom it refuses in the same second for the same pause, and is not to have them back at once.

use std::time::Duration;

use http::{Request, Response};
use kube::client::retry::RetryPolicy;
use kube::client::{Body, ClientBuilder};
use kube::{Client, Config};
use tokio::time::{Instant, Sleep, sleep};
use tower::BoxError;
use tower::buffer::BufferLayer;
use tower::retry::{Policy, RetryLayer};

/// Requests that may wait for their turn before whoever has another waits for one of theirs.
const QUEUE: usize = 1024;
/// Pauses where the server asks for none.
const FIRST: Duration = Duration::from_millis(100);
const LONGEST: Duration = Duration::from_secs(30);
/// How often a request is tried again. Whoever asks gives up earlier.
const TRIES: u32 = 15;

/// A client that tries again.
pub(super) fn client(mut config: Config) -> Result<Client, Box<dyn std::error::Error + Send + Sync>> {
    config.default_retry = false;
    let builder = ClientBuilder::try_from(config)?;
    Ok(builder
        .with_layer(&BufferLayer::new(QUEUE))
        .with_layer(&RetryLayer::new(Spread::new()?))
        .build())
}

/// Pauses of the library's own choice, which are the server's where that has one, each up to twice as long.
#[derive(Clone)]
struct Spread(RetryPolicy);

impl Spread {
    fn new() -> Result<Self, BoxError> {
        let pauses = RetryPolicy::new(FIRST, LONGEST, TRIES, true)?;
        Ok(Self(pauses))
    }
}

impl<Answer> Policy<Request<Body>, Response<Answer>, BoxError> for Spread {
    type Future = Sleep;

    fn retry(
        &mut self,
        request: &mut Request<Body>,
        answer: &mut Result<Response<Answer>, BoxError>,
    ) -> Option<Sleep> {
        let asked = self.0.retry(request, answer)?.deadline();
        let asked = asked.saturating_duration_since(Instant::now());
        Some(sleep(asked.saturating_add(asked.mul_f64(rand::random()))))
    }

    fn clone_request(&mut self, request: &Request<Body>) -> Option<Request<Body>> {
        Policy::<Request<Body>, Response<Answer>, BoxError>::clone_request(&mut self.0, request)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// How long one of those waits who are refused so.
    fn pause(code: u16, retry_after: Option<&str>) -> Option<Duration> {
        let mut answer = Response::builder().status(code);
        if let Some(seconds) = retry_after {
            answer = answer.header("Retry-After", seconds);
        }
        let mut answer = Ok(answer.body(()).unwrap());
        let sleep = Spread::new()
            .unwrap()
            .retry(&mut Request::new(Body::empty()), &mut answer)?;
        Some(sleep.deadline() - Instant::now())
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_is_refused_waits_as_long_as_was_asked_and_not_all_as_long() {
        let asked = Duration::from_secs(7);
        let pauses: BTreeSet<Duration> = (0..100).map(|_| pause(429, Some("7")).unwrap()).collect();
        assert!(
            pauses.iter().all(|it| (asked..=asked * 2).contains(it)),
            "{pauses:?}"
        );
        let (first, last) = (pauses.first().unwrap(), pauses.last().unwrap());
        assert!(*last - *first > asked / 2, "{pauses:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn what_no_waiting_helps_is_not_tried_again() {
        assert!(pause(503, None).is_some());
        for code in [200, 403, 404, 409, 410, 500] {
            assert_eq!(pause(code, Some("1")), None, "{code}");
        }
    }
}
