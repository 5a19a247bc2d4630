//! `/metrics`, on the admin listener or on one of its own.

use actix_web::http::StatusCode;
use actix_web::{HttpResponse, web};

use super::Door;
use super::problem::Problem;
use crate::metrics::CONTENT_TYPE;

/// On the admin listener: nothing, if there is one of its own.
pub async fn beside_admin(door: web::Data<Door>) -> Result<HttpResponse, Problem> {
    if door.metrics.get().is_some_and(|served| served.elsewhere) {
        let detail = "the metrics have a listener of their own: metrics.listen in the configuration";
        return Err(Problem::new(StatusCode::NOT_FOUND, detail));
    }
    metrics(door).await
}

/// The text, for whoever asks.
pub async fn metrics(door: web::Data<Door>) -> Result<HttpResponse, Problem> {
    let inside = door.enter()?;
    let served = door.metrics.get().ok_or_else(Problem::unknown_address)?;
    let text = served.exporter.clone().scrape(inside.control).await;
    let text = text.ok_or_else(|| {
        Problem::new(StatusCode::SERVICE_UNAVAILABLE, "the metrics could not be collected in time")
    })?;
    Ok(HttpResponse::Ok()
        .insert_header(("Content-Type", CONTENT_TYPE))
        .insert_header(("Cache-Control", "no-store"))
        .body(text))
}
