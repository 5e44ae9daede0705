//! `forebay store …`: looking into this machine's store.

use std::io::Write;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use clap::{Args, Subcommand};
use forebay_store::{
    ArchiveReport, Artifact, ObjectDigest, ObjectInfo, RecipeKey, RootName, Sha256Digest, Store,
    StoreError, TreeEntryKind, VerifyOptions, VerifyReport,
};
use serde::Serialize;

use super::context::Context;
use crate::ui::{CommandError, Exit, bytes, count};

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Digest every file of a folder; files that did not change since the last scan are not read
    Scan {
        /// The folder
        folder: PathBuf,
    },
    /// Put a file into the store, and print its digest
    Put {
        /// The file; - is the standard input
        file: PathBuf,
        /// Keep it under this name; otherwise the next `forebay gc` may condemn it
        #[arg(long, value_name = "NAME")]
        root: Option<RootName>,
    },
    /// Write an object's bytes, verified, to the standard output
    Cat {
        #[command(flatten)]
        object: ObjectArgument,
    },
    /// List every object
    Ls,
    /// Count what is in the store
    Stats,
    /// Read everything, and name what is missing, corrupt or orphaned
    ///
    /// What is corrupt is moved to corrupt/ and forgotten: the next build makes it anew.
    /// The exit status is a sum: 16 something is missing, 32 corrupt, 64 orphaned.
    /// Orphans are what killed processes left; `forebay gc` removes them.
    Verify(VerifyArguments),
    /// Say why an object is in the store: the path from a root
    Why {
        #[command(flatten)]
        object: ObjectArgument,
    },
    /// Make the index anew from objects and records alone
    RebuildIndex,
    /// Write an artifact with all it needs into one file
    Export {
        /// A root (build/shop/dev/everything), a recipe, or an object with all that was made with it
        artifact: String,
        /// The file
        #[arg(short, long, value_name = "FILE")]
        output: PathBuf,
    },
    /// Take in what `export` has written
    Import {
        /// The file
        file: PathBuf,
        /// Keep it under this name; otherwise the next `forebay gc` may condemn it
        #[arg(long, value_name = "NAME")]
        root: Option<RootName>,
    },
}

/// One object.
#[derive(Debug, Args)]
pub(super) struct ObjectArgument {
    /// The object's BLAKE3 (64 digits), or sha256:… as registries name it
    digest: String,
}

#[derive(Debug, Args)]
pub(super) struct VerifyArguments {
    /// Go on where an interrupted verification was
    #[arg(long)]
    resume: bool,
    /// How many threads read [default: one a processor]
    #[arg(long, value_name = "NUMBER")]
    threads: Option<usize>,
}

/// What `scan --json` prints (`schema/store-scan.schema.json`).
#[derive(Debug, Serialize)]
struct ScanDocument {
    digest: ObjectDigest,
    entries: usize,
    bytes: u64,
    read_again: usize,
}

/// One object, as `put`, `cat` and `ls` print it (`schema/store-put.schema.json`, …).
#[derive(Debug, Serialize)]
struct ObjectDocument {
    digest: ObjectDigest,
    sha256: Sha256Digest,
    size: u64,
}

impl From<ObjectInfo> for ObjectDocument {
    fn from(info: ObjectInfo) -> Self {
        Self {
            digest: info.digest,
            sha256: info.sha256,
            size: info.size,
        }
    }
}

#[derive(Debug, Serialize)]
struct CatDocument {
    #[serde(flatten)]
    object: ObjectDocument,
    base64: String,
}

#[derive(Debug, Serialize)]
struct ListDocument {
    objects: Vec<ListedDocument>,
}

#[derive(Debug, Serialize)]
struct ListedDocument {
    #[serde(flatten)]
    object: ObjectDocument,
    packed: bool,
    condemned: bool,
}

/// What `stats --json` prints (`schema/store-stats.schema.json`).
#[derive(Debug, Serialize)]
struct StatsDocument {
    root: String,
    objects: u64,
    bytes: u64,
    files: u64,
    file_bytes: u64,
    packs: u64,
    realisations: u64,
    roots: u64,
    condemned: u64,
    condemned_bytes: u64,
    corrupt: u64,
    leased: u64,
}

