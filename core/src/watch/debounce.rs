//! Holding hints until a path is quiet, but never longer than a maximum.
//!
//! In go hints and the time, out come the paths that are due. Each path has its own clock: it is due when
//! nothing was observed for the quiet time, or when the maximum has passed since it was first observed, so a
//! file that is touched for ever comes out once in every maximum and keeps nobody else waiting. A deep hint
//! takes over what is pending below it, together with the earliest of their starts. Above a limit of pending
//! paths everything becomes one deep hint of the root: memory is bounded and nothing is lost.
//!
//! An observation moves no queue entry; a path taken from the head of the queue too early is put back at its
//! real time. So an observation costs one map lookup, and a path is requeued at most once in a quiet time.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::Hint;
use crate::path::RelPath;

/// Pending paths above which everything becomes one.
pub const DEFAULT_LIMIT: usize = 50_000;

/// Longer times are cut to this, so that no sum of times can overflow.
const LONGEST: Duration = Duration::from_secs(366 * 24 * 3600);

#[derive(Debug)]
struct Pending {
    deep: bool,
    first: Instant,
    last: Instant,
    /// Where the path stands in the queue: at its deadline, or before it.
    queued: Instant,
}

/// Pending paths of one root.
#[derive(Debug)]
pub struct Debouncer {
    quiet: Duration,
    max: Duration,
    limit: usize,
    pending: BTreeMap<Arc<RelPath>, Pending>,
    queue: BTreeSet<(Instant, Arc<RelPath>)>,
    /// How many of `pending` are deep; while none is, no ancestor has to be looked up.
    deep: usize,
    /// When the first of what was given out since somebody asked was first observed.
    given_since: Option<Instant>,
}

impl Debouncer {
    /// Paths are due `quiet` after they were last observed, but at most `max` after they were first.
    pub fn new(quiet: Duration, max: Duration) -> Self {
        Self::with_limit(quiet, max, DEFAULT_LIMIT)
    }

    /// The same with another limit of pending paths, at least 1.
    pub fn with_limit(quiet: Duration, max: Duration, limit: usize) -> Self {
        Self {
            quiet: quiet.min(LONGEST),
            max: max.min(LONGEST),
            limit: limit.max(1),
            pending: BTreeMap::new(),
            queue: BTreeSet::new(),
            deep: 0,
            given_since: None,
        }
    }

    /// Takes in `hint`. Hints that nothing is to be held back for come straight back: [`Hint::RootGone`] and
    /// [`Hint::Barrier`], at which the caller takes what it needs with [`Debouncer::flush`].
    #[must_use]
    pub fn observe(&mut self, hint: Hint, now: Instant) -> Option<Hint> {
        match hint {
            Hint::Changed(path) => self.touch(path, false, now),
            Hint::Deep(path) => self.touch(path, true, now),
            Hint::Overflow => self.touch(RelPath::root(), true, now),
            other => return Some(other),
        }
        None
    }

    fn touch(&mut self, path: RelPath, deep: bool, now: Instant) {
        if let Some(above) = self.deep_ancestor(&path) {
            if let Some(pending) = self.pending.get_mut(&above) {
                pending.last = pending.last.max(now);
            }
            return;
        }
        let mut first = now;
        if deep {
            first = self.absorb_below(&path, first);
        }
        if let Some(pending) = self.pending.get_mut(&path) {
            pending.last = pending.last.max(now);
            pending.first = pending.first.min(first);
            if deep && !pending.deep {
                pending.deep = true;
                self.deep += 1;
            }
            let deadline = self.quiet_or_max(&path);
            self.requeue_if_earlier(&path, deadline);
            return;
        }
        if self.pending.len() >= self.limit && !path.is_root() {
            self.touch(RelPath::root(), true, now);
            return;
        }
        self.insert(path, Pending { deep, first, last: now, queued: now });
    }

    fn insert(&mut self, path: RelPath, mut pending: Pending) {
        let path = Arc::new(path);
        pending.queued = self.deadline(&pending);
        self.deep += usize::from(pending.deep);
        self.queue.insert((pending.queued, Arc::clone(&path)));
        self.pending.insert(path, pending);
    }

    fn deadline(&self, pending: &Pending) -> Instant {
        (pending.last + self.quiet).min(pending.first + self.max)
    }

    fn quiet_or_max(&self, path: &RelPath) -> Option<Instant> {
        self.pending.get(path).map(|pending| self.deadline(pending))
    }

