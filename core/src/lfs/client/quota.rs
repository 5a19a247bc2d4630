//! How much of its LFS storage an account has used, where the host can be asked: Forgejo's quota (off by default
//! there) and GitLab's statistics of a project. The LFS protocol itself has no word for it.

use reqwest::{Method, Url};
use serde_json::Value;

use super::Usage;
use super::failure::Operation;
use super::server::{Question, Server};
use crate::config::{Provider, RemoteUrl};
use crate::error::{Error, Kind, Result};
use crate::progress::Progress;
use crate::secret::percent_encoded;

/// Rules of Forgejo that large objects count against, from the widest to the narrowest.
const SUBJECTS: [&str; 3] = ["size:all", "size:git:all", "size:git:lfs"];

/// Asks the host, if there is a way.
pub(super) fn usage(server: &Server, progress: &Progress) -> Result<Option<Usage>> {
    let RemoteUrl::Http(url) = &server.remote.url else { return Ok(None) };
    let base = Url::parse(&url.text).map_err(|error| {
        Error::new(Kind::Config, format!("{} is no address to connect to: {error}", url.text))
    })?;
    let path = base.path().trim_matches('/').trim_end_matches(".git").to_owned();
    let (place, is_bearer) = match server.remote.provider {
        Some(Provider::Forgejo) => {
            // Below whatever stands before owner and repository.
            let parts: Vec<&str> = path.split('/').collect();
            let above = parts[..parts.len().saturating_sub(2)].join("/");
            let above = if above.is_empty() { above } else { format!("/{above}") };
            (at(&base, &format!("{above}/api/v1/user/quota"), None), false)
        }
        Some(Provider::Gitlab) => {
            let project = percent_encoded(path.as_bytes(), true);
            (at(&base, &format!("/api/v4/projects/{project}"), Some("statistics=true")), true)
        }
        _ => return Ok(None),
    };
    let question = Question { operation: Operation::Download, method: Method::GET, body: None, is_bearer };
    let (standing, reply) = server.ask(&question, |_| place.clone(), progress)?;
    if reply.status == 404 && server.remote.provider == Some(Provider::Forgejo) {
        return Ok(None);
    }
    if !(200..300).contains(&reply.status) {
        return Err(server.refusal(&standing, &reply));
    }
    let answer = match serde_json::Deserializer::from_slice(&reply.body).into_iter::<Value>().next() {
        Some(Ok(answer)) => answer,
        _ => {
            let text = format!("{} does not say in JSON how much is used", server.remote.url);
            return Err(Error::new(Kind::RemoteUnreachable, text));
        }
    };
    Ok(match server.remote.provider {
        Some(Provider::Forgejo) => of_forgejo(&answer),
        _ => answer
            .pointer("/statistics/lfs_objects_size")
            .and_then(Value::as_u64)
            .map(|used| Usage { used, limit: None }),
    })
}

fn at(base: &Url, path: &str, query: Option<&str>) -> Url {
    let mut url = base.clone();
    url.set_path(path);
    url.set_query(query);
    url
}

/// What is used and how much there may be, by the rule that leaves the least room. Within a group all rules count; of
/// several groups the most generous does.
fn of_forgejo(answer: &Value) -> Option<Usage> {
    let size = answer.pointer("/used/size")?;
    let lfs = ["/git/LFS", "/git/lfs"].iter().find_map(|path| size.pointer(path)?.as_u64())?;
    let all = total(size);
    let git = lfs.saturating_add(total(size.get("repos").unwrap_or(&Value::Null))).min(all);
    let used_of = |subject: &str| match subject {
        "size:git:lfs" => lfs,
        "size:git:all" => git,
        _ => all,
    };
    let plain = Usage { used: lfs, limit: None };
    let room = |usage: &Usage| usage.limit.map_or(u64::MAX, |limit| limit.saturating_sub(usage.used));
    let of_rule = |rule: &Value| {
        let limit = rule.get("limit").and_then(Value::as_i64)?;
        let subjects = rule.get("subjects").and_then(Value::as_array)?;
        let counts = |subject: &&str| subjects.iter().any(|named| named.as_str() == Some(subject));
        let subject = SUBJECTS.iter().copied().find(|subject| counts(subject))?;
        // Below zero means without a limit.
        let limit = u64::try_from(limit).ok()?;
        Some(Usage { used: used_of(subject), limit: Some(limit) })
    };
    let groups = answer.get("groups").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let of_group = |group: &Value| {
        let rules = group.get("rules").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
        rules.iter().filter_map(of_rule).min_by_key(room).unwrap_or(plain)
    };
    Some(groups.iter().map(of_group).max_by_key(room).unwrap_or(plain))
}

/// The sum of all numbers in a value.
fn total(value: &Value) -> u64 {
    let mut waiting = vec![value];
    let mut sum = 0u64;
    while let Some(value) = waiting.pop() {
        match value {
            Value::Number(number) => sum = sum.saturating_add(number.as_u64().unwrap_or(0)),
            Value::Object(fields) => waiting.extend(fields.values()),
            Value::Array(items) => waiting.extend(items),
            _ => {}
        }
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_rule_that_leaves_the_least_room_of_the_most_generous_group_counts() {
        let used = json!({"size": {"repos": {"public": 10, "private": 20}, "git": {"LFS": 100},
                                   "assets": {"attachments": {"issues": 3, "releases": 4}, "artifacts": 5, "packages": {"all": 6}}}});
        let with = |groups: Value| of_forgejo(&json!({"used": used, "groups": groups}));
        let rule = |limit: i64, subject: &str| json!({"name": "r", "limit": limit, "subjects": [subject]});
        assert_eq!(with(json!([])), Some(Usage { used: 100, limit: None }));
        let one = json!([{"rules": [rule(1000, "size:git:lfs"), rule(500, "size:all"), rule(1, "size:assets:all")]}]);
        assert_eq!(with(one.clone()), Some(Usage { used: 148, limit: Some(500) }));
        let two = json!([one[0], {"rules": [rule(2000, "size:git:all")]}]);
        assert_eq!(with(two), Some(Usage { used: 130, limit: Some(2000) }));
        let endless = json!([{"rules": [rule(-1, "size:all")]}]);
        assert_eq!(with(endless), Some(Usage { used: 100, limit: None }));
        for nonsense in
            [json!({}), json!({"used": 7}), json!([]), json!({"used": {"size": {"git": {"LFS": -1}}}})]
        {
            assert_eq!(of_forgejo(&nonsense), None);
        }
    }
}
