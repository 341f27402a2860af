//! The other programs: how each is told to make one copy, and what it needs.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use super::BenchError;
use super::bed::Place;
use super::command::{Measured, line};
use super::copies::CopyJob;
use super::https::{self, Https};
use super::machine::find_program;
use super::rounds::Contender;
use super::ssh::{HOST, Ssh};
use super::volume::Volume;
use crate::harness::Way;
use crate::wan;

/// A program that copies files between machines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names of the programs")]
pub(super) enum Peer {
    Scp,
    Sftp,
    Rsync,
    Qcp,
    QcpBbr,
    Curl,
    Tar,
}

impl Peer {
    /// Those that are given one large file.
    pub(super) const FOR_FILES: [Self; 5] = [Self::Scp, Self::Sftp, Self::Rsync, Self::Qcp, Self::Curl];
    /// Those that are given a tree. scp and sftp need a round trip and more for each file and are known to be
    /// far slower; curl takes no trees.
    pub(super) const FOR_TREES: [Self; 3] = [Self::Tar, Self::Rsync, Self::Qcp];

    /// How tables call it.
    #[must_use]
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Scp => "scp",
            Self::Sftp => "sftp",
            Self::Rsync => "rsync over ssh",
            Self::Qcp => "qcp",
            Self::QcpBbr => "qcp with its BBR",
            Self::Curl => "curl over HTTPS",
            Self::Tar => "tar over ssh",
        }
    }

    /// Programs without which it cannot run.
    const fn needs(self) -> &'static [&'static str] {
        match self {
            Self::Scp => &["scp", "ssh", "sshd"],
            Self::Sftp => &["sftp", "ssh", "sshd"],
            Self::Rsync => &["rsync", "ssh", "sshd"],
            Self::Qcp | Self::QcpBbr => &["qcp", "ssh", "sshd"],
            Self::Curl => &["curl", "nginx", "openssl"],
            Self::Tar => &["tar", "ssh", "sshd", "bash"],
        }
    }
}

/// Where the other programs run and what they are told of the path.
#[derive(Debug)]
pub(super) struct Terms {
    /// None is loopback.
    pub(super) place: Option<Place>,
    /// qcp's `--rx` and `--tx`, bytes per second, and its `--rtt` in milliseconds.
    pub(super) qcp: (String, String),
    /// What a run may take.
    pub(super) limit: Duration,
}

impl Default for Terms {
    /// On loopback qcp is told windows far above what one core can carry, and a round trip no shorter than one under
    /// load.
    fn default() -> Self {
        Self { place: None, qcp: ("5G".to_owned(), "2".to_owned()), limit: Duration::from_secs(300) }
    }
}

/// The servers of the other programs.
#[derive(Debug)]
pub(super) struct Peers {
    terms: Terms,
    ssh: Result<Ssh, String>,
    https: Result<Https, String>,
    scripts: PathBuf,
}

impl Peers {
    /// Starts those that there are. What does not start fails its programs, not the scenario.
    ///
    /// # Errors
    /// When there is no place for their files.
    pub(super) fn start(volume: &Volume, terms: Terms) -> Result<Self, BenchError> {
        let at = |name: &str| volume.path().join(name);
        let told = |error: BenchError| error.to_string();
        let scripts = at("scripts");
        fs::create_dir_all(&scripts).map_err(BenchError::io("make a folder for scripts"))?;
        Ok(Self {
            ssh: Ssh::start(&at("ssh"), terms.place.as_ref()).map_err(told),
            https: Https::start(&at("https"), &volume.there(), terms.place.as_ref()).map_err(told),
            scripts,
            terms,
        })
    }

