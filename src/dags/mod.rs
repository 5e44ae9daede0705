//! From workflows to DAG files.
//!
//! The project's Python runs once, to find the workflows ([`probe()`]); the files are
//! written in Rust ([`render()`]), so that a new version, image or start time needs no
//! Python.

mod bigflow_format;
mod default_format;
mod folder;
mod render;
mod start_time;
mod workflow;

pub use crate::project::{DagFormat, JobId, WorkflowId};
pub use folder::{FolderError, write_folder};
pub use render::{DagFile, DagFileName, InvalidDagFileName, RenderContext, RenderError, render};
pub use start_time::{InvalidStartTime, StartTime};
pub use workflow::{
    Job, PythonLiteral, Schedule, ScheduleKind, SecretReference, StartDate, Workflow,
};
