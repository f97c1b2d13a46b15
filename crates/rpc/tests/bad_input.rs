//! Bad input from users, what they may get wrong, and interceptors: each has its typed answer, and the connection lives.
#![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]

#[allow(unreachable_pub, reason = "shared by tests")]
mod stations;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use actix::Message;
use bytes::Bytes;
use mainstay_base::NodeId;
use mainstay_rpc::{
    Atomic, BODY_BYTES_MAX, CallError, CallInfo, Config, Context, Executed, Failure, Finish,
    Incoming, Interceptor, OpenError, Outcome, Procedure, Reason, Refusal, Resolver, RpcHandle,
};
use serde::{Deserialize, Serialize};
use tokio::task::LocalSet;

use stations::{Place, cluster, node, roster, station, within};

#[derive(Serialize, Deserialize, Message)]
#[rtype(result = "Result<u64, String>")]
struct Divide(u64, u64);

impl Procedure for Divide {
    const NAME: &'static str = "test.divide";
}

impl Atomic for Divide {}

/// The same name with other arguments.
#[derive(Serialize, Deserialize, Message)]
#[rtype(result = "Result<u64, String>")]
struct Words(String, String);

impl Procedure for Words {
    const NAME: &'static str = "test.divide";
}

/// A later version of it.
#[derive(Serialize, Deserialize, Message)]
#[rtype(result = "Result<u64, String>")]
struct Later(u64, u64);

impl Procedure for Later {
    const NAME: &'static str = "test.divide";
    const VERSION: u16 = 2;
}

#[derive(Serialize, Deserialize, Message)]
#[rtype(result = "Result<Bytes, String>")]
struct Blow(Bytes, u64);

impl Procedure for Blow {
    const NAME: &'static str = "test.blow";
}

#[derive(Serialize, Deserialize, Message)]
#[rtype(result = "Result<(), String>")]
struct Sleep(u64);

impl Procedure for Sleep {
    const NAME: &'static str = "test.sleep";
}

async fn two() -> (RpcHandle, RpcHandle) {
    let roster = roster(2);
    let (_, client) = station(&roster, 0, Place::Mounted, Config::started_now(), None).await;
    let (_, server) = station(&roster, 1, Place::Mounted, Config::started_now(), None).await;
    (client, server)
}

fn refused<E>(told: Result<impl Sized, CallError<E>>) -> Failure {
    match told {
        Err(CallError::Failed(failure)) => failure,
        _ => panic!("it is refused"),
    }
}

#[allow(clippy::unused_async, reason = "as the others")]
async fn divide(Divide(number, by): Divide) -> Result<u64, String> {
    Ok(number / by)
}

/// Each wrong call has an answer of its own, and the next one is served.
#[tokio::test]
async fn wrong_calls_are_answered() {
    let run = async {
        let (client, server) = two().await;
        server.serve_fn(|it, _| divide(it)).await.unwrap();
        let blow = |Blow(bytes, times): Blow, _| async move {
            Ok(Bytes::from(bytes.repeat(times as usize)))
        };
        server.serve_fn(blow).await.unwrap();
        let one = client.to(node(1));
        let not_at_all = |why| Failure::not_at_all(Reason::Refused(why));
        let words = within(one.exactly_once(Words("a".into(), "b".into()))).await;
        assert_eq!(refused(words), not_at_all(Refusal::Arguments));
        let later = within(one.exactly_once(Later(1, 1))).await;
        assert_eq!(refused(later), not_at_all(Refusal::Version));
        // More than the ids of a trace may take beside.
        let large = vec![7; BODY_BYTES_MAX + 64];
        let large = within(one.exactly_once(Blow(large.into(), 1))).await;
        assert_eq!(refused(large), Failure::not_at_all(Reason::TooLarge));
        let heavy = one.clone().context(vec![7; BODY_BYTES_MAX + 64].into());
        let heavy = within(heavy.exactly_once(Divide(1, 1))).await;
        assert_eq!(refused(heavy), Failure::not_at_all(Reason::TooLarge));
        let result = within(one.exactly_once(Blow(vec![7; 1 << 20].into(), 9))).await;
        let why = Reason::Refused(Refusal::ResultTooLarge);
        let executed = Executed::NotMoreThanOnce;
        assert_eq!(refused(result), Failure { executed, reason: why });
        assert_eq!(within(one.at_most_once(Divide(8, 2))).await, Ok(4));
    };
    LocalSet::new().run_until(run).await;
}

