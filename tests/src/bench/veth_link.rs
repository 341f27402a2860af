//! Two network namespaces joined by a pair of virtual Ethernet devices with 1500-byte packets.
//!
//! The host's own network is left alone. The namespaces go when this is dropped, or when the benchmark's
//! mounts go.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, UdpSocket};
use std::path::Path;
use std::process::{Command, Stdio};

use super::BenchError;
use super::bed::Place;
use super::blast::Ends;
use super::machine::find_program;
use super::ssh::missing;
use crate::wan;

const DIRECTORY: &str = "/run/netns";
/// Names are `haul-PID-veth-near` and `-far`.
const PREFIX: &str = "haul-";
const SUFFIX: &str = "-veth-";
const DEVICE: &str = "veth0";
const NEAR: Ipv4Addr = Ipv4Addr::new(10, 78, 0, 1);
const FAR: Ipv4Addr = Ipv4Addr::new(10, 78, 0, 2);

/// What the devices do for the programs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Offload {
    /// The kernel's default: a batch of 64 KiB crosses as one packet, as on a network card that segments and
    /// merges.
    On,
    /// Every packet of 1500 bytes crosses by itself; the receiving device merges them again (GRO), as the
    /// driver of any network card does.
    Off,
}

impl Offload {
    /// Both.
    pub(super) const ALL: [Self; 2] = [Self::On, Self::Off];

    /// For names of rows.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::On => "offload on",
            Self::Off => "offload off",
        }
    }

    const fn features(self) -> [&'static str; 8] {
        match self {
            Self::On => ["tso", "on", "gso", "on", "tx-udp-segmentation", "on", "gro", "off"],
            Self::Off => ["tso", "off", "gso", "off", "tx-udp-segmentation", "off", "gro", "on"],
        }
    }
}

/// The two namespaces.
#[derive(Debug)]
pub(super) struct VethLink {
    near: String,
    far: String,
}

impl VethLink {
    /// Makes it.
    ///
    /// # Errors
    /// Without `ip` or `ethtool`.
    pub(super) fn create() -> Result<Self, BenchError> {
        for program in ["ip", "ethtool"] {
            find_program(program).ok_or_else(|| missing(program))?;
        }
        remove_left_over(|pid| !Path::new(&format!("/proc/{pid}")).exists());
        let name = |end: &str| format!("{PREFIX}{}{SUFFIX}{end}", std::process::id());
        let link = Self { near: name("near"), far: name("far") };
        for namespace in [&link.near, &link.far] {
            tool("ip", &["netns", "add", namespace])?;
        }
        let pair =
            ["link", "add", DEVICE, "netns", &link.near, "type", "veth", "peer", DEVICE, "netns", &link.far];
        tool("ip", &pair)?;
        for (namespace, address) in [(&link.near, NEAR), (&link.far, FAR)] {
            tool("ip", &["-n", namespace, "link", "set", "lo", "up"])?;
            tool("ip", &["-n", namespace, "addr", "add", &format!("{address}/24"), "dev", DEVICE])?;
            tool("ip", &["-n", namespace, "link", "set", DEVICE, "mtu", "1500", "up"])?;
        }
        Ok(link)
    }

    /// Where the two ends of a transfer are.
    pub(super) fn place(&self) -> Place {
        Place { near: self.near.clone(), far: self.far.clone(), address: IpAddr::V4(FAR) }
    }

    /// Switches both devices.
    ///
    /// # Errors
    /// When a device refuses.
    pub(super) fn set(&self, offload: Offload) -> Result<(), BenchError> {
        for namespace in [&self.near, &self.far] {
            let mut arguments = vec!["netns", "exec", namespace.as_str(), "ethtool", "-K", DEVICE];
            arguments.extend(offload.features());
            tool("ip", &arguments)?;
        }
        Ok(())
    }

    /// What switches them before a run.
    pub(super) fn setter(&self, offload: Offload) -> impl Fn() -> Result<(), String> + '_ {
        move || self.set(offload).map_err(|error| error.to_string())
    }

    /// The two ends of a blast from near to far.
    ///
    /// # Errors
    /// When a namespace has gone or has no sockets.
    pub(super) fn ends(&self) -> Result<Ends, BenchError> {
        let open = |namespace: &str, address: Ipv4Addr| {
            let opened = wan::enter(namespace, || UdpSocket::bind((address, 0)));
            let cannot =
                |why: String| BenchError::Environment { what: format!("open a socket in {namespace}"), why };
            opened.map_err(|error| cannot(error.to_string()))?.map_err(|error| cannot(error.to_string()))
        };
        Ends::connect(open(&self.near, NEAR)?, open(&self.far, FAR)?)
            .map_err(BenchError::io("connect sockets"))
    }
}

impl Drop for VethLink {
    fn drop(&mut self) {
        for namespace in [&self.near, &self.far] {
            let _ = tool("ip", &["netns", "del", namespace]);
        }
    }
}

/// Removes the namespaces of those processes that `whose` says yes to: our own at a sudden end, or dead ones.
pub(super) fn remove_left_over(whose: impl Fn(u32) -> bool) {
    let entries = fs::read_dir(DIRECTORY).into_iter().flatten().flatten();
    for name in entries.filter_map(|entry| entry.file_name().into_string().ok()) {
        let owner = name.strip_prefix(PREFIX).and_then(|rest| rest.split_once(SUFFIX));
        if owner.and_then(|(pid, _)| pid.parse().ok()).is_some_and(&whose) {
            let _ = tool("ip", &["netns", "del", &name]);
        }
    }
}

/// Runs a tool that sets up networks.
///
/// # Errors
/// What it said.
pub(super) fn tool(program: &str, arguments: &[&str]) -> Result<(), BenchError> {
    let what = format!("{program} {}", arguments.join(" "));
    let path = find_program(program).unwrap_or_else(|| Path::new(program).to_owned());
    let output = Command::new(path).args(arguments).stdin(Stdio::null()).output();
    let output = output.map_err(BenchError::io(what.as_str()))?;
    if output.status.success() {
        return Ok(());
    }
    let why = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    Err(BenchError::Environment { what, why })
}
