//! Colours, each with one meaning. Output that is no terminal, and `NO_COLOR`, take them away.

use anstyle::{AnsiColor, Style};

/// What a colour says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Colour {
    /// It is as it should be, or comes new.
    Good,
    /// Somebody should look at it, or it is replaced.
    Warning,
    /// It is wrong, or goes away.
    Bad,
    /// What to do next.
    Next,
    /// A heading.
    Heading,
    /// Of less interest.
    Quiet,
}

impl Colour {
    fn style(self) -> Style {
        match self {
            Self::Good => AnsiColor::Green.on_default(),
            Self::Warning => AnsiColor::Yellow.on_default(),
            Self::Bad => AnsiColor::Red.on_default().bold(),
            Self::Next => AnsiColor::Cyan.on_default(),
            Self::Heading => Style::new().bold(),
            Self::Quiet => Style::new().dimmed(),
        }
    }

    /// The text in this colour, line by line.
    pub fn paint(self, text: &str) -> String {
        let style = self.style();
        let lines: Vec<String> = text
            .split('\n')
            .map(|line| match line.is_empty() {
                true => String::new(),
                false => format!("{style}{line}{style:#}"),
            })
            .collect();
        lines.join("\n")
    }
}
