//! Reaches the server's TCP port: resolves the name and tries its addresses in overlapping turns, so that one dead
//! address family costs a quarter of a second and not the whole time limit (after RFC 8305).
//!
//! Not here: SSH.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout_at};

use crate::error::{ClientError, Reach, connect_error};

/// How long the TCP connect may take over all addresses.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Head start of one address over the next (RFC 8305, section 8: 250 ms recommended).
const HEAD_START: Duration = Duration::from_millis(250);

/// Connects to the host.
///
/// # Errors
/// If the name has no address (with `ipv6_only`: of that family), or none of them lets us in within ten seconds; `shown`
/// is the host's name for messages.
pub(crate) async fn dial(
    host_name: &str,
    port: u16,
    ipv6_only: bool,
    shown: &str,
) -> Result<TcpStream, ClientError> {
    let deadline = Instant::now() + CONNECT_TIMEOUT;
    let timed_out =
        || ClientError::Connect { host: shown.to_owned(), port, reason: Reach::TimedOut, source: None };
    let unknown = |source| ClientError::UnknownHost { host: host_name.to_owned(), source };
    let lookup = timeout_at(deadline, tokio::net::lookup_host((host_name, port))).await;
    let wanted = |address: &SocketAddr| address.is_ipv6() || !ipv6_only;
    let addresses: Vec<SocketAddr> = match lookup {
        Ok(found) => found.map_err(|error| unknown(Some(error)))?.filter(wanted).collect(),
        Err(_) => {
            return Err(unknown(Some(io::Error::new(
                io::ErrorKind::TimedOut,
                "the name server does not answer",
            ))));
        }
    };
    if addresses.is_empty() {
        return Err(unknown(None));
    }
    tracing::debug!(host = host_name, ?addresses, "resolved");
    let stream = match timeout_at(deadline, race(interleaved(addresses))).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => return Err(connect_error(shown, port, error)),
        Err(_) => return Err(timed_out()),
    };
    // The control conversation is many small messages; Nagle's algorithm would hold them back.
    stream.set_nodelay(true).map_err(|error| connect_error(shown, port, error))?;
    Ok(stream)
}

/// Starts one attempt after the other and takes the first connection; the first error if all fail.
async fn race(mut waiting: VecDeque<SocketAddr>) -> io::Result<TcpStream> {
    let mut attempts = JoinSet::new();
    let mut first_error = None;
    let mut next_start = Instant::now();
    loop {
        tokio::select! {
            () = sleep_until(next_start), if !waiting.is_empty() => {}
            Some(done) = attempts.join_next() => match done {
                Ok(Ok(stream)) => return Ok(stream),
                Ok(Err(error)) => { first_error.get_or_insert(error); }
                Err(stopped) => { first_error.get_or_insert_with(|| io::Error::other(stopped)); }
            },
            else => return Err(first_error.unwrap_or_else(|| io::Error::other("no address to try"))),
        }
        // An attempt's turn came, or one failed: the next may start.
        if let Some(address) = waiting.pop_front() {
            attempts.spawn(TcpStream::connect(address));
            next_start = Instant::now() + HEAD_START;
        }
    }
}

/// Alternates the families, beginning with the one the resolver put first.
fn interleaved(addresses: Vec<SocketAddr>) -> VecDeque<SocketAddr> {
    let first_is_v6 = addresses.first().is_some_and(SocketAddr::is_ipv6);
    let (first, second): (Vec<_>, Vec<_>) =
        addresses.into_iter().partition(|one| one.is_ipv6() == first_is_v6);
    let mut second = second.into_iter();
    let mut order = VecDeque::new();
    for address in first {
        order.push_back(address);
        order.extend(second.next());
    }
    order.extend(second);
    order
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn families_take_turns() {
        let parse =
            |list: &[&str]| list.iter().map(|text| text.parse().unwrap()).collect::<Vec<SocketAddr>>();
        let given = parse(&["[::1]:1", "[::2]:1", "[::3]:1", "1.0.0.1:1", "1.0.0.2:1"]);
        let expected = parse(&["[::1]:1", "1.0.0.1:1", "[::2]:1", "1.0.0.2:1", "[::3]:1"]);
        assert_eq!(Vec::from(interleaved(given)), expected);
    }

    #[tokio::test]
    async fn a_dead_address_does_not_stop_a_live_one() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let dead = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
        let live = listener.local_addr().unwrap();
        let stream = race(VecDeque::from([dead, live])).await.unwrap();
        assert_eq!(stream.peer_addr().unwrap(), live);
        assert_eq!(race(VecDeque::from([dead])).await.unwrap_err().kind(), io::ErrorKind::ConnectionRefused);
    }
}
