//! Who is on a presence channel, and the end of a user's connections.

use bytes::Bytes;
use fulmar_backbone::{Query, Reply as Told};
use fulmar_protocol::app::App;
use fulmar_protocol::name::UserId;
use fulmar_protocol::signing::{Request, Signed};
use percent_encoding::percent_decode_str;

use super::Api;
use super::channels::{ask, listed_channel};
use super::refusal::Refusal;
use super::reply::Reply;

/// Parameters that belong to the signature and not to the call.
const OF_THE_SIGNATURE: [&str; 5] = ["auth_key", "auth_signature", "auth_timestamp", "auth_version", "body_md5"];

/// Names of refused parameters that an error repeats.
const ECHO_MAX: usize = 10;

/// Characters of a refused user id that an error repeats.
const ECHO_CHARS_MAX: usize = 200;

impl Api {
    /// `GET …/channels/NAME/users`: distinct users, ids as strings (one library cannot read numbers).
    pub(super) async fn users(&self, app: &App, signed: &Signed<Request<'_>>, name: &str) -> Result<Reply, Refusal> {
        let channel = listed_channel(app, name)?;
        if !channel.kind().is_presence() {
            return Err(Refusal::UsersElsewhere);
        }
        let extraneous = signed.query.iter().map(|(name, _)| name).filter(|name| !OF_THE_SIGNATURE.contains(name));
        let names: Vec<&str> = extraneous.take(ECHO_MAX).collect();
        if !names.is_empty() {
            return Err(Refusal::Extraneous { names: names.join(", ") });
        }
        let Told::Members(members) = ask(&*self.backbone, Query::Members { app: app.id.clone(), channel }).await?
        else {
            return Err(Refusal::Unavailable);
        };
        let mut body = br#"{"users":["#.to_vec();
        for (index, member) in members.iter().enumerate() {
            body.extend_from_slice(if index == 0 { br#"{"id":"# } else { br#",{"id":"# });
            serde_json::to_writer(&mut body, member.user_id.as_str()).expect("memory takes any text");
            body.push(b'}');
        }
        body.extend_from_slice(b"]}");
        Ok(Reply::json(body))
    }

    /// `POST …/users/ID/terminate_connections`: ends what is signed in as the user now. A user nobody knows is no error,
    /// so that the call can be repeated.
    pub(super) async fn terminate_connections(&self, app: &App, user: &str) -> Result<Reply, Refusal> {
        let id = percent_decode_str(user).decode_utf8().map_err(|_| Refusal::UserIdNotText)?;
        let user_id = UserId::parse(&id, app.limits.user_id_max)
            .map_err(|why| Refusal::UserId { id: id.chars().take(ECHO_CHARS_MAX).collect(), why })?;
        self.backbone.terminate(app.id.clone(), user_id).await.map_err(|_| Refusal::Unavailable)?;
        Ok(Reply::json(Bytes::from_static(b"{}")))
    }
}
