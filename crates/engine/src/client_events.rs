//! Events from one member to the others.

use fulmar_protocol::client_message::ClientEvent;
use fulmar_protocol::exchange::{Publication, Question};
use fulmar_protocol::name::{ChannelKind, check_event_name};
use fulmar_protocol::publish::data_exceeds;
use fulmar_protocol::server_message;

use crate::effect::{Effects, SessionKey};
use crate::refusal::{CLIENT_EVENT_RATE, Refusal};
use crate::session::Place;
use crate::subscribe::member_of;
use crate::time::Moment;
use crate::worker::Worker;

impl Worker {
    pub(crate) fn client_event(
        &mut self,
        now: Moment,
        key: SessionKey,
        event: &ClientEvent<'_>,
        effects: &mut Effects,
    ) {
        match self.judge_client_event(now, key, event) {
            Ok(publication) => effects.ask(Question::Publish(publication)),
            Err(refusal) => {
                self.figures.refused_client_events += 1;
                effects.send(key, refusal.frame());
            }
        }
    }

    /// The checks in their documented order; the first that fails is what the client is told.
    fn judge_client_event(
        &mut self,
        now: Moment,
        key: SessionKey,
        event: &ClientEvent<'_>,
    ) -> Result<Publication, Refusal> {
        let session = self.sessions.get_mut(key).ok_or_else(|| Refusal::of_command("The session has ended"))?;
        if !session.app.client_events {
            return Err(Refusal::of_command(
                "To send client events, you must enable this feature in the Settings page of your dashboard.",
            ));
        }
        let (Some(name), Some(data)) = (event.channel.as_deref(), event.data) else {
            return Err(Refusal::of_command("Invalid client event (must contain channel and data)"));
        };
        let limits = session.app.limits;
        let kind = ChannelKind::of(name);
        if !kind.takes_client_events() {
            let text = "Client event rejected - only supported on private and presence channels that are not encrypted";
            return Err(Refusal::of_command(text));
        }
        let channel = self
            .channels
            .find(&session.app.id, name)
            .filter(|channel| session.subscriptions.get(channel).is_some_and(|s| s.place != Place::Waiting));
        let Some(channel) = channel else {
            let shown: String = name.chars().take(limits.channel_name_max).collect();
            return Err(Refusal::of_command(format!(
                "Cannot broadcast client event (connection not subscribed to channel {shown})"
            )));
        };
        let per_s = limits.client_events_per_s_max;
        if !session.client_events.take(per_s, now) {
            let text = format!("Client event rejected - rate limit of {per_s} per second exceeded");
            return Err(Refusal::with_code(CLIENT_EVENT_RATE, text));
        }
        let max = limits.event_data_bytes_max;
        if data_exceeds(data, max) {
            return Err(Refusal::of_command(format!(
                "Client event rejected - data exceeds the maximum of {max} bytes"
            )));
        }
        check_event_name(&event.event, limits.event_name_max)
            .map_err(|why| Refusal::of_command(format!("Invalid client event: the event name {why}")))?;
        let user_id = kind.is_presence().then(|| member_of(session, channel)).flatten();
        let record = self.channels.get(channel);
        let user_id = user_id.map(fulmar_protocol::name::UserId::as_str);
        Ok(Publication {
            app: record.app.clone(),
            channel: record.name.clone(),
            frame: server_message::client_event(&event.event, &record.name, data, user_id),
            except: Some(session.socket_id),
            cache_for: None,
        })
    }
}
