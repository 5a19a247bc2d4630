//! A real web server before real Git repositories: nginx with fcgiwrap and `git http-backend`, TLS by an authority of
//! its own, basic auth.
//!
//! Everything it needs is in the scratch directory of the test, the repositories in `remote/`, where [`Setup`] looks
//! for them. Both programs run in process groups of their own, which end with the value.

use std::fs;
use std::net::TcpListener;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process_group};

use super::daemon::{Setup, is_root};
use super::git::git;
use super::{SOON, eventually, skip};

/// Who may push.
pub const USER: &str = "backup";
/// With it, at first.
pub const PASSWORD: &str = "first-p@ssword/1";

/// What can be different about a server.
#[derive(Debug, Clone, Default)]
pub struct Switches {
    /// `client_max_body_size`; absent: unlimited.
    pub largest_body: Option<&'static str>,
    /// Advertisements are compressed for who asks for that.
    pub gzip: bool,
}

/// One line of the access log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    pub method: String,
    pub path: String,
    pub status: u16,
    pub user: String,
    /// `gzip`, or `-`.
    pub encoding: String,
}

/// A running server.
pub struct Web {
    directory: PathBuf,
    repositories: PathBuf,
    http: u16,
    https: u16,
    gateway: Option<Child>,
    server: Option<Child>,
}

/// Whether all the programs are here; says so where they are not.
pub fn is_possible() -> bool {
    let programs = ["nginx", "fcgiwrap", "openssl"];
    let missing: Vec<&str> = programs.into_iter().filter(|name| program(name).is_none()).collect();
    if missing.is_empty() && backend().exists() {
        return true;
    }
    skip(&format!(
        "Git over HTTP: {missing:?} or git http-backend missing (apt-get install nginx-light fcgiwrap)"
    ));
    false
}

fn program(name: &str) -> Option<PathBuf> {
    let path = std::env::var("PATH").unwrap_or_default() + ":/usr/sbin:/sbin";
    path.split(':').map(|directory| Path::new(directory).join(name)).find(|path| path.exists())
}

fn backend() -> PathBuf {
    let output = Command::new("git").arg("--exec-path").output().unwrap();
    Path::new(String::from_utf8_lossy(&output.stdout).trim()).join("git-http-backend")
}

impl Web {
    /// Starts one for a test; `None` where that is not possible.
    pub fn start(setup: &Setup, switches: &Switches) -> Option<Self> {
        if !is_possible() {
            return None;
        }
        let directory = setup.path("web");
        let repositories = setup.path("remote");
        for place in [&directory, &repositories, &directory.join("temporary")] {
            fs::create_dir_all(place).unwrap();
        }
        let mut web = Self { directory, repositories, http: 0, https: 0, gateway: None, server: None };
        web.certify("ca");
        web.set_password(PASSWORD);
        let mut gateway = Command::new(program("fcgiwrap").unwrap());
        let socket = format!("unix:{}", web.directory.join("f.sock").display());
        gateway.args(["-f", "-c", "4", "-s", &socket]).env("HOME", &web.directory);
        web.gateway = Some(web.spawned(gateway, "gateway"));
        eventually("fcgiwrap listens", SOON, || web.directory.join("f.sock").exists().then_some(()));
        web.serve(switches);
        Some(web)
    }

