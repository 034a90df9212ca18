//! OSS: a bucket of an object store that speaks OSS or S3 (Ref §6.5).

use paifang_resources::{
    ApiSpec, Method, ObjectAction as Action, OssBackend, OssDialect, OssSignature,
};
use paifang_snapshot::wire::{Call, ObjectAction, ObjectDialect, ObjectTarget, Target};

use super::{
    At, Kind, Referrer, Resolved, Resolver,
    server::{Server, parse_address, parse_credentials, parse_tls},
};
use crate::{
    Reason,
    parse::{Check, text},
};

/// What is written under `oss`.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Object {
    server: Server,
    dialect: ObjectDialect,
    bucket: String,
    region: String,
}

/// What an Api says under `object`; its key is the backend path.
pub(crate) fn parse_call(spec: &ApiSpec, check: &mut Check<'_>) -> Option<Call> {
    let object = spec.backend.object.as_ref()?;
    if spec.backend.path.is_some() {
        check.add(
            "spec.backend.path",
            Reason::Contradiction,
            "has no meaning for an object store: object.key says which object",
            "remove it",
        );
    }
    let (action, method) = match object.action {
        Action::GetObject => (ObjectAction::GetObject, Method::GET),
        Action::PutObject => (ObjectAction::PutObject, Method::PUT),
        Action::PostObject => (ObjectAction::PostObject, Method::POST),
        Action::AppendObject => (ObjectAction::AppendObject, Method::POST),
        Action::HeadObject => (ObjectAction::HeadObject, Method::HEAD),
        Action::GetObjectMeta => (ObjectAction::GetObjectMeta, Method::HEAD),
        Action::DeleteObject => (ObjectAction::DeleteObject, Method::DELETE),
    };
    if spec.request.method != method {
        check.add(
            "spec.backend.object.action",
            Reason::Contradiction,
            format!("{action:?} goes with request.method {method:?}"),
            "change one of the two",
        );
    }
    Some(Call::Object { action })
}

impl Kind for Object {
    type Written = OssBackend;

    fn parse(at: At<'_>, oss: &OssBackend, check: &mut Check<'_>) -> Option<Self> {
        let At { field, namespace } = at;
        let address = parse_address(&format!("{field}.endpoint"), &oss.endpoint, check);
        if !(3..=63).contains(&oss.bucket.len()) || !text::is_object_name(&oss.bucket) {
            check.add(
                format!("{field}.bucket"),
                Reason::InvalidValue,
                "is not the name of a bucket",
                "write lower-case letters, digits and `-`; 3 to 63",
            );
        }
        check.label(&format!("{field}.region"), &oss.region);
        let dialect = match (oss.dialect, oss.signature_version) {
            (OssDialect::OSS, OssSignature::V4) => ObjectDialect::OssV4,
            (OssDialect::OSS, OssSignature::V1) => ObjectDialect::OssV1,
            (OssDialect::S3, OssSignature::V4) => ObjectDialect::S3,
            (OssDialect::S3, OssSignature::V1) => {
                check.add(
                    format!("{field}.signatureVersion"),
                    Reason::Contradiction,
                    "V1 is a signature of OSS, and the dialect is S3",
                    "remove it",
                );
                return None;
            }
        };
        let reference = Some(&oss.credentials_ref);
        let credentials = parse_credentials(field, namespace, true, reference, check);
        let address = address?;
        let tls = parse_tls(field, namespace, oss.tls.as_ref(), address.scheme, check);
        Some(Self {
            server: Server {
                address,
                tls,
                credentials,
            },
            dialect,
            bucket: oss.bucket.clone(),
            region: oss.region.clone(),
        })
    }

    fn resolve(&self, from: Referrer<'_>, resolver: &mut Resolver<'_, '_>) -> Resolved {
        let shown = format!("{}/{}", self.server.address, self.bucket);
        let credentials = self.server.credentials.clone();
        self.server.resolve(from, "oss", shown, resolver, |origin| {
            let Some(credentials) = credentials else {
                let reason = "it has no credentialsRef".to_owned();
                return Target::Unavailable { reason };
            };
            Target::Object(ObjectTarget {
                origin,
                dialect: self.dialect,
                bucket: self.bucket.clone(),
                region: self.region.clone(),
                credentials,
            })
        })
    }
}
