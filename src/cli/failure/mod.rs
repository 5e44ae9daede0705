//! Every error of the library as what, why, next step and exit status: a file a topic.

mod build;
mod develop;
mod environment;
mod image;
mod project;
mod remote;
mod store;

pub(super) use remote::pushing;
