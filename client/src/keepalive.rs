//! A run that stays (`--keepalive`): the program behind the management port names sources, and what waits together is
//! transferred together, until it says that there are no more. Each lot is a session of its own.

use haul_proto::control::PathText;
use tokio::sync::mpsc;

use crate::config::{Route, TransferRequest};
use crate::input::Said;
use crate::management::SourceOrder;
use crate::progress::Summary;
use crate::target::local_path;

/// Most sources of one lot.
const MOST: usize = 1024;

/// The next sources that wait; none once the program has said that there are no more.
pub(crate) async fn next_lot(sources: &mut mpsc::Receiver<SourceOrder>) -> Option<Vec<SourceOrder>> {
    let mut lot = vec![sources.recv().await?];
    while lot.len() < MOST
        && let Ok(order) = sources.try_recv()
    {
        lot.push(order);
    }
    Some(lot)
}

/// The request for this lot: a source that is missing fails by itself, and the destination is a folder.
pub(crate) fn request_for(request: &TransferRequest, lot: &[SourceOrder]) -> TransferRequest {
    let mut request = request.clone();
    request.create_destination = true;
    request.wanted.listed = true;
    let renamed = lot.iter().any(|order| order.destination.is_some());
    request.wanted.targets = if renamed { lot.iter().map(target).collect() } else { Vec::new() };
    request.direction = match request.direction {
        Route::Upload { destination, .. } => Route::Upload {
            sources: lot.iter().map(|order| local_path(&order.source)).collect(),
            destination,
        },
        Route::Download { destination, .. } => {
            Route::Download { sources: lot.iter().map(|order| order.source.clone()).collect(), destination }
        }
    };
    request
}

/// Where a source lands below the destination: as ordered, else under its own name.
fn target(order: &SourceOrder) -> PathText {
    let own = || {
        let name = order.source.as_bytes().split(|&byte| byte == b'/').rfind(|name| !name.is_empty());
        PathText::new(name.unwrap_or_default())
    };
    order.destination.clone().unwrap_or_else(own)
}

/// Passes on what the driver says to the session of one lot. Never ends.
pub(crate) async fn pass_on(said: &mut mpsc::Receiver<Said>, to: mpsc::Sender<Said>) {
    while let Some(one) = said.recv().await {
        if to.send(one).await.is_err() {
            break;
        }
    }
    // The session hears nothing more, and goes on.
    drop(to);
    std::future::pending().await
}

/// Adds what one lot came to.
pub(crate) fn add(total: &mut Summary, lot: Summary) {
    total.files += lot.files;
    total.bytes += lot.bytes;
    total.failed += lot.failed;
    total.skipped += lot.skipped;
    total.skipped_bytes += lot.skipped_bytes;
    total.failures.extend(lot.failures);
    total.failures.truncate(haul_proto::control::MAX_REPORTED_FAILURES);
    total.seconds += lot.seconds;
    total.carrier = lot.carrier;
    total.rtt_ms = lot.rtt_ms.or(total.rtt_ms);
    total.packets += lot.packets;
    total.lost_packets += lot.lost_packets;
    total.retransmitted_bytes += lot.retransmitted_bytes;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn order(source: &str, destination: Option<&str>) -> SourceOrder {
        SourceOrder { source: PathText::new(source), destination: destination.map(PathText::new) }
    }

    #[test]
    fn sources_land_as_ordered_else_under_their_names() {
        for (source, destination, lands) in
            [("/a/b", None, "b"), ("/a/b/", None, "b"), ("/a/b", Some("x/y"), "x/y"), ("f", None, "f")]
        {
            assert_eq!(target(&order(source, destination)), PathText::new(lands), "{source}");
        }
    }

    #[tokio::test]
    async fn what_waits_together_is_one_lot_and_the_end_is_the_end() {
        let (name, mut sources) = mpsc::channel(8);
        for source in ["a", "b"] {
            name.send(order(source, None)).await.unwrap();
        }
        assert_eq!(next_lot(&mut sources).await.unwrap().len(), 2);
        drop(name);
        assert_eq!(next_lot(&mut sources).await, None);
    }
}
