//! What a repository has: its tags, and what refers to a manifest.

use http::header::{ACCEPT, HeaderMap, HeaderValue, LINK};
use http::{Method, StatusCode};
use serde::Deserialize;
use url::Url;

use super::RemoteRegistry;
use crate::http::read_body;
use crate::oci::{MediaType, Sha256Digest, Tag};
use crate::registry::{ManifestName, Referrer, RegistryError, referrers_tag};

/// The longest page that is read.
const MAX_PAGE: usize = 8 << 20;
/// How many tags a page should have; registries may give fewer.
const TAGS_A_PAGE: &str = "1000";
/// A registry that has more pages than this goes round in circles.
const MAX_PAGES: usize = 10_000;

#[derive(Deserialize)]
pub(super) struct TagPage {
    /// Some registries send null for none.
    tags: Option<Vec<String>>,
}

#[derive(Deserialize)]
pub(super) struct ReferrerPage {
    #[serde(default)]
    manifests: Vec<Referrer>,
}

impl RemoteRegistry {
    pub(super) async fn list_tags(&self) -> Result<Vec<Tag>, RegistryError> {
        let mut url = self.url("tags/list");
        url.query_pairs_mut().append_pair("n", TAGS_A_PAGE);
        let pages: Option<Vec<TagPage>> = self.pages(url, "application/json").await?;
        let Some(pages) = pages else {
            return Err(RegistryError::NoRepository {
                repository: self.transport.target.repository.clone(),
            });
        };
        pages
            .into_iter()
            .flat_map(|page| page.tags.unwrap_or_default())
            .map(|tag| {
                let parsed = tag.parse::<Tag>();
                parsed.map_err(|error| self.malformed_list("tags", error.to_string()))
            })
            .collect()
    }

    pub(super) async fn list_referrers(
        &self,
        digest: &Sha256Digest,
    ) -> Result<Vec<Referrer>, RegistryError> {
        let url = self.url(&format!("referrers/{digest}"));
        let pages: Option<Vec<ReferrerPage>> = self.pages(url, MediaType::OCI_INDEX).await?;
        if let Some(pages) = pages {
            return Ok(pages.into_iter().flat_map(|page| page.manifests).collect());
        }
        // The registry does not know this question: clients keep the list under a tag
        // (distribution specification, "Referrers Tag Schema").
        let name = ManifestName::Tag(referrers_tag(digest)?);
        match self.get_manifest(&name).await? {
            None => Ok(Vec::new()),
            Some(manifest) => serde_json::from_slice::<ReferrerPage>(&manifest.bytes)
                .map(|page| page.manifests)
                .map_err(|error| self.malformed_list("referrers", error.to_string())),
        }
    }

    /// All pages of a list; `None` if the registry has no such list.
    async fn pages<P: serde::de::DeserializeOwned>(
        &self,
        first: Url,
        accept: &'static str,
    ) -> Result<Option<Vec<P>>, RegistryError> {
        let (mut pages, mut next) = (Vec::new(), Some(first));
        while let Some(url) = next {
            let mut call = self.call(Method::GET, url.clone());
            call.headers
                .insert(ACCEPT, HeaderValue::from_static(accept));
            let mut failures = 0;
            let (headers, body) = loop {
                let response = self.transport.send(&call).await?;
                match response.status() {
                    StatusCode::OK => {}
                    StatusCode::NOT_FOUND if pages.is_empty() => return Ok(None),
                    _ => {
                        let problem = self.transport.problem(&call.method, &url, response);
                        return Err(problem.await);
                    }
                }
                let headers = response.headers().clone();
                match read_body(response, MAX_PAGE).await {
                    Ok(body) => break (headers, body),
                    Err(error) => {
                        failures += 1;
                        self.transport.pause_or_fail(failures, error).await?;
                    }
                }
            };
            let body = body.ok_or_else(|| self.malformed_list("lists", "it is too long".into()))?;
            let page = serde_json::from_slice(&body)
                .map_err(|error| self.malformed_list("lists", error.to_string()))?;
            pages.push(page);
            next = next_page(&headers, &url);
            if pages.len() >= MAX_PAGES {
                return Err(self.malformed_list("lists", "it does not end".to_owned()));
            }
        }
        Ok(Some(pages))
    }

    fn malformed_list(&self, what: &str, problem: String) -> RegistryError {
        RegistryError::Malformed {
            what: format!("the list of {what} of {}", self.transport.target.repository),
            problem,
        }
    }
}

/// The address in `Link: <…>; rel="next"`, which may be relative.
fn next_page(headers: &HeaderMap, from: &Url) -> Option<Url> {
    headers.get_all(LINK).iter().find_map(|value| {
        let (address, parameters) = value
            .to_str()
            .ok()?
            .trim()
            .strip_prefix('<')?
            .split_once('>')?;
        let is_next = parameters
            .split(';')
            .any(|parameter| matches!(parameter.trim(), r#"rel="next""# | "rel=next"));
        is_next.then(|| from.join(address).ok()).flatten()
    })
}
