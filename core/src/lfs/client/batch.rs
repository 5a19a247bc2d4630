//! The batch request and its answer (docs/api/batch.md of Git LFS): for each of up to a hundred objects, whether it is
//! there, what to do to bring or get it, or why not. Text in, text out; asking is [`super::server`]'s.

use std::collections::{HashMap, HashSet};

use reqwest::Url;
use serde::Serialize;
use serde_json::{Map, Value};

use super::Reason;
use super::action::Action;
use super::failure::{Failure, Operation, of_object, words_of};
use crate::error::{Error, Kind, Result};
use crate::lfs::{ObjectId, Pointer};

/// Objects of one request.
pub(super) const MOST: usize = 100;
/// The content type of questions and answers.
pub(super) const TYPE: &str = "application/vnd.git-lfs+json";

/// What an answer says of one object.
#[derive(Debug)]
pub(super) enum Answer {
    /// It has it, and there is nothing to do.
    There,
    Do(Box<Actions>),
    Not(Failure),
}

/// What is to be done with one object.
#[derive(Debug, Clone)]
pub(super) struct Actions {
    /// Where it is put, or where it is had from.
    pub transfer: Action,
    /// Whom to tell afterwards.
    pub verify: Option<Action>,
}

#[derive(Serialize)]
struct Request<'r> {
    operation: &'static str,
    transfers: [&'static str; 1],
    #[serde(rename = "ref", skip_serializing_if = "Option::is_none")]
    reference: Option<Reference<'r>>,
    objects: Vec<Object>,
    hash_algo: &'static str,
}

#[derive(Serialize)]
struct Reference<'r> {
    name: &'r str,
}

#[derive(Serialize)]
struct Object {
    oid: String,
    size: u64,
}

/// The question for `objects`.
pub(super) fn request(operation: Operation, reference: Option<&str>, objects: &[Pointer]) -> Result<Vec<u8>> {
    let request = Request {
        operation: operation.as_str(),
        transfers: ["basic"],
        reference: reference.map(|name| Reference { name }),
        objects: objects
            .iter()
            .map(|pointer| Object { oid: pointer.id.to_string(), size: pointer.size })
            .collect(),
        hash_algo: "sha256",
    };
    serde_json::to_vec(&request)
        .map_err(|error| Error::with_source(Kind::Internal, "cannot write a batch request", error))
}

/// What `body` says of each of `objects`. What it says of others, or a second time, does not count.
pub(super) fn read(
    operation: Operation,
    objects: &[Pointer],
    body: &[u8],
    endpoint: &Url,
    shown: &str,
) -> Result<Vec<(Pointer, Answer)>> {
    let unreadable = |why: &str| {
        Error::new(Kind::RemoteUnreachable, format!("{shown} does not answer as an LFS server does: {why}"))
    };
    let fields = match serde_json::Deserializer::from_slice(body).into_iter::<Value>().next() {
        Some(Ok(Value::Object(fields))) => fields,
        Some(Err(error)) => return Err(unreadable(&error.to_string())),
        _ => return Err(unreadable("there is no object of JSON in it")),
    };
    let says = |name: &str| fields.get(name).and_then(Value::as_str);
    if let Some(other) = says("transfer").filter(|transfer| *transfer != "basic") {
        let other = crate::transport::said(other.as_bytes());
        let text =
            format!("{shown} insists on the transfer \"{other}\", which is not supported: \"basic\" is");
        return Err(Error::new(Kind::RemoteRefused, text));
    }
    if says("hash_algo").is_some_and(|algorithm| algorithm != "sha256") {
        return Err(Error::new(
            Kind::RemoteRefused,
            format!("{shown} names objects by another hash than SHA-256"),
        ));
    }
    let Some(Value::Array(entries)) = fields.get("objects") else {
        return Err(unreadable("there are no objects in it"));
    };
    let asked: HashSet<ObjectId> = objects.iter().map(|pointer| pointer.id).collect();
    let mut answers: HashMap<ObjectId, &Map<String, Value>> = HashMap::new();
    for entry in entries.iter().filter_map(Value::as_object) {
        let id = entry.get("oid").and_then(Value::as_str).and_then(|text| text.parse().ok());
        if let Some(id) = id.filter(|id| asked.contains(id)) {
            answers.entry(id).or_insert(entry);
        }
    }
    Ok(objects
        .iter()
        .map(|pointer| {
            let doing = doing(operation, pointer, shown);
            let answer = match answers.get(&pointer.id) {
                Some(entry) => one(operation, pointer, entry, endpoint, &doing),
                None => rejected(&doing, "the server says nothing about it"),
            };
            (*pointer, answer)
        })
        .collect())
}

/// What is being tried, for messages.
pub(super) fn doing(operation: Operation, pointer: &Pointer, shown: &str) -> String {
    let what = format!("the large object {} of {} bytes", pointer.id, pointer.size);
    match operation {
        Operation::Upload => format!("bring {what} to {shown}"),
        Operation::Download => format!("get {what} from {shown}"),
    }
}

fn rejected(doing: &str, why: &str) -> Answer {
    let error = Error::new(Kind::RemoteRefused, format!("cannot {doing}: {why}"));
    Answer::Not(Failure::Refused(Reason::Rejected, error))
}

