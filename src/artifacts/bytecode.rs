//! Which compiler the image's `.pyc` files are of: the same on every machine, because
//! forebay.lock says it.

use std::path::PathBuf;

use super::{Build, BuildError, LockFile, LockedCompiler};
use crate::image::BaseImage;
use crate::progress::Event;
use crate::project::BytecodeSetting;
use crate::python::{Fingerprint, Interpreter, PythonError, find_compiler};

impl Build<'_> {
    /// The compiler for the image's modules, or `None` if it gets no `.pyc` files.
    ///
    /// It is what `forebay.lock` says. Where that says nothing, this machine decides and writes
    /// the decision down: what one machine has, and another lacks, must not change the image.
    ///
    /// # Errors
    /// The settings ask for bytecode and no interpreter can make it, or the lock file.
    pub(super) fn compiler(&self, base: &BaseImage) -> Result<Option<Fingerprint>, BuildError> {
        let setting = self.workspace.project().settings.image.bytecode;
        let is_scratch = base.manifest.is_none();
        if setting == BytecodeSetting::Off || (setting == BytecodeSetting::Auto && is_scratch) {
            return Ok(None);
        }
        let version = (base.python.major, base.python.minor);
        let mut lock = LockFile::read(&self.workspace.project().directory)?;
        match lock.compiler(version) {
            Some(LockedCompiler::Compiler(fingerprint)) => return Ok(Some(fingerprint)),
            Some(LockedCompiler::None) if setting == BytecodeSetting::Auto => return Ok(None),
            _ => {}
        }
        let own = self.own_interpreter();
        let found = find_compiler(version, None, own.as_ref(), self.workspace.store())?;
        let (major, minor) = version;
        let decision = match &found {
            Some((_, fingerprint)) => LockedCompiler::Compiler(*fingerprint),
            None if setting == BytecodeSetting::On => {
                return Err(PythonError::NoCompiler {
                    major,
                    minor,
                    pinned: false,
                }
                .into());
            }
            None => {
                self.workspace.progress().report(Event::Warning(format!(
                    "there is no Python {major}.{minor} here to compile modules with: the image gets no .pyc \
                     files, and each start of a job costs seconds more. Install one and run `forebay image lock`, \
                     or set bytecode = \"off\" in [tool.forebay.image]"
                )));
                LockedCompiler::None
            }
        };
        lock.pin_compiler(version, Some(decision));
        self.write_lock(&lock, &format!("the bytecode of Python {major}.{minor}"));
        Ok(found.map(|(_, fingerprint)| fingerprint))
    }

    /// An interpreter that makes the bytecode that `fingerprint` stands for.
    ///
    /// # Errors
    /// There is none on this machine.
    pub(super) fn find_compiler(
        &self,
        version: (u8, u8),
        fingerprint: &Fingerprint,
    ) -> Result<PathBuf, PythonError> {
        let own = self.own_interpreter();
        let found = find_compiler(
            version,
            Some(fingerprint),
            own.as_ref(),
            self.workspace.store(),
        )?;
        let (major, minor) = version;
        found
            .map(|(executable, _)| executable)
            .ok_or(PythonError::NoCompiler {
                major,
                minor,
                pinned: true,
            })
    }

    /// Lets the next question decide anew.
    ///
    /// # Errors
    /// The lock file.
    pub(super) fn forget_compiler(&self, base: &BaseImage) -> Result<(), BuildError> {
        let mut lock = LockFile::read(&self.workspace.project().directory)?;
        let version = (base.python.major, base.python.minor);
        if lock.compiler(version).is_some() {
            lock.pin_compiler(version, None);
            lock.write()?;
        }
        Ok(())
    }

    /// The project's own Python, if there is one.
    fn own_interpreter(&self) -> Option<Interpreter> {
        self.workspace.interpreter().ok()
    }
}
