//! EventBridge: a CloudEvents sink, or a bus of Alibaba EventBridge (Ref §6.6).

use std::collections::BTreeSet;

use paifang_resources::{
    AlibabaEventBus, ApiSpec, EventBridgeBackend, EventBusApi, EventMode, Location, RequestMode,
};
use paifang_snapshot::wire::{self, AlibabaBus, BusApi, Call, EventTarget, Target, TextPiece};

use super::{
    At, Kind, Referrer, Resolved, Resolver,
    server::{Place, Public, Server, Service},
};
use crate::{
    Reason,
    parse::{Check, text},
};

/// The events' `source` when none is written.
const DEFAULT_SOURCE: &str = "paifang";

/// What is written under `eventBridge`.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Event {
    server: Server,
    path: String,
    source: String,
    mode: wire::EventMode,
    /// Of Alibaba EventBridge, with what takes its events.
    bus: Option<(String, BusApi)>,
}

/// What an Api says under `event`.
pub(crate) fn parse_call(spec: &ApiSpec, check: &mut Check<'_>) -> Option<Call> {
    let event = spec.backend.event.as_ref()?;
    let field = "spec.backend.event.type";
    if event.type_.is_empty() {
        check.add(
            field,
            Reason::Required,
            "is empty",
            "write the CloudEvents type",
        );
    }
    check.length(field, Some(&event.type_), 256);
    check.length("spec.backend.event.subject", event.subject.as_deref(), 1024);
    let subject = event.subject.as_deref().unwrap_or_default();
    Some(Call::Event {
        kind: event.type_.clone(),
        subject: parse_subject(subject, spec, check),
    })
}

fn parse_subject(written: &str, spec: &ApiSpec, check: &mut Check<'_>) -> Vec<TextPiece> {
    let mut pieces = Vec::new();
    let mut rest = written;
    while let Some((before, after)) = rest.split_once('[') {
        let Some((name, behind)) = after.split_once(']') else {
            check.add(
                "spec.backend.event.subject",
                Reason::InvalidValue,
                "has a `[` without its `]`",
                "write `[name]` for the value of a parameter",
            );
            return pieces;
        };
        if !before.is_empty() {
            pieces.push(TextPiece::Text(before.to_owned()));
        }
        check_mentioned(name, spec, check);
        pieces.push(TextPiece::Parameter(name.to_owned()));
        rest = behind;
    }
    if !rest.is_empty() {
        pieces.push(TextPiece::Text(rest.to_owned()));
    }
    pieces
}

fn check_mentioned(name: &str, spec: &ApiSpec, check: &mut Check<'_>) {
    let field = "spec.backend.event.subject";
    let known: BTreeSet<&str> = spec
        .request
        .parameters
        .iter()
        .filter(|it| spec.request.mode != RequestMode::Passthrough || it.in_ == Location::Path)
        .map(|it| it.name.as_str())
        .collect();
    if !known.contains(name) {
        check.add(
            field,
            Reason::PathParameterMismatch,
            format!("`[{}]` is no parameter that this mode reads", text::short(name)),
            "declare it in spec.request.parameters; with mode Passthrough only path parameters are read",
        );
    }
}

fn check_mode(field: &str, written: &EventBridgeBackend, check: &mut Check<'_>) {
    if written.mode.is_some() && written.sink.is_none() {
        check.add(
            format!("{field}.mode"),
            Reason::Contradiction,
            "goes with `sink`: Alibaba EventBridge takes events in one form only",
            "remove it",
        );
    }
}

/// A `source` is a URI reference (CloudEvents §3.1), which strict sinks insist on.
fn check_source(field: &str, source: &str, signed: bool, check: &mut Check<'_>) {
    let field = if signed {
        format!("{field}.alibaba.source")
    } else {
        format!("{field}.source")
    };
    let allowed = |c: char| c.is_ascii_graphic() && !"\"<>\\^`{|}".contains(c);
    if source.is_empty() || !source.chars().all(allowed) {
        check.add(
            field,
            Reason::InvalidValue,
            "is no URI reference, as the source of an event has to be",
            "write a name or a URI without spaces, like `/orders` or `my.app`",
        );
    }
}

fn bus_api(alibaba: &AlibabaEventBus) -> BusApi {
    match alibaba.api.unwrap_or_default() {
        EventBusApi::Data => BusApi::Data,
        EventBusApi::Control => BusApi::Control,
    }
}

fn public(alibaba: &AlibabaEventBus) -> Public<'_> {
    match bus_api(alibaba) {
        BusApi::Data => Public::OfAccount(alibaba.account_id.as_deref(), |account, region| {
            format!("{account}.eventbridge.{region}.aliyuncs.com")
        }),
        // As the official client has it for each region that it knows.
        BusApi::Control => Public::OfRegion(format!(
            "eventbridge-console.{}.aliyuncs.com",
            alibaba.region
        )),
    }
}

impl Kind for Event {
    type Written = EventBridgeBackend;

    fn parse(at: At<'_>, written: &EventBridgeBackend, check: &mut Check<'_>) -> Option<Self> {
        let alibaba = written.alibaba.as_ref();
        let service = alibaba.map(|alibaba| Service {
            region: &alibaba.region,
            endpoint: alibaba.endpoint.as_deref(),
            public: public(alibaba),
        });
        let sink = ("sink", written.sink.as_deref());
        let credentials = written.credentials_ref.as_ref();
        let place = Place::parse(at, sink, service, credentials, check)?;
        let source = match alibaba {
            Some(alibaba) => alibaba.source.clone(),
            None => written
                .source
                .clone()
                .unwrap_or_else(|| DEFAULT_SOURCE.to_owned()),
        };
        check_mode(at.field, written, check);
        check_source(at.field, &source, alibaba.is_some(), check);
        let (server, path) = place.with_tls(at, written.tls.as_ref(), check);
        Some(Self {
            server,
            path,
            source,
            mode: match written.mode.unwrap_or_default() {
                EventMode::Binary => wire::EventMode::Binary,
                EventMode::Structured => wire::EventMode::Structured,
            },
            bus: alibaba.map(|alibaba| (alibaba.bus.clone(), bus_api(alibaba))),
        })
    }

    fn resolve(&self, from: Referrer<'_>, resolver: &mut Resolver<'_, '_>) -> Resolved {
        let address = &self.server.address;
        let shown = match &self.bus {
            Some((bus, _)) => format!("bus {bus} at {address}"),
            None => format!("{address}{}", self.path),
        };
        let credentials = self.server.credentials.clone();
        self.server
            .resolve(from, "eventBridge", shown, resolver, |origin| {
                Target::Event(EventTarget {
                    origin,
                    path: if self.path.is_empty() {
                        "/".to_owned()
                    } else {
                        self.path.clone()
                    },
                    source: self.source.clone(),
                    mode: self.mode,
                    alibaba: self
                        .bus
                        .clone()
                        .zip(credentials)
                        .map(|((bus, api), credentials)| AlibabaBus {
                            bus,
                            api,
                            credentials,
                        }),
                })
            })
    }
}
