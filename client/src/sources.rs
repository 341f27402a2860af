//! What is to be sent: which of the sources, and where each of them lands. Reads the lists of `--file-list` and
//! `--file-pair-list`, and cuts long lists into messages. Not here: looking at the sources.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use haul_proto::control::{AfterTransfer, Feature, LinkMode, MAX_SOURCES, PathText, Selection, Sources};

use crate::cli::names::SymbolicLinks;
use crate::config::{Route, local_error};
use crate::error::ClientError;
use crate::operands::{LocalEnd, PlannedRoute, Sources as Planned};
use crate::plan::{FilterRule, Moment, Plan};
use crate::target;

/// Paths of one message, bytes: each may grow to six times its length as JSON, and a line holds 1 MiB.
const MESSAGE_BYTES: usize = 128 << 10;

/// Longest line of a list that is read.
const MAX_LIST_LINE: usize = 1 << 16;

/// What of the sources is sent, and where it lands.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Wanted {
    /// What is left out, and what becomes of links.
    pub selection: Selection,
    /// Where each source lands below the destination; empty if all keep their names.
    pub targets: Vec<PathText>,
    /// The sources come from a list: one that is missing fails by itself, and the destination is a folder.
    pub listed: bool,
    /// What happens to the sources afterwards.
    pub after: Option<AfterTransfer>,
}

/// What goes where, and what of it. Reads the lists.
///
/// # Errors
/// If a list or a rule cannot be read, or an end is neither file nor folder.
pub(crate) fn of(plan: &Plan) -> Result<(Route, Wanted), ClientError> {
    let no_path = || ClientError::Internal { message: "a route without files passed the checks".to_owned() };
    let selection = selection(plan);
    haul_io::disk::Filter::new(&selection)
        .map_err(|error| ClientError::usage(error.to_string(), "quote patterns, as -E '*.tmp'"))?;
    let path = |end: &LocalEnd| match end {
        LocalEnd::Path(path) => Ok(path.clone()),
        LocalEnd::Stream(_) => Err(no_path()),
    };
    let (route, targets, listed) = match &plan.route {
        PlannedRoute::Upload { sources, destination } => {
            let named = |text: &PathText| {
                PathText::new(target::without_scheme(OsStr::from_bytes(text.as_bytes())).as_bytes())
            };
            let (sources, targets, listed) = match sources {
                Planned::Named(sources) => {
                    (sources.iter().map(path).collect::<Result<_, _>>()?, Vec::new(), false)
                }
                listed => {
                    let (sources, targets) = read(listed).ok_or_else(no_path)??;
                    let local = |source: &PathText| {
                        PathBuf::from(OsString::from_vec(named(source).as_bytes().to_vec()))
                    };
                    (sources.iter().map(local).collect(), targets, true)
                }
            };
            (Route::Upload { sources, destination: destination.clone() }, targets, listed)
        }
        PlannedRoute::Download { sources, destination } => {
            let (sources, targets, listed) = match sources {
                Planned::Named(sources) => (sources.clone(), Vec::new(), false),
                listed => {
                    let (sources, targets) = read(listed).ok_or_else(no_path)??;
                    (sources, targets, true)
                }
            };
            (Route::Download { sources, destination: path(destination)? }, targets, listed)
        }
    };
    Ok((route, Wanted { selection, targets, listed, after: after(plan) }))
}

/// Sources of a list, and where they land; none if there is no list.
#[expect(clippy::type_complexity, reason = "two lists, if there is one that can be read")]
fn read<S>(sources: &Planned<S>) -> Option<Result<(Vec<PathText>, Vec<PathText>), ClientError>> {
    let prefix =
        |prefix: &Option<PathText>| prefix.as_ref().map_or_else(Vec::new, |text| text.as_bytes().to_vec());
    match sources {
        Planned::List { list, prefix: before } => {
            Some(read_list(list, &prefix(before)).map(|sources| (sources, Vec::new())))
        }
        Planned::PairList { pair_list, prefix: before } => Some(read_pairs(pair_list, &prefix(before))),
        // The program behind the management port names them later.
        Planned::Managed { .. } => Some(Ok((Vec::new(), Vec::new()))),
        Planned::Named(_) => None,
    }
}

