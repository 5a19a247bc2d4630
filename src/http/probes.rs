//! `/livez` and `/readyz`: for whoever starts and restarts us; without token and without names.

use std::sync::atomic::Ordering;

use actix_web::http::StatusCode;
use actix_web::{HttpResponse, web};
use backupbot_actors::board::RootState;
use backupbot_actors::control::Control;

use super::Door;
use super::problem::Problem;

/// The process answers.
pub async fn livez() -> HttpResponse {
    HttpResponse::Ok().content_type("text/plain; charset=utf-8").body("ok")
}

/// Every root has been looked at once; from then on, always.
pub async fn readyz(door: web::Data<Door>) -> Result<HttpResponse, Problem> {
    if !door.is_ready.load(Ordering::Relaxed) {
        let inside = door.enter()?;
        let (looked_at, all) = looked_at(&inside.control);
        if looked_at < all {
            let detail = format!("{looked_at} of {all} roots were looked at so far");
            return Err(Problem::new(StatusCode::SERVICE_UNAVAILABLE, detail));
        }
        door.is_ready.store(true, Ordering::Relaxed);
    }
    Ok(HttpResponse::Ok().content_type("text/plain; charset=utf-8").body("ok"))
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
