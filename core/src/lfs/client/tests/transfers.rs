//! What goes well.

use super::*;

#[test]
fn what_a_server_lacks_is_sent_and_confirmed_and_comes_back_byte_for_byte() {
    let bench = Bench::new();
    let contents: Vec<Vec<u8>> = (0..7).map(|n| content(n, 1000 + 300_000 * n as usize)).collect();
    let pointers: Vec<Pointer> = contents.iter().map(|bytes| bench.stored(bytes)).collect();
    bench.server.keep(&contents[3]);
    let missing = bench.client().missing(&pointers, &bench.progress).unwrap();
    assert_eq!((missing.there, missing.missing.len(), missing.unsure.len()), (1, 6, 0));

    let sent = bench.upload(&pointers).unwrap();
    let bytes: u64 = pointers.iter().map(|pointer| pointer.size).sum::<u64>() - pointers[3].size;
    assert_eq!((sent.sent, sent.already, sent.bytes, sent.refused.len()), (6, 1, bytes, 0));
    assert_eq!(bench.server.objects().len(), 7);
    let seen = bench.server.seen();
    let puts: Vec<&Request> = seen.iter().filter(|request| request.method == "PUT").collect();
    assert!(puts.iter().all(|put| put.header("content-type") == Some("application/octet-stream")));
    assert!(
        puts.iter()
            .all(|put| put.header("x-given") == Some("a") && put.header("transfer-encoding").is_none())
    );
    let batches = seen.iter().filter(|request| request.is_batch()).count();
    assert_eq!(batches, 3, "the question, the upload's, and its confirmation");

    let elsewhere = Objects::of(&bench.scratch.path().join("repositories/other.git"));
    let got = bench.client().download(&pointers, &elsewhere, &bench.progress).unwrap();
    assert_eq!((got.received, got.already, got.failed.len()), (7, 0, 0));
    for (pointer, bytes) in pointers.iter().zip(&contents) {
        assert_eq!(&fs::read(elsewhere.path_of(&pointer.id)).unwrap(), bytes);
    }
    let again = bench.client().download(&pointers, &elsewhere, &bench.progress).unwrap();
    assert_eq!((again.received, again.already), (0, 7));
    assert_eq!(bench.upload(&pointers).unwrap().already, 7);
}

#[test]
fn the_server_confirms_each_object_where_it_says_how() {
    let bench = Bench::new();
    bench.server.verifies();
    let pointer = bench.stored(b"confirmed");
    assert_eq!(bench.upload(&[pointer, pointer]).unwrap().sent, 1);
    let seen = bench.server.seen();
    let verified: Vec<&Request> = seen.iter().filter(|request| request.path == "/verify").collect();
    assert_eq!(verified.len(), 1);
    assert_eq!(verified[0].json(), serde_json::json!({"oid": pointer.id.to_string(), "size": 9}));
    assert_eq!(seen.iter().filter(|request| request.is_batch()).count(), 1);
}

#[test]
fn a_hundred_objects_are_asked_for_at_a_time() {
    let bench = Bench::new();
    let pointers: Vec<Pointer> = (0..205).map(|n| bench.kept(&content(n, 40))).collect();
    let client = bench.client().for_reference("refs/heads/main");
    assert_eq!(client.download(&pointers, &bench.store, &bench.progress).unwrap().received, 205);
    let asked: Vec<usize> = bench
        .server
        .seen()
        .iter()
        .filter(|request| request.is_batch())
        .map(|request| {
            assert_eq!(request.header("accept"), Some("application/vnd.git-lfs+json"));
            assert_eq!(request.header("content-type"), Some("application/vnd.git-lfs+json"));
            assert_eq!(request.json()["ref"]["name"], "refs/heads/main");
            request.json()["objects"].as_array().unwrap().len()
        })
        .collect();
    assert_eq!(asked, [100, 100, 5]);
}

#[test]
fn an_empty_object_goes_there_and_back() {
    let bench = Bench::new();
    let pointer = bench.stored(b"");
    assert_eq!(bench.upload(&[pointer]).unwrap().sent, 1);
    bench.store.remove(&pointer.id).unwrap();
    assert_eq!(bench.download(&[pointer]).unwrap().received, 1);
}

#[test]
fn all_transfers_together_keep_to_the_limit_of_the_remote() {
    let mut bench = Bench::new();
    bench.remote.bandwidth = Some(400_000);
    let pointers: Vec<Pointer> = (0..3).map(|n| bench.stored(&content(n, 100_000))).collect();
    let began = std::time::Instant::now();
    assert_eq!(bench.upload(&pointers).unwrap().sent, 3);
    assert!(began.elapsed() >= Duration::from_millis(600), "{:?}", began.elapsed());
}
