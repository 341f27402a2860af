//! The command line: one declaration of every option for `haul` and for `ascp`, with `ascp`'s letters and long names.
//!
//! It reads and checks the form only. Not here: what the options amount to together (`plan`), and any look at files.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

use clap::error::ErrorKind;
use clap::{ArgMatches, CommandFactory, FromArgMatches, Parser};
use serde::Serialize;

use crate::error::ClientError;
use crate::exit_status::EXIT_STATUS_HELP;
use crate::sanitize;

mod inert;
pub mod names;
mod options;
mod slips;
mod texts;
pub mod values;

pub use inert::InertOptions;
pub use options::{
    AttributeOptions, CarrierOptions, ConnectionOptions, OutputOptions, RateOptions, ResumeOptions,
    SelectionOptions,
};
pub use texts::{man_page, version_text};

const USAGE: &str =
    "haul [options] SOURCE... [user@]host:DEST\n       haul [options] [user@]host:SOURCE... DEST";
const ASCP_USAGE: &str =
    "ascp [options] SOURCE... [user@]host:DEST\n       ascp [options] [user@]host:SOURCE... DEST";

/// What stands below the options in `--help`.
fn help_tail() -> String {
    format!(
        "While the data moves, on a terminal + and - change the target rate by a tenth, u lifts it; h, f and l take \
         policy high, fair and low, x takes fixed; ? lists the keys. With --json the same comes as lines on stdin, for \
         example {{\"set_rate\":\"200m\"}}, {{\"set_min_rate\":\"5m\"}}, {{\"set_policy\":\"low\"}}; null lifts a rate.\n\n\
         haul encrypt FILE and haul decrypt FILE.haul-crypt turn files on this machine into one another, with a password; \
         haul encrypt --help tells more.\n\n\
         {EXIT_STATUS_HELP}"
    )
}

/// Copies files over long and lossy networks at the speed the network has.
///
/// The login is SSH, the data goes encrypted over UDP. The options have ascp's names; called as ascp, the program has
/// ascp's manners too: its default port, its exit status 1, and the form of what it prints.
#[derive(Debug, Clone, Parser)]
#[command(name = "haul", override_usage = USAGE, after_help = help_tail(), disable_version_flag = true)]
#[command(args_override_self = true)]
pub struct Cli {
    /// Sources, then the destination; one side is [user@]host:path
    #[arg(value_name = "PATH")]
    pub paths: Vec<OsString>,
    #[command(flatten)]
    #[allow(missing_docs, reason = "it would become help")]
    pub connection: ConnectionOptions,
    #[command(flatten)]
    #[allow(missing_docs, reason = "it would become help")]
    pub rates: RateOptions,
    #[command(flatten)]
    #[allow(missing_docs, reason = "it would become help")]
    pub selection: SelectionOptions,
    #[command(flatten)]
    #[allow(missing_docs, reason = "it would become help")]
    pub resume: ResumeOptions,
    #[command(flatten)]
    #[allow(missing_docs, reason = "it would become help")]
    pub attributes: AttributeOptions,
    #[command(flatten)]
    #[allow(missing_docs, reason = "it would become help")]
    pub carrier: CarrierOptions,
    #[command(flatten)]
    #[allow(missing_docs, reason = "it would become help")]
    pub output: OutputOptions,
    #[command(flatten)]
    #[allow(missing_docs, reason = "it would become help")]
    pub inert: InertOptions,
    /// `-E` and `-N` as they stand on the line.
    #[arg(skip)]
    pub filters: Vec<Filter>,
    /// Under which name the program was called.
    #[arg(skip)]
    pub manner: Manner,
}

/// Whose manners the program has: the name it was called by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Manner {
    /// Its own.
    #[default]
    Haul,
    /// Those of ascp: for programs and people who have always called that.
    Ascp,
}

impl Manner {
    /// By the program's name, as the first argument has it.
    #[must_use]
    pub fn of(program: Option<&OsString>) -> Self {
        let name = program.map(Path::new).and_then(Path::file_stem).unwrap_or_else(|| OsStr::new("haul"));
        if name == "ascp" || name == "ascp4" { Self::Ascp } else { Self::Haul }
    }

    /// The name in messages.
    #[must_use]
    pub const fn program(self) -> &'static str {
        match self {
            Self::Haul => "haul",
            Self::Ascp => "ascp",
        }
    }
}

/// `-E` or `-N`: the first one that matches decides.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Filter {
    /// `-N`; else `-E`.
    pub include: bool,
    /// The glob.
    pub pattern: OsString,
}

