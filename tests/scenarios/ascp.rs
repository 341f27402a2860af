//! Called as ascp: published command lines move real files, and what is shown has the forms that programs look for.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use haul_tests::harness::{Client, Outcome, Pair, ServerOptions, make_key};
use haul_tests::require::require;
use haul_tests::tree::{assert_no_partials, assert_same, make_file};

/// The accounts of the published lines.
const USERS: [&str; 16] = [
    "era-fasp",
    "prd_ascp",
    "Webin-12345",
    "aspera01",
    "dbtest",
    "anonftp",
    "subasp",
    "fasp-ml",
    "user",
    "bsaspera",
    "ega-box-12",
    "asp-dbgap",
    "jobuser",
    "fasp-g1k",
    "asp-sra",
    "testuser",
];

/// A server that has the accounts, and a home whose ssh_config leads every name to it.
struct Stage {
    pair: Pair,
}

impl Stage {
    fn set() -> Self {
        let more_users = USERS.iter().map(|&name| name.to_owned()).collect();
        let pair = Pair::start(ServerOptions { more_users, ..ServerOptions::default() });
        let stage = Self { pair };
        let ssh = stage.home().join(".ssh");
        fs::create_dir_all(&ssh).unwrap();
        fs::set_permissions(&ssh, fs::Permissions::from_mode(0o700)).unwrap();
        let (port, key) = (stage.pair.server.port(), stage.pair.server.key());
        let config =
            format!("Host *\n  HostName 127.0.0.1\n  Port {port}\n  IdentityFile {}\n", key.display());
        fs::write(ssh.join("config"), config).unwrap();
        stage
    }

    fn home(&self) -> std::path::PathBuf {
        self.pair.here().join("home")
    }

    /// ascp in the client's folder, with a line as it was published but for port and key.
    fn ascp(&self, line: &str) -> Client {
        let key = self.pair.server.key().display().to_string();
        let line = line.replace("PORT", &self.pair.server.port().to_string()).replace("KEY", &key);
        Client::alone()
            .called("ascp")
            .env("HOME", self.home())
            .args(line.split_whitespace())
            .in_directory(self.pair.here())
    }
}

#[track_caller]
fn complete(outcome: &Outcome, files: &str) {
    outcome.assert_success();
    for words in ["100%", "\nCompleted: ", "K bytes transferred in ", " bits/sec), in "] {
        assert!(outcome.stdout.contains(words), "{words:?} is not on stdout\n{}", outcome.story());
    }
    assert!(outcome.stdout.ends_with(&format!(" bits/sec), in {files}.\n")), "{}", outcome.story());
}

/// Line, path on the server, path here.
const DOWNLOADS: [(&str, &str, &str); 14] = [
    (
        "-k1 -T -l 300m -PPORT -i KEY era-fasp@fasp.sra.ebi.ac.uk:/vol1/fastq/SRR649/SRR6492000_1.fastq.gz in",
        "vol1/fastq/SRR649/SRR6492000_1.fastq.gz",
        "in/SRR6492000_1.fastq.gz",
    ),
    (
        "-T -l 300m -PPORT -k 2 -i KEY era-fasp@fasp.sra.ebi.ac.uk:/vol1/fastq/SRR500/SRR5005053_1.fastq.gz .",
        "vol1/fastq/SRR500/SRR5005053_1.fastq.gz",
        "SRR5005053_1.fastq.gz",
    ),
    (
        "-QT -P PORT -l 100M -i KEY prd_ascp@fasp.ebi.ac.uk:pride/data/2012/sample.mzML in/renamed.mzML",
        "pride/data/2012/sample.mzML",
        "in/renamed.mzML",
    ),
    (
        "-P PORT -i KEY -QT -l 1000m -k1 -d aspera01@download.cncb.ac.cn:gsa3/CRA002399/CRR120307.fastq.gz made/here",
        "gsa3/CRA002399/CRR120307.fastq.gz",
        "made/here/CRR120307.fastq.gz",
    ),
    (
        "-i KEY -pQTk1 -l 1000m dbtest@sra-download.ncbi.nlm.nih.gov:data/sracloud/SRR5353377 SRR5353377.sra",
        "data/sracloud/SRR5353377",
        "SRR5353377.sra",
    ),
    (
        "--mode=recv --host=hsts1.example.com -P PORT --user=user aspera-test-dir-tiny/200KB.1 .",
        "aspera-test-dir-tiny/200KB.1",
        "200KB.1",
    ),
    (
        "-T -i KEY -l 300m --mode=recv --host=fasp.sra.ebi.ac.uk -P PORT --user=era-fasp vol1/ERR164407.fastq.gz in",
        "vol1/ERR164407.fastq.gz",
        "in/ERR164407.fastq.gz",
    ),
    (
        "-i KEY -k1 -T -l400m anonftp@ftp-trace.ncbi.nlm.nih.gov:/geo/GSE10nnn/GSE10101_RAW.tar GSE10101_RAW.tar",
        "geo/GSE10nnn/GSE10101_RAW.tar",
        "GSE10101_RAW.tar",
    ),
    (
        "-QT -l 1g -P PORT fasp-ml@fasp.ebi.ac.uk:/studies/public/MTBLS1 .",
        "studies/public/MTBLS1/a/b.txt",
        "MTBLS1/a/b.txt",
    ),
    ("-PPORT -i KEY bsaspera@fasp-beta.ebi.ac.uk:S-BSST1/file.zip .", "S-BSST1/file.zip", "file.zip"),
    ("-T -v -l 200M -L in testuser@aspera.ihmpdcc.org:50MB ./", "50MB", "50MB"),
    (
        "--ignore-host-key -d -QTl 100m user@xfer.crg.eu:dbox_content data/",
        "dbox_content/x/y",
        "data/dbox_content/x/y",
    ),
    (
        "-T -w f -k1 -l 100M -P PORT -i KEY era-fasp@fasp.sra.ebi.ac.uk:/vol1/SRR576938.fastq.gz in",
        "vol1/SRR576938.fastq.gz",
        "in/SRR576938.fastq.gz",
    ),
    (
        "-i KEY -L in -l 1 -QTr -l 300m anonftp@ftp-trace.ncbi.nlm.nih.gov:/sra/SRR1234567.sra in/SRR1234567",
        "sra/SRR1234567.sra",
        "in/SRR1234567",
    ),
];

