//! Which files are read, where not all are: a share or a number of them, drawn by lot.
//!
//! Each name has a number that depends on it and on the seed alone; the lowest win. So nobody who damages a repository
//! can know what is going to be read, every file is as likely as any other, and the same seed draws the same files again
//! without anything being held but the limit.

use std::collections::BinaryHeap;
use std::fmt;
use std::str::FromStr;

use super::Work;
use super::survey::Content;
use crate::error::{Error, Kind};

/// A number of files above this is no sample.
const MOST_FILES: u64 = 1_000_000;
/// A whole, in the unit of a share.
const WHOLE: u64 = 1_000_000;

/// How much is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sample {
    /// Everything.
    Whole,
    /// This many of a million files, and at least one.
    Share(u32),
    /// So many files, or all there are.
    Files(u32),
}

impl Sample {
    /// Whether nothing is left out.
    pub fn is_whole(self) -> bool {
        self == Self::Whole
    }

    /// The sample that is shown as `text`.
    pub fn shown_as(text: &str) -> Option<Self> {
        if text == Self::Whole.to_string() {
            return Some(Self::Whole);
        }
        let number = text.strip_suffix(" files").or_else(|| text.strip_suffix(" file"));
        number.unwrap_or(text).parse().ok()
    }

    pub(super) fn begin(self) -> Choosing {
        let limit = match self {
            Self::Whole => Limit::None,
            Self::Share(share) => {
                let below = (u128::from(u64::MAX) * u128::from(share) / u128::from(WHOLE)) as u64;
                Limit::Below { below, lowest: None, work: Work::default() }
            }
            Self::Files(files) => Limit::Lowest { files: files as usize, heap: BinaryHeap::new() },
        };
        Choosing { limit, all: Work::default() }
    }
}

impl fmt::Display for Sample {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Whole => f.write_str("whole"),
            Self::Share(share) => {
                let per_cent = format!("{}.{:04}", share / 10_000, share % 10_000);
                write!(f, "{}%", per_cent.trim_end_matches('0').trim_end_matches('.'))
            }
            Self::Files(1) => f.write_str("1 file"),
            Self::Files(files) => write!(f, "{files} files"),
        }
    }
}

impl FromStr for Sample {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || {
            let most = MOST_FILES;
            format!(
                "{text:?} is no sample: say a share such as 1% or 0.5%, or a number of files up to {most}"
            )
        };
        let Some(share) = text.trim().strip_suffix('%') else {
            let files: u64 = text.trim().parse().map_err(|_| wrong())?;
            return match u32::try_from(files) {
                Ok(number) if (1..=MOST_FILES).contains(&files) => Ok(Self::Files(number)),
                _ => Err(wrong()),
            };
        };
        let (whole, fraction) = share.trim().split_once('.').unwrap_or((share.trim(), "0"));
        let is_number = |digits: &str| !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
        if !is_number(whole) || !is_number(fraction) || whole.len() > 3 || fraction.len() > 4 {
            return Err(wrong());
        }
        let parts: u32 = format!("{whole}{fraction:0<4}").parse().map_err(|_| wrong())?;
        match u64::from(parts) {
            0 => Err(wrong()),
            WHOLE => Ok(Self::Whole),
            1..WHOLE => Ok(Self::Share(parts)),
            _ => Err(wrong()),
        }
    }
}

/// A seed that nobody knows beforehand.
///
/// # Errors
/// When the system has no random numbers.
pub fn draw_seed() -> Result<u64, Error> {
    let number =
        getrandom::u64().map_err(|error| Error::new(Kind::Internal, format!("cannot draw lots: {error}")))?;
    // Whatever reads JSON takes such a number as it is.
    Ok(number >> 11)
}

/// The numbers of one run.
pub(super) struct Lot {
    key: [u8; 32],
}

impl Lot {
    pub(super) fn new(seed: u64) -> Self {
        Self { key: blake3::derive_key("BackupBot 2026-11-22 verification sample", &seed.to_le_bytes()) }
    }

    /// The number of a name.
    pub(super) fn of(&self, content: &Content<'_>) -> u64 {
        let mut hasher = blake3::Hasher::new_keyed(&self.key);
        hasher.update(&content.full_path());
        let mut number = [0; 8];
        hasher.finalize_xof().fill(&mut number);
        u64::from_le_bytes(number)
    }
}

enum Limit {
    None,
    /// All numbers below, and the lowest of all, with its bytes, in case there is none below.
    Below {
        below: u64,
        lowest: Option<(u64, u64)>,
        work: Work,
    },
    /// The lowest so far, each with its bytes.
    Lowest {
        files: usize,
        heap: BinaryHeap<(u64, u64)>,
    },
}

