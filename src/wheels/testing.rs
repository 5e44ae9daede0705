//! Makes wheels for tests.

use std::io::Write;

use base64::Engine as _;
use sha2::Digest as _;
use zip::write::SimpleFileOptions;

/// A wheel that is being made: files, then RECORD.
pub(crate) struct WheelBuilder {
    name: String,
    files: Vec<(String, Vec<u8>, u32, bool)>,
    record: Option<String>,
}

impl WheelBuilder {
    /// Starts the wheel `name-1.0-py3-none-any.whl`.
    pub(crate) fn new(name: &str) -> Self {
        let builder = Self {
            name: name.to_owned(),
            files: Vec::new(),
            record: None,
        };
        builder
            .info(
                "METADATA",
                &format!("Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n"),
            )
            .info(
                "WHEEL",
                "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
            )
    }

    pub(crate) fn file_name(&self) -> String {
        format!("{}-1.0-py3-none-any.whl", self.name)
    }

    /// Adds a file, deflated.
    pub(crate) fn file(self, path: &str, content: &[u8]) -> Self {
        self.entry(path, content, 0o644, true)
    }

    /// Adds a file of `.dist-info`.
    pub(crate) fn info(self, name: &str, text: &str) -> Self {
        let path = format!("{}-1.0.dist-info/{name}", self.name);
        self.file(&path, text.as_bytes())
    }

    /// Adds a file of `.data`.
    pub(crate) fn data(self, path: &str, content: &[u8]) -> Self {
        let path = format!("{}-1.0.data/{path}", self.name);
        self.file(&path, content)
    }

    pub(crate) fn entry(mut self, path: &str, content: &[u8], mode: u32, deflate: bool) -> Self {
        self.files.retain(|(existing, ..)| existing != path);
        self.files
            .push((path.to_owned(), content.to_vec(), mode, deflate));
        self
    }

    /// Replaces the RECORD that would be right.
    pub(crate) fn record(mut self, text: &str) -> Self {
        self.record = Some(text.to_owned());
        self
    }

    /// The archive's bytes.
    pub(crate) fn build(&self) -> Vec<u8> {
        let record_path = format!("{}-1.0.dist-info/RECORD", self.name);
        let mut record = String::new();
        for (path, content, ..) in &self.files {
            let hash = base64::engine::general_purpose::URL_SAFE_NO_PAD
                .encode(sha2::Sha256::digest(content));
            record += &format!("{path},sha256={hash},{}\n", content.len());
        }
        record += &format!("{record_path},,\n");
        let record = self.record.clone().unwrap_or(record);

        let mut archive = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
        let record_file = (record_path, record.into_bytes(), 0o664, true);
        for (path, content, mode, deflate) in self.files.iter().chain([&record_file]) {
            let method = if *deflate {
                zip::CompressionMethod::Deflated
            } else {
                zip::CompressionMethod::Stored
            };
            let options = SimpleFileOptions::default()
                .compression_method(method)
                .unix_permissions(*mode);
            archive.start_file(path, options).unwrap();
            archive.write_all(content).unwrap();
        }
        archive.finish().unwrap().into_inner()
    }
}
