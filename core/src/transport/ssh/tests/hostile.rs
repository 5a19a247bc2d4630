//! A server that no sshd would be: it opens channels to us, or takes the whole world into its window and then nothing.

use std::net::SocketAddr;
use std::sync::mpsc;

use russh::keys::PrivateKey;
use russh::server::{Auth, ChannelOpenHandle, Handler, Msg, Session, VerifiedPublicKey};
use russh::{Channel, ChannelId};

use super::*;

/// Lets everybody in.
struct Hostile {
    /// Whether each kind of channel that it tried to open was let.
    let_open: mpsc::Sender<Vec<bool>>,
}

impl Handler for Hostile {
    type Error = russh::Error;

    async fn auth_publickey(
        &mut self,
        _: &str,
        _: VerifiedPublicKey<'_>,
    ) -> std::result::Result<Auth, russh::Error> {
        Ok(Auth::Accept)
    }

    async fn channel_open_session(
        &mut self,
        channel: Channel<Msg>,
        reply: ChannelOpenHandle,
        session: &mut Session,
    ) -> std::result::Result<(), russh::Error> {
        reply.accept().await;
        let (handle, let_open) = (session.handle(), self.let_open.clone());
        tokio::spawn(async move {
            let opened = vec![
                handle.channel_open_session().await.is_ok(),
                handle.channel_open_agent().await.is_ok(),
                handle.channel_open_forwarded_tcpip("a", 1, "b", 2).await.is_ok(),
                handle.channel_open_forwarded_streamlocal("/a").await.is_ok(),
                handle.channel_open_direct_tcpip("127.0.0.1", 22, "b", 2).await.is_ok(),
                handle.channel_open_direct_streamlocal("/a").await.is_ok(),
                handle.channel_open_x11("a", 1).await.is_ok(),
            ];
            let _ = let_open.send(opened);
            // Held, and never read from.
            std::future::pending::<()>().await;
            drop(channel);
        });
        Ok(())
    }

    async fn data(
        &mut self,
        _: ChannelId,
        _: &[u8],
        _: &mut Session,
    ) -> std::result::Result<(), russh::Error> {
        std::future::pending().await
    }
}

/// Starts it; it serves one connection and ends with the process.
fn hostile(scratch: &Path, let_open: mpsc::Sender<Vec<bool>>) -> SocketAddr {
    let path = scratch.join("host");
    sshd::make_key(&path, "ed25519", "");
    let key = PrivateKey::from_openssh(fs::read(&path).unwrap()).unwrap();
    let config = russh::server::Config { keys: vec![key], window_size: u32::MAX, ..Default::default() };
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    listener.set_nonblocking(true).unwrap();
    let public = fs::read_to_string(path.with_extension("pub")).unwrap();
    fs::write(scratch.join("known_hosts"), format!("[127.0.0.1]:{} {public}", address.port())).unwrap();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let listener = tokio::net::TcpListener::from_std(listener).unwrap();
            let (stream, _) = listener.accept().await.unwrap();
            let session =
                russh::server::run_stream(Arc::new(config), stream, Hostile { let_open }).await.unwrap();
            let _ = session.await;
        });
    });
    address
}

#[test]
fn a_server_opens_nothing_here_and_an_endless_window_is_not_filled() {
    let scratch = tempfile::tempdir().unwrap();
    let (let_open, opened) = mpsc::channel();
    let address = hostile(scratch.path(), let_open);
    let key = scratch.path().join("key");
    sshd::make_key(&key, "ed25519", "");
    let (mut remote, url) = remote_at(&format!("ssh://git@{address}/x"));
    remote.credentials = Some(Credentials { ssh_key: Some(SecretSource::File(key)), ..Default::default() });
    let limits = Limits { stall: Duration::from_secs(2), ..LIMITS };
    let mut wire = SshWire::new(&remote, &url, scratch.path(), limits, &Progress::new()).unwrap();
    let mut talk = wire.open(Service::ReceivePack).unwrap();
    let opened = opened.recv_timeout(Duration::from_secs(20)).unwrap();
    assert_eq!(opened, [false; 7]);

    let mut taken = 0;
    let block = vec![0; 64 * 1024];
    let asked = talk.ask(None, &mut |out| loop {
        out.write(&block)?;
        taken += block.len();
    });
    let error = asked.err().unwrap();
    assert!(error.to_string().contains("stalled"), "{error}");
    // What we hold, and what the system's buffers between two of its own sockets do.
    assert!(taken < 16 << 20, "{taken}");
}
