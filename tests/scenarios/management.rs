//! The management port, driven over a real socket as programs drive ascp's.

use std::collections::HashMap;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{TcpListener, TcpStream};
use std::time::{Duration, Instant};

use haul_tests::harness::{Client, Pair, Running, ServerOptions};
use haul_tests::tree::{assert_no_partials, assert_same, make_file};

const MIB: u64 = 1 << 20;

/// Nothing comes for so long only if something is wrong.
const PATIENCE: Duration = Duration::from_secs(20);

type Frame = HashMap<String, String>;

/// A program that has started ascp and listens to it.
struct Driver {
    port: BufReader<TcpStream>,
    client: Option<Running>,
}

impl Driver {
    fn start(client: &Client) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port().to_string();
        let client = client.clone().called("ascp").args(["-q", "-M", &port]).spawn();
        listener.set_nonblocking(true).unwrap();
        let begun = Instant::now();
        let stream = loop {
            match listener.accept() {
                Ok((stream, _)) => break stream,
                Err(error) => assert!(begun.elapsed() < PATIENCE, "nobody connects: {error}"),
            }
            std::thread::yield_now();
        };
        stream.set_nonblocking(false).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        Self { port: BufReader::new(stream), client: Some(client) }
    }

    /// The next frame; none at the end.
    fn next(&mut self) -> Option<Frame> {
        let mut frame = Frame::new();
        loop {
            let mut line = String::new();
            if self.port.read_line(&mut line).unwrap() == 0 {
                assert!(frame.is_empty(), "the port ends amid a frame: {frame:?}");
                return None;
            }
            match line.trim_end_matches('\n') {
                "FASPMGR 2" => frame.clear(),
                "" => return Some(frame),
                line => {
                    let (key, value) = line.split_once(": ").unwrap();
                    frame.insert(key.to_owned(), value.to_owned());
                }
            }
        }
    }

    /// Frames up to the first of this type, which is the last one returned.
    fn until(&mut self, kind: &str) -> Vec<Frame> {
        let mut frames = Vec::new();
        while let Some(frame) = self.next() {
            let found = frame["Type"] == kind;
            frames.push(frame);
            if found {
                return frames;
            }
        }
        panic!("no {kind} among {frames:?}");
    }

    fn say(&mut self, fields: &[(&str, &str)]) {
        let lines: String = fields.iter().map(|(key, value)| format!("{key}: {value}\n")).collect();
        let frame = format!("FASPMGR 2\n{lines}\n");
        self.port.get_mut().write_all(frame.as_bytes()).unwrap();
    }

    /// The exit code, once the last frame has been seen.
    fn end(&mut self) -> Option<i32> {
        assert_eq!(self.next(), None, "the last frame is the last");
        self.client.take().unwrap().wait().code()
    }
}

fn kinds(frames: &[Frame]) -> Vec<&str> {
    let mut kinds: Vec<&str> = frames.iter().map(|frame| frame["Type"].as_str()).collect();
    kinds.dedup();
    kinds
}

#[test]
fn a_driver_sees_the_session_its_size_its_progress_and_its_end() {
    let pair = Pair::start(ServerOptions::default());
    make_file(&pair.here().join("f"), 3 * MIB, 1);
    let client =
        pair.server.client().args(["-l", "30m", "-u", "job 7", "f"]).arg(pair.server.destination("g"));
    let mut driver = Driver::start(&client.in_directory(pair.here()));
    let frames = driver.until("DONE");
    assert_eq!(kinds(&frames), ["INIT", "SESSION", "NOTIFICATION", "STATS", "STOP", "ARGSTOP", "DONE"]);
    let of = |kind: &str| frames.iter().rev().find(|frame| frame["Type"] == kind).unwrap();
    assert_eq!((of("INIT")["UserStr"].as_str(), of("SESSION")["Direction"].as_str()), ("job 7", "Send"));
    assert_eq!(of("SESSION")["Rate"], "30000", "in Kbit/s");
    assert_eq!(of("NOTIFICATION")["PreTransferBytes"], (3 * MIB).to_string());
    assert!(of("STATS")["TransferBytes"].parse::<u64>().unwrap() <= 3 * MIB);
    assert_eq!((of("STOP")["File"].as_str(), of("STOP")["Size"].clone()), ("f", (3 * MIB).to_string()));
    let done = of("DONE");
    assert_eq!((done["TransferBytes"].clone(), done["StartByte"].as_str()), ((3 * MIB).to_string(), "0"));
    let session = &of("INIT")["SessionId"];
    assert!(frames.iter().all(|frame| frame["SessionId"] == *session), "{frames:?}");
    assert_eq!(driver.end(), Some(0));
    assert_same(&pair.here().join("f"), &pair.server.docroot().join("g"));
}

