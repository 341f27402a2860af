//! A sender and a receiver joined by two simulated links, with a simulated disk at either end.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, VecDeque};
use std::net::SocketAddr;
use std::time::Duration;

use haul_proto::constants::BLOCK_BYTES;
use haul_proto::control::{Cipher, SecretHalf};
use haul_proto::crypto::{Seat, SessionSecret};
use haul_proto::disk::{BlockWrite, DiskDone, DiskRequest, FileEntry, Looked};
use haul_proto::layout::Layout;
use haul_proto::link::LinkConfig as Wire;
use haul_proto::manifest::{Attributes, Record, Trailer};
use haul_proto::rate::RateConfig;
use haul_proto::receiver::{Receiver, ReceiverConfig};
use haul_proto::sender::{Sender, SenderConfig};
use haul_proto::stats::Sample;
use haul_proto::verdict::{Decision, Verdict, Verdicts, Wanted as _};

use crate::link::{Dice, Link, LinkConfig};

/// A file of the simulated source.
#[derive(Clone)]
pub struct SimFile {
    pub folder: u64,
    pub name: Vec<u8>,
    pub content: Vec<u8>,
}

pub struct Scene {
    pub seed: u64,
    pub forward: LinkConfig,
    pub back: LinkConfig,
    pub folders: u64,
    pub files: Vec<SimFile>,
    pub rate: RateConfig,
    pub cipher: Cipher,
    /// Keys change every 2^shift packets.
    pub epoch_shift: u32,
    pub read_delay: Duration,
    pub write_delay: Duration,
    /// The client is the sender (upload), or the receiver (download).
    pub upload: bool,
    /// The client's address changes at these times.
    pub moves: Vec<Duration>,
    pub deadline: Duration,
    /// What the receiver needs of each file; none: the transfer goes without verdicts.
    pub verdicts: Option<Vec<Verdict>>,
    /// Of the files that are wanted in part, those of which the receiver holds something else.
    pub wrong: Vec<u64>,
}

impl Scene {
    pub fn new(seed: u64) -> Self {
        Self {
            seed,
            forward: LinkConfig::default(),
            back: LinkConfig::default(),
            folders: 0,
            files: Vec::new(),
            rate: RateConfig::default(),
            cipher: Cipher::Aes128Gcm,
            epoch_shift: 22,
            read_delay: Duration::ZERO,
            write_delay: Duration::ZERO,
            upload: true,
            moves: Vec::new(),
            deadline: Duration::from_secs(600),
            verdicts: None,
            wrong: Vec::new(),
        }
    }

    pub fn file(mut self, size: usize) -> Self {
        let mut dice = Dice(self.seed ^ 0xf11e ^ self.files.len() as u64);
        let mut content = vec![0; size];
        content.chunks_mut(8).for_each(|chunk| {
            let bytes = dice.next().to_le_bytes();
            chunk.copy_from_slice(&bytes[..chunk.len()]);
        });
        let name = format!("file {}", self.files.len()).into_bytes();
        self.files.push(SimFile { folder: 0, name, content });
        self
    }
}

#[derive(Debug)]
pub struct Ending {
    /// From the start to the sender's knowledge that all is stored.
    pub time: Duration,
    pub forward: crate::link::LinkStats,
    pub back: crate::link::LinkStats,
    pub retransmitted: u64,
    pub lost: u64,
    pub rejected: u64,
    pub datagram: u16,
    /// What the sender told about itself, as either end saw it.
    pub sent_samples: Vec<Sample>,
    pub heard_samples: Vec<Sample>,
}

enum Event {
    ToReceiver(SocketAddr, Vec<u8>),
    ToSender(SocketAddr, Vec<u8>),
    Read(u64, Vec<u8>),
    Stored(DiskDone),
    Verdicts(Verdicts),
}

struct Clocked {
    at: Duration,
    order: u64,
    event: Event,
}

impl PartialEq for Clocked {
    fn eq(&self, other: &Self) -> bool {
        (self.at, self.order) == (other.at, other.order)
    }
}
impl Eq for Clocked {}
impl PartialOrd for Clocked {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Clocked {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at, self.order).cmp(&(other.at, other.order))
    }
}

struct World {
    queue: BinaryHeap<Reverse<Clocked>>,
    order: u64,
    now: Duration,
}

impl World {
    fn post(&mut self, at: Duration, event: Event) {
        self.order += 1;
        self.queue.push(Reverse(Clocked { at, order: self.order, event }));
    }
}

fn client_address(moved: usize) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, 1], 4000 + moved as u16))
}

fn server_address() -> SocketAddr {
    SocketAddr::from(([10, 0, 0, 2], 33001))
}

/// What the simulated receiver's disk holds: file id to bytes and pieces still to come.
type Stored = HashMap<u64, (Vec<u8>, u64)>;

