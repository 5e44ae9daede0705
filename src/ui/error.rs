//! What a person is told when a command fails: what happened, why, and what to do next.

use std::fmt::Write as _;
use std::process::ExitCode;

use super::{Colour, wrap_after};

/// What the program's exit status means; scripts rely on the numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// Done, or nothing to do.
    Done,
    /// Failed; nothing visible changed.
    Failed,
    /// The command line or the project's configuration is wrong.
    Usage,
    /// Changes or drift were found, and `--exit-code` asked for this status.
    Changes,
    /// Authentication or permission.
    Denied,
    /// Another deploy holds or won the environment.
    Conflict,
    /// Refused for safety: drift, an older commit, an empty set of DAGs, a foreign key.
    Refused,
    /// Interrupted while applying; `deploy` or `resume` continues.
    Interrupted,
    /// The rollback target cannot be had.
    RollbackUnavailable,
    /// What `store verify` found, as a sum: 16 missing, 32 corrupt, 64 orphaned.
    Findings(u8),
}

impl Exit {
    /// The number that the process ends with.
    pub fn code(self) -> u8 {
        match self {
            Self::Done => 0,
            Self::Failed => 1,
            Self::Usage => 2,
            Self::Changes => 3,
            Self::Denied => 4,
            Self::Conflict => 5,
            Self::Refused => 6,
            Self::Interrupted => 7,
            Self::RollbackUnavailable => 8,
            Self::Findings(bits) => bits,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.code())
    }
}

/// A failed command, in the three parts that every error message has.
#[derive(Debug)]
pub struct CommandError {
    what: String,
    why: Vec<String>,
    next: Option<String>,
    exit: Exit,
}

impl CommandError {
    /// A failure with nothing but its name.
    pub fn new(exit: Exit, what: impl Into<String>) -> Self {
        Self {
            what: what.into(),
            why: Vec::new(),
            next: None,
            exit,
        }
    }

    /// A failure named by an error; the error at the bottom of its causes is the reason.
    /// Those between say what a library was doing, which helps nobody.
    pub fn from_error(exit: Exit, error: &(dyn std::error::Error + 'static)) -> Self {
        let failure = Self::new(exit, error.to_string());
        let causes = std::iter::successors(error.source(), |cause| cause.source());
        match causes.last() {
            Some(cause) => failure.why(cause.to_string()),
            None => failure,
        }
    }

    /// Adds a reason, unless what is said already contains it.
    #[must_use]
    pub fn why(mut self, reason: impl Into<String>) -> Self {
        let reason = reason.into();
        let said = self.what.contains(&reason) || self.why.iter().any(|why| why.contains(&reason));
        if !said && !reason.is_empty() {
            self.why.push(reason);
        }
        self
    }

    /// Says what to do next, unless that was said.
    #[must_use]
    pub fn next(mut self, step: impl Into<String>) -> Self {
        self.next.get_or_insert_with(|| step.into());
        self
    }

    /// Commands that are proposed name this environment too: see [`in_environment`].
    #[must_use]
    pub fn in_environment(mut self, environment: &str) -> Self {
        self.next = self.next.map(|next| in_environment(&next, environment));
        self
    }

    /// What to do next, if that was said.
    pub fn next_step(&self) -> Option<&str> {
        self.next.as_deref()
    }

    /// What happened and why, in one line.
    pub fn reason(&self) -> String {
        let parts = std::iter::once(&self.what).chain(&self.why);
        parts.map(String::as_str).collect::<Vec<_>>().join(": ")
    }

    /// What happened, in one sentence.
    pub fn what(&self) -> &str {
        &self.what
    }

    /// The exit status.
    pub fn exit(&self) -> Exit {
        self.exit
    }

    /// The message, for a terminal of `width` columns.
    pub fn render(&self, width: Option<usize>) -> String {
        let part = |text: &str, label: &str| wrap_after(text.trim_end(), width, label.len());
        let mut text = String::new();
        let what = part(&self.what, "error: ");
        let _ = writeln!(text, "{}: {what}", Colour::Bad.paint("error"));
        for why in &self.why {
            let _ = writeln!(text, "  why: {}", part(why, "  why: "));
        }
        if let Some(next) = &self.next {
            let next = part(next, "  next: ");
            let _ = writeln!(text, "  {}: {next}", Colour::Next.paint("next"));
        }
        text
    }

    /// The message for a program: one JSON object.
    pub fn to_json(&self) -> serde_json::Value {
        serde_json::json!({
            "error": {
                "what": self.what,
                "why": self.why,
                "next": self.next,
                "exit": self.exit.code(),
            }
        })
    }
}

/// Commands between backquotes in `text` name this environment too: whoever copies one must not
/// touch another.
pub fn in_environment(text: &str, environment: &str) -> String {
    let parts = text.split('`').enumerate();
    let parts: Vec<String> = parts
        .map(
            |(number, part)| match number % 2 == 1 && works_on_environment(part) {
                true => format!("{part} -c {environment}"),
                false => part.to_owned(),
            },
        )
        .collect();
    parts.join("`")
}

/// Whether a command that is proposed would otherwise be about the default environment.
fn works_on_environment(command: &str) -> bool {
    const COMMANDS: [&str; 12] = [
        "abort",
        "build",
        "deploy",
        "deploy-image",
        "doctor",
        "history",
        "image",
        "plan",
        "resume",
        "rollback",
        "status",
        "unlock",
    ];
    let mut words = command.split(' ');
    words.next() == Some("forebay")
        && words.next().is_some_and(|word| COMMANDS.contains(&word))
        && !words.any(|word| word == "-c" || word == "--plan")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_that_is_proposed_is_about_the_same_environment() {
        let next = |text: &str| {
            let error = CommandError::new(Exit::Failed, "it failed").next(text);
            let error = error.in_environment("prod");
            error.next_step().unwrap().to_owned()
        };
        assert_eq!(
            next("`forebay resume` carries it on; `forebay store verify` does not; see `docs`"),
            "`forebay resume -c prod` carries it on; `forebay store verify` does not; see `docs`"
        );
        assert_eq!(
            next("`forebay rollback -c dev`"),
            "`forebay rollback -c dev`"
        );
        assert_eq!(next("run forebay status"), "run forebay status");
    }

    #[test]
    fn a_message_has_what_why_and_next() {
        let error = CommandError::new(Exit::Usage, "there is no environment \"prdo\"")
            .why("deployment_config.py has dev, prod")
            .why("deployment_config.py has dev")
            .next("forebay deploy -c prod");
        assert_eq!(
            anstream::adapter::strip_str(&error.render(None)).to_string(),
            "error: there is no environment \"prdo\"\n  why: deployment_config.py has dev, prod\n  next: forebay deploy -c prod\n"
        );
        assert!(error.render(None).contains("\u{1b}["));
        assert_eq!(
            anstream::adapter::strip_str(&error.render(Some(40))).to_string(),
            "error: there is no environment \"prdo\"\n  why: deployment_config.py has dev,\n       prod\n  next: forebay deploy -c prod\n"
        );
    }
}