/// A procedure that panics, in its function or in its future, fails its own call and no other one.
#[tokio::test]
async fn a_panic_ends_its_own_execution() {
    let run = async {
        let (client, server) = two().await;
        let sync = |Divide(number, by), _| {
            let quotient = number / by;
            async move { Ok::<_, String>(quotient) }
        };
        server.serve_fn(sync).await.unwrap();
        let sleep = |Sleep(millis), _| async move {
            assert!(millis > 0, "as told");
            Ok(())
        };
        server.serve_fn(sleep).await.unwrap();
        for caller in [client.to(node(1)), server.to(node(1))] {
            let told = refused(within(caller.exactly_once(Divide(1, 0))).await);
            assert_eq!(told.executed, Executed::NotMoreThanOnce);
            let told = refused(within(caller.exactly_once(Sleep(0))).await);
            assert_eq!(told.executed, Executed::NotMoreThanOnce);
            assert_eq!(within(caller.exactly_once(Divide(6, 2))).await, Ok(3));
        }
    };
    LocalSet::new().run_until(run).await;
}

/// A handle is opened once; when it and its clones are gone, again.
#[tokio::test]
async fn a_service_has_one_handle() {
    let run = async {
        let (client, server) = two().await;
        let service = server.service().clone();
        let again = RpcHandle::open(service.clone(), cluster(), "n1").await;
        assert_eq!(again.err(), Some(OpenError::Taken));
        server.serve_fn(|it, _| divide(it)).await.unwrap();
        drop(server);
        let server = RpcHandle::open(service, cluster(), "n1").await.unwrap();
        let told = refused(within(client.to(node(1)).exactly_once(Divide(1, 1))).await);
        assert_eq!(told, Failure::not_at_all(Reason::Refused(Refusal::Procedure)));
        server.serve_fn(|it, _| divide(it)).await.unwrap();
        assert_eq!(within(client.to(node(1)).exactly_once(Divide(8, 2))).await, Ok(4));
    };
    LocalSet::new().run_until(run).await;
}

/// When the service is gone, calls say so.
#[tokio::test]
async fn calls_after_the_end() {
    let run = async {
        let roster = roster(2);
        let (one, client) = station(&roster, 0, Place::Mounted, Config::started_now(), None).await;
        client.serve_fn(|it, _| divide(it)).await.unwrap();
        assert_eq!(within(client.to(node(0)).exactly_once(Divide(8, 2))).await, Ok(4));
        let caller = client.to(node(1)).deadline(Duration::from_secs(60));
        let waiting = tokio::task::spawn_local(caller.exactly_once(Divide(1, 1)));
        tokio::task::yield_now().await;
        one.stop();
        one.closed().await;
        let told = refused(within(waiting).await.unwrap());
        assert_eq!(told.reason, Reason::Ended);
        let told = refused(within(caller.exactly_once(Divide(1, 1))).await);
        assert_eq!(told, Failure::not_at_all(Reason::Ended));
        // Nor is anything executed for the own node any more.
        let told = refused(within(client.to(node(0)).exactly_once(Divide(1, 1))).await);
        assert_eq!(told, Failure::not_at_all(Reason::Ended));
        assert!(within(client.drain()).await.is_err());
    };
    LocalSet::new().run_until(run).await;
}