/// Runs the transfer to its end and checks every byte. The error names what went wrong.
pub fn run(scene: Scene) -> Result<Ending, String> {
    let halves = (SecretHalf::new([3; 32]), SecretHalf::new([4; 32]));
    let secret = SessionSecret::new(scene.cipher, "5e551011", &halves.0, &halves.1)
        .with_epoch_shift(scene.epoch_shift);
    let wire = |seat| Wire {
        seat,
        connection_id: 0xc0ffee,
        secret: secret.clone(),
        peer: (seat == Seat::Client).then(server_address),
        proven: None,
        challenge_key: SecretHalf::new([5; 32]),
    };
    let (near, far) = if scene.upload { (Seat::Client, Seat::Server) } else { (Seat::Server, Seat::Client) };
    let start = Duration::from_secs(5);
    let verdicts = scene.verdicts.is_some();
    let mut sender = Sender::new(start, &SenderConfig { link: wire(near), rate: scene.rate, verdicts });
    let mut receiver = Receiver::new(
        start,
        &ReceiverConfig { link: wire(far), socket_buffer: 2 << 20, features: Vec::new(), verdicts },
    );
    let Source { records, blocks, needs } = source(&scene);
    let mut records = records.into_iter();
    let (mut decisions, mut reads) = (Vec::new(), VecDeque::new());
    let mut forward = Link::new(scene.forward.clone(), scene.seed.wrapping_mul(2));
    let mut back = Link::new(scene.back.clone(), scene.seed.wrapping_mul(2) + 1);
    let mut world = World { queue: BinaryHeap::new(), order: 0, now: start };
    let mut stored = Stored::new();
    let mut disk_free = start;
    let mut buffer = Vec::new();
    let mut steps = 0u64;
    let (mut sent_samples, mut heard_samples) = (Vec::new(), Vec::new());
    let moved = |now: Duration| scene.moves.iter().filter(|at| start + **at <= now).count();
    loop {
        steps += 1;
        let now = world.now;
        if now > start + scene.deadline || steps > 20_000_000 {
            return Err(format!(
                "not done after {:?} ({steps} steps): {:?}, sender phase {}",
                now - start,
                receiver.snapshot(),
                sender.phase()
            ));
        }
        while sender.wants_records() {
            let Some(record) = records.next() else { break };
            sender.handle_record(&record).map_err(|error| error.to_string())?;
        }
        sender.handle_timeout(now);
        while let Some(decision) = sender.poll_decision() {
            decisions.push(decision);
        }
        while let Some((block, _)) = sender.poll_read() {
            reads.push_back(block as usize);
        }
        // What a block holds is known when it is known what is wanted of the files in it.
        while let Some(&block) = reads.front()
            && needs[block.min(blocks.len())] <= decisions.len()
        {
            reads.pop_front();
            match blocks.get(block) {
                Some(data) => world.post(now + scene.read_delay, Event::Read(block as u64, data.clone())),
                None => sender.handle_content_end(blocks.len() as u64),
            }
        }
        while let Some(transmit) = sender.poll_transmit(now, &mut buffer) {
            let from = if scene.upload { client_address(moved(now)) } else { server_address() };
            // What goes to an address that the client has left is lost.
            if scene.upload || transmit.to == client_address(moved(now)) {
                for datagram in buffer[..transmit.length].chunks(transmit.segment) {
                    for (at, datagram) in forward.send(now, datagram) {
                        world.post(at, Event::ToReceiver(from, datagram));
                    }
                }
            }
        }
        while let Some(request) = receiver.poll_disk() {
            disk_free = disk_free.max(now) + scene.write_delay;
            let done = store(request, &mut stored, &scene);
            world.post(disk_free, Event::Stored(done));
        }
        while let Some(transmit) = receiver.poll_transmit(now, &mut buffer) {
            let from = if scene.upload { server_address() } else { client_address(moved(now)) };
            if !scene.upload || transmit.to == client_address(moved(now)) {
                for (at, datagram) in back.send(now, &buffer[..transmit.length]) {
                    world.post(at, Event::ToSender(from, datagram));
                }
            }
        }
        while let Some(line) = receiver.poll_verdicts() {
            world.post(now + scene.back.delay, Event::Verdicts(line));
        }
        sent_samples.extend(sender.poll_sample());
        heard_samples.extend(receiver.poll_sample());
        if sender.is_complete() {
            break;
        }
        let timer = sender.poll_timeout().min(receiver.poll_timeout()).max(now + Duration::from_nanos(100));
        match world.queue.peek() {
            Some(Reverse(next)) if next.at <= timer => {
                let Some(Reverse(next)) = world.queue.pop() else { continue };
                world.now = now.max(next.at);
                deliver(world.now, next.event, &mut sender, &mut receiver)?;
            }
            _ => world.now = timer,
        }
    }
    verify(&scene, &stored, &receiver)?;
    check_decisions(&scene, &decisions)?;
    let stats = sender.stats();
    Ok(Ending {
        time: world.now - start,
        forward: forward.stats,
        back: back.stats,
        retransmitted: stats.retransmitted_bytes,
        lost: stats.lost_packets,
        rejected: receiver.link().stats().rejected + sender.link().stats().rejected,
        datagram: stats.datagram,
        sent_samples,
        heard_samples,
    })
}

