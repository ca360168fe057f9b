//! Command lines whose switches take a value: `--json` is `--json=true`. The flags of a command may stand before its name.

use std::ffi::{OsStr, OsString};

use clap::error::ErrorKind;
use clap::{Arg, ArgAction, Command, Parser, value_parser};

use super::help_text::{width, with_width};

/// Parses a command line, with the program's name first. Every switch takes `=true` and `=false`, so a script can pass a
/// variable, and a flag can switch off what a file switches on. A command's own flags may also stand before its name.
///
/// # Errors
/// The error of clap. It also says how to write the value of a switch.
pub(crate) fn parse<A: Parser>(arguments: impl IntoIterator<Item = impl Into<OsString>>) -> Result<A, clap::Error> {
    let arguments: Vec<OsString> = arguments.into_iter().map(Into::into).collect();
    let mut command = with_width(with_values(A::command()), width());
    let arguments = own_flags_after_name(&command, arguments);
    let error = match command.try_get_matches_from_mut(&arguments) {
        Ok(matches) => return A::from_arg_matches(&matches),
        Err(error) => error,
    };
    match separate_value(&command, &arguments) {
        Some((flag, value)) if error.exit_code() != 0 => {
            let message = format!(
                "the value of '{flag}' must follow an equals sign\n\n  tip: write '{flag}={value}'; '{flag}' alone is '{flag}=true'"
            );
            Err(command.error(ErrorKind::NoEquals, message))
        }
        Some(_) | None => Err(error),
    }
}

/// Lets every switch of the command take a value.
fn with_values(command: Command) -> Command {
    let with_value = |arg: Arg| {
        if !matches!(arg.get_action(), ArgAction::SetTrue) {
            return arg;
        }
        arg.action(ArgAction::Set)
            .num_args(0..=1)
            .require_equals(true)
            .value_name("BOOL")
            .value_parser(value_parser!(bool))
            .default_value("false")
            .default_missing_value("true")
            .hide_default_value(true)
            .hide_possible_values(true)
    };
    command.mut_args(with_value).mut_subcommands(with_values)
}

/// Moves the flags of a command that stand before its name behind it, unless they are flags of the program as well.
fn own_flags_after_name(command: &Command, arguments: Vec<OsString>) -> Vec<OsString> {
    let Some((name, inner)) = command_name(command, &arguments) else { return arguments };
    let mut arguments = arguments.into_iter();
    let (mut before, mut moved) = (Vec::new(), Vec::new());
    before.extend(arguments.next());
    let mut given: Vec<_> = arguments.by_ref().take(name - 1).collect();
    given.reverse();
    while let Some(argument) = given.pop() {
        let flag = flag_name(&argument);
        let is_own = flag.is_some_and(|flag| find(inner, flag).is_some());
        // Where they conflict with commands, the program's own flags are of no use before one.
        let is_general =
            flag.is_some_and(|flag| find(command, flag).is_some()) && !command.is_args_conflicts_with_subcommands_set();
        let takes_next = flag.and_then(|flag| find(inner, flag).or_else(|| find(command, flag)));
        let takes_next = takes_next.is_some_and(|arg| takes_next_argument(arg, &argument));
        let to = if is_own && !is_general { &mut moved } else { &mut before };
        to.push(argument);
        to.extend(takes_next.then(|| given.pop()).flatten());
    }
    before.into_iter().chain(arguments.next()).chain(moved).chain(arguments).collect()
}

/// The command that these arguments name, and the place of its name.
fn command_name<'a>(command: &'a Command, arguments: &[OsString]) -> Option<(usize, &'a Command)> {
    let mut at = 1;
    loop {
        let argument = arguments.get(at)?;
        match flag_name(argument) {
            Some(flag) => {
                let commands = command.get_subcommands().chain([command]);
                let arg = commands.into_iter().find_map(|command| find(command, flag));
                at += if arg.is_some_and(|arg| takes_next_argument(arg, argument)) { 2 } else { 1 };
            }
            None => return command.find_subcommand(argument).map(|inner| (at, inner)),
        }
    }
}

/// The name of a long flag, without its hyphens and its value.
fn flag_name(argument: &OsStr) -> Option<&str> {
    let name = argument.to_str()?.strip_prefix("--")?;
    name.split('=').next().filter(|name| !name.is_empty())
}

fn find<'a>(command: &'a Command, flag: &str) -> Option<&'a Arg> {
    command.get_arguments().find(|arg| arg.get_long() == Some(flag))
}

/// Whether the value of this flag is the next argument.
fn takes_next_argument(arg: &Arg, argument: &OsStr) -> bool {
    let has_value = argument.as_encoded_bytes().contains(&b'=');
    arg.get_action().takes_values() && !arg.is_require_equals_set() && !has_value
}