/// What a command line asks for.
#[derive(Debug)]
pub enum Asked {
    /// A transfer.
    Transfer(Box<Cli>),
    /// The meaning of the line as JSON on stdout.
    Explanation(Box<Cli>),
    /// A text on stdout: help or version.
    Text(String),
    /// A picture of this file of `--stats` on stdout.
    Plot(PathBuf),
    /// A link named `ascp` in this folder.
    InstallAscp(PathBuf),
}

/// Reads the command line; the first argument is the program's name.
///
/// # Errors
/// If the form is wrong: unknown option, bad value, a known slip of the pen.
pub fn parse(args: &[OsString]) -> Result<Asked, ClientError> {
    slips::port_given_to_small_p(args)?;
    let manner = Manner::of(args.first());
    let matches = match command(manner).try_get_matches_from(slips::respelled(args)) {
        Ok(matches) => matches,
        Err(error) if error.kind() == ErrorKind::DisplayHelp => {
            return Ok(Asked::Text(error.render().to_string()));
        }
        Err(error) => return Err(usage_error(&error, manner)),
    };
    let mut cli = Cli::from_arg_matches(&matches).map_err(|error| usage_error(&error, manner))?;
    cli.filters = filters(&matches);
    cli.manner = manner;
    Ok(asked(cli))
}

fn asked(cli: Cli) -> Asked {
    let output = &cli.output;
    if output.version {
        return Asked::Text(version_text(cli.manner));
    }
    if output.json_schema {
        return Asked::Text(crate::events::SCHEMA.to_owned());
    }
    if output.man {
        return Asked::Text(man_page());
    }
    if let Some(shell) = output.completions {
        return Asked::Text(texts::completions(shell));
    }
    if let Some(directory) = &output.install_ascp {
        return Asked::InstallAscp(directory.clone());
    }
    if let Some(path) = &output.plot {
        return Asked::Plot(path.clone());
    }
    if output.explain { Asked::Explanation(Box::new(cli)) } else { Asked::Transfer(Box::new(cli)) }
}

/// The declaration, under either name.
fn command(manner: Manner) -> clap::Command {
    let command = Cli::command();
    match manner {
        Manner::Haul => command,
        Manner::Ascp => command.name("ascp").bin_name("ascp").override_usage(ASCP_USAGE),
    }
}

/// Both letters in the order of the line.
fn filters(matches: &ArgMatches) -> Vec<Filter> {
    let of = |id: &str, include| {
        let places = matches.indices_of(id).into_iter().flatten();
        let patterns = matches.get_many::<OsString>(id).into_iter().flatten();
        let rules = patterns.map(move |pattern| Filter { include, pattern: pattern.clone() });
        places.zip(rules).collect::<Vec<_>>()
    };
    let mut rules = of("exclude", false);
    rules.extend(of("include", true));
    rules.sort_by_key(|(place, _)| *place);
    rules.into_iter().map(|(_, rule)| rule).collect()
}

/// Turns clap's several paragraphs into what is wrong and what to do.
fn usage_error(error: &clap::Error, manner: Manner) -> ClientError {
    let text = error.render().to_string();
    let mut paragraphs = text.split("\n\n").map(str::trim).filter(|paragraph| !paragraph.is_empty());
    let first = paragraphs.next().unwrap_or_default();
    let message = first.strip_prefix("error: ").unwrap_or(first).replace('\'', "`");
    let message = message.lines().map(str::trim).collect::<Vec<_>>().join(" ");
    let tip = paragraphs.find_map(|paragraph| paragraph.strip_prefix("tip: "));
    // Clap's other tip, `--` before a file that looks like an option, is seldom what was meant.
    let tip = tip.filter(|tip| tip.contains("similar")).map(|tip| tip.replace('\'', "`"));
    let remedy = tip.map_or_else(
        || format!("see {} --help", manner.program()),
        |tip| tip.lines().collect::<Vec<_>>().join(" "),
    );
    ClientError::usage(sanitize::text(&message), sanitize::text(&remedy))
}

