//! Who is on a presence channel.

use fulmar_backbone::{Query, Reply as Told};
use fulmar_protocol::app::App;
use fulmar_protocol::signing::{Request, Signed};

use super::Api;
use super::channels::{ask, listed_channel};
use super::refusal::Refusal;
use super::reply::Reply;

/// Parameters that belong to the signature and not to the call.
const OF_THE_SIGNATURE: [&str; 5] = ["auth_key", "auth_signature", "auth_timestamp", "auth_version", "body_md5"];

/// Names of refused parameters that an error repeats.
const ECHO_MAX: usize = 10;

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
}
