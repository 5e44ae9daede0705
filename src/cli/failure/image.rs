//! An image could not be made of what it is made of.

use super::remote::registry_next;
use super::store::store_next;
use crate::image::ImageError;
use crate::python::PythonError;
use crate::registry::RegistryError;
use crate::ui::CommandError;
use crate::wheels::WheelError;

/// A file could not be read or written.
const UNBLOCK: &str = "mend what stands in the way (a missing right, a full disk, a file that somebody is writing), then run the command again";

pub(super) fn wheel_next(failure: CommandError, error: &WheelError) -> CommandError {
    match error {
        WheelError::Requirements { .. } => failure.next("mend that line"),
        WheelError::NoWheel { .. } => failure.next(
            "require a version that has a wheel for the image's Python, or build one and require its file",
        ),
        WheelError::Pip { .. } => failure.next(
            "mend the requirement that pip names, or how pip reaches its index (pip.conf, PIP_INDEX_URL), and run the command again",
        ),
        WheelError::NoPip { .. } => failure.next(
            "install pip there (`python -m ensurepip`) or uv, or name another Python with --python",
        ),
        WheelError::TwoWheels { .. } | WheelError::Conflict { .. } => {
            failure.next("require one of them only")
        }
        WheelError::Refused { .. } | WheelError::FileName { .. } => {
            failure.next("require another version of it; this file is damaged or no wheel")
        }
        WheelError::Store(error) => failure.next(store_next(error)),
        WheelError::Io { .. } => failure.next(UNBLOCK),
    }
}

pub(super) fn image_next(failure: CommandError, error: &ImageError) -> CommandError {
    match error {
        ImageError::Dockerfile { .. } => {
            failure.next("mend the Dockerfile; `forebay image plan` says what each line means")
        }
        ImageError::Lines { .. } => failure.next(
            "rewrite these lines, or move what they do into the base image; `forebay image plan` explains each",
        ),
        ImageError::NoEngine { .. } => failure.next(
            "start or install docker, podman or buildah, or run `forebay image base push` where one is and commit forebay.lock, or move these lines into the base image",
        ),
        ImageError::Engine { output, .. } if is_of_another_machine(output) => failure.next(
            "this machine cannot run that platform's programs: install an emulator (Debian's qemu-user-static), or build where the platform is the machine's own and share the lines with `forebay image base push`",
        ),
        ImageError::Engine { .. } => failure.next(
            "mend what the engine names; `[tool.forebay.engine]` in pyproject.toml takes `program` and `arguments` (for example [\"--network=host\"]), and FOREBAY_ENGINE another engine",
        ),
        ImageError::Base { .. } => {
            failure.next("mend FROM, or take a base of Debian's with a CPython in it")
        }
        ImageError::Link { .. } => failure.next(
            "put the file itself there, or make the link relative to a file of the project",
        ),
        ImageError::NotInContext { .. } => {
            failure.next("add the file, or mend the line that names it (.dockerignore may hide it)")
        }
        ImageError::Python(error) => compiler_next(failure, error),
        ImageError::Wheel(error) => wheel_next(failure, error),
        ImageError::Registry(error) => base_registry_next(failure, error),
        ImageError::Store(error) => failure.next(store_next(error)),
        ImageError::Project { .. } => failure.next("mend the project and run the command again"),
        ImageError::Splice { .. } => failure.next(
            "require another version of that wheel, or set compression = \"gzip\" in [tool.forebay.image]",
        ),
        ImageError::PathRefused(_) => {
            failure.next("rename that file, or keep it out of the image with .dockerignore")
        }
        ImageError::Io { .. } => failure.next(UNBLOCK),
    }
}

/// There is no interpreter to compile with, or it failed.
pub(super) fn compiler_next(failure: CommandError, error: &PythonError) -> CommandError {
    let PythonError::NoCompiler {
        major,
        minor,
        pinned,
    } = error
    else {
        return failure
            .next("run the command again, or set bytecode = \"off\" in [tool.forebay.image]");
    };
    let failure = failure
        .why("the image's .pyc files have to be the same on every machine, so that its digest is");
    let install = format!(
        "install Python {major}.{minor} (`uv python install {major}.{minor}`), or name it with --python"
    );
    if *pinned {
        failure.next(format!("{install}; or decide anew with `forebay image lock`, or set bytecode = \"off\" in [tool.forebay.image]"))
    } else {
        failure.next(format!(
            "{install}; or set bytecode = \"off\" in [tool.forebay.image]"
        ))
    }
}

/// The registry was asked for the base image: nothing was being sent.
pub(super) fn base_registry_next(failure: CommandError, error: &RegistryError) -> CommandError {
    let failure = failure.why("the base image that FROM names is looked up there");
    match error {
        RegistryError::Denied { .. } | RegistryError::Credential(_) => {
            registry_next(failure, error)
        }
        _ => failure.next(
            "check the network and the proxy settings, name a mirror in FROM, or set `base` in [tool.forebay.environments.NAME]",
        ),
    }
}

/// What the kernel says of a program for another processor (ENOEXEC), as engines pass it on.
fn is_of_another_machine(output: &str) -> bool {
    output.to_ascii_lowercase().contains("exec format error")
}
