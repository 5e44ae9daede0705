//! The page of `forebay report` in a real browser: it loads in silence, asks for nothing, can be
//! used with keys, in narrow windows, in light and dark, without a script, and believes no name.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr
)]

use std::path::{Path, PathBuf};

use forebay::report::{Report, write_html};
use serde_json::{Value, json};
use similar::{ChangeTag, TextDiff};

#[path = "support/browser.rs"]
mod browser;
#[path = "support/forebay.rs"]
#[allow(dead_code)]
mod forebay_support;
#[path = "support/survey.rs"]
mod survey;

use browser::Browser;
use survey::Story;

/// Ends every kind of context that a text stands in.
const HOSTILE: &str = "</script></style></title>--><img src=x onerror=window.hurt=1>\"onload=\"window.hurt=1' &lt; {{x}} \u{202e}";

struct Page {
    _folder: tempfile::TempDir,
    file: PathBuf,
    report: Report,
}

fn page(story: &Story) -> Page {
    let (key, survey) = story.survey();
    let report = Report::of(&key, survey);
    let mut html = Vec::new();
    write_html(&report, &mut html).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("report.html");
    std::fs::write(&file, html).unwrap();
    Page {
        _folder: folder,
        file,
        report,
    }
}

/// That the page has said nothing and asked for nothing but itself.
fn assert_silent(browser: &Browser, file: &Path) {
    assert_eq!(browser.complaints(), [""; 0]);
    for request in browser.requests() {
        assert!(
            request.starts_with(&format!("file://{}", file.display())),
            "{request}"
        );
    }
}

/// That nothing makes the whole page wider than its window.
fn assert_fits(browser: &mut Browser, what: &str) {
    let widths = browser.evaluate("[document.documentElement.scrollWidth, innerWidth]");
    assert!(widths[0].as_u64() <= widths[1].as_u64(), "{what}: {widths}");
}

const CONTRASTS: &str = r#"
(() => {
  const context = document.createElement('canvas').getContext('2d', { willReadFrequently: true });
  const rgba = (colour) => {
    context.clearRect(0, 0, 1, 1);
    context.fillStyle = colour;
    context.fillRect(0, 0, 1, 1);
    return [...context.getImageData(0, 0, 1, 1).data];
  };
  const light = ([r, g, b]) => {
    const part = (value) => (value /= 255) <= .04045 ? value / 12.92 : ((value + .055) / 1.055) ** 2.4;
    return .2126 * part(r) + .7152 * part(g) + .0722 * part(b);
  };
  const behind = (element) => {
    for (; element; element = element.parentElement) {
      const colour = rgba(getComputedStyle(element).backgroundColor);
      if (colour[3] === 255) return colour;
    }
    return rgba(getComputedStyle(document.documentElement).backgroundColor);
  };
  const poor = [];
  for (const element of document.querySelectorAll('body *')) {
    const own = [...element.childNodes].some((node) => node.nodeType === 3 && node.data.trim());
    if (!own || !element.checkVisibility() || element.closest('svg, script, noscript')) continue;
    const [one, other] = [light(rgba(getComputedStyle(element).color)), light(behind(element))];
    const contrast = (Math.max(one, other) + .05) / (Math.min(one, other) + .05);
    if (contrast < 4.5) poor.push([element.tagName, element.className, element.textContent.slice(0, 30), contrast]);
  }
  return poor;
})()
"#;

#[test]
fn pages_of_every_size_load_in_silence_and_fit_their_window() {
    let Some(mut browser) = Browser::start() else {
        return;
    };
    let long = |index: usize| format!("{}_{index}", "a_workflow_with_a_very_long_name".repeat(3));
    let stories = [
        ("empty", Story::new(0, 0)),
        ("one", Story::new(1, 1)),
        ("three", Story::new(3, 2)),
        ("many", Story::new(60, 40)),
        (
            "long-names",
            Story {
                workflow_name: long,
                words: "a_user_whose_name_has_no_end_and_no_place_to_break_it_either_which_is_bad@a-machine-with-another-such-name.example.com",
                ..Story::new(3, 4)
            },
        ),
        (
            "big-graph",
            Story {
                jobs: |_| 200,
                ..Story::new(2, 1)
            },
        ),
    ];
    for (name, story) in stories {
        let page = page(&story);
        for scheme in ["light", "dark"] {
            browser.prefer("prefers-color-scheme", scheme);
            for (width, height) in [(360, 800), (1280, 900)] {
                browser.window(width, height);
                browser.open(&page.file);
                let what = format!("{name} {scheme} {width}");
                assert_silent(&browser, &page.file);
                assert_fits(&mut browser, &what);
                assert_eq!(browser.evaluate(CONTRASTS), json!([]), "{what}");
                browser.picture(&what.replace(' ', "-"));
            }
        }
        let panels = browser.evaluate("document.querySelectorAll('.panel').length");
        assert_eq!(panels, json!(story.generations));
    }
}

