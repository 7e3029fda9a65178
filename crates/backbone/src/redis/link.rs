//! One connection to one server, and its life: connecting, asking in order, being pushed to, ending, connecting again.
//!
//! A link is a task. Whoever owns the [`Link`] asks with tickets and hears [`Happening`]s through one queue, in the order
//! they happened; it decides nothing, keeps no time but that of connecting, and repeats no question: what was asked on a
//! connection that has ended is answered [`Lost`]. The driver is the `redis` crate without its own ideas of whom to connect to.

mod greeting;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Cmd, PushInfo, PushKind, RedisError, Value};
use tokio::sync::mpsc;

pub use self::greeting::{Certificates, Greeting, maker};

/// Longest a connection may take to be made, its first questions included.
const CONNECT_TIMEOUT: Duration = Duration::from_millis(1_000);
/// Pause before connecting again: short at first, because Sentinel closes connections of healthy servers as well.
const PAUSE_FIRST: Duration = Duration::from_millis(20);
/// Longest pause before connecting again.
const PAUSE_MAX: Duration = Duration::from_millis(250);
/// Questions that may be on their way at once; the rest waits in the link.
const IN_FLIGHT_MAX: usize = 1_024;

/// What is said of a connection that its owner gave up: the owner knows why.
pub const GIVEN_UP: &str = "given up";

/// Which link, chosen by its owner.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LinkId(pub u32);

/// Who a server says it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Server {
    /// Changes whenever it is started.
    pub run: String,
    /// Whether it takes writes.
    pub is_primary: bool,
}

/// What is asked of a server.
#[derive(Debug)]
pub enum Ask {
    /// A command.
    Command(Cmd),
    /// Subscribing to these channels; answered when all are confirmed.
    Subscribe(Vec<String>),
    /// Ending subscriptions.
    Unsubscribe(Vec<String>),
    /// Subscribing in Redis Cluster, to channels of one slot that this server has. The first refusal is the answer.
    SubscribeInShare(Vec<String>),
    /// Ending those.
    UnsubscribeInShare(Vec<String>),
}

/// The connection has ended before the answer came: it may have happened or not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lost;

/// What happened on a link.
#[derive(Debug)]
pub enum Happening {
    /// It is connected. Questions are asked with this generation from now on.
    Up {
        /// Rises with each connection.
        generation: u32,
        /// Who the server says it is; `None` for Sentinels.
        server: Option<Server>,
    },
    /// It could not be connected, or the connection has ended.
    Down {
        /// What the operating system or the server said.
        why: String,
    },
    /// An answer; the server's own refusals are in `Ok`, as [`Value::ServerError`].
    Reply {
        /// From the question.
        ticket: u64,
        /// What came.
        outcome: Result<Value, Lost>,
    },
    /// A message on a subscribed channel.
    Pushed {
        /// The channel.
        channel: Value,
        /// The message.
        message: Value,
    },
}

/// A happening and where.
pub type Event = (LinkId, Happening);

/// The owner's end of a link. Dropping it closes the connection.
#[derive(Debug)]
pub struct Link {
    orders: mpsc::UnboundedSender<Order>,
    waiting: Arc<Waiting>,
    generation: Option<u32>,
}

/// Pushed messages that the owner has not looked at.
#[derive(Debug)]
struct Waiting {
    count: AtomicUsize,
    max: usize,
    has_overflown: AtomicBool,
    /// Ends of subscriptions in a share that were asked for and not confirmed. What comes beyond them is the server's own word
    /// that the slot is another's now; it would also pass for the answer to something else, so the connection ends with it.
    ends: AtomicUsize,
    has_moved: AtomicBool,
}

impl Waiting {
    fn new(max: usize) -> Self {
        let (count, has_overflown, ends, has_moved) = Default::default();
        Self { count, max, has_overflown, ends, has_moved }
    }
}

#[derive(Debug)]
enum Order {
    Ask { generation: u32, ticket: u64, ask: Ask },
    Reset { generation: u32 },
}

