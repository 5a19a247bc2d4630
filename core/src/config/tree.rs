//! One tree for both formats: every value and key knows the line it stands in.
//!
//! Text comes in, a [`Node`] goes out. YAML is built from the parser's events, not by deserialising: only
//! events keep the line of everything, and all duplicate keys. Syntax errors end the reading; duplicate keys
//! do not, so that the rest of the mistakes are found too. Copies that aliases make are paid for from a
//! budget, nesting is bounded.

use std::collections::HashMap;

use serde_yaml::granit_parser::{self, Event, Parser, ScalarStyle};
use toml::de::{DeTable, DeValue};

/// Deeper than any key of the configuration stands.
const MAX_DEPTH: usize = 32;
/// Bytes (of text, and a flat sum for each value) that anchors and aliases may copy in all.
const MAX_COPIED: usize = 4 << 20;

/// Where something was said. The order is the one in which problems are listed.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Place {
    /// The file as a whole.
    File,
    /// A line of the file, counted from 1.
    Line(usize),
    /// An environment variable.
    Environment(String),
    /// An argument of the command line, as given.
    Argument(String),
}

#[derive(Debug, Clone, PartialEq)]
pub(super) struct Node {
    pub place: Place,
    pub value: Value,
}

/// Scalars keep their text as written: what is wanted decides how it is read.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Value {
    Null,
    Bool(bool),
    Number(String),
    Text(String),
    List(Vec<Node>),
    /// In the order of the file; a key may stand in it twice.
    Map(Vec<Entry>),
}

#[derive(Debug, Clone, PartialEq)]
pub(super) struct Entry {
    pub key: String,
    pub key_place: Place,
    pub node: Node,
}

impl Entry {
    /// Where to send a reader: a block's own first line is that of its first child, its key is what one looks
    /// for.
    pub(super) fn place(&self) -> &Place {
        match self.node.value {
            Value::Null | Value::List(_) | Value::Map(_) => &self.key_place,
            _ => &self.node.place,
        }
    }
}

/// A mistake that the parser found, and the field it is about if there is one.
#[derive(Debug)]
pub(super) struct Mistake {
    pub place: Place,
    pub field: String,
    pub message: String,
}

impl Mistake {
    fn at_line(line: usize, message: impl Into<String>) -> Self {
        Self { place: Place::Line(line), field: String::new(), message: message.into() }
    }
}

impl Node {
    pub(super) fn text(place: Place, text: impl Into<String>) -> Self {
        Self { place, value: Value::Text(text.into()) }
    }

    /// An unquoted YAML scalar, or the value of an environment variable.
    pub(super) fn plain(place: Place, text: &str) -> Self {
        let value = match text {
            "" | "~" | "null" | "Null" | "NULL" => Value::Null,
            "true" | "True" | "TRUE" => Value::Bool(true),
            "false" | "False" | "FALSE" => Value::Bool(false),
            _ if looks_like_a_number(text) => Value::Number(text.to_owned()),
            _ => Value::Text(text.to_owned()),
        };
        Self { place, value }
    }

    pub(super) fn map(place: Place, entries: Vec<(&str, Node)>) -> Self {
        let entries = entries
            .into_iter()
            .map(|(key, node)| Entry { key: key.to_owned(), key_place: place.clone(), node })
            .collect();
        Self { place, value: Value::Map(entries) }
    }

    /// What a copy costs.
    fn weight(&self) -> usize {
        64 + match &self.value {
            Value::Null | Value::Bool(_) => 0,
            Value::Number(text) | Value::Text(text) => text.len(),
            Value::List(items) => items.iter().map(Node::weight).sum(),
            Value::Map(entries) => entries.iter().map(|entry| entry.key.len() + entry.node.weight()).sum(),
        }
    }
}

fn looks_like_a_number(text: &str) -> bool {
    let digits = text.strip_prefix(['-', '+']).unwrap_or(text);
    digits.starts_with(|c: char| c.is_ascii_digit() || c == '.') && text.parse::<f64>().is_ok()
}

enum Open {
    List { items: Vec<Node> },
    Map { entries: Vec<Entry>, key: Option<(String, Place)> },
}

struct Frame {
    place: Place,
    anchor: usize,
    open: Open,
}

