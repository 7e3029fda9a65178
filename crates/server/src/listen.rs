//! Listening sockets and the descriptors that everything they accept will need.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, TcpKeepalive, Type};

/// Descriptors kept for listeners, event loops, logs, configuration files and newcomers that are only told to go.
pub const DESCRIPTORS_RESERVED: u64 = 64 + crate::gate::TURNED_AWAY_MAX as u64;

/// Connections that may wait to be accepted. The kernel cuts it to `net.core.somaxconn`.
const BACKLOG: i32 = 16_384;
/// Bytes the kernel may hold for one slow reader; the rest waits in our own outbox, where it is counted.
const SEND_BUFFER_BYTES: usize = 128 * 1024;
/// A peer that acknowledges nothing for so long is gone.
const USER_TIMEOUT: Duration = Duration::from_secs(30);
const KEEPALIVE_IDLE: Duration = Duration::from_secs(60);

/// Opens a listening socket. Its options are inherited by every accepted connection, which saves as many system calls.
pub(crate) fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if address.is_ipv6() {
        // `::` serves IPv4 as well, as people expect of "all addresses".
        socket.set_only_v6(false)?;
    }
    socket.set_reuse_address(true)?;
    socket.set_tcp_nodelay(true)?;
    socket.set_tcp_keepalive(&TcpKeepalive::new().with_time(KEEPALIVE_IDLE))?;
    socket.set_tcp_user_timeout(Some(USER_TIMEOUT))?;
    socket.set_send_buffer_size(SEND_BUFFER_BYTES)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// Raises the limit of open files as far as this process may, and answers it.
///
/// # Errors
/// When the limit cannot be read.
pub fn open_file_limit() -> io::Result<u64> {
    rlimit::increase_nofile_limit(u64::MAX)
}
