//! Signs of life for a process manager, from the engine's runtime: they stop when it does, and not while a handler holds
//! the interpreter.

use std::io;
use std::os::unix::net::UnixDatagram;

use pyo3::prelude::*;
use tokio::time::sleep;

use crate::host::runtime::runtime;
use crate::host::seconds::seconds;

/// Says `WATCHDOG=1` each `interval` seconds to the socket of this name, which is a path, or begins with `@`.
#[pyfunction]
pub(crate) fn keep_watchdog(name: &str, interval: f64) -> PyResult<()> {
    let interval = seconds("interval", interval)?;
    let socket = connected(name)?;
    runtime().spawn(async move {
        loop {
            // The manager may be restarting.
            let _ = socket.send(b"WATCHDOG=1");
            sleep(interval).await;
        }
    });
    Ok(())
}

fn connected(name: &str) -> io::Result<UnixDatagram> {
    let socket = UnixDatagram::unbound()?;
    socket.set_nonblocking(true)?;
    match name.strip_prefix('@') {
        Some(name) => connect_abstract(&socket, name)?,
        None => socket.connect(name)?,
    }
    Ok(socket)
}

#[cfg(target_os = "linux")]
fn connect_abstract(socket: &UnixDatagram, name: &str) -> io::Result<()> {
    use std::os::linux::net::SocketAddrExt;
    use std::os::unix::net::SocketAddr;

    socket.connect_addr(&SocketAddr::from_abstract_name(name)?)
}

#[cfg(not(target_os = "linux"))]
fn connect_abstract(_: &UnixDatagram, _: &str) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}
