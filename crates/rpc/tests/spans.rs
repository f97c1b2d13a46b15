//! Spans cross nodes with calls.
#![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]

#[allow(unreachable_pub, reason = "shared by tests")]
mod stations;

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use actix::{Actor, Handler, Message, ResponseFuture};
use bytes::Bytes;
use mainstay_base::NodeId;
use mainstay_rpc::{Config, Context, Incoming, Procedure, RpcHandle, Trace};
use serde::{Deserialize, Serialize};
use tokio::task::LocalSet;
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Metadata, Subscriber};

use stations::{Place, node, roster, station, within};

/// Goes on to the next node, so often.
#[derive(Serialize, Deserialize, Message)]
#[rtype(result = "Result<Vec<String>, String>")]
struct Hop(u32);

impl Procedure for Hop {
    const NAME: &'static str = "test.hop";
}

struct Relay;

impl Actor for Relay {
    type Context = actix::Context<Self>;
}

impl Handler<Incoming<Hop>> for Relay {
    type Result = ResponseFuture<Result<Vec<String>, String>>;

    fn handle(&mut self, hop: Incoming<Hop>, _: &mut Self::Context) -> Self::Result {
        Box::pin(relay(hop.arguments.0, hop.context))
    }
}

/// The context and the trace at each node.
async fn relay(left: u32, context: Context) -> Result<Vec<String>, String> {
    let mut told = vec![format!("{:?} {}", context.bytes(), context.trace().unwrap())];
    if left > 0 {
        let next = context.to(node(left as usize));
        told.extend(next.exactly_once(Hop(left - 1)).await.map_err(|it| it.to_string())?);
    }
    Ok(told)
}

type Fields = BTreeMap<&'static str, String>;

/// All spans, in the order in which they began.
#[derive(Clone, Default)]
struct Seen(Arc<(AtomicU64, Mutex<Vec<Fields>>)>);

struct Fill<'a>(&'a mut Fields);

impl Visit for Fill<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.0.insert(field.name(), format!("{value:?}"));
    }
}

impl Subscriber for Seen {
    fn enabled(&self, of: &Metadata<'_>) -> bool {
        of.target() == "mainstay_rpc"
    }

    fn new_span(&self, span: &Attributes<'_>) -> Id {
        let mut fields = Fields::from([("name", span.metadata().name().to_owned())]);
        span.record(&mut Fill(&mut fields));
        self.0.1.lock().unwrap().push(fields);
        Id::from_u64(self.0.0.fetch_add(1, Ordering::SeqCst) + 1)
    }

    fn record(&self, span: &Id, values: &Record<'_>) {
        let mut all = self.0.1.lock().unwrap();
        values.record(&mut Fill(&mut all[span.into_u64() as usize - 1]));
    }

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, _: &Event<'_>) {}

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

async fn nodes() -> Vec<RpcHandle> {
    let (roster, mut all) = (roster(4), Vec::new());
    for index in 0..4 {
        let config = Config::started_now();
        all.push(station(&roster, index, Place::Mounted, config, None).await.1);
    }
    // An actor at one, a function at another, and the third is called by itself.
    all[3].serve_incoming::<Hop>(Relay.start().recipient()).await.unwrap();
    for rpc in &all[1..3] {
        rpc.serve_fn(|Hop(left), context| relay(left, context)).await.unwrap();
    }
    all
}

/// A call from node 0 to 3, from there to 2, and to 1: each end has a span, and each span knows the one before it; all are of one trace, which the executions know, and
/// the bytes of the caller go along.
async fn with_spans(nodes: &[RpcHandle]) {
    let seen = Seen::default();
    let _guard = tracing::subscriber::set_default(seen.clone());
    let caller = nodes[0].to(node(3)).context(Bytes::from_static(b"mine"));
    let told = within(caller.exactly_once(Hop(2))).await.unwrap();
    let spans = seen.0.1.lock().unwrap().clone();
    let names: Vec<_> = spans.iter().map(|it| it["name"].as_str()).collect();
    assert_eq!(names, ["rpc.call", "rpc.execute"].repeat(3));
    let text = |node: NodeId| node.to_string();
    let ends =
        [("server", 3), ("client", 0), ("server", 2), ("client", 3), ("server", 1), ("client", 2)];
    let mut parent = None;
    for (span, (end, at)) in spans.iter().zip(ends) {
        assert_eq!(span[end], text(node(at)));
        assert_eq!(span["trace"], spans[0]["trace"]);
        assert_eq!(span.get("parent"), parent, "{span:?}");
        assert!(span["procedure"].contains("test.hop"));
        parent = Some(&span["span"]);
    }
    for (told, span) in told.iter().zip(spans.iter().skip(1).step_by(2)) {
        assert_eq!(*told, format!("b\"mine\" 00-{}-{}-01", span["trace"], span["span"]));
    }
    // Another call is another trace.
    within(caller.exactly_once(Hop(0))).await.unwrap();
    assert_ne!(seen.0.1.lock().unwrap()[6]["trace"], spans[0]["trace"]);
}

/// Nobody wants spans: a trace crosses all the same, as it came. A call of the own node has it too.
async fn without_spans(nodes: &[RpcHandle]) {
    let trace = Trace { trace: 7, span: 9 };
    for caller in [nodes[0].to(node(3)), nodes[3].to(node(3))] {
        let told = within(caller.traced(trace).exactly_once(Hop(2))).await.unwrap();
        assert_eq!(told, vec![format!("b\"\" {trace}"); 3]);
    }
}

/// One test: whether spans are wanted is of the whole process.
#[tokio::test]
async fn traces_cross_nodes() {
    let run = async {
        let nodes = nodes().await;
        without_spans(&nodes).await;
        with_spans(&nodes).await;
    };
    LocalSet::new().run_until(run).await;
}
