//! FunctionCompute: a function in the cluster or in Alibaba Function Compute (Ref §6.3, §6.4).

use paifang_resources::{
    AlibabaFunction, ApiSpec, FunctionComputeBackend, FunctionComputeVersion,
    FunctionKind as WrittenKind,
};
use paifang_snapshot::wire::{self, Call, FunctionKind, FunctionTarget, Target};

use super::{
    At, Kind, Referrer, Resolved, Resolver,
    server::{Place, Public, Server, Service},
};
use crate::{Reason, parse::Check};

/// What is written under `functionCompute`.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Function {
    kind: FunctionKind,
    server: Server,
    /// In front of the Api's path.
    path: String,
    alibaba: Option<Named>,
}

/// A function of Alibaba Function Compute.
#[derive(Debug, Clone, PartialEq)]
struct Named {
    service: Option<String>,
    function: String,
    qualifier: String,
}

/// What an Api says under `function`.
pub(crate) fn parse_call(spec: &ApiSpec) -> Option<Call> {
    let call = spec.backend.function.as_ref()?;
    Some(Call::Function {
        only_business_path: call.only_business_path,
    })
}

impl Kind for Function {
    type Written = FunctionComputeBackend;

    fn parse(at: At<'_>, written: &FunctionComputeBackend, check: &mut Check<'_>) -> Option<Self> {
        let alibaba = written.alibaba.as_ref();
        let service = alibaba.map(|alibaba| Service {
            region: &alibaba.region,
            endpoint: alibaba.endpoint.as_deref(),
            public: public(alibaba, written.kind),
        });
        let url = ("url", written.url.as_deref());
        let credentials = written.credentials_ref.as_ref();
        let place = Place::parse(at, url, service, credentials, check);
        if let Some(alibaba) = alibaba {
            check_service(&format!("{}.alibaba", at.field), alibaba, check);
        }
        let (server, path) = place?.with_tls(at, written.tls.as_ref(), check);
        Some(Self {
            kind: match written.kind {
                WrittenKind::Event => FunctionKind::Event,
                WrittenKind::HTTP => FunctionKind::Http,
            },
            server,
            path,
            alibaba: alibaba.map(|alibaba| Named {
                service: alibaba.service.clone().filter(|_| is_v2(alibaba)),
                function: alibaba.function.clone(),
                qualifier: alibaba.qualifier.clone(),
            }),
        })
    }

    fn resolve(&self, from: Referrer<'_>, resolver: &mut Resolver<'_, '_>) -> Resolved {
        let address = &self.server.address;
        let shown = match &self.alibaba {
            Some(named) => format!("function {} at {address}", named.function),
            None => format!("{address}{}", self.path),
        };
        let credentials = self.server.credentials.clone();
        self.server
            .resolve(from, "functionCompute", shown, resolver, |origin| {
                let alibaba = self.alibaba.as_ref().zip(credentials);
                Target::Function(FunctionTarget {
                    kind: self.kind,
                    origin,
                    path: self.path.clone(),
                    alibaba: alibaba.map(|(named, credentials)| wire::AlibabaFunction {
                        service: named.service.clone(),
                        function: named.function.clone(),
                        qualifier: named.qualifier.clone(),
                        credentials,
                    }),
                })
            })
    }
}

fn is_v2(alibaba: &AlibabaFunction) -> bool {
    alibaba.version == FunctionComputeVersion::V2
}

/// The API of either version is at an address of the account's, and so are the HTTP functions of 2.0. Those of 3.0 have addresses of
/// their own, in which Function Compute puts characters of its choice.
fn public(alibaba: &AlibabaFunction, kind: WrittenKind) -> Public<'_> {
    if kind == WrittenKind::HTTP && !is_v2(alibaba) {
        return Public::None("the address of the function's HTTP trigger");
    }
    let account = alibaba.account_id.as_deref();
    Public::OfAccount(account, |account, region| {
        format!("{account}.{region}.fc.aliyuncs.com")
    })
}

/// Functions of 2.0 are named with their service. In 3.0 there are none, and one that is written says nothing.
fn check_service(field: &str, alibaba: &AlibabaFunction, check: &mut Check<'_>) {
    if is_v2(alibaba) && alibaba.service.is_none() {
        check.add(
            format!("{field}.service"),
            Reason::Required,
            "is needed: functions of version 2.0 belong to a service",
            "write the service's name",
        );
    }
}