/// What `why --json` prints (`schema/store-why.schema.json`).
#[derive(Debug, Serialize)]
struct WhyDocument {
    #[serde(flatten)]
    object: ObjectDocument,
    needed: bool,
    roots: Vec<String>,
    realisations: Vec<OutputDocument>,
    leased: bool,
    condemned_since: Option<String>,
}

#[derive(Debug, Serialize)]
struct OutputDocument {
    recipe: RecipeKey,
    output: String,
    kept_by: Vec<String>,
}

/// What `rebuild-index --json` prints (`schema/store-rebuild-index.schema.json`).
#[derive(Debug, Serialize)]
struct RebuildDocument {
    objects: usize,
    records: usize,
    damaged: Vec<String>,
}

/// What `export --json` and `import --json` print (`schema/store-archive.schema.json`).
#[derive(Debug, Serialize)]
struct ArchiveDocument {
    file: String,
    objects: Vec<ObjectDigest>,
    bytes: u64,
    realisations: Vec<RecipeKey>,
}

pub(super) fn run(context: &Context, command: &Command) -> Result<Exit, CommandError> {
    let store = context.store()?;
    match command {
        Command::Scan { folder } => scan(context, &store, folder)?,
        Command::Put { file, root } => put(context, &store, file, root.as_ref())?,
        Command::Cat { object } => cat(context, &store, object)?,
        Command::Ls => list(context, &store)?,
        Command::Stats => stats(context, &store)?,
        Command::Verify(arguments) => return verify(context, &store, arguments),
        Command::Why { object } => why(context, &store, object)?,
        Command::RebuildIndex => rebuild(context, &store)?,
        Command::Export { artifact, output } => {
            let report = store.export(&parse_artifact(&store, artifact)?, &at(context, output))?;
            archive(context, output, report, "wrote")?;
        }
        Command::Import { file, root } => {
            let report = store.import(&at(context, file), root.as_ref())?;
            archive(context, file, report, "took in")?;
        }
    }
    Ok(Exit::Done)
}

/// A path as the user means it: from the folder that the command works in.
fn at(context: &Context, path: &Path) -> PathBuf {
    context.directory().join(path)
}

fn scan(context: &Context, store: &Store, folder: &Path) -> Result<(), CommandError> {
    let tree = store.scan(&at(context, folder), &|_, _| false)?;
    let size = |kind: &TreeEntryKind| match kind {
        TreeEntryKind::File { size, .. } => *size,
        _ => 0,
    };
    let document = ScanDocument {
        digest: tree.digest(),
        entries: tree.entries.len(),
        bytes: tree.entries.iter().map(|entry| size(&entry.kind)).sum(),
        read_again: tree.read_again,
    };
    context.printer.result(&document, || {
        format!(
            "{}\n{}, {}, {} read\n",
            document.digest,
            count(document.entries, "file"),
            bytes(document.bytes),
            document.read_again
        )
    })
}

fn put(
    context: &Context,
    store: &Store,
    file: &Path,
    root: Option<&RootName>,
) -> Result<(), CommandError> {
    let mut batch = store.begin()?;
    let info = if file == Path::new("-") {
        batch.put_reader(&mut std::io::stdin().lock())?
    } else {
        let mut opened = std::fs::File::open(at(context, file)).map_err(|error| {
            CommandError::new(Exit::Usage, format!("cannot read {}", file.display()))
                .why(error.to_string())
                .next("name a file that can be read")
        })?;
        batch.put_reader(&mut opened)?
    };
    if let Some(root) = root {
        batch.set_root(root, &[info.digest])?;
    }
    batch.commit()?;
    let document = ObjectDocument::from(info);
    context.printer.result(&document, || {
        format!("{}\n{}\n", document.digest, document.sha256)
    })
}

fn cat(context: &Context, store: &Store, object: &ObjectArgument) -> Result<(), CommandError> {
    let info = find(store, object)?;
    let mut reader = store.reader(&info.digest)?;
    if context.printer.is_json() {
        let bytes = store.read(&info.digest)?;
        let document = CatDocument {
            object: info.into(),
            base64: base64::engine::general_purpose::STANDARD.encode(bytes),
        };
        return context.printer.result(&document, String::new);
    }
    let mut output = std::io::stdout().lock();
    match std::io::copy(&mut reader, &mut output).and_then(|_| output.flush()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(CommandError::new(
            Exit::Failed,
            format!("cannot write object {}", info.digest),
        )
        .why(error.to_string())
        .next("check with `forebay store verify`")),
        _ => Ok(()),
    }
}

