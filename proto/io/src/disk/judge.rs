//! What happens to a file that stands where another is to go: by ascp's rules for overwriting. Not here: looking.

use haul_proto::control::{Digest, Overwrite, ResumeCheck};
use haul_proto::manifest::Attributes;

use super::SinkOptions;
use super::facts::{Facts, Kind};

/// What happens to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Judgement {
    /// It stays.
    Stays,
    /// It stays if its digest is that of the source.
    StaysIfEqual,
    /// It is replaced.
    IsReplaced,
}

/// Judges what stands there by what comes: `size` and `attributes` of the source.
pub(super) fn judge(there: &Facts, size: u64, attributes: &Attributes, options: &SinkOptions) -> Judgement {
    let own = there.attributes();
    let older = (own.modified_s, own.modified_ns) < (attributes.modified_s, attributes.modified_ns);
    let replaced_if = |replaced| if replaced { Judgement::IsReplaced } else { Judgement::Stays };
    match options.overwrite {
        Overwrite::Always => Judgement::IsReplaced,
        Overwrite::Never => Judgement::Stays,
        Overwrite::Older => replaced_if(older),
        Overwrite::DiffOlder if !older => Judgement::Stays,
        Overwrite::Diff | Overwrite::DiffOlder => difference(there, size, attributes, options),
    }
}

/// Whether it differs, as far as the resume check looks.
fn difference(there: &Facts, size: u64, attributes: &Attributes, options: &SinkOptions) -> Judgement {
    if there.kind != Kind::File || there.size != size {
        return Judgement::IsReplaced;
    }
    let own = there.attributes();
    // Some file systems keep whole seconds only.
    let same_time = own.modified_s == attributes.modified_s
        && (own.modified_ns == attributes.modified_ns || own.modified_ns == 0);
    let by_digest = match (options.digest, size) {
        (_, 0) => Judgement::Stays,
        (Digest::Blake3, _) => Judgement::StaysIfEqual,
        (Digest::None, _) if same_time => Judgement::Stays,
        (Digest::None, _) => Judgement::IsReplaced,
    };
    match options.resume {
        ResumeCheck::None => Judgement::IsReplaced,
        // Where times are not kept, that of a file that came before says nothing.
        ResumeCheck::Attributes if same_time || !options.preserve_times => Judgement::Stays,
        ResumeCheck::Attributes => Judgement::IsReplaced,
        ResumeCheck::Digest if same_time => Judgement::Stays,
        ResumeCheck::Digest | ResumeCheck::Reread => by_digest,
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::time::{Duration, SystemTime};

    use super::*;
    use Judgement::{IsReplaced, Stays, StaysIfEqual};
    use Overwrite::{Always, Diff, DiffOlder, Never, Older};
    use ResumeCheck::{Attributes as Level1, Digest as Level2, None as Level0, Reread as Level3};

    #[test]
    fn files_stay_or_go_by_the_table() {
        // overwrite, level, times kept, size here - size there, time here - time there, judgement
        let table = [
            (Always, Level2, true, 0, 0, IsReplaced),
            (Never, Level0, false, 5, 5, Stays),
            (Diff, Level0, true, 0, 0, IsReplaced),
            (Diff, Level1, true, 0, 0, Stays),
            (Diff, Level1, true, 0, 1, IsReplaced),
            (Diff, Level1, false, 0, 1, Stays),
            (Diff, Level1, false, 1, 0, IsReplaced),
            (Diff, Level2, false, 0, 0, Stays),
            (Diff, Level2, false, 0, 1, StaysIfEqual),
            (Diff, Level2, false, -1, 0, IsReplaced),
            (Diff, Level3, true, 0, 0, StaysIfEqual),
            (Older, Level2, true, 1, 0, Stays),
            (Older, Level2, true, 1, 1, Stays),
            (Older, Level2, true, 0, -1, IsReplaced),
            (DiffOlder, Level2, true, 1, 1, Stays),
            (DiffOlder, Level2, true, 1, -1, IsReplaced),
            (DiffOlder, Level2, true, 0, -1, StaysIfEqual),
        ];
        let folder = tempfile::tempdir().unwrap();
        for (row, (overwrite, resume, preserve_times, larger, newer, expected)) in
            table.into_iter().enumerate()
        {
            let file = File::create(folder.path().join(row.to_string())).unwrap();
            file.set_len((100 + larger) as u64).unwrap();
            file.set_modified(SystemTime::UNIX_EPOCH + Duration::from_secs((1000 + newer) as u64)).unwrap();
            let options = SinkOptions { overwrite, resume, preserve_times, ..SinkOptions::default() };
            let attributes = Attributes { modified_s: 1000, ..Attributes::default() };
            let judged = judge(&Facts::of(&file).unwrap(), 100, &attributes, &options);
            assert_eq!(judged, expected, "row {row}");
        }
    }
}
