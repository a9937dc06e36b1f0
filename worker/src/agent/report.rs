//! Sends outcomes until the coordinator has given its verdict.

use std::time::Duration;

use coord_common::task::{Report, Verdict};
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout_at};
use tracing::{info, warn};

use super::link::Link;

/// Most reports in one message.
const MOST: usize = 64;

/// How long a report waits for others to travel with, while its slot is busy with the next lease.
const GATHER: Duration = Duration::from_millis(3);

/// What took longer than this is reported at once: batches of other models may wait for it, and there
/// are too few such reports to gather.
const SHORT: Duration = Duration::from_millis(10);

/// An outcome on its way.
pub(super) struct Ended {
    pub(super) report: Report,
    /// Whether somebody waits for the coordinator to hear of it.
    pub(super) urgent: bool,
}

impl Ended {
    /// The outcome of work that took so long; `followed` says whether its slot has its next lease at
    /// hand.
    pub(super) fn new(report: Report, followed: bool, took: Duration) -> Self {
        Self { report, urgent: !followed || took > SHORT }
    }
}

/// Sends what comes, as many at once as have gathered meanwhile, each until it is answered.
pub(super) async fn send_reports(link: Link, mut inbox: mpsc::Receiver<Ended>) {
    let mut gathered = Vec::new();
    while let Some(first) = inbox.recv().await {
        gather(first, &mut inbox, &mut gathered).await;
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

/// What travels with a report: all that has ended with it and, while no slot waits for the answer,
/// what ends soon after.
async fn gather(first: Ended, inbox: &mut mpsc::Receiver<Ended>, gathered: &mut Vec<Report>) {
    let until = Instant::now() + GATHER;
    let mut urgent = first.urgent;
    gathered.push(first.report);
    tokio::task::yield_now().await;
    while gathered.len() < MOST {
        let next = match inbox.try_recv() {
            Ok(next) => Some(next),
            Err(_) if urgent => None,
            Err(_) => timeout_at(until, inbox.recv()).await.ok().flatten(),
        };
        let Some(next) = next else { break };
        urgent |= next.urgent;
        gathered.push(next.report);
    }
}
