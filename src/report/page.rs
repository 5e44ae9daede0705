//! The page: its head, the time line, the place for comparisons.

use std::io::{self, Write};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use jiff::civil::Date;

use super::html::text;
use super::model::{Generation, Report};
use super::{data, drawing, panel, words};
use crate::environment::Direction;
use crate::oci::Sha256Digest;
use crate::ui::count;

const STYLE: &str = include_str!("page.css");
const SCRIPT: &str = include_str!("page.js");

/// Lets the page's own style and script run, and nothing else do anything.
fn policy() -> String {
    let source = |content: &str| {
        let digest = Sha256Digest::of(content.as_bytes());
        format!("'sha256-{}'", BASE64_STANDARD.encode(digest.as_bytes()))
    };
    format!(
        "default-src 'none'; style-src {}; script-src {}; base-uri 'none'; form-action 'none'",
        source(STYLE),
        source(SCRIPT)
    )
}

pub(super) fn write(report: &Report, output: &mut dyn Write) -> io::Result<()> {
    let (project, environment) = (text(&report.project), text(&report.environment));
    write!(
        output,
        r##"<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta name="generator" content="forebay {}">
<title>{project} in {environment}</title>
<style>{STYLE}</style>
</head>
<body>
<a class="skip" href="#generation">Skip the time line</a>
<header>
<p class="over">What was deployed, by Forebay</p>
<h1><bdi>{project}</bdi> <span class="in">in</span> <bdi>{environment}</bdi></h1>
"##,
        policy(),
        env!("CARGO_PKG_VERSION"),
    )?;
    state(report, output)?;
    output.write_all(b"</header>\n")?;
    let layouts = drawing::write_symbols(report, output)?;
    if !report.generations.is_empty() {
        output.write_all(b"<div class=\"columns\">\n")?;
        time_line(report, output)?;
        output.write_all(b"<main id=\"generation\" tabindex=\"-1\">\n")?;
        for (index, generation) in report.generations.iter().enumerate() {
            panel::write(report, index, generation, &layouts, output)?;
        }
        comparison(report, output)?;
        output.write_all(b"</main>\n</div>\n")?;
    }
    write!(
        output,
        "<footer><p>Written by forebay {} from the records of the environment; times are in UTC.</p></footer>\n<script type=\"application/json\" id=\"data\">",
        env!("CARGO_PKG_VERSION")
    )?;
    data::write(report, output)?;
    write!(
        output,
        "</script>\n<script>{SCRIPT}</script>\n</body>\n</html>\n"
    )
}

/// What is so now, in a line.
fn state(report: &Report, output: &mut dyn Write) -> io::Result<()> {
    output.write_all(b"<p class=\"state\">")?;
    match report.generations.first() {
        None => output.write_all(b"Nothing was deployed yet.")?,
        Some(live) => write!(
            output,
            r##"<span class="badge live">live</span> <a href="#g{number}">Generation {number}</a>, version <bdi>{}</bdi>, since <time datetime="{}">{} {}</time>; {}."##,
            text(&live.version),
            live.created_at,
            words::date(live.created_at),
            words::clock(live.created_at),
            count(live.workflows.len(), "workflow"),
            number = live.generation,
        )?,
    }
    output.write_all(b"</p>\n")?;
    if let Some(applying) = &report.applying {
        let what = match applying.direction {
            Direction::Forward => "is being applied",
            Direction::Back => "is being taken back",
        };
        writeln!(
            output,
            "<p class=\"state\"><span class=\"badge applying\">unfinished</span> Generation {} {what} by <bdi>{}</bdi>.</p>",
            applying.generation,
            text(&applying.holder)
        )?;
    }
    Ok(())
}

fn time_line(report: &Report, output: &mut dyn Write) -> io::Result<()> {
    write!(
        output,
        r#"<nav aria-labelledby="time-line"><h2 id="time-line">{}</h2>
<p class="hint quiet">Arrow keys move along the time line.</p>
<ol class="days">
"#,
        count(report.generations.len(), "generation")
    )?;
    let mut day: Option<Date> = None;
    for (index, generation) in report.generations.iter().enumerate() {
        let this_day = words::date(generation.created_at);
        if day != Some(this_day) {
            if let Some(day) = day {
                output.write_all(b"</ol></li>\n")?;
                let pause = day.duration_since(this_day).as_hours() / 24;
                if pause > 1 {
                    writeln!(output, "<li class=\"pause\">{pause} days earlier</li>")?;
                }
            }
            writeln!(output, "<li><h3>{this_day}</h3><ol>")?;
            day = Some(this_day);
        }
        entry(generation, index == 0, output)?;
    }
    output.write_all(b"</ol></li>\n</ol>\n")?;
    if report.has_older {
        output.write_all(
            b"<p class=\"quiet\">There are older generations; <code>--limit</code> shows more.</p>\n",
        )?;
    }
    output.write_all(b"</nav>\n")
}

fn entry(generation: &Generation, is_live: bool, output: &mut dyn Write) -> io::Result<()> {
    let number = generation.generation;
    let kind = match (is_live, generation.rollback_of) {
        (true, _) => " live",
        (false, Some(_)) => " back",
        (false, None) => "",
    };
    write!(
        output,
        r##"<li><a class="entry{kind}" href="#g{number}"><span class="number">{number}</span> "##
    )?;
    if is_live {
        output.write_all(b"<span class=\"badge live\">live</span> ")?;
    }
    if generation.dirty {
        output.write_all(b"<span class=\"badge dirty\">uncommitted</span> ")?;
    }
    writeln!(
        output,
        r#"<time datetime="{}">{}</time> <span class="version"><bdi>{}</bdi></span> <span class="quiet">{} by <bdi>{}</bdi></span></a></li>"#,
        generation.created_at,
        words::clock(generation.created_at),
        text(&generation.version),
        text(words::action(generation)),
        text(&generation.created_by),
    )
}

fn comparison(report: &Report, output: &mut dyn Write) -> io::Result<()> {
    write!(
        output,
        r#"<section class="comparison" aria-labelledby="compare">
<h2 id="compare">Compare any two generations</h2>
<noscript><p class="quiet">This needs JavaScript. <code>forebay diff -c {} A B</code> says the same.</p></noscript>
<div class="choice" hidden>
"#,
        text(&report.environment)
    )?;
    for (id, label) in [("from", "From"), ("to", "To")] {
        write!(output, r#"<label>{label} <select id="{id}">"#)?;
        for generation in &report.generations {
            write!(
                output,
                "<option value=\"{number}\">{number} · {}</option>",
                text(&generation.version),
                number = generation.generation,
            )?;
        }
        output.write_all(b"</select></label>\n")?;
    }
    output.write_all(
        b"<button type=\"button\" id=\"swap\">Swap</button>\n</div>\n<div id=\"difference\" aria-live=\"polite\"></div>\n</section>\n",
    )
}
