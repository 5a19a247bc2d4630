//! From the located tree to the model: which key means what.
//!
//! Each function reads one section onto values that already hold what applies without it, so that built-in
//! defaults, the file's `defaults` and a repository's own keys are three layers of the same reading. Rules
//! about one section stand here; rules between sections in `validate`, for which the places are kept.

use std::path::{Path, PathBuf};

use crate::names::{NameError, RemoteName, RepositoryName, RootName};

use super::Context;
use super::branch::{BranchTemplate, check_tag_format};
use super::encryption::encryption;
use super::model::*;
use super::reader::{At, Field, Problems, Section};
use super::tree::{Node, Place, Value};
use super::url::RemoteUrl;
use super::validate::{MAX_ROOTS, RemoteSite, RepositorySite, RootSite, Sites, lexical};
use super::values;

/// The only version of the format there is.
const VERSION: u64 = 1;

/// What came out: complete only if no error was reported meanwhile.
pub(super) struct Decoded {
    pub config: Config,
    pub sites: Sites,
}

/// What may stand under a repository and under `defaults`.
#[derive(Clone)]
struct Settings {
    branch: BranchTemplate,
    tags: Tags,
    batch: Batch,
    mass_change: MassChange,
    verify: Option<Verify>,
    drill: Option<Drill>,
    retry: Retry,
    lfs: Option<Lfs>,
    encryption: Option<Encryption>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            branch: BranchTemplate::default(),
            tags: Tags::default(),
            batch: Batch::default(),
            mass_change: MassChange::default(),
            verify: Some(Verify::default()),
            drill: Some(Drill::default()),
            retry: Retry::default(),
            lfs: None,
            encryption: None,
        }
    }
}

/// Reads the whole tree.
pub(super) fn decode(tree: &Node, context: &Context, checksum: String, problems: &Problems) -> Decoded {
    let mut decoded = Decoded {
        config: Config {
            state_dir: context.default_state_dir.clone(),
            instance: context.default_instance.clone(),
            identity: Identity::default(),
            limits: Limits::default(),
            shutdown_grace: SHUTDOWN_GRACE,
            log: LogConfig::default(),
            admin: Admin::default(),
            metrics: Metrics::default(),
            alerts: Alerts::default(),
            repositories: Vec::new(),
            checksum,
        },
        sites: Sites::new(At::new(tree.place.clone(), "state_dir")),
    };
    let empty = Node::map(tree.place.clone(), Vec::new());
    let node = if tree.value == Value::Null { &empty } else { tree };
    let field = Field { at: At::new(tree.place.clone(), ""), node };
    Section::read(field, problems, |top| file(top, context, &mut decoded));
    decoded
}

fn file(top: &mut Section<'_>, context: &Context, decoded: &mut Decoded) {
    let Decoded { config, sites } = decoded;
    version(top);
    state_dir(top, context, config, sites);
    top.set("instance", &mut config.instance, values::instance);
    if !values::is_instance(&config.instance) {
        top.problems.error(
            &top.at_of("instance"),
            "this host's name cannot be part of a branch name: set `instance`",
        );
        // Branch templates are tried with it; its own mistake is reported once.
        config.instance = "instance".to_owned();
    }
    top.section("identity", |s| {
        s.set("name", &mut config.identity.name, values::identity);
        s.set("email", &mut config.identity.email, values::identity);
    });
    top.section("limits", |s| {
        s.set("max_roots", &mut config.limits.max_roots, |n| values::whole(n, 1..=MAX_ROOTS));
        s.set("repository_size", &mut config.limits.repository_size, values::size);
        sites.max_roots_at = s.has("max_roots").then(|| s.at_of("max_roots"));
    });
    top.set("shutdown_grace", &mut config.shutdown_grace, values::duration);
    top.section("log", |s| log(s, &mut config.log));
    top.section("admin", |s| admin(s, &mut config.admin));
    top.section("metrics", |s| metrics(s, config));
    top.section("alerts", |s| alerts(s, &mut config.alerts));

    let mut defaults = Settings::default();
    top.section("defaults", |s| settings(s, &mut defaults, &config.instance));
    if top.required_field("repositories").is_none() {
        return;
    }
    let at = top.at_of("repositories");
    let Some(items) = top.items("repositories") else { return };
    if items.is_empty() {
        top.problems.error(&at, "there is no repository, so nothing would be backed up");
    }
    for item in items {
        let read =
            Section::read(item, top.problems, |s| repository(s, defaults.clone(), &config.instance, sites));
        config.repositories.extend(read.flatten());
    }
    for repository in &mut config.repositories {
        if let Some(EncryptionMethod::Gpg(gpg)) =
            repository.encryption.as_mut().map(|encryption| &mut encryption.method)
        {
            gpg.settle(&config.state_dir, repository.name.as_str());
        }
    }
}

