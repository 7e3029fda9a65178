//! A message through each group and back, before the node says that it is ready.
//!
//! Subscribes and publishes as anybody would, under an app that cannot be configured and a channel of this node's own. It
//! decides nothing: whoever asks is told which groups stayed silent, and serves anyway.

use std::sync::Arc;
use std::time::Duration;

use fulmar_backbone::{Backbone, Inbox, Terms, WorkerId};
use fulmar_protocol::app::{AppId, Durability};
use fulmar_protocol::exchange::{Answer, Delivery, Happening, Join, Leave, Publication, Question, Ticket, UserNotice};
use fulmar_protocol::frame::Frame;
use fulmar_protocol::name::ChannelName;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::time::{Instant, sleep_until, timeout_at};

/// How long a start waits for messages to come back.
pub(crate) const WITHIN: Duration = Duration::from_secs(20);
/// How often what was not answered or not heard is tried again.
const AGAIN_EVERY: Duration = Duration::from_millis(500);
/// More than the longest name of a test.
pub(crate) const CHANNEL_NAME_MAX: usize = 164;

/// The app of the tests' channels: no configured app's id has a parenthesis.
pub(crate) fn app() -> AppId {
    AppId::new("(self-test)")
}

/// A group, and a channel that belongs to it.
#[derive(Debug, Clone)]
pub(crate) struct Errand {
    /// Its place among the groups.
    pub(crate) number: usize,
    pub(crate) group: String,
    pub(crate) channel: ChannelName,
}

/// How far an errand has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Asked,
    Joined,
    Done,
}

enum Heard {
    Joined(u32),
    Refused(u32),
    Event(ChannelName),
}

/// Hears like a worker.
struct Ear(UnboundedSender<Heard>);

impl Ear {
    fn say(&self, heard: Heard) {
        // The test may be over.
        let _: Result<(), _> = self.0.send(heard);
    }
}

impl Inbox for Ear {
    fn has_room(&self) -> bool {
        true
    }

    fn deliver(&self, delivery: Arc<Delivery>) {
        if matches!(delivery.happening, Happening::Event { .. }) {
            self.say(Heard::Event(delivery.channel.clone()));
        }
    }

    fn notice(&self, _: Arc<UserNotice>) {}

    fn answer(&self, answer: Answer) {
        match answer {
            Answer::Joined { ticket, .. } => self.say(Heard::Joined(ticket.session)),
            Answer::JoinRefused { ticket, .. } => self.say(Heard::Refused(ticket.session)),
            _ => {}
        }
    }
}

/// Runs the errands until all are done or the time is over; answers the groups through which nothing came. A message that comes
/// back while its group is not here came over the bus of some server, and says nothing of the group.
pub(crate) async fn run(
    backbone: Arc<dyn Backbone>,
    errands: Vec<Errand>,
    within: Duration,
    is_here: impl Fn(usize) -> bool,
) -> Vec<String> {
    let until = Instant::now() + within;
    let (say, heard) = unbounded_channel();
    let ear = Arc::new(Ear(say));
    let worker = backbone.attach(ear.clone());
    let mut trial = Trial { stages: vec![Stage::Asked; errands.len()], backbone, worker, ear, errands };
    trial.run(heard, until, is_here).await;
    trial.end()
}

struct Trial {
    backbone: Arc<dyn Backbone>,
    worker: WorkerId,
    ear: Arc<Ear>,
    errands: Vec<Errand>,
    stages: Vec<Stage>,
}

impl Trial {
    async fn run(&mut self, mut heard: UnboundedReceiver<Heard>, until: Instant, is_here: impl Fn(usize) -> bool) {
        (0..self.errands.len()).for_each(|at| self.join(at));
        let mut again = Instant::now() + AGAIN_EVERY;
        while self.stages.iter().any(|stage| *stage != Stage::Done) && Instant::now() < until {
            match timeout_at(again.min(until), heard.recv()).await {
                Ok(Some(heard)) => self.take(heard, &is_here),
                Ok(None) => sleep_until(until).await,
                Err(_) => {
                    again = Instant::now() + AGAIN_EVERY;
                    let waiting = |at: &usize| self.stages[*at] == Stage::Joined;
                    (0..self.errands.len()).filter(waiting).for_each(|at| self.publish(at));
                }
            }
        }
    }

    fn take(&mut self, heard: Heard, is_here: &impl Fn(usize) -> bool) {
        match heard {
            Heard::Joined(session) => {
                let at = session as usize;
                if self.stages.get(at) == Some(&Stage::Asked) {
                    self.stages[at] = Stage::Joined;
                    self.publish(at);
                }
            }
            Heard::Refused(session) => {
                let (at, again) = (session as usize, AGAIN_EVERY);
                if at < self.errands.len() {
                    let (backbone, ear, join, worker) =
                        (self.backbone.clone(), self.ear.clone(), self.question(at), self.worker);
                    tokio::spawn(async move {
                        tokio::time::sleep(again).await;
                        if let Some(answer) = backbone.ask(worker, join) {
                            ear.answer(answer);
                        }
                    });
                }
            }
            Heard::Event(channel) => {
                let at = self.errands.iter().position(|errand| errand.channel == channel);
                if let Some(at) = at.filter(|at| is_here(self.errands[*at].number)) {
                    self.stages[at] = Stage::Done;
                }
            }
        }
    }