impl Link {
    /// Starts connecting to `address` (`host:port`). At most `pushes_max` pushed messages wait; beyond it the connection is
    /// dropped. Must be called within a tokio runtime.
    pub fn open(
        id: LinkId,
        address: &str,
        greeting: &Greeting,
        pushes_max: usize,
        events: mpsc::UnboundedSender<Event>,
    ) -> Self {
        let (orders, ordered) = mpsc::unbounded_channel();
        let waiting = Arc::new(Waiting::new(pushes_max));
        let task =
            Task { id, address: address.to_owned(), greeting: greeting.clone(), events, waiting: waiting.clone() };
        tokio::spawn(task.run(ordered));
        Self { orders, waiting, generation: None }
    }

    /// To be called with every happening of this link, before it is acted upon.
    pub fn note(&mut self, happening: &Happening) {
        match happening {
            Happening::Up { generation, .. } => self.generation = Some(*generation),
            Happening::Down { .. } => self.generation = None,
            Happening::Pushed { .. } => {
                self.waiting.count.fetch_sub(1, Ordering::Relaxed);
            }
            Happening::Reply { .. } => {}
        }
    }

    /// Whether it is connected, as far as the owner was told.
    #[must_use]
    pub fn is_up(&self) -> bool {
        self.generation.is_some()
    }

    /// Asks, if it is connected. The answer comes as a [`Happening::Reply`].
    #[must_use]
    pub fn ask(&self, ticket: u64, ask: Ask) -> bool {
        let Some(generation) = self.generation else { return false };
        self.orders.send(Order::Ask { generation, ticket, ask }).is_ok()
    }

    /// Gives the present connection up and makes a new one.
    pub fn reset(&self) {
        if let Some(generation) = self.generation {
            // A task that has ended has no connection to give up.
            let _: Result<(), _> = self.orders.send(Order::Reset { generation });
        }
    }
}

struct Task {
    id: LinkId,
    address: String,
    greeting: Greeting,
    events: mpsc::UnboundedSender<Event>,
    waiting: Arc<Waiting>,
}

type Asked = BoxFuture<'static, (u64, Result<Value, RedisError>)>;

impl Task {
    async fn run(self, mut orders: mpsc::UnboundedReceiver<Order>) {
        let mut generation = 0;
        let mut pause = PAUSE_FIRST;
        // The same for connections that end as soon as they are made: whoever is refused what it asks first would be again.
        let mut pause_made = PAUSE_FIRST;
        loop {
            let (gone, mut is_gone) = mpsc::channel(1);
            let why = match tokio::time::timeout(CONNECT_TIMEOUT, self.connect(gone)).await {
                Ok(Ok((connection, server))) => {
                    generation += 1;
                    let up_since = tokio::time::Instant::now();
                    self.tell(Happening::Up { generation, server });
                    let over = self.serve(connection, generation, &mut orders, &mut is_gone).await;
                    if up_since.elapsed() >= PAUSE_MAX {
                        pause_made = PAUSE_FIRST;
                    }
                    pause = pause_made;
                    pause_made = (pause_made * 2).min(PAUSE_MAX);
                    match over {
                        Some(why) => why,
                        None => return,
                    }
                }
                Ok(Err(error)) => words(&error),
                Err(_) => format!("no answer within {} ms", CONNECT_TIMEOUT.as_millis()),
            };
            self.tell(Happening::Down { why });
            let jittered = pause.mul_f64(0.5 + fastrand::f64());
            if !self.pause(jittered, &mut orders).await {
                return;
            }
            pause = (pause * 2).min(PAUSE_MAX);
        }
    }

    fn tell(&self, happening: Happening) {
        // Without an owner there is nobody to tell; the task ends when it next looks for orders.
        let _: Result<(), _> = self.events.send((self.id, happening));
    }

