//! The lines of the status page about large contents: how full the remotes are, and what came of looking at them.

use backupbot_actors::board::{LfsStatus, Moment, RemoteView};
use backupbot_core::keeping::scrubs::Scrubbed;
use backupbot_core::wording::counted;
use bytesize::ByteSize;

use super::Page;
use crate::spans;

/// Contents and bytes, in words.
pub fn amount(objects: u64, bytes: u64) -> String {
    format!("{}, {}", counted(objects, "large file", "large files"), ByteSize(bytes))
}

/// How full a remote is, in words.
pub fn fullness(lfs: &LfsStatus) -> String {
    let amount = amount(lfs.objects, lfs.bytes);
    let Some(quota) = lfs.quota else { return amount };
    let full = lfs.full_on.map_or_else(String::new, |at| format!(", full on {}", spans::day(at)));
    let percent = lfs.percent.unwrap_or_default();
    format!("{amount}; {} of {} used ({percent} %{full})", ByteSize(lfs.used), ByteSize(quota))
}

/// What came of a look, in words.
pub fn scrubbed(scrubbed: &Scrubbed) -> String {
    let told = [
        (scrubbed.lost, "LOST"),
        (scrubbed.damaged, "DAMAGED"),
        (scrubbed.brought, "were lost and brought again"),
        (scrubbed.replaced, "were damaged and replaced"),
        (scrubbed.unsure, "could not be looked at"),
    ];
    let told: Vec<String> = told
        .iter()
        .filter(|(number, _)| *number > 0)
        .map(|(number, what)| format!("{number} {what}"))
        .collect();
    let found = if told.is_empty() { "nothing was wrong".to_owned() } else { told.join(", ") };
    format!("{} asked for, {} read: {found}", amount(scrubbed.asked, scrubbed.bytes), scrubbed.read)
}

impl Page {
    pub(super) fn room(&mut self, remote: &RemoteView) {
        let Some(lfs) = remote.lfs.as_ref().filter(|lfs| lfs.objects > 0 || lfs.quota.is_some()) else {
            return;
        };
        let standing = if lfs.refused.is_some() { ", and it REFUSES more" } else { "" };
        self.line(1, format!("remote {}: {}{standing}", remote.name, fullness(lfs)));
        if let Some(trouble) = &lfs.trouble {
            self.line(2, format!("its host could not be asked how much is used: {trouble}"));
        }
    }

    pub(super) fn scrubs(&mut self, scrubs: &[Scrubbed], now: Moment) {
        for it in scrubs {
            let ago = spans::in_words(now.seconds_since(it.at));
            self.line(1, format!("{}: large files looked at {ago} ago: {}", it.place(), scrubbed(it)));
            for named in &it.named {
                self.line(2, named);
            }
        }
    }
}
