//! The way back without BackupBot: a configuration becomes the commands that a person with git and python3 needs.
//!
//! ```text
//! configuration ─▶ [steps] ─▶ text (what is about to happen) + command ─▶ a POSIX shell script, or a list
//! ```
//!
//! In goes what is configured, out come steps in the order in which they are run. Nothing is read but where a
//! secret is, never what it is. [`remote`] writes the clone of one remote, [`shell`] quotes. git-lfs is a step of
//! [`of_repository`] between the clone and the checkout, for repositories that have large files, and so is the key of an
//! encrypted one ([`decrypting`]). Git takes one filter for a file: what git-lfs brings is decrypted by the program at the end.

mod decrypting;
mod remote;
mod shell;

use std::path::PathBuf;

use serde::Serialize;

use shell::{comment, quoted};

/// Undoes names and brings metadata back; run by itself, it needs nothing but Python.
const PUT_BACK: &str = include_str!("recipe/put_back.py");
/// Ends the program above within the script; no line of it is this.
const PUT_BACK_END: &str = "END_OF_PYTHON";

/// One repository, as far as getting it back is concerned.
#[derive(Debug, Clone)]
pub struct Source {
    /// Its name, which becomes a directory.
    pub name: String,
    /// The roots that are watched now.
    pub roots: Vec<String>,
    /// The branch, in full.
    pub branch: String,
    /// Whether the branch's name depends on the date.
    pub is_dated: bool,
    /// Whether there are files that Git has only pointers to.
    pub has_large: bool,
    /// Where the key is, if it is encrypted.
    pub key: Option<PathBuf>,
    /// Whether contents are OpenPGP messages.
    pub is_open_pgp: bool,
    /// From where, the first choice first.
    pub places: Vec<Place>,
}

/// A repository that can be cloned.
#[derive(Debug, Clone)]
pub enum Place {
    /// A remote, and the keys of SSH servers that are trusted where it names no file of them itself.
    Remote(Box<backupbot_core::config::Remote>, PathBuf),
    /// The repository in the state directory, where there is no remote.
    State(PathBuf),
}

/// One thing to do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Step {
    /// Whose; absent: of all.
    pub repository: Option<String>,
    /// A short name that does not change.
    pub step: &'static str,
    /// What it is for.
    pub text: Vec<String>,
    /// What to type, as it is.
    pub command: String,
    /// Whether it is one to choose instead of the others: switched off in the script.
    pub optional: bool,
}

/// Everything that has to be done, in order.
pub fn steps(sources: &[Source]) -> Vec<Step> {
    let mut steps: Vec<Step> = sources.iter().flat_map(of_repository).collect();
    let directories: Vec<String> = sources.iter().map(decrypting::argument).collect();
    steps.push(Step {
        repository: None,
        step: "program",
        text: lines(
            "Names that Git refuses are stored with _bb_ before them, and what Git does not keep stands in .backupbot/meta.\n\
             This program puts both back.",
        ),
        command: format!("cat > put_back.py <<'{PUT_BACK_END}'\n{PUT_BACK}{PUT_BACK_END}"),
        optional: false,
    });
    steps.push(Step {
        repository: None,
        step: "put_back",
        text: lines(
            "Names, empty directories, hard links, attributes, modes and times; as root owners too. With --names-only after\n\
             put_back.py only the names. It says what it cannot do, and ends with 1 then.",
        ),
        command: format!("python3 -I put_back.py {}", directories.join(" ")),
        optional: false,
    });
    steps
}