    /// Only what was absorbed can bring a deadline forward.
    fn requeue_if_earlier(&mut self, path: &RelPath, deadline: Option<Instant>) {
        let Some(deadline) = deadline else { return };
        let Some((key, pending)) = self.pending.get_key_value(path) else { return };
        if deadline >= pending.queued {
            return;
        }
        let key = Arc::clone(key);
        self.queue.remove(&(pending.queued, Arc::clone(&key)));
        self.queue.insert((deadline, Arc::clone(&key)));
        if let Some(pending) = self.pending.get_mut(path) {
            pending.queued = deadline;
        }
    }

    /// The pending deep path at or above `path`.
    fn deep_ancestor(&self, path: &RelPath) -> Option<RelPath> {
        if self.deep == 0 {
            return None;
        }
        let mut above = path.parent();
        while let Some(at) = above {
            if self.pending.get(&at).is_some_and(|pending| pending.deep) {
                return Some(at);
            }
            above = at.parent();
        }
        None
    }

    /// Removes what is pending below `path` and returns the earliest start, `first` included.
    fn absorb_below(&mut self, path: &RelPath, mut first: Instant) -> Instant {
        // No name is smaller than one NUL byte, and none contains it.
        let start = path.join(b"\0");
        let below: Vec<Arc<RelPath>> = self
            .pending
            .range::<RelPath, _>(&start..)
            .map(|(below, _)| below)
            .take_while(|below| below.is_within(path))
            .cloned()
            .collect();
        for absorbed in below {
            if let Some(pending) = self.forget(&absorbed) {
                first = first.min(pending.first);
            }
        }
        first
    }

    fn forget(&mut self, path: &Arc<RelPath>) -> Option<Pending> {
        let pending = self.pending.remove(path)?;
        self.queue.remove(&(pending.queued, Arc::clone(path)));
        self.deep -= usize::from(pending.deep);
        Some(pending)
    }

    /// Removes and returns everything whose time has come at `now`, earliest first.
    pub fn take_due(&mut self, now: Instant) -> Vec<Hint> {
        let mut due = Vec::new();
        while self.next_deadline().is_some_and(|deadline| deadline <= now) {
            let Some((_, path)) = self.queue.first().cloned() else { break };
            if let Some(pending) = self.forget(&path) {
                self.given_since = earlier(self.given_since, pending.first);
                due.push(hint_of(path, pending.deep));
            }
        }
        due
    }

    /// When [`Debouncer::take_due`] next has something to give.
    pub fn next_deadline(&mut self) -> Option<Instant> {
        loop {
            let (queued, path) = self.queue.first()?;
            let deadline = self.quiet_or_max(path)?;
            if deadline <= *queued {
                return Some(deadline);
            }
            let (_, path) = self.queue.pop_first()?;
            if let Some(pending) = self.pending.get_mut(&path) {
                pending.queued = deadline;
            }
            self.queue.insert((deadline, path));
        }
    }

    /// Removes and returns everything, due or not.
    pub fn flush(&mut self) -> Vec<Hint> {
        self.queue.clear();
        self.deep = 0;
        let mut due = Vec::with_capacity(self.pending.len());
        for (path, pending) in std::mem::take(&mut self.pending) {
            self.given_since = earlier(self.given_since, pending.first);
            due.push(hint_of(path, pending.deep));
        }
        due
    }

    /// When the first of everything that came out since the last call was first observed.
    pub fn take_given_since(&mut self) -> Option<Instant> {
        self.given_since.take()
    }

    /// How many paths are pending.
    pub fn len(&self) -> usize {
        self.pending.len()
    }

    /// Whether nothing is pending.
    pub fn is_empty(&self) -> bool {
        self.pending.is_empty()
    }

    /// Since when the longest-held path is pending. Looks at every pending path.
    pub fn oldest_since(&self) -> Option<Instant> {
        self.pending.values().map(|pending| pending.first).min()
    }
}

fn earlier(one: Option<Instant>, other: Instant) -> Option<Instant> {
    Some(one.map_or(other, |one| one.min(other)))
}

