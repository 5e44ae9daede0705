//! What `PROPFIND` answers (RFC 4918, 9.1 and 14).

use jiff::Timestamp;
use serde::Deserialize;
use url::Url;

use super::super::exchange::{parse_http_date, unescape};

/// A file or folder below a bucket.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Resource {
    /// Its key; a folder's ends with a slash.
    pub(super) path: String,
    /// Bytes; none for folders.
    pub(super) size: Option<u64>,
    pub(super) tag: Option<String>,
    pub(super) updated: Option<Timestamp>,
}

#[derive(Debug, Deserialize)]
struct MultiStatus {
    #[serde(default)]
    response: Vec<Response>,
}

#[derive(Debug, Deserialize)]
struct Response {
    href: String,
    #[serde(default)]
    propstat: Vec<PropertyStatus>,
}

#[derive(Debug, Deserialize)]
struct PropertyStatus {
    #[serde(default)]
    prop: Properties,
    #[serde(default)]
    status: String,
}

#[derive(Debug, Default, Deserialize)]
struct Properties {
    resourcetype: Option<ResourceType>,
    getcontentlength: Option<String>,
    getetag: Option<String>,
    getlastmodified: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
struct ResourceType {
    collection: Option<serde::de::IgnoredAny>,
}

/// The resources of a listing that are below `base`; none if it is not as documented.
pub(super) fn parse_listing(body: &[u8], base: &Url) -> Option<Vec<Resource>> {
    let text = std::str::from_utf8(body).ok()?;
    let listing: MultiStatus = quick_xml::de::from_str(text.trim_start_matches('\u{feff}')).ok()?;
    let responses = listing.response.into_iter();
    Some(
        responses
            .filter_map(|response| resource(response, base))
            .collect(),
    )
}

fn resource(response: Response, base: &Url) -> Option<Resource> {
    let path = path_below(&response.href, base)?;
    // What a property has not is in another part with another status.
    let found = response.propstat.into_iter().find(|part| {
        let code = part.status.split_whitespace().nth(1);
        code.is_none_or(|code| code == "200")
    })?;
    let properties = found.prop;
    let kind = properties.resourcetype.unwrap_or_default();
    if kind.collection.is_some() {
        return Some(Resource {
            path: format!("{}/", path.trim_end_matches('/')),
            ..Resource::default()
        });
    }
    let text = |text: Option<String>| text.filter(|text| !text.trim().is_empty());
    Some(Resource {
        path,
        size: Some(properties.getcontentlength?.trim().parse().ok()?),
        tag: text(properties.getetag),
        updated: properties
            .getlastmodified
            .and_then(|text| parse_http_date(text.trim())),
    })
}

/// The key of an address, which is a whole one or a path; none if it is not below `base`.
fn path_below(href: &str, base: &Url) -> Option<String> {
    let url = base.join(href.trim()).ok()?;
    let (path, root) = (unescape(url.path()), unescape(base.path()));
    let below = path.strip_prefix(root.trim_end_matches('/'))?;
    let below = below.strip_prefix('/')?;
    (!below.is_empty()).then(|| below.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn parse(body: &str) -> Option<Vec<Resource>> {
        parse_listing(
            body.as_bytes(),
            &"https://dav.example.com/a%20b".parse().unwrap(),
        )
    }

    fn only(body: &str) -> Resource {
        let mut read = parse(body).unwrap();
        assert_eq!(read.len(), 1, "{body}");
        read.remove(0)
    }

    #[test]
    fn answers_of_several_servers_are_read() {
        // Apache's: what it does not have comes with another status, and the server's own
        // properties have a prefix of their own.
        let folder = only(
            r#"<?xml version="1.0" encoding="utf-8"?>
<D:multistatus xmlns:D="DAV:" xmlns:ns0="DAV:">
<D:response xmlns:lp1="DAV:"><D:href>/a%20b/cache/</D:href><D:propstat><D:prop>
<lp1:resourcetype><D:collection/></lp1:resourcetype><lp1:getlastmodified>Fri, 02 Jan 2026 03:04:05 GMT</lp1:getlastmodified></D:prop>
<D:status>HTTP/1.1 200 OK</D:status></D:propstat><D:propstat><D:prop><D:getcontentlength/></D:prop>
<D:status>HTTP/1.1 404 Not Found</D:status></D:propstat></D:response></D:multistatus>"#,
        );
        assert_eq!((folder.path.as_str(), folder.size), ("cache/", None));
        let file = only(
            r#"<ns0:multistatus xmlns:ns0="DAV:"><ns0:response><ns0:href>/a%20b/cache/x%2By</ns0:href><ns0:propstat><ns0:prop><ns0:resourcetype />
<ns0:getcontentlength>17</ns0:getcontentlength><ns0:getetag>"1-2-3"</ns0:getetag></ns0:prop><ns0:status>HTTP/1.1 200 OK</ns0:status></ns0:propstat></ns0:response></ns0:multistatus>"#,
        );
        assert_eq!((file.path.as_str(), file.size), ("cache/x+y", Some(17)));
        assert_eq!(file.tag.as_deref(), Some("\"1-2-3\""));
        let without_tag = only(
            r#"<multistatus xmlns="DAV:"><response><href>https://dav.example.com/a%20b/cache/z</href><propstat><prop><resourcetype/>
<getcontentlength>0</getcontentlength><getlastmodified>Fri, 02 Jan 2026 03:04:05 GMT</getlastmodified></prop><status>HTTP/1.1 200 OK</status></propstat></response>
<response><href>/elsewhere/z</href><propstat><prop><getcontentlength>0</getcontentlength></prop><status>HTTP/1.1 200 OK</status></propstat></response></multistatus>"#,
        );
        assert_eq!(without_tag.path, "cache/z");
        assert!(without_tag.updated.is_some() && without_tag.tag.is_none());
        assert_eq!(parse("<multistatus/>"), Some(Vec::new()));
        assert_eq!(parse("<html>"), None);
    }

    #[test]
    fn no_address_leads_out_of_the_folder() {
        let base = "https://dav.example.com/a%20b".parse().unwrap();
        for href in [
            "/a%20b",
            "/a%20b/",
            "/a%20b/../c",
            "../x",
            "/a%20bc/d",
            "",
            "https://[",
        ] {
            assert_eq!(path_below(href, &base), None, "{href}");
        }
        assert_eq!(path_below("/a b/c", &base).as_deref(), Some("c"));
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_a_panic(body in prop::collection::vec(any::<u8>(), 0..300)) {
            let _ = parse_listing(&body, &"http://host/".parse().unwrap());
        }
    }
}