fn of_repository(source: &Source) -> Vec<Step> {
    let name = source.name.as_str();
    let (history, directory) = (quoted(&format!("{name}.git")), quoted(name));
    let git = format!("git --git-dir={history}");
    let root = source.roots.first().map_or("ROOT", String::as_str);
    let step = |step: &'static str, text: &str, command: String, optional: bool| Step {
        repository: Some(name.to_owned()),
        step,
        text: lines(text),
        command,
        optional,
    };
    let short = source.branch.strip_prefix("refs/heads/");
    let branch_text = match source.is_dated {
        true => {
            "The branch. Its name holds a date: `git ls-remote` and the address show whether there is a later one."
        }
        false => "The branch.",
    };
    let places: Vec<String> =
        source.places.iter().map(|place| clone_from(place, &history, short.is_some())).collect();
    let alternatives = if places.len() > 1 {
        ", from the first of these places that answers. One that was away or halted may be behind: put another first\n\
         then"
    } else {
        ""
    };
    // A clone that fails leaves nothing; a fetch leaves the repository that it was to fill.
    let is_here = match short {
        Some(_) => format!("test -d {history}"),
        None => format!("{git} cat-file -e \"$branch\" 2>/dev/null"),
    };
    let fetching: Vec<String> = source.places.iter().map(|place| fetch_large_from(place, &history)).collect();
    let large = step(
        "large_files",
        "Large files: Git has a pointer to each, git-lfs gets the files themselves, from where the clone came from. One that it\n\
         cannot get stays a pointer, and is named.",
        format!(
            "{git} lfs install --local --skip-repo >/dev/null\n{git} config lfs.skipdownloaderrors true\n\
             case \"$({git} config remote.origin.url)\" in\n{}\nesac ||\n    \
             echo 'not all large files could be had: see above' >&2",
            fetching.join("\n")
        ),
        false,
    );
    let decrypted = match (&source.key, source.is_open_pgp) {
        (None, _) => "",
        (Some(_), false) => decrypting::IN_PLACE,
        (Some(_), true) => decrypting::MESSAGE_IN_PLACE,
    };
    let (one_file_text, one_file) = match source.has_large {
        true => (
            "One file of it, by its name in that list; a name in quotes there is one with escapes for special characters.\n\
             git-lfs lets through what is no pointer.",
            format!(
                "{git} cat-file blob \"$state\":{} | {git} lfs smudge > restored-file{decrypted}",
                quoted(&format!("{root}/PATH"))
            ),
        ),
        false => (
            "One file of it, by its name in that list; a name in quotes there is one with escapes for special characters.",
            format!(
                "{git} cat-file blob \"$state\":{} > restored-file{decrypted}",
                quoted(&format!("{root}/PATH"))
            ),
        ),
    };
    let mut steps = vec![
        step("branch", branch_text, format!("branch={}", quoted(short.unwrap_or(&source.branch))), false),
        step(
            "clone",
            &format!("The whole history{alternatives}. One that is here already is used as it is."),
            format!("{is_here} ||\n{}", places.join(" ||\n")),
            false,
        ),
        step(
            "log",
            "The states that there are, the newest first.",
            format!("{git} --no-pager log --max-count=10 --date=iso --format='%h  %cd  %s' \"$branch\" --"),
            false,
        ),
        step(
            "branches",
            "All branches. While a remote is halted the newest states are on one below backupbot/rescue there.",
            format!("{git} branch --sort=-committerdate --verbose"),
            true,
        ),
        step(
            "log_of_path",
            "The states in which one file or directory changed.",
            format!(
                "{git} log --date=iso --format='%h  %cd  %s' \"$branch\" -- {}",
                quoted(&format!("{root}/PATH"))
            ),
            true,
        ),
        step("state", "The newest state.", "state=\"$branch\"".to_owned(), false),
        step("older_state", "Or an older one: an id of the list, or a tag.", "state=COMMIT".to_owned(), true),
        step("list", "All files of it.", format!("{git} ls-tree -r --name-only \"$state\""), true),
        step("one_file", one_file_text, one_file, true),
        step(
            "checkout",
            "All files of it, into a new directory. Git names those whose names or paths are too long for the file system;\n\
             they can be had one by one, as above.",
            format!(
                "mkdir {directory}\n{git} --work-tree={directory} -c core.autocrlf=false -c advice.detachedHead=false \\\n    \
                 checkout --quiet --force --detach \"$state\" -- ||\n    \
                 echo 'not everything could be checked out: see above' >&2"
            ),
            false,
        ),
    ];
    if source.has_large {
        let at = steps.iter().position(|step| step.step == "list").unwrap_or(steps.len());
        steps.insert(at, large);
    }
    if let Some(key) = &source.key {
        let at = steps.iter().position(|step| step.step == "list").unwrap_or(steps.len());
        let keys = match source.is_open_pgp {
            true => decrypting::steps_with_gpg(&git, name),
            false => decrypting::steps(key, &git, name),
        };
        steps.splice(at..at, keys);
    }
    steps
}