fn deliver(now: Duration, event: Event, sender: &mut Sender, receiver: &mut Receiver) -> Result<(), String> {
    match event {
        Event::ToReceiver(from, mut datagram) => receiver.handle_datagram(now, from, &mut datagram),
        Event::ToSender(from, mut datagram) => sender.handle_datagram(now, from, &mut datagram),
        Event::Read(block, data) => {
            sender.handle_block(block, data);
            Ok(())
        }
        Event::Stored(done) => receiver.handle_disk(done),
        Event::Verdicts(line) => sender.handle_verdicts(&line),
    }
    .map_err(|error| error.to_string())
}

/// What the simulated sender's disk would tell.
struct Source {
    records: Vec<Record>,
    blocks: Vec<Vec<u8>>,
    /// How many decisions must be there before each block, and the end, can be read.
    needs: Vec<usize>,
}

fn source(scene: &Scene) -> Source {
    let attributes = Attributes { mode: 0o644, ..Attributes::default() };
    let mut records = Vec::new();
    for folder in 0..scene.folders {
        let name = format!("folder {folder}").into_bytes();
        records.push(Record::Folder { parent: folder / 2, name, attributes });
    }
    let mut layout = Layout::default();
    // Where what is wanted stands: file, what of it, how many decisions it takes to know.
    let mut wanted = Vec::new();
    for (id, file) in scene.files.iter().enumerate() {
        let size = file.content.len() as u64;
        records.push(Record::File { parent: file.folder, name: file.name.clone(), size, attributes });
        let decided = scene.verdicts.as_ref().map_or(0, |_| id + 1);
        let missing = match scene.verdicts.as_ref().map_or(&Verdict::All, |verdicts| &verdicts[id]) {
            Verdict::Skip => continue,
            Verdict::All => None,
            Verdict::Part(missing) => Some(missing.clone()),
        };
        let extent = layout.push(missing.wanted_bytes(size)).expect("simulated files are small");
        wanted.push((file, missing, extent, decided));
    }
    let parts = scene.verdicts.iter().flatten().any(|verdict| matches!(verdict, Verdict::Part(_)));
    let all = scene.verdicts.as_ref().map_or(0, |verdicts| verdicts.len() + usize::from(parts));
    if parts {
        layout.break_block();
    }
    for &id in &scene.wrong {
        let file = &scene.files[id as usize];
        let extent = layout.push(file.content.len() as u64).expect("simulated files are small");
        wanted.push((file, None, extent, all));
    }
    layout.finish();
    let bytes = scene.files.iter().map(|file| file.content.len() as u64).sum();
    records.push(Record::End { files: scene.files.len() as u64, folders: scene.folders, bytes });
    let mut blocks: Vec<Vec<u8>> = (0..layout.settled_blocks())
        .map(|block| vec![0; layout.used(block).expect("settled") as usize])
        .collect();
    let mut needs = vec![0; blocks.len()];
    for (file, missing, extent, decided) in &wanted {
        for position in (0..extent.size).step_by(BLOCK_BYTES as usize) {
            let from = missing.file_offset(position) as usize;
            let count = (extent.size - position).min(BLOCK_BYTES) as usize;
            put(&mut blocks, extent.offset + position, &file.content[from..from + count]);
        }
        let trailer = Trailer::whole(Some(checksum(&file.content))).encode();
        put(&mut blocks, extent.trailer, &trailer);
        for block in extent.offset / BLOCK_BYTES..=extent.trailer / BLOCK_BYTES {
            needs[block as usize] = *decided;
        }
    }
    needs.push(all);
    Source { records, blocks, needs }
}

fn check_decisions(scene: &Scene, decisions: &[Decision]) -> Result<(), String> {
    let Some(verdicts) = &scene.verdicts else { return Ok(()) };
    let mut parts = Vec::new();
    let mut expected = Vec::new();
    for (id, verdict) in verdicts.iter().enumerate() {
        if matches!(verdict, Verdict::Part(_)) {
            parts.push(id as u64);
        }
        expected.push(Decision::File(verdict.clone()));
    }
    if !parts.is_empty() {
        let place = |id: &u64| parts.iter().position(|part| part == id).expect("wrong ones are parts") as u64;
        expected.push(Decision::Again(scene.wrong.iter().map(place).collect()));
    }
    if decisions == expected { Ok(()) } else { Err("other decisions than verdicts".to_owned()) }
}