    /// The contender that copies `source`, a file or a tree, which lies in both folders of the volume.
    #[must_use]
    pub(super) fn contender<'a>(
        &'a self,
        peer: Peer,
        way: Way,
        volume: &'a Volume,
        source: &str,
        bytes: u64,
    ) -> Contender<'a> {
        let name = format!("{} {}", peer.name(), word(way));
        if let Some(program) = peer.needs().iter().find(|program| find_program(program).is_none()) {
            return Contender::absent(name, format!("{program} is not on PATH"));
        }
        let (from, to) = match way {
            Way::Up => (volume.here(), volume.there()),
            Way::Down => (volume.there(), volume.here()),
        };
        // The tree lands under its own name in a folder, so that all programs mean the same.
        let target = to.join("landed").join(source);
        let mut copy = CopyJob::new(volume, bytes, from.join(source), target);
        let tree = copy.source.is_dir();
        let text = match self.command(peer, way, &copy, tree) {
            Ok(command) => line(&command),
            Err(why) => return Contender::absent(name, why),
        };
        let server = self.daemon(peer);
        Contender::new(name, text, move || {
            let ran = copy.make(|copy| {
                let command = self.command(peer, way, copy, tree)?;
                Measured { limit: self.terms.limit, ..Measured::new(command, server, bytes) }.run()
            });
            ran.map(|ran| ran.figures)
        })
    }

    fn daemon(&self, peer: Peer) -> Option<u32> {
        match peer {
            Peer::Curl => self.https.as_ref().ok().map(Https::pid),
            Peer::Scp | Peer::Sftp | Peer::Rsync | Peer::Qcp | Peer::QcpBbr | Peer::Tar => {
                self.ssh.as_ref().ok().map(Ssh::pid)
            }
        }
    }

    fn command(&self, peer: Peer, way: Way, copy: &CopyJob<'_>, tree: bool) -> Result<Command, String> {
        let config = || Ok::<_, String>(self.ssh.as_ref().map_err(String::clone)?.config());
        let folder = copy.target.parent().expect("it is in a folder");
        let far = |path: &Path| format!("{HOST}:{}", path.display());
        let near = |path: &Path| path.display().to_string();
        let (source, target, into) = match way {
            Way::Up => (near(&copy.source), far(&copy.target), far(folder)),
            Way::Down => (far(&copy.source), near(&copy.target), near(folder)),
        };
        let mut command = self.near(peer.needs()[0]);
        match peer {
            Peer::Scp => command.args(["-q", "-F"]).arg(config()?).args([source, target]),
            Peer::Sftp => {
                let verb = if way == Way::Up { "put" } else { "get" };
                let batch = self.scripts.join(format!("sftp-{verb}"));
                let text = format!("{verb} {} {}\n", near(&copy.source), near(&copy.target));
                fs::write(&batch, text).map_err(|error| format!("write {}: {error}", batch.display()))?;
                command.args(["-q", "-b"]).arg(batch).arg("-F").arg(config()?).arg(HOST)
            }
            Peer::Rsync => {
                let shell = format!("ssh -F {}", config()?.display());
                let kind = if tree { "-r" } else { "-W" };
                command.args([kind, "-e", &shell, &source, &format!("{into}/")])
            }
            Peer::Qcp | Peer::QcpBbr => {
                let config = config()?.display().to_string();
                command.args(["-q", "--ssh-config", &config, "-S", "-F", "-S", &config]);
                let (rate, rtt) = &self.terms.qcp;
                command.args(["--rx", rate, "--tx", rate, "--rtt", rtt]);
                if peer == Peer::QcpBbr {
                    command.args(["--congestion", "bbr"]);
                }
                if tree {
                    command.args(["-r", "-j", "16"]);
                }
                // Without the slash a tree loses its name on the way up, though not on the way down.
                command.args([source, if tree { format!("{into}/") } else { target }])
            }
            Peer::Curl => self.curl(&mut command, way, copy)?,
            Peer::Tar => {
                command = self.near("bash");
                command.args(["-o", "pipefail", "-c", &tar_pipe(config()?, way, copy)])
            }
        };
        Ok(command)
    }

    /// A command that will run where clients are.
    fn near(&self, program: &str) -> Command {
        match &self.terms.place {
            None => Command::new(program),
            Some(place) => wan::command_in(&place.near, program),
        }
    }

    fn curl<'a>(
        &self,
        command: &'a mut Command,
        way: Way,
        copy: &CopyJob<'_>,
    ) -> Result<&'a mut Command, String> {
        let https = self.https.as_ref().map_err(String::clone)?;
        command
            .args(["-sS", "--fail", "--tls13-ciphers", https::CIPHER, "--cacert"])
            .arg(https.certificate());
        let name = copy.source.file_name().unwrap_or_default().to_string_lossy();
        Ok(match way {
            Way::Up => command.arg("-T").arg(&copy.source).arg(https.url(&format!("landed/{name}"))),
            Way::Down => command.arg("-o").arg(&copy.target).arg(https.url(&name)),
        })
    }
}

/// The way from the client's chair, for names of rows.
#[must_use]
pub(super) const fn word(way: Way) -> &'static str {
    match way {
        Way::Up => "up",
        Way::Down => "down",
    }
}

fn tar_pipe(config: &Path, way: Way, copy: &CopyJob<'_>) -> String {
    let parent = |path: &Path| path.parent().unwrap_or(path).display().to_string();
    let name = copy.source.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let pack = format!("tar -C {} -cf - {name}", parent(&copy.source));
    let unpack = format!("tar -C {} -xf -", parent(&copy.target));
    let ssh = format!("ssh -F {} {HOST}", config.display());
    match way {
        Way::Up => format!("{pack} | {ssh} '{unpack}'"),
        Way::Down => format!("{ssh} '{pack}' | {unpack}"),
    }
}
