//! All gateways of a soak, and the plan of what each does next.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashSet};
use std::time::Duration;

use super::Soak;
use super::gateway::{Act, Gateway, Kind, SIP_INTERVAL, some_ms};
use crate::cursor::Cursor;
use crate::lab::history::{End, Fingerprint, History};
use crate::lab::load::clock::now_ns;
use crate::lab::load::event::Shape;
use crate::lab::load::gauge::Gauge;
use crate::lab::load::http2::{Offer, Subscribe};
use crate::lab::load::latency::Latency;
use crate::lab::load::protocol::{self, Begin, Start};
use crate::lab::load::publishers::Pace;
use crate::lab::load::receivers::{Arrival, BrokenConnection, Receivers, StreamObserver};
use crate::lab::load::target::GalaxyPush;
use crate::lab::load::usage::Meter;
use crate::lab::load::workload::{LoadError, Moment, STANDSTILL_NS, TURN};

/// What a gateway that does not read lets be under way: little, so that the server
/// soon notices.
const SMALL_WINDOW_BYTES: u32 = 64 << 10;
/// A slow gateway takes this share of what it should.
const SLOW_SHARE: f64 = 0.5;

pub(super) struct Crowd {
    receivers: Receivers<Subscribe>,
    people: People,
    gauge: Gauge,
    stall: Duration,
    /// How much a slow gateway takes at once.
    sip_bytes: usize,
}

/// What the receivers' thread tells, and what follows from it.
struct People {
    gateways: Vec<Gateway>,
    history: History,
    shape: Shape,
    /// When, who, what, and for which connection.
    plan: BinaryHeap<Reverse<(u64, usize, Act, u64)>>,
    latency: Latency,
    delivered: u64,
    cut_by_server: u64,
    complaint: Option<String>,
    /// Whether all do nothing more but to come to the newest event.
    is_ending: bool,
}

/// What is left of a crowd.
pub(super) struct Done {
    pub(super) latency: Latency,
    pub(super) deliveries: u64,
    pub(super) cut_by_server: u64,
}

impl Crowd {
    pub(super) fn new(
        soak: &Soak,
        target: &GalaxyPush,
        history: &History,
        gauge: &Gauge,
    ) -> Result<Self, LoadError> {
        let gateways = gateways(soak);
        let small = Offer {
            window_bytes: SMALL_WINDOW_BYTES.min(target.offer.window_bytes),
            ..target.offer
        };
        let authority = target.gateways.authority();
        let consumers = gateways.iter().map(|gateway| {
            let offer = match gateway.kind {
                Kind::Slow | Kind::Stalled => small,
                _ => target.offer,
            };
            Subscribe::new(gateway.id.clone(), authority.clone(), offer)
                .authorization(target.authorization.clone())
        });
        let receivers = Receivers::new(&target.gateways, consumers)
            .map_err(|error| LoadError::System("cannot wait for sockets", error))?;
        let rate = match soak.plan.pace {
            Pace::PerSecond(rate) => rate,
            Pace::Full => f64::MAX,
        };
        let due_bytes = rate * soak.plan.shape.event_bytes() as f64 * SIP_INTERVAL.as_secs_f64();
        Ok(Crowd {
            receivers,
            people: People {
                gateways,
                history: history.clone(),
                shape: soak.plan.shape.clone(),
                plan: BinaryHeap::new(),
                latency: Latency::default(),
                delivered: 0,
                cut_by_server: 0,
                complaint: None,
                is_ending: false,
            },
            gauge: gauge.clone(),
            stall: soak.stall,
            sip_bytes: (due_bytes * SLOW_SHARE).clamp(64.0, 65_536.0) as usize,
        })
    }

    pub(super) fn moment(&self, meter: Option<Meter>) -> Moment {
        Moment::of(
            meter,
            self.gauge.accepted(),
            self.people.delivered,
            self.receivers.received_bytes(),
            self.receivers.reads(),
        )
    }