    fn lost(&self, order: Order) {
        if let Order::Ask { ticket, .. } = order {
            self.tell(Happening::Reply { ticket, outcome: Err(Lost) });
        }
    }

    /// Waits, answering what is asked meanwhile; false when the owner is gone.
    async fn pause(&self, pause: Duration, orders: &mut mpsc::UnboundedReceiver<Order>) -> bool {
        let over = tokio::time::sleep(pause);
        tokio::pin!(over);
        loop {
            tokio::select! {
                () = &mut over => return true,
                order = orders.recv() => match order {
                    Some(order) => self.lost(order),
                    None => return false,
                },
            }
        }
    }

    async fn connect(&self, gone: mpsc::Sender<()>) -> Result<(MultiplexedConnection, Option<Server>), RedisError> {
        let maker = maker(&self.address, &self.greeting)?;
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(None)
            .set_response_timeout(None)
            .set_pipeline_buffer_size(IN_FLIGHT_MAX)
            .set_push_sender(self.pushed(gone));
        let mut connection = maker.get_multiplexed_async_connection_with_config(&config).await?;
        let server = if self.greeting.asks_who { Some(who(&mut connection).await?) } else { None };
        Ok((connection, server))
    }

    fn pushed(&self, gone: mpsc::Sender<()>) -> impl Fn(PushInfo) -> Result<(), Lost> + Send + Sync + 'static {
        let (id, events, waiting) = (self.id, self.events.clone(), self.waiting.clone());
        move |PushInfo { kind, data }| match kind {
            PushKind::Message | PushKind::SMessage => {
                let mut data = data.into_iter();
                let (Some(channel), Some(message)) = (data.next(), data.next()) else { return Ok(()) };
                if waiting.count.fetch_add(1, Ordering::Relaxed) >= waiting.max {
                    waiting.count.fetch_sub(1, Ordering::Relaxed);
                    waiting.has_overflown.store(true, Ordering::Relaxed);
                    // Full means that it was said before.
                    let _: Result<(), _> = gone.try_send(());
                    return Err(Lost);
                }
                events.send((id, Happening::Pushed { channel, message })).map_err(|_| Lost)
            }
            PushKind::SUnsubscribe => {
                let ends = |count: usize| count.checked_sub(1);
                if waiting.ends.fetch_update(Ordering::Relaxed, Ordering::Relaxed, ends).is_err() {
                    waiting.has_moved.store(true, Ordering::Relaxed);
                    let _: Result<(), _> = gone.try_send(());
                }
                Ok(())
            }
            PushKind::Disconnection => {
                let _: Result<(), _> = gone.try_send(());
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// Asks and hears until the connection ends, and says why; `None` when the owner is gone.
    async fn serve(
        &self,
        connection: MultiplexedConnection,
        generation: u32,
        orders: &mut mpsc::UnboundedReceiver<Order>,
        gone: &mut mpsc::Receiver<()>,
    ) -> Option<String> {
        self.waiting.ends.store(0, Ordering::Relaxed);
        let mut asked: FuturesUnordered<Asked> = FuturesUnordered::new();
        let mut tickets = std::collections::BTreeSet::new();
        let why = loop {
            tokio::select! {
                biased;
                Some((ticket, outcome)) = asked.next() => {
                    tickets.remove(&ticket);
                    match outcome {
                        Ok(value) => self.tell(Happening::Reply { ticket, outcome: Ok(value) }),
                        Err(error) => {
                            self.tell(Happening::Reply { ticket, outcome: Err(Lost) });
                            break words(&error);
                        }
                    }
                }
                order = orders.recv() => match order {
                    None => return None,
                    Some(Order::Reset { generation: of }) if of == generation => break GIVEN_UP.to_owned(),
                    Some(Order::Ask { generation: of, ticket, ask }) if of == generation => {
                        tickets.insert(ticket);
                        if let Ask::UnsubscribeInShare(channels) = &ask {
                            self.waiting.ends.fetch_add(channels.len(), Ordering::Relaxed);
                        }
                        asked.push(put(connection.clone(), ticket, ask));
                    }
                    Some(stale) => self.lost(stale),
                },
                _ = gone.recv() => {
                    let overflown = self.waiting.has_overflown.swap(false, Ordering::Relaxed);
                    let moved = self.waiting.has_moved.swap(false, Ordering::Relaxed);
                    let why = if overflown { "too many messages waited" } else { "the server closed it" };
                    break if moved { "the slot is another server's now" } else { why }.to_owned();
                }
            }
        };
        for ticket in tickets {
            self.tell(Happening::Reply { ticket, outcome: Err(Lost) });
        }
        Some(why)
    }
}

/// The server's own words where it refused, as it says them; otherwise what the operating system or TLS says.
fn words(error: &RedisError) -> String {
    match (error.code(), error.detail()) {
        (Some(code), Some(detail)) => format!("{code} {detail}"),
        _ => error.to_string(),
    }
}

/// Questions are first polled in the order they were pushed, and that is when they are queued in the connection.
fn put(mut connection: MultiplexedConnection, ticket: u64, ask: Ask) -> Asked {
    Box::pin(async move {
        let outcome = match ask {
            Ask::Command(command) => connection.send_packed_command(&command).await,
            Ask::Subscribe(channels) => connection.subscribe(channels).await.map(|()| Value::Okay),
            Ask::Unsubscribe(channels) => connection.unsubscribe(channels).await.map(|()| Value::Okay),
            Ask::SubscribeInShare(channels) => one_by_one(&mut connection, "SSUBSCRIBE", channels).await,
            Ask::UnsubscribeInShare(channels) => one_by_one(&mut connection, "SUNSUBSCRIBE", channels).await,
        };
        (ticket, outcome)
    })
}

/// Each channel has a command of its own, because each is confirmed by itself.
async fn one_by_one(
    connection: &mut MultiplexedConnection,
    name: &str,
    channels: Vec<String>,
) -> Result<Value, RedisError> {
    let mut pipe = redis::pipe();
    for channel in &channels {
        pipe.cmd(name).arg(channel);
    }
    let answers = connection.send_packed_commands(&pipe, 0, channels.len()).await?;
    Ok(answers.into_iter().find(|answer| matches!(answer, Value::ServerError(_))).unwrap_or(Value::Okay))
}

/// Whether a refusal with this code says that the server is not the one to ask.
#[must_use]
pub fn is_wrong_server(code: &str) -> bool {
    matches!(
        code,
        "READONLY"
            | "LOADING"
            | "MASTERDOWN"
            | "WRONGGROUP"
            | "STALEEPOCH"
            | "NOIDENTITY"
            | "MOVED"
            | "ASK"
            | "TRYAGAIN"
            | "CLUSTERDOWN"
    )
}

async fn who(connection: &mut MultiplexedConnection) -> Result<Server, RedisError> {
    let unexpected = || RedisError::from((redis::ErrorKind::UnexpectedReturnType, "it does not say who it is"));
    let role = connection.send_packed_command(&redis::cmd("ROLE")).await?.extract_error()?;
    let info = connection.send_packed_command(redis::cmd("INFO").arg("server")).await?.extract_error()?;
    let is_primary = is_primary(&role).ok_or_else(unexpected)?;
    let info: String = redis::from_redis_value(info).map_err(|_| unexpected())?;
    let run = info.lines().find_map(|line| line.strip_prefix("run_id:")).ok_or_else(unexpected)?;
    Ok(Server { run: run.trim().to_owned(), is_primary })
}

/// Reads the answer to `ROLE`: whether the server takes writes.
#[must_use]
pub fn is_primary(role: &Value) -> Option<bool> {
    let Value::Array(parts) = role else { return None };
    match parts.first()? {
        Value::BulkString(word) => Some(word == b"master"),
        Value::SimpleString(word) => Some(word == "master"),
        _ => None,
    }
}
