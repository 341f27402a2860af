//! Every number of the protocol in one place: first what the wire fixes, then what we chose and may tune.

use std::time::Duration;

// ---- fixed by the wire; a change needs a new protocol version ----

/// Version of the protocol that this crate speaks.
pub const PROTOCOL_VERSION: u32 = 1;

/// Clear header of each datagram, bytes. All of it is authenticated.
pub const HEADER_BYTES: usize = 16;

/// AEAD tag at the end of each datagram, bytes (all three ciphers).
pub const TAG_BYTES: usize = 16;

/// Header of a DATA plaintext, bytes.
pub const DATA_HEADER_BYTES: usize = 16;

/// Plaintexts are a multiple of this, bytes: other lengths cost 15 to 20 % of AES-GCM time (measured with ring 0.17.14).
pub const PLAINTEXT_ALIGN: usize = 16;

/// Bytes of a datagram that are not content.
pub const DATA_OVERHEAD: usize = HEADER_BYTES + DATA_HEADER_BYTES + TAG_BYTES;

/// Unit of layout, reading, writing and digesting, bytes. A power of two is a BLAKE3 subtree; 256 KiB stay in a core's
/// second-level cache between the two, and cost no more a byte to write than 1 MiB (measured).
pub const BLOCK_BYTES: u64 = 1 << 18;

/// Trailer after each file's content, bytes: status, digest kind, digest.
pub const TRAILER_BYTES: u64 = 40;

/// A key seals 2^22 packets, then the next epoch's key takes over. RFC 9001 section 6.6 allows 2^23 for AES-GCM at any
/// packet size; half of it costs one HKDF expansion every 1.2 s at 3.5 million packets a second.
pub const EPOCH_SHIFT: u32 = 22;

/// Failed openings after which a session ends. RFC 9001 section 6.6 gives 2^36 for ChaCha20-Poly1305, more for GCM.
pub const FORGERY_LIMIT: u64 = 1 << 36;

/// Packet numbers that the replay window spans. At 3 million packets a second this is 20 ms of reordering.
pub const REPLAY_WINDOW: u64 = 65_536;

/// Content that may be sent before the first report: a receiver must have room for it.
pub const INITIAL_CREDIT: u64 = 64 * BLOCK_BYTES;

/// Manifest bytes that may be sent beyond what the receiver said it has consumed.
pub const MANIFEST_WINDOW: u64 = 4 << 20;

/// Longest name in a manifest, bytes: NAME_MAX of Linux file systems.
pub const MAX_NAME_BYTES: usize = 255;

/// Longest text of a symbolic link, bytes: with its name and attributes it fits into a record.
pub const MAX_LINK_TARGET_BYTES: usize = 3700;

/// Longest manifest record, bytes.
pub const MAX_RECORD_BYTES: usize = 4096;

/// Deepest folder in a manifest.
pub const MAX_DEPTH: u32 = 256;

/// Largest content offset: 48 bits on the wire.
pub const MAX_CONTENT: u64 = (1 << 48) - 1;

/// Runs of held and missing blocks that a verdict on one file may have.
pub const MAX_MISSING_RUNS: usize = 1024;

/// Files of a session that may be wanted in part.
pub const MAX_PARTS: usize = 65_536;

// ---- chosen here; either side may choose otherwise ----

/// Lines of verdicts that wait to be said; then the receiver decides no more.
pub const VERDICTS_WAITING: usize = 256;

/// Files whose verdict is asked of the disk together: more would hold up the blocks behind them.
pub const LOOKS_TOGETHER: usize = 256;

/// Datagram size that every path is assumed to carry, bytes of UDP payload: 1280 (least IPv6 MTU, RFC 8200) less
/// 40 and 8 of headers, rounded down to 16, and RFC 8899's base of 1200.
pub const BASE_DATAGRAM: u16 = 1200;

/// Largest datagram tried, bytes: above 9 KiB records gain nothing (measured on loopback).
pub const MAX_DATAGRAM: u16 = 9200;

/// Size of a datagram on a stream, bytes: four fill a batch, and one a TLS record.
pub const STREAM_DATAGRAM: u16 = 16_240;

/// Largest datagram on a stream, bytes: the longest piece that a DATA packet can say, with all around it.
pub const MAX_STREAM_DATAGRAM: usize = 16_448;

/// A receiving client asks this often whether datagrams arrive in both directions.
pub const ECHO_INTERVAL: Duration = Duration::from_millis(250);

/// Packets that may leave before the peer has answered: the first train, enough to measure dispersion.
pub const FIRST_FLIGHT_PACKETS: u64 = 32;

