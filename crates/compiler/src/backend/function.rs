//! FunctionCompute: a function in the cluster or in Alibaba Function Compute (Ref §6.3, §6.4).

use paifang_resources::{
    ApiSpec, FunctionComputeBackend, FunctionComputeVersion, FunctionKind as WrittenKind,
};
use paifang_snapshot::wire::{AlibabaFunction, Call, FunctionKind, FunctionTarget, Target};

use super::{
    At, Kind, Referrer, Resolved, Resolver,
    server::{Server, check_either, parse_credentials, parse_endpoint, parse_tls, parse_url},
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
        let At { field, namespace } = at;
        let signed = written.alibaba.is_some();
        check_either(field, "url", written.url.is_some(), signed, check);
        let url = written
            .url
            .as_ref()
            .and_then(|url| parse_url(&format!("{field}.url"), url, check));
        let alibaba = written
            .alibaba
            .as_ref()
            .map(|alibaba| parse_alibaba(&format!("{field}.alibaba"), alibaba, check));
        let credentials = parse_credentials(
            field,
            namespace,
            signed,
            written.credentials_ref.as_ref(),
            check,
        );
        let (address, path, alibaba) = match (url, alibaba) {
            (Some((address, path)), None) => (address, path, None),
            (None, Some(Some((address, named)))) => (address, String::new(), Some(named)),
            _ => return None,
        };
        let tls = parse_tls(
            field,
            namespace,
            written.tls.as_ref(),
            address.scheme,
            check,
        );
        Some(Self {
            kind: match written.kind {
                WrittenKind::Event => FunctionKind::Event,
                WrittenKind::HTTP => FunctionKind::Http,
            },
            server: Server {
                address,
                tls,
                credentials,
            },
            path,
            alibaba,
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
                    alibaba: alibaba.map(|(named, credentials)| AlibabaFunction {
                        service: named.service.clone(),
                        function: named.function.clone(),
                        qualifier: named.qualifier.clone(),
                        credentials,
                    }),
                })
            })
    }
}

fn parse_alibaba(
    field: &str,
    alibaba: &paifang_resources::AlibabaFunction,
    check: &mut Check<'_>,
) -> Option<(paifang_model::Address, Named)> {
    let version2 = alibaba.version == FunctionComputeVersion::V2;
    if version2 != alibaba.service.is_some() {
        check.add(
            format!("{field}.service"),
            if version2 {
                Reason::Required
            } else {
                Reason::Contradiction
            },
            "functions of version 2.0 belong to a service, those of 3.0 do not",
            "add or remove it",
        );
    }
    check.label(&format!("{field}.region"), &alibaba.region);
    let region = &alibaba.region;
    let address = parse_endpoint(
        field,
        alibaba.endpoint.as_deref(),
        alibaba.account_id.as_deref(),
        |account| format!("{account}.{region}.fc.aliyuncs.com"),
        check,
    )?;
    let named = Named {
        service: alibaba.service.clone(),
        function: alibaba.function.clone(),
        qualifier: alibaba.qualifier.clone(),
    };
    Some((address, named))
}