/// Stands in for the digest, which the core does not compute.
fn checksum(content: &[u8]) -> [u8; 32] {
    let mut state = Dice(content.len() as u64);
    for &byte in content {
        state.0 = state.0.rotate_left(9) ^ u64::from(byte);
    }
    let mut sum = [0; 32];
    sum.chunks_mut(8).for_each(|chunk| chunk.copy_from_slice(&state.next().to_le_bytes()));
    sum
}

fn put(blocks: &mut [Vec<u8>], offset: u64, bytes: &[u8]) {
    let (mut at, mut rest) = (offset, bytes);
    while !rest.is_empty() {
        let start = (at % BLOCK_BYTES) as usize;
        let count = rest.len().min(BLOCK_BYTES as usize - start);
        blocks[(at / BLOCK_BYTES) as usize][start..start + count].copy_from_slice(&rest[..count]);
        at += count as u64;
        rest = &rest[count..];
    }
}

fn store(request: DiskRequest, stored: &mut Stored, scene: &Scene) -> DiskDone {
    let BlockWrite { mut data, pieces, .. } = match request {
        DiskRequest::Folder(_) | DiskRequest::Link(_) => return DiskDone::Folder,
        DiskRequest::Finish => return DiskDone::Finished,
        DiskRequest::Look(files) => {
            let verdicts = scene.verdicts.as_ref().expect("nobody looks without verdicts");
            let looked = |file: FileEntry| {
                let verdict = verdicts[file.id as usize].clone();
                Looked { file, verdict, failure: None }
            };
            return DiskDone::Looked(files.into_iter().map(looked).collect());
        }
        DiskRequest::Block(write) => write,
    };
    let (mut bytes, mut finished, mut wrong) = (0, Vec::new(), Vec::new());
    for piece in pieces {
        let file = &piece.file;
        let (content, left) = stored.entry(file.id).or_insert_with(|| (there(scene, file), file.pieces));
        let from = &data[piece.bytes.clone()];
        if !from.is_empty() {
            content[piece.offset as usize..piece.offset as usize + from.len()].copy_from_slice(from);
        }
        bytes += from.len() as u64;
        *left -= 1;
        if *left == 0 && file.missing.is_some() && scene.wrong.contains(&file.id) {
            stored.remove(&file.id);
            wrong.push(file.id);
        } else if *left == 0 {
            finished.push(file.size);
        }
    }
    // A buffer that comes back carries old bytes, as a real one does.
    data.fill(0xdd);
    DiskDone::Block { buffer: data, stored: bytes, finished, found: Vec::new(), wrong, failed: Vec::new() }
}

/// What the receiver has of a file before its first piece comes.
fn there(scene: &Scene, file: &FileEntry) -> Vec<u8> {
    let mut content = vec![0xee; file.size as usize];
    if let Some(missing) = &file.missing {
        let source = &scene.files[file.id as usize].content;
        for block in missing.held(file.size.div_ceil(BLOCK_BYTES)).flatten() {
            let range = (block * BLOCK_BYTES) as usize..((block + 1) * BLOCK_BYTES).min(file.size) as usize;
            content[range.clone()].copy_from_slice(&source[range]);
        }
    }
    content
}

fn verify(scene: &Scene, stored: &Stored, receiver: &Receiver) -> Result<(), String> {
    let outcome = receiver.outcome();
    let is_skipped =
        |id: usize| scene.verdicts.as_ref().is_some_and(|verdicts| verdicts[id] == Verdict::Skip);
    let (skipped, sent): (Vec<_>, Vec<_>) = (0..scene.files.len()).partition(|&id| is_skipped(id));
    let bytes = |ids: &[usize]| ids.iter().map(|&id| scene.files[id].content.len() as u64).sum::<u64>();
    let told = (outcome.files, outcome.bytes, outcome.skipped, outcome.skipped_bytes, outcome.failed);
    if told != (sent.len() as u64, bytes(&sent), skipped.len() as u64, bytes(&skipped), 0) {
        return Err(format!("wrong outcome: {outcome:?}"));
    }
    for id in sent {
        match stored.get(&(id as u64)) {
            Some((content, 0)) if *content == scene.files[id].content => {}
            _ => return Err(format!("file {id} differs")),
        }
    }
    if skipped.iter().any(|&id| stored.contains_key(&(id as u64))) {
        return Err("a skipped file was sent".to_owned());
    }
    let snapshot = receiver.snapshot();
    match snapshot.bytes_total {
        Some(total) if scene.wrong.is_empty() && snapshot.bytes_done != total => {
            Err(format!("{} of {total} bytes at the end", snapshot.bytes_done))
        }
        _ => Ok(()),
    }
}
