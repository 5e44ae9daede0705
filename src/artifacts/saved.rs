//! What an earlier build has left of an image: a file that BigFlow or another tool has saved.

use std::path::{Path, PathBuf};

use super::{BuildError, Workspace};
use crate::image::saved::{
    ImageInfo, Limits, SavedImage, SavedImageError, save_from_engine, version_in_name,
};
use crate::oci::Tag;
use crate::project::Version;

/// A saved image, and the version that it was built from.
pub struct SavedBuild {
    /// The image.
    pub image: SavedImage,
    /// What the file's name, the layout's tag or BigFlow's own note says.
    pub version: Version,
}

impl SavedBuild {
    /// Reads `image-VERSION.tar`; or an OCI layout, a folder or `oci:FOLDER[:TAG]`, whose tag
    /// is the version. A layout without a tag is of the project's version.
    ///
    /// # Errors
    /// See [`SavedImageError`].
    pub fn read(workspace: &Workspace, name: &Path) -> Result<Self, BuildError> {
        let (path, tag) = layout_in(name);
        let image = || open(workspace, &path, tag.as_ref());
        // Only what is there has a name that could be wrong.
        let version = match &tag {
            Some(tag) => tag.to_string().parse()?,
            None if path.is_file() => version_in_name(&path)?.parse()?,
            None => workspace.project().working_tree(workspace.store())?.version,
        };
        let image = image()?;
        Ok(Self { image, version })
    }

    /// Has a container engine save the image that BigFlow has left in it.
    ///
    /// # Errors
    /// See [`SavedImageError`].
    pub fn from_engine(workspace: &Workspace, info: &ImageInfo) -> Result<Self, BuildError> {
        let version = info.project_version.parse()?;
        let folder = tempfile::tempdir().map_err(|source| SavedImageError::Read { source })?;
        let file = folder.path().join("image.tar");
        save_from_engine(&info.docker_image_id, &file)?;
        let image = open(workspace, &file, None)?;
        Ok(Self {
            image: image.kept_from(folder),
            version,
        })
    }
}

fn open(
    workspace: &Workspace,
    path: &Path,
    tag: Option<&Tag>,
) -> Result<SavedImage, SavedImageError> {
    let progress = workspace.progress().as_ref();
    SavedImage::open(path, tag, workspace.store(), &Limits::default(), progress)
}

/// The folder and the tag of `oci:FOLDER[:TAG]`; any other name as it is.
fn layout_in(name: &Path) -> (PathBuf, Option<Tag>) {
    let layout = name.to_str().and_then(|name| name.strip_prefix("oci:"));
    let Some(layout) = layout else {
        return (name.to_owned(), None);
    };
    match layout.rsplit_once(':') {
        Some((folder, tag)) if !Path::new(layout).exists() => match tag.parse() {
            Ok(tag) => (folder.into(), Some(tag)),
            Err(_) => (layout.into(), None),
        },
        _ => (layout.into(), None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_layouts_tag_follows_its_folder() {
        let read = |name: &str| {
            let (path, tag) = layout_in(Path::new(name));
            (path.display().to_string(), tag.map(|tag| tag.to_string()))
        };
        let of = |path: &str, tag: Option<&str>| (path.to_owned(), tag.map(str::to_owned));
        assert_eq!(read("oci:a/b:1.0"), of("a/b", Some("1.0")));
        assert_eq!(read("oci:a/b"), of("a/b", None));
        assert_eq!(read("a:b/image-1.tar"), of("a:b/image-1.tar", None));
        let directory = tempfile::tempdir().unwrap();
        let folder = directory.path().join("with:colon");
        std::fs::create_dir(&folder).unwrap();
        let name = folder.display().to_string();
        assert_eq!(read(&format!("oci:{name}")), of(&name, None));
        assert_eq!(read(&format!("oci:{name}:2")), of(&name, Some("2")));
    }
}
