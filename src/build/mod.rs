//! From a project and one of its environments to artifacts: the glue between
//! configuration, wheels, image and DAG files.

mod lock;

pub use lock::{LockError, LockFile};
