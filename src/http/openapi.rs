//! `GET /api/v1/openapi.json`: the API described by itself.
//!
//! Each handler says where it is, what it takes and what it gives; what every operation has in common (who may, and how
//! it is refused) is added here from the same table that the gate obeys.

use std::sync::LazyLock;

use actix_web::HttpResponse;
use actix_web::web::Bytes;
use utoipa::openapi::path::Operation;
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityRequirement, SecurityScheme};
use utoipa::openapi::{ContentBuilder, HeaderBuilder, ObjectBuilder, Ref, RefOr, ResponseBuilder, Type};
use utoipa::{Modify, OpenApi};

use super::access::{BASE, OPERATIONS, Role};
use super::{admin, browse, events, large, log, restores, shapes};

#[derive(OpenApi)]
#[openapi(
    info(
        title = "BackupBot",
        description = "What is backed up, what is not, and what to do about it. Everything below needs a token in \
                       `Authorization: Bearer`: the one for operating may do everything, the one for reading may look \
                       but neither change anything nor read the contents of files. Errors are problem documents \
                       (RFC 9457). `/livez`, `/readyz` and `/metrics` need no token and are not described here.",
        license(name = "MIT OR Apache-2.0", identifier = "MIT OR Apache-2.0"),
    ),
    paths(
        admin::status, admin::alerts, admin::children, admin::why, admin::pause, admin::resume, admin::flush,
        admin::reload,
        log::show,
        log::change,
        admin::approve,
        admin::reject, browse::snapshots, browse::files, restores::list, restores::start, restores::show,
        large::usage, large::prune, large::scrub,
        restores::remove, restores::cancel, events::events, document
    ),
    components(schemas(shapes::ProblemDocument)),
    tags(
        (name = "state", description = "How everything stands"),
        (name = "control", description = "What an operator can ask for"),
        (name = "history", description = "What was backed up"),
        (name = "large", description = "Large files: how much room they take, and whether they are still there"),
        (name = "restores", description = "Getting it back"),
    ),
    modifiers(&InCommon)
)]
struct Api;

/// What every operation has in common.
struct InCommon;

impl Modify for InCommon {
    fn modify(&self, api: &mut utoipa::openapi::OpenApi) {
        let bearer = HttpBuilder::new().scheme(HttpAuthScheme::Bearer);
        let components = api.components.get_or_insert_default();
        components.add_security_scheme("token", SecurityScheme::Http(bearer.build()));
        let paths = std::mem::take(&mut api.paths.paths);
        for (path, mut item) in paths {
            let operations = [&mut item.get, &mut item.put, &mut item.post, &mut item.delete];
            for operation in operations.into_iter().flatten() {
                complete(operation);
            }
            api.paths.paths.insert(format!("{BASE}{path}"), item);
        }
        for (path, method, role) in OPERATIONS.iter().filter(|(_, _, role)| *role == Role::Operate) {
            let Some(item) = api.paths.paths.get_mut(&format!("{BASE}{path}")) else { continue };
            let operation = match *method {
                "POST" => &mut item.post,
                "PUT" => &mut item.put,
                "DELETE" => &mut item.delete,
                _ => &mut item.get,
            };
            if let Some(operation) = operation {
                let said =
                    operation.description.take().map_or_else(String::new, |text| format!("{text}\n\n"));
                operation.description = Some(format!("{said}Needs the role {role:?}."));
            }
        }
    }
}

