//! Carrying a plan out: one step at a time, each ended by what was seen, and undone when that is not seen in time.
//!
//! Before each step the lease is looked at again. A pause is renewed while its step and the next last, and ends by itself when
//! nobody renews it: an operator that dies leaves no group that is held.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use fulmar_control::plan::{Action, Check, Plan, Sight, Step, Verdict};

use crate::act::act;
use crate::doors::{ANSWER_WITHIN, AskError};
use crate::lease::{Lease, LeaseError};
use crate::watch::Watcher;

/// How long what must hold before a step may take to be seen.
const READY_WITHIN: Duration = Duration::from_secs(5);
/// The longest that writes are held before everything is undone, whatever a step would be given: publishers wait 3.4 s before
/// they are answered 503.
const HELD_MAX: Duration = Duration::from_millis(2_400);
/// How often is looked while writes are held.
const LOOK_HELD: Duration = Duration::from_millis(10);
/// How often is looked otherwise.
const LOOK: Duration = Duration::from_millis(100);
/// How often a pause is renewed.
const RENEW_PAUSE: Duration = Duration::from_millis(250);
/// How long a server may take to answer while writes are held, so that one that hangs does not keep the pause from being renewed.
const ANSWER_HELD: Duration = Duration::from_millis(300);

/// What is told while a plan is carried out.
#[derive(Debug, Clone, Copy)]
pub enum Progress<'a> {
    /// A step begins.
    Begins {
        /// Counted from 1.
        number: usize,
        /// The step.
        step: &'a Step,
    },
    /// What a step still waits for, said when it changes.
    Waits(&'a str),
    /// The step is over.
    Done(Duration),
    /// It is being undone, and why.
    Undoes(&'a str),
    /// What was asked for may still come.
    Lingers(Duration),
}

/// How a plan ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// How long each step took that was done.
    pub took: Vec<Duration>,
    /// The step that failed, counted from 1, and how; `None` when all is done.
    pub failed: Option<Failed>,
    /// How long writes were held, if they were.
    pub held: Option<Duration>,
    /// Who was promoted, if somebody was.
    pub successor: Option<String>,
}

/// A step that failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failed {
    /// Counted from 1.
    pub number: usize,
    /// What was not seen, or who refused.
    pub why: String,
    /// Whether everything is as it was; if not, what could not be undone.
    pub left: Result<(), String>,
}

/// Carries plans out in one group.
pub struct Executor<'a> {
    /// Looks.
    pub watcher: &'a mut Watcher,
    /// The group.
    pub group: &'a str,
    /// The operator's lease, unless it was decided to go without.
    pub lease: Option<Lease>,
    /// Where the lease is: the primary.
    pub lease_at: String,
    /// Set when the operator is told to stop.
    pub is_interrupted: &'a AtomicBool,
    /// Hears how it goes.
    pub tell: &'a mut dyn FnMut(Progress<'_>),
    paused: Option<Paused>,
    held: Option<Duration>,
    successor: Option<String>,
}

struct Paused {
    server: String,
    hold: Duration,
    since: Instant,
    renewed: Instant,
}

/// Why a step did not come to its end.
enum Fault {
    /// It was not begun.
    NotReady(String),
    /// It was refused: nothing was done.
    Refused(String),
    /// It may have been done.
    Late(String),
}

