//! The UDP port of a session: the one wished for, else the first free one, else the first that another session gives back.
//! Who starts fifty transfers at once shall see them queue, not fail.

use std::fs::File;
use std::io::{ErrorKind, Read as _};
use std::os::fd::AsFd as _;
use std::time::{Duration, Instant};

use haul_io::carrier::UdpCarrier;
use haul_proto::control::{LineDecoder, Offer, Refusal, Trouble};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::policy::SessionPolicy;

/// A session waits so long for a port.
const PATIENCE: Duration = Duration::from_secs(15 * 60);

/// What a client may say meanwhile, bytes: it is kept.
const MOST_HEARD: usize = 256 << 10;

/// Ports are tried again so often.
const PAUSE_MS: u8 = 50;

/// A port, and how long it was waited for.
pub(crate) struct Opened {
    pub(crate) carrier: UdpCarrier,
    pub(crate) waited: Duration,
}

/// Opens a port. What the client says meanwhile goes to `decoder`; one that leaves is waited for no more.
///
/// # Errors
/// If there is none to be had in time, or the client is gone.
pub(crate) fn open(
    policy: &SessionPolicy,
    offer: &Offer,
    input: &mut File,
    decoder: &mut LineDecoder,
) -> Result<Opened, Refusal> {
    let (first, last) = (policy.udp_ports.first, policy.udp_ports.last);
    let wish = offer.udp_port.filter(|wish| (first..=last).contains(wish));
    let begun = Instant::now();
    let mut heard = 0;
    loop {
        let wished =
            wish.map_or(Err(()), |port| UdpCarrier::bind(policy.udp_bind, port..=port).map_err(drop));
        let error = match wished.or_else(|()| UdpCarrier::bind(policy.udp_bind, first..=last)) {
            Ok(carrier) => return Ok(Opened { carrier, waited: begun.elapsed() }),
            Err(error) => error,
        };
        let waited = begun.elapsed();
        if error.kind() != ErrorKind::AddrInUse || waited > PATIENCE {
            return Err(Refusal {
                trouble: Trouble::UdpPort,
                message: format!(
                    "no free UDP port among {first}-{last} within {} s: {error}",
                    waited.as_secs()
                ),
                remedy: "wait for other sessions to end, or widen [udp] ports in the server's configuration"
                    .to_owned(),
            });
        }
        heard += listen(input, decoder)?;
        if heard > MOST_HEARD {
            return Err(Refusal {
                trouble: Trouble::Limit,
                message: format!("more than {MOST_HEARD} bytes were said before the agreement"),
                remedy: String::new(),
            });
        }
    }
}

/// Listens to the client for the time of a pause; how many bytes came.
fn listen(input: &mut File, decoder: &mut LineDecoder) -> Result<usize, Refusal> {
    let mut waiting = [PollFd::new(input.as_fd(), PollFlags::POLLIN)];
    if poll(&mut waiting, PollTimeout::from(PAUSE_MS)) == Ok(0) {
        return Ok(0);
    }
    let mut buffer = [0; 4096];
    match input.read(&mut buffer) {
        Ok(0) | Err(_) => Err(Refusal {
            trouble: Trouble::PeerLost,
            message: "the client left while it waited for a UDP port".to_owned(),
            remedy: String::new(),
        }),
        Ok(count) => {
            decoder.handle_bytes(buffer.get(..count).unwrap_or_default());
            Ok(count)
        }
    }
}
