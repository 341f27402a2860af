//! The command line: one declaration of every option, with `ascp`'s letters where they exist.
//!
//! It reads and checks the form only. Not here: what the options amount to together (`config`), and any look at files.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;

use clap::builder::{OsStringValueParser, StringValueParser, TypedValueParser};
use clap::error::ErrorKind;
use clap::{ArgAction, CommandFactory, FromArgMatches, Parser, ValueEnum};
use haul_proto::control::{Cipher, Digest, Overwrite, RatePolicy, ResumeCheck};
use haul_proto::dscp::Dscp;
use haul_proto::units::Rate;

use crate::error::ClientError;
use crate::exit_status::EXIT_STATUS_HELP;
use crate::sanitize;

const USAGE: &str =
    "haul [options] SOURCE... [user@]host:DEST\n       haul [options] [user@]host:SOURCE... DEST";

/// What stands below the options in `--help`.
fn help_tail() -> String {
    format!(
        "While the data moves, on a terminal + and - change the target rate by a tenth, u lifts it; h, f and l take \
         policy high, fair and low, x takes fixed; ? lists the keys. With --json the same comes as lines on stdin, for \
         example {{\"set_rate\":\"200m\"}}, {{\"set_min_rate\":\"5m\"}}, {{\"set_policy\":\"low\"}}; null lifts a rate.\n\n\
         {EXIT_STATUS_HELP}"
    )
}

/// Copies files over long and lossy networks at the speed the network has.
///
/// The login is SSH, the data goes encrypted over UDP. The options have ascp's letters.
#[derive(Debug, Clone, Parser)]
#[command(name = "haul", override_usage = USAGE, after_help = help_tail(), disable_version_flag = true)]
#[command(args_override_self = true)]
pub struct Cli {
    /// Sources, then the destination; one side is [user@]host:path
    #[arg(value_name = "PATH")]
    pub paths: Vec<OsString>,

    /// TCP port of the server's SSH [default: Port of ssh_config, else 33001]
    #[arg(short = 'P', value_name = "PORT", value_parser = port())]
    pub ssh_port: Option<u16>,
    /// UDP port wished for [default: the server's choice]
    #[arg(short = 'O', value_name = "PORT", value_parser = port())]
    pub udp_port: Option<u16>,
    /// Private key for the login; may be given several times
    #[arg(short = 'i', value_name = "FILE", value_parser = path())]
    pub identity: Vec<PathBuf>,

    /// Target rate: 300m, 1.5g, 800k, or a number of Kbit/s [default: what the path can carry]
    #[arg(short = 'l', value_name = "RATE", value_parser = rate())]
    pub target_rate: Option<Rate>,
    /// Rate below which congestion does not push the transfer
    #[arg(short = 'm', value_name = "RATE", value_parser = rate())]
    pub min_rate: Option<Rate>,
    /// How to share the path with other traffic [default: fair]
    #[arg(long, value_enum, value_name = "POLICY")]
    pub policy: Option<Policy>,
    /// Policy fair; -QQ is policy low
    #[arg(short = 'Q', action = ArgAction::Count)]
    pub adaptive: u8,

    /// DSCP of the datagrams, 0 to 63 or a name: EF, AF41, CS1; the server is asked for the same
    #[arg(long, value_name = "DSCP", value_parser = dscp())]
    pub dscp: Option<Dscp>,

    /// The destination is a folder; make it if it is missing
    #[arg(short = 'd')]
    pub create_destination: bool,
    /// Keep the files' times
    #[arg(short = 'p')]
    pub preserve_times: bool,
    /// Cipher of the data [default: aes-128-gcm where the processor has AES, else chacha20-poly1305]
    #[arg(long, value_enum, value_name = "CIPHER")]
    pub cipher: Option<CipherName>,
    /// Accepted for ascp's sake; the data stays encrypted
    #[arg(short = 'T')]
    pub no_encryption: bool,
    /// Digest that guards each file from end to end [default: blake3]
    #[arg(long, value_enum, value_name = "DIGEST")]
    pub digest: Option<DigestName>,

    /// Going on with unfinished files: 0 never, 1 by size and time of the source, 2 and by the digest of the whole,
    /// 3 and what is there is read again first [default: 2]
    #[arg(short = 'k', value_name = "LEVEL", value_parser = resume_check())]
    pub resume: Option<ResumeCheck>,
    /// Files that are there already: diff replaces them if they differ as far as -k looks, older if they are older
    /// [default: diff]
    #[arg(long, value_enum, value_name = "WHEN")]
    pub overwrite: Option<OverwriteName>,

