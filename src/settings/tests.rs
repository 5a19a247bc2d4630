//! Which configuration counts, in a made-up world.

use super::*;
use crate::exit::Exit;
use std::ffi::OsString;
use std::fs;

struct Place {
    world: World,
    scratch: tempfile::TempDir,
}

fn place(variables: &[(&str, &str)]) -> Place {
    let scratch = tempfile::tempdir().unwrap();
    let current_dir = scratch.path().canonicalize().unwrap();
    let mut environment: BTreeMap<String, String> =
        variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    environment.entry("HOME".to_owned()).or_insert_with(|| current_dir.join("home").display().to_string());
    Place { world: World { environment, current_dir, is_root: false, host: "laptop".to_owned() }, scratch }
}

impl Place {
    fn path(&self, below: &str) -> PathBuf {
        self.scratch.path().canonicalize().unwrap().join(below)
    }

    fn directory(&self, below: &str) -> PathBuf {
        fs::create_dir_all(self.path(below)).unwrap();
        self.path(below)
    }

    fn configuration(&self, file: &str, root: &str) {
        let path = self.path(file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        let text =
            format!("version: 1\nrepositories: [{{name: {root}, roots: [{{path: /nowhere/{root}}}]}}]\n");
        fs::write(path, text).unwrap();
    }

    fn work(&self, line: &str) -> Result<Settings, Failure> {
        let arguments = line.split(' ').map(OsString::from);
        let invocation = cli::read(arguments, &self.world.environment).unwrap();
        match &invocation.cli.command {
            cli::Command::Run(target) => for_work(&self.world, &invocation, target),
            other => panic!("{other:?}"),
        }
    }
}

fn name(settings: &Settings) -> &str {
    settings.config.repositories[0].name.as_str()
}

#[test]
fn the_nearest_configuration_is_found_and_a_named_one_wins() {
    let place = place(&[]);
    let failure = place.work("backupbot run").unwrap_err();
    assert_eq!(failure.exit, Exit::Usage);
    assert!(
        failure.lines[0].contains("backupbot.yaml") && failure.lines[0].contains("--watch"),
        "{failure:?}"
    );

    place.configuration("home/.config/backupbot/config.yaml", "home");
    assert_eq!(name(&place.work("backupbot run").unwrap()), "home");
    place.configuration("backupbot.yaml", "here");
    assert_eq!(name(&place.work("backupbot run").unwrap()), "here");
    place.configuration("other.yaml", "named");
    assert_eq!(name(&place.work("backupbot run --config other.yaml").unwrap()), "named");
}

#[test]
fn what_is_typed_wins_over_the_environment_and_equals_contradict_each_other() {
    let place = place(&[("BACKUPBOT_CONFIG", "other.yaml")]);
    place.configuration("other.yaml", "named");
    place.directory("data");
    assert_eq!(name(&place.work("backupbot run").unwrap()), "named");
    assert_eq!(name(&place.work("backupbot run --watch data").unwrap()), "data");
    let failure = place.work("backupbot run --watch data --config other.yaml").unwrap_err();
    assert_eq!(failure.exit, Exit::Usage);
    assert!(failure.lines[0].contains("--watch and --config"), "{failure:?}");
    let failure = place.work("backupbot run --remote /x").unwrap_err();
    assert!(failure.lines[0].contains("--remote needs --watch"), "{failure:?}");
}

#[test]
fn two_variables_that_contradict_each_other_are_named() {
    let place = place(&[("BACKUPBOT_CONFIG", "c.yaml"), ("BACKUPBOT_WATCH", "data")]);
    let failure = place.work("backupbot run").unwrap_err();
    assert!(failure.lines[0].contains("BACKUPBOT_WATCH and BACKUPBOT_CONFIG"), "{failure:?}");
    place.configuration("typed.yaml", "typed");
    assert_eq!(name(&place.work("backupbot run --config typed.yaml").unwrap()), "typed");
}

#[test]
fn relative_paths_are_made_absolute_and_what_is_watched_must_exist() {
    let place = place(&[]);
    place.directory("data/inner");
    let settings =
        place.work("backupbot run --watch ./data/inner --remote ../r/x.git --remote y.git").unwrap();
    let Origin::Flags(flags) = &settings.origin else { panic!("{settings:?}") };
    assert_eq!(flags.watch, [place.path("data/inner")]);
    let beside = place.path("").parent().unwrap().join("r/x.git");
    assert_eq!(flags.remotes, [beside.display().to_string(), place.path("y.git").display().to_string()]);

    for wrong in ["missing", "file"] {
        fs::write(place.path("file"), "").unwrap();
        let failure = place.work(&format!("backupbot run --watch {wrong}")).unwrap_err();
        assert_eq!(failure.exit, Exit::Usage, "{wrong}");
        assert!(failure.lines[0].contains(wrong), "{failure:?}");
    }
}

#[test]
fn addresses_that_are_no_relative_path_stay_as_they_are() {
    let world = place(&[]).world;
    for address in ["https://host/x.git", "file:///x.git", "git@host:x.git", "~/x.git"] {
        assert_eq!(world.absolute_remote(address), address);
    }
}

#[test]
fn the_state_has_a_default_place_and_without_one_it_is_asked_for() {
    let place = place(&[]);
    place.directory("data");
    let settings = place.work("backupbot run --watch data").unwrap();
    assert_eq!(settings.config.state_dir, place.path("home/.local/state/backupbot"));
    let settings = place.work("backupbot run --watch data --state-dir state").unwrap();
    assert_eq!(settings.config.state_dir, place.path("state"));

    let mut homeless = place;
    homeless.world.environment.insert("HOME".to_owned(), String::new());
    let failure = homeless.work("backupbot run --watch data").unwrap_err();
    assert_eq!(failure.exit, Exit::Usage);
    assert!(failure.lines[0].contains("--state-dir"), "{failure:?}");
    assert!(homeless.work("backupbot run --watch data --state-dir state").is_ok());
    assert_eq!(for_asking(&homeless.world, &Global::default()).unwrap_err().exit, Exit::Usage);
    homeless.world.is_root = true;
    assert!(for_asking(&homeless.world, &Global::default()).is_ok());
}

#[test]
fn a_host_name_becomes_a_legal_part_of_a_branch() {
    let names = [
        ("laptop", "laptop"),
        ("host.example.org", "host.example.org"),
        ("my host~1", "my-host-1"),
        ("..", "host"),
        ("", "host"),
        ("a..b", "a-b"),
        (".hidden.", "hidden"),
        ("x.lock", "x"),
        ("žluť", "-lu"),
    ];
    for (host, instance) in names {
        let world = World { host: host.to_owned(), ..place(&[]).world };
        assert_eq!(world.default_instance(), instance.trim_matches('-'), "{host:?}");
        let context = world.context(&Global { state_dir: Some("/s".into()), ..Global::default() });
        assert!(config::from_flags(&["/nowhere/a".into()], &[], &context).is_ok(), "{host:?}");
    }
}

#[test]
fn a_run_by_flags_is_remembered_for_whoever_asks_later_and_a_run_by_file_forgets_it() {
    let place = place(&[]);
    place.directory("data");
    let state = place.directory("home/.local/state/backupbot");
    place.work("backupbot run --watch data --remote x.git").unwrap().remember().unwrap();

    let global = Global::default();
    let asking = for_asking(&place.world, &global).unwrap();
    assert_eq!(asking.state_dir, state);
    let settings = asking.configuration().unwrap().unwrap();
    assert_eq!((name(&settings), settings.config.repositories[0].remotes.len()), ("data", 1));

    place.configuration("backupbot.yaml", "here");
    place.work("backupbot run").unwrap().remember().unwrap();
    let settings = for_asking(&place.world, &global).unwrap().configuration().unwrap().unwrap();
    assert_eq!(name(&settings), "here");
}