impl<'a> Executor<'a> {
    /// For one plan.
    pub fn new(
        watcher: &'a mut Watcher,
        group: &'a str,
        (lease, lease_at): (Option<Lease>, &str),
        is_interrupted: &'a AtomicBool,
        tell: &'a mut dyn FnMut(Progress<'_>),
    ) -> Self {
        let lease_at = lease_at.to_owned();
        Self { watcher, group, lease, lease_at, is_interrupted, tell, paused: None, held: None, successor: None }
    }

    /// Carries it out, and gives the lease back.
    pub async fn run(mut self, plan: &Plan) -> Report {
        let (mut took, mut failed) = (Vec::new(), None);
        let mut undo: &[Action] = &[];
        for (at, step) in plan.steps.iter().enumerate() {
            let begun = Instant::now();
            (self.tell)(Progress::Begins { number: at + 1, step });
            let fault = match self.step(step).await {
                Ok(()) => None,
                Err(Fault::NotReady(why)) => Some((why, undo, None)),
                Err(Fault::Refused(why)) => Some((why, step.undo.as_slice(), None)),
                Err(Fault::Late(why)) => Some((why, step.undo.as_slice(), step.lingers)),
            };
            if let Some((why, undo, lingers)) = fault {
                (self.tell)(Progress::Undoes(&why));
                let left = self.undo(undo).await;
                let came = match lingers {
                    Some(lingers) => self.linger(step, lingers).await,
                    None => false,
                };
                if !came {
                    failed = Some(Failed { number: at + 1, why, left });
                    break;
                }
            }
            took.push(begun.elapsed());
            (self.tell)(Progress::Done(begun.elapsed()));
            undo = &step.undo;
        }
        if let Some(lease) = self.lease.take() {
            lease.release(self.watcher.doors(), &self.lease_at).await;
        }
        Report { took, failed, held: self.held, successor: self.successor }
    }

    async fn step(&mut self, step: &Step) -> Result<(), Fault> {
        self.check_lease().await.map_err(|error| Fault::NotReady(error.to_string()))?;
        let since = self.watcher.now();
        self.seen(&step.ready_when, since, READY_WITHIN).await.map_err(Fault::NotReady)?;
        let done = act(self.watcher, self.group, &step.action, self.successor.as_deref()).await;
        match done {
            Ok(()) => {}
            Err(AskError::Refused(why)) => return Err(Fault::Refused(why)),
            Err(AskError::Unreachable(why)) => return Err(Fault::Late(why)),
        }
        if let Action::Pause { server, hold } = &step.action {
            let now = Instant::now();
            self.watcher.doors().be_patient(ANSWER_HELD);
            self.paused = Some(Paused { server: server.clone(), hold: *hold, since: now, renewed: now });
        }
        let since = self.watcher.now();
        self.seen(&step.done_when, since, step.within).await.map_err(Fault::Late)?;
        if matches!(step.action, Action::Demote { .. }) {
            self.let_go();
        }
        Ok(())
    }

    /// Looks until the check holds; else what was missing last.
    async fn seen(&mut self, check: &Check, since: Duration, within: Duration) -> Result<(), String> {
        if *check == Check::All(Vec::new()) {
            return Ok(());
        }
        let begun = Instant::now();
        let mut said = String::new();
        loop {
            let why = match self.look(check, since).await {
                Verdict::Holds => return Ok(()),
                Verdict::Not(why) => why,
            };
            if said != why {
                (self.tell)(Progress::Waits(&why));
                said.clone_from(&why);
            }
            if self.is_interrupted.load(Ordering::Relaxed) {
                return Err(format!("interrupted while {why}"));
            }
            let held = self.paused.as_ref().filter(|_| self.held.is_none()).map(|paused| paused.since.elapsed());
            if let Some(held) = held.filter(|held| *held > HELD_MAX) {
                return Err(format!("{why} (writes are held for {} ms)", held.as_millis()));
            }
            if begun.elapsed() > within {
                return Err(format!("{why} (waited {} ms)", within.as_millis()));
            }
            self.go_on().await.map_err(|error| error.to_string())?;
            tokio::time::sleep(if self.paused.is_some() { LOOK_HELD } else { LOOK }).await;
        }
    }

    async fn look(&mut self, check: &Check, since: Duration) -> Verdict {
        let mut servers = Vec::new();
        check.servers(self.successor.as_deref(), &mut servers);
        let servers: Vec<String> = servers.into_iter().map(str::to_owned).collect();
        self.watcher.look_at(self.group, &servers, check.asks_sentinels()).await;
        let Some(seen) = self.watcher.group(self.group) else { return Verdict::Not("the group is gone".to_owned()) };
        let sight = Sight { now: self.watcher.now(), since, successor: self.successor.as_deref() };
        let verdict = check.judge(seen, sight);
        if let Some(promoted) = check.promoted(seen, sight).map(str::to_owned) {
            self.promoted(promoted);
        }
        verdict
    }

    /// From here on the old primary's pause holds nobody back who knows the new one.
    fn promoted(&mut self, server: String) {
        self.end_hold();
        self.lease_at.clone_from(&server);
        self.successor = Some(server);
    }

    fn let_go(&mut self) {
        self.paused = None;
        self.watcher.doors().be_patient(ANSWER_WITHIN);
    }

    fn end_hold(&mut self) {
        if let (Some(paused), None) = (&self.paused, self.held) {
            self.held = Some(paused.since.elapsed());
        }
    }

    /// What must be done now and then while something is waited for: a pause goes on, and so does the lease.
    async fn go_on(&mut self) -> Result<(), LeaseError> {
        if let Some(paused) = &mut self.paused {
            if paused.renewed.elapsed() >= RENEW_PAUSE {
                paused.renewed = Instant::now();
                let again = Action::Pause { server: paused.server.clone(), hold: paused.hold };
                // One that cannot be reached is held until its pause ends.
                let _: Result<_, _> = act(self.watcher, self.group, &again, None).await;
            }
            return Ok(());
        }
        match &mut self.lease {
            Some(lease) => match lease.renew(self.watcher.doors(), &self.lease_at).await {
                // Only another's lease ends this one's work; what cannot be asked now is asked again before the next step.
                Err(LeaseError::Unknown(_)) => Ok(()),
                other => other,
            },
            None => Ok(()),
        }
    }

    async fn check_lease(&mut self) -> Result<(), LeaseError> {
        let Some(lease) = &mut self.lease else { return Ok(()) };
        let doors = self.watcher.doors();
        if self.paused.is_none() {
            lease.renew(doors, &self.lease_at).await?;
        }
        lease.check(doors, &self.lease_at).await
    }

    /// Undoes; what could not be undone, if anything.
    async fn undo(&mut self, actions: &[Action]) -> Result<(), String> {
        let mut left = Ok(());
        let held = self.paused.take();
        self.watcher.doors().be_patient(ANSWER_WITHIN);
        for action in actions {
            if let Err(error) = act(self.watcher, self.group, action, self.successor.as_deref()).await {
                let pause = matches!(action, Action::Resume { .. });
                let by_itself = if pause { "; it ends by itself within a second" } else { "" };
                left = Err(format!("{action}: {error}{by_itself}"));
            }
        }
        if let (Some(held), None) = (held, self.held) {
            self.held = Some(held.since.elapsed());
        }
        left
    }

    /// After undoing: whether what was asked for comes all the same. No longer than until it is certain that it does not.
    async fn linger(&mut self, step: &Step, lingers: Duration) -> bool {
        (self.tell)(Progress::Lingers(lingers));
        let begun = Instant::now();
        while begun.elapsed() < lingers {
            let since = self.watcher.now();
            if self.look(&step.done_when, since).await == Verdict::Holds {
                return true;
            }
            if self.look(&Check::Quiet, since).await == Verdict::Holds {
                // It may have come in between.
                let since = self.watcher.now();
                return self.look(&step.done_when, since).await == Verdict::Holds;
            }
            tokio::time::sleep(LOOK).await;
        }
        false
    }
}
