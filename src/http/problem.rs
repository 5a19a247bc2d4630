//! Errors as RFC 9457 problem documents: `application/problem+json` with type, title, status and detail.

use std::fmt;
use std::path::Path;
use std::time::Duration;

use actix_web::http::{StatusCode, header};
use actix_web::{HttpResponse, ResponseError};
use backupbot_actors::control::ControlError;
use serde_json::{Map, Value, json};
use slog::{Logger, error};

/// An answer that is an error.
#[derive(Debug, Clone, PartialEq)]
pub struct Problem {
    status: StatusCode,
    detail: String,
    /// Members beside the standard ones.
    extra: Map<String, Value>,
    /// For 405: what is allowed.
    allow: Option<String>,
    /// For 429: when to come again.
    retry_after: Option<Duration>,
}

impl Problem {
    /// A problem; `detail` is a sentence for a person.
    pub fn new(status: StatusCode, detail: impl Into<String>) -> Self {
        Self { status, detail: detail.into(), extra: Map::new(), allow: None, retry_after: None }
    }

    /// With another member.
    pub fn with(mut self, member: &str, value: Value) -> Self {
        self.extra.insert(member.to_owned(), value);
        self
    }

    /// The wrong method was used.
    pub fn method(allow: &str) -> Self {
        let detail = format!("this address answers to {allow} only");
        Self { allow: Some(allow.to_owned()), ..Self::new(StatusCode::METHOD_NOT_ALLOWED, detail) }
    }

    /// Not now: somebody else's turn.
    pub fn busy(why: &str, again: Duration) -> Self {
        let detail = format!("{why}; try again in {} s", again.as_secs().max(1));
        Self { retry_after: Some(again), ..Self::new(StatusCode::TOO_MANY_REQUESTS, detail) }
    }

    /// The token is known and may not do this.
    pub fn not_allowed(what: &str) -> Self {
        Self::new(StatusCode::FORBIDDEN, format!("{what} needs the token of the role operate"))
    }

    /// A request that cannot be understood.
    pub fn bad(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, detail)
    }

    /// Our own trouble. What it is stands in the log only: it may name places that are nobody's business.
    pub fn internal(log: &Logger, error: &dyn fmt::Display) -> Self {
        error!(log, "a request failed"; "error" => %error);
        let detail = "the daemon met trouble of its own; its log says which";
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, detail)
    }

    /// No such address.
    pub fn unknown_address() -> Self {
        Self::new(StatusCode::NOT_FOUND, "there is nothing at this address")
    }

    /// The daemon is about to end.
    pub fn stopping() -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "the daemon is stopping")
    }

    /// The same without the place of our own state, which is nobody's business.
    pub fn without(mut self, state_dir: &Path) -> Self {
        let place = crate::files::shown(state_dir);
        self.detail = self.detail.replace(&place, "<state_dir>");
        self
    }

    /// A wish that was not fulfilled; `refused` is the status where somebody has to do something first.
    pub fn of_control(error: ControlError, refused: StatusCode, log: &Logger) -> Self {
        match error {
            ControlError::Unknown(detail) => Self::new(StatusCode::NOT_FOUND, detail),
            ControlError::Refused(detail) => Self::new(refused, detail),
            ControlError::Failed(error) => Self::internal(log, &error),
            ControlError::TimedOut(flushed) => {
                let detail =
                    "the time was over before every change was at every remote; it goes on by itself";
                let repositories = serde_json::to_value(&flushed.repositories).unwrap_or_default();
                Self::new(StatusCode::GATEWAY_TIMEOUT, detail).with("repositories", repositories)
            }
        }
    }

    fn document(&self) -> Value {
        let mut document = self.extra.clone();
        document.insert("type".to_owned(), json!("about:blank"));
        document.insert("title".to_owned(), json!(self.status.canonical_reason().unwrap_or("Error")));
        document.insert("status".to_owned(), json!(self.status.as_u16()));
        document.insert("detail".to_owned(), json!(self.detail));
        Value::Object(document)
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.status, self.detail)
    }
}

impl ResponseError for Problem {
    fn status_code(&self) -> StatusCode {
        self.status
    }

    fn error_response(&self) -> HttpResponse {
        let mut response = HttpResponse::build(self.status);
        response.insert_header((header::CONTENT_TYPE, "application/problem+json"));
        response.insert_header((header::CACHE_CONTROL, "no-store"));
        if let Some(after) = self.retry_after {
            response.insert_header((header::RETRY_AFTER, after.as_secs().max(1)));
        }
        if let Some(allow) = &self.allow {
            response.insert_header((header::ALLOW, allow.as_str()));
        }
        if self.status == StatusCode::UNAUTHORIZED {
            response.insert_header((header::WWW_AUTHENTICATE, "Bearer realm=\"backupbot\""));
        }
        response.body(self.document().to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use backupbot_actors::control::Flushed;
    use backupbot_core::error::{Error, Kind};

    #[test]
    fn a_problem_has_the_members_and_headers_of_its_standard() {
        let response = Problem::method("GET").error_response();
        assert_eq!(response.status(), 405);
        assert_eq!(response.headers().get(header::ALLOW).unwrap(), "GET");
        assert_eq!(response.headers().get(header::CONTENT_TYPE).unwrap(), "application/problem+json");
        let document = Problem::new(StatusCode::CONFLICT, "it is paused").with("x", json!(1)).document();
        let expected = json!({"type": "about:blank", "title": "Conflict", "status": 409, "detail": "it is paused", "x": 1});
        assert_eq!(document, expected);
        let unauthorized = Problem::new(StatusCode::UNAUTHORIZED, "no").error_response();
        assert!(unauthorized.headers().contains_key(header::WWW_AUTHENTICATE));
    }

    #[test]
    fn our_own_trouble_and_our_own_places_stay_in_the_log() {
        let log = Logger::root(slog::Discard, slog::o!());
        let trouble = Problem::internal(&log, &"/var/lib/backupbot/state.redb is full of secrets");
        assert!(!trouble.document().to_string().contains("backupbot/"), "{trouble}");
        let refused =
            Problem::bad("cannot open /var/lib/backupbot/repos/x").without("/var/lib/backupbot".as_ref());
        assert_eq!(refused.document()["detail"], "cannot open <state_dir>/repos/x");
        let busy = Problem::busy("busy", Duration::from_millis(1)).error_response();
        assert_eq!(
            (busy.status().as_u16(), busy.headers().get("retry-after").unwrap()),
            (429, &"1".parse().unwrap())
        );
    }

    #[test]
    fn each_refusal_has_its_status() {
        let log = Logger::root(slog::Discard, slog::o!());
        let flushed = Box::new(Flushed { repositories: Vec::new() });
        let statuses = [
            (ControlError::Unknown("x".into()), 404),
            (ControlError::Refused("x".into()), 409),
            (ControlError::TimedOut(flushed), 504),
            (ControlError::Failed(Error::new(Kind::Store, "x")), 500),
        ];
        for (error, status) in statuses {
            assert_eq!(Problem::of_control(error, StatusCode::CONFLICT, &log).status.as_u16(), status);
        }
    }
}