    /// Connects all of them, one of each pair first.
    pub(super) fn connect_all(&mut self) -> Result<(), LoadError> {
        self.gauge.begin_stage("connecting");
        for who in 0..self.people.gateways.len() {
            self.connect(who);
        }
        self.while_it_moves("all gateways are subscribed", |gateways| {
            gateways
                .iter()
                .all(|gateway| gateway.is_started || gateway.kind != Kind::Steady)
        })
    }

    /// Goes on until this time.
    pub(super) fn until(&mut self, then_ns: u64) -> Result<(), LoadError> {
        loop {
            let now_ns = now_ns();
            if now_ns >= then_ns {
                return Ok(());
            }
            let next_ns = self.act(now_ns).min(then_ns);
            let patience = Duration::from_nanos(next_ns.saturating_sub(now_ns));
            self.turn(patience.min(TURN))?;
        }
    }

    /// Lets everybody come to the newest event: nobody leaves or stalls any more. Of a
    /// pair of rivals one gives up, since both cannot be there.
    pub(super) fn catch_up(&mut self, newest: Option<Cursor>) -> Result<(), LoadError> {
        self.people.plan.clear();
        self.people.is_ending = true;
        let mut ids = HashSet::new();
        let mut staying = Vec::new();
        for who in 0..self.people.gateways.len() {
            let gateway = &mut self.people.gateways[who];
            if !ids.insert(gateway.id.clone()) {
                gateway.left(End::Cut);
                self.receivers.cut(who);
                continue;
            }
            staying.push(who);
            if gateway.is_started {
                self.receivers.resume(who);
            } else {
                self.connect(who);
            }
        }
        let is_behind = |gateway: &Gateway| !gateway.is_started || gateway.cursor < newest;
        let begun_ns = now_ns();
        loop {
            let behind = staying.iter().map(|who| &self.people.gateways[*who]);
            let Some(gateway) = behind.into_iter().find(|gateway| is_behind(gateway)) else {
                return Ok(());
            };
            if now_ns() - begun_ns > 2 * STANDSTILL_NS {
                return Err(LoadError::Standstill(format!(
                    "gateway {} is at {:?} and does not come to the newest event, {newest:?}",
                    gateway.id, gateway.cursor
                )));
            }
            // A gateway that lagged or was cut off meanwhile comes back.
            self.act(now_ns());
            self.turn(TURN)?;
        }
    }

    /// Ends every stream.
    pub(super) fn end(mut self) -> Done {
        for gateway in &mut self.people.gateways {
            gateway.left(End::Cut);
        }
        Done {
            latency: self.people.latency,
            deliveries: self.people.delivered,
            cut_by_server: self.people.cut_by_server,
        }
    }

    fn while_it_moves(
        &mut self,
        what: &str,
        is_done: impl Fn(&[Gateway]) -> bool,
    ) -> Result<(), LoadError> {
        let begun_ns = now_ns();
        while !is_done(&self.people.gateways) {
            self.act(now_ns());
            self.turn(TURN)?;
            if now_ns() - begun_ns > STANDSTILL_NS {
                return Err(LoadError::Standstill(format!(
                    "it takes too long until {what}"
                )));
            }
        }
        Ok(())
    }

    fn turn(&mut self, patience: Duration) -> Result<(), LoadError> {
        if self.gauge.is_stopped() {
            return Err(LoadError::Stopped);
        }
        self.receivers
            .turn(patience, &mut self.people)
            .map_err(|error| LoadError::System("cannot wait for sockets", error))?;
        self.gauge
            .set_delivered(self.people.delivered, self.receivers.received_bytes());
        match self.people.complaint.take() {
            Some(complaint) => Err(LoadError::Receiver(complaint)),
            None => Ok(()),
        }
    }

    fn connect(&mut self, who: usize) {
        let gateway = &mut self.people.gateways[who];
        gateway.connects(&self.people.history);
        let begin = gateway.cursor.map_or(Begin::Head, Begin::After);
        self.receivers.connect(who, begin);
    }

    /// Does what is due, and returns when the next is.
    fn act(&mut self, now_ns: u64) -> u64 {
        while let Some(Reverse((due_ns, who, act, connection))) = self.people.plan.peek().copied() {
            if due_ns > now_ns {
                return due_ns;
            }
            self.people.plan.pop();
            if self.people.gateways[who].connection == connection {
                self.act_one(who, act);
            }
        }
        u64::MAX
    }

