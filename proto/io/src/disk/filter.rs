//! Decides what of the sources is left out: by the rules of `-E` and `-N` in their order, and by time of modification.
//!
//! Rules see the path under which an entry lands, from the root of what is sent. A folder that is left out is not
//! entered. The folders that the user names are entered whatever the rules say: who names a folder wants it looked at.

use haul_proto::control::{LinkMode, MAX_FILTER_BYTES, MAX_FILTERS, Selection, Trouble};

use super::DiskError;
use super::facts::{Facts, Kind};
use super::pattern::{Pattern, Unit, units};

#[derive(Debug, Clone)]
struct Rule {
    includes: bool,
    pattern: Pattern,
}

/// What of the sources is taken.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    rules: Vec<Rule>,
    newest: Option<i64>,
    oldest: Option<i64>,
    links: LinkMode,
    skip_special: bool,
}

impl Filter {
    /// Reads the rules of a selection.
    ///
    /// # Errors
    /// If a rule cannot be read, or there are too many.
    pub fn new(selection: &Selection) -> Result<Self, DiskError> {
        let wrong =
            |text: &[u8], reason: &str| DiskError::new("use the filter rule", text, Trouble::Other, reason);
        if selection.filters.len() > MAX_FILTERS {
            let reason =
                format!("there are {} rules, at most {MAX_FILTERS} are taken", selection.filters.len());
            return Err(DiskError::new("use the filter rules", b"-E, -N", Trouble::Limit, reason));
        }
        let rule = |text: &[u8]| {
            let (includes, pattern) = match text {
                [b'+', pattern @ ..] => (true, pattern),
                [b'-', pattern @ ..] => (false, pattern),
                _ => return Err(wrong(text, "it begins with neither + nor -")),
            };
            if pattern.len() > MAX_FILTER_BYTES {
                return Err(wrong(pattern.get(..64).unwrap_or_default(), "it is longer than 4096 bytes"));
            }
            let pattern = Pattern::parse(pattern).map_err(|reason| wrong(pattern, reason))?;
            Ok(Rule { includes, pattern })
        };
        Ok(Self {
            rules: selection.filters.iter().map(|text| rule(text.as_bytes())).collect::<Result<_, _>>()?,
            newest: selection.exclude_newer_than,
            oldest: selection.exclude_older_than,
            links: selection.symbolic_links,
            skip_special: selection.skip_special_files,
        })
    }

    /// What becomes of symbolic links.
    pub(super) const fn links(&self) -> LinkMode {
        self.links
    }

    /// Whether devices, pipes and sockets are left out without a word.
    pub(super) const fn skips_special(&self) -> bool {
        self.skip_special
    }

    /// Whether the entry that lands at `path` is sent. A link that is sent as such counts as a file.
    pub(super) fn takes(&self, path: &[u8], facts: &Facts) -> bool {
        let folder = facts.kind == Kind::Folder;
        if !folder && !self.is_of_age(facts) {
            return false;
        }
        if self.rules.is_empty() {
            return true;
        }
        let path = units(path);
        let rule = self.rules.iter().find(|rule| rule.fits(&path, folder));
        rule.is_none_or(|rule| rule.includes)
    }

    fn is_of_age(&self, facts: &Facts) -> bool {
        let modified = facts.attributes().modified_s;
        self.newest.is_none_or(|newest| modified <= newest)
            && self.oldest.is_none_or(|oldest| modified >= oldest)
    }
}

impl Rule {
    fn fits(&self, path: &[Unit], folder: bool) -> bool {
        self.pattern.fits(path, folder) || (folder && self.includes && self.pattern.leads_through(path))
    }
}

#[cfg(test)]
mod tests {
    use haul_proto::control::PathText;

    use super::*;

    fn filter(rules: &[&str]) -> Filter {
        let filters = rules.iter().map(|rule| PathText::new(rule.as_bytes())).collect();
        Filter::new(&Selection { filters, ..Selection::default() }).unwrap()
    }

    fn facts(path: &str) -> (&str, Facts) {
        let folder = tempfile::tempdir().unwrap();
        let (path, kind) = path.strip_suffix('/').map_or((path, Kind::File), |path| (path, Kind::Folder));
        let mut facts = Facts::of(std::fs::File::open(folder.path()).unwrap()).unwrap();
        facts.kind = kind;
        (path, facts)
    }

    #[test]
    fn the_first_rule_that_fits_decides() {
        // rules, path, taken
        let table: &[(&[&str], &str, bool)] = &[
            (&[], "a", true),
            (&["-*.tmp"], "a.tmp", false),
            (&["-*.tmp"], "a.txt", true),
            (&["-file[0-9]", "+file2"], "file2", false),
            (&["+file2", "-file[0-9]"], "d/file2", true),
            (&["+file2", "-file[0-9]"], "file1", false),
            (&["+file2", "-file[0-9]"], "fileA", true),
            (&["+*.bam", "+/**/", "-/**"], "run/a.bam", true),
            (&["+*.bam", "+/**/", "-/**"], "run/a.txt", false),
            (&["+*.bam", "+/**/", "-/**"], "run/", true),
            (&["+/run/deep/a", "-*"], "run/", true),
            (&["+/run/deep/a", "-*"], "run/deep/", true),
            (&["+/run/deep/a", "-*"], "run/other/", false),
            (&["-/run/deep/a"], "run/", true),
            (&["-logs/"], "run/logs/", false),
            (&["-logs/"], "run/logs", true),
        ];
        for (row, (rules, path, taken)) in table.iter().enumerate() {
            let (path, facts) = facts(path);
            assert_eq!(filter(rules).takes(path.as_bytes(), &facts), *taken, "row {row}: {rules:?} {path}");
        }
    }

    #[test]
    fn files_are_left_out_by_their_age_and_folders_are_not() {
        let (_, file) = facts("f");
        let modified = file.attributes().modified_s;
        for (newer, older, taken) in [
            (None, None, true),
            (Some(modified), Some(modified), true),
            (Some(modified - 1), None, false),
            (None, Some(modified + 1), false),
        ] {
            let selection =
                Selection { exclude_newer_than: newer, exclude_older_than: older, ..Selection::default() };
            let filter = Filter::new(&selection).unwrap();
            assert_eq!(filter.takes(b"f", &file), taken);
            let mut folder = file;
            folder.kind = Kind::Folder;
            assert!(filter.takes(b"f", &folder));
        }
    }

    #[test]
    fn rules_that_cannot_be_read_are_named() {
        let new = |rule: &[u8]| {
            let filters = vec![PathText::new(rule)];
            Filter::new(&Selection { filters, ..Selection::default() }).unwrap_err().to_string()
        };
        assert!(new(b"-[ab").starts_with("cannot use the filter rule [ab: a `[` in it is not closed"));
        assert!(new(b"a").contains("neither + nor -"));
        assert!(new(&[b"-".to_vec(), vec![b'x'; 4097]].concat()).contains("4096"));
    }
}
