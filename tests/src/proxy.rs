//! A way between two processes that can be cut: for one kind of message, or for all.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// How a connection ends when a client sends a commit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cut {
    /// The commit doesn't get through.
    Before,
    /// The commit gets through, and its answer doesn't.
    After,
}

/// Forwards connections to a port on loopback; it ends when dropped.
#[derive(Debug)]
pub struct Proxy {
    address: SocketAddr,
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    ended: AtomicBool,
    /// Commits of a batch that are still to be cut, and how.
    cuts: Mutex<Vec<Cut>>,
    done: AtomicU32,
}

/// What the statements have in them that commit a batch, and no others.
const COMMITS_A_BATCH: &[u8] = b"SELECT 1 / COUNT(*) FROM hit;\nCOMMIT";

impl Proxy {
    /// Listens on an address of this machine, at any port.
    pub fn to(port: u16, listen: IpAddr) -> Self {
        let listener = TcpListener::bind((listen, 0)).expect("the address is this machine's");
        let address = listener.local_addr().expect("a bound port has an address");
        let shared = Arc::new(Shared::default());
        let server = shared.clone();
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                if server.ended.load(Ordering::Acquire) {
                    return;
                }
                if let Ok(upstream) = TcpStream::connect((Ipv4Addr::LOCALHOST, port)) {
                    forward(client, upstream, &server);
                }
            }
        });
        Self { address, shared }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Cuts connections at the next commits of batches, one for each entry, the last first.
    pub fn cut(&self, cuts: &[Cut]) {
        self.shared.cuts.lock().unwrap_or_else(PoisonError::into_inner).extend(cuts);
    }

    /// How many commits have been cut.
    pub fn done(&self) -> u32 {
        self.shared.done.load(Ordering::Acquire)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.shared.ended.store(true, Ordering::Release);
        // Wakes the thread that listens.
        let _ = TcpStream::connect(self.address);
    }
}

fn forward(client: TcpStream, upstream: TcpStream, shared: &Arc<Shared>) {
    let both = || Some((client.try_clone().ok()?, upstream.try_clone().ok()?));
    let Some((client_back, upstream_back)) = both() else { return };
    let (_, _) = (client.set_nodelay(true), upstream.set_nodelay(true));
    let swallow = Arc::new(AtomicBool::new(false));
    let (shared, swallowing) = (shared.clone(), swallow.clone());
    std::thread::spawn(move || requests(client, upstream, &shared, &swallow));
    std::thread::spawn(move || answers(upstream_back, client_back, &swallowing));
}

/// From the client to the server, cutting at commits.
fn requests(mut from: TcpStream, mut to: TcpStream, shared: &Shared, swallow: &AtomicBool) {
    let mut buffer = vec![0; 1 << 16];
    while let Ok(length @ 1..) = from.read(&mut buffer) {
        let data = &buffer[..length];
        if data.windows(COMMITS_A_BATCH.len()).any(|window| window == COMMITS_A_BATCH) {
            let cut = shared.cuts.lock().unwrap_or_else(PoisonError::into_inner).pop();
            if let Some(cut) = cut {
                shared.done.fetch_add(1, Ordering::AcqRel);
                if cut == Cut::Before {
                    break;
                }
                swallow.store(true, Ordering::Release);
            }
        }
        if to.write_all(data).is_err() {
            break;
        }
    }
    let (_, _) = (from.shutdown(Shutdown::Both), to.shutdown(Shutdown::Both));
}

/// From the server to the client, until an answer is to be swallowed.
fn answers(mut from: TcpStream, mut to: TcpStream, swallow: &AtomicBool) {
    let mut buffer = vec![0; 1 << 16];
    while let Ok(length @ 1..) = from.read(&mut buffer) {
        if swallow.load(Ordering::Acquire) || to.write_all(&buffer[..length]).is_err() {
            break;
        }
    }
    let (_, _) = (from.shutdown(Shutdown::Both), to.shutdown(Shutdown::Both));
}
