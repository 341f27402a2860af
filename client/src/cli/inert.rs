//! Options of ascp that mean nothing here, because haul decides by itself what they set. They are taken, and `-v` and
//! `--explain` say why they have no effect.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::Args;

use super::names::{Measure, Switch};
use super::values::{OldOption, RateWish, old_option, path, rate, size, text, word};

/// Taken for ascp's sake.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Accepted for ascp's sake")]
pub struct InertOptions {
    /// Folders are always copied with what is in them
    #[arg(short = 'r', hide_short_help = true)]
    pub recursive: bool,
    /// haul measures the path in any case
    #[arg(short = 'w', value_name = "WAY", value_parser = word::<Measure>(), hide_short_help = true)]
    pub measure: Option<Measure>,
    /// Rate of that measurement
    #[arg(short = 'K', value_name = "RATE", value_parser = rate(), hide_short_help = true)]
    pub probe_rate: Option<RateWish>,
    /// Size of the datagrams; haul finds what the path can carry
    #[arg(short = 'Z', value_name = "BYTES", value_parser = size(), hide_short_help = true)]
    pub datagram_size: Option<u64>,
    /// Size of requests for retransmission
    #[arg(short = 'X', value_name = "BYTES", value_parser = size(), hide_short_help = true)]
    pub request_size: Option<u64>,
    /// Size of reads
    #[arg(short = 'g', value_name = "BYTES", value_parser = size(), hide_short_help = true)]
    pub read_block: Option<u64>,
    /// Size of writes
    #[arg(short = 'G', value_name = "BYTES", value_parser = size(), hide_short_help = true)]
    pub write_block: Option<u64>,
    /// Folder of the log at the server, which decides about its log itself
    #[arg(short = 'R', value_name = "DIR", value_parser = text(), hide_short_help = true)]
    pub remote_log: Option<OsString>,
    /// Name of the program at the server
    #[arg(short = 'S', value_name = "NAME", value_parser = text(), hide_short_help = true)]
    pub remote_program: Option<OsString>,
    /// Configuration of ascp, which haul does not read
    #[arg(short = 'f', value_name = "FILE", value_parser = path(), hide_short_help = true)]
    pub configuration: Option<PathBuf>,
    /// Script before and after the transfer; refused, run it from the shell
    #[arg(short = 'e', value_name = "FILE", value_parser = path(), hide = true)]
    pub script: Option<PathBuf>,
    /// Label of the traffic for proxies
    #[arg(short = 'j', value_name = "SWITCH", value_parser = word::<Switch>(), hide_short_help = true)]
    pub jpeg: Option<Switch>,
    /// Old form of some long options: Overwrite=..., PreCalculateJobSize=...
    #[arg(short = 'o', value_name = "NAME=VALUE", value_parser = old_option(), hide_short_help = true)]
    pub old: Vec<OldOption>,
    /// One transfer uses all the processors it needs
    #[arg(long, value_name = "COUNT", hide_short_help = true)]
    pub crypt_threads: Option<u16>,
    /// See -C
    #[arg(long, value_name = "BYTES", value_parser = size(), hide_short_help = true)]
    pub multi_session_threshold: Option<u64>,
    /// Duplicates are always looked for
    #[arg(long, hide_short_help = true)]
    pub skip_dir_traversal_dupes: bool,
    /// There is no local docroot
    #[arg(long, hide_short_help = true)]
    pub apply_local_docroot: bool,
    /// Control over WebSocket; refused, haul has SSH
    #[arg(long, hide = true)]
    pub ws_connect: bool,
    /// Test aid of ascp
    #[arg(long, hide = true)]
    pub faspmgr_io: bool,
    /// Test aid of ascp; refused
    #[arg(long, hide = true)]
    pub no_read: bool,
    /// Test aid of ascp; refused
    #[arg(long, hide = true)]
    pub no_write: bool,
}
