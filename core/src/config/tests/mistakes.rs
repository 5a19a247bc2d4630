//! Each mistake within one section is reported at its line with its field; all of a file's at once.

use super::*;

/// `text` after the minimal configuration's own lines, in the place the first column says.
fn problems_of(text: &str) -> Vec<Problem> {
    match yaml(text) {
        Ok(_) => panic!("accepted:\n{text}"),
        Err(problems) => problems,
    }
}

/// Each case: lines put before `repositories`, so that they start in line 2; the expected site; a word.
#[test]
fn global_mistakes_name_line_and_field() {
    for (text, site, word) in [
        ("state_dir: var/lib", "2 state_dir", "absolute"),
        ("state_dir: ~/state", "2 state_dir", "`~` is not expanded"),
        ("state_dir: [a]", "2 state_dir", "found a list"),
        ("instance: a b", "2 instance", "branch names"),
        ("instance: true", "2 instance", "quotes"),
        ("instance: a/b", "2 instance", "branch names"),
        ("identity: {name: 'a <b>'}", "2 identity.name", "<"),
        ("identity:\n  email: \"a\\nb\"", "3 identity.email", "control"),
        ("identity: BackupBot", "2 identity", "keys and values"),
        ("identity:\n  - name: x", "2 identity", "found a list"),
        ("limits: {max_roots: many}", "2 limits.max_roots", "whole number"),
        ("limits:\n\n  max_roots: 0", "4 limits.max_roots", "from 1 to"),
        ("limits: {max_roots: 1.5}", "2 limits.max_roots", "whole number"),
        ("limits: {max_roots: -1}", "2 limits.max_roots", "whole number"),
        ("limits: {repository_size: 0}", "2 limits.repository_size", "zero"),
        ("limits: {repository_size: 0GiB}", "2 limits.repository_size", "zero"),
        ("limits: {repository_size: 5 parsecs}", "2 limits.repository_size", "256MiB"),
        ("limits: {repository_size: 99999999EiB}", "2 limits.repository_size", "256MiB"),
        ("limits: {repository_size: 1.5}", "2 limits.repository_size", "256MiB"),
        ("limits: {repository_size: -1GiB}", "2 limits.repository_size", "256MiB"),
        ("shutdown_grace: 30", "2 shutdown_grace", "needs a unit"),
        ("shutdown_grace: soon", "2 shutdown_grace", "10s"),
        ("shutdown_grace: -3s", "2 shutdown_grace", "negative"),
        ("shutdown_grace: 1mo", "2 shutdown_grace", "use days"),
        ("shutdown_grace: 4000d", "2 shutdown_grace", "at most 3650d"),
        ("log: {level: loud}", "2 log.level", "error, warning, info"),
        ("log: {level: 3}", "2 log.level", "expected one of"),
        ("log: {file: backup.log}", "2 log.file", "absolute"),
        ("admin: {listen: localhost:7177}", "2 admin.listen", "127.0.0.1:7177"),
        ("admin: {listen: 7177}", "2 admin.listen", "127.0.0.1:7177"),
        ("admin: {allowed_hosts: backup.example.org}", "2 admin.allowed_hosts", "expected a list"),
        ("admin:\n  allowed_hosts:\n    - a\n    - ''", "5 admin.allowed_hosts[1]", "text"),
        ("alerts: {stale_after: 0s}", "2 alerts.stale_after", "zero"),
        ("alerts: {failure_rate: 0}", "2 alerts.failure_rate", "above 0"),
        ("alerts: {failure_rate: 101%}", "2 alerts.failure_rate", "up to 1"),
        ("alerts: {failure_rate: half}", "2 alerts.failure_rate", "50%"),
        ("alerts: {failure_rate: .nan}", "2 alerts.failure_rate", "50%"),
        ("alerts: {backlog: 0}", "2 alerts.backlog", "from 1"),
        ("identiy: {name: x}", "2 identiy", "did you mean `identity`?"),
        ("limits:\n  max_root: 3", "3 limits.max_root", "did you mean `max_roots`?"),
        ("zzz: 1", "2 zzz", "expected one of version, state_dir"),
        ("<<: {a: 1}", "2 <<", "merge keys"),
        ("log: {}\nlimits: {}\nlog: {}", "4 log", "given twice, first at c.yaml:2"),
        ("log:\n  level: info\n  level: debug", "4 log.level", "given twice, first at c.yaml:3"),
        ("defaults: {name: x}", "2 defaults.name", "unknown key"),
        ("defaults: {roots: []}", "2 defaults.roots", "unknown key"),
        ("defaults:\n  batch:\n    files: 0", "4 defaults.batch.files", "from 1"),
    ] {
        let text = MINIMAL.replacen('\n', &format!("\n{text}\n"), 1);
        let problems = problems_of(&text);
        assert_eq!(sites(&problems), [site], "{text}\n{}", lines(&problems));
        assert!(problems[0].message.contains(word), "{}", problems[0]);
    }
}