fn after(plan: &Plan) -> Option<AfterTransfer> {
    let around = &plan.around;
    let move_to = around.move_after.as_ref().map(|path| PathText::new(path.as_os_str().as_bytes()));
    (around.remove_after || move_to.is_some()).then_some(AfterTransfer {
        remove: around.remove_after,
        move_to,
        remove_empty_folders: around.remove_empty_directories,
        remove_empty_sources: around.remove_empty_source_directory,
    })
}

fn selection(plan: &Plan) -> Selection {
    let wish = &plan.selection;
    let rule = |rule: &FilterRule| match rule {
        FilterRule::Exclude(pattern) => PathText::new([b"-", pattern.as_bytes()].concat()),
        FilterRule::Include(pattern) => PathText::new([b"+", pattern.as_bytes()].concat()),
    };
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let moment = |moment: Moment| match moment {
        Moment::SinceEpoch(seconds) => i64::try_from(seconds).unwrap_or(i64::MAX),
        Moment::SecondsAgo(seconds) => i64::try_from(now).unwrap_or(0).saturating_sub_unsigned(seconds),
    };
    Selection {
        more_sources: false,
        source_base: wish.src_base.clone(),
        filters: wish.filters.iter().map(rule).collect(),
        exclude_newer_than: wish.exclude_newer_than.map(moment),
        exclude_older_than: wish.exclude_older_than.map(moment),
        symbolic_links: match wish.symbolic_links {
            SymbolicLinks::Follow => LinkMode::Follow,
            SymbolicLinks::Copy => LinkMode::Copy,
            SymbolicLinks::CopyForce => LinkMode::CopyForce,
            SymbolicLinks::Skip => LinkMode::Skip,
        },
        skip_special_files: wish.skip_special_files,
    }
}

impl Wanted {
    /// Whether the destination must be a folder, however many sources there are.
    #[must_use]
    pub const fn needs_folder(&self) -> bool {
        self.listed || self.selection.source_base.is_some()
    }

    /// Whether the sources of a download are told apart from the offer.
    #[must_use]
    pub fn follow_the_offer(&self, sources: &[PathText]) -> bool {
        let bytes: usize = sources.iter().map(|source| source.as_bytes().len()).sum();
        self.listed || !self.targets.is_empty() || bytes > MESSAGE_BYTES
    }

    /// What the server has to understand so that a download is what the user asked for.
    #[must_use]
    pub fn needed_of_a_sender(&self, offered: Option<&Selection>) -> Vec<Feature> {
        let mut needed = Vec::new();
        needed.extend(offered.map(|_| Feature::Selection));
        needed.extend(self.needed_of_a_receiver());
        needed
    }

    /// What the server has to understand so that an upload is what the user asked for.
    #[must_use]
    pub fn needed_of_a_receiver(&self) -> Vec<Feature> {
        let links = self.selection.symbolic_links.copies().then_some(Feature::Links);
        links.into_iter().chain(self.after.as_ref().map(|_| Feature::Stored)).collect()
    }
}

/// Cuts the sources into messages.
pub(crate) fn messages(sources: &[PathText], targets: &[PathText]) -> Vec<Sources> {
    let mut messages = vec![Sources::default()];
    let mut bytes = 0;
    for (at, source) in sources.iter().enumerate() {
        let target = targets.get(at);
        let more = source.as_bytes().len() + target.map_or(0, |target| target.as_bytes().len()) + 8;
        if bytes + more > MESSAGE_BYTES && bytes > 0 {
            messages.push(Sources::default());
            bytes = 0;
        }
        bytes += more;
        if let Some(message) = messages.last_mut() {
            message.sources.push(source.clone());
            message.targets.extend(target.cloned());
        }
    }
    if let Some(message) = messages.last_mut() {
        message.last = true;
    }
    messages
}

/// Reads a list: a source a line, each behind `prefix`. Empty lines count for nothing.
///
/// # Errors
/// If it cannot be read, is empty or too long.
pub fn read_list(path: &Path, prefix: &[u8]) -> Result<Vec<PathText>, ClientError> {
    let lines = lines(path)?;
    Ok(lines.into_iter().map(|line| PathText::new([prefix, &line].concat())).collect())
}

