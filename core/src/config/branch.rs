//! Names of branches and tags that depend on the machine and the day.

use jiff::Timestamp;
use jiff::fmt::strtime;
use jiff::tz::TimeZone;

use crate::error::{Error, Kind, Result};

/// Below this, all branches are ours: quarantine and rescue.
const OWN_BRANCHES: &str = "backupbot";
/// Leaves room for a suffix within one path component.
const MAX_BYTES: usize = 200;
/// A moment to try templates with: a Sunday, so that one-digit and two-digit fields are both seen.
const SAMPLE: i64 = 1_783_839_600;

/// A branch name in which `{instance}` and `{date:%Y-%m}` (strftime, UTC) are replaced.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BranchTemplate {
    text: String,
    parts: Vec<Part>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Text(String),
    Instance,
    Date(String),
}

impl BranchTemplate {
    /// Reads a template and tries it for `instance`; the error is a sentence for the operator.
    pub fn parse(text: &str, instance: &str) -> std::result::Result<Self, String> {
        let template = Self { text: text.to_owned(), parts: parse_parts(text)? };
        let name = template.fill(instance, sample())?;
        check_branch(&name)?;
        Ok(template)
    }

    /// The branch for `instance` at `now`.
    pub fn render(&self, instance: &str, now: Timestamp) -> Result<String> {
        let name = self.fill(instance, now);
        name.and_then(|name| check_branch(&name).map(|()| name)).map_err(|message| {
            Error::new(Kind::Config, format!("branch template {:?}: {message}", self.text))
        })
    }

    /// The same as a reference.
    pub fn full_name(&self, instance: &str, now: Timestamp) -> Result<String> {
        let name = self.render(instance, now)?;
        Ok(if name.starts_with("refs/") { name } else { format!("refs/heads/{name}") })
    }

    /// The template as written.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    fn fill(&self, instance: &str, now: Timestamp) -> std::result::Result<String, String> {
        let mut name = String::new();
        for part in &self.parts {
            match part {
                Part::Text(text) => name.push_str(text),
                Part::Instance => name.push_str(instance),
                Part::Date(format) => name.push_str(&format_date(format, now)?),
            }
        }
        Ok(name)
    }

    /// Two templates that can never name the same branch at the same moment on this machine differ here.
    pub(super) fn sample(&self, instance: &str) -> String {
        self.fill(instance, sample()).unwrap_or_else(|_| self.text.clone())
    }
}

impl Default for BranchTemplate {
    fn default() -> Self {
        Self { text: "main".to_owned(), parts: vec![Part::Text("main".to_owned())] }
    }
}

fn sample() -> Timestamp {
    Timestamp::from_second(SAMPLE).unwrap_or(Timestamp::UNIX_EPOCH)
}

fn parse_parts(text: &str) -> std::result::Result<Vec<Part>, String> {
    const WHAT: &str = "only {instance} and {date:%Y-%m} may stand in braces";
    let mut parts = Vec::new();
    let mut rest = text;
    while let Some(open) = rest.find(['{', '}']) {
        let (before, tail) = rest.split_at(open);
        if !before.is_empty() {
            parts.push(Part::Text(before.to_owned()));
        }
        let inside = tail.strip_prefix('{').and_then(|tail| tail.split_once('}'));
        let Some((inside, after)) = inside else { return Err(format!("a brace stands alone: {WHAT}")) };
        parts.push(match (inside, inside.strip_prefix("date:")) {
            ("instance", _) => Part::Instance,
            (_, Some(format)) => Part::Date(format.to_owned()),
            _ => return Err(WHAT.to_owned()),
        });
        rest = after;
    }
    if !rest.is_empty() {
        parts.push(Part::Text(rest.to_owned()));
    }
    Ok(parts)
}

fn format_date(format: &str, now: Timestamp) -> std::result::Result<String, String> {
    strtime::format(format, &now.to_zoned(TimeZone::UTC))
        .map_err(|error| format!("{format:?} is no date format: {error}"))
}

fn check_branch(name: &str) -> std::result::Result<(), String> {
    let sound = !name.starts_with('-')
        && !matches!(name, "HEAD" | "@")
        && name.len() <= MAX_BYTES
        && git2::Reference::is_valid_name(&format!("refs/heads/{name}"));
    if !sound {
        return Err(format!("Git takes no branch named {name:?}"));
    }
    if name == OWN_BRANCHES || name.starts_with("backupbot/") {
        return Err(format!("branches below `{OWN_BRANCHES}` are BackupBot's own"));
    }
    Ok(())
}

/// Checks the format of tag names.
pub(super) fn check_tag_format(format: &str) -> std::result::Result<(), String> {
    let name = format_date(format, sample())?;
    let sound = !name.starts_with('-')
        && name.len() <= MAX_BYTES
        && git2::Reference::is_valid_name(&format!("refs/tags/{name}"));
    if sound { Ok(()) } else { Err(format!("Git takes no tag named {name:?}")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn render(text: &str) -> String {
        let template = BranchTemplate::parse(text, "laptop").unwrap();
        template.render("laptop", "2026-11-22T23:30:00Z".parse().unwrap()).unwrap()
    }

    #[test]
    fn instance_and_date_are_filled_in_utc() {
        assert_eq!(render("main"), "main");
        assert_eq!(render("{instance}"), "laptop");
        assert_eq!(render("backup/{instance}/{date:%Y-%m}"), "backup/laptop/2026-11");
        assert_eq!(render("{date:%d}"), "22");
    }

    #[test]
    fn templates_that_git_would_refuse_are_refused_at_once() {
        for text in [
            "",
            "a b",
            "a..b",
            "/a",
            "a/",
            "a.lock",
            "-x",
            "HEAD",
            "@",
            "a~1",
            "{date:%H:%M}",
            "{date:%!}",
            "{hostname}",
            "{instance",
            "instance}",
            "{}",
            "backupbot",
            "backupbot/x",
            "a\nb",
        ] {
            assert!(BranchTemplate::parse(text, "laptop").is_err(), "{text:?}");
        }
        assert!(BranchTemplate::parse(&"x".repeat(201), "laptop").is_err());
    }

    #[test]
    fn git_itself_takes_every_branch_that_is_taken_here() {
        let names = [
            "main",
            "a/b",
            "ž",
            "a{instance}",
            "x@y",
            "@",
            "HEAD",
            "a.",
            ".a",
            "a@{b",
            "a//b",
            "a/.b",
            "a\u{7f}",
            "-a",
        ];
        let mut taken = 0;
        for name in names {
            let Ok(template) = BranchTemplate::parse(name, "laptop") else { continue };
            let branch = template.render("laptop", Timestamp::UNIX_EPOCH).unwrap();
            let verdict = std::process::Command::new("git")
                .args(["check-ref-format", "--branch", &branch])
                .output()
                .unwrap();
            assert!(verdict.status.success(), "{branch:?}");
            taken += 1;
        }
        assert_eq!(taken, 5);
    }

    #[test]
    fn an_instance_that_spoils_the_name_is_an_error_and_no_branch() {
        let template = BranchTemplate::parse("{instance}", "laptop").unwrap();
        assert!(template.render("a..b", Timestamp::UNIX_EPOCH).is_err());
    }

    #[test]
    fn tag_formats_are_tried() {
        assert!(check_tag_format("backup-%Y-%m-%d").is_ok());
        for format in ["%Y:%m", "%!", "", "a b"] {
            assert!(check_tag_format(format).is_err(), "{format:?}");
        }
    }
}
