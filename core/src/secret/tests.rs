use std::os::unix::fs::PermissionsExt;

use super::*;

fn file(directory: &Path, content: &[u8]) -> SecretSource {
    let path = directory.join("secret");
    fs::write(&path, content).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    SecretSource::File(path)
}

fn refusal(source: &SecretSource) -> String {
    match read(source, "password of remote nas", false) {
        Ok(_) => panic!("it was taken"),
        Err(error) => {
            assert_eq!(error.kind(), Kind::Credentials, "{error}");
            error.to_string()
        }
    }
}

#[test]
fn line_ends_at_the_end_do_not_belong_to_a_password() {
    let scratch = tempfile::tempdir().unwrap();
    for (content, value) in
        [("word-1", "word-1"), ("word-2\n", "word-2"), ("word-3\r\n", "word-3"), (" word 4 \n\n", " word 4 ")]
    {
        let found = read(&file(scratch.path(), content.as_bytes()), "password", false).unwrap();
        assert_eq!(found.secret.text().unwrap(), value);
        assert!(found.warning.is_none());
    }
    let key = b"-----BEGIN-----\nabc\n";
    assert_eq!(read(&file(scratch.path(), key), "key", true).unwrap().secret.bytes(), key);
}

#[test]
fn what_cannot_be_a_secret_is_refused_with_the_place_and_never_shown() {
    let scratch = tempfile::tempdir().unwrap();
    let place = scratch.path().display().to_string();
    for (content, word) in [
        (&b""[..], "empty"),
        (b"\n", "empty"),
        (b"two\nlines-of-it", "several lines"),
        (b"a\0b-of-it", "control characters"),
    ] {
        let said = refusal(&file(scratch.path(), content));
        assert!(said.contains(word) && said.contains(&place), "{said}");
        assert!(!said.contains("of-it"), "{said}");
    }
    let said = refusal(&SecretSource::File(scratch.path().to_owned()));
    assert!(said.contains("a directory"), "{said}");
    let said = refusal(&SecretSource::File(scratch.path().join("absent")));
    assert!(said.contains("absent") && said.contains("No such file"), "{said}");
    let large = vec![b'x'; 70_000];
    assert!(refusal(&file(scratch.path(), &large)).contains("too large"));
    let said = refusal(&SecretSource::Environment("BACKUPBOT_NO_SUCH_VARIABLE".to_owned()));
    assert!(said.contains("BACKUPBOT_NO_SUCH_VARIABLE"), "{said}");
}

#[test]
fn a_file_that_everybody_may_read_works_and_is_warned_of() {
    let scratch = tempfile::tempdir().unwrap();
    let source = file(scratch.path(), b"open-word");
    let SecretSource::File(path) = &source else { unreachable!() };
    fs::set_permissions(path, fs::Permissions::from_mode(0o644)).unwrap();
    let warning = read(&source, "token of remote nas", false).unwrap().warning.unwrap();
    assert!(warning.contains("token of remote nas") && warning.contains("chmod 600"), "{warning}");
}

fn command(script: &str) -> SecretSource {
    SecretSource::Command(["sh", "-c", script].map(str::to_owned).to_vec())
}

#[test]
fn a_command_gives_its_output_and_its_failures_are_told() {
    let found = read(&command("echo from-a-command"), "password", false).unwrap();
    assert_eq!(found.secret.text().unwrap(), "from-a-command");
    assert!(refusal(&command("echo half-a-secret; exit 3")).contains("exit status: 3"));
    assert!(refusal(&command("true")).contains("empty"));
    let absent = SecretSource::Command(vec!["/no/such/program".to_owned()]);
    assert!(refusal(&absent).contains("/no/such/program"));
}

#[test]
fn a_secret_that_was_read_appears_in_no_text_in_any_form() {
    let value = "p+ss w/rd?é\"x";
    let secret = Secret::new(value.as_bytes().to_vec());
    let basic = STANDARD.encode(format!("bot:{value}"));
    remember_form(&basic);
    for form in [
        value.to_owned(),
        STANDARD.encode(value),
        URL_SAFE_NO_PAD.encode(value),
        percent_encoded(value.as_bytes(), true),
        percent_encoded(value.as_bytes(), false),
        value.escape_debug().to_string(),
        basic,
    ] {
        let said = redact(&format!("fatal: <{form}> was refused")).into_owned();
        assert_eq!(said, "fatal: <[redacted]> was refused", "{form}");
    }
    drop(secret);
    assert_eq!(redact("nothing to hide"), "nothing to hide");
}

#[test]
fn rotated_secrets_push_out_the_oldest_but_not_those_in_use() {
    let kept = Secret::new(b"always-in-use".to_vec());
    for number in 0..3 * REMEMBERED {
        let _ = Secret::new(format!("rotated-{number:04}").into_bytes());
        remember(kept.bytes());
    }
    assert_eq!(redact("always-in-use"), REDACTED);
}
