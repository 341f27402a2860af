//! Sorts the operands of the command line into sources and destination, and shows the command that was probably meant
//! when they make no transfer.
//!
//! Not here: reading a single operand (`target`), and any look at files.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use haul_proto::control::PathText;
use serde::{Serialize, Serializer};

use crate::cli::names::Mode;
use crate::error::ClientError;
use crate::sanitize;
use crate::target::{self, RemoteTarget, Stream, Target};

/// What goes where, as the line has it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "direction", rename_all = "snake_case")]
pub enum PlannedRoute {
    /// From this machine to the server.
    Upload {
        /// What here.
        sources: Sources<LocalEnd>,
        /// Where to, below the docroot; empty is the docroot.
        destination: PathText,
    },
    /// From the server to this machine.
    Download {
        /// What there, below the docroot.
        sources: Sources<PathText>,
        /// Where to here.
        destination: LocalEnd,
    },
}

/// Where the names of the sources come from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum Sources<S> {
    /// From the line.
    Named(Vec<S>),
    /// From a file, one a line.
    List {
        /// The file.
        #[serde(serialize_with = "path_as_text")]
        list: PathBuf,
        /// What stands before each of them.
        prefix: Option<PathText>,
    },
    /// From a file, in turns with the destinations.
    PairList {
        /// The file.
        #[serde(serialize_with = "path_as_text")]
        pair_list: PathBuf,
        /// What stands before each source.
        prefix: Option<PathText>,
    },
    /// From the program that steers the run.
    Managed {
        /// True.
        from_management: bool,
    },
}

/// An end on this machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum LocalEnd {
    /// A file or folder.
    Path(#[serde(serialize_with = "path_as_text")] PathBuf),
    /// Something that is none.
    Stream(Stream),
}

impl LocalEnd {
    /// The path, or what stands for a stream.
    #[must_use]
    pub fn text(&self) -> PathText {
        match self {
            Self::Path(path) => PathText::new(path.as_os_str().as_bytes()),
            Self::Stream(Stream::Stdio { .. }) => PathText::new(*b"stdio"),
            Self::Stream(Stream::Pipe(path)) => path.clone(),
            Self::Stream(Stream::Tar) => PathText::new(*b"stdio-tar"),
        }
    }
}

fn path_as_text<S: Serializer>(path: &std::path::Path, serializer: S) -> Result<S::Ok, S::Error> {
    PathText::new(path.as_os_str().as_bytes()).serialize(serializer)
}

/// The operands, and what else decides what they are.
#[derive(Debug)]
pub(crate) struct Operands<'a> {
    pub(crate) paths: &'a [OsString],
    /// The name for messages.
    pub(crate) program: &'static str,
    pub(crate) host: Option<&'a str>,
    pub(crate) user: Option<&'a str>,
    pub(crate) mode: Option<Mode>,
    pub(crate) listing: Listing,
    /// Stands before each source.
    pub(crate) prefix: Option<&'a OsStr>,
}

/// Where the sources are named.
#[derive(Debug, Clone)]
pub(crate) enum Listing {
    Operands,
    List(PathBuf),
    Pairs(PathBuf),
    Managed,
}

/// The route, the host, and the user if one was named.
type Sorted = (PlannedRoute, String, Option<String>);

/// Sorts the operands: exactly one side is remote, and all of it on one server.
pub(crate) fn sort(operands: &Operands<'_>) -> Result<Sorted, ClientError> {
    if matches!(operands.listing, Listing::Operands) { operands.sort_named() } else { operands.sort_listed() }
}

