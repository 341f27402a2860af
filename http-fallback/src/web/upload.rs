//! Uploads that grow over several requests: their names beside the files of a folder.

/// Whether a name is that of an upload under way, of this or another part of haul; such files are in no listing.
#[must_use]
pub fn is_partial(name: &[u8]) -> bool {
    name.starts_with(b".haul-") && (name.ends_with(b".part") || name.ends_with(b".info"))
}
