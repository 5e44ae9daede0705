//! What reading and installing wheels promises.

use proptest::prelude::*;

use super::testing::WheelBuilder;
use super::*;

fn scheme() -> InstallScheme {
    InstallScheme::under(
        "usr/local",
        (3, 11),
        "site-packages",
        "/usr/local/bin/python3.11",
    )
}

fn plan(wheel: &WheelBuilder) -> Result<Installation, ArchiveError> {
    let archive = Archive::open(wheel.build())?;
    Installation::plan(&archive, &wheel.file_name().parse().unwrap(), &scheme())
}

fn problem(wheel: &WheelBuilder) -> String {
    plan(wheel).unwrap_err().to_string()
}

fn text(installation: &Installation, path: &str) -> String {
    let file = installation.files.iter().find(|file| file.path == path);
    match &file.unwrap_or_else(|| panic!("no {path}")).content {
        Content::Generated(bytes) => String::from_utf8(bytes.clone()).unwrap(),
        Content::Entry(_) => panic!("{path} is the wheel's own"),
    }
}

#[test]
fn a_wheel_is_installed_as_pip_does() {
    let wheel = WheelBuilder::new("Some_Thing")
        .file("thing/__init__.py", b"x = 1\n")
        .entry("thing/run.sh", b"#!/bin/sh\n", 0o755, false)
        .data("scripts/tool", b"#!python\nprint(1)\n")
        .data("scripts/binary", b"\x7fELF")
        .data("scripts/wrapper", b"#!python\nold\n")
        .data("purelib/pure.py", b"")
        .data("headers/thing.h", b"int x;\n")
        .data("data/share/doc.txt", b"doc")
        .info(
            "entry_points.txt",
            "[console_scripts]\nwrapper = thing.cli:main [extra]\n\n[gui_scripts]\nwindow=thing:App.run\n[other]\nx = y\n",
        );
    let installation = plan(&wheel).unwrap();
    let paths: Vec<(&str, bool)> = installation
        .files
        .iter()
        .map(|file| (file.path.as_str(), file.executable))
        .collect();
    let site = "usr/local/lib/python3.11/site-packages";
    let info = format!("{site}/Some_Thing-1.0.dist-info");
    let expected = [
        ("usr/local/bin/binary".to_owned(), true),
        ("usr/local/bin/tool".to_owned(), true),
        ("usr/local/bin/window".to_owned(), true),
        ("usr/local/bin/wrapper".to_owned(), true),
        (
            "usr/local/include/python3.11/some-thing/thing.h".to_owned(),
            false,
        ),
        (format!("{info}/INSTALLER"), false),
        (format!("{info}/METADATA"), false),
        (format!("{info}/RECORD"), false),
        (format!("{info}/WHEEL"), false),
        (format!("{info}/entry_points.txt"), false),
        (format!("{site}/pure.py"), false),
        (format!("{site}/thing/__init__.py"), false),
        (format!("{site}/thing/run.sh"), true),
        ("usr/local/share/doc.txt".to_owned(), false),
    ];
    let expected: Vec<(&str, bool)> = expected.iter().map(|(p, e)| (p.as_str(), *e)).collect();
    assert_eq!(paths, expected);

    assert_eq!(
        text(&installation, "usr/local/bin/tool"),
        "#!/usr/local/bin/python3.11\nprint(1)\n"
    );
    assert!(text(&installation, "usr/local/bin/wrapper").ends_with(
        "from thing.cli import main\nif __name__ == '__main__':\n    sys.argv[0] = \
         re.sub(r'(-script\\.pyw|\\.exe)?$', '', sys.argv[0])\n    sys.exit(main())\n"
    ));
    assert!(text(&installation, "usr/local/bin/window").contains("from thing import App\n"));

    let record = text(&installation, &format!("{info}/RECORD"));
    assert!(record.contains("../../../bin/tool,sha256="), "{record}");
    assert!(record.contains("thing/__init__.py,sha256="), "{record}");
    assert!(
        record.contains("Some_Thing-1.0.dist-info/INSTALLER,sha256="),
        "{record}"
    );
    assert!(
        record.contains("Some_Thing-1.0.dist-info/RECORD,,\n"),
        "{record}"
    );
    assert_eq!(record.lines().count(), installation.files.len());
}

#[test]
fn hostile_paths_are_refused() {
    for path in [
        "../evil.py",
        "a/../../evil.py",
        "/etc/passwd",
        "a//b",
        "./a",
        "a/.wh.b.py",
        ".wh..wh..opq",
        "a\\b",
        "a\nb",
        "Some-1.0.data/data/../x",
    ] {
        let wheel = WheelBuilder::new("x").file(path, b"");
        assert!(problem(&wheel).contains("is not allowed"), "{path}");
    }
    let wheel = WheelBuilder::new("x").file(&"d/".repeat(600), b"");
    assert!(plan(&wheel).is_err());
}

