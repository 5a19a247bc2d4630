//! Remotes that are read from: which one an address or a name means, how to get in there, and the moving line meanwhile.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use backupbot_core::clock;
use backupbot_core::config::{Credentials, Remote, RemoteUrl, SecretSource};
use backupbot_core::names::RemoteName;
use backupbot_core::progress::Progress;
use bytesize::ByteSize;

use crate::cli::access::Access;
use crate::exit::Failure;
use crate::meter::Meter;
use crate::settings::{Settings, World};

/// What a remote or a repository is called where nothing says it.
pub const NAMELESS: &str = "restored";
const LOOK_AGAIN: Duration = Duration::from_millis(200);

/// The remote that is meant, and its branch if that is configured.
pub fn meant(
    world: &World,
    settings: Option<&Settings>,
    wanted: Option<&str>,
    from: &str,
    access: &Access,
) -> Result<(Remote, Option<String>), Failure> {
    let repositories = settings.iter().flat_map(|settings| &settings.config.repositories);
    let named = repositories
        .filter(|repository| wanted.is_none_or(|wanted| repository.name.as_str() == wanted))
        .find_map(|repository| {
            let remote = repository.remotes.iter().find(|remote| remote.name.as_str() == from)?;
            Some((repository, remote))
        });
    if let Some((repository, remote)) = named {
        let instance = settings.map_or("", |settings| settings.config.instance.as_str());
        let branch = repository.branch.full_name(instance, clock::now())?;
        return Ok((remote.clone(), Some(branch)));
    }
    let address = world.absolute_remote(from);
    let url = RemoteUrl::parse(&address).map_err(|why| Failure::usage(format!("--from: {why}")))?;
    let file = |path: &Option<PathBuf>| path.as_ref().map(|path| SecretSource::File(world.absolute(path)));
    let credentials = Credentials {
        username: access.username.clone(),
        password: file(&access.password_file),
        token: file(&access.token_file),
        ssh_key: file(&access.ssh_key_file),
        passphrase: file(&access.passphrase_file),
        known_hosts_file: access.known_hosts_file.as_ref().map(|path| world.absolute(path)),
    };
    let has_any = credentials != Credentials::default();
    let last = address.trim_end_matches('/').rsplit('/').next().unwrap_or_default();
    let name = last.strip_suffix(".git").unwrap_or(last);
    let name = RemoteName::new(name).or_else(|_| RemoteName::new(NAMELESS));
    let remote = Remote {
        credentials: has_any.then_some(credentials),
        ca_file: access.ca_file.as_ref().map(|path| world.absolute(path)),
        ..Remote::at(name.map_err(|error| Failure::failed(error.to_string()))?, url)
    };
    Ok((remote, None))
}

/// The moving line while something is fetched.
pub struct Fetching {
    meter: Meter,
    is_over: Arc<AtomicBool>,
}

impl Fetching {
    /// Shows what is added to `progress`, until dropped.
    pub fn show(progress: &Progress) -> Self {
        let (meter, is_over) = (Meter::default(), Arc::new(AtomicBool::new(false)));
        if meter.show() {
            let (its_meter, its_end, progress) = (meter.clone(), is_over.clone(), progress.clone());
            let before = progress.bytes();
            let _ = std::thread::Builder::new().name("progress".to_owned()).spawn(move || {
                while !its_end.load(Ordering::Relaxed) {
                    let bytes = progress.bytes().saturating_sub(before);
                    its_meter.reach(bytes, format!("{} fetched", ByteSize(bytes).display().iec()));
                    std::thread::sleep(LOOK_AGAIN);
                }
            });
        }
        Self { meter, is_over }
    }
}

impl Drop for Fetching {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Relaxed);
        self.meter.hide();
    }
}
