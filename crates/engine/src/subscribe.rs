//! Subscribing and unsubscribing: from what the client said to the backbone's answer, and back out again.
//!
//! A subscription is registered before its reply is sent, and the reply is sent before anything else of the channel.
//! While the backbone has not answered, deliveries are held; whoever gives up meanwhile is taken back out when the
//! answer comes, so that the backbone's count can never drift from the truth.

use std::sync::Arc;

use fulmar_protocol::client_message::{MemberError, Subscribe, parse_member};
use fulmar_protocol::close::CloseCode;
use fulmar_protocol::exchange::{
    Answer, Delivery, Join, JoinRefusal, Leave, Member, Position, Question, Roster, Ticket,
};
use fulmar_protocol::frame::Frame;
use fulmar_protocol::name::{ChannelKind, ChannelName, UserId};
use fulmar_protocol::server_message;
use fulmar_protocol::signing::check_channel_auth;

use crate::effect::{Effects, SessionKey};
use crate::refusal::{Kind, Refusal};
use crate::session::{Place, Session, SignedIn, Standing, Subscription};
use crate::subscriptions::ChannelKey;
use crate::time::Moment;
use crate::worker::Worker;

/// Deliveries held for one subscription that waits for the backbone. When there are more, its session is closed with
/// 4200: coming back is cheaper than an unbounded queue, and nothing is skipped in silence.
const HELD_DELIVERIES_MAX: usize = 1_024;

/// A subscription that the backbone has not answered yet.
#[derive(Debug)]
pub(crate) struct Waiting {
    session: SessionKey,
    channel: ChannelKey,
    /// Deliveries that came meanwhile.
    pub(crate) held: Vec<Arc<Delivery>>,
    /// What to take back when the answer comes, because the session left meanwhile.
    cancelled: Option<Leave>,
}

impl Worker {
    pub(crate) fn subscribe(
        &mut self,
        now: Moment,
        key: SessionKey,
        request: &Subscribe<'_>,
        text: &str,
        effects: &mut Effects,
    ) {
        let admitted = self.keep_pace(now, key).and_then(|()| self.try_subscribe(key, request, text, effects));
        if let Err(refusal) = admitted {
            self.refuse_subscription(key, &request.channel, &refusal, effects);
        }
    }

    /// Each subscribe costs a signature, and a question to the backbone: those of one connection have a rate.
    fn keep_pace(&mut self, now: Moment, key: SessionKey) -> Result<(), Refusal> {
        let (at_once, per_s) = (self.settings.subscribes_at_once(), self.settings.subscribes_per_s_max);
        let Some(session) = self.sessions.get_mut(key) else { return Ok(()) };
        if session.subscribes.take_of(at_once, per_s, now) {
            return Ok(());
        }
        let text = format!("This connection subscribes more often than {per_s} times a second, try again");
        Err(Refusal::of_command(text).of_kind(Kind::TooFast))
    }

    fn try_subscribe(
        &mut self,
        key: SessionKey,
        request: &Subscribe<'_>,
        text: &str,
        effects: &mut Effects,
    ) -> Result<(), Refusal> {
        let Some(session) = self.sessions.get(key) else { return Ok(()) };
        let limits = &session.app.limits;
        let name = ChannelName::parse(&request.channel, limits.channel_name_max)
            .map_err(|why| Refusal::of_command(format!("Invalid channel name: it {why}")))?;
        let known = self.channels.find(&session.app.id, name.as_str());
        if known.is_some_and(|channel| session.subscriptions.contains_key(&channel)) {
            // Not told to the channel's listeners: for them nothing has gone wrong.
            effects.send(key, Refusal::of_command(format!("Existing subscription to channel {name}")).frame());
            return Ok(());
        }
        let max = self.settings.channels_per_connection_max;
        if session.subscriptions.len() >= max {
            let text = format!("This connection has its maximum of {max} subscriptions");
            return Err(Refusal::of_command(text).of_kind(Kind::Full));
        }
        let member = admit(session, &name, request)?;

        let app = session.app.clone();
        let counted = is_counted(session, name.kind());
        if name.kind().needs_auth() && !self.is_seated(key, text, effects) {
            return Ok(());
        }
        let channel = self.channels.find_or_add(&app.id, &name);
        self.next_ticket += 1;
        let number = self.next_ticket;
        self.channels.get_mut(channel).waiting.push(number);
        self.waiting.insert(number, Waiting { session: key, channel, held: Vec::new(), cancelled: None });
        let user_id = member.as_ref().map(|member| member.user_id.clone());
        let subscription = Subscription { place: Place::Waiting, from: Position::default(), user_id };
        self.sessions.expect_mut(key).subscriptions.insert(channel, subscription);
        effects.ask(Question::Join(Join {
            ticket: Ticket { session: key, number },
            app: app.id.clone(),
            channel: name,
            member,
            members_max: app.limits.presence_members_max,
            counted,
        }));
        Ok(())
    }

