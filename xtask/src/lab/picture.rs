//! The picture of a day: an inline SVG with steps, what was published and delivered, delays, replicas, and marks of what happened.
//!
//! It only draws. All panels share one axis of time, the day's timeline.

use std::fmt::Write as _;
use std::time::Duration;

use super::account::{Account, Second};
use super::timeline::{Entry, Voice};

const WIDTH: f64 = 1_080.0;
const LEFT: f64 = 90.0;
const RIGHT: f64 = 20.0;
const PANEL: f64 = 84.0;
const GAP: f64 = 26.0;
const STEPS_TOP: f64 = 8.0;
const STEPS_HEIGHT: f64 = 22.0;
const MARKS_HEIGHT: f64 = 18.0;
/// Pusher's line for late, in milliseconds.
const LATE_MS: f64 = 900.0;
const DELAY_MIN_MS: f64 = 1.0;
const DELAY_MAX_MS: f64 = 10_000.0;

/// A picture under work.
struct Canvas {
    text: String,
    seconds: f64,
}

/// The picture. Marks carry the numbers of `marked`.
pub fn draw(account: &Account, marked: &[&Entry]) -> String {
    let seconds = last_second(account);
    let mut canvas = Canvas { text: String::new(), seconds };
    let top = STEPS_TOP + STEPS_HEIGHT + MARKS_HEIGHT + GAP;
    canvas.steps(account);
    canvas.rates(&account.seconds, account.ledger_began, top);
    canvas.delays(&account.seconds, account.ledger_began, top + PANEL + GAP);
    canvas.replicas(account, top + 2.0 * (PANEL + GAP));
    canvas.marks(marked, top + 3.0 * (PANEL + GAP));
    let height = top + 3.0 * (PANEL + GAP) + 18.0;
    canvas.axis(top + 3.0 * (PANEL + GAP) - GAP + 14.0);
    format!(
        "<svg viewBox=\"0 0 {WIDTH} {height}\" role=\"img\" aria-label=\"timeline of {}\">{}</svg>",
        account.day.name, canvas.text
    )
}

fn last_second(account: &Account) -> f64 {
    let entries = account.entries.iter().map(|entry| entry.at);
    let ledger = account.ledger_began + Duration::from_secs(account.seconds.len() as u64);
    entries.chain([ledger]).max().unwrap_or_default().as_secs_f64().max(1.0).ceil()
}

impl Canvas {
    fn x(&self, at: f64) -> f64 {
        LEFT + at / self.seconds * (WIDTH - LEFT - RIGHT)
    }

    fn steps(&mut self, account: &Account) {
        for (number, step) in account.steps.iter().enumerate() {
            let [from, to] = step.span.map(|at| self.x(at.as_secs_f64()));
            let kind = match step.verdict() {
                "KEPT" => "kept",
                "MISSED" => "missed",
                _ => "part",
            };
            let middle = f64::midpoint(from, to);
            let _ = write!(
                self.text,
                "<rect class=\"step {kind}\" x=\"{from:.1}\" y=\"{STEPS_TOP}\" width=\"{:.1}\" height=\"{STEPS_HEIGHT}\">\
                 <title>{}</title></rect><text class=\"number\" x=\"{middle:.1}\" y=\"{}\">{}</text>",
                (to - from).max(1.0),
                escaped(step.step.name),
                STEPS_TOP + 15.0,
                number + 1,
            );
        }
    }

    /// A thin line down all panels for each, with its number on top.
    fn marks(&mut self, marked: &[&Entry], bottom: f64) {
        let top = STEPS_TOP + STEPS_HEIGHT + MARKS_HEIGHT;
        let mut last = f64::MIN;
        for (number, entry) in marked.iter().enumerate() {
            let x = self.x(entry.at.as_secs_f64());
            let kind = if entry.voice == Voice::Miss { "mark missed" } else { "mark" };
            let to = bottom - GAP;
            let _ = write!(
                self.text,
                "<line class=\"{kind}\" x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"{top}\" y2=\"{to}\"><title>{}</title></line>",
                escaped(&entry.words)
            );
            // Numbers that would lie upon each other are left out; the list has them all.
            if x - last > 13.0 {
                let y = top - 4.0;
                let _ = write!(self.text, "<text class=\"number small\" x=\"{x:.1}\" y=\"{y}\">{}</text>", number + 1);
                last = x;
            }
        }
    }