#[test]
fn a_graph_of_two_hundred_jobs_is_seen_as_a_whole_and_in_full_size() {
    let Some(mut browser) = Browser::start() else {
        return;
    };
    let page = page(&Story {
        jobs: |_| 200,
        ..Story::new(1, 1)
    });
    browser.open(&page.file);
    const SIZES: &str = "(() => { const g = document.querySelector('.panel.shown .graph'); return [g.scrollWidth - g.clientWidth, g.scrollHeight - g.clientHeight, g.querySelector('svg').getBoundingClientRect().height] })()";
    let whole = browser.evaluate(SIZES);
    assert_eq!((&whole[0], &whole[1]), (&json!(0), &json!(0)), "{whole}");
    browser.evaluate("document.querySelector('.panel.shown .full input').focus()");
    browser.press(" ");
    let full = browser.evaluate(SIZES);
    assert!(
        full[2].as_f64().unwrap() > 2.0 * whole[2].as_f64().unwrap(),
        "{full}"
    );
    assert!(full[1].as_f64().unwrap() > 0.0, "{full}");
    browser.picture("big-graph-full");
    let jobs = browser.evaluate("document.querySelectorAll('symbol .job').length");
    assert_eq!(jobs, json!(200));
    assert_silent(&browser, &page.file);
}

#[test]
fn light_and_dark_are_different_and_motion_can_be_refused() {
    let Some(mut browser) = Browser::start() else {
        return;
    };
    let page = page(&Story::new(2, 1));
    let mut paper = |scheme| {
        browser.prefer("prefers-color-scheme", scheme);
        browser.open(&page.file);
        browser.evaluate("getComputedStyle(document.documentElement).backgroundColor")
    };
    assert_ne!(paper("light"), paper("dark"));
    let mut transition = |motion| {
        browser.prefer("prefers-reduced-motion", motion);
        browser.evaluate("getComputedStyle(document.querySelector('.entry')).transitionDuration")
    };
    assert_ne!(transition("no-preference"), json!("0s"));
    assert_eq!(transition("reduce"), json!("0s"));
}

#[test]
fn everything_can_be_done_with_keys() {
    let Some(mut browser) = Browser::start() else {
        return;
    };
    let page = page(&Story::new(9, 2));
    browser.prefer("prefers-reduced-motion", "reduce");
    browser.open(&page.file);
    const SHOWN: &str = "[...document.querySelectorAll('.panel')].filter((p) => p.checkVisibility()).map((p) => p.id)";
    const FOCUS: &str = "document.activeElement.hash ?? document.activeElement.id ?? ''";
    assert_eq!(browser.evaluate(SHOWN), json!(["g9"]));

    // The first stop leads past the time line.
    browser.press("Tab");
    assert_eq!(browser.evaluate(FOCUS), "#generation");
    browser.press("Enter");
    assert_eq!(browser.evaluate(FOCUS), "generation");
    assert_eq!(browser.evaluate(SHOWN), json!(["g9"]));

    // The time line is one stop; arrows move along it.
    browser.evaluate("document.querySelector('.entry').focus()");
    for (key, shown) in [
        ("ArrowDown", "g8"),
        ("ArrowDown", "g7"),
        ("ArrowUp", "g8"),
        ("End", "g1"),
        ("ArrowDown", "g1"),
        ("Home", "g9"),
        ("ArrowDown", "g8"),
    ] {
        browser.press(key);
        assert_eq!(browser.evaluate(SHOWN), json!([shown]), "{key}");
        assert_eq!(browser.evaluate(FOCUS), format!("#{shown}"));
        let current = "document.querySelector('[aria-current]').hash";
        assert_eq!(browser.evaluate(current), format!("#{shown}"));
    }
    browser.picture("keys");

    // From there every stop is visible, and has an outline.
    let mut stops = Vec::new();
    loop {
        browser.press("Tab");
        let stop = browser.evaluate(
            "(() => { const e = document.activeElement; return e === document.body ? null : [e.tagName, e.id, e.checkVisibility(), e.matches(':focus-visible') && getComputedStyle(e).outlineStyle] })()",
        );
        if stop.is_null() || stops.len() > 100 {
            break;
        }
        assert_eq!(
            (&stop[2], &stop[3]),
            (&json!(true), &json!("solid")),
            "{stop}"
        );
        stops.push(format!(
            "{}#{}",
            stop[0].as_str().unwrap(),
            stop[1].as_str().unwrap()
        ));
    }
    for stop in [
        "SELECT#from",
        "BUTTON#swap",
        "SELECT#to",
        "SUMMARY#",
        "DIV#",
    ] {
        assert!(stops.contains(&stop.to_owned()), "{stop}: {stops:?}");
    }
    let entries = stops.iter().filter(|stop| *stop == "A#").count();
    assert!(entries < 5, "the other entries are no stops: {stops:?}");
    assert_silent(&browser, &page.file);
}

