//! `vmstat` and `top`: what the processor and the disks do, alone or while a command runs; `spin`
//! and `sleep`: something to look at.

use alloc::format;
use alloc::string::String;
use core::hint::black_box;
use core::time::Duration;

use super::observe::{Plan, Style};
use super::{Disks, Failure, Machine};

const VMSTAT: &str = "usage: vmstat [SECONDS [COUNT [COMMAND…]]]";
const TOP: &str = "usage: top [-b] [-n COUNT] [-d SECONDS] [COMMAND…]";
/// Time between two looks if nobody says.
const INTERVAL: Duration = Duration::from_secs(1);
/// How long `spin` computes between two glances at the clock.
const SPIN_STEPS: u32 = 10_000;

/// What `vmstat` is asked for, and the command behind it.
///
/// # Errors
/// [`Failure::usage`].
pub fn vmstat_plan(words: &[String]) -> Result<(Plan, &[String]), Failure> {
    let once = Plan { style: Style::Lines, interval: INTERVAL, count: Some(1), since_start: true };
    let Some((interval, rest)) = words.split_first() else { return Ok((once, words)) };
    let interval = seconds(interval).ok_or_else(|| Failure::usage(VMSTAT))?;
    let (count, rest) = match rest.split_first() {
        None => (None, rest),
        Some((count, rest)) => (Some(number(count, VMSTAT)?), rest),
    };
    Ok((Plan { interval, count, since_start: false, ..once }, rest))
}

/// What `top` is asked for, and the command behind it.
///
/// # Errors
/// [`Failure::usage`].
pub fn top_plan(words: &[String]) -> Result<(Plan, &[String]), Failure> {
    let mut plan =
        Plan { style: Style::Screen, interval: INTERVAL, count: None, since_start: false };
    let mut rest = words;
    while let Some((option, after)) = rest.split_first() {
        rest = after;
        match option.as_str() {
            "-b" => plan.style = Style::Batch,
            "-n" | "-d" => {
                let (value, after) = rest.split_first().ok_or_else(|| Failure::usage(TOP))?;
                rest = after;
                if option == "-n" {
                    plan.count = Some(number(value, TOP)?);
                } else {
                    plan.interval = seconds(value).ok_or_else(|| Failure::usage(TOP))?;
                }
            }
            word if word.starts_with('-') => return Err(Failure::usage(TOP)),
            _ => return Ok((plan, &words[words.len() - rest.len() - 1..])),
        }
    }
    Ok((plan, rest))
}

/// `vmstat` without a command.
///
/// # Errors
/// [`Failure`] for a wrong usage, and when it is interrupted.
pub fn vmstat<M: Machine>(
    machine: &M,
    disks: &mut Disks<M>,
    words: &[String],
) -> Result<(), Failure> {
    let (plan, _) = vmstat_plan(words)?;
    look_on(machine, disks, plan)
}

/// `top` without a command. The keys q and Ctrl-C end it.
///
/// # Errors
/// [`Failure::usage`].
pub fn top<M: Machine>(machine: &M, disks: &mut Disks<M>, words: &[String]) -> Result<(), Failure> {
    let (plan, _) = top_plan(words)?;
    match look_on(machine, disks, plan) {
        Err(failure) if failure == Failure::interrupted() => Ok(()),
        ended => ended,
    }
}

/// Looks until all was shown, or until the user has seen enough.
fn look_on<M: Machine>(machine: &M, disks: &mut Disks<M>, plan: Plan) -> Result<(), Failure> {
    if plan.style == Style::Screen {
        machine.print(format_args!("\x1b[2J"));
    }
    disks.begin_report(machine, plan, "");
    let mut ended = Ok(());
    while ended.is_ok() && !disks.report_is_done() {
        if machine.key() == Some(b'q') {
            break;
        }
        ended = disks.pause(machine, None);
    }
    disks.end_report(machine);
    ended
}

/// `spin`: uses the processor for so many milliseconds.
///
/// # Errors
/// [`Failure`] for a wrong usage, and when it is interrupted.
pub fn spin<M: Machine>(
    machine: &M,
    disks: &mut Disks<M>,
    words: &[String],
) -> Result<(), Failure> {
    let until = machine.now().after(milliseconds(words, "usage: spin MS")?);
    let mut number = 0_u64;
    while machine.now() < until {
        for _ in 0..SPIN_STEPS {
            number = black_box(number.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1));
        }
        disks.observe(machine);
        if machine.interrupted() {
            return Err(Failure::interrupted());
        }
    }
    Ok(())
}

/// `sleep`: waits for so many milliseconds.
///
/// # Errors
/// [`Failure`] for a wrong usage, and when it is interrupted.
pub fn sleep<M: Machine>(
    machine: &M,
    disks: &mut Disks<M>,
    words: &[String],
) -> Result<(), Failure> {
    let until = machine.now().after(milliseconds(words, "usage: sleep MS")?);
    while machine.now() < until {
        disks.pause(machine, Some(until))?;
    }
    Ok(())
}

fn milliseconds(words: &[String], usage: &str) -> Result<Duration, Failure> {
    match words {
        [word] => word.parse().map(Duration::from_millis).map_err(|_| Failure::usage(usage)),
        _ => Err(Failure::usage(usage)),
    }
}

fn number(word: &str, usage: &str) -> Result<u64, Failure> {
    let count = word.parse().ok().filter(|&count| count > 0);
    count.ok_or_else(|| Failure::usage(format!("{usage}: {word} is no number of looks")))
}

/// Seconds with up to three digits behind a point; `None` for anything else, and for none at all.
fn seconds(word: &str) -> Option<Duration> {
    let (whole, part) = word.split_once('.').unwrap_or((word, "0"));
    if part.is_empty() || part.len() > 3 || !part.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let part: u64 = format!("{part:0<3}").parse().ok()?;
    let ms = whole.parse::<u64>().ok()?.checked_mul(1000)?.checked_add(part)?;
    (ms > 0).then(|| Duration::from_millis(ms))
}

#[cfg(test)]
mod tests {
    use alloc::string::ToString;
    use alloc::vec::Vec;

    use super::*;

    fn words(line: &str) -> Vec<String> {
        line.split_whitespace().map(ToString::to_string).collect()
    }

    #[test]
    fn options_end_where_the_command_begins() {
        let line = words("-b -n 3 -d 0.25 bench xvda -d 4");
        let (plan, command) = top_plan(&line).unwrap();
        assert_eq!((plan.style, plan.count), (Style::Batch, Some(3)));
        assert_eq!(plan.interval, Duration::from_millis(250));
        assert_eq!(command, &words("bench xvda -d 4")[..]);
        let (plan, command) = top_plan(&[]).unwrap();
        assert_eq!((plan.style, plan.count, command.len()), (Style::Screen, None, 0));
        let line = words("2 7 spin 100");
        let (plan, command) = vmstat_plan(&line).unwrap();
        assert_eq!((plan.interval.as_secs(), plan.count), (2, Some(7)));
        assert_eq!(command, &words("spin 100")[..]);
        assert!(vmstat_plan(&[]).unwrap().0.since_start);
    }

    #[test]
    fn what_is_no_time_and_no_number_is_refused() {
        for line in ["0", "x", "1.", "1.2345", "-1", "99999999999999999999", "1 0", "1 x", "0.0"] {
            assert_eq!(vmstat_plan(&words(line)).unwrap_err().status, 2, "{line}");
        }
        for line in ["-n", "-n 0", "-d x", "-x", "-b -d"] {
            assert_eq!(top_plan(&words(line)).unwrap_err().status, 2, "{line}");
        }
    }
}
