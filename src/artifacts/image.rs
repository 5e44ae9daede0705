//! From a Dockerfile, requirements and sources to an image.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use super::package::project_source;
use super::{Build, BuildError};
use crate::image::{
    BaseImage, BuildContext, BuiltImage, BuiltImages, Bytecode, Dockerfile, ImageContents,
    ImagePlan, ImageRequest, PlanOptions, build, plan_project,
};
use crate::oci::Repository;
use crate::python::PythonError;
use crate::registry::{ImageToPush, Registry, RegistryError, write_archive};
use crate::wheels::Platform;

/// What Composer's pods run on. A fixed choice, so that every machine builds the same image.
const USUAL_PLATFORM: Platform = Platform::LinuxAmd64;

/// What has to be known of one image before its layers are made.
pub(super) struct ImageInputs {
    pub(super) base: BaseImage,
    pub(super) plan: ImagePlan,
}

/// The same for each platform, in the order of the platforms.
pub(super) struct AllInputs {
    pub(super) first: ImageInputs,
    pub(super) others: Vec<ImageInputs>,
}

impl AllInputs {
    pub(super) fn all(&self) -> impl Iterator<Item = &ImageInputs> {
        std::iter::once(&self.first).chain(&self.others)
    }
}

impl Build<'_> {
    /// What is built for: what the command line says, else the settings, else `linux/amd64`.
    /// Sorted, so that the order in which they are written is no content.
    ///
    /// # Errors
    /// A platform in the settings that is not known.
    pub(super) fn platforms(&self) -> Result<Vec<Platform>, BuildError> {
        let written = &self.workspace.project().settings.image.platforms;
        let mut platforms = self.options.platforms.clone();
        if platforms.is_empty() {
            let parsed = written.iter().map(|text| text.parse::<Platform>());
            platforms = parsed.collect::<Result<_, _>>()?;
        }
        if platforms.is_empty() {
            platforms.push(USUAL_PLATFORM);
        }
        platforms.sort();
        platforms.dedup();
        Ok(platforms)
    }

    /// The Dockerfile's lines and what each means, and what the image stands on; for each
    /// platform. Asks for the bases, builds nothing.
    ///
    /// # Errors
    /// See [`BuildError`].
    pub async fn image_plans(&self) -> Result<Vec<(&ImagePlan, &BaseImage)>, BuildError> {
        let inputs = self.image_inputs().await?.all();
        Ok(inputs.map(|one| (&one.plan, &one.base)).collect())
    }

    /// The base that the environment's settings put in the place of FROM's.
    pub fn replaced_base(&self) -> Option<&str> {
        self.target.settings.base.as_deref()
    }

    /// Builds the image, or finds that it is built; for several platforms an index of images.
    ///
    /// # Errors
    /// See [`BuildError`].
    pub async fn image(&self) -> Result<BuiltImages, BuildError> {
        let inputs = self.image_inputs().await?;
        // What one platform cannot have is found out before layers are made for another.
        if !inputs.others.is_empty() {
            for one in inputs.all() {
                self.wheels(one)?;
            }
        }
        let first = self.image_of(&inputs.first).await?;
        let mut others = Vec::new();
        for one in &inputs.others {
            others.push(self.image_of(one).await?);
        }
        Ok(BuiltImages::new(first, others, self.workspace.store())?)
    }

    async fn image_of(&self, inputs: &ImageInputs) -> Result<BuiltImage, BuildError> {
        self.with_request(inputs, async |request| {
            let containers = self.containers(inputs, request).await?;
            let request = ImageRequest {
                container_layers: &containers.layers,
                published: containers.published.as_ref(),
                ..*request
            };
            let progress = self.workspace.progress().as_ref();
            Ok(build(&request, self.workspace.store(), progress)?)
        })
        .await
    }

    /// What is in the image; of several platforms what is in the first one's. Builds nothing.
    ///
    /// # Errors
    /// See [`BuildError`].
    pub async fn contents(&self) -> Result<ImageContents, BuildError> {
        let inputs = &self.image_inputs().await?.first;
        self.with_request(inputs, async |request| Ok(ImageContents::of(request)?))
            .await
    }

    /// Gathers all that the image is made of, but for what runs in containers.
    pub(super) async fn with_request<T>(
        &self,
        inputs: &ImageInputs,
        work: impl AsyncFnOnce(&ImageRequest<'_>) -> Result<T, BuildError>,
    ) -> Result<T, BuildError> {
        let wheels = self.wheels(inputs)?;
        let own_wheel = self.own_wheel(&inputs.base.target()).await?;
        let project = self.workspace.project();
        let labels = BTreeMap::from([(
            "org.opencontainers.image.title".to_owned(),
            project.spec.name.to_string(),
        )]);
        let repository = project.spec.docker_repository.as_deref();
        let source = project_source(
            &project.spec,
            &self.version,
            repository.or(self.target.declared_repository()),
        );
        let base = &inputs.base;
        let version = (base.python.major, base.python.minor);
        let fingerprint = self.compiler(base)?;
        let interpreter = || match &fingerprint {
            Some(fingerprint) => self.find_compiler(version, fingerprint),
            None => Err(PythonError::NotFound),
        };
        let request = ImageRequest {
            plan: &inputs.plan,
            base: &inputs.base,
            container_layers: &[],
            published: None,
            wheels: &wheels,
            context: BuildContext {
                directory: &project.directory,
                tree: self.workspace.tree()?,
            },
            project: &source,
            project_wheel: own_wheel.as_ref(),
            compression: project.settings.image.compression,
            bytecode: fingerprint.map(|fingerprint| Bytecode {
                version,
                fingerprint,
                interpreter: &interpreter,
            }),
            labels: &labels,
            created: source_date_epoch()?,
        };
        work(&request).await
    }

    /// All images with the sources of their blobs.
    ///
    /// # Errors
    /// A repository cannot be opened that has layers of them.
    pub fn to_push(&self, images: &BuiltImages) -> Result<ImageToPush, BuildError> {
        images.to_push(|image| self.one_to_push(image))
    }

    /// An image with the sources of all its blobs.
    pub(super) fn one_to_push(&self, image: &BuiltImage) -> Result<ImageToPush, BuildError> {
        let open = |repository: Option<&Repository>| {
            let opened = repository.map(|repository| self.open_for_reading(repository));
            opened.transpose()
        };
        let base = open(image.base().repository.as_ref())?;
        let published = open(image.published())?;
        Ok(image.to_push(self.workspace.store(), base, published))
    }

    /// A layout's relative folder is seen from the project.
    pub(super) fn open_for_reading(
        &self,
        repository: &Repository,
    ) -> Result<Arc<dyn Registry>, BuildError> {
        let directory = &self.workspace.project().directory;
        Ok((self.open)(&repository.clone().relative_to(directory))?)
    }

    /// Writes the image to `.image/image-VERSION.tar`, as BigFlow names it, and gives the
    /// path. Layers of the base are downloaded for it.
    ///
    /// # Errors
    /// See [`BuildError`].
    pub async fn export_image(&self, image: &BuiltImages) -> Result<PathBuf, BuildError> {
        let name = format!("image-{}.tar", self.version);
        let path = self.workspace.project().directory.join(".image").join(name);
        let names = match self.target.repository() {
            Ok(Repository::Registry { .. }) => vec![self.image_by_tag()?],
            // No loader knows a layout's path as a name.
            _ => Vec::new(),
        };
        let (image, file) = (self.to_push(image)?, path.clone());
        tokio::task::spawn_blocking(move || write_archive(&image, &names, &file))
            .await
            .map_err(|error| RegistryError::Io {
                action: format!("cannot write {}", path.display()),
                source: std::io::Error::other(error),
            })??;
        Ok(path)
    }

    pub(super) async fn image_inputs(&self) -> Result<&AllInputs, BuildError> {
        self.inputs
            .get_or_try_init(|| async {
                let dockerfile = self.read_dockerfile()?;
                let platforms = self.platforms()?;
                let (first, rest) = platforms.split_first().unwrap_or((&USUAL_PLATFORM, &[]));
                let first = self.inputs_of(&dockerfile, *first).await?;
                let mut others = Vec::new();
                for platform in rest {
                    others.push(self.inputs_of(&dockerfile, *platform).await?);
                }
                Ok(AllInputs { first, others })
            })
            .await
    }

    async fn inputs_of(
        &self,
        dockerfile: &Dockerfile,
        platform: Platform,
    ) -> Result<ImageInputs, BuildError> {
        let base = self.base(dockerfile, platform).await?;
        let context = BuildContext {
            directory: &self.workspace.project().directory,
            tree: self.workspace.tree()?,
        };
        let plan = plan_project(dockerfile, &base, &context, &self.plan_options())?;
        let plan = self.declared_plan(plan, &context)?;
        Ok(ImageInputs { base, plan })
    }

    pub(super) fn plan_options(&self) -> PlanOptions<'_> {
        let project = self.workspace.project();
        PlanOptions {
            project_requirements: &project.spec.requirements_file,
            hoists_packages: project.settings.engine.hoist_packages,
            replaced_base: self.target.settings.base.as_deref(),
        }
    }
}

/// `SOURCE_DATE_EPOCH`: when the image says it was made, in seconds since 1970.
fn source_date_epoch() -> Result<Option<i64>, BuildError> {
    match std::env::var("SOURCE_DATE_EPOCH") {
        Ok(text) if !text.is_empty() => match text.parse() {
            Ok(seconds) => Ok(Some(seconds)),
            Err(_) => Err(BuildError::SourceDateEpoch { text }),
        },
        _ => Ok(None),
    }
}