/// Reads a list of pairs: a line for the source, behind `prefix`, then one for where it lands.
///
/// # Errors
/// If it cannot be read, is empty or too long, or ends amid a pair.
pub fn read_pairs(path: &Path, prefix: &[u8]) -> Result<(Vec<PathText>, Vec<PathText>), ClientError> {
    let lines = lines(path)?;
    let (pairs, rest) = lines.as_chunks::<2>();
    if let [source] = rest {
        return Err(ClientError::usage(
            format!(
                "the list {} ends with a source that has no destination: {}",
                crate::sanitize::text(&path.to_string_lossy()),
                crate::sanitize::bytes(source)
            ),
            "a list of pairs has a line for each source, and the line after it for its destination",
        ));
    }
    let source = |[source, _]: &[Vec<u8>; 2]| PathText::new([prefix, source].concat());
    let target = |[_, target]: &[Vec<u8>; 2]| PathText::new(target.as_slice());
    Ok((pairs.iter().map(source).collect(), pairs.iter().map(target).collect()))
}

fn lines(path: &Path) -> Result<Vec<Vec<u8>>, ClientError> {
    let file = File::open(path).map_err(|error| local_error(path, error))?;
    let wrong = |message: String, remedy: &str| {
        let shown = crate::sanitize::text(&path.to_string_lossy());
        Err(ClientError::usage(format!("the list {shown} {message}"), remedy))
    };
    let mut lines = Vec::new();
    for line in BufReader::new(file).split(b'\n') {
        let mut line = line.map_err(|error| local_error(path, error))?;
        // Written by a program on Windows.
        if line.last() == Some(&b'\r') {
            line.pop();
        }
        if line.len() > MAX_LIST_LINE {
            return wrong("has a line of more than 65536 bytes".to_owned(), "write one path a line");
        }
        if lines.len() == MAX_SOURCES * 2 {
            return wrong(
                format!("has more than {MAX_SOURCES} sources"),
                "name folders in place of their files, or use several lists",
            );
        }
        if !line.is_empty() {
            lines.push(line);
        }
    }
    if lines.is_empty() {
        return wrong("names nothing".to_owned(), "write one path a line into it");
    }
    Ok(lines)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(text: &[u8]) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        file
    }

    fn texts(texts: &[&[u8]]) -> Vec<PathText> {
        texts.iter().map(|text| PathText::new(*text)).collect()
    }

    #[test]
    fn lists_have_a_path_a_line_whatever_ends_the_line() {
        let file = list(b"a b\r\n\n x\xff\nlast");
        assert_eq!(read_list(file.path(), b"").unwrap(), texts(&[b"a b", b" x\xff", b"last"]));
        assert_eq!(read_list(file.path(), b"/p/").unwrap()[0], PathText::new(*b"/p/a b"));
        let pairs = list(b"a\nx/y\nb\nz\n");
        assert_eq!(
            read_pairs(pairs.path(), b"p/").unwrap(),
            (texts(&[b"p/a", b"p/b"]), texts(&[b"x/y", b"z"]))
        );
    }

    #[test]
    fn lists_that_name_nothing_or_half_a_pair_are_refused() {
        let error = read_list(list(b"\n\r\n").path(), b"").unwrap_err();
        assert!(error.to_string().ends_with("names nothing"), "{error}");
        let error = read_pairs(list(b"a\nb\nc\n").path(), b"").unwrap_err();
        assert!(error.to_string().ends_with("no destination: c"), "{error}");
        assert!(read_list(Path::new("/no/such"), b"").is_err());
    }

    #[test]
    fn long_lists_are_cut_into_messages_that_fit_a_line() {
        let sources: Vec<PathText> = (0..100_000).map(|n| PathText::new(format!("\u{1}{n}"))).collect();
        let messages = messages(&sources, &sources);
        assert!(messages.len() > 1);
        assert_eq!(messages.iter().filter(|message| message.last).count(), 1);
        let joined: Vec<_> = messages.iter().flat_map(|message| message.sources.clone()).collect();
        assert_eq!(joined, sources);
        for message in messages {
            assert_eq!(message.sources, message.targets);
            assert!(haul_proto::control::encode_line(&message).len() < haul_proto::control::MAX_LINE_BYTES);
        }
    }
}
