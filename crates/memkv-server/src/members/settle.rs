//! The wait until the engine's membership is what the member table wants.
//!
//! Changes nothing, so it may be asked again anywhere. Invariant: it ends within its time, and before the node
//! closes its clients' connections.

use std::time::Duration;

use tokio::time::Instant;

use crate::backend::Backend;
use crate::service::Service;

/// The longest wait of one request.
pub(crate) const MAX_WAIT: Duration = Duration::from_secs(60);

/// How often the leader is asked. It looks four times a second what is left to do.
const PAUSE: Duration = Duration::from_millis(250);

/// Waits until nothing is left to be done. The leader is asked once at least, which takes five seconds at most.
///
/// # Errors
/// Why there is, or why that is not known, after this time.
pub(crate) async fn settle<B: Backend>(
    service: &Service<B>,
    within: Duration,
) -> Result<(), String> {
    tokio::select! {
        biased;
        () = service.drain().ending() => Err("this node is stopping; ask another one".to_owned()),
        settled = until_settled(service, within) => settled,
    }
}

async fn until_settled<B: Backend>(service: &Service<B>, within: Duration) -> Result<(), String> {
    let deadline = Instant::now() + within;
    loop {
        let Some(backend) = service.backend() else {
            return Err("this node is loading its data; ask another one".to_owned());
        };
        let asked = backend.members().await.map(|list| list.left_to_do);
        let why = match asked {
            Ok(Some(left)) if left.is_empty() => return Ok(()),
            Ok(Some(left)) => left,
            Ok(None) => {
                let words = "the leader runs a version that does not say what is left to do; look at `member list`";
                return Err(words.to_owned());
            }
            Err(error) => error.to_string(),
        };
        if Instant::now() + PAUSE > deadline {
            let seconds = within.as_secs();
            return Err(format!("still to do after {seconds} s: {why}"));
        }
        tokio::time::sleep(PAUSE).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Fake;

    fn service(left: Option<&str>) -> (Service<Fake>, Fake) {
        let fake = Fake::working();
        fake.has_left_to_do(left);
        let service = Service::new(Duration::from_secs(5));
        service.attach(fake.clone());
        (service, fake)
    }

    #[tokio::test(start_paused = true)]
    async fn it_ends_once_nothing_is_left_or_its_time_is_over() {
        let (service, fake) = service(Some("n4 leaves"));
        let seconds = Duration::from_secs(3);
        assert_eq!(
            settle(&service, seconds).await,
            Err("still to do after 3 s: n4 leaves".to_owned())
        );
        let change = async {
            tokio::time::sleep(PAUSE * 3).await;
            fake.has_left_to_do(Some(""));
        };
        let (settled, ()) = tokio::join!(settle(&service, seconds), change);
        assert_eq!(settled, Ok(()));
    }

    #[tokio::test(start_paused = true)]
    async fn an_older_leader_and_a_stop_end_it_with_a_reason() {
        let (older, _) = service(None);
        let why = settle(&older, MAX_WAIT).await.unwrap_err();
        assert!(why.contains("member list"), "{why}");
        let (stopping, _) = service(Some("n4 leaves"));
        stopping.drain().end();
        let why = settle(&stopping, MAX_WAIT).await.unwrap_err();
        assert!(why.contains("stopping"), "{why}");
    }
}
