//! Both formats give the same model, the example is the defaults, and hostile text is refused quickly.

use std::time::{Duration, Instant};

use proptest::prelude::*;

use super::*;
use crate::verify::Sample;

const EXAMPLE: &str = include_str!("../../../../config.example.yaml");

fn defaults() -> Config {
    let root = Root {
        name: crate::names::RootName::new("folder1").unwrap(),
        path: "/data/folder1".into(),
        ignore: vec![],
        ignore_files: vec![".backupbotignore".to_owned()],
        system_excludes: true,
        one_file_system: false,
        debounce: Debounce { quiet: Duration::from_secs(10), max: Duration::from_secs(30) },
        rescan: Duration::from_secs(3600),
        backend: BackendChoice::Auto,
    };
    let remote = Remote {
        name: crate::names::RemoteName::new("usb").unwrap(),
        url: RemoteUrl::Local("/mnt/usb/documents.git".into()),
        credentials: None,
        quota: None,
        provider: None,
        region: None,
        lfs_url: None,
        bandwidth: None,
        ca_file: None,
        proxy: None,
        timeouts: Timeouts::default(),
    };
    let day = Duration::from_secs(86_400);
    Config {
        state_dir: "/var/lib/backupbot".into(),
        instance: "laptop".to_owned(),
        identity: Identity { name: "BackupBot".to_owned(), email: "backupbot@localhost".to_owned() },
        limits: Limits { max_roots: 10, repository_size: 50 << 30 },
        shutdown_grace: Duration::from_secs(30),
        log: LogConfig { level: LogLevel::Info, format: LogFormat::Auto, file: None, audit_file: None },
        admin: Admin {
            listen: "127.0.0.1:7177".parse().unwrap(),
            token_file: None,
            read_token_file: None,
            allowed_hosts: vec![],
            restore_dirs: vec![],
        },
        metrics: Metrics { listen: None },
        alerts: Alerts {
            stale_after: Duration::from_secs(6 * 3600),
            failure_rate: 0.5,
            backlog: 10_000,
            disk_free: 1 << 30,
            notify: vec![],
        },
        repositories: vec![Repository {
            name: crate::names::RepositoryName::new("documents").unwrap(),
            branch: BranchTemplate::parse("main", "laptop").unwrap(),
            tags: Tags { every: TagPeriod::None, name: "backup-%Y-%m-%d".to_owned() },
            roots: vec![root],
            batch: Batch { files: 500, bytes: 256 << 20, after: Duration::from_secs(10) },
            mass_change: MassChange {
                share: 0.5,
                window: Duration::from_secs(3600),
                min_files: 100,
                policy: MassChangePolicy::Quarantine,
            },
            verify: Some(Verify { sample: Sample::Share(10_000), every: day, full_every: Some(30 * day) }),
            drill: Some(Drill { every: 7 * day, sample: Sample::Share(10_000) }),
            retry: Retry { first: Duration::from_secs(1), factor: 2.0, max: Duration::from_secs(300) },
            lfs: None,
            encryption: None,
            remotes: vec![remote],
        }],
        checksum: blake3::hash(EXAMPLE.as_bytes()).to_hex().to_string(),
    }
}

#[test]
fn the_example_file_is_the_documented_defaults() {
    let loaded = yaml(EXAMPLE).unwrap_or_else(|problems| panic!("{}", lines(&problems)));
    assert_eq!(loaded.config, defaults());
    assert_eq!(loaded.warnings, []);
}

#[test]
fn leaving_everything_out_is_the_same_as_the_example() {
    let short = "\
version: 1
state_dir: /var/lib/backupbot
repositories:
  - {name: documents, roots: [{path: /data/folder1}], remotes: [{name: usb, url: /mnt/usb/documents.git}]}
";
    let expected = Config { checksum: blake3::hash(short.as_bytes()).to_hex().to_string(), ..defaults() };
    assert_eq!(config(short), expected);
}

#[test]
fn a_toml_twin_gives_the_same_model() {
    let twin = r#"
version = 1
state_dir = "/var/lib/backupbot"
shutdown_grace = "30s"
[identity]
name = "BackupBot"
email = "backupbot@localhost"
[limits]
max_roots = 0xA
repository_size = "50GiB"
[log]
level = "info"
[alerts]
failure_rate = 0.5
backlog = 10_000
[defaults.batch]
files = 500
[[repositories]]
name = "documents"
retry = { first = "1s", factor = 2, max = "5m" }
[[repositories.roots]]
path = "/data/folder1"
ignore_files = [".backupbotignore"]
system_excludes = true
debounce.quiet = "10s"
[[repositories.remotes]]
name = "usb"
url = "file:///mnt/usb/documents.git"
"#;
    let loaded = toml(twin).unwrap_or_else(|problems| panic!("{}", lines(&problems)));
    assert_eq!(loaded.config, Config { checksum: loaded.config.checksum.clone(), ..defaults() });
}

#[test]
fn every_key_that_the_example_leaves_out_is_known() {
    let uncommented: String = EXAMPLE
        .lines()
        .filter(|line| *line != "  listen: null                       # null: /metrics on the admin address")
        .map(|line| {
            let indent = line.len() - line.trim_start().len();
            match line.trim_start().strip_prefix('#') {
                Some(rest) if !rest.starts_with(' ') => format!("{}{rest}\n", &line[..indent]),
                _ => format!("{line}\n"),
            }
        })
        .collect();
    // A list item's keys stand two deeper than its dash, also where the dash was commented out.
    let loaded = yaml(&uncommented).unwrap_or_else(|problems| panic!("{}", lines(&problems)));
    assert!(loaded.config.repositories[0].encryption.is_some());
}

