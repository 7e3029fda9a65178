//! What happens to a node from outside: time, its operator, its backbone; and looking into it.

use std::sync::Arc;
use std::time::Duration;

use fulmar_backbone::{Backbone, ChannelState, Inbox as _, Query, Reply};
use fulmar_engine::{Input, Moment};
use fulmar_protocol::app::{App, AppId};
use fulmar_protocol::exchange::{Delivery, Happening, Identity, Position, UserChange, UserNotice};
use fulmar_protocol::name::{ChannelName, UserId};

use super::{Letter, World, ready};
use crate::slow::Pace;

impl World {
    /// Lets time pass, with everything that becomes due on the way.
    pub fn wait(&mut self, ms: u64) {
        let end = self.now.plus_ms(ms);
        while let Some(due) = self.desks.iter().filter_map(|desk| desk.worker.next_deadline()).min() {
            if due > end {
                break;
            }
            self.move_clock(due.max(self.now));
            for worker in 0..self.desks.len() {
                if self.desks[worker].worker.next_deadline().is_some_and(|at| at <= self.now) {
                    self.tell(worker, Input::Deadline);
                }
            }
        }
        self.move_clock(end);
    }

    fn move_clock(&mut self, to: Moment) {
        self.clock.pass(Duration::from_millis(to.ms_since(self.now)));
        self.now = to;
    }

    /// An app's settings are reloaded.
    pub fn replace_app(&mut self, app: App) {
        let app = Arc::new(app);
        self.apps.retain(|known| known.id != app.id);
        self.apps.push(Arc::clone(&app));
        for worker in 0..self.desks.len() {
            self.tell(worker, Input::AppReplaced(&app));
        }
    }

    /// An app is taken out of the configuration.
    pub fn remove_app(&mut self, app: &str) {
        let id = AppId::new(app);
        self.apps.retain(|known| known.id != id);
        for worker in 0..self.desks.len() {
            self.tell(worker, Input::AppRemoved(&id));
        }
    }

    /// The grace of a node that goes away is over.
    pub fn drain(&mut self, over_ms: u64) {
        self.is_draining = true;
        for worker in 0..self.desks.len() {
            self.tell(worker, Input::Drain { over_ms });
        }
    }

    /// The application ends all connections of a user.
    pub fn terminate(&mut self, app: &str, user: &str) {
        let user = UserId::parse(user, 200).expect("a valid id");
        ready(self.backbone.terminate(AppId::new(app), user)).expect("the embedded backbone always can");
        self.settle();
    }

    /// The app with this id.
    #[must_use]
    #[track_caller]
    pub fn app(&self, id: &str) -> &Arc<App> {
        self.apps.iter().find(|app| app.id.as_str() == id).unwrap_or_else(|| panic!("no app {id}"))
    }

    // Looking inside

    /// Occupied channels of an app as the REST API would list them: name, subscriptions, members.
    #[must_use]
    pub fn channels(&self, app: &str) -> Vec<(String, u64, u64)> {
        let query = Query::Channels { app: AppId::new(app), prefix: String::new() };
        let Ok(Reply::Channels(states)) = ready(self.backbone.query(query)) else { panic!("channels were asked for") };
        let state = |ChannelState { channel, subscriptions, members }| (channel.to_string(), subscriptions, members);
        let mut states: Vec<_> = states.into_iter().map(state).collect();
        states.sort();
        states
    }

    /// Users of a presence channel as the REST API would list them.
    #[must_use]
    pub fn users(&self, app: &str, channel: &str) -> Vec<String> {
        let channel = ChannelName::parse(channel, 200).expect("a valid name");
        let Ok(Reply::Members(members)) = ready(self.backbone.query(Query::Members { app: AppId::new(app), channel }))
        else {
            panic!("members were asked for")
        };
        members.iter().map(|member| member.user_id.as_str().to_owned()).collect()
    }

    /// What the backbone counts of itself.
    #[must_use]
    pub fn backbone_figures(&self) -> fulmar_backbone::memory::Figures {
        self.backbone.memory().figures()
    }

    /// Sessions and channels of all workers.
    #[must_use]
    pub fn load(&self) -> (usize, usize) {
        let sessions = self.desks.iter().map(|desk| desk.worker.session_count()).sum();
        (sessions, self.desks.iter().map(|desk| desk.worker.channel_count()).sum())
    }

    /// Connections closed so far because a ping was not answered.
    #[must_use]
    pub fn pongs_missed(&self) -> u64 {
        self.desks.iter().map(|desk| desk.worker.figures().pongs_missed).sum()
    }

    // The backbone's pace

    /// From now on the backbone takes its time; what it keeps back comes with the calls below.
    pub fn set_pace(&mut self, pace: Pace) {
        self.backbone.set_pace(pace);
    }

    /// What the backbone keeps back: questions, answers.
    #[must_use]
    pub fn held_back(&self) -> (usize, usize) {
        self.backbone.waiting()
    }

    /// The backbone hears a question that waits: the first of the channel of the one at `index`.
    pub fn let_hear(&mut self, index: usize) {
        self.backbone.hear_one(index);
        self.settle();
    }

    /// The backbone gives an answer that waits: the first of the channel of the one at `index`.
    pub fn let_answer(&mut self, index: usize) {
        self.backbone.answer_one(index);
        self.settle();
    }

    /// The backbone catches up: all questions in order, then all answers in order.
    pub fn let_all_through(&mut self) {
        self.set_pace(Pace::Prompt);
        loop {
            match self.held_back() {
                (0, 0) => return self.settle(),
                (0, _) => self.let_answer(0),
                _ => self.let_hear(0),
            }
        }
    }

    /// From now on letters reach workers only with [`World::deliver_one`].
    pub fn deliver_by_hand(&mut self, is_by_hand: bool) {
        self.is_by_hand = is_by_hand;
        self.settle();
    }

    /// Gives a worker its next letter; answers `false` when there is none.
    pub fn deliver_one(&mut self, worker: usize) -> bool {
        let Some(letter) = self.desks[worker].mailbox.take() else { return false };
        match letter {
            Letter::Delivery(delivery) => self.handle(worker, Input::Delivered(&delivery)),
            Letter::Notice(notice) => self.handle(worker, Input::Noticed(&notice)),
            Letter::Answer(answer) => self.handle(worker, Input::Answered(answer)),
        }
        true
    }

    /// The backbone says that something of a channel may have passed unheard.
    pub fn miss(&mut self, app: &str, channel: &str) {
        let (app, channel) = (AppId::new(app), ChannelName::parse(channel, usize::MAX).expect("a valid name"));
        let (identity, position) = (Identity { origin: 0, counter: 0 }, Position(u64::MAX));
        let delivery = Arc::new(Delivery { app, channel, identity, position, happening: Happening::Missed });
        for desk in &self.desks {
            desk.mailbox.deliver(Arc::clone(&delivery));
        }
        self.settle();
    }

    /// The backbone says that a change of a user may have passed unheard.
    pub fn miss_user(&mut self, app: &str, user: &str) {
        let (app, user_id) = (AppId::new(app), UserId::parse(user, usize::MAX).expect("a valid id"));
        let notice = UserNotice { app, user_id, position: Position(u64::MAX), change: UserChange::Missed };
        let notice = Arc::new(notice);
        for desk in &self.desks {
            desk.mailbox.notice(Arc::clone(&notice));
        }
        self.settle();
    }

    /// How many workers there are.
    #[must_use]
    pub fn workers(&self) -> usize {
        self.desks.len()
    }
}
