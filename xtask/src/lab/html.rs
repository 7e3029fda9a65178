//! The report as one page that needs nothing else: for each day its verdict, picture, steps, timeline and what is not covered.

use std::fmt::Write as _;

use super::account::{Account, StepAccount, is_outline};
use super::picture::{self, escaped};
use super::report::ms;
use super::timeline::{Entry, Voice};

const STYLE: &str = "\
body { font: 15px/1.45 system-ui, sans-serif; margin: 2em auto; max-width: 1120px; padding: 0 1em; color: #1c2733; }
h1 { font-size: 1.5em } h2 { font-size: 1.25em; margin-top: 2.5em; border-top: 1px solid #ccd5de; padding-top: 1em }
table { border-collapse: collapse; width: 100%; margin: .8em 0 } th, td { padding: .25em .6em; text-align: right; border-bottom: 1px solid #e3e8ee }
th:first-child, td:first-child { text-align: left } td.words { text-align: left }
.verdict { padding: .1em .5em; border-radius: .3em; color: #fff; font-weight: 600 }
.KEPT { background: #2f7d4f } .PART, .COVERED { background: #a87b00 } .MISSED { background: #b3261e }
.story { color: #56616d } .gap { color: #8a6500 } .miss { color: #b3261e }
svg { width: 100%; height: auto; font: 11px system-ui, sans-serif; margin: .5em 0 }
.panel { fill: #f6f8fa; stroke: #d5dde5 } .title { fill: #56616d } .scale { text-anchor: end; fill: #56616d } .tick { text-anchor: middle; fill: #56616d }
.number { text-anchor: middle; fill: #fff; font-weight: 600 } .small { fill: #56616d; font-weight: 400 }
.step.kept { fill: #2f7d4f } .step.part { fill: #a87b00 } .step.missed { fill: #b3261e } .step { stroke: #fff }
.mark { stroke: #9fb0c0; stroke-width: .8 } .mark.missed { stroke: #b3261e; stroke-width: 1.4 }
path { fill: none; stroke-width: 1.5 } .published { stroke: #2563a8 } .delivered { stroke: #2f7d4f } .longest { stroke: #7a3fa0 }
.group0 { stroke: #2563a8 } .group1 { stroke: #c2610c } .group2 { stroke: #2f7d4f } .late { stroke: #b3261e; stroke-dasharray: 5 4 } .bad { fill: #b3261e }
ol.entries { font: 12.5px/1.5 ui-monospace, monospace; padding-left: 3.2em } .node { color: #56616d } .Deed, .fulmar { font-weight: 600 } .alert { color: #8a4b00 }
";

/// The page.
pub fn page(accounts: &[Account]) -> String {
    let mut page = format!(
        "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><title>Outage lab</title><style>{STYLE}</style>\
         <h1>Outage lab: Pusher's published outages, replayed</h1>\
         <p>Real Redis, Sentinels and nodes of this checkout; every publish and every receipt was written down and compared. \
         A day is <b>KEPT</b> when nothing was lost, doubled, out of order, refused or late beyond what a step allows; \
         <b>KEPT IN PART</b> says that something of that day cannot be replayed with this release.</p>"
    );
    page.push_str("<table>");
    for (number, account) in accounts.iter().enumerate() {
        let figures = account.figures();
        if number == 0 {
            let headings: String = figures.iter().map(|(heading, _)| format!("<th>{heading}")).collect();
            let _ = write!(page, "<tr><th>day{headings}<th>verdict</tr>");
        }
        let figures: String = figures.iter().map(|(_, figure)| format!("<td>{figure}")).collect();
        let (name, title) = (account.day.name, escaped(account.day.title));
        let verdict = badge(account.verdict());
        let _ = write!(page, "<tr><td><a href=\"#{name}\">{name} {title}</a>{figures}<td>{verdict}</tr>");
    }
    page.push_str("</table>");
    accounts.iter().for_each(|account| day(&mut page, account));
    page.push_str("</html>\n");
    page
}

fn badge(verdict: &str) -> String {
    let class = verdict.rsplit(' ').next().unwrap_or(verdict);
    format!("<span class=\"verdict {class}\">{verdict}</span>")
}

fn day(page: &mut String, account: &Account) {
    let _ = write!(
        page,
        "<h2 id=\"{0}\">{0} · {1} · {2} {3}</h2><p class=\"story\">{4}</p>",
        account.day.name,
        account.day.id,
        escaped(account.day.title),
        badge(account.verdict()),
        escaped(account.day.story),
    );
    let _ = write!(
        page,
        "<p>Seed {}, {} s. The machine's load average was {}; it was away for {} at a time and {} in all, \
         which is taken off delays.{}</p>",
        account.seed,
        account.took.as_secs(),
        escaped(&account.machine),
        ms(account.whole.longest_stall),
        ms(account.whole.stalled),
        if account.is_disturbed() {
            " <b>It stood still for longer than Sentinels wait: what is late or out of order says little about this run.</b>"
        } else {
            ""
        },
    );
    if let Some(words) = &account.lines {
        let _ = write!(page, "<p>Here {}.</p>", escaped(words));
    }
    let marked: Vec<&Entry> = account.entries.iter().filter(|entry| is_mark(entry)).collect();
    page.push_str(&picture::draw(account, &marked));
    page.push_str(
        "<table><tr><th>step<th>from<th>published<th>received<th>lost<th>doubled<th>failed<th>503<th>late<th>longest<th></tr>",
    );
    for (number, step) in account.steps.iter().enumerate() {
        step_row(page, number, step);
    }
    page.push_str("</table>");
    list(page, "Presence: the truth against every answer", "", &account.presence);
    let sdk = account.sdk.as_ref().map_or("none took part".to_owned(), super::sdk::SdkAccount::words);
    let _ = write!(page, "<p><b>Official SDKs</b> (pusher, pusher-js): {}</p>", escaped(&sdk));
    list(page, "Promises that were not kept", "miss", &account.all_misses());
    list(page, "Not covered by this release", "gap", &account.all_gaps());
    outline(page, &marked);
    let rest: Vec<_> = account.entries.iter().filter(|entry| !is_mark(entry)).collect();
    let _ = write!(page, "<details><summary>All that was said and seen ({} lines)</summary>", rest.len());
    outline(page, &account.entries.iter().collect::<Vec<_>>());
    page.push_str("</details>");
}

/// What the picture marks: what was done, and what went wrong.
fn is_mark(entry: &Entry) -> bool {
    is_outline(entry)
        && matches!(entry.voice, Voice::Deed | Voice::Miss | Voice::Verb | Voice::Alert)
        && !entry.words.starts_with(' ')
}

fn step_row(page: &mut String, number: usize, step: &StepAccount) {
    let figures = &step.figures;
    let story = if step.step.story.is_empty() {
        String::new()
    } else {
        format!("<br><span class=\"story\">Pusher: {}</span>", escaped(step.step.story))
    };
    let _ = write!(
        page,
        "<tr><td>{}. {}{story}<td>{:.1} s<td>{}<td>{}<td>{}<td>{}<td>{}<td>{}<td>{}<td>{}<td>{}</tr>",
        number + 1,
        escaped(step.step.name),
        step.span[0].as_secs_f64(),
        figures.publishes,
        figures.receipts,
        figures.lost,
        figures.doubled,
        figures.failed,
        figures.refused,
        figures.late,
        ms(figures.longest),
        badge(step.verdict()),
    );
}

fn list(page: &mut String, title: &str, class: &str, lines: &[String]) {
    if lines.is_empty() {
        return;
    }
    let _ = write!(page, "<p><b>{title}</b></p><ul class=\"{class}\">");
    lines.iter().for_each(|line| {
        let _ = write!(page, "<li>{}</li>", escaped(line));
    });
    page.push_str("</ul>");
}

fn outline(page: &mut String, entries: &[&Entry]) {
    page.push_str("<ol class=\"entries\">");
    for entry in entries {
        let word = entry.voice.word();
        let _ = write!(
            page,
            "<li class=\"{}\">{:.2} s · {word} · {}</li>",
            class(entry.voice),
            entry.at.as_secs_f64(),
            escaped(&entry.words)
        );
    }
    page.push_str("</ol>");
}

fn class(voice: Voice) -> &'static str {
    match voice {
        Voice::Story => "story",
        Voice::Deed => "Deed",
        Voice::Node => "node",
        Voice::Verb => "fulmar",
        Voice::Alert => "alert",
        Voice::Seen => "seen",
        Voice::Gap => "gap",
        Voice::Miss => "miss",
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use fulmar_rig::Ledger;

    use super::super::account::{Done, of_step, seconds};
    use super::super::day::DAYS;
    use super::super::trace::Trace;
    use super::*;

    #[test]
    fn a_page_has_a_picture_of_each_day_and_says_what_went_wrong() {
        let day = &DAYS[4];
        let done = Done {
            step: &day.steps[0],
            span_ns: [0, u64::MAX],
            wrongs: vec!["a primary < paused >".to_owned()],
            gaps: Vec::new(),
            is_skipped: false,
        };
        let ledger = Ledger::default();
        let account = Account {
            day,
            seed: 1,
            steps: vec![of_step(done, &ledger, Duration::from_secs(3))],
            whole: ledger.verdict(&[]),
            presence: Vec::new(),
            machine: "0.1".to_owned(),
            lines: Some("lines are capped by a proxy, because <nobody> is root".to_owned()),
            sdk: None,
            misses: Vec::new(),
            entries: vec![Entry { at: Duration::from_secs(4), voice: Voice::Deed, words: "SIGTERM".to_owned() }],
            trace: Trace::default(),
            seconds: seconds(&ledger),
            ledger_began: Duration::from_secs(3),
            took: Duration::from_secs(9),
        };
        assert_eq!(account.verdict(), "MISSED");
        let page = page(&[account]);
        for part in [
            "<svg viewBox",
            "INC-2022-04-11",
            "SIGTERM",
            "a primary &lt; paused &gt;",
            "1 load at all",
            "Here lines are capped by a proxy, because &lt;nobody&gt;",
        ] {
            assert!(page.contains(part), "{part} is not in the page");
        }
    }
}
