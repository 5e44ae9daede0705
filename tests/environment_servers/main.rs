//! The program itself over Debian's `docker-registry` and `fake-gcs-server`. What is there
//! afterwards is asserted by a client of its own.
//!
//! Killed with SIGKILL amid a deploy, and what then becomes of it; and what is told, brought back,
//! pruned and unlocked.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr
)]

#[path = "../support/docker_registry.rs"]
#[allow(dead_code)]
mod docker_registry;
#[path = "../support/emulator.rs"]
#[allow(dead_code)]
mod emulator;
#[path = "../support/faulty_proxy.rs"]
#[allow(dead_code)]
mod faulty_proxy;
#[path = "../support/forebay.rs"]
#[allow(dead_code)]
mod forebay_support;
#[path = "../support/schema.rs"]
mod schema;
#[path = "../support/two_workflows.rs"]
mod two_workflows;

mod cached;
mod killed;
mod scene;
mod taken_back;
mod told;
