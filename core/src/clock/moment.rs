//! A moment as it is shown, stored in small files and published: to the second, RFC 3339.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A moment of the wall clock, to the second; RFC 3339 in UTC as text and in JSON.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Moment(jiff::Timestamp);

impl Moment {
    /// The present second.
    pub fn now() -> Self {
        let now = super::now();
        // A whole second of a valid timestamp is valid itself.
        Self(jiff::Timestamp::from_second(now.as_second()).unwrap_or(now))
    }

    /// From seconds since 1970; outside the years -9999 to 9999 there are no moments.
    pub fn from_unix_seconds(seconds: i64) -> Option<Self> {
        jiff::Timestamp::from_second(seconds).ok().map(Self)
    }

    /// Seconds since 1970.
    pub fn unix_seconds(self) -> i64 {
        self.0.as_second()
    }

    /// Whole seconds since `earlier`; 0 if the clock was set back in between.
    pub fn seconds_since(self, earlier: Moment) -> u64 {
        u64::try_from(self.unix_seconds().saturating_sub(earlier.unix_seconds())).unwrap_or(0)
    }

    /// This moment and so much later; the last possible one if there is none so late.
    pub fn later_by(self, duration: Duration) -> Self {
        let seconds = i64::try_from(duration.as_secs()).unwrap_or(i64::MAX);
        Self::from_unix_seconds(self.unix_seconds().saturating_add(seconds))
            .unwrap_or(Self(jiff::Timestamp::MAX))
    }
}

impl fmt::Display for Moment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

impl Serialize for Moment {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Moment {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map(Self).map_err(serde::de::Error::custom)
    }
}
