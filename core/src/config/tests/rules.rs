//! Rules between sections: names, overlaps, loops, layers of defaults, and what is not built yet.

use std::os::unix::fs::symlink;
use std::time::Duration;

use super::*;
use crate::verify::Sample;

/// A configuration with these repositories, each `(roots, remotes)`; roots are in line 4, 7, …, remotes below.
fn with(repositories: &[(&[&str], &[&str])]) -> String {
    let mut text = "version: 1\nrepositories:\n".to_owned();
    for (index, (roots, remotes)) in repositories.iter().enumerate() {
        let roots: Vec<String> = roots.iter().map(|path| format!("{{path: {path}}}")).collect();
        let remotes: Vec<String> =
            remotes.iter().enumerate().map(|(n, url)| format!("{{name: r{n}, url: {url}}}")).collect();
        text.push_str(&format!(
            "  - name: repo{index}\n    roots: [{}]\n    remotes: [{}]\n",
            roots.join(", "),
            remotes.join(", ")
        ));
    }
    text
}

fn refused(text: &str, expected: &[(&str, &str)]) {
    let problems = yaml(text).map(|_| ()).expect_err(text);
    let wanted: Vec<&str> = expected.iter().map(|(site, _)| *site).collect();
    assert_eq!(sites(&problems), wanted, "{text}\n{}", lines(&problems));
    for (problem, (_, word)) in problems.iter().zip(expected) {
        assert!(problem.message.contains(word), "{problem}");
    }
}

#[test]
fn names_must_be_unique_where_they_are_used() {
    let roots = with(&[(&["/nowhere/a/x", "/nowhere/b/x"], &[])]);
    refused(&roots, &[("4 repositories[0].roots[1].path", "another root")]);
    refused(
        &MINIMAL.replace("]\n    rem", ", {name: folder1, path: /nowhere/b}]\n    rem"),
        &[("4 repositories[0].roots[1].name", "another root")],
    );
    let repositories = with(&[(&["/nowhere/a"], &[]), (&["/nowhere/b"], &[])]).replace("repo1", "repo0");
    refused(&repositories, &[("6 repositories[1].name", "c.yaml:3")]);
    let remotes = with(&[(&["/nowhere/a"], &["/nowhere/1", "/nowhere/2"])]).replace("r1", "r0");
    refused(&remotes, &[("5 repositories[0].remotes[1].name", "another remote")]);
    assert!(
        yaml(&with(&[(&["/nowhere/a/x"], &[]), (&["/nowhere/b/x"], &[])])).is_ok(),
        "in two repositories"
    );
}

#[test]
fn roots_must_not_overlap_in_any_repository() {
    for (first, second, word) in [
        ("/nowhere/a", "/nowhere/a/b", "is inside the root at c.yaml:4"),
        ("/nowhere/a/b", "/nowhere/a", "contains the root at c.yaml:4"),
        ("/nowhere/a/", "/nowhere//a/.", "is the same directory"),
        ("/nowhere/a", "/nowhere/x/../a", "is the same directory"),
    ] {
        refused(&with(&[(&[first], &[]), (&[second], &[])]), &[("7 repositories[1].roots[0].path", word)]);
    }
    assert!(
        yaml(&with(&[(&["/nowhere/a"], &[]), (&["/nowhere/ab"], &[])])).is_ok(),
        "a common prefix is no overlap"
    );
}

#[test]
fn overlaps_through_symbolic_links_are_found() {
    let dir = tempfile::tempdir().unwrap();
    let real = dir.path().canonicalize().unwrap().join("real");
    std::fs::create_dir_all(real.join("below")).unwrap();
    symlink(&real, real.with_file_name("link")).unwrap();
    let link = real.with_file_name("link");
    let text = with(&[(&[real.to_str().unwrap()], &[]), (&[link.join("below").to_str().unwrap()], &[])]);
    refused(&text, &[("7 repositories[1].roots[0].path", "is inside the root")]);
    let remote = link.join("not yet/made.git");
    let text = with(&[(&[real.to_str().unwrap()], &[remote.to_str().unwrap()])]);
    refused(&text, &[("5 repositories[0].remotes[0].url", "is inside a root")]);
}

