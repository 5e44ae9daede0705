//! From requirements to wheels, as `forebay.lock` has them.

use std::path::PathBuf;

use super::image::ImageInputs;
use super::{Build, BuildError, LockFile};
use crate::wheels::{ResolveRequest, WheelSet, lock_inputs, resolve};

impl Build<'_> {
    /// The wheels of an image's requirements: those that are locked; requirements that are
    /// not locked yet, or not in this form, are resolved and locked.
    ///
    /// # Errors
    /// See [`BuildError`].
    pub(super) fn wheels(&self, inputs: &ImageInputs) -> Result<WheelSet, BuildError> {
        self.resolve_wheels(inputs, false)
    }

    fn resolve_wheels(&self, inputs: &ImageInputs, refresh: bool) -> Result<WheelSet, BuildError> {
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
            directory,
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

    /// The wheels that this machine can import from: those of the image for its own platform, if
    /// there is one.
    ///
    /// # Errors
    /// See [`BuildError`].
    pub(super) async fn wheels_for_this_machine(&self) -> Result<WheelSet, BuildError> {
        let platform = self.workspace.interpreter()?.platform;
        let all = self.image_inputs().await?;
        let own = all.all().find(|inputs| {
            let machine = inputs.base.platform.machine();
            platform.strip_prefix("linux-") == Some(machine)
        });
        self.wheels(own.unwrap_or(&all.first))
    }

    /// Resolves the requirements again for each platform and locks what they come to; gives the
    /// number of wheels.
    ///
    /// # Errors
    /// See [`BuildError`].
    pub async fn lock_requirements(&self) -> Result<usize, BuildError> {
        let mut count = 0;
        for inputs in self.image_inputs().await?.all() {
            count += self.resolve_wheels(inputs, true)?.wheels.len();
        }
        Ok(count)
    }
}