/// Line, path here, path on the server.
const UPLOADS: [(&str, &str, &str); 10] = [
    ("-k 1 -QT -l 300M sample1.bam era-fasp@fasp.sra.ebi.ac.uk:./", "sample1.bam", "sample1.bam"),
    (
        "-i KEY -k 1 -T -l200m submission/sample1.fq.gz asp-sra@upload.ncbi.nlm.nih.gov:",
        "submission/sample1.fq.gz",
        "sample1.fq.gz",
    ),
    (
        "-i KEY -QT --mode=send -l 100m -k 1 -d SUB15339249/ subasp@upload.ncbi.nlm.nih.gov:uploads/user_example.org_Ab",
        "SUB15339249/reads",
        "uploads/user_example.org_Ab/SUB15339249/reads",
    ),
    ("-QT -l300M -L- reads_1.gz Webin-12345@webin.ebi.ac.uk:.", "reads_1.gz", "reads_1.gz"),
    (
        "-d -QT -l700M a.fastq.gz Webin-12345@webin.ebi.ac.uk:submission1",
        "a.fastq.gz",
        "submission1/a.fastq.gz",
    ),
    ("-PPORT -O33001 -QT -l300M sample.gpg ega-box-12@fasp.ega.ebi.ac.uk:/", "sample.gpg", "sample.gpg"),
    (
        "-k2 -l1G -P PORT --user=user --host=b.example.net --mode=send file.mp4 dest.mp4",
        "file.mp4",
        "dest.mp4",
    ),
    ("-m 10m -l 1000m -d src user@host.example.com:/dest", "src/a/b", "dest/src/a/b"),
    (
        "-i KEY -Q -l 1000m -k 1 fastq asp-dbgap@gap-submit.ncbi.nlm.nih.gov:protected",
        "fastq/one",
        "protected/one",
    ),
    (
        "--file-checksum=md5 -d --mode=send --overwrite=always -QT -l300M --host=webin.ebi.ac.uk --user=jobuser w run1",
        "w",
        "run1/w",
    ),
];

#[test]
fn published_downloads_arrive_where_they_say() {
    let stage = Stage::set();
    fs::create_dir(stage.pair.here().join("in")).unwrap();
    for (at, (line, there, here)) in DOWNLOADS.into_iter().enumerate() {
        let source = stage.pair.server.docroot().join(there);
        make_file(&source, 10_000 + at as u64, at as u64);
        complete(&stage.ascp(line).run(), "1 file");
        assert_same(&source, &stage.pair.here().join(here));
    }
    assert_no_partials(stage.pair.here());
    let log = fs::read_to_string(stage.pair.here().join("in/aspera-scp-transfer.log")).unwrap();
    assert!(log.contains("has no effect"), "-L writes a log: {log}");
}