fn hint_of(path: Arc<RelPath>, deep: bool) -> Hint {
    let path = Arc::unwrap_or_clone(path);
    if deep { Hint::Deep(path) } else { Hint::Changed(path) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const QUIET: Duration = Duration::from_millis(10);
    const MAX: Duration = Duration::from_millis(30);

    fn path(text: &str) -> RelPath {
        RelPath::new(text).unwrap()
    }

    fn changed(text: &str) -> Hint {
        Hint::Changed(path(text))
    }

    fn deep(text: &str) -> Hint {
        Hint::Deep(path(text))
    }

    struct Clock {
        start: Instant,
    }

    impl Clock {
        fn at(&self, milliseconds: u64) -> Instant {
            self.start + Duration::from_millis(milliseconds)
        }
    }

    fn fixture() -> (Debouncer, Clock) {
        (Debouncer::new(QUIET, MAX), Clock { start: Instant::now() })
    }

    fn see(debouncer: &mut Debouncer, hint: Hint, now: Instant) {
        assert_eq!(debouncer.observe(hint, now), None);
    }

    #[test]
    fn a_path_comes_out_once_after_the_quiet_time() {
        let (mut debouncer, clock) = fixture();
        see(&mut debouncer, changed("a"), clock.at(0));
        see(&mut debouncer, changed("a"), clock.at(4));
        assert_eq!(debouncer.next_deadline(), Some(clock.at(14)));
        assert_eq!(debouncer.take_due(clock.at(13)), []);
        assert_eq!(debouncer.oldest_since(), Some(clock.at(0)));
        assert_eq!(debouncer.take_due(clock.at(14)), [changed("a")]);
        assert_eq!((debouncer.len(), debouncer.next_deadline(), debouncer.oldest_since()), (0, None, None));
    }

    #[test]
    fn how_long_the_longest_of_what_came_out_was_held_is_told_once() {
        let (mut debouncer, clock) = fixture();
        see(&mut debouncer, changed("a"), clock.at(0));
        see(&mut debouncer, changed("b"), clock.at(3));
        assert_eq!(debouncer.take_given_since(), None);
        debouncer.take_due(clock.at(20));
        assert_eq!(debouncer.take_given_since(), Some(clock.at(0)));
        assert_eq!(debouncer.take_given_since(), None);
        see(&mut debouncer, changed("c"), clock.at(21));
        debouncer.flush();
        assert_eq!(debouncer.take_given_since(), Some(clock.at(21)));
    }

    #[test]
    fn a_file_touched_for_ever_comes_out_once_in_every_maximum_and_delays_nobody() {
        let (mut debouncer, clock) = fixture();
        see(&mut debouncer, changed("calm"), clock.at(0));
        let mut out = Vec::new();
        for now in 0..200 {
            see(&mut debouncer, changed("busy"), clock.at(now));
            out.extend(debouncer.take_due(clock.at(now)).into_iter().map(|hint| (now, hint)));
        }
        assert_eq!(out[0], (10, changed("calm")));
        let busy: Vec<u64> = out[1..].iter().map(|(now, _)| *now).collect();
        assert_eq!(busy, [30, 61, 92, 123, 154, 185]);
    }

    #[test]
    fn a_deep_hint_takes_over_what_is_below_with_the_earliest_start() {
        let (mut debouncer, clock) = fixture();
        see(&mut debouncer, changed("d/x"), clock.at(0));
        see(&mut debouncer, changed("d-e"), clock.at(1));
        see(&mut debouncer, deep("d/y/z"), clock.at(8));
        see(&mut debouncer, deep("d"), clock.at(9));
        see(&mut debouncer, changed("d/y/z/w"), clock.at(19));
        see(&mut debouncer, changed("d/q"), clock.at(28));
        assert_eq!(debouncer.take_due(clock.at(29)), [changed("d-e")]);
        assert_eq!(debouncer.take_due(clock.at(30)), [deep("d")]);
        assert!(debouncer.is_empty());
    }

    #[test]
    fn a_deep_hint_on_a_changed_path_makes_it_deep() {
        let (mut debouncer, clock) = fixture();
        see(&mut debouncer, changed("d"), clock.at(0));
        see(&mut debouncer, deep("d"), clock.at(1));
        see(&mut debouncer, changed("d"), clock.at(2));
        assert_eq!(debouncer.flush(), [deep("d")]);
        see(&mut debouncer, changed("d/e"), clock.at(3));
        assert_eq!(debouncer.flush(), [changed("d/e")]);
    }

    #[test]
    fn a_deep_path_that_absorbs_an_older_one_is_due_earlier() {
        let (mut debouncer, clock) = fixture();
        let mut slow = Debouncer::new(MAX, MAX);
        see(&mut slow, changed("d/x"), clock.at(0));
        see(&mut slow, changed("d"), clock.at(20));
        see(&mut slow, deep("d"), clock.at(21));
        assert_eq!(slow.next_deadline(), Some(clock.at(30)));
        see(&mut debouncer, Hint::Overflow, clock.at(0));
        assert_eq!(debouncer.flush(), [deep("")]);
    }

    #[test]
    fn above_the_limit_everything_becomes_one_deep_hint_of_the_root() {
        let clock = Clock { start: Instant::now() };
        let mut debouncer = Debouncer::with_limit(QUIET, MAX, 100);
        for number in 0..1000 {
            see(&mut debouncer, changed(&format!("f{number}")), clock.at(number / 50));
            assert!(debouncer.len() <= 100);
        }
        assert_eq!(debouncer.oldest_since(), Some(clock.at(0)));
        assert_eq!(debouncer.take_due(clock.at(30)), [deep("")]);
        assert!(debouncer.is_empty() && debouncer.queue.is_empty() && debouncer.deep == 0);
    }

    #[test]
    fn barriers_and_a_lost_root_are_not_held_back() {
        let (mut debouncer, clock) = fixture();
        assert_eq!(debouncer.observe(Hint::Barrier(7), clock.at(0)), Some(Hint::Barrier(7)));
        assert_eq!(debouncer.observe(Hint::RootGone, clock.at(0)), Some(Hint::RootGone));
        assert!(debouncer.is_empty());
    }

    #[test]
    fn absurd_durations_do_no_harm() {
        let mut debouncer = Debouncer::new(Duration::MAX, Duration::MAX);
        let now = Instant::now();
        see(&mut debouncer, changed("a"), now);
        assert!(debouncer.next_deadline().is_some_and(|deadline| deadline > now));
    }

    #[test]
    fn the_price_of_an_observation_is_printed() {
        let (mut debouncer, clock) = fixture();
        let paths: Vec<RelPath> =
            (0..40_000).map(|n| path(&format!("some/directory/{}/file-{n}", n % 100))).collect();
        let start = Instant::now();
        for round in 0..5 {
            for path in &paths {
                see(&mut debouncer, Hint::Changed(path.clone()), clock.at(round));
            }
        }
        eprintln!("{:?} an observation", start.elapsed() / 200_000);
        assert_eq!(debouncer.take_due(clock.at(100)).len(), 40_000);
    }

    fn covers(hint: &Hint, wanted: &RelPath) -> bool {
        match hint {
            Hint::Changed(path) => path == wanted,
            Hint::Deep(path) => wanted.is_within(path),
            _ => false,
        }
    }

    proptest! {
        #[test]
        fn nothing_is_lost_nothing_is_late_and_nothing_is_early(
            steps in prop::collection::vec((0u64..6, "[ab](/[ab]){0,3}", prop::bool::weighted(0.1), any::<bool>()), 1..200),
            limit in prop_oneof![Just(4usize), Just(1000)],
        ) {
            let clock = Clock { start: Instant::now() };
            let mut debouncer = Debouncer::with_limit(QUIET, MAX, limit);
            // Everything observed and not yet given out: path, whether deep, time.
            let mut open: Vec<(RelPath, bool, u64)> = Vec::new();
            let mut now = 0;
            let check = |debouncer: &mut Debouncer, open: &mut Vec<(RelPath, bool, u64)>, now: u64| {
                for hint in debouncer.take_due(clock.at(now)) {
                    let answered: Vec<_> = open.extract_if(.., |(path, deep, _)| {
                        covers(&hint, path) && (!*deep || matches!(hint, Hint::Deep(_)))
                    }).collect();
                    let (first, last) = (
                        answered.iter().map(|(_, _, at)| *at).min().unwrap(),
                        answered.iter().map(|(_, _, at)| *at).max().unwrap(),
                    );
                    let quiet = now >= last + 10;
                    let waited = now >= first + 30;
                    prop_assert!(quiet || waited, "{:?} came early at {} ({}..{})", hint, now, first, last);
                }
                for (path, _, at) in &*open {
                    prop_assert!(now < at + 30, "{:?} of {} is late at {}", path, at, now);
                }
                prop_assert_eq!(debouncer.is_empty(), open.is_empty());
                Ok(())
            };
            for (pause, text, is_deep, taking) in steps {
                for _ in 0..pause {
                    now += 1;
                    check(&mut debouncer, &mut open, now)?;
                }
                let hint = if is_deep { deep(&text) } else { changed(&text) };
                see(&mut debouncer, hint, clock.at(now));
                open.push((path(&text), is_deep, now));
                if taking {
                    check(&mut debouncer, &mut open, now)?;
                }
            }
            let rest = debouncer.flush();
            for (path, is_deep, _) in &open {
                let found = rest.iter().any(|hint| covers(hint, path) && (!is_deep || matches!(hint, Hint::Deep(_))));
                prop_assert!(found, "{:?} is lost", path);
            }
            prop_assert!(debouncer.is_empty() && debouncer.queue.is_empty() && debouncer.deep == 0);
        }
    }
}
