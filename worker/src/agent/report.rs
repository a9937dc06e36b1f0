//! Sends outcomes until the coordinator has given its verdict.

use coord_common::task::{Report, Verdict};
use tokio::sync::mpsc;
use tracing::{info, warn};

use super::link::Link;

/// Most reports in one message.
const MOST: usize = 64;

/// Sends what comes, as many at once as have gathered meanwhile, each until it is answered.
pub(super) async fn send_reports(link: Link, mut inbox: mpsc::Receiver<Report>) {
    let mut gathered = Vec::new();
    while inbox.recv_many(&mut gathered, MOST).await > 0 {
        // What ends at the same time travels together.
        tokio::task::yield_now().await;
        while gathered.len() < MOST
            && let Ok(ready) = inbox.try_recv()
        {
            gathered.push(ready);
        }
        let verdicts = link.complete(&gathered).await;
        for (token, verdict) in verdicts {
            match verdict {
                Verdict::Recorded => {}
                Verdict::Already => info!(token = token.0, "the outcome had been recorded before"),
                Verdict::Stale => {
                    warn!(token = token.0, "the lease was no longer ours; nothing was recorded");
                }
            }
        }
        gathered.clear();
    }
}