    /// File with the servers' host keys [default: ~/.ssh/known_hosts]
    #[arg(long, value_name = "FILE", value_parser = path())]
    pub known_hosts: Option<PathBuf>,
    /// Refuse servers whose host key is not on record
    #[arg(long)]
    pub strict_host_key: bool,
    /// ssh_config file to read in place of ~/.ssh/config and /etc/ssh/ssh_config; none reads no file
    #[arg(short = 'F', value_name = "FILE", value_parser = path())]
    pub ssh_config: Option<PathBuf>,
    /// Seconds to wait for the first answer over UDP
    #[arg(long, value_name = "SECONDS", default_value = "4", hide = true, value_parser = seconds())]
    pub udp_timeout: f64,

    /// Show no progress and no summary
    #[arg(short = 'q')]
    pub quiet: bool,
    /// Tell more; -vv for decisions, -vvv for packets
    #[arg(short = 'v', action = ArgAction::Count)]
    pub verbose: u8,
    /// Write the log to DIR/haul.log; - writes it to the terminal
    #[arg(short = 'L', value_name = "DIR", value_parser = path())]
    pub log_directory: Option<PathBuf>,
    /// Report as JSON on stdout, one object a line; take rate changes as JSON on stdin
    #[arg(long)]
    pub json: bool,
    /// Write rate, delay, loss and state to FILE as CSV, ten rows a second
    #[arg(long, value_name = "FILE", value_parser = stats_file())]
    pub stats: Option<PathBuf>,
    /// Draw a FILE of --stats as SVG on stdout, and do nothing else
    #[arg(long, value_name = "FILE", value_parser = path(), exclusive = true)]
    pub plot: Option<PathBuf>,
    /// Show the version
    #[arg(short = 'A', long)]
    pub version: bool,
}

/// `--policy`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Policy {
    /// The target rate whatever the path says; needs -l
    Fixed,
    /// A double share
    High,
    /// A fair share
    Fair,
    /// What others leave
    Low,
}

/// `--cipher`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum CipherName {
    /// AES, 128-bit key
    #[value(name = "aes-128-gcm")]
    Aes128Gcm,
    /// AES, 256-bit key
    #[value(name = "aes-256-gcm")]
    Aes256Gcm,
    /// For processors without AES instructions
    #[value(name = "chacha20-poly1305")]
    Chacha20Poly1305,
}

/// `--digest`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum DigestName {
    /// BLAKE3
    Blake3,
    /// No digest of whole files
    None,
}

/// `--overwrite`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum OverwriteName {
    /// They stay
    Never,
    /// They are replaced
    Always,
    /// They are replaced if they differ
    Diff,
    /// They are replaced if they differ and are older
    #[value(name = "diff+older")]
    DiffOlder,
    /// They are replaced if they are older
    Older,
}

/// What a command line asks for.
#[derive(Debug)]
pub enum Asked {
    /// A transfer.
    Transfer(Box<Cli>),
    /// A text on stdout: help or version.
    Text(String),
    /// A picture of this file of `--stats` on stdout.
    Plot(PathBuf),
}

/// Reads the command line; the first argument is the program's name.
///
/// # Errors
/// If the form is wrong: unknown option, bad value, a known slip of the pen.
pub fn parse(args: &[OsString]) -> Result<Asked, ClientError> {
    port_given_to_small_p(args)?;
    let matches = match Cli::command().try_get_matches_from(args) {
        Ok(matches) => matches,
        Err(error) if error.kind() == ErrorKind::DisplayHelp => {
            return Ok(Asked::Text(error.render().to_string()));
        }
        Err(error) => return Err(usage_error(&error)),
    };
    let cli = Cli::from_arg_matches(&matches).map_err(|error| usage_error(&error))?;
    if cli.version {
        return Ok(Asked::Text(version_text()));
    }
    Ok(match cli.plot {
        Some(path) => Asked::Plot(path),
        None => Asked::Transfer(Box::new(cli)),
    })
}

/// The text of `-A`: drivers of `ascp` look for the version on line 2.
#[must_use]
pub fn version_text() -> String {
    format!(
        "haul: fast file transfer over SSH and UDP\nhaul version {} {} {}\n",
        env!("CARGO_PKG_VERSION"),
        std::env::consts::OS,
        std::env::consts::ARCH
    )
}

