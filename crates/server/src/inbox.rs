//! Where one worker hears of everything that does not come from its sockets.
//!
//! Pushing is a short lock and, only when the worker sleeps, one system call; a busy worker is never woken. Order is the
//! order of the pushes.

use std::collections::VecDeque;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use fulmar_backbone::Inbox;
use fulmar_engine::Figures;
use fulmar_protocol::app::{App, AppId};
use fulmar_protocol::exchange::{Answer, Delivery, UserNotice};
use mio::Waker;

use crate::fallback::line::{Line, Signal};
use crate::ws::handover::Handover;

/// What a worker can be told.
pub(crate) enum Message {
    /// From the backbone.
    Delivery(Arc<Delivery>),
    /// From the backbone.
    Notice(Arc<UserNotice>),
    /// From the backbone.
    Answer(Answer),
    /// A connection that was just upgraded.
    Connection(Box<Handover>),
    /// From the requests of an HTTP session.
    Fallback(Arc<Line>, Signal),
    /// An app is new or has other settings.
    AppReplaced(Arc<App>),
    /// An app is no longer served.
    AppRemoved(AppId),
    /// Say that everything pushed before this has been done.
    Settle(tokio::sync::mpsc::UnboundedSender<()>),
    /// Move all sessions away within this many milliseconds.
    Drain {
        /// The span.
        over_ms: u64,
    },
    /// End the loop; whatever is open is closed.
    Stop,
}

/// The queue of one worker.
pub(crate) struct WorkerInbox {
    queue: Mutex<VecDeque<Message>>,
    /// Deliveries pushed and not yet handled.
    deliveries: AtomicUsize,
    deliveries_max: usize,
    /// The worker is awake and will look into the queue before it sleeps.
    is_awake: AtomicBool,
    waker: Waker,
    /// Open connections of this worker, for whoever chooses the least loaded one.
    pub(crate) connections: AtomicUsize,
    /// What the worker had counted when it last looked around.
    figures: Mutex<Figures>,
}

impl WorkerInbox {
    pub(crate) fn new(waker: Waker, deliveries_max: usize) -> Self {
        Self {
            queue: Mutex::new(VecDeque::new()),
            deliveries: AtomicUsize::new(0),
            deliveries_max,
            is_awake: AtomicBool::new(false),
            waker,
            connections: AtomicUsize::new(0),
            figures: Mutex::default(),
        }
    }

    /// Says what the worker has counted: a few times a second, and never per delivery.
    pub(crate) fn note_figures(&self, figures: Figures) {
        *self.figures.lock().unwrap_or_else(PoisonError::into_inner) = figures;
    }

    /// What the worker has counted, about a second ago at most.
    pub(crate) fn figures(&self) -> Figures {
        *self.figures.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a message and wakes the worker if it sleeps.
    pub(crate) fn push(&self, message: Message) {
        self.locked().push_back(message);
        if !self.is_awake.swap(true, Ordering::SeqCst) {
            // The only failure is a full eventfd counter, and then a wake-up is pending anyway.
            let _: io::Result<()> = self.waker.wake();
        }
    }

    /// Hands a connection to this worker.
    pub(crate) fn adopt(&self, handover: Handover) {
        // Counted here and not when it is taken, so that a burst is spread although no worker has looked yet.
        self.connections.fetch_add(1, Ordering::Relaxed);
        self.push(Message::Connection(Box::new(handover)));
    }

    /// Takes everything into `into`, which must be empty.
    pub(crate) fn take(&self, into: &mut VecDeque<Message>) {
        std::mem::swap(&mut *self.locked(), into);
    }

    /// Says that one more of the deliveries taken has been handled.
    pub(crate) fn handled_delivery(&self) {
        self.deliveries.fetch_sub(1, Ordering::Relaxed);
    }

    /// Says that the worker is about to sleep. Answers `false` when something came in the meantime: then it must not.
    pub(crate) fn may_sleep(&self) -> bool {
        self.is_awake.store(false, Ordering::SeqCst);
        if self.locked().is_empty() {
            return true;
        }
        self.stay_awake();
        false
    }

    /// Says that the worker is awake and will look into the queue.
    pub(crate) fn stay_awake(&self) {
        self.is_awake.store(true, Ordering::SeqCst);
    }

    fn locked(&self) -> MutexGuard<'_, VecDeque<Message>> {
        // Nothing that can panic runs under this lock.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inbox for WorkerInbox {
    fn has_room(&self) -> bool {
        self.deliveries.load(Ordering::Relaxed) < self.deliveries_max
    }

    fn deliver(&self, delivery: Arc<Delivery>) {
        self.deliveries.fetch_add(1, Ordering::Relaxed);
        self.push(Message::Delivery(delivery));
    }

    fn notice(&self, notice: Arc<UserNotice>) {
        self.push(Message::Notice(notice));
    }

    fn answer(&self, answer: Answer) {
        self.push(Message::Answer(answer));
    }
}
