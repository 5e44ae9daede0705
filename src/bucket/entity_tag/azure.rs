//! Azure Blob Storage (REST API, version 2023-11-03).

use async_trait::async_trait;
use http::StatusCode;
use http::header::{HeaderMap, HeaderName, HeaderValue};
use object_store::azure::{
    AzureAuthorizer, AzureConfigKey, AzureCredential, MicrosoftAzureBuilder,
};
use object_store::client::HttpRequest;
use serde::Deserialize;
use url::Url;

use super::super::ObjectKey;
use super::super::checksums::decode_md5;
use super::super::exchange::{Answer, Permissions, escape, parse_http_date, unescape};
use super::dialect::{Dialect, ErrorBody, ListedObject, ListedPage};
use super::{Shared, credential_retries, settings};
use crate::http::{HttpClient, is_transient_status};

pub(super) struct Azure {
    /// The container's own address, without a slash at its end.
    base: Url,
    account: String,
    /// None to ask anonymously.
    credentials: Option<Shared<AzureCredential>>,
}

/// Azure's own tools call these differently than the library does.
const ALIASES: [(&str, AzureConfigKey); 2] = [
    ("AZURE_STORAGE_ACCOUNT", AzureConfigKey::AccountName),
    ("AZURE_STORAGE_KEY", AzureConfigKey::AccessKey),
];

impl Azure {
    const EMULATOR: &'static str = "http://127.0.0.1:10000";
    const EMULATOR_ACCOUNT: &'static str = "devstoreaccount1";

    pub(super) fn new(
        container: &str,
        variables: &[(String, String)],
        http: &HttpClient,
    ) -> Result<Self, Box<dyn std::error::Error + Send + Sync>> {
        let mut builder = MicrosoftAzureBuilder::new()
            .with_retry(credential_retries())
            .with_http_connector(http.clone());
        for (name, value) in settings(variables, "AZURE_") {
            // Variables of other programs are no settings of the library.
            if let Ok(key) = name.parse() {
                builder = builder.with_config(key, value);
            }
        }
        let given = |wanted: &str| {
            let found = variables
                .iter()
                .find(|(name, value)| name == wanted && !value.is_empty());
            found.map(|(_, value)| value.as_str())
        };
        for (name, key) in ALIASES {
            if let Some(value) = given(name)
                && builder.get_config_value(&key).is_none()
            {
                builder = builder.with_config(key, value);
            }
        }
        builder = builder.with_container_name(container);
        let value = |key| {
            builder
                .get_config_value(&key)
                .filter(|text| !text.is_empty())
        };
        let is_on = |key| value(key).is_some_and(|text| text == "true");
        let emulator = is_on(AzureConfigKey::UseEmulator);
        let anonymous = is_on(AzureConfigKey::SkipSignature);
        let account = value(AzureConfigKey::AccountName);
        let account = match account {
            Some(account) => account,
            None if emulator => Self::EMULATOR_ACCOUNT.to_owned(),
            None => return Err("AZURE_STORAGE_ACCOUNT is not set".into()),
        };
        let service = match value(AzureConfigKey::Endpoint) {
            _ if emulator => {
                let address = given("AZURITE_BLOB_STORAGE_URL").unwrap_or(Self::EMULATOR);
                format!("{}/{account}", address.trim_end_matches('/'))
            }
            Some(endpoint) => endpoint,
            None if is_on(AzureConfigKey::UseFabricEndpoint) => {
                format!("https://{account}.blob.fabric.microsoft.com")
            }
            None => format!("https://{account}.blob.core.windows.net"),
        };
        let base = Url::parse(&format!("{}/{container}", service.trim_end_matches('/')))?;
        let store = builder.build()?;
        Ok(Self {
            base,
            account,
            credentials: (!anonymous).then(|| store.credentials().clone()),
        })
    }
}

