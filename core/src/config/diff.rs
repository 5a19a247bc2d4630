//! What differs between the configuration in force and a new one, and what of it can be had without a restart.
//!
//! In: two checked configurations. Out: a [`Diff`] for people and for whoever rearranges the tree. A start is the
//! diff from [`Diff::from_nothing`]. Values are compared as the model has them, so a file that says the same in
//! other words changes nothing.

use super::model::{Config, Repository};
use crate::names::{RemoteName, RepositoryName, RootName};

/// What differs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Diff {
    /// Fields that can only change with a restart. If there is any, nothing of the new configuration may be applied.
    pub needs_restart: Vec<&'static str>,
    /// Fields outside of the repositories that change at once.
    pub fields: Vec<&'static str>,
    /// Repositories that are new.
    pub added: Vec<RepositoryName>,
    /// Repositories that are no longer there.
    pub removed: Vec<RepositoryName>,
    /// Repositories that are there and differ.
    pub changed: Vec<RepositoryDiff>,
}

/// What differs in one repository.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RepositoryDiff {
    /// Its name.
    pub name: RepositoryName,
    /// Its roots, by name.
    pub roots: Parts<RootName>,
    /// Its remotes, by name.
    pub remotes: Parts<RemoteName>,
    /// Whether something else of it differs, such as its branch, or a limit that counts for all.
    pub settings: bool,
}

/// Parts by what happened to them.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Parts<N> {
    pub added: Vec<N>,
    pub removed: Vec<N>,
    pub changed: Vec<N>,
}

impl<N> Parts<N> {
    /// Whether nothing happened.
    pub fn is_empty(&self) -> bool {
        self.added.is_empty() && self.removed.is_empty() && self.changed.is_empty()
    }
}

impl Diff {
    /// What leads from `old` to `new`.
    pub fn between(old: &Config, new: &Config) -> Self {
        let mut diff = Self::from_nothing(new);
        let is_old =
            |name: &RepositoryName| old.repositories.iter().any(|repository| repository.name == *name);
        diff.added.retain(|name| !is_old(name));
        let find =
            |name: &RepositoryName| new.repositories.iter().find(|repository| repository.name == *name);
        for before in &old.repositories {
            match find(&before.name) {
                None => diff.removed.push(before.name.clone()),
                Some(after) => {
                    let mut changed = of_repository(before, after);
                    changed.settings |= old.limits.repository_size != new.limits.repository_size;
                    if changed.settings || !changed.roots.is_empty() || !changed.remotes.is_empty() {
                        diff.changed.push(changed);
                    }
                }
            }
        }
        let fixed = [
            ("state_dir", old.state_dir == new.state_dir),
            ("instance", old.instance == new.instance),
            ("identity", old.identity == new.identity),
            ("log", old.log == new.log),
            ("shutdown_grace", old.shutdown_grace == new.shutdown_grace),
            ("admin.listen", old.admin.listen == new.admin.listen),
            ("admin.token_file", old.admin.token_file == new.admin.token_file),
            ("metrics", old.metrics == new.metrics),
        ];
        let free = [
            ("limits", old.limits == new.limits),
            ("alerts", old.alerts == new.alerts),
            ("admin.read_token_file", old.admin.read_token_file == new.admin.read_token_file),
            ("admin.allowed_hosts", old.admin.allowed_hosts == new.admin.allowed_hosts),
            ("admin.restore_dirs", old.admin.restore_dirs == new.admin.restore_dirs),
        ];
        let differing = |fields: &[(&'static str, bool)]| {
            fields.iter().filter(|(_, is_equal)| !is_equal).map(|(field, _)| *field).collect()
        };
        diff.needs_restart = differing(&fixed);
        diff.fields = differing(&free);
        diff
    }

    /// What leads from nothing to `new`.
    pub fn from_nothing(new: &Config) -> Self {
        let added = new.repositories.iter().map(|repository| repository.name.clone()).collect();
        Self { added, ..Self::default() }
    }

    /// Whether the two say the same.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// What differs in `name`, if it was there before and is there still.
    pub fn of(&self, name: &RepositoryName) -> Option<&RepositoryDiff> {
        self.changed.iter().find(|changed| changed.name == *name)
    }
}

impl RepositoryDiff {
    /// Whether all of it has to be built anew, because something differs that is not of one root or one remote.
    pub fn is_whole(&self) -> bool {
        self.settings
    }
}

fn of_repository(old: &Repository, new: &Repository) -> RepositoryDiff {
    // What is left when roots and remotes are taken out is everything else, whatever a later version adds.
    let bare =
        |repository: &Repository| Repository { roots: Vec::new(), remotes: Vec::new(), ..repository.clone() };
    RepositoryDiff {
        name: new.name.clone(),
        roots: parts(&old.roots, &new.roots, |root| &root.name),
        remotes: parts(&old.remotes, &new.remotes, |remote| &remote.name),
        // How large a file may be counts for all roots.
        settings: bare(old) != bare(new)
            || old.largest_blob() != new.largest_blob()
            || old.largest_object() != new.largest_object(),
    }
}

fn parts<T: PartialEq, N: Clone + PartialEq>(old: &[T], new: &[T], name: impl Fn(&T) -> &N) -> Parts<N> {
    let find = |all: &'_ [T], wanted: &N| all.iter().position(|one| name(one) == wanted);
    let mut parts = Parts { added: Vec::new(), removed: Vec::new(), changed: Vec::new() };
    for after in new {
        match find(old, name(after)) {
            None => parts.added.push(name(after).clone()),
            Some(at) if old[at] != *after => parts.changed.push(name(after).clone()),
            Some(_) => {}
        }
    }
    let gone = old.iter().filter(|before| find(new, name(before)).is_none());
    parts.removed = gone.map(|before| name(before).clone()).collect();
    parts
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Context, Format, parse};

