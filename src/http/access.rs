//! Every operation of the API in one table: where it is, how it is asked, and who may.
//!
//! What is not in the table is not served, whatever is registered; a test compares it with the OpenAPI document.

use actix_web::http::Method;

/// Who asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// May look: names and numbers, no contents.
    Read,
    /// May do everything.
    Operate,
}

/// Below what the API is.
pub const BASE: &str = "/api/v1";

/// Pattern below [`BASE`], method, and who may. A file of a snapshot is listed under the same address as its
/// directory; its content needs [`Role::Operate`], which the handler sees to.
pub const OPERATIONS: &[(&str, &str, Role)] = &[
    ("/status", "GET", Role::Read),
    ("/alerts", "GET", Role::Read),
    ("/children", "GET", Role::Read),
    ("/events", "GET", Role::Read),
    ("/openapi.json", "GET", Role::Read),
    ("/why", "GET", Role::Read),
    ("/repositories/{repository}/snapshots", "GET", Role::Read),
    ("/repositories/{repository}/snapshots/{id}/files", "GET", Role::Read),
    ("/repositories/{repository}/lfs", "GET", Role::Read),
    ("/repositories/{repository}/lfs/prune", "POST", Role::Operate),
    ("/repositories/{repository}/lfs/scrub", "POST", Role::Operate),
    ("/pause", "POST", Role::Operate),
    ("/resume", "POST", Role::Operate),
    ("/approve", "POST", Role::Operate),
    ("/reject", "POST", Role::Operate),
    ("/flush", "POST", Role::Operate),
    ("/reload", "POST", Role::Operate),
    ("/log", "GET", Role::Read),
    ("/log", "PUT", Role::Operate),
    ("/restores", "GET", Role::Read),
    ("/restores", "POST", Role::Operate),
    ("/restores/{id}", "GET", Role::Read),
    ("/restores/{id}", "DELETE", Role::Operate),
    ("/restores/{id}/cancel", "POST", Role::Operate),
];

/// The pattern below [`BASE`].
fn below(pattern: &str) -> Option<&str> {
    pattern.strip_prefix(BASE)
}

/// Who may ask `pattern` in this way; `None` if nobody can.
pub fn needed(pattern: &str, method: &Method) -> Option<Role> {
    let pattern = below(pattern)?;
    let found = OPERATIONS.iter().find(|(known, by, _)| *known == pattern && *by == method.as_str());
    found.map(|(_, _, role)| *role)
}

/// The ways in which `pattern` can be asked, for a header; empty if it is not known.
pub fn allowed(pattern: &str) -> String {
    let Some(pattern) = below(pattern) else { return String::new() };
    let methods: Vec<&str> =
        OPERATIONS.iter().filter(|(known, ..)| *known == pattern).map(|(_, method, _)| *method).collect();
    methods.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_changes_something_needs_the_greater_role() {
        for (pattern, method, role) in OPERATIONS {
            assert_eq!(*role == Role::Read, *method == "GET", "{method} {pattern}");
        }
        assert!(Role::Operate > Role::Read);
        assert_eq!(needed("/api/v1/restores/{id}", &Method::DELETE), Some(Role::Operate));
        assert_eq!(needed("/api/v1/restores/{id}", &Method::PUT), None);
        assert_eq!(
            (allowed("/api/v1/restores/{id}"), allowed("/livez")),
            ("GET, DELETE".into(), String::new())
        );
    }
}
