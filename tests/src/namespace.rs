//! A network of its own for a process, which can be cut without anybody noticing: what is sent goes
//! to an address that nobody has.

use std::net::Ipv4Addr;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

/// Which packets get lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lost {
    /// Those to this machine's first address, where a test puts the coordinator.
    ToFirst,
    /// Those to its second address, where a test puts the warehouse.
    ToSecond,
    /// Those that come back from both.
    Back,
}

/// A namespace that reaches this machine at two addresses; it goes when dropped.
#[derive(Debug)]
pub struct Namespace {
    name: String,
    device: String,
    first: Ipv4Addr,
    second: Ipv4Addr,
    inner: Ipv4Addr,
}

/// The namespace's end of the cable.
const INNER: &str = "coord0";
/// An address that no device has.
const NOBODY: &str = "02:00:00:00:00:99";

impl Namespace {
    /// Makes one.
    ///
    /// # Errors
    /// Why it isn't permitted here.
    pub fn new() -> Result<Self, String> {
        static MADE: AtomicU32 = AtomicU32::new(0);
        let number = MADE.fetch_add(1, Ordering::Relaxed);
        let process = std::process::id();
        // Others may run the same tests on this machine.
        let net = (process * 4 + number) % (1 << 13);
        let address = |host: u8| Ipv4Addr::new(10, 213, (net >> 5) as u8, ((net & 31) << 3) as u8 + host);
        let made = Self {
            name: format!("coord-{process}-{number}"),
            device: format!("cd{}n{number}", process % 10_000_000),
            first: address(1),
            second: address(2),
            inner: address(3),
        };
        ip(&["netns", "add", &made.name])?;
        // From here on dropping it removes what is there.
        let (name, device) = (made.name.as_str(), made.device.as_str());
        ip(&["link", "add", device, "type", "veth", "peer", "name", INNER, "netns", name])?;
        for address in [made.first, made.second] {
            ip(&["addr", "add", &format!("{address}/29"), "dev", device])?;
        }
        ip(&["link", "set", device, "up"])?;
        ip(&["-n", name, "addr", "add", &format!("{}/29", made.inner), "dev", INNER])?;
        ip(&["-n", name, "link", "set", INNER, "up"])?;
        ip(&["-n", name, "link", "set", "lo", "up"])?;
        Ok(made)
    }

    /// This machine's first address, as seen from within.
    pub fn first(&self) -> Ipv4Addr {
        self.first
    }

    /// Its second address.
    pub fn second(&self) -> Ipv4Addr {
        self.second
    }

    /// What a command must begin with to run within.
    pub fn within(&self) -> [&str; 4] {
        ["ip", "netns", "exec", &self.name]
    }

    /// Loses packets from now on.
    pub fn cut(&self, lost: Lost) {
        let to = |address: Ipv4Addr| address.to_string();
        let done = match lost {
            Lost::ToFirst => self.misdirect(&["-n", &self.name], &to(self.first), INNER),
            Lost::ToSecond => self.misdirect(&["-n", &self.name], &to(self.second), INNER),
            Lost::Back => self.misdirect(&[], &to(self.inner), &self.device),
        };
        done.unwrap_or_else(|error| panic!("can't cut {}: {error}", self.name));
    }

    /// Loses nothing any more.
    pub fn heal(&self) {
        for address in [self.first, self.second] {
            let _ = ip(&["-n", &self.name, "neigh", "del", &address.to_string(), "dev", INNER]);
        }
        let _ = ip(&["neigh", "del", &self.inner.to_string(), "dev", &self.device]);
    }

    fn misdirect(&self, at: &[&str], address: &str, device: &str) -> Result<(), String> {
        let words = ["neigh", "replace", address, "lladdr", NOBODY, "dev", device, "nud", "permanent"];
        ip(&[at, &words].concat())
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        // The cable goes with the namespace, whose processes have ended by now; or it was left here.
        let _ = ip(&["link", "del", &self.device]);
        let _ = ip(&["netns", "del", &self.name]);
    }
}

fn ip(arguments: &[&str]) -> Result<(), String> {
    let output = Command::new("ip").args(arguments).output().map_err(|error| format!("ip: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!("ip {}: {}", arguments.join(" "), String::from_utf8_lossy(&output.stderr).trim()))
}