fn list(context: &Context, store: &Store) -> Result<(), CommandError> {
    let mut objects = Vec::new();
    store.list(&mut |object| {
        objects.push(ListedDocument {
            object: object.info.into(),
            packed: object.packed,
            condemned: object.condemned,
        });
    })?;
    let document = ListDocument { objects };
    context.printer.result(&document, || {
        document
            .objects
            .iter()
            .map(|listed| {
                let remark = if listed.condemned { "  condemned" } else { "" };
                let ObjectDocument { digest, size, .. } = &listed.object;
                format!("{digest}  {size:>12}{remark}\n")
            })
            .collect()
    })
}

fn stats(context: &Context, store: &Store) -> Result<(), CommandError> {
    let stats = store.stats()?;
    let document = StatsDocument {
        root: store.root().display().to_string(),
        objects: stats.objects,
        bytes: stats.bytes,
        files: stats.files,
        file_bytes: stats.file_bytes,
        packs: stats.packs,
        realisations: stats.realisations,
        roots: stats.roots,
        condemned: stats.condemned,
        condemned_bytes: stats.condemned_bytes,
        corrupt: stats.corrupt,
        leased: stats.leased,
    };
    context.printer.result(&document, || {
        format!(
            "store         {}\nobjects       {} ({})\n  as files    {} ({})\n  in packs    {} in {}\nrealisations  {}\nroots         {}\ncondemned     {} ({})\ncorrupt       {}\nin use        {}\n",
            document.root,
            stats.objects,
            bytes(stats.bytes),
            stats.files,
            bytes(stats.file_bytes),
            stats.objects - stats.files,
            stats.packs,
            stats.realisations,
            stats.roots,
            stats.condemned,
            bytes(stats.condemned_bytes),
            stats.corrupt,
            stats.leased
        )
    })
}

fn verify(
    context: &Context,
    store: &Store,
    arguments: &VerifyArguments,
) -> Result<Exit, CommandError> {
    let report = store.verify(&VerifyOptions {
        threads: arguments.threads,
        resume: arguments.resume,
    })?;
    context.printer.result(&report, || verify_text(&report))?;
    let bit = |found: bool, bit: u8| if found { bit } else { 0 };
    let bits = bit(!report.missing.is_empty(), 16)
        | bit(
            !report.corrupt.is_empty() || !report.damaged_packs.is_empty(),
            32,
        )
        | bit(!report.orphaned.is_empty(), 64);
    Ok(match bits {
        0 => Exit::Done,
        bits => Exit::Findings(bits),
    })
}

fn verify_text(report: &VerifyReport) -> String {
    let mut text = String::new();
    for digest in &report.missing {
        text.push_str(&format!("missing   {digest}\n"));
    }
    for digest in &report.corrupt {
        text.push_str(&format!("corrupt   {digest}\n"));
    }
    for path in &report.damaged_packs {
        text.push_str(&format!("corrupt   {}\n", path.display()));
    }
    for path in &report.orphaned {
        text.push_str(&format!("orphaned  {}\n", path.display()));
    }
    text.push_str(&format!(
        "{} intact, {}\n",
        count(
            usize::try_from(report.objects).unwrap_or(usize::MAX),
            "object"
        ),
        bytes(report.bytes)
    ));
    if !report.is_intact() {
        text.push_str("what is damaged was moved aside; the next build or fetch puts it back\n");
    }
    text
}

fn why(context: &Context, store: &Store, object: &ObjectArgument) -> Result<(), CommandError> {
    let digest = digest_of(store, object)?;
    let explanation = store
        .why(&digest)?
        .ok_or_else(|| not_found(store, digest))?;
    let names = |roots: &[RootName]| -> Vec<String> {
        roots.iter().map(|root| root.as_str().to_owned()).collect()
    };
    let document = WhyDocument {
        needed: explanation.is_needed(),
        roots: names(&explanation.roots),
        realisations: explanation
            .realisations
            .iter()
            .map(|named| OutputDocument {
                recipe: named.key,
                output: named.output.clone(),
                kept_by: names(&named.kept_by),
            })
            .collect(),
        leased: explanation.leased,
        condemned_since: explanation
            .condemned_since
            .and_then(|seconds| jiff::Timestamp::from_second(seconds).ok())
            .map(|time| time.to_string()),
        object: explanation.info.into(),
    };
    context.printer.result(&document, || why_text(&document))
}

