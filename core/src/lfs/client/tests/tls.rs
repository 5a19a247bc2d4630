//! A real web server with TLS before the real LFS server: an authority of its own, a password, a limit on
//! bodies.

use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use super::giftless::Giftless;
use super::*;

/// nginx; ends with the value.
struct Nginx(Child);

impl Drop for Nginx {
    fn drop(&mut self) {
        let _ = Command::new("kill").arg(self.0.id().to_string()).status();
        let _ = self.0.wait();
    }
}

fn run(directory: &Path, line: &str) {
    let output = Command::new("sh").args(["-c", line]).current_dir(directory).output().unwrap();
    assert!(output.status.success(), "{line}: {}", String::from_utf8_lossy(&output.stderr));
}

/// An authority, and a certificate of it for this machine.
fn certify(directory: &Path) {
    let key = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes";
    run(
        directory,
        &format!(
            "openssl req -x509 {key} -keyout ca.key -out ca.pem -days 2 -subj '/CN=Authority of a test'"
        ),
    );
    run(directory, &format!("openssl req -new {key} -keyout server.key -out server.csr -subj /CN=localhost"));
    run(
        directory,
        "printf 'subjectAltName=DNS:localhost,IP:127.0.0.1\\nbasicConstraints=CA:FALSE\\n' > names",
    );
    let sign =
        "openssl x509 -req -in server.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 -extfile names";
    run(directory, &format!("{sign} -out server.pem"));
    run(directory, "printf 'bot:%s\\n' \"$(openssl passwd -apr1 correct-horse)\" > passwords");
}

/// Starts nginx before the server at `upstream`, and returns its port.
fn start(directory: &Path, upstream: u16) -> Option<(Nginx, u16)> {
    let program = ["/usr/sbin/nginx", "/usr/bin/nginx"].into_iter().find(|path| Path::new(path).exists())?;
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let at = |name: &str| directory.join(name).display().to_string();
    let user = if rustix::process::geteuid().is_root() { "user root;\n" } else { "" };
    let temporary: String = ["client_body", "fastcgi", "proxy", "scgi", "uwsgi"]
        .map(|what| format!("{what}_temp_path {};\n", at(&format!("temporary-{what}"))))
        .concat();
    let settings = format!(
        "{user}daemon off;\nworker_processes 1;\npid {pid};\nerror_log {errors};\nevents {{ worker_connections 64; }}\n\
         http {{\naccess_log {access};\n{temporary}server {{\nlisten 127.0.0.1:{port} ssl;\n\
         ssl_certificate {certificate};\nssl_certificate_key {key};\nclient_max_body_size 4m;\n\
         proxy_set_header Host $http_host;\nproxy_set_header X-Forwarded-Proto https;\n\
         location / {{ proxy_pass http://127.0.0.1:{upstream}; }}\n\
         location ~ /objects/batch$ {{ auth_basic lfs;\nauth_basic_user_file {passwords};\n\
         proxy_set_header Host $http_host;\nproxy_set_header X-Forwarded-Proto https;\nproxy_set_header Authorization \"\";\nproxy_pass http://127.0.0.1:{upstream}; }}\n}}\n}}\n",
        pid = at("nginx.pid"),
        errors = at("error.log"),
        access = at("access.log"),
        certificate = at("server.pem"),
        key = at("server.key"),
        passwords = at("passwords"),
    );
    fs::write(directory.join("nginx.conf"), settings).unwrap();
    let child = Command::new(program)
        .args(["-p", &at(""), "-e", &at("error.log"), "-c", &at("nginx.conf")])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let nginx = Nginx(child);
    let deadline = Instant::now() + Duration::from_secs(30);
    while TcpStream::connect(("127.0.0.1", port)).is_err() {
        let said = fs::read_to_string(directory.join("error.log")).unwrap_or_default();
        assert!(Instant::now() < deadline, "nginx does not start: {said}");
        std::thread::sleep(Duration::from_millis(20));
    }
    Some((nginx, port))
}

#[test]
fn an_encrypted_server_behind_a_proxy_with_a_password_and_a_limit() {
    let scratch = tempfile::tempdir().unwrap();
    let Some(server) = Giftless::start(scratch.path(), true) else { return };
    let directory = scratch.path().join("nginx");
    fs::create_dir(&directory).unwrap();
    certify(&directory);
    let Some((_nginx, port)) = start(&directory, server.port()) else { return };
    let repository = scratch.path().join("repositories/ours.git");
    let store = Objects::of(&repository);
    let progress = Progress::new();
    let mut remote = remote_at(&format!("https://localhost:{port}/org/repo.git"));
    fs::write(scratch.path().join("password"), "correct-horse").unwrap();
    let password = Some(SecretSource::File(scratch.path().join("password")));
    remote.credentials =
        Some(Credentials { username: Some("bot".to_owned()), password, ..Default::default() });
    let pointers: Vec<Pointer> =
        (1..5).map(|n| stored(&store, &content(n, 1_000_000 * n as usize))).collect();
    let large = stored(&store, &content(9, 20_000_000));

    let error = Client::connect(&remote, &repository, &progress)
        .unwrap()
        .with_law(FAST)
        .upload(&pointers, &store, &progress)
        .unwrap_err();
    assert!(error.to_string().contains("ca_file"), "{error}");

    remote.ca_file = Some(directory.join("ca.pem"));
    let client = Client::connect(&remote, &repository, &progress).unwrap().with_law(FAST);
    let mut all = pointers.clone();
    all.push(large);
    let sent = client.upload(&all, &store, &progress).unwrap();
    assert_eq!((sent.sent, reasons(&sent.refused)), (4, vec![Reason::TooLarge]), "{:?}", sent.refused);
    assert!(sent.refused[0].1.error.to_string().contains("client_max_body_size"), "{:?}", sent.refused);
    let elsewhere = Objects::of(&scratch.path().join("repositories/other.git"));
    let got = client.download(&pointers, &elsewhere, &progress).unwrap();
    assert_eq!((got.received, got.failed.len()), (4, 0), "{:?}", got.failed);
    let access = fs::read_to_string(directory.join("access.log")).unwrap();
    assert!(access.contains("\"PUT ") && access.contains("- bot ["), "{access}");

    fs::write(scratch.path().join("password"), "wrong-horse").unwrap();
    let client = Client::connect(&remote, &repository, &progress).unwrap();
    let error = client.missing(&pointers, &progress).unwrap_err();
    assert_eq!(error.kind(), Kind::Credentials);
    assert!(
        error.to_string().contains("logged in as bot") && !error.to_string().contains("horse"),
        "{error}"
    );
}