/// Report interval is RTT / 8 within these bounds.
pub const REPORT_INTERVAL_MIN: Duration = Duration::from_millis(1);
/// See [`REPORT_INTERVAL_MIN`].
pub const REPORT_INTERVAL_MAX: Duration = Duration::from_millis(25);
/// Report interval before the RTT is known.
pub const REPORT_INTERVAL_UNKNOWN: Duration = Duration::from_millis(5);
/// A report goes at once after this many packets.
pub const REPORT_PACKETS: u64 = 320;
/// A report waits for this many packets, but no longer than [`REPORT_PATIENCE`] intervals: so reports stay below half a
/// percent of the forward bytes at any rate.
pub const REPORT_PACKETS_MIN: u64 = 48;
/// See [`REPORT_PACKETS_MIN`].
pub const REPORT_PATIENCE: u32 = 4;
/// On a [short path](SHORT_PATH) a report goes at once after a quarter of the receiver's socket buffer, but at least and at
/// most these bytes.
pub const REPORT_BYTES: (u64, u64) = (64 << 10, 512 << 10);
/// RTT below which what is under way lies in the receiver's socket buffer rather than in the network.
pub const SHORT_PATH: Duration = Duration::from_millis(2);
/// Least that is put into a receiver's socket buffer, however small it says that is, bytes: a few batches, which it can
/// take out while they arrive.
pub const SOCKET_BUFFER_MIN: u64 = 256 << 10;
/// Report interval when nothing arrives any more.
pub const REPORT_INTERVAL_IDLE: Duration = Duration::from_millis(200);
/// Each n-th report covers everything since the sender's floor, the others only the latest intervals.
pub const FULL_REPORT_EVERY: u32 = 8;
/// Intervals that an ordinary report covers, so that a lost report costs one interval and not a repair.
pub const REPORT_HISTORY: usize = 4;
/// Datagrams that one report may take.
pub const REPORT_DATAGRAMS: usize = 16;

/// The sender tells its RTT and its statistics and asks for a sign of life this often.
pub const PING_INTERVAL: Duration = Duration::from_millis(100);
/// Statistics that come sooner after the last ones are passed over: they are written down, and nobody should be able to
/// fill the receiver's disk with them.
pub const STATS_INTERVAL_MIN: Duration = Duration::from_millis(25);
/// As [`PING_INTERVAL`] while the other side has not answered at all.
pub const HELLO_INTERVAL: Duration = Duration::from_millis(50);

/// Time without any authenticated datagram after which a session that has worked is given up.
pub const SILENCE_LIMIT: Duration = Duration::from_secs(75);

/// RTT assumed before the first sample.
pub const INITIAL_RTT: Duration = Duration::from_millis(100);

/// Smallest reordering window, see [`crate::sender`].
pub const REORDER_MIN: Duration = Duration::from_millis(1);

/// A gap between arrivals that is an outage of the link: so many packets, sent over so long. That is six batches (see
/// [`crate::pacer`]), of which an overflowing queue would let something pass.
pub const OUTAGE_PACKETS: usize = 8;
/// See [`OUTAGE_PACKETS`].
pub const OUTAGE_MIN: Duration = Duration::from_millis(3);

/// Content blocks the sender reads beyond the one it is sending, to begin with.
pub const READ_AHEAD_BLOCKS: u64 = 2;
/// The same when the disk has often kept the sender waiting: 32 MiB are 25 ms at 10 Gbit/s.
pub const READ_AHEAD_BLOCKS_MAX: u64 = 128;
/// A wait for the disk that makes the sender read further ahead. Shorter ones are those of a thread for a processor.
pub const DISK_WAIT: Duration = Duration::from_millis(2);

/// Content that the sender may hold in memory until it is acknowledged, bytes. 1 GiB is the bandwidth-delay product of
/// 10 Gbit/s over 800 ms.
pub const SEND_WINDOW_BYTES: u64 = 1 << 30;

/// Blocks the receiver may hold at the start; the pool then follows twice the bytes of an RTT.
pub const RECEIVE_BLOCKS_MIN: u64 = 64;
/// Blocks the receiver may hold at most.
pub const RECEIVE_BLOCKS_MAX: u64 = 4096;

/// Manifest bytes that wait at the sender before the walk pauses.
pub const MANIFEST_BACKLOG: u64 = 4 << 20;

/// Files, and folders, that a receiver keeps open in its books before it stops consuming the manifest.
pub const PENDING_FILES: usize = 65_536;

/// Gaps that the pieces of one block, or of the manifest window, may leave; honest senders need a tenth.
pub const MAX_GAPS: usize = 8192;

/// Bytes of IPv4 and UDP headers, counted into the rate so that a target equal to the link's rate does not overrun it.
pub const IP_OVERHEAD: u64 = 28;

/// Tail replay may cost this share of the content, or this many bytes if that is more.
pub const TAIL_REPLAY_SHARE: f64 = 0.004;
/// See [`TAIL_REPLAY_SHARE`].
pub const TAIL_REPLAY_BYTES: u64 = 1 << 20;