impl From<Policy> for RatePolicy {
    fn from(policy: Policy) -> Self {
        match policy {
            Policy::Fixed => Self::Fixed,
            Policy::High => Self::High,
            Policy::Fair => Self::Fair,
            Policy::Low => Self::Low,
        }
    }
}

impl From<CipherName> for Cipher {
    fn from(name: CipherName) -> Self {
        match name {
            CipherName::Aes128Gcm => Self::Aes128Gcm,
            CipherName::Aes256Gcm => Self::Aes256Gcm,
            CipherName::Chacha20Poly1305 => Self::Chacha20Poly1305,
        }
    }
}

impl From<OverwriteName> for Overwrite {
    fn from(name: OverwriteName) -> Self {
        match name {
            OverwriteName::Never => Self::Never,
            OverwriteName::Always => Self::Always,
            OverwriteName::Diff => Self::Diff,
            OverwriteName::DiffOlder => Self::DiffOlder,
            OverwriteName::Older => Self::Older,
        }
    }
}

impl From<DigestName> for Digest {
    fn from(name: DigestName) -> Self {
        match name {
            DigestName::Blake3 => Self::Blake3,
            DigestName::None => Self::None,
        }
    }
}

/// `-p 33001` and `-p33001`: other programs' letter for the port, but here `-p` keeps times.
fn port_given_to_small_p(args: &[OsString]) -> Result<(), ClientError> {
    let number = |text: &[u8]| !text.is_empty() && text.iter().all(u8::is_ascii_digit);
    let mut rest = args.iter().skip(1).take_while(|arg| *arg != "--").peekable();
    while let Some(arg) = rest.next() {
        let attached = arg.as_bytes().strip_prefix(b"-p").filter(|digits| number(digits));
        let apart = (arg == "-p").then(|| rest.peek().map(|next| next.as_bytes())).flatten();
        let apart =
            apart.filter(|digits| number(digits) && !PathBuf::from(OsStr::from_bytes(digits)).exists());
        if let Some(digits) = attached.or(apart) {
            let digits = sanitize::bytes(digits);
            return Err(ClientError::usage(
                format!("-p keeps the files' times and takes no value, found {digits}"),
                format!("did you mean -P {digits}?"),
            ));
        }
    }
    Ok(())
}

/// Turns clap's several paragraphs into what is wrong and what to do.
fn usage_error(error: &clap::Error) -> ClientError {
    let text = error.render().to_string();
    let mut paragraphs = text.split("\n\n").map(str::trim).filter(|paragraph| !paragraph.is_empty());
    let first = paragraphs.next().unwrap_or_default();
    let message = first.strip_prefix("error: ").unwrap_or(first).replace('\'', "`");
    let message = message.lines().map(str::trim).collect::<Vec<_>>().join(" ");
    let tip = paragraphs.find_map(|paragraph| paragraph.strip_prefix("tip: "));
    // Clap's other tip, `--` before a file that looks like an option, is seldom what was meant.
    let tip = tip.filter(|tip| tip.contains("similar")).map(|tip| tip.replace('\'', "`"));
    let remedy =
        tip.map_or_else(|| "see haul --help".to_owned(), |tip| tip.lines().collect::<Vec<_>>().join(" "));
    ClientError::usage(sanitize::text(&message), sanitize::text(&remedy))
}

/// A port; drivers of `ascp` send `"-P 33001"` as one argument, so blanks are trimmed.
fn port() -> impl TypedValueParser<Value = u16> {
    StringValueParser::new().try_map(|text| match text.trim().parse::<u16>() {
        Ok(0) | Err(_) => Err("expected a port, 1 to 65535"),
        Ok(port) => Ok(port),
    })
}

fn rate() -> impl TypedValueParser<Value = Rate> {
    StringValueParser::new().try_map(|text| Rate::parse(&text))
}

fn resume_check() -> impl TypedValueParser<Value = ResumeCheck> {
    StringValueParser::new().try_map(|text| {
        text.trim().parse::<u8>().map_err(|_| "expected a level, 0 to 3").and_then(ResumeCheck::try_from)
    })
}

fn dscp() -> impl TypedValueParser<Value = Dscp> {
    StringValueParser::new().try_map(|text| Dscp::parse(&text))
}

fn seconds() -> impl TypedValueParser<Value = f64> {
    StringValueParser::new().try_map(|text| match text.trim().parse::<f64>() {
        Ok(seconds) if (0.1..=600.0).contains(&seconds) => Ok(seconds),
        _ => Err("expected seconds, 0.1 to 600"),
    })
}