/// One case of where the clone may have come from.
fn fetch_large_from(place: &Place, history: &str) -> String {
    let cloning = cloning_of(place);
    let endpoint = match place {
        Place::Remote(remote, _) => remote.lfs_url.as_deref(),
        Place::State(_) => None,
    };
    let endpoint =
        endpoint.map_or_else(String::new, |url| format!("-c {} ", quoted(&format!("lfs.url={url}"))));
    format!(
        "{}) {}{endpoint}--git-dir={history} lfs fetch origin \"$state\" ;;",
        quoted(&cloning.address),
        cloning.prefix
    )
}

fn cloning_of(place: &Place) -> remote::Cloning {
    match place {
        Place::Remote(remote, known_hosts) => remote::cloning(remote, known_hosts),
        Place::State(path) => remote::Cloning::of_state(path),
    }
}

/// Comment lines of where from, and the command, which may stand behind `||`.
fn clone_from(place: &Place, history: &str, is_branch: bool) -> String {
    let cloning = cloning_of(place);
    let mut text: Vec<String> = cloning.text.iter().map(|line| format!("# {}", comment(line))).collect();
    let (prefix, options, address) = (&cloning.prefix, &cloning.options, quoted(&cloning.address));
    text.push(if is_branch {
        format!("{prefix}clone --bare --branch \"$branch\"{options} -- {address} {history}")
    } else {
        // `clone` takes branches and tags only.
        let pack = cloning.upload_pack();
        format!(
            "{{ git init --quiet --bare {history} && git --git-dir={history} config remote.origin.url {address} &&\n\
             {} --git-dir={history} fetch{pack} {address} \"+$branch:$branch\"; }}",
            prefix.trim_end()
        )
    });
    text.join("\n")
}

fn lines(text: &str) -> Vec<String> {
    text.lines().map(str::to_owned).collect()
}

/// The script.
pub fn script(steps: &[Step]) -> String {
    let has = |name: &str| steps.iter().any(|step| step.step == name && !step.optional);
    let programs = [("decryption", "git-crypt"), ("wrapped_key", "gpg"), ("large_files", "git-lfs")];
    let mut needs = vec!["git"];
    needs.extend(programs.iter().filter(|(step, _)| has(step)).map(|(_, program)| *program));
    let needs = format!("{} and python3", needs.join(", "));
    let mut script = format!(
        "#!/bin/sh\n\
         # Everything back without BackupBot: run it in an empty directory, sh recipe.sh. It needs {needs}, and reads\n\
         # from the remotes only. Keep a copy where it does not burn with this machine.\n\
         # Lines that begin with # and no space are switched off: take the # away to use them. Names in CAPITALS are yours to\n\
         # fill in, as Git lists them (quote them).\n\
         set -eu\n",
    );
    let mut of: Option<&str> = None;
    for step in steps {
        if step.repository.as_deref() != of {
            of = step.repository.as_deref();
            script.push_str(&match of {
                Some(name) => format!("\n# ---- {} ----\n", comment(name)),
                None => "\n# ---- names and metadata ----\n".to_owned(),
            });
        }
        script.push('\n');
        for line in &step.text {
            script.push_str(&format!("# {}\n", comment(line)));
        }
        for line in step.command.split('\n') {
            let switch = if step.optional { "#" } else { "" };
            script.push_str(&format!("{switch}{line}\n"));
        }
    }
    script
}
