//! The whole way from an edge to its receiver: what waits is on disk, survives the end of the node and is sent once it can be.

use super::*;

/// A folder that goes away with the test.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let folder = std::env::temp_dir().join(format!("fulmar-webhooks-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&folder);
        Self(folder)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// An inbox that passes answers on.
struct Answers(mpsc::UnboundedSender<Answer>);

impl Inbox for Answers {
    fn has_room(&self) -> bool {
        true
    }
    fn deliver(&self, _: Arc<Delivery>) {}
    fn notice(&self, _: Arc<UserNotice>) {}
    fn answer(&self, answer: Answer) {
        let _ = self.0.send(answer);
    }
}

/// A backbone with webhooks behind it.
struct World {
    webhooks: Arc<WebhookDesk>,
    backbone: memory::Memory,
    worker: WorkerId,
    answers: mpsc::UnboundedReceiver<Answer>,
}

impl World {
    fn new(folder: &Path, app: App) -> Self {
        let webhooks = Arc::new(WebhookDesk::new(Setup {
            folder: Some(folder.to_owned()),
            shared: None,
            clock: Clock::system(),
            resolver: Arc::new(Names::default()),
            egress: Egress::default(),
            open_files: 1_024,
        }));
        webhooks.set_apps([Arc::new(app)]).unwrap();
        let backbone = memory::Memory::new(1, 1 << 20, Arc::new(memory::SystemClock::default()));
        let backbone = backbone.with_outbox(webhooks.clone());
        let (tell, answers) = mpsc::unbounded_channel();
        let worker = backbone.attach(Arc::new(Answers(tell)));
        Self { webhooks, backbone, worker, answers }
    }

    fn join(&self, name: &str, user: Option<&str>) -> Option<Answer> {
        let member = |id| Member { user_id: UserId::parse(id, 128).unwrap(), user_info: None };
        self.backbone.ask(
            self.worker,
            Question::Join(Join {
                ticket: Ticket { session: 0, number: 0 },
                app: AppId::new("1"),
                channel: ChannelName::parse(name, 200).unwrap(),
                member: user.map(member),
                members_max: 10,
                counted: true,
            }),
        )
    }

    fn leave(&self, name: &str, user: Option<&str>) {
        let channel = ChannelName::parse(name, 200).unwrap();
        let user_id = user.map(|id| UserId::parse(id, 128).unwrap());
        let leave = Leave { app: AppId::new("1"), channel, user_id, counted: true };
        assert!(self.backbone.ask(self.worker, Question::Leave(leave)).is_none());
    }
}

fn told_at(urls: &[String]) -> App {
    let endpoints = urls.iter().map(|url| endpoint(url)).collect();
    App { webhooks: Webhooks { endpoints, ..anywhere() }, ..App::new("1", "k", "s") }
}

/// HOOK-13, HOOK-5
#[tokio::test(flavor = "multi_thread")]
async fn a_subscription_is_answered_when_its_edge_is_on_disk_and_its_receiver_hears_of_it() {
    let (address, mut told) = receiver(vec![ok()]).await;
    let folder = Folder::new("answered");
    let mut world = World::new(&folder.0, told_at(&[format!("http://{address}/")]));
    assert!(world.join("presence-a", Some("ana")).is_none(), "it must wait for the disk");
    let answer = timeout(Duration::from_secs(20), world.answers.recv()).await.unwrap().unwrap();
    assert!(matches!(answer, Answer::Joined { .. }));
    let heard = timeout(Duration::from_secs(20), told.recv()).await.unwrap().unwrap();
    for event in [
        r#"{"name":"channel_occupied","channel":"presence-a"}"#,
        r#"{"name":"member_added","channel":"presence-a","user_id":"ana"}"#,
        r#"{"name":"subscription_count","channel":"presence-a","subscription_count":1}"#,
    ] {
        assert!(heard.contains(event), "{heard}");
    }
    world.leave("presence-a", Some("ana"));
    let gone = timeout(Duration::from_secs(20), told.recv()).await.unwrap().unwrap();
    assert!(gone.contains("member_removed") && gone.contains("channel_vacated"), "{gone}");
    world.webhooks.stop();
    let contents = Store::open(&folder.0).unwrap().contents().unwrap();
    assert!(contents.batches.is_empty() && contents.restored.present.is_empty() && contents.restored.queued.is_empty());
}