async fn own_node(config: Config) {
    let roster = roster(1);
    let (_one, server) = station(&roster, 0, Place::Mounted, config, None).await;
    let running = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&running);
    let sleep = move |Sleep(millis), _| {
        let count = Arc::clone(&count);
        async move {
            struct Out(Arc<AtomicUsize>);
            impl Drop for Out {
                fn drop(&mut self) {
                    self.0.fetch_sub(1, Ordering::SeqCst);
                }
            }
            let before = count.fetch_add(1, Ordering::SeqCst);
            let _out = Out(count);
            tokio::time::sleep(Duration::from_millis(millis)).await;
            if before == 0 { Ok(()) } else { Err("beside another one".to_owned()) }
        }
    };
    server.serve_fn(sleep).await.unwrap();
    let own = server.to(node(0)).deadline(Duration::from_millis(50));
    let told = refused(within(own.exactly_once(Sleep(60_000))).await);
    assert_eq!(told.reason, Reason::Deadline);
    assert_eq!(running.load(Ordering::SeqCst), 0, "it had ended before its caller was told");
    let own = own.deadline(Duration::from_secs(10));
    let both = stations::futures((0..4).map(|_| own.exactly_once(Sleep(5))));
    assert!(within(both).await.into_iter().all(|it| it == Ok(())));
    let none = refused(own.clone().deadline(Duration::ZERO).exactly_once(Sleep(1)).await);
    assert_eq!(none, Failure::not_at_all(Reason::TooLate));
    own.clone().deadline(Duration::MAX).maybe(Sleep(0)).await.unwrap();
    while running.load(Ordering::SeqCst) > 0 {
        tokio::task::yield_now().await;
    }
}

/// Checks RPC-5, RPC-11 and RPC-20 at the own node: calls of a caller go one after the other, and one that is given up is stopped first.
#[tokio::test]
async fn calls_to_the_own_node() {
    LocalSet::new().run_until(own_node(Config::started_now())).await;
}

/// Calls on from the own node, and never ends.
struct Onward {
    begun: tokio::sync::mpsc::UnboundedSender<()>,
}

impl actix::Actor for Onward {
    type Context = actix::Context<Self>;
}

impl actix::Handler<Incoming<Divide>> for Onward {
    type Result = actix::ResponseFuture<Result<u64, String>>;

    fn handle(&mut self, call: Incoming<Divide>, _: &mut Self::Context) -> Self::Result {
        self.begun.send(()).unwrap();
        Box::pin(async move {
            let _ = call.context.to(node(1)).exactly_once(Sleep(60_000)).await;
            std::future::pending().await
        })
    }
}

/// Checks RPC-23 at the own node: what an execution had called elsewhere is taken back when its own caller gives up, or its time is over, though an
/// actor executes it and goes on.
#[tokio::test]
async fn calls_of_calls_to_the_own_node_are_taken_back() {
    let run = async {
        let (client, server) = two().await;
        let (begun, mut begins) = tokio::sync::mpsc::unbounded_channel();
        let onward = actix::Actor::start(Onward { begun: begun.clone() });
        client.serve_incoming(onward.recipient::<Incoming<Divide>>()).await.unwrap();
        let (ended, mut ends) = tokio::sync::mpsc::unbounded_channel();
        let sleep = move |Sleep(millis), _| {
            struct Out(tokio::sync::mpsc::UnboundedSender<()>);
            impl Drop for Out {
                fn drop(&mut self) {
                    self.0.send(()).unwrap();
                }
            }
            let (out, begun) = (Out(ended.clone()), begun.clone());
            async move {
                let _out = out;
                begun.send(()).unwrap();
                tokio::time::sleep(Duration::from_millis(millis)).await;
                Ok(())
            }
        };
        server.serve_fn(sleep).await.unwrap();
        // The actor never ends: in order, the next call would wait for it.
        let own = client.to(node(0)).unordered();
        for gives_up in [true, false] {
            let limit = Duration::from_millis(if gives_up { 20_000 } else { 2_000 });
            let call = own.clone().deadline(limit).exactly_once(Divide(1, 1));
            let call = tokio::task::spawn_local(call);
            for _ in 0..2 {
                within(begins.recv()).await.unwrap();
            }
            if gives_up {
                call.abort();
            } else {
                assert_eq!(refused(within(call).await.unwrap()).reason, Reason::Deadline);
            }
            within(ends.recv()).await.expect("it was taken back");
        }
    };
    LocalSet::new().run_until(run).await;
}