#[test]
fn a_driver_changes_the_rate_and_cancels() {
    let pair = Pair::start(ServerOptions::default());
    make_file(&pair.server.docroot().join("f"), 64 * MIB, 1);
    let client = pair.server.client().args(["-l", "8m"]).arg(pair.server.destination("f")).arg(pair.here());
    let mut driver = Driver::start(&client);
    driver.until("STATS");
    driver.say(&[("Type", "RATE"), ("Rate", "24000"), ("MinRate", "1000")]);
    let frames = driver.until("RATE");
    let rate = frames.last().unwrap();
    assert_eq!((rate["Rate"].as_str(), rate["MinRate"].as_str()), ("24000", "1000"), "as granted");
    driver.say(&[("Type", "CANCEL")]);
    let frames = driver.until("ERROR");
    let error = frames.last().unwrap();
    assert_eq!(error["Code"], "28", "{error:?}");
    assert_eq!(driver.end(), Some(1));
    assert!(!pair.here().join("f").exists());
    assert_no_partials(pair.here());
}

#[test]
fn a_run_that_stays_takes_its_sources_from_the_driver() {
    let pair = Pair::start(ServerOptions::default());
    for (at, name) in ["a", "dir/b", "c"].into_iter().enumerate() {
        make_file(&pair.here().join(name), 100_000 + at as u64, at as u64);
    }
    let client = pair.server.client().arg("--keepalive").arg(pair.server.destination("in"));
    let mut driver = Driver::start(&client.in_directory(pair.here()));
    driver.say(&[("Type", "START"), ("Source", "a"), ("Destination", "x/renamed")]);
    driver.say(&[("Type", "START"), ("Source", "dir/b")]);
    driver.until("ARGSTOP");
    driver.until("ARGSTOP");
    driver.say(&[("Type", "START"), ("Source", "missing")]);
    let frames = driver.until("ARGSTOP");
    assert!(kinds(&frames).contains(&"FILEERROR"), "{frames:?}");
    assert_eq!(frames.last().unwrap()["ArgTransfersStatus"], "Failure");
    driver.say(&[("Type", "START"), ("Source", "c")]);
    driver.until("ARGSTOP");
    driver.say(&[("Type", "DONE")]);
    let last = driver.until("ERROR").pop().unwrap();
    assert_eq!((last["Code"].as_str(), last["TransfersPassed"].as_str()), ("27", "3"), "{last:?}");
    assert_eq!(driver.end(), Some(1));
    let root = pair.server.docroot().join("in");
    for (here, there) in [("a", "x/renamed"), ("dir/b", "b"), ("c", "c")] {
        assert_same(&pair.here().join(here), &root.join(there));
    }
}

#[test]
fn a_run_that_cannot_begin_says_so_on_the_port() {
    let pair = Pair::start(ServerOptions::default());
    let destination = pair.server.destination("");
    for (arguments, code) in [(&["--wrong", "f"][..], "8"), (&["missing"], "4")] {
        let client = pair.server.client().args(arguments).arg(&destination);
        let mut driver = Driver::start(&client.in_directory(pair.here()));
        let frames = driver.until("ERROR");
        assert_eq!(kinds(&frames), ["INIT", "ERROR"]);
        assert_eq!(frames.last().unwrap()["Code"], code, "{frames:?}");
        assert_eq!(driver.end(), Some(1));
    }
}