    fn spawned(&self, mut command: Command, name: &str) -> Child {
        let log = fs::File::create(self.directory.join(format!("{name}.log"))).unwrap();
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("GIT_") {
                command.env_remove(name);
            }
        }
        command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log).process_group(0);
        command.spawn().unwrap()
    }

    fn serve(&mut self, switches: &Switches) {
        for attempt in 0.. {
            if self.http == 0 {
                (self.http, self.https) = (free_port(), free_port());
            }
            fs::write(self.directory.join("nginx.conf"), self.settings(switches)).unwrap();
            let mut command = Command::new(program("nginx").unwrap());
            command.arg("-p").arg(&self.directory).arg("-e").arg(self.directory.join("error.log"));
            command.arg("-c").arg(self.directory.join("nginx.conf"));
            let mut child = self.spawned(command, "nginx");
            let is_up = eventually("nginx listens or ends", SOON, || {
                if child.try_wait().unwrap().is_some() {
                    return Some(false);
                }
                std::net::TcpStream::connect(("127.0.0.1", self.https)).ok().map(|_| true)
            });
            if is_up {
                self.server = Some(child);
                return;
            }
            let said = fs::read_to_string(self.directory.join("error.log")).unwrap_or_default();
            assert!(attempt < 5, "nginx does not start: {said}");
            // Somebody took a port in between.
            self.http = 0;
        }
    }

    fn settings(&self, switches: &Switches) -> String {
        let at = |name: &str| self.directory.join(name).display().to_string();
        let user = if is_root() { "user root;\n" } else { "" };
        let gzip = if switches.gzip {
            "gzip on; gzip_min_length 20; gzip_proxied any;\n\
             gzip_types application/x-git-receive-pack-advertisement application/x-git-upload-pack-advertisement;\n"
        } else {
            ""
        };
        let temporary: String = ["client_body", "fastcgi", "proxy", "scgi", "uwsgi"]
            .map(|what| format!("{what}_temp_path {};\n", at(&format!("temporary/{what}"))))
            .concat();
        let parameters: String = [
            ("SCRIPT_FILENAME", backend().display().to_string()),
            ("GIT_PROJECT_ROOT", self.repositories.display().to_string()),
            ("GIT_HTTP_EXPORT_ALL", "1".to_owned()),
            ("PATH_INFO", "$1".to_owned()),
            ("REQUEST_METHOD", "$request_method".to_owned()),
            ("QUERY_STRING", "$query_string".to_owned()),
            ("CONTENT_TYPE", "$content_type".to_owned()),
            ("CONTENT_LENGTH", "$content_length".to_owned()),
            ("REMOTE_USER", "$remote_user".to_owned()),
            ("REMOTE_ADDR", "$remote_addr".to_owned()),
            ("GIT_PROTOCOL", "$http_git_protocol".to_owned()),
        ]
        .map(|(name, value)| format!("fastcgi_param {name} {value};\n"))
        .concat();
        format!(
            "{user}daemon off;\nworker_processes 1;\npid {pid};\nerror_log {errors};\n\
             events {{ worker_connections 64; }}\n\
             http {{\n\
             log_format seen '$request_method $request_uri $status $remote_user $sent_http_content_encoding $bytes_sent';\n\
             access_log {access} seen;\n{temporary}{gzip}\
             server {{\n\
             listen 127.0.0.1:{http};\nlisten 127.0.0.1:{https} ssl;\n\
             ssl_certificate {certificate};\nssl_certificate_key {key};\n\
             client_max_body_size {largest};\n\
             location ~ ^/git(/.*)$ {{\n\
             auth_basic git;\nauth_basic_user_file {passwords};\n\
             fastcgi_pass unix:{socket};\n{parameters}\
             }}\n}}\n}}\n",
            pid = at("nginx.pid"),
            errors = at("error.log"),
            access = at("access.log"),
            http = self.http,
            https = self.https,
            certificate = at("server.pem"),
            key = at("server.key"),
            largest = switches.largest_body.unwrap_or("0"),
            passwords = at("passwords"),
            socket = at("f.sock"),
        )
    }

    /// The same server at the same ports with other switches.
    pub fn restart(&mut self, switches: &Switches) {
        self.down();
        self.serve(switches);
    }

    /// Ends nginx; nobody listens then.
    pub fn down(&mut self) {
        end(&mut self.server);
    }

    /// Makes an authority `name` and the server's certificate by it, for the next start of nginx.
    pub fn certify(&self, name: &str) -> PathBuf {
        let openssl = |arguments: &[&str]| {
            let output =
                Command::new("openssl").args(arguments).current_dir(&self.directory).output().unwrap();
            assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        };
        let (ca, ca_key) = (format!("{name}.pem"), format!("{name}.key"));
        let curve = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"];
        let subject = format!("/CN=Authority {name} of a test");
        let own: Vec<&str> = ["req", "-x509"]
            .into_iter()
            .chain(curve)
            .chain(["-keyout", &ca_key, "-out", &ca, "-days", "2", "-subj", &subject])
            .collect();
        openssl(&own);
        let request: Vec<&str> = ["req", "-new"]
            .into_iter()
            .chain(curve)
            .chain(["-keyout", "server.key", "-out", "server.csr", "-subj", "/CN=localhost"])
            .collect();
        openssl(&request);
        let names = "subjectAltName=DNS:localhost,IP:127.0.0.1\nbasicConstraints=CA:FALSE\n";
        fs::write(self.directory.join("names.ext"), names).unwrap();
        openssl(&[
            "x509",
            "-req",
            "-in",
            "server.csr",
            "-CA",
            &ca,
            "-CAkey",
            &ca_key,
            "-CAcreateserial",
            "-days",
            "2",
            "-extfile",
            "names.ext",
            "-out",
            "server.pem",
        ]);
        self.directory.join(ca)
    }

    /// The authority's certificate.
    pub fn ca_file(&self) -> String {
        self.directory.join("ca.pem").to_str().unwrap().to_owned()
    }

    /// From now on this password is the right one.
    pub fn set_password(&self, password: &str) {
        let path = self.directory.join("passwords");
        let new = self.directory.join("passwords.new");
        fs::write(&new, format!("{USER}:{{PLAIN}}{password}\n")).unwrap();
        fs::rename(new, path).unwrap();
    }

    /// Makes a bare repository that takes pushes.
    pub fn repository(&self, name: &str) -> PathBuf {
        let path = self.repositories.join(format!("{name}.git"));
        git(
            &self.repositories,
            &["init", "--quiet", "--bare", "--initial-branch=main", path.to_str().unwrap()],
        );
        for setting in ["http.receivepack=true", "receive.autogc=false", "gc.auto=0"] {
            let (name, value) = setting.split_once('=').unwrap();
            git(&path, &["config", name, value]);
        }
        path
    }

    /// A hook of a repository, as a shell script.
    pub fn hook(&self, repository: &Path, name: &str, script: &str) {
        use std::os::unix::fs::PermissionsExt;
        let path = repository.join("hooks").join(name);
        fs::create_dir_all(repository.join("hooks")).unwrap();
        fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
    }

    /// The address of a repository with encryption.
    pub fn https(&self, name: &str) -> String {
        format!("https://127.0.0.1:{}/git/{name}.git", self.https)
    }

    /// The port without encryption.
    pub fn plain_port(&self) -> u16 {
        self.http
    }

    /// Every request answered so far.
    pub fn seen(&self) -> Vec<Seen> {
        let log = fs::read_to_string(self.directory.join("access.log")).unwrap_or_default();
        let parse = |line: &str| {
            let mut words = line.split(' ').map(str::to_owned);
            let (method, path) = (words.next()?, words.next()?);
            let status = words.next()?.parse().ok()?;
            Some(Seen { method, path, status, user: words.next()?, encoding: words.next()? })
        };
        log.lines().filter_map(parse).collect()
    }

    /// Bytes that it has sent so far.
    pub fn sent(&self) -> u64 {
        let log = fs::read_to_string(self.directory.join("access.log")).unwrap_or_default();
        log.lines().filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok()).sum()
    }

    /// Clones a repository over HTTPS with the real `git` into a new directory.
    pub fn clone_by_git(&self, name: &str, password: &str, target: &Path) {
        let quoted = password.replace('@', "%40").replace('/', "%2f");
        let address = self.https(name).replace("https://", &format!("https://{USER}:{quoted}@"));
        let authority = format!("http.sslCAInfo={}", self.ca_file());
        let arguments = ["-c", &authority, "clone", "--quiet", "--branch", "main", &address];
        let arguments: Vec<&str> = arguments.into_iter().chain([target.to_str().unwrap()]).collect();
        git(&self.directory, &arguments);
    }
}

/// A port nobody listens on, for the moment.
pub fn free_port() -> u16 {
    TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap().port()
}

/// Ends a child and its own children, which are its process group.
fn end(child: &mut Option<Child>) {
    let Some(mut child) = child.take() else { return };
    if let Some(group) = i32::try_from(child.id()).ok().and_then(Pid::from_raw) {
        let _ = kill_process_group(group, Signal::KILL);
    }
    let _ = child.wait();
}

impl Drop for Web {
    fn drop(&mut self) {
        end(&mut self.server);
        end(&mut self.gateway);
        if std::thread::panicking() {
            for name in ["error.log", "gateway.log", "access.log"] {
                let text = fs::read_to_string(self.directory.join(name)).unwrap_or_default();
                let tail = text.char_indices().rev().nth(3000).map_or(0, |(at, _)| at);
                println!("--- {name}:\n{}", &text[tail..]);
            }
        }
    }
}
