//! The Python that runs the project's code.

use super::arguments::{
    AuthenticationArguments, BuildArguments, CacheArguments, ConfigArguments, ImageArguments,
    RepositoryArguments,
};
use super::context::Context;
use super::services::LazyServices;
use crate::artifacts::{Build, BuildError, Workspace};
use crate::develop::ProjectPython;
use crate::ui::CommandError;

/// The project's Python, with all that its code imports.
pub(super) fn project_python(
    context: &Context,
    workspace: &Workspace,
    config: &ConfigArguments,
    authentication: &AuthenticationArguments,
) -> Result<ProjectPython, CommandError> {
    let interpreter = workspace.interpreter().map_err(BuildError::from)?;
    let import_paths = if interpreter.bigflow.is_some() {
        Vec::new()
    } else {
        let arguments = BuildArguments {
            config: config.clone(),
            repository: RepositoryArguments::default(),
            authentication: authentication.clone(),
            cache: CacheArguments::default(),
            image: ImageArguments::default(),
        };
        let (target, services) = LazyServices::of_build(workspace, &arguments)?;
        let open = services.opener();
        let build = Build::new(workspace, &target, &open)?;
        context.block_on(async { Ok(build.import_paths(&interpreter).await?) })?
    };
    Ok(ProjectPython {
        interpreter,
        import_paths,
        directory: workspace.project().directory.clone(),
    })
}