#[derive(Default)]
struct Builder {
    stack: Vec<Frame>,
    anchors: HashMap<usize, Node>,
    copied: usize,
    root: Option<Node>,
}

/// Reads one YAML document; an empty one is [`Value::Null`].
pub(super) fn from_yaml(text: &str) -> Result<Node, Mistake> {
    let options = granit_parser::options! {
        emit_comments: false,
        flow_nesting_limit: MAX_DEPTH,
        block_nesting_limit: MAX_DEPTH,
    };
    let mut builder = Builder::default();
    let mut documents = 0;
    for event in Parser::new_from_str_with_options(text, options) {
        let (event, span) = event.map_err(|error| Mistake::at_line(error.marker().line(), error.info()))?;
        let line = span.start.line();
        if let Event::DocumentStart(..) = event {
            documents += 1;
            if documents > 1 {
                return Err(Mistake::at_line(
                    line,
                    "a second document starts here, one file holds one configuration",
                ));
            }
        }
        builder.take(event, line)?;
    }
    Ok(builder.root.unwrap_or(Node { place: Place::Line(1), value: Value::Null }))
}

impl Builder {
    fn take(&mut self, event: Event<'_>, line: usize) -> Result<(), Mistake> {
        let place = Place::Line(line);
        match event {
            Event::Scalar(_, _, _, Some(_))
            | Event::SequenceStart(_, _, Some(_))
            | Event::MappingStart(_, _, Some(_)) => Err(Mistake::at_line(
                line,
                "tags (words that start with `!`) have no meaning here, remove it",
            )),
            Event::Scalar(text, style, anchor, None) => {
                let is_plain = style == ScalarStyle::Plain && !self.wants_key();
                let node = if is_plain { Node::plain(place, &text) } else { Node::text(place, text) };
                self.finish(node, anchor, line)
            }
            Event::SequenceStart(_, anchor, None) => {
                self.open(Frame { place, anchor, open: Open::List { items: Vec::new() } }, line)
            }
            Event::MappingStart(_, anchor, None) => {
                self.open(Frame { place, anchor, open: Open::Map { entries: Vec::new(), key: None } }, line)
            }
            Event::SequenceEnd | Event::MappingEnd => {
                let Some(frame) = self.stack.pop() else { return Ok(()) };
                let value = match frame.open {
                    Open::List { items } => Value::List(items),
                    Open::Map { entries, .. } => Value::Map(entries),
                };
                self.finish(Node { place: frame.place, value }, frame.anchor, line)
            }
            Event::Alias(anchor) => {
                let Some(node) = self.anchors.get(&anchor) else {
                    return Err(Mistake::at_line(line, "this alias stands inside the value it refers to"));
                };
                let node = Self::copy(&mut self.copied, node, line)?;
                self.finish(node, 0, line)
            }
            _ => Ok(()),
        }
    }

    fn copy(copied: &mut usize, node: &Node, line: usize) -> Result<Node, Mistake> {
        *copied = copied.saturating_add(node.weight());
        if *copied > MAX_COPIED {
            return Err(Mistake::at_line(
                line,
                "aliases multiply this file beyond its limit, write the values out",
            ));
        }
        Ok(node.clone())
    }

    fn wants_key(&self) -> bool {
        matches!(self.stack.last(), Some(Frame { open: Open::Map { key: None, .. }, .. }))
    }

    fn open(&mut self, frame: Frame, line: usize) -> Result<(), Mistake> {
        if self.stack.len() >= MAX_DEPTH {
            return Err(Mistake::at_line(line, format!("nested deeper than {MAX_DEPTH} levels")));
        }
        if self.wants_key() {
            return Err(Mistake::at_line(line, "a key must be text"));
        }
        self.stack.push(frame);
        Ok(())
    }

    fn finish(&mut self, node: Node, anchor: usize, line: usize) -> Result<(), Mistake> {
        if anchor != 0 {
            let kept = Self::copy(&mut self.copied, &node, line)?;
            self.anchors.insert(anchor, kept);
        }
        let Some(frame) = self.stack.last_mut() else {
            self.root = Some(node);
            return Ok(());
        };
        match &mut frame.open {
            Open::List { items } => items.push(node),
            Open::Map { entries, key } => match key.take() {
                Some((key, key_place)) => entries.push(Entry { key, key_place, node }),
                None => {
                    let (Value::Text(text) | Value::Number(text)) = node.value else {
                        return Err(Mistake::at_line(line, "a key must be text"));
                    };
                    *key = Some((text, node.place));
                }
            },
        }
        Ok(())
    }
}

