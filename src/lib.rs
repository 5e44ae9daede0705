//! Forebay deploys BigFlow projects: it hashes a project's sources into
//! content-addressed artifacts, uploads only what the registry and the bucket
//! lack, records what is live in every environment, and rolls back.
//!
//! `docs/architecture.md` says how the rooms fit together. Imports point
//! downward only, in the order of this list: a module uses those below it.

pub mod cli;

pub mod report;

pub mod ui;

pub mod artifacts;
pub mod develop;
pub mod environment;

pub mod dags;
pub mod image;

pub mod wheels;

pub mod project;

pub mod python;

pub mod cache;

pub mod bucket;
pub mod registry;

pub mod credentials;
pub mod http;
pub mod interruption;
pub mod oci;

pub mod clock;
#[cfg(any(test, fuzzing))]
pub mod fuzzing;
pub mod progress;