/// The answer to `List Blobs`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct EnumerationResults {
    #[serde(default)]
    blobs: Blobs,
    next_marker: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Blobs {
    #[serde(default)]
    blob: Vec<Blob>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Blob {
    name: Name,
    properties: Properties,
}

/// A name that XML cannot have is escaped, and says so.
#[derive(Debug, Deserialize)]
struct Name {
    #[serde(rename = "@Encoded", default)]
    encoded: bool,
    #[serde(rename = "$text", default)]
    text: String,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Properties {
    #[serde(rename = "Last-Modified")]
    last_modified: String,
    etag: String,
    #[serde(rename = "Content-Length")]
    length: u64,
    #[serde(rename = "Content-MD5")]
    md5: Option<String>,
}

impl Blob {
    fn listed(self) -> Option<ListedObject> {
        let key = match self.name.encoded {
            true => unescape(&self.name.text),
            false => self.name.text,
        };
        let md5 = self.properties.md5.filter(|text| !text.is_empty());
        Some(ListedObject {
            key,
            size: self.properties.length,
            tag: self.properties.etag,
            md5: md5.map(|text| decode_md5(&text)).transpose().ok()?,
            updated: parse_http_date(&self.properties.last_modified)?,
        })
    }
}

pub(super) fn page(body: &[u8]) -> Option<ListedPage> {
    let text = std::str::from_utf8(body)
        .ok()?
        .trim_start_matches('\u{feff}');
    let list: EnumerationResults = quick_xml::de::from_str(text).ok()?;
    let objects = list.blobs.blob.into_iter().map(Blob::listed);
    Some(ListedPage {
        objects: objects.collect::<Option<_>>()?,
        next: list.next_marker.filter(|marker| !marker.is_empty()),
    })
}

#[async_trait]
impl Dialect for Azure {
    async fn authorize(&self, request: &mut HttpRequest) -> object_store::Result<()> {
        match &self.credentials {
            Some(credentials) => {
                let credential = credentials.get_credential().await?;
                AzureAuthorizer::new(&credential, &self.account).try_authorize(request)
            }
            None => Ok(()),
        }
    }

    fn identity(&self) -> String {
        match self.credentials {
            Some(_) => format!("the Azure credentials in use for {}", self.account),
            None => "nobody (AZURE_SKIP_SIGNATURE is set)".to_owned(),
        }
    }

    fn permissions(&self) -> Permissions {
        Permissions {
            list: "containers/blobs/read (list)",
            read: "containers/blobs/read",
            write: "containers/blobs/write",
            delete: "containers/blobs/delete",
        }
    }

    fn object_url(&self, key: &ObjectKey) -> Url {
        let mut url = self.base.clone();
        let path = format!("{}/{}", url.path(), escape(key.as_str(), b"/"));
        url.set_path(&path);
        url
    }

    fn list_url(&self, prefix: &str, marker: Option<&str>) -> Url {
        let mut url = self.base.clone();
        let mut query = "restype=container&comp=list&maxresults=5000".to_owned();
        // An empty value is signed differently by some.
        for (name, value) in [("prefix", Some(prefix)), ("marker", marker)] {
            if let Some(value) = value.filter(|value| !value.is_empty()) {
                query.push_str(&format!("&{name}={}", escape(value, b"")));
            }
        }
        url.set_query(Some(&query));
        url
    }

    fn parse_page(&self, body: &[u8]) -> Option<ListedPage> {
        page(body)
    }

    fn nonce_header(&self) -> HeaderName {
        // Names of metadata must be names of C#, too.
        HeaderName::from_static("x-ms-meta-forebaynonce")
    }

    fn put_headers(&self) -> Vec<(HeaderName, HeaderValue)> {
        vec![(
            HeaderName::from_static("x-ms-blob-type"),
            HeaderValue::from_static("BlockBlob"),
        )]
    }

    fn tags_writes(&self) -> bool {
        true
    }

    fn holds_to_conditions(&self) -> bool {
        true
    }

    fn md5(&self, headers: &HeaderMap) -> Option<[u8; 16]> {
        decode_md5(headers.get("content-md5")?.to_str().ok()?).ok()
    }

    fn is_condition_failed(&self, status: StatusCode, body: &[u8]) -> bool {
        match status {
            StatusCode::PRECONDITION_FAILED => true,
            StatusCode::CONFLICT => ErrorBody::is(body, &["BlobAlreadyExists"]),
            // A condition on what does not exist is answered so.
            StatusCode::NOT_FOUND => !self.is_bucket_missing(body),
            _ => false,
        }
    }

    fn is_bucket_missing(&self, body: &[u8]) -> bool {
        ErrorBody::is(body, &["ContainerNotFound", "ResourceNotFound"])
    }

    fn is_transient(&self, answer: &Answer) -> bool {
        is_transient_status(answer.status)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::HttpOptions;

    fn azure(variables: &[(&str, &str)]) -> Result<Azure, String> {
        let variables: Vec<_> = variables
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect();
        let http = HttpClient::new(&HttpOptions::default()).unwrap();
        Azure::new("container", &variables, &http).map_err(|error| error.to_string())
    }

    #[test]
    fn the_address_is_made_of_what_users_set() {
        let key: ObjectKey = "dags/a b+.py".parse().unwrap();
        let account = ("AZURE_STORAGE_ACCOUNT", "mine");
        let secret = ("AZURE_STORAGE_KEY", "c2VjcmV0");
        for (variables, expected) in [
            (
                vec![account, secret],
                "https://mine.blob.core.windows.net/container/",
            ),
            (
                vec![
                    account,
                    secret,
                    ("AZURE_STORAGE_ENDPOINT", "https://blobs.example.com/"),
                ],
                "https://blobs.example.com/container/",
            ),
            (
                vec![
                    ("AZURE_STORAGE_USE_EMULATOR", "true"),
                    ("AZURITE_BLOB_STORAGE_URL", "http://127.0.0.1:7"),
                ],
                "http://127.0.0.1:7/devstoreaccount1/container/",
            ),
        ] {
            let url = azure(&variables).unwrap().object_url(&key);
            assert_eq!(url.as_str(), format!("{expected}dags/a%20b%2B.py"));
        }
        let error = azure(&[secret]).err().unwrap();
        assert_eq!(error, "AZURE_STORAGE_ACCOUNT is not set");
    }

    #[test]
    fn odd_keys_do_not_spoil_a_listing() {
        let service = azure(&[("AZURE_STORAGE_USE_EMULATOR", "true")]).unwrap();
        let page = |text: &str| service.parse_page(text.as_bytes());
        let listing = "\u{feff}<?xml version=\"1.0\" encoding=\"utf-8\"?>
            <EnumerationResults><Prefix>dags/</Prefix><Blobs>
              <Blob><Name>dags//a b+.py</Name><Properties>
                <Last-Modified>Fri, 02 Jan 2026 03:04:05 GMT</Last-Modified><Etag>0x8D</Etag>
                <Content-Length>0</Content-Length><Content-MD5>1B2M2Y8AsgTpgAmY7PhCfg==</Content-MD5>
                </Properties><OrMetadata /></Blob>
              <Blob><Name Encoded=\"true\">dags%2F%EF%BF%BF+</Name><Properties>
                <Last-Modified>Fri, 02 Jan 2026 03:04:05 GMT</Last-Modified><Etag>\"0x8E\"</Etag>
                <Content-Length>7</Content-Length><Content-MD5 /></Properties></Blob>
            </Blobs><NextMarker>2!x</NextMarker></EnumerationResults>";
        let read = page(listing).unwrap();
        assert_eq!(read.next.as_deref(), Some("2!x"));
        assert_eq!(read.objects[0].key, "dags//a b+.py");
        assert!(read.objects[0].md5.is_some());
        assert_eq!(read.objects[1].key, "dags/\u{ffff}+");
        assert_eq!(read.objects[1].md5, None);
        let empty = "<EnumerationResults><Blobs /><NextMarker /></EnumerationResults>";
        assert_eq!(
            page(empty),
            Some(ListedPage {
                objects: Vec::new(),
                next: None
            })
        );
        assert_eq!(page(&listing.replace("Jan", "Nix")), None);
        assert_eq!(page(&listing.replace("1B2M", "1")), None);
    }
}