/// Each case: a repository's own lines from line 6 on.
#[test]
fn mistakes_in_a_repository_name_line_and_field() {
    for (text, site, word) in [
        ("branch: a b", "6 repositories[0].branch", "Git takes no branch"),
        ("branch: '{host}'", "6 repositories[0].branch", "{instance}"),
        ("tags: {every: year}", "6 repositories[0].tags.every", "none, commit, day"),
        ("tags: {name: 'a b'}", "6 repositories[0].tags.name", "Git takes no tag"),
        ("batch: {files: 0}", "6 repositories[0].batch.files", "from 1"),
        ("batch: {bytes: 0}", "6 repositories[0].batch.bytes", "zero"),
        ("batch: {after: 10}", "6 repositories[0].batch.after", "unit"),
        ("retry: {factor: 0.5}", "6 repositories[0].retry.factor", "from 1"),
        ("retry: {factor: two}", "6 repositories[0].retry.factor", "number"),
        ("retry: {first: 0s}", "6 repositories[0].retry.first", "zero"),
        ("retry:\n      max: 1m\n      first: 2m", "8 repositories[0].retry.first", "longer than max"),
        ("retry: {max: 500ms}", "6 repositories[0].retry.max", "longer than max"),
        ("verify: {every: 0s}", "6 repositories[0].verify.every", "zero"),
        ("verify: on", "6 repositories[0].verify", "expected keys and values"),
        ("verify: {sample: 1.5}", "6 repositories[0].verify.sample", "up to 1"),
        ("verify: {sample: 0.0000000001}", "6 repositories[0].verify.sample", "at least 0.0001%"),
        ("verify: {every: 2d, full_every: 1d}", "6 repositories[0].verify.full_every", "shorter than every"),
        ("verify: {every: 60d}", "6 repositories[0].verify.every", "shorter than every"),
        ("drill: {sample: 0%}", "6 repositories[0].drill.sample", "above 0"),
        ("drill: {remote: usb}", "6 repositories[0].drill.remote", "unknown key"),
        ("root: []", "6 repositories[0].root", "did you mean `roots`?"),
    ] {
        let text = format!("{MINIMAL}    {text}\n");
        let problems = problems_of(&text);
        assert_eq!(sites(&problems), [site], "{text}\n{}", lines(&problems));
        assert!(problems[0].message.contains(word), "{}", problems[0]);
    }
}

/// Each case: the items of `roots` from line 5 on.
#[test]
fn mistakes_in_a_root_name_line_and_field() {
    let root = "repositories[0].roots[0]";
    for (text, site, word) in [
        ("- path: relative", "5 ROOT.path", "absolute"),
        ("- path:", "5 ROOT.path", "required"),
        ("- name: x", "5 ROOT.path", "required"),
        ("- /data", "5 ROOT", "keys and values"),
        ("-", "5 ROOT", "found nothing"),
        ("- path: \"/a\\0b\"", "5 ROOT.path", "NUL"),
        ("- path: /nowhere/.git", "5 ROOT.path", "give this root a `name`"),
        ("- path: /nowhere/x\n        name: a/b", "6 ROOT.name", "must not contain '/'"),
        ("- path: /nowhere/x\n        name: .backupbot", "6 ROOT.name", "reserved"),
        ("- path: /nowhere/x\n        ignore: '*.tmp'", "6 ROOT.ignore", "expected a list"),
        (
            "- path: /nowhere/x\n        ignore:\n          - ok\n          - 'a['",
            "8 ROOT.ignore[1]",
            "gitignore",
        ),
        ("- path: /nowhere/x\n        ignore_files: [a/b]", "6 ROOT.ignore_files[0]", "without directories"),
        ("- path: /nowhere/x\n        system_excludes: yes", "6 ROOT.system_excludes", "true or false"),
        ("- path: /nowhere/x\n        rescan: 0s", "6 ROOT.rescan", "zero"),
        ("- path: /nowhere/x\n        backend: fanotify", "6 ROOT.backend", "auto, inotify"),
        #[cfg(target_os = "linux")]
        ("- path: /nowhere/x\n        backend: kqueue", "6 ROOT.backend", "kqueue is for macOS and BSD"),
        (
            "- path: /nowhere/x\n        debounce: {quiet: 40s}",
            "6 ROOT.debounce.quiet",
            "longer than max (30s)",
        ),
        (
            "- path: /nowhere/x\n        debounce:\n          max: 5s",
            "7 ROOT.debounce.max",
            "quiet (10s) is longer",
        ),
        ("- path: /nowhere/x\n        debounce: 10s", "6 ROOT.debounce", "keys and values"),
        ("- path: /nowhere/x\n        ignores: []", "6 ROOT.ignores", "did you mean `ignore`?"),
    ] {
        let text = format!("version: 1\nrepositories:\n  - name: documents\n    roots:\n      {text}\n");
        let problems = problems_of(&text);
        assert_eq!(sites(&problems), [site.replace("ROOT", root)], "{text}\n{}", lines(&problems));
        assert!(problems[0].message.contains(word), "{}", problems[0]);
    }
}

