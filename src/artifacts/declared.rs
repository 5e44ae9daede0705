//! The image as `[tool.forebay.image]` describes it, and how a Dockerfile becomes such a section.

use std::path::PathBuf;

use super::{Build, BuildError};
use crate::image::{
    BuildContext, Dockerfile, ImageError, ImagePlan, base_of, declaration_of, declaration_text,
    declared_dockerfile, plan_project, read_dockerfile, with_declared_requirements,
};
use crate::progress::Event;

impl Build<'_> {
    /// What the image is made by: the settings if they describe one, else the Dockerfile.
    ///
    /// # Errors
    /// A Dockerfile that is not there, or settings that describe no image.
    pub(super) fn read_dockerfile(&self) -> Result<Dockerfile, BuildError> {
        let settings = &self.workspace.project().settings.image;
        let Some(text) = declared_dockerfile(settings)? else {
            return Ok(read_dockerfile(&self.dockerfile())?);
        };
        if self.dockerfile().exists() {
            self.workspace.progress().report(Event::Warning(
                "the Dockerfile is not read: [tool.forebay.image] in pyproject.toml describes the image"
                    .to_owned(),
            ));
        }
        parsed(&text)
    }

    /// The requirements that the settings name, where they describe the image.
    ///
    /// # Errors
    /// One that is not in the project's folder.
    pub(super) fn declared_plan(
        &self,
        plan: ImagePlan,
        context: &BuildContext<'_>,
    ) -> Result<ImagePlan, BuildError> {
        let plan = with_declared_requirements(plan, &self.workspace.project().settings.image);
        for file in &plan.requirement_files {
            if context.tree.get(file).is_none() {
                return Err(ImageError::NotInContext { path: file.clone() }.into());
            }
        }
        Ok(plan)
    }

    /// The section of pyproject.toml that says what the Dockerfile says. That it does is proved by
    /// planning both.
    ///
    /// # Errors
    /// A line that needs a container, or something that settings have no word for.
    pub async fn declaration(&self) -> Result<String, BuildError> {
        let inputs = &self.image_inputs().await?.first;
        let plan = inputs.plan.clone();
        let dockerfile = read_dockerfile(&self.dockerfile())?;
        let base = base_of(&dockerfile).map_err(|problem| self.refused(problem))?;
        let settings = declaration_of(&plan, &base)?;
        let text = declared_dockerfile(&settings)?.unwrap_or_default();
        let context = BuildContext {
            directory: &self.workspace.project().directory,
            tree: self.workspace.tree()?,
        };
        let again = plan_project(
            &parsed(&text)?,
            &inputs.base,
            &context,
            &self.plan_options(),
        )?;
        let again = with_declared_requirements(again, &settings);
        match difference(&plan, &again) {
            None => Ok(declaration_text(&settings)),
            Some(what) => Err(self
                .refused(format!("{what}, which the settings cannot say exactly so"))
                .into()),
        }
    }

    fn refused(&self, problem: String) -> ImageError {
        ImageError::Dockerfile {
            path: self.dockerfile(),
            problem,
        }
    }

    /// The project's pyproject.toml.
    fn settings_file(&self) -> PathBuf {
        self.workspace.project().directory.join("pyproject.toml")
    }

    /// Whether pyproject.toml has the section already.
    pub fn has_image_section(&self) -> bool {
        let text = std::fs::read_to_string(self.settings_file()).unwrap_or_default();
        let table: toml::Table = text.parse().unwrap_or_default();
        let forebay = table.get("tool").and_then(|tool| tool.get("forebay"));
        forebay.is_some_and(|forebay| forebay.get("image").is_some())
    }
}

fn parsed(text: &str) -> Result<Dockerfile, BuildError> {
    Dockerfile::parse(text).map_err(|error| {
        ImageError::Project {
            problem: format!("[tool.forebay.image]: {error}"),
        }
        .into()
    })
}

/// What two plans do not agree in, leaving aside files that only pip needs.
fn difference(one: &ImagePlan, two: &ImagePlan) -> Option<&'static str> {
    use std::collections::BTreeMap;

    use crate::image::Step;
    let files = |plan: &ImagePlan| -> BTreeMap<String, String> {
        let copied = plan.steps.iter().filter_map(|step| match step {
            Step::Copy { files, .. } => Some(files),
            _ => None,
        });
        copied
            .flatten()
            .filter(|file| !plan.requirement_files.contains(&file.from))
            .map(|file| (file.to.clone(), file.from.clone()))
            .collect()
    };
    let sorted = |plan: &ImagePlan| -> BTreeMap<String, String> {
        plan.settings.environment.iter().cloned().collect()
    };
    let mut settings = two.settings.clone();
    settings.environment.clone_from(&one.settings.environment);
    if files(one) != files(two) {
        Some("its COPY lines bring other files")
    } else if (&one.requirement_files, &one.requirement_lines)
        != (&two.requirement_files, &two.requirement_lines)
    {
        Some("its pip lines install other requirements")
    } else if sorted(one) != sorted(two) {
        Some("its ENV lines set other values")
    } else if one.settings != settings {
        Some("its other settings differ")
    } else if one.steps.contains(&Step::Project) != two.steps.contains(&Step::Project) {
        Some("it does not install the project")
    } else {
        None
    }
}
