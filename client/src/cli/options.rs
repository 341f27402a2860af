//! The options, in groups as `--help` shows them. The comments are the help.
//!
//! Letters and long names are ascp's where ascp has them. Not here: what they amount to together (`plan`).

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::{ArgAction, Args};
use haul_proto::dscp::Dscp;

use super::names::{
    CarrierName, CipherName, DigestName, Fallback, FileChecksum, FileCrypt, Keep, ManifestKind, Mode,
    Overwrite, Policy, SymbolicLinks,
};
use super::values::{
    self, ByteRange, LogPlace, RateWish, ResumeLevel, SessionShare, byte_range, moment, path, port, text,
    whole_seconds, word, words,
};

/// Who is dialled, and as whom.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Connection")]
pub struct ConnectionOptions {
    /// TCP port of the server's SSH [default: Port of ssh_config, else 33001; 22 as ascp]
    #[arg(short = 'P', value_name = "PORT", value_parser = port())]
    pub ssh_port: Option<u16>,
    /// UDP port wished for [default: the server's choice]
    #[arg(short = 'O', value_name = "PORT", value_parser = port())]
    pub udp_port: Option<u16>,
    /// Private key for the login; may be given several times
    #[arg(short = 'i', value_name = "FILE", value_parser = path())]
    pub identity: Vec<PathBuf>,
    /// The server; the operands are then plain paths, and --mode says the direction
    #[arg(long, value_name = "HOST", value_parser = words())]
    pub host: Option<String>,
    /// The account on the server
    #[arg(long, value_name = "USER", value_parser = words())]
    pub user: Option<String>,
    /// The direction: send or recv
    #[arg(long, value_name = "MODE", value_parser = word::<Mode>(), hide_possible_values = true)]
    pub mode: Option<Mode>,
    /// Use IPv6 only
    #[arg(short = '6')]
    pub ipv6: bool,
    /// File with the servers' host keys [default: ~/.ssh/known_hosts]
    #[arg(long, value_name = "FILE", value_parser = path())]
    pub known_hosts: Option<PathBuf>,
    /// Refuse servers whose host key is not on record
    #[arg(long)]
    pub strict_host_key: bool,
    /// Fingerprint that the server's host key must have: SHA-1 in hexadecimal, or SHA256:...
    #[arg(long, value_name = "FINGERPRINT", value_parser = words())]
    pub check_sshfp: Option<String>,
    /// Take a host key that is not on record, even if ssh_config says not to; changed keys are refused all the same
    #[arg(long, hide_short_help = true)]
    pub ignore_host_key: bool,
    /// Accepted for ascp's sake; haul asks for passwords on a terminal only
    #[arg(long, hide_short_help = true)]
    pub allow_password_prompt: bool,
    /// ssh_config file to read in place of ~/.ssh/config and /etc/ssh/ssh_config; none reads no file
    #[arg(short = 'F', value_name = "FILE", value_parser = path())]
    pub ssh_config: Option<PathBuf>,
    /// Dial with this ssh in haul's place, for jump hosts and hardware keys [default: HAUL_SSH_COMMAND]
    #[arg(long, value_name = "COMMAND", value_parser = text())]
    pub ssh_command: Option<OsString>,
    /// Argument for that ssh; may be given several times
    #[arg(long, value_name = "ARGUMENT", value_parser = text(), allow_hyphen_values = true, hide_short_help = true)]
    pub ssh_arg: Vec<OsString>,
    /// Token of the application that allows the transfer [default: HAUL_TOKEN, ASPERA_SCP_TOKEN]
    #[arg(short = 'W', long, value_name = "TOKEN", value_parser = words(), allow_hyphen_values = true)]
    pub token: Option<String>,
    /// Text for the logs of both sides
    #[arg(short = 'u', value_name = "TEXT", value_parser = words(), allow_hyphen_values = true, hide_short_help = true)]
    pub user_string: Option<String>,
    /// Data of the application, as JSON
    #[arg(long, value_name = "JSON", value_parser = words(), hide_short_help = true)]
    pub tags: Option<String>,
    /// The same in base64
    #[arg(long, value_name = "BASE64", value_parser = words(), hide_short_help = true)]
    pub tags64: Option<String>,
    /// Seconds to wait for the first answer over UDP
    #[arg(long, value_name = "SECONDS", default_value = "4", hide = true, value_parser = values::seconds())]
    pub udp_timeout: f64,
}