fn version(top: &mut Section<'_>) {
    let Some(version) = top.required("version", |n| values::whole(n, 0..=u64::MAX)) else { return };
    if version != VERSION {
        let message =
            format!("this program reads version {VERSION} of the configuration, this is version {version}");
        top.problems.error(&top.at_of("version"), message);
    }
}

fn state_dir(top: &mut Section<'_>, context: &Context, config: &mut Config, sites: &mut Sites) {
    top.set("state_dir", &mut config.state_dir, values::absolute_path);
    if top.has("state_dir") {
        sites.state_dir_at = top.at_of("state_dir");
    }
    let Some(flag) = &context.state_dir_flag else { return };
    sites.state_dir_at = At::new(Place::Argument("--state-dir".to_owned()), "state_dir");
    match values::check_absolute(flag) {
        Ok(path) => config.state_dir = path,
        Err(message) => top.problems.error(&sites.state_dir_at, message),
    }
}

fn log(s: &mut Section<'_>, log: &mut LogConfig) {
    let levels = [
        ("error", LogLevel::Error),
        ("warning", LogLevel::Warning),
        ("info", LogLevel::Info),
        ("debug", LogLevel::Debug),
        ("trace", LogLevel::Trace),
    ];
    let formats = [("auto", LogFormat::Auto), ("json", LogFormat::Json), ("text", LogFormat::Text)];
    s.set("level", &mut log.level, |n| values::choice(n, &levels));
    s.set("format", &mut log.format, |n| values::choice(n, &formats));
    s.set_option("file", &mut log.file, values::absolute_path);
    s.set_option("audit_file", &mut log.audit_file, values::absolute_path);
}

fn admin(s: &mut Section<'_>, admin: &mut Admin) {
    s.set("listen", &mut admin.listen, values::listen);
    s.set_option("token_file", &mut admin.token_file, values::absolute_path);
    s.set_option("read_token_file", &mut admin.read_token_file, values::absolute_path);
    s.set_list("allowed_hosts", &mut admin.allowed_hosts, values::line);
    s.set_list("restore_dirs", &mut admin.restore_dirs, values::absolute_path);
    if !admin.listen.ip().is_loopback() {
        let message = "the HTTP interface is reachable from other machines and has no TLS: \
                       see that only a proxy with TLS or a pod's probes can reach it";
        s.problems.warn(&s.at_of("listen"), message);
    }
}

fn metrics(s: &mut Section<'_>, config: &mut Config) {
    s.set_option("listen", &mut config.metrics.listen, values::listen);
    if config.metrics.listen.is_some_and(|listen| listen.port() != 0 && listen == config.admin.listen) {
        let message = "that is the address of the admin interface, where the metrics are if this is left out";
        s.problems.error(&s.at_of("listen"), message);
    }
}

