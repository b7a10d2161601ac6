//! Target `command_line`: the kernel's command line, lists of commands, and xl's disk strings.
//!
//! What was quoted by the rules comes out as it went in; anything else is taken apart or refused.
//! The boot menu itself (`menu.lst`) is read by pygrub; what it hands over is such a line.

use blkback::{DiskSpec, vdev};
use guest_kernel::command_line::{CommandLine, LINE_MAX, LineError, commands, words};

use super::Share;
use super::choices::{Choices, damage};

pub(super) fn check(bytes: &[u8]) -> Share {
    let mut choices = Choices::new(bytes);
    let valid = match choices.below(16) {
        0..6 => line(&mut choices),
        6..11 => list(&mut choices),
        11..15 => disk(&mut choices),
        _ => any(choices.rest()),
    };
    Share::one(valid)
}

/// Text with everything in it that means something to somebody.
fn text(choices: &mut Choices<'_>, most: usize) -> String {
    const LETTERS: [char; 21] = [
        'a', 'b', '0', '=', ';', '\'', '"', '\\', ' ', '\t', '\n', '#', '$', '`', ',', '.', '/',
        'é', '\0', '|', '\u{a0}',
    ];
    (0..choices.below(most + 1)).map(|_| choices.of(&LETTERS)).collect()
}

/// A word as a shell takes it back, in one of the ways to write it.
fn quoted(choices: &mut Choices<'_>, word: &str) -> String {
    let plain = |it: char| it.is_ascii_alphanumeric() || "=,./".contains(it);
    match choices.below(4) {
        0 if !word.is_empty() && word.chars().all(plain) => word.to_owned(),
        1 => format!("'{}'", word.replace('\'', "'\\''")),
        2 if !word.is_empty() && !word.contains('\n') => {
            word.chars().flat_map(|it| ['\\', it]).collect()
        }
        _ => {
            let special = |it: char| if "\\\"$`".contains(it) { vec!['\\', it] } else { vec![it] };
            format!("\"{}\"", word.chars().flat_map(special).collect::<String>())
        }
    }
}

/// Options on a line; tells whether the line is what it was to be.
fn line(choices: &mut Choices<'_>) -> bool {
    let mut options = Vec::new();
    let mut line = String::new();
    for _ in 0..choices.below(8) {
        let key = choices.of(&["run", "root", "elevator", "elevator.xvda", "sysctl.a.b", "ro"]);
        let value = choices.valid().then(|| text(choices, 12));
        let word = value.as_ref().map_or(key.to_owned(), |value| format!("{key}={value}"));
        line.push_str(&quoted(choices, &word));
        line.push_str(choices.of(&[" ", "  ", "\t"]));
        options.push((key, value));
    }
    if choices.rarely(5) {
        let mut bytes = line.into_bytes();
        damage(choices, &mut bytes);
        return any(&bytes);
    }
    let parsed = CommandLine::parse(line.as_bytes()).expect("quoted by the rules");
    for (key, _) in &options {
        let last = options.iter().rev().find(|it| it.0 == *key && it.1.is_some());
        assert_eq!(parsed.value(key), last.and_then(|it| it.1.as_deref()), "{key} of {line:?}");
        let flag = options.iter().any(|it| it.0 == *key && it.1.is_none());
        assert_eq!(parsed.has(key), flag, "{key} of {line:?}");
    }
    let family = options
        .iter()
        .filter_map(|(key, value)| Some((key.strip_prefix("elevator.")?, value.as_deref()?)));
    assert!(parsed.values("elevator.").eq(family), "{line:?}");
    true
}

/// Commands in a list; tells whether the list is what it was to be.
fn list(choices: &mut Choices<'_>) -> bool {
    let mut expected: Vec<Vec<String>> = Vec::new();
    let mut list = String::new();
    for _ in 0..choices.below(5) {
        let command: Vec<String> = (0..choices.below(4)).map(|_| text(choices, 8)).collect();
        for word in &command {
            list.push_str(&quoted(choices, word));
            list.push(' ');
        }
        list.push(';');
        if !command.is_empty() {
            expected.push(command);
        }
    }
    if !choices.rarely(5) {
        let found: Vec<_> = commands(&list).into_iter().map(words).collect();
        let found: Result<Vec<Vec<String>>, LineError> = found.into_iter().collect();
        assert_eq!(found, Ok(expected), "{list:?}");
        return true;
    }
    let mut bytes = list.into_bytes();
    damage(choices, &mut bytes);
    any(&bytes)
}