fn why_text(document: &WhyDocument) -> String {
    let digest = &document.object.digest;
    let mut text = format!("{digest}  {}\n", bytes(document.object.size));
    for root in &document.roots {
        text.push_str(&format!("root {root}\n  -> {digest}\n"));
    }
    if document.leased {
        text.push_str("a running process uses it\n");
    }
    for named in &document.realisations {
        let kept = match named.kept_by.as_slice() {
            [] => "not kept".to_owned(),
            roots => format!("kept by {}", roots.join(", ")),
        };
        text.push_str(&format!(
            "output {:?} of recipe {} ({kept})\n",
            named.output, named.recipe
        ));
    }
    if !document.needed {
        text.push_str("nobody needs it: `forebay gc` may delete it\n");
    }
    if let Some(since) = &document.condemned_since {
        text.push_str(&format!("condemned since {since}\n"));
    }
    text
}

fn rebuild(context: &Context, store: &Store) -> Result<(), CommandError> {
    let report = store.rebuild_index()?;
    let document = RebuildDocument {
        objects: report.objects,
        records: report.records,
        damaged: report
            .damaged
            .iter()
            .map(|path| path.display().to_string())
            .collect(),
    };
    context.printer.result(&document, || {
        let mut text = format!(
            "{}, {}\n",
            count(document.objects, "object"),
            count(document.records, "record")
        );
        for path in &document.damaged {
            text.push_str(&format!("damaged, moved to {path}\n"));
        }
        text
    })
}

fn archive(
    context: &Context,
    file: &Path,
    report: ArchiveReport,
    verb: &str,
) -> Result<(), CommandError> {
    let document = ArchiveDocument {
        file: file.display().to_string(),
        objects: report.objects,
        bytes: report.bytes,
        realisations: report.realisations,
    };
    context.printer.result(&document, || {
        format!(
            "{verb} {}: {}, {}, {}\n",
            document.file,
            count(document.objects.len(), "object"),
            bytes(document.bytes),
            count(document.realisations.len(), "realisation")
        )
    })
}

/// 64 digits are a recipe or an object, whichever is known; anything else is a root.
fn parse_artifact(store: &Store, text: &str) -> Result<Artifact, CommandError> {
    if let Ok(key) = text.parse::<RecipeKey>()
        && store.realisation(&key)?.is_some()
    {
        return Ok(Artifact::Realisation(key));
    }
    let object = ObjectArgument {
        digest: text.to_owned(),
    };
    if let Ok(digest) = digest_of(store, &object) {
        return Ok(Artifact::Object(digest));
    }
    text.parse().map(Artifact::Root).map_err(|error| {
        CommandError::from_error(Exit::Usage, &error)
            .next("name a root, a recipe or an object; `forebay store why DIGEST` shows them")
    })
}

fn digest_of(store: &Store, object: &ObjectArgument) -> Result<ObjectDigest, CommandError> {
    let text = &object.digest;
    if text.starts_with("sha256:") {
        let sha256: Sha256Digest = text.parse().map_err(|error| bad_digest(&error))?;
        let info = store.info_by_sha256(&sha256)?.ok_or_else(|| {
            CommandError::new(Exit::Usage, format!("object {sha256} is not in the store"))
                .next("look with `forebay store ls --json`")
        })?;
        return Ok(info.digest);
    }
    text.parse().map_err(|error| bad_digest(&error))
}

fn bad_digest(error: &dyn std::error::Error) -> CommandError {
    CommandError::new(Exit::Usage, error.to_string())
        .next("write 64 lower-case hexadecimal digits, or sha256: and as many")
}

fn find(store: &Store, object: &ObjectArgument) -> Result<ObjectInfo, CommandError> {
    let digest = digest_of(store, object)?;
    Ok(store
        .info(&digest)?
        .ok_or_else(|| not_found(store, digest))?)
}

fn not_found(store: &Store, digest: ObjectDigest) -> StoreError {
    StoreError::NotFound {
        digest,
        root: store.root().to_owned(),
    }
}
