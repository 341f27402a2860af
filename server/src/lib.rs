//! hauld, the server of haul: the SSH front, authentication, admission, the start of one worker process a session, and
//! the configuration. Byte layouts and transfer decisions are not here but in `haul-proto`, files and UDP in `haul-io`.
//!
//! The way of a connection: [`listener`] accepts, `admission` allows, [`ssh`] converses, `auth` decides who it is,
//! `worker` starts `hauld session` and bridges it to the SSH channel; [`session`] is that worker.

mod admission;
mod auth;
mod authorize;
mod authorized_keys;
mod carriers;
mod certificate;
pub mod cli;
pub mod config;
mod conversation;
mod deadline;
mod demo;
mod doors;
pub mod error;
mod front;
pub mod host_key;
pub mod https;
pub mod listener;
mod logging;
mod password;
pub mod policy;
mod private_file;
pub mod privileges;
mod revoked;
mod serve;
pub mod session;
pub(crate) mod shares;
mod source_pattern;
mod speaker;
pub mod ssh;
mod ssh_settings;
mod trusted_file;
mod udp_port;
mod web;
mod worker;