impl Operands<'_> {
    fn help(&self) -> String {
        let name = self.program;
        format!("write {name} SOURCE... [user@]host:DEST, or {name} [user@]host:SOURCE... DEST")
    }

    fn wrong(&self, error: &target::TargetError) -> ClientError {
        ClientError::usage(error.to_string(), self.help())
    }

    /// With `--host` operands are plain paths, and the direction has to be told.
    fn told_mode(&self, host: &str) -> Result<Mode, ClientError> {
        self.mode.ok_or_else(|| {
            let host = sanitize::text(host);
            ClientError::usage(
                format!("--host {host} without the direction"),
                "add --mode=send to upload or --mode=recv to download",
            )
        })
    }

    /// `--host` and `--user` go where `user@host:` would, and have to be as sound.
    fn peer(&self, host: &str) -> Result<(String, Option<String>), ClientError> {
        let host = target::host_name(host).map_err(|error| self.wrong(&error))?;
        Ok((host, self.told_user()?))
    }

    fn told_user(&self) -> Result<Option<String>, ClientError> {
        self.user.map(target::user_name).transpose().map_err(|error| self.wrong(&error))
    }

    fn local(&self, operand: &OsStr) -> Result<LocalEnd, ClientError> {
        match target::parse_local(operand).map_err(|error| self.wrong(&error))? {
            Target::Stream(stream) => Ok(LocalEnd::Stream(stream)),
            _ => Ok(LocalEnd::Path(PathBuf::from(target::without_scheme(operand)))),
        }
    }

    fn sort_listed(&self) -> Result<Sorted, ClientError> {
        let [destination] = self.paths else {
            let count = self.paths.len();
            return Err(ClientError::usage(
                format!(
                    "the sources are listed elsewhere, expected one operand, the destination, found {count}"
                ),
                "leave the sources out of the command line, or the list",
            ));
        };
        if let Some(host) = self.host {
            let (host, user) = self.peer(host)?;
            let route = match self.told_mode(&host)? {
                Mode::Send => {
                    let destination = PathText::new(destination.as_bytes());
                    PlannedRoute::Upload { sources: self.listed(), destination }
                }
                Mode::Recv => {
                    PlannedRoute::Download { sources: self.listed(), destination: self.local(destination)? }
                }
            };
            return Ok((route, host, user));
        }
        match target::parse(destination).map_err(|error| self.wrong(&error))? {
            Target::Remote(remote) if self.mode != Some(Mode::Recv) => {
                let RemoteTarget { user, host, path } = remote;
                let route = PlannedRoute::Upload { sources: self.listed(), destination: path };
                Ok((route, host, user.or(self.told_user()?)))
            }
            _ => Err(ClientError::usage(
                "a list of sources to download, but no server",
                "name it with --host, and add --mode=recv",
            )),
        }
    }

    fn listed<S>(&self) -> Sources<S> {
        let prefix = self.prefix.map(|prefix| PathText::new(prefix.as_bytes()));
        match &self.listing {
            Listing::List(list) => Sources::List { list: list.clone(), prefix },
            Listing::Pairs(pair_list) => Sources::PairList { pair_list: pair_list.clone(), prefix },
            Listing::Operands | Listing::Managed => Sources::Managed { from_management: true },
        }
    }

    fn sort_named(&self) -> Result<Sorted, ClientError> {
        let Some((destination, sources)) = self.paths.split_last() else {
            return Err(ClientError::usage("no source and no destination given", self.help()));
        };
        match self.host {
            Some(host) => self.sort_plain(host, sources, destination),
            None => self.sort_addressed(),
        }
    }

    fn sort_plain(
        &self,
        host: &str,
        sources: &[OsString],
        destination: &OsStr,
    ) -> Result<Sorted, ClientError> {
        let mode = self.told_mode(host)?;
        let (host, user) = self.peer(host)?;
        if sources.is_empty() {
            return Err(ClientError::usage(
                "one operand given, expected a source and a destination",
                format!("write {} --host HOST --mode=MODE SOURCE... DEST", self.program),
            ));
        }
        let route = match mode {
            Mode::Send => PlannedRoute::Upload {
                sources: self.local_sources(sources.iter().map(|source| self.local(source)))?,
                destination: PathText::new(destination.as_bytes()),
            },
            Mode::Recv => PlannedRoute::Download {
                sources: self
                    .remote_sources(sources.iter().map(|source| Ok(PathText::new(source.as_bytes()))))?,
                destination: self.local(destination)?,
            },
        };
        Ok((route, host, user))
    }

    fn local_sources(
        &self,
        sources: impl Iterator<Item = Result<LocalEnd, ClientError>>,
    ) -> Result<Sources<LocalEnd>, ClientError> {
        let prefixed = |source| match (source, self.prefix) {
            (LocalEnd::Path(path), Some(prefix)) => {
                let mut whole = prefix.to_owned();
                whole.push(path);
                LocalEnd::Path(PathBuf::from(whole))
            }
            (source, _) => source,
        };
        sources.map(|source| source.map(prefixed)).collect::<Result<_, _>>().map(Sources::Named)
    }

    fn remote_sources(
        &self,
        sources: impl Iterator<Item = Result<PathText, ClientError>>,
    ) -> Result<Sources<PathText>, ClientError> {
        let prefixed = |source: PathText| match self.prefix {
            Some(prefix) => PathText::new([prefix.as_bytes(), source.as_bytes()].concat()),
            None => source,
        };
        sources.map(|source| source.map(prefixed)).collect::<Result<_, _>>().map(Sources::Named)
    }

    fn sort_addressed(&self) -> Result<Sorted, ClientError> {
        let mut targets = Vec::with_capacity(self.paths.len());
        for operand in self.paths {
            targets.push(target::parse(operand).map_err(|error| self.wrong(&error))?);
        }
        let Some(last) = targets.pop() else {
            return Err(ClientError::usage("no source and no destination given", self.help()));
        };
        if targets.is_empty() {
            return Err(ClientError::usage(
                "one operand given, expected a source and a destination",
                self.one_operand(&last),
            ));
        }
        let sorted = match last {
            Target::Remote(remote) => self.upload(targets, remote),
            Target::Local(destination) => self.download(targets, LocalEnd::Path(destination)),
            Target::Stream(stream) => self.download(targets, LocalEnd::Stream(stream)),
        }?;
        self.mode_agrees(&sorted.0)?;
        Ok(sorted)
    }

    /// `--mode` beside operands that tell the direction themselves.
    fn mode_agrees(&self, route: &PlannedRoute) -> Result<(), ClientError> {
        let (told, found) = match (self.mode, route) {
            (Some(Mode::Send), PlannedRoute::Download { .. }) => ("send", "download"),
            (Some(Mode::Recv), PlannedRoute::Upload { .. }) => ("recv", "upload"),
            _ => return Ok(()),
        };
        Err(ClientError::usage(
            format!("--mode={told}, but the operands ask for {found}"),
            "exchange source and destination, or leave --mode out",
        ))
    }

    fn upload(&self, targets: Vec<Target>, remote: RemoteTarget) -> Result<Sorted, ClientError> {
        let sources = targets.into_iter().map(|target| match target {
            Target::Local(path) => Ok(LocalEnd::Path(path)),
            Target::Stream(stream) => Ok(LocalEnd::Stream(stream)),
            Target::Remote(_) => {
                let first = shown_operand(self.paths, 0);
                Err(ClientError::usage(
                    "both sides are remote, one has to be local",
                    format!("copy through this machine: {} {first} . and then upload", self.program),
                ))
            }
        });
        let sources = self.local_sources(sources)?;
        let RemoteTarget { user, host, path } = remote;
        Ok((PlannedRoute::Upload { sources, destination: path }, host, user.or(self.told_user()?)))
    }

    fn download(&self, targets: Vec<Target>, destination: LocalEnd) -> Result<Sorted, ClientError> {
        let mut server: Option<RemoteTarget> = None;
        let mut sources = Vec::with_capacity(targets.len());
        for target in targets {
            let Target::Remote(remote) = target else {
                return Err(self.no_remote_side());
            };
            sources.push(Ok(remote.path.clone()));
            let first = server.get_or_insert_with(|| remote.clone());
            if (&first.user, &first.host) != (&remote.user, &remote.host) {
                return Err(ClientError::usage(
                    format!("the sources are on two servers: {} and {}", first.host, remote.host),
                    format!("run {} once for each server", self.program),
                ));
            }
        }
        let server = server.ok_or_else(|| self.no_remote_side())?;
        let sources = self.remote_sources(sources.into_iter())?;
        Ok((PlannedRoute::Download { sources, destination }, server.host, server.user.or(self.told_user()?)))
    }

    fn one_operand(&self, target: &Target) -> String {
        match target {
            Target::Remote(_) | Target::Stream(_) => {
                "to download into the current folder, add `.` as the destination".to_owned()
            }
            Target::Local(path) => {
                format!("did you mean {} {} host:?", self.program, quoted(path.as_os_str().as_bytes()))
            }
        }
    }

    /// Neither side is remote, or a local path stands among remote sources.
    fn no_remote_side(&self) -> ClientError {
        let paths = self.paths;
        let any_remote = paths.iter().any(|path| matches!(target::parse(path), Ok(Target::Remote(_))));
        let last = paths.len().saturating_sub(1);
        if any_remote {
            return ClientError::usage("the sources are partly local and partly remote", self.help());
        }
        let mut command: Vec<String> = (0..last).map(|at| shown_operand(paths, at)).collect();
        let destination = shown_operand(paths, last);
        let likely_host = destination.contains('@') && !destination.contains('/');
        command.push(if likely_host { format!("{destination}:") } else { format!("host:{destination}") });
        ClientError::usage(
            "neither side is remote",
            format!("did you mean {} {}?", self.program, command.join(" ")),
        )
    }
}

fn shown_operand(paths: &[OsString], at: usize) -> String {
    quoted(paths.get(at).map(|path| path.as_bytes()).unwrap_or_default())
}

/// A word for a shell, good enough to be copied for names without quotes.
fn quoted(bytes: &[u8]) -> String {
    let shown = sanitize::bytes(bytes);
    let plain = |c: char| c.is_alphanumeric() || "/._-:@+=,%~[]".contains(c);
    if !shown.is_empty() && shown.chars().all(plain) {
        shown
    } else {
        format!("'{}'", shown.replace('\'', "'\\''"))
    }
}
