//! Where a configuration comes from beside its text: files, environment, flags.

use std::path::PathBuf;

use super::*;

fn with_environment(variables: &[(&str, &str)]) -> Context {
    let environment =
        variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    Context { environment, ..context() }
}

fn in_environment(variables: &[(&str, &str)]) -> Result<Loaded, Vec<Problem>> {
    let text = MINIMAL.replacen('\n', "\nidentity: {name: File}\nlog:\n", 1);
    parse(text.as_bytes(), Format::Yaml, "c.yaml", &with_environment(variables))
}

#[test]
fn the_environment_wins_over_the_file_and_fills_sections() {
    let loaded = in_environment(&[
        ("BACKUPBOT_IDENTITY_NAME", "Environment"),
        ("BACKUPBOT_LOG_LEVEL", "debug"),
        ("BACKUPBOT_LIMITS_MAX_ROOTS", "3"),
        ("BACKUPBOT_ADMIN_LISTEN", "127.0.0.1:0"),
        ("BACKUPBOT_STATE_DIR", "/nowhere/other"),
        ("BACKUPBOT_INSTANCE", "42"),
        ("BACKUPBOT_SHUTDOWN_GRACE", ""),
        ("HOME", "/root"),
    ])
    .unwrap_or_else(|problems| panic!("{}", lines(&problems)));
    assert_eq!(loaded.config.identity.name, "Environment");
    assert_eq!(loaded.config.log.level, LogLevel::Debug);
    assert_eq!(loaded.config.limits.max_roots, 3);
    assert_eq!(loaded.config.admin.listen.port(), 0);
    assert_eq!(loaded.config.state_dir, PathBuf::from("/nowhere/other"));
    assert_eq!(loaded.config.instance, "42");
    assert_eq!(loaded.config.shutdown_grace.as_secs(), 30, "an empty variable is not set");
    assert_eq!(loaded.warnings, []);
}

#[test]
fn every_variable_is_read_and_its_mistakes_name_it() {
    let variables = [
        "STATE_DIR",
        "INSTANCE",
        "IDENTITY_NAME",
        "IDENTITY_EMAIL",
        "LIMITS_MAX_ROOTS",
        "LIMITS_REPOSITORY_SIZE",
        "SHUTDOWN_GRACE",
        "LOG_LEVEL",
        "LOG_FORMAT",
        "LOG_FILE",
        "LOG_AUDIT_FILE",
        "ADMIN_LISTEN",
        "ADMIN_TOKEN_FILE",
        "ADMIN_READ_TOKEN_FILE",
        "METRICS_LISTEN",
        "ALERTS_STALE_AFTER",
        "ALERTS_FAILURE_RATE",
        "ALERTS_BACKLOG",
        "ALERTS_DISK_FREE",
    ];
    for variable in variables {
        let variable = format!("BACKUPBOT_{variable}");
        let problems = in_environment(&[(&variable, "\u{1}")]).expect_err(&variable);
        assert!(
            problems.iter().all(|problem| problem.place == format!("environment {variable}")),
            "{}",
            lines(&problems)
        );
    }
    let loaded = in_environment(&[("BACKUPBOT_ADMIN_READ_TOKEN_FILE", "/nowhere/token")]).unwrap();
    assert_eq!(loaded.config.admin.read_token_file.as_deref(), Some("/nowhere/token".as_ref()));
}

#[test]
fn a_section_of_the_wrong_kind_is_reported_and_not_repaired_by_the_environment() {
    let text = MINIMAL.replacen('\n', "\nlog: loud\n", 1);
    let context = with_environment(&[("BACKUPBOT_LOG_LEVEL", "info")]);
    let problems = parse(text.as_bytes(), Format::Yaml, "c.yaml", &context).unwrap_err();
    assert_eq!(sites(&problems), ["2 log"]);
}

#[test]
fn unknown_variables_of_ours_are_warnings() {
    let loaded = in_environment(&[
        ("BACKUPBOT_CONFIG", "x"),
        ("BACKUPBOT_LOG_LEVL", "info"),
        ("OTHER", "x"),
        ("BACKUPBOT_Q", ""),
    ])
    .unwrap();
    let warnings = lines(&loaded.warnings);
    assert_eq!(loaded.warnings.len(), 2, "{warnings}");
    assert!(warnings.contains("environment BACKUPBOT_LOG_LEVL: "), "{warnings}");
    assert!(warnings.contains("did you mean BACKUPBOT_LOG_LEVEL?"), "{warnings}");
}

#[test]
fn the_state_dir_flag_wins_over_everything() {
    let mut context = with_environment(&[("BACKUPBOT_STATE_DIR", "/nowhere/environment")]);
    context.state_dir_flag = Some("/nowhere/flag/".into());
    let loaded = parse(MINIMAL.as_bytes(), Format::Yaml, "c.yaml", &context).unwrap();
    assert_eq!(loaded.config.state_dir, PathBuf::from("/nowhere/flag"));
    context.state_dir_flag = Some("flag".into());
    let problems = parse(MINIMAL.as_bytes(), Format::Yaml, "c.yaml", &context).unwrap_err();
    assert_eq!(problems[0].place, "--state-dir");
}