#[cfg(test)]
mod tests {
    use super::names::{CipherName, Fallback, Policy};
    use super::values::{ByteRange, RateWish, SessionShare};
    use super::*;
    use haul_proto::units::Rate;

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
        let m300 = Some(RateWish::Bits(Rate::from_bps(300_000_000)));
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
            let (connection, rates) = (&cli.connection, &cli.rates);
            assert_eq!(
                (connection.ssh_port, rates.target_rate, rates.adaptive),
                (Some(33001), m300, 1),
                "row {n}"
            );
            assert!(rates.no_encryption && cli.selection.create_destination, "row {n}");
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
        assert_eq!(cli.connection.identity, [PathBuf::from("a"), PathBuf::from("b")]);
        assert_eq!((cli.rates.policy, cli.rates.adaptive, cli.output.verbose), (Some(Policy::Low), 2, 2));
        assert_eq!(cli.output.log.unwrap().directory, PathBuf::from("-"));
        assert_eq!(cli.rates.cipher, Some(CipherName::Aes256Gcm));
    }

    #[test]
    fn values_of_odd_forms_are_read() {
        let cli = transfer(&[
            "-@1:20",
            "-C 2:4",
            "-wf",
            "-yF",
            "-caes192",
            "-g 64K",
            "-L/var/log:25",
            "--exclude-newer-than",
            "-86400",
            "-l 50%",
            "-m0",
        ]);
        assert_eq!(cli.rates.byte_range, Some(ByteRange { first: 1, last: Some(20) }));
        assert_eq!(cli.rates.session_share, Some(SessionShare { node: 2, count: 4 }));
        assert_eq!(cli.carrier.fallback, Some(Fallback::Force));
        assert_eq!(cli.rates.cipher, Some(CipherName::Aes256Gcm), "the next stronger one");
        assert_eq!(cli.inert.read_block, Some(65536));
        let log = cli.output.log.unwrap();
        assert_eq!((log.directory, log.max_bytes), (PathBuf::from("/var/log"), 25_000_000));
        assert_eq!(cli.selection.exclude_newer_than, Some(-86400));
        assert_eq!(cli.rates.target_rate, Some(RateWish::Percent(50.0)));
        assert_eq!(cli.rates.min_rate, Some(RateWish::Bits(Rate::ZERO)));
    }

    #[test]
    fn patterns_keep_the_order_of_the_line() {
        let cli = transfer(&["-E", "*.tmp", "-N*.gz", "a", "-E-x", "-N", "-E", "h:b"]);
        let order: Vec<(bool, &str)> =
            cli.filters.iter().map(|filter| (filter.include, filter.pattern.to_str().unwrap())).collect();
        assert_eq!(order, [(false, "*.tmp"), (true, "*.gz"), (false, "-x"), (true, "-E")]);
    }

    #[test]
    fn the_name_decides_about_the_manner() {
        for (name, manner) in [
            ("haul", Manner::Haul),
            ("/usr/bin/ascp", Manner::Ascp),
            ("D:/cli/bin/ascp.exe", Manner::Ascp),
            ("ascp4", Manner::Ascp),
            ("my-ascp", Manner::Haul),
        ] {
            assert_eq!(Manner::of(Some(&name.into())), manner, "{name}");
        }
    }

    #[test]
    fn mistakes_are_named_with_the_way_out() {
        for (n, (line, message, remedy)) in [
            (&["-p", "33001", "a", "h:b"][..], "-p keeps", "did you mean -P 33001?"),
            (&["-p33001", "a", "h:b"], "-p keeps", "did you mean -P 33001?"),
            (&["--polcy", "fair", "a", "h:b"], "--polcy", "--policy"),
            (&["-P", "0", "a", "h:b"], "1 to 65535", "haul --help"),
            (&["-l", "fast", "a", "h:b"], "`fast` is not a rate", "haul --help"),
            (&["-l", "120%", "a", "h:b"], "no percentage", "haul --help"),
            (&["-k", "4", "a", "h:b"], "0, 1, 2 or 3", "haul --help"),
            (&["-@", "9:3", "a", "h:b"], "FIRST:LAST", "haul --help"),
            (&["-C", "5:4", "a", "h:b"], "NODE:COUNT", "haul --help"),
            (&["--file-list=a", "--file-pair-list=b", "h:b"], "cannot be used with", "haul --help"),
            (&["--overwrite", "newer", "a", "h:b"], "never, always, diff, diff+older, older", ""),
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
    fn the_version_stands_on_the_second_line_under_either_name() {
        for (manner, begin) in [(Manner::Haul, "haul version 0."), (Manner::Ascp, "ascp version 4.")] {
            let text = version_text(manner);
            assert!(text.lines().nth(1).unwrap().starts_with(begin), "{text}");
        }
    }

    #[test]
    fn manual_and_completions_hold_the_declared_options() {
        let page = man_page();
        for option in ["--file-pair-list", "--symbolic-links", "Exit status"] {
            assert!(page.contains(&option.replace('-', "\\-")), "{option} is not in the manual page");
        }
        for shell in [clap_complete::Shell::Bash, clap_complete::Shell::Zsh, clap_complete::Shell::Fish] {
            let script = texts::completions(shell);
            assert!(script.contains("file-pair-list") && script.contains("ascp"), "{shell}");
        }
    }
}
