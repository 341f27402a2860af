//! The server's part of the pages: starts the workers that have the files, and is one of them. What browsers see is in
//! `haul-http-fallback`.

pub(crate) mod worker;