/// Checks RPC-5 and RPC-11: without the order of a caller at the own node the same scene fails.
#[cfg(feature = "test-util")]
#[tokio::test]
async fn calls_to_the_own_node_that_are_not_ordered_are_noticed() {
    let fault = Some(mainstay_rpc::fault::Fault::CrowdsLocals);
    let config = Config { fault, ..Config::started_now() };
    let run = async {
        let noticed = tokio::task::spawn_local(own_node(config)).await.unwrap_err();
        assert!(noticed.is_panic());
    };
    LocalSet::new().run_until(run).await;
}

/// Asks for a word in the context, adds it, and counts.
struct Guard {
    says: &'static [u8],
    wants: &'static [u8],
    seen: Arc<AtomicUsize>,
}

impl Interceptor for Guard {
    fn call(&self, info: &CallInfo, context: &mut Vec<u8>) -> Result<(), Failure> {
        if info.procedure == Sleep::NAME {
            return Err(Failure::not_at_all(Reason::Forbidden));
        }
        context.extend_from_slice(self.says);
        Ok(())
    }

    fn called(&self, _: &CallInfo, _: &Outcome, _: Duration) {
        self.seen.fetch_add(1, Ordering::SeqCst);
    }

    fn admit(&self, _: &CallInfo, context: &Context) -> bool {
        context.bytes() == self.wants
    }

    fn executed(&self, _: &CallInfo, result: &Finish, _: Duration) {
        assert!(matches!(result, Finish::Value(_)));
        self.seen.fetch_add(1, Ordering::SeqCst);
    }
}

struct Table;

impl Resolver for Table {
    fn resolve(&self, name: &str) -> Vec<NodeId> {
        if name == "calculator" { vec![node(1)] } else { Vec::new() }
    }
}

/// Interceptors see calls at both ends, and may refuse them; names are those of the resolver.
#[tokio::test]
async fn interceptors_and_names() {
    let run = async {
        let roster = roster(2);
        let mut handles = Vec::new();
        let seen = Arc::new(AtomicUsize::new(0));
        for index in 0..2 {
            let (one, first) =
                station(&roster, index, Place::Mounted, Config::started_now(), None).await;
            drop(first);
            let says: &'static [u8] = if index == 0 { b"sesame" } else { b"" };
            let guard = Guard { says, wants: b"sesame", seen: Arc::clone(&seen) };
            let service = one.service("rpc");
            let table = Box::new(Table);
            let open = RpcHandle::open_with(service, node(index), table, vec![Box::new(guard)]);
            handles.push(open.await.unwrap());
        }
        handles[1].serve_fn(|it, _| divide(it)).await.unwrap();
        let caller = handles[0].to_name("calculator").unwrap();
        assert_eq!(within(caller.exactly_once(Divide(8, 2))).await, Ok(4));
        assert_eq!(seen.load(Ordering::SeqCst), 2, "at both ends");
        let told = refused(within(handles[1].to(node(1)).exactly_once(Divide(8, 2))).await);
        assert_eq!(told, Failure::not_at_all(Reason::Refused(Refusal::Denied)));
        let told = refused(within(caller.exactly_once(Sleep(1))).await);
        assert_eq!(told, Failure::not_at_all(Reason::Forbidden));
        let none = handles[0].to_name("n1").unwrap_err();
        assert_eq!(none, Failure::not_at_all(Reason::Unresolved));
    };
    LocalSet::new().run_until(run).await;
}
