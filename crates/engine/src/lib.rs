//! The data plane's decisions: what one worker does with its connections.
//!
//! Plain synchronous code. It holds no socket, reads no clock, takes no lock and never awaits: the time and the facts
//! come in as an [`Input`], what must be done comes out as [`Effect`]s, and a thin driver does it. So every
//! conversation, and every trouble, is an ordinary fast test.
//!
//! ```text
//!   driver:  bytes -> Input::Said ----+                      +--> Effect::Send, FanOut   -> sockets
//!            backbone -> Delivered ---+--> Worker::handle ---+--> Effect::Ask            -> backbone
//!            poll timeout -> Deadline +                      +--> Effect::Ping, Close    -> sockets
//! ```
//!
//! The driver performs all effects, in order, before it calls [`Worker::handle`] again. An answer that the backbone
//! gives at once comes back as [`Input::Answered`] after the effects that were already there.

mod client_events;
mod counts;
mod deliver;
mod effect;
mod limits;
mod opening;
mod refusal;
mod session;
mod sessions;
mod subscribe;
mod subscriptions;
mod time;
mod users;
pub mod webhook_batch;
pub mod webhook_part;
pub mod webhook_queue;
mod worker;

pub use effect::{Effect, Effects, Seating, SessionKey};
pub use opening::{AppLookup, Load, Opening, origin_allowed};
pub use time::Moment;
pub use worker::{Figures, Input, Settings, Worker};