#[test]
fn published_uploads_arrive_where_they_say() {
    let stage = Stage::set();
    for (at, (line, here, there)) in UPLOADS.into_iter().enumerate() {
        let source = stage.pair.here().join(here);
        make_file(&source, 10_000 + at as u64, at as u64);
        complete(&stage.ascp(line).run(), "1 file");
        assert_same(&source, &stage.pair.server.docroot().join(there));
    }
    assert_no_partials(&stage.pair.server.docroot());
}

#[test]
fn progress_comes_in_lines_with_a_percentage_and_not_with_q() {
    let stage = Stage::set();
    make_file(&stage.pair.here().join("f"), 3 << 20, 1);
    let loud = stage.ascp("-QT -l 20m f user@h:").run();
    complete(&loud, "1 file");
    let lines: Vec<&str> = loud.stdout.split('\r').filter(|line| line.contains('%')).collect();
    assert!(lines.len() >= 3, "{}", loud.story());
    assert!(lines.iter().all(|line| line.starts_with("f  ")), "{}", loud.story());
    assert!(lines.iter().any(|line| line.contains(" ETA")), "{}", loud.story());
    let quiet = stage.ascp("-q -QT f user@h:").run();
    quiet.assert_success();
    assert!(quiet.stdout.is_empty(), "{}", quiet.story());
}

/// What fails, with what is on stderr as ascp and the exit status as haul.
fn fails(client: &Client, words: &str, code: i32) {
    let ascp = client.clone().called("ascp").run();
    ascp.assert_code(1);
    let named = ascp.stderr.lines().any(|line| line.starts_with("ascp: ") && line.contains(words));
    assert!(named, "{words:?}\n{}", ascp.story());
    assert!(ascp.stdout.contains("\r\nSession Stop  (Error: "), "{}", ascp.story());
    assert!(ascp.stdout.contains(words), "{words:?} on stdout\n{}", ascp.story());
    let haul = client.clone().called("haul").run();
    haul.assert_code(code);
    assert!(haul.stderr.starts_with("haul: "), "{}", haul.story());
    assert!(haul.stderr.lines().count() <= 2, "{}", haul.story());
}

#[test]
fn every_failure_has_its_status_and_ascp_s_words() {
    let stage = Stage::set();
    let (here, server) = (stage.pair.here(), &stage.pair.server);
    make_file(&here.join("f"), 10_000, 1);
    let stranger = here.join("stranger");
    make_key(&stranger);
    let usual = format!("-P PORT -i {}", server.key().display());
    let line = |line: &str| stage.ascp(&line.replace("USUAL", &usual));
    fails(&line("--no-such-option f user@h:"), "--no-such-option", 2);
    fails(&line("-F none -P 1 f user@127.0.0.1:"), "failed to open connection to remote host", 3);
    fails(&line("-F none f user@no-such-host.invalid:"), "Target address not available", 3);
    fails(&line("-F none -P PORT -i no-key f user@127.0.0.1:"), "cannot use the key", 4);
    fails(
        &line(&format!("-F none -P PORT -i {} f user@127.0.0.1:", stranger.display())),
        "failed to authenticate",
        4,
    );
    fails(&line("missing user@h:"), "No such file or directory", 5);
    fails(&line("user@h:missing ."), "No such file or directory", 5);
    fails(&line("user@h:../outside ."), "outside", 5);
}

#[test]
fn a_failed_file_among_others_makes_a_partial_completion() {
    if !require("a_failed_file_among_others_makes_a_partial_completion", &["root"]) {
        return;
    }
    let stage = Stage::set();
    make_file(&stage.pair.server.docroot().join("good"), 10_000, 1);
    make_file(&stage.pair.server.docroot().join("tree/closed"), 10_000, 1);
    make_file(&stage.pair.server.docroot().join("tree/open"), 10_000, 1);
    let closed = stage.pair.server.docroot().join("tree/closed");
    fs::set_permissions(&closed, fs::Permissions::from_mode(0o000)).unwrap();
    let outcome = stage.ascp("-QT user@h:tree in").run();
    outcome.assert_code(1);
    for words in ["Partial Completion: ", "in 1 file; 1 file failed.\n\r\nSession Stop  (Error: Some files"] {
        assert!(outcome.stdout.contains(words), "{words:?}\n{}", outcome.story());
    }
    assert!(outcome.stderr.contains("closed"), "{}", outcome.story());
    assert!(stage.pair.here().join("in/open").is_file() && !Path::new("in/closed").exists());
}