fn one(
    operation: Operation,
    pointer: &Pointer,
    entry: &Map<String, Value>,
    endpoint: &Url,
    doing: &str,
) -> Answer {
    if let Some(Value::Object(error)) = entry.get("error") {
        let code = error.get("code").and_then(Value::as_u64).unwrap_or_default();
        let words = words_of(&serde_json::to_vec(error).unwrap_or_default(), &[]);
        return Answer::Not(of_object(code, operation, doing, &words));
    }
    let size = entry.get("size").and_then(Value::as_u64);
    if let Some(size) = size.filter(|size| *size != pointer.size) {
        return rejected(doing, &format!("the server says that it has {size} bytes"));
    }
    let actions = match entry.get("actions") {
        None | Some(Value::Null) => None,
        Some(Value::Object(actions)) if actions.is_empty() => None,
        Some(Value::Object(actions)) => Some(actions),
        Some(_) => return rejected(doing, "what the server says is to be done cannot be read"),
    };
    let Some(actions) = actions else {
        return match operation {
            Operation::Upload => Answer::There,
            // There is nothing else to get it by.
            Operation::Download => rejected(doing, "the server does not say where it is"),
        };
    };
    let is_authenticated = entry.get("authenticated").and_then(Value::as_bool).unwrap_or(false);
    let action = |name: &str| match actions.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::Object(fields)) => {
            Action::of(fields, endpoint).map(|action| Some(Action { is_authenticated, ..action }))
        }
        Some(_) => Err("what the server says is to be done cannot be read".to_owned()),
    };
    match (action(operation.as_str()), action("verify")) {
        (Err(why), _) | (_, Err(why)) => rejected(doing, &why),
        (Ok(Some(transfer)), Ok(verify)) => Answer::Do(Box::new(Actions { transfer, verify })),
        // Some servers name only `verify` for what they have.
        (Ok(None), Ok(_)) if operation == Operation::Upload => Answer::There,
        (Ok(None), Ok(_)) => rejected(doing, "the server does not say where it is"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn pointer(byte: u8, size: u64) -> Pointer {
        Pointer { id: ObjectId([byte; 32]), size }
    }

    fn read_as(operation: Operation, objects: &[Pointer], body: &[u8]) -> Result<Vec<(Pointer, Answer)>> {
        read(operation, objects, body, &Url::parse("https://git.example.org/x").unwrap(), "the server")
    }

    #[test]
    fn the_question_has_what_servers_ask_for() {
        let body = request(Operation::Upload, Some("refs/heads/main"), &[pointer(0xab, 7)]).unwrap();
        let body: Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(
            body,
            json!({"operation": "upload", "transfers": ["basic"], "ref": {"name": "refs/heads/main"},
                   "objects": [{"oid": "ab".repeat(32), "size": 7}], "hash_algo": "sha256"})
        );
    }

    #[test]
    fn objects_are_found_by_their_names_and_each_stands_for_itself() {
        let objects: Vec<Pointer> = (1..9).map(|byte| pointer(byte, 10)).collect();
        let entry = |byte: u8, rest: Value| {
            let mut entry = json!({"oid": pointer(byte, 0).id.to_string(), "size": 10});
            entry.as_object_mut().unwrap().extend(rest.as_object().unwrap().clone());
            entry
        };
        let href = |href: &str| json!({"actions": {"upload": {"href": href}}});
        let body = json!({"transfer": "basic", "objects": [
            entry(9, href("https://s.org/unasked")),
            entry(2, href("https://s.org/2")),
            entry(2, href("https://s.org/again")),
            entry(1, json!({})),
            entry(3, json!({"error": {"code": 422, "message": "too large"}})),
            entry(4, json!({"size": 11})),
            entry(5, href("http://s.org/not-encrypted")),
            "nonsense",
            entry(6, json!({"actions": {"upload": 7}})),
            entry(7, json!({"actions": {"verify": {"href": "https://s.org/v"}}})),
        ]});
        let mut text = serde_json::to_vec(&body).unwrap();
        text.extend_from_slice(br#"{"message":"a second document"}"#);
        let answers = read_as(Operation::Upload, &objects, &text).unwrap();
        let told: Vec<String> = answers
            .iter()
            .map(|(_, answer)| match answer {
                Answer::There => "there".to_owned(),
                Answer::Do(actions) => actions.transfer.href.path().to_owned(),
                Answer::Not(Failure::Refused(reason, _)) => reason.as_str().to_owned(),
                Answer::Not(other) => format!("{other:?}"),
            })
            .collect();
        assert_eq!(
            told,
            ["there", "/2", "too_large", "rejected", "rejected", "rejected", "there", "rejected"]
        );
    }

    #[test]
    fn what_is_no_answer_of_an_lfs_server_is_said_to_be_none() {
        for (body, kind) in [
            ("", Kind::RemoteUnreachable),
            ("<html>login</html>", Kind::RemoteUnreachable),
            ("[]", Kind::RemoteUnreachable),
            ("{}", Kind::RemoteUnreachable),
            (r#"{"objects":{}}"#, Kind::RemoteUnreachable),
            (r#"{"transfer":"tus","objects":[]}"#, Kind::RemoteRefused),
            (r#"{"hash_algo":"md5","objects":[]}"#, Kind::RemoteRefused),
        ] {
            let error = read_as(Operation::Upload, &[pointer(1, 1)], body.as_bytes()).unwrap_err();
            assert_eq!(error.kind(), kind, "{body}");
        }
        let deep = "[".repeat(100_000);
        assert!(read_as(Operation::Upload, &[pointer(1, 1)], deep.as_bytes()).is_err());
    }

    proptest! {
        #[test]
        fn no_answer_makes_the_reader_fail_or_talk_of_other_objects(body in ".{0,200}") {
            let objects = [pointer(1, 1)];
            if let Ok(answers) = read_as(Operation::Download, &objects, body.as_bytes()) {
                prop_assert_eq!(answers.len(), 1);
            }
        }
    }
}
