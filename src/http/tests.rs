//! Requests against the routes, with no tree behind the door: who comes in, and what the refusals look like.

use super::*;
use crate::logging::LevelName;
use actix_web::http::{Method, StatusCode};
use actix_web::test::{TestRequest, call_service, init_service, read_body};
use serde_json::Value;

const TOKEN: &str = "0123456789abcdef";

struct Answered {
    status: u16,
    content_type: String,
    allow: Option<String>,
    body: Value,
}

async fn ask(request: TestRequest) -> Answered {
    let scratch = tempfile::tempdir().unwrap();
    let token_file = scratch.path().join("admin.token");
    std::fs::write(&token_file, format!("{TOKEN}\n")).unwrap();
    let door = door(token_file, None);
    let app = init_service(App::new().app_data(Data::new(door)).configure(routes)).await;
    let response = call_service(&app, request.to_request()).await;
    let header = |name: &str| response.headers().get(name).map(|value| value.to_str().unwrap().to_owned());
    let (status, content_type, allow) =
        (response.status().as_u16(), header("content-type").unwrap_or_default(), header("allow"));
    let body = read_body(response).await;
    let body =
        serde_json::from_slice(&body).unwrap_or_else(|_| String::from_utf8_lossy(&body).into_owned().into());
    Answered { status, content_type, allow, body }
}

fn door(token_file: PathBuf, read_token_file: Option<PathBuf>) -> Door {
    let context = backupbot_core::config::Context { default_state_dir: "/s".into(), ..Default::default() };
    let text = "version: 1\ninstance: laptop\nadmin: {allowed_hosts: [backup.example.org]}\nrepositories: [{name: a, roots: [{path: /a}]}]";
    let loaded = backupbot_core::config::parse(
        text.as_bytes(),
        backupbot_core::config::Format::Yaml,
        "x.yaml",
        &context,
    );
    let mut config = loaded.unwrap().config;
    config.admin.read_token_file = read_token_file;
    let origin = crate::settings::Origin::File("x.yaml".into());
    let settings = Settings { config, warnings: Vec::new(), origin };
    let levels = Arc::new(Levels::new(LevelName::Info));
    let log = Logger::root(slog::Discard, slog::o!());
    Door::new(Arc::new(settings), token_file, Reloader::default(), log, levels)
}

fn get(path: &str) -> TestRequest {
    TestRequest::get().uri(path).insert_header(("Host", "127.0.0.1:7177"))
}

fn known(request: TestRequest) -> TestRequest {
    request.insert_header(("Authorization", format!("Bearer {TOKEN}")))
}

fn post(path: &str) -> TestRequest {
    known(TestRequest::post().uri(path).insert_header(("Host", "localhost:7177")))
}

async fn status_of(request: TestRequest) -> u16 {
    let answered = ask(request).await;
    if answered.status >= 400 {
        assert_eq!(answered.content_type, "application/problem+json", "{}", answered.body);
        assert_eq!(answered.body["status"], answered.status, "{}", answered.body);
        assert!(
            answered.body["title"].is_string() && answered.body["detail"].is_string(),
            "{}",
            answered.body
        );
    }
    answered.status
}

#[actix_web::test]
async fn the_probes_ask_for_neither_token_nor_host() {
    let live = ask(TestRequest::get().uri("/livez").insert_header(("Host", "anything.example.org"))).await;
    assert_eq!((live.status, live.body.as_str()), (200, Some("ok")));
    assert_eq!(status_of(TestRequest::get().uri("/readyz")).await, 503);
    assert_eq!(status_of(TestRequest::get().uri("/metrics")).await, 503, "no tree, no numbers");
    let posted = ask(TestRequest::post().uri("/metrics")).await;
    assert_eq!((posted.status, posted.allow.as_deref()), (405, Some("GET, HEAD")));
}

#[actix_web::test]
async fn a_known_token_passes_and_finds_the_door_closed() {
    for path in [
        "/api/v1/status",
        "/api/v1/alerts",
        "/api/v1/children",
        "/api/v1/why?path=/a",
        "/api/v1/events",
        "/api/v1/restores",
        "/api/v1/repositories/a/snapshots",
    ] {
        assert_eq!(status_of(known(get(path))).await, 503, "{path}");
        assert_eq!(status_of(get(path)).await, 401, "{path}");
    }
    let wrong = get("/api/v1/status").insert_header(("Authorization", "Bearer 0123456789abcdee"));
    assert_eq!(status_of(wrong).await, 401);
    assert_eq!(status_of(get("/api/v1/unknown")).await, 401, "who is unknown learns nothing");
}

#[actix_web::test]
async fn foreign_hosts_and_origins_are_refused_even_with_the_token() {
    let with =
        |name: &'static str, value: &'static str| known(get("/api/v1/status")).insert_header((name, value));
    assert_eq!(status_of(with("Host", "evil.example.org")).await, 403);
    assert_eq!(status_of(with("Host", "backup.example.org")).await, 503);
    assert_eq!(status_of(with("Origin", "https://evil.example.org")).await, 403);
    assert_eq!(status_of(with("Origin", "null")).await, 403);
    assert_eq!(status_of(with("Origin", "http://127.0.0.1:7177")).await, 503);
    assert_eq!(status_of(known(TestRequest::get().uri("/api/v1/status"))).await, 403, "no host at all");
}