#[test]
fn a_host_name_that_cannot_be_an_instance_asks_for_one() {
    let context = Context { default_instance: "my host".to_owned(), ..context() };
    let problems = parse(MINIMAL.as_bytes(), Format::Yaml, "c.yaml", &context).unwrap_err();
    assert_eq!(sites(&problems), ["1 instance"]);
    assert!(problems[0].message.contains("set `instance`"), "{}", problems[0]);
}

#[test]
fn the_ending_of_a_file_says_its_format() {
    let dir = tempfile::tempdir().unwrap();
    let yaml_file = dir.path().join("a.YML");
    std::fs::write(&yaml_file, MINIMAL).unwrap();
    assert_eq!(load(&yaml_file, &context()).unwrap().config, config(MINIMAL));

    let toml_file = dir.path().join("a.toml");
    std::fs::write(&toml_file, "version = 1\nrepositories = 3\n").unwrap();
    let problems = load(&toml_file, &context()).unwrap_err();
    assert_eq!(problems[0].place, format!("{}:2", toml_file.display()));

    for (name, word) in [("a.conf", "must end in"), ("missing.yaml", "cannot read"), ("", "must end in")] {
        let problems = load(&dir.path().join(name), &context()).unwrap_err();
        assert!(problems[0].message.contains(word), "{}", problems[0]);
    }
    std::fs::write(&yaml_file, vec![b'#'; 2 << 20]).unwrap();
    assert!(load(&yaml_file, &context()).unwrap_err()[0].message.contains("larger than"));
}

fn paths(paths: &[&str]) -> Vec<PathBuf> {
    paths.iter().map(PathBuf::from).collect()
}

fn remotes(remotes: &[&str]) -> Vec<String> {
    remotes.iter().map(|remote| (*remote).to_owned()).collect()
}

#[test]
fn flags_make_one_repository_named_after_the_first_directory() {
    let watch = paths(&["/nowhere/My Files", "/nowhere/music/"]);
    let urls = remotes(&["/nowhere/usb/documents.git", "file:///nowhere/nas/documents.git", "/nowhere/ž ž"]);
    let loaded =
        from_flags(&watch, &urls, &context()).unwrap_or_else(|problems| panic!("{}", lines(&problems)));
    let [repository] = &loaded.config.repositories[..] else { panic!() };
    assert_eq!(repository.name.as_str(), "My Files");
    let roots: Vec<_> =
        repository.roots.iter().map(|root| (root.name.as_str(), root.path.to_str().unwrap())).collect();
    assert_eq!(roots, [("My Files", "/nowhere/My Files"), ("music", "/nowhere/music")]);
    let names: Vec<_> = repository.remotes.iter().map(|remote| remote.name.as_str()).collect();
    assert_eq!(names, ["documents", "documents-2", "backup"]);
    assert_eq!(loaded.warnings, []);
    assert_eq!(repository.batch, Batch::default());

    let again = from_flags(&watch, &urls, &context()).unwrap();
    assert_eq!(again.config.checksum, loaded.config.checksum);
    let other = from_flags(&watch, &urls[..1], &context()).unwrap();
    assert_ne!(other.config.checksum, loaded.config.checksum);
}

#[test]
fn a_directory_whose_name_is_no_repository_name_gets_one_like_it() {
    for (path, name) in [("/nowhere/a+b", "a-b"), ("/nowhere/x/../y", "y"), ("/nowhere/a.lock", "backup")] {
        let loaded = from_flags(&paths(&[path]), &[], &context());
        match loaded {
            Ok(loaded) => assert_eq!(loaded.config.repositories[0].name.as_str(), name),
            Err(problems) => assert!(path.ends_with(".lock"), "{}", lines(&problems)),
        }
    }
}

#[test]
fn mistakes_in_flags_name_the_flag() {
    let problems = from_flags(&paths(&["/nowhere/a/x", "/nowhere/b/x"]), &[], &context()).unwrap_err();
    assert_eq!(problems.len(), 1);
    assert_eq!(problems[0].place, "--watch /nowhere/b/x");
    assert!(problems[0].message.contains("another root of this repository has this name"), "{}", problems[0]);

    let problems =
        from_flags(&paths(&["relative"]), &remotes(&["https://a:hunter2@b/c"]), &context()).unwrap_err();
    assert_eq!(problems[0].place, "--remote (number 1)");
    assert_eq!(problems[1].place, "--watch relative");
    assert!(!lines(&problems).contains("hunter2"), "{}", lines(&problems));

    let problems = from_flags(&[], &[], &context()).unwrap_err();
    assert_eq!(problems[0].place, "command line");
    let problems = from_flags(&paths(&["/nowhere/.hidden"]), &[], &context()).unwrap_err();
    assert!(problems[0].message.contains("in the configuration file"), "{}", problems[0]);
}
