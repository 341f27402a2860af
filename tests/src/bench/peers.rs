//! The other programs: how each is told to make one copy over loopback, and what it needs.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::BenchError;
use super::command::{Measured, line};
use super::copies::CopyJob;
use super::https::{self, Https};
use super::machine::find_program;
use super::rounds::Contender;
use super::ssh::{HOST, Ssh};
use super::volume::Volume;
use crate::harness::Way;

/// A program that copies files between machines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names of the programs")]
pub(super) enum Peer {
    Scp,
    Sftp,
    Rsync,
    Qcp,
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
            Self::Qcp => &["qcp", "ssh", "sshd"],
            Self::Curl => &["curl", "nginx", "openssl"],
            Self::Tar => &["tar", "ssh", "sshd", "bash"],
        }
    }
}

/// The servers of the other programs.
#[derive(Debug)]
pub(super) struct Peers {
    ssh: Result<Ssh, String>,
    https: Result<Https, String>,
    scripts: PathBuf,
}

impl Peers {
    /// Starts those that there are. What does not start fails its programs, not the scenario.
    ///
    /// # Errors
    /// When there is no place for their files.
    pub(super) fn start(volume: &Volume) -> Result<Self, BenchError> {
        let at = |name: &str| volume.path().join(name);
        let told = |error: BenchError| error.to_string();
        let scripts = at("scripts");
        fs::create_dir_all(&scripts).map_err(BenchError::io("make a folder for scripts"))?;
        Ok(Self {
            ssh: Ssh::start(&at("ssh")).map_err(told),
            https: Https::start(&at("https"), &volume.there()).map_err(told),
            scripts,
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
            let ran =
                copy.make(|copy| Measured::new(self.command(peer, way, copy, tree)?, server, bytes).run());
            ran.map(|ran| ran.figures)
        })
    }

    fn daemon(&self, peer: Peer) -> Option<u32> {
        match peer {
            Peer::Curl => self.https.as_ref().ok().map(Https::pid),
            Peer::Scp | Peer::Sftp | Peer::Rsync | Peer::Qcp | Peer::Tar => {
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
        let mut command = Command::new(peer.needs()[0]);
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
            Peer::Qcp => {
                let config = config()?.display().to_string();
                command.args(["-q", "--ssh-config", &config, "-S", "-F", "-S", &config]);
                command.args(QCP_TUNING);
                if tree {
                    command.args(["-r", "-j", "16"]);
                }
                // Without the slash a tree loses its name on the way up, though not on the way down.
                command.args([source, if tree { format!("{into}/") } else { target }])
            }
            Peer::Curl => self.curl(&mut command, way, copy)?,
            Peer::Tar => {
                command = Command::new("bash");
                command.args(["-o", "pipefail", "-c", &tar_pipe(config()?, way, copy)])
            }
        };
        Ok(command)
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

/// qcp takes its windows from the path it is told of; these are far above what one core can carry, and a
/// round trip no shorter than one under load.
const QCP_TUNING: [&str; 6] = ["--rx", "5G", "--tx", "5G", "--rtt", "2"];

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