fn alerts(s: &mut Section<'_>, alerts: &mut Alerts) {
    s.set("stale_after", &mut alerts.stale_after, values::period);
    s.set("failure_rate", &mut alerts.failure_rate, values::share);
    s.set("backlog", &mut alerts.backlog, |n| values::whole(n, 1..=u64::MAX));
    s.set("disk_free", &mut alerts.disk_free, values::size);
    for item in s.items("notify").unwrap_or_default() {
        let notification = Section::read(item, s.problems, notification);
        alerts.notify.extend(notification.flatten());
    }
}

fn notification(s: &mut Section<'_>) -> Option<Notification> {
    let mut found = Vec::new();
    let mut kinds = 0;
    for (kind, wrap) in [
        ("webhook", Notification::Webhook as fn(Receiver) -> Notification),
        ("alertmanager", Notification::Alertmanager),
        ("ntfy", Notification::Ntfy),
        ("healthchecks", Notification::Healthchecks),
    ] {
        kinds += usize::from(s.has(kind));
        found.extend(s.section(kind, receiver).flatten().map(wrap));
    }
    kinds += usize::from(s.has("smtp"));
    found.extend(s.section("smtp", smtp).flatten().map(Notification::Smtp));
    if kinds != 1 {
        s.problems.error(&s.at, "expected exactly one of webhook, alertmanager, ntfy, healthchecks, smtp");
    }
    found.pop()
}

/// The address may stand here, or be kept like a secret: whoever knows it can send.
fn receiver(s: &mut Section<'_>) -> Option<Receiver> {
    let token = s.secret("token");
    let is_kept = ["url_file", "url_env", "url_command"].iter().any(|key| s.has(key));
    let url = if is_kept {
        s.secret("url").map(ReceiverUrl::Kept)
    } else {
        s.required("url", values::web_address).map(ReceiverUrl::Plain)
    };
    Some(Receiver { url: url?, token })
}

fn smtp(s: &mut Section<'_>) -> Option<Smtp> {
    let host = s.required("host", values::line);
    let port = s.optional("port", |n| values::whole(n, 1..=u16::MAX)).unwrap_or(587);
    let from = s.required("from", values::line);
    let mut to = Vec::new();
    s.required_field("to");
    if s.set_list("to", &mut to, values::line) == Some(0) {
        s.problems.error(&s.at_of("to"), "name at least one receiver");
    }
    let username = s.optional("username", values::line);
    let password = s.secret("password");
    Some(Smtp { host: host?, port, from: from?, to, username, password })
}

fn settings(s: &mut Section<'_>, settings: &mut Settings, instance: &str) {
    s.set("branch", &mut settings.branch, |n| BranchTemplate::parse(&values::line(n)?, instance));
    s.section("tags", |s| tags(s, &mut settings.tags));
    s.section("batch", |s| {
        s.set("files", &mut settings.batch.files, |n| values::whole(n, 1..=1_000_000));
        s.set("bytes", &mut settings.batch.bytes, values::size);
        s.set("after", &mut settings.batch.after, values::duration);
    });
    s.section("mass_change", |s| mass_change(s, &mut settings.mass_change));
    s.switchable("verify", &mut settings.verify, verify);
    s.switchable("drill", &mut settings.drill, |s, drill| {
        s.set("every", &mut drill.every, values::period);
        s.set("sample", &mut drill.sample, values::sample);
    });
    s.section("retry", |s| retry(s, &mut settings.retry));
    if let Some(field) = s.field("lfs") {
        let mut lfs = settings.lfs.take().unwrap_or_default();
        Section::read(field, s.problems, |s| self::lfs(s, &mut lfs));
        settings.lfs = Some(lfs);
    } else if s.is_null("lfs") {
        settings.lfs = None;
    }
    if let Some(field) = s.field("encryption") {
        settings.encryption = Section::read(field, s.problems, encryption).flatten();
    } else if s.is_null("encryption") {
        settings.encryption = None;
    }
}