    fn act_one(&mut self, who: usize, act: Act) {
        match act {
            Act::Connect => self.connect(who),
            Act::Leave => {
                let gateway = &mut self.people.gateways[who];
                gateway.left(End::Cut);
                let absence = gateway.absence();
                self.receivers.cut(who);
                self.people.later(who, Act::Connect, absence);
            }
            Act::Pause => {
                self.receivers.pause(who);
                self.people.later(who, Act::Resume, self.stall);
            }
            Act::Resume => {
                self.receivers.resume(who);
                self.people.later(who, Act::Pause, some_ms(500..2000));
            }
            Act::Sip => {
                self.receivers.pause(who);
                self.people.later(who, Act::Sip, SIP_INTERVAL);
                self.receivers.sip(who, self.sip_bytes, &mut self.people);
            }
        }
    }
}

/// The gateways of a mix, in an order in which they have nothing in common.
fn gateways(soak: &Soak) -> Vec<Gateway> {
    let mix = soak.mix;
    let kinds = [
        (Kind::Steady, "steady", mix.steady),
        (Kind::Slow, "slow", mix.slow),
        (Kind::Stalled, "stalled", mix.stalled),
        (Kind::Flapping, "flapping", mix.flapping),
        (Kind::Rival, "rivals", mix.rivals),
    ];
    let mut gateways = Vec::new();
    for (kind, name, number) in kinds {
        for n in 0..number {
            let id = format!("soak-{}-{name}-{n}", std::process::id());
            if kind == Kind::Rival {
                gateways.push(Gateway::new(id.clone(), kind));
            }
            gateways.push(Gateway::new(id, kind));
        }
    }
    gateways
}

impl People {
    fn later(&mut self, who: usize, act: Act, after: Duration) {
        let due_ns = now_ns() + after.as_nanos() as u64;
        let connection = self.gateways[who].connection;
        self.plan.push(Reverse((due_ns, who, act, connection)));
    }

    /// It comes back after a while.
    fn comes_back(&mut self, who: usize) {
        let absence = self.gateways[who].absence();
        self.later(who, Act::Connect, absence);
    }

    fn complain(&mut self, what: Result<(), String>) {
        if let Err(what) = what {
            self.complaint.get_or_insert(what);
        }
    }
}

impl StreamObserver for People {
    fn started(&mut self, who: usize, _now_ns: u64, start: &Start) {
        let started = self.gateways[who].started(start);
        self.complain(started);
        if let Some((act, after)) = self.gateways[who].first_act()
            && !self.is_ending
        {
            self.later(who, act, after);
        }
    }

    fn event(&mut self, who: usize, at: Arrival, event: &[u8], cursor: Option<Cursor>) {
        self.delivered += 1;
        let gateway = &mut self.gateways[who];
        gateway.cursor = cursor;
        if let (Some(stream), Some(cursor)) = (gateway.stream(), cursor) {
            stream.received([(cursor, Fingerprint::of(event))]);
        }
        if gateway.kind == Kind::Steady
            && let Some(stamp) = self.shape.stamp(event)
        {
            self.latency.record(at.read_ns.saturating_sub(stamp.due_ns));
        }
    }

    fn ended(&mut self, who: usize, end: &protocol::End) {
        let ended = self.gateways[who].ended(end);
        let is_stall = end.code == protocol::End::DEADLINE_EXCEEDED && ended.is_ok();
        self.cut_by_server += u64::from(is_stall);
        self.complain(ended);
        self.comes_back(who);
    }

    fn broken(&mut self, who: usize, error: &BrokenConnection) {
        let gateway = &mut self.gateways[who];
        gateway.left(End::Cut);
        let what = match error {
            BrokenConnection::Io(_) | BrokenConnection::Closed if gateway.may_stall() => Ok(()),
            error => Err(format!("gateway {}: {error}", gateway.id)),
        };
        self.cut_by_server += u64::from(what.is_ok());
        self.complain(what);
        self.comes_back(who);
    }
}
