//! What goes into DAG files, and what becomes of those that are there.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use serde::{Deserialize, Serialize};

use crate::artifacts::{DagOptions, ImageNaming};
use crate::dags::LiveStarts;
use crate::environment::Retire;
use crate::project::DagFormat;

/// What goes into the DAG files.
#[derive(Debug, Clone, Default, Args, Serialize, Deserialize)]
pub(in crate::cli) struct DagArguments {
    /// This workflow alone [default: ALL]
    #[arg(short, long, value_name = "ID")]
    pub(in crate::cli) workflow: Option<String>,

    /// The first runtime: "2024-01-01 00:00:00", 2024-01-01 or NOW [default: a deploy keeps that of the live generation; otherwise, and with NOW, the current hour]
    #[arg(short = 't', long, value_name = "TIME")]
    pub(in crate::cli) start_time: Option<String>,

    /// How DAG files are written [default: [tool.forebay.dags] format, else default]
    #[arg(long, value_enum, value_name = "FORMAT")]
    pub(in crate::cli) dag_format: Option<DagFormatArgument>,

    /// How DAG files name the image: by digest, or by the version's tag as BigFlow does [default: digest; tag with bigflow-1.11]
    #[arg(long, value_enum, value_name = "KIND")]
    pub(in crate::cli) image_ref: Option<ImageReferenceArgument>,
}

/// Which DAG files a deploy takes.
#[derive(Debug, Clone, Default, Args, Serialize, Deserialize)]
pub(in crate::cli) struct DeployedDagArguments {
    #[command(flatten)]
    #[serde(flatten)]
    pub(in crate::cli) dags: DagArguments,

    /// Deploy the DAG files of this folder, which `bigflow build-dags` or `forebay build-dags` has written, and build nothing (also -dd)
    #[arg(long, value_name = "FOLDER", conflicts_with_all = ["start_time", "dag_format", "image_ref"])]
    pub(in crate::cli) dags_dir: Option<PathBuf>,

    #[command(flatten)]
    #[serde(flatten)]
    pub(in crate::cli) replacing: ReplacingArguments,
}

/// What becomes of the DAG files that are there.
#[derive(Debug, Clone, Default, Args, Serialize, Deserialize)]
pub(in crate::cli) struct ReplacingArguments {
    /// What becomes of a DAG file that is no longer wanted: deleted at once, or given an end_date, so that running tasks finish, and deleted by the next deploy [default: delete]
    #[arg(long, value_enum, value_name = "HOW")]
    #[serde(skip)]
    pub(in crate::cli) retire: Option<RetireArgument>,

    /// At the first deploy: record the DAG files that BigFlow has deployed as generation 1, which can be rolled back to, and replace them
    #[arg(long, conflicts_with = "no_adopt")]
    #[serde(skip)]
    pub(in crate::cli) adopt: bool,

    /// At the first deploy: leave the DAG files that BigFlow has deployed running beside the new ones
    #[arg(long)]
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(in crate::cli) no_adopt: bool,

    /// Delete everything else in the folder of DAG files, last, except airflow_monitoring.py; asks if that belongs to others (also -cdf)
    #[arg(long)]
    #[serde(skip)]
    pub(in crate::cli) clear_dags_folder: bool,

    /// Agree to what --clear-dags-folder deletes of others
    #[arg(long)]
    #[serde(skip)]
    pub(in crate::cli) yes: bool,
}

/// What becomes of a DAG file that is no longer wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(in crate::cli) enum RetireArgument {
    /// It is deleted at once
    Delete,
    /// It is given an end_date, and deleted by the next deploy
    Drain,
}

impl ReplacingArguments {
    /// What becomes of files that are no longer wanted.
    pub(in crate::cli) fn retire(&self) -> Retire {
        match self.retire {
            None | Some(RetireArgument::Delete) => Retire::Delete,
            Some(RetireArgument::Drain) => Retire::Drain,
        }
    }
}

/// How DAG files are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(in crate::cli) enum DagFormatArgument {
    /// For every Airflow from 2.3 to 3
    Default,
    /// Byte for byte as BigFlow 1.11.3 writes them
    #[value(name = "bigflow-1.11")]
    #[serde(rename = "bigflow-1.11")]
    Bigflow1_11,
}

/// How DAG files name the image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(in crate::cli) enum ImageReferenceArgument {
    /// REPOSITORY@sha256:…, which never changes its meaning
    Digest,
    /// REPOSITORY:VERSION
    Tag,
}

impl DagArguments {
    /// What these flags say; BigFlow's `ALL` means no choice.
    pub(in crate::cli) fn options(&self) -> DagOptions {
        let workflow = self.workflow.clone();
        DagOptions {
            workflow: workflow.filter(|workflow| workflow != "ALL"),
            start_time: self.start_time.clone(),
            live: LiveStarts::default(),
            format: self.dag_format.map(|format| match format {
                DagFormatArgument::Default => DagFormat::Default,
                DagFormatArgument::Bigflow1_11 => DagFormat::Bigflow1_11,
            }),
            image_naming: self.image_ref.map(|kind| match kind {
                ImageReferenceArgument::Digest => ImageNaming::Digest,
                ImageReferenceArgument::Tag => ImageNaming::Tag,
            }),
        }
    }
}