#[test]
fn anchors_are_followed_and_multiplying_them_is_refused() {
    let shared = "\
version: 1
repositories:
  - name: a
    roots: [{path: /nowhere/a, ignore: &junk ['*.tmp', '*.bak']}]
  - name: b
    roots: [{path: /nowhere/b, ignore: *junk}]
";
    assert_eq!(config(shared).repositories[1].roots[0].ignore, ["*.tmp", "*.bak"]);

    let mut bomb = "version: 1\na0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
    for level in 1..20 {
        let items = vec![format!("*a{}", level - 1); 10].join(", ");
        bomb.push_str(&format!("a{level}: &a{level} [{items}]\n"));
    }
    let started = Instant::now();
    let problems = yaml(&bomb).unwrap_err();
    assert!(problems[0].message.contains("aliases multiply"), "{}", lines(&problems));
    assert!(started.elapsed() < Duration::from_secs(5));

    let long = "y".repeat(500_000);
    let problems = yaml(&format!("a: &a {long}\nb: [*a, *a, *a, *a, *a, *a, *a, *a, *a]\n")).unwrap_err();
    assert!(problems[0].message.contains("aliases multiply"), "text counts, not only values");
}

#[test]
fn two_mebibytes_are_refused_before_they_are_parsed() {
    let text = "#".repeat(2 << 20);
    for format in [Format::Yaml, Format::Toml] {
        let problems = parse(text.as_bytes(), format, "c", &context()).unwrap_err();
        assert_eq!(problems.len(), 1);
        assert!(problems[0].message.contains("larger than 1048576 bytes"), "{}", problems[0]);
        assert_eq!(problems[0].place, "c");
    }
}

#[test]
fn text_that_is_no_configuration_is_refused_with_its_line() {
    for (text, line, word) in [
        (&b"version: 1\nname: \xff\n"[..], 2, "UTF-8"),
        (b"version: 1\n---\nversion: 1\n", 2, "second document"),
        (b"version: 1\nlimits: }\n", 2, ""),
        (b"version: 1\nidentity: {name: x\n", 2, ""),
        (b"version: 1\nidentity: !secret x\n", 2, "tags"),
        (b"version: 1\n? [a, b]\n: c\n", 2, "a key must be text"),
        (b"version: 1\nlog: &x {level: *x}\n", 2, "inside the value"),
        (b"version: 1\nlog: *nowhere\n", 2, ""),
    ] {
        let problems = parse(text, Format::Yaml, "c.yaml", &context()).unwrap_err();
        assert_eq!(problems.len(), 1, "{}", lines(&problems));
        assert_eq!(problems[0].place, format!("c.yaml:{line}"), "{}", problems[0]);
        assert!(problems[0].message.contains(word), "{}", problems[0]);
    }
    let problems = toml("version = 1\nstate_dir = /var\n").unwrap_err();
    assert_eq!(problems[0].place, "c.toml:2");
    let problems = toml("version = 1\nx = \"a\nb\"\n").unwrap_err();
    assert_eq!(problems[0].place, "c.toml:2");
}

#[test]
fn deep_nesting_is_refused_in_both_formats() {
    for text in ["[".repeat(100_000), "a: ".repeat(3) + &"[".repeat(300) + &"]".repeat(300)] {
        assert!(yaml(&text).is_err());
    }
    let block: String = (0..300).map(|depth| format!("{}a:\n", " ".repeat(depth))).collect();
    assert!(yaml(&block).is_err());
    assert!(toml(&format!("a = {}{}", "[".repeat(100_000), "]".repeat(100_000))).is_err());
    assert!(toml(&format!("{}a = 1", "a.".repeat(10_000))).is_err());
}

#[test]
fn many_wrong_keys_are_all_reported_in_little_time() {
    let text: String = (0..50_000).map(|n| format!("k{n}: 1\n")).collect();
    let started = Instant::now();
    assert!(yaml(&text).unwrap_err().len() > 50_000);
    assert!(started.elapsed() < Duration::from_secs(20));
}

fn mutated(edits: &[(usize, u8, u8)], text: &str) -> Vec<u8> {
    let mut bytes = text.as_bytes().to_vec();
    for (at, kind, byte) in edits {
        let at = at % bytes.len();
        match kind % 4 {
            0 => bytes[at] = *byte,
            1 => bytes.insert(at, *byte),
            2 => {
                bytes.remove(at);
            }
            _ => {
                let end = (at + usize::from(*byte)).min(bytes.len());
                let piece = bytes[at..end].to_vec();
                bytes.extend_from_slice(&piece);
            }
        }
    }
    bytes
}

const TOML_SEED: &str = "version = 1\n[limits]\nmax_roots = 3\n[[repositories]]\nname = \"a\"\nbatch.files = 1\n\
    [[repositories.roots]]\npath = '/a'\nignore = [\"*.x\"]\ndebounce = {quiet = \"1s\"}\n";

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn random_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        for format in [Format::Yaml, Format::Toml] {
            let _ = parse(&bytes, format, "c", &context());
        }
    }

    #[test]
    fn random_text_of_syntax_never_panics(text in "[a-c:\\[\\]{}\"'#&*!|>%@,=.?~0-9\\- \n\t]{0,200}") {
        for format in [Format::Yaml, Format::Toml] {
            let _ = parse(text.as_bytes(), format, "c", &context());
        }
    }

    #[test]
    fn random_changes_of_a_good_file_never_panic(edits in proptest::collection::vec(any::<(usize, u8, u8)>(), 1..20)) {
        let _ = parse(&mutated(&edits, EXAMPLE), Format::Yaml, "c", &context());
        let _ = parse(&mutated(&edits, TOML_SEED), Format::Toml, "c", &context());
    }
}