    fn join(&self, at: usize) {
        if let Some(answer) = self.backbone.ask(self.worker, self.question(at)) {
            self.ear.answer(answer);
        }
    }

    fn question(&self, at: usize) -> Question {
        Question::Join(Join {
            ticket: Ticket { session: u32::try_from(at).unwrap_or(u32::MAX), number: 0 },
            app: app(),
            channel: self.errands[at].channel.clone(),
            member: None,
            members_max: 1,
            counted: false,
        })
    }

    fn publish(&self, at: usize) {
        let publication = Publication {
            app: app(),
            channel: self.errands[at].channel.clone(),
            frame: Frame::new("{}"),
            except: None,
            cache_for: None,
        };
        let backbone = self.backbone.clone();
        tokio::spawn(async move {
            let terms = Terms { durability: Durability::Primary, once: None };
            // What counts is whether it comes back.
            let _: Result<(), _> = backbone.publish(vec![publication], terms).await;
        });
    }

    fn end(&self) -> Vec<String> {
        for (errand, _) in self.errands.iter().zip(&self.stages).filter(|(_, stage)| **stage != Stage::Asked) {
            let leave = Leave { app: app(), channel: errand.channel.clone(), user_id: None, counted: false };
            self.backbone.ask(self.worker, Question::Leave(leave));
        }
        let missing = self.errands.iter().zip(&self.stages).filter(|(_, stage)| **stage != Stage::Done);
        missing.map(|(errand, _)| errand.group.clone()).collect()
    }
}

#[cfg(test)]
mod tests {
    use fulmar_backbone::memory::{Memory, SystemClock};
    use fulmar_backbone::{Pending, PublishError, Query, Reply, Unavailable};
    use fulmar_protocol::name::UserId;

    use super::*;

    fn errand(group: &str) -> Errand {
        let channel = ChannelName::parse(&format!("self-test-{group}"), CHANNEL_NAME_MAX).expect("a valid name");
        Errand { number: usize::from(group == "g2"), group: group.to_owned(), channel }
    }

    /// A backbone whose group `g2` takes everything and delivers nothing.
    struct HalfDeaf(Memory);

    impl Backbone for HalfDeaf {
        fn attach(&self, inbox: Arc<dyn Inbox>) -> WorkerId {
            self.0.attach(inbox)
        }

        fn ask(&self, from: WorkerId, question: Question) -> Option<Answer> {
            self.0.ask(from, question)
        }

        fn publish(&self, publications: Vec<Publication>, terms: Terms) -> Pending<'_, Result<(), PublishError>> {
            if publications.iter().any(|publication| publication.channel == errand("g2").channel) {
                return Box::pin(async { Ok(()) });
            }
            self.0.publish(publications, terms)
        }

        fn terminate(&self, app: AppId, user_id: UserId) -> Pending<'_, Result<(), Unavailable>> {
            self.0.terminate(app, user_id)
        }

        fn query(&self, query: Query) -> Pending<'_, Result<Reply, Unavailable>> {
            self.0.query(query)
        }
    }

    fn memory() -> Memory {
        Memory::new(1, 1 << 20, Arc::new(SystemClock::default()))
    }

    /// NODE-6
    #[tokio::test(start_paused = true)]
    async fn the_test_is_over_as_soon_as_a_message_came_back_through_every_group() {
        let started = Instant::now();
        let backbone = Arc::new(memory());
        let missing = run(backbone.clone(), vec![errand("g1"), errand("g2")], WITHIN, |_| true).await;
        assert_eq!(missing, [""; 0]);
        assert!(started.elapsed() < AGAIN_EVERY);
        let left = backbone.query(Query::Channels { app: app(), prefix: String::new() }).await;
        assert!(matches!(left, Ok(Reply::Channels(left)) if left.is_empty()), "it leaves nothing behind");
    }

    /// NODE-6
    #[tokio::test(start_paused = true)]
    async fn a_silent_group_is_named_after_twenty_seconds_and_not_before() {
        let started = Instant::now();
        let missing = run(Arc::new(HalfDeaf(memory())), vec![errand("g1"), errand("g2")], WITHIN, |_| true).await;
        assert_eq!(missing, ["g2"]);
        assert_eq!(started.elapsed(), WITHIN);
    }

    /// NODE-6
    #[tokio::test(start_paused = true)]
    async fn what_comes_back_while_its_group_is_away_came_another_way_and_counts_once_the_group_is_here() {
        let started = Instant::now();
        let comes_at = started + WITHIN / 4;
        let is_here = |group: usize| group == 0 || Instant::now() >= comes_at;
        let missing = run(Arc::new(memory()), vec![errand("g1"), errand("g2")], WITHIN, is_here).await;
        assert_eq!(missing, [""; 0]);
        assert!(Instant::now() >= comes_at && started.elapsed() < WITHIN / 2, "{:?}", started.elapsed());
        let missing = run(Arc::new(memory()), vec![errand("g1"), errand("g2")], WITHIN, |group| group == 0).await;
        assert_eq!(missing, ["g2"]);
    }
}
