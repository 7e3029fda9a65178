//! A backbone that can be held back: the embedded one, with the time a network would take put in by hand.
//!
//! Order is kept along a channel, and among all that concerns the users of an app, as every backbone must; and along
//! nothing else: other questions and answers overtake each other as the test likes.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use fulmar_backbone::memory::Memory;
use fulmar_backbone::{Backbone, Inbox, Pending, PublishError, Query, Reply, Terms, Unavailable, WorkerId};
use fulmar_protocol::app::AppId;
use fulmar_protocol::exchange::{Answer, Publication, Question};
use fulmar_protocol::name::{ChannelName, UserId};

/// How fast the backbone is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Pace {
    /// It answers at once, as the embedded one does.
    #[default]
    Prompt,
    /// It does at once what is asked and says so later: what happens meanwhile overtakes the answer.
    SlowToAnswer,
    /// It hears late: nothing has happened yet when the worker goes on.
    SlowToHear,
    /// Both.
    Slow,
}

impl Pace {
    fn hears_late(self) -> bool {
        matches!(self, Self::SlowToHear | Self::Slow)
    }

    fn answers_late(self) -> bool {
        matches!(self, Self::SlowToAnswer | Self::Slow)
    }
}

/// What keeps an order of its own: a channel, or without one the users of an app.
type Place = (AppId, Option<ChannelName>);

#[derive(Default)]
struct Held {
    pace: Pace,
    questions: Vec<(WorkerId, Place, Question)>,
    answers: Vec<(WorkerId, Place, Answer)>,
}

pub(crate) struct SlowBackbone {
    memory: Memory,
    held: Mutex<Held>,
    inboxes: Mutex<Vec<Arc<dyn Inbox>>>,
}

impl SlowBackbone {
    pub(crate) fn new(memory: Memory) -> Self {
        Self { memory, held: Mutex::default(), inboxes: Mutex::default() }
    }

    pub(crate) fn memory(&self) -> &Memory {
        &self.memory
    }

    pub(crate) fn set_pace(&self, pace: Pace) {
        locked(&self.held).pace = pace;
    }

    /// What waits: questions, answers.
    pub(crate) fn waiting(&self) -> (usize, usize) {
        let held = locked(&self.held);
        (held.questions.len(), held.answers.len())
    }

    /// Hears the first question of the place of the one at `index`.
    pub(crate) fn hear_one(&self, index: usize) {
        let mut held = locked(&self.held);
        let first = first_of(&held.questions, index, |(_, place, _)| place);
        let (from, place, question) = held.questions.remove(first);
        let answer = self.memory.ask(from, question);
        // Whatever the pace is by now: an answer to a question that waited comes through the inbox.
        held.answers.extend(answer.map(|answer| (from, place, answer)));
    }

    /// Lets the first answer of the place of the one at `index` reach its worker.
    pub(crate) fn answer_one(&self, index: usize) {
        let mut held = locked(&self.held);
        let first = first_of(&held.answers, index, |(_, place, _)| place);
        let (to, _, answer) = held.answers.remove(first);
        locked(&self.inboxes)[usize::from(to.0)].answer(answer);
    }
}

/// The first of the list that is of the same place as the one at `index`.
fn first_of<T>(list: &[T], index: usize, place: impl Fn(&T) -> &Place) -> usize {
    let wanted = place(&list[index]);
    list.iter().position(|other| place(other) == wanted).unwrap_or(index)
}

fn place_of(question: &Question) -> Place {
    let (app, channel) = match question {
        Question::Join(join) => (&join.app, Some(&join.channel)),
        Question::Leave(leave) => (&leave.app, Some(&leave.channel)),
        Question::Publish(publication) => (&publication.app, Some(&publication.channel)),
        Question::SignIn(sign_in) => (&sign_in.app, None),
        Question::SignOut(sign_out) => (&sign_out.app, None),
        Question::SettleAbsence(absence) => (&absence.app, None),
    };
    (app.clone(), channel.cloned())
}

impl Backbone for SlowBackbone {
    fn attach(&self, inbox: Arc<dyn Inbox>) -> WorkerId {
        locked(&self.inboxes).push(Arc::clone(&inbox));
        self.memory.attach(inbox)
    }

    fn ask(&self, from: WorkerId, question: Question) -> Option<Answer> {
        let mut held = locked(&self.held);
        let place = place_of(&question);
        let is_behind = held.questions.iter().any(|(_, other, _)| *other == place);
        if held.pace.hears_late() || is_behind {
            held.questions.push((from, place, question));
            return None;
        }
        let answer = self.memory.ask(from, question)?;
        let is_behind = held.answers.iter().any(|(_, other, _)| *other == place);
        if held.pace.answers_late() || is_behind {
            held.answers.push((from, place, answer));
            return None;
        }
        Some(answer)
    }

    fn publish(&self, publications: Vec<Publication>, terms: Terms) -> Pending<'_, Result<(), PublishError>> {
        self.memory.publish(publications, terms)
    }

    fn terminate(&self, app: AppId, user_id: UserId) -> Pending<'_, Result<(), Unavailable>> {
        self.memory.terminate(app, user_id)
    }

    fn query(&self, query: Query) -> Pending<'_, Result<Reply, Unavailable>> {
        self.memory.query(query)
    }
}

pub(crate) fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A test that panicked has reported already.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
