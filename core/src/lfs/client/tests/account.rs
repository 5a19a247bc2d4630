//! How much is used, and ways to the server that are not the plain one: a proxy, an address of its own.

use serde_json::json;

use super::*;
use crate::config::Provider;

fn answers(bench: &Bench, path: &'static str, authorization: &'static str, body: serde_json::Value) {
    bench.server.behave(move |request| {
        assert_eq!(request.header("authorization"), Some(authorization));
        match request.path == path {
            true => Behaviour::status(200, &body.to_string()),
            false => Behaviour::status(404, ""),
        }
    });
}

#[test]
fn hosts_that_can_be_asked_say_how_much_is_used() {
    let mut bench = Bench::new().with_password();
    let port = bench.server.port();
    assert_eq!(bench.client().quota(&bench.progress).unwrap(), None, "nobody says what it runs");
    bench.remote.url = RemoteUrl::parse(&format!("http://127.0.0.1:{port}/below/me/repo.git")).unwrap();
    bench.remote.provider = Some(Provider::Forgejo);
    let body = json!({"used": {"size": {"git": {"LFS": 700}}},
                      "groups": [{"rules": [{"limit": 1000, "subjects": ["size:git:lfs"]}]}]});
    answers(&bench, "/below/api/v1/user/quota", "Basic Ym90OmNvcnJlY3QtaG9yc2U=", body);
    let usage = bench.client().quota(&bench.progress).unwrap();
    assert_eq!(usage, Some(Usage { used: 700, limit: Some(1000) }));
    bench.server.behave(|_| Behaviour::status(404, ""));
    assert_eq!(bench.client().quota(&bench.progress).unwrap(), None, "switched off there");
    bench.server.behave(|_| Behaviour::status(403, ""));
    assert_eq!(bench.client().quota(&bench.progress).unwrap_err().kind(), Kind::Credentials);

    bench.remote.provider = Some(Provider::Gitlab);
    let body = json!({"id": 1, "statistics": {"lfs_objects_size": 42}});
    let path = "/api/v4/projects/below%2Fme%2Frepo?statistics=true";
    answers(&bench, path, "Bearer correct-horse", body);
    let usage = bench.client().quota(&bench.progress).unwrap();
    assert_eq!(usage, Some(Usage { used: 42, limit: None }));
}

#[test]
fn behind_a_proxy_names_go_to_it_and_this_machine_is_out_of_reach() {
    let mut bench = Bench::new();
    // Our server plays the proxy: whole addresses are asked of it, and no name is resolved here.
    bench.remote.url = RemoteUrl::parse("http://git.invalid/me/repo.git").unwrap();
    bench.remote.proxy = Some(format!("http://127.0.0.1:{}", bench.server.port()));
    let pointer = bench.stored(b"through the proxy");
    let refused = bench.upload(&[pointer]).unwrap().refused;
    assert_eq!(reasons(&refused), [Reason::Rejected], "a place in this machine");
    let href = format!("http://store.invalid/{}", pointer.id);
    let place = href.clone();
    bench.server.behave(move |request| match request.is_batch() {
        true => {
            let place = place.clone();
            Behaviour::But(Box::new(move |answer| {
                let object = &mut answer["objects"][0];
                if object["actions"].is_object() {
                    object["actions"] = json!({"upload": {"href": place}});
                }
            }))
        }
        false => Behaviour::Good,
    });
    assert_eq!(bench.upload(&[pointer]).unwrap().sent, 1);
    assert!(bench.server.seen().iter().any(|request| request.path == href));
    bench.server.behave(|request| match request.is_batch() {
        true => Behaviour::But(Box::new(|answer| {
            answer["objects"][0]["actions"] = json!({"upload": {"href": "http://localhost/x"}});
        })),
        false => Behaviour::Good,
    });
    assert_eq!(reasons(&bench.upload(&[pointer]).unwrap().refused), [Reason::Rejected]);
}

#[test]
fn the_server_may_be_somewhere_else_than_the_repository() {
    let mut bench = Bench::new();
    let pointer = bench.stored(b"elsewhere");
    for url in ["/nowhere/at/all", "ssh://127.0.0.1:9/x.git", "http://127.0.0.1:9/x.git"] {
        bench.remote.url = RemoteUrl::parse(url).unwrap();
        bench.remote.lfs_url = Some(format!("http://127.0.0.1:{}/lfs", bench.server.port()));
        bench.server.objects().clear();
        assert_eq!(bench.upload(&[pointer]).unwrap().sent, 1, "{url}");
    }
    assert!(bench.server.seen().iter().any(|request| request.path == "/lfs/objects/batch"));
}
