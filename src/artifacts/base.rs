//! What an image stands on: by the digest that is locked, for each platform.

use std::path::PathBuf;

use super::{Build, BuildError, LockFile};
use crate::image::{BaseImage, BaseName, BaseRequest, Dockerfile, ImageError, base_of};
use crate::oci::ImageReference;
use crate::progress::Event;
use crate::wheels::Platform;

impl Build<'_> {
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

    /// What the image for `platform` stands on.
    pub(super) async fn base(
        &self,
        dockerfile: &Dockerfile,
        platform: Platform,
    ) -> Result<BaseImage, BuildError> {
        match self.base_name(dockerfile)? {
            BaseName::Scratch => {
                let (major, minor) = self.python_of_scratch()?;
                Ok(BaseImage::scratch(major, minor, platform))
            }
            BaseName::Image(reference) => self.base_image(reference, platform, false).await,
        }
    }

    /// Whether what the base means is known for each platform, so that planning asks no registry
    /// for it and writes nothing into `forebay.lock`.
    ///
    /// # Errors
    /// The Dockerfile, the settings or the lock file cannot be read.
    pub fn base_is_pinned(&self) -> Result<bool, BuildError> {
        let reference = match self.base_name(&self.read_dockerfile()?)? {
            BaseName::Scratch => return Ok(true),
            BaseName::Image(reference) => reference,
        };
        let lock = LockFile::read(&self.workspace.project().directory)?;
        let name = reference.to_string();
        let mut platforms = self.platforms()?.into_iter();
        let are_pinned = platforms.all(|one| lock.base(&name, &one.to_string()).is_some());
        Ok(reference.digest.is_some() || are_pinned)
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
        platform: Platform,
        refresh: bool,
    ) -> Result<BaseImage, BuildError> {
        let directory = &self.workspace.project().directory;
        let registry = self.open_for_reading(&reference.repository)?;
        let (name, of_platform) = (reference.to_string(), platform.to_string());
        let request = BaseRequest {
            reference: &reference,
            registry: &registry,
            platform,
            refresh: true,
            known_python: None,
        };
        let store = self.workspace.store();
        let mut lock = LockFile::read(directory)?;
        let mut pinned = Vec::new();
        let digest = match reference.digest {
            Some(digest) => digest,
            None => match lock.base(&name, &of_platform).filter(|_| !refresh) {
                Some(digest) => digest,
                None => {
                    let found = BaseImage::resolve(&request, store).await?;
                    let Some(digest) = found.manifest else {
                        return Ok(found);
                    };
                    lock.pin_base(&name, &of_platform, digest);
                    pinned.push(name.as_str());
                    digest
                }
            },
        };
        let by_digest = ImageReference {
            digest: Some(digest),
            ..reference.clone()
        };
        let known = lock.python(&digest).cloned();
        let is_known = known.is_some();
        let request = BaseRequest {
            reference: &by_digest,
            refresh: false,
            known_python: known,
            ..request
        };
        let base = BaseImage::resolve(&request, store).await?;
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

    /// A folder that cannot be written must not stop a build.
    pub(super) fn write_lock(&self, lock: &LockFile, name: &str) {
        let report = match lock.write() {
            Ok(()) => format!("pinned {name} in {}; commit that file", LockFile::NAME),
            Err(error) => format!("{error}: what {name} means is not pinned, and may change"),
        };
        self.workspace.progress().report(Event::Warning(report));
    }

    /// Asks the registry anew what the Dockerfile's base is on each platform, and locks the
    /// answers. None for `scratch`.
    ///
    /// # Errors
    /// See [`BuildError`].
    pub async fn lock_base(&self) -> Result<Vec<(ImageReference, BaseImage)>, BuildError> {
        let dockerfile = self.read_dockerfile()?;
        let BaseName::Image(reference) = self.base_name(&dockerfile)? else {
            return Ok(Vec::new());
        };
        let mut bases = Vec::new();
        for platform in self.platforms()? {
            let base = self.base_image(reference.clone(), platform, true).await?;
            bases.push((reference.clone(), base));
        }
        for (_, base) in &bases {
            self.forget_compiler(base)?;
            self.compiler(base)?;
        }
        Ok(bases)
    }
}