fn tags(s: &mut Section<'_>, tags: &mut Tags) {
    let periods = [
        ("none", TagPeriod::None),
        ("commit", TagPeriod::Commit),
        ("day", TagPeriod::Day),
        ("week", TagPeriod::Week),
        ("month", TagPeriod::Month),
    ];
    s.set("every", &mut tags.every, |n| values::choice(n, &periods));
    s.set("name", &mut tags.name, |n| {
        let format = values::line(n)?;
        check_tag_format(&format).map(|()| format)
    });
}

fn mass_change(s: &mut Section<'_>, mass_change: &mut MassChange) {
    let policies = [
        ("quarantine", MassChangePolicy::Quarantine),
        ("alert", MassChangePolicy::Alert),
        ("off", MassChangePolicy::Off),
    ];
    s.set("share", &mut mass_change.share, values::share);
    s.set("window", &mut mass_change.window, values::period);
    s.set("min_files", &mut mass_change.min_files, |n| values::whole(n, 1..=u64::MAX));
    s.set("policy", &mut mass_change.policy, |n| values::choice(n, &policies));
}

fn verify(s: &mut Section<'_>, verify: &mut Verify) {
    s.set("sample", &mut verify.sample, values::sample);
    s.set("every", &mut verify.every, values::period);
    s.set_option("full_every", &mut verify.full_every, values::period);
    if let Some(full_every) = verify.full_every.filter(|full_every| *full_every < verify.every) {
        let at = s.at_of(if s.has("full_every") { "full_every" } else { "every" });
        let text = format!(
            "full_every ({full_every:?}) is shorter than every ({:?}): say with `every` how often everything is read, \
             and `sample: 100%`",
            verify.every
        );
        s.problems.error(&at, text);
    }
}

fn retry(s: &mut Section<'_>, retry: &mut Retry) {
    s.set("first", &mut retry.first, values::period);
    s.set("factor", &mut retry.factor, values::factor);
    s.set("max", &mut retry.max, values::period);
    if retry.first > retry.max {
        let at = s.at_of(if s.has("first") { "first" } else { "max" });
        s.problems.error(&at, format!("first ({:?}) is longer than max ({:?})", retry.first, retry.max));
    }
}

fn lfs(s: &mut Section<'_>, lfs: &mut Lfs) {
    s.set("threshold", &mut lfs.threshold, values::size);
    s.set_list("patterns", &mut lfs.patterns, values::pattern);
    s.set("max_object", &mut lfs.max_object, values::size);
    s.set("keep_local", &mut lfs.keep_local, values::duration);
    s.set_list("warn_at", &mut lfs.warn_at, |n| values::whole(n, 1..=100));
    lfs.warn_at.sort_unstable();
    s.switchable("scrub", &mut lfs.scrub, |s, scrub| {
        s.set("every", &mut scrub.every, values::period);
        s.set("read", &mut scrub.read, values::sample);
        s.set("read_at_most", &mut scrub.read_at_most, values::size);
    });
    if lfs.threshold > lfs.max_object {
        let at = s.at_of(if s.has("threshold") { "threshold" } else { "max_object" });
        s.problems.error(&at, "threshold is larger than max_object, so no file could be stored");
    }
}

fn repository(s: &mut Section<'_>, base: Settings, instance: &str, sites: &mut Sites) -> Option<Repository> {
    let name_field = s.required_field("name");
    let name = name_field.and_then(|field| name_of(&field, s.problems, RepositoryName::new));
    let mut own = base;
    settings(s, &mut own, instance);
    let mut site = RepositorySite {
        name: name.clone().map(|name| (name, s.at_of("name"))),
        branch: own.branch.sample(instance),
        roots: Vec::new(),
        remotes: Vec::new(),
    };

    let mut roots = Vec::new();
    if s.required_field("roots").is_some() {
        let at = s.at_of("roots");
        let items = s.items("roots");
        if items.as_ref().is_some_and(Vec::is_empty) {
            s.problems.error(&at, "a repository without a root protects nothing");
        }
        for item in items.unwrap_or_default() {
            roots.extend(Section::read(item, s.problems, |s| root(s, &mut site)).flatten());
        }
    }
    let mut remotes = Vec::new();
    for item in s.items("remotes").unwrap_or_default() {
        remotes.extend(Section::read(item, s.problems, |s| remote(s, &mut site)).flatten());
    }
    if remotes.is_empty() {
        let at = if s.has("remotes") { s.at_of("remotes") } else { s.at.clone() };
        s.problems.warn(&at, "no remotes: versions are kept on this machine only, which is no backup");
    }
    sites.repositories.push(site);
    Some(Repository {
        name: name?,
        branch: own.branch,
        tags: own.tags,
        roots,
        batch: own.batch,
        mass_change: own.mass_change,
        verify: own.verify,
        drill: own.drill,
        retry: own.retry,
        lfs: own.lfs,
        encryption: own.encryption,
        remotes,
    })
}