/// Reads a TOML document; the second part are duplicate keys, of which the first value was kept.
pub(super) fn from_toml(text: &str) -> Result<(Node, Vec<Mistake>), Vec<Mistake>> {
    let lines = Lines::of(text);
    let (table, errors) = DeTable::parse_recoverable(text);
    let mut duplicates = Vec::new();
    let mut syntax = Vec::new();
    for error in errors {
        let span = error.span().unwrap_or_default();
        let place = lines.place(span.start);
        if error.message() == "duplicate key" {
            let key = text.get(span).unwrap_or_default().trim_matches(['"', '\'']).to_owned();
            duplicates.push(Mistake { place, field: key, message: "this key is given twice".to_owned() });
        } else {
            syntax.push(Mistake { place, field: String::new(), message: error.message().to_owned() });
        }
    }
    if !syntax.is_empty() {
        return Err(syntax);
    }
    let tree = Node { place: Place::Line(1), value: lines.table(table.get_ref()) };
    // Each search walks the tree; who repeats more keys than this needs no full paths.
    for duplicate in duplicates.iter_mut().take(20) {
        let mut nearest = None;
        find_key(&tree, "", duplicate, &mut nearest);
        if let Some((_, path)) = nearest {
            duplicate.field = crate::path::lossy(path.as_bytes());
        }
    }
    Ok((tree, duplicates))
}

/// The path of the last entry before the duplicate that has its key: that is the one it repeats, because the
/// parser tells only the key.
fn find_key<'t>(node: &'t Node, path: &str, duplicate: &Mistake, nearest: &mut Option<(&'t Place, String)>) {
    match &node.value {
        Value::Map(entries) => {
            for entry in entries {
                let dot = if path.is_empty() { "" } else { "." };
                let entry_path = format!("{path}{dot}{}", entry.key);
                let is_nearer = nearest.as_ref().is_none_or(|(place, _)| *place <= &entry.key_place);
                if entry.key == duplicate.field && entry.key_place <= duplicate.place && is_nearer {
                    *nearest = Some((&entry.key_place, entry_path.clone()));
                }
                find_key(&entry.node, &entry_path, duplicate, nearest);
            }
        }
        Value::List(items) => {
            for (index, item) in items.iter().enumerate() {
                find_key(item, &format!("{path}[{index}]"), duplicate, nearest);
            }
        }
        _ => {}
    }
}

/// Where each line of a text starts.
struct Lines(Vec<usize>);

impl Lines {
    fn of(text: &str) -> Self {
        Self(text.bytes().enumerate().filter(|(_, byte)| *byte == b'\n').map(|(at, _)| at).collect())
    }

    fn place(&self, offset: usize) -> Place {
        Place::Line(self.0.partition_point(|newline| *newline < offset) + 1)
    }

    fn table(&self, table: &DeTable<'_>) -> Value {
        let entries = table
            .iter()
            .map(|(key, value)| Entry {
                key: key.get_ref().to_string(),
                key_place: self.place(key.span().start),
                node: Node { place: self.place(value.span().start), value: self.value(value.get_ref()) },
            })
            .collect();
        Value::Map(entries)
    }

    fn value(&self, value: &DeValue<'_>) -> Value {
        match value {
            DeValue::String(text) => Value::Text(text.to_string()),
            DeValue::Integer(number) => {
                let decimal = i128::from_str_radix(number.as_str(), number.radix());
                Value::Number(decimal.map_or_else(|_| number.to_string(), |decimal| decimal.to_string()))
            }
            DeValue::Float(number) => Value::Number(number.as_str().to_owned()),
            DeValue::Boolean(value) => Value::Bool(*value),
            DeValue::Datetime(time) => Value::Text(time.to_string()),
            DeValue::Array(items) => {
                let item = |item: &toml::Spanned<DeValue<'_>>| Node {
                    place: self.place(item.span().start),
                    value: self.value(item.get_ref()),
                };
                Value::List(items.iter().map(item).collect())
            }
            DeValue::Table(table) => self.table(table),
        }
    }
}
