//! A world in memory for tests of environments: bucket, registry, machines, and faults at any
//! numbered call.
#![allow(dead_code)]

#[path = "fake_bucket.rs"]
pub(crate) mod fake_bucket;
#[path = "fake_registry.rs"]
pub(crate) mod fake_registry;
#[path = "faults.rs"]
pub(crate) mod faults;
#[path = "world.rs"]
pub(crate) mod world;