#[test]
fn collisions_are_refused() {
    let wheel = WheelBuilder::new("x")
        .file("a/B.py", b"")
        .file("A/b.py", b"");
    assert!(problem(&wheel).contains("twice"));
    let wheel = WheelBuilder::new("x")
        .file("a", b"")
        .file("a/b", b"")
        .file("a-b", b"");
    assert!(problem(&wheel).contains("both a file and a directory"));
    let wheel = WheelBuilder::new("x")
        .file("m.py", b"1")
        .data("purelib/m.py", b"2");
    assert!(problem(&wheel).contains("two of its files"));

    // The zip crate makes no duplicates: rename one entry into another of the same length.
    let mut bytes = WheelBuilder::new("x")
        .file("aa.py", b"")
        .file("ab.py", b"")
        .build();
    let at: Vec<usize> = (0..bytes.len() - 5)
        .filter(|&i| &bytes[i..i + 5] == b"ab.py")
        .collect();
    for i in at {
        bytes[i + 1] = b'a';
    }
    assert!(
        Archive::open(bytes)
            .unwrap_err()
            .to_string()
            .contains("twice")
    );
}

#[test]
fn links_devices_and_encryption_are_refused() {
    for (kind, allowed) in [
        (0o100_000, true),
        (0o120_000, false),
        (0o020_000, false),
        (0o010_000, false),
    ] {
        let mut bytes = WheelBuilder::new("x").file("a.py", b"").build();
        // External attributes of the first central header.
        let central = bytes
            .windows(4)
            .position(|w| w == [0x50, 0x4b, 1, 2])
            .unwrap();
        let mode: u32 = (kind | 0o644) << 16;
        bytes[central + 38..central + 42].copy_from_slice(&mode.to_le_bytes());
        assert_eq!(Archive::open(bytes).is_ok(), allowed, "{kind:o}");
    }
    let mut bytes = WheelBuilder::new("x").file("a.py", b"").build();
    let central = bytes
        .windows(4)
        .position(|w| w == [0x50, 0x4b, 1, 2])
        .unwrap();
    bytes[central + 8] |= 1;
    assert!(
        Archive::open(bytes.clone())
            .unwrap_err()
            .to_string()
            .contains("encrypted")
    );
    bytes[central + 8] &= !1;
    bytes[central + 10] = 12;
    assert!(
        Archive::open(bytes)
            .unwrap_err()
            .to_string()
            .contains("method 12")
    );
}

#[test]
fn lies_about_sizes_and_content_are_found() {
    let content = b"some content that is long enough to be deflated: aaaaaaaaaaaaaaaaaaaaaaa";
    for (field, what) in [(24, "size"), (20, "size"), (16, "content")] {
        let mut bytes = WheelBuilder::new("x").file("a.py", content).build();
        // The last central header of a.py; METADATA and WHEEL stand before it.
        let central = (0..bytes.len() - 4)
            .rfind(|&i| bytes[i..i + 4] == [0x50, 0x4b, 1, 2] && &bytes[i + 46..i + 50] == b"a.py")
            .unwrap();
        bytes[central + field] ^= 1;
        let refusal = match Archive::open(bytes) {
            Err(error) => error.to_string(),
            Ok(archive) => {
                let entry = archive.entry("a.py").unwrap();
                archive.read(entry, 1 << 20).unwrap_err().to_string()
            }
        };
        assert!(
            refusal.contains(what)
                || refusal.contains("out of place")
                || refusal.contains("overlap"),
            "{field}: {refusal}"
        );
    }
}

#[test]
fn a_record_must_cover_every_file() {
    let wheel = WheelBuilder::new("x")
        .file("a.py", b"")
        .record("x-1.0.dist-info/RECORD,,\n");
    assert!(problem(&wheel).contains("no hash"));
    let wheel = WheelBuilder::new("x").record("x-1.0.dist-info/METADATA,md5=abc,1\n");
    assert!(problem(&wheel).contains("not SHA-256"));
}

#[test]
fn the_metadata_must_belong_to_the_wheel() {
    let wheel = WheelBuilder::new("x").file("y-1.0.dist-info/METADATA", b"");
    assert!(problem(&wheel).contains("2 .dist-info"));
    let wheel = WheelBuilder::new("x");
    let archive = Archive::open(wheel.build()).unwrap();
    let name = "other-1.0-py3-none-any.whl".parse().unwrap();
    assert!(Installation::plan(&archive, &name, &scheme()).is_err());
    let wheel = WheelBuilder::new("x").info("WHEEL", "Wheel-Version: 2.0\n");
    assert!(problem(&wheel).contains("2.0"));
    let wheel = WheelBuilder::new("x").info("entry_points.txt", "[console_scripts]\n../sh = a:b\n");
    assert!(problem(&wheel).contains("not valid"));
}

