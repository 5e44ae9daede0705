//! See [`crate::fuzzing`].
#![allow(missing_docs)]

use super::read_dag_file;

/// A DAG file that another program left is refused, or read by its comments.
pub fn dag_file(bytes: &[u8]) {
    let _ = read_dag_file("hello__v0_1__2024_01_01_00_00_00_dag.py", bytes.to_vec());
}