/// Each case: the items of `remotes` from line 6 on. Secrets in the wrong place must not be repeated.
#[test]
fn mistakes_in_a_remote_name_line_and_field_and_show_no_secret() {
    let remote = "repositories[0].remotes[0]";
    for (text, site, word) in [
        ("- name: usb", "6 REMOTE.url", "required"),
        ("- url: /nowhere/usb.git", "6 REMOTE.name", "required"),
        ("- {name: my usb, url: /nowhere/usb.git}", "6 REMOTE.name", "must not contain ' '"),
        ("- {name: usb, url: usb.git}", "6 REMOTE.url", "absolute"),
        ("- {name: usb, url: 'git@nas:x.git'}", "6 REMOTE.url", "ssh://user@host/path"),
        ("- {name: usb, url: 's3://bucket/x'}", "6 REMOTE.url", "file://, https://"),
        ("- {name: usb, url: 'https://bot:hunter2@nas/x'}", "6 REMOTE.url", "credentials.password_file"),
        ("- name: usb\n        url: \"/nowhere/a\\nb\"", "7 REMOTE.url", "control"),
        (
            "- name: usb\n        url: /nowhere/a\n        password: hunter2",
            "8 REMOTE.password",
            "unknown key",
        ),
        (
            "- name: usb\n        url: /nowhere/a\n        hunter: 2\n        ur: hunter2",
            "8 REMOTE.hunter",
            "unknown key",
        ),
    ] {
        let head =
            "version: 1\nrepositories:\n  - name: documents\n    roots: [{path: /nowhere/x}]\n    remotes:\n";
        let text = format!("{head}      {text}\n");
        let problems = problems_of(&text);
        assert_eq!(sites(&problems)[0], site.replace("REMOTE", remote), "{text}\n{}", lines(&problems));
        assert!(problems[0].message.contains(word), "{}", problems[0]);
        assert!(!lines(&problems).contains("hunter2"), "{}", lines(&problems));
    }
}

#[test]
fn what_must_be_there_is_asked_for() {
    for (text, site, word) in [
        ("", vec!["1 version", "1 repositories"], "required"),
        ("# nothing\n", vec!["1 version", "1 repositories"], "required"),
        ("version: 1\n", vec!["1 repositories"], "required"),
        ("version: 1\nrepositories:\n", vec!["2 repositories"], "required"),
        ("version: 1\nrepositories: []\n", vec!["2 repositories"], "no repository"),
        ("version: 1\nrepositories: {a: b}\n", vec!["2 repositories"], "expected a list"),
        ("version: 1\nrepositories:\n  - name: a\n", vec!["3 repositories[0].roots"], "required"),
        (
            "version: 1\nrepositories:\n  - name: a\n    roots: []\n",
            vec!["4 repositories[0].roots"],
            "without a root",
        ),
        (
            "version: 1\nrepositories:\n  - roots: [{path: /nowhere/a}]\n",
            vec!["3 repositories[0].name"],
            "required",
        ),
        ("- a\n", vec!["1 "], "found a list"),
        ("just text\n", vec!["1 "], "found text"),
    ] {
        let problems = problems_of(text);
        assert_eq!(sites(&problems), site, "{text:?}\n{}", lines(&problems));
        assert!(problems[0].message.contains(word), "{}", problems[0]);
    }
}

