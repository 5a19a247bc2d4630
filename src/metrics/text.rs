//! Prometheus' text format, after it was written: what is no longer configured is left out, the rest is put in order.
//!
//! Names of the configuration have no quotes, so a label is found by its text. A family of which every series is left out
//! goes with its description.

use std::collections::BTreeSet;

use backupbot_core::config::Repository;

/// What series may speak of: pairs of a repository and one of its remotes, or roots.
#[derive(Debug, Default)]
pub struct Configured {
    repositories: BTreeSet<String>,
    remotes: BTreeSet<(String, String)>,
    roots: BTreeSet<(String, String)>,
}

impl Configured {
    /// These repositories, with all that is theirs.
    pub fn of<'r>(repositories: impl Iterator<Item = &'r Repository>) -> Self {
        let mut all = Self::default();
        for repository in repositories {
            let name = repository.name.to_string();
            let remotes = repository.remotes.iter().map(|remote| (name.clone(), remote.name.to_string()));
            all.remotes.extend(remotes);
            all.roots.extend(repository.roots.iter().map(|root| (name.clone(), root.name.to_string())));
            all.repositories.insert(name);
        }
        all
    }

    #[cfg(test)]
    pub fn named(repository: &str, remotes: &[&str], roots: &[&str]) -> Self {
        let pairs = |names: &[&str]| {
            names.iter().map(|name| (repository.to_owned(), (*name).to_owned())).collect::<BTreeSet<_>>()
        };
        Self {
            repositories: BTreeSet::from([repository.to_owned()]),
            remotes: pairs(remotes),
            roots: pairs(roots),
        }
    }

    fn knows(&self, series: &str) -> bool {
        let Some(repository) = label(series, "repository") else { return true };
        let pair = |name: &str| (repository.to_owned(), name.to_owned());
        self.repositories.contains(repository)
            && label(series, "remote").is_none_or(|remote| self.remotes.contains(&pair(remote)))
            && label(series, "root").is_none_or(|root| self.roots.contains(&pair(root)))
    }
}

fn label<'s>(series: &'s str, name: &str) -> Option<&'s str> {
    let labels = series.split_once('{')?.1;
    labels.split(',').find_map(|pair| {
        let value = pair.strip_prefix(name)?.strip_prefix("=\"")?;
        value.split('"').next()
    })
}

/// Leaves out what is not `configured`, and sorts families, and the series of those that are no histograms: their
/// buckets have an order of their own.
pub fn tidy(text: &str, configured: &Configured) -> String {
    let mut families: Vec<Vec<&str>> = Vec::new();
    for family in text.split("\n\n") {
        let lines = family.lines().filter(|line| !line.is_empty());
        let mut lines: Vec<&str> =
            lines.filter(|line| line.starts_with('#') || configured.knows(line)).collect();
        let head = lines.iter().take_while(|line| line.starts_with('#')).count();
        if head == lines.len() {
            continue;
        }
        if !lines[..head].iter().any(|line| line.ends_with(" histogram")) {
            lines[head..].sort_unstable();
        }
        families.push(lines);
    }
    families.sort_unstable_by_key(|lines| lines[0]);
    let mut tidied = String::with_capacity(text.len());
    for line in families.into_iter().flatten() {
        tidied.push_str(line);
        tidied.push('\n');
    }
    tidied
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn series_of_what_is_gone_are_left_out_with_families_that_have_none_left() {
        let text = "# HELP z Z.\n# TYPE z gauge\nz{repository=\"a\",remote=\"y\"} 2\nz{repository=\"a\",remote=\"x\"} 1\n\n\
                    # HELP b B.\n# TYPE b counter\nb{repository=\"gone\"} 1\n\n\
                    # HELP c C.\n# TYPE c counter\nc{repository=\"a\",root=\"r\"} 1\nc{repository=\"a\",root=\"gone\"} 1\n\n\
                    # HELP d D.\n# TYPE d gauge\nd 7\n\n";
        let configured = Configured::named("a", &["x", "y"], &["r"]);
        let expected = "# HELP c C.\n# TYPE c counter\nc{repository=\"a\",root=\"r\"} 1\n\
                        # HELP d D.\n# TYPE d gauge\nd 7\n\
                        # HELP z Z.\n# TYPE z gauge\nz{repository=\"a\",remote=\"x\"} 1\nz{repository=\"a\",remote=\"y\"} 2\n";
        assert_eq!(tidy(text, &configured), expected);
    }

    #[test]
    fn a_remote_of_another_repository_is_another() {
        let configured = Configured::named("a", &["x"], &[]);
        assert!(configured.knows("m{repository=\"a\",remote=\"x\",result=\"y\"} 1"));
        assert!(!configured.knows("m{repository=\"b\",remote=\"x\"} 1"));
        assert!(!configured.knows("m{remote=\"y\",repository=\"a\"} 1"));
        assert!(configured.knows("m{actor=\"queue\"} 1") && configured.knows("m 1"));
    }

    #[test]
    fn the_buckets_of_a_histogram_stay_in_their_order() {
        let text = "# TYPE h histogram\nh_bucket{le=\"5\"} 1\nh_bucket{le=\"10\"} 1\nh_bucket{le=\"+Inf\"} 1\nh_sum 3\nh_count 1\n\n";
        assert_eq!(tidy(text, &Configured::default()), text.trim_end().to_owned() + "\n");
    }
}