/// The refusals that any operation can answer with.
fn complete(operation: &mut Operation) {
    operation.security = Some(vec![SecurityRequirement::new("token", [""; 0])]);
    let mut refusals = vec![
        (400, "The request cannot be understood"),
        (401, "The token is missing or not known"),
        (403, "The token may not do this, or the request comes from a foreign host or origin"),
        (404, "There is nothing of that name"),
        (405, "The address is asked in another way"),
        (429, "Too much at this moment; `Retry-After` says when to come again"),
        (500, "The daemon met trouble of its own"),
        (503, "The daemon is starting or stopping, or cannot read its token"),
    ];
    if operation.request_body.is_some() {
        refusals.extend([
            (408, "The body did not come in time"),
            (413, "The body is too large"),
            (415, "The body is not JSON"),
        ]);
        // Nothing at all means no member.
        if let Some(body) = &mut operation.request_body {
            let is_wish_needed = operation.operation_id.as_deref() == Some("start");
            body.required = Some(if is_wish_needed {
                utoipa::openapi::Required::True
            } else {
                utoipa::openapi::Required::False
            });
        }
    }
    for (status, description) in refusals {
        let schema = Ref::from_schema_name("ProblemDocument");
        let content = ContentBuilder::new().schema(Some(schema)).build();
        let mut response =
            ResponseBuilder::new().description(description).content("application/problem+json", content);
        if status == 429 {
            let seconds = ObjectBuilder::new().schema_type(Type::Integer);
            let header = HeaderBuilder::new().schema(RefOr::T(seconds.into())).description(Some("Seconds"));
            response = response.header("Retry-After", header.build());
        }
        let responses = &mut operation.responses.responses;
        responses.entry(status.to_string()).or_insert_with(|| RefOr::T(response.build()));
    }
}

/// The API as the program describes it.
pub fn api() -> utoipa::openapi::OpenApi {
    Api::openapi()
}

static DOCUMENT: LazyLock<Bytes> =
    LazyLock::new(|| Bytes::from(serde_json::to_vec(&api()).unwrap_or_default()));

/// This document
#[utoipa::path(get, path = "/openapi.json", tag = "state",
               responses((status = 200, description = "OpenAPI 3.1", body = Object)))]
pub async fn document() -> HttpResponse {
    HttpResponse::Ok().content_type("application/json").body(DOCUMENT.clone())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn what_is_served_is_what_is_described() {
        let api = api();
        let mut described = BTreeSet::new();
        for (path, item) in &api.paths.paths {
            let path = path.strip_prefix(BASE).unwrap();
            let methods =
                [("GET", &item.get), ("PUT", &item.put), ("POST", &item.post), ("DELETE", &item.delete)];
            for (method, operation) in methods {
                described.extend(operation.as_ref().map(|_| (path, method)));
            }
            assert!(item.patch.is_none() && item.head.is_none(), "{path}");
        }
        let served: BTreeSet<(&str, &str)> =
            OPERATIONS.iter().map(|(path, method, _)| (*path, *method)).collect();
        assert_eq!(described, served);
    }

    #[test]
    fn nothing_in_the_status_is_an_object_of_which_nothing_is_said() {
        let document = serde_json::to_value(api()).unwrap();
        let schemas = document["components"]["schemas"].as_object().unwrap();
        let (mut pending, mut seen) = (vec!["StatusAnswer".to_owned()], BTreeSet::new());
        while let Some(name) = pending.pop() {
            if !seen.insert(name.clone()) {
                continue;
            }
            let schema = &schemas[&name];
            let text = schema.to_string();
            assert!(!text.contains(r#"{"type":"object"}"#), "{name}: {schema:#}");
            let named = text.split("#/components/schemas/").skip(1);
            pending.extend(named.filter_map(|rest| rest.split('"').next()).map(str::to_owned));
        }
        for name in ["HealthRow", "Drilled", "Verified", "InspectionStatus", "QuarantineStatus"] {
            assert!(seen.contains(name), "{name} is not reached: {seen:?}");
        }
    }

    #[test]
    fn every_operation_says_how_it_is_refused() {
        let document = serde_json::to_value(api()).unwrap();
        assert_eq!(document["openapi"], "3.1.0");
        for (path, item) in document["paths"].as_object().unwrap() {
            for (method, operation) in item.as_object().unwrap() {
                for status in ["400", "401", "403", "404", "405", "429", "500", "503"] {
                    let content = &operation["responses"][status]["content"];
                    assert!(content["application/problem+json"].is_object(), "{method} {path} {status}");
                }
                if !operation["requestBody"].is_null() {
                    assert!(operation["responses"]["413"].is_object(), "{method} {path}");
                    assert!(operation["responses"]["415"].is_object(), "{method} {path}");
                }
                assert!(operation["security"][0]["token"].is_array(), "{method} {path}");
                assert!(operation["summary"].is_string(), "{method} {path}");
            }
        }
    }
}
