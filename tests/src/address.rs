//! Loopback addresses, one for each daemon and host, so that every one of them can listen on its well-known port.
//!
//! Tests run side by side in threads and in processes, and must not hand out an address twice. The kernel arbitrates:
//! an address is ours for as long as we hold a listener on its reservation port.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Result, bail};

/// Addresses come from 127.64.0.0/10: far from the ones that people and distributions use (127.0.0.1, 127.0.1.1, 127.0.0.53).
const FIRST: u32 = 0x7f40_0000;
const COUNT: u32 = 0x0040_0000;

/// The port whose listener is the reservation; nothing real listens on it (tcpmux).
const RESERVATION_PORT: u16 = 1;

/// An address in 127.0.0.0/8 that no other test has, until the last clone is dropped.
#[derive(Clone, Debug)]
pub struct Address {
    ip: Ipv4Addr,
    _reservation: Arc<TcpListener>,
}

impl Address {
    /// Reserves the next free address.
    pub fn reserve() -> Result<Self> {
        /// Where this process looks next. Processes start apart from each other, so that an address whose daemon was
        /// leaked by a killed test is not the first that the next test is given.
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let start = std::process::id().wrapping_mul(613);
        for _ in 0..10_000 {
            let offset = start.wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed)) % COUNT;
            let ip = Ipv4Addr::from(FIRST + offset);
            if matches!(ip.octets()[3], 0 | 255) {
                continue;
            }
            if let Ok(reservation) = TcpListener::bind((ip, RESERVATION_PORT)) {
                return Ok(Self { ip, _reservation: Arc::new(reservation) });
            }
        }
        bail!("no free address in 127.64.0.0/10: can this process listen on port {RESERVATION_PORT} (root)?")
    }

    /// The address itself.
    #[must_use]
    pub fn ip(&self) -> IpAddr {
        IpAddr::V4(self.ip)
    }

    /// The address with a port.
    #[must_use]
    pub fn port(&self, port: u16) -> SocketAddr {
        SocketAddr::new(self.ip(), port)
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.ip.fmt(f)
    }
}