#[test]
fn another_version_of_the_format_is_named() {
    let problems = problems_of(&MINIMAL.replace("version: 1", "version: 2"));
    assert_eq!(sites(&problems), ["1 version"]);
    assert!(problems[0].message.contains("reads version 1"), "{}", problems[0]);
    assert_eq!(sites(&problems_of(&MINIMAL.replace("version: 1", "version: one"))), ["1 version"]);
}

#[test]
fn all_mistakes_of_a_file_are_reported_in_its_order() {
    let text = "\
version: 3
state_dir: state
limits: {max_roots: 0, max_rots: 4}
log: {level: loud}
repositories:
  - name: a/b
    batch: {files: none, bytes: 3 miles}
    roots:
      - path: data
        debounce: {quiet: 10}
      - path: /nowhere/b
        rescan: -1h
    remotes:
      - name: usb
  - name: second
    branch: 'a..b'
    roots: nothing
";
    let problems = problems_of(text);
    assert_eq!(
        sites(&problems),
        [
            "1 version",
            "2 state_dir",
            "3 limits.max_roots",
            "3 limits.max_rots",
            "4 log.level",
            "6 repositories[0].name",
            "7 repositories[0].batch.files",
            "7 repositories[0].batch.bytes",
            "9 repositories[0].roots[0].path",
            "10 repositories[0].roots[0].debounce.quiet",
            "12 repositories[0].roots[1].rescan",
            "14 repositories[0].remotes[0].url",
            "16 repositories[1].branch",
            "17 repositories[1].roots",
        ],
        "{}",
        lines(&problems)
    );
    assert!(problems[0].to_string().starts_with("c.yaml:1: version: "), "{}", problems[0]);
}

#[test]
fn toml_mistakes_have_lines_and_fields_too() {
    let text = "\
version = 1
limts = 3
[limits]
max_roots = \"ten\"
[[repositories]]
name = \"a\"
[[repositories.roots]]
path = \"data\"
[repositories.roots.debounce]
quiet = 10
[[repositories]]
name = \"b\"
";
    let problems = toml(text).unwrap_err();
    assert_eq!(
        sites(&problems),
        [
            "2 limts",
            "4 limits.max_roots",
            "8 repositories[0].roots[0].path",
            "10 repositories[0].roots[0].debounce.quiet",
            "11 repositories[1].roots",
        ],
        "{}",
        lines(&problems)
    );
}

#[test]
fn duplicate_keys_in_toml_are_reported_beside_other_mistakes() {
    let text = "\
version = 1
instance = \"a\"
instance = \"b\"
shutdown_grace = 3
[log]
level = \"info\"
[log]
format = \"json\"
[[repositories]]
name = \"a\"
roots = [{path = \"/nowhere/a\", path = \"/nowhere/b\"}]
";
    let problems = toml(text).unwrap_err();
    assert_eq!(
        sites(&problems),
        ["3 instance", "4 shutdown_grace", "7 log", "11 repositories[0].roots[0].path"],
        "{}",
        lines(&problems)
    );
    assert!(problems[0].message.contains("given twice"));
}

#[test]
fn sizes_durations_and_shares_are_read_exactly() {
    let text = format!(
        "{MINIMAL}    batch: {{bytes: 1024, after: 1h30m}}\n    retry: {{first: 500ms, factor: 1.5, max: 7d}}\n"
    );
    let text =
        text.replacen('\n', "\nalerts: {failure_rate: 25%, disk_free: 1.5KiB}\nshutdown_grace: 0s\n", 1);
    let config = config(&text);
    let repository = &config.repositories[0];
    assert_eq!(repository.batch.bytes, 1024);
    assert_eq!(repository.batch.after.as_secs(), 5400);
    assert_eq!(repository.retry.first.as_millis(), 500);
    assert_eq!(repository.retry.factor, 1.5);
    assert_eq!(repository.retry.max.as_secs(), 7 * 86_400);
    assert_eq!(config.alerts.failure_rate, 0.25);
    assert_eq!(config.alerts.disk_free, 1536);
    assert!(config.shutdown_grace.is_zero());
}