    /// The hosted service's error on the connection; and the channel's own listeners are told as well, except on
    /// encrypted channels, where some SDKs would try to decrypt it.
    fn refuse_subscription(&mut self, key: SessionKey, channel: &str, refusal: &Refusal, effects: &mut Effects) {
        self.figures.refused_subscriptions += 1;
        effects.send(key, refusal.frame());
        let is_listener_told = self.settings.subscription_error_events
            && !ChannelKind::of(channel).is_encrypted()
            && channel.len() <= fulmar_protocol::name::CHANNEL_NAME_CEILING;
        if is_listener_told {
            effects.send(key, refusal.subscription_error(channel));
        }
    }

    pub(crate) fn answered(&mut self, now: Moment, answer: Answer, effects: &mut Effects) {
        match answer {
            Answer::Joined { ticket, position, roster, cached } => {
                self.joined(ticket, position, roster.as_ref(), cached, effects);
            }
            Answer::JoinRefused { ticket, why } => self.join_refused(ticket, why, effects),
            Answer::SignedIn { ticket, position, online } => self.signed_in(ticket, position, &online, effects),
            Answer::SignInRefused { ticket } => self.sign_in_refused(ticket, effects),
            Answer::Absent { absence, settle_in_ms } => self.absent(now, absence, settle_in_ms),
        }
    }

    fn joined(
        &mut self,
        ticket: Ticket,
        position: Position,
        roster: Option<&Roster>,
        cached: Option<Frame>,
        effects: &mut Effects,
    ) {
        let Some(waiting) = self.stop_waiting(ticket.number) else { return };
        if let Some(leave) = waiting.cancelled {
            effects.ask(Question::Leave(leave));
            self.channels.drop_if_unused(waiting.channel);
            return;
        }
        let channel = self.channels.get_mut(waiting.channel);
        let index = channel.add(waiting.session, position);
        let (name, kind) = (channel.name.clone(), channel.kind);
        let session = self.sessions.expect_mut(waiting.session);
        let subscription =
            session.subscriptions.get_mut(&waiting.channel).expect("a waiting subscription is in its session");
        subscription.place = Place::Live(index);
        subscription.from = position;

        let succeeded = match roster {
            Some(roster) if kind.is_presence() => server_message::presence_succeeded(&name, roster),
            _ => server_message::subscription_succeeded(&name),
        };
        effects.send(waiting.session, succeeded);
        if kind.is_cache() {
            effects.send(waiting.session, cached.unwrap_or_else(|| server_message::cache_miss(&name)));
        }
        for delivery in waiting.held {
            self.deliver_to(waiting.session, waiting.channel, &delivery, effects);
        }
    }

    fn join_refused(&mut self, ticket: Ticket, why: JoinRefusal, effects: &mut Effects) {
        let Some(waiting) = self.stop_waiting(ticket.number) else { return };
        let name = self.channels.get(waiting.channel).name.clone();
        if waiting.cancelled.is_none() {
            self.sessions.expect_mut(waiting.session).subscriptions.remove(&waiting.channel);
            let refusal = match why {
                JoinRefusal::MembersFull { max } => {
                    let text = format!("Presence channel {name} is full: it may have {max} members");
                    Refusal::of_command(text).of_kind(Kind::Full)
                }
                JoinRefusal::Unavailable => {
                    let text = format!("Subscribing to channel {name} is not possible now, try again");
                    Refusal::of_command(text).of_kind(Kind::Unavailable)
                }
            };
            self.refuse_subscription(waiting.session, name.as_str(), &refusal, effects);
        }
        self.channels.drop_if_unused(waiting.channel);
    }

    fn stop_waiting(&mut self, number: u64) -> Option<Waiting> {
        let waiting = self.waiting.remove(&number)?;
        let numbers = &mut self.channels.get_mut(waiting.channel).waiting;
        if let Some(at) = numbers.iter().position(|waiting| *waiting == number) {
            numbers.swap_remove(at);
        }
        Some(waiting)
    }

    /// Keeps a delivery for everybody who waits for the backbone's answer on this channel.
    pub(crate) fn hold(&mut self, channel: ChannelKey, delivery: &Arc<Delivery>, effects: &mut Effects) {
        let mut overflowing = Vec::new();
        for number in &self.channels.get(channel).waiting {
            let waiting = self.waiting.get_mut(number).expect("the channel's waiting numbers are in the table");
            match &waiting.cancelled {
                Some(_) => {}
                None if waiting.held.len() < HELD_DELIVERIES_MAX => waiting.held.push(delivery.clone()),
                None => overflowing.push(waiting.session),
            }
        }
        for session in overflowing {
            let refusal = Refusal::closing(CloseCode::RECONNECT, "Subscribing took too long, please reconnect");
            self.end(session, refusal, effects);
        }
    }

