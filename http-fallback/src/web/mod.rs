//! Browsers: pages, downloads, uploads and links.
//!
//! Two processes share the work. The *front* holds TLS, cookies, tokens and links, and makes the pages; it touches no file
//! of a user. The *worker* ([`service`]) runs with the rights of one user, has the user's [`Docroot`] and hears nothing but
//! plain requests for paths, over connections that the front hands to it ([`handover`]).
//!
//! [`Docroot`]: haul_io::disk::Docroot

pub mod assets;
pub mod body;
pub mod date;
pub mod disposition;
pub mod download;
mod form;
pub mod handover;
pub mod html;
pub mod listing;
pub mod pages;
pub mod percent;
pub mod range;
pub mod service;
pub mod sessions;
pub mod shares;
pub mod store;
pub mod token;
pub mod upload;
pub mod zip;
