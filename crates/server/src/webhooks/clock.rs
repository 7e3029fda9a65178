//! The time, for the keeper and the sender: one clock for waiting, the date for `time_ms`.

use fulmar_engine::Moment;
use fulmar_engine::webhook_batch::Now;

use crate::http::clock::Clock;

/// Both clocks. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct WebhookClock(pub(super) Clock);

impl WebhookClock {
    pub(super) fn now(&self) -> Now {
        Now { moment: Moment(self.0.elapsed_ms()), unix_ms: self.0.unix_ms() }
    }
}
