//! From text to settings with their lines. Every mistake is found in one go; nothing on the system is looked at.

use std::fmt;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::settings::{SETTINGS, Section, Setting, Value};

/// Where a value comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Origin {
    Line(usize),
    Default,
    SingleUser,
    UserName,
}

/// One thing that is wrong with a configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    pub(crate) line: Option<usize>,
    pub(crate) what: String,
    pub(crate) advice: String,
    /// The server starts all the same.
    pub(crate) warning: bool,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let warning = if self.warning { "warning: " } else { "" };
        match self.line {
            Some(line) => write!(f, "{warning}{}, line {line}: {}", self.what, self.advice),
            None => write!(f, "{warning}{}: {}", self.what, self.advice),
        }
    }
}

/// A setting with its value.
#[derive(Debug, Clone)]
pub(crate) struct Cell {
    pub(crate) setting: &'static Setting,
    pub(crate) value: Value,
    pub(crate) origin: Origin,
}

/// A section with its settings, defaults filled in.
#[derive(Debug, Clone)]
pub(crate) struct FilledTable {
    pub(crate) section: Section,
    /// Where it begins, if it stands in the file.
    pub(crate) line: Option<usize>,
    pub(crate) cells: Vec<Cell>,
}

impl FilledTable {
    pub(crate) const fn new(section: Section, line: Option<usize>) -> Self {
        Self { section, line, cells: Vec::new() }
    }

    pub(crate) fn cell(&self, key: &str) -> Option<&Cell> {
        self.cells.iter().find(|cell| cell.setting.key == key)
    }

    pub(crate) fn set(&mut self, key: &str, value: Value, origin: Origin) {
        if let Some(setting) = find(self.section, key) {
            self.cells.retain(|cell| cell.setting.key != key);
            self.cells.push(Cell { setting, value, origin });
        }
    }
}

/// Reads a file's text.
pub(crate) fn parse(text: &str) -> (Vec<FilledTable>, Vec<Problem>) {
    let mut reader = Reader { text, tables: Vec::new(), problems: Vec::new() };
    match DeTable::parse(text) {
        Ok(document) => reader.read_document(document.get_ref()),
        Err(error) => {
            let line = error.span().map(|span| reader.line_at(span.start));
            reader.problem(line, "no valid TOML".to_owned(), error.message().replace('\n', ", "));
        }
    }
    reader.problems.sort_by_key(|problem| problem.line);
    (reader.tables, reader.problems)
}

struct Reader<'t> {
    text: &'t str,
    tables: Vec<FilledTable>,
    problems: Vec<Problem>,
}

