//! One scalar at a time: from the text of a value to what it means, or why it means nothing.
//!
//! Each reader takes a node and answers in words for the operator. The words never repeat the value.

use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use bytesize::ByteSize;

use super::model::BackendChoice;
use super::tree::{Node, Value};
use super::url::RemoteUrl;
use crate::ignore::IgnoreRules;
use crate::verify::Sample;

/// Longer than anybody means, and short enough that no clock arithmetic overflows.
const LONGEST: Duration = Duration::from_secs(3650 * 24 * 60 * 60);

type Read<T> = Result<T, String>;

/// What kind of value stands there, for "expected …, found …".
pub(super) fn describe(node: &Node) -> &'static str {
    match node.value {
        Value::Null => "nothing",
        Value::Bool(_) => "true or false",
        Value::Number(_) => "a number",
        Value::Text(_) => "text",
        Value::List(_) => "a list",
        Value::Map(_) => "keys and values",
    }
}

fn expected<T>(what: &str, node: &Node) -> Read<T> {
    Err(format!("expected {what}, found {}", describe(node)))
}

/// Text without control characters, not empty. A number counts as the text it is written as.
pub(super) fn line(node: &Node) -> Read<String> {
    match &node.value {
        Value::Text(text) | Value::Number(text) if text.is_empty() => expected("some text", node),
        Value::Text(text) | Value::Number(text) if text.chars().any(char::is_control) => {
            Err("a control character does not belong here".to_owned())
        }
        Value::Text(text) | Value::Number(text) => Ok(text.clone()),
        Value::Bool(_) => {
            Err("expected text, found true or false: put it in quotes if that is the text".to_owned())
        }
        _ => expected("text", node),
    }
}

/// `true` or `false`.
pub(super) fn boolean(node: &Node) -> Read<bool> {
    match node.value {
        Value::Bool(value) => Ok(value),
        _ => expected("true or false", node),
    }
}

/// One of a few words.
pub(super) fn choice<T: Copy>(node: &Node, words: &[(&str, T)]) -> Read<T> {
    let found = match &node.value {
        Value::Text(text) => words.iter().find(|(word, _)| word == text),
        _ => None,
    };
    let list = || words.iter().map(|(word, _)| *word).collect::<Vec<_>>().join(", ");
    found.map(|(_, value)| *value).ok_or_else(|| format!("expected one of {}", list()))
}

/// Who tells of changes, as far as this system has it.
pub(super) fn backend(node: &Node) -> Read<BackendChoice> {
    let words = [
        ("auto", BackendChoice::Auto),
        ("inotify", BackendChoice::Inotify),
        ("kqueue", BackendChoice::Kqueue),
        ("poll", BackendChoice::Poll),
    ];
    match choice(node, &words)? {
        BackendChoice::Kqueue if cfg!(target_os = "linux") => {
            Err("kqueue is for macOS and BSD; here it is auto, inotify or poll".to_owned())
        }
        BackendChoice::Inotify if !cfg!(target_os = "linux") => {
            Err("inotify is for Linux; here it is auto, kqueue or poll".to_owned())
        }
        possible => Ok(possible),
    }
}

/// A whole number within `range`.
pub(super) fn whole<T: FromStr + PartialOrd + std::fmt::Display>(
    node: &Node,
    range: RangeInclusive<T>,
) -> Read<T> {
    let number = match &node.value {
        Value::Number(text) => text.parse::<T>().ok().filter(|number| range.contains(number)),
        _ => return expected("a whole number", node),
    };
    number.ok_or_else(|| format!("expected a whole number from {} to {}", range.start(), range.end()))
}

/// A number of at least 1 and at most 100, for growing delays.
pub(super) fn factor(node: &Node) -> Read<f64> {
    let Value::Number(text) = &node.value else { return expected("a number", node) };
    let number = text.parse::<f64>().ok().filter(|number| (1.0..=100.0).contains(number));
    number.ok_or_else(|| "expected a number from 1 to 100".to_owned())
}

/// A share above 0 and up to 1, as a number or a percentage.
pub(super) fn share(node: &Node) -> Read<f64> {
    const WHAT: &str = "a share above 0 and up to 1, such as 0.5 or 50%";
    let (text, whole) = match &node.value {
        Value::Number(text) => (text.as_str(), 1.0),
        Value::Text(text) => match text.strip_suffix('%') {
            Some(number) => (number.trim_end(), 100.0),
            None => return expected(WHAT, node),
        },
        _ => return expected(WHAT, node),
    };
    let share = text.parse::<f64>().ok().map(|number| number / whole);
    share.filter(|share| *share > 0.0 && *share <= 1.0).ok_or_else(|| format!("expected {WHAT}"))
}

/// How much is looked at: a share, or a percentage of up to four places.
pub(super) fn sample(node: &Node) -> Read<Sample> {
    if let Value::Text(text) = &node.value
        && text.ends_with('%')
        && let Ok(sample) = text.parse()
    {
        return Ok(sample);
    }
    let share = share(node)?;
    format!("{:.4}%", share * 100.0).parse().map_err(|_| "a share here is at least 0.0001%".to_owned())
}

/// A number of bytes above 0: a plain number or one with a unit.
pub(super) fn size(node: &Node) -> Read<u64> {
    const WHAT: &str = "a size such as 256MiB, 10GiB or a number of bytes";
    let bytes = match &node.value {
        Value::Number(text) => text.parse::<u64>().ok(),
        // Where a product leaves the range, the crate answers with its end.
        Value::Text(text) => {
            text.parse::<ByteSize>().ok().map(|size| size.as_u64()).filter(|b| *b < u64::MAX)
        }
        _ => return expected(WHAT, node),
    };
    match bytes {
        Some(0) => Err("a size of zero makes no sense here".to_owned()),
        Some(bytes) => Ok(bytes),
        None => Err(format!("expected {WHAT}")),
    }
}

