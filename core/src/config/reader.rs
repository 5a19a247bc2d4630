//! Reading a located tree key by key, collecting every mistake on the way.
//!
//! A [`Section`] is a mapping under reading: each key is asked for by name, and what nobody asked for when
//! the section ends is unknown, with the nearest asked-for key as the suggestion. So the code that reads is
//! the only list of keys. Values never appear in messages: any of them may be a secret in the wrong place.

use std::borrow::Cow;
use std::cell::RefCell;
use std::collections::HashMap;

use super::Problem;
use super::model::SecretSource;
use super::tree::{Entry, Node, Place, Value};
use super::values;

/// How alike a key must be to be suggested.
const ALIKE: f64 = 0.75;

/// A place and the path of the field there.
#[derive(Debug, Clone)]
pub(super) struct At {
    pub place: Place,
    pub field: String,
}

impl At {
    pub(super) fn new(place: Place, field: impl Into<String>) -> Self {
        Self { place, field: field.into() }
    }

    fn key(&self, place: Place, key: &str) -> Self {
        let shown: String = crate::path::lossy(key.as_bytes()).chars().take(100).collect();
        let field = if self.field.is_empty() { shown } else { format!("{}.{shown}", self.field) };
        Self { place, field }
    }

    fn index(&self, place: Place, index: usize) -> Self {
        Self { place, field: format!("{}[{index}]", self.field) }
    }
}

/// What was found so far.
#[derive(Debug)]
pub(super) struct Problems {
    file: String,
    errors: RefCell<Vec<(Place, Problem)>>,
    warnings: RefCell<Vec<(Place, Problem)>>,
}

impl Problems {
    pub(super) fn new(file: &str) -> Self {
        Self { file: file.to_owned(), errors: RefCell::default(), warnings: RefCell::default() }
    }

    pub(super) fn error(&self, at: &At, message: impl Into<String>) {
        self.errors.borrow_mut().push((at.place.clone(), self.problem(at, message.into())));
    }

    pub(super) fn warn(&self, at: &At, message: impl Into<String>) {
        self.warnings.borrow_mut().push((at.place.clone(), self.problem(at, message.into())));
    }

    fn problem(&self, at: &At, message: String) -> Problem {
        Problem { place: self.place(&at.place), field: at.field.clone(), message }
    }

    /// A place in words.
    pub(super) fn place(&self, place: &Place) -> String {
        match place {
            Place::File => self.file.clone(),
            Place::Line(line) => format!("{}:{line}", self.file),
            Place::Environment(variable) => format!("environment {variable}"),
            Place::Argument(argument) => argument.clone(),
        }
    }

    /// The errors, or the warnings if there are none; both in the order of the file.
    pub(super) fn into_result(self) -> Result<Vec<Problem>, Vec<Problem>> {
        let sorted = |list: RefCell<Vec<(Place, Problem)>>| {
            let mut list = list.into_inner();
            list.sort_by(|(left, _), (right, _)| left.cmp(right));
            list.into_iter().map(|(_, problem)| problem).collect::<Vec<_>>()
        };
        let errors = sorted(self.errors);
        if errors.is_empty() { Ok(sorted(self.warnings)) } else { Err(errors) }
    }
}

/// A value and where it stands.
#[derive(Debug, Clone)]
pub(super) struct Field<'t> {
    pub at: At,
    pub node: &'t Node,
}

/// A mapping under reading.
pub(super) struct Section<'t> {
    pub at: At,
    pub problems: &'t Problems,
    entries: &'t [Entry],
    asked: Vec<Cow<'static, str>>,
}