#[test]
fn two_wheels_may_share_only_identical_files() {
    let plan_of = |name: &str, content: &[u8]| {
        plan(&WheelBuilder::new(name).file("shared/x.py", content)).unwrap()
    };
    let (a, b, c) = (plan_of("a", b"1"), plan_of("b", b"1"), plan_of("c", b"2"));
    assert!(check_conflicts([&a, &b].into_iter()).is_ok());
    let message = check_conflicts([&a, &b, &c].into_iter())
        .unwrap_err()
        .to_string();
    assert!(
        message.contains("b and c both install") && message.contains("shared/x.py"),
        "{message}"
    );
    let d = plan(&WheelBuilder::new("d").file("shared", b"")).unwrap();
    assert!(check_conflicts([&a, &d].into_iter()).is_err());
    assert!(check_conflicts([&d, &a].into_iter()).is_err());
}

#[test]
fn data_descriptors_and_zip64_are_read() {
    use std::io::Write as _;
    // A writer that cannot go back writes sizes after the data.
    let mut streamed = zip::ZipWriter::new_stream(Vec::new());
    let options = zip::write::SimpleFileOptions::default();
    for (path, large) in [("a.py", false), ("b.py", true)] {
        streamed
            .start_file(path, options.large_file(large))
            .unwrap();
        streamed.write_all(b"x = 1\n").unwrap();
    }
    let bytes = streamed.finish().unwrap().into_inner();
    assert!(bytes.windows(4).any(|window| window == b"PK\x07\x08"));
    let archive = Archive::open(bytes).unwrap();
    for path in ["a.py", "b.py"] {
        let entry = archive.entry(path).unwrap();
        assert_eq!(archive.read(entry, 100).unwrap(), b"x = 1\n");
    }
}

#[test]
fn bombs_are_refused_before_they_are_inflated() {
    let honest = WheelBuilder::new("x").file("a.py", b"x = 1\n").build();
    let end = honest.len() - 22;
    let directory = u32::from_le_bytes(honest[end + 16..end + 20].try_into().unwrap()) as usize;
    let changed = |at: usize, value: &[u8]| {
        let mut bytes = honest.clone();
        bytes[at..at + value.len()].copy_from_slice(value);
        Archive::open(bytes)
    };
    // The first entry says that it inflates to 4 GiB: it does not, which is found at its end.
    let lying = changed(directory + 24, &0xffff_fff0_u32.to_le_bytes()).unwrap();
    let problem = lying
        .read(&lying.entries()[0], 1 << 20)
        .unwrap_err()
        .to_string();
    assert!(problem.contains("larger than"), "{problem}");
    let mut inflated = Vec::new();
    let mut reader = lying.reader(&lying.entries()[0]);
    let problem = std::io::Read::read_to_end(&mut reader, &mut inflated).unwrap_err();
    assert!(
        problem.to_string().contains("lies about its size"),
        "{problem}"
    );
    // More entries than there are, a directory that is elsewhere.
    assert!(changed(end + 10, &[0xfe, 0xff]).is_err());
    assert!(changed(end + 16, &0_u32.to_le_bytes()).is_err());

    // Entries that share their data: the same bytes inflated again and again.
    let problem = changed(
        directory + 42 + {
            let name =
                u16::from_le_bytes(honest[directory + 28..directory + 30].try_into().unwrap());
            let extra =
                u16::from_le_bytes(honest[directory + 30..directory + 32].try_into().unwrap());
            46 + usize::from(name) + usize::from(extra)
        },
        &0_u32.to_le_bytes(),
    );
    assert!(problem.is_err());

    // 5 entries of 4 GiB each, with nothing behind them.
    let mut archive = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
    for n in 0..5 {
        let options = zip::write::SimpleFileOptions::default();
        archive.start_file(format!("{n}"), options).unwrap();
    }
    let mut bytes = archive.finish().unwrap().into_inner();
    let mut at = 0;
    while let Some(found) = bytes[at..]
        .windows(4)
        .position(|window| window == b"PK\x01\x02")
    {
        at += found + 24;
        bytes[at..at + 4].copy_from_slice(&0xffff_fff0_u32.to_le_bytes());
    }
    let problem = Archive::open(bytes).unwrap_err().to_string();
    assert!(problem.contains("16 GiB"), "{problem}");
}

proptest! {
    #[test]
    fn no_bytes_make_the_reader_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        let _ = Archive::open(bytes);
    }

    #[test]
    fn a_damaged_wheel_is_refused_or_reads_as_before(at in 0usize..2000, flip in 1u8..) {
        let content = b"content content content";
        let wheel = WheelBuilder::new("x").file("a.py", content);
        let mut bytes = wheel.build();
        let at = at % bytes.len();
        bytes[at] ^= flip;
        if let Ok(archive) = Archive::open(bytes) {
            for entry in archive.entries() {
                let read = archive.read(entry, 1 << 20);
                if entry.path == "a.py" && let Ok(read) = read {
                    prop_assert_eq!(read, content);
                }
            }
            let _ = Installation::plan(&archive, &wheel.file_name().parse().unwrap(), &scheme());
        }
    }
}
