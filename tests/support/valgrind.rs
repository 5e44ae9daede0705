//! Instructions and allocations of a program, as valgrind counts them: the same however loaded
//! the machine is.

use std::path::Path;
use std::process::Command;

/// What is counted.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Counted {
    Instructions,
    #[allow(dead_code, reason = "not every test asks")]
    Allocations,
}

impl Counted {
    /// Runs a program to its end, in the surroundings that the command `valgrind` has.
    pub(crate) fn of(self, mut valgrind: Command, program: &Path, arguments: &[&str]) -> usize {
        let (tool, label) = match self {
            Self::Instructions => (
                &[
                    "--tool=cachegrind",
                    "--cache-sim=no",
                    "--cachegrind-out-file=/dev/null",
                ][..],
                "I   refs:",
            ),
            Self::Allocations => (
                &["--tool=dhat", "--dhat-out-file=/dev/null"][..],
                "bytes in ",
            ),
        };
        valgrind.args(tool).arg(program).args(arguments);
        let output = valgrind
            .output()
            .unwrap_or_else(|error| panic!("{valgrind:?}: {error}"));
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{valgrind:?}: {said}");
        let number = said.split(label).nth(1).unwrap_or_else(|| panic!("{said}"));
        let number = number.trim_start().split(' ').next().unwrap();
        number.replace(',', "").trim().parse().unwrap()
    }
}