#[test]
fn roots_state_and_local_remotes_keep_apart() {
    let root = "4 repositories[0].roots[0].path";
    refused(&with(&[(&["/nowhere/state/x"], &[])]), &[(root, "is inside the state directory")]);
    refused(&with(&[(&["/nowhere/state"], &[])]), &[(root, "is the same directory as the state directory")]);
    refused(&with(&[(&["/nowhere"], &[])]), &[(root, "contains the state directory")]);
    let remote = "5 repositories[0].remotes[0].url";
    refused(&with(&[(&["/nowhere/a"], &["/nowhere/a/r.git"])]), &[(remote, "is inside a root (c.yaml:4)")]);
    refused(&with(&[(&["/nowhere/a/r.git/b"], &["/nowhere/a/r.git"])]), &[(remote, "contains a root")]);
    refused(
        &with(&[(&["/nowhere/a"], &["file:///nowhere/%61"])]),
        &[(remote, "is the same directory as a root")],
    );
    refused(
        &with(&[(&["/nowhere/a"], &["/nowhere/state/repos/repo0.git"])]),
        &[(remote, "inside the state")],
    );
}

#[test]
fn a_root_that_is_the_whole_file_system_needs_a_name_and_other_places() {
    let problems = yaml(&with(&[(&["/"], &["/nowhere/r"])])).unwrap_err();
    assert!(lines(&problems).contains("give it a `name`"), "{}", lines(&problems));
    assert!(lines(&problems).contains("contains the state directory"));
}

#[test]
fn one_place_is_one_remote() {
    let twice = with(&[(&["/nowhere/a"], &["/nowhere/r.git", "file:///nowhere/r.git/"])]);
    refused(&twice, &[("5 repositories[0].remotes[1].url", "the same place")]);
    let fight = with(&[(&["/nowhere/a"], &["/nowhere/r"]), (&["/nowhere/b"], &["/nowhere/r"])]);
    refused(&fight, &[("8 repositories[1].remotes[0].url", "use another branch")]);
    let apart = fight.replace("  - name: repo1\n", "  - name: repo1\n    branch: other\n");
    assert!(yaml(&apart).is_ok());
}

#[test]
fn the_number_of_roots_is_limited_until_the_limit_is_raised() {
    let paths: Vec<String> = (0..12).map(|n| format!("/nowhere/r{n}")).collect();
    let paths: Vec<&str> = paths.iter().map(String::as_str).collect();
    let text = with(&[(&paths[..6], &[]), (&paths[6..], &[])]);
    refused(&text, &[("7 repositories[1].roots[4].path", "there are 12 roots, and limits.max_roots is 10")]);
    assert!(yaml(&text.replacen('\n', "\nlimits: {max_roots: 12}\n", 1)).is_ok());
    let raised = text.replacen('\n', "\nlimits: {max_roots: 11}\n", 1);
    refused(&raised, &[("8 repositories[1].roots[5].path", "limits.max_roots (c.yaml:2) is 11")]);
}

#[test]
fn defaults_are_combined_key_by_key_and_overridden() {
    let text = "\
version: 1
defaults:
  branch: '{instance}'
  batch: {files: 7, after: 3s}
  retry: {max: 1m}
  tags: {every: day}
repositories:
  - name: a
    roots: [{path: /nowhere/a}]
  - name: b
    branch: main
    batch: {bytes: 1MiB, files: 9}
    tags: {every:}
    roots: [{path: /nowhere/b}]
";
    let config = config(text);
    let [a, b] = &config.repositories[..] else { panic!() };
    assert_eq!(a.batch, Batch { files: 7, bytes: 256 << 20, after: Duration::from_secs(3) });
    assert_eq!(b.batch, Batch { files: 9, bytes: 1 << 20, after: Duration::from_secs(3) });
    assert_eq!((a.branch.as_str(), b.branch.as_str()), ("{instance}", "main"));
    assert_eq!((a.retry.max, b.retry.max), (Duration::from_secs(60), Duration::from_secs(60)));
    assert_eq!((a.tags.every, b.tags.every), (TagPeriod::Day, TagPeriod::Day), "null is not given");
}