    fn frame(&mut self, top: f64, title: &str, highest: &str) {
        let (right, bottom) = (WIDTH - RIGHT, top + PANEL);
        let _ = write!(
            self.text,
            "<rect class=\"panel\" x=\"{LEFT}\" y=\"{top}\" width=\"{:.1}\" height=\"{PANEL}\"/>\
             <text class=\"title\" x=\"{LEFT}\" y=\"{:.1}\">{title}</text>\
             <text class=\"scale\" x=\"{:.1}\" y=\"{:.1}\">{highest}</text><text class=\"scale\" x=\"{:.1}\" y=\"{bottom}\">0</text>",
            right - LEFT,
            top - 5.0,
            LEFT - 6.0,
            top + 9.0,
            LEFT - 6.0,
        );
    }

    fn rates(&mut self, seconds: &[Second], began: Duration, top: f64) {
        let highest = seconds.iter().map(|second| second.delivered.max(second.published)).max().unwrap_or(1).max(1);
        self.frame(top, "per second: published, delivered; not accepted in red", &highest.to_string());
        let share = |count: usize| count as f64 / highest as f64;
        self.line("published", seconds.iter().map(|second| Some(share(second.published))), began, top);
        self.line("delivered", seconds.iter().map(|second| Some(share(second.delivered))), began, top);
        for (at, second) in seconds.iter().enumerate().filter(|(_, second)| second.unanswered > 0) {
            let x = self.x(began.as_secs_f64() + at as f64);
            let height = (share(second.unanswered) * PANEL).max(3.0);
            let y = top + PANEL - height;
            let _ =
                write!(self.text, "<rect class=\"bad\" x=\"{x:.1}\" y=\"{y:.1}\" width=\"4\" height=\"{height:.1}\"/>");
        }
    }

    fn delays(&mut self, seconds: &[Second], began: Duration, top: f64) {
        self.frame(
            top,
            "longest delivery of each second's publishes, logarithmic; late is above the dashed line (900 ms)",
            "10 s",
        );
        let share = |ms: f64| {
            let within = ms.clamp(DELAY_MIN_MS, DELAY_MAX_MS);
            (within / DELAY_MIN_MS).log10() / (DELAY_MAX_MS / DELAY_MIN_MS).log10()
        };
        let y = top + PANEL * (1.0 - share(LATE_MS));
        let right = WIDTH - RIGHT;
        let _ = write!(self.text, "<line class=\"late\" x1=\"{LEFT}\" x2=\"{right}\" y1=\"{y:.1}\" y2=\"{y:.1}\"/>");
        let values =
            seconds.iter().map(|second| (!second.longest.is_zero()).then(|| share(second.longest.as_secs_f64() * 1e3)));
        self.line("longest", values, began, top);
    }

    /// Of each group what its primary says: replicas online, whichever server is primary.
    fn replicas(&mut self, account: &Account, top: f64) {
        let names = account.trace.names("redis_replicas_online{");
        let group = |name: &str| name.split('"').nth(1).unwrap_or_default().to_owned();
        let mut groups: Vec<_> = names.iter().map(|name| group(name)).collect();
        groups.dedup();
        let highest = names.iter().flat_map(|name| account.trace.values(name)).flatten().max().unwrap_or(2).max(1);
        let title = format!("replicas online: {}", groups.join(", "));
        self.frame(top, &title, &highest.to_string());
        for (number, group) in groups.iter().enumerate() {
            let own: Vec<_> = names
                .iter()
                .filter(|name| name.contains(&format!("group=\"{group}\"")))
                .map(|name| account.trace.values(name))
                .collect();
            let length = own.first().map_or(0, Vec::len);
            let best = (0..length).map(|at| own.iter().filter_map(|values| values[at]).max());
            let shares = best.map(|online| online.map(|online| online as f64 / highest as f64));
            self.line(&format!("group{number}"), shares, Duration::ZERO, top);
        }
    }

    /// A line of shares of the panel's height, a value a second; where there is none, the line is broken.
    fn line(&mut self, class: &str, shares: impl Iterator<Item = Option<f64>>, began: Duration, top: f64) {
        let mut path = String::new();
        let mut is_down = false;
        for (at, share) in shares.enumerate() {
            let Some(share) = share else {
                is_down = false;
                continue;
            };
            let (x, y) = (self.x(began.as_secs_f64() + at as f64), top + PANEL * (1.0 - share));
            let _ = write!(path, "{}{x:.1} {y:.1}", if is_down { "L" } else { "M" });
            is_down = true;
        }
        let _ = write!(self.text, "<path class=\"{class}\" d=\"{path}\"/>");
    }

    fn axis(&mut self, y: f64) {
        let every = if self.seconds > 60.0 { 10.0 } else { 5.0 };
        let mut at = 0.0;
        while at <= self.seconds {
            let x = self.x(at);
            let _ = write!(self.text, "<text class=\"tick\" x=\"{x:.1}\" y=\"{y:.1}\">{at:.0} s</text>");
            at += every;
        }
    }
}

/// For the inside of elements and attributes.
pub fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}