/// Bytes a second: a size, with or without `/s`.
pub(super) fn bandwidth(node: &Node) -> Read<u64> {
    match &node.value {
        Value::Text(text) => {
            let bytes = text.strip_suffix("/s").unwrap_or(text);
            size(&Node::plain(node.place.clone(), bytes.trim_end()))
                .map_err(|_| "expected bytes a second such as 5MiB/s".to_owned())
        }
        _ => size(node),
    }
}

/// A time span with its unit, from 0 to ten years; a day is 24 hours.
pub(super) fn duration(node: &Node) -> Read<Duration> {
    const WHAT: &str = "a duration such as 500ms, 10s, 5m, 1h or 7d";
    let text = match &node.value {
        Value::Text(text) => text,
        Value::Number(_) => {
            return Err("a duration needs a unit, such as 500ms, 10s, 5m, 1h or 7d".to_owned());
        }
        _ => return expected(WHAT, node),
    };
    let span = jiff::Span::from_str(text).map_err(|_| format!("expected {WHAT}"))?;
    let signed = span
        .to_duration(jiff::SpanRelativeTo::days_are_24_hours())
        .map_err(|_| "months and years have no fixed length, use days".to_owned())?;
    let duration = Duration::try_from(signed).map_err(|_| "a duration cannot be negative".to_owned())?;
    if duration > LONGEST {
        return Err("a duration here is at most 3650d".to_owned());
    }
    Ok(duration)
}

/// A duration above 0.
pub(super) fn period(node: &Node) -> Read<Duration> {
    let duration = duration(node)?;
    if duration.is_zero() { Err("a duration of zero makes no sense here".to_owned()) } else { Ok(duration) }
}

/// An absolute path, without trailing slashes.
pub(super) fn absolute_path(node: &Node) -> Read<PathBuf> {
    let text = match &node.value {
        Value::Text(text) | Value::Number(text) => text,
        _ => return expected("a path", node),
    };
    check_absolute(Path::new(text))
}

/// The rule for paths: absolute, because the program may be started anywhere, and no NUL.
pub(super) fn check_absolute(path: &Path) -> Read<PathBuf> {
    if path.as_os_str().as_encoded_bytes().contains(&0) {
        return Err("a path cannot contain NUL".to_owned());
    }
    if path.starts_with("~") {
        return Err("`~` is not expanded here, write the path out from `/`".to_owned());
    }
    if path.is_relative() {
        return Err("the path must be absolute: start it with `/`".to_owned());
    }
    Ok(path.components().collect())
}

/// An address and port.
pub(super) fn listen(node: &Node) -> Read<SocketAddr> {
    const WHAT: &str = "an IP address and a port such as \"127.0.0.1:7177\" or \"[::1]:7177\"";
    match &node.value {
        Value::Text(text) => text.parse().map_err(|_| format!("expected {WHAT}")),
        _ => expected(WHAT, node),
    }
}

/// A program and its arguments.
pub(super) fn arguments(node: &Node) -> Read<Vec<String>> {
    const WHAT: &str = "a list: the program and its arguments";
    let Value::List(items) = &node.value else { return expected(WHAT, node) };
    let arguments: Vec<String> = items.iter().map(line).collect::<Read<_>>()?;
    if arguments.is_empty() { Err(format!("expected {WHAT}, found an empty list")) } else { Ok(arguments) }
}

/// One pattern in gitignore syntax.
pub(super) fn pattern(node: &Node) -> Read<String> {
    let text = line(node)?;
    let (_, problems) = IgnoreRules::new(Path::new("/"), std::slice::from_ref(&text), &[], false);
    match problems.into_iter().next() {
        None => Ok(text),
        Some(problem) => Err(format!("not a pattern in gitignore syntax: {}", problem.reason)),
    }
}

/// A file's name, without a directory.
pub(super) fn file_name(node: &Node) -> Read<String> {
    let name = line(node)?;
    if name.contains('/') || name == "." || name == ".." {
        return Err("expected the name of a file, without directories".to_owned());
    }
    Ok(name)
}

/// A committer's name or address: Git delimits them with angle brackets.
pub(super) fn identity(node: &Node) -> Read<String> {
    let text = line(node)?;
    if text.contains(['<', '>']) || text.trim().is_empty() {
        return Err("expected a name or an address without `<` and `>`".to_owned());
    }
    Ok(text)
}

/// The instance becomes one component of branch names.
pub(super) fn instance(node: &Node) -> Read<String> {
    let text = line(node)?;
    if is_instance(&text) {
        return Ok(text);
    }
    Err("the instance becomes part of branch names: use letters, digits, `.`, `_` and `-`".to_owned())
}

/// Whether `text` can be the instance.
pub(super) fn is_instance(text: &str) -> bool {
    text.len() <= crate::names::MAX_NAME_BYTES
        && !text.contains('/')
        && git2::Reference::is_valid_name(&format!("refs/heads/backupbot/rescue/{text}/x"))
}

/// An http or https address that carries no password.
pub(super) fn web_address(node: &Node) -> Read<String> {
    let text = line(node)?;
    let without_query = text.split(['?', '#']).next().unwrap_or_default();
    match RemoteUrl::parse(without_query)? {
        RemoteUrl::Http(_) => Ok(text),
        _ => Err("expected an http:// or https:// address".to_owned()),
    }
}