impl Reader<'_> {
    fn read_document(&mut self, document: &DeTable<'_>) {
        let mut top = FilledTable::new(Section::Top, None);
        for (key, value) in document {
            match Section::named(key.get_ref()) {
                Some(section) => self.read_section(section, key.span().start, value),
                None => self.read_cell(&mut top, key.get_ref(), key.span().start, value),
            }
        }
        self.tables.push(top);
        for section in [Section::Ssh, Section::Udp, Section::Https] {
            if !self.tables.iter().any(|table| table.section == section) {
                self.tables.push(FilledTable::new(section, None));
            }
        }
        let mut tables = std::mem::take(&mut self.tables);
        for table in &mut tables {
            self.fill(table);
        }
        self.tables = tables;
    }

    fn read_section(&mut self, section: Section, start: usize, value: &Spanned<DeValue<'_>>) {
        let found = match (section, value.get_ref()) {
            (section, DeValue::Array(items)) if section.is_list() => {
                for item in items.iter() {
                    match item.get_ref().as_table() {
                        Some(table) => self.read_table(section, item.span().start, table),
                        None => self.wrong_section(section, item.span().start, item.get_ref().type_str()),
                    }
                }
                return;
            }
            (section, DeValue::Table(_)) if section.is_list() => match section {
                Section::User => "[user]",
                _ => "[schedule]",
            },
            (_, DeValue::Table(table)) => return self.read_table(section, start, table),
            (_, other) => other.type_str(),
        };
        self.wrong_section(section, start, found);
    }

    fn wrong_section(&mut self, section: Section, start: usize, found: &str) {
        let line = Some(self.line_at(start));
        let what = format!("`{}`", section.name());
        self.problem(line, what, format!("expected {}, found {found}", section.heading()));
    }

    fn read_table(&mut self, section: Section, start: usize, table: &DeTable<'_>) {
        let mut filled = FilledTable::new(section, Some(self.line_at(start)));
        for (key, value) in table {
            self.read_cell(&mut filled, key.get_ref(), key.span().start, value);
        }
        self.tables.push(filled);
    }

    fn read_cell(&mut self, table: &mut FilledTable, key: &str, start: usize, value: &Spanned<DeValue<'_>>) {
        let (section, line) = (table.section, self.line_at(start));
        let Some(setting) = find(section, key) else {
            self.problem(
                Some(line),
                format!("unknown key `{key}` in {}", section.heading()),
                nearest(section, key),
            );
            return;
        };
        match setting.kind.read(value.get_ref()) {
            Some(value) => table.cells.push(Cell { setting, value, origin: Origin::Line(line) }),
            None => {
                let found = self.source_of(value);
                let advice = format!("expected {}, found {found}", setting.kind.expected());
                self.problem(Some(line), format!("`{key}` in {}", section.heading()), advice);
            }
        }
    }

    /// Puts defaults in and misses what is required. A value that was wrong has been told already.
    fn fill(&mut self, table: &mut FilledTable) {
        let missing =
            |setting: &&Setting| setting.section == table.section && table.cell(setting.key).is_none();
        for setting in SETTINGS.iter().filter(missing).collect::<Vec<_>>() {
            if let Some(value) = default_value(setting) {
                table.cells.push(Cell { setting, value, origin: Origin::Default });
            } else if setting.required && !self.told(setting, table.line) {
                let what = format!("missing `{}` in {}", setting.key, table.section.heading());
                self.problem(
                    table.line,
                    what,
                    format!("write for example {} = {}", setting.key, setting.example),
                );
            }
        }
    }

    /// Whether the section starting at `line` has a problem about this very setting.
    fn told(&self, setting: &Setting, line: Option<usize>) -> bool {
        let what = format!("`{}` in {}", setting.key, setting.section.heading());
        self.problems.iter().any(|problem| problem.what == what && problem.line >= line)
    }

    fn problem(&mut self, line: Option<usize>, what: String, advice: String) {
        self.problems.push(Problem { line, what, advice, warning: false });
    }

    fn line_at(&self, offset: usize) -> usize {
        let before = self.text.as_bytes().get(..offset).unwrap_or_default();
        before.iter().filter(|byte| **byte == b'\n').count() + 1
    }

    /// The value as it stands in the file, its first line, shortened.
    fn source_of(&self, value: &Spanned<DeValue<'_>>) -> String {
        let source = self.text.get(value.span()).unwrap_or_default();
        let line: String = source.lines().next().unwrap_or_default().chars().take(60).collect();
        if line.len() < source.len() { format!("{line}…") } else { line }
    }
}

fn find(section: Section, key: &str) -> Option<&'static Setting> {
    SETTINGS.iter().find(|setting| setting.section == section && setting.key == key)
}

pub(crate) fn default_value(setting: &Setting) -> Option<Value> {
    let value = DeValue::parse(setting.default?).ok()?;
    setting.kind.read(value.get_ref())
}

/// The way out of an unknown key: its right section, the nearest name, or all names.
fn nearest(section: Section, key: &str) -> String {
    if let Some(elsewhere) = SETTINGS.iter().find(|setting| setting.key == key) {
        return format!("it belongs in {}", elsewhere.section.heading());
    }
    let mut names: Vec<&str> =
        SETTINGS.iter().filter(|setting| setting.section == section).map(|setting| setting.key).collect();
    if section == Section::Top {
        names.extend(Section::ALL.iter().map(|section| section.name()).filter(|name| !name.is_empty()));
    }
    let near = names.iter().map(|name| (distance(key, name), *name)).min().filter(|(far, _)| *far <= 3);
    match near {
        Some((_, name)) => format!("did you mean `{name}`?"),
        None => format!("known are {}", names.join(", ")),
    }
}

