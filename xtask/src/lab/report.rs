//! A day's account as lines for the eye, and the table of all.

use std::time::Duration;

use super::account::Account;

/// What a day came to. Its timeline has been printed while it was made.
pub fn print(account: &Account) {
    println!("  steps:");
    for step in &account.steps {
        let figures = &step.figures;
        println!(
            "  {:<12} {:<52} {:>6} publishes, {:>6} receipts, lost {} doubled {} failed {} 503 {} late {} longest {}",
            step.verdict(),
            step.step.name,
            figures.publishes,
            figures.receipts,
            figures.lost,
            figures.doubled,
            figures.failed,
            figures.refused,
            figures.late,
            ms(figures.longest),
        );
        step.misses.iter().for_each(|miss| println!("          MISSED: {miss}"));
        step.gaps.iter().for_each(|gap| println!("          not covered: {gap}"));
        if !step.misses.is_empty() {
            figures.examples.iter().for_each(|example| println!("            {example}"));
        }
    }
    account.presence.iter().for_each(|look| println!("  presence: {look}"));
    match &account.sdk {
        Some(sdk) => println!("  official SDKs: {}", sdk.words()),
        None => println!("  official SDKs: none took part"),
    }
    account.lines.iter().for_each(|words| println!("  {words}"));
    account.misses.iter().for_each(|miss| println!("  MISSED: {miss}"));
    account.day.gaps.iter().for_each(|gap| println!("  not covered: {gap}"));
    let whole = &account.whole;
    if account.is_disturbed() {
        println!("  the machine stood still for longer than Sentinels wait: what is late or out of order says little");
    }
    println!(
        "  {}: {} published, {} accepted, {} delivered, {} late, {} lost, {} doubled; p99 {}, longest {}; seed {}, load average \
         {}, machine away {} at a time, {} in all ({} s)",
        account.verdict(),
        whole.publishes,
        account.accepted(),
        whole.receipts - whole.doubled,
        whole.late,
        whole.lost,
        whole.doubled,
        ms(whole.p99),
        ms(whole.longest),
        account.seed,
        account.machine,
        ms(whole.longest_stall),
        ms(whole.stalled),
        account.took.as_secs(),
    );
}

/// The table of all days.
pub fn print_table(accounts: &[Account]) {
    for (number, account) in accounts.iter().enumerate() {
        let figures = account.figures();
        if number == 0 {
            let headings: Vec<&str> = figures.iter().map(|(heading, _)| *heading).collect();
            println!("\n| day | {} | not covered | verdict |", headings.join(" | "));
            println!("|---{}|---|---|", "|---".repeat(headings.len()));
        }
        let figures: Vec<&str> = figures.iter().map(|(_, figure)| figure.as_str()).collect();
        let (day, gaps) = (account.day, account.all_gaps().len());
        println!("| {} {} | {} | {gaps} | {} |", day.name, day.title, figures.join(" | "), account.verdict());
    }
}

/// Milliseconds for the eye.
pub fn ms(time: Duration) -> String {
    format!("{:.1} ms", time.as_secs_f64() * 1e3)
}
