//! The view of a step: its directory and socket, its credentials, and the commands that run inside it. A test belongs
//! here if a step, or a tool inside a step, sends the request.

mod children;
mod clients;
mod directories;
mod exec;
mod following;
mod formats;
pub mod forwarding;
pub mod helpers;
mod injecting;
mod leases;
mod masking;
mod relay;
mod resolve;
mod shared_writes;
mod sockets;
mod tools;
mod watch;
