//! The state of the terminal after a command whose output changed it, as seen by a terminal emulator (tmux).

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use onecli_tests::client::Run;
use onecli_tests::{need, wait_for};

use super::{PERSON, Stage};

/// Possible last outputs of an agent, in the syntax of printf(1).
const STATES: &[(&str, &str)] = &[
    ("nothing", ""),
    ("a device control string", r"\033Px"),
    ("the title", r"\033]0;root@host"),
    ("an unfinished sequence", r"\033["),
    ("the alternate screen", r"\033[?1049h\033[2J\033[H"),
    ("a scroll region", r"\033[1;2r\033[1;1H"),
    ("origin mode in a scroll region", r"\033[1;2r\033[?6h"),
    ("another character set", r"\033(0"),
    ("another character set in G1", r"\033)0\016"),
    ("concealed text", r"\033[8m"),
    ("synchronized output", r"\033[?2026h"),
    ("insert mode", r"\033[4h"),
    ("no wrap", r"\033[?7l"),
    ("an invisible cursor", r"\033[?25l"),
    ("the keypad", r"\033=\033[?1h"),
    ("the mouse", r"\033[?1003h\033[?1006h"),
    ("bracketed paste", r"\033[?2004h"),
];

/// Flags of tmux(1), with the values of a new terminal. Origin mode is not among them: tmux has no soft reset, and
/// without it the mode cannot be left without moving the cursor.
const FLAGS: &[(&str, &str)] = &[
    ("alternate_on", "0"),
    ("bracket_paste_flag", "0"),
    ("cursor_flag", "1"),
    ("insert_flag", "0"),
    ("keypad_cursor_flag", "0"),
    ("keypad_flag", "0"),
    ("mouse_any_flag", "0"),
    ("mouse_all_flag", "0"),
    ("mouse_sgr_flag", "0"),
    ("scroll_region_lower", "29"),
    ("scroll_region_upper", "0"),
    ("synchronized_output_flag", "0"),
    ("wrap_flag", "1"),
];

/// A terminal emulator that runs one program.
struct Emulator {
    socket: PathBuf,
}

impl Emulator {
    /// Runs a shell script in a terminal of 30 lines.
    fn start(socket: PathBuf, script: &str) -> Self {
        let emulator = Self { socket };
        emulator
            .tmux(&["-f", "/dev/null", "new-session", "-d", "-x", "150", "-y", "30", "sh", "-c", script])
            .outcome()
            .ok("tmux");
        emulator
    }

    fn tmux(&self, args: &[&str]) -> Run {
        Run::new("tmux").arg("-S").arg(&self.socket).args(args).env("TERM", "xterm").env("LC_ALL", "C.UTF-8")
    }

    fn screen(&self) -> String {
        self.tmux(&["capture-pane", "-p"]).outcome().out()
    }

    /// The screen with escape sequences for attributes and character sets.
    fn attributes(&self) -> String {
        self.tmux(&["capture-pane", "-p", "-e"]).outcome().out()
    }

    fn flag(&self, name: &str) -> String {
        self.tmux(&["display-message", "-p", &format!("#{{{name}}}")]).outcome().out().trim().to_owned()
    }
}

impl Drop for Emulator {
    fn drop(&mut self) {
        let ended = self.tmux(&["kill-server"]).outcome();
        if !ended.status.success() {
            println!("tmux: {}", ended.err());
        }
    }
}

#[test]
fn report_is_visible_whatever_state_the_command_left_the_terminal_in() {
    let Some(stage) = Stage::new() else { return };
    if !need::program("everything", "tmux", "tmux") {
        return;
    }
    let project = stage.project();
    let home = stage.scene.daemon.home().dir();
    for (number, (name, output)) in STATES.iter().enumerate() {
        // The command itself prints it, so that no output follows.
        let script = format!("echo {number} > .envrc; echo done; printf '{output}'");
        let run = stage.run_as(PERSON, &["--dir", project.to_str().unwrap()], &["sh", "command"]);
        fs::write(project.join("command"), script).unwrap();
        let words: Vec<_> =
            std::iter::once(run.program()).chain(run.arguments().iter().map(AsRef::as_ref)).collect();
        let command = words.join(std::ffi::OsStr::new("' '"));
        let script = format!("echo before; '{}'; echo status $?; sleep 60", command.to_str().unwrap());
        let emulator = Emulator::start(home.join(format!("tmux-{number}")), &script);
        let ended = wait_for(Duration::from_secs(15), || {
            Some(emulator.screen()).filter(|screen| screen.contains("status 0"))
        });
        let screen = ended.unwrap_or_else(|| panic!("{name}: {}", emulator.screen()));
        let at = |text: &str| screen.find(text).unwrap_or_else(|| panic!("{name}: no {text}: {screen}"));
        let report = format!("{}/.envrc", project.display());
        assert!(at("before") < at(&report) && at(&report) < at("status 0"), "{name}: {screen}");
        for (flag, expected) in FLAGS {
            let value = emulator.flag(flag);
            // An older tmux does not have the flag.
            assert!(value == *expected || value.is_empty(), "{name}: {flag} is {value}");
        }
        let attributes = emulator.attributes();
        let lines = attributes.lines().filter(|line| line.contains("WARNING") || line.contains("status"));
        for line in lines {
            assert!(!line.contains('\u{1b}') && !line.contains('\u{e}'), "{name}: {line:?}");
        }
        assert_ne!(emulator.flag("pane_title"), "root@host", "{name}");
    }
}