/// How fast, and sealed how.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Rate and protocol")]
pub struct RateOptions {
    /// Target rate: 300m, 1.5g, 800k, or a number of Kbit/s [default: what the path can carry]
    #[arg(short = 'l', value_name = "RATE", value_parser = values::rate())]
    pub target_rate: Option<RateWish>,
    /// Rate below which congestion does not push the transfer
    #[arg(short = 'm', value_name = "RATE", value_parser = values::min_rate())]
    pub min_rate: Option<RateWish>,
    /// How to share the path with other traffic [default: fair]
    #[arg(long, value_name = "POLICY", value_parser = word::<Policy>())]
    pub policy: Option<Policy>,
    /// Policy fair; -QQ is policy low
    #[arg(short = 'Q', action = ArgAction::Count)]
    pub adaptive: u8,
    /// DSCP of the datagrams, 0 to 63 or a name: EF, AF41, CS1; the server is asked for the same
    #[arg(long, value_name = "DSCP", value_parser = values::dscp())]
    pub dscp: Option<Dscp>,
    /// Cipher of the data [default: aes-128-gcm where the processor has AES, else chacha20-poly1305]
    #[arg(short = 'c', long, value_name = "CIPHER", value_parser = word::<CipherName>())]
    pub cipher: Option<CipherName>,
    /// Accepted for ascp's sake; the data stays encrypted
    #[arg(short = 'T')]
    pub no_encryption: bool,
    /// Digest that guards each file from end to end [default: blake3]
    #[arg(long, value_name = "DIGEST", value_parser = word::<DigestName>())]
    pub digest: Option<DigestName>,
    /// Only these bytes of a single file
    #[arg(short = '@', value_name = "FIRST:LAST", value_parser = byte_range(), hide_short_help = true)]
    pub byte_range: Option<ByteRange>,
    /// This is one of several sessions that share the work
    #[arg(short = 'C', value_name = "NODE:COUNT", value_parser = values::session_share(), hide_short_help = true)]
    pub session_share: Option<SessionShare>,
}

/// Which files, and where they land.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Selection")]
pub struct SelectionOptions {
    /// The destination is a folder; make it if it is missing
    #[arg(short = 'd')]
    pub create_destination: bool,
    /// File with one source a line; the only operand is the destination
    #[arg(long, value_name = "FILE", value_parser = path())]
    pub file_list: Option<PathBuf>,
    /// File with a source and a destination in turns, one a line; the operand is the folder of the destinations
    #[arg(long, value_name = "FILE", value_parser = path(), conflicts_with = "file_list")]
    pub file_pair_list: Option<PathBuf>,
    /// Stands before each source
    #[arg(long, value_name = "PATH", value_parser = text(), hide_short_help = true)]
    pub source_prefix: Option<OsString>,
    /// The same in base64
    #[arg(long, value_name = "BASE64", value_parser = words(), hide_short_help = true, conflicts_with = "source_prefix")]
    pub source_prefix64: Option<String>,
    /// Keep the folders below this one at the destination
    #[arg(long, value_name = "PATH", value_parser = text())]
    pub src_base: Option<OsString>,
    /// The same in base64
    #[arg(long, value_name = "BASE64", value_parser = words(), hide_short_help = true, conflicts_with = "src_base")]
    pub src_base64: Option<String>,
    /// The destination is given in base64
    #[arg(long, hide_short_help = true)]
    pub dest64: bool,
    /// Leave out what the pattern matches; the first matching -E or -N decides
    #[arg(short = 'E', value_name = "PATTERN", value_parser = text(), allow_hyphen_values = true)]
    pub exclude: Vec<OsString>,
    /// Take what the pattern matches, though a later -E would leave it out
    #[arg(short = 'N', value_name = "PATTERN", value_parser = text(), allow_hyphen_values = true)]
    pub include: Vec<OsString>,
    /// Leave out files changed after this time: seconds since 1970, or negative: so long ago
    #[arg(long, value_name = "SECONDS", value_parser = moment(), allow_negative_numbers = true, hide_short_help = true)]
    pub exclude_newer_than: Option<i64>,
    /// Leave out files changed before this time
    #[arg(long, value_name = "SECONDS", value_parser = moment(), allow_negative_numbers = true, hide_short_help = true)]
    pub exclude_older_than: Option<i64>,
    /// What becomes of symbolic links [default: follow]
    #[arg(long, value_name = "WAY", value_parser = word::<SymbolicLinks>())]
    pub symbolic_links: Option<SymbolicLinks>,
    /// Leave out devices, pipes and sockets without a word
    #[arg(long, hide_short_help = true)]
    pub skip_special_files: bool,
    /// Show what would be done, and do nothing
    #[arg(long)]
    pub dry_run: bool,
}