    fn read(text: &str) -> Config {
        let context = Context {
            default_state_dir: "/var/lib/backupbot".into(),
            default_instance: "laptop".to_owned(),
            ..Context::default()
        };
        parse(text.as_bytes(), Format::Yaml, "test.yaml", &context).unwrap().config
    }

    const BEFORE: &str = "
version: 1
repositories:
  - {name: a, roots: [{path: /data/a}], remotes: [{name: usb, url: /mnt/a.git}, {name: nas, url: /nas/a.git}]}
  - {name: b, roots: [{path: /data/b}, {path: /data/c}]}
  - {name: gone, roots: [{path: /data/gone}]}
";

    #[test]
    fn the_same_in_other_words_is_no_difference() {
        let other = BEFORE.replace("/data/a}", "/data/a, name: a, debounce: {quiet: 10s}}");
        assert!(Diff::between(&read(BEFORE), &read(&other)).is_empty());
    }

    #[test]
    fn each_part_is_named_by_what_happened_to_it() {
        let after = "
version: 1
admin: {restore_dirs: []}
alerts: {backlog: 7}
repositories:
  - {name: new, roots: [{path: /data/new}]}
  - {name: a, roots: [{path: /data/a}], remotes: [{name: usb, url: /mnt/other.git}, {name: web, url: /w/a.git}]}
  - {name: b, branch: other, roots: [{path: /data/b, ignore: [x]}, {path: /data/d}]}
";
        let diff = Diff::between(&read(BEFORE), &read(after));
        let names = |names: &[RemoteName]| names.iter().map(ToString::to_string).collect::<Vec<_>>();
        let roots = |names: &[RootName]| names.iter().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(diff.added.iter().map(RepositoryName::as_str).collect::<Vec<_>>(), ["new"]);
        assert_eq!(diff.removed.iter().map(RepositoryName::as_str).collect::<Vec<_>>(), ["gone"]);
        assert_eq!((diff.fields.clone(), diff.needs_restart.len()), (vec!["alerts"], 0));
        let [a, b] = diff.changed.as_slice() else { panic!("{diff:?}") };
        assert!(a.roots.is_empty() && !a.settings);
        assert_eq!(
            (names(&a.remotes.added), names(&a.remotes.removed)),
            (vec!["web".into()], vec!["nas".into()])
        );
        assert_eq!(names(&a.remotes.changed), ["usb"]);
        assert!(b.settings && b.remotes.is_empty());
        assert_eq!((roots(&b.roots.added), roots(&b.roots.removed)), (vec!["d".into()], vec!["c".into()]));
        assert_eq!(roots(&b.roots.changed), ["b"]);
    }

    #[test]
    fn what_needs_a_restart_is_named() {
        let after =
            format!("instance: other\nstate_dir: /elsewhere\nadmin: {{listen: \"127.0.0.1:1\"}}\n{BEFORE}");
        let diff = Diff::between(&read(BEFORE), &read(&after));
        assert_eq!(diff.needs_restart, ["state_dir", "instance", "admin.listen"]);
    }

    #[test]
    fn a_limit_that_counts_for_all_changes_all() {
        let after = format!("limits: {{repository_size: 1GiB}}\n{BEFORE}");
        let diff = Diff::between(&read(BEFORE), &read(&after));
        assert_eq!((diff.changed.len(), diff.fields), (3, vec!["limits"]));
    }
}