#[actix_web::test]
async fn wrong_methods_and_addresses_are_told_apart() {
    let answered = ask(post("/api/v1/status")).await;
    assert_eq!((answered.status, answered.allow.as_deref()), (405, Some("GET")));
    let answered = ask(known(get("/api/v1/flush"))).await;
    assert_eq!((answered.status, answered.allow.as_deref()), (405, Some("POST")));
    let answered = ask(TestRequest::default().method(Method::DELETE).uri("/livez")).await;
    assert_eq!((answered.status, answered.allow.as_deref()), (405, Some("GET, HEAD")));
    assert_eq!(status_of(known(get("/api/v1/unknown"))).await, 404);
    assert_eq!(status_of(get("/")).await, 404);
}

#[actix_web::test]
async fn bodies_are_small_json_with_known_fields() {
    let json = ("Content-Type", "application/json");
    let flush = || post("/api/v1/flush");
    assert_eq!(status_of(flush()).await, 503, "nothing means all and do not wait");
    assert_eq!(
        status_of(flush().insert_header(json).set_payload("{\"wait\": true, \"timeout\": \"5s\"}")).await,
        503
    );
    assert_eq!(status_of(flush().insert_header(json).set_payload("{\"wiat\": true}")).await, 400);
    assert_eq!(status_of(flush().insert_header(json).set_payload("{\"timeout\": \"60\"}")).await, 400);
    assert_eq!(status_of(flush().insert_header(json).set_payload("{")).await, 400);
    assert_eq!(status_of(flush().set_payload("{}")).await, 415);
    assert_eq!(status_of(flush().insert_header(("Content-Type", "text/plain")).set_payload("{}")).await, 415);
    let large = format!("{{\"repository\": \"{}\"}}", "x".repeat(body::LIMIT));
    assert_eq!(status_of(flush().insert_header(json).set_payload(large)).await, 413);
    assert_eq!(
        status_of(post("/api/v1/pause").insert_header(json).set_payload("{\"remote\": \"usb\"}")).await,
        400
    );
    assert_eq!(status_of(known(get("/api/v1/why"))).await, 400);
}

#[actix_web::test]
async fn a_changed_token_counts_at_once_and_a_missing_one_lets_nobody_in() {
    let scratch = tempfile::tempdir().unwrap();
    let token_file = scratch.path().join("admin.token");
    let door = door(token_file.clone(), None);
    let app = init_service(App::new().app_data(Data::new(door)).configure(routes)).await;
    let ask = async || call_service(&app, known(get("/api/v1/unknown")).to_request()).await.status();
    assert_eq!(ask().await, StatusCode::SERVICE_UNAVAILABLE);
    std::fs::write(&token_file, TOKEN).unwrap();
    assert_eq!(ask().await, StatusCode::NOT_FOUND);
    std::fs::write(&token_file, "another").unwrap();
    assert_eq!(ask().await, StatusCode::UNAUTHORIZED);
}

#[actix_web::test]
async fn the_token_for_reading_reads_and_nothing_else() {
    let scratch = tempfile::tempdir().unwrap();
    let (operate, read) = (scratch.path().join("operate"), scratch.path().join("read"));
    std::fs::write(&operate, TOKEN).unwrap();
    std::fs::write(&read, "only-looks").unwrap();
    let door = door(operate, Some(read.clone()));
    let app = init_service(App::new().app_data(Data::new(door)).configure(routes)).await;
    for (pattern, method, role) in access::OPERATIONS {
        let path = pattern.replace("{repository}", "a").replace("{id}", "b");
        let request = TestRequest::default().method(method.parse().unwrap()).uri(&format!("/api/v1{path}"));
        let request = request
            .insert_header(("Host", "localhost"))
            .insert_header(("Authorization", "Bearer only-looks"));
        let status = call_service(&app, request.to_request()).await.status().as_u16();
        let is_refused = status == 403;
        assert_eq!(is_refused, *role == access::Role::Operate, "{method} {path}: {status}");
    }
    std::fs::write(&read, "another").unwrap();
    let request = get("/api/v1/status").insert_header(("Authorization", "Bearer only-looks"));
    assert_eq!(call_service(&app, request.to_request()).await.status(), StatusCode::UNAUTHORIZED);
}

#[actix_web::test]
async fn guesses_are_slowed_down_and_the_right_token_never_is() {
    let scratch = tempfile::tempdir().unwrap();
    let token_file = scratch.path().join("admin.token");
    std::fs::write(&token_file, TOKEN).unwrap();
    let app = init_service(App::new().app_data(Data::new(door(token_file, None))).configure(routes)).await;
    let ask = async |token: &str| {
        let request = get("/api/v1/openapi.json").insert_header(("Authorization", format!("Bearer {token}")));
        call_service(&app, request.to_request()).await
    };
    let mut last = ask("wrong").await;
    for _ in 0..200 {
        last = ask("wrong").await;
    }
    assert_eq!(last.status(), StatusCode::TOO_MANY_REQUESTS);
    assert!(last.headers().contains_key("retry-after"));
    assert_eq!(ask(TOKEN).await.status(), StatusCode::OK);
}