#[test]
fn a_mistake_in_defaults_is_reported_once() {
    let text = with(&[(&["/nowhere/a"], &[]), (&["/nowhere/b"], &[])]);
    let text = text.replacen('\n', "\ndefaults: {batch: {files: 0}}\n", 1);
    refused(&text, &[("2 defaults.batch.files", "from 1")]);
}

#[test]
fn what_is_encrypted_and_where_its_keys_are_is_said_for_one_repository_or_for_all() {
    let encryption = |text: &str| config(text).repositories.remove(0).encryption;
    assert_eq!(encryption(MINIMAL), None);
    let shared = MINIMAL.replacen('\n', "\ndefaults: {encryption: {method: git-crypt, key_file: /k}}\n", 1);
    let found = encryption(&shared).unwrap();
    let (key_file, old_keys) = ("/k".into(), "/k.old".into());
    assert_eq!(found.method, EncryptionMethod::GitCrypt { key_file, old_keys, recipients: Vec::new() });
    assert!(found.paths.is_empty() && !found.accepts_clear_history);
    let off =
        encryption(&format!("{shared}    encryption: {{method: none, clear_history: accept}}\n")).unwrap();
    assert!(off.method == EncryptionMethod::None { old_keys: None } && off.accepts_clear_history);
    assert_eq!(encryption(&format!("{shared}    encryption: null\n")), None);
}

#[test]
fn the_key_of_a_host_that_only_writes_is_in_its_state_directory_unless_it_is_named() {
    let gpg = |text: &str| {
        let text = format!("{MINIMAL}    encryption: {{method: gpg, recipients: [/people]{text}}}\n");
        match config(&text).repositories.remove(0).encryption.unwrap().method {
            EncryptionMethod::Gpg(gpg) => gpg,
            other => panic!("{other:?}"),
        }
    };
    let own = gpg("");
    let name = config(MINIMAL).repositories.remove(0).name;
    let place = config(MINIMAL).state_dir.join("keys").join(name.as_str()).join("metadata.key");
    assert_eq!((own.key_file.as_path(), own.makes_key), (place.as_path(), true));
    assert_eq!(own.old_keys, default_old_keys(&place));
    assert_eq!((own.private_key, own.passphrase_file, own.agent), (None, None, false));
    let named = gpg(", key_file: /k, private_key: /p.asc, passphrase_file: /w, gpg_agent: true");
    assert_eq!((named.key_file, named.makes_key, named.agent), ("/k".into(), false, true));
    assert_eq!((named.private_key, named.passphrase_file), (Some("/p.asc".into()), Some("/w".into())));
}

#[test]
fn large_files_are_switched_on_for_one_repository_or_for_all() {
    let lfs = |text: &str| config(text).repositories.remove(0).lfs;
    assert_eq!(lfs(MINIMAL), None);
    assert_eq!(lfs(&format!("{MINIMAL}    lfs: {{}}\n")), Some(Lfs::default()));
    let shared = MINIMAL.replacen('\n', "\ndefaults: {lfs: {threshold: 1MiB, patterns: ['*.iso']}}\n", 1);
    let layered = lfs(&format!("{shared}    lfs: {{keep_local: 1d}}\n")).unwrap();
    assert_eq!((layered.threshold, layered.keep_local), (1 << 20, Duration::from_secs(86_400)));
    assert_eq!(layered.patterns, ["*.iso"]);
    assert_eq!(lfs(&format!("{shared}    lfs: null\n")), None);
}

#[test]
fn what_a_host_takes_counts_for_the_whole_repository() {
    let of = |provider: &str| {
        let text = MINIMAL
            .replace("/nowhere/usb.git", &format!("'https://a/b', provider: {provider}, quota: 10GiB"));
        config(&text)
    };
    assert_eq!(of("github").repositories[0].largest_blob(), Some((Provider::Github, 100 << 20)));
    assert_eq!(of("gitlab").repositories[0].largest_object(), None);
    assert_eq!(of("forgejo").repositories[0].largest_blob(), None);
    let change = |old: &str, new: &str| diff::Diff::between(&of(old), &of(new)).changed.remove(0).is_whole();
    assert!(change("forgejo", "github") && change("github", "gitlab"), "the roots have other limits");
    assert!(!change("forgejo", "gitea"));
}

