//! A member whose application on the site casts as much as it may at each turn.

use std::collections::BTreeSet;
use std::io;
use std::rc::Rc;
use std::time::{Duration, Instant as Clock};

use bytes::Bytes;
use mainstay_base::{GroupId, Instant, Level, NodeId, Order};
use mainstay_multicast::{Config, Event};
use mainstay_runtime::{Inbox, Intake, OsEntropy, Tcp, TcpOptions, TokioTime, inbox};
use mainstay_site::{AppPort, Application, Founding, SiteHandle, SiteParts, start};

use super::bulk::{Bulk, Load};
use super::{Counts, Options, orders};
use crate::cluster::ready;
use crate::process::say;

/// Most own bytes that are not known to be everywhere; the window of the link holds it more than twice.
const UNSTABLE_BYTES: usize = 8 << 20;
/// When a cast that was refused for want of room is tried again.
const RETRY: Duration = Duration::from_millis(1);

/// What the member is told to do.
enum Told {
    /// As many as may be on the way.
    Cast,
    Mark,
}

pub(super) async fn serve(options: Options) -> io::Result<()> {
    let (site, inbox) = site(options)?;
    let mut orders = orders();
    loop {
        let order = tokio::select! {
            order = orders.recv() => order,
            closed = site.closed() => {
                return Err(io::Error::other(format!("the site halted: {closed:?}")));
            }
        };
        let order = match order.as_deref() {
            Some("cast") => Told::Cast,
            Some("mark") => Told::Mark,
            Some("streamed") => {
                let bytes = site.service::<Bulk>("bulk 0").status().await;
                say(&format!("streamed {}", bytes.map_err(io::Error::other)?));
                continue;
            }
            Some(other) => return Err(io::Error::other(format!("not an order: {other:?}"))),
            None => return Ok(()),
        };
        inbox.send(1, order).await.map_err(|_| io::Error::other("the site has closed"))?;
    }
}

fn site(options: Options) -> io::Result<(SiteHandle, Inbox<Told>)> {
    let Options { seat, size, outstanding, level, services, bulk, .. } = options;
    let level = level.level();
    let names = seat.nodes();
    let nodes: BTreeSet<_> = names.keys().map(|name| NodeId::new(seat.cluster, name)).collect();
    let group = GroupId::new(seat.cluster, "bench");
    let me = NodeId::new(seat.cluster, &seat.name);
    let members = nodes.len();
    let config = Config::new(group, nodes)
        .deliver_at(level)
        .stateful(false)
        .unstable_bytes(UNSTABLE_BYTES)
        .build()
        .map_err(io::Error::other)?;
    let time = Rc::new(TokioTime::new());
    let mut tcp = TcpOptions::listening(seat.address()?);
    tcp.queue_bytes_max = 5 * UNSTABLE_BYTES;
    let transport = Box::new(Tcp::new(tcp, time.clone()).map_err(io::Error::other)?);
    let entropy = Box::new(OsEntropy);
    let mut parts = SiteParts::new(seat.cluster, seat.name, names, transport, time, entropy);
    parts.groups = vec![config];
    parts.window_bytes = 4 * UNSTABLE_BYTES;
    parts.founding = Founding::WithoutWaiting;
    parts.services = Some(Box::new(move |node| {
        (0..services).try_for_each(|number| {
            let rate = if number == 0 { bulk } else { 0 };
            node.mount::<Bulk>(&format!("bulk {number}"), Load { rate, burst: 1 }).map(drop)
        })
    }));
    let (orders, intake) = inbox(&parts.bell, group, 1 << 10);
    let payload = vec![7; size].into();
    let caster = Caster {
        me,
        members,
        level,
        payload,
        outstanding,
        intake,
        casting: false,
        cast: 0,
        reached: 0,
        retry_at: None,
        begun: None,
        counts: Counts::new(),
    };
    let site = start(parts, [(group, Box::new(caster) as Box<dyn Application>)]);
    Ok((site.map_err(io::Error::other)?, orders))
}

/// Keeps so many own casts on the way, and counts.
struct Caster {
    me: NodeId,
    members: usize,
    level: Level,
    payload: Bytes,
    outstanding: u64,
    intake: Intake<Told>,
    casting: bool,
    /// The number of the last cast, and that of the last one that reached the level.
    cast: u64,
    reached: u64,
    retry_at: Option<Instant>,
    /// When the one cast began, if there is only one at a time.
    begun: Option<Clock>,
    counts: Counts,
}

impl Caster {
    fn fill(&mut self, port: &mut AppPort<'_>) {
        while self.cast - self.reached < self.outstanding {
            if self.outstanding == 1 {
                self.begun = Some(Clock::now());
            }
            match port.cast(Order::Total, self.level, self.payload.clone()) {
                Ok(message) => self.cast = message.sequence,
                Err(_) => return self.retry_at = Some(port.now() + RETRY),
            }
        }
    }
}

impl Application for Caster {
    fn on_event(&mut self, event: Event, port: &mut AppPort<'_>) {
        match event {
            Event::Deliver(batch) => self.counts.delivered += batch.len() as u64,
            Event::View(view) => {
                self.counts.disturbed += 1;
                say(&format!("view {}", view.members.len()));
                if view.members.len() == self.members {
                    let sequencer = port.status().and_then(|group| group.sequencer);
                    say(&ready(sequencer.is_some_and(|site| site.node == self.me)));
                }
            }
            Event::Reached { level, upto, .. } if level == self.level => {
                self.reached = upto;
                if let Some(begun) = self.begun.take() {
                    self.counts.sample(begun.elapsed());
                }
            }
            _ => {}
        }
    }

    fn woken(&mut self, _port: &mut AppPort<'_>) {
        let mut told = Vec::new();
        self.intake.take(usize::MAX, &mut told);
        for (told, _place) in told {
            match told {
                Told::Cast => self.casting = true,
                Told::Mark => self.counts.mark(),
            }
        }
    }

    fn restarted(&mut self, _now: Instant) {
        self.counts.disturbed += 1;
        // The numbers of the next incarnation begin anew.
        (self.cast, self.reached) = (0, 0);
        (self.retry_at, self.begun) = (None, None);
    }

    fn end_turn(&mut self, port: &mut AppPort<'_>) {
        self.retry_at.take_if(|at| *at <= port.now());
        if self.casting && self.retry_at.is_none() && port.is_up() {
            self.fill(port);
        }
    }

    fn poll_timeout(&self) -> Option<Instant> {
        self.retry_at
    }
}