/// HOOK-27
#[test]
fn apps_without_webhooks_make_no_file_and_wait_for_nothing() {
    let folder = Folder::new("none");
    let world = World::new(&folder.0, App::new("1", "k", "s"));
    assert!(matches!(world.join("presence-a", Some("ana")), Some(Answer::Joined { .. })));
    world.leave("presence-a", Some("ana"));
    assert!(!folder.0.exists());
    world.webhooks.set_apps([Arc::new(told_at(&["http://127.0.0.1:9/".to_owned()]))]).unwrap();
    assert!(world.join("room", None).is_none(), "from now on it is watched");
    assert!(folder.0.join(store::FILE).exists());
    world.webhooks.set_apps([]).unwrap();
    assert!(world.join("other", None).is_some(), "and from now on no longer");
    world.webhooks.stop();
}

/// HOOK-10, HOOK-14, HOOK-18
#[tokio::test(flavor = "multi_thread")]
async fn what_was_not_taken_before_the_end_is_sent_with_the_same_bytes_after_the_next_start() {
    let refusal = b"HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n".to_vec();
    let (address, mut told) = receiver(vec![refusal, ok()]).await;
    let folder = Folder::new("restart");
    let app = told_at(&[format!("http://{address}/")]);
    let mut world = World::new(&folder.0, app.clone());
    assert!(world.join("room", None).is_none());
    timeout(Duration::from_secs(20), world.answers.recv()).await.unwrap().unwrap();
    let first = timeout(Duration::from_secs(20), told.recv()).await.unwrap().unwrap();
    world.webhooks.stop();
    let world = World::new(&folder.0, app);
    let second = timeout(Duration::from_secs(20), told.recv()).await.unwrap().unwrap();
    assert_eq!(first, second);
    let vacated = timeout(Duration::from_secs(20), told.recv()).await.unwrap().unwrap();
    assert!(vacated.contains(r#"{"name":"channel_vacated","channel":"room"}"#), "{vacated}");
    world.webhooks.stop();
}

/// HOOK-17, HOOK-31
#[tokio::test(flavor = "multi_thread")]
async fn what_was_given_up_is_listed_and_sent_again_when_asked() {
    let (address, mut told) = receiver(vec![ok()]).await;
    let folder = Folder::new("replay");
    let app = told_at(&[format!("http://{address}/")]);
    let to = fulmar_engine::webhook_batch::Address { app: app.id.clone(), url: app.webhooks.endpoints[0].url.clone() };
    let old =
        Batch { body: r#"{"time_ms":1,"events":[{"name":"channel_occupied","channel":"a"}]}"#.into(), ..batch("") };
    let mut store = Store::open(&folder.0).unwrap();
    store.write(&[], &[Ended::GivenUp(to, Arc::new(old), 5)], 100).unwrap();
    drop(store);
    let world = World::new(&folder.0, app);
    let listed = world.webhooks.given_up().await.unwrap();
    assert_eq!((listed.len(), listed[0].batch.id, listed[0].at_unix_ms), (1, 7, 5));
    assert_eq!(world.webhooks.replay(Some(8)).await.unwrap(), 0);
    assert_eq!(world.webhooks.replay(None).await.unwrap(), 1);
    let heard = timeout(Duration::from_secs(20), told.recv()).await.unwrap().unwrap();
    assert!(
        heard.contains(r#""events":[{"name":"channel_occupied","channel":"a"}]}"#) && !heard.contains(":1,"),
        "{heard}"
    );
    assert!(heard.contains("-3,") && heard.contains("-4\r\n"), "the same event ids: {heard}");
    assert_eq!(world.webhooks.given_up().await.unwrap(), []);
    world.webhooks.stop();
}

/// HOOK-17
#[tokio::test(flavor = "multi_thread")]
async fn what_waited_through_a_long_night_is_sealed_anew() {
    let (address, mut told) = receiver(vec![ok()]).await;
    let folder = Folder::new("night");
    let app = told_at(&[format!("http://{address}/")]);
    let to = fulmar_engine::webhook_batch::Address { app: app.id.clone(), url: app.webhooks.endpoints[0].url.clone() };
    let old = Batch { body: r#"{"time_ms":1,"events":[{"name":"cache_miss","channel":"a"}]}"#.into(), ..batch("") };
    let mut store = Store::open(&folder.0).unwrap();
    let sealed = fulmar_engine::webhook_batch::Record::Sealed { to, batch: old, turns: Vec::new() };
    store.write(&[sealed], &[], 100).unwrap();
    drop(store);
    let world = World::new(&folder.0, app);
    let heard = timeout(Duration::from_secs(20), told.recv()).await.unwrap().unwrap();
    assert!(
        heard.contains(r#"[{"name":"cache_miss","channel":"a"}]}"#) && !heard.contains(r#""time_ms":1,"#),
        "{heard}"
    );
    world.webhooks.stop();
}

/// HOOK-20
#[tokio::test(flavor = "multi_thread")]
async fn what_waits_is_counted_by_endpoint_with_the_reason() {
    let folder = Folder::new("waits");
    let dead = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/", dead.local_addr().unwrap());
    drop(dead);
    let mut world = World::new(&folder.0, told_at(std::slice::from_ref(&url)));
    assert!(world.join("room", None).is_none());
    timeout(Duration::from_secs(20), world.answers.recv()).await.unwrap().unwrap();
    let waiting = timeout(Duration::from_secs(20), async {
        loop {
            let waiting = world.webhooks.waiting().await.unwrap();
            if waiting.first().is_some_and(|line| line.failures > 0) {
                return waiting;
            }
            tokio::task::yield_now().await;
        }
    });
    let waiting = waiting.await.unwrap();
    assert_eq!((waiting.len(), &*waiting[0].to.url, waiting[0].pending), (1, url.as_str(), 1));
    assert!(waiting[0].error.as_ref().unwrap().contains("cannot connect"), "{waiting:?}");
    assert!(world.webhooks.figures().attempts_failed >= 1);
    world.webhooks.stop();
}

/// HOOK-13
#[test]
fn a_folder_is_one_nodes_alone_and_its_owners() {
    use std::os::unix::fs::PermissionsExt;
    let folder = Folder::new("alone");
    let store = Store::open(&folder.0).unwrap();
    let again = Store::open(&folder.0).err().map(|error| error.to_string()).unwrap();
    assert!(again.contains("in use"), "{again}");
    assert_eq!(std::fs::metadata(&folder.0).unwrap().permissions().mode() & 0o777, 0o700);
    let stamp = store.stamp();
    drop(store);
    assert_eq!(Store::open(&folder.0).unwrap().stamp(), stamp, "identities go on under the same stamp");
}

/// A disk in memory that can be told to take nothing.
#[derive(Debug, Clone, Default)]
struct Disk {
    bytes: Arc<Mutex<Vec<u8>>>,
    is_full: Arc<AtomicBool>,
}

impl Disk {
    fn take<T>(&self, does: impl FnOnce(&mut Vec<u8>) -> T) -> io::Result<T> {
        match self.is_full.load(Ordering::SeqCst) {
            true => Err(io::Error::from(io::ErrorKind::StorageFull)),
            false => Ok(does(&mut self.bytes.lock().unwrap())),
        }
    }

    fn store(&self) -> Store {
        let disk = self.clone();
        Store::open_with(Box::new(move || {
            let opened = redb::Database::builder().create_with_backend(disk.clone());
            opened.map_err(|error| StoreError::Disk(Box::new(error.into())))
        }))
        .unwrap()
    }
}

impl redb::StorageBackend for Disk {
    fn len(&self) -> io::Result<u64> {
        Ok(self.bytes.lock().unwrap().len() as u64)
    }
    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let start = usize::try_from(offset).unwrap();
        out.copy_from_slice(&self.bytes.lock().unwrap()[start..start + out.len()]);
        Ok(())
    }
    fn set_len(&self, len: u64) -> io::Result<()> {
        self.take(|bytes| bytes.resize(usize::try_from(len).unwrap(), 0))
    }
    fn sync_data(&self) -> io::Result<()> {
        self.take(|_| ())
    }
    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let start = usize::try_from(offset).unwrap();
        self.take(|bytes| bytes[start..start + data.len()].copy_from_slice(data))
    }
}

/// HOOK-26
#[tokio::test(flavor = "multi_thread")]
async fn while_the_disk_takes_nothing_people_get_through_and_what_waits_is_written_when_it_does() {
    let disk = Disk::default();
    let store = disk.store();
    let (desk, counters) = (Arc::new(Desk::default()), Arc::new(Counters::default()));
    let (send, mut commands) = mpsc::unbounded_channel();
    let app = Arc::new(told_at(&["http://127.0.0.1:9/".to_owned()]));
    let clock = WebhookClock(Clock::system());
    let keeper = Keeper::start(desk.clone(), store, vec![app], Sending(send), clock, counters.clone()).unwrap();
    let running = thread::spawn(move || keeper.run());
    let (tell, mut answers) = mpsc::unbounded_channel();
    let inbox: Arc<dyn Inbox> = Arc::new(Answers(tell));
    let refused = || Answer::SignInRefused { ticket: Ticket { session: 0, number: 0 } };
    let came = |name: &str| {
        let subject = Subject::Channel(ChannelName::parse(name, 20).unwrap());
        vec![Edge { app: AppId::new("1"), change: Change::Came(subject) }]
    };
    disk.is_full.store(true, Ordering::SeqCst);
    assert!(desk.put_edges(came("room"), Some((inbox.clone(), refused()))).is_none());
    assert!(timeout(Duration::from_secs(20), answers.recv()).await.unwrap().is_some(), "answered all the same");
    assert!(counters.figures().store_failures >= 1);
    assert!(commands.try_recv().is_ok_and(|c| matches!(c, Command::Batches(handed) if handed.is_empty())));
    disk.is_full.store(false, Ordering::SeqCst);
    let handed = timeout(Duration::from_secs(20), async {
        loop {
            if let Some(Command::Batches(handed)) = commands.recv().await
                && let Some(first) = handed.into_iter().next()
            {
                return first;
            }
        }
    });
    assert!(handed.await.unwrap().batch.body.contains(r#""channel":"room""#));
    desk.put(Message::Stop);
    running.join().unwrap();
    assert_eq!(disk.store().contents().unwrap().batches.len(), 1);
}

/// HOOK-19: room is what is left, and only what informs is dropped.
#[test]
fn without_room_comings_and_goings_are_kept_and_the_rest_is_counted() {
    let folder = Folder::new("room");
    let world = World::new(&folder.0, App::new("1", "k", "s"));
    let outbox: &dyn Outbox = &*world.webhooks;
    let edge = |change| Edge { app: AppId::new("1"), change };
    let channel = || ChannelName::parse("a", 10).unwrap();
    // Nobody takes them: without webhooks no thread runs.
    outbox.take((0..keeper::EDGES_MAX).map(|_| edge(Change::CacheMissed(channel()))).collect());
    assert!(!outbox.has_room());
    outbox.take(vec![edge(Change::Counted(channel(), 1)), edge(Change::Went(Subject::Channel(channel())))]);
    assert_eq!(world.webhooks.figures().events_dropped, 1);
}