#[test]
fn a_remote_is_given_only_what_its_way_can_use() {
    let with = |url: &str, more: &str| MINIMAL.replace("/nowhere/usb.git", &format!("'{url}', {more}"));
    let credentials = "5 repositories[0].remotes[0].credentials";
    for (url, more, site, words) in [
        ("/nowhere/usb.git", "credentials: {token_env: T}", credentials, "a local path needs no credentials"),
        ("/nowhere/usb.git", "proxy: 'http://a:1'", "5 repositories[0].remotes[0].proxy", "for http"),
        ("https://a/b", "credentials: {ssh_key_file: /k}", credentials, "for ssh"),
        ("https://a/b", "credentials: {password_env: A, token_env: B}", credentials, "one of them"),
        ("https://a/b", "credentials: {username: x}", credentials, "password"),
        ("ssh://g@a/b", "credentials: {password_env: A}", credentials, "ssh_key"),
        (
            "ssh://g@a/b",
            "lfs_url: 'https://l', credentials: {password_env: A, token_env: B}",
            credentials,
            "one of",
        ),
    ] {
        refused(&with(url, more), &[(site, words)]);
    }
    // An LFS server speaks HTTP, whatever leads to the repository.
    for (url, more) in [
        ("ssh://g@a/b", "ca_file: /ca, proxy: 'http://p:1'"),
        ("ssh://g@a/b", "lfs_url: 'https://l', credentials: {ssh_key_file: /k, token_env: T}"),
        ("/nowhere/usb.git", "lfs_url: 'https://l', ca_file: /ca, credentials: {token_env: T}"),
    ] {
        config(&with(url, more));
    }
    let config =
        config(&with("https://a/b", "credentials: {token_env: T}, timeouts: {stall: 5s}, bandwidth: 1MiB/s"));
    let remote = &config.repositories[0].remotes[0];
    assert_eq!(remote.timeouts.stall, Duration::from_secs(5));
    assert_eq!(remote.timeouts.answer, Duration::from_secs(600));
}

#[test]
fn not_asking_for_what_is_not_built_is_fine() {
    let text = "\
version: 1
log: {audit_file: null}
admin: {read_token_file: null, restore_dirs: []}
metrics: {listen: null}
alerts: {notify: []}
repositories:
  - name: a
    roots: [{path: /nowhere/a, one_file_system: false, backend: poll}]
    lfs: null
    encryption: null
    mass_change: {policy: off}
    remotes:
      - {name: r, url: /nowhere/r, credentials: null, quota: null, provider: null, region: Brno, lfs_url: null,
         bandwidth: null, ca_file: null, proxy: null}
";
    let config = config(text);
    assert_eq!(config.repositories[0].mass_change.policy, MassChangePolicy::Off);
    assert_eq!(config.repositories[0].remotes[0].region.as_deref(), Some("Brno"));
}

#[test]
fn verification_and_drills_are_wanted_unless_somebody_says_otherwise() {
    let of = |text: &str| {
        let repository = config(&format!("{MINIMAL}    {text}\n")).repositories.remove(0);
        (repository.verify, repository.drill)
    };
    let usual = (Some(Verify::default()), Some(Drill::default()));
    assert_eq!(of("verify: {}"), usual);
    for off in ["null", "off", "false", ""] {
        assert_eq!(of(&format!("verify: {off}")), (None, usual.1.clone()), "{off}");
        assert_eq!(of(&format!("drill: {off}")), (usual.0.clone(), None), "{off}");
    }
    let (verify, drill) = of("verify: {sample: 0.5, full_every: null}\n    drill: {sample: 100%, every: 1h}");
    let verify = verify.unwrap();
    assert_eq!((verify.sample, verify.full_every), (Sample::Share(500_000), None));
    assert_eq!(drill, Some(Drill { every: Duration::from_secs(3600), sample: Sample::Whole }));
    let layered = MINIMAL.replacen('\n', "\ndefaults: {verify: off, drill: {every: 2d}}\n", 1);
    let repository = config(&layered).repositories.remove(0);
    assert_eq!(
        (repository.verify, repository.drill.map(|it| it.every)),
        (None, Some(Duration::from_secs(172_800)))
    );
    let again = config(&format!("{layered}    verify: {{every: 2d}}\n")).repositories.remove(0);
    assert_eq!(again.verify, Some(Verify { every: Duration::from_secs(172_800), ..Verify::default() }));
}

