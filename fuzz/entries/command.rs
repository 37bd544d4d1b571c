//! Any text as a command of the console: a command with a sound name, or words for the user that are not long.

use bookend::pool::console::command::{Command, parse};

pub fn run(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    match parse(text) {
        Ok(command) => {
            assert!(command.database().is_none_or(|name| !name.is_empty()));
            let looks = matches!(command, Command::Empty | Command::Show(_) | Command::Set(..));
            assert!(looks || command.needs_admin(), "{command:?}");
            assert_eq!(parse(&format!("  {text} ;")).as_ref(), Ok(&command));
        }
        Err(words) => assert!(!words.is_empty() && words.chars().count() < 160, "{words}"),
    }
}