/// Reads a name with the rule of its kind.
fn name_of<T>(
    field: &Field<'_>,
    problems: &Problems,
    check: impl FnOnce(String) -> Result<T, NameError>,
) -> Option<T> {
    let name = values::line(field.node).and_then(|text| check(text).map_err(|error| error.to_string()));
    name.map_err(|message| problems.error(&field.at, message)).ok()
}

fn root(s: &mut Section<'_>, site: &mut RepositorySite) -> Option<Root> {
    let path = s.required("path", values::absolute_path);
    let (name, name_at) = match s.field("name") {
        Some(field) => (name_of(&field, s.problems, RootName::new), field.at),
        None => {
            let at = s.at_of("path");
            (path.as_deref().and_then(|path| default_root_name(path, &at, s.problems)), at)
        }
    };
    let mut ignore = Vec::new();
    let mut ignore_files = vec![IGNORE_FILE.to_owned()];
    let mut system_excludes = true;
    let mut one_file_system = false;
    let mut rescan = RESCAN;
    let mut backend = BackendChoice::Auto;
    s.set_list("ignore", &mut ignore, values::pattern);
    s.set_list("ignore_files", &mut ignore_files, values::file_name);
    s.set("system_excludes", &mut system_excludes, values::boolean);
    s.set("one_file_system", &mut one_file_system, values::boolean);
    let debounce = s.section("debounce", debounce).unwrap_or_default();
    s.set("rescan", &mut rescan, values::period);
    s.set("backend", &mut backend, values::backend);

    site.roots.push(RootSite { name: name.clone(), name_at, path: path.clone(), path_at: s.at_of("path") });
    Some(Root {
        name: name?,
        path: path?,
        ignore,
        ignore_files,
        system_excludes,
        one_file_system,
        debounce,
        rescan,
        backend,
    })
}

/// The last component of the path, which a name must be possible to make of.
fn default_root_name(path: &Path, at: &At, problems: &Problems) -> Option<RootName> {
    let resolved: PathBuf = lexical(path);
    let Some(last) = resolved.file_name() else {
        problems.error(at, "the root of the file system has no name: give it a `name`");
        return None;
    };
    let name = RootName::new(last.to_string_lossy());
    name.map_err(|error| {
        problems.error(at, format!("{error}: give this root a `name` in the configuration file"))
    })
    .ok()
}

fn debounce(s: &mut Section<'_>) -> Debounce {
    let mut debounce = Debounce::default();
    s.set("quiet", &mut debounce.quiet, values::duration);
    s.set("max", &mut debounce.max, values::duration);
    if debounce.quiet > debounce.max {
        let at = s.at_of(if s.has("quiet") { "quiet" } else { "max" });
        let message = format!("quiet ({:?}) is longer than max ({:?})", debounce.quiet, debounce.max);
        s.problems.error(&at, message);
    }
    debounce
}