/// How many letters must be put in, left out or changed (Levenshtein).
fn distance(one: &str, two: &str) -> usize {
    let mut row: Vec<usize> = (0..=two.chars().count()).collect();
    for (i, a) in one.chars().enumerate() {
        let mut next = vec![i + 1];
        for (j, b) in two.chars().enumerate() {
            let get = |row: &[usize], at: usize| row.get(at).copied().unwrap_or(usize::MAX - 1);
            let change = get(&row, j) + usize::from(a != b);
            next.push(change.min(get(&row, j + 1) + 1).min(get(&next, j) + 1));
        }
        row = next;
    }
    row.last().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = r#"state_dir = "/var/lib/haul"
[ssh]
listen = ["0.0.0.0:33001", "[::]:33001"]
[udp]
ports = "33001-33100"
[https]
listen = ["0.0.0.0:8443"]
[[user]]
name = "alice"
docroot = "/srv/alice"
authorized_keys = "/etc/haul/alice.keys"
permissions = ["read", "write", "list"]
max_rate = "1g"
account = "alice"
"#;

    #[test]
    fn the_documented_file_is_read_without_a_problem() {
        let (tables, problems) = parse(GOOD);
        assert_eq!(problems, []);
        let user = tables.iter().find(|table| table.section == Section::User).unwrap();
        assert_eq!(user.line, Some(8));
        assert_eq!(user.cell("max_rate").unwrap().origin, Origin::Line(13));
    }

    #[test]
    fn the_sample_is_read_without_a_problem() {
        assert_eq!(parse(&super::super::sample()).1, []);
    }

    #[test]
    fn defaults_are_themselves_valid() {
        for setting in SETTINGS {
            assert_eq!(setting.default.is_some(), default_value(setting).is_some(), "{}", setting.key);
        }
    }

    #[test]
    fn each_mistake_gives_one_line_naming_line_key_and_way_out() {
        let cases = [
            (
                "[[user]]\nname = \"a\"\ndocrot = \"/srv\"\n",
                "unknown key `docrot` in [[user]], line 3: did you mean `docroot`?",
            ),
            (
                "statedir = \"/x\"\n",
                "unknown key `statedir` in the top level, line 1: did you mean `state_dir`?",
            ),
            ("[shh]\n", "unknown key `shh` in the top level, line 1: did you mean `ssh`?"),
            ("[ssh]\nports = \"1\"\n", "unknown key `ports` in [ssh], line 2: it belongs in [udp]"),
            ("[ssh]\ncolour = 1\n", "unknown key `colour` in [ssh], line 2: known are listen"),
            (
                "[udp]\nports = 33001\n",
                "`ports` in [udp], line 2: expected a port or a range in quotes such as \"33001\" or \"33001-33100\", found 33001",
            ),
            (
                "[udp]\nports = \"5-4\"\n",
                "`ports` in [udp], line 2: expected a port or a range in quotes such as \"33001\" or \"33001-33100\", found \"5-4\"",
            ),
            (
                "[ssh]\nlisten = [\"localhost\"]\n",
                "`listen` in [ssh], line 2: expected a list of addresses with port such as [\"0.0.0.0:33001\", \"[::]:33001\"], found [\"localhost\"]",
            ),
            (
                "state_dir = \"lib\"\n",
                "`state_dir` in the top level, line 1: expected an absolute path such as \"/srv/alice\", found \"lib\"",
            ),
            (
                "[[schedule]]\ndays = \"workdays\"\n",
                "`days` in [[schedule]], line 2: expected days such as \"mon-fri\" or \"mon,wed,sat-sun\", found \"workdays\"",
            ),
            (
                "[[schedule]]\nto = 18\n",
                "`to` in [[schedule]], line 2: expected a time from \"00:00\" to \"24:00\" such as \"08:00\", found 18",
            ),
            (
                "[[schedule]]\nmax_rat = \"1m\"\n",
                "unknown key `max_rat` in [[schedule]], line 2: did you mean `max_rate`?",
            ),
            (
                "[schedule]\nmax_rate = \"1m\"\n",
                "`schedule`, line 1: expected [[schedule]], found [schedule]",
            ),
            ("[[limits]]\nmax_rate = \"1m\"\n", "`limits`, line 1: expected [limits], found array"),
            (
                "[udp]\ndscp = 64\n",
                "`dscp` in [udp], line 2: expected a DSCP such as \"CS1\", \"AF41\", \"EF\", or a number from 0 to 63, found 64",
            ),
            ("[user]\nname = \"a\"\n", "`user`, line 1: expected [[user]], found [user]"),
            ("ssh = 1\n", "`ssh`, line 1: expected [ssh], found integer"),
            ("a = \n", "no valid TOML, line 1: "),
        ];
        for (n, (text, expected)) in cases.into_iter().enumerate() {
            let problems: Vec<String> = parse(text).1.iter().map(ToString::to_string).collect();
            assert!(problems.iter().any(|problem| problem.starts_with(expected)), "row {n}: {problems:#?}");
        }
    }

    #[test]
    fn wrong_values_of_a_user_are_told_once() {
        let wrong = [
            ("max_rate = \"1g\"", "max_rate = \"300000\"", "a rate with its unit"),
            ("max_rate = \"1g\"", "max_rate = 300", "a rate with its unit"),
            ("\"list\"", "\"delete\"", "a list of \"read\""),
            ("name = \"alice\"", "name = \"../x\"", "a name such as"),
            ("docroot = \"/srv/alice\"", "docroot = \"srv\"", "an absolute path"),
            ("docroot = \"/srv/alice\"", "", "write for example docroot"),
        ];
        for (n, (good, bad, expected)) in wrong.into_iter().enumerate() {
            let problems = parse(&GOOD.replace(good, bad)).1;
            assert_eq!(problems.len(), 1, "row {n}: {problems:#?}");
            assert!(problems[0].to_string().contains(expected), "row {n}: {problems:#?}");
        }
    }
}
