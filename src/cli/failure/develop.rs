//! What developers' commands fail with.

use super::store::{store_exit, store_next};
use crate::develop::DevelopError;
use crate::ui::{CommandError, Exit};

impl From<DevelopError> for CommandError {
    fn from(error: DevelopError) -> Self {
        let exit = match &error {
            DevelopError::JobName { .. }
            | DevelopError::Runtime { .. }
            | DevelopError::PackageName { .. }
            | DevelopError::Exists { .. } => Exit::Usage,
            DevelopError::Store(error) => store_exit(error),
            _ => Exit::Failed,
        };
        let failure = Self::from_error(exit, &error);
        match &error {
            DevelopError::JobName { .. } => failure.next("for example --job my_workflow.my_job"),
            DevelopError::Runtime { .. } => {
                failure.next("write it as 2024-01-31 or \"2024-01-31 06:00:00\"")
            }
            DevelopError::TestsFailed { report: Some(path) } => failure
                .next(format!("what failed is above, and in {}", path.display())),
            DevelopError::TestsFailed { report: None } => {
                failure.next("what the tests printed is above")
            }
            DevelopError::NoTestRunner { module, .. } => failure.next(match *module {
                "pytest" => "install pytest into the project's Python",
                _ => "install unittest-xml-reporting into the project's Python",
            }),
            DevelopError::NoCompiler => {
                failure.next("install uv, or pip-tools into the project's Python")
            }
            DevelopError::Compile { .. } => failure.next(
                "mend the requirements, or name a Python that they fit with --python; the old file is untouched",
            ),
            DevelopError::PackageName { .. } => {
                failure.next("use letters, digits and _, and no digit at the beginning")
            }
            DevelopError::Exists { .. } => failure.next("choose another name, or another folder"),
            DevelopError::Store(error) => failure.next(store_next(error)),
            DevelopError::Wheels(_) => failure.next(
                "install bigflow==1.11.3 and 'setuptools<82' into a Python, and name it with --python",
            ),
            DevelopError::Start { .. } | DevelopError::Python(_) => {
                failure.next("name the project's Python with --python")
            }
            DevelopError::File { source, path, .. } if source.kind() == std::io::ErrorKind::NotFound => {
                failure.next(format!("write {}, or name another file", path.display()))
            }
            DevelopError::File { .. } => failure.next("mend what stands in the way, and run the command again"),
            DevelopError::Scaffold { .. } => failure.next(
                "use a Python that BigFlow 1.11 runs on, 3.8 to 3.12, with setuptools below 82",
            ),
        }
    }
}
