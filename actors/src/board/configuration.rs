//! Which configuration is in force, what its file says now, and what became of the last attempt to obey that.

use backupbot_core::config::on_disk::OnDisk;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{Board, Moment, lock};

/// The configuration in force and the one on the disk.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ConfigurationStatus {
    /// The file; absent with `--watch`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
    /// BLAKE3 of the text in force.
    pub in_force: String,
    /// BLAKE3 of what the file says now; absent if it cannot be read, or there is none.
    pub on_disk: Option<String>,
    /// Why the file cannot be read, if so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unreadable: Option<String>,
    /// Why what the file says was not obeyed, if so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refused: Option<RefusedConfiguration>,
    /// What the file said when it was last tried.
    #[serde(skip)]
    pub tried: Option<OnDisk>,
}

/// A configuration that was not obeyed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RefusedConfiguration {
    /// Since when no attempt has succeeded.
    #[schema(value_type = String, format = DateTime)]
    pub since: Moment,
    /// Every reason, each with its place where it has one.
    pub reason: String,
}

impl ConfigurationStatus {
    /// One that was just obeyed.
    pub fn obeyed(file: Option<String>, checksum: &str) -> Self {
        let mut status = Self { file, in_force: checksum.to_owned(), ..Self::default() };
        if status.file.is_some() {
            status.was_tried(OnDisk::Text(checksum.to_owned()));
        }
        status
    }

    /// What the file says.
    pub fn says(&mut self, on_disk: OnDisk) {
        (self.on_disk, self.unreadable) = match on_disk {
            OnDisk::Text(checksum) => (Some(checksum), None),
            OnDisk::Unreadable(reason) => (None, Some(reason)),
        };
    }

    /// What the file said was tried, whatever came of it.
    pub fn was_tried(&mut self, on_disk: OnDisk) {
        self.says(on_disk.clone());
        self.tried = Some(on_disk);
    }

    /// It was not obeyed.
    pub fn was_refused(&mut self, reason: String, now: Moment) {
        let since = self.refused.take().map_or(now, |former| former.since);
        self.refused = Some(RefusedConfiguration { since, reason });
    }

    /// Whether the file says what was not tried yet.
    pub fn is_news(&self) -> bool {
        let now = match (&self.on_disk, &self.unreadable) {
            (Some(checksum), _) => OnDisk::Text(checksum.clone()),
            (None, Some(reason)) => OnDisk::Unreadable(reason.clone()),
            (None, None) => return false,
        };
        self.tried.as_ref() != Some(&now)
    }
}

impl Board {
    /// Which configuration is in force, and what its file says.
    pub fn configuration(&self) -> ConfigurationStatus {
        lock(&self.0.rows).configuration.clone()
    }

    /// Changes what is said of the configuration.
    pub fn change_configuration(&self, change: impl FnOnce(&mut ConfigurationStatus)) {
        self.change(|rows| {
            let before = rows.configuration.clone();
            change(&mut rows.configuration);
            rows.configuration != before
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(checksum: &str) -> OnDisk {
        OnDisk::Text(checksum.to_owned())
    }

    #[test]
    fn what_was_tried_is_no_news_whatever_came_of_it() {
        let mut status = ConfigurationStatus::obeyed(Some("/etc/b.yaml".to_owned()), "one");
        assert!(!status.is_news());
        status.says(text("two"));
        assert!(status.is_news());
        status.was_tried(text("two"));
        status.was_refused("it is nonsense".to_owned(), Moment::from_unix_seconds(7).unwrap());
        assert!(!status.is_news());
        assert_eq!((status.in_force.as_str(), status.on_disk.as_deref()), ("one", Some("two")));
        status.says(OnDisk::Unreadable("gone".to_owned()));
        assert!(status.is_news() && status.on_disk.is_none());
        status.says(text("two"));
        assert!(!status.is_news(), "it is back as it was");
    }

    #[test]
    fn a_refusal_lasts_since_the_first_of_them_and_flags_are_never_news() {
        let mut status = ConfigurationStatus::obeyed(None, "one");
        assert!(!status.is_news() && status.on_disk.is_none());
        for second in [7, 9] {
            let at = Moment::from_unix_seconds(second).unwrap();
            status.was_refused(format!("reason {second}"), at);
        }
        let refused = status.refused.unwrap();
        assert_eq!((refused.since.unix_seconds(), refused.reason.as_str()), (7, "reason 9"));
    }
}