#[test]
fn without_a_script_the_page_shows_every_generation() {
    let Some(mut browser) = Browser::start() else {
        return;
    };
    let page = page(&Story::new(3, 1));
    browser.call(
        "Emulation.setScriptExecutionDisabled",
        json!({"value": true}),
    );
    const SHOWN: &str = "[...document.querySelectorAll('.panel')].filter((p) => p.checkVisibility()).map((p) => p.id)";
    for (fragment, shown) in [("", "g3"), ("#g2", "g2"), ("#g1", "g1")] {
        browser.open_at(&page.file, fragment);
        assert_eq!(browser.evaluate(SHOWN), json!([shown]));
    }
    browser.picture("no-script");
    let drawn =
        browser.evaluate("document.querySelector('#g1 .graph use').getBoundingClientRect().width");
    assert!(drawn.as_f64().unwrap() > 100.0);
    let note = browser.evaluate("[document.querySelector('noscript').innerText, document.querySelector('.choice').checkVisibility()]");
    assert!(note[0].as_str().unwrap().contains("forebay diff"), "{note}");
    assert_eq!(note[1], json!(false));
    assert_silent(&browser, &page.file);
}

#[test]
fn no_name_is_anything_but_text() {
    let Some(mut browser) = Browser::start() else {
        return;
    };
    let page = page(&Story {
        words: HOSTILE,
        ..Story::new(3, 2)
    });
    browser.open(&page.file);
    assert_silent(&browser, &page.file);
    let found = browser.evaluate(
        "[window.hurt ?? null, document.scripts.length, document.images.length, document.querySelectorAll('[onload], [onerror]').length]",
    );
    assert_eq!(found, json!([null, 2, 0, 0]));
    // It is there, as it is.
    let words = serde_json::to_string(HOSTILE).unwrap();
    let places = browser.evaluate(&format!(
        "[...document.querySelectorAll('bdi')].filter((e) => e.textContent.includes({words})).length"
    ));
    assert!(places.as_u64().unwrap() > 5, "{places}");
    // Comparisons are made by the script: of these names too.
    let compared = browser.evaluate(&format!(
        "document.getElementById('difference').textContent.includes({words})"
    ));
    assert_eq!(compared, json!(true));
    // And if something did get in, it could load and run nothing.
    let refused = browser.evaluate(
        "(async () => {
            const heard = [];
            addEventListener('securitypolicyviolation', (event) => heard.push(event.effectiveDirective));
            document.body.insertAdjacentHTML('beforeend', '<img src=\"http://127.0.0.1:9/\" onerror=\"window.hurt=1\"><p style=\"color:red\">');
            const script = document.createElement('script');
            script.textContent = 'window.hurt = 1';
            document.body.append(script);
            await fetch('http://127.0.0.1:9/').catch(() => {});
            await new Promise((done) => setTimeout(done, 200));
            return [window.hurt ?? null, [...new Set(heard)].sort()];
        })()",
    );
    assert_eq!(
        refused,
        json!([
            null,
            [
                "connect-src",
                "img-src",
                "script-src-attr",
                "script-src-elem",
                "style-src-attr"
            ]
        ])
    );
}

