//! Texts that come from the declaration of the options: version, manual page, completions.

use clap_complete::Shell;

use super::{Manner, command};

/// Programs that call ascp ask for its version to know which options there are; the grammar is that of this one.
const ASCP_VERSION: &str = "4.4.7.0";

/// The text of `-A`: drivers of `ascp` look for the version on line 2.
#[must_use]
pub fn version_text(manner: Manner) -> String {
    let (version, system, machine) =
        (env!("CARGO_PKG_VERSION"), std::env::consts::OS, std::env::consts::ARCH);
    match manner {
        Manner::Haul => {
            format!("haul: fast file transfer over SSH and UDP\nhaul version {version} {system} {machine}\n")
        }
        Manner::Ascp => format!(
            "haul {version} in the place of ascp: fast file transfer over SSH and UDP\n\
             ascp version {ASCP_VERSION} {system} {machine}\n\
             The version is that of the options understood; the protocol is haul's, the server hauld.\n"
        ),
    }
}

/// The manual page.
#[must_use]
pub fn man_page() -> String {
    let mut page = Vec::new();
    // Writing to memory cannot fail.
    let _ = clap_mangen::Man::new(command(Manner::Haul)).render(&mut page);
    String::from_utf8_lossy(&page).into_owned()
}

/// The completions of a shell, for both names.
pub(super) fn completions(shell: Shell) -> String {
    let mut script = Vec::new();
    for manner in [Manner::Haul, Manner::Ascp] {
        clap_complete::generate(shell, &mut command(manner), manner.program(), &mut script);
    }
    String::from_utf8_lossy(&script).into_owned()
}