fn remote(s: &mut Section<'_>, site: &mut RepositorySite) -> Option<Remote> {
    let name_field = s.required_field("name");
    let name = name_field.and_then(|field| name_of(&field, s.problems, RemoteName::new));
    let url = s.required("url", |n| RemoteUrl::parse(&values::line(n)?));
    let providers = [
        ("forgejo", Provider::Forgejo),
        ("gitea", Provider::Gitea),
        ("gitlab", Provider::Gitlab),
        ("github", Provider::Github),
        ("generic", Provider::Generic),
    ];
    let credentials = s.section("credentials", |s| Credentials {
        username: s.optional("username", values::line),
        password: s.secret("password"),
        token: s.secret("token"),
        ssh_key: s.secret("ssh_key"),
        passphrase: s.secret("passphrase"),
        known_hosts_file: s.optional("known_hosts_file", values::absolute_path),
    });
    let quota = s.optional("quota", values::size);
    let provider = s.optional("provider", |n| values::choice(n, &providers));
    let region = s.optional("region", values::line);
    let lfs_url = s.optional("lfs_url", values::web_address);
    let bandwidth = s.optional("bandwidth", values::bandwidth);
    let ca_file = s.optional("ca_file", values::absolute_path);
    let proxy = s.optional("proxy", values::web_address);
    let timeouts = s.section("timeouts", |s| {
        let mut timeouts = Timeouts::default();
        s.set("connect", &mut timeouts.connect, values::period);
        s.set("stall", &mut timeouts.stall, values::period);
        s.set("answer", &mut timeouts.answer, values::period);
        timeouts
    });

    if let Some(url) = &url {
        check_means(s, url, credentials.as_ref(), lfs_url.is_some());
    }
    site.remotes.push(RemoteSite {
        name: name.clone().map(|name| (name, s.at_of("name"))),
        url: url.clone().map(|url| (url, s.at_of("url"))),
    });
    Some(Remote {
        name: name?,
        url: url?,
        credentials,
        quota,
        provider,
        region,
        lfs_url,
        bandwidth,
        ca_file,
        proxy,
        timeouts: timeouts.unwrap_or_default(),
    })
}

/// What is configured for a way that the remote is not reached by would never be looked at.
fn check_means(s: &mut Section<'_>, url: &RemoteUrl, credentials: Option<&Credentials>, has_lfs_url: bool) {
    // An LFS server speaks HTTP, also that of a repository that is reached over SSH.
    let may_be_http = !matches!(url, RemoteUrl::Local(_)) || has_lfs_url;
    for key in ["ca_file", "proxy"] {
        if !may_be_http && s.has(key) {
            s.problems
                .error(&s.at_of(key), format!("`{key}` is for http and https addresses only: leave it out"));
        }
    }
    let Some(credentials) = credentials else { return };
    let for_http = credentials.password.is_some() || credentials.token.is_some();
    let for_ssh = credentials.ssh_key.is_some()
        || credentials.passphrase.is_some()
        || credentials.known_hosts_file.is_some();
    let problem = match url {
        RemoteUrl::Local(_) if !has_lfs_url || for_ssh => {
            Some("a local path needs no credentials: leave them out")
        }
        RemoteUrl::Http(_) if for_ssh => {
            Some("ssh_key, passphrase and known_hosts_file are for ssh addresses")
        }
        _ if credentials.password.is_some() && credentials.token.is_some() => {
            Some("a password and a token: give one of them")
        }
        RemoteUrl::Http(_) if !for_http => {
            Some("no password and no token: give one, or leave the credentials out")
        }
        RemoteUrl::Ssh(_) if for_http && !has_lfs_url => {
            Some("passwords and tokens are for http addresses: for ssh give ssh_key_file, or run an agent")
        }
        _ => None,
    };
    if let Some(problem) = problem {
        s.problems.error(&s.at_of("credentials"), problem);
    }
    if let RemoteUrl::Http(address) = url
        && address.text.starts_with("http://")
        && !matches!(address.host.as_str(), "localhost" | "127.0.0.1" | "[::1]")
    {
        let text = "the credentials would go over the network unencrypted: use https://";
        s.problems.warn(&s.at_of("url"), text);
    }
}
