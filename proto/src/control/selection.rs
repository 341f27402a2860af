//! What of the sources is sent, where it lands, and what the two sides understand beyond the first version's records.
//! Not here: matching names, walking folders.

use serde::{Deserialize, Serialize};

use super::PathText;

/// Source paths that one transfer may name, all `sources` messages together.
pub const MAX_SOURCES: usize = 1_000_000;

/// Bytes of their paths and targets together.
pub const MAX_SOURCES_BYTES: usize = 256 << 20;

/// Rules that one offer may hold.
pub const MAX_FILTERS: usize = 1024;

/// Bytes of a rule.
pub const MAX_FILTER_BYTES: usize = 4096;

/// Something that came after the first programs of version 1. Used only if both offer and agreement name it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Feature {
    /// The offer's `selection` is heeded.
    Selection,
    /// LINK records.
    Links,
    /// The receiver tells which files it has stored, and the offer's `after` is heeded.
    Stored,
    /// The same datagrams on TLS connections.
    HttpsCarrier,
    /// The same datagrams between the lines of the control conversation.
    SshCarrier,
}

impl Feature {
    /// All that this crate knows.
    pub const ALL: [Self; 5] =
        [Self::Selection, Self::Links, Self::Stored, Self::HttpsCarrier, Self::SshCarrier];

    /// What both know of `offered`.
    #[must_use]
    pub fn common(offered: &[Self]) -> Vec<Self> {
        Self::ALL.into_iter().filter(|feature| offered.contains(feature)).collect()
    }
}

/// Features by name; those that a newer peer knows are passed over.
pub(super) fn known_features<'de, D: serde::Deserializer<'de>>(
    deserializer: D,
) -> Result<Vec<Feature>, D::Error> {
    let names = Vec::<serde_json::Value>::deserialize(deserializer)?;
    Ok(names.into_iter().filter_map(|name| serde_json::from_value(name).ok()).collect())
}

/// What becomes of a symbolic link among the sources; the names are ascp's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(rename_all = "snake_case")]
pub enum LinkMode {
    /// What it points to is sent.
    #[default]
    Follow,
    /// The link itself is sent; it replaces nothing but a link.
    Copy,
    /// The link itself is sent, and replaces a file of its name.
    CopyForce,
    /// It is left out.
    Skip,
}

impl LinkMode {
    /// Whether links are sent as such.
    #[must_use]
    pub const fn copies(self) -> bool {
        matches!(self, Self::Copy | Self::CopyForce)
    }
}

/// What a sender takes of the sources that it is given.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(default)]
pub struct Selection {
    /// Download: the sources follow in [`Sources`] messages; the offer itself names none.
    pub more_sources: bool,
    /// Download: sources keep the folders that lie between this one and themselves.
    pub source_base: Option<PathText>,
    /// Rules in order: `-` (leave out) or `+` (take), then the pattern. The first that fits decides.
    pub filters: Vec<PathText>,
    /// Files modified after this are left out, seconds since 1970.
    pub exclude_newer_than: Option<i64>,
    /// Files modified before this are left out, seconds since 1970.
    pub exclude_older_than: Option<i64>,
    /// What becomes of symbolic links.
    pub symbolic_links: LinkMode,
    /// Devices, pipes and sockets are left out without a word.
    pub skip_special_files: bool,
}

/// Sources of a download, as many as fit into a line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Default)]
pub struct Sources {
    /// Paths below the docroot.
    pub sources: Vec<PathText>,
    /// Where each of them lands, below the destination; empty if all keep their names.
    #[serde(default)]
    pub targets: Vec<PathText>,
    /// No more follow.
    #[serde(default)]
    pub last: bool,
}

#[cfg(test)]
mod tests {
    use super::super::ClientMessage;
    use super::super::encode_line;
    use super::*;

    #[test]
    fn sources_are_pinned() {
        let message = ClientMessage::Sources(Sources {
            sources: vec![PathText::new(*b"a/\xff")],
            targets: vec![PathText::new(*b"b")],
            last: true,
        });
        let expected = r#"{"type":"sources","sources":["a/%FF"],"targets":["b"],"last":true}"#;
        assert_eq!(String::from_utf8(encode_line(&message)).unwrap().trim_end(), expected);
        assert_eq!(serde_json::from_str::<ClientMessage>(expected).unwrap(), message);
        let least = r#"{"type":"sources","sources":[]}"#;
        assert!(serde_json::from_str::<ClientMessage>(least).is_ok(), "what has a default may be left out");
    }

    #[test]
    fn selections_are_pinned() {
        let selection = Selection {
            more_sources: true,
            source_base: Some(PathText::new(*b"x")),
            filters: vec![PathText::new(*b"-*.tmp"), PathText::new(*b"+a%")],
            exclude_newer_than: Some(-5),
            exclude_older_than: None,
            symbolic_links: LinkMode::CopyForce,
            skip_special_files: true,
        };
        let expected = r#"{"more_sources":true,"source_base":"x","filters":["-*.tmp","+a%25"],"exclude_newer_than":-5,"exclude_older_than":null,"symbolic_links":"copy_force","skip_special_files":true}"#;
        assert_eq!(serde_json::to_string(&selection).unwrap(), expected);
        assert_eq!(serde_json::from_str::<Selection>(expected).unwrap(), selection);
        assert_eq!(serde_json::from_str::<Selection>("{}").unwrap(), Selection::default());
    }

    #[test]
    fn features_of_a_newer_peer_are_passed_over() {
        let read = |text: &str| known_features(&mut serde_json::Deserializer::from_str(text)).unwrap();
        assert_eq!(read(r#"["links","of_2031",7,"selection"]"#), [Feature::Links, Feature::Selection]);
        assert_eq!(Feature::common(&[Feature::Links]), [Feature::Links]);
    }
}