fn path() -> impl TypedValueParser<Value = PathBuf> {
    OsStringValueParser::new().try_map(|text| {
        let trimmed = text.as_bytes().trim_ascii_start();
        if trimmed.is_empty() {
            Err("expected a path")
        } else {
            Ok(PathBuf::from(OsString::from_vec(trimmed.to_vec())))
        }
    })
}

/// Stdout is taken: it has the summary, or with `--json` the same rows.
fn stats_file() -> impl TypedValueParser<Value = PathBuf> {
    path().try_map(|path| match path.as_os_str() == "-" {
        true => Err("expected a file; --json writes the same to stdout"),
        false => Ok(path),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn transfer(line: &[&str]) -> Cli {
        let args: Vec<OsString> = ["haul"].iter().chain(line).map(OsString::from).collect();
        match parse(&args) {
            Ok(Asked::Transfer(cli)) => *cli,
            other => panic!("{line:?}: {other:?}"),
        }
    }

    fn refused(line: &[&str]) -> (String, String) {
        let args: Vec<OsString> = ["haul"].iter().chain(line).map(OsString::from).collect();
        let error = parse(&args).unwrap_err();
        (error.to_string(), error.remedy().unwrap_or_default())
    }

    #[test]
    fn the_declaration_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn ascp_spellings_are_understood() {
        let m300 = Some(Rate::from_bps(300_000_000));
        for (n, line) in [
            &["-QTd", "-l300m", "-P33001", "a", "h:b"][..],
            &["-Q", "-T", "-d", "-l", "300m", "-P", "33001", "a", "h:b"],
            &["a", "h:b", "-QTdl", "300m", "-P", "33001"],
            &["a", "-QTdl300M", "h:b", "-P 33001"],
            &["-T", "-T", "-d", "-d", "-l", "1", "-l", "300000", "-P22", "-P33001", "-Q", "a", "h:b"],
        ]
        .iter()
        .enumerate()
        {
            let cli = transfer(line);
            assert_eq!((cli.ssh_port, cli.target_rate, cli.adaptive), (Some(33001), m300, 1), "row {n}");
            assert!(cli.no_encryption && cli.create_destination, "row {n}");
            assert_eq!(cli.paths, ["a", "h:b"], "row {n}");
        }
    }

    #[test]
    fn values_are_read_and_several_keys_kept() {
        let cli = transfer(&[
            "-i",
            "a",
            "-ib",
            "--policy",
            "low",
            "-QQ",
            "-vv",
            "-L-",
            "--cipher=aes-256-gcm",
            "x",
            "h:",
        ]);
        assert_eq!(cli.identity, [PathBuf::from("a"), PathBuf::from("b")]);
        assert_eq!((cli.policy, cli.adaptive, cli.verbose), (Some(Policy::Low), 2, 2));
        assert_eq!(cli.log_directory, Some(PathBuf::from("-")));
        assert_eq!(cli.cipher, Some(CipherName::Aes256Gcm));
    }

    #[test]
    fn mistakes_are_named_with_the_way_out() {
        for (n, (line, message, remedy)) in [
            (&["-p", "33001", "a", "h:b"][..], "-p keeps", "did you mean -P 33001?"),
            (&["-p33001", "a", "h:b"], "-p keeps", "did you mean -P 33001?"),
            (&["--polcy", "fair", "a", "h:b"], "--polcy", "--policy"),
            (&["-P", "0", "a", "h:b"], "1 to 65535", "haul --help"),
            (&["-l", "fast", "a", "h:b"], "`fast` is not a rate", "haul --help"),
            (&["--dscp", "64", "a", "h:b"], "`64` is no DSCP", "haul --help"),
            (&["--policy", "unfair", "a", "h:b"], "fixed, high, fair, low", ""),
            (&["--stats", "-", "a", "h:b"], "--json writes the same", "haul --help"),
            (&["--plot", "run.csv", "run.svg"], "--plot", "haul --help"),
        ]
        .into_iter()
        .enumerate()
        {
            let (said, way_out) = refused(line);
            assert!(said.contains(message), "row {n}: {said}");
            assert!(way_out.contains(remedy), "row {n}: {way_out}");
        }
    }

    #[test]
    fn the_version_stands_on_the_second_line() {
        let text = version_text();
        assert!(text.lines().nth(1).unwrap().starts_with("haul version 0."), "{text}");
    }
}
