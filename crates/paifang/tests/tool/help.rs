//! Help, and mistakes on the command line.

use crate::run::run;

#[test]
fn every_command_has_a_short_and_a_long_help_with_examples() {
    for command in [
        "standalone",
        "controller",
        "gateway",
        "check",
        "call",
        "sign",
        "echo",
    ] {
        let (short, long) = (run([command, "-h"]), run([command, "--help"]));
        assert_eq!((short.code, long.code), (0, 0), "{command}");
        assert!(short.out.len() < long.out.len(), "{command}");
        assert!(long.out.contains("Examples:\n"), "{command}");
        assert!(
            long.out.contains(&format!("      paifang {command} ")),
            "{command}"
        );
        assert!(
            long.out.lines().all(|line| line.chars().count() <= 140),
            "{command}"
        );
    }
}

#[test]
fn mistakes_on_the_command_line_end_with_2_and_a_sentence() {
    for (args, expected) in [
        (["standalone"].as_slice(), "<DIR>"),
        (&["check"], "<DIR>"),
        (&["chek", "x"], "a similar subcommand exists: 'check'"),
        (
            &["check", "x", "--strickt"],
            "a similar argument exists: '--strict'",
        ),
        (
            &["standalone", "x", "--http", "localhost:1"],
            "write an IP address with a port",
        ),
        (
            &["standalone", "x", "--max-body", "0"],
            "write a number of bytes above 0",
        ),
        (
            &["standalone", "x", "--head-timeout", "10"],
            "write a number and a unit",
        ),
        (
            &["standalone", "x", "--trust-proxy", "10.0.0.0/40"],
            "--trust-proxy",
        ),
        (&["call", "x", "-q", "days"], "write it as NAME=VALUE"),
        (&["call", "x", "-H", "days"], "write it as NAME: VALUE"),
        (&["call", "x", "--stage", "release"], "is not a stage name"),
        (
            &["call", "x", "--url", "127.0.0.1:8080"],
            "write http:// or https:// and an address",
        ),
        (&["sign", "GET", "/", "--app", "x"], "--dir"),
        (
            &["sign", "GET", "/", "--signature-method", "MD5"],
            "--signature-method",
        ),
    ] {
        let done = crate::run::finish(crate::run::paifang().args(args));
        assert_eq!(done.code, 2, "{args:?}: {}", done.err);
        assert!(done.err.contains(expected), "{args:?}: {}", done.err);
    }
}

#[test]
fn a_secret_is_never_an_argument() {
    let help = run(["sign", "--help"]).out;
    assert!(!help.contains("--app-secret "), "{help}");
    assert_eq!(
        run(["sign", "GET", "/", "--app-key", "1", "--app-secret", "x"]).code,
        2
    );
}