#[test]
fn large_contents_are_scrubbed_unless_somebody_says_otherwise() {
    let of =
        |text: &str| config(&format!("{MINIMAL}    lfs: {text}\n")).repositories.remove(0).lfs.unwrap().scrub;
    assert_eq!(of("{}"), Some(Scrub::default()));
    assert_eq!(of("{scrub: null}"), None);
    let wanted = Scrub { every: Duration::from_secs(3600), read: Sample::Whole, read_at_most: 1 << 20 };
    assert_eq!(of("{scrub: {every: 1h, read: 100%, read_at_most: 1MiB}}"), Some(wanted));
}

#[test]
fn mistakes_within_sections_are_named() {
    for (text, field, word) in [
        ("lfs: {threshold: 0}", "lfs.threshold", "zero"),
        ("lfs: {threshold: 6GiB}", "lfs.threshold", "larger than max_object"),
        ("lfs: {warn_at: [80, 101]}", "lfs.warn_at[1]", "to 100"),
        ("lfs: {scrub: {read: 0%}}", "lfs.scrub.read", "above 0"),
        ("lfs: {scrub: {often: 1d}}", "lfs.scrub.often", "unknown key"),
        ("encryption: {method: rot13}", "encryption.method", "git-crypt, gpg"),
        ("encryption: {method: git-crypt}", "encryption.key_file", "required"),
        ("encryption: {method: gpg}", "encryption.recipients", "somebody who can read"),
        (
            "encryption: {method: gpg, recipients: [/p], passphrase_file: /w}",
            "encryption.passphrase_file",
            "private_key",
        ),
        (
            "encryption: {method: git-crypt, key_file: /k, gpg_agent: true}",
            "encryption.gpg_agent",
            "no meaning",
        ),
        ("encryption: {method: none, private_key: /p}", "encryption.private_key", "no meaning"),
        ("encryption: {method: none, key_file: /k}", "encryption.key_file", "no meaning"),
        ("encryption: {method: git-crypt, key_file: /k, paths: ['!a']}", "encryption.paths[0]", "`!`"),
        (
            "encryption: {method: git-crypt, key_file: /k, clear_history: yes}",
            "encryption.clear_history",
            "accept",
        ),
        ("mass_change: {share: 2}", "mass_change.share", "up to 1"),
    ] {
        let problems = yaml(&format!("{MINIMAL}    {text}\n")).unwrap_err();
        let wanted = format!("6 repositories[0].{field}");
        let found = problems.iter().zip(sites(&problems)).find(|(_, site)| *site == wanted);
        let (problem, _) = found.unwrap_or_else(|| panic!("{text}: {}", lines(&problems)));
        assert!(problem.message.contains(word), "{problem}");
    }
    for (text, field, word) in [
        ("password: hunter2", "credentials.password", "never stands in the configuration"),
        ("password_file: hunter2", "credentials.password_file", "absolute"),
        ("token_env: A, token_command: [b]", "credentials.token_command", "given twice"),
        ("token_command: []", "credentials.token_command", "the program and its arguments"),
    ] {
        let text = MINIMAL.replace("usb.git}", &format!("usb.git, credentials: {{{text}}}}}"));
        let problems = yaml(&text).unwrap_err();
        let wanted = format!("5 repositories[0].remotes[0].{field}");
        let found = problems.iter().zip(sites(&problems)).find(|(_, site)| *site == wanted);
        let (problem, _) = found.unwrap_or_else(|| panic!("{text}: {}", lines(&problems)));
        assert!(problem.message.contains(word), "{problem}");
        assert!(!lines(&problems).contains("hunter2"), "{}", lines(&problems));
    }
}

#[test]
fn what_is_odd_but_possible_is_a_warning() {
    let loaded =
        yaml(&with(&[(&["/nowhere/a"], &[])]).replacen('\n', "\nadmin: {listen: '0.0.0.0:7177'}\n", 1))
            .unwrap();
    assert_eq!(
        sites(&loaded.warnings),
        ["2 admin.listen", "6 repositories[0].remotes"],
        "{}",
        lines(&loaded.warnings)
    );
    assert!(loaded.warnings[1].message.contains("no backup"));
}