/// Whatever it is, it is taken apart or refused, and so is what is in it. Not valid.
fn any(bytes: &[u8]) -> bool {
    match CommandLine::parse(bytes) {
        Err(LineError::TooLong) => assert!(bytes.len() > LINE_MAX),
        Err(LineError::NotText) => assert!(std::str::from_utf8(bytes).is_err()),
        Err(LineError::Unfinished) => {}
        Ok(line) => {
            let list = line.value("run").unwrap_or_default();
            run(list);
            assert!(line.values("").all(|(key, _)| !key.contains('=')));
        }
    }
    if let Ok(text) = std::str::from_utf8(bytes) {
        run(text);
        spec(text);
    }
    false
}

fn run(list: &str) {
    let found = commands(list);
    assert!(found.iter().map(|command| command.len()).sum::<usize>() <= list.len());
    for command in found {
        assert!(!command.is_empty() && !command.starts_with([' ', '\t', '\n']));
        let _ = words(command);
    }
}

/// A disk string, and a device name; tells whether the string is one.
fn disk(choices: &mut Choices<'_>) -> bool {
    let lawful = choices.valid();
    let mut parameters = Vec::new();
    if lawful {
        let letter = char::from(b'a' + choices.byte() % 26);
        parameters.push(format!("vdev=xvd{letter}"));
        parameters
            .push(choices.of(&["format=raw", "access=rw", "access=ro", "access=w"]).to_owned());
        parameters.extend(choices.of(&[None, Some("discard")]).map(str::to_owned));
        let name: String = text(choices, 8).chars().filter(|it| *it != '\0').collect();
        parameters.push(format!("target=/{}", name.trim_end()));
    } else {
        parameters.extend((0..choices.below(6)).map(|_| parameter(choices)));
    }
    let found = spec(&parameters.join(choices.of(&[",", ", "])));
    assert!(found || !lawful, "{parameters:?}");
    let name = name(choices);
    let number = vdev::number(&name);
    let back = number.and_then(vdev::name);
    assert!(back.is_none_or(|back| vdev::number(&back) == number), "{name}: {number:?}");
    found
}

fn parameter(choices: &mut Choices<'_>) -> String {
    match choices.below(10) {
        0 => "format=raw".to_owned(),
        1 => format!("format={}", choices.of(&["qcow2", "vhd", ""])),
        2 | 3 => format!("vdev={}", name(choices)),
        4 => format!("access={}", choices.of(&["rw", "w", "ro", "r", "", "x"])),
        5 => choices
            .of(&["discard", "cdrom", "backendtype=phy", "backend=dom", "script=x"])
            .to_owned(),
        6 => format!("{}={}", text(choices, 5), text(choices, 5)),
        7 => text(choices, 8),
        _ => format!("target=/{}", text(choices, 8)),
    }
}

fn name(choices: &mut Choices<'_>) -> String {
    let prefix = choices.of(&["xvd", "xvd", "sd", "hd", "d", "", "0x"]);
    match choices.below(4) {
        0 => format!("{prefix}{}", text(choices, 6)),
        1 => format!("{prefix}{}", choices.word()),
        2 => format!("{prefix}{}p{}", choices.byte(), choices.byte()),
        _ => {
            let letters: String =
                (0..1 + choices.below(5)).map(|_| char::from(b'a' + choices.byte() % 26)).collect();
            let partition = choices.byte();
            let partition = if partition == 0 { String::new() } else { partition.to_string() };
            format!("{prefix}{letters}{partition}")
        }
    }
}

/// Tells whether it is a disk string.
fn spec(text: &str) -> bool {
    let spec = DiskSpec::parse(text);
    match &spec {
        Ok(spec) => {
            assert!(!spec.target.is_empty());
            assert_eq!(vdev::number(&spec.vdev), Some(spec.number));
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
    spec.is_ok()
}