/// The first switch that `true` or `false` follows as an argument of its own, and that value. clap takes it for something
/// else, such as the name of a command.
fn separate_value<'a>(command: &Command, arguments: &'a [OsString]) -> Option<(&'a str, &'a str)> {
    let mut texts =
        arguments.iter().map(|argument| argument.to_str().unwrap_or_default()).take_while(|text| *text != "--");
    let mut flag = texts.next()?;
    for value in texts {
        if matches!(value, "true" | "false") && flag.strip_prefix("--").is_some_and(|name| has_switch(command, name)) {
            return Some((flag, value));
        }
        flag = value;
    }
    None
}

/// Whether the command, or one of its subcommands, has this switch.
fn has_switch(command: &Command, name: &str) -> bool {
    let is_switch = |arg: &Arg| arg.get_long() == Some(name) && arg.is_require_equals_set();
    command.get_arguments().any(is_switch) || command.get_subcommands().any(|inner| has_switch(inner, name))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A program.
    #[derive(Debug, PartialEq, Parser)]
    struct Sample {
        #[arg(long)]
        loud: bool,
        #[arg(long, conflicts_with = "loud")]
        quiet: bool,
        #[arg(long)]
        name: Option<String>,
        #[command(subcommand)]
        command: Option<Inner>,
    }

    #[derive(Debug, PartialEq, clap::Subcommand)]
    enum Inner {
        Show {
            what: String,
            #[arg(long)]
            json: bool,
            #[arg(long)]
            size: Option<String>,
        },
    }

    fn sample(arguments: &[&str]) -> Result<Sample, String> {
        parse(["sample"].iter().chain(arguments)).map_err(|error: clap::Error| error.to_string())
    }

    #[test]
    fn switch_takes_a_value_after_an_equals_sign() {
        for (argument, loud) in [("--loud", true), ("--loud=true", true), ("--loud=false", false)] {
            assert_eq!(sample(&[argument]).unwrap().loud, loud);
        }
        for (argument, json) in [("--json", true), ("--json=true", true), ("--json=false", false)] {
            let inner = Inner::Show { what: "x".into(), json, size: None };
            assert_eq!(sample(&["show", argument, "x"]).unwrap().command, Some(inner));
        }
        assert_eq!(sample(&[]), Ok(Sample { loud: false, quiet: false, name: None, command: None }));
        assert!(sample(&["--quiet", "--loud"]).unwrap_err().contains("cannot be used with"));
        assert!(sample(&["--loud=yes"]).unwrap_err().contains("[possible values: true, false]"));
        assert!(sample(&["--loud", "--loud"]).unwrap_err().contains("cannot be used multiple times"));
    }

    #[test]
    fn separate_value_is_an_error_that_says_how() {
        for (arguments, tip) in [
            (&["--loud", "true"][..], "tip: write '--loud=true'; '--loud' alone is '--loud=true'"),
            (&["--loud", "false"], "tip: write '--loud=false'"),
            (&["--loud", "true", "show", "x"], "tip: write '--loud=true'"),
            (&["show", "x", "--json", "false"], "tip: write '--json=false'"),
        ] {
            let error = sample(arguments).unwrap_err();
            assert!(error.starts_with("error: the value of '--") && error.contains(tip), "{error}");
        }
        // Here it is a value of its own, or the error is another one.
        let inner = Inner::Show { what: "true".into(), json: true, size: None };
        assert_eq!(sample(&["show", "--json", "true"]).unwrap().command, Some(inner));
        assert_eq!(sample(&["--name", "true"]).unwrap().name.as_deref(), Some("true"));
        for arguments in [&["--name", "x", "true"][..], &["true"], &["--", "--loud", "true"], &["--loud", "maybe"]] {
            assert!(!sample(arguments).unwrap_err().contains("equals sign"), "{arguments:?}");
        }
    }

    #[test]
    fn own_flags_of_a_command_may_stand_before_its_name() {
        let show = |what: &str, json, size: Option<&str>| {
            Some(Inner::Show { what: what.into(), json, size: size.map(Into::into) })
        };
        for (arguments, inner) in [
            (&["--json", "show", "x"][..], show("x", true, None)),
            (&["--json=false", "--loud", "show", "x"], show("x", false, None)),
            (&["--size", "show", "show", "x", "--json"], show("x", true, Some("show"))),
            (&["--size=7", "--name", "show", "show", "show"], show("show", false, Some("7"))),
            (&["show", "--size", "7", "x"], show("x", false, Some("7"))),
        ] {
            assert_eq!(sample(arguments).unwrap().command, inner, "{arguments:?}");
        }
        assert!(sample(&["--loud", "show", "x"]).unwrap().loud, "it is the program's");
        for arguments in [&["--json"][..], &["--size", "show", "x"], &["--colour", "show", "x"], &["--json", "x"]] {
            assert!(sample(arguments).is_err(), "{arguments:?}");
        }
        let twice = sample(&["--json", "show", "x", "--json"]).unwrap_err();
        assert!(twice.contains("cannot be used multiple times"), "{twice}");
    }
}