impl<'t> Section<'t> {
    /// Reads the mapping at `field` with `read`; anything else there is an error and not read.
    pub(super) fn read<T>(
        field: Field<'t>,
        problems: &'t Problems,
        read: impl FnOnce(&mut Section<'t>) -> T,
    ) -> Option<T> {
        let Value::Map(entries) = &field.node.value else {
            let message = format!("expected keys and values here, found {}", values::describe(field.node));
            problems.error(&field.at, message);
            return None;
        };
        let mut section = Section { at: field.at, problems, entries, asked: Vec::new() };
        let result = read(&mut section);
        section.report_duplicates();
        section.report_unknown();
        Some(result)
    }

    /// The value under `key` if it is there and not null; marks the key as known.
    pub(super) fn field(&mut self, key: impl Into<Cow<'static, str>>) -> Option<Field<'t>> {
        self.entry(key).filter(|field| field.node.value != Value::Null)
    }

    fn entry(&mut self, key: impl Into<Cow<'static, str>>) -> Option<Field<'t>> {
        let key = key.into();
        let found = self.given(&key);
        if !self.asked.contains(&key) {
            self.asked.push(key);
        }
        let entry = found?;
        Some(Field { at: self.at.key(entry.place().clone(), &entry.key), node: &entry.node })
    }

    /// Where `key` stands, or where the section does if it is not given.
    pub(super) fn at_of(&self, key: &str) -> At {
        let place = self.given(key).map_or(&self.at.place, Entry::place);
        self.at.key(place.clone(), key)
    }

    fn given(&self, key: &str) -> Option<&'t Entry> {
        self.entries.iter().find(|entry| entry.key == key)
    }

    /// Whether `key` has a value.
    pub(super) fn has(&self, key: &str) -> bool {
        self.given(key).is_some_and(|entry| entry.node.value != Value::Null)
    }

    /// Whether `key` says null, which is more than not being there.
    pub(super) fn is_null(&self, key: &str) -> bool {
        self.given(key).is_some_and(|entry| entry.node.value == Value::Null)
    }

    /// Reads `key` into `target`; absent, null or wrong leaves it as it is.
    pub(super) fn set<T>(
        &mut self,
        key: &'static str,
        target: &mut T,
        read: impl FnOnce(&Node) -> Result<T, String>,
    ) {
        if let Some(value) = self.optional(key, read) {
            *target = value;
        }
    }

    /// Like [`Section::set`], where an explicit null means none.
    pub(super) fn set_option<T>(
        &mut self,
        key: &'static str,
        target: &mut Option<T>,
        read: impl FnOnce(&Node) -> Result<T, String>,
    ) {
        let Some(field) = self.entry(key) else { return };
        *target = if field.node.value == Value::Null { None } else { self.value(&field, read) };
    }

    /// Reads `key` if it is there.
    pub(super) fn optional<T>(
        &mut self,
        key: &'static str,
        read: impl FnOnce(&Node) -> Result<T, String>,
    ) -> Option<T> {
        let field = self.field(key)?;
        self.value(&field, read)
    }

    /// Reads `key`, which must be there.
    pub(super) fn required<T>(
        &mut self,
        key: &'static str,
        read: impl FnOnce(&Node) -> Result<T, String>,
    ) -> Option<T> {
        let field = self.required_field(key)?;
        self.value(&field, read)
    }

    /// The value under `key`, which must be there.
    pub(super) fn required_field(&mut self, key: &'static str) -> Option<Field<'t>> {
        let field = self.field(key);
        if field.is_none() {
            let place =
                self.entries.iter().find(|entry| entry.key == key).map_or(&self.at.place, Entry::place);
            let at = self.at.key(place.clone(), key);
            self.problems.error(&at, format!("`{key}` is required and has no value"));
        }
        field
    }

    fn value<T>(&self, field: &Field<'t>, read: impl FnOnce(&Node) -> Result<T, String>) -> Option<T> {
        read(field.node).map_err(|message| self.problems.error(&field.at, message)).ok()
    }

    /// Reads the mapping under `key` if it is there.
    pub(super) fn section<T>(
        &mut self,
        key: &'static str,
        read: impl FnOnce(&mut Section<'t>) -> T,
    ) -> Option<T> {
        let field = self.field(key)?;
        Section::read(field, self.problems, read)
    }

    /// Reads the mapping under `key` over `target`. Null, `off` and false mean that it is not wanted.
    pub(super) fn switchable<T: Default>(
        &mut self,
        key: &'static str,
        target: &mut Option<T>,
        read: impl FnOnce(&mut Section<'t>, &mut T),
    ) {
        let Some(field) = self.entry(key) else { return };
        let is_off = match &field.node.value {
            Value::Null | Value::Bool(false) => true,
            Value::Text(text) => text == "off",
            _ => false,
        };
        if is_off {
            *target = None;
            return;
        }
        let mut wanted = target.take().unwrap_or_default();
        Section::read(field, self.problems, |s| read(s, &mut wanted));
        *target = Some(wanted);
    }

    /// The items of the list under `key`; none if it is absent, null or no list.
    pub(super) fn items(&mut self, key: &'static str) -> Option<Vec<Field<'t>>> {
        let field = self.field(key)?;
        let Value::List(items) = &field.node.value else {
            self.problems
                .error(&field.at, format!("expected a list, found {}", values::describe(field.node)));
            return None;
        };
        let item =
            |(index, node): (usize, &'t Node)| Field { at: field.at.index(node.place.clone(), index), node };
        Some(items.iter().enumerate().map(item).collect())
    }

    /// Reads the list under `key` into `target`, item by item; wrong items are left out. Returns how many
    /// items there are, right or wrong, if there is a list.
    pub(super) fn set_list<T>(
        &mut self,
        key: &'static str,
        target: &mut Vec<T>,
        read: impl Fn(&Node) -> Result<T, String>,
    ) -> Option<usize> {
        let items = self.items(key)?;
        *target = items.iter().filter_map(|field| self.value(field, &read)).collect();
        Some(items.len())
    }

    /// Reads where the secret `name` is kept: `name_file`, `name_env` or `name_command`, at most one of them.
    pub(super) fn secret(&mut self, name: &'static str) -> Option<SecretSource> {
        let [file, variable, command] = ["file", "env", "command"].map(|kind| format!("{name}_{kind}"));
        let remedy = format!("name where it is kept: {file}, {variable} or {command}");
        if let Some(entry) = self.given(name) {
            self.asked.push(name.into());
            let at = self.at.key(entry.key_place.clone(), name);
            self.problems.error(&at, format!("a secret never stands in the configuration, {remedy}"));
        }
        let mut sources = Vec::new();
        if let Some(field) = self.field(file) {
            let path = self.value(&field, values::absolute_path);
            sources.push((field.at, path.map(SecretSource::File)));
        }
        if let Some(field) = self.field(variable) {
            let variable = self.value(&field, values::line);
            sources.push((field.at, variable.map(SecretSource::Environment)));
        }
        if let Some(field) = self.field(command) {
            let arguments = self.value(&field, values::arguments);
            sources.push((field.at, arguments.map(SecretSource::Command)));
        }
        if let Some((at, _)) = sources.get(1) {
            self.problems.error(at, format!("the secret `{name}` is given twice, {remedy}"));
        }
        sources.into_iter().next().and_then(|(_, source)| source)
    }

    fn report_duplicates(&self) {
        let mut seen = HashMap::new();
        for entry in self.entries {
            let first = seen.entry(&entry.key).or_insert(entry);
            if !std::ptr::eq(*first, entry) {
                let first = self.problems.place(&first.key_place);
                let at = self.at.key(entry.key_place.clone(), &entry.key);
                self.problems.error(&at, format!("this key is given twice, first at {first}"));
            }
        }
    }

    fn report_unknown(&self) {
        for entry in self.entries.iter().filter(|entry| !self.asked.iter().any(|key| *key == entry.key)) {
            let at = self.at.key(entry.key_place.clone(), &entry.key);
            let hint = match nearest(&entry.key, self.asked.iter().map(AsRef::as_ref)) {
                _ if entry.key == "<<" => ": YAML merge keys are not read, use `defaults`".to_owned(),
                Some(key) => format!(", did you mean `{key}`?"),
                None => format!(", expected one of {}", self.asked.join(", ")),
            };
            self.problems.error(&at, format!("unknown key{hint}"));
        }
    }
}

/// The candidate most like `word`, if any is like it at all.
pub(super) fn nearest<'a>(word: &str, candidates: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    // The comparison is quadratic, and no key of ours is nearly as long.
    if word.len() > 100 {
        return None;
    }
    candidates
        .map(|candidate| (strsim::jaro_winkler(word, candidate), candidate))
        .filter(|(likeness, _)| *likeness >= ALIKE)
        .max_by(|(left, _), (right, _)| left.total_cmp(right))
        .map(|(_, candidate)| candidate)
}
