//! The server's part of the pages: who is signed in, what is shared, and which worker has the files. The pages themselves
//! and the worker's service are in `haul-http-fallback`.
//!
//! The way of a request: [`site`] finds out who asks and what for; [`proxy`] hands it to the worker of that user, which
//! [`pool`] has started; the answer is passed on, or a page is made of it. Cookies and tokens stay in this process.

mod account;
pub(crate) mod command;
mod files;
pub(crate) mod pool;
mod proxy;
mod reply;
mod shared;
pub(crate) mod site;
pub(crate) mod worker;