/// The draw, while names come.
pub(super) struct Choosing {
    limit: Limit,
    all: Work,
}

impl Choosing {
    pub(super) fn offer(&mut self, number: u64, bytes: u64) {
        add(&mut self.all, bytes);
        match &mut self.limit {
            Limit::None => {}
            Limit::Below { below, lowest, work } => {
                if number <= *below {
                    add(work, bytes);
                }
                if lowest.is_none_or(|(least, _)| number < least) {
                    *lowest = Some((number, bytes));
                }
            }
            Limit::Lowest { files, heap } => {
                heap.push((number, bytes));
                if heap.len() > *files {
                    heap.pop();
                }
            }
        }
    }

    /// What was drawn.
    pub(super) fn end(self) -> (Chosen, Work) {
        match self.limit {
            Limit::None => (Chosen(u64::MAX), self.all),
            Limit::Below { work, lowest: Some((number, bytes)), .. } if work.files == 0 => {
                (Chosen(number), Work { files: 1, bytes })
            }
            Limit::Below { below, work, .. } => (Chosen(below), work),
            Limit::Lowest { heap, .. } => {
                let highest = heap.peek().map_or(0, |(number, _)| *number);
                let mut work = Work::default();
                heap.iter().for_each(|(_, bytes)| add(&mut work, *bytes));
                (Chosen(highest), work)
            }
        }
    }
}

fn add(work: &mut Work, bytes: u64) {
    work.files += 1;
    work.bytes = work.bytes.saturating_add(bytes);
}

/// The highest number that was drawn.
pub(super) struct Chosen(u64);

impl Chosen {
    pub(super) fn has(&self, lot: &Lot, content: &Content<'_>) -> bool {
        self.0 == u64::MAX || lot.of(content) <= self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sample_is_a_share_or_a_number_of_files() {
        let cases = [
            ("1%", Sample::Share(10_000)),
            ("0.5 %", Sample::Share(5_000)),
            ("0.0001%", Sample::Share(1)),
            ("99.9%", Sample::Share(999_000)),
            ("100%", Sample::Whole),
            ("100.0%", Sample::Whole),
            ("7", Sample::Files(7)),
            ("1000000", Sample::Files(1_000_000)),
        ];
        for (text, expected) in cases {
            assert_eq!(text.parse(), Ok(expected), "{text}");
        }
        for text in
            ["", "%", "0", "0%", "0.0%", "101%", "-1", "1.%", ".5%", "1e3", "1000001", "0.00001%", "x"]
        {
            assert!(text.parse::<Sample>().unwrap_err().contains("1%"), "{text}");
        }
        let shown = |text: &str| text.parse::<Sample>().unwrap().to_string();
        assert_eq!([shown("1%"), shown("0.50%"), shown("100%")], ["1%", "0.5%", "whole"]);
        assert_eq!([shown("1"), shown("20")], ["1 file", "20 files"]);
        for sample in [Sample::Whole, Sample::Share(5_000), Sample::Files(1), Sample::Files(20)] {
            assert_eq!(Sample::shown_as(&sample.to_string()), Some(sample));
        }
        assert_eq!(Sample::shown_as("much"), None);
    }

    fn drawn(sample: Sample, numbers: &[u64]) -> (Vec<u64>, Work) {
        let mut choosing = sample.begin();
        numbers.iter().for_each(|number| choosing.offer(*number, 10));
        let (chosen, work) = choosing.end();
        (numbers.iter().copied().filter(|number| *number <= chosen.0).collect(), work)
    }

    #[test]
    fn the_lowest_numbers_win_and_there_is_always_one() {
        let half = u64::MAX / 2;
        assert_eq!(
            drawn(Sample::Share(500_000), &[1, half + 9, 2]),
            (vec![1, 2], Work { files: 2, bytes: 20 })
        );
        assert_eq!(drawn(Sample::Share(1), &[half, half + 1]), (vec![half], Work { files: 1, bytes: 10 }));
        assert_eq!(drawn(Sample::Files(2), &[9, 3, 7]), (vec![3, 7], Work { files: 2, bytes: 20 }));
        assert_eq!(drawn(Sample::Files(5), &[9, 3]), (vec![9, 3], Work { files: 2, bytes: 20 }));
        assert_eq!(drawn(Sample::Whole, &[9, u64::MAX]), (vec![9, u64::MAX], Work { files: 2, bytes: 20 }));
        assert_eq!(drawn(Sample::Files(5), &[]).1, Work::default());
    }
}
