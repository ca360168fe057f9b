//! The name of this machine.

/// The host name, if the machine has one that can be shown in one word: at most 64 characters, printable and without spaces.
pub(crate) fn host_name() -> Option<String> {
    let system = rustix::system::uname();
    let name = system.nodename().to_str().ok()?;
    let is_printable = |char: char| !char.is_whitespace() && !char.is_control();
    let is_name = (1..=64).contains(&name.chars().count()) && name.chars().all(is_printable);
    is_name.then(|| name.to_owned())
}