/// What happens to files that are there, and to interrupted ones.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Resume and overwrite")]
pub struct ResumeOptions {
    /// Go on where an interrupted transfer stopped: 0 never, 1 by size and time, 2 and compare digests, 3 and read what is there again [default: 2; 0 as ascp]
    #[arg(short = 'k', value_name = "LEVEL", value_parser = values::resume_level())]
    pub resume: Option<ResumeLevel>,
    /// What becomes of files that are there [default: diff]
    #[arg(long, value_name = "WHEN", value_parser = word::<Overwrite>())]
    pub overwrite: Option<Overwrite>,
    /// Rename files before they are overwritten
    #[arg(long, hide_short_help = true)]
    pub save_before_overwrite: bool,
    /// Name of files while they are incomplete: their name and this
    #[arg(long, value_name = "SUFFIX", value_parser = text(), allow_hyphen_values = true, hide_short_help = true)]
    pub partial_file_suffix: Option<OsString>,
    /// Try again after network troubles [default; not as ascp]
    #[arg(long, overrides_with = "no_retry")]
    pub retry: bool,
    /// Give up at the first trouble
    #[arg(long, overrides_with = "retry")]
    pub no_retry: bool,
    /// Give up after so many seconds without progress
    #[arg(long, value_name = "SECONDS", value_parser = whole_seconds(), hide_short_help = true)]
    pub retry_timeout: Option<Duration>,
}

/// What is kept of a file besides its content, and what happens around the transfer.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Attributes, before and after")]
pub struct AttributeOptions {
    /// Keep the files' times
    #[arg(short = 'p')]
    pub preserve_times: bool,
    /// Keep the time of the last change
    #[arg(long, hide_short_help = true)]
    pub preserve_modification_time: bool,
    /// Keep the time of the last access
    #[arg(long, hide_short_help = true)]
    pub preserve_access_time: bool,
    /// Accepted for ascp's sake; Linux lets nobody set it
    #[arg(long, hide_short_help = true)]
    pub preserve_creation_time: bool,
    /// Leave the sources' time of the last access as it is
    #[arg(long, hide_short_help = true)]
    pub preserve_source_access_time: bool,
    /// Keep the owner, where the account may
    #[arg(long, hide_short_help = true)]
    pub preserve_file_owner_uid: bool,
    /// Keep the group, where the account may
    #[arg(long, hide_short_help = true)]
    pub preserve_file_owner_gid: bool,
    /// Keep access control lists
    #[arg(long, value_name = "HOW", value_parser = word::<Keep>(), hide_short_help = true)]
    pub preserve_acls: Option<Keep>,
    /// Keep extended attributes
    #[arg(long, value_name = "HOW", value_parser = word::<Keep>(), hide_short_help = true)]
    pub preserve_xattrs: Option<Keep>,
    /// How the server keeps access control lists
    #[arg(long, value_name = "HOW", value_parser = word::<Keep>(), hide_short_help = true)]
    pub remote_preserve_acls: Option<Keep>,
    /// How the server keeps extended attributes
    #[arg(long, value_name = "HOW", value_parser = word::<Keep>(), hide_short_help = true)]
    pub remote_preserve_xattrs: Option<Keep>,
    /// Remove from the destination what the source does not have, before the transfer
    #[arg(long, alias = "delete-before")]
    pub delete_before_transfer: bool,
    /// Remove the sources that arrived
    #[arg(long)]
    pub remove_after_transfer: bool,
    /// Move the sources that arrived into this folder
    #[arg(long, value_name = "DIR", value_parser = path())]
    pub move_after_transfer: Option<PathBuf>,
    /// Remove folders of the sources that have become empty
    #[arg(long, hide_short_help = true)]
    pub remove_empty_directories: bool,
    /// Remove the source folder too, once it is empty
    #[arg(long, hide_short_help = true)]
    pub remove_empty_source_directory: bool,
    /// Also remove or move sources that were skipped because they are there already
    #[arg(long, hide_short_help = true)]
    pub remove_skipped: bool,
    /// Encrypt files on upload, decrypt them on download; HAUL_FILE_PASSWORD or ASPERA_SCP_FILEPASS has the password
    #[arg(long, value_name = "WAY", value_parser = word::<FileCrypt>())]
    pub file_crypt: Option<FileCrypt>,
    /// A wrong password of --file-crypt is an error; it always is
    #[arg(long, hide_short_help = true)]
    pub fail_bad_filepass: bool,
    /// List of the files that were transferred
    #[arg(long, value_name = "KIND", value_parser = word::<ManifestKind>())]
    pub file_manifest: Option<ManifestKind>,
    /// Folder of that list
    #[arg(long, value_name = "DIR", value_parser = path(), hide_short_help = true)]
    pub file_manifest_path: Option<PathBuf>,
    /// Suffix of that list while the transfer runs
    #[arg(long, value_name = "SUFFIX", value_parser = text(), allow_hyphen_values = true, hide_short_help = true)]
    pub file_manifest_inprogress_suffix: Option<OsString>,
    /// Checksum in that list; haul compares BLAKE3 digests in any case
    #[arg(long, value_name = "KIND", value_parser = word::<FileChecksum>(), hide_short_help = true)]
    pub file_checksum: Option<FileChecksum>,
    /// Count the files before the transfer starts
    #[arg(long, hide_short_help = true, overrides_with = "precalculate_disable")]
    pub precalculate_job_size: bool,
    /// Do not count them
    #[arg(long, hide_short_help = true, overrides_with = "precalculate_job_size")]
    pub precalculate_disable: bool,
}

