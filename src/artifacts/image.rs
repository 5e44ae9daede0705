//! From a Dockerfile, requirements and sources to an image.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::{Build, BuildError, LockFile};
use crate::image::{
    BaseImage, BaseName, BasePython, BaseRequest, BuildContext, BuiltImage, Bytecode, Dockerfile,
    ImageContents, ImageError, ImagePlan, ImageRequest, PlanOptions, ProjectSource, base_of, build,
    plan_project, project_wheel,
};
use crate::oci::{ImageReference, Repository};
use crate::progress::Event;
use crate::project::{CompressionSetting, ProjectSpec, TestFramework, Version};
use crate::python::PythonError;
use crate::registry::{ImageToPush, Registry, RegistryError, write_archive};
use crate::wheels::{Platform, ResolveRequest, WheelSet, lock_inputs, resolve};

/// What Composer's pods run on. A fixed choice, so that every machine builds the same image.
const PLATFORM: Platform = Platform::LinuxAmd64;

/// What has to be known before layers are made.
pub(super) struct ImageInputs {
    pub(super) base: BaseImage,
    pub(super) plan: ImagePlan,
}

impl Build<'_> {
    /// The Dockerfile's lines and what each means. Asks for the base, builds nothing.
    ///
    /// # Errors
    /// See [`BuildError`].
    pub async fn image_plan(&self) -> Result<&ImagePlan, BuildError> {
        Ok(&self.image_inputs().await?.plan)
    }

    /// Whether the base's meaning is known, so that planning asks no registry for it and writes
    /// nothing into `forebay.lock`.
    ///
    /// # Errors
    /// The Dockerfile, the settings or the lock file cannot be read.
    pub fn base_is_pinned(&self) -> Result<bool, BuildError> {
        let reference = match self.base_name(&self.read_dockerfile()?)? {
            BaseName::Scratch => return Ok(true),
            BaseName::Image(reference) => reference,
        };
        let lock = LockFile::read(&self.workspace.project().directory)?;
        let pinned = lock.base(&reference.to_string(), &PLATFORM.to_string());
        Ok(reference.digest.is_some() || pinned.is_some())
    }

    /// What the image stands on.
    ///
    /// # Errors
    /// See [`BuildError`].
    pub async fn image_base(&self) -> Result<&BaseImage, BuildError> {
        Ok(&self.image_inputs().await?.base)
    }

    /// The base that the environment's settings put in the place of FROM's.
    pub fn replaced_base(&self) -> Option<&str> {
        self.target.settings.base.as_deref()
    }

    /// Builds the image, or finds that it is built.
    ///
    /// # Errors
    /// See [`BuildError`].
    pub async fn image(&self) -> Result<BuiltImage, BuildError> {
        let inputs = self.image_inputs().await?;
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

    /// What is in the image. Builds nothing.
    ///
    /// # Errors
    /// See [`BuildError`].
    pub async fn contents(&self) -> Result<ImageContents, BuildError> {
        let inputs = self.image_inputs().await?;
        self.with_request(inputs, async |request| Ok(ImageContents::of(request)?))
            .await
    }

    /// Gathers all that the image is made of, but for what runs in containers.
    pub(super) async fn with_request<T>(
        &self,
        inputs: &ImageInputs,
        work: impl AsyncFnOnce(&ImageRequest<'_>) -> Result<T, BuildError>,
    ) -> Result<T, BuildError> {
        let wheels = self.wheels().await?;
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
            recompress: project.settings.image.compression == CompressionSetting::Gzip,
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

    /// Writes the project's wheel into `dist/` in place of earlier ones, unless it is there, and
    /// gives its path. No Python is started, and no test is run.
    ///
    /// # Errors
    /// See [`BuildError`].
    pub fn package(&self) -> Result<PathBuf, BuildError> {
        let project = self.workspace.project();
        let repository = project.spec.docker_repository.as_deref();
        let repository = repository.or(self.target.declared_repository());
        let source = project_source(&project.spec, &self.version, repository);
        let context = BuildContext {
            directory: &project.directory,
            tree: self.workspace.tree()?,
        };
        let (name, bytes) = project_wheel(&source, &context, self.workspace.store())?;
        let directory = project.directory.join("dist");
        let path = directory.join(&name);
        if std::fs::read(&path).is_ok_and(|there| there == bytes) {
            return Ok(path);
        }
        let stem = format!("{}-", name.split('-').next().unwrap_or_default());
        write_package(&directory, &stem, &name, &bytes).map_err(|source| ImageError::Io {
            action: format!("cannot write {}", path.display()),
            source,
        })?;
        Ok(path)
    }

    /// The image with the sources of all its blobs.
    ///
    /// # Errors
    /// The base's repository cannot be opened.
    pub fn to_push(&self, image: &BuiltImage) -> Result<ImageToPush, BuildError> {
        let base = match &image.base().repository {
            Some(repository) => Some(self.open_for_reading(repository)?),
            None => None,
        };
        let published = match image.published() {
            Some(repository) => Some(self.open_for_reading(repository)?),
            None => None,
        };
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
    pub async fn export_image(&self, image: &BuiltImage) -> Result<PathBuf, BuildError> {
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

    /// The wheels of the image's requirements: those that are locked; requirements that are
    /// not locked yet, or not in this form, are resolved and locked.
    ///
    /// # Errors
    /// See [`BuildError`].
    pub(super) async fn wheels(&self) -> Result<WheelSet, BuildError> {
        self.resolve_wheels(false).await
    }

    async fn resolve_wheels(&self, refresh: bool) -> Result<WheelSet, BuildError> {
        let inputs = self.image_inputs().await?;
        let directory = &self.workspace.project().directory;
        let paths = |files: &[String]| -> Vec<PathBuf> {
            files.iter().map(|file| directory.join(file)).collect()
        };
        let (files, constraints) = (
            paths(&inputs.plan.requirement_files),
            paths(&inputs.plan.constraint_files),
        );
        let interpreter = self.workspace.interpreter()?;
        let version = interpreter.version;
        let target = inputs.base.target();
        let request = ResolveRequest {
            requirements: &files,
            constraints: &constraints,
            lines: &inputs.plan.requirement_lines,
            target: &target,
            executable: &interpreter.executable,
            version: (version.major, version.minor, version.micro),
            platform: &interpreter.platform,
            locked: None,
            refresh,
        };
        let (store, progress) = (self.workspace.store(), self.workspace.progress().as_ref());
        let Some(digest) = lock_inputs(&request)? else {
            return Ok(resolve(&request, store, progress)?.set);
        };
        let mut lock = LockFile::read(directory)?;
        let locked = lock
            .requirements(&digest, &target)
            .filter(|_| !refresh)
            .map(<[_]>::to_vec);
        if let Some(locked) = locked {
            let request = ResolveRequest {
                locked: Some(&locked),
                ..request
            };
            return Ok(resolve(&request, store, progress)?.set);
        }
        let resolution = resolve(&request, store, progress)?;
        lock.pin_requirements(&digest, &target, resolution.distributions);
        self.write_lock(&lock, "the requirements");
        Ok(resolution.set)
    }

    /// Resolves the requirements again and locks what they come to; gives the number of wheels.
    ///
    /// # Errors
    /// See [`BuildError`].
    pub async fn lock_requirements(&self) -> Result<usize, BuildError> {
        Ok(self.resolve_wheels(true).await?.wheels.len())
    }

    pub(super) async fn image_inputs(&self) -> Result<&ImageInputs, BuildError> {
        self.inputs
            .get_or_try_init(|| async {
                let directory = &self.workspace.project().directory;
                let dockerfile = self.read_dockerfile()?;
                let base = self.base(&dockerfile).await?;
                let context = BuildContext {
                    directory,
                    tree: self.workspace.tree()?,
                };
                let plan = plan_project(&dockerfile, &base, &context, &self.plan_options())?;
                let plan = self.declared_plan(plan, &context)?;
                Ok(ImageInputs { base, plan })
            })
            .await
    }

    pub(super) fn plan_options(&self) -> PlanOptions<'_> {
        let project = self.workspace.project();
        PlanOptions {
            project_requirements: &project.spec.requirements_file,
            hoists_packages: project.settings.engine.hoist_packages,
            replaced_base: self.target.settings.base.as_deref(),
        }
    }

    /// The Dockerfile's base, or what the environment's settings put in its place.
    fn base_name(&self, dockerfile: &Dockerfile) -> Result<BaseName, BuildError> {
        match self.target.settings.base.as_deref() {
            Some("scratch") => Ok(BaseName::Scratch),
            Some(text) => match text.parse() {
                Ok(reference) => Ok(BaseName::Image(reference)),
                Err(source) => Err(BuildError::Base {
                    name: text.to_owned(),
                    source,
                }),
            },
            None => Ok(
                base_of(dockerfile).map_err(|problem| ImageError::Dockerfile {
                    path: self.dockerfile(),
                    problem,
                })?,
            ),
        }
    }

    pub(super) fn dockerfile(&self) -> PathBuf {
        self.workspace.project().directory.join("Dockerfile")
    }

    async fn base(&self, dockerfile: &Dockerfile) -> Result<BaseImage, BuildError> {
        match self.base_name(dockerfile)? {
            BaseName::Scratch => {
                let (major, minor) = self.python_of_scratch()?;
                Ok(BaseImage::scratch(major, minor, PLATFORM))
            }
            BaseName::Image(reference) => self.base_image(reference, false).await,
        }
    }

    /// A base that has no Python is meant for the one in the settings, else for the project's.
    fn python_of_scratch(&self) -> Result<(u8, u8), BuildError> {
        let Some(text) = self.target.settings.python.as_deref() else {
            let version = self.workspace.interpreter()?.version;
            return Ok((version.major, version.minor));
        };
        text.split_once('.')
            .and_then(|(major, minor)| Some((major.parse().ok()?, minor.parse().ok()?)))
            .ok_or_else(|| BuildError::PythonVersion {
                text: text.to_owned(),
            })
    }

    /// The base by the digest that is locked; a tag that is not locked yet, or is to be
    /// looked up anew, is asked for and locked.
    async fn base_image(
        &self,
        reference: ImageReference,
        refresh: bool,
    ) -> Result<BaseImage, BuildError> {
        let directory = &self.workspace.project().directory;
        let registry = self.open_for_reading(&reference.repository)?;
        let (name, platform) = (reference.to_string(), PLATFORM.to_string());
        let mut lock = LockFile::read(directory)?;
        let mut pinned = Vec::new();
        let digest = match reference.digest {
            Some(digest) => digest,
            None => match lock.base(&name, &platform).filter(|_| !refresh) {
                Some(digest) => digest,
                None => {
                    let found = self.resolve_base(&reference, &registry, true, None).await?;
                    let Some(digest) = found.manifest else {
                        return Ok(found);
                    };
                    lock.pin_base(&name, &platform, digest);
                    pinned.push(name.as_str());
                    digest
                }
            },
        };
        let reference = ImageReference {
            digest: Some(digest),
            ..reference
        };
        let known = lock.python(&digest).cloned();
        let is_known = known.is_some();
        let base = self
            .resolve_base(&reference, &registry, false, known)
            .await?;
        if !is_known && !base.says_its_python() {
            // Nobody else has to read the layers for it.
            lock.pin_python(&digest, base.python.clone());
            pinned.push("the base's Python");
        }
        if !pinned.is_empty() {
            self.write_lock(&lock, &pinned.join(" and "));
        }
        Ok(base)
    }

    async fn resolve_base(
        &self,
        reference: &ImageReference,
        registry: &Arc<dyn Registry>,
        refresh: bool,
        known_python: Option<BasePython>,
    ) -> Result<BaseImage, BuildError> {
        let request = BaseRequest {
            reference,
            registry,
            platform: PLATFORM,
            refresh,
            known_python,
        };
        Ok(BaseImage::resolve(&request, self.workspace.store()).await?)
    }

    /// A folder that cannot be written must not stop a build.
    pub(super) fn write_lock(&self, lock: &LockFile, name: &str) {
        let report = match lock.write() {
            Ok(()) => format!("pinned {name} in {}; commit that file", LockFile::NAME),
            Err(error) => format!("{error}: what {name} means is not pinned, and may change"),
        };
        self.workspace.progress().report(Event::Warning(report));
    }

    /// Asks the registry anew what the Dockerfile's base is, and locks the answer.
    ///
    /// # Errors
    /// See [`BuildError`].
    pub async fn lock_base(&self) -> Result<Option<(ImageReference, BaseImage)>, BuildError> {
        let dockerfile = self.read_dockerfile()?;
        match self.base_name(&dockerfile)? {
            BaseName::Scratch => Ok(None),
            BaseName::Image(reference) => {
                let base = self.base_image(reference.clone(), true).await?;
                self.forget_compiler(&base)?;
                self.compiler(&base)?;
                Ok(Some((reference, base)))
            }
        }
    }
}

/// The new wheel first, then earlier ones go: BigFlow's Dockerfiles install `dist/*.whl`.
fn write_package(directory: &Path, stem: &str, name: &str, bytes: &[u8]) -> std::io::Result<()> {
    std::fs::create_dir_all(directory)?;
    let mut file = tempfile::NamedTempFile::new_in(directory)?;
    std::io::Write::write_all(&mut file, bytes)?;
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o644);
    file.as_file().set_permissions(mode)?;
    file.persist(directory.join(name))?;
    for entry in std::fs::read_dir(directory)? {
        let entry = entry?;
        let other = entry.file_name();
        let other = other.to_string_lossy();
        if other != name && other.starts_with(stem) && other.ends_with(".whl") {
            std::fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

fn project_source<'a>(
    spec: &'a ProjectSpec,
    version: &'a Version,
    docker_repository: Option<&'a str>,
) -> ProjectSource<'a> {
    // Only a release tag's version is content; between tags it moves with every commit.
    let is_release = !version.as_str().contains('+');
    ProjectSource {
        name: spec.name.as_str(),
        version: is_release.then_some(version.as_str()),
        packages: &spec.packages,
        resources_directory: &spec.resources_directory,
        requirements_file: &spec.requirements_file,
        requires: spec.requires.as_deref(),
        deployment_config_file: &spec.deployment_config_file,
        docker_repository,
        test_framework: match spec.test_framework {
            TestFramework::Unittest => "unittest",
            TestFramework::Pytest => "pytest",
        },
        export_image_tar: spec.export_image_tar,
        data_files: &spec.data_files,
        metadata: &spec.metadata,
        setuptools: &spec.setuptools,
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
