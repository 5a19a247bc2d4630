//! The status answer as text, given again to whoever asks soon after.
//!
//! It is made by one task at a time, however many ask. It is a second old at most, a twentieth of one if the board has
//! changed since, and never older than an order that was carried out: who pauses sees the pause.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use actix_web::web::{Bytes, Data};
use tokio::sync::Mutex as AsyncMutex;

use super::Door;
use super::admin::status_now;
use super::problem::Problem;

/// Within this the same answer is given again.
const FRESH: Duration = Duration::from_secs(1);
/// Within this even if the board has changed.
const FRESH_WHILE_CHANGING: Duration = Duration::from_millis(50);

/// The status as it was rendered.
struct Rendered {
    made: Instant,
    board: u64,
    orders: u64,
    text: Bytes,
}

/// What is remembered.
#[derive(Default)]
pub struct Remembered {
    status: Mutex<Option<Rendered>>,
    turn: AsyncMutex<()>,
    /// Orders so far: each makes what was rendered before it worthless.
    orders: AtomicU64,
}

impl Remembered {
    /// Something was ordered; what was rendered before does not show it.
    pub fn forget_status(&self) {
        self.orders.fetch_add(1, Ordering::Relaxed);
    }

    fn rendered(&self, board: u64, now: Instant) -> Option<Bytes> {
        let last = self.status.lock().unwrap_or_else(PoisonError::into_inner);
        let rendered = last.as_ref()?;
        let limit = if rendered.board == board { FRESH } else { FRESH_WHILE_CHANGING };
        let is_fresh = now.saturating_duration_since(rendered.made) < limit
            && rendered.orders == self.orders.load(Ordering::Relaxed);
        is_fresh.then(|| rendered.text.clone())
    }
}

/// The status as text, made now or a moment ago.
pub async fn status(door: &Data<Door>) -> Result<Bytes, Problem> {
    let board = door.enter()?.control.board().clone();
    if let Some(text) = door.remembered.rendered(board.version(), Instant::now()) {
        return Ok(text);
    }
    // A task of its own: one whose asker has gone away is still at it, and nobody begins another meanwhile.
    let door = door.clone();
    let made = actix_web::rt::spawn(async move {
        let _turn = door.remembered.turn.lock().await;
        let (made, version) = (Instant::now(), board.version());
        if let Some(text) = door.remembered.rendered(version, made) {
            return Ok(text);
        }
        let orders = door.remembered.orders.load(Ordering::Relaxed);
        let text = serde_json::to_vec(&status_now(&door).await?).map_err(|_| Problem::stopping())?;
        let text = Bytes::from(text);
        let rendered = Rendered { made, board: version, orders, text: text.clone() };
        *door.remembered.status.lock().unwrap_or_else(PoisonError::into_inner) = Some(rendered);
        Ok(text)
    });
    made.await.map_err(|_| Problem::stopping())?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_is_given_again_for_a_second_and_not_after_an_order_or_many_changes() {
        let remembered = Remembered::default();
        let now = Instant::now();
        let after = |millis| now + Duration::from_millis(millis);
        let put = |text: &'static str| {
            let orders = remembered.orders.load(Ordering::Relaxed);
            let text = Bytes::from_static(text.as_bytes());
            *remembered.status.lock().unwrap() = Some(Rendered { made: now, board: 1, orders, text });
        };
        put("one");
        assert!(
            remembered.rendered(1, after(999)).is_some() && remembered.rendered(1, after(1001)).is_none()
        );
        assert!(remembered.rendered(2, after(49)).is_some() && remembered.rendered(2, after(51)).is_none());
        remembered.forget_status();
        assert!(remembered.rendered(1, now).is_none());
    }
}