/// What carries the data where UDP does not pass.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Carrier")]
pub struct CarrierOptions {
    /// What carries the data [default: auto]
    #[arg(long, value_name = "CARRIER", value_parser = word::<CarrierName>())]
    pub carrier: Option<CarrierName>,
    /// Fall back to TCP: 0 never, 1 when UDP does not pass, F at once
    #[arg(short = 'y', value_name = "WHEN", value_parser = word::<Fallback>(), hide_possible_values = true, hide_short_help = true)]
    pub fallback: Option<Fallback>,
    /// TCP port of the fallback [default: the server's word]
    #[arg(short = 't', value_name = "PORT", value_parser = port(), hide_short_help = true)]
    pub fallback_port: Option<u16>,
    /// TCP connections of the fallback [default: 4]
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u8).range(1..=16), hide_short_help = true)]
    pub fallback_streams: Option<u8>,
    /// HTTP proxy on the way: [http://][user:password@]host:port
    #[arg(long, value_name = "PROXY", value_parser = words())]
    pub proxy: Option<String>,
    /// HTTP proxy for the fallback: host[:port]
    #[arg(short = 'x', value_name = "PROXY", value_parser = words(), hide_short_help = true)]
    pub fallback_proxy: Option<String>,
    /// Key of this client for the fallback's TLS
    #[arg(short = 'Y', value_name = "FILE", value_parser = path(), hide_short_help = true)]
    pub fallback_key: Option<PathBuf>,
    /// Certificate of this client for the fallback's TLS
    #[arg(short = 'I', value_name = "FILE", value_parser = path(), hide_short_help = true)]
    pub fallback_certificate: Option<PathBuf>,
}

/// How the run is shown, and who steers it.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Output")]
pub struct OutputOptions {
    /// Show no progress and no summary
    #[arg(short = 'q')]
    pub quiet: bool,
    /// Tell more; -vv for decisions, -vvv for packets
    #[arg(short = 'v', action = ArgAction::Count)]
    pub verbose: u8,
    /// As -vv; -DD as -vvv
    #[arg(short = 'D', action = ArgAction::Count, hide_short_help = true)]
    pub debug: u8,
    /// Write the log into this folder; :MB sets it aside at so many megabytes; - writes it to the terminal
    #[arg(short = 'L', value_name = "DIR[:MB]", value_parser = values::log_place())]
    pub log: Option<LogPlace>,
    /// Report as JSON on stdout, one object a line; take rate changes as JSON on stdin
    #[arg(long)]
    pub json: bool,
    /// Print the JSON Schema of what --json reports, and do nothing else
    #[arg(long, exclusive = true, hide_short_help = true)]
    pub json_schema: bool,
    /// Write rate, delay, loss and state to FILE as CSV, ten rows a second
    #[arg(long, value_name = "FILE", value_parser = values::stats_file())]
    pub stats: Option<PathBuf>,
    /// Report to a program that listens on this port of this machine, and take its orders
    #[arg(short = 'M', value_name = "PORT", value_parser = port())]
    pub management_port: Option<u16>,
    /// Stay, and take the sources from that program
    #[arg(long, hide_short_help = true)]
    pub keepalive: bool,
    /// Print what the command line means as JSON, and do nothing else
    #[arg(long)]
    pub explain: bool,
    /// Draw a FILE of --stats as SVG on stdout, and do nothing else
    #[arg(long, value_name = "FILE", value_parser = path(), exclusive = true)]
    pub plot: Option<PathBuf>,
    /// Print the manual page, and do nothing else
    #[arg(long, exclusive = true, hide_short_help = true)]
    pub man: bool,
    /// Print the completions of a shell, and do nothing else
    #[arg(long, value_name = "SHELL", exclusive = true, hide_short_help = true)]
    pub completions: Option<clap_complete::Shell>,
    /// Make a link named ascp to this program in DIR, and do nothing else
    #[arg(long, value_name = "DIR", value_parser = path(), exclusive = true, hide_short_help = true)]
    pub install_ascp: Option<PathBuf>,
    /// Show the version
    #[arg(short = 'A', long)]
    pub version: bool,
}
