//! The usual ways to write what BigFlow's Dockerfiles say.

use super::super::*;
use super::planner::planned;

/// What each way comes to, behind these lines.
const BEFORE: &str = "# syntax=docker/dockerfile:1\nFROM python:3.11-slim AS base\nWORKDIR /app\n\
                      COPY resources/requirements.txt .\nCOPY dist dist\n";

fn class_of(lines: &str) -> (LineClass, String) {
    let plan = planned(&format!("{BEFORE}{lines}\n"));
    let last = plan.lines.last().unwrap();
    (last.class, last.reason.clone())
}

#[test]
fn the_usual_variants_are_understood() {
    use LineClass::{Engine, Error, Native, NoOp};
    for (lines, expected) in [
        (
            "RUN --mount=type=cache,target=/root/.cache/pip pip install -r requirements.txt && pip install dist/*.whl",
            Native,
        ),
        (
            "RUN set -eux; \\\n  # first pip\n  pip install --upgrade pip; \\\n\n  python -m pip install --no-cache-dir -r requirements.txt",
            Native,
        ),
        (
            "RUN pip3 install --no-cache-dir --no-deps ./dist/*.whl",
            Native,
        ),
        (
            "RUN [\"pip\", \"install\", \"-r\", \"requirements.txt\"]",
            Native,
        ),
        (
            "RUN [\"/bin/bash\", \"-c\", \"pip install -r requirements.txt\"]",
            Native,
        ),
        (
            "SHELL [\"/bin/bash\", \"-euo\", \"pipefail\", \"-c\"]\nRUN pip install -r requirements.txt",
            Native,
        ),
        (
            "RUN <<EOF\nset -e\n# all at once\npip install -r requirements.txt\npip install dist/*.whl\nEOF",
            Native,
        ),
        (
            "RUN <<'SCRIPT'\npip install \\\n  -r requirements.txt\nSCRIPT",
            Native,
        ),
        ("COPY --link resources/requirements.txt other.txt", Native),
        ("COPY --chown=root:root conf/ /conf/", Native),
        ("ADD conf /conf", Native),
        ("run pip install dist/*.whl", Native),
        (
            "RUN apt-get update -qq && apt-get install -y -qq --no-install-recommends && apt-get clean && rm -rf /var/lib/apt/lists/* /tmp/*",
            NoOp,
        ),
        (
            "RUN apt-get update && apt-get install -y \\\n  # gcc \\\n  # libc-dev \\\n  && rm -rf /var/lib/apt/lists/*",
            NoOp,
        ),
        ("RUN python -m pip install -U pip wheel", NoOp),
        ("RUN pip --version && python --version", NoOp),
        (
            "RUN <<EOF\napt-get update\napt-get install -y git\nEOF",
            Engine,
        ),
        (
            "RUN <<EOF bash\npip install -r requirements.txt\nEOF",
            Engine,
        ),
        ("RUN cat <<EOF > /etc/x\ntext\nEOF", Engine),
        ("RUN <<EOF\n#!/usr/bin/env python3\nprint()\nEOF", Engine),
        ("COPY <<EOF /etc/motd\nhello\nEOF", Engine),
        ("RUN apt-get update; apt-get upgrade -y", Engine),
        ("RUN curl -fsSL https://x.test/install.sh | sh", Engine),
        ("RUN pip install --user -r requirements.txt", Engine),
        ("RUN pip install -e .", Engine),
        ("RUN pip install $UNKNOWN", Engine),
        ("RUN pip install -r missing.txt", Engine),
        ("RUN useradd --create-home app", Engine),
        ("RUN pip install dist/hello-0.1.0-py3-none-any.whl", Error),
        ("RUN for w in dist/*.whl; do unzip $w; done", Error),
    ] {
        let (class, reason) = class_of(lines);
        assert_eq!(class, expected, "{lines}: {reason}");
        assert!(!reason.is_empty(), "{lines}");
    }
}

#[test]
fn only_what_the_last_stage_needs_is_done() {
    let plan = planned(
        "FROM python:3.11 AS wheels\nRUN make wheels\nFROM python:3.11-slim AS app\nCOPY dist /dist\n\
         RUN pip install /dist/*.whl\nFROM app AS tests\nRUN make tests\nFROM app\nUSER 1000\n",
    );
    let classes: Vec<&str> = plan.lines.iter().map(|line| line.class.as_str()).collect();
    assert_eq!(
        classes,
        [
            "no-op", "no-op", "native", "native", "native", "no-op", "no-op", "native", "native"
        ]
    );
    assert_eq!(plan.settings.user.as_deref(), Some("1000"));
}
