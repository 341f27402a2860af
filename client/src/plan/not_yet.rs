//! What is understood and typed, but without effect so far. To leave it out silently would change the result, so a
//! transfer that asks for it is refused. Whoever makes one effective takes its line out.

use super::Plan;
use crate::cli::names::Keep;
use crate::operands::{LocalEnd, PlannedRoute, Sources};

type Asks = fn(&Plan) -> bool;

const NOT_YET: &[(&str, Asks)] = &[
    // Selection.
    ("stdio:// and stdio-tar://", streams),
    ("--dry-run", |plan| plan.dry_run),
    ("-@", |plan| plan.selection.byte_range.is_some()),
    ("-C", |plan| plan.selection.session_share.is_some()),
    // Attributes, before and after.
    ("--preserve-file-owner-uid", |plan| plan.attributes.owner),
    ("--preserve-file-owner-gid", |plan| plan.attributes.group),
    ("--preserve-source-access-time", |plan| plan.attributes.source_access_time),
    ("--preserve-acls", |plan| {
        plan.attributes.acls != Keep::None || plan.attributes.remote_acls != Keep::None
    }),
    ("--preserve-xattrs", |plan| {
        plan.attributes.xattrs != Keep::None || plan.attributes.remote_xattrs != Keep::None
    }),
    ("--delete-before-transfer", |plan| plan.around.delete_before),
    ("--file-manifest", |plan| plan.manifest.is_some()),
    ("--file-crypt", |plan| plan.file_crypt.is_some()),
    // Resume and overwrite.
    ("--save-before-overwrite", |plan| plan.resume.save_before_overwrite),
    ("--partial-file-suffix", |plan| plan.resume.partial_file_suffix.is_some()),
];

/// The options of this plan that have no effect yet.
pub(super) fn of(plan: &Plan) -> Vec<&'static str> {
    NOT_YET.iter().filter(|(_, asks)| asks(plan)).map(|(option, _)| *option).collect()
}

fn streams(plan: &Plan) -> bool {
    let stream = |end: &LocalEnd| matches!(end, LocalEnd::Stream(_));
    match &plan.route {
        PlannedRoute::Upload { sources: Sources::Named(sources), .. } => sources.iter().any(stream),
        PlannedRoute::Upload { .. } => false,
        PlannedRoute::Download { destination, .. } => stream(destination),
    }
}