#[test]
fn any_two_generations_are_compared_as_the_library_compares_them() {
    let Some(mut browser) = Browser::start() else {
        return;
    };
    let page = page(&Story::new(9, 4));
    browser.open(&page.file);
    for (from, to) in [(1, 9), (9, 1), (3, 4), (5, 7)] {
        let shown = browser.evaluate(&format!(
            "(() => {{
                for (const [id, value] of [['from', {from}], ['to', {to}]]) {{
                    const select = document.getElementById(id);
                    select.value = value;
                    select.dispatchEvent(new Event('change'));
                }}
                const result = {{}};
                for (const box of document.querySelectorAll('#difference details.workflow')) {{
                    box.open = true;
                    box.dispatchEvent(new Event('toggle'));
                    const lines = (kind) => [...box.querySelectorAll('.lines ' + kind)].map((e) => e.textContent);
                    result[box.querySelector('.name').textContent] = [lines('del').length, lines('ins').length];
                }}
                const parts = [...document.querySelectorAll('#difference .changes')];
                return [result, parts.map((part) => part.querySelectorAll('li').length)];
            }})()"
        ));
        let generation = |number| {
            let mut generations = page.report.generations.iter();
            generations
                .find(|found| found.generation == number)
                .unwrap()
        };
        let (one, other) = (generation(from), generation(to));
        let mut expected = serde_json::Map::new();
        for (was, is) in one.workflows.iter().zip(&other.workflows) {
            let texts = [was, is].map(|workflow| page.report.files[&workflow.file].as_str());
            let difference = TextDiff::from_lines(texts[0], texts[1]);
            let count = |tag| {
                let changes = difference.iter_all_changes();
                changes.filter(|change| change.tag() == tag).count()
            };
            if was.key != is.key || texts[0] != texts[1] {
                let counts = json!([count(ChangeTag::Delete), count(ChangeTag::Insert)]);
                expected.insert(was.workflow.clone(), counts);
            }
        }
        assert_eq!(shown[0], Value::Object(expected), "{from} to {to}");
        let contents = |image| {
            let image = &page.report.images[image];
            &page.report.contents[&image.contents.unwrap()]
        };
        let (was, is) = (contents(&one.image), contents(&other.image));
        let packages = is.packages.iter();
        let packages = packages.filter(|(name, version)| was.packages[*name] != **version);
        let files = is
            .files
            .iter()
            .filter(|(name, file)| was.files[*name] != **file);
        let counts: Vec<_> = [packages.count(), files.count()].into();
        let counts: Vec<_> = counts.into_iter().filter(|count| *count > 0).collect();
        assert_eq!(shown[1], json!(counts), "{from} to {to}");
    }
    assert_silent(&browser, &page.file);
}

#[test]
fn on_paper_everything_is_unfolded() {
    let Some(mut browser) = Browser::start() else {
        return;
    };
    let page = page(&Story::new(3, 6));
    browser.open(&page.file);
    browser.evaluate("window.unfolded = 0; addEventListener('afterprint', () => { window.unfolded = document.querySelectorAll('.panel.shown details[open]').length; }, { capture: true })");
    let printed = browser.call("Page.printToPDF", json!({"printBackground": true}));
    assert!(printed["data"].as_str().unwrap().len() > 10_000);
    if let Some(folder) = std::env::var_os("FOREBAY_TEST_SCREENSHOTS") {
        use base64::Engine as _;
        let bytes = base64::prelude::BASE64_STANDARD
            .decode(printed["data"].as_str().unwrap())
            .unwrap();
        std::fs::write(Path::new(&folder).join("paper.pdf"), bytes).unwrap();
    }
    assert_silent(&browser, &page.file);
}

#[test]
fn the_same_records_give_the_same_page() {
    let story = Story::new(5, 5);
    let [one, other] = [page(&story), page(&story)].map(|page| std::fs::read(page.file).unwrap());
    assert!(one == other);
    // What changes little from generation to generation costs little.
    let many = std::fs::metadata(page(&Story::new(60, 40)).file).unwrap();
    eprintln!("60 generations of 40 workflows: {} bytes", many.len());
    assert!(many.len() < 6_000_000, "{}", many.len());
}
