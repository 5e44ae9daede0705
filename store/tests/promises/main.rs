//! What a store promises, through its public interface.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod collect;
mod common;
mod damage;
mod objects;
mod processes;
mod properties;
mod scan;
mod tools;
