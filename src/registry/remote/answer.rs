//! What may be believed, and shown, of an answer that was not hoped for.

use http::header::CONTENT_TYPE;

use crate::http::read_body;
use crate::http::tidy;
use crate::oci::Sha256Digest;

/// The most of an error body that is read.
const MAX_ERROR_BODY: usize = 64 << 10;
/// The most characters of a registry's own words that are shown.
const MAX_DETAIL: usize = 300;

/// An error body, taken apart (distribution specification, "Error Codes").
#[derive(Debug, Default)]
pub(super) struct Problem {
    codes: Vec<String>,
    /// The registry's own words, fit to be shown; never HTML.
    pub(super) detail: Option<String>,
    /// Digests that the answer names.
    pub(super) digests: Vec<Sha256Digest>,
}

impl Problem {
    /// Reads the body of an answer. A body that cannot be read says nothing.
    pub(super) async fn of(response: reqwest::Response) -> Self {
        let media_type = (response.headers().get(CONTENT_TYPE))
            .and_then(|value| value.to_str().ok())
            .unwrap_or_default()
            .to_ascii_lowercase();
        let body = read_body(response, MAX_ERROR_BODY)
            .await
            .unwrap_or_default()
            .unwrap_or_default();
        Self::parse(&media_type, &body)
    }

    pub(super) fn parse(media_type: &str, body: &[u8]) -> Self {
        let Ok(json) = serde_json::from_slice::<serde_json::Value>(body) else {
            let text = String::from_utf8_lossy(body);
            let shown = media_type.starts_with("text/plain") && !text.contains('<');
            return Self {
                detail: shown
                    .then(|| tidy(&text, MAX_DETAIL))
                    .filter(|text| !text.is_empty()),
                ..Self::default()
            };
        };
        let mut problem = Self::default();
        let mut messages = Vec::new();
        for error in (json.get("errors").and_then(|errors| errors.as_array()))
            .into_iter()
            .flatten()
        {
            let text = |key| error.get(key).and_then(|value| value.as_str());
            if let Some(code) = text("code") {
                problem.codes.push(code.to_owned());
            }
            messages.extend(text("message").or(text("code")));
            if let Some(detail) = error.get("detail") {
                collect_digests(detail, &mut problem.digests);
            }
        }
        let detail = tidy(&messages.join("; "), MAX_DETAIL);
        problem.detail = Some(detail).filter(|text| !text.is_empty());
        problem
    }

    /// Whether the answer carries this error code.
    pub(super) fn has(&self, code: &str) -> bool {
        self.codes.iter().any(|found| found == code)
    }
}

fn collect_digests(value: &serde_json::Value, digests: &mut Vec<Sha256Digest>) {
    match value {
        serde_json::Value::String(text) => digests.extend(text.parse::<Sha256Digest>().ok()),
        serde_json::Value::Array(values) => values.iter().for_each(|v| collect_digests(v, digests)),
        serde_json::Value::Object(members) => {
            members.values().for_each(|v| collect_digests(v, digests));
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn html_and_terminal_codes_are_never_shown() {
        assert_eq!(
            Problem::parse("text/html", b"<html>Bad Gateway</html>").detail,
            None
        );
        assert_eq!(Problem::parse("text/plain", b"<b>x</b>").detail, None);
        assert_eq!(
            Problem::parse("text/plain", b"gone\x1b[31m\nfishing").detail,
            Some("gone [31m fishing".to_owned())
        );
        let long = format!(r#"{{"errors":[{{"message":"{}"}}]}}"#, "ä".repeat(2_000));
        let detail = Problem::parse("application/json", long.as_bytes()).detail;
        assert_eq!(detail.unwrap().chars().count(), MAX_DETAIL + 1);
    }

    #[test]
    fn codes_and_missing_blobs_are_found() {
        let digest = Sha256Digest::of(b"layer");
        for detail in [
            format!(r#""{digest}""#),
            format!(r#"{{"Digest":"{digest}"}}"#),
            format!(r#"[{{"digest":"{digest}"}}]"#),
        ] {
            let body = format!(
                r#"{{"errors":[{{"code":"MANIFEST_BLOB_UNKNOWN","message":"blob unknown","detail":{detail}}}]}}"#
            );
            let problem = Problem::parse("application/json", body.as_bytes());
            assert!(problem.has("MANIFEST_BLOB_UNKNOWN"));
            assert_eq!(problem.digests, [digest]);
            assert_eq!(problem.detail.as_deref(), Some("blob unknown"));
        }
    }
}
