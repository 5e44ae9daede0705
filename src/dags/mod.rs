//! From workflows to DAG files.
//!
//! The project's Python runs once, to find the workflows ([`probe()`]); the files are
//! written in Rust ([`render()`]), so that a new version, image or start time needs no
//! Python.

mod answer;
mod bigflow_format;
mod default_format;
mod error;
mod folder;
mod inputs;
mod modules;
mod probe;
mod render;
mod start_time;
mod workflow;

pub use crate::project::{DagFormat, JobId, WorkflowId};
pub use error::{ImportFailure, Place, ProbeError};
pub use folder::{FolderError, write_folder};
pub use probe::{ProbeRequest, probe};
pub use render::{DagFile, DagFileName, InvalidDagFileName, RenderContext, RenderError, render};
pub use start_time::{InvalidStartTime, StartTime};
pub use workflow::{
    Job, PythonLiteral, Schedule, ScheduleKind, SecretReference, StartDate, Workflow,
};
