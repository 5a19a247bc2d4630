//! What needs no server: origins. Real servers judge the rest, in `tests/http*.rs` of the program.

use super::*;

#[test]
fn an_origin_is_scheme_host_and_port_and_the_usual_port_is_one() {
    let origin = |text: &str| origin_of(&Url::parse(text).unwrap());
    assert_eq!(origin("https://git.example/a"), origin("https://git.example:443/b?c"));
    assert_eq!(origin("https://git.example/a"), origin("https://GIT.example/a"));
    for other in [
        "http://git.example/a",
        "https://git.example:444/a",
        "https://git.example.evil/a",
        "https://evil/git.example",
        "https://git.example@evil/a",
        "https://git.example%00.evil/",
        "http://git.example:443/a",
    ] {
        let Ok(url) = Url::parse(other) else { continue };
        assert_ne!(origin("https://git.example/a"), origin_of(&url), "{other}");
    }
}