    pub(crate) fn unsubscribe(&mut self, key: SessionKey, channel: &str, effects: &mut Effects) {
        let Some(session) = self.sessions.get(key) else { return };
        let known = self.channels.find(&session.app.id, channel);
        match known.filter(|channel| session.subscriptions.contains_key(channel)) {
            Some(channel) => self.leave(key, channel, effects),
            None => {
                let shown: String = channel.chars().take(fulmar_protocol::name::CHANNEL_NAME_CEILING).collect();
                let text = format!("No current subscription to channel {shown}, or subscription in progress");
                effects.send(key, Refusal::of_command(text).frame());
            }
        }
    }

    /// Takes one session off one channel. Costs the same whatever the number of subscribers.
    fn leave(&mut self, key: SessionKey, channel: ChannelKey, effects: &mut Effects) {
        let session = self.sessions.expect_mut(key);
        let Some(subscription) = session.subscriptions.remove(&channel) else { return };
        let counted = is_counted(session, self.channels.get(channel).kind);
        self.taken_off(key, channel, subscription, counted, effects);
    }

    /// Ends everything the session listened to.
    pub(crate) fn leave_all(&mut self, key: SessionKey, session: &mut Session, effects: &mut Effects) {
        for (channel, subscription) in std::mem::take(&mut session.subscriptions) {
            let counted = is_counted(session, self.channels.get(channel).kind);
            self.taken_off(key, channel, subscription, counted, effects);
        }
    }

    fn taken_off(
        &mut self,
        key: SessionKey,
        channel: ChannelKey,
        subscription: Subscription,
        counted: bool,
        effects: &mut Effects,
    ) {
        let record = self.channels.get_mut(channel);
        let leave =
            Leave { app: record.app.clone(), channel: record.name.clone(), user_id: subscription.user_id, counted };
        match subscription.place {
            Place::Live(index) => {
                if let Some(moved) = record.remove(index) {
                    self.sessions
                        .expect_mut(moved)
                        .subscriptions
                        .get_mut(&channel)
                        .expect("subscribers have it")
                        .place = Place::Live(index);
                }
                effects.ask(Question::Leave(leave));
                self.channels.drop_if_unused(channel);
            }
            Place::Waiting => {
                let waits = record.waiting.iter().find(|number| {
                    self.waiting.get(*number).is_some_and(|w| w.session == key && w.cancelled.is_none())
                });
                if let Some(waiting) = waits.and_then(|number| self.waiting.get_mut(number)) {
                    waiting.held = Vec::new();
                    waiting.cancelled = Some(leave);
                }
            }
        }
    }
}

/// Whether subscribers of such a channel are told how many they are.
fn is_counted(session: &Session, kind: ChannelKind) -> bool {
    session.app.subscription_counts && !kind.is_presence() && kind.is_listed()
}

/// Decides whether this session may be on that channel, and as whom.
fn admit(session: &Session, name: &ChannelName, request: &Subscribe<'_>) -> Result<Option<Member>, Refusal> {
    let kind = name.kind();
    if kind == ChannelKind::ServerToUser {
        if name.server_to_user().is_some_and(|id| signed_in(session).is_some_and(|user| user.user_id.as_str() == id)) {
            return Ok(None);
        }
        return Err(Refusal::of_command(format!("Not signed in as the user of channel {name}")));
    }
    if !kind.needs_auth() {
        return Ok(None);
    }
    let auth = request.auth.as_deref().unwrap_or_default();
    let channel_data = request.channel_data.as_deref();
    check_channel_auth(&session.app, session.socket_id, name, channel_data, auth)
        .map_err(|why| Refusal::of_command(why.to_string()))?;
    if !kind.is_presence() {
        return Ok(None);
    }
    let Some(channel_data) = channel_data else {
        // What the application said at sign-in stands for what it did not say here.
        return member_by_sign_in(session, name).map(Some);
    };
    let member = parse_member(channel_data, &session.app.limits)
        .map_err(|why| Refusal::of_command(format!("Invalid channel_data for channel {name}: {why}")))?;
    Ok(Some(member))
}

fn member_by_sign_in(session: &Session, name: &ChannelName) -> Result<Member, Refusal> {
    let user = signed_in(session).ok_or_else(|| Refusal::of_command("Missing parameter: data.channel_data"))?;
    let max = session.app.limits.presence_user_info_bytes_max;
    if user.user_info.as_ref().is_some_and(|info| info.len() > max) {
        let why = MemberError::UserInfoTooLarge { max };
        return Err(Refusal::of_command(format!("Invalid user_data for channel {name}: {why}")));
    }
    Ok(Member { user_id: user.user_id.clone(), user_info: user.user_info.clone() })
}

/// The user of a session whose sign-in stands.
fn signed_in(session: &Session) -> Option<&SignedIn> {
    session.user.as_deref().filter(|user| matches!(user.standing, Standing::Live(_)))
}

/// Who a session is on a channel, where it is a member.
pub(crate) fn member_of(session: &Session, channel: ChannelKey) -> Option<&UserId> {
    session.subscriptions.get(&channel).and_then(|subscription| subscription.user_id.as_ref())
}
