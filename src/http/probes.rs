//! `/livez` and `/readyz`: for whoever starts and restarts us; without token and without names.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use actix_web::http::StatusCode;
use actix_web::{HttpResponse, web};
use backupbot_actors::board::RootState;
use backupbot_actors::control::Control;

use super::Door;
use super::problem::Problem;

/// When the main loop has not come round for so long, only a restart helps.
const ALIVE_WITHIN: Duration = Duration::from_secs(60);

/// The main loop's sign of life. Requests are answered on another thread, which would go on without it.
#[derive(Debug)]
pub struct Pulse {
    since: Instant,
    /// Milliseconds after that.
    last: AtomicU64,
}

impl Default for Pulse {
    fn default() -> Self {
        Self { since: Instant::now(), last: AtomicU64::new(0) }
    }
}

impl Pulse {
    /// The main loop has come round.
    pub fn beat(&self) {
        self.last.store(self.age_of_all(Instant::now()), Ordering::Relaxed);
    }

    fn age_of_all(&self, now: Instant) -> u64 {
        u64::try_from(now.saturating_duration_since(self.since).as_millis()).unwrap_or(u64::MAX)
    }

    fn is_dead(&self, now: Instant) -> bool {
        let silence = self.age_of_all(now).saturating_sub(self.last.load(Ordering::Relaxed));
        Duration::from_millis(silence) > ALIVE_WITHIN
    }
}

/// The process answers, and its main loop goes round: everything else mends itself, or is not mended by a restart.
pub async fn livez(door: web::Data<Door>) -> Result<HttpResponse, Problem> {
    if door.pulse.is_dead(Instant::now()) {
        let detail = "the main loop has not come round for a minute: restart the process";
        return Err(Problem::new(StatusCode::SERVICE_UNAVAILABLE, detail));
    }
    Ok(HttpResponse::Ok().content_type("text/plain; charset=utf-8").body("ok"))
}

/// The first comparison of every root is queued, or the root is unavailable; from then on, always.
pub async fn readyz(door: web::Data<Door>) -> Result<HttpResponse, Problem> {
    if let Some((looked_at, all)) = first_looks(&door)? {
        let detail = format!("{looked_at} of {all} roots were looked at so far");
        return Err(Problem::new(StatusCode::SERVICE_UNAVAILABLE, detail));
    }
    Ok(HttpResponse::Ok().content_type("text/plain; charset=utf-8").body("ok"))
}

/// How many of all roots were looked at, until it was every one; from then on `None`.
pub fn first_looks(door: &Door) -> Result<Option<(usize, usize)>, Problem> {
    if door.is_ready.load(Ordering::Relaxed) {
        return Ok(None);
    }
    let (looked_at, all) = looked_at(&door.enter()?.control);
    if looked_at < all {
        return Ok(Some((looked_at, all)));
    }
    door.is_ready.store(true, Ordering::Relaxed);
    Ok(None)
}

/// Roots that were looked at, and all; one that is unavailable was looked at.
fn looked_at(control: &Control) -> (usize, usize) {
    let (mut looked_at, mut all) = (0, 0);
    for seat in control.seats() {
        all += seat.roots.len();
        let roots = control.board().roots(&seat.settings.name);
        looked_at += roots.iter().filter(|root| root.state != RootState::Starting).count();
    }
    (looked_at, all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_main_loop_that_is_silent_for_a_minute_is_dead() {
        let pulse = Pulse::default();
        let after = |seconds| pulse.is_dead(pulse.since + Duration::from_secs(seconds));
        assert!(!after(0) && !after(60) && after(61));
        pulse.last.store(40_000, Ordering::Relaxed);
        assert!(!after(0) && !after(100) && after(101));
        pulse.beat();
        assert!(!pulse.is_dead(Instant::now()));
    }
}
