//! A worker that passes on what it hears.

use std::sync::Arc;
use std::sync::mpsc::Sender;

use fulmar_backbone::Inbox;
use fulmar_protocol::exchange::{Answer, Delivery, Happening, UserNotice};

/// The texts of events, and an empty text for every answer.
pub struct Ears(pub Sender<String>);

impl Inbox for Ears {
    fn has_room(&self) -> bool {
        true
    }

    fn deliver(&self, delivery: Arc<Delivery>) {
        if let Happening::Event { frame, .. } = &delivery.happening {
            // A test that has ended hears nothing.
            let _: Result<(), _> = self.0.send(frame.text().to_owned());
        }
    }

    fn notice(&self, _notice: Arc<UserNotice>) {}

    fn answer(&self, _answer: Answer) {
        let _: Result<(), _> = self.0.send(String::new());
    }
}
